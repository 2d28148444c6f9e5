//! Debian's cloud kernels, pinned by the hashes of their packages and unpacked into a cache folder.
//!
//! The folder is `$OUTLIVE_KERNELS`, or `outlive/kernels` in the user's cache folder. Debian's mirror is
//! the one that the machine's own apt configuration names.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::fs::{FlockOperation, flock};
use sha2::{Digest, Sha256};

use crate::Error;
use crate::initramfs::output;

/// A version and its packages: newer kernels are split over several.
struct Pin {
    version: &'static str,
    /// Package name before the version, and the SHA-256 of the `.deb`.
    packages: &'static [(&'static str, &'static str)],
}

const PINS: [Pin; 4] = [
    Pin {
        version: "7.3.4+deb13",
        packages: &[
            (
                "linux-binary",
                "c4fbc8e404958693b28825474c20742d70594d65ca58aea7be6a279c81eb6fa0",
            ),
            (
                "linux-modules",
                "359f04c363b7d3c5f9ce999ccb7351e00cc8eec0a30d6bc1cda37734987fc43d",
            ),
            (
                "linux-base",
                "e08baa43706ba6e8daff58029b039f46beecfb3b3750c6fa0d6d5ca508a46a43",
            ),
        ],
    },
    Pin {
        version: "7.2.13+deb14",
        packages: &[
            (
                "linux-binary",
                "03e41f1c34c16583462f029e81944a85ebcdb78098c258dedfa1cfdd680a27f8",
            ),
            (
                "linux-modules",
                "97d79546041e3fdfb44dccff180938894d1bf8eb298f091f88539c1b37080bef",
            ),
            (
                "linux-base",
                "c41b217e1a4e321f5eff028e965ea25f5da8a74cd3683ca7f4bacedc59e0ecc5",
            ),
        ],
    },
    Pin {
        version: "6.18.15+deb13",
        packages: &[(
            "linux-image",
            "5a507681ea8c978d02265a7fec2f02c9588fb48b54b7f71edc1059e86007f3ec",
        )],
    },
    Pin {
        version: "6.12.107+deb13",
        packages: &[(
            "linux-image",
            "04434ff520f860423eafe4203d986a35682ce73c2f71baa39e988ca0da93ac91",
        )],
    },
];

/// Where Debian keeps kernels of these versions.
const SUITES: [&str; 4] = ["bookworm-backports", "trixie", "trixie-backports", "sid"];
const FLAVOUR: &str = "cloud-amd64";

/// A kernel, unpacked.
#[derive(Debug, Clone)]
pub struct Kernel {
    version: String,
    folder: PathBuf,
}

impl Kernel {
    /// The pinned kernel whose version begins like this, such as `7.3.4` or `6.12`. Fetched with apt and
    /// unpacked if it is not there yet, which takes some seconds.
    ///
    /// # Errors
    /// It is not pinned, not offered any more or not the one that was pinned, or cannot be fetched.
    pub fn pinned(version: &str) -> Result<Self, Error> {
        let Some(pin) = PINS.iter().find(|pin| pin.version.starts_with(version)) else {
            return Err(Error::NotPinned {
                version: version.to_owned(),
                pinned: PINS.map(|pin| pin.version).join(", "),
            });
        };
        let cache = cache_folder();
        fs::create_dir_all(&cache).map_err(Error::io("cannot make", &cache))?;
        // One process fetches, the others wait.
        let lock = cache.join("lock");
        let lock = File::create(&lock).map_err(Error::io("cannot make", &lock))?;
        flock(&lock, FlockOperation::LockExclusive)
            .map_err(|e| Error::io("cannot lock", &cache)(e.into()))?;
        let kernel = Self {
            version: pin.version.to_owned(),
            folder: cache.join(pin.version),
        };
        if !kernel.vmlinuz().exists() {
            fetch(pin, &cache, &kernel.folder)?;
        }
        Ok(kernel)
    }

    /// All versions that are pinned, newest first.
    pub fn versions() -> impl Iterator<Item = &'static str> {
        PINS.iter().map(|pin| pin.version)
    }

    /// Debian's version of it, such as `7.3.4+deb13`.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.version
    }

    /// The image that is booted.
    #[must_use]
    pub fn vmlinuz(&self) -> PathBuf {
        self.folder.join("vmlinuz")
    }

    /// Its configuration.
    #[must_use]
    pub fn config(&self) -> PathBuf {
        self.folder.join("config")
    }

    /// The processor that QEMU has to be for it. 6.12 swaps its free lists with `cmpxchg16b`, behind which
    /// emulation (QEMU 7.2) leaves wrong flags: without that instruction it takes another way.
    /// `erms` would have kernels copy and clear with `rep movsb` and `rep stosb`, which emulation
    /// does byte by byte.
    pub(crate) fn cpu_model(&self) -> &'static str {
        if self.version.starts_with("6.12.") {
            "qemu64,-cx16"
        } else {
            "max,-erms"
        }
    }

    /// The folder of its modules.
    #[must_use]
    pub fn modules(&self) -> PathBuf {
        self.folder.join("modules")
    }
}

fn cache_folder() -> PathBuf {
    let own = std::env::var_os("OUTLIVE_KERNELS").map(PathBuf::from);
    own.unwrap_or_else(|| {
        let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
        let home = || PathBuf::from(std::env::var_os("HOME").unwrap_or_else(|| "/tmp".into()));
        cache
            .unwrap_or_else(|| home().join(".cache"))
            .join("outlive/kernels")
    })
}

/// Fetches, checks and unpacks a kernel's packages; the folder appears when all is there.
fn fetch(pin: &Pin, cache: &Path, folder: &Path) -> Result<(), Error> {
    let work = tempfile::tempdir_in(cache).map_err(Error::io("cannot make a folder in", cache))?;
    let apt = Apt::new(cache)?;
    let root = work.path().join("root");
    for (name, hash) in pin.packages {
        let package = format!("{name}-{}-{FLAVOUR}", pin.version);
        let deb = apt.download(&package, work.path())?;
        check_hash(&package, &deb, hash)?;
        output(Command::new("dpkg").arg("-x").arg(&deb).arg(&root))?;
    }
    let unpacked = work.path().join("unpacked");
    fs::create_dir(&unpacked).map_err(Error::io("cannot make", &unpacked))?;
    let release = format!("{}-{FLAVOUR}", pin.version);
    let modules = root.join("usr/lib/modules").join(&release);
    let boot = root.join("boot");
    let take = |places: [PathBuf; 2], name: &str| {
        let from = places.into_iter().find(|place| place.exists());
        let from = from.unwrap_or_else(|| boot.join(name));
        fs::rename(&from, unpacked.join(name)).map_err(Error::io("cannot take", &from))
    };
    for name in ["vmlinuz", "config"] {
        take(
            [modules.join(name), boot.join(format!("{name}-{release}"))],
            name,
        )?;
    }
    take([modules.clone(), modules.clone()], "modules")?;
    fs::rename(&unpacked, folder).map_err(Error::io("cannot make", folder))
}

fn check_hash(package: &str, deb: &Path, pinned: &str) -> Result<(), Error> {
    let bytes = fs::read(deb).map_err(Error::io("cannot read", deb))?;
    let hash = Sha256::digest(&bytes);
    let found: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
    if found == pinned {
        return Ok(());
    }
    Err(Error::WrongHash {
        package: package.to_owned(),
        found,
        pinned: pinned.to_owned(),
    })
}

/// apt with lists of its own, for suites that the machine does not use.
struct Apt {
    options: Vec<String>,
}

impl Apt {
    fn new(cache: &Path) -> Result<Self, Error> {
        let state = cache.join("apt");
        for folder in ["lists/partial", "cache/archives/partial"] {
            let folder = state.join(folder);
            fs::create_dir_all(&folder).map_err(Error::io("cannot make", &folder))?;
        }
        let sources = state.join("sources.list");
        let mirror = debian_mirror()?;
        let mut file = File::create(&sources).map_err(Error::io("cannot make", &sources))?;
        for suite in SUITES {
            writeln!(
                file,
                "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] {mirror} {suite} main"
            )
            .map_err(Error::io("cannot write", &sources))?;
        }
        let options = [
            format!("-oDir::Etc::SourceList={}", sources.display()),
            "-oDir::Etc::SourceParts=/dev/null".to_owned(),
            format!("-oDir::State::Lists={}", state.join("lists").display()),
            format!("-oDir::Cache={}", state.join("cache").display()),
            "-oAPT::Sandbox::User=root".to_owned(),
        ];
        let this = Self {
            options: options.into(),
        };
        output(this.command("apt-get").args(["update", "-qq"]))?;
        Ok(this)
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.args(&self.options);
        command
    }

    fn download(&self, package: &str, folder: &Path) -> Result<PathBuf, Error> {
        let mut command = self.command("apt-get");
        command
            .args(["download", "-qq", package])
            .current_dir(folder);
        if let Err(error) = output(&mut command) {
            let offered = self.offered()?;
            if offered
                .iter()
                .any(|version| package.contains(version.as_str()))
            {
                return Err(error);
            }
            return Err(Error::NotOffered {
                package: package.to_owned(),
                offered: offered.join(", "),
            });
        }
        let debs = fs::read_dir(folder).map_err(Error::io("cannot read", folder))?;
        let mut debs = debs.flatten().map(|entry| entry.path());
        debs.find(|path| path.to_string_lossy().contains(&format!("/{package}_")))
            .ok_or_else(|| {
                Error::io("apt did not leave", folder)(std::io::ErrorKind::NotFound.into())
            })
    }

    /// Versions of the kernels that Debian has now.
    fn offered(&self) -> Result<Vec<String>, Error> {
        let pattern = format!("^linux-image-[67][0-9.]*\\+.*{FLAVOUR}$");
        let mut command = self.command("apt-cache");
        let found = output(command.args(["search", "--names-only", &pattern]))?;
        let version = |line: &str| {
            let name = line.split(' ').next()?;
            let version = name.strip_prefix("linux-image-")?;
            Some(version.strip_suffix(&format!("-{FLAVOUR}"))?.to_owned())
        };
        Ok(found.lines().filter_map(version).collect())
    }
}

/// The mirror of Debian that the machine uses: the first one that apt's sources name.
fn debian_mirror() -> Result<String, Error> {
    let parts = fs::read_dir("/etc/apt/sources.list.d")
        .into_iter()
        .flatten();
    let mut files: Vec<PathBuf> = parts.flatten().map(|entry| entry.path()).collect();
    files.push("/etc/apt/sources.list".into());
    let texts = files
        .iter()
        .filter_map(|file| fs::read_to_string(file).ok());
    // `mirror+file:///etc/apt/mirrors/debian.list`, as Debian's cloud images have it, is one too.
    let is_mirror = |word: &&str| {
        let word = word.trim_end_matches('/').trim_end_matches(".list");
        word.contains("://") && word.ends_with("/debian")
    };
    let mut mirrors = texts.filter_map(|text| {
        let mirror = text.split_whitespace().find(is_mirror)?;
        Some(mirror.trim_end_matches('/').to_owned())
    });
    mirrors.next().ok_or(Error::NoMirror)
}

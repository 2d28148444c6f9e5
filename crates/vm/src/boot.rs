//! One run of a machine, and what it left.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::TempDir;

use crate::initramfs::Initramfs;
use crate::{Error, Kernel, modules};

/// What every guest does first: file systems, modules, then the boot's own script.
const INIT: &str = "\
#!/bin/sh
export PATH=/bin
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev
mount -t tracefs tracefs /sys/kernel/tracing; mount -t tmpfs tmp /tmp; mount -t tmpfs run /run
mkdir -p /dev/shm; mount -t tmpfs shm /dev/shm
[ -z \"$(ls /modules 2>/dev/null)\" ] || for m in /modules/*; do insmod $m; done
. /script
save; poweroff -f
";

/// Sends everything under `/out` to the host.
const SAVE: &str = "#!/bin/sh\ntar -C /out -cf /dev/vport0p1 .; sync\n";

/// Saves what the kernel shows of every tracefs instance: `collect NAME`.
const COLLECT: &str = include_str!("collect.sh");

/// What every guest is told: a console, a reset one second after a panic, and the kernel where it was.
/// The emulated timer is late on a busy machine, and 6.12 panics then unless told not to look.
/// Without mitigations and cleared pages an emulated boot takes a fifth less.
const LINE: &str =
    "console=ttyS0 loglevel=5 panic=1 no_timer_check mitigations=off init_on_alloc=0";

/// A run of a machine: command line, programs, files, script.
///
/// The script is sourced by the guest's init, busybox's `sh`, with proc, sysfs, devtmpfs and tracefs
/// mounted and the modules loaded. Whatever it leaves under `/out` is sent to the host when it ends,
/// and before that whenever it says `save` (before a crash, say). `collect NAME` saves what the kernel
/// shows of every tracefs instance in `/out/NAME`. Then the guest powers off.
#[derive(Debug, Clone)]
pub struct Boot {
    pub(crate) cmdline: String,
    script: String,
    programs: Vec<(String, PathBuf)>,
    files: Vec<(String, Vec<u8>)>,
    modules: Vec<String>,
    is_kaslr_off: bool,
    pub(crate) qemu: Vec<String>,
    pub(crate) reset_at: Option<String>,
    /// Formats and files.
    pub(crate) dumps: Vec<(String, PathBuf)>,
    pub(crate) timeout: Duration,
}

impl Boot {
    /// A boot with this kernel command line, behind one that gives it a console and has a panic reset
    /// the machine after a second. KASLR is off, so that memory is where it was.
    #[must_use]
    pub fn new(cmdline: &str) -> Self {
        Self {
            cmdline: cmdline.to_owned(),
            script: String::new(),
            programs: Vec::new(),
            files: Vec::new(),
            modules: Vec::new(),
            is_kaslr_off: true,
            qemu: Vec::new(),
            reset_at: None,
            dumps: Vec::new(),
            timeout: Duration::from_mins(10),
        }
    }

    /// What the guest does; appended to what was given before.
    #[must_use]
    pub fn script(mut self, script: &str) -> Self {
        self.script.push_str(script);
        self.script.push('\n');
        self
    }

    /// A program of the host as `/bin/NAME`, with the libraries that it links.
    #[must_use]
    pub fn program(mut self, name: &str, program: impl AsRef<Path>) -> Self {
        self.programs
            .push((format!("bin/{name}"), program.as_ref().to_owned()));
        self
    }

    /// A file, by its path in the guest.
    #[must_use]
    pub fn file(mut self, name: &str, contents: impl Into<Vec<u8>>) -> Self {
        self.files.push((name.to_owned(), contents.into()));
        self
    }

    /// A module of the kernel and those that it depends on, loaded before the script.
    #[must_use]
    pub fn module(mut self, name: &str) -> Self {
        self.modules.push(name.to_owned());
        self
    }

    /// More arguments for QEMU, such as a device.
    #[must_use]
    pub fn qemu<S: AsRef<str>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        let args = args.into_iter().map(|arg| arg.as_ref().to_owned());
        self.qemu.extend(args);
        self
    }

    /// With the kernel at a random address.
    #[must_use]
    pub fn with_kaslr(mut self) -> Self {
        self.is_kaslr_off = false;
        self
    }

    /// The machine is reset from outside, in the middle of whatever it does, when its console shows
    /// this text.
    #[must_use]
    pub fn reset_at(mut self, text: &str) -> Self {
        self.reset_at = Some(text.to_owned());
        self
    }

    /// Before it is reset from outside, its memory is dumped to this file by QEMU's `dump-guest-memory` in
    /// one of its formats: `elf` is a vmcore, `kdump-zlib` a flattened and compressed dump.
    #[must_use]
    pub fn dump(mut self, format: &str, file: impl AsRef<Path>) -> Self {
        let file = file.as_ref().to_owned();
        self.dumps.push((format.to_owned(), file));
        self
    }

    /// How long the guest is waited for; 10 minutes unless said otherwise.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    pub(crate) fn line(&self) -> String {
        let kaslr = if self.is_kaslr_off { " nokaslr" } else { "" };
        format!("{LINE}{kaslr} {}", self.cmdline)
    }

    pub(crate) fn initramfs(&self, kernel: &Kernel) -> Result<Vec<u8>, Error> {
        let mut initramfs = Initramfs::with_busybox()?;
        initramfs.file("init", INIT.as_bytes());
        initramfs.file("bin/save", SAVE.as_bytes());
        initramfs.file("bin/collect", COLLECT.as_bytes());
        initramfs.file("script", self.script.as_bytes());
        for (name, program) in &self.programs {
            initramfs.program(name, program)?;
        }
        for (name, contents) in &self.files {
            initramfs.file(name, contents);
        }
        let modules = modules::with_dependencies(kernel, &self.modules)?;
        for (order, (name, module)) in modules.iter().enumerate() {
            initramfs.file(&format!("modules/{order:02}-{name}.ko"), module);
        }
        Ok(initramfs.finish())
    }
}

/// How a boot ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The guest powered off.
    PowerOff,
    /// The guest reset itself: a reboot, a panic.
    Reset,
    /// A fault that the processor could not tell the guest of reset it: under emulation QEMU's log says so.
    TripleFault,
    /// The watchdog reset it.
    Watchdog,
    /// It was reset from outside: see [`Boot::reset_at`].
    ResetFromOutside,
}

/// What a boot left.
#[derive(Debug)]
pub struct Outcome {
    /// How it ended.
    pub end: End,
    /// All that the console showed.
    pub console: String,
    pub(crate) results: TempDir,
}

impl Outcome {
    /// The folder with what the guest sent of its `/out`.
    #[must_use]
    pub fn results(&self) -> &Path {
        self.results.path()
    }

    /// A result's bytes.
    ///
    /// # Errors
    /// [`Error::NoResult`].
    pub fn bytes(&self, name: &str) -> Result<Vec<u8>, Error> {
        std::fs::read(self.results().join(name)).map_err(|_| {
            let there = std::fs::read_dir(self.results()).into_iter().flatten();
            let names = there
                .flatten()
                .map(|e| e.file_name().to_string_lossy().into_owned());
            Error::NoResult {
                name: name.to_owned(),
                there: names.collect::<Vec<_>>().join(", "),
                console: last_lines(&self.console),
            }
        })
    }

    /// A result as text; bytes that are none are replaced.
    ///
    /// # Errors
    /// [`Error::NoResult`].
    pub fn text(&self, name: &str) -> Result<String, Error> {
        Ok(String::from_utf8_lossy(&self.bytes(name)?).into_owned())
    }
}

/// The end of a console, for messages.
pub(crate) fn last_lines(console: &str) -> String {
    const LINES: usize = 30;
    let lines: Vec<&str> = console.lines().collect();
    lines[lines.len().saturating_sub(LINES)..].join("\n")
}

//! Regions that kernels left, unpacked for the command to read.
#![allow(dead_code, reason = "each test uses some of it")]

pub(crate) mod regions;
pub(crate) mod trace_dat;

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use flate2::read::GzDecoder;
use serde_json::Value;
use tempfile::TempDir;

pub(crate) fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures")
}

pub(crate) fn gunzip(path: &Path) -> Vec<u8> {
    let file = std::fs::File::open(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let mut bytes = Vec::new();
    GzDecoder::new(file).read_to_end(&mut bytes).unwrap();
    bytes
}

pub(crate) fn outlive(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_outlive"))
        .args(args)
        .output()
        .unwrap()
}

/// A region unpacked into a file, and the arguments that decode it.
pub(crate) struct Unpacked {
    _folder: TempDir,
    pub(crate) region: String,
    pub(crate) formats: String,
}

impl Unpacked {
    pub(crate) fn new(region: &Path, formats: &Path) -> Self {
        let folder = TempDir::new().unwrap();
        let file = folder.path().join("region.bin");
        std::fs::write(&file, gunzip(region)).unwrap();
        Self {
            region: file.to_str().unwrap().to_owned(),
            formats: formats.to_str().unwrap().to_owned(),
            _folder: folder,
        }
    }

    pub(crate) fn of_kernel(name: &str) -> Self {
        let fixture = fixtures().join(name);
        Self::new(&fixture.join("region.bin.gz"), &fixture.join("events"))
    }

    /// The 256 KiB region. It is of the kernel of the 7.3.4 fixture, at another address.
    pub(crate) fn golden() -> Self {
        Self::new(
            &fixtures().join("golden/2-region-256KiB-2cpu.bin.gz"),
            &fixtures().join("7.3.4-2cpu-1M/events"),
        )
    }

    /// The same, decoded with a `print fmt` of `sched_switch` that calls a function of the kernel.
    pub(crate) fn with_unevaluated_switch(self) -> Self {
        let formats = self._folder.path().join("events");
        let mut copy = Command::new("cp");
        let status = copy
            .arg("-r")
            .args([&self.formats, formats.to_str().unwrap()]);
        assert!(status.status().unwrap().success());
        let format = formats.join("sched/sched_switch/format");
        let text = std::fs::read_to_string(&format).unwrap();
        let (fields, _) = text.split_once("print fmt: ").unwrap();
        let print_fmt = "print fmt: \"%s\", kernel_says(REC->prev_pid)\n";
        std::fs::remove_file(&format).unwrap();
        std::fs::write(&format, format!("{fields}{print_fmt}")).unwrap();
        Self {
            formats: formats.to_str().unwrap().to_owned(),
            ..self
        }
    }

    /// One of the regions of `fixtures/regions`, whose kernels crashed.
    pub(crate) fn of_crash(name: &str) -> Self {
        let folder = TempDir::new().unwrap();
        let archive = fixtures().join(format!("regions/{name}.tar.xz"));
        let tar = Command::new("tar")
            .arg("-xJf")
            .arg(archive)
            .arg("-C")
            .arg(folder.path())
            .status();
        assert!(tar.unwrap().success());
        let path = |name| folder.path().join(name).to_str().unwrap().to_owned();
        Self {
            region: path("region.bin"),
            formats: path("events"),
            _folder: folder,
        }
    }
}

/// The Python with the packages that `cargo xtask setup` installs.
pub(crate) fn python() -> Option<PathBuf> {
    let python = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/python/bin/python");
    if !python.exists() {
        println!("skipped: no target/python; `cargo xtask setup` installs it");
        return None;
    }
    Some(python)
}

/// The system's own Python, for which babeltrace2's library is packaged; `None` without that.
pub(crate) fn babeltrace_python() -> Option<PathBuf> {
    let python = Path::new("/usr/bin/python3");
    let import = Command::new(python).args(["-c", "import bt2"]).output();
    let has = import.is_ok_and(|output| output.status.success());
    if !has {
        println!("skipped: no python3-bt2; `cargo xtask setup` installs it");
    }
    has.then(|| python.to_owned())
}

/// The JSON that one of the scripts of this folder prints.
pub(crate) fn script(python: &Path, name: &str, args: &[&str]) -> Value {
    let script = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests")
        .join(name);
    // Spark computes local times in the machine's time zone.
    let output = Command::new(python)
        .env("TZ", "UTC")
        .arg(script)
        .args(args)
        .output();
    let output = output.unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{name} {args:?}: {stderr}");
    serde_json::from_slice(&output.stdout).unwrap()
}

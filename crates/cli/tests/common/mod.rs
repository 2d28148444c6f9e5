//! Regions that kernels left, unpacked for the command to read.
#![allow(dead_code, reason = "each test uses some of it")]

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use flate2::read::GzDecoder;
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

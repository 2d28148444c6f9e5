//! `setup`: what the tests and benches need beside Rust.

use std::process::Command;

use anyhow::{Result, bail};

use crate::run::{has_program, run};

/// A program, and the Debian package that has it.
const NEEDED: [(&str, &str); 10] = [
    ("trace-cmd", "trace-cmd"),
    ("perf", "linux-perf"),
    ("stress-ng", "stress-ng"),
    ("valgrind", "valgrind"),
    ("strace", "strace"),
    ("systemd-analyze", "systemd"),
    ("qemu-system-x86_64", "qemu-system-x86"),
    ("busybox", "busybox-static"),
    ("xz", "xz-utils"),
    ("mkfs.ext4", "e2fsprogs"),
];

pub(crate) fn setup() -> Result<()> {
    let missing: Vec<&str> = NEEDED
        .iter()
        .filter(|(program, _)| !has_program(program))
        .map(|&(_, package)| package)
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    if !has_program("apt-get") || !rustix::process::geteuid().is_root() {
        bail!(
            "missing: {}; as root: apt-get install {0}",
            missing.join(" ")
        );
    }
    run(Command::new("apt-get").args(["update", "-qq"]))?;
    run(Command::new("apt-get")
        .args(["install", "-y", "-qq", "--no-install-recommends"])
        .args(missing))
}

//! `setup`: what the tests and benches need beside Rust.

use std::path::Path;
use std::process::Command;

use anyhow::{Result, bail};

use crate::run::{has_program, root, run};

/// A program, and the Debian package that has it.
const NEEDED: &[(&str, &str)] = &[
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
    ("babeltrace2", "babeltrace2"),
    ("python3", "python3-venv"),
    ("sqlite3", "sqlite3"),
    ("gcc", "gcc"),
    ("pkg-config", "pkg-config"),
    ("readelf", "binutils"),
    ("lttng", "lttng-tools"),
    ("lttng-gen-tp", "liblttng-ust-dev"),
    ("java", "default-jre-headless"),
];

pub(crate) fn setup() -> Result<()> {
    packages()?;
    python()
}

fn packages() -> Result<()> {
    let mut missing: Vec<&str> = NEEDED
        .iter()
        .filter(|(program, _)| !has_program(program))
        .map(|&(_, package)| package)
        .collect();
    let libraries = format!("/usr/lib/{}-linux-gnu", std::env::consts::ARCH);
    for (path, package) in [
        ("/usr/lib/python3/dist-packages/bt2".into(), "python3-bt2"),
        (format!("{libraries}/libkshark.so.2"), "libkshark2"),
    ] {
        if !Path::new(&path).exists() {
            missing.push(package);
        }
    }
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

/// Python packages that read our exports in tests, with their versions. pytz: DuckDB's times have a
/// zone.
const PYTHON: [&str; 6] = [
    "perfetto==0.59.1",
    "protobuf==7.36.2",
    "duckdb==2.0.0",
    "pyarrow==26.0.1",
    "pytz==2026.6",
    "pyspark==4.3.0",
];

/// Installs them into `target/python`, where the tests look for them.
fn python() -> Result<()> {
    let folder = root().join("target/python");
    let wanted = PYTHON.join("\n");
    let installed = folder.join("outlive-packages");
    if std::fs::read_to_string(&installed).is_ok_and(|there| there == wanted) {
        return Ok(());
    }
    run(Command::new("python3").args(["-m", "venv"]).arg(&folder))?;
    let pip = ["-m", "pip", "install", "--quiet"];
    run(Command::new(folder.join("bin/python"))
        .args(pip)
        .args(PYTHON))?;
    Ok(std::fs::write(installed, wanted)?)
}

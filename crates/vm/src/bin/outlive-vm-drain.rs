//! Runs inside a guest: `outlive-vm-drain PREFIX FILE...` copies per-CPU files of each trace instance whose name
//! begins with PREFIX to `/out/INSTANCE/cpuN.FILE` (`trace_pipe`: all CPUs' to `/out/INSTANCE/trace_pipe`), and notes in `/out/INSTANCE/done` that all were read.
//!
//! It never waits for events, and cuts off a text that does not end. An older kernel may loop on a damaged buffer and
//! never come back: each instance has a process of its own, which is left behind then. It fails at the first such
//! one: the kernel is of no use to the others any more.

use std::fs::{File, OpenOptions};
use std::io::{Error, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use outlive_vm::damage::TRACE_LIMIT;

/// Linux, x86-64: `fcntl.h`.
const O_NONBLOCK: i32 = 0x800;
/// More pages than a test's region has.
const RAW_LIMIT: usize = 4096 * 1024;
/// One instance takes a tenth of a second under emulation, some seconds where much else runs.
const PATIENCE: Duration = Duration::from_secs(20);
const INSTANCES: &str = "/sys/kernel/tracing/instances";

fn main() -> std::io::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match &args[..] {
        [one, name, files @ ..] if one == "--one" => drain(name, files),
        [prefix, files @ ..] => drain_all(prefix, files),
        [] => Err(Error::other("outlive-vm-drain PREFIX FILE...")),
    }
}

fn drain_all(prefix: &str, files: &[String]) -> std::io::Result<()> {
    for instance in folders(Path::new(INSTANCES))? {
        let name = instance.file_name().unwrap_or_default().to_string_lossy();
        if !name.starts_with(prefix) {
            continue;
        }
        // The last of these lines names the instance that a kernel hangs at.
        println!("drain {name}");
        let mut command = Command::new(std::env::current_exe()?);
        let mut child = command.arg("--one").arg(&*name).args(files).spawn()?;
        let until = Instant::now() + PATIENCE;
        while child.try_wait()?.is_none() {
            if Instant::now() > until {
                return Err(Error::other(format!("{name}: reading does not come back")));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
    Ok(())
}

fn drain(name: &str, files: &[String]) -> std::io::Result<()> {
    let out = Path::new("/out").join(name);
    std::fs::create_dir_all(&out)?;
    let instance = Path::new(INSTANCES).join(name);
    let cpus = folders(&instance.join("per_cpu"))?;
    for file in files {
        // One CPU's `trace_pipe` does not return when it is empty and another CPU's is not.
        if file == "trace_pipe" {
            copy_up_to(TRACE_LIMIT, &instance.join(file), &out.join(file))?;
            continue;
        }
        for cpu in &cpus {
            let number = cpu.file_name().unwrap_or_default().to_string_lossy();
            let copy = out.join(format!("{number}.{file}"));
            if let Err(error) = copy_up_to(limit(file), &cpu.join(file), &copy) {
                eprintln!("{name}/{number}/{file}: {error}");
            }
        }
    }
    File::create(out.join("done")).map(drop)
}

fn limit(file: &str) -> usize {
    match file {
        "trace_pipe_raw" => RAW_LIMIT,
        _ => TRACE_LIMIT,
    }
}

fn folders(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(folder)?;
    let mut paths: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    Ok(paths)
}

/// Copies until the end, the limit, or nothing more is there.
fn copy_up_to(limit: usize, from: &Path, to: &Path) -> std::io::Result<()> {
    let mut to = File::create(to)?;
    let mut from = OpenOptions::new()
        .read(true)
        .custom_flags(O_NONBLOCK)
        .open(from)?;
    // A read of a raw file gives one page.
    let (mut buffer, mut copied) = ([0; 4096], 0);
    while copied < limit {
        match from.read(&mut buffer) {
            Ok(0) => break,
            Ok(len) => to.write_all(&buffer[..len])?,
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => break,
            Err(error) => return Err(error),
        }
        copied += buffer.len();
    }
    Ok(())
}

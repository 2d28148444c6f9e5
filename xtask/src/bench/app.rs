//! `bench app`: an application's events, on tmpfs and on a disk file, beside LTTng-UST.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use super::{Temporary, temporary};
use crate::run::{cargo, has_program, output, root, run};

pub(crate) fn app() -> Result<()> {
    let folder = temporary()?;
    let mut command = cargo(&["bench", "--quiet", "--package", "outlive", "--bench", "app"]);
    command.env("OUTLIVE_BENCH_DISK", folder.path().join("disk"));
    if !has_program("lttng-sessiond") || !has_program("lttng-gen-tp") {
        println!("LTTng-UST is missing: `cargo xtask setup` installs it");
        return run(&mut command);
    }
    let session = Session::begin(&folder)?;
    command
        .env("OUTLIVE_BENCH_LTTNG", build_peer(folder.path())?)
        .env("OUTLIVE_BENCH_LTTNG_SHM", &session.shm)
        // The library's constructor waits until the daemon knows the process.
        .env("LTTNG_UST_REGISTER_TIMEOUT", "-1");
    run(&mut command)
}

fn build_peer(folder: &Path) -> Result<PathBuf> {
    let source = root().join("crates/outlive/benches/app/lttng");
    let library = folder.join("peer.so");
    run(Command::new("cc")
        .args(["-O2", "-fPIC", "-shared", "-I"])
        .arg(&source)
        .arg(source.join("peer.c"))
        .arg("-o")
        .arg(&library)
        .args(["-llttng-ust", "-ldl"]))?;
    Ok(library)
}

/// A recording session as a flight recorder: buffers in files of a tmpfs, overwritten, read by nobody.
struct Session {
    name: String,
    /// Where the session's folder lies.
    shm: PathBuf,
    /// The daemon's process id, if it was started for this.
    daemon: Option<Pid>,
}

impl Session {
    fn begin(folder: &Temporary) -> Result<Self> {
        let name = format!("outlive-bench-{}", std::process::id());
        let mut session = Self {
            shm: Path::new("/dev/shm").join(&name),
            name,
            daemon: None,
        };
        if lttng(&["list"]).is_err() {
            session.daemon = Some(start_daemon(folder.path())?);
        }
        std::fs::create_dir(&session.shm)?;
        let shm = format!("--shm-path={}", session.shm.display());
        let out = format!("--output={}", folder.path().join("snapshots").display());
        let of_session = format!("--session={}", session.name);
        lttng(&["create", &session.name, "--snapshot", &shm, &out])?;
        // 8 MiB for each CPU: as much as our ring on two.
        let size = ["--overwrite", "--subbuf-size=1M", "--num-subbuf=8"];
        lttng(&[&["enable-channel", "-u", "ch", &of_session][..], &size].concat())?;
        lttng(&[
            "enable-event",
            "-u",
            "outlive_bench:*",
            "-c",
            "ch",
            &of_session,
        ])?;
        lttng(&["start", &session.name])?;
        Ok(session)
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let _ = lttng(&["destroy", &self.name]);
        if let Some(daemon) = self.daemon {
            let _ = kill_process(daemon, Signal::TERM);
        }
        let _ = std::fs::remove_dir_all(&self.shm);
    }
}

fn lttng(args: &[&str]) -> Result<String> {
    output(
        Command::new("lttng")
            .arg("--no-sessiond")
            .args(args)
            .stderr(Stdio::null()),
    )
}

fn start_daemon(folder: &Path) -> Result<Pid> {
    let file = folder.join("lttng.pid");
    let started = Command::new("lttng-sessiond")
        .args(["--no-kernel", "--background", "--pidfile"])
        .arg(&file)
        .stderr(Stdio::null())
        .status()?;
    if !started.success() {
        bail!("lttng-sessiond does not start: {started}");
    }
    let pid = std::fs::read_to_string(file)?.trim().parse().ok();
    pid.and_then(Pid::from_raw)
        .context("lttng-sessiond's process id")
}

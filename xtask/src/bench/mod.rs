//! `bench`: the figures of the README, each beside its peer in one run. Ratios count; absolute
//! times depend on the machine and on what else runs on it.

mod app;
mod check;
mod export;
pub(crate) mod overhead;
mod region;
mod show;
mod sql;
mod start;
mod stopwatch;
pub(crate) mod tracing;

use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::run::{PARQUET, cargo, root, run, target};

type Bench = (&'static str, fn() -> Result<()>);

const BENCHES: [Bench; 8] = [
    ("start", start::start),
    ("check", check::check),
    ("show", show::show),
    ("export", export::export),
    ("sql", sql::sql),
    ("overhead", overhead::overhead),
    ("app", app::app),
    ("tracing", tracing::tracing),
];

pub(crate) fn bench(names: &[String]) -> Result<()> {
    // The peer of `check`, in a process of its own like `check` itself.
    if let [name, file] = names
        && name == "crc-pass"
    {
        return check::crc_pass(file.as_ref());
    }
    let known = |name: &String| BENCHES.iter().any(|(known, _)| known == name);
    if let Some(unknown) = names.iter().find(|name| !known(name)) {
        let known: Vec<&str> = BENCHES.iter().map(|(name, _)| *name).collect();
        bail!("no bench {unknown:?}: there are {}", known.join(", "));
    }
    build()?;
    for (name, bench) in BENCHES {
        if names.is_empty() || names.iter().any(|wanted| wanted == name) {
            println!("\n== {name}");
            bench().with_context(|| format!("bench {name}"))?;
        }
    }
    Ok(())
}

/// Builds the command that is measured, as it is shipped, and with all formats.
pub(crate) fn build() -> Result<()> {
    run(&mut cargo(&[
        "build",
        "--release",
        "--package",
        "outlive-cli",
        "--features",
        PARQUET,
    ]))
}

/// The command that is measured.
pub(crate) fn outlive() -> Command {
    Command::new(target().join("release/outlive"))
}

/// Runs a command that must succeed, and of which nothing is wanted but that.
fn quiet(command: &mut Command) -> Result<()> {
    let command = command.stdout(Stdio::null()).stderr(Stdio::null());
    let status = command.status()?;
    if !status.success() {
        bail!("{command:?}: {status}");
    }
    Ok(())
}

/// A folder that is removed when it is dropped.
pub(crate) struct Temporary(PathBuf);

impl Temporary {
    pub(crate) fn path(&self) -> &std::path::Path {
        &self.0
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A folder for a bench, on a disk and not on tmpfs.
pub(crate) fn temporary() -> Result<Temporary> {
    let path = root()
        .join("target")
        .join(format!("bench-{}", std::process::id()));
    std::fs::create_dir_all(&path)?;
    Ok(Temporary(path))
}

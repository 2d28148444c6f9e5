//! `outlive export` of a full region to `trace.dat`, beside `cp` of the same bytes, and what memory
//! it takes. Both make their output durable.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::stopwatch::{Times, time};
use super::{outlive, quiet, region};

const ROUNDS: usize = 7;
const SIZE: u64 = 256 << 20;
/// Of the region whose export must not take memory in its proportion.
const LARGE: u64 = 1 << 30;
/// Time between two looks at the memory that the export has.
const LOOK: Duration = Duration::from_millis(2);

pub(crate) fn export() -> Result<()> {
    let folder = super::temporary()?;
    let file = folder.path().join("region");
    let (dat, copy) = (folder.path().join("out.dat"), folder.path().join("copy"));
    region::write_full(&file, SIZE)?;
    let (mut exports, mut copies) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        copies.push(time(|| {
            quiet(Command::new("cp").args([&file, &copy]))?;
            quiet(Command::new("sync").arg(&copy))
        })?);
        exports.push(time(|| quiet(&mut export_command(&file, &dat)))?);
    }
    let (export, copied) = (Times::of(exports), Times::of(copies));
    let rate = |times: &Times| SIZE as f64 / 1e6 / times.median.as_secs_f64();
    println!(
        "full region of {} MiB, {ROUNDS} rounds, alternating",
        SIZE >> 20
    );
    println!("  outlive export {export}  {:.0} MB/s", rate(&export));
    println!("  cp and sync    {copied}  {:.0} MB/s", rate(&copied));
    println!(
        "  ratio          {:9.2}  (target: 1000 MB/s, or as fast as cp)",
        export.ratio(&copied)
    );
    std::fs::remove_file(&copy)?;
    region::write_full(&file, LARGE)?;
    let peak = peak_anonymous_kib(&mut export_command(&file, &dat))?;
    println!(
        "  memory beside the mapping, of {} MiB: {} MiB at most  (target: below 256)",
        LARGE >> 20,
        peak >> 10
    );
    Ok(())
}

fn export_command(region: &Path, dat: &Path) -> Command {
    let mut command = outlive();
    command.arg("export").arg(region).arg("-o").arg(dat);
    command
}

/// The most memory of its own that a process has while it runs, in KiB, looked at again and again.
fn peak_anonymous_kib(command: &mut Command) -> Result<u64> {
    let mut child = command.stderr(Stdio::null()).spawn()?;
    let status = format!("/proc/{}/status", child.id());
    let mut peak = 0;
    while child.try_wait()?.is_none() {
        let text = std::fs::read_to_string(&status).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("RssAnon:"));
        let kib = line.and_then(|line| line.trim().strip_suffix(" kB"));
        if let Some(kib) = kib {
            peak = peak.max(kib.trim().parse().context("RssAnon is no number")?);
        }
        std::thread::sleep(LOOK);
    }
    if peak == 0 {
        bail!("the export was over before its memory was looked at");
    }
    Ok(peak)
}

//! `outlive export` of a full region to `trace.dat`, beside `cp` of the same bytes, and of scheduler
//! events to Parquet; what memory both take. All make their output durable.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::show::record_for_outlive;
use super::sql::events_of;
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
    print_memory(&mut export_command(&file, &dat))?;
    let tables = folder.path().join("out.parquet");
    parquet(folder.path(), &tables)?;
    print_memory(&mut export_command(&file, &tables))
}

/// To Parquet, real scheduler events: what a row costs depends on what it has.
fn parquet(folder: &Path, tables: &Path) -> Result<()> {
    let state = folder.join("state");
    record_for_outlive(&state)?;
    let mut exports = Vec::new();
    for _ in 0..ROUNDS {
        let mut command = export_command("boot_mapped".as_ref(), tables);
        exports.push(time(|| quiet(command.arg("--state").arg(&state)))?);
        std::fs::remove_dir_all(tables)?;
    }
    let events = events_of(&state)?;
    let times = Times::of(exports);
    let rate = events as f64 / times.median.as_secs_f64() / 1e6;
    println!("{events} events of perf bench sched pipe, {ROUNDS} rounds, one thread");
    println!(
        "  outlive export to parquet {times}  {rate:.2} million events/s  (target: at least 1.5)"
    );
    Ok(())
}

fn print_memory(command: &mut Command) -> Result<()> {
    let peak = peak_anonymous_kib(command)?;
    println!(
        "  memory beside the mapping, of {} MiB: {} MiB at most  (target: below 256)",
        LARGE >> 20,
        peak >> 10
    );
    Ok(())
}

fn export_command(region: &Path, out: &Path) -> Command {
    let mut command = outlive();
    command.arg("export").arg(region).arg("-o").arg(out);
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

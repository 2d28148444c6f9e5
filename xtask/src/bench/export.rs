//! `outlive export` to each format, and what memory it takes; all outputs are made durable.
//!
//! To `trace.dat` the region's pages are copied, so its peer is `cp` of the same bytes. The other
//! formats are written event by event, of real scheduler events: what one costs depends on what it
//! has. Their rate is by processor time, so that other load on the machine does not decide it.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::show::{TRACEFS, record_for_outlive};
use super::sql::events_of;
use super::stopwatch::{Times, children_time, target, time};
use super::{outlive, quiet, region};

const ROUNDS: usize = 7;
const SIZE: u64 = 256 << 20;
/// Of the area with scheduler events, in MiB.
const AREA_MIB: u64 = 100;
/// Of the region whose export must not take memory in its proportion.
const LARGE: u64 = 1 << 30;
/// Time between two looks at the memory that the export has.
const LOOK: Duration = Duration::from_millis(2);
/// The formats whose events are written one by one, and how many million of them a second of one
/// core is to write.
const FORMATS: [(&str, Option<f64>); 3] = [
    ("perfetto", Some(3.0)),
    ("ctf", None),
    ("parquet", Some(1.5)),
];

pub(crate) fn export() -> Result<()> {
    let folder = super::temporary()?;
    trace_dat(folder.path())?;
    by_event(folder.path())?;
    memory(folder.path())
}

/// To `trace.dat`, beside `cp`, and beside trace-cmd, which reads that output and writes it again.
fn trace_dat(folder: &Path) -> Result<()> {
    let file = folder.join("region");
    let [dat, copy, again] = ["out.dat", "copy", "again.dat"].map(|name| folder.join(name));
    region::write_full(&file, SIZE, 0)?;
    let (mut exports, mut copies, mut converts) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        remove_durably(&copy)?;
        copies.push(time(|| {
            quiet(Command::new("cp").args([&file, &copy]))?;
            quiet(Command::new("sync").arg(&copy))
        })?);
        remove_durably(&dat)?;
        exports.push(time(|| quiet(&mut export_command(&file, &dat)))?);
        remove_durably(&again)?;
        converts.push(time(|| {
            let mut convert = Command::new("trace-cmd");
            convert.args(["convert", "--compression", "none", "-i"]);
            quiet(convert.arg(&dat).arg("-o").arg(&again))?;
            quiet(Command::new("sync").arg(&again))
        })?);
    }
    let (export, copied, converted) = (Times::of(exports), Times::of(copies), Times::of(converts));
    let rate = |times: &Times| SIZE as f64 / 1e9 / times.median.as_secs_f64();
    let mib = SIZE >> 20;
    println!("full region of {mib} MiB, {ROUNDS} rounds, alternating");
    println!(
        "  outlive export to trace.dat {export}  {:.2} GB/s",
        rate(&export)
    );
    println!(
        "  cp and sync                 {copied}  {:.2} GB/s",
        rate(&copied)
    );
    println!(
        "  trace-cmd convert and sync  {converted}  {:.2} GB/s",
        rate(&converted)
    );
    let ratio = export.ratio(&copied);
    let is_met = ratio <= 1.0 || rate(&export) >= 1.0;
    let target = target("1 GB/s, or as fast as cp", is_met);
    println!("  ratio to cp                 {ratio:9.2}{target}");
    println!(
        "  ratio to trace-cmd          {:9.2}",
        export.ratio(&converted)
    );
    [file, dat, copy, again]
        .iter()
        .try_for_each(std::fs::remove_file)?;
    Ok(())
}

/// To the other formats; CTF beside babeltrace2, which reads that output and writes it again.
fn by_event(folder: &Path) -> Result<()> {
    let state = folder.join("state");
    record_for_outlive(&state, AREA_MIB)?;
    let events = events_of(&state)?;
    println!(
        "{events} events of perf bench sched pipe, {ROUNDS} rounds, in turn; million events/s of a core"
    );
    let (ctf, again) = (folder.join("out.ctf"), folder.join("again.ctf"));
    let mut spent = FORMATS.map(|_| Spent::default());
    let mut babeltrace = Spent::default();
    for _ in 0..ROUNDS {
        for ((format, _), spent) in FORMATS.iter().zip(&mut spent) {
            let out = folder.join(format!("out.{format}"));
            remove(&out)?;
            let mut command = export_command("boot_mapped".as_ref(), &out);
            spent.add(
                command
                    .args(["--format", format])
                    .arg("--state")
                    .arg(&state),
            )?;
        }
        let mut command = Command::new("babeltrace2");
        command.arg(&ctf).args(["-o", "ctf", "-w"]).arg(&again);
        babeltrace.add(&mut command)?;
        remove(&again)?;
    }
    for ((format, target), spent) in FORMATS.iter().zip(spent) {
        spent.print(&format!("outlive export to {format}"), events, *target);
    }
    babeltrace.print("babeltrace2, ctf to ctf", events, None);
    Ok(())
}

/// What runs of a command took.
#[derive(Default)]
struct Spent {
    wall: Vec<Duration>,
    /// Processor time of all runs.
    processor: Duration,
}

impl Spent {
    fn add(&mut self, command: &mut Command) -> Result<()> {
        let before = children_time()?;
        self.wall.push(time(|| quiet(command))?);
        self.processor += children_time()?.saturating_sub(before);
        Ok(())
    }

    fn print(self, what: &str, events: u64, least: Option<f64>) {
        let runs = self.wall.len() as f64;
        let rate = events as f64 * runs / self.processor.as_secs_f64() / 1e6;
        let wall = Times::of(self.wall);
        let target = least.map(|least| target(&format!("at least {least}"), rate >= least));
        let target = target.unwrap_or_default();
        println!("  {what:<26} {wall}  {rate:6.2} million/s{target}");
    }
}

/// Of a region of 1 GiB, in which every record is a `sched_switch`.
fn memory(folder: &Path) -> Result<()> {
    let event = Path::new(TRACEFS).join("events/sched/sched_switch/id");
    let event = std::fs::read_to_string(event)?.trim().parse()?;
    let file = folder.join("region");
    region::write_full(&file, LARGE, event)?;
    let mib = LARGE >> 20;
    println!("region of {mib} MiB: memory beside the mapping at most");
    for format in ["trace.dat", "perfetto", "ctf", "parquet"] {
        let out = folder.join("large");
        let mut command = export_command(&file, &out);
        command.args(["--format", format, "--formats"]);
        let peak = peak_anonymous_kib(command.arg(Path::new(TRACEFS).join("events")))?;
        let peak = peak >> 10;
        let target = target("below 256 MiB", peak < 256);
        println!("  outlive export to {format:<9} {peak:4} MiB{target}");
        remove(&out)?;
    }
    Ok(())
}

/// Removes what an earlier round wrote, and waits until the disk has taken its blocks back: with the
/// mount option `discard` that takes as long as to write them, and belongs to no round.
fn remove_durably(path: &Path) -> Result<()> {
    remove(path)?;
    let folder = path.parent().context("a file has a folder")?;
    quiet(Command::new("sync").arg("--file-system").arg(folder))
}

/// Removes a file or folder, if it is there.
fn remove(path: &Path) -> Result<()> {
    match path.is_dir() {
        true => std::fs::remove_dir_all(path)?,
        false if path.exists() => std::fs::remove_file(path)?,
        false => {}
    }
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
    let status = child.wait()?;
    if !status.success() {
        bail!("{command:?}: {status}");
    }
    if peak == 0 {
        bail!("the export was over before its memory was looked at");
    }
    Ok(peak)
}

//! What an event of three fields costs through `tracing`, with outlive and with others, and what each
//! keeps of 100,000 events when the program is killed.
//!
//!     cargo xtask bench tracing
//!
//! Each runs in processes of its own, as the program's only subscriber, in turns. A batch is so short
//! that it is disturbed or not; the median is over all batches of all rounds. The 99.9th percentile is
//! of single calls, each timed with the clock, which is in it.

mod kind;

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Instant;

use kind::Kind;

const ROUNDS: usize = 7;
/// Batches in a round, and calls in a batch.
const BATCHES: usize = 300;
const BATCH: u64 = 500;
/// Single calls that are timed in a round.
const SINGLES: u64 = 30_000;
/// Events before the kill.
const EVENTS: u64 = 100_000;
/// A ring that so many events fill, and one that they do not.
const STEADY_BYTES: u64 = 4 << 20;
const WHOLE_BYTES: u64 = 16 << 20;
/// The median that outlive aims at, in nanoseconds.
const AIM_NS: f64 = 60.0;

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => compare(),
        ["cost", kind, folder] => cost(Kind::parse(kind)?, folder.as_ref()),
        ["keep", kind, folder] => keep(Kind::parse(kind)?, folder.as_ref()),
        _ => Err("no arguments are needed".into()),
    }
}

/// What is measured: three fields.
fn record(number: u64) {
    tracing::info!(id = number, status = 200i64, elapsed = 0.25f64);
}

/// In a process of its own: prints what each batch took by the call, an empty line, and what each single
/// call took.
fn cost(kind: Kind, folder: &Path) -> Result<(), Box<dyn Error>> {
    let _guard = kind.install(folder, STEADY_BYTES)?;
    // Until what is kept in memory is full: new pages come once.
    (0..EVENTS).for_each(record);
    for _ in 0..BATCHES {
        let start = Instant::now();
        (0..BATCH).for_each(record);
        println!("{}", start.elapsed().as_nanos() as f64 / BATCH as f64);
    }
    println!();
    for number in 0..SINGLES {
        let start = Instant::now();
        record(number);
        println!("{}", start.elapsed().as_nanos());
    }
    Ok(())
}

/// In a process of its own: records, and is killed.
fn keep(kind: Kind, folder: &Path) -> Result<(), Box<dyn Error>> {
    let _guard = kind.install(folder, WHOLE_BYTES)?;
    (0..EVENTS).for_each(record);
    // SAFETY: no memory is touched.
    unsafe { libc::kill(libc::getpid(), libc::SIGKILL) };
    unreachable!("killed")
}

/// A folder of a process.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Result<Self, Box<dyn Error>> {
        let path = std::env::temp_dir().join(format!("outlive-peers-{}", std::process::id()));
        std::fs::create_dir_all(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        for state in outlive_trace::apps::list(&self.0).unwrap_or_default() {
            let _ = std::fs::remove_dir_all(format!("/dev/shm/outlive-{}", state.id()));
        }
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn child(role: &str, kind: Kind, folder: &Folder) -> Result<Output, Box<dyn Error>> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args([role, kind.name()]).arg(&folder.0);
    Ok(command.output()?)
}

/// What a kind's batches and single calls took.
#[derive(Default)]
struct Times {
    batches: Vec<f64>,
    singles: Vec<f64>,
}

impl Times {
    fn add(&mut self, output: &Output) -> Result<(), Box<dyn Error>> {
        let text = std::str::from_utf8(&output.stdout)?;
        let (batches, singles) = text.split_once("\n\n").ok_or("a process did not end")?;
        for (lines, times) in [(batches, &mut self.batches), (singles, &mut self.singles)] {
            let parsed: Result<Vec<f64>, _> = lines.lines().map(str::parse).collect();
            times.extend(parsed?);
        }
        Ok(())
    }

    fn median(&mut self) -> f64 {
        at(&mut self.batches, 0.5)
    }

    fn p999(&mut self) -> f64 {
        at(&mut self.singles, 0.999)
    }
}

/// The value behind this part of all.
fn at(values: &mut [f64], part: f64) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values[((values.len() - 1) as f64 * part) as usize]
}

fn compare() -> Result<(), Box<dyn Error>> {
    let mut times: Vec<Times> = Kind::ALL.iter().map(|_| Times::default()).collect();
    for _ in 0..ROUNDS {
        for (&kind, times) in Kind::ALL.iter().zip(&mut times) {
            times.add(&child("cost", kind, &Folder::new()?)?)?;
        }
    }
    let kept = Kind::ALL.map(kept_of);
    println!("an event of three fields; {EVENTS} events, then SIGKILL");
    let outlive = times[Kind::OUTLIVE].median();
    for ((kind, times), kept) in Kind::ALL.iter().zip(&mut times).zip(kept) {
        let (median, p999) = (times.median(), times.p999());
        println!(
            "  {:<44} median {median:7.1} ns {:6.1} times   p99.9 {p999:8.0} ns   kept {}",
            kind.title(),
            median / outlive,
            kept?
        );
    }
    println!("  outlive aims at {AIM_NS} ns");
    Ok(())
}

fn kept_of(kind: Kind) -> Result<String, Box<dyn Error>> {
    let folder = Folder::new()?;
    let output = child("keep", kind, &folder)?;
    if std::os::unix::process::ExitStatusExt::signal(&output.status) != Some(libc::SIGKILL) {
        return Err(format!("{}: {output:?}", kind.name()).into());
    }
    kind.kept(&folder.0)
}

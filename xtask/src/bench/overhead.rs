//! What recording costs the load that is recorded: `perf bench sched pipe`, which switches between
//! two tasks as fast as it can, with the scheduler's events on.
//!
//! Each round measures twice, one directly after the other and in turn first: with the kernel's
//! ring alone (an instance with the same events and the same size, that nobody reads), and with
//! outlive recording. The machine may be busy with other things: what counts is the median of the
//! rounds' ratios. The recorder's time is that of all its threads, from `schedstat`; its memory is
//! what is resident beside the area.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use super::{Temporary, outlive, temporary};
use crate::run::{has_program, output};

const ROUNDS: usize = 9;
/// Messages through the pipe in each measurement: some three seconds, so that an area written for
/// the first time does not decide.
const LOOPS: &str = "300000";
const LINE: &str = "reserve_mem=24M:4096:trace trace_instance=boot_mapped@trace,sched";
/// Of the kernel's ring, in both.
const KIB_PER_CPU: &str = "3072";
const INSTANCES: &str = "/sys/kernel/tracing/instances";

/// The load's time, in seconds.
fn load() -> Result<f64> {
    let text = output(Command::new("perf").args([
        "bench", "--format", "simple", "sched", "pipe", "--loop", LOOPS,
    ]))?;
    let seconds = text.trim().parse();
    seconds.with_context(|| format!("perf bench printed {text:?}"))
}

/// A host instance with the scheduler's events on, and no reader.
struct Alone(PathBuf);

impl Alone {
    fn begin() -> Result<Self> {
        let folder = Path::new(INSTANCES).join(format!("outlive-bench-{}", std::process::id()));
        fs::create_dir(&folder)?;
        let this = Self(folder);
        fs::write(this.0.join("buffer_size_kb"), KIB_PER_CPU)?;
        fs::write(this.0.join("events/sched/enable"), "1")?;
        Ok(this)
    }
}

impl Drop for Alone {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}

/// A recorder that records.
struct Recorder(Child);

impl Recorder {
    fn begin(state: &Path) -> Result<Self> {
        let mut command = outlive();
        command.arg("--state").arg(state);
        command.args(["boot", LINE, "--host-buffer", KIB_PER_CPU]);
        let child = command.stderr(Stdio::piped()).spawn()?;
        let mut this = Self(child);
        let said = this.0.stderr.take().context("no standard error")?;
        let mut lines = BufReader::new(said).lines();
        if !lines.any(|line| line.is_ok_and(|line| line.contains(": recording "))) {
            bail!("outlive boot ended: {}", this.0.wait()?);
        }
        // The rest is read too, or else it would wait for us.
        std::thread::spawn(move || lines.for_each(drop));
        // What it does once, beside recording, is not measured here.
        std::thread::sleep(Duration::from_millis(200));
        Ok(this)
    }

    /// The time that its threads had, in nanoseconds.
    fn cpu_ns(&self) -> Result<u64> {
        let mut sum = 0;
        for thread in fs::read_dir(format!("/proc/{}/task", self.0.id()))? {
            let text = fs::read_to_string(thread?.path().join("schedstat"))?;
            let ns: Option<u64> = text.split(' ').next().and_then(|ns| ns.parse().ok());
            sum += ns.context("schedstat has no number")?;
        }
        Ok(sum)
    }

    /// Resident memory in KiB, without the area in `state`.
    fn resident_kib(&self, state: &Path) -> Result<u64> {
        let smaps = fs::read_to_string(format!("/proc/{}/smaps", self.0.id()))?;
        let area = state.join("areas").display().to_string();
        let (mut sum, mut is_area) = (0, false);
        for line in smaps.lines() {
            if let Some(kib) = line.strip_prefix("Rss:") {
                let kib: u64 = kib.trim().trim_end_matches(" kB").parse()?;
                sum += if is_area { 0 } else { kib };
            } else if !line
                .split(' ')
                .next()
                .is_some_and(|word| word.ends_with(':'))
            {
                is_area = line.contains(&area);
            }
        }
        Ok(sum)
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        let _ = kill_process(Pid::from_child(&self.0), Signal::TERM);
        let _ = self.0.wait();
    }
}

/// One measurement with outlive recording.
#[derive(Clone, Copy)]
struct Recorded {
    seconds: f64,
    /// Of one core, in percent.
    share: f64,
    resident_kib: u64,
}

fn recorded(state: &Path) -> Result<Recorded> {
    let recorder = Recorder::begin(state)?;
    let (start, before) = (Instant::now(), recorder.cpu_ns()?);
    let seconds = load()?;
    let share = (recorder.cpu_ns()? - before) as f64 / start.elapsed().as_nanos() as f64 * 100.0;
    Ok(Recorded {
        seconds,
        share,
        resident_kib: recorder.resident_kib(state)?,
    })
}

fn alone() -> Result<f64> {
    let _instance = Alone::begin()?;
    load()
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_unstable_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

fn rounds(folder: &Temporary) -> Result<Vec<(f64, Recorded)>> {
    let state = folder.path().join("state");
    (0..ROUNDS)
        .map(|round| {
            if round % 2 == 0 {
                let alone = alone()?;
                Ok((alone, recorded(&state)?))
            } else {
                let recorded = recorded(&state)?;
                Ok((alone()?, recorded))
            }
        })
        .collect()
}

/// Prints the slowdown of the load, the recorder's share of a core, and its memory.
pub(crate) fn overhead() -> Result<()> {
    if !has_program("perf") || fs::read_dir(INSTANCES).is_err() {
        println!("skipped: needs perf, root and tracefs at /sys/kernel/tracing");
        return Ok(());
    }
    let rounds = rounds(&temporary()?)?;
    let slowdown = median(rounds.iter().map(|(alone, with)| with.seconds / alone));
    println!("perf bench sched pipe --loop {LOOPS}, medians of {ROUNDS} rounds");
    println!(
        "  kernel's ring alone   {:8.3} s",
        median(rounds.iter().map(|(alone, _)| *alone))
    );
    println!(
        "  outlive recording     {:8.3} s",
        median(rounds.iter().map(|(_, with)| with.seconds))
    );
    println!(
        "  slowdown              {:+8.1} %",
        (slowdown - 1.0) * 100.0
    );
    println!(
        "  recorder's share      {:8.1} % of a core",
        median(rounds.iter().map(|(_, with)| with.share))
    );
    println!(
        "  its memory            {:8.1} MiB beside the area",
        median(rounds.iter().map(|(_, with)| with.resident_kib as f64)) / 1024.0
    );
    Ok(())
}

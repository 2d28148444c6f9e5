//! `outlive show` beside `trace-cmd report`, both of real scheduler events of this machine.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};

use super::stopwatch::{Times, target, time};
use super::{outlive, quiet};

const ROUNDS: usize = 5;
pub(super) const TRACEFS: &str = "/sys/kernel/tracing";
/// Of the area, in MiB.
const AREA_MIB: u64 = 40;
/// Size of the kernel's ring for trace-cmd, in KiB per CPU.
const RING_KIB: u32 = 20_000;

pub(crate) fn show() -> Result<()> {
    let folder = super::temporary()?;
    let dat = folder.path().join("trace.dat");
    let state = folder.path().join("state");
    record_for_trace_cmd(&dat)?;
    record_for_outlive(&state, AREA_MIB)?;
    let ours = count_lines(
        outlive()
            .args(["show", "boot_mapped", "--state"])
            .arg(&state),
    )?;
    let theirs = count_lines(Command::new("trace-cmd").args(["report", "-i"]).arg(&dat))?;
    let (mut shows, mut reports) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        shows.push(time(|| {
            quiet(
                outlive()
                    .args(["show", "boot_mapped", "--state"])
                    .arg(&state),
            )
        })?);
        reports.push(time(|| {
            quiet(Command::new("trace-cmd").args(["report", "-i"]).arg(&dat))
        })?);
    }
    let (show, report) = (Times::of(shows), Times::of(reports));
    let rate = |events: u64, times: &Times| events as f64 / times.median.as_secs_f64() / 1e6;
    let (show_rate, report_rate) = (rate(ours, &show), rate(theirs, &report));
    println!("scheduler events of perf bench sched pipe, {ROUNDS} rounds, alternating");
    println!("  outlive show     {show}  {ours} events, {show_rate:.3} million/s");
    println!("  trace-cmd report {report}  {theirs} events, {report_rate:.3} million/s");
    let ratio = show_rate / report_rate;
    println!(
        "  ratio            {ratio:9.1}{}",
        target("at least 12", ratio >= 12.0)
    );
    Ok(())
}

fn load() -> Result<()> {
    quiet(Command::new("perf").args(["bench", "sched", "pipe", "-l", "300000"]))
}

/// The same events in an instance of the kernel, extracted by trace-cmd.
fn record_for_trace_cmd(dat: &Path) -> Result<()> {
    let name = format!("outlive-bench-{}", std::process::id());
    let instance = Path::new(TRACEFS).join("instances").join(&name);
    std::fs::create_dir(&instance).context("cannot make an instance in tracefs")?;
    let recorded = (|| {
        std::fs::write(instance.join("buffer_size_kb"), RING_KIB.to_string())?;
        std::fs::write(instance.join("events/sched/enable"), "1")?;
        load()?;
        std::fs::write(instance.join("tracing_on"), "0")?;
        std::fs::write(instance.join("events/sched/enable"), "0")?;
        quiet(
            Command::new("trace-cmd")
                .args(["extract", "-B", &name, "-o"])
                .arg(dat),
        )
    })();
    // trace-cmd removes an instance that it has extracted.
    let _ = std::fs::remove_dir(&instance);
    recorded
}

/// Records them with outlive as `boot_mapped` of a state, whose area the load fills if it has no more
/// than some 110 MiB.
pub(super) fn record_for_outlive(state: &Path, area_mib: u64) -> Result<()> {
    let area = format!("reserve_mem={area_mib}M:4096:trace");
    let line = format!("{area} trace_instance=boot_mapped@trace,sched");
    let mut recorder = outlive()
        .args(["boot", "--state"])
        .arg(state)
        .arg(line)
        .stderr(Stdio::null())
        .spawn()?;
    std::thread::sleep(Duration::from_millis(500));
    let loaded = load();
    let pid = rustix::process::Pid::from_child(&recorder);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM)?;
    recorder.wait()?;
    loaded
}

/// Events in a text: lines that are no comments.
fn count_lines(command: &mut Command) -> Result<u64> {
    let output = command.stderr(Stdio::null()).output()?;
    let lines = output.stdout.split(|&byte| byte == b'\n');
    Ok(lines
        .filter(|line| line.len() > 40 && line[0] != b'#')
        .count() as u64)
}

//! How long a start takes until it records, with a full previous area of 16 MiB and of 1 GiB: the
//! backup of an area on disk is a rename.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::stopwatch::{Times, target};
use super::{outlive, region};

const ROUNDS: usize = 15;
/// For the disk to come to rest after what the round before deleted, and this one copied: blocks are
/// discarded after `sync` has returned.
const REST: Duration = Duration::from_millis(300);
const SIZES: [(&str, u64); 2] = [("16M", 16 << 20), ("1G", 1 << 30)];

pub(crate) fn start() -> Result<()> {
    let folder = super::temporary()?;
    let mut times = [Vec::new(), Vec::new()];
    for (size, bytes) in SIZES {
        region::write_full(&folder.path().join(size), bytes, 0)?;
    }
    for _ in 0..ROUNDS {
        for ((size, _), times) in SIZES.iter().zip(&mut times) {
            times.push(time_to_recording(folder.path(), size)?);
        }
    }
    let [small, large] = times.map(Times::of);
    println!(
        "from exec to recording, full previous area on a disk file, {ROUNDS} rounds, alternating"
    );
    println!("  16 MiB {small}");
    println!("  1 GiB  {large}");
    let ratio = large.ratio(&small);
    println!(
        "  ratio  {ratio:9.2}{}",
        target("at most 1.5", ratio <= 1.5)
    );
    Ok(())
}

/// Starts once with a full previous area, and returns the time until it says that it records.
fn time_to_recording(folder: &Path, size: &str) -> Result<Duration> {
    let state = folder.join(format!("state-{size}"));
    let areas = state.join("areas");
    let _ = std::fs::remove_dir_all(&state);
    make_private(&state)?;
    make_private(&areas)?;
    std::fs::copy(folder.join(size), areas.join("trace"))?;
    set_private(&areas.join("trace"), 0o600)?;
    let line = format!(
        "reserve_mem={size}:4096:trace trace_instance=boot_mapped@trace,sched:sched_switch \
         trace_instance=backup=boot_mapped"
    );
    rustix::fs::sync();
    std::thread::sleep(REST);
    let begin = Instant::now();
    let mut child = outlive()
        .args(["boot", "--state"])
        .arg(&state)
        .arg(line)
        .stderr(Stdio::piped())
        .spawn()?;
    let stderr = child.stderr.take().context("no standard error")?;
    let mut lines = BufReader::new(stderr).lines();
    let mut said = Vec::new();
    let recording = loop {
        match lines.next() {
            Some(line) => {
                let line = line?;
                if line.contains(": recording ") {
                    break begin.elapsed();
                }
                said.push(line);
            }
            None => bail!("outlive boot ended: {}", said.join("\n")),
        }
    };
    if !said.iter().any(|line| line.contains("previous run kept")) {
        bail!("the previous area was not kept: {}", said.join("\n"));
    }
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM)?;
    for _ in lines {}
    child.wait()?;
    Ok(recording)
}

fn make_private(folder: &Path) -> Result<()> {
    std::fs::create_dir_all(folder)?;
    set_private(folder, 0o700)
}

fn set_private(path: &Path, mode: u32) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    Ok(std::fs::set_permissions(
        path,
        std::fs::Permissions::from_mode(mode),
    )?)
}

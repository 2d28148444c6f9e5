//! The program's scheduler events: a recorder of the kernel's events beside the supervisor.
//!
//! It is `outlive boot` on a state of its own, whose events are those of the supervisor's process
//! and of what that starts (`set_event_pid` with `event-fork`), so the program is in it from its
//! first instruction on. It ends when its standard input does: with the supervisor, however that
//! ends.

use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStderr, Command, Stdio};

use anyhow::{Context, Result, bail};
use outlive_trace::apps;

/// Behind the program's name, the instance of its scheduler events.
const SCHED: &str = ".sched";

/// The recorder, which records.
#[derive(Debug)]
pub(super) struct Sched {
    recorder: Child,
    /// It says something at its end.
    _said: BufReader<ChildStderr>,
}

impl Sched {
    /// Starts it for the program `name`, and waits until it records.
    pub(super) fn begin(state: &Path, name: &str, size: u64) -> Result<Self> {
        let name = format!("{name}{SCHED}");
        let line = apps::command_line(&name, size, &["sched".to_owned()]);
        let mut recorder = Command::new(std::env::current_exe()?)
            .arg("--state")
            .arg(apps::folder(state, &name)?)
            .args(["boot", "--strict", &line, "--event-pid"])
            .arg(std::process::id().to_string())
            .env_remove("NOTIFY_SOCKET")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            // What a terminal sends to the program is no reason to end before it.
            .process_group(0)
            .spawn()
            .context("cannot start the recorder of the scheduler's events")?;
        let said = recorder.stderr.take().context("it has no standard error")?;
        let mut said = BufReader::new(said);
        let mut last = String::new();
        let recording = format!("{name}: recording ");
        loop {
            let mut line = String::new();
            if said.read_line(&mut line)? == 0 {
                recorder.wait()?;
                bail!("cannot record scheduler events: {}", last.trim_end());
            }
            if line.contains(&recording) {
                break;
            }
            if let Some(message) = line.strip_prefix("outlive: ") {
                message.clone_into(&mut last);
            }
        }
        Ok(Self {
            recorder,
            _said: said,
        })
    }

    /// Ends it: it takes the last events.
    pub(super) fn finish(mut self) -> Result<()> {
        drop(self.recorder.stdin.take());
        match self.recorder.wait()? {
            status if status.success() => Ok(()),
            status => bail!("their recorder ended with {status}"),
        }
    }
}

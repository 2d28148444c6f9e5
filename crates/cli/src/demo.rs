//! `outlive demo`: records, kills the recorder, starts it again, and shows the last events before
//! the kill.
//!
//! Everything happens on a state folder of its own. Whatever ends the demo, its recorder is
//! stopped, and its host instances and its folder are removed ([`Stage`]).

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use outlive_event::Formatter;
use outlive_kernel::{Instances, StateId, Tracefs};
use outlive_trace::view::View;
use outlive_trace::{Generation, StateDir, Verdict, clock, generation};
use rustix::process::{Pid, Signal, kill_process};

use crate::show::Look;
use crate::{exit, ls, units};

const INSTANCE: &str = "boot_mapped";
const CMDLINE: &str = "reserve_mem=8M:4096:trace trace_instance=boot_mapped@trace,sched \
                       trace_instance=backup=boot_mapped";
/// Name of the task that makes the load; 15 bytes at most.
const TASK: &std::ffi::CStr = c"outlive-demo";
/// How long the load runs before the kill.
const LOAD: Duration = Duration::from_millis(1500);
/// How long something may take that should take no time.
const PATIENCE: Duration = Duration::from_secs(10);
const STEP: Duration = Duration::from_millis(10);
/// Events that are shown of before the kill, and of after it.
const SHOWN: (usize, usize) = (15, 3);

/// Runs the demo.
pub(crate) fn run() -> Result<u8> {
    let tracefs = Tracefs::find().context("the demo records the kernel's scheduler events")?;
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&stop))?;
    }
    let stage = Stage::new(tracefs, stop)?;
    let mut out = std::io::stdout();
    writeln!(out, "$ outlive boot '{CMDLINE}' &")?;
    let mut recorder = stage.boot(&mut out)?;
    let killed_ns = {
        let _load = Load::start();
        stage.wait(LOAD)?;
        recorder.kill()?
    };
    writeln!(
        out,
        "$ kill -9 {}    # {}",
        recorder.child.id(),
        units::wall_clock_us(killed_ns)
    )?;
    writeln!(out, "$ outlive boot '{CMDLINE}' &")?;
    let mut recorder = stage.boot(&mut out)?;
    let kept = stage.collected()?;
    recorder.stop()?;
    show_around(&mut out, &kept, killed_ns)?;
    writeln!(out, "$ outlive ls")?;
    ls::list(&stage.state()?, &mut out)?;
    Ok(exit::DONE)
}

/// Prints the last events before the kill, and the first after it.
fn show_around(out: &mut impl Write, kept: &Generation, killed_ns: u64) -> Result<()> {
    let (view, _) = View::open_with_tail(&kept.region_path(), &kept.tail_path())?;
    let verdict = Verdict::of_generation(kept, view.run.as_ref());
    writeln!(
        out,
        "$ outlive show backup    # {} events, verdict: {verdict}",
        view.entries()
    )?;
    let look = Look::default();
    let formatter = Formatter::new(&view.catalog, look.options(view.clock()));
    let mut before = std::collections::VecDeque::new();
    let mut after = 0;
    let mut events = view.events(None);
    while let Some(event) = events.next_event() {
        let mut line = Vec::new();
        formatter.record(&mut line, event.cpu, event.text_time_stamp, event.payload);
        let is_before = view
            .realtime_ns(event.time_stamp)
            .is_none_or(|time| time <= killed_ns);
        if is_before {
            before.push_back(line);
            if before.len() > SHOWN.0 {
                before.pop_front();
            }
            continue;
        }
        if after == 0 {
            before.drain(..).try_for_each(|line| out.write_all(&line))?;
            writeln!(
                out,
                "    ---- SIGKILL of the recorder; the kernel's ring went on ----"
            )?;
        }
        out.write_all(&line)?;
        after += 1;
        if after == SHOWN.1 {
            break;
        }
    }
    before.drain(..).try_for_each(|line| out.write_all(&line))?;
    Ok(())
}

/// A temporary state. Nothing of it stays when it goes.
struct Stage {
    folder: PathBuf,
    tracefs: Tracefs,
    stop: Arc<AtomicBool>,
}

impl Stage {
    fn new(tracefs: Tracefs, stop: Arc<AtomicBool>) -> Result<Self> {
        use std::os::unix::fs::DirBuilderExt;
        let folder = std::env::temp_dir().join(format!("outlive-demo-{}", std::process::id()));
        std::fs::DirBuilder::new()
            .mode(0o700)
            .create(&folder)
            .with_context(|| format!("cannot create {}", folder.display()))?;
        Ok(Self {
            folder,
            tracefs,
            stop,
        })
    }

    fn state_path(&self) -> PathBuf {
        self.folder.join("state")
    }

    fn state(&self) -> Result<StateDir> {
        StateDir::open_existing(&self.state_path())?.context("the recorder made no state folder")
    }

    /// Starts a recorder and waits until it records. What it says is shown.
    fn boot(&self, out: &mut impl Write) -> Result<Recorder> {
        let mut recorder = Recorder::start(&self.state_path())?;
        let patience = Instant::now() + PATIENCE;
        loop {
            match recorder.said.recv_timeout(STEP) {
                Ok(line) => {
                    writeln!(out, "{line}")?;
                    if line.contains(": recording ") {
                        return Ok(recorder);
                    }
                }
                Err(_) if recorder.child.try_wait()?.is_some() => {
                    bail!("the recorder ended; run `outlive boot` itself to see why")
                }
                Err(_) if Instant::now() > patience => {
                    bail!("the recorder does not begin to record")
                }
                Err(_) => {}
            }
            self.check_stop()?;
        }
    }

    /// What the killed run left, with what the host's ring still held of it.
    fn collected(&self) -> Result<Generation> {
        let patience = Instant::now() + PATIENCE;
        while Instant::now() < patience {
            let kept = generation::list_instance(&self.state()?, INSTANCE)?.pop();
            if let Some(kept) = kept.filter(|kept| !kept.is_collecting()) {
                return Ok(kept);
            }
            self.wait(STEP)?;
        }
        bail!("the second start kept nothing of the first")
    }

    fn wait(&self, time: Duration) -> Result<()> {
        let end = Instant::now() + time;
        while Instant::now() < end {
            self.check_stop()?;
            std::thread::sleep(STEP);
        }
        Ok(())
    }

    fn check_stop(&self) -> Result<()> {
        match self.stop.load(Ordering::Relaxed) {
            true => bail!("interrupted; nothing is left behind"),
            false => Ok(()),
        }
    }

    fn remove_host_instances(&self) -> Result<()> {
        let state = self.state()?;
        let id = StateId(u64::from_str_radix(state.id(), 16)?);
        let instances = Instances::new(&self.tracefs, id);
        for name in instances.list()? {
            instances.open_existing(&name)?.remove()?;
        }
        Ok(())
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        if self.state_path().exists()
            && let Err(error) = self.remove_host_instances()
        {
            eprintln!("outlive: left in the host's tracing: {error:#}");
        }
        if let Err(error) = std::fs::remove_dir_all(&self.folder) {
            eprintln!("outlive: cannot remove {}: {error}", self.folder.display());
        }
    }
}

/// A recorder, which ends with this.
struct Recorder {
    child: Child,
    /// What it says.
    said: Receiver<String>,
}

impl Recorder {
    fn start(state: &Path) -> Result<Self> {
        let program = std::env::current_exe().context("cannot find this program")?;
        let mut child = Command::new(program)
            .arg("--state")
            .arg(state)
            .args(["boot", CMDLINE])
            .env_remove("NOTIFY_SOCKET")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .context("cannot start the recorder")?;
        let stderr = child
            .stderr
            .take()
            .context("the recorder has no standard error")?;
        let (say, said) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                // Nobody listens any more: the recorder goes on all the same.
                let _ = say.send(line);
            }
        });
        Ok(Self { child, said })
    }

    /// Kills it. Returns the time just before, in nanoseconds since 1970.
    fn kill(&mut self) -> Result<u64> {
        let time = clock::realtime_ns();
        self.child.kill()?;
        self.child.wait()?;
        Ok(time)
    }

    /// Asks it to end, and waits.
    fn stop(&mut self) -> Result<()> {
        kill_process(Pid::from_child(&self.child), Signal::TERM)?;
        let patience = Instant::now() + PATIENCE;
        while self.child.try_wait()?.is_none() {
            if Instant::now() > patience {
                bail!("the recorder does not end");
            }
            std::thread::sleep(STEP);
        }
        Ok(())
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) && self.stop().is_err() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// A thread that wakes up and sleeps, under a name that is easy to find in a trace.
struct Load {
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Load {
    fn start() -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let until = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let _ = rustix::thread::set_name(TASK);
            while !until.load(Ordering::Relaxed) {
                std::thread::sleep(Duration::from_micros(100));
            }
        });
        Self {
            stop,
            thread: Some(thread),
        }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

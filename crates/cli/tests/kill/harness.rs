//! What the tests share: a state folder of their own, recorders that are killed with the test, load
//! for the scheduler, and what the kernel itself knows of a leftover host instance.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use outlive_kernel::{InstanceName, Instances, StateId, Tracefs};
use outlive_trace::view::View;
use outlive_trace::{Generation, StateDir, generation};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use tempfile::TempDir;

/// How long something may take before the test fails. A machine may be very busy.
const PATIENCE: Duration = Duration::from_secs(60);

/// The scheduler's events, as the first line of the README has them, in a smaller area.
pub const SCHED: &str = "reserve_mem=12M:4096:trace trace_instance=boot_mapped^@trace,sched \
                         trace_instance=backup=boot_mapped";

/// A state folder and the recorders on it. Whatever happens, no process and no host instance of
/// it stays.
pub struct Rig {
    pub tracefs: Tracefs,
    pub folder: TempDir,
    starts: AtomicU32,
    /// What has to stay until the host instances are gone.
    pub keeps: Option<Box<dyn std::any::Any>>,
    _one_at_a_time: MutexGuard<'static, ()>,
}

impl Rig {
    /// `None`, with the reason on standard output, where the machine's events cannot be had.
    pub fn new(test: &str) -> Option<Self> {
        static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
        let guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        match Tracefs::find() {
            Ok(tracefs) => Some(Self {
                tracefs,
                folder: TempDir::new().unwrap(),
                starts: AtomicU32::new(0),
                keeps: None,
                _one_at_a_time: guard,
            }),
            Err(error) => {
                println!("{test}: skipped: {error}");
                None
            }
        }
    }

    pub fn state_path(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    pub fn state(&self) -> StateDir {
        StateDir::open_existing(&self.state_path())
            .unwrap()
            .expect("a state folder")
    }

    fn instances(&self) -> Option<Instances> {
        let state = StateDir::open_existing(&self.state_path()).ok()??;
        let id = u64::from_str_radix(state.id(), 16).ok()?;
        Some(Instances::new(&self.tracefs, StateId(id)))
    }

    /// The host instances of this state.
    pub fn hosts(&self) -> Vec<InstanceName> {
        self.instances()
            .map(|instances| instances.list().unwrap())
            .unwrap_or_default()
    }

    /// The folder of a host instance.
    pub fn host_folder(&self, name: &InstanceName) -> PathBuf {
        self.tracefs.root().join("instances").join(name.to_string())
    }

    /// `outlive` on this state.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_outlive"));
        command.arg("--state").arg(self.state_path()).args(args);
        command.env_remove("NOTIFY_SOCKET").stdin(Stdio::null());
        command
    }

    /// Runs `outlive` to its end, which must come.
    pub fn run(&self, args: &[&str]) -> Output {
        let [stdout, stderr] = ["stdout", "stderr"].map(|name| self.folder.path().join(name));
        let mut command = self.command(args);
        command.stdout(File::create(&stdout).unwrap());
        command.stderr(File::create(&stderr).unwrap());
        let mut running = Recorder {
            child: command.spawn().unwrap(),
            log: stderr.clone(),
        };
        let status = running.wait();
        Output {
            status,
            stdout: fs::read(stdout).unwrap(),
            stderr: fs::read(stderr).unwrap(),
        }
    }

    /// What `outlive` prints, which must succeed.
    pub fn print(&self, args: &[&str]) -> String {
        let output = self.run(args);
        assert!(output.status.success(), "{args:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Starts a recorder.
    pub fn boot(&self, args: &[&str]) -> Recorder {
        self.boot_with(args, |_| ())
    }

    /// Starts a recorder with something set that is not an argument.
    pub fn boot_with(&self, args: &[&str], set: impl FnOnce(&mut Command)) -> Recorder {
        let number = self.starts.fetch_add(1, Ordering::Relaxed);
        let log = self.folder.path().join(format!("boot-{number}.log"));
        let mut command = self.command(&["boot"]);
        command.args(args).stdout(Stdio::null());
        command.stderr(File::create(&log).unwrap());
        set(&mut command);
        Recorder {
            child: command.spawn().unwrap(),
            log,
        }
    }

    /// Starts a recorder and waits until it records.
    pub fn record(&self, args: &[&str]) -> Recorder {
        let mut recorder = self.boot(args);
        recorder.wait_for("recording ");
        recorder
    }

    /// The generations of an instance, oldest first.
    pub fn generations(&self, instance: &str) -> Vec<Generation> {
        generation::list_instance(&self.state(), instance).unwrap()
    }

    /// The newest generation of an instance.
    pub fn newest(&self, instance: &str) -> Generation {
        self.generations(instance).pop().expect("a generation")
    }

    /// The host instance that a dead recorder left for one of its instances.
    pub fn leftover(&self, instance: &str) -> InstanceName {
        let mut found = self
            .hosts()
            .into_iter()
            .filter(|host| host.name() == instance);
        let host = found.next().expect("a leftover host instance");
        assert_eq!(found.next(), None, "one leftover of {instance}");
        host
    }

    /// Stops a leftover host instance and reads what the kernel has in it.
    pub fn freeze(&self, name: &InstanceName) -> Frozen {
        let folder = self.host_folder(name);
        fs::write(folder.join("tracing_on"), "0").unwrap();
        fs::write(folder.join("options/hash-ptr"), "0").unwrap();
        Frozen::read(&folder)
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        let Some(instances) = self.instances() else {
            return;
        };
        for name in instances.list().unwrap_or_default() {
            let removed = instances
                .open_existing(&name)
                .and_then(outlive_kernel::Instance::remove);
            if let Err(error) = removed {
                eprintln!("left behind: {error}");
            }
        }
        if let Ok(Some(state)) = StateDir::open_existing(&self.state_path()) {
            let _ = fs::remove_dir_all(format!("/dev/shm/outlive-{}", state.id()));
        }
    }
}

/// A recorder, killed when it goes.
pub struct Recorder {
    pub child: Child,
    log: PathBuf,
}

impl Recorder {
    /// One that was started in another way.
    pub fn of(child: Child, log: PathBuf) -> Self {
        Self { child, log }
    }

    /// What it said so far.
    pub fn said(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    /// Waits until it says something.
    pub fn wait_for(&mut self, words: &str) {
        let log = self.log.clone();
        let said = || fs::read_to_string(&log).unwrap();
        let child = &mut self.child;
        wait_until(
            || {
                // Asked first: what it says before it ends counts.
                let ended = child.try_wait().unwrap();
                let is_said = said().contains(words);
                assert!(
                    is_said || ended.is_none(),
                    "ended with {ended:?} before {words:?}:\n{}",
                    said()
                );
                is_said.then_some(())
            },
            || format!("no {words:?} in:\n{}", said()),
        );
    }

    /// Waits until all of the earlier runs is where it belongs: only the host instances of this run
    /// are left, and no generation waits for more.
    pub fn wait_for_collected(&mut self, rig: &Rig) {
        self.wait_for("recording ");
        wait_until(
            || {
                let hosts = rig.hosts();
                let is_ours = hosts.iter().all(|host| host.run() == hosts[0].run());
                let generations = generation::list(&rig.state()).unwrap();
                let is_complete = !generations.iter().any(Generation::is_collecting);
                (is_ours && is_complete).then_some(())
            },
            || self.said(),
        );
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// SIGKILL.
    pub fn kill(mut self) {
        self.signal(Signal::KILL);
        self.wait();
    }

    /// SIGTERM, and it ends cleanly.
    pub fn stop(mut self) {
        self.signal(Signal::TERM);
        let status = self.wait();
        assert!(status.success(), "{status}:\n{}", self.said());
    }

    /// Waits until it has ended.
    pub fn wait(&mut self) -> ExitStatus {
        wait_until(
            || self.child.try_wait().unwrap(),
            || "does not end".to_owned(),
        )
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- {}\n{}", self.log.display(), self.said());
        }
    }
}

/// Asks until there is an answer.
pub fn wait_until<T>(mut ask: impl FnMut() -> Option<T>, or: impl Fn() -> String) -> T {
    let until = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < until, "{}", or());
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Processes that come and go and talk through pipes, until it is dropped.
pub struct Load(Vec<Child>);

impl Load {
    pub fn start() -> Self {
        let scripts = [
            "while :; do /bin/true; /bin/true | /bin/cat; done",
            "yes | while read x; do echo $x; done | cat",
            "while :; do (exec /bin/true) & wait; done",
        ];
        Self(scripts.iter().map(|script| Self::spawn(script)).collect())
    }

    /// Load for a while.
    pub fn for_ms(ms: u64) {
        let _load = Self::start();
        std::thread::sleep(Duration::from_millis(ms));
    }

    /// In a group of its own, so that all of it can be ended at once.
    fn spawn(script: &str) -> Child {
        use std::os::unix::process::CommandExt;
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]).process_group(0);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        command.spawn().unwrap()
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = kill_process_group(Pid::from_child(child), Signal::KILL);
            let _ = child.wait();
        }
    }
}

/// The lines of each CPU.
pub type Lines = BTreeMap<u32, Vec<String>>;

/// What the kernel has in an instance that does not record any more.
#[derive(Debug)]
pub struct Frozen {
    /// Its own text, without task names.
    pub lines: Lines,
    /// Events ever written, by CPU.
    pub written: BTreeMap<u32, u64>,
    /// Events that the kernel has overwritten, by CPU.
    pub overrun: BTreeMap<u32, u64>,
}

impl Frozen {
    fn read(folder: &Path) -> Self {
        let mut frozen = Self {
            lines: lines_by_cpu(&fs::read_to_string(folder.join("trace")).unwrap()),
            written: BTreeMap::new(),
            overrun: BTreeMap::new(),
        };
        for (cpu, (entries, overrun)) in counters(folder) {
            frozen.overrun.insert(cpu, overrun);
            frozen.written.insert(cpu, entries + overrun);
        }
        frozen
    }

    /// The same lines in a generation's text as far as the kernel still has them, all to the last
    /// one, none between; and every event that was ever written is there or counted.
    pub fn assert_kept(&self, rig: &Rig, target: &str, generation: &Generation) {
        let text = rig.print(&["show", target]);
        let ours = lines_by_cpu(&text);
        for (cpu, theirs) in &self.lines {
            let none = Vec::new();
            let ours = ours.get(cpu).unwrap_or(&none);
            let same = ours.len().saturating_sub(theirs.len());
            assert_same_lines(*cpu, &ours[same..], theirs);
        }
        self.assert_counted(generation);
        assert_time_is_in_order(&rig.print(&["show", target, "--json"]));
    }

    /// Every event that was ever written is there or counted.
    pub fn assert_counted(&self, generation: &Generation) {
        let view = open(generation);
        for (cpu, written) in &self.written {
            let of_cpu = view.cpus.iter().find(|of_cpu| of_cpu.cpu == *cpu);
            let counted = of_cpu.map_or(0, |of_cpu| {
                of_cpu.entries + of_cpu.counters.overrun + of_cpu.counters.lost
            });
            assert_eq!(
                counted,
                *written,
                "CPU {cpu}: {:?}",
                of_cpu.map(|of_cpu| (of_cpu.entries, &of_cpu.counters, &of_cpu.holes))
            );
        }
    }
}

/// Entries and overrun of each CPU of an instance.
fn counters(folder: &Path) -> BTreeMap<u32, (u64, u64)> {
    let folders = fs::read_dir(folder.join("per_cpu")).unwrap().flatten();
    let of_cpu = folders.map(|entry| {
        let name = entry.file_name().into_string().unwrap();
        let stats = fs::read_to_string(entry.path().join("stats")).unwrap();
        let of = |key: &str| -> u64 {
            let line = stats.lines().find_map(|line| line.strip_prefix(key));
            line.unwrap().trim().parse().unwrap()
        };
        let cpu = name.trim_start_matches("cpu").parse().unwrap();
        (cpu, (of("entries:"), of("overrun:")))
    });
    of_cpu.collect()
}

/// Events ever written to an instance.
pub fn written(folder: &Path) -> u64 {
    let counters = counters(folder).into_values();
    counters.map(|(entries, overrun)| entries + overrun).sum()
}

/// A generation with its tail, which must be readable and whole.
pub fn open(generation: &Generation) -> View {
    let (view, problem) =
        View::open_with_tail(&generation.region_path(), &generation.tail_path()).unwrap();
    assert!(problem.is_none(), "{problem:?}");
    assert!(view.is_whole());
    view
}

fn assert_same_lines(cpu: u32, ours: &[String], theirs: &[String]) {
    for (i, (ours, theirs)) in ours.iter().zip(theirs).enumerate() {
        assert_eq!(ours, theirs, "CPU {cpu}, line {i} of the kernel's");
    }
    assert_eq!(ours.len(), theirs.len(), "lines of CPU {cpu}");
}

/// The event lines of a text, by CPU, from the pid on: a name is in front of it.
pub fn lines_by_cpu(text: &str) -> Lines {
    let mut lines = Lines::new();
    for line in text.lines() {
        if let Some((cpu, rest)) = without_name(line) {
            lines.entry(cpu).or_default().push(rest.to_owned());
        }
    }
    lines
}

/// The CPU of an event's line, and the line from its pid on: `NAME-PID [CPU] ...`.
fn without_name(line: &str) -> Option<(u32, &str)> {
    if line.starts_with(['#', 'C']) {
        return None;
    }
    let cpu_at = line
        .match_indices(" [")
        .find(|(at, _)| line.as_bytes().get(at + 5) == Some(&b']'))?
        .0;
    let pid_at = line[..cpu_at].rfind('-')?;
    Some((line[cpu_at + 2..cpu_at + 5].parse().ok()?, &line[pid_at..]))
}

/// Per CPU no event is before the one in front of it.
fn assert_time_is_in_order(json: &str) {
    let mut last: BTreeMap<u64, u64> = BTreeMap::new();
    for line in json.lines() {
        let (cpu, ts) = cpu_and_time(line);
        let before = last.insert(cpu, ts).unwrap_or(0);
        assert!(before <= ts, "CPU {cpu}: {before} before {line}");
    }
}

/// The times of the first and the last event of each CPU, in `show --json`.
pub fn times_by_cpu(json: &str) -> BTreeMap<u64, (u64, u64)> {
    let mut times = BTreeMap::new();
    for (cpu, ts) in json.lines().map(cpu_and_time) {
        times.entry(cpu).or_insert((ts, ts)).1 = ts;
    }
    times
}

fn cpu_and_time(line: &str) -> (u64, u64) {
    let number = |key: &str| -> u64 {
        let (_, rest) = line.split_once(key).expect(key);
        let end = rest.find([',', '}']).unwrap();
        rest[..end].parse().unwrap()
    };
    (number("\"cpu\":"), number("\"ts\":"))
}

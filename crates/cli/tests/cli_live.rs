//! What looks at a region while a recorder writes it, and the demo. On the machine's own scheduler
//! events: skipped, and said so, where they cannot be had.

mod common;

use std::io::Read;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use common::{babeltrace_python, python, script};
use outlive::{Backing, Recorder, event};
use outlive_kernel::{Instances, StateId, Tracefs};
use outlive_trace::generation::list;
use outlive_trace::{Generation, StateDir};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(60);
const AREA: &str = "reserve_mem=8M:4096:trace trace_instance=boot_mapped@trace";

/// A recorder on a state of its own; nothing stays of either.
struct Rig {
    tracefs: Tracefs,
    folder: TempDir,
    recorder: Option<Child>,
    _one_at_a_time: MutexGuard<'static, ()>,
}

impl Rig {
    fn new(test: &str) -> Option<Self> {
        static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
        let guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        match Tracefs::find() {
            Ok(tracefs) => Some(Self {
                tracefs,
                folder: TempDir::new().unwrap(),
                recorder: None,
                _one_at_a_time: guard,
            }),
            Err(error) => {
                println!("{test}: skipped: {error}");
                None
            }
        }
    }

    fn state_path(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_outlive"));
        command.arg("--state").arg(self.state_path()).args(args);
        command.env_remove("NOTIFY_SOCKET").stdin(Stdio::null());
        command
    }

    fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    /// Starts the recorder and waits until it has recorded something.
    fn record(&mut self) {
        self.record_events("sched", "sched_switch");
    }

    /// The same with these events, of which one comes for sure.
    fn record_events(&mut self, events: &str, sure: &str) {
        let mut boot = self.command(&["boot", &format!("{AREA},{events}")]);
        self.recorder = Some(boot.stderr(Stdio::null()).spawn().unwrap());
        let end = Instant::now() + PATIENCE;
        while !self.has_recorded(sure) {
            assert!(
                Instant::now() < end,
                "the recorder does not begin to record"
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn has_recorded(&self, event: &str) -> bool {
        let output = self.run(&["show", "boot_mapped", "--event", event]);
        String::from_utf8_lossy(&output.stdout).contains(&format!(": {event}: "))
    }

    /// Starts the next run, and waits until it has taken what the host's ring had of the one before.
    fn record_behind_a_tail(&mut self) {
        self.record();
        let state = StateDir::open_existing(&self.state_path())
            .unwrap()
            .unwrap();
        let end = Instant::now() + PATIENCE;
        let has_tail = |kept: &Generation| kept.tail_path().exists() && !kept.is_collecting();
        while !list(&state).unwrap().iter().any(has_tail) {
            assert!(Instant::now() < end, "the tail is not collected");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn kill_recorder(&mut self) {
        let mut recorder = self.recorder.take().unwrap();
        recorder.kill().unwrap();
        recorder.wait().unwrap();
    }

    /// The name of the only generation, which must have a tail.
    fn generation(&self) -> String {
        let folder = self.state_path().join("generations/boot_mapped");
        let generation = std::fs::read_dir(folder).unwrap().next().unwrap().unwrap();
        assert!(generation.path().join("tail").exists());
        format!("boot_mapped/{}", generation.file_name().to_str().unwrap())
    }

    /// Exports to the folder, and returns where. A busy machine may have lost events, which is no
    /// failure here.
    fn export(&self, out: &str, sources: &[&str]) -> String {
        let path = self.folder.path().join(out);
        let out = path.to_str().unwrap();
        let output = self.run(&[&["export", "-o", out], sources].concat());
        assert!(path.exists(), "{output:?}");
        out.to_owned()
    }

    fn end_recording(&mut self) {
        if let Some(mut recorder) = self.recorder.take() {
            kill_process(Pid::from_child(&recorder), Signal::TERM).unwrap();
            recorder.wait().unwrap();
        }
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.end_recording();
        let Ok(Some(state)) = StateDir::open_existing(&self.state_path()) else {
            return;
        };
        let id = StateId(u64::from_str_radix(state.id(), 16).unwrap());
        let instances = Instances::new(&self.tracefs, id);
        for name in instances.list().unwrap_or_default() {
            let _ = instances
                .open_existing(&name)
                .and_then(outlive_kernel::Instance::remove);
        }
    }
}

/// Wakes up as often as the clock allows.
fn make_switches(time: Duration) {
    let end = Instant::now() + time;
    while Instant::now() < end {
        std::thread::sleep(Duration::from_micros(50));
    }
}

fn events(text: &str) -> Vec<&str> {
    let is_event = |line: &&str| !line.starts_with(['#', 'C']);
    text.lines().filter(is_event).collect()
}

#[test]
fn follow_prints_what_show_prints_and_ends_with_the_recorder() {
    let Some(mut rig) = Rig::new("follow") else {
        return;
    };
    rig.record();
    let mut following = rig.command(&["show", "boot_mapped", "--follow"]);
    let mut following = following.stdout(Stdio::piped()).spawn().unwrap();
    let mut stdout = following.stdout.take().unwrap();
    let reader = std::thread::spawn(move || {
        let mut text = String::new();
        stdout.read_to_string(&mut text).unwrap();
        text
    });
    make_switches(Duration::from_millis(800));
    rig.end_recording();
    assert!(following.wait().unwrap().success());
    let followed = reader.join().unwrap();
    let shown = rig.run(&["show", "boot_mapped"]);
    let shown = String::from_utf8(shown.stdout).unwrap();
    let time_and_text = |line: &&str| line[16..].to_owned();
    let mut followed: Vec<_> = events(&followed).iter().map(time_and_text).collect();
    let mut shown: Vec<_> = events(&shown).iter().map(time_and_text).collect();
    followed.sort();
    shown.sort();
    // What the ring has overwritten since was followed; what it holds was, too.
    let rest = shown
        .iter()
        .filter(|line| followed.binary_search(line).is_err());
    assert_eq!(rest.count(), 0);
    assert!(shown.len() > 1000, "{}", shown.len());
}

#[test]
fn region_that_is_being_written_is_whole_and_its_text_in_order() {
    let Some(mut rig) = Rig::new("live") else {
        return;
    };
    rig.record();
    std::thread::scope(|scope| {
        scope.spawn(|| make_switches(Duration::from_secs(2)));
        for _ in 0..5 {
            let check = rig.run(&["check", "boot_mapped"]);
            assert_eq!(check.status.code(), Some(0), "{check:?}");
            assert!(String::from_utf8_lossy(&check.stdout).contains("being written now"));
            let shown = rig.run(&["show", "boot_mapped"]);
            let shown = String::from_utf8(shown.stdout).unwrap();
            let times: Vec<f64> = events(&shown).iter().map(|line| time(line)).collect();
            assert!(times.is_sorted() && !times.is_empty());
            assert!(!shown.contains("Unknown type"));
        }
    });
    let listed = rig.run(&["ls"]);
    assert!(String::from_utf8_lossy(&listed.stdout).contains("still running"));
}

fn time(line: &str) -> f64 {
    let time = line
        .split_whitespace()
        .find_map(|word| word.strip_suffix(':'));
    time.unwrap().parse().unwrap()
}

#[test]
fn demo_shows_the_last_events_before_the_kill_and_leaves_nothing() {
    let Some(rig) = Rig::new("demo") else {
        return;
    };
    let before = Instant::now();
    let mut demo = Command::new(env!("CARGO_BIN_EXE_outlive"));
    let output = demo.arg("demo").env("TMPDIR", rig.folder.path()).output();
    let output = output.unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(
        output.status.success(),
        "{text} {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let (_, shown) = text.split_once("outlive show backup").unwrap();
    let (shown, rest) = shown.split_once("---- SIGKILL").unwrap();
    assert_eq!(
        events(shown)
            .iter()
            .filter(|line| line.contains(" [0"))
            .count(),
        15
    );
    // On a busy machine the last 15 events may all be of other tasks than the demo's.
    assert!(shown.contains("verdict: crash"), "{shown}");
    assert!(rest.contains("= backup"), "{rest}");
    assert!(
        before.elapsed() < Duration::from_secs(15),
        "{:?}",
        before.elapsed()
    );
    assert_eq!(std::fs::read_dir(rig.folder.path()).unwrap().count(), 0);
}

/// The kernel sees a program start before its supervisor sees it end, and the supervisor sees it start
/// before the kernel sees it end: both by the time that the program sleeps.
#[test]
fn a_supervised_program_and_the_kernel_are_shown_in_one_text() {
    let Some(mut rig) = Rig::new("merged") else {
        return;
    };
    // Each look at what is recorded is a program that begins. With all of the scheduler's events a
    // busy machine overwrites the first of them before the last.
    rig.record_events(
        "sched:sched_process_exec,sched:sched_process_exit",
        "sched_process_exec",
    );
    let ran = rig.run(&[
        "run",
        "--name",
        "job",
        "--",
        "sh",
        "-c",
        "sleep 0.05; exit 3",
    ]);
    assert_eq!(ran.status.code(), Some(3), "{ran:?}");
    rig.end_recording();
    let shown = rig.run(&["show", "boot_mapped", "job.run", "--json"]);
    let json = String::from_utf8(shown.stdout).unwrap();
    let events: Vec<serde_json::Value> = json
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let at = |event: &str, pid: Option<&serde_json::Value>| {
        let is_it =
            |e: &serde_json::Value| e["event"] == event && pid.is_none_or(|p| e["pid"] == *p);
        let place = events.iter().position(is_it);
        place.unwrap_or_else(|| panic!("no {event} of {pid:?}"))
    };
    let (start, exit) = (at("start", None), at("exit", None));
    let pid = &events[start]["fields"]["program_pid"];
    assert!(at("sched_process_exec", Some(pid)) < exit);
    assert!(start < at("sched_process_exit", Some(pid)));
    assert!(events.is_sorted_by_key(|event| event["time"].as_u64().unwrap()));
    for app in outlive_trace::apps::list(&rig.state_path()).unwrap() {
        let _ = std::fs::remove_dir_all(format!("/dev/shm/outlive-{}", app.id()));
    }
}

/// An address of this event counts from a variable of the kernel. Of several regions, each tells for itself.
#[test]
fn events_that_print_their_fields_are_counted_by_region() {
    let Some(mut rig) = Rig::new("unevaluated") else {
        return;
    };
    rig.record_events("kmem:mm_page_free", "mm_page_free");
    let ran = rig.run(&["run", "--name", "job", "--", "true"]);
    assert!(ran.status.success(), "{ran:?}");
    rig.end_recording();
    let told_of = |names: &[&str], of: &str| {
        let shown = rig.run(&[&["show"], names].concat());
        let text = String::from_utf8_lossy(&shown.stdout);
        let events = text.matches(": mm_page_free: ").count();
        assert!(events > 0);
        let words = format!(
            "outlive: {of}{events} events print their fields, as their print format cannot be \
             evaluated: kmem:mm_page_free {events}\n"
        );
        let stderr = String::from_utf8_lossy(&shown.stderr);
        assert!(stderr.contains(&words), "{stderr}\n{words}");
    };
    told_of(&["boot_mapped"], "");
    told_of(&["boot_mapped", "job.run"], "boot_mapped: ");
    for app in outlive_trace::apps::list(&rig.state_path()).unwrap() {
        let _ = std::fs::remove_dir_all(format!("/dev/shm/outlive-{}", app.id()));
    }
}

/// `sql` answers while the recorder writes; afterwards it counts what `show` prints.
#[test]
fn sql_over_a_real_recording_counts_what_show_prints() {
    let Some(mut rig) = Rig::new("sql_over_a_real_recording_counts_what_show_prints") else {
        return;
    };
    rig.record();
    let count = |rig: &Rig| -> usize {
        let statement = "SELECT count(*) FROM sched_switch WHERE prev_pid >= 0";
        let output = rig.run(&["sql", statement, "boot_mapped", "--csv"]);
        assert!(output.status.success(), "{output:?}");
        let text = String::from_utf8(output.stdout).unwrap();
        text.lines().nth(1).unwrap().parse().unwrap()
    };
    make_switches(Duration::from_millis(100));
    assert!(count(&rig) > 0);
    rig.end_recording();
    let shown = rig.run(&["show", "boot_mapped", "--event", "sched_switch"]);
    let shown = String::from_utf8(shown.stdout).unwrap();
    assert_eq!(count(&rig), events(&shown).len());
    let statement = "SELECT count(*) FROM wakeup_latency WHERE dur >= 0 AND task IS NOT NULL";
    let output = rig.run(&["sql", statement, "boot_mapped", "--csv"]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(
        text.lines().nth(1).unwrap().parse::<u64>().unwrap() > 0,
        "{text}"
    );
}

/// Of a recorder that was killed the newest events are still in the host's ring: what a CPU ran is
/// certain once the next start has taken them from there.
#[test]
fn what_a_cpu_ran_is_certain_when_the_tail_has_been_taken() {
    let Some(mut rig) = Rig::new("last") else {
        return;
    };
    rig.record();
    make_switches(Duration::from_millis(100));
    rig.kill_recorder();
    assert!(
        ran(&rig, "boot_mapped")
            .iter()
            .all(|(_, ran)| ran["certain"] != true)
    );

    rig.record_behind_a_tail();
    rig.end_recording();
    let ran = ran(&rig, "boot_mapped/2");
    assert!(!ran.is_empty() && ran.iter().any(|(_, ran)| ran["certain"] == true));
    assert_tail_is_told(&rig, "boot_mapped/2");
    let shown = rig.run(&["show", "boot_mapped/2", "--json", "--event", "sched_switch"]);
    let shown = String::from_utf8(shown.stdout).unwrap();
    let switches: Vec<serde_json::Value> = shown
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    for (cpu, ran) in ran {
        let last = switches.iter().rfind(|switch| switch["cpu"] == cpu);
        assert_eq!(last.unwrap()["fields"]["next_pid"], ran["pid"]);
    }
}

/// The tail goes on behind the region, and the last part of the time is the last part of both.
#[test]
fn last_part_of_a_generation_is_that_of_its_tail() {
    let Some(mut rig) = Rig::new("last_part") else {
        return;
    };
    rig.record();
    rig.kill_recorder();
    make_switches(Duration::from_millis(100));
    rig.record_behind_a_tail();
    rig.end_recording();
    let name = rig.generation();
    let shown = |args: &[&str]| -> Vec<String> {
        let output = rig.run(&[&["show", &name], args].concat());
        let text = String::from_utf8(output.stdout).unwrap();
        events(&text).into_iter().map(str::to_owned).collect()
    };
    let all = shown(&[]);
    let from = time(all.last().unwrap()) - 0.01;
    let last = shown(&["--last", "10ms"]);
    // The text has microseconds.
    assert!(time(&last[0]) > from - 2e-6, "{} {from}", last[0]);
    assert!(all.ends_with(&last) && all.len() > last.len());
}

/// Where the recorder's own events end, and that more come behind them.
fn assert_tail_is_told(rig: &Rig, name: &str) {
    let text = rig.run(&["last", name]);
    let text = String::from_utf8(text.stdout).unwrap();
    assert!(text.contains("  tail       the recorder's last event is of "));
    assert!(text.contains("; the kernel's ring went on for "), "{text}");
    let last = last(rig, name);
    let ts = |key: &str| last[key].as_u64().unwrap();
    assert!(ts("first_ts") < ts("recorded_until"), "{last}");
    assert!(ts("recorded_until") < ts("last_ts"), "{last}");
}

fn last(rig: &Rig, name: &str) -> serde_json::Value {
    let output = rig.run(&["last", name, "--json"]);
    serde_json::from_slice(&output.stdout).unwrap()
}

/// What `last` says that each CPU ran.
fn ran(rig: &Rig, name: &str) -> Vec<(u64, serde_json::Value)> {
    let last = last(rig, name);
    let cpus = last["cpus"].as_array().unwrap().iter();
    cpus.map(|cpu| (cpu["cpu"].as_u64().unwrap(), cpu["ran"].clone()))
        .collect()
}

/// A region whose recorder was killed, with what the kernel's ring recorded after that, and the region
/// of a program that ran meanwhile: one export, which is what the JSON lines of the same are.
#[test]
fn foreign_readers_agree_on_a_tail_and_a_program_merged() {
    let Some(mut rig) = Rig::new("foreign_readers_agree_on_a_tail_and_a_program_merged") else {
        return;
    };
    rig.record();
    let shop = Recorder::builder("shop").state(rig.state_path());
    let shop = shop.backing(Backing::File).start().unwrap();
    for n in 0..100u32 {
        event!("shop:step", n = n, part = "before");
        make_switches(Duration::from_millis(1));
    }
    rig.kill_recorder();
    for n in 0..100u32 {
        event!("shop:step", n = n, part = "after");
        make_switches(Duration::from_millis(1));
    }
    drop(shop);
    rig.record_behind_a_tail();
    rig.end_recording();
    let generation = rig.generation();
    let sources = [generation.as_str(), "shop"];
    let lines = rig.export("x.jsonl", &sources);
    let text = std::fs::read_to_string(&lines).unwrap();
    assert_eq!(text.matches("\"event\":\"step\"").count(), 200);
    let count = text.lines().count();
    if let Some(python) = python() {
        let trace = rig.export("x.pftrace", &sources);
        let args = [&[trace.as_str(), &lines], &sources[..]].concat();
        let compared = script(&python, "export_perfetto.py", &args);
        assert_eq!(compared["events"], count, "{compared}");
        assert_eq!(compared["kinds"]["TYPE_INSTANT"], 200, "{compared}");
        assert!(
            compared["kinds"]["sched_switch"].as_u64() > Some(100),
            "{compared}"
        );
    }
    if let Some(python) = babeltrace_python() {
        for name in ["x.ctf", "x.ctf2"] {
            let trace = rig.export(name, &sources);
            let compared = script(&python, "export_ctf.py", &[&trace, &lines]);
            assert_eq!(compared["events"], count, "{name}: {compared}");
        }
    }
}

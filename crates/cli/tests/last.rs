//! `outlive last`: what is read first after a crash, of programs that are killed and of kernels.

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use common::Unpacked;
use outlive::{Backing, Recorder, event, span};
use serde_json::Value;

/// Where the child of a test finds its state folder.
const STATE: &str = "OUTLIVE_TEST_STATE";

/// A program with two threads: one is inside of two spans, one has panicked inside of another one.
/// It does nothing when it is run by itself.
#[test]
fn child_is_killed_inside_of_spans() {
    let Some(state) = std::env::var_os(STATE) else {
        return;
    };
    let _recorder = Recorder::builder("shop")
        .version("1.2")
        .state(PathBuf::from(state))
        .backing(Backing::File)
        .start()
        .unwrap();
    event!("shop:opened", door = 1u32);
    drop(span!("shop:swept"));
    let worker = std::thread::Builder::new().name("worker".into());
    let _ = worker.spawn(work).unwrap().join();
    let _request = span!("http:request", path = "/a file.html");
    let _query = span!("db:query", table = "orders", rows = 3u32);
    event!("db:waits", lock = 7u32);
    println!("ready");
    std::io::stdout().flush().unwrap();
    loop {
        std::thread::park();
    }
}

fn work() {
    let span = span!("shop:work", order = 7u64);
    // As a thread that a signal ends: nothing is unwound.
    std::mem::forget(span);
    panic!("an order\nwith \x1b[31mtwo lines");
}

/// Runs that program, and kills it.
fn killed(state: &Path) {
    killed_in("child_is_killed_inside_of_spans", state);
}

fn killed_in(child: &str, state: &Path) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", child, "--nocapture", "--test-threads=1"])
        .env(STATE, state)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(
        lines
            .map_while(Result::ok)
            .any(|line| line.contains("ready"))
    );
    child.kill().unwrap();
    child.wait().unwrap();
}

fn outlive(state: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_outlive"))
        .arg("--state")
        .arg(state)
        .args(args)
        .env("TZ", "UTC")
        .output()
        .unwrap()
}

fn stdout(output: Output) -> String {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    String::from_utf8(output.stdout).unwrap()
}

fn json(state: &Path, name: &str) -> Value {
    serde_json::from_str(&stdout(outlive(state, &["last", name, "--json"]))).unwrap()
}

fn thread<'j>(json: &'j Value, name: &str) -> &'j Value {
    let threads = json["threads"].as_array().unwrap();
    let has_name = |thread: &&Value| thread["name"] == name;
    threads
        .iter()
        .find(has_name)
        .unwrap_or_else(|| panic!("{json}"))
}

/// The text, line by line without what differs from run to run.
fn shape(text: &str) -> Vec<&str> {
    text.lines().map(str::trim).collect()
}

#[test]
fn a_killed_program_shows_its_open_spans_its_panic_and_its_last_events() {
    let state = tempfile::tempdir().unwrap();
    killed(state.path());
    let text = stdout(outlive(state.path(), &["last", "shop"]));
    let lines = shape(&text);
    let has = |wanted: &str| lines.iter().any(|line| line.contains(wanted));
    assert!(
        lines[0].starts_with("shop: crash, last sign of life 2"),
        "{text}"
    );
    assert!(has(" 1.2, pid ") && has("lost       nothing"), "{text}");
    assert!(has(", ran for at least "), "{text}");
    assert!(
        has("thread \"worker\"") && has("crates/cli/tests/last.rs:"),
        "{text}"
    );
    let panic = lines.iter().position(|line| *line == "last panic").unwrap();
    assert_eq!(
        lines[panic + 2..panic + 4],
        ["an order", "with \\u{1b}[31mtwo lines"]
    );

    let spans = lines.iter().position(|line| *line == "open spans").unwrap();
    let at = |wanted: &str| {
        lines
            .iter()
            .position(|line| line.starts_with(wanted))
            .unwrap()
    };
    assert!(
        at("http:request path=\"/a file.html\"  (for ") > spans,
        "{text}"
    );
    assert_eq!(
        at("db:query table=orders rows=3  (for "),
        at("http:request") + 1
    );
    assert!(at("shop:work order=7  (for ") > spans);
    assert!(!text[..text.find("last events").unwrap()].contains("shop:swept"));
    assert!(lines.last().unwrap().ends_with(": waits: lock=7"), "{text}");
    assert!(!text.contains('\x1b') && lines.len() < 40, "{text}");
}

#[test]
fn json_has_all_of_it() {
    let state = tempfile::tempdir().unwrap();
    killed(state.path());
    let json = json(state.path(), "shop");
    assert_eq!(json["verdict"], "crash");
    assert_eq!(json["run"]["version"], "1.2");
    assert_eq!(json["panic"]["fields"]["thread"], "worker");
    let spans = json["open_spans"].as_array().unwrap();
    let names: Vec<&Value> = spans.iter().map(|span| &span["begin"]["event"]).collect();
    assert_eq!(names, ["work", "request", "query"]);
    assert_eq!(spans[2]["parent"], spans[1]["id"]);
    assert!(spans.iter().all(|span| span["certain"] == true));
    let worker = thread(&json, "worker");
    assert_eq!(spans[0]["begin"]["pid"], worker["tid"]);
    let last = worker["last"].as_array().unwrap().last().unwrap();
    assert_eq!(
        (&last["event"], &worker["events"]),
        (&"panic".into(), &2.into())
    );
    assert_eq!(json["events"], 8);
}

/// A program with a thousand spans of one thread open, one inside of the other, and one of each of so
/// many other threads.
fn descend(state: &std::ffi::OsStr, threads: u32) {
    let _recorder = Recorder::builder("shop")
        .state(PathBuf::from(state))
        .backing(Backing::File)
        .lanes(32)
        .start()
        .unwrap();
    for thread in 0..threads {
        let begin = move || std::mem::forget(span!("shop:work", thread = thread));
        std::thread::spawn(begin).join().unwrap();
    }
    for level in 0..1000u32 {
        std::mem::forget(span!("shop:descent", level = level));
    }
    println!("ready");
    std::io::stdout().flush().unwrap();
    loop {
        std::thread::park();
    }
}

/// Does nothing when it is run by itself.
#[test]
fn child_is_killed_inside_of_a_thousand_spans() {
    if let Some(state) = std::env::var_os(STATE) {
        descend(&state, 3);
    }
}

/// Does nothing when it is run by itself.
#[test]
fn child_is_killed_inside_of_spans_of_many_threads() {
    if let Some(state) = std::env::var_os(STATE) {
        descend(&state, 20);
    }
}

/// The lines of open spans, and how many spans they say that there are.
fn open_spans(text: &str) -> (Vec<&str>, usize) {
    assert!(text.lines().count() < 80, "{text}");
    let (_, spans) = text.split_once("\nopen spans\n").unwrap();
    let (spans, _) = spans.split_once("\nlast events").unwrap();
    let lines = shape(spans);
    let more = |line: &str| {
        line.strip_prefix("and ")?
            .split(' ')
            .next()?
            .parse::<usize>()
            .ok()
    };
    let more: usize = lines.iter().filter_map(|line| more(line)).sum();
    let shown = lines.iter().filter(|line| line.contains("  (for "));
    let all = shown.count() + more;
    (lines, all)
}

#[test]
fn a_thousand_open_spans_fit_one_screen_and_json_has_them_all() {
    let state = tempfile::tempdir().unwrap();
    killed_in("child_is_killed_inside_of_a_thousand_spans", state.path());
    let text = stdout(outlive(state.path(), &["last", "shop"]));
    let (lines, all) = open_spans(&text);
    assert_eq!(all, 1003, "{text}");
    let of_descent = lines.iter().filter_map(|line| {
        let level = line.strip_prefix("shop:descent level=")?;
        level.split(' ').next()?.parse::<u32>().ok()
    });
    let outermost_and_newest = [0, 1, 2, 994, 995, 996, 997, 998, 999];
    assert_eq!(
        of_descent.collect::<Vec<_>>(),
        outermost_and_newest,
        "{text}"
    );
    let json = json(state.path(), "shop");
    assert_eq!(json["open_spans"].as_array().unwrap().len(), 1003);
}

#[test]
fn of_many_threads_those_with_the_newest_spans_are_shown() {
    let state = tempfile::tempdir().unwrap();
    killed_in(
        "child_is_killed_inside_of_spans_of_many_threads",
        state.path(),
    );
    let text = stdout(outlive(state.path(), &["last", "shop"]));
    let (lines, all) = open_spans(&text);
    assert_eq!(all, 1020, "{text}");
    let has = |start: &str| lines.iter().any(|line| line.starts_with(start));
    assert!(
        has("shop:descent level=999 ") && has("shop:work thread=19 "),
        "{text}"
    );
    assert!(
        !has("shop:work thread=0 ") && has("and 9 more of 9 threads"),
        "{text}"
    );
}

/// What a supervisor records whose control group does not count. Does nothing when it is run by itself.
#[test]
fn child_supervises_where_the_machine_counts() {
    let Some(state) = std::env::var_os(STATE) else {
        return;
    };
    let recorder = Recorder::builder("web.run").state(PathBuf::from(state));
    let _recorder = recorder.backing(Backing::File).start().unwrap();
    event!(
        "run:exit",
        program_pid = 7u32,
        code = -1i32,
        signal = 9i32,
        signal_name = "SIGKILL",
        core_dumped = false,
        oom_kills = 2u64,
        oom_scope = "machine"
    );
    println!("ready");
    std::io::stdout().flush().unwrap();
    loop {
        std::thread::park();
    }
}

#[test]
fn kills_that_were_counted_on_the_machine_are_told_so() {
    let state = tempfile::tempdir().unwrap();
    killed_in("child_supervises_where_the_machine_counts", state.path());
    let text = stdout(outlive(state.path(), &["last", "web.run"]));
    let told = ": killed by signal 9 SIGKILL; 2 killed for want of memory on the machine";
    assert!(text.contains(told), "{text}");
}

/// A program that says by `tracing` what it does. It does nothing when it is run by itself.
#[test]
fn child_is_killed_inside_of_a_tracing_span() {
    use tracing_subscriber::layer::SubscriberExt;
    let Some(state) = std::env::var_os(STATE) else {
        return;
    };
    let recorder = Recorder::builder("shop").state(PathBuf::from(state));
    let _recorder = recorder.backing(Backing::File).start().unwrap();
    let subscriber = tracing_subscriber::registry().with(outlive_tracing::layer());
    tracing::subscriber::set_global_default(subscriber).unwrap();
    let _request = tracing::info_span!("request", customer = "Ada").entered();
    tracing::warn!(order = 7, "no such order");
    println!("ready");
    std::io::stdout().flush().unwrap();
    loop {
        std::thread::park();
    }
}

/// A program whose ring goes round inside of a span. It does nothing when it is run by itself.
#[test]
fn child_is_killed_long_after_a_span_has_begun() {
    use tracing_subscriber::layer::SubscriberExt;
    let Some(state) = std::env::var_os(STATE) else {
        return;
    };
    let recorder = Recorder::builder("shop").state(PathBuf::from(state));
    let recorder = recorder.size(64 << 10).backing(Backing::File);
    let _recorder = recorder.start().unwrap();
    let subscriber = tracing_subscriber::registry().with(outlive_tracing::layer());
    tracing::subscriber::set_global_default(subscriber).unwrap();
    let request = tracing::info_span!("request", customer = "Ada").entered();
    let _query = tracing::info_span!("query").entered();
    for number in 0..20_000 {
        tracing::debug!(parent: request.id(), number, "asked");
        let _row = tracing::debug_span!("row", number).entered();
    }
    let _row = tracing::debug_span!("row", number = 7).entered();
    println!("ready");
    std::io::stdout().flush().unwrap();
    loop {
        std::thread::park();
    }
}

/// What happens and what begins inside of it still names it.
#[test]
fn a_span_whose_beginning_is_overwritten_is_open() {
    let state = tempfile::tempdir().unwrap();
    killed_in("child_is_killed_long_after_a_span_has_begun", state.path());
    let text = stdout(outlive(state.path(), &["last", "shop"]));
    let of_request = "    span 1: its beginning is overwritten  (for at least ";
    assert!(text.contains(of_request), "{text}");
    let of_query = "    span 2: its beginning is overwritten  (for at least ";
    let of_row = "      last:row level=DEBUG number=7  (for ";
    let (_, below) = text
        .split_once(of_query)
        .unwrap_or_else(|| panic!("{text}"));
    assert!(below.contains(of_row), "{text}");
    let last = json(state.path(), "shop");
    // Of rows whose end is overwritten there may be more.
    let open = last["open_spans"].as_array().unwrap();
    let known = |span: &&Value| span["begin"].is_null() && span["certain"] == true;
    let overwritten = open.iter().filter(known).map(|span| span["id"].as_u64());
    assert_eq!(
        overwritten.collect::<BTreeSet<_>>(),
        [Some(1), Some(2)].into()
    );
    assert_eq!(open.last().unwrap()["parent"], 2);
}

#[test]
fn levels_of_tracing_are_shown_by_their_names() {
    let state = tempfile::tempdir().unwrap();
    killed_in("child_is_killed_inside_of_a_tracing_span", state.path());
    let text = stdout(outlive(state.path(), &["last", "shop"]));
    let has = |wanted: &str| text.contains(wanted);
    assert!(
        has("    last:request level=INFO customer=Ada  (for "),
        "{text}"
    );
    assert!(
        has(" level=WARN span=1 message=no such order order=7\n"),
        "{text}"
    );
}

/// Whoever restarts a program after its crash still wants to read of the crash.
#[test]
fn of_a_program_that_runs_again_the_run_before_is_shown() {
    let state = tempfile::tempdir().unwrap();
    killed(state.path());
    let recorder = Recorder::builder("shop")
        .state(state.path())
        .backing(Backing::File)
        .start()
        .unwrap();
    let output = outlive(state.path(), &["last", "shop"]);
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        stderr.contains("the newest run of shop that has ended"),
        "{stderr}"
    );
    assert!(stdout(output).contains(": crash, last sign of life"));
    let live = stdout(outlive(state.path(), &["last", "shop", "--live"]));
    assert!(live.starts_with("shop: still running"), "{live}");
    drop(recorder);
    let ended = stdout(outlive(state.path(), &["last", "shop"]));
    assert!(ended.starts_with("shop: clean exit"), "{ended}");
    let is_exact = ended.contains(", ran for ") && !ended.contains("at least");
    assert!(is_exact, "{ended}");
}

/// It does nothing when it is run by itself.
#[test]
fn child_is_killed_without_an_event() {
    let Some(state) = std::env::var_os(STATE) else {
        return;
    };
    let recorder = Recorder::builder("shop").state(PathBuf::from(state));
    let _recorder = recorder.backing(Backing::File).start().unwrap();
    println!("ready");
    std::io::stdout().flush().unwrap();
    loop {
        std::thread::park();
    }
}

#[test]
fn of_a_program_without_events_it_is_said_that_nothing_was_recorded() {
    let state = tempfile::tempdir().unwrap();
    killed_in("child_is_killed_without_an_event", state.path());
    let text = stdout(outlive(state.path(), &["last", "shop"]));
    assert!(
        text.contains("  events     none: nothing was recorded\n"),
        "{text}"
    );
    assert!(text.contains("\n  heartbeat  2"), "{text}");
    assert!(!text.contains("the last event"), "{text}");
    assert_eq!(json(state.path(), "shop")["last_ts"], Value::Null);
}

#[test]
fn a_kernels_region_shows_what_ran_and_the_last_events_as_show_does() {
    let region = Unpacked::golden();
    let args = [region.region.as_str(), "--formats", &region.formats];
    let run = |command: &[&str]| {
        let args: Vec<&str> = command.iter().chain(&args).copied().collect();
        stdout(common::outlive(&args))
    };
    let text = run(&["last", "--events", "3"]);
    let shown = run(&["show"]);
    for cpu in ["[000]", "[001]"] {
        let of = |text: &str| -> Vec<String> {
            let lines = text.lines().filter(|line| line.contains(cpu));
            lines.map(str::to_owned).collect()
        };
        let all = of(&shown);
        assert_eq!(of(&text), all[all.len() - 3..], "{text}");
    }
    assert!(text.contains("a kernel wrote it"), "{text}");
}

/// What tasks did at the end, by their `sched` events as `show` prints them: by CPU what it ran, by
/// task the letter of its state, `R` while it waits for a CPU.
#[derive(Debug, Default, PartialEq)]
struct Replayed {
    ran: BTreeMap<u64, i64>,
    states: BTreeMap<i64, String>,
}

impl Replayed {
    fn of(shown: &str) -> Self {
        let mut replayed = Self::default();
        for line in shown.lines() {
            replayed.line(line);
        }
        replayed.states.remove(&0);
        replayed
    }

    fn line(&mut self, line: &str) {
        let word = |name: &str| {
            let (_, rest) = line
                .split_once(&format!(" {name}="))
                .unwrap_or_else(|| panic!("{line}"));
            rest.split(' ').next().unwrap()
        };
        let number = |name: &str| word(name).parse::<i64>().unwrap();
        if line.contains(": sched_switch: ") {
            let cpu = line.split_once('[').unwrap().1;
            let cpu = cpu.split_once(']').unwrap().0.parse().unwrap();
            let (prev, next) = (number("prev_pid"), number("next_pid"));
            let state = word("prev_state").trim_end_matches('+');
            self.states.insert(prev, state.to_owned());
            self.states.remove(&next);
            self.ran.insert(cpu, next);
        } else if line.contains(": sched_wak") && line.contains(" target_cpu=") {
            let pid = number("pid");
            let is_on_cpu = self.ran.values().any(|ran| *ran == pid);
            if !is_on_cpu {
                self.states.insert(pid, "R".to_owned());
            }
        }
    }

    fn in_state(&self, wanted: &str) -> Vec<i64> {
        let tasks = self.states.iter().filter(|(_, state)| *state == wanted);
        tasks.map(|(pid, _)| *pid).collect()
    }
}

/// `last --json` and `show` of a kernel's region.
fn last_and_show(region: &Unpacked) -> (Value, String) {
    let run = |command: &[&str]| {
        let args = [region.region.as_str(), "--formats", &region.formats];
        stdout(common::outlive(&[command, &args].concat()))
    };
    let last = serde_json::from_str(&run(&["last", "--json"])).unwrap();
    (last, run(&["show"]))
}

fn pids(tasks: &Value) -> Vec<i64> {
    let tasks = tasks.as_array().unwrap().iter();
    let mut pids: Vec<i64> = tasks.map(|task| task["pid"].as_i64().unwrap()).collect();
    pids.sort_unstable();
    pids
}

/// Regions of three kernels that stopped, and what `show` prints of the same events.
#[test]
fn tasks_do_at_the_end_what_their_last_scheduler_events_say() {
    let mut seen = 0;
    for region in [
        Unpacked::golden(),
        Unpacked::of_crash("6.12.107-2cpu-wrapped-Panic"),
        Unpacked::of_crash("6.12.107-1cpu-wrapped-Reset"),
    ] {
        let (last, shown) = last_and_show(&region);
        let replayed = Replayed::of(&shown);
        for cpu in last["cpus"].as_array().unwrap() {
            let ran = replayed.ran.get(&cpu["cpu"].as_u64().unwrap());
            assert_eq!(cpu["ran"]["pid"].as_i64(), ran.copied(), "{cpu}");
        }
        let (waiting, blocked) = (pids(&last["waiting_for_cpu"]), pids(&last["blocked"]));
        assert_eq!(waiting, replayed.in_state("R"));
        assert_eq!(blocked, replayed.in_state("D"));
        seen += waiting.len() + blocked.len();
    }
    assert!(seen > 0, "no region has a task that waits or is blocked");
}

/// What is missing behind the last event of a CPU may be a switch to another task.
#[test]
fn what_a_cpu_ran_is_not_certain_where_its_last_sub_buffer_is_damaged() {
    /// Where CPU 0 of the golden region has its newest sub-buffer, and in it the commit word.
    const NEWEST: usize = 57344 + 8;
    let region = Unpacked::golden();
    let is_certain = || {
        let (last, _) = last_and_show(&region);
        let cpus = last["cpus"].as_array().unwrap().iter();
        let certain = cpus.map(|cpu| cpu["ran"]["certain"].as_bool().unwrap());
        certain.collect::<Vec<_>>()
    };
    assert_eq!(is_certain(), [true, true]);
    let mut bytes = std::fs::read(&region.region).unwrap();
    bytes[NEWEST..NEWEST + 4].copy_from_slice(&[0xf0, 0xff, 0xff, 0]);
    std::fs::write(&region.region, bytes).unwrap();
    assert_eq!(is_certain(), [false, true]);
    let text = stdout(common::outlive(&[
        "last",
        &region.region,
        "--formats",
        &region.formats,
    ]));
    assert!(text.contains("; a later event may be lost)"), "{text}");
}

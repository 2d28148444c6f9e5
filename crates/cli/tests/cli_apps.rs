//! The commands on a program that records for itself, while it runs and afterwards.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Output, Stdio};
use std::time::Duration;

use outlive::{Backing, Recorder, event};
use rustix::process::{Pid, Signal, kill_process};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use serde_json::Value;

/// Where the child of a test finds its state folder.
const STATE: &str = "OUTLIVE_TEST_STATE";

fn outlive(state: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_outlive"));
    command
        .arg("--state")
        .arg(state)
        .args(args)
        .output()
        .unwrap()
}

fn stdout(state: &Path, args: &[&str]) -> String {
    let output = outlive(state, args);
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{args:?}: {stderr}");
    String::from_utf8(output.stdout).unwrap()
}

fn order(id: u64) {
    event!("shop:order", id = id, customer = "Ada");
}

/// The ids of the orders that `show` prints.
fn shown(state: &Path, args: &[&str]) -> Vec<u64> {
    let text = stdout(state, &[&["show", "shop"], args].concat());
    let ids = text
        .lines()
        .filter_map(|line| line.split_once(" order: id="));
    ids.map(|(_, rest)| rest.split(' ').next().unwrap().parse().unwrap())
        .collect()
}

#[test]
fn a_program_is_found_by_its_name_shown_and_switched() {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path();
    let recorder = Recorder::builder("shop")
        .state(state)
        .backing(Backing::File)
        .start()
        .unwrap();
    order(1);
    event!("db:query", rows = 3u32);
    assert!(stdout(state, &["ls"]).contains("still running"));
    assert_eq!(shown(state, &[]), [1]);
    assert_eq!(
        stdout(state, &["disable", "shop"]),
        "on   shop:order\non   db:query\n"
    );
    assert_eq!(
        stdout(state, &["disable", "shop", "shop:*"]),
        "off  shop:order\n"
    );
    order(2);
    assert_eq!(
        stdout(state, &["enable", "shop", "order"]),
        "on   shop:order\n"
    );
    order(3);
    assert_eq!(shown(state, &["--event", "shop"]), [1, 3]);
    assert_eq!(shown(state, &["--filter", "id > 1"]), [3]);
    let json = stdout(state, &["show", "shop", "--json", "--event", "query"]);
    assert!(
        json.contains(r#""rows":3"#) && !json.contains("preempt_count"),
        "{json}"
    );

    let json = |args: &[&str]| -> Vec<Value> {
        let text = stdout(state, args);
        let lines = text.lines();
        lines
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    };
    assert_eq!(
        json(&["disable", "shop", "--json", "db"]),
        [serde_json::json!({"system": "db", "event": "query", "on": false})]
    );
    let listed = json(&["enable", "shop", "--json"]);
    let listed: Vec<_> = listed
        .iter()
        .map(|event| (&event["event"], &event["on"]))
        .collect();
    assert_eq!(listed.len(), 2);
    assert!(listed[0].0 == "order" && *listed[0].1 == true, "{listed:?}");
    assert!(
        listed[1].0 == "query" && *listed[1].1 == false,
        "{listed:?}"
    );

    let wrong = outlive(state, &["enable", "shop", "shop:odrer"]);
    let stderr = String::from_utf8_lossy(&wrong.stderr).into_owned();
    assert!(
        !wrong.status.success() && stderr.contains("shop:order, db:query"),
        "{stderr}"
    );
    assert!(
        stderr.contains("try again then") && stderr.contains("Builder::events"),
        "{stderr}"
    );

    drop(recorder);
    assert!(stdout(state, &["info", "shop"]).contains("clean exit"));
    assert!(stdout(state, &["check", "shop"]).contains("lane 0: 3 entries"));
    let ended = outlive(state, &["disable", "shop", "shop:order"]);
    let stderr = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert!(stderr.contains("does not run"), "{stderr}");

    let start = || {
        let builder = Recorder::builder("shop").state(state);
        builder.backing(Backing::File).start().unwrap()
    };
    let again = start();
    assert!(shown(state, &[]).is_empty());
    let kept = again.previous().unwrap().generation().seq();
    drop(again);
    let text = stdout(state, &["show", &format!("shop/{kept}")]);
    assert!(text.contains("order: id=3 customer=Ada"), "{text}");
    // `rm` finds what `ls` lists, whether there is a state of `boot` beside it or not.
    let removed = stdout(state, &["rm", &format!("shop/{kept}")]);
    assert!(
        removed.starts_with(&format!("removed shop/{kept} (")),
        "{removed}"
    );
    assert!(!stdout(state, &["ls"]).contains(&format!("shop/{kept}")));
    let recorder = start();
    order(4);
    drop(recorder);
    drop(start());
    outlive_trace::StateDir::open(state).unwrap();
    // Generations do not depend on what the last start configured.
    let instances = state.join("apps/shop/instances.json");
    std::fs::write(&instances, b"\xff{").unwrap();
    for args in [&["ls"][..], &["show", "shop"], &["last", "shop"]] {
        let output = outlive(state, args);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{args:?}: {said}");
        assert!(said.contains("instances.json"), "{args:?}: {said}");
        assert!(!output.stdout.is_empty(), "{args:?}");
    }
    let removed = stdout(state, &["rm", "--all", "shop"]);
    assert_eq!(removed.matches("removed shop/").count(), 1, "{removed}");
    let nothing = outlive(state, &["rm", "--all", "shop"]);
    assert!(!nothing.status.success());
}

/// A program that records an order for each line it reads, on the last CPU that it may use, and ends
/// with its input. It does nothing when it is run by itself.
#[test]
fn child_takes_orders() {
    let Some(state) = std::env::var_os(STATE) else {
        return;
    };
    let mut only = CpuSet::new();
    only.set(last_cpu());
    sched_setaffinity(None, &only).unwrap();
    let recorder = Recorder::builder("shop")
        .state(PathBuf::from(state))
        .backing(Backing::File)
        .start()
        .unwrap();
    println!("ready");
    for line in std::io::stdin().lines() {
        order(line.unwrap().parse().unwrap());
    }
    drop(recorder);
}

/// A program's lanes are many: where each starts is of no use, from where on nothing is overwritten is.
#[test]
fn what_was_overwritten_ends_where_show_says() {
    const ORDERS: u64 = 200_000;
    let folder = tempfile::tempdir().unwrap();
    let mut program = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child_takes_orders"])
        .env(STATE, folder.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let ids: String = (0..ORDERS).map(|id| format!("{id}\n")).collect();
    let mut orders = program.stdin.take().unwrap();
    orders.write_all(ids.as_bytes()).unwrap();
    drop(orders);
    assert!(program.wait().unwrap().success());
    let text = stdout(folder.path(), &["show", "shop"]);
    assert!(!text.contains("buffer started"));
    let marker = "##### nothing is overwritten from here on ####\n";
    let parts: Vec<&str> = text.split(marker).collect();
    let [_, whole] = parts[..] else {
        panic!("the marker is there {} times", parts.len() - 1)
    };
    let ids: Vec<u64> = whole
        .lines()
        .filter_map(|line| line.split_once(" order: id="))
        .map(|(_, rest)| rest.split(' ').next().unwrap().parse().unwrap())
        .collect();
    let there = ids.len() as u64;
    assert!(there > 10_000, "{there} of {ORDERS}");
    assert!(ids.into_iter().eq(ORDERS - there..ORDERS));
}

fn last_cpu() -> usize {
    let may_use = sched_getaffinity(None).unwrap();
    let last = (0..CpuSet::MAX_CPU).rev().find(|&cpu| may_use.is_set(cpu));
    last.unwrap()
}

/// That program, and a process that follows it.
struct Followed {
    program: Child,
    orders: Option<ChildStdin>,
    follower: Child,
    lines: std::io::Lines<BufReader<ChildStdout>>,
    next: u64,
}

impl Followed {
    fn start(state: &Path, args: &[&str]) -> Self {
        let child = [
            "--exact",
            "child_takes_orders",
            "--nocapture",
            "--test-threads=1",
        ];
        let mut program = Command::new(std::env::current_exe().unwrap())
            .args(child)
            .env(STATE, state)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = BufReader::new(program.stdout.take().unwrap()).lines();
        assert!(said.any(|line| line.unwrap().contains("ready")));
        // The rest of what it says is for nobody, and must not be refused.
        std::thread::spawn(move || said.for_each(drop));
        let mut follower = Command::new(env!("CARGO_BIN_EXE_outlive"))
            .arg("--state")
            .arg(state)
            .args(["show", "shop", "--follow", "--json"])
            .args(args)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut followed = Self {
            orders: program.stdin.take(),
            lines: BufReader::new(follower.stdout.take().unwrap()).lines(),
            program,
            follower,
            next: 0,
        };
        // It has found the program running then.
        while followed.rights(state).is_empty() {
            assert_eq!(followed.follower.try_wait().unwrap(), None);
            std::thread::sleep(Duration::from_millis(5));
        }
        followed
    }

    /// With what rights the follower has mapped the region.
    fn rights(&self, state: &Path) -> Vec<String> {
        let maps = format!("/proc/{}/maps", self.follower.id());
        let maps = std::fs::read_to_string(maps).unwrap();
        let state = state.to_str().unwrap();
        let of_region = maps.lines().filter(|line| line.contains(state));
        let rights = of_region.map(|line| line.split(' ').nth(1).unwrap());
        rights.map(str::to_owned).collect()
    }

    /// Has the program record so many more.
    fn order(&mut self, count: u64) {
        for id in self.next..self.next + count {
            writeln!(self.orders.as_mut().unwrap(), "{id}").unwrap();
        }
        self.next += count;
    }

    fn next_id(&mut self) -> Option<u64> {
        let line = self.lines.next()?.unwrap();
        let event: Value = serde_json::from_str(&line).unwrap();
        Some(
            event["fields"]["id"]
                .as_u64()
                .unwrap_or_else(|| panic!("{line}")),
        )
    }

    /// Ends the program, and returns what the follower still prints.
    fn end(mut self) -> Vec<u64> {
        self.orders = None;
        assert!(self.program.wait().unwrap().success());
        let rest = std::iter::from_fn(|| self.next_id()).collect();
        assert!(self.follower.wait().unwrap().success());
        rest
    }
}

#[test]
fn all_events_of_a_running_program_are_followed_by_a_reader_that_cannot_write() {
    let folder = tempfile::tempdir().unwrap();
    let mut followed = Followed::start(folder.path(), &[]);
    for _ in 0..3 {
        let first = followed.next;
        followed.order(500);
        // They come while the program waits for more.
        for id in first..first + 500 {
            assert_eq!(followed.next_id(), Some(id));
        }
    }
    let rights = followed.rights(folder.path());
    let cannot_write = rights.iter().all(|rights| rights.starts_with("r--"));
    assert!(cannot_write && !rights.is_empty(), "{rights:?}");
    followed.order(700);
    assert_eq!(followed.end(), (1500..2200).collect::<Vec<_>>());
}

/// A program's events lie in the lanes of its threads, whatever CPU they ran on.
#[test]
fn one_cpus_events_of_a_running_program_are_followed() {
    let cpu = last_cpu();
    for (asked, ids) in [(cpu, 0..100), (cpu + 1, 0..0)] {
        let folder = tempfile::tempdir().unwrap();
        let mut followed = Followed::start(folder.path(), &["--cpu", &asked.to_string()]);
        followed.order(100);
        assert_eq!(
            followed.end(),
            ids.collect::<Vec<_>>(),
            "CPU {asked} of {cpu}"
        );
    }
}

/// A child of the test below; it does nothing when it is run by itself.
#[test]
fn child_waits() {
    if let Some(state) = std::env::var_os(STATE) {
        let builder = Recorder::builder("shop").state(Path::new(&state));
        let _recorder = builder.backing(Backing::File).start().unwrap();
        order(1);
        std::thread::sleep(Duration::MAX);
    }
}

/// Killed with the test.
struct Killed(Child);

impl Killed {
    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.0.id().cast_signed()).unwrap();
        kill_process(pid, signal).unwrap();
    }
}

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Asks `last` until it says so.
fn last_until(state: &Path, is_so: impl Fn(&Value) -> bool) -> Value {
    loop {
        let output = outlive(state, &["last", "shop", "--json"]);
        match serde_json::from_slice(&output.stdout) {
            Ok(last) if is_so(&last) => return last,
            _ => std::thread::yield_now(),
        }
    }
}

/// A program that has nothing to do gives signs of life; one that is stopped does not.
#[test]
fn the_time_for_which_a_program_was_stopped_is_told() {
    const STOPPED: Duration = Duration::from_secs(3);
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path();
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child_waits", "--nocapture"])
        .env(STATE, state)
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let child = Killed(child);
    last_until(state, |last| {
        last["heartbeat"]["max_delay_ns"].as_u64() > Some(0)
    });
    child.signal(Signal::STOP);
    std::thread::sleep(STOPPED);
    let goes_on = |last: &Value| {
        let mut gaps = last["heartbeat_gaps"].as_array().into_iter().flatten();
        gaps.any(|gap| gap["until_ns"].is_null())
    };
    last_until(state, goes_on);
    let text = stdout(state, &["last", "shop"]);
    assert!(
        text.contains("no sign of life for ") && text.contains(", up to now"),
        "{text}"
    );
    child.signal(Signal::CONT);
    let stopped_ns = STOPPED.as_nanos() as u64;
    let is_over = |last: &Value| {
        let mut gaps = last["heartbeat_gaps"].as_array().into_iter().flatten();
        gaps.any(|gap| gap["len"].as_u64() >= Some(stopped_ns) && gap["until_ns"].is_u64())
    };
    last_until(state, is_over);
    drop(child);
    let text = stdout(state, &["last", "shop"]);
    assert!(
        text.contains("no sign of life for ") && text.contains(", until "),
        "{text}"
    );
    assert!(!text.contains("up to now"), "{text}");
}

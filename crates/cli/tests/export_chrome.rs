//! Chrome's trace events: as their format has them, and against the JSON lines and SQL's answers of the
//! same events.

mod common;

use std::collections::HashMap;

use common::regions::record;
use common::{Unpacked, outlive};
use outlive::{event, span};
use serde_json::Value;

/// Nanoseconds of a time in microseconds with three digits behind the point.
fn nanos(text: &str) -> u64 {
    let (micros, digits) = text.split_once('.').unwrap();
    assert_eq!(digits.len(), 3, "{text}");
    micros.parse::<u64>().unwrap() * 1000 + digits.parse::<u64>().unwrap()
}

/// A time of a line as its text has it: a parser's number has fewer digits.
fn time(line: &str, key: &str) -> Option<u64> {
    let (_, rest) = line.split_once(&format!("\"{key}\":"))?;
    rest.split(',').next().map(nanos)
}

/// One trace event.
struct TraceEvent {
    ts: u64,
    dur: Option<u64>,
    event: Value,
}

impl TraceEvent {
    fn kind(&self) -> &str {
        self.event["ph"].as_str().unwrap()
    }

    fn category(&self) -> &str {
        self.event["cat"].as_str().unwrap_or_default()
    }

    fn row(&self) -> (i64, i64) {
        let number = |key| self.event[key].as_i64().unwrap();
        (number("pid"), number("tid"))
    }

    /// Whether it is an event of the region, not one of those that are added.
    fn is_of_region(&self) -> bool {
        match self.kind() {
            "M" | "X" => false,
            "i" => self.category() != "lost",
            _ => true,
        }
    }
}

/// A file that was read.
struct Trace {
    events: Vec<TraceEvent>,
    other: Value,
    /// JSON lines of the same events.
    lines: Vec<Value>,
}

impl Trace {
    /// Exports in both formats, and checks what the format asks of every event.
    fn export(args: &[&str], code: i32) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let [trace, lines] = ["out.trace.json", "out.json"].map(|name| folder.path().join(name));
        for out in [&trace, &lines] {
            let output = outlive(&[&["export", "-o", out.to_str().unwrap()], args].concat());
            if out == &trace {
                assert_eq!(output.status.code(), Some(code), "{output:?}");
            }
        }
        let text = std::fs::read_to_string(&trace).unwrap();
        let whole: Value = serde_json::from_str(&text).unwrap();
        let mut found = text
            .lines()
            .filter(|line| line.trim_matches(',').starts_with("{\"ts\":"));
        let events = whole["traceEvents"]
            .as_array()
            .unwrap()
            .iter()
            .map(|event| {
                let line = found.next().unwrap();
                for key in ["ph", "name"] {
                    assert!(event[key].is_string(), "{line}");
                }
                assert!(
                    event["ts"].is_number() && event["args"].is_object(),
                    "{line}"
                );
                TraceEvent {
                    ts: time(line, "ts").unwrap(),
                    dur: event["dur"].is_number().then(|| time(line, "dur").unwrap()),
                    event: event.clone(),
                }
            });
        let lines = std::fs::read_to_string(&lines).unwrap();
        let lines = lines
            .lines()
            .map(|line| serde_json::from_str(line).unwrap());
        let this = Self {
            events: events.collect(),
            other: whole["otherData"].clone(),
            lines: lines
                .filter(|line: &Value| line["event"].is_string())
                .collect(),
        };
        this.check_events();
        this.check_spans();
        this
    }

    fn of_kind<'t>(&'t self, kind: &'t str) -> impl Iterator<Item = &'t TraceEvent> {
        self.events.iter().filter(move |event| event.kind() == kind)
    }

    fn lost(&self) -> impl Iterator<Item = &TraceEvent> {
        self.events
            .iter()
            .filter(|event| event.category() == "lost")
    }

    /// Every event is there once, in order, with its name, its thread and its fields.
    fn check_events(&self) {
        let mut events = self.events.iter().filter(|event| event.is_of_region());
        for line in &self.lines {
            let TraceEvent { event, .. } = events.next().unwrap();
            let is_end = matches!(event["ph"].as_str(), Some("E" | "e"));
            assert!(is_end || event["name"] == line["event"], "{event} {line}");
            assert!(event["args"]["cpu"].is_number());
            for (name, value) in line["fields"].as_object().unwrap() {
                assert_eq!(event["args"][name], *value, "{name}");
            }
        }
        assert!(events.next().is_none());
        let times = self.events.iter().filter(|event| event.is_of_region());
        assert!(times.map(|event| event.ts).is_sorted());
        for event in self.of_kind("i") {
            assert!(matches!(event.event["s"].as_str(), Some("t" | "p")));
        }
    }

    /// An end on a thread ends the innermost span; ends of others have their ids.
    fn check_spans(&self) {
        let mut open: HashMap<(i64, i64), Vec<&str>> = HashMap::new();
        let mut crossing: HashMap<&str, &str> = HashMap::new();
        for event in &self.events {
            let name = event.event["name"].as_str().unwrap();
            match event.kind() {
                "B" => open.entry(event.row()).or_default().push(name),
                "E" => assert_eq!(open.get_mut(&event.row()).unwrap().pop(), Some(name)),
                "b" => {
                    let id = event.event["id"].as_str().unwrap();
                    assert_eq!(crossing.insert(id, name), None);
                }
                "e" => {
                    let id = event.event["id"].as_str().unwrap();
                    assert_eq!(crossing.remove(id), Some(name));
                }
                _ => (),
            }
        }
    }

    /// The names of processes or threads.
    fn names(&self, what: &str) -> HashMap<(i64, i64), String> {
        let named = self
            .of_kind("M")
            .filter(|event| event.event["name"] == what);
        named
            .map(|event| {
                let name = event.event["args"]["name"].as_str().unwrap();
                (event.row(), name.to_owned())
            })
            .collect()
    }
}

/// Nanoseconds and runs of each task on a CPU, as SQL answers.
fn cpu_time(unpacked: &Unpacked) -> HashMap<i64, (u64, u64)> {
    let output = outlive(&[
        "sql",
        "SELECT pid, sum(dur) AS total, count(dur) AS runs FROM task_states \
         WHERE state = 'running' AND dur NOT NULL GROUP BY pid",
        &unpacked.region,
        "--formats",
        &unpacked.formats,
        "--json",
    ]);
    let rows = String::from_utf8(output.stdout).unwrap();
    let rows = rows.lines().map(|row| serde_json::from_str(row).unwrap());
    rows.map(|row: Value| {
        let number = |key| row[key].as_u64().unwrap();
        (
            row["pid"].as_i64().unwrap(),
            (number("total"), number("runs")),
        )
    })
    .collect()
}

#[test]
fn a_kernels_region_shows_who_ran_on_each_cpu() {
    for unpacked in [
        Unpacked::of_kernel("7.3.4-2cpu-1M"),
        Unpacked::of_kernel("6.12.107-2cpu-1M"),
        Unpacked::of_crash("7.2.13-4cpu-wrapped-Reboot"),
    ] {
        let trace = Trace::export(&[&unpacked.region, "--formats", &unpacked.formats], 0);
        let cpus = trace.names("process_name");
        let is_cpus = |row: &(i64, i64)| cpus[&(row.0, 0)].ends_with(": CPUs");
        let threads = trace.names("thread_name");
        let mut total: HashMap<i64, (u64, u64)> = HashMap::new();
        let mut until: HashMap<(i64, i64), u64> = HashMap::new();
        for slice in trace.of_kind("X") {
            assert!(is_cpus(&slice.row()));
            assert_eq!(threads[&slice.row()], format!("CPU {}", slice.row().1));
            let before = until.insert(slice.row(), slice.ts + slice.dur.unwrap());
            assert!(
                before.is_none_or(|before| before <= slice.ts),
                "slices overlap"
            );
            if slice.event["args"]["open"] == false {
                let pid = slice.event["args"]["pid"].as_i64().unwrap();
                let (time, runs) = total.entry(pid).or_default();
                *time += slice.dur.unwrap();
                *runs += 1;
            }
        }
        assert!(total.len() > 5);
        assert_eq!(total, cpu_time(&unpacked));
    }
}

/// A switch that is left out would make one run of two.
#[test]
fn of_selected_events_nobody_knows_who_ran() {
    let unpacked = Unpacked::of_kernel("7.3.4-2cpu-1M");
    let region = [unpacked.region.as_str(), "--formats", &unpacked.formats];
    let trace = Trace::export(&[&region[..], &["--filter", "prev_pid != 0"]].concat(), 0);
    assert!(trace.lines.len() > 100);
    assert_eq!(trace.of_kind("X").count(), 0);
}

#[test]
fn what_is_missing_is_marked_and_what_is_damaged_named() {
    let unpacked = Unpacked::of_kernel("7.3.4-2cpu-1M");
    let mut bytes = std::fs::read(&unpacked.region).unwrap();
    let middle = bytes.len() / 4 / 4096 * 4096;
    bytes[middle..middle + 8].fill(0xff);
    std::fs::write(&unpacked.region, bytes).unwrap();
    let trace = Trace::export(&[&unpacked.region, "--formats", &unpacked.formats], 1);
    assert_eq!(trace.other["damaged"].as_array().unwrap().len(), 1);
    let [lost] = trace.lost().collect::<Vec<_>>()[..] else {
        panic!("one mark");
    };
    assert_eq!((lost.kind(), lost.row().1), ("i", 0), "{}", lost.event);
    assert!(lost.event["args"]["lost"].is_null());
}

fn work(depth: u32) {
    let _work = span!("shop:work", depth = depth, part = "a \"part\"");
    event!("shop:step", ratio = 0.1f64, late = depth == 0);
    if depth > 0 {
        work(depth - 1);
    }
}

/// All in one test: a process has one recorder at a time.
#[test]
fn a_programs_spans_are_nested_or_have_ids() {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().to_str().unwrap();
    record("shop", folder.path(), || {
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| work(5));
            }
        });
    });
    let trace = Trace::export(&["--state", state, "shop"], 0);
    let count = |kind| trace.of_kind(kind).count();
    assert_eq!((count("B"), count("E"), count("i")), (18, 18, 18));
    let names = trace.names("process_name");
    let pid = i64::from(std::process::id());
    assert_eq!(names, HashMap::from([((pid, pid), "shop".to_owned())]));
    assert!(trace.of_kind("B").all(|event| event.row().0 == pid));
    // Ends without beginnings are no ends of others.
    let ends = Trace::export(&["--state", state, "shop", "--event", "span_end"], 0);
    assert_eq!(ends.of_kind("i").count(), 18);

    record("cross", folder.path(), || {
        let first = span!("shop:first");
        let second = span!("shop:second");
        drop(first);
        drop(second);
        std::mem::forget(span!("shop:third"));
    });
    let trace = Trace::export(&["--state", state, "cross"], 0);
    let count = |kind| trace.of_kind(kind).count();
    assert_eq!((count("b"), count("e"), count("B")), (3, 2, 0));

    // Both regions in one, each with its process.
    let both = Trace::export(&["--state", state, "shop", "cross"], 0);
    assert_eq!(both.names("process_name").len(), 1, "of one process");
    assert_eq!(both.lines.len(), 54 + 5);
}

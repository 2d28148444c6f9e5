//! What `diff` finds between runs that were made to differ.

mod common;

use std::path::Path;
use std::time::Duration;

use common::{fixtures, outlive};
use outlive::{Backing, Recorder, event};
use outlive_ring::extension::Layout;
use outlive_ring::{Geometry, HeapMemory, Region, RunId, RunRecord};
use serde_json::Value;

/// Events and fields of Linux 7.3.4, whose formats are a fixture.
const SWITCH: u16 = 310;
const FORMATS: &str = "7.3.4-2cpu-1M/events";

/// The id of an event of the fixture.
fn id(system: &str, event: &str) -> u16 {
    let path = fixtures()
        .join(FORMATS)
        .join(system)
        .join(event)
        .join("format");
    let text = std::fs::read_to_string(path).unwrap();
    let line = text.lines().find(|line| line.starts_with("ID:")).unwrap();
    line["ID:".len()..].trim().parse().unwrap()
}

fn record(id: u16, size: usize, fields: &[(usize, i32)]) -> Vec<u8> {
    let mut payload = vec![0; size];
    payload[..2].copy_from_slice(&id.to_le_bytes());
    for &(offset, value) in fields {
        payload[offset..offset + 4].copy_from_slice(&value.to_le_bytes());
    }
    payload
}

fn switch(prev: i32, state: i32, next: i32) -> Vec<u8> {
    record(SWITCH, 64, &[(24, prev), (32, state), (56, next)])
}

fn wakeup(pid: i32) -> Vec<u8> {
    record(id("sched", "sched_wakeup"), 36, &[(24, pid)])
}

/// A region of one CPU with these records at these times.
fn write(path: &Path, records: &[(u64, Vec<u8>)]) {
    let ring = Geometry::new(1 << 20, 1).unwrap();
    let layout = Layout::new(&ring, 64 << 10, 16);
    let memory = HeapMemory::new(layout.area_size() as usize);
    let region = Region::format(&memory, ring, Some(layout)).unwrap();
    RunRecord {
        sequence: 1,
        run_id: RunId([1; 16]),
        ..RunRecord::default()
    }
    .store(&layout, &memory);
    let mut writer = region.writer(0).unwrap();
    for (time, payload) in records {
        let event = writer.reserve(payload.len(), *time).unwrap();
        writer.write(&event, 0, payload);
        writer.commit(event);
    }
    std::fs::write(path, memory.to_vec()).unwrap();
}

/// A second in which task 7 is woken every 10 ms, waits for `latency` and runs for 1 ms; with each
/// wake-up also comes a record of another event.
fn second(latency: u64, system: &str, event: &str) -> Vec<(u64, Vec<u8>)> {
    let other = id(system, event);
    let mut records = Vec::new();
    for i in 0..100 {
        let time = 1_000_000_000 + i * 10_000_000;
        records.push((time, wakeup(7)));
        records.push((time + 1000, record(other, 32, &[])));
        records.push((time + latency, switch(0, 0, 7)));
        records.push((time + latency + 1_000_000, switch(7, 1, 0)));
    }
    records
}

fn diff(more: &[&str]) -> String {
    let output = outlive(&[&["diff"], more].concat());
    assert!(
        output.status.success(),
        "{more:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

fn of<'j>(list: &'j Value, key: &str, name: &str) -> &'j Value {
    let list = list.as_array().unwrap();
    let found = list.iter().find(|item| item[key] == name);
    found.unwrap_or_else(|| panic!("no {name} in {list:?}"))
}

#[test]
fn what_stopped_appeared_and_shifted_is_found_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let (a, b) = (folder.path().join("a"), folder.path().join("b"));
    write(&a, &second(100_000, "sched", "sched_process_exit"));
    write(&b, &second(10_000, "irq", "softirq_raise"));
    let formats = fixtures().join(FORMATS);
    let names = [a.to_str().unwrap(), b.to_str().unwrap()];
    let formats = ["--formats", formats.to_str().unwrap()];
    let json = diff(&[&names[..], &formats, &["--json"]].concat());
    let json: Value = serde_json::from_str(&json).unwrap();
    let change = |event| &of(&json["events"], "event", event)["change"];
    assert_eq!(*change("sched:sched_process_exit"), "appeared");
    assert_eq!(*change("irq:softirq_raise"), "stopped");
    assert_eq!(*change("sched:sched_switch"), "same");
    assert_eq!(of(&json["events"], "event", "sched:sched_switch")["a"], 200);
    let latency = of(&json["durations"], "what", "wake-up latency");
    assert_eq!(latency["shifted"], true);
    assert_eq!(latency["distance"], 1.0);
    assert_eq!(latency["a"]["p50_ns"], 100_000);
    assert_eq!(latency["b"]["p99_ns"], 10_000);
    assert_eq!(latency["b"]["samples"], 100);
    let on_cpu = of(&json["durations"], "what", "on CPU");
    assert_eq!(on_cpu["shifted"], false);

    let text = diff(&[&names[..], &formats].concat());
    let has = |words: &[&str]| {
        let mut lines = text.lines();
        lines.any(|line| words.iter().all(|word| line.contains(word)))
    };
    assert!(has(&["appeared", "sched:sched_process_exit"]), "{text}");
    assert!(has(&["stopped", "irq:softirq_raise"]), "{text}");
    assert!(has(&["wake-up latency", "100.0 us", "1.00"]), "{text}");
    assert!(!has(&["sched:sched_switch"]), "{text}");

    let same = diff(&[&[names[0], names[0]][..], &formats].concat());
    assert!(same.contains("no difference"), "{same}");
}

#[test]
fn only_the_last_part_counts() {
    let folder = tempfile::tempdir().unwrap();
    let a = folder.path().join("a");
    write(&a, &second(100_000, "irq", "softirq_raise"));
    let formats = fixtures().join(FORMATS);
    let formats = formats.to_str().unwrap();
    let a = a.to_str().unwrap();
    let json = diff(&[a, a, "--formats", formats, "--last", "105ms", "--json"]);
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["a"]["seconds"], 0.105);
    assert_eq!(of(&json["events"], "event", "irq:softirq_raise")["a"], 11);
}

/// A program's runs: the second one does other work, and is compared with what is kept of the first.
#[test]
fn a_run_is_compared_with_the_generation_before_it() {
    let folder = tempfile::tempdir().unwrap();
    let start = || {
        Recorder::builder("shop")
            .state(folder.path())
            .backing(Backing::File)
            .start()
            .unwrap()
    };
    let work = |time: Duration| {
        for _ in 0..25 {
            let span = outlive::span!("shop:work");
            std::thread::sleep(time);
            drop(span);
        }
    };
    let recorder = start();
    for i in 0..100u32 {
        event!("shop:hurry", i = i);
    }
    work(Duration::from_micros(100));
    drop(recorder);
    let recorder = start();
    work(Duration::from_millis(40));
    drop(recorder);
    let state = folder.path().to_str().unwrap();
    let json = diff(&["shop", "--state", state, "--json"]);
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["b"]["names"].as_array().unwrap().len(), 1);
    assert_eq!(json["b"]["verdicts"][0], "clean-exit");
    let hurry = of(&json["events"], "event", "shop:hurry");
    assert_eq!(hurry["change"], "stopped");
    assert_eq!((&hurry["a"], &hurry["b"]), (&0.into(), &100.into()));
    let work = of(&json["durations"], "what", "span: shop:work");
    assert_eq!(work["a"]["samples"], 25);
    assert_eq!(work["shifted"], true, "{work}");
    assert!(work["a"]["p50_ns"].as_u64() >= Some(40_000_000));
}

#[test]
fn a_file_alone_has_nothing_to_be_compared_with() {
    let folder = tempfile::tempdir().unwrap();
    let a = folder.path().join("a");
    write(&a, &second(1000, "irq", "softirq_raise"));
    let output = outlive(&["diff", a.to_str().unwrap()]);
    assert!(!output.status.success());
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(stderr.contains("name a second one"), "{stderr}");
}

//! CTF 1.8, read by babeltrace2, and CTF 2, read from nothing but its metadata, against the JSON
//! lines of the same events: each event's time, CPU, task, name and fields.

mod common;

use std::path::Path;
use std::process::Command;

use common::{Unpacked, babeltrace_python, outlive, script};
use outlive::{Backing, Recorder, event, span};
use serde_json::Value;

/// Exports as JSON lines and in both kinds of CTF, compares, and returns what was compared.
fn compare(args: &[&str]) -> Value {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    for out in ["out.jsonl", "out.ctf", "out.ctf2"].map(path) {
        let output = outlive(&[&["export", "-o", out.to_str().unwrap()], args].concat());
        assert!(out.exists(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    let lines = path("out.jsonl");
    let compared = ["out.ctf", "out.ctf2"].map(|name| read(&path(name), &lines));
    assert_eq!(compared[0], compared[1]);
    let count = std::fs::read_to_string(&lines).unwrap().lines().count();
    assert_eq!(compared[0]["events"], count);
    warns_of_what_is_discarded(&path("out.ctf"), &compared[0]);
    compared[0].clone()
}

fn read(trace: &Path, lines: &Path) -> Value {
    let python = babeltrace_python().unwrap();
    let [trace, lines] = [trace, lines].map(|path| path.to_str().unwrap());
    script(&python, "export_ctf.py", &[trace, lines])
}

/// What the command `babeltrace2` says: each event's line, and a warning where some are missing.
fn warns_of_what_is_discarded(trace: &Path, compared: &Value) {
    let output = Command::new("babeltrace2").arg(trace).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    let discarded = compared["discarded"].as_u64().unwrap();
    assert_eq!(stderr.contains("discarded"), discarded > 0, "{stderr}");
    let lines = String::from_utf8_lossy(&output.stdout).lines().count();
    assert_eq!(compared["events"], lines);
}

fn compare_region(unpacked: &Unpacked) -> Value {
    compare(&[&unpacked.region, "--formats", &unpacked.formats])
}

#[test]
fn kernels_events_agree() {
    if babeltrace_python().is_none() {
        return;
    }
    for unpacked in [
        Unpacked::of_kernel("7.3.4-2cpu-1M"),
        Unpacked::of_kernel("6.12.107-2cpu-1M"),
        Unpacked::golden(),
        Unpacked::of_crash("7.3.4-2cpu-wrapped-Panic"),
        Unpacked::of_crash("7.2.13-4cpu-wrapped-Reboot"),
        Unpacked::of_crash("6.18.15-2cpu-wrapped-Reboot"),
        Unpacked::of_crash("6.12.107-4cpu-wrapped-Panic"),
    ] {
        let compared = compare_region(&unpacked);
        assert!(compared["events"].as_u64() > Some(0), "{compared}");
        assert_eq!(compared["discarded"], 0, "{compared}");
    }
}

#[test]
fn records_without_a_format_are_kept() {
    if babeltrace_python().is_none() {
        return;
    }
    let unpacked = Unpacked::of_kernel("6.12.107-2cpu-1M");
    let compared = compare(&[&unpacked.region]);
    assert!(compared["events"].as_u64() > Some(1000), "{compared}");
}

#[test]
fn events_that_are_missing_are_discarded_events() {
    if babeltrace_python().is_none() {
        return;
    }
    let unpacked = Unpacked::of_kernel("7.3.4-2cpu-1M");
    let mut bytes = std::fs::read(&unpacked.region).unwrap();
    let middle = bytes.len() / 4 / 4096 * 4096;
    bytes[middle..middle + 8].fill(0xff);
    std::fs::write(&unpacked.region, bytes).unwrap();
    let compared = compare_region(&unpacked);
    assert_eq!(compared["discarded"], 1, "{compared}");
}

#[test]
fn a_programs_events_agree() {
    if babeltrace_python().is_none() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().to_str().unwrap();
    let recorder = Recorder::builder("shop").state(folder.path());
    let recorder = recorder.backing(Backing::File).start().unwrap();
    std::thread::scope(|scope| {
        for thread in 0..3u32 {
            scope.spawn(move || {
                for round in 0..100i64 {
                    let _work = span!("shop:work", thread = thread, part = "a \"part\"");
                    let lists = [-round, round];
                    event!(
                        "shop:step",
                        integer = thread,
                        ratio = 0.1f64,
                        small = 0.5f32,
                        lists = lists
                    );
                    event!(
                        "shop:late",
                        late = round == 3,
                        event = "a name that is a keyword"
                    );
                }
            });
        }
    });
    drop(recorder);
    let compared = compare(&["--state", state, "shop"]);
    assert_eq!(compared["events"], 1200);
}

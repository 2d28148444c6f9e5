//! Perfetto traces, decoded with the classes that Perfetto itself makes of its schema, against the
//! JSON lines of the same events: each event's time, CPU, task, name and fields.

mod common;

use std::path::Path;
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};

use common::{Unpacked, outlive, python};
use outlive::{Backing, Recorder, event, span};
use serde_json::Value;

/// Exports in both formats, compares, and returns what was compared.
fn compare(python: &Path, args: &[&str]) -> Value {
    let folder = tempfile::tempdir().unwrap();
    let [trace, lines] = ["out.pftrace", "out.jsonl"].map(|name| folder.path().join(name));
    for out in [&trace, &lines] {
        let output = outlive(&[&["export", "-o", out.to_str().unwrap()], args].concat());
        assert!(out.exists(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    let compared = decode(python, &trace, &lines);
    let count = std::fs::read_to_string(&lines).unwrap().lines().count();
    assert_eq!(compared["events"], count);
    compared
}

fn decode(python: &Path, trace: &Path, lines: &Path) -> Value {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/export_perfetto.py");
    let output = Command::new(python)
        .arg(script)
        .args([trace, lines])
        .output();
    let output = output.unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    serde_json::from_slice(&output.stdout).unwrap()
}

fn compare_region(python: &Path, unpacked: &Unpacked, more: &[&str]) -> Value {
    let args = [unpacked.region.as_str(), "--formats", &unpacked.formats];
    compare(python, &[&args, more].concat())
}

#[test]
fn kernels_events_have_their_own_messages_or_generic_ones() {
    let Some(python) = python() else { return };
    for name in ["7.3.4-2cpu-1M", "6.12.107-2cpu-1M"] {
        let kinds = &compare_region(&python, &Unpacked::of_kernel(name), &[])["kinds"];
        for kind in ["sched_switch", "sched_process_exit", "print", "generic"] {
            assert!(kinds[kind].as_u64() > Some(1), "{name}: {kinds}");
        }
    }
    let golden = compare_region(&python, &Unpacked::golden(), &[]);
    assert!(golden["events"].as_u64() > Some(1000), "{golden}");
}

#[test]
fn regions_that_had_wrapped_decode_to_the_same_events() {
    let Some(python) = python() else { return };
    for name in [
        "7.3.4-2cpu-wrapped-Panic",
        "7.3.4-4cpu-read-Panic",
        "7.2.13-4cpu-wrapped-Reboot",
        "6.18.15-2cpu-wrapped-Reboot",
        "6.12.107-4cpu-wrapped-Panic",
    ] {
        let compared = compare_region(&python, &Unpacked::of_crash(name), &[]);
        assert!(compared["events"].as_u64() > Some(0), "{name}: {compared}");
    }
}

#[test]
fn what_is_asked_for_is_what_is_written() {
    let Some(python) = python() else { return };
    let asked = [
        "--event",
        "sched_switch",
        "--filter",
        "prev_pid != 0",
        "--cpu",
        "1",
    ];
    let compared = compare_region(&python, &Unpacked::of_kernel("7.3.4-2cpu-1M"), &asked);
    let kinds = compared["kinds"].as_object().unwrap();
    assert_eq!(kinds.keys().collect::<Vec<_>>(), ["sched_switch"]);
}

#[test]
fn a_damaged_region_has_marks_where_events_are_missing() {
    let Some(python) = python() else { return };
    let unpacked = Unpacked::of_kernel("7.3.4-2cpu-1M");
    let mut bytes = std::fs::read(&unpacked.region).unwrap();
    let middle = bytes.len() / 4 / 4096 * 4096;
    bytes[middle..middle + 8].fill(0xff);
    std::fs::write(&unpacked.region, bytes).unwrap();
    let compared = compare_region(&python, &unpacked, &[]);
    assert_eq!(compared["lost"], 1, "{compared}");
}

/// Without formats nothing is left out: records are there with their id.
#[test]
fn records_without_a_format_are_kept() {
    let Some(python) = python() else { return };
    let unpacked = Unpacked::of_kernel("6.12.107-2cpu-1M");
    let compared = compare(&python, &[&unpacked.region]);
    assert_eq!(compared["kinds"]["generic"], compared["events"]);
}

/// A recorder of this process, which has one at a time.
fn record(name: &str, state: &Path) -> (Recorder, MutexGuard<'static, ()>) {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let recorder = Recorder::builder(name).state(state).size(2 << 20);
    (recorder.backing(Backing::File).start().unwrap(), guard)
}

fn work(depth: u32) {
    let _work = span!("shop:work", depth = depth, part = "a \"part\"");
    event!(
        "shop:step",
        ratio = 0.1f64,
        late = depth == 0,
        sums = [1u16, 2, 3]
    );
    if depth > 0 {
        work(depth - 1);
    }
}

#[test]
fn a_programs_spans_are_slices_and_its_events_are_on_their_threads() {
    let Some(python) = python() else { return };
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().to_str().unwrap();
    let recorder = record("shop", folder.path());
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| work(5));
        }
    });
    drop(recorder);
    let nested = compare(&python, &["--state", state, "shop"]);
    assert_eq!(nested["kinds"]["TYPE_SLICE_BEGIN"], 18);
    assert_eq!(nested["kinds"]["TYPE_SLICE_END"], 18);
    assert_eq!(nested["kinds"]["TYPE_INSTANT"], 18);
    // Ends without beginnings are no ends of others.
    let only_ends = compare(&python, &["--state", state, "shop", "--event", "span_end"]);
    assert_eq!(only_ends["kinds"]["TYPE_INSTANT"], 18);
}

/// A slice's end ends the innermost slice of its track, so spans that end in another order are on
/// tracks of their own.
#[test]
fn spans_that_cross_are_on_tracks_of_their_own() {
    let Some(python) = python() else { return };
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().to_str().unwrap();
    let recorder = record("cross", folder.path());
    let first = span!("shop:first");
    let second = span!("shop:second");
    drop(first);
    drop(second);
    let never_ends = span!("shop:third");
    std::mem::forget(never_ends);
    drop(recorder);
    let compared = compare(&python, &["--state", state, "cross"]);
    assert_eq!(compared["kinds"]["TYPE_SLICE_BEGIN"], 3);
    assert_eq!(compared["kinds"]["TYPE_SLICE_END"], 2);
}

/// The ring of a program that recorded more than it holds: what is left has its names again.
#[test]
fn a_wrapped_ring_of_a_program_decodes() {
    let Some(python) = python() else { return };
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().to_str().unwrap();
    let recorder = record("wrapped", folder.path());
    for round in 0..200_000u32 {
        event!(
            "shop:round",
            round = round,
            text = "some text that takes room in the ring"
        );
    }
    drop(recorder);
    let compared = compare(&python, &["--state", state, "wrapped"]);
    let kept = compared["kinds"]["TYPE_INSTANT"].as_u64().unwrap();
    assert!((1000..200_000).contains(&kept), "{compared}");
}

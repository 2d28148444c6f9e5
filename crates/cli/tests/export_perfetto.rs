//! Perfetto traces, decoded with the classes that Perfetto itself makes of its schema, against the
//! JSON lines of the same events: each event's time, CPU, task, name and fields.

mod common;

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use common::{Unpacked, babeltrace_python, outlive, python, script};
use outlive::{Backing, Recorder, event, span};
use outlive_ring::extension::Layout;
use outlive_ring::{HeapMemory, RunRecord};
use serde_json::Value;

/// Exports in both formats, compares, and returns what was compared.
fn compare(python: &Path, args: &[&str]) -> Value {
    compare_merged(python, args, &[])
}

/// As [`compare`], of several regions.
fn compare_merged(python: &Path, args: &[&str], sources: &[&str]) -> Value {
    let folder = tempfile::tempdir().unwrap();
    let [trace, lines] = ["out.pftrace", "out.jsonl"].map(|name| folder.path().join(name));
    for out in [&trace, &lines] {
        let output = outlive(&[&["export", "-o", out.to_str().unwrap()], args, sources].concat());
        assert!(out.exists(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    let [trace, read] = [&trace, &lines].map(|path| path.to_str().unwrap());
    let compared = script(
        python,
        "export_perfetto.py",
        &[&[trace, read], sources].concat(),
    );
    let count = std::fs::read_to_string(&lines).unwrap().lines().count();
    assert_eq!(compared["events"], count);
    compared
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

/// Makes a region one of another boot.
fn set_boot(region: &Path) {
    let memory = HeapMemory::from_bytes(&std::fs::read(region).unwrap());
    let layout = Layout::load(&memory).unwrap();
    let mut run = RunRecord::load(&layout, &memory).unwrap();
    run.boot_id = [7; 16];
    run.sequence += 1;
    run.store(&layout, &memory);
    std::fs::write(region, memory.to_vec()).unwrap();
}

/// The only generation of `shop`, and its name.
fn generation(state: &Path) -> (PathBuf, String) {
    let folder = state.join("apps/shop/generations/shop");
    let entry = std::fs::read_dir(folder).unwrap().next().unwrap().unwrap();
    let name = format!("shop/{}", entry.file_name().to_str().unwrap());
    (entry.path().join("region"), name)
}

/// Two boots have no clock in common but that on the wall: it puts their events in order in the text,
/// which says so, and is what Perfetto and CTF have as their time.
#[test]
fn regions_of_different_boots_are_put_on_the_wall_clock_everywhere() {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().to_str().unwrap();
    for depth in [2, 3] {
        let recorder = record("shop", folder.path());
        work(depth);
        drop(recorder);
    }
    let (region, before) = generation(folder.path());
    set_boot(&region);
    let sources = [before.as_str(), "shop"];
    let shown = outlive(&[&["show", "--state", state, "--json"], &sources[..]].concat());
    let stderr = String::from_utf8_lossy(&shown.stderr);
    assert!(
        stderr.contains("of different boots: times are those of the wall clock"),
        "{stderr}"
    );
    let text = String::from_utf8(shown.stdout).unwrap();
    let lines: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert!(lines.is_sorted_by_key(|line| line["time"].as_u64()));
    for (source, count) in sources.iter().zip([9, 12]) {
        let asked = [
            "sql",
            "SELECT wall FROM events",
            "--csv",
            "--state",
            state,
            source,
        ];
        let walls = String::from_utf8(outlive(&asked).stdout).unwrap();
        let walls: Vec<u64> = walls
            .lines()
            .skip(1)
            .map(|line| line.parse().unwrap())
            .collect();
        let of_source = lines.iter().filter(|line| line["source"] == *source);
        let times: Vec<u64> = of_source
            .map(|line| line["time"].as_u64().unwrap())
            .collect();
        assert_eq!((times.len(), walls.len()), (count, count), "{source}");
        // Between two clock pairs a common time is on the line through both, `wall` counts from the first.
        let is_near = |(time, wall): (&u64, &u64)| time.abs_diff(*wall) < 1_000_000_000;
        assert!(times.iter().zip(&walls).all(is_near), "{times:?} {walls:?}");
    }
    if let Some(python) = python() {
        let compared = compare_merged(&python, &["--state", state], &sources);
        assert_eq!(compared["events"], 21, "{compared}");
    }
    if let Some(python) = babeltrace_python() {
        let [trace, read] = ["out.ctf", "out.jsonl"].map(|name| folder.path().join(name));
        for out in [&trace, &read] {
            let out = out.to_str().unwrap();
            let exported =
                outlive(&[&["export", "-o", out, "--state", state], &sources[..]].concat());
            assert!(exported.status.success(), "{exported:?}");
        }
        let compared = [&trace, &read].map(|path| path.to_str().unwrap());
        let compared = script(&python, "export_ctf.py", &compared);
        assert_eq!(compared["first_ns"], lines[0]["time"], "{compared}");
    }
}

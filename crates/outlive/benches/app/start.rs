//! What a recorder adds to a program's start, when the run before left a full region: one that had the
//! time to do what its own start had left to its background, and one that died before.

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use outlive::event;

use crate::{die, median, recorder, this_program};

/// Bytes of the rings that are left.
const SIZES: [u64; 2] = [1 << 20, 256 << 20];
const RUNS: usize = 7;
/// Bytes of an event in the ring: see `an_event_of_two_integers_takes_24_bytes`.
const EVENT_BYTES: u64 = 24;

/// How a run ends: full and after its background, or before that.
const ENDS: [(&str, &str); 2] = [
    ("settled", "a full one left by the run before"),
    ("at-once", "by one that died at once"),
];

/// Starts, tells how long that took, fills the ring unless it is to die at once, and dies.
pub(crate) fn child(backing: &str, state: &str, size: &str, end: &str) {
    let size: u64 = size.parse().expect("a size");
    let start = Instant::now();
    let recorder = recorder(backing, state.as_ref(), size);
    println!("{}", start.elapsed().as_nanos());
    if recorder.previous().is_some() {
        println!("previous");
    }
    if end == ENDS[1].0 {
        event!("bench:full", a = 0u64, b = 0u32);
        die();
    }
    for i in 0..size / EVENT_BYTES {
        event!("bench:full", a = i, b = i as u32);
    }
    recorder.wait_for_background();
    die()
}

/// Milliseconds of a start, and whether there was a run before.
fn start(command: &mut Command) -> (f64, bool) {
    let output = command.output().expect("a child");
    let output = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut lines = output.lines();
    let ns: f64 = lines.next().and_then(|ns| ns.parse().ok()).expect("a time");
    (ns / 1e6, lines.next().is_some())
}

pub(crate) fn print(backing: &str, state: &Path) {
    let state = state.display().to_string();
    let kinds = SIZES.iter().flat_map(|size| ENDS.map(|end| (*size, end)));
    for (size, (end, words)) in kinds {
        let run = || start(&mut child_command(backing, &state, size, end));
        // Leaves a region of this size to the next one.
        run();
        let times = (0..RUNS).map(|_| {
            let (ms, has_previous) = run();
            assert!(has_previous, "the run before left a region");
            ms
        });
        let times: Vec<f64> = times.collect();
        println!(
            "  Recorder start, {:>3} MiB, {words}: median {:.2} ms",
            size >> 20,
            median(times)
        );
    }
}

fn child_command(backing: &str, state: &str, size: u64, end: &str) -> Command {
    this_program(&["child-start", backing, state, &size.to_string(), end])
}

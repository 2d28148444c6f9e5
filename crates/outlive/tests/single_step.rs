//! The recording of one event is stopped after each instruction: whatever instant a program is killed
//! at, its region is whole and has the events that were committed, and nothing else.
//!
//! The processor itself stops a traced child (ptrace(2), `PTRACE_SINGLESTEP`). What is in its region's
//! file at a stop is what a kill leaves there. At some of the stops the child is killed for real.

mod common;

use std::path::Path;

use common::{Acks, Child, Folder, child_state, events_of, region_path};
use outlive::{Backing, Recorder, event};
use outlive_trace::view::View;

const PROGRAM: &str = "steps";
/// One lane of few sub-buffers.
const RING_BYTES: u64 = 32 << 10;
/// Events of this test in a sub-buffer: a record of 20 bytes (4 of a header, 8 of common fields, 8 of a
/// number) in 4080.
const PER_SUBBUF: u64 = 204;
/// Sub-buffers that hold events: of eight pages one is the region's meta, one the lane's, and one the
/// reader page, which stays empty.
const SUBBUFS: u64 = 5;
/// Instructions of a call, at most: more is a loop without an end.
const STEPS_MAX: usize = 1_000_000;
/// Stops of each call at which a child is killed for real.
const KILLS: usize = 2;

// What test and child tell each other, in the places of threads.
/// The child's thread id, when it is ready.
const READY: u32 = 0;
/// How many events are recorded before the one that is looked at, plus 1.
const BEFORE: u32 = 1;
/// The child may record it.
const GO: u32 = 2;
/// The child has recorded it.
const DONE: u32 = 3;
const PLACES: u32 = 4;

#[test]
fn child_records_an_event_when_it_is_told() {
    let Some((state, places)) = child_state() else {
        return;
    };
    let acks = Acks::open(&state, places);
    let _recorder = Recorder::builder(PROGRAM)
        .state(&state)
        .backing(Backing::File)
        .size(RING_BYTES)
        .lanes(1)
        .start()
        .unwrap();
    let before = acks.load(BEFORE) - 1;
    (1..=before).for_each(record);
    // SAFETY: no arguments.
    acks.store(READY, u64::from(unsafe { libc::gettid() }.cast_unsigned()));
    while acks.load(GO) == 0 {
        std::hint::spin_loop();
    }
    record(before + 1);
    acks.store(DONE, 1);
    std::thread::sleep(std::time::Duration::MAX);
}

fn record(number: u64) {
    event!("step:number", number = number);
}

/// A traced child that stands before the call.
struct Traced {
    child: Option<Child>,
    thread: libc::pid_t,
    acks: Acks,
    folder: Folder,
}

impl Traced {
    /// `None`, and a line that says so, where nobody may trace.
    fn start(before: u64) -> Option<Self> {
        let folder = Folder::new();
        let acks = Acks::create(folder.path(), PLACES);
        acks.store(BEFORE, before + 1);
        let test = "child_records_an_event_when_it_is_told";
        let child = Child::spawn(test, folder.path(), PLACES);
        while acks.load(READY) == 0 {
            std::thread::yield_now();
        }
        let thread = acks.load(READY) as libc::pid_t;
        let traced = Self {
            child: Some(child),
            thread,
            acks,
            folder,
        };
        if let Err(error) = traced.ptrace(libc::PTRACE_ATTACH, 0) {
            println!("single_step: skipped: cannot trace: {error}");
            return None;
        }
        traced.wait_for_stop();
        hurry(traced.thread);
        hurry(0);
        traced.acks.store(GO, 1);
        Some(traced)
    }

    fn ptrace(&self, request: libc::c_uint, signal: libc::c_int) -> std::io::Result<()> {
        // SAFETY: no request here reads or writes memory of ours.
        match unsafe { libc::ptrace(request, self.thread, 0, signal) } {
            -1 => Err(std::io::Error::last_os_error()),
            _ => Ok(()),
        }
    }

    fn wait_for_stop(&self) {
        let mut status = 0;
        // SAFETY: room for the status.
        let waited = unsafe { libc::waitpid(self.thread, &raw mut status, libc::__WALL) };
        assert_eq!(waited, self.thread);
        assert!(libc::WIFSTOPPED(status), "the child ended: {status:#x}");
    }

    /// Executes one instruction.
    fn step(&self) {
        self.ptrace(libc::PTRACE_SINGLESTEP, 0).unwrap();
        self.wait_for_stop();
    }

    fn is_done(&self) -> bool {
        self.acks.load(DONE) != 0
    }

    fn region(&self) -> std::path::PathBuf {
        region_path(self.folder.path(), PROGRAM)
    }

    /// Not one more instruction is executed.
    fn kill(&mut self) {
        if let Some(child) = self.child.take() {
            // A traced thread that is killed would wait for us, and we for its process.
            let _ = self.ptrace(libc::PTRACE_DETACH, libc::SIGKILL);
            child.kill();
        }
    }
}

impl Drop for Traced {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A thread goes before others, if that is permitted: at each step it is waited for.
fn hurry(thread: libc::pid_t) {
    // SAFETY: numbers only.
    unsafe { libc::setpriority(libc::PRIO_PROCESS, thread.cast_unsigned(), -20) };
}

/// The numbers in a region, which is whole.
fn numbers(region: &Path) -> (Vec<u64>, u64) {
    let view = View::open(region).unwrap();
    assert!(view.is_whole(), "{:?}", view.parts[0].recovery.damage);
    let cpu = &view.cpus[0];
    assert!(cpu.holes.is_empty(), "{:?}", cpu.holes);
    let numbers = events_of(&view)
        .iter()
        .map(|event| event.u64("number"))
        .collect();
    (numbers, cpu.counters.overrun)
}

/// Whether the numbers are those of the events before, or one more; only the oldest may be missing, by
/// whole sub-buffers.
fn has_last(numbers: &[u64], before: u64) -> bool {
    let last = numbers.last().copied().unwrap_or(0);
    assert!(last == before || last == before + 1, "{last}, not {before}");
    let first = last + 1 - numbers.len() as u64;
    assert!(numbers.iter().copied().eq(first..=last), "{numbers:?}");
    assert!((first.max(1) - 1).is_multiple_of(PER_SUBBUF), "{first}");
    last == before + 1
}

/// Steps through the recording of one event behind `before` others. Returns the instructions and
/// how many events were overwritten for it; `None` where nobody may trace.
fn step_through(before: u64) -> Option<(usize, u64)> {
    let traced = Traced::start(before)?;
    let region = traced.region();
    let copy = traced.folder.path().join("copy");
    let (mut bytes, overrun_before) = (Vec::new(), numbers(&region).1);
    let (mut steps, mut is_there) = (0, false);
    while !traced.is_done() {
        traced.step();
        steps += 1;
        assert!(steps < STEPS_MAX, "the call does not return");
        let now = std::fs::read(&region).unwrap();
        if now == bytes {
            continue;
        }
        bytes = now;
        std::fs::write(&copy, &bytes).unwrap();
        let has_it = has_last(&numbers(&copy).0, before);
        assert!(has_it || !is_there, "step {steps}: the event is gone again");
        is_there = has_it;
    }
    assert!(is_there, "the call has returned: the event is there");
    println!("{before} events before: {steps} instructions");
    let overrun = numbers(&copy).1 - overrun_before;
    for kill in 1..=KILLS {
        let at = steps * kill / (KILLS + 1);
        let mut traced = Traced::start(before)?;
        // Once a second a call gives a sign of life too: this one may be shorter than the one before, and
        // what comes behind it is a sleep for good.
        (0..at).for_each(|_| {
            if !traced.is_done() {
                traced.step();
            }
        });
        traced.kill();
        has_last(&numbers(&traced.region()).0, before);
    }
    Some((steps, overrun))
}

#[test]
fn the_first_event_of_a_program_has_its_format_whenever_it_is_there() {
    step_through(0);
}

#[test]
fn an_event_behind_others_is_there_as_a_whole_or_not_at_all() {
    if let Some((_, overrun)) = step_through(5) {
        assert_eq!(overrun, 0);
    }
}

#[test]
fn an_event_that_begins_a_sub_buffer_leaves_the_full_one_whole() {
    if let Some((_, overrun)) = step_through(PER_SUBBUF) {
        assert_eq!(overrun, 0);
    }
}

#[test]
fn an_event_that_overwrites_the_oldest_takes_one_sub_buffer_of_them() {
    if let Some((_, overrun)) = step_through(PER_SUBBUF * SUBBUFS) {
        assert_eq!(overrun, PER_SUBBUF);
    }
}

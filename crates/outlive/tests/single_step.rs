//! The recording of an event, or of a span, is stopped after each instruction: whatever instant a program is killed
//! at, its region is whole and has the events that were committed, and nothing else.
//!
//! The processor itself stops a traced child (ptrace(2), `PTRACE_SINGLESTEP`). What is in its region's
//! file at a stop is what a kill leaves there. At some of the stops the child is killed for real.

mod common;

use std::path::Path;

use common::{Acks, Child, Decoded, Folder, child_state, events_of, region_path};
use outlive::{Backing, Recorder, event, span};
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
/// What is recorded: the number of a [`Call`].
const CALL: u32 = 4;
const PLACES: u32 = 5;

/// Longer than what a small buffer holds.
const TEXT: [u8; 300] = [b'x'; 300];

/// What is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Call {
    Number,
    Text,
    /// Its begin and its end.
    Span,
    /// A number, in the lane of another thread, which recorded those before: it is taken from it.
    TakeOver,
}

impl Call {
    const ALL: [Self; 4] = [Self::Number, Self::Text, Self::Span, Self::TakeOver];

    fn record(self, number: u64) {
        match self {
            Self::Number | Self::TakeOver => record(number),
            Self::Text => event!("step:text", number = number, text = text()),
            Self::Span => drop(span!("step:span", number = number)),
        }
    }

    /// The events that it records.
    fn events(self) -> &'static [&'static str] {
        match self {
            Self::Number | Self::TakeOver => &["step:number"],
            Self::Text => &["step:text"],
            Self::Span => &["step:span", "outlive:span_end"],
        }
    }
}

fn text() -> &'static str {
    std::str::from_utf8(&TEXT).unwrap()
}

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
    let call = Call::ALL[acks.load(CALL) as usize];
    let record_before = move || (1..=before).for_each(record);
    if call == Call::TakeOver {
        let (sender, receiver) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            record_before();
            sender.send(()).unwrap();
            std::thread::sleep(std::time::Duration::MAX);
        });
        receiver.recv().unwrap();
    } else {
        record_before();
    }
    // SAFETY: no arguments.
    acks.store(READY, u64::from(unsafe { libc::gettid() }.cast_unsigned()));
    while acks.load(GO) == 0 {
        std::hint::spin_loop();
    }
    call.record(before + 1);
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
    fn start(call: Call, before: u64) -> Option<Self> {
        let folder = Folder::new();
        let acks = Acks::create(folder.path(), PLACES);
        acks.store(BEFORE, before + 1);
        acks.store(CALL, call as u64);
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

/// The events in a region, which is whole, and how many were overwritten.
fn events(region: &Path) -> (Vec<Decoded>, u64) {
    let view = View::open(region).unwrap();
    assert!(view.is_whole(), "{:?}", view.parts[0].recovery.damage);
    let cpu = &view.cpus[0];
    assert!(cpu.holes.is_empty(), "{:?}", cpu.holes);
    (events_of(&view), cpu.counters.overrun)
}

/// How many of the call's events are there, behind the numbers of the events before; of these only the
/// oldest may be missing, by whole sub-buffers, and these are counted.
fn judge(region: &Path, call: Call, before: u64) -> usize {
    let (events, overrun) = events(region);
    let is_before = |event: &Decoded| event.name == "step:number" && event.u64("number") <= before;
    let nr_before = events.iter().take_while(|event| is_before(event)).count();
    let (numbers, of_call) = events.split_at(nr_before);
    let first = before + 1 - nr_before as u64;
    let numbers = numbers.iter().map(|event| event.u64("number"));
    assert!(numbers.eq(first..=before), "{nr_before} of {before}");
    let missing = first - 1;
    assert!(missing.is_multiple_of(PER_SUBBUF), "{missing}");
    // One sub-buffer may be counted that is still there: it is about to be given up.
    let ahead = overrun - missing;
    assert!(ahead == 0 || ahead == PER_SUBBUF, "{overrun}, {missing}");
    let names: Vec<&str> = of_call.iter().map(|event| event.name.as_str()).collect();
    assert_eq!(names, call.events()[..names.len()]);
    if !names.is_empty() {
        assert_eq!(ahead, 0, "the event is behind the one that was given up");
        assert_eq!(of_call[0].u64("number"), before + 1);
    }
    if names.first() == Some(&"step:text") {
        assert_eq!(of_call[0].text("text"), text());
    }
    if let [begin, end] = of_call {
        assert_eq!(begin.u64("span_id"), end.u64("span_id"));
    }
    names.len()
}

/// Steps through a call behind `before` events. Returns how many events were overwritten for it; `None`
/// where nobody may trace.
fn step_through(call: Call, before: u64) -> Option<u64> {
    let traced = Traced::start(call, before)?;
    let region = traced.region();
    let copy = traced.folder.path().join("copy");
    let (mut bytes, overrun_before) = (Vec::new(), events(&region).1);
    let (mut steps, mut there) = (0, 0);
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
        let now_there = judge(&copy, call, before);
        assert!(now_there >= there, "step {steps}: an event is gone again");
        there = now_there;
    }
    assert_eq!(there, call.events().len(), "the call has returned");
    println!("{call:?} behind {before} events: {steps} instructions");
    let overrun = events(&copy).1 - overrun_before;
    for kill in 1..=KILLS {
        let at = steps * kill / (KILLS + 1);
        let mut traced = Traced::start(call, before)?;
        // This call may be shorter than the one before, and what comes behind it is a sleep for good.
        (0..at).for_each(|_| {
            if !traced.is_done() {
                traced.step();
            }
        });
        traced.kill();
        judge(&traced.region(), call, before);
    }
    Some(overrun)
}

#[test]
fn the_first_event_of_a_program_has_its_format_whenever_it_is_there() {
    step_through(Call::Number, 0);
}

#[test]
fn an_event_behind_others_is_there_as_a_whole_or_not_at_all() {
    let overrun = step_through(Call::Number, 5);
    assert!(matches!(overrun, None | Some(0)), "{overrun:?}");
}

#[test]
fn a_text_is_there_as_a_whole_or_not_at_all() {
    step_through(Call::Text, 5);
}

#[test]
fn a_span_begins_before_it_ends_whenever_it_is_there() {
    step_through(Call::Span, 5);
}

#[test]
fn an_event_in_a_lane_that_was_another_threads_is_there_as_a_whole_or_not_at_all() {
    step_through(Call::TakeOver, 5);
}

#[test]
fn an_event_that_begins_a_sub_buffer_leaves_the_full_one_whole() {
    let overrun = step_through(Call::Number, PER_SUBBUF);
    assert!(matches!(overrun, None | Some(0)), "{overrun:?}");
}

#[test]
fn an_event_that_overwrites_the_oldest_takes_one_sub_buffer_of_them() {
    let overrun = step_through(Call::Number, PER_SUBBUF * SUBBUFS);
    assert!(matches!(overrun, None | Some(PER_SUBBUF)), "{overrun:?}");
}

//! What the storms share: threads that record numbers until the process dies, and the judge of what
//! they left.
//!
//! Each thread records numbers, and after each call stores the number where death does not reach it.
//! Afterwards the region is judged: of each thread, the numbers are there without a gap up to the last
//! one that was stored, with the payload that belongs to them, and at most one more. Only the oldest
//! may be missing, where the ring has gone round.

use std::collections::BTreeMap;
use std::path::Path;

use outlive::{Backing, Recorder};
use outlive_trace::view::View;

use super::{Acks, events_of};

/// The recording program.
pub(crate) const PROGRAM: &str = "storm";
/// Small, so that it goes round.
const RING_BYTES: u64 = 1 << 20;
/// Events of a sub-buffer, at most: each has 36 bytes and a record's header of 4 at least.
const PER_SUBBUF_MAX: u64 = 4080 / 40;

/// Starts a recorder of the program.
pub(crate) fn start(state: &Path, backing: Backing) -> Result<Recorder, outlive::Error> {
    let builder = Recorder::builder(PROGRAM).state(state).backing(backing);
    builder.size(RING_BYTES).keep(1).start()
}

/// Records and acknowledges numbers; `after` is called after each.
pub(crate) fn record_steps(acks: &Acks, thread: u32, after: impl Fn()) {
    for number in 1u64.. {
        let check = check_of(thread, number);
        let text = &"0123456789abcdef"[..number as usize % 17];
        outlive::event!(
            "storm:step",
            thread = thread,
            number = number,
            check = check,
            text = text
        );
        acks.store(thread, number);
        after();
    }
}

/// What belongs to a number of a thread.
fn check_of(thread: u32, number: u64) -> u64 {
    (number ^ u64::from(thread) << 40).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

#[derive(Debug, Default)]
pub(crate) struct Total {
    pub(crate) acknowledged: u64,
    pub(crate) events: u64,
    pub(crate) dropped: u64,
}

impl Total {
    pub(crate) fn add(&mut self, other: Self) {
        self.acknowledged += other.acknowledged;
        self.events += other.events;
        self.dropped += other.dropped;
    }
}

/// How a program ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// At any instant of all threads.
    Sudden,
    /// Behind an event of its only thread.
    BehindEvent,
    /// The recorder had ended, and threads went on.
    Closed,
}

/// Says how much was recorded and found, of a program that was killed.
///
/// # Panics
///
/// When something is missing, out of order, wrong, or was never recorded.
pub(crate) fn judge(view: &View, acks: &Acks, threads: u32) -> Total {
    judge_end(view, acks, threads, End::Sudden)
}

/// The same, of one that ended so.
pub(crate) fn judge_end(view: &View, acks: &Acks, threads: u32, end: End) -> Total {
    assert!(view.is_whole(), "{:?}", view.parts[0].recovery.damage);
    assert!(view.cpus.iter().all(|cpu| cpu.holes.is_empty()));
    let counters = view.cpus.iter().map(|cpu| cpu.counters);
    let (dropped, overrun) = counters.fold((0, 0), |(dropped, overrun), counters| {
        (dropped + counters.dropped, overrun + counters.overrun)
    });
    // Where a lane has gone round, nothing is known of the time before its oldest event.
    let lapped = view.cpus.iter().filter(|cpu| cpu.counters.overrun > 0);
    let known_from = lapped.filter_map(|cpu| cpu.oldest).max().unwrap_or(0);
    let mut numbers: BTreeMap<u32, Vec<u64>> = BTreeMap::new();
    let mut kept = 0;
    for event in events_of(view) {
        let thread = event.u64("thread") as u32;
        let number = event.u64("number");
        assert_eq!(event.u64("check"), check_of(thread, number));
        assert_eq!(event.text("text").len() as u64, number % 17);
        kept += 1;
        if event.time_stamp >= known_from {
            numbers.entry(thread).or_default().push(number);
        }
    }
    let mut total = Total {
        dropped,
        ..Total::default()
    };
    let mut missing = 0;
    for thread in 0..threads {
        let acknowledged = acks.load(thread);
        let numbers = numbers.remove(&thread).unwrap_or_default();
        total.acknowledged += acknowledged;
        total.events += numbers.len() as u64;
        if known_from == 0 {
            missing += numbers.first().map_or(0, |first| first - 1);
        }
        for pair in numbers.windows(2) {
            assert!(pair[0] < pair[1], "thread {thread}: {pair:?} out of order");
            missing += pair[1] - pair[0] - 1;
        }
        match numbers.last() {
            Some(&last) => {
                assert!(
                    last <= acknowledged + 1,
                    "thread {thread}: {last} was never recorded"
                );
                if end != End::Closed {
                    missing += acknowledged.saturating_sub(last);
                }
            }
            None if known_from == 0 && end != End::Closed => missing += acknowledged,
            // All that it recorded may have been overwritten.
            None => {}
        }
    }
    assert!(numbers.is_empty(), "{:?} are no threads", numbers.keys());
    assert!(
        missing <= dropped,
        "{missing} events are missing, {dropped} were dropped"
    );
    // A thread has one lane at a time, so one is free for each.
    if threads as usize <= view.cpus.len() / 2 {
        assert_eq!(dropped, 0);
    }
    let counted = kept + overrun + dropped;
    let recorded = total.acknowledged;
    // Each thread may have recorded one more; and where it was giving up the oldest sub-buffer of its lane,
    // that is counted as overwritten and still there.
    let most = recorded + u64::from(threads) * (1 + PER_SUBBUF_MAX);
    let allowed = match end {
        End::Sudden => recorded..=most,
        End::BehindEvent => recorded..=recorded,
        // What the others did behind the close is not there.
        End::Closed => 0..=most,
    };
    assert!(
        allowed.contains(&counted),
        "{recorded} recorded, {kept} kept, {overrun} overwritten, {dropped} dropped"
    );
    total
}

//! A program of many threads is killed at random instants, again and again: what its threads had
//! recorded is there.
//!
//! Each thread records numbers, and after each call stores the number where the kill does not reach
//! it. After the kill the region is judged: of each thread, the numbers are there without a gap up
//! to the last one that was stored, with the payload that belongs to them, and at most one more.
//! Only the oldest may be missing, where the ring has gone round.
//!
//! `OUTLIVE_KILLS` is how often for each number of threads (`cargo xtask kill-storm` sets it).

mod common;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use common::{Acks, Child, Folder, child_state, events_of};
use outlive_trace::view::View;

/// Small, so that it goes round.
const RING_BYTES: u64 = 1 << 20;
const KILLS_DEFAULT: u32 = 6;

/// What belongs to a number of a thread.
fn check_of(thread: u32, number: u64) -> u64 {
    (number ^ u64::from(thread) << 40).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

#[test]
fn child_records_until_it_is_killed() {
    let Some((state, threads)) = child_state() else {
        return;
    };
    let recorder = outlive::Recorder::builder("storm")
        .state(&state)
        .size(RING_BYTES)
        .keep(1)
        .start()
        .unwrap();
    let acks = Acks::open(&state, threads);
    std::thread::scope(|scope| {
        for thread in 0..threads {
            let acks = &acks;
            scope.spawn(move || {
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
                }
            });
        }
    });
    drop(recorder);
}

/// A different instant each time, of microseconds to milliseconds.
fn random_wait() -> Duration {
    static SEED: AtomicU64 = AtomicU64::new(0);
    let seed = SEED.fetch_add(1, Ordering::Relaxed) ^ outlive_trace::clock::realtime_ns();
    Duration::from_nanos(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) % 8_000_000)
}

#[test]
fn whatever_was_recorded_before_a_kill_is_there_after_it() {
    let kills =
        std::env::var("OUTLIVE_KILLS").map_or(KILLS_DEFAULT, |kills| kills.parse().unwrap());
    for threads in [1, 2, 8, 64] {
        let folder = Folder::new();
        let mut total = Total::default();
        for _ in 0..kills {
            let acks = Acks::create(folder.path(), threads);
            let child = Child::spawn("child_records_until_it_is_killed", folder.path(), threads);
            while (0..threads).all(|thread| acks.load(thread) == 0) {
                std::thread::yield_now();
            }
            std::thread::sleep(random_wait());
            child.kill();
            let view = common::open_region(folder.path(), "storm");
            total.add(judge(&view, &acks, threads));
        }
        println!("{threads} threads, {kills} kills: {total:?}");
        assert!(total.events > 0);
    }
}

#[derive(Debug, Default)]
struct Total {
    acknowledged: u64,
    events: u64,
    dropped: u64,
}

impl Total {
    fn add(&mut self, other: Self) {
        self.acknowledged += other.acknowledged;
        self.events += other.events;
        self.dropped += other.dropped;
    }
}

fn judge(view: &View, acks: &Acks, threads: u32) -> Total {
    assert!(view.is_whole(), "{:?}", view.parts[0].recovery.damage);
    assert!(view.cpus.iter().all(|cpu| cpu.holes.is_empty()));
    let dropped: u64 = view.cpus.iter().map(|cpu| cpu.counters.dropped).sum();
    // Where a lane has gone round, nothing is known of the time before its oldest event.
    let lapped = view.cpus.iter().filter(|cpu| cpu.counters.overrun > 0);
    let known_from = lapped.filter_map(|cpu| cpu.oldest).max().unwrap_or(0);
    let mut numbers: BTreeMap<u32, Vec<u64>> = BTreeMap::new();
    for event in events_of(view) {
        let thread = event.u64("thread") as u32;
        let number = event.u64("number");
        assert_eq!(event.u64("check"), check_of(thread, number));
        assert_eq!(event.text("text").len() as u64, number % 17);
        if event.time_stamp >= known_from {
            numbers.entry(thread).or_default().push(number);
        }
    }
    let mut total = Total::default();
    let mut missing = 0;
    for thread in 0..threads {
        let acknowledged = acks.load(thread);
        let numbers = numbers.remove(&thread).unwrap_or_default();
        total.acknowledged += acknowledged;
        total.events += numbers.len() as u64;
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
                missing += acknowledged.saturating_sub(last);
            }
            None if known_from == 0 => missing += acknowledged,
            // All that it recorded may have been overwritten.
            None => {}
        }
    }
    assert!(numbers.is_empty(), "{:?} are no threads", numbers.keys());
    assert!(
        missing <= dropped,
        "{missing} events are missing, {dropped} were dropped"
    );
    total.dropped = dropped;
    total
}

//! A program of many threads is killed at random instants, again and again: what its threads had
//! recorded is there.
//!
//! `OUTLIVE_KILLS` is how often for each number of threads, `OUTLIVE_KILL_THREADS` the only number of
//! threads, if not all are wanted (`cargo xtask kill-storm` sets both).

mod common;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use common::storm::{self, Total, judge, record_steps};
use common::{Acks, Child, Folder, child_state};
use outlive::Backing;

const KILLS_DEFAULT: u32 = 25;
const THREADS: [u32; 4] = [1, 2, 8, 64];

#[test]
fn child_records_until_it_is_killed() {
    let Some((state, threads)) = child_state() else {
        return;
    };
    let _recorder = storm::start(&state, Backing::Tmpfs(None)).unwrap();
    let acks = Acks::open(&state, threads);
    std::thread::scope(|scope| {
        for thread in 0..threads {
            let acks = &acks;
            scope.spawn(move || record_steps(acks, thread, || {}));
        }
    });
}

/// A different instant each time, of microseconds to milliseconds.
fn random_wait() -> Duration {
    static SEED: AtomicU64 = AtomicU64::new(0);
    let seed = SEED.fetch_add(1, Ordering::Relaxed) ^ outlive_trace::clock::realtime_ns();
    Duration::from_nanos(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) % 8_000_000)
}

#[test]
fn whatever_was_recorded_before_a_kill_is_there_after_it() {
    let number = |name| std::env::var(name).map(|number| number.parse::<u32>().unwrap());
    let kills = number("OUTLIVE_KILLS").unwrap_or(KILLS_DEFAULT);
    let threads = number("OUTLIVE_KILL_THREADS").map_or(THREADS.to_vec(), |threads| vec![threads]);
    for threads in threads {
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
            let view = common::open_region(folder.path(), storm::PROGRAM);
            total.add(judge(&view, &acks, threads));
        }
        println!("{threads} threads, {kills} kills: {total:?}");
        assert!(total.events > 0);
        // Of more threads than lanes each may find all lanes busy that it asks for.
        assert!(total.dropped <= total.acknowledged / 10);
    }
}

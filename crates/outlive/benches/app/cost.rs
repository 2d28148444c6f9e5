//! What one call costs: medians over many short batches, taken in turns, so that what else runs on
//! the machine disturbs all of them alike; and the 99.9th percentile of single calls, each timed with
//! the clock, the cost of which is in it.

use std::hint::black_box;
use std::time::Instant;

use outlive::event;

use crate::lttng::Peer;
use crate::{RING_BYTES, median};

/// Calls in a batch.
const BATCH: u32 = 500;
/// Batches of each kind.
const ROUNDS: usize = 2_000;
/// Single calls that are timed.
const SINGLES: usize = 200_000;
/// Bytes of the shortest event here, LTTng-UST's.
const EVENT_BYTES_MIN: u64 = 16;

/// Something that is measured.
struct Kind<'a> {
    name: &'static str,
    run: Box<dyn Fn(u32) + 'a>,
}

impl<'a> Kind<'a> {
    fn new(name: &'static str, run: impl Fn(u32) + 'a) -> Self {
        Self {
            name,
            run: Box::new(run),
        }
    }

    /// Nanoseconds per call of a batch.
    fn batch(&self) -> f64 {
        let start = Instant::now();
        (self.run)(BATCH);
        start.elapsed().as_nanos() as f64 / f64::from(BATCH)
    }

    /// The 99.9th percentile of single calls.
    fn p999(&self) -> f64 {
        let singles = (0..SINGLES).map(|_| {
            let start = Instant::now();
            (self.run)(1);
            start.elapsed().as_nanos() as f64
        });
        let mut singles: Vec<f64> = singles.collect();
        singles.sort_unstable_by(f64::total_cmp);
        singles[SINGLES * 999 / 1000]
    }
}

fn ints(calls: u32) {
    for i in 0..calls {
        event!("bench:ints", a = u64::from(black_box(i)), b = i);
    }
}

fn text(calls: u32) {
    for i in 0..calls {
        let text = black_box("sixteen bytes ...");
        event!("bench:text", a = u64::from(i), text = text);
    }
}

fn off(calls: u32) {
    for i in 0..calls {
        event!("off:ints", a = u64::from(black_box(i)), b = i);
    }
}

fn counter(calls: u32) {
    for _ in 0..calls {
        black_box(ticks());
    }
}

fn clock(calls: u32) {
    for _ in 0..calls {
        black_box(outlive_trace::clock::monotonic_ns());
    }
}

fn nothing(calls: u32) {
    for i in 0..calls {
        black_box(i);
    }
}

#[cfg(target_arch = "x86_64")]
fn ticks() -> u64 {
    // SAFETY: every x86-64 processor has the instruction.
    unsafe { core::arch::x86_64::_rdtsc() }
}

#[cfg(not(target_arch = "x86_64"))]
fn ticks() -> u64 {
    outlive_trace::clock::monotonic_ns()
}

pub(crate) fn print(peer: Option<&Peer>) {
    let mut kinds = vec![
        Kind::new("an empty loop", nothing),
        Kind::new("the clock: the time stamp counter", counter),
        Kind::new("the clock: clock_gettime", clock),
        Kind::new("an event that is off", off),
        Kind::new("an event of a u64 and a u32", ints),
        Kind::new("an event of a u64 and 17 bytes of text", text),
    ];
    if let Some(peer) = peer {
        let run = |calls| (peer.ints)(calls);
        kinds.push(Kind::new("LTTng-UST: an event of a u64 and a u32", run));
    }
    // Once through all buffers: memory that is touched for the first time is the kernel's cost.
    for kind in &kinds {
        (kind.run)((RING_BYTES / EVENT_BYTES_MIN) as u32);
    }
    let mut batches = vec![Vec::with_capacity(ROUNDS); kinds.len()];
    for _ in 0..ROUNDS {
        for (kind, batches) in kinds.iter().zip(&mut batches) {
            batches.push(kind.batch());
        }
    }
    for (kind, batches) in kinds.iter().zip(batches) {
        println!(
            "  {:<42}median {:>6.1} ns   least {:>6.1} ns   p99.9 {:>6.0} ns",
            kind.name,
            median(batches.clone()),
            batches.iter().copied().fold(f64::MAX, f64::min),
            kind.p999(),
        );
    }
}

//! What an event costs, beside what reading the clock costs, in one run.
//!
//!     cargo xtask bench app
//!
//! Each line is the median over many short batches, taken in turns, so that what else runs on the
//! machine disturbs all of them alike; and the 99.9th percentile of single calls, each timed with
//! the clock, the cost of which is in it.

use std::hint::black_box;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use outlive::{Backing, Recorder, event};

/// Calls in a batch.
const BATCH: u32 = 500;
/// Batches of each kind.
const ROUNDS: usize = 2_000;
/// Single calls that are timed.
const SINGLES: usize = 200_000;
/// How long the threads of a throughput run record.
const RUN: Duration = Duration::from_millis(300);
const RUNS: usize = 9;

fn main() {
    let state = std::env::temp_dir().join(format!("outlive-bench-{}", std::process::id()));
    let disk = std::env::var_os("OUTLIVE_BENCH_DISK").map(std::path::PathBuf::from);
    for (what, backing, folder) in [
        ("tmpfs", Backing::Tmpfs(None), Some(&state)),
        ("disk file", Backing::File, disk.as_ref()),
    ] {
        let Some(folder) = folder else {
            continue;
        };
        let recorder = Recorder::builder("bench")
            .state(folder)
            .backing(backing)
            .size(16 << 20)
            .events(["bench:ints", "bench:text", "bench:thread"])
            .start()
            .expect("the recorder starts");
        println!("{what}:");
        costs();
        throughput();
        drop(recorder);
        remove(folder);
    }
}

/// The tmpfs folder of the state, and the state.
fn remove(folder: &std::path::Path) {
    let id = std::fs::read_to_string(folder.join("apps/bench/id")).unwrap_or_default();
    let _ = std::fs::remove_dir_all(format!("/dev/shm/outlive-{}", id.trim()));
    let _ = std::fs::remove_dir_all(folder);
}

/// Something that is measured.
struct Kind {
    name: &'static str,
    run: fn(u32),
}

impl Kind {
    const ALL: [Self; 6] = [
        Self {
            name: "the clock, read directly (rdtsc)",
            run: |calls| {
                for _ in 0..calls {
                    black_box(ticks());
                }
            },
        },
        Self {
            name: "the clock, through the vDSO",
            run: |calls| {
                for _ in 0..calls {
                    black_box(outlive_trace::clock::monotonic_ns());
                }
            },
        },
        Self {
            name: "an event that is off",
            run: |calls| {
                for i in 0..calls {
                    event!("bench:off", a = u64::from(black_box(i)), b = i);
                }
            },
        },
        Self {
            name: "an event of a u64 and a u32",
            run: |calls| {
                for i in 0..calls {
                    event!("bench:ints", a = u64::from(black_box(i)), b = i);
                }
            },
        },
        Self {
            name: "an event of a u64 and 16 bytes of text",
            run: |calls| {
                for i in 0..calls {
                    event!(
                        "bench:text",
                        a = u64::from(i),
                        text = black_box("sixteen bytes ...")
                    );
                }
            },
        },
        Self {
            name: "an empty loop",
            run: |calls| {
                for i in 0..calls {
                    black_box(i);
                }
            },
        },
    ];
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

/// Nanoseconds per call of a batch.
fn measure(kind: &Kind) -> f64 {
    let start = Instant::now();
    (kind.run)(BATCH);
    start.elapsed().as_nanos() as f64 / f64::from(BATCH)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values[values.len() / 2]
}

fn costs() {
    let mut batches = vec![Vec::with_capacity(ROUNDS); Kind::ALL.len()];
    for _ in 0..ROUNDS {
        for (kind, batch) in Kind::ALL.iter().zip(&mut batches) {
            batch.push(measure(kind));
        }
    }
    for (kind, batch) in Kind::ALL.iter().zip(batches) {
        let mut singles: Vec<f64> = (0..SINGLES)
            .map(|_| {
                let start = Instant::now();
                (kind.run)(1);
                start.elapsed().as_nanos() as f64
            })
            .collect();
        singles.sort_unstable_by(f64::total_cmp);
        let p999 = singles[SINGLES * 999 / 1000];
        println!(
            "  {:<42}median {:>6.1} ns   least {:>6.1} ns   p99.9 {p999:>6.0} ns",
            kind.name,
            median(batch.clone()),
            batch.iter().copied().fold(f64::MAX, f64::min),
        );
    }
}

/// Events per second of so many threads.
fn rate(threads: usize) -> f64 {
    let (barrier, stop) = (Barrier::new(threads + 1), AtomicBool::new(false));
    let total = AtomicU64::new(0);
    let mut took = Duration::ZERO;
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                let mut count = 0;
                barrier.wait();
                while !stop.load(Ordering::Relaxed) {
                    for i in 0..100u32 {
                        event!("bench:thread", a = u64::from(black_box(i)), b = i);
                    }
                    count += 100;
                }
                total.fetch_add(count, Ordering::Relaxed);
            });
        }
        barrier.wait();
        let start = Instant::now();
        std::thread::sleep(RUN);
        stop.store(true, Ordering::Relaxed);
        took = start.elapsed();
    });
    total.load(Ordering::Relaxed) as f64 / took.as_secs_f64()
}

fn throughput() {
    let threads = [1, 2, 8, 64];
    let mut rates = vec![Vec::new(); threads.len()];
    for _ in 0..RUNS {
        for (&threads, rates) in threads.iter().zip(&mut rates) {
            rates.push(rate(threads));
        }
    }
    let one = median(rates[0].clone());
    for (threads, rates) in threads.iter().zip(rates) {
        let rate = median(rates);
        println!(
            "  {threads:>2} threads: {:>6.1} million events/s, {:.2} times one",
            rate / 1e6,
            rate / one
        );
    }
}

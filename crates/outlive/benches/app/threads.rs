//! What an event costs when several threads record at the same time: processor time of the threads'
//! own, which does not count what the processor does for others meanwhile.

use std::hint::black_box;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use outlive::event;

use crate::lttng::Peer;
use crate::median;

const THREADS: [usize; 4] = [1, 2, 8, 64];
/// How long the threads record.
const RUN: Duration = Duration::from_millis(200);
const RUNS: usize = 9;
const BATCH: u32 = 100;

fn ours(calls: u32) {
    for i in 0..calls {
        event!("bench:thread", a = u64::from(black_box(i)), b = i);
    }
}

/// Nanoseconds of processor time that this thread has used.
fn own_time_ns() -> f64 {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: room for the time.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    time.tv_sec as f64 * 1e9 + time.tv_nsec as f64
}

/// Nanoseconds per event of so many threads.
fn cost(threads: usize, record: impl Fn(u32) + Sync) -> f64 {
    let (barrier, stop) = (Barrier::new(threads + 1), AtomicBool::new(false));
    let one = || {
        let mut events = 0.0;
        barrier.wait();
        let start = own_time_ns();
        while !stop.load(Ordering::Relaxed) {
            record(BATCH);
            events += f64::from(BATCH);
        }
        (own_time_ns() - start, events)
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(one)).collect();
        barrier.wait();
        std::thread::sleep(RUN);
        stop.store(true, Ordering::Relaxed);
        let used = threads
            .into_iter()
            .map(|thread| thread.join().expect("it ends"));
        let (time, events) = used.fold((0.0, 0.0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
        time / events
    })
}

pub(crate) fn print(peer: Option<&Peer>) {
    print_one("", ours);
    if let Some(peer) = peer {
        print_one("LTTng-UST: ", |calls| (peer.ints)(calls));
    }
}

fn print_one(who: &str, record: impl Fn(u32) + Sync) {
    let mut costs = THREADS.map(|_| Vec::new());
    for _ in 0..RUNS {
        for (threads, costs) in THREADS.into_iter().zip(&mut costs) {
            costs.push(cost(threads, &record));
        }
    }
    let costs = costs.map(median);
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    for (threads, cost) in THREADS.into_iter().zip(costs) {
        let throughput = costs[0] / cost * threads.min(processors) as f64;
        println!(
            "  {who}{threads} threads: {cost:.1} ns of processor time per event, {throughput:.2} times \
             the throughput of one"
        );
    }
}

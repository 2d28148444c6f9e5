//! The loop that follows host instances: poll, sleep, poll.
//!
//! An absolute timer sets the pace, so that the time a poll takes does not add to the interval. When
//! little comes in, the interval doubles, up to a limit; when a ring fills quickly, the next poll
//! comes at once. How long data really waited is recorded.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::thread::ClockId;
use rustix::time::Timespec;

use crate::error::Error;
use crate::instance::Instance;
use crate::sink::SubbufSink;
use crate::source::{Access, InstanceSource, SourceProgress};

/// How the loop keeps time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Pace {
    /// Time between two polls while events come in.
    pub interval: Duration,
    /// The interval grows up to this many times when idle.
    pub max_backoff: u32,
    /// A poll that brought fewer data bytes than this, over all CPUs, was idle. Not 0: our own
    /// waking up is an event of `sched`.
    pub idle_bytes: u64,
    /// A ring filled by more than this many percent since the last poll is polled again at once.
    pub urgent_percent: u64,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            interval: Duration::from_millis(10),
            max_backoff: 4,
            idle_bytes: 4096,
            urgent_percent: 25,
        }
    }
}

/// Number of [`Delays::buckets`]: the last is from 2^30 us (18 min) on.
pub const DELAY_BUCKETS: usize = 32;

/// How long events waited to be copied, at most: the times between the starts of two polls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Delays {
    /// Polls after the first.
    pub polls: u64,
    /// The longest delay, in ns.
    pub max_ns: u64,
    /// Delays by magnitude: bucket 0 is below 1 us, bucket `i` is from 2^(i-1) us to below 2^i us.
    pub buckets: [u64; DELAY_BUCKETS],
}

impl Delays {
    fn record(&mut self, delay_ns: u64) {
        self.polls += 1;
        self.max_ns = self.max_ns.max(delay_ns);
        let us = delay_ns / 1_000;
        let magnitude = (u64::BITS - us.leading_zeros()) as usize;
        self.buckets[magnitude.min(DELAY_BUCKETS - 1)] += 1;
    }
}

/// What the loop tells after each poll.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Tick {
    /// `CLOCK_MONOTONIC` at the start of the poll, in ns.
    pub now_ns: u64,
    /// The delays so far.
    pub delays: Delays,
    /// What the poll brought, over all instances.
    pub progress: SourceProgress,
}

/// Follows host instances until it is told to stop.
#[derive(Debug)]
pub struct Recorder {
    sources: Vec<InstanceSource>,
    delays: Delays,
    last_poll_ns: Option<u64>,
    last_tend_ns: u64,
}

/// How often to look for new CPUs and foreign readers.
const TEND_NS: u64 = 1_000_000_000;

impl Recorder {
    /// Opens the rings of the instances; do so before their events are enabled.
    ///
    /// # Errors
    /// As [`InstanceSource::open`].
    pub fn new(
        instances: impl IntoIterator<Item = Instance>,
        access: Access,
    ) -> Result<Self, Error> {
        let sources = instances
            .into_iter()
            .map(|instance| InstanceSource::open(instance, access));
        Ok(Self::of_sources(sources.collect::<Result<_, _>>()?))
    }

    /// Follows instances whose rings are open.
    #[must_use]
    pub fn of_sources(sources: Vec<InstanceSource>) -> Self {
        Self {
            sources,
            delays: Delays::default(),
            last_poll_ns: None,
            last_tend_ns: 0,
        }
    }

    /// The sources, in the order of the instances given.
    #[must_use]
    pub fn sources(&self) -> &[InstanceSource] {
        &self.sources
    }

    /// The delays so far.
    #[must_use]
    pub fn delays(&self) -> &Delays {
        &self.delays
    }

    /// Polls until `stop` is set, which is looked at before each poll and after each sleep; a signal
    /// ends a sleep early. `sinks` has one for each instance, in order. `on_tick` is called after
    /// each poll.
    ///
    /// # Errors
    /// As [`InstanceSource::poll`] and [`InstanceSource::tend`].
    ///
    /// # Panics
    /// If there are not as many sinks as instances.
    pub fn run<S: SubbufSink>(
        &mut self,
        sinks: &mut [S],
        stop: &AtomicBool,
        pace: &Pace,
        mut on_tick: impl FnMut(&mut [S], &Tick),
    ) -> Result<(), Error> {
        assert_eq!(
            sinks.len(),
            self.sources.len(),
            "one sink for each instance"
        );
        let mut timer = Timer {
            next_ns: now_ns(),
            backoff: 1,
        };
        // Relaxed: the flag carries no data with it.
        while !stop.load(Ordering::Relaxed) {
            let now_ns = now_ns();
            let progress = self.poll(now_ns, sinks)?;
            on_tick(
                sinks,
                &Tick {
                    now_ns,
                    delays: self.delays,
                    progress,
                },
            );
            timer.sleep(pace, &progress, stop);
        }
        Ok(())
    }

    /// One poll of all instances, as [`Recorder::run`] does it. `now_ns` is `CLOCK_MONOTONIC`.
    ///
    /// # Errors
    /// As [`Recorder::run`].
    pub fn poll<S: SubbufSink>(
        &mut self,
        now_ns: u64,
        sinks: &mut [S],
    ) -> Result<SourceProgress, Error> {
        if let Some(last) = self.last_poll_ns.replace(now_ns) {
            self.delays.record(now_ns.saturating_sub(last));
        }
        let mut all = SourceProgress::default();
        for (source, sink) in self.sources.iter_mut().zip(sinks) {
            all.merge(&source.poll(sink)?);
        }
        if now_ns.saturating_sub(self.last_tend_ns) >= TEND_NS {
            self.last_tend_ns = now_ns;
            self.sources.iter_mut().try_for_each(InstanceSource::tend)?;
        }
        Ok(all)
    }

    /// Ends it, and gives the sources back for their last events.
    #[must_use]
    pub fn into_sources(self) -> Vec<InstanceSource> {
        self.sources
    }
}

struct Timer {
    next_ns: u64,
    backoff: u32,
}

impl Timer {
    fn sleep(&mut self, pace: &Pace, progress: &SourceProgress, stop: &AtomicBool) {
        let Some(wait_ns) = self.wait_ns(pace, progress) else {
            return;
        };
        // A time that has passed already is not made up for.
        self.next_ns = (self.next_ns + wait_ns).max(now_ns());
        let until = timespec(self.next_ns);
        while !stop.load(Ordering::Relaxed) {
            let slept = rustix::thread::clock_nanosleep_absolute(ClockId::Monotonic, &until);
            if slept != Err(rustix::io::Errno::INTR) {
                break;
            }
        }
    }

    /// The time to wait from the last time on; `None`: not at all.
    fn wait_ns(&mut self, pace: &Pace, progress: &SourceProgress) -> Option<u64> {
        let is_urgent = progress.fullest_percent > pace.urgent_percent;
        if is_urgent || !progress.sum.is_caught_up {
            self.backoff = 1;
            return None;
        }
        let is_idle = progress.sum.bytes < pace.idle_bytes;
        self.backoff = if is_idle {
            (self.backoff * 2).min(pace.max_backoff.max(1))
        } else {
            1
        };
        Some(
            u64::try_from(pace.interval.as_nanos())
                .ok()?
                .saturating_mul(self.backoff.into()),
        )
    }
}

/// `CLOCK_MONOTONIC` in ns.
fn now_ns() -> u64 {
    crate::clock::read_clock(ClockId::Monotonic)
}

fn timespec(ns: u64) -> Timespec {
    const NS_PER_S: u64 = 1_000_000_000;
    Timespec {
        tv_sec: (ns / NS_PER_S).cast_signed(),
        tv_nsec: (ns % NS_PER_S).cast_signed(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::follower::Progress;

    fn brought(bytes: u64) -> SourceProgress {
        let sum = Progress {
            bytes,
            is_caught_up: true,
            ..Progress::default()
        };
        SourceProgress {
            sum,
            fullest_percent: 0,
        }
    }

    #[test]
    fn interval_doubles_when_idle_and_falls_back_at_once() {
        let (mut timer, pace) = (
            Timer {
                next_ns: 0,
                backoff: 1,
            },
            Pace::default(),
        );
        let mut wait_ms = |bytes| timer.wait_ns(&pace, &brought(bytes)).unwrap() / 1_000_000;
        assert_eq!(
            [wait_ms(0), wait_ms(0), wait_ms(9), wait_ms(1 << 20)],
            [20, 40, 40, 10]
        );
    }

    #[test]
    fn ring_that_fills_quickly_is_polled_at_once() {
        let mut timer = Timer {
            next_ns: 0,
            backoff: 4,
        };
        let urgent = SourceProgress {
            fullest_percent: 26,
            ..brought(1 << 20)
        };
        assert_eq!(timer.wait_ns(&Pace::default(), &urgent), None);
        let mut behind = brought(1 << 20);
        behind.sum.is_caught_up = false;
        assert_eq!(timer.wait_ns(&Pace::default(), &behind), None);
    }

    #[test]
    fn delays_fall_into_powers_of_two() {
        let mut delays = Delays::default();
        for us in [0, 1, 3, 4, 10_000, u64::MAX / 1_000] {
            delays.record(us * 1_000);
        }
        assert_eq!(
            (delays.polls, delays.buckets[0], delays.buckets[1]),
            (6, 1, 1)
        );
        assert_eq!(
            (delays.buckets[2], delays.buckets[3], delays.buckets[14]),
            (1, 1, 1)
        );
        assert_eq!(delays.buckets[DELAY_BUCKETS - 1], 1);
    }
}

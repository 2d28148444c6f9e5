//! Clock pairs: what the other clocks said at a time of the trace clock.
//!
//! User space cannot read the `local` trace clock. But `now ts` of a `stats` file can be read
//! between two readings of another clock. The trace clock's time is exact to the microsecond there,
//! and was taken somewhere between the two readings; both go into the error bound.

use rustix::thread::ClockId;

use crate::error::Error;
use crate::stats::StatsFile;

/// The same moment in several clocks. All but `trace` in ns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClockPair {
    /// The trace clock, in its own unit.
    pub trace: u64,
    /// `CLOCK_MONOTONIC`.
    pub monotonic_ns: u64,
    /// `CLOCK_BOOTTIME`.
    pub boottime_ns: u64,
    /// `CLOCK_REALTIME`, since 1970.
    pub realtime_ns: u64,
    /// Each of the times is within this of the moment at which the trace clock said `trace`.
    pub error_ns: u64,
}

/// How often the reading is done; the one with the smallest error is taken.
const TRIES: u32 = 5;

/// Reads a clock pair of an instance's trace clock through a `stats` file of one of its CPUs.
///
/// The pair is of that CPU: the `local` clock may differ between CPUs (by little on x86-64).
///
/// # Errors
/// The `stats` file cannot be read.
pub fn clock_pair(stats: &StatsFile) -> Result<ClockPair, Error> {
    let mut best = read_pair(stats)?;
    for _ in 1..TRIES {
        let pair = read_pair(stats)?;
        if pair.error_ns < best.error_ns {
            best = pair;
        }
    }
    Ok(best)
}

fn read_pair(stats: &StatsFile) -> Result<ClockPair, Error> {
    let before = Reading::now();
    let now_ts = stats.read()?.now_ts;
    let after = Reading::now();
    let (first, last) = now_ts.bounds();
    let half_step = (last - first).div_ceil(2);
    let middle = |before: u64, after: u64| before + after.saturating_sub(before) / 2;
    Ok(ClockPair {
        trace: middle(first, last),
        monotonic_ns: middle(before.monotonic_ns, after.monotonic_ns),
        boottime_ns: middle(before.boottime_ns, after.boottime_ns),
        realtime_ns: middle(before.realtime_ns, after.realtime_ns),
        error_ns: before.longest_span(&after).div_ceil(2) + half_step,
    })
}

/// Three clocks read one after the other.
struct Reading {
    monotonic_ns: u64,
    boottime_ns: u64,
    realtime_ns: u64,
}

impl Reading {
    fn now() -> Self {
        Self {
            monotonic_ns: read_clock(ClockId::Monotonic),
            boottime_ns: read_clock(ClockId::Boottime),
            realtime_ns: read_clock(ClockId::Realtime),
        }
    }

    /// The longest time that passed in any of the clocks; one of them may have been set meanwhile.
    fn longest_span(&self, after: &Self) -> u64 {
        let spans = [
            after.monotonic_ns.saturating_sub(self.monotonic_ns),
            after.boottime_ns.saturating_sub(self.boottime_ns),
            after.realtime_ns.abs_diff(self.realtime_ns),
        ];
        spans.into_iter().fold(0, u64::max)
    }
}

/// A clock in ns; 0 for a real time before 1970.
pub(crate) fn read_clock(id: ClockId) -> u64 {
    const NS_PER_S: u64 = 1_000_000_000;
    let now = rustix::time::clock_gettime(id);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    seconds.saturating_mul(NS_PER_S) + u64::try_from(now.tv_nsec).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn pair_has_the_trace_time_and_a_bound_on_its_error() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        let text = "entries: 0\noverrun: 0\ncommit overrun: 0\nbytes: 0\noldest event ts: 0.000000\n\
                    now ts:  1420.147132\ndropped events: 0\nread events: 0\n";
        file.write_all(text.as_bytes()).unwrap();
        let before = read_clock(ClockId::Monotonic);
        let pair = clock_pair(&StatsFile::open(file.path()).unwrap()).unwrap();
        assert_eq!(pair.trace, 1_420_147_132_249);
        assert!(pair.monotonic_ns >= before && pair.boottime_ns >= pair.monotonic_ns);
        assert!(pair.error_ns >= 750);
    }
}

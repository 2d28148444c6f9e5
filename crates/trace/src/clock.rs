//! The clocks of the host, read together.

use rustix::time::{ClockId, Timespec, clock_gettime};

/// The host's clocks at one instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ClockReading {
    /// `CLOCK_REALTIME`: nanoseconds since 1970-01-01 00:00:00 UTC. 0 before that.
    pub realtime_ns: u64,
    /// `CLOCK_MONOTONIC`: nanoseconds since some instant at boot, not counting suspend.
    pub monotonic_ns: u64,
    /// `CLOCK_BOOTTIME`: nanoseconds since the same instant, counting suspend.
    pub boottime_ns: u64,
    /// How far the three can be apart, in nanoseconds: the time that reading them took.
    pub error_bound_ns: u64,
}

/// Reads the three clocks. The monotonic one is read before and after the others, so that the
/// bound holds also when the thread is preempted between two readings.
#[must_use]
pub fn read() -> ClockReading {
    let before_ns = monotonic_ns();
    let realtime_ns = realtime_ns();
    let boottime_ns = nanos(clock_gettime(ClockId::Boottime));
    let error_bound_ns = monotonic_ns() - before_ns;
    ClockReading {
        realtime_ns,
        monotonic_ns: before_ns,
        boottime_ns,
        error_bound_ns,
    }
}

/// `CLOCK_REALTIME` in nanoseconds since 1970-01-01 00:00:00 UTC; 0 before that.
#[must_use]
pub fn realtime_ns() -> u64 {
    nanos(clock_gettime(ClockId::Realtime))
}

/// `CLOCK_MONOTONIC` in nanoseconds.
#[must_use]
pub fn monotonic_ns() -> u64 {
    nanos(clock_gettime(ClockId::Monotonic))
}

/// Nanoseconds of a clock that counts from its epoch on. 64 bits last until the year 2554.
fn nanos(time: Timespec) -> u64 {
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let nanoseconds = u64::try_from(time.tv_nsec).unwrap_or(0);
    seconds
        .saturating_mul(1_000_000_000)
        .saturating_add(nanoseconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boottime_is_not_behind_monotonic() {
        let reading = read();
        assert!(reading.boottime_ns >= reading.monotonic_ns);
        assert!(reading.realtime_ns > reading.boottime_ns);
    }

    #[test]
    fn times_before_the_epoch_are_the_epoch() {
        assert_eq!(
            nanos(Timespec {
                tv_sec: -1,
                tv_nsec: 5
            }),
            5
        );
    }
}

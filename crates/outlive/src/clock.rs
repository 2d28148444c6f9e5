//! The trace clock: nanoseconds, as cheap as the machine has them.
//!
//! Where the time stamp counter never stops, runs at one rate, and is what the kernel itself tells
//! the time by, it is read directly and scaled by a factor that is measured once, at the start. It
//! starts together with `CLOCK_MONOTONIC` and is not slewed as that is: the region's clock pairs
//! say how the two have gone on. A machine that is suspended to memory may begin the counter anew; this is
//! not noticed here.

use outlive_ring::extension::ClockPair;

/// The kernel's choice of a clock (Linux, `Documentation/timers/timekeeping.rst`).
#[cfg(target_arch = "x86_64")]
const CLOCK_SOURCE: &str = "/sys/devices/system/clocksource/clocksource0/current_clocksource";
/// How long the counter is compared with the system's clock.
#[cfg(target_arch = "x86_64")]
const COMPARED_NS: u64 = 500_000;

/// The counter is being compared with the system's clock, which takes [`COMPARED_NS`] at least: to be
/// begun before whatever else takes time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Comparison {
    /// Counter and clock at its begin, if the counter can be relied on.
    #[cfg(target_arch = "x86_64")]
    first: Option<(u64, u64)>,
}

impl Comparison {
    /// Begins.
    pub(crate) fn begin() -> Self {
        Self {
            #[cfg(target_arch = "x86_64")]
            first: tsc::is_reliable().then(tsc::reading),
        }
    }

    /// The cheapest clock that can be relied on.
    pub(crate) fn end(self) -> Clock {
        #[cfg(target_arch = "x86_64")]
        if let Some(clock) = self.first.and_then(tsc::measured_since) {
            return clock;
        }
        Clock::Monotonic
    }
}

/// A source of time stamps.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Clock {
    /// The time stamp counter.
    #[cfg(target_arch = "x86_64")]
    Tsc(tsc::Counter),
    /// `CLOCK_MONOTONIC`.
    Monotonic,
}

impl Clock {
    /// Its name in the run record.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Tsc(_) => "tsc",
            Self::Monotonic => "mono",
        }
    }

    /// The time in nanoseconds.
    pub(crate) fn now(&self) -> u64 {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Tsc(counter) => counter.now(),
            Self::Monotonic => outlive_trace::clock::monotonic_ns(),
        }
    }

    /// What tells the time without a call, if something does.
    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    pub(crate) fn quick(&self) -> Option<impl FnOnce() -> u64> {
        match self {
            Self::Tsc(counter) => Some(|| counter.now()),
            Self::Monotonic => None,
        }
    }

    /// What tells the time without a call, if something does.
    #[cfg(not(target_arch = "x86_64"))]
    #[inline(always)]
    pub(crate) fn quick(&self) -> Option<impl FnOnce() -> u64> {
        None::<fn() -> u64>
    }

    /// The time beside the system's clocks.
    pub(crate) fn pair(&self) -> ClockPair {
        let before = self.now();
        let clocks = outlive_trace::clock::read();
        let after = self.now();
        ClockPair {
            trace: before + (after - before) / 2,
            monotonic_ns: clocks.monotonic_ns,
            boottime_ns: clocks.boottime_ns,
            realtime_ns: clocks.realtime_ns,
            error_ns: clocks.error_bound_ns.max(after - before),
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code)]
mod tsc {
    use core::arch::x86_64::{__cpuid, _rdtsc};

    use outlive_trace::clock::monotonic_ns;

    use super::{CLOCK_SOURCE, COMPARED_NS, Clock};

    /// The time stamp counter, scaled: `ticks * scale / 2^32 + offset_ns`.
    #[derive(Debug, Clone, Copy)]
    pub(crate) struct Counter {
        scale: u64,
        /// Goes around: where counter and clock began is not known.
        offset_ns: u64,
    }

    impl Counter {
        /// The counter that says `ns` at `ticks`.
        fn new(ticks: u64, ns: u64, scale: u64) -> Self {
            let offset_ns = ns.wrapping_sub(scaled(ticks, scale));
            Self { scale, offset_ns }
        }

        /// The time in nanoseconds.
        #[inline(always)]
        pub(super) fn now(&self) -> u64 {
            scaled(ticks(), self.scale).wrapping_add(self.offset_ns)
        }
    }

    #[inline(always)]
    fn scaled(ticks: u64, scale: u64) -> u64 {
        ((u128::from(ticks) * u128::from(scale)) >> 32) as u64
    }

    /// The time stamp counter's ticks.
    #[inline(always)]
    fn ticks() -> u64 {
        // SAFETY: every x86-64 processor has the instruction; where the system forbids it
        // (prctl(2), PR_SET_TSC) the first reading, at the start, ends the program.
        unsafe { _rdtsc() }
    }

    /// Whether the kernel itself tells the time by the counter, and it never stops.
    pub(super) fn is_reliable() -> bool {
        let source = std::fs::read_to_string(CLOCK_SOURCE).unwrap_or_default();
        source.trim() == "tsc" && is_invariant()
    }

    /// The counter with its scale, measured since this reading.
    pub(super) fn measured_since((first_ticks, first_ns): (u64, u64)) -> Option<Clock> {
        while monotonic_ns() < first_ns + COMPARED_NS {
            std::hint::spin_loop();
        }
        let (ticks, ns) = reading();
        let passed = ticks.checked_sub(first_ticks).filter(|&ticks| ticks > 0)?;
        let scale = (u128::from(ns - first_ns) << 32) / u128::from(passed);
        let scale = u64::try_from(scale).ok()?;
        Some(Clock::Tsc(Counter::new(ticks, ns, scale)))
    }

    /// CPUID leaf 0x80000007, EDX bit 8 (Intel SDM volume 3, 19.17.1).
    fn is_invariant() -> bool {
        __cpuid(0x8000_0000).eax >= 0x8000_0007 && __cpuid(0x8000_0007).edx & 1 << 8 != 0
    }

    /// Counter and clock as close together as eight tries find them.
    pub(super) fn reading() -> (u64, u64) {
        let tries = (0..8).map(|_| {
            let before = ticks();
            let ns = monotonic_ns();
            let took = ticks().saturating_sub(before);
            (took, before + took / 2, ns)
        });
        let (_, ticks, ns) = tries.min().unwrap_or_default();
        (ticks, ns)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_goes_as_the_monotonic_one_does() {
        for clock in [Comparison::begin().end(), Clock::Monotonic] {
            let first = clock.pair();
            std::thread::sleep(std::time::Duration::from_millis(20));
            let second = clock.pair();
            let trace = second.trace - first.trace;
            let monotonic = second.monotonic_ns - first.monotonic_ns;
            let error = first.error_ns + second.error_ns + monotonic / 1000;
            assert!(
                trace.abs_diff(monotonic) <= error,
                "{clock:?} {trace} {monotonic}"
            );
            assert!(first.trace.abs_diff(first.monotonic_ns) <= 1_000_000_000);
        }
    }
}

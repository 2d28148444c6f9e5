//! Values of names in print formats, which only the running kernel knows.

use std::collections::BTreeSet;

use outlive_event::Constants;
use rustix::time::{ClockId, clock_getres};

/// Where the kernel shows its own types and those of its modules.
const BTF_DIR: &str = "/sys/kernel/btf";

/// The values of `names` as far as this kernel tells them: enum constants and sizes of types from
/// its BTF, and the timer's rate. Without them the events that need them print their fields.
pub(crate) fn constants(names: &BTreeSet<String>) -> Constants {
    if names.is_empty() {
        return Constants::default();
    }
    let mut constants = Constants::from_btf_dir(BTF_DIR, names).unwrap_or_default();
    if names.contains("HZ") {
        constants.set("HZ", timer_hz());
    }
    constants
}

/// Timer ticks per second: the coarse clock's resolution is one tick.
fn timer_hz() -> u64 {
    let tick = clock_getres(ClockId::MonotonicCoarse);
    1_000_000_000 / u64::try_from(tick.tv_nsec).unwrap_or(0).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_timers_rate_is_one_that_kernels_are_built_with() {
        let names = BTreeSet::from(["HZ".to_owned()]);
        let hz = constants(&names).get("HZ").unwrap();
        assert!([100, 250, 300, 1000].contains(&hz), "{hz}");
        assert_eq!(constants(&BTreeSet::new()).iter().count(), 0);
    }
}

//! Medians of repeated measurements.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};

/// The median, the smallest and the largest of some measurements.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Times {
    pub(crate) median: Duration,
    pub(crate) least: Duration,
    pub(crate) most: Duration,
}

impl Times {
    pub(crate) fn of(mut times: Vec<Duration>) -> Self {
        times.sort_unstable();
        let at = |i: usize| times.get(i).copied().unwrap_or_default();
        Self {
            median: at(times.len() / 2),
            least: at(0),
            most: at(times.len().saturating_sub(1)),
        }
    }

    /// How many times longer than `other`, by the medians.
    pub(crate) fn ratio(&self, other: &Self) -> f64 {
        self.median.as_secs_f64() / other.median.as_secs_f64()
    }
}

impl std::fmt::Display for Times {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let ms = |time: Duration| time.as_secs_f64() * 1e3;
        write!(
            f,
            "{:9.2} ms ({:.2} to {:.2})",
            ms(self.median),
            ms(self.least),
            ms(self.most)
        )
    }
}

/// A target behind a figure, and whether it was missed.
pub(crate) fn target(words: &str, is_met: bool) -> String {
    let missed = if is_met { "" } else { ": not met" };
    format!("  (target: {words}{missed})")
}

/// How long something takes.
pub(crate) fn time(what: impl FnOnce() -> Result<()>) -> Result<Duration> {
    let start = Instant::now();
    what()?;
    Ok(start.elapsed())
}

/// Processor time of all children that have ended and were waited for, with theirs.
pub(crate) fn children_time() -> Result<Duration> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    // The name, which may have spaces, is in parentheses; `cutime` and `cstime` are fields 16 and 17
    // (proc_pid_stat(5)).
    let behind_name = stat.rsplit_once(") ").map(|(_, fields)| fields);
    let fields = behind_name.context("/proc/self/stat has no name")?;
    let times = fields.split(' ').skip(13).take(2).map(str::parse::<u64>);
    let ticks: u64 = times.sum::<Result<_, _>>()?;
    Ok(Duration::from_secs(ticks) / rustix::param::clock_ticks_per_second() as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_that_was_missed_is_told() {
        assert_eq!(target("at least 12", true), "  (target: at least 12)");
        let missed = target("at least 12", false);
        assert_eq!(missed, "  (target: at least 12: not met)");
    }
}

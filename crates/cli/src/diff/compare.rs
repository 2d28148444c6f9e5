//! What is different, by plain rules.
//!
//! **Events.** If nothing changed, each event that either side has is on this side with the
//! probability of this side's share of the time. `z` is how many standard deviations (of that binomial
//! distribution) the count is away from what it would be then. Events come in bursts, which that
//! distribution does not know of: so a rate has *changed* only if `z` is at least 5 and the ratio of the
//! rates at least 1.5, one way or the other. An event has *stopped* or *appeared* if one side has none
//! of it though the other's rate lets expect 5.
//!
//! **Durations.** The Kolmogorov-Smirnov distance of two samples is the largest difference between the
//! shares of both that are at most some duration: 0 if they are alike, 1 if they do not overlap. A
//! distribution has *shifted* if both sides have 20 samples, the distance is more than chance gives
//! once in a thousand times (1.95 * sqrt((n + m) / (n * m))), and at least 0.1.

use super::window::Window;

/// Standard deviations from which on a rate is not the same by chance.
const DEVIATIONS: f64 = 5.0;
/// How many times the other a rate must be.
const RATIO: f64 = 1.5;
/// How many events must be expected where there is none.
const EXPECTED: f64 = 5.0;
/// Durations that a distribution must have.
const SAMPLES: usize = 20;
/// The factor of the Kolmogorov-Smirnov test for a chance of one in a thousand.
const KS_FACTOR: f64 = 1.95;
/// The least distance that matters.
const DISTANCE: f64 = 0.1;

/// What happened to an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    Stopped,
    Appeared,
    Changed,
    /// Nothing that could not be chance.
    Same,
}

impl Change {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Stopped => "stopped",
            Self::Appeared => "appeared",
            Self::Changed => "changed",
            Self::Same => "same",
        }
    }
}

/// One event on both sides.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Rate {
    pub(crate) event: String,
    pub(crate) change: Change,
    /// Records: of this side, of the other.
    pub(crate) counts: [u64; 2],
    pub(crate) per_second: [f64; 2],
    pub(crate) z: f64,
}

/// A distribution in a few numbers, in nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Quantiles {
    pub(crate) samples: usize,
    pub(crate) p50: u64,
    pub(crate) p90: u64,
    pub(crate) p99: u64,
    pub(crate) max: u64,
}

/// One kind of duration on both sides.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Shift {
    pub(crate) what: String,
    pub(crate) has_shifted: bool,
    pub(crate) distance: f64,
    /// Of this side, of the other.
    pub(crate) quantiles: [Quantiles; 2],
}

/// All that both sides have, the most different first.
#[derive(Debug)]
pub(crate) struct Comparison {
    pub(crate) rates: Vec<Rate>,
    pub(crate) shifts: Vec<Shift>,
}

impl Comparison {
    pub(crate) fn of(this: &Window, other: &Window) -> Self {
        let seconds = [this.seconds(), other.seconds()];
        let mut names: Vec<&String> = this.events.keys().chain(other.events.keys()).collect();
        names.sort_unstable();
        names.dedup();
        let count = |window: &Window, name| window.events.get(name).copied().unwrap_or(0);
        let mut rates: Vec<Rate> = names
            .into_iter()
            .map(|name| rate(name, [count(this, name), count(other, name)], seconds))
            .collect();
        rates.sort_by(|a, b| {
            let key = |rate: &Rate| (rate.change != Change::Same, rate.z.abs());
            let ((a_is, a_z), (b_is, b_z)) = (key(a), key(b));
            b_is.cmp(&a_is).then(b_z.total_cmp(&a_z))
        });
        let both = this.durations.iter().filter_map(|(what, ours)| {
            let theirs = other.durations.get(what)?;
            Some(shift(what, ours, theirs))
        });
        let mut shifts: Vec<Shift> = both.collect();
        shifts.sort_by(|a, b| {
            let by_distance = b.distance.total_cmp(&a.distance);
            b.has_shifted.cmp(&a.has_shifted).then(by_distance)
        });
        Self { rates, shifts }
    }
}

fn rate(event: &str, counts: [u64; 2], seconds: [f64; 2]) -> Rate {
    let per_second = [counts[0] as f64 / seconds[0], counts[1] as f64 / seconds[1]];
    let all = (counts[0] + counts[1]) as f64;
    let share = seconds[0] / (seconds[0] + seconds[1]);
    let z = (counts[0] as f64 - all * share) / (all * share * (1.0 - share)).sqrt();
    let change = match counts {
        [0, _] if per_second[1] * seconds[0] >= EXPECTED => Change::Stopped,
        [_, 0] if per_second[0] * seconds[1] >= EXPECTED => Change::Appeared,
        [0, _] | [_, 0] => Change::Same,
        _ => {
            let ratio = per_second[0] / per_second[1];
            match z.abs() >= DEVIATIONS && ratio.max(1.0 / ratio) >= RATIO {
                true => Change::Changed,
                false => Change::Same,
            }
        }
    };
    Rate {
        event: event.to_owned(),
        change,
        counts,
        per_second,
        z,
    }
}

fn shift(what: &str, ours: &[u64], theirs: &[u64]) -> Shift {
    let distance = distance(ours, theirs);
    let (n, m) = (ours.len() as f64, theirs.len() as f64);
    let chance = KS_FACTOR * ((n + m) / (n * m)).sqrt();
    let is_enough = ours.len().min(theirs.len()) >= SAMPLES;
    Shift {
        what: what.to_owned(),
        has_shifted: is_enough && distance > chance && distance >= DISTANCE,
        distance,
        quantiles: [quantiles(ours), quantiles(theirs)],
    }
}

/// The Kolmogorov-Smirnov distance of two samples in ascending order.
fn distance(ours: &[u64], theirs: &[u64]) -> f64 {
    let (mut i, mut j) = (0, 0);
    let mut largest: f64 = 0.0;
    while let (Some(&a), Some(&b)) = (ours.get(i), theirs.get(j)) {
        let at = a.min(b);
        i += ours[i..].partition_point(|&d| d <= at);
        j += theirs[j..].partition_point(|&d| d <= at);
        let difference = i as f64 / ours.len() as f64 - j as f64 / theirs.len() as f64;
        largest = largest.max(difference.abs());
    }
    largest
}

/// Of a sample in ascending order, which is not empty.
fn quantiles(durations: &[u64]) -> Quantiles {
    let at = |share: f64| {
        let rank = (durations.len() as f64 * share).ceil() as usize;
        durations.get(rank.max(1) - 1).copied().unwrap_or_default()
    };
    Quantiles {
        samples: durations.len(),
        p50: at(0.5),
        p90: at(0.9),
        p99: at(0.99),
        max: at(1.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_distance_is_that_between_the_steps_of_both_samples() {
        assert_eq!(distance(&[1, 2, 3, 4], &[1, 2, 3, 4]), 0.0);
        assert_eq!(distance(&[1, 2], &[3, 4]), 1.0);
        assert_eq!(distance(&[1, 2, 3, 4], &[3, 4, 5, 6]), 0.5);
        assert_eq!(distance(&[1, 1, 1, 9], &[1, 9]), 0.25);
    }

    #[test]
    fn quantiles_are_samples_that_so_many_do_not_exceed() {
        let hundred: Vec<u64> = (1..=100).collect();
        let got = quantiles(&hundred);
        assert_eq!((got.p50, got.p90, got.p99, got.max), (50, 90, 99, 100));
        assert_eq!(quantiles(&[7]).p50, 7);
    }

    #[test]
    fn a_rate_has_changed_only_beyond_chance_and_by_much() {
        let change = |counts| rate("e", counts, [1.0, 1.0]).change;
        assert_eq!(change([0, 5]), Change::Stopped);
        assert_eq!(change([0, 4]), Change::Same);
        assert_eq!(change([5, 0]), Change::Appeared);
        assert_eq!(change([200, 100]), Change::Changed);
        assert_eq!(change([20, 10]), Change::Same);
        assert_eq!(change([14_000, 10_000]), Change::Same);
        assert_eq!(rate("e", [200, 1000], [1.0, 5.0]).change, Change::Same);
    }

    #[test]
    fn few_samples_or_a_small_distance_are_no_shift() {
        let (low, high) = ([5; 20], [9; 20]);
        assert!(shift("x", &low, &high).has_shifted);
        assert!(!shift("x", &low[..19], &high).has_shifted);
        assert!(!shift("x", &low, &low).has_shifted);
    }
}

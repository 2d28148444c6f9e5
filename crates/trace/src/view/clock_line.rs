//! Times of one clock in another, by the clock pairs of a region.
//!
//! Everything that shows another clock than the trace clock converts here, so that an event has the
//! same time wherever it is seen.

use outlive_ring::extension::ClockPair;

/// A time of one clock in another: between two pairs by the line through both, so that times keep their
/// order, and outside at the distance from the nearest pair. Without pairs the time itself.
pub(super) fn convert(
    pairs: &[ClockPair],
    time: u64,
    from: impl Fn(&ClockPair) -> u64,
    to: impl Fn(&ClockPair) -> u64,
) -> u64 {
    let later = pairs.partition_point(|pair| from(pair) <= time);
    let (before, after) = (later.checked_sub(1).map(|i| &pairs[i]), pairs.get(later));
    let Some(near) = before.or(after) else {
        return time;
    };
    let since = distance(from(near), time);
    let drift = before.zip(after).map_or(0, |(before, after)| {
        let span = distance(from(before), from(after));
        let passed = distance(to(before), to(after));
        gained(passed - span, since, span)
    });
    let converted = drift.saturating_add(i128::from(to(near)) + since);
    u64::try_from(converted.max(0)).unwrap_or(u64::MAX)
}

fn distance(from: u64, to: u64) -> i128 {
    i128::from(to) - i128::from(from)
}

/// What a clock that gains `drift` in `span` has gained after the part `since` of it.
fn gained(drift: i128, since: i128, span: i128) -> i128 {
    // Pairs are what a region says: only such as go forwards make a line.
    if span <= 0 {
        return 0;
    }
    // Of clocks that are near each other this fits, and is divided faster.
    let narrow = |value| i64::try_from(value).ok();
    if let (Some(drift), Some(since), Some(span)) = (narrow(drift), narrow(since), narrow(span))
        && let Some(product) = drift.checked_mul(since)
    {
        return product.div_euclid(span).into();
    }
    let product = drift.checked_mul(since);
    product.map_or(0, |product| product.div_euclid(span))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(trace: u64, monotonic_ns: u64) -> ClockPair {
        ClockPair {
            trace,
            monotonic_ns,
            ..ClockPair::default()
        }
    }

    #[test]
    fn a_time_is_converted_between_outside_and_without_clock_pairs() {
        let pairs = [pair(1000, 5000), pair(2000, 6010)];
        let at = |time| convert(&pairs, time, |pair| pair.trace, |pair| pair.monotonic_ns);
        assert_eq!(at(1000), 5000);
        assert_eq!(at(1500), 5505);
        assert_eq!(at(2000), 6010);
        assert_eq!(at(2001), 6011);
        assert_eq!(at(900), 4900);
        let of = |pairs: &[ClockPair], time| {
            convert(pairs, time, |pair| pair.trace, |pair| pair.monotonic_ns)
        };
        assert_eq!(of(&[], 7), 7);
        assert_eq!(of(&[pair(100, 5)], 1), 0);
        let back = |time| convert(&pairs, time, |pair| pair.monotonic_ns, |pair| pair.trace);
        for time in [900, 1000, 1500, 2000, 2001] {
            assert_eq!(back(at(time)), time);
        }
        // Days between two pairs, and as much drift: more than 64 bits hold on the way.
        let far = [pair(0, 0), pair(1 << 60, 3 << 59)];
        assert_eq!(of(&far, (1 << 60) - 2), (3 << 59) - 3);
        // Whatever a region says, there is an answer.
        let wild = [pair(9, 1), pair(3, u64::MAX), pair(3, 0), pair(u64::MAX, 5)];
        for time in [0, 3, 5, 9, u64::MAX] {
            of(&wild, time);
        }
    }
}

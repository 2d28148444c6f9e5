//! The valid word that somebody probably meant.

/// Words longer than this are not compared: no name here comes near it, and the comparison costs
/// the product of both lengths.
const WORD_LEN_MAX: usize = 64;

/// The candidate nearest to `word`, if it is near enough to be a slip of the fingers: at most one
/// change in three characters (swapped neighbours count as one), four in all; words of one or two
/// differ at most in case. The first of several that are equally near.
#[must_use]
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    nearest_within(word, candidates, (word.chars().count() / 3).min(4))
}

/// [`nearest`] with at most `changes_max` changes. A word alike but for case is nearest of all.
pub(super) fn nearest_within<'a>(
    word: &str,
    candidates: impl IntoIterator<Item = &'a str>,
    changes_max: usize,
) -> Option<&'a str> {
    if word.is_empty() || word.len() > WORD_LEN_MAX {
        return None;
    }
    let lower = word.to_lowercase();
    let len = word.chars().count();
    candidates
        .into_iter()
        // Each character more or less is a change: most candidates need no closer look.
        .filter(|candidate| candidate.chars().count().abs_diff(len) <= changes_max)
        .map(|candidate| (changes(&lower, candidate), candidate))
        .filter(|(changes, _)| *changes <= changes_max)
        .min_by_key(|(changes, _)| *changes)
        .map(|(_, candidate)| candidate)
}

/// How many single changes make `candidate` out of `lower`, case aside.
fn changes(lower: &str, candidate: &str) -> usize {
    strsim::damerau_levenshtein(lower, &candidate.to_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn swapped_neighbours_are_one_change() {
        assert_eq!(
            nearest("sched_swtich", ["sched_waking", "sched_switch"]),
            Some("sched_switch")
        );
    }

    #[test]
    fn words_that_differ_much_are_not_offered() {
        assert_eq!(nearest("foo", ["sched", "irq"]), None);
        assert_eq!(nearest("x", ["a"]), None);
        assert_eq!(nearest("", ["a"]), None);
    }

    #[test]
    fn case_alone_is_the_nearest() {
        assert_eq!(nearest("SCHED", ["schedx", "sched"]), Some("sched"));
    }
}

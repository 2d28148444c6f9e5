//! Putting sub-buffers in order by what is valid.
//!
//! The kernel trusts `head_buffer` and `commit_buffer`, walks, and compares each sub-buffer only
//! with the one before, so one wrong time stamp costs all later sub-buffers. Here the longest
//! chain of sub-buffers whose times fit is kept, whatever the pointers say, and only the others
//! are rejected.

use alloc::vec::Vec;

/// A sub-buffer's time range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span {
    /// Time stamp of the sub-buffer.
    pub(crate) first: u64,
    /// Time of its last record.
    pub(crate) last: u64,
    /// Whether a seal proves the times: such a one is never rejected for the sake of others.
    pub(crate) proven: bool,
    /// Whether it is before what the pointers say is in the ring: then it is the one that goes if it
    /// overlaps the next, as the kernel has it.
    pub(crate) rewound: bool,
}

impl Span {
    fn duration(&self) -> u64 {
        self.last.saturating_sub(self.first)
    }

    /// Whether `next` begins where this one ends, or soon behind it. A proven time may be long before.
    pub(crate) fn precedes(&self, next: &Self) -> bool {
        let gap = next.first.checked_sub(self.last);
        gap.is_some_and(|gap| self.proven || gap <= self.duration().max(next.duration()))
    }
}

/// Rotates `ring` so that it begins with the oldest sub-buffer.
///
/// In a healthy ring that is the one behind the commit page, where the ring is cut when this is
/// called. If the pointer was damaged, the cut is where time descends.
pub(crate) fn rotate_to_oldest<T: Copy>(ring: &mut [T], span: impl Fn(&T) -> Span) {
    let descents: Vec<usize> = (1..ring.len())
        .filter(|&i| span(&ring[i]).first < span(&ring[i - 1]).first)
        .take(MAX_DESCENTS)
        .collect();
    if descents.is_empty() {
        return;
    }
    let kept_from = |start: usize| {
        let rotated: Vec<Span> = ring[start..]
            .iter()
            .chain(&ring[..start])
            .map(&span)
            .collect();
        let mut kept = alloc::vec![true; rotated.len()];
        longest(&rotated, &mut kept);
        kept.iter().filter(|&&kept| kept).count()
    };
    let mut best = (kept_from(0), 0);
    for &start in &descents {
        let kept = kept_from(start);
        if kept > best.0 {
            best = (kept, start);
        }
    }
    ring.rotate_left(best.1);
}

/// A ring that descends more often is damaged beyond a wrong pointer.
const MAX_DESCENTS: usize = 8;

/// Which of `spans`, given in ring order, are kept: the most that are in order of time.
///
/// Two neighbours are in order if the second does not end before the first begins. The most are
/// kept; of equally many, those that end up closest together, since a damaged time stamp is
/// seldom close to the others. Those with proven times are kept in any case.
pub(crate) fn chain(spans: &[Span]) -> Vec<bool> {
    let mut kept = alloc::vec![true; spans.len()];
    if !spans.is_sorted_by_key(|span| span.first) {
        longest(spans, &mut kept);
        keep_weakly_ordered(spans, &mut kept);
    }
    reject_overlaps(spans, &mut kept);
    for (kept, span) in kept.iter_mut().zip(spans) {
        *kept |= span.proven;
    }
    kept
}

/// A chain of sub-buffers, compared by what makes it better.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
struct Score {
    proven: u32,
    len: u32,
    /// Time of its first sub-buffer: later is closer to its end.
    start: u64,
}

/// Keeps the longest chain of non-decreasing time stamps.
fn longest(spans: &[Span], kept: &mut [bool]) {
    let mut times: Vec<u64> = spans.iter().map(|span| span.first).collect();
    times.sort_unstable();
    times.dedup();
    // For each time, the best chain that ends at or before it: a Fenwick tree of maxima.
    let mut tree: Vec<(Score, usize)> =
        alloc::vec![(Score::default(), usize::MAX); times.len() + 1];
    let mut chains: Vec<(Score, usize)> = Vec::with_capacity(spans.len());
    for (i, span) in spans.iter().enumerate() {
        let rank = times.partition_point(|&time| time <= span.first);
        let mut best = (Score::default(), usize::MAX);
        let mut at = rank;
        while at > 0 {
            best = best.max(tree[at]);
            at &= at - 1;
        }
        let (mut score, before) = best;
        score.proven += u32::from(span.proven);
        score.len += 1;
        if before == usize::MAX {
            score.start = span.first;
        }
        chains.push((score, before));
        let mut at = rank;
        while at < tree.len() {
            // An earlier sub-buffer of the same score stays.
            if score > tree[at].0 {
                tree[at] = (score, i);
            }
            at += at & at.wrapping_neg();
        }
    }
    let length_of =
        |score: &Score, last: u64| (score.proven, score.len, u64::MAX - (last - score.start));
    let end = (0..spans.len()).max_by_key(|&i| length_of(&chains[i].0, spans[i].first));
    kept.fill(false);
    let mut at = end.unwrap_or(usize::MAX);
    while let Some(&(_, before)) = chains.get(at) {
        kept[at] = true;
        at = before;
    }
}

/// Keeps also what ends after its neighbour before it begins, and begins before its neighbour behind it
/// ends: the kernel asks no more.
fn keep_weakly_ordered(spans: &[Span], kept: &mut [bool]) {
    for i in 0..spans.len() {
        let span = &spans[i];
        let before = (0..i).rev().find(|&other| kept[other]);
        let behind = (i + 1..spans.len()).find(|&other| kept[other]);
        kept[i] |= before.is_some_and(|other| span.last >= spans[other].first)
            && behind.is_some_and(|other| spans[other].last >= span.first);
    }
}

/// Of two neighbours that overlap in time, rejects the one whose own place is elsewhere: if it
/// goes, a hole is left that is long enough for it. If both or neither could go, both stay.
fn reject_overlaps(spans: &[Span], kept: &mut [bool]) {
    let order: Vec<usize> = (0..spans.len()).filter(|&i| kept[i]).collect();
    let span = |position: usize| order.get(position).map(|&i| spans[i]);
    for second in 1..order.len() {
        let (first_index, second_index) = (order[second - 1], order[second]);
        let (a, b) = (spans[first_index], spans[second_index]);
        if b.first >= a.last || !kept[first_index] {
            continue;
        }
        let before = second.checked_sub(2).and_then(span).map(|s| s.last);
        let after = span(second + 1).map(|s| s.first);
        let hole = |from: Option<u64>, to: Option<u64>| match (from, to) {
            (Some(from), Some(to)) => to.saturating_sub(from),
            // At an end of the ring nothing bounds the hole, so it proves nothing.
            _ => 0,
        };
        // One that overlaps the next but one as well says nothing about its neighbour, and a hole that
        // is there anyway, as behind the reader page, nothing about the first.
        let is_evidence =
            after.is_none_or(|after| b.last <= after) && hole(before, Some(a.first)) < a.duration();
        let first_is_elsewhere =
            !a.proven && (a.rewound || (is_evidence && hole(before, Some(b.first)) > a.duration()));
        // One that is nearly in that hole already may as well be right, and the first one's end wrong.
        let is_nearly_there = a.last - b.first < b.duration() / 16;
        let second_is_elsewhere =
            !b.proven && !a.rewound && hole(Some(a.last), after) > b.duration();
        match (first_is_elsewhere, second_is_elsewhere) {
            (true, false) => kept[first_index] = false,
            (false, true) if !is_nearly_there => kept[second_index] = false,
            _ => {}
        }
    }
}

/// Those of `spans` that are not kept where they lie in ring order and belong elsewhere: their times
/// are right and their places are wrong. They are kept, at the places that their times say.
///
/// That is so if one fits between the others in time, and either lies there, or fills the gap there, as
/// it does if two sub-buffers were exchanged, or there is no room for it where it lies. If there is, its
/// time stamp is what is wrong.
pub(crate) fn displaced(spans: &[Span], kept: &[bool]) -> Vec<usize> {
    let mut line: Vec<Span> = in_order(spans, kept);
    let mut displaced = Vec::new();
    loop {
        let is_open = |i: &usize| !kept[*i] && !displaced.contains(i);
        let belongs_elsewhere = |&i: &usize| {
            let span = &spans[i];
            let (before, behind) = gap_around(&line, span);
            let is_there = (before, behind) == around(spans, kept, i);
            fits(before, behind, span)
                && (is_there || fills(before, behind, span) || !has_room(&line, spans, kept, i))
        };
        let Some(next) = (0..spans.len()).filter(is_open).find(belongs_elsewhere) else {
            return displaced;
        };
        let place = line.partition_point(|other| other.first <= spans[next].first);
        line.insert(place, spans[next]);
        displaced.push(next);
    }
}

fn in_order(spans: &[Span], kept: &[bool]) -> Vec<Span> {
    let spans = spans.iter().zip(kept);
    spans
        .filter(|&(_, &kept)| kept)
        .map(|(span, _)| *span)
        .collect()
}

/// End of the last of `line` that begins before `span`, and begin of the first behind it.
fn gap_around(line: &[Span], span: &Span) -> (Option<u64>, Option<u64>) {
    let place = line.partition_point(|other| other.first <= span.first);
    let before = line[..place].last().map(|other| other.last);
    (before, line.get(place).map(|other| other.first))
}

fn fits(before: Option<u64>, behind: Option<u64>, span: &Span) -> bool {
    before.is_none_or(|end| end <= span.first) && behind.is_none_or(|begin| span.last <= begin)
}

/// A wrong time seldom falls into a gap of its own length.
fn fills(before: Option<u64>, behind: Option<u64>, span: &Span) -> bool {
    match (before, behind) {
        (Some(end), Some(begin)) => span.duration() >= begin.saturating_sub(end) / 2,
        _ => false,
    }
}

/// End of the last kept one before a place in ring order, and begin of the first behind it.
fn around(spans: &[Span], kept: &[bool], i: usize) -> (Option<u64>, Option<u64>) {
    let before = (0..i).rev().find(|&other| kept[other]);
    let behind = (i + 1..spans.len()).find(|&other| kept[other]);
    (
        before.map(|before| spans[before].last),
        behind.map(|behind| spans[behind].first),
    )
}

/// Whether the others leave enough time for a span where it lies in ring order. At an end of the ring
/// nothing says so.
fn has_room(line: &[Span], spans: &[Span], kept: &[bool], i: usize) -> bool {
    let (Some(begin), Some(end)) = around(spans, kept, i) else {
        return true;
    };
    let is_between = |span: &&Span| begin <= span.first && span.last <= end;
    let (mut free_from, mut longest) = (begin, 0);
    for other in line.iter().filter(is_between) {
        longest = longest.max(other.first.saturating_sub(free_from));
        free_from = free_from.max(other.last);
    }
    longest.max(end.saturating_sub(free_from)) >= spans[i].duration()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spans(times: &[(u64, u64)]) -> Vec<Span> {
        times
            .iter()
            .map(|&(first, last)| Span {
                first,
                last,
                proven: false,
                rewound: false,
            })
            .collect()
    }

    fn kept(times: &[(u64, u64)]) -> Vec<usize> {
        let kept = chain(&spans(times));
        (0..times.len()).filter(|&i| kept[i]).collect()
    }

    #[test]
    fn one_wild_time_stamp_costs_only_its_own_sub_buffer() {
        let far = 1 << 50;
        assert_eq!(
            kept(&[(1, 2), (3, 4), (far, far + 1), (5, 6), (7, 8)]),
            [0, 1, 3, 4]
        );
        assert_eq!(kept(&[(far, far + 1), (3, 4), (5, 6), (7, 8)]), [1, 2, 3]);
        assert_eq!(kept(&[(10, 20), (30, 40), (0, 10), (50, 60)]), [0, 1, 3]);
    }

    #[test]
    fn of_equally_long_chains_the_denser_one_is_kept() {
        // The second sub-buffer lost its time: 0 is farther away than 1000.
        assert_eq!(kept(&[(1000, 1010), (0, 10), (1020, 1030)]), [0, 2]);
    }

    #[test]
    fn a_sub_buffer_shown_too_early_is_rejected_where_its_own_place_is_empty() {
        // The third has the second's time; its place between 50 and 72 is empty.
        assert_eq!(kept(&[(10, 30), (30, 50), (30, 50), (72, 90)]), [0, 1, 3]);
        // A clock that went back a little: both stay.
        assert_eq!(
            kept(&[(10, 30), (30, 50), (49, 70), (70, 90)]),
            [0, 1, 2, 3]
        );
    }

    fn displaced_of(times: &[(u64, u64)]) -> Vec<usize> {
        let spans = spans(times);
        displaced(&spans, &chain(&spans))
    }

    #[test]
    fn a_sub_buffer_without_room_where_it_lies_belongs_where_its_time_says() {
        // Two exchanged: each fills the gap that the other left.
        assert_eq!(
            displaced_of(&[(0, 9), (30, 39), (20, 29), (10, 19), (40, 49)]),
            [2, 3]
        );
        // The oldest lies behind the next: between its neighbours there is no room.
        assert_eq!(displaced_of(&[(20, 29), (0, 9), (30, 39), (40, 49)]), [1]);
        // Its time stamp is what is wrong: where it lies a gap is left.
        assert_eq!(displaced_of(&[(20, 29), (0, 9), (40, 49), (50, 59)]), []);
        // It would overlap another.
        assert_eq!(
            displaced_of(&[(20, 29), (32, 41), (25, 34), (42, 49), (50, 59)]),
            []
        );
    }

    #[test]
    fn sub_buffers_that_all_have_one_time_are_all_kept() {
        let same = [(5, 9), (50, 60), (50, 65), (50, 70), (50, 75)];
        assert_eq!(kept(&same), [0, 1, 2, 3, 4]);
    }

    #[test]
    fn a_ring_is_cut_where_time_descends() {
        let mut ring = spans(&[(70, 80), (10, 20), (30, 40), (50, 60)]);
        rotate_to_oldest(&mut ring, |span| *span);
        assert_eq!(ring, spans(&[(10, 20), (30, 40), (50, 60), (70, 80)]));
    }
}

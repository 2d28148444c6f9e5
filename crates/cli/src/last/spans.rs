//! The spans that were open when the run ended.

use std::collections::{HashMap, HashSet};

use super::kept::Kept;

/// A span whose end was not recorded.
#[derive(Debug)]
pub(super) struct Span {
    pub(super) id: u64,
    /// The span that it is inside of; 0 none.
    pub(super) parent: u64,
    pub(super) begin: Kept,
    /// False if its end may have been overwritten or lost.
    pub(super) is_certain: bool,
}

/// Spans that have begun and not ended.
#[derive(Debug, Default)]
pub(super) struct Spans {
    open: HashMap<u64, Span>,
    /// Ends that came before their beginning: two buffers' clocks may differ by a little.
    ended: HashSet<u64>,
}

impl Spans {
    pub(super) fn begin(&mut self, id: u64, parent: u64, begin: Kept) {
        if self.ended.remove(&id) {
            return;
        }
        let span = Span {
            id,
            parent,
            begin,
            is_certain: true,
        };
        self.open.insert(id, span);
    }

    pub(super) fn end(&mut self, id: u64) {
        if self.open.remove(&id).is_none() {
            self.ended.insert(id);
        }
    }

    /// The open ones, oldest first. Of one that began before `since` the end may be gone.
    pub(super) fn open(self, since: u64) -> Vec<Span> {
        let mut open: Vec<Span> = self.open.into_values().collect();
        for span in &mut open {
            span.is_certain = span.begin.time >= since;
        }
        open.sort_unstable_by_key(|span| (span.begin.time, span.id));
        open
    }
}

/// The open spans that others are inside of, by id: their parents.
#[derive(Debug)]
pub(super) struct Parents(HashMap<u64, u64>);

impl Parents {
    pub(super) fn of(spans: &[Span]) -> Self {
        Self(spans.iter().map(|span| (span.id, span.parent)).collect())
    }

    /// How many of a span's ancestors are open; more than `most` are not counted.
    pub(super) fn depth(&self, span: &Span, most: usize) -> usize {
        let outer = |id: &u64| self.0.get(id).copied();
        let ancestors = std::iter::successors(Some(span.parent), outer);
        // A forged region may have a ring of parents.
        let open = ancestors.filter(|id| self.0.contains_key(id));
        open.take(most).count()
    }
}

/// Of so many spans of each thread, how many there is room for: what one does not need is the
/// others'. There is room for one of each.
pub(super) fn shares(counts: &[usize], room: usize) -> Vec<usize> {
    let mut by_count: Vec<usize> = (0..counts.len()).collect();
    by_count.sort_by_key(|&thread| counts[thread]);
    let (mut shares, mut room) = (vec![0; counts.len()], room);
    for (done, thread) in by_count.into_iter().enumerate() {
        shares[thread] = counts[thread].min(room / (counts.len() - done));
        room -= shares[thread];
    }
    shares
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(time: u64) -> Kept {
        let mut begin = Kept::default();
        begin.time = time;
        begin
    }

    #[test]
    fn spans_without_an_end_are_open_and_of_old_ones_the_end_may_be_gone() {
        let mut spans = Spans::default();
        spans.begin(1, 0, at(10));
        spans.begin(2, 1, at(20));
        spans.begin(3, 2, at(30));
        spans.end(2);
        // The clocks of two processors differ by a little.
        spans.end(4);
        spans.begin(4, 0, at(40));
        let open = spans.open(25);
        let open: Vec<_> = open.iter().map(|s| (s.id, s.is_certain)).collect();
        assert_eq!(open, [(1, false), (3, true)]);
    }

    #[test]
    fn a_ring_of_parents_in_a_forged_region_has_a_depth() {
        let mut spans = Spans::default();
        for (id, parent) in [(1, 3), (2, 1), (3, 2), (4, 4)] {
            spans.begin(id, parent, at(id));
        }
        let open = spans.open(0);
        let parents = Parents::of(&open);
        assert!(open.iter().all(|span| parents.depth(span, 8) == 8));
    }

    #[test]
    fn depth_is_the_number_of_open_ancestors() {
        let mut spans = Spans::default();
        for (id, parent) in [(1, 0), (2, 1), (3, 2), (4, 9)] {
            spans.begin(id, parent, at(id));
        }
        let open = spans.open(0);
        let parents = Parents::of(&open);
        let depths: Vec<_> = open.iter().map(|span| parents.depth(span, 8)).collect();
        assert_eq!(depths, [0, 1, 2, 0]);
        assert_eq!(parents.depth(&open[2], 1), 1);
    }

    #[test]
    fn room_that_a_thread_does_not_need_is_the_others() {
        assert_eq!(shares(&[1000], 12), [12]);
        assert_eq!(shares(&[1000, 1, 2], 12), [9, 1, 2]);
        assert_eq!(shares(&[50, 50, 1], 12), [5, 6, 1]);
        assert_eq!(shares(&[9; 12], 12), [1; 12]);
        assert_eq!(shares(&[3, 2], 12), [3, 2]);
    }
}

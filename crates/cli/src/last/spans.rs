//! The spans that were open when the run ended.

use std::collections::{HashMap, HashSet};

use outlive_trace::view::ViewEvent;

use super::kept::Kept;

/// A span whose end was not recorded.
#[derive(Debug)]
pub(super) struct Span {
    pub(super) id: u64,
    /// The span that it is inside of; 0 none.
    pub(super) parent: u64,
    /// Its beginning; if that is not there, the oldest event that names it.
    pub(super) first: Kept,
    /// Whether the beginning is there.
    pub(super) has_begin: bool,
    /// False if its end may have been overwritten or lost.
    pub(super) is_certain: bool,
}

/// Spans that have begun and not ended.
#[derive(Debug, Default)]
pub(super) struct Spans {
    open: HashMap<u64, Span>,
    /// Ends that came before their beginning: two buffers' clocks may differ by a little.
    ended: HashSet<u64>,
    /// Those that began before: an event of another buffer may still name them.
    closed: HashSet<u64>,
    /// Spans whose beginning has not come, as what names them shows.
    named: HashMap<u64, Named>,
}

/// A span that events name.
#[derive(Debug)]
struct Named {
    first: Kept,
    last_time: u64,
}

impl Spans {
    pub(super) fn begin(&mut self, id: u64, parent: u64, begin: Kept) {
        self.named.remove(&id);
        if self.ended.remove(&id) {
            return;
        }
        let span = Span {
            id,
            parent,
            first: begin,
            has_begin: true,
            is_certain: true,
        };
        self.open.insert(id, span);
    }

    pub(super) fn end(&mut self, id: u64) {
        match self.open.remove(&id) {
            Some(_) => self.closed.insert(id),
            None => self.ended.insert(id),
        };
        self.named.remove(&id);
    }

    /// An event that happened while the span was open; 0 is none.
    pub(super) fn name(&mut self, id: u64, event: &ViewEvent<'_>) {
        let is_known = id == 0
            || self.open.contains_key(&id)
            || self.closed.contains(&id)
            || self.ended.contains(&id);
        if is_known {
            return;
        }
        let named = self.named.entry(id).or_insert_with(|| Named {
            first: Kept::of(event),
            last_time: 0,
        });
        named.last_time = event.text_time_stamp;
    }

    /// The open ones, oldest first. Of one that was seen open only before `since` the end may be gone.
    pub(super) fn open(self, since: u64) -> Vec<Span> {
        let mut open: Vec<Span> = self.open.into_values().collect();
        for span in &mut open {
            span.is_certain = span.first.time >= since;
        }
        open.extend(self.named.into_iter().map(|(id, named)| Span {
            id,
            parent: 0,
            first: named.first,
            has_begin: false,
            is_certain: named.last_time >= since,
        }));
        open.sort_unstable_by_key(|span| (span.first.time, span.id));
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
    fn spans_that_are_named_and_have_no_beginning_are_open() {
        let mut spans = Spans::default();
        let named = |spans: &mut Spans, id, time| spans.name(id, &at(time).event());
        for (id, time) in [(0, 10), (1, 10), (1, 40), (2, 20), (3, 20), (6, 29)] {
            named(&mut spans, id, time);
        }
        spans.end(2);
        // Late, as the clock of another buffer has it.
        named(&mut spans, 2, 31);
        spans.begin(3, 0, at(32));
        spans.end(3);
        named(&mut spans, 3, 33);
        spans.begin(4, 1, at(34));
        named(&mut spans, 4, 35);
        let open = spans.open(30);
        let shape = |s: &Span| (s.id, s.first.time, s.has_begin, s.is_certain);
        let open: Vec<_> = open.iter().map(shape).collect();
        let wanted = [
            (1, 10, false, true),
            (6, 29, false, false),
            (4, 34, true, true),
        ];
        assert_eq!(open, wanted);
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

//! Recovering one CPU: its sub-buffers are judged, put in order, and what is missing is noted.

use alloc::vec::Vec;

use super::judge::{Judge, Judged, Role};
use super::{Hole, MetaDamage, Page, PageSource, Reason, RecoveredCpu, Recovery, Rejected};
use crate::layout::{CpuMeta, SUBBUF_DATA, SUBBUF_SIZE};
use crate::order::{self, Span};
use crate::subbuf::Missed;
use crate::{Geometry, Memory};

/// A sub-buffer's place in the order of writing.
#[derive(Debug, Clone, Copy)]
struct Item {
    subbuf: u32,
    judged: Judged,
}

impl Item {
    fn page(&self) -> Option<&Page> {
        match &self.judged {
            Judged::Good(page, _) => Some(page),
            _ => None,
        }
    }

    /// By what sub-buffers are put in order of time.
    fn time(&self) -> Option<(u64, Option<u64>)> {
        self.page().map(|page| (page.time_stamp, page.last))
    }

    fn is_empty(&self) -> bool {
        matches!(self.judged, Judged::Empty)
    }
}

fn span(page: &Page) -> Span {
    Span {
        first: page.time_stamp,
        last: page.last.unwrap_or(page.time_stamp),
        proven: page.has_proven_time,
        rewound: false,
    }
}

/// The pages before and behind a place.
fn neighbours(items: &[Item], place: usize) -> (Option<&Page>, Option<&Page>) {
    let before = items[..place].iter().rev().find_map(Item::page);
    (before, items[place..].iter().find_map(Item::page))
}

pub(super) struct CpuRecovery<'a, M> {
    region: &'a Recovery,
    memory: &'a M,
    judge: Judge<'a, M>,
    head: Option<u32>,
    commit: Option<u32>,
    result: RecoveredCpu,
}

impl<'a, M: Memory> CpuRecovery<'a, M> {
    pub(super) fn new(region: &'a Recovery, memory: &'a M, cpu: u32) -> Self {
        let geometry = &region.geometry;
        let meta = CpuMeta::load(geometry, memory, cpu);
        let (head, commit) = (
            meta.subbuf_at(geometry, meta.head_buffer),
            meta.subbuf_at(geometry, meta.commit_buffer),
        );
        Self {
            region,
            memory,
            judge: Judge::new(region, memory, cpu),
            head,
            commit,
            result: RecoveredCpu {
                cpu,
                damage: meta_damage(geometry, &meta, head, commit),
                ..RecoveredCpu::default()
            },
        }
    }

    pub(super) fn run(mut self) -> RecoveredCpu {
        let mut index = self.index();
        let mut items = match &index {
            Some(index) => self.ring_order(index),
            None => self.time_order(),
        };
        self.reject_beyond_clock(&mut items);
        if Self::is_shuffled(&items) {
            index = None;
            items.sort_by_key(Item::time);
        }
        self.reject_out_of_order(&mut items, index.as_ref().and(self.head));
        self.reject_copies(&mut items);
        self.keep(&items, index.is_some());
        self.note_odd_forms();
        self.doubt_ends_beyond_clock();
        self.doubt_overlaps();
        self.result.oldest = self
            .head
            .map(|head| self.time_stamp(head))
            .filter(|&time| time != 0);
        self.result
    }

    fn time_stamp(&self, subbuf: u32) -> u64 {
        let geometry = &self.region.geometry;
        self.memory
            .load_u64(geometry.subbuf_offset(self.result.cpu, subbuf))
    }

    /// The order of the sub-buffers; `None` if the index array is no permutation.
    ///
    /// Outlive never relinks the ring, so in its regions the array is known.
    fn index(&mut self) -> Option<Vec<u32>> {
        let geometry = &self.region.geometry;
        let n = geometry.nr_subbufs();
        let stored = |position| {
            let offset = geometry.index_offset(self.result.cpu, position);
            self.memory.load_u32(offset)
        };
        let is_known = self.region.extension.is_some();
        let mut seen = alloc::vec![false; n as usize];
        let bad = (0..n).find(|&position| match stored(position) {
            value if is_known => value != position,
            value => seen
                .get_mut(value as usize)
                .is_none_or(|seen| core::mem::replace(seen, true)),
        });
        let index = (is_known || bad.is_none()).then(|| match is_known {
            true => (0..n).collect(),
            false => (0..n).map(stored).collect(),
        });
        if let Some(position) = bad {
            let value = stored(position);
            self.result
                .damage
                .push(MetaDamage::Index { position, value });
        }
        index
    }

    /// All sub-buffers from the oldest to the newest, as the index array and the pointers say.
    fn ring_order(&mut self, index: &[u32]) -> Vec<Item> {
        let (reader, ring) = (index[0], &index[1..]);
        let place_of = |subbuf: Option<u32>| ring.iter().position(|&i| Some(i) == subbuf);
        let newest = place_of(self.commit).map(|place| (place + 1) % ring.len());
        let oldest = newest.or(place_of(self.head)).unwrap_or(0);
        let mut may_be_begun = newest.is_some();
        let mut items = Vec::with_capacity(index.len());
        for &subbuf in ring[oldest..].iter().chain(&ring[..oldest]) {
            let item = self.judge(subbuf, may_be_begun);
            // While an event is open, the writer may have begun more than one.
            may_be_begun &= item.is_empty();
            items.push(item);
        }
        rotate(&mut items);
        let reader = self.judge(reader, false);
        items.insert(self.place_of_reader(&items, &reader), reader);
        items
    }

    /// Where in the ring the reader page belongs: the kernel takes it from before the head, and the
    /// writer may still be on it. The first of the places where its time fits.
    fn place_of_reader(&self, ring: &[Item], reader: &Item) -> usize {
        // Nothing was ever read, or nothing is left to say where it was.
        if reader.is_empty() {
            return 0;
        }
        let is_good = |item: &Item| item.page().is_some();
        let before_head = self
            .head
            .and_then(|head| ring.iter().position(|item| item.subbuf == head));
        let places = [
            (self.commit == Some(reader.subbuf)).then_some(ring.len()),
            before_head,
            Some(ring.iter().position(is_good).unwrap_or(0)),
            // Only if nothing says that another one is the newest.
            (self.commit.is_none() || self.head.is_some_and(|head| self.time_stamp(head) == 0))
                .then_some(ring.len()),
        ];
        let fits = |&place: &usize| {
            let (before, behind) = neighbours(ring, place);
            reader.page().is_none_or(|page| {
                before.is_none_or(|before| before.time_stamp <= page.time_stamp)
                    && behind.is_none_or(|behind| page.time_stamp <= behind.time_stamp)
            })
        };
        let mut places = places.into_iter().flatten();
        let first = places.clone().next().unwrap_or(0);
        places.find(fits).unwrap_or(first)
    }

    /// All sub-buffers by time, where the index array is of no use.
    fn time_order(&mut self) -> Vec<Item> {
        let mut items: Vec<Item> = (0..self.region.geometry.nr_subbufs())
            .map(|subbuf| self.judge(subbuf, false))
            .collect();
        items.sort_by_key(Item::time);
        items
    }

    fn judge(&mut self, subbuf: u32, may_be_begun: bool) -> Item {
        let role = match may_be_begun {
            _ if self.commit == Some(subbuf) => Role::Commit,
            true => Role::Next,
            false => Role::Other,
        };
        Item {
            subbuf,
            judged: self.judge.judge(subbuf, role),
        }
    }

    /// Rejects times that the trace clock does not reach, unless most are there: then the clock is
    /// another than the scratch area says.
    fn reject_beyond_clock(&self, items: &mut [Item]) {
        let end = self.region.clock_end();
        let good = items.iter().filter_map(Item::page).count();
        let is_beyond = |page: &Page| page.time_stamp >= end && !page.has_proven_time;
        let beyond = items.iter().filter_map(Item::page).filter(|p| is_beyond(p));
        if beyond.count() * 2 > good {
            return;
        }
        for item in items {
            if let Some(page) = item.page().filter(|page| is_beyond(page)) {
                item.judged = Judged::Bad(Reason::TimeBeyondClock(page.time_stamp));
            }
        }
    }

    /// Turns good sub-buffers whose times do not fit into bad ones, or moves them to where they fit.
    /// What is before `head` goes if it overlaps what is behind, as the kernel has it.
    fn reject_out_of_order(&self, items: &mut Vec<Item>, head: Option<u32>) {
        let kept_from = items
            .iter()
            .position(|item| Some(item.subbuf) == head)
            .unwrap_or(0);
        let good: Vec<usize> = (0..items.len())
            .filter(|&i| items[i].page().is_some())
            .collect();
        let spans: Vec<Span> = good
            .iter()
            .filter_map(|&i| {
                Some(Span {
                    rewound: i < kept_from,
                    ..span(items[i].page()?)
                })
            })
            .collect();
        let kept = order::chain(&spans);
        let displaced = order::displaced(&spans, &kept);
        let mut moved = Vec::new();
        for (place, &i) in good.iter().enumerate().rev() {
            if kept[place] {
                continue;
            }
            if displaced.contains(&place) {
                moved.push(items.remove(i));
            } else {
                items[i].judged = Judged::Bad(Reason::TimeOutOfOrder);
            }
        }
        for item in moved {
            let place = items.iter().position(|other| comes_before(&item, other));
            items.insert(place.unwrap_or(items.len()), item);
        }
    }

    /// Whether the index array is of no use though it is a permutation: it tears most sub-buffers
    /// from their places in time.
    fn is_shuffled(items: &[Item]) -> bool {
        let spans: Vec<Span> = items.iter().filter_map(Item::page).map(span).collect();
        let kept = order::chain(&spans);
        kept.iter().filter(|&&kept| kept).count() * 2 < spans.len()
    }

    /// Rejects sub-buffers that hold what another one holds, or the beginning of it.
    fn reject_copies(&self, items: &mut [Item]) {
        let mut pages: Vec<(usize, Page)> = items
            .iter()
            .enumerate()
            .filter_map(|(i, item)| Some((i, *item.page()?)))
            .collect();
        // Of copies the longest comes first, and of those of one length the older.
        pages.sort_by_key(|(i, page)| (page.time_stamp, u32::MAX - page.size, *i));
        let mut of = 0;
        for copy in 1..pages.len() {
            let ((_, page), (i, copied)) = (&pages[of], &pages[copy]);
            let is_copy = page.time_stamp == copied.time_stamp
                && !copied.has_proven_time
                && self.contents(page).starts_with(&self.contents(copied));
            match is_copy {
                true => items[*i].judged = Judged::Bad(Reason::Copy { of: page.subbuf }),
                false => of = copy,
            }
        }
    }

    fn contents(&self, page: &Page) -> Vec<u8> {
        let mut buffer = [0; SUBBUF_DATA];
        page.read(
            &self.region.geometry,
            self.memory,
            self.result.cpu,
            &mut buffer,
        )
        .to_vec()
    }

    /// Puts what is kept into the result, and notes the gaps. `in_ring_order` says whether a bad
    /// sub-buffer's place among the others is known.
    fn keep(&mut self, items: &[Item], in_ring_order: bool) {
        let is_good = |item: &Item| item.page().is_some();
        let first = items.iter().position(is_good).unwrap_or(items.len());
        let last = items.iter().rposition(is_good).unwrap_or(0);
        let mut gap = false;
        let mut after: Option<Page> = None;
        for (i, item) in items.iter().enumerate() {
            match item.judged {
                Judged::Empty => {
                    if in_ring_order && first < i && i < last {
                        self.reject(item.subbuf, Reason::Emptied);
                        gap = true;
                    }
                }
                Judged::Bad(reason) => {
                    self.reject(item.subbuf, reason);
                    gap |= in_ring_order;
                }
                Judged::Good(mut page, cut) => {
                    if gap {
                        // What was rejected is gone too, beside what the page says was lost.
                        page.missed = Some(
                            page.missed
                                .map_or(Missed::Unknown, |m| m.and(Missed::Unknown)),
                        );
                    }
                    self.note_hole(after.as_ref(), Some(&page), page.missed);
                    let cut = cut.or_else(|| short(&page, &items[i + 1..]));
                    gap = cut.is_some();
                    if let Some(reason) = cut {
                        self.reject(item.subbuf, reason);
                    }
                    self.result.entries += u64::from(page.entries);
                    self.result.bytes += u64::from(page.size);
                    self.result.pages.push(page);
                    after = Some(page);
                }
            }
        }
        if gap {
            self.note_hole(after.as_ref(), None, Some(Missed::Unknown));
        }
    }

    /// Says which sub-buffers have records in a form of their own.
    fn note_odd_forms(&mut self) {
        let odd = self.result.pages.iter().filter(|page| page.is_doubtful);
        let odd = odd.map(|page| Rejected {
            subbuf: page.subbuf,
            reason: Reason::OddForm,
        });
        self.result.rejected.extend(odd);
    }

    /// Marks what begins within the trace clock and ends beyond it: a time in it is wrong.
    fn doubt_ends_beyond_clock(&mut self) {
        let end = self.region.clock_end();
        let ends_beyond = |page: &Page| {
            let last = page.last.filter(|&last| last >= end);
            last.filter(|_| page.time_stamp < end && page.source == PageSource::Unsealed)
        };
        for page in &mut self.result.pages {
            if let Some(last) = ends_beyond(page) {
                page.is_doubtful = true;
                self.result.rejected.push(Rejected {
                    subbuf: page.subbuf,
                    reason: Reason::EndsBeyondClock(last),
                });
            }
        }
    }

    /// Marks each two neighbours of which the second begins before the first ends.
    fn doubt_overlaps(&mut self) {
        for second in 1..self.result.pages.len() {
            let [first, next] = [second - 1, second].map(|at| self.result.pages[at]);
            if (first.has_proven_time && next.has_proven_time)
                || first.last(&self.region.geometry, self.memory, self.result.cpu)
                    <= next.time_stamp
            {
                continue;
            }
            for at in [second - 1, second] {
                let page = &mut self.result.pages[at];
                page.is_doubtful = !page.has_proven_time;
            }
            let next = next.subbuf;
            self.reject(first.subbuf, Reason::Overlap { next });
        }
    }

    fn reject(&mut self, subbuf: u32, reason: Reason) {
        self.result.rejected.push(Rejected { subbuf, reason });
    }

    fn note_hole(&mut self, after: Option<&Page>, before: Option<&Page>, missed: Option<Missed>) {
        let Some(missed) = missed else { return };
        let geometry = &self.region.geometry;
        self.result.holes.push(Hole {
            after: after.map(|page| page.last(geometry, self.memory, self.result.cpu)),
            before: before.map(|page| page.time_stamp),
            missed,
        });
    }
}

fn meta_damage(
    geometry: &Geometry,
    meta: &CpuMeta,
    head: Option<u32>,
    commit: Option<u32>,
) -> Vec<MetaDamage> {
    let mut damage = Vec::new();
    if meta.subbuf_size != SUBBUF_SIZE as u32 {
        damage.push(MetaDamage::SubbufSize(meta.subbuf_size));
    }
    if meta.nr_subbufs != geometry.nr_subbufs() {
        damage.push(MetaDamage::NrSubbufs(meta.nr_subbufs));
    }
    // A CPU that never came up has no head: that is no damage.
    let never_used = meta.head_buffer == 0 && meta.commit_buffer == 0;
    if head.is_none() && !never_used {
        damage.push(MetaDamage::Head(meta.head_buffer));
    }
    if commit.is_none() && !never_used {
        damage.push(MetaDamage::Commit(meta.commit_buffer));
    }
    damage
}

/// Cuts the ring elsewhere if time says so: the commit pointer may be wrong.
fn rotate(items: &mut [Item]) {
    let mut good: Vec<(usize, Span)> = items
        .iter()
        .enumerate()
        .filter_map(|(i, item)| Some((i, span(item.page()?))))
        .collect();
    let (Some(&(oldest, _)), Some(&(newest, _))) = (good.first(), good.last()) else {
        return;
    };
    order::rotate_to_oldest(&mut good, |&(_, span)| span);
    let &[(first, first_span), ..] = &good[..] else {
        return;
    };
    // The newest may be of the last lap, if a crash hit the step from one to the next; or its time
    // stamp is wrong.
    let is_of_last_lap = || {
        good.get(1)
            .is_some_and(|&(_, next)| first_span.precedes(&next))
    };
    if first != oldest && (first != newest || is_of_last_lap()) {
        items.rotate_left(first);
    }
}

fn comes_before(item: &Item, other: &Item) -> bool {
    match (item.page(), other.page()) {
        (Some(page), Some(other)) => page.time_stamp < other.time_stamp,
        _ => false,
    }
}

/// Says so if a page ends before its end, and the next one does not say why: a writer fills a
/// sub-buffer before it goes on.
fn short(page: &Page, behind: &[Item]) -> Option<Reason> {
    let is_short = page.source == PageSource::Unsealed && (page.size as usize) < SUBBUF_DATA - 8;
    let next = behind.iter().find_map(Item::page)?;
    (is_short && next.missed.is_none()).then_some(Reason::Short { kept: page.size })
}

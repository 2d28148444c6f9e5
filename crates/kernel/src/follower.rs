//! Following one CPU's ring through its mapping, without consuming.
//!
//! # What the kernel does with a sub-buffer
//!
//! The tail moves onto it: commit becomes 0, the time stamp stays that of the previous lap. The
//! first record is written, then the time stamp. The outermost writer commits: the commit words of
//! all sub-buffers up to the tail are set in ring order. So, for a sub-buffer `X` and the one after:
//!
//! - a commit other than 0 means that the time stamp beside it is final for this lap;
//! - once the next sub-buffer has a commit and a time stamp of this lap, the commit of `X` is final.
//!   Until then it may stand still while nested writers fill several sub-buffers behind it;
//! - a changed time stamp, or fewer bytes than were there before, means that the kernel lapped us.
//!
//! # Laps
//!
//! After a lap we go on at the head, the oldest sub-buffer that there is. `stats` gives the head's
//! time stamp and, as `overrun`, exactly how many events were written before it: those that we did
//! not deliver are lost. Two readings that agree make sure that the head stood still. When the
//! kernel is too fast for that, we go on half a ring behind the newest sub-buffer, and the number of
//! lost events follows as soon as the head has come to what we delivered.

use std::fs::File;

use crate::cpus::CpuId;
use crate::error::Error;
use crate::mapped::MappedRing;
use crate::sink::{Appended, SubbufSink};
use crate::stats::{CpuStats, StatsFile};
use crate::subbuf::{DATA_BYTES, Records, SubbufHeader, SubbufId};

/// How often a poll looks for the head before it goes on without knowing what was lost.
const HEAD_TRIES: u32 = 4;

/// Follows one CPU's ring.
#[derive(Debug)]
pub struct CpuFollower {
    cpu: CpuId,
    raw: File,
    stats: StatsFile,
    ring: MappedRing,
    position: Option<Position>,
    marks: Box<[Mark]>,
    /// Marks of an earlier generation say nothing: pages between were not looked at.
    generation: u64,
    count: EventCount,
    /// The time stamp from which on we followed without a gap, while the number of events lost
    /// before is not known yet.
    unsettled_until: Option<u64>,
    /// Somebody else consumed or cleared: the kernel's counters no longer fit ours.
    is_disturbed: bool,
    last_overrun: u64,
    last_read_events: u64,
    buf: Box<[u8; DATA_BYTES]>,
}

/// How many events a CPU's buffer had, as far as they were followed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EventCount {
    /// Events handed to the sink.
    pub delivered: u64,
    /// Events known to be overwritten before they could be copied.
    pub lost: u64,
}

/// What one poll did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Data bytes handed to the sink.
    pub bytes: u64,
    /// Events handed to the sink.
    pub events: u64,
    /// Sub-buffers finished.
    pub subbufs: u64,
    /// How often the kernel had lapped us.
    pub laps: u64,
    /// Whether nothing was left when the poll ended.
    pub is_caught_up: bool,
}

/// Where we are in the ring.
#[derive(Clone, Copy, Debug)]
struct Position {
    id: SubbufId,
    time_stamp: u64,
    /// Data bytes delivered.
    offset: usize,
    /// Whether the sink knows of this sub-buffer.
    is_begun: bool,
}

/// What we saw when we came to a sub-buffer.
#[derive(Clone, Copy, Debug, Default)]
struct Mark {
    generation: u64,
    time_stamp: u64,
    delivered_before: u64,
}

/// The head page at a moment when it stood still.
struct Head {
    id: SubbufId,
    time_stamp: u64,
    /// Events written before it.
    overrun: u64,
}

/// A follower without its ring, which another process has mapped or consumes from.
#[derive(Debug)]
pub struct Unmapped {
    cpu: CpuId,
    raw: File,
    stats: StatsFile,
    position: Option<Position>,
    count: EventCount,
    /// Whether the number of lost events can no longer be known.
    is_disturbed: bool,
}

impl Unmapped {
    /// The CPU.
    #[must_use]
    pub fn cpu(&self) -> CpuId {
        self.cpu
    }

    /// What was delivered and lost so far.
    #[must_use]
    pub fn count(&self) -> EventCount {
        self.count
    }

    /// Maps the ring again, and goes on where the follower was if the sub-buffer is still there.
    ///
    /// # Errors
    /// As [`CpuFollower::new`], with what there is for another try.
    pub fn map(self) -> Result<CpuFollower, Box<(Self, Error)>> {
        let (ring, read_before) = match self.map_in_order() {
            Ok(opened) => opened,
            Err(error) => return Err(Box::new((self, error))),
        };
        let marks = vec![Mark::default(); ring.nr_subbufs() as usize].into();
        let mut follower = CpuFollower {
            cpu: self.cpu,
            raw: self.raw,
            stats: self.stats,
            ring,
            position: None,
            marks,
            generation: 1,
            count: self.count,
            unsettled_until: None,
            is_disturbed: self.is_disturbed || read_before != 0,
            last_overrun: 0,
            last_read_events: read_before,
            buf: Box::new([0; DATA_BYTES]),
        };
        if let Some(at) = self.position {
            let found = follower.find(|time_stamp| time_stamp == at.time_stamp);
            let id = found.unwrap_or(SubbufId(u32::MAX));
            follower.position = Some(Position { id, ..at });
        }
        Ok(follower)
    }

    /// The ring with its sub-buffers in order, and how many events were consumed from it before.
    fn map_in_order(&self) -> Result<(MappedRing, u64), Error> {
        let before = self.stats.read()?;
        let ring = map_in_order(self.cpu, &self.raw)?;
        let after = self.stats.read()?;
        let (written, read) = ring.first_mapped_at();
        let is_first = (before.written()..=after.written()).contains(&written)
            && (before.read_events..=after.read_events).contains(&read);
        // Nobody else can have had the ring of an instance that was just made.
        if self.is_disturbed && !is_first {
            return Err(Error::Disturbed { cpu: self.cpu.0 });
        }
        Ok((ring, after.read_events))
    }
}

enum Step {
    Idle,
    Advanced,
    Lapped,
}

impl CpuFollower {
    /// Maps a CPU's ring and begins at its oldest event.
    ///
    /// # Errors
    /// The kernel refuses the mapping ([`Error::MapRefused`]), or somebody else has it mapped and
    /// consumed from it ([`Error::Disturbed`]).
    pub fn new(cpu: CpuId, raw: File, stats: StatsFile) -> Result<Self, Error> {
        let unmapped = Unmapped {
            cpu,
            raw,
            stats,
            position: None,
            count: EventCount::default(),
            is_disturbed: false,
        };
        unmapped.map().map_err(|failed| failed.1)
    }

    /// Gives the mapping up after [`Error::Disturbed`], to map the ring anew: only the first
    /// mapping of a ring numbers its sub-buffers in order.
    #[must_use]
    pub fn unmap(self) -> Unmapped {
        Unmapped {
            cpu: self.cpu,
            raw: self.raw,
            stats: self.stats,
            position: self.position,
            count: self.count,
            is_disturbed: true,
        }
    }

    /// The CPU.
    #[must_use]
    pub fn cpu(&self) -> CpuId {
        self.cpu
    }

    /// What was delivered and lost so far.
    #[must_use]
    pub fn count(&self) -> EventCount {
        self.count
    }

    /// Bytes that the ring holds when it is full.
    #[must_use]
    pub fn ring_bytes(&self) -> u64 {
        (u64::from(self.ring.nr_subbufs()) - 1) * DATA_BYTES as u64
    }

    /// Delivers what is new, at most one ring's worth.
    ///
    /// No system call and no allocation, unless the kernel has lapped us.
    ///
    /// # Errors
    /// [`Error::Disturbed`]: call [`CpuFollower::unmap`]. Or `stats` cannot be read.
    pub fn poll(&mut self, sink: &mut impl SubbufSink) -> Result<Progress, Error> {
        let mut progress = Progress::default();
        for _ in 0..self.ring.nr_subbufs() {
            match self.step(sink, &mut progress) {
                Step::Advanced => {}
                Step::Lapped => {
                    progress.laps += 1;
                    self.resynchronise(progress.laps, sink)?;
                }
                Step::Idle => {
                    progress.is_caught_up = true;
                    break;
                }
            }
        }
        self.settle(sink)?;
        Ok(progress)
    }

    /// Looks whether somebody else consumed from the instance or cleared it: for once in a while.
    ///
    /// # Errors
    /// [`Error::Disturbed`] if so, or `stats` cannot be read.
    pub fn check(&mut self) -> Result<(), Error> {
        let stats = self.stats.read()?;
        self.check_stats(&stats)
    }

    /// Delivers the rest and settles the count, when the kernel no longer writes to the instance.
    /// `None` if somebody else took part in it, so that the kernel's counters say nothing.
    ///
    /// # Errors
    /// As [`CpuFollower::poll`].
    pub fn finish(&mut self, sink: &mut impl SubbufSink) -> Result<Option<EventCount>, Error> {
        for _ in 0..HEAD_TRIES {
            if self.poll(sink)?.is_caught_up {
                break;
            }
        }
        self.close(sink);
        let written = self.stats.read()?.written();
        if self.is_disturbed {
            return Ok(None);
        }
        let lost = written.saturating_sub(self.count.delivered);
        let more = lost.saturating_sub(self.count.lost);
        if more != 0 {
            sink.settled(self.cpu, more);
        }
        (self.count.lost, self.unsettled_until) = (lost, None);
        Ok(Some(self.count))
    }

    /// Delivers what is new of the current sub-buffer, and goes to the next if there is one.
    fn step(&mut self, sink: &mut impl SubbufSink, progress: &mut Progress) -> Step {
        let Some(at) = self.position else {
            return if self.has_data() {
                Step::Lapped
            } else {
                Step::Idle
            };
        };
        let Some(next) = self.next_id(at.id) else {
            return Step::Lapped;
        };
        // The next sub-buffer first: if it has begun, what this one holds is all of it.
        let next_header = self
            .ring
            .header(next)
            .filter(|header| self.is_of_this_lap(next, header, at));
        if next_header.is_some() {
            self.ring.prefetch(next);
        }
        let Some(size) = self.size_at(at) else {
            return Step::Lapped;
        };
        if size > at.offset && !self.deliver(at, size, sink, progress) {
            return Step::Lapped;
        }
        let Some(next_header) = next_header else {
            return Step::Idle;
        };
        self.close(sink);
        progress.subbufs += 1;
        self.go_to(next, next_header.time_stamp);
        Step::Advanced
    }

    /// The size of the sub-buffer that we are at; `None` if the kernel has taken it again.
    fn size_at(&self, at: Position) -> Option<usize> {
        let header = self.ring.header(at.id)?;
        (header.time_stamp == at.time_stamp && header.size >= at.offset).then_some(header.size)
    }

    /// Copies the bytes up to `size`, and hands them on if the copy is whole.
    fn deliver(
        &mut self,
        at: Position,
        size: usize,
        sink: &mut impl SubbufSink,
        progress: &mut Progress,
    ) -> bool {
        if !self
            .ring
            .read_data(at.id, at.time_stamp, (at.offset, size), &mut self.buf)
        {
            return false;
        }
        let bytes = &self.buf[at.offset..size];
        if !at.is_begun {
            sink.begin(self.cpu, at.time_stamp);
        }
        let events = match sink.append_counted(self.cpu, bytes) {
            Appended::Counted(events) => events,
            Appended::Uncounted => Records::count(bytes).events,
            Appended::Refused => {
                // The rest of this sub-buffer is refused as well.
                self.unsettled_until = (!self.is_disturbed).then_some(at.time_stamp + 1);
                0
            }
        };
        progress.bytes += bytes.len() as u64;
        progress.events += events;
        self.count.delivered += events;
        self.position = Some(Position {
            offset: size,
            is_begun: true,
            ..at
        });
        true
    }

    /// Whether a sub-buffer holds committed events newer than the position. One that we came
    /// through before must have another time stamp than then, so that a clock that went back does
    /// not matter; of others the time stamps are compared.
    fn is_of_this_lap(&self, id: SubbufId, header: &SubbufHeader, at: Position) -> bool {
        let mark = &self.marks[id.0 as usize];
        header.size != 0
            && if mark.generation == self.generation {
                header.time_stamp != mark.time_stamp
            } else {
                header.time_stamp > at.time_stamp
            }
    }

    fn go_to(&mut self, id: SubbufId, time_stamp: u64) {
        let (generation, delivered_before) = (self.generation, self.count.delivered);
        self.marks[id.0 as usize] = Mark {
            generation,
            time_stamp,
            delivered_before,
        };
        self.position = Some(Position {
            id,
            time_stamp,
            offset: 0,
            is_begun: false,
        });
    }

    /// Ends the open sub-buffer.
    fn close(&mut self, sink: &mut impl SubbufSink) {
        if let Some(at) = &mut self.position
            && at.is_begun
        {
            at.is_begun = false;
            sink.end(self.cpu);
        }
    }

    /// The sub-buffer after `id` in the ring, which is all but the reader page.
    fn next_id(&self, id: SubbufId) -> Option<SubbufId> {
        let nr_subbufs = self.ring.nr_subbufs();
        match id.0.checked_add(1)? {
            next if next < nr_subbufs => Some(SubbufId(next)),
            next if next == nr_subbufs => Some(SubbufId(1)),
            _ => None,
        }
    }

    fn has_data(&self) -> bool {
        [0, 1]
            .iter()
            .any(|&id| self.ring.header(SubbufId(id)).is_some_and(|h| h.size != 0))
    }

    /// Goes on at the head and counts what was lost; after too many tries, without the number.
    fn resynchronise(&mut self, lap: u64, sink: &mut impl SubbufSink) -> Result<(), Error> {
        self.close(sink);
        self.generation += 1;
        if lap <= u64::from(HEAD_TRIES) {
            for _ in 0..HEAD_TRIES {
                if let Some(head) = self.head()?
                    && self.go_to_head(&head, sink)
                {
                    return Ok(());
                }
            }
        }
        self.go_to_middle(sink);
        Ok(())
    }

    /// Finds the head page and how many events were written before it.
    fn head(&mut self) -> Result<Option<Head>, Error> {
        let stats = self.stats.read()?;
        self.check_stats(&stats)?;
        let again = self.stats.read()?;
        let overrun = stats.overrun;
        if (again.overrun, again.oldest_event_ts) != (overrun, stats.oldest_event_ts) {
            return Ok(None);
        }
        let Some(id) = self.find(|time_stamp| stats.oldest_event_ts.is_of(time_stamp)) else {
            return Ok(None);
        };
        let header = self
            .ring
            .header(id)
            .filter(|h| stats.oldest_event_ts.is_of(h.time_stamp));
        Ok(header.map(|header| Head {
            id,
            time_stamp: header.time_stamp,
            overrun,
        }))
    }

    /// The oldest sub-buffer with events among those whose time stamp passes `test`.
    fn find(&self, test: impl Fn(u64) -> bool) -> Option<SubbufId> {
        let headers = self.headers().filter(|(_, header)| test(header.time_stamp));
        headers
            .min_by_key(|(_, header)| header.time_stamp)
            .map(|(id, _)| id)
    }

    /// All sub-buffers with events.
    fn headers(&self) -> impl Iterator<Item = (SubbufId, SubbufHeader)> {
        let headers = (0..self.ring.nr_subbufs())
            .filter_map(|id| Some((SubbufId(id), self.ring.header(SubbufId(id))?)));
        headers.filter(|(_, header)| header.size != 0)
    }

    /// Goes to the head. `false` if the counters do not fit, because the head moved after all.
    fn go_to_head(&mut self, head: &Head, sink: &mut impl SubbufSink) -> bool {
        if self.is_disturbed {
            if self.position.is_some() {
                sink.lost(self.cpu, None);
            }
        } else {
            let lost = head.overrun.checked_sub(self.count.delivered);
            let Some(more) = lost.and_then(|lost| lost.checked_sub(self.count.lost)) else {
                return false;
            };
            self.report_loss(more, sink);
        }
        self.go_to(head.id, head.time_stamp);
        true
    }

    fn report_loss(&mut self, events: u64, sink: &mut impl SubbufSink) {
        self.count.lost += events;
        if self.unsettled_until.take().is_some() {
            // An earlier loss is in this number too, and how much of it nobody knows.
            sink.lost(self.cpu, None);
            sink.settled(self.cpu, events);
        } else if events != 0 {
            sink.lost(self.cpu, Some(events));
        }
    }

    /// Goes half a ring behind the newest sub-buffer.
    fn go_to_middle(&mut self, sink: &mut impl SubbufSink) {
        let Some((newest, newest_header)) = self.headers().max_by_key(|(_, h)| h.time_stamp) else {
            self.position = None;
            return;
        };
        let ring = self.ring.nr_subbufs() - 1;
        let back = (newest.0 + ring - ring / 2 - 1) % ring + 1;
        let middle = self.ring.header(SubbufId(back));
        let older = middle.filter(|h| h.size != 0 && h.time_stamp < newest_header.time_stamp);
        let (id, header) = older.map_or((newest, newest_header), |h| (SubbufId(back), h));
        sink.lost(self.cpu, None);
        self.unsettled_until = (!self.is_disturbed).then_some(header.time_stamp);
        self.go_to(id, header.time_stamp);
    }

    /// Counts a loss whose number was unknown, once the head is a sub-buffer that we came to.
    fn settle(&mut self, sink: &mut impl SubbufSink) -> Result<(), Error> {
        let Some(until) = self.unsettled_until else {
            return Ok(());
        };
        if self.stats.read()?.oldest_event_ts.is_before(until) {
            return Ok(());
        }
        let Some(head) = self.head()?.filter(|head| head.time_stamp >= until) else {
            return Ok(());
        };
        let mark = self.marks[head.id.0 as usize];
        if mark.generation != self.generation || mark.time_stamp != head.time_stamp {
            return Ok(());
        }
        let lost = head.overrun.checked_sub(mark.delivered_before);
        if let Some(more) = lost.and_then(|lost| lost.checked_sub(self.count.lost)) {
            self.count.lost += more;
            self.unsettled_until = None;
            sink.settled(self.cpu, more);
        }
        Ok(())
    }

    /// The kernel's counters only grow, unless somebody consumes events or clears the buffer.
    fn check_stats(&mut self, stats: &CpuStats) -> Result<(), Error> {
        let is_cleared =
            stats.overrun < self.last_overrun || stats.written() < self.count.delivered;
        let is_consumed = stats.read_events != self.last_read_events;
        if is_consumed || (is_cleared && !self.is_disturbed) {
            return Err(Error::Disturbed { cpu: self.cpu.0 });
        }
        self.last_overrun = stats.overrun;
        Ok(())
    }
}

/// Maps a ring whose ids are in ring order behind the reader page, which is 0.
fn map_in_order(cpu: CpuId, raw: &File) -> Result<MappedRing, Error> {
    let ring = MappedRing::map(cpu, raw)?;
    if ring.reader().id != SubbufId(0) {
        return Err(Error::Disturbed { cpu: cpu.0 });
    }
    Ok(ring)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collect::Collected;
    use crate::simulated::{EVENT_BYTES, SimulatedRing};

    const PER_PAGE: u64 = (DATA_BYTES / EVENT_BYTES) as u64;

    fn follow(ring: &SimulatedRing) -> CpuFollower {
        let stats = StatsFile::open(ring.stats_path()).unwrap();
        CpuFollower::new(CpuId(0), ring.file().try_clone().unwrap(), stats).unwrap()
    }

    #[test]
    fn open_sub_buffer_is_delivered_as_it_grows() {
        let mut ring = SimulatedRing::new(5);
        let (mut follower, mut sink) = (follow(&ring), Collected::default());
        assert!(follower.poll(&mut sink).unwrap().is_caught_up);
        for time in 1..=3 {
            ring.event(time);
            assert_eq!(follower.poll(&mut sink).unwrap().events, 1);
        }
        assert_eq!(sink.open(CpuId(0)).unwrap().1.len(), 3 * EVENT_BYTES);
        assert_eq!(
            follower.poll(&mut sink).unwrap(),
            Progress {
                is_caught_up: true,
                ..Progress::default()
            }
        );
    }

    #[test]
    fn all_sub_buffers_come_in_order_without_laps() {
        let mut ring = SimulatedRing::new(6);
        let (mut follower, mut sink) = (follow(&ring), Collected::default());
        for _ in 0..20 {
            ring.fill(3);
            follower.poll(&mut sink).unwrap();
        }
        let count = follower.finish(&mut sink).unwrap().unwrap();
        assert_eq!(
            count,
            EventCount {
                delivered: ring.written(),
                lost: 0
            }
        );
        assert_eq!(sink.pages(CpuId(0)).len(), 60);
        assert!(
            sink.pages(CpuId(0))
                .windows(2)
                .all(|pair| pair[0].0 < pair[1].0)
        );
    }

    #[test]
    fn time_stamp_of_the_previous_lap_is_not_taken_for_new() {
        let mut ring = SimulatedRing::new(4);
        let (mut follower, mut sink) = (follow(&ring), Collected::default());
        for _ in 0..3 {
            ring.fill(1);
            follower.poll(&mut sink).unwrap();
        }
        // Exactly one lap: the next sub-buffer is the oldest one, untouched, then without a commit,
        // then with a record that is not committed.
        assert_eq!(follower.poll(&mut sink).unwrap().subbufs, 0);
        ring.begin_page();
        assert_eq!(follower.poll(&mut sink).unwrap().subbufs, 0);
        ring.write_event(100_000);
        assert_eq!(follower.poll(&mut sink).unwrap().subbufs, 0);
        ring.set_commit();
        let progress = follower.poll(&mut sink).unwrap();
        assert_eq!(
            (progress.subbufs, progress.events, progress.laps),
            (1, 1, 0)
        );
    }

    #[test]
    fn commit_that_moves_over_several_sub_buffers_at_once_loses_nothing() {
        let mut ring = SimulatedRing::new(6);
        let (mut follower, mut sink) = (follow(&ring), Collected::default());
        ring.fill(1);
        ring.set_commit_of(1, EVENT_BYTES);
        follower.poll(&mut sink).unwrap();
        // Nested writers go on to sub-buffers 2 and 3; only time stamps are seen.
        ring.fill(2);
        ring.set_commit_of(2, 0);
        ring.set_commit_of(3, 0);
        assert_eq!(follower.poll(&mut sink).unwrap().subbufs, 0);
        for id in 1..=3 {
            ring.set_commit_of(id, DATA_BYTES);
        }
        follower.poll(&mut sink).unwrap();
        let count = follower.finish(&mut sink).unwrap().unwrap();
        assert_eq!(
            count,
            EventCount {
                delivered: 3 * PER_PAGE,
                lost: 0
            }
        );
    }

    #[test]
    fn lost_events_are_counted_exactly_after_a_lap() {
        let mut ring = SimulatedRing::new(5);
        let (mut follower, mut sink) = (follow(&ring), Collected::default());
        ring.event(1);
        follower.poll(&mut sink).unwrap();
        ring.fill(30);
        let progress = follower.poll(&mut sink).unwrap();
        assert_eq!(progress.laps, 1);
        let count = follower.finish(&mut sink).unwrap().unwrap();
        assert_eq!(count.delivered + count.lost, ring.written());
        assert_eq!(sink.lost(CpuId(0)), count.lost);
        assert_eq!(
            sink.pages(CpuId(0))[0].1.len(),
            EVENT_BYTES,
            "the short one from before the lap"
        );
        assert_eq!(sink.pages(CpuId(0)).len(), 1 + 4);
    }

    #[test]
    fn lap_that_has_only_zeroed_the_commit_is_seen() {
        let mut ring = SimulatedRing::new(4);
        let (mut follower, mut sink) = (follow(&ring), Collected::default());
        ring.fill(1);
        follower.poll(&mut sink).unwrap();
        ring.fill(2);
        ring.begin_page();
        assert_eq!(ring.tail(), 1);
        let progress = follower.poll(&mut sink).unwrap();
        assert_eq!((progress.laps, progress.events), (1, 2 * PER_PAGE));
        let count = follower.finish(&mut sink).unwrap().unwrap();
        assert_eq!(
            count,
            EventCount {
                delivered: ring.written(),
                lost: 0
            }
        );
    }

    #[test]
    fn first_poll_after_many_laps_counts_what_was_before() {
        let mut ring = SimulatedRing::new(4);
        let (mut follower, mut sink) = (follow(&ring), Collected::default());
        ring.fill(50);
        follower.poll(&mut sink).unwrap();
        let count = follower.finish(&mut sink).unwrap().unwrap();
        assert_eq!(
            count,
            EventCount {
                delivered: 3 * PER_PAGE,
                lost: 47 * PER_PAGE
            }
        );
    }

    #[test]
    fn loss_of_unknown_size_is_settled_when_the_head_arrives() {
        let mut ring = SimulatedRing::new(9);
        let (mut follower, mut sink) = (follow(&ring), Collected::default());
        ring.fill(20);
        follower.go_to_middle(&mut sink);
        assert_eq!(sink.unknown(CpuId(0)), 1);
        follower.poll(&mut sink).unwrap();
        assert_eq!(
            sink.lost(CpuId(0)),
            0,
            "the head is older than what was followed"
        );
        ring.fill(5);
        follower.poll(&mut sink).unwrap();
        let count = follower.count();
        assert_eq!(count.delivered + count.lost, ring.written());
        assert_eq!(sink.lost(CpuId(0)), count.lost);
    }

    /// Refuses one piece, and notes that as a loss without a number.
    struct Refusing {
        taken: Collected,
        /// How many pieces come before it.
        pieces: u64,
        unknown: u64,
    }

    impl SubbufSink for Refusing {
        fn begin(&mut self, cpu: CpuId, time_stamp: u64) {
            self.taken.begin(cpu, time_stamp);
        }

        fn append(&mut self, cpu: CpuId, bytes: &[u8]) {
            self.taken.append(cpu, bytes);
        }

        fn append_counted(&mut self, cpu: CpuId, bytes: &[u8]) -> Appended {
            let is_refused = self.pieces == 0;
            self.pieces = self.pieces.wrapping_sub(1);
            if is_refused {
                self.unknown += 1;
                return Appended::Refused;
            }
            self.append(cpu, bytes);
            Appended::Uncounted
        }

        fn end(&mut self, cpu: CpuId) {
            self.taken.end(cpu);
        }

        fn lost(&mut self, cpu: CpuId, events: Option<u64>) {
            SubbufSink::lost(&mut self.taken, cpu, events);
        }

        fn settled(&mut self, cpu: CpuId, events: u64) {
            self.taken.settled(cpu, events);
        }
    }

    /// They were counted as delivered, so that no number of them ever came.
    #[test]
    fn events_that_the_sink_refused_are_lost_and_their_number_follows() {
        let refusing = || Refusing {
            taken: Collected::default(),
            pieces: 1,
            unknown: 0,
        };
        // At the end, and as soon as the head has gone past them.
        for pages in [3, 8] {
            let mut ring = SimulatedRing::new(6);
            let (mut follower, mut sink) = (follow(&ring), refusing());
            for _ in 0..pages {
                ring.fill(1);
                follower.poll(&mut sink).unwrap();
            }
            assert_eq!(sink.unknown, 1);
            let settled = if pages > 5 { PER_PAGE } else { 0 };
            assert_eq!(sink.taken.lost(CpuId(0)), settled);
            let count = follower.finish(&mut sink).unwrap().unwrap();
            assert_eq!(count.delivered + count.lost, ring.written());
            assert_eq!(
                (count.lost, sink.taken.lost(CpuId(0))),
                (PER_PAGE, PER_PAGE)
            );
        }
        // A lap right behind them is in the number.
        let mut ring = SimulatedRing::new(6);
        let (mut follower, mut sink) = (follow(&ring), refusing());
        for pages in [1, 1, 20] {
            ring.fill(pages);
            follower.poll(&mut sink).unwrap();
        }
        let count = follower.finish(&mut sink).unwrap().unwrap();
        assert_eq!(count.delivered + count.lost, ring.written());
        assert_eq!(sink.taken.lost(CpuId(0)), count.lost);
    }

    #[test]
    fn cleared_instance_is_noticed_and_followed_again() {
        let mut ring = SimulatedRing::new(4);
        let (mut follower, mut sink) = (follow(&ring), Collected::default());
        ring.fill(2);
        follower.poll(&mut sink).unwrap();
        ring.clear();
        assert!(matches!(
            follower.poll(&mut sink),
            Err(Error::Disturbed { .. })
        ));
        let mut follower = follower.unmap().map().unwrap();
        assert!(follower.poll(&mut sink).unwrap().is_caught_up);
        ring.event(1_000_000);
        assert_eq!(follower.poll(&mut sink).unwrap().events, 1);
        assert_eq!(follower.finish(&mut sink).unwrap(), None);
    }
}

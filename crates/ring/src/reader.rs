//! Reading a region while its writer runs, in another process if need be.
//!
//! Each step copies one sub-buffer and then looks at its header again: the writer changes commit and
//! time stamp before it overwrites the data, so an unchanged time stamp proves the copy. A reader that
//! was overtaken continues at the head page. The head mark, one word with the head page and the number
//! of its first event, tells how many events it missed, or how many it has had already. The ring is
//! never changed: a consuming reader's place is a cursor in the extension, and is the number of the
//! next event.
//!
//! A region without an extension has no numbers: a reader that was overtaken there has missed events
//! of an unknown number.
//!
//! Not proven: a writer that laps the whole ring, during one copy, without its clock going on.

use alloc::boxed::Box;
use core::sync::atomic::Ordering;

use crate::extension::{Counter, Cursor, HeadMark, Layout, count};
use crate::layout::{CpuMeta, SUBBUF_DATA, SUBBUF_HEADER};
use crate::seal::Seal;
use crate::subbuf::{Commit, Events, Missed, Position};
use crate::sync::fence;
use crate::{Geometry, Memory, MemoryMut};

/// New events of one sub-buffer.
#[derive(Debug)]
pub struct Chunk<'a> {
    /// What was lost before them.
    pub missed: Option<Missed>,
    position: Position,
    data: &'a [u8],
}

impl<'a> Chunk<'a> {
    /// The events.
    #[must_use]
    pub fn events(&self) -> Events<'a> {
        Events::resume(self.position, self.data)
    }
}

/// Follows the writer of one CPU.
#[derive(Debug)]
pub struct LiveReader<M> {
    memory: M,
    geometry: Geometry,
    extension: Option<Layout>,
    cpu: u32,
    place: Option<Place>,
    /// Number of the next event that is to be returned, modulo [`HeadMark::MODULUS`].
    next_event: u64,
    /// Events from the reader's place on that were returned before.
    skip: u64,
    /// Whether the reader was in the ring before: only then can it have missed something.
    entered: bool,
    /// What is to be told with the next chunk.
    missed: Option<Missed>,
    cursor_sequence: u64,
    data: Box<[u8; SUBBUF_DATA]>,
}

#[derive(Debug, Clone, Copy)]
struct Place {
    subbuf: u32,
    /// Time stamp of the sub-buffer when it was entered.
    time_stamp: u64,
    position: Position,
}

/// How often a reader that is overtaken again and again tries before the caller has a turn.
const RETRIES: u32 = 64;

/// What a look at the reader's sub-buffer gave.
enum Look {
    /// The committed data ends here; this much of it was not looked at before.
    Data(usize),
    /// All is read and the writer is still there.
    AtEnd,
    /// All is read and the writer went on.
    Left(Place),
    /// The writer began the sub-buffer anew.
    Overtaken,
}

impl<M: Memory> LiveReader<M> {
    /// A reader of a region's CPU that begins with the oldest event; `None` if there is no such
    /// CPU, or the memory ends before the region does.
    pub fn new(memory: M, geometry: Geometry, extension: Option<Layout>, cpu: u32) -> Option<Self> {
        let size = extension.map_or(geometry.size(), |layout| layout.area_size());
        (cpu < geometry.nr_cpus() && size <= memory.len() as u64).then(|| Self {
            memory,
            geometry,
            extension,
            cpu,
            place: None,
            next_event: 0,
            skip: 0,
            entered: false,
            missed: None,
            cursor_sequence: 0,
            data: Box::new([0; SUBBUF_DATA]),
        })
    }

    /// The next events, in order, those of one sub-buffer at a time; `None` when there are no more
    /// for now.
    pub fn next_chunk(&mut self) -> Option<Chunk<'_>> {
        let mut retries = RETRIES;
        // A reader that has nothing to return from a whole ring has a torn index before it.
        let mut steps = 2 * self.geometry.nr_subbufs();
        while retries > 0 && steps > 0 {
            let Some(place) = self.place else {
                retries -= 1;
                self.place = self.enter_head();
                continue;
            };
            match self.look(place) {
                Look::Overtaken => self.place = None,
                Look::AtEnd => return None,
                Look::Left(next) => {
                    steps -= 1;
                    self.enter(next);
                }
                Look::Data(end) => {
                    if let Some(position) = self.advance(place, end) {
                        return Some(Chunk {
                            missed: self.missed.take(),
                            position,
                            data: &self.data[..end],
                        });
                    }
                }
            }
        }
        None
    }

    /// Walks over the new events of the reader's sub-buffer. Returns where those begin that were not
    /// returned before, if there are any.
    fn advance(&mut self, place: Place, end: usize) -> Option<Position> {
        let mut events = Events::resume(place.position, &self.data[..end]);
        events.pass(self.skip);
        let position = events.position();
        let skipped = u64::from(events.entries()).min(self.skip);
        self.skip -= skipped;
        // A bad record ends the page: it can't be followed any further.
        let is_whole = events.by_ref().all(|event| event.is_ok());
        let entries = u64::from(events.entries()) - skipped;
        let mut after = events.position();
        if !is_whole {
            after.offset = end;
        }
        self.next_event = (self.next_event + entries) % HeadMark::MODULUS;
        self.place = Some(Place {
            position: after,
            ..place
        });
        (entries > 0).then_some(position)
    }

    fn meta(&self) -> CpuMeta {
        CpuMeta::load(&self.geometry, &self.memory, self.cpu)
    }

    fn page(&self, subbuf: u32) -> usize {
        self.geometry.subbuf_offset(self.cpu, subbuf)
    }

    /// Copies what is new in the reader's sub-buffer.
    fn look(&mut self, place: Place) -> Look {
        let page = self.page(place.subbuf);
        // In this order: once the writer has left, nothing is committed any more.
        let left = self.after(place);
        let commit = Commit(self.memory.load_u64_acquire(page + 8));
        let end = commit.size().min(SUBBUF_DATA);
        let is_new = end > place.position.offset;
        if is_new {
            // From the start: positions count from the start of the data.
            self.memory
                .read(page + SUBBUF_HEADER, &mut self.data[..end]);
        }
        // The head moves on before the commit word is made zero, and that before the time stamp
        // changes: so an old time stamp is no proof that the commit word is of the same lap.
        let is_given_up = left.is_some_and(|next| self.head() == Some(next.subbuf));
        fence(Ordering::Acquire);
        // Sub-buffers are begun in order: if this one is still the same, so is the next one.
        let is_same = self.memory.load_u64(page) == place.time_stamp
            && Commit(self.memory.load_u64(page + 8)).size() >= end;
        match (is_same && !is_given_up, is_new, left) {
            (false, ..) => Look::Overtaken,
            (true, true, _) => Look::Data(end),
            (true, false, Some(next)) => Look::Left(next),
            (true, false, None) => Look::AtEnd,
        }
    }

    fn head(&self) -> Option<u32> {
        let meta = self.meta();
        meta.subbuf_at(&self.geometry, meta.head_buffer)
    }

    /// The sub-buffer after this one, if the writer has gone on to it.
    fn after(&self, place: Place) -> Option<Place> {
        let meta = self.meta();
        if meta.subbuf_at(&self.geometry, meta.commit_buffer)? == place.subbuf {
            return None;
        }
        fence(Ordering::Acquire);
        let next = if place.subbuf + 1 < self.geometry.nr_subbufs() {
            place.subbuf + 1
        } else {
            1
        };
        Some(self.start_of(next))
    }

    fn start_of(&self, subbuf: u32) -> Place {
        let time_stamp = self.memory.load_u64_acquire(self.page(subbuf));
        let position = Position {
            offset: 0,
            time_stamp,
            text_time_stamp: time_stamp,
        };
        Place {
            subbuf,
            time_stamp,
            position,
        }
    }

    /// Enters a sub-buffer at its start. Its seal says what was lost before it.
    fn enter(&mut self, place: Place) {
        self.place = Some(place);
        let Some(layout) = self.extension.as_ref().filter(|_| self.skip == 0) else {
            return;
        };
        let missed = Seal::load(layout, &self.memory, self.cpu, place.subbuf)
            .filter(|seal| seal.time_stamp == place.time_stamp)
            .and_then(|seal| seal.missed);
        if let Some(missed) = missed {
            self.miss(missed);
        }
    }

    fn miss(&mut self, missed: Missed) {
        self.missed = Some(match self.missed {
            None => missed,
            Some(before) => before.and(missed),
        });
    }

    /// Enters the head page, at first or after having been overtaken.
    fn enter_head(&mut self) -> Option<Place> {
        let Some(layout) = &self.extension else {
            let meta = self.meta();
            let place = self.start_of(meta.subbuf_at(&self.geometry, meta.head_buffer)?);
            if self.entered {
                self.miss(Missed::Unknown);
            }
            self.entered = place.time_stamp != 0;
            return Some(place);
        };
        let mark = HeadMark::load(layout, &self.memory, self.cpu);
        if mark.subbuf >= self.geometry.nr_subbufs() {
            return None;
        }
        let place = self.start_of(mark.subbuf);
        // The head moves before its sub-buffer is written: still the head, still whole.
        if HeadMark::load(layout, &self.memory, self.cpu) != mark {
            return None;
        }
        if !self.entered {
            (self.entered, self.next_event) = (true, mark.first_event);
        }
        let missed = mark.first_event.wrapping_sub(self.next_event) % HeadMark::MODULUS;
        // More than half the numbers away is behind.
        if missed < HeadMark::MODULUS / 2 {
            self.skip = 0;
            self.next_event = mark.first_event;
            if missed > 0 {
                self.miss(Missed::Events(missed));
            }
        } else {
            self.skip = HeadMark::MODULUS - missed;
        }
        self.enter(place);
        self.place
    }
}

impl<M: MemoryMut> LiveReader<M> {
    /// Continues where the last consuming reader of this CPU stopped, or at the first event of the
    /// run. If that place is overwritten, the first chunk says how many events are missing.
    pub fn resume(&mut self) {
        let Some(layout) = &self.extension else {
            return;
        };
        let cursor = Cursor::load(layout, &self.memory, self.cpu);
        self.cursor_sequence = cursor.sequence;
        (self.entered, self.next_event) = (true, cursor.next_event);
        self.place = None;
    }

    /// Marks everything that was returned so far as consumed: `events` more than before.
    pub fn consume(&mut self, events: u64) {
        let (Some(layout), Some(place)) = (&self.extension, self.place) else {
            return;
        };
        self.cursor_sequence += 1;
        let cursor = Cursor {
            sequence: self.cursor_sequence,
            time_stamp: place.time_stamp,
            offset: place.position.offset as u16,
            next_event: self.next_event,
        };
        cursor.store(layout, &self.memory, self.cpu);
        count(layout, &self.memory, self.cpu, Counter::Read, events);
    }
}

//! Reading a region while its writer runs, in another process if need be.
//!
//! Each step copies one sub-buffer and then looks at its time stamp again: the writer changes it
//! before it overwrites the data, so an unchanged time stamp proves the copy. A reader that was
//! overtaken continues at the head page and says how many events it missed. The ring is never
//! changed: a consuming reader's place is a cursor in the extension.

use alloc::boxed::Box;

use crate::extension::{Counter, Cursor, HeadMark, Layout, count};
use crate::layout::{CpuMeta, SUBBUF_DATA, SUBBUF_HEADER};
use crate::subbuf::{Commit, Events, Missed, Position};
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
    /// Number of the next event, modulo [`HeadMark::MODULUS`].
    next_event: u64,
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

/// How often a reader that is overtaken while it looks for the head tries again before it lets
/// the caller have a turn.
const RETRIES: u32 = 64;

impl<M: Memory> LiveReader<M> {
    /// A reader of a region's CPU that begins with the oldest event; `None` if there is no such
    /// CPU.
    pub fn new(memory: M, geometry: Geometry, extension: Option<Layout>, cpu: u32) -> Option<Self> {
        (cpu < geometry.nr_cpus()).then(|| Self {
            memory,
            geometry,
            extension,
            cpu,
            place: None,
            next_event: 0,
            entered: false,
            missed: None,
            cursor_sequence: 0,
            data: Box::new([0; SUBBUF_DATA]),
        })
    }

    /// The next events, in order, those of one sub-buffer at a time; `None` when there are no more
    /// for now.
    pub fn next_chunk(&mut self) -> Option<Chunk<'_>> {
        for _ in 0..RETRIES {
            let Some(place) = self.place else {
                self.place = self.enter_head();
                continue;
            };
            match self.copy(place) {
                Copied::Overtaken => self.place = None,
                Copied::Bytes(end) if end > place.position.offset => {
                    let missed = self.missed.take().or_else(|| self.missed_before(place));
                    let data = &self.data[..end];
                    let mut events = Events::resume(place.position, data);
                    // A bad record ends the page: it can't be followed any further.
                    let whole = events.by_ref().all(|event| event.is_ok());
                    let mut after = events.position();
                    if !whole {
                        after.offset = end;
                    }
                    self.next_event =
                        (self.next_event + u64::from(events.entries())) % HeadMark::MODULUS;
                    self.place = Some(Place {
                        position: after,
                        ..place
                    });
                    return Some(Chunk {
                        missed,
                        position: place.position,
                        data: &self.data[..end],
                    });
                }
                Copied::Bytes(_) => match self.enter_next(place) {
                    Some(next) => self.place = Some(next),
                    None => return None,
                },
            }
        }
        None
    }

    /// What the seal says was missed before a sub-buffer, when it is entered.
    fn missed_before(&self, place: Place) -> Option<Missed> {
        let layout = self
            .extension
            .as_ref()
            .filter(|_| place.position.offset == 0)?;
        crate::seal::Seal::load(layout, &self.memory, self.cpu, place.subbuf)
            .filter(|seal| seal.time_stamp == place.time_stamp)?
            .missed
    }

    fn meta(&self) -> CpuMeta {
        CpuMeta::load(&self.geometry, &self.memory, self.cpu)
    }

    fn page(&self, subbuf: u32) -> usize {
        self.geometry.subbuf_offset(self.cpu, subbuf)
    }

    /// Copies the committed data of the sub-buffer behind what was read.
    fn copy(&mut self, place: Place) -> Copied {
        let page = self.page(place.subbuf);
        let commit = Commit(self.memory.load_u64_acquire(page + 8));
        let end = commit.size().min(SUBBUF_DATA);
        if end > place.position.offset {
            // From the start: positions count from the start of the data.
            self.memory
                .read(page + SUBBUF_HEADER, &mut self.data[..end]);
        }
        core::sync::atomic::fence(core::sync::atomic::Ordering::Acquire);
        match self.memory.load_u64(page) == place.time_stamp {
            true => Copied::Bytes(end),
            false => Copied::Overtaken,
        }
    }

    fn enter(&self, subbuf: u32) -> Place {
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

    /// Enters the head page, at first or after having been overtaken.
    fn enter_head(&mut self) -> Option<Place> {
        let Some(layout) = &self.extension else {
            let meta = self.meta();
            let place = self.enter(meta.subbuf_at(&self.geometry, meta.head_buffer)?);
            return Some(place);
        };
        let mark = HeadMark::load(layout, &self.memory, self.cpu);
        if mark.subbuf >= self.geometry.nr_subbufs() {
            return None;
        }
        let place = self.enter(mark.subbuf);
        // The head moves before its sub-buffer is written: still the head, still whole.
        if HeadMark::load(layout, &self.memory, self.cpu) != mark {
            return None;
        }
        let skipped = mark.first_event.wrapping_sub(self.next_event) % HeadMark::MODULUS;
        // More than half the numbers away is behind us: a cursor that is still in the ring.
        if self.entered && (1..HeadMark::MODULUS / 2).contains(&skipped) {
            let before = match self.missed {
                Some(Missed::Events(before)) => before,
                _ => 0,
            };
            self.missed = Some(Missed::Events(before + skipped));
        }
        (self.entered, self.next_event) = (true, mark.first_event);
        Some(place)
    }

    /// The sub-buffer after this one, if the writer has gone on to it and this one is read.
    fn enter_next(&self, place: Place) -> Option<Place> {
        let meta = self.meta();
        if meta.subbuf_at(&self.geometry, meta.commit_buffer)? == place.subbuf {
            return None;
        }
        core::sync::atomic::fence(core::sync::atomic::Ordering::Acquire);
        // More may have been committed before the writer went on.
        let commit = Commit(self.memory.load_u64_acquire(self.page(place.subbuf) + 8));
        if commit.size() > place.position.offset {
            return Some(place);
        }
        let next = if place.subbuf + 1 < self.geometry.nr_subbufs() {
            place.subbuf + 1
        } else {
            1
        };
        Some(self.enter(next))
    }
}

enum Copied {
    /// The committed data ends here.
    Bytes(usize),
    /// The sub-buffer was begun anew meanwhile.
    Overtaken,
}

impl<M: MemoryMut> LiveReader<M> {
    /// Continues where the last consuming reader of this CPU stopped. If that place is
    /// overwritten, the first chunk says how many events are missing.
    pub fn resume(&mut self) {
        let Some(layout) = &self.extension else {
            return;
        };
        let cursor = Cursor::load(layout, &self.memory, self.cpu);
        self.cursor_sequence = cursor.sequence;
        if cursor.sequence == 0 {
            return;
        }
        (self.entered, self.next_event) = (true, cursor.next_event);
        for _ in 0..=2 * self.geometry.nr_subbufs() {
            let Some(chunk) = self.next_chunk() else {
                return;
            };
            let missed = chunk.missed;
            let Some(place) = self.place else { return };
            if place.time_stamp >= cursor.time_stamp {
                let same = place.time_stamp == cursor.time_stamp;
                self.go_back(place, if same { cursor.offset.into() } else { 0 });
                self.missed = missed;
                return;
            }
        }
    }

    /// Goes back to the first event at or behind `offset` of the sub-buffer just read.
    fn go_back(&mut self, place: Place, offset: usize) {
        let mut events = Events::new(place.time_stamp, &self.data[..place.position.offset]);
        while events.position().offset < offset && events.next().is_some() {}
        let position = events.position();
        let before = events.entries();
        events.by_ref().for_each(drop);
        let unread = u64::from(events.entries() - before);
        self.next_event = self.next_event.wrapping_sub(unread) % HeadMark::MODULUS;
        self.place = Some(Place { position, ..place });
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

//! Laying out a region, and its single writer per CPU.
//!
//! The writer keeps its place in ordinary memory; the region holds only what a reader after a
//! crash needs. What a crash may interrupt, in the order of the stores when a sub-buffer is full:
//!
//! 1. the full sub-buffer N is sealed; it still is the commit page;
//! 2. if the ring is full, `head_buffer` moves on: the oldest sub-buffer is given up;
//! 3. the next sub-buffer gets an open seal, commit 0, and its time stamp;
//! 4. `commit_buffer` moves to it.
//!
//! After each store the region is one that recovery reads: before 4 the sub-buffer behind the
//! commit page may hold anything and is taken for the oldest one or for none. An event is written
//! behind the committed bytes and then published by one store of the commit word.
//!
//! The reader page of a kernel, position 0, stays empty: no reader ever swaps it in.

use alloc::vec::Vec;
use core::fmt;

use crate::extension::{Counter, HeadMark, Layout, count};
use crate::layout::{BUFFERS_OFFSET, MAGIC, SUBBUF_DATA, SUBBUF_HEADER, TOTAL_SIZE};
use crate::seal::{Seal, checksum_by};
use crate::subbuf::{
    self, BadRecord, Event, Events, Missed, PAYLOAD_MAX, SMALL_MAX, TIME_RECORD, encode,
};
use crate::{Geometry, LayoutError, MemoryMut, RegionFormat, Tail};

/// The first position of the ring proper: position 0 is the reader page.
const FIRST: u32 = 1;

/// A region that is ours to write. In cache lines of its own: the writers of all CPUs read it.
#[derive(Debug)]
#[repr(align(128))]
pub struct Region<M> {
    memory: M,
    geometry: Geometry,
    extension: Option<Layout>,
}

impl<M: MemoryMut> Region<M> {
    /// Lays out a region in memory that is zero, such as a new file.
    ///
    /// The anchor of the extension is written last.
    ///
    /// # Errors
    ///
    /// When the memory is smaller than the ring and its extension, or the geometry is not the
    /// current kernels'.
    pub fn format(
        memory: M,
        geometry: Geometry,
        extension: Option<Layout>,
    ) -> Result<Self, LayoutError> {
        let size = extension.map_or(geometry.size(), |layout| layout.area_size());
        if (memory.len() as u64) < size || geometry.format() != RegionFormat::V6_16 {
            return Err(LayoutError::BadSize {
                size: memory.len() as u64,
            });
        }
        let region = Self {
            memory,
            geometry,
            extension,
        };
        region.store_metas();
        if let Some(layout) = &region.extension {
            layout.store(&region.memory);
        }
        Ok(region)
    }

    /// Lays out a region in memory that holds something else, such as the region of a previous
    /// run that has been kept.
    ///
    /// What was there is unreadable from the first store on. The payload bytes stay.
    ///
    /// # Errors
    ///
    /// As [`Region::format`].
    pub fn format_over(
        memory: M,
        geometry: Geometry,
        extension: Option<Layout>,
    ) -> Result<Self, LayoutError> {
        let metas = geometry.subbuf_offset(0, 0);
        if memory.len() < metas {
            return Err(LayoutError::BadSize {
                size: memory.len() as u64,
            });
        }
        if let Some(anchor) = memory.len().checked_sub(4096) {
            memory.zero(anchor, 4096);
        }
        memory.zero(0, metas);
        for cpu in 0..geometry.nr_cpus() {
            let meta = geometry.meta_offset(cpu);
            memory.zero(meta, geometry.subbuf_offset(cpu, 0) - meta);
            for subbuf in 0..geometry.nr_subbufs() {
                memory.zero(geometry.subbuf_offset(cpu, subbuf), SUBBUF_HEADER);
            }
        }
        if let Some(layout) = &extension {
            let end = layout.area_size() as usize;
            memory.zero(geometry.size() as usize, end - geometry.size() as usize);
        }
        Self::format(memory, geometry, extension)
    }

    fn store_metas(&self) {
        let (memory, geometry) = (&self.memory, &self.geometry);
        for cpu in 0..geometry.nr_cpus() {
            let meta = geometry.meta_offset(cpu);
            memory.store_u64(meta, geometry.stored_address(cpu, 0));
            memory.store_u64(
                geometry.head_offset(cpu),
                geometry.stored_address(cpu, FIRST),
            );
            memory.store_u64(
                geometry.commit_offset(cpu),
                geometry.stored_address(cpu, FIRST),
            );
            memory.store_u32(meta + 24, crate::layout::SUBBUF_SIZE as u32);
            memory.store_u32(meta + 28, geometry.nr_subbufs());
            let index = geometry.index_offset(cpu, 0);
            for position in 0..geometry.nr_subbufs() {
                memory.store_u32(index + 4 * position as usize, position);
            }
            if let Some(layout) = &self.extension {
                HeadMark {
                    subbuf: FIRST,
                    first_event: 0,
                }
                .store(layout, memory, cpu);
            }
        }
        memory.store_u64(TOTAL_SIZE, geometry.size());
        memory.store_u64(BUFFERS_OFFSET, geometry.format().buffers_offset() as u64);
        memory.store_u32(4, geometry.format().struct_sizes());
        memory.store_u32(0, MAGIC);
    }

    /// Notes in the kernel's scratch area what a kernel notes there.
    ///
    /// `clock_id` is the index of the trace clock in the kernel's list, `text_addr` the address
    /// of `_text`, 0 if unknown.
    pub fn store_scratch(&self, clock_id: u32, text_addr: u64) {
        self.memory.store_u32(crate::layout::SCRATCH, clock_id);
        self.memory.store_u64(crate::layout::SCRATCH + 8, text_addr);
    }

    /// The memory.
    pub fn memory(&self) -> &M {
        &self.memory
    }

    /// Where the ring's parts lie.
    pub fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    /// Where the extension's parts lie.
    pub fn extension(&self) -> Option<&Layout> {
        self.extension.as_ref()
    }

    /// The writer of a CPU of a region that was just laid out; `None` if there is no such CPU.
    ///
    /// Two writers of one CPU at a time destroy each other's events.
    pub fn writer(&self, cpu: u32) -> Option<CpuWriter<'_, M>> {
        (cpu < self.geometry.nr_cpus()).then(|| CpuWriter::new(self, cpu))
    }
}

/// A reservation fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ReserveError {
    /// The payload is longer than [`PAYLOAD_MAX`].
    TooLong {
        /// Bytes asked for.
        len: usize,
    },
    /// The ring is full and is not to be overwritten. Counted as dropped.
    Full,
    /// Uncommitted events fill the ring. Counted as commit overrun.
    CommitOverrun,
}

impl fmt::Display for ReserveError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong { len } => {
                write!(
                    f,
                    "an event of {len} bytes is longer than the {PAYLOAD_MAX} that fit a sub-buffer"
                )
            }
            Self::Full => f.write_str("the ring is full and not in overwrite mode"),
            Self::CommitOverrun => f.write_str("uncommitted events fill the ring"),
        }
    }
}

impl core::error::Error for ReserveError {}

/// Bytes of another ring's sub-buffer cannot be taken over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum TakeOverError {
    /// They are more than the rest of the sub-buffer.
    TooLong {
        /// Bytes given.
        len: usize,
        /// Bytes left.
        room: usize,
    },
    /// They are no whole records.
    BadRecord(BadRecord),
    /// Where a sub-buffer should begin: see [`ReserveError`].
    Reserve(ReserveError),
}

impl fmt::Display for TakeOverError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong { len, room } => {
                write!(
                    f,
                    "{len} bytes of events do not fit the {room} left of the sub-buffer"
                )
            }
            Self::BadRecord(error) => error.fmt(f),
            Self::Reserve(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for TakeOverError {}

/// Space for one event, not visible to readers until it is committed.
#[derive(Debug)]
#[must_use = "an event that is neither committed nor discarded blocks all later ones"]
pub struct Reservation {
    page: u32,
    /// Offset in the page's data of what was reserved, a time extend included.
    start: usize,
    /// Offset of the record's header.
    record: usize,
    /// Offset of the payload.
    payload: usize,
    end: usize,
    delta: u64,
    time_stamp_before: u64,
}

impl Reservation {
    /// Bytes that may be written: the length asked for, rounded up as the kernel rounds.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.end - self.payload
    }
}

/// What a sub-buffer has.
#[derive(Debug, Default, Clone, Copy)]
struct Page {
    /// Bytes reserved.
    write: u16,
    /// Entries, as a walk would count them.
    entries: u16,
}

/// Pages behind those of a CPU that are never used, so that no cache line has two CPUs'.
const APART: usize = 128 / size_of::<Page>();

/// The single writer of one CPU's buffer.
#[derive(Debug)]
pub struct CpuWriter<'r, M> {
    region: &'r Region<M>,
    cpu: u32,
    overwrite: bool,
    /// Whether the tail page was begun; false only in a fresh region.
    begun: bool,
    /// Sub-buffers that were filled in this turn, see [`Self::take_turn`].
    filled: u32,
    head: u32,
    commit_page: u32,
    tail: u32,
    /// Reserved and not yet committed events.
    nested: u32,
    /// Time of the last record, or of the page.
    time_stamp: u64,
    /// The tail page, while an event that fits it needs nothing but itself: `None` where something else
    /// is to be done before or after it. See [`Self::find_plain_tail`].
    plain_tail: Option<Tail<'r>>,
    /// What the tail page has.
    tail_page: Page,
    /// What each other sub-buffer has.
    pages: Vec<Page>,
    /// What was missed before the tail page, told with it.
    tail_missed: Option<Missed>,
    /// What was missed and not yet told with a page.
    missed_next: Option<Missed>,
    overrun: u64,
}

impl<'r, M: MemoryMut> CpuWriter<'r, M> {
    fn new(region: &'r Region<M>, cpu: u32) -> Self {
        let nr_subbufs = region.geometry.nr_subbufs() as usize;
        let mut pages = Vec::with_capacity(nr_subbufs + APART);
        pages.resize(nr_subbufs, Page::default());
        Self {
            region,
            cpu,
            overwrite: true,
            begun: false,
            filled: 0,
            head: FIRST,
            commit_page: FIRST,
            tail: FIRST,
            nested: 0,
            time_stamp: 0,
            plain_tail: None,
            tail_page: Page::default(),
            pages,
            tail_missed: None,
            missed_next: None,
            overrun: 0,
        }
    }

    /// Whether the oldest events are overwritten when the ring is full (the default), or new ones
    /// are dropped.
    pub fn set_overwrite(&mut self, overwrite: bool) {
        self.overwrite = overwrite;
    }

    /// The CPU.
    #[must_use]
    pub fn cpu(&self) -> u32 {
        self.cpu
    }

    /// Notes that events were lost before the next one that is written. Counted, and shown by
    /// readers where they are missing. Begins a new sub-buffer at the next event.
    pub fn lost(&mut self, missed: Missed) {
        let (counter, by) = match missed {
            Missed::Events(events) => (Counter::Lost, events),
            Missed::Unknown => (Counter::LostUnknown, 1),
        };
        self.count(counter, by);
        self.missed_next = Some(match self.missed_next {
            None => missed,
            Some(before) => before.and(missed),
        });
        self.find_plain_tail();
    }

    /// Counts events whose loss was told before without a number.
    pub fn settle(&mut self, events: u64) {
        self.count(Counter::Lost, events);
    }

    // ---- Taking over sub-buffers of another ring ----

    /// Begins a sub-buffer with the time stamp of another ring's sub-buffer.
    ///
    /// # Errors
    ///
    /// When the ring is full and not overwritten.
    pub fn begin(&mut self, time_stamp: u64) -> Result<(), TakeOverError> {
        debug_assert_eq!(self.nested, 0, "take-over is not mixed with reservations");
        self.next_page(time_stamp).map_err(TakeOverError::Reserve)
    }

    /// Appends whole records of the same sub-buffer, as they are, and publishes them. `each` sees
    /// every event.
    ///
    /// # Errors
    ///
    /// When the bytes are not whole records or too many. Nothing is stored then.
    pub fn append(
        &mut self,
        records: &[u8],
        mut each: impl FnMut(Event<'_>),
    ) -> Result<(), TakeOverError> {
        let write = self.used(self.tail);
        let room = SUBBUF_DATA - write;
        if records.len() > room || !self.begun {
            return Err(TakeOverError::TooLong {
                len: records.len(),
                room,
            });
        }
        let mut events = Events::new(self.time_stamp, records);
        for event in events.by_ref() {
            each(event.map_err(TakeOverError::BadRecord)?);
        }
        self.time_stamp = events.position().time_stamp;
        self.tail_page.entries += events.entries() as u16;
        self.memory()
            .write(self.data_offset(self.tail) + write, records);
        self.tail_page.write += records.len() as u16;
        self.store_commit(self.tail);
        Ok(())
    }

    /// Closes the tail page: seals it, so that it is protected before the next one begins. Nothing
    /// may be appended to it afterwards.
    pub fn close(&mut self) {
        if self.begun {
            self.seal(self.tail);
        }
    }

    // ---- Writing events ----

    /// Records a whole event at time `now`: as [`reserve`](Self::reserve), write and
    /// [`commit`](Self::commit), in a tenth of the time.
    ///
    /// # Errors
    ///
    /// See [`ReserveError`]. The failure is counted.
    pub fn record(&mut self, payload: &[u8], now: u64) -> Result<(), ReserveError> {
        if self.record_plain(payload, now) {
            return Ok(());
        }
        self.record_in_steps(payload, now)
    }

    /// Records an event that needs nothing but itself: as nearly all do. If it needs more, nothing is
    /// done and the answer is no.
    #[inline(always)]
    pub(crate) fn record_plain(&mut self, payload: &[u8], now: u64) -> bool {
        let Some(tail) = self.plain_tail else {
            return false;
        };
        let size = subbuf::record_size(payload.len());
        let used = usize::from(self.tail_page.write);
        // Too much as well where time went backwards.
        let delta = now.wrapping_sub(self.time_stamp);
        let is_plain =
            payload.len() <= SMALL_MAX && delta < encode::DELTA_END && used + size <= SUBBUF_DATA;
        if is_plain {
            // Before the stores, so that nothing has to be looked up again behind them. A crash
            // leaves nothing of it.
            self.tail_page.write = (used + size) as u16;
            self.tail_page.entries += 1;
            self.time_stamp = now;
            tail.append(used, encode::small(size, delta), payload, size);
        }
        is_plain
    }

    /// To be called when what it looks at has changed.
    fn find_plain_tail(&mut self) {
        let is_plain = self.begun && self.nested == 0 && self.missed_next.is_none();
        let tail = || self.memory().tail(self.data_offset(self.tail));
        self.plain_tail = is_plain.then(tail).flatten();
    }

    #[cold]
    #[inline(never)]
    fn record_in_steps(&mut self, payload: &[u8], now: u64) -> Result<(), ReserveError> {
        let event = self.reserve(payload.len(), now)?;
        self.write(&event, 0, payload);
        let at = self.data_offset(event.page) + event.payload;
        self.memory()
            .zero(at + payload.len(), event.capacity() - payload.len());
        self.commit(event);
        Ok(())
    }

    /// Forgets everything that was written: for the region of a forked process, which is laid out
    /// anew where the one of its parent was.
    pub(crate) fn restart(&mut self) {
        (self.begun, self.nested, self.missed_next) = (false, 0, None);
        (self.head, self.commit_page, self.tail) = (FIRST, FIRST, FIRST);
        (self.time_stamp, self.overrun) = (0, 0);
        self.tail_page = Page::default();
        self.pages.fill(Page::default());
        self.filled = 0;
        self.find_plain_tail();
    }

    /// Whether half of the sub-buffers were filled since the last turn ended, so that it is another
    /// CPU's. Not more often: what another processor wrote last takes many times as long to come by as
    /// an event, and with another CPU much of that comes, its writer and its meta. Half of those that
    /// are full between two turns, neither the reader's nor the tail, so that what two turns wrote is
    /// there as a whole.
    #[inline]
    pub(crate) fn take_turn(&mut self) -> bool {
        let full = self.region.geometry.nr_subbufs().saturating_sub(2);
        let is_over = self.filled >= (full / 2).max(1);
        if is_over {
            self.filled = 0;
        }
        is_over
    }

    /// Reserves an event of `len` payload bytes at time `now`.
    ///
    /// Reservations nest: an inner one is committed or discarded before the outer one. A time
    /// before the last event's counts as the same time.
    ///
    /// # Errors
    ///
    /// See [`ReserveError`]. The failure is counted.
    pub fn reserve(&mut self, len: usize, now: u64) -> Result<Reservation, ReserveError> {
        if len > PAYLOAD_MAX {
            return Err(ReserveError::TooLong { len });
        }
        let size = subbuf::record_size(len);
        let now = now.max(self.time_stamp);
        let mut delta = now - self.time_stamp;
        let mut extend = if delta >= encode::DELTA_END {
            TIME_RECORD
        } else {
            0
        };
        let fits = self.begun && self.used(self.tail) + extend + size <= SUBBUF_DATA;
        if !fits || self.missed_next.is_some() {
            self.fill_page();
            self.next_page(now)?;
            (delta, extend) = (0, 0);
        }
        // If the page was just begun, its own: that stays, as readers go by it.
        let time_stamp_before = self.time_stamp;
        let start = self.used(self.tail);
        let at = self.data_offset(self.tail);
        if extend > 0 {
            self.memory().write(at + start, &encode::time_extend(delta));
            delta = 0;
        }
        let record = start + extend;
        let (header, header_len) = encode::data(size, delta);
        self.memory().write(at + record, &header[..header_len]);
        self.time_stamp = now;
        self.tail_page.write += (extend + size) as u16;
        self.tail_page.entries += 1;
        self.nested += 1;
        self.find_plain_tail();
        Ok(Reservation {
            page: self.tail,
            start,
            record,
            payload: record + header_len,
            end: record + size,
            delta,
            time_stamp_before,
        })
    }

    /// Writes `bytes` at `offset` of the payload.
    ///
    /// # Panics
    ///
    /// When the bytes do not fit the reservation's capacity.
    pub fn write(&self, reservation: &Reservation, offset: usize, bytes: &[u8]) {
        let fits =
            offset <= reservation.capacity() && bytes.len() <= reservation.capacity() - offset;
        assert!(fits, "the payload does not fit what was reserved");
        let at = self.data_offset(reservation.page) + reservation.payload + offset;
        self.memory().write(at, bytes);
    }

    /// Commits an event. The outermost commit makes it and everything nested in it visible.
    pub fn commit(&mut self, reservation: Reservation) {
        drop(reservation);
        self.end_nested();
    }

    /// Throws a reserved event away. The last one of the page gives its space back; another one
    /// becomes padding that keeps its time delta.
    pub fn discard(&mut self, reservation: Reservation) {
        let Reservation {
            page,
            start,
            record,
            end,
            delta,
            time_stamp_before,
            ..
        } = reservation;
        if page == self.tail && end == self.used(page) {
            self.tail_page.write = start as u16;
            self.tail_page.entries -= 1;
            self.time_stamp = time_stamp_before;
        } else {
            let padding = encode::padding(end - record, delta.max(1));
            self.memory()
                .write(self.data_offset(page) + record, &padding);
            // A walk takes padding with a delta of 1 for a filler, and counts the others.
            self.page_mut(page).entries -= u16::from(delta <= 1);
        }
        self.end_nested();
    }

    // ---- Steps ----

    fn end_nested(&mut self) {
        self.nested -= 1;
        self.find_plain_tail();
        if self.nested == 0 {
            self.publish();
        }
    }

    fn memory(&self) -> &'r M {
        &self.region.memory
    }

    fn page_offset(&self, page: u32) -> usize {
        self.region.geometry.subbuf_offset(self.cpu, page)
    }

    fn data_offset(&self, page: u32) -> usize {
        self.page_offset(page) + SUBBUF_HEADER
    }

    fn page(&self, page: u32) -> Page {
        if page == self.tail {
            self.tail_page
        } else {
            self.pages[page as usize]
        }
    }

    fn page_mut(&mut self, page: u32) -> &mut Page {
        if page == self.tail {
            &mut self.tail_page
        } else {
            &mut self.pages[page as usize]
        }
    }

    fn used(&self, page: u32) -> usize {
        usize::from(self.page(page).write)
    }

    fn after(&self, page: u32) -> u32 {
        if page + 1 < self.region.geometry.nr_subbufs() {
            page + 1
        } else {
            FIRST
        }
    }

    fn count(&self, counter: Counter, by: u64) {
        if let Some(layout) = &self.region.extension {
            count(layout, self.memory(), self.cpu, counter, by);
        }
    }

    /// Ends the tail page as the kernel does when an event does not fit its rest.
    fn fill_page(&mut self) {
        let used = self.used(self.tail);
        if !self.begun || used == SUBBUF_DATA {
            return;
        }
        let at = self.data_offset(self.tail) + used;
        let rest = SUBBUF_DATA - used;
        if rest < 8 {
            // Outside of the committed bytes.
            self.memory().write(at, &encode::null_padding());
            return;
        }
        self.memory().write(at, &encode::padding(rest, 1));
        self.tail_page.write = SUBBUF_DATA as u16;
        if self.nested == 0 {
            self.store_commit(self.tail);
        }
    }

    /// Moves the tail to the next sub-buffer and begins it.
    fn next_page(&mut self, time_stamp: u64) -> Result<(), ReserveError> {
        if self.begun {
            let next = self.after(self.tail);
            self.check_room(next)?;
            if self.nested == 0 {
                self.seal(self.tail);
            }
            if next == self.head {
                self.give_up_head();
            }
            self.pages[self.tail as usize] = self.tail_page;
            self.tail = next;
            self.filled = self.filled.saturating_add(1);
        }
        self.begun = true;
        let missed = self.missed_next.take();
        self.tail_missed = missed;
        self.time_stamp = time_stamp;
        self.tail_page = Page::default();
        self.find_plain_tail();
        let (layout, at) = (self.region.extension.as_ref(), self.page_offset(self.tail));
        if let Some(layout) = layout {
            let seal = Seal {
                time_stamp,
                size: 0,
                entries: 0,
                missed,
                crc: None,
            };
            seal.store(layout, self.memory(), self.cpu, self.tail);
        }
        // Behind the head: a reader that sees the zero sees that the sub-buffer was given up.
        self.memory().store_u64_release(at + 8, 0);
        // Readers that copied the page look at its time stamp again: it changes before the data.
        self.memory().store_u64_release(at, time_stamp);
        crate::sync::fence(core::sync::atomic::Ordering::Release);
        if self.nested == 0 {
            self.commit_page = self.tail;
            self.store_commit_buffer();
        }
        Ok(())
    }

    /// Whether `next` may be begun: counts a failure.
    fn check_room(&self, next: u32) -> Result<(), ReserveError> {
        if self.nested > 0 && next == self.commit_page {
            self.count(Counter::CommitOverrun, 1);
            return Err(ReserveError::CommitOverrun);
        }
        if next == self.head && !self.overwrite {
            self.count(Counter::Dropped, 1);
            return Err(ReserveError::Full);
        }
        Ok(())
    }

    /// Moves the head on: the oldest sub-buffer is going to be overwritten.
    fn give_up_head(&mut self) {
        let entries = u64::from(self.page(self.head).entries);
        self.head = self.after(self.head);
        self.overrun = self.overrun.wrapping_add(entries);
        self.count(Counter::Overrun, entries);
        if let Some(layout) = &self.region.extension {
            let first_event = self.overrun % HeadMark::MODULUS;
            HeadMark {
                subbuf: self.head,
                first_event,
            }
            .store(layout, self.memory(), self.cpu);
        }
        let geometry = &self.region.geometry;
        let address = geometry.stored_address(self.cpu, self.head);
        self.memory()
            .store_u64_release(geometry.head_offset(self.cpu), address);
    }

    /// Publishes everything from the commit page to the tail page.
    fn publish(&mut self) {
        while self.commit_page != self.tail {
            self.store_commit(self.commit_page);
            self.seal(self.commit_page);
            self.commit_page = self.after(self.commit_page);
            self.store_commit_buffer();
        }
        self.store_commit(self.tail);
    }

    fn store_commit(&self, page: u32) {
        self.memory()
            .store_u64_release(self.page_offset(page) + 8, self.used(page) as u64);
    }

    fn store_commit_buffer(&self) {
        let geometry = &self.region.geometry;
        let address = geometry.stored_address(self.cpu, self.commit_page);
        self.memory()
            .store_u64_release(geometry.commit_offset(self.cpu), address);
    }

    fn seal(&self, page: u32) {
        let Some(layout) = &self.region.extension else {
            return;
        };
        let size = self.used(page);
        let memory = self.memory();
        let time_stamp = memory.load_u64(self.page_offset(page));
        let seal = Seal {
            time_stamp,
            size: size as u32,
            entries: self.page(page).entries,
            missed: self.missed_before(page, time_stamp),
            crc: Some(checksum_by(time_stamp, size, |crc| {
                memory.crc32c_of_written(crc, self.data_offset(page), size)
            })),
        };
        seal.store(layout, memory, self.cpu, page);
    }

    /// What was missed before a page that is not sealed yet.
    fn missed_before(&self, page: u32, time_stamp: u64) -> Option<Missed> {
        if page == self.tail {
            return self.tail_missed;
        }
        let layout = self.region.extension.as_ref()?;
        let open = Seal::load(layout, self.memory(), self.cpu, page);
        open.filter(|open| open.time_stamp == time_stamp)?.missed
    }
}

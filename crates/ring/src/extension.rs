//! Outlive's extension behind a ring: where its sections lie, the anchor that says so, the
//! counters that a kernel loses in a crash, the readers' cursors, and the clock pairs.
//!
//! The last page of an area is the *anchor*: a copy of the ring's geometry and the offset of each
//! section, with a checksum. It is written once, after everything else of a fresh region, so an
//! area without a valid anchor has no extension, and a ring whose own first page is gone is still
//! found.

use alloc::vec::Vec;

use crate::layout::{Geometry, SUBBUF_SIZE};
use crate::{Memory, MemoryMut, crc32c};

/// First word of an anchor: `OUTLIVE` and a line feed.
const ANCHOR_MAGIC: u64 = u64::from_le_bytes(*b"OUTLIVE\n");
/// Version of the extension's layout.
const ANCHOR_VERSION: u32 = 1;
/// Bytes of the anchor that its checksum covers.
const ANCHOR_CHECKED: usize = 124;
const PAGE: usize = 4096;
/// Pages behind a ring in which its anchor is looked for: extensions are smaller than this.
const SEARCHED_PAGES: usize = 1 << 16;

/// Bytes of a run record slot.
pub(crate) const RUN_SLOT: usize = PAGE;
/// Bytes of a clock pair's slot.
const PAIR_SLOT: usize = 64;
/// Clock pairs that are kept: the first one, and the newest of the others.
const PAIR_SLOTS: usize = PAGE / PAIR_SLOT;
/// Bytes of a CPU's counters.
const COUNTER_SLOT: usize = 64;
/// Bytes of a CPU's two cursor slots.
const CURSOR_SLOT: usize = 64;
/// Bytes of a seal.
pub(crate) const SEAL: usize = 32;
/// Bytes of a slot of the task name table.
pub(crate) const NAME_SLOT: usize = 32;

/// Where the sections of the extension lie. Offsets count from the start of the area.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    ring: Geometry,
    runs: u64,
    heartbeat: u64,
    pairs: u64,
    counters: u64,
    cursors: u64,
    seals: u64,
    names: u64,
    names_len: u64,
    log: u64,
    log_len: u64,
    area_size: u64,
}

impl Layout {
    /// Lays an extension behind a ring: a catalog log of `log_bytes`, and a table of `names` task
    /// names. Both are rounded up to pages.
    #[must_use]
    pub fn new(ring: &Geometry, log_bytes: usize, names: usize) -> Self {
        let page = |bytes: usize| bytes.next_multiple_of(PAGE) as u64;
        let nr_cpus = ring.nr_cpus() as usize;
        let runs = ring.size();
        let heartbeat = runs + 2 * RUN_SLOT as u64;
        let pairs = heartbeat + PAGE as u64;
        let counters = pairs + PAGE as u64;
        let cursors = counters + page(nr_cpus * COUNTER_SLOT);
        let seals = cursors + page(nr_cpus * CURSOR_SLOT);
        let names_at = seals + page(nr_cpus * ring.nr_subbufs() as usize * SEAL);
        let names_len = page((names * NAME_SLOT).max(1));
        let log = names_at + names_len;
        let log_len = page(log_bytes.max(1));
        Self {
            ring: *ring,
            runs,
            heartbeat,
            pairs,
            counters,
            cursors,
            seals,
            names: names_at,
            names_len,
            log,
            log_len,
            area_size: log + log_len + PAGE as u64,
        }
    }

    /// As [`Layout::new`], in an area of exactly `area_size` bytes: the catalog gets what is left.
    /// `None` if the extension would not fit.
    #[must_use]
    pub fn in_area(ring: &Geometry, area_size: u64, names: usize) -> Option<Self> {
        let least = Self::new(ring, 0, names);
        let rest = area_size.checked_sub(least.area_size)?;
        rest.is_multiple_of(PAGE as u64).then(|| Self {
            log_len: least.log_len + rest,
            area_size,
            ..least
        })
    }

    /// Splits a fixed range of `area_size` bytes into a ring and its extension.
    ///
    /// # Errors
    ///
    /// When no ring for so many CPUs fits beside its extension.
    pub fn carve(
        area_size: u64,
        nr_cpus: u32,
        log_bytes: usize,
        names: usize,
    ) -> Result<Self, crate::LayoutError> {
        // The extension grows with the ring (seals), so the largest ring is searched for by pages.
        let pages = area_size / PAGE as u64;
        let fits = |ring_pages: u64| {
            let ring = Geometry::new(ring_pages * PAGE as u64, nr_cpus)?;
            Ok::<_, crate::LayoutError>(Self::new(&ring, log_bytes, names))
        };
        let (mut low, mut high) = (0, pages);
        while low < high {
            let middle = (low + high).div_ceil(2);
            match fits(middle) {
                Ok(layout) if layout.area_size > area_size => high = middle - 1,
                _ => low = middle,
            }
        }
        let mut layout = fits(low)?;
        if layout.area_size > area_size {
            return Err(crate::LayoutError::TooSmall {
                size: area_size,
                nr_cpus,
                needed: layout.area_size,
            });
        }
        // What is left over goes to the catalog, so that the anchor is the last page.
        let rest = (area_size - layout.area_size) / PAGE as u64 * PAGE as u64;
        layout.log_len += rest;
        layout.area_size += rest;
        Ok(layout)
    }

    /// The ring before the extension.
    #[must_use]
    pub fn ring(&self) -> &Geometry {
        &self.ring
    }

    /// Bytes of ring and extension.
    #[must_use]
    pub fn area_size(&self) -> u64 {
        self.area_size
    }

    /// Offset and bytes of the catalog log.
    pub(crate) fn log(&self) -> (usize, usize) {
        (self.log as usize, self.log_len as usize)
    }

    /// Offset and number of slots of the task name table.
    pub(crate) fn names(&self) -> (usize, usize) {
        (self.names as usize, self.names_len as usize / NAME_SLOT)
    }

    /// Offset of one of the two run record slots.
    pub(crate) fn run_slot(&self, slot: usize) -> usize {
        self.runs as usize + slot * RUN_SLOT
    }

    /// Offset of a sub-buffer's seal.
    pub(crate) fn seal(&self, cpu: u32, subbuf: u32) -> usize {
        let index = cpu as usize * self.ring.nr_subbufs() as usize + subbuf as usize;
        self.seals as usize + index * SEAL
    }

    /// Offset of the switch of the application's event with this id, a byte; `None` of an id that
    /// no application uses. See [`switch`].
    #[must_use]
    pub fn switch(&self, event_id: u16) -> Option<usize> {
        let at = usize::from(event_id);
        (switch::IDS.contains(&event_id)).then(|| self.heartbeat as usize + at)
    }

    fn counter(&self, cpu: u32, counter: Counter) -> usize {
        assert!(cpu < self.ring.nr_cpus());
        self.counters as usize + cpu as usize * COUNTER_SLOT + counter as usize * 8
    }

    fn cursor(&self, cpu: u32, slot: usize) -> usize {
        assert!(cpu < self.ring.nr_cpus());
        self.cursors as usize + cpu as usize * CURSOR_SLOT + slot * (CURSOR_SLOT / 2)
    }

    fn sections(&self) -> [u64; 11] {
        [
            self.runs,
            self.heartbeat,
            self.pairs,
            self.counters,
            self.cursors,
            self.seals,
            self.names,
            self.names_len,
            self.log,
            self.log_len,
            self.area_size,
        ]
    }

    /// Writes the anchor: from here on the area has an extension.
    pub(crate) fn store(&self, memory: &impl MemoryMut) {
        let mut anchor = [0; 128];
        let mut put = |at: usize, bytes: &[u8]| anchor[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, &ANCHOR_MAGIC.to_le_bytes());
        put(8, &ANCHOR_VERSION.to_le_bytes());
        put(12, &(SUBBUF_SIZE as u32).to_le_bytes());
        put(16, &self.ring.size().to_le_bytes());
        put(24, &self.ring.nr_cpus().to_le_bytes());
        put(28, &self.ring.nr_subbufs().to_le_bytes());
        for (i, section) in self.sections().iter().enumerate() {
            put(32 + 8 * i, &section.to_le_bytes());
        }
        let crc = crc32c(0, &anchor[..ANCHOR_CHECKED]);
        anchor[ANCHOR_CHECKED..].copy_from_slice(&crc.to_le_bytes());
        memory.write(self.area_size as usize - PAGE, &anchor);
    }

    /// Reads the anchor in the last page of `memory`, if a valid one is there; else looks for one
    /// where the area may have ended when it was laid out: a range of memory can have grown.
    ///
    /// Every offset is computed again from the geometry and compared: a forged anchor cannot
    /// point anywhere else.
    pub fn load(memory: &impl Memory) -> Option<Self> {
        let last_page = memory.len().checked_sub(PAGE)?;
        Self::load_at(memory, last_page).or_else(|| Self::search(memory, last_page))
    }

    fn search(memory: &impl Memory, last_page: usize) -> Option<Self> {
        if memory.load_u32(0) != crate::layout::MAGIC {
            return None;
        }
        let ring_end = usize::try_from(memory.load_u64(crate::layout::TOTAL_SIZE)).ok()?;
        (ring_end.checked_next_multiple_of(PAGE)?..last_page)
            .step_by(PAGE)
            .take(SEARCHED_PAGES)
            .filter(|&page| memory.load_u64(page) == ANCHOR_MAGIC)
            .find_map(|page| Self::load_at(memory, page))
    }

    /// Reads the anchor in one page, which has to be the last one of the area.
    fn load_at(memory: &impl Memory, last_page: usize) -> Option<Self> {
        if !last_page.is_multiple_of(PAGE) {
            return None;
        }
        let mut anchor = [0; 128];
        memory.read(last_page, &mut anchor);
        let u32_at =
            |at: usize| u32::from_le_bytes(anchor[at..at + 4].try_into().unwrap_or_default());
        let u64_at =
            |at: usize| u64::from_le_bytes(anchor[at..at + 8].try_into().unwrap_or_default());
        if u64_at(0) != ANCHOR_MAGIC
            || u32_at(8) != ANCHOR_VERSION
            || u32_at(ANCHOR_CHECKED) != crc32c(0, &anchor[..ANCHOR_CHECKED])
        {
            return None;
        }
        let ring = Geometry::new(u64_at(16), u32_at(24)).ok()?;
        if ring.nr_subbufs() != u32_at(28) {
            return None;
        }
        let (names_len, log_len) = (u64_at(32 + 7 * 8), u64_at(32 + 9 * 8));
        if names_len > memory.len() as u64 || log_len > memory.len() as u64 {
            return None;
        }
        let layout = Self::new(&ring, log_len as usize, names_len as usize / NAME_SLOT);
        let same = layout
            .sections()
            .iter()
            .enumerate()
            .all(|(i, &s)| s == u64_at(32 + 8 * i));
        (same && layout.area_size == (last_page + PAGE) as u64).then_some(layout)
    }
}

/// Counters of a CPU that a kernel keeps in memory only, so that they are gone after a crash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub enum Counter {
    /// Events overwritten by newer ones.
    Overrun = 0,
    /// Reservations that failed because nested writers had filled the ring.
    CommitOverrun = 1,
    /// Reservations that failed because the ring was full and not overwritten.
    Dropped = 2,
    /// Events that were lost before they reached the region: the source overwrote them first.
    Lost = 3,
    /// Times that as many events as nobody counted were lost before they reached the region.
    LostUnknown = 4,
    /// Events consumed by readers.
    Read = 5,
    /// The head page and the events overwritten before it, in one word, for readers that follow a
    /// live writer.
    HeadMark = 6,
}

/// The head page together with the number of the first event in it, so that a reader that was
/// overtaken can say exactly how many events it missed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct HeadMark {
    /// Physical index of the head page.
    pub(crate) subbuf: u32,
    /// Events overwritten before it, modulo 2^40.
    pub(crate) first_event: u64,
}

impl HeadMark {
    const SUBBUF_BITS: u32 = 24;
    /// Event numbers are modulo this.
    pub(crate) const MODULUS: u64 = 1 << (64 - Self::SUBBUF_BITS);

    pub(crate) fn load(layout: &Layout, memory: &impl Memory, cpu: u32) -> Self {
        let word = memory.load_u64_acquire(layout.counter(cpu, Counter::HeadMark));
        Self {
            subbuf: word as u32 & ((1 << Self::SUBBUF_BITS) - 1),
            first_event: word >> Self::SUBBUF_BITS,
        }
    }

    pub(crate) fn store(self, layout: &Layout, memory: &impl MemoryMut, cpu: u32) {
        let word = self.first_event << Self::SUBBUF_BITS | u64::from(self.subbuf);
        memory.store_u64_release(layout.counter(cpu, Counter::HeadMark), word);
    }
}

/// The counters of one CPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counters {
    /// See [`Counter::Overrun`].
    pub overrun: u64,
    /// See [`Counter::CommitOverrun`].
    pub commit_overrun: u64,
    /// See [`Counter::Dropped`].
    pub dropped: u64,
    /// See [`Counter::Lost`].
    pub lost: u64,
    /// See [`Counter::LostUnknown`].
    pub lost_unknown: u64,
    /// See [`Counter::Read`].
    pub read: u64,
}

impl Counters {
    /// Reads the counters of a CPU.
    #[must_use]
    pub fn load(layout: &Layout, memory: &impl Memory, cpu: u32) -> Self {
        let get = |counter| memory.load_u64(layout.counter(cpu, counter));
        Self {
            overrun: get(Counter::Overrun),
            commit_overrun: get(Counter::CommitOverrun),
            dropped: get(Counter::Dropped),
            lost: get(Counter::Lost),
            lost_unknown: get(Counter::LostUnknown),
            read: get(Counter::Read),
        }
    }
}

/// Adds to a counter.
pub fn count(layout: &Layout, memory: &impl MemoryMut, cpu: u32, counter: Counter, by: u64) {
    memory.add_u64(layout.counter(cpu, counter), by);
}

/// How far a consuming reader has come on a CPU: it has consumed everything before this place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Cursor {
    /// Grows with every store; 0: nothing was ever consumed.
    pub sequence: u64,
    /// Time stamp of the sub-buffer that the cursor is in.
    pub time_stamp: u64,
    /// Bytes of its data that are consumed, 4080 at most.
    pub offset: u16,
    /// Number of the next event, modulo 2^40.
    pub next_event: u64,
}

impl Cursor {
    /// Reads the newer of a CPU's two cursor slots that is whole.
    #[must_use]
    pub fn load(layout: &Layout, memory: &impl Memory, cpu: u32) -> Self {
        (0..2)
            .filter_map(|slot| {
                let mut bytes = [0; CURSOR_SLOT / 2];
                memory.read(layout.cursor(cpu, slot), &mut bytes);
                let word = |i: usize| {
                    u64::from_le_bytes(bytes[i * 8..i * 8 + 8].try_into().unwrap_or_default())
                };
                let cursor = Self {
                    sequence: word(0),
                    time_stamp: word(1),
                    offset: word(2) as u16,
                    next_event: word(2) >> 16,
                };
                (word(3) == u64::from(crc32c(0, &bytes[..24])) && cursor.sequence > 0)
                    .then_some(cursor)
            })
            .max_by_key(|cursor| cursor.sequence)
            .unwrap_or_default()
    }

    /// Stores the cursor in the slot that does not hold the newest one.
    pub fn store(self, layout: &Layout, memory: &impl MemoryMut, cpu: u32) {
        let mut bytes = [0; CURSOR_SLOT / 2];
        let place = self.next_event << 16 | u64::from(self.offset);
        for (i, word) in [self.sequence, self.time_stamp, place]
            .into_iter()
            .enumerate()
        {
            bytes[i * 8..i * 8 + 8].copy_from_slice(&word.to_le_bytes());
        }
        let crc = u64::from(crc32c(0, &bytes[..24]));
        bytes[24..].copy_from_slice(&crc.to_le_bytes());
        memory.write(layout.cursor(cpu, self.sequence as usize % 2), &bytes);
    }
}

/// One reading of the trace clock beside the system's clocks. All in nanoseconds but for
/// `trace`, which is in the unit of the trace clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ClockPair {
    /// The trace clock.
    pub trace: u64,
    /// `CLOCK_MONOTONIC`.
    pub monotonic_ns: u64,
    /// `CLOCK_BOOTTIME`.
    pub boottime_ns: u64,
    /// `CLOCK_REALTIME`, since 1970.
    pub realtime_ns: u64,
    /// The readings were taken within this time of each other.
    pub error_ns: u64,
}

/// Stores the clock pair number `sequence` of a run: the first one stays, later ones take turns.
pub fn store_clock_pair(layout: &Layout, memory: &impl MemoryMut, sequence: u64, pair: ClockPair) {
    let slot = match sequence {
        0 => 0,
        n => 1 + ((n - 1) % (PAIR_SLOTS as u64 - 1)) as usize,
    };
    let mut bytes = [0; PAIR_SLOT];
    let words = [
        sequence + 1,
        pair.trace,
        pair.monotonic_ns,
        pair.boottime_ns,
        pair.realtime_ns,
        pair.error_ns,
        0,
    ];
    for (i, word) in words.into_iter().enumerate() {
        bytes[i * 8..i * 8 + 8].copy_from_slice(&word.to_le_bytes());
    }
    let crc = u64::from(crc32c(0, &bytes[..PAIR_SLOT - 8]));
    bytes[PAIR_SLOT - 8..].copy_from_slice(&crc.to_le_bytes());
    memory.write(layout.pairs as usize + slot * PAIR_SLOT, &bytes);
}

/// The clock pairs that are whole, oldest first.
#[must_use]
pub fn clock_pairs(layout: &Layout, memory: &impl Memory) -> Vec<ClockPair> {
    let mut pairs: Vec<(u64, ClockPair)> = (0..PAIR_SLOTS)
        .filter_map(|slot| {
            let mut bytes = [0; PAIR_SLOT];
            memory.read(layout.pairs as usize + slot * PAIR_SLOT, &mut bytes);
            let word = |i: usize| {
                u64::from_le_bytes(bytes[i * 8..i * 8 + 8].try_into().unwrap_or_default())
            };
            let whole = word(7) == u64::from(crc32c(0, &bytes[..PAIR_SLOT - 8])) && word(0) > 0;
            let pair = ClockPair {
                trace: word(1),
                monotonic_ns: word(2),
                boottime_ns: word(3),
                realtime_ns: word(4),
                error_ns: word(5),
            };
            whole.then_some((word(0), pair))
        })
        .collect();
    pairs.sort_unstable_by_key(|&(sequence, _)| sequence);
    pairs.into_iter().map(|(_, pair)| pair).collect()
}

/// Switches of an application's events: a byte for each, behind the heartbeat's words, which
/// another process may flip while the program runs.
pub mod switch {
    /// The event is not recorded.
    pub const OFF: u8 = 1;
    /// Event ids that have a switch. The kernel's own fixed ids are below.
    pub const IDS: core::ops::Range<u16> = 64..4096;
}

/// The recorder's sign of life. Each word is stored on its own and is valid on its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Heartbeat {
    /// `CLOCK_MONOTONIC` at the last beat.
    pub monotonic_ns: u64,
    /// `CLOCK_BOOTTIME` at the last beat.
    pub boottime_ns: u64,
    /// `CLOCK_REALTIME` at the last beat, since 1970.
    pub realtime_ns: u64,
    /// The longest time so far between two looks at the source.
    pub max_delay_ns: u64,
    /// Looks at the source so far.
    pub polls: u64,
    /// Catalog records that did not fit.
    pub catalog_dropped: u64,
    /// The oldest that an event was, so far, before it was written back to the disk. 0 where the
    /// recorder leaves that to the kernel.
    pub max_unflushed_ns: u64,
    /// `CLOCK_REALTIME` at the end of the longest time between two beats, which is `max_delay_ns` then. 0
    /// where the recorder does not tell.
    pub max_delay_until_ns: u64,
}

impl Heartbeat {
    /// As many as there is room for before the switches.
    const WORDS: usize = 8;

    fn words(self) -> [u64; Self::WORDS] {
        [
            self.monotonic_ns,
            self.boottime_ns,
            self.realtime_ns,
            self.max_delay_ns,
            self.polls,
            self.catalog_dropped,
            self.max_unflushed_ns,
            self.max_delay_until_ns,
        ]
    }

    /// Reads the last beat.
    #[must_use]
    pub fn load(layout: &Layout, memory: &impl Memory) -> Self {
        let mut words = [0; Self::WORDS];
        for (i, word) in words.iter_mut().enumerate() {
            *word = memory.load_u64(layout.heartbeat as usize + i * 8);
        }
        let [
            monotonic_ns,
            boottime_ns,
            realtime_ns,
            max_delay_ns,
            polls,
            catalog_dropped,
            max_unflushed_ns,
            max_delay_until_ns,
        ] = words;
        Self {
            monotonic_ns,
            boottime_ns,
            realtime_ns,
            max_delay_ns,
            polls,
            catalog_dropped,
            max_unflushed_ns,
            max_delay_until_ns,
        }
    }

    /// Stores a beat.
    pub fn store(self, layout: &Layout, memory: &impl MemoryMut) {
        for (i, word) in self.words().into_iter().enumerate() {
            memory.store_u64(layout.heartbeat as usize + i * 8, word);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::HeapMemory;

    fn layout() -> Layout {
        Layout::new(&Geometry::new(64 << 10, 2).unwrap(), 5000, 100)
    }

    #[test]
    fn an_anchor_is_found_and_a_damaged_or_moved_one_is_not() {
        let layout = layout();
        let memory = HeapMemory::new(layout.area_size() as usize);
        assert_eq!(Layout::load(&memory), None);
        layout.store(&memory);
        assert_eq!(Layout::load(&memory), Some(layout));
        let bytes = memory.to_vec();
        let mut longer = bytes.clone();
        longer.splice(0..0, [0; PAGE]);
        assert_eq!(Layout::load(&HeapMemory::from_bytes(&longer)), None);
        for bit in 0..ANCHOR_CHECKED * 8 {
            let mut damaged = bytes.clone();
            let at = damaged.len() - PAGE + bit / 8;
            damaged[at] ^= 1 << (bit % 8);
            assert_eq!(
                Layout::load(&HeapMemory::from_bytes(&damaged)),
                None,
                "bit {bit}"
            );
        }
    }

    #[test]
    fn an_anchor_is_found_in_a_range_that_has_grown() {
        let layout = layout();
        let memory = HeapMemory::new(layout.area_size() as usize + 7 * PAGE);
        crate::Region::format(&memory, *layout.ring(), Some(layout)).unwrap();
        assert_eq!(Layout::load(&memory), Some(layout));
        // Not without the ring before it.
        memory.store_u32(0, 0);
        assert_eq!(Layout::load(&memory), None);
    }

    #[test]
    fn a_carved_area_is_used_to_its_last_page() {
        for area in [256 << 10, 1 << 20, (16 << 20) - 4096, 100 << 20] {
            let layout = Layout::carve(area, 4, 64 << 10, 1024).unwrap();
            assert_eq!(layout.area_size(), area);
            assert!(layout.ring().size() > area * 2 / 5);
        }
        assert!(Layout::carve(64 << 10, 4, 64 << 10, 1024).is_err());
    }

    #[test]
    fn cursors_take_turns_and_survive_a_torn_store() {
        let layout = layout();
        let memory = HeapMemory::new(layout.area_size() as usize);
        assert_eq!(Cursor::load(&layout, &memory, 1), Cursor::default());
        for sequence in 1..5 {
            let cursor = Cursor {
                sequence,
                time_stamp: 10 * sequence,
                offset: 8,
                next_event: 3,
            };
            cursor.store(&layout, &memory, 1);
            assert_eq!(Cursor::load(&layout, &memory, 1), cursor);
        }
        memory.store_u64(layout.cursor(1, 0) + 8, 99);
        assert_eq!(Cursor::load(&layout, &memory, 1).sequence, 3);
    }

    #[test]
    fn the_first_clock_pair_and_the_newest_are_kept() {
        let layout = layout();
        let memory = HeapMemory::new(layout.area_size() as usize);
        for sequence in 0..200 {
            let pair = ClockPair {
                trace: 1000 + sequence,
                ..ClockPair::default()
            };
            store_clock_pair(&layout, &memory, sequence, pair);
        }
        let traces: Vec<u64> = clock_pairs(&layout, &memory)
            .iter()
            .map(|p| p.trace)
            .collect();
        assert_eq!(traces.len(), PAIR_SLOTS);
        assert_eq!((traces[0], traces[1], traces[63]), (1000, 1137, 1199));
    }
}

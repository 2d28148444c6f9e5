//! What can be kept of a region that somebody else left: the writer died, the machine crashed,
//! bytes were damaged, or a kernel wrote it.
//!
//! Nothing in the region is trusted, and nothing in it is changed. In order:
//!
//! 1. The geometry is taken from the anchor, else from the global meta, else from whatever CPU
//!    blocks are left. No damage to one loses the others.
//! 2. Each sub-buffer is judged by itself: by its seal where it has one, else by its structure.
//! 3. A CPU's good sub-buffers are put in ring order, as far as the pointers and the index array
//!    are usable, and the longest chain whose times fit is kept. Without a usable index array the
//!    order is that of time.
//! 4. What was rejected is listed with its reason, and each gap with its bounds in time.
//!
//! Where the kernel gives up a CPU or the whole region, only the damaged sub-buffers are lost.

use alloc::vec::Vec;
use core::fmt;

use crate::extension::Layout;
use crate::layout::{BUFFERS_OFFSET, CpuMeta, MAGIC, SUBBUF_DATA, SUBBUF_HEADER, TOTAL_SIZE};
use crate::order::{Span, chain, rotate_to_oldest};
use crate::seal::{Seal, checksum};
use crate::subbuf::{self, BadRecord, Commit, DROPPED, Missed};
use crate::{Geometry, LayoutError, Memory, RegionFormat, Scratch};

/// Index of the `tai` clock, whose times are those of the calendar.
const CLOCK_TAI: u32 = 8;
/// No clock that counts from boot gets here: 18 years of nanoseconds.
const CLOCK_MAX: u64 = 1 << 59;

/// Damage outside of the sub-buffers. It cost nothing unless something was rejected for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum MetaDamage {
    /// The first word is not that of a region.
    Magic(u32),
    /// The sizes of the metas are none that are known.
    StructSizes(u32),
    /// The total size is wrong.
    TotalSize(u64),
    /// The offset of the first CPU's meta is wrong.
    BuffersOffset(u64),
    /// The scratch area holds what no kernel writes.
    Scratch,
    /// A CPU's sub-buffer size is not 4096.
    SubbufSize(u32),
    /// A CPU's number of sub-buffers is wrong.
    NrSubbufs(u32),
    /// A CPU's head buffer is no sub-buffer of it.
    Head(u64),
    /// A CPU's commit buffer is no sub-buffer of it.
    Commit(u64),
    /// An element of a CPU's index array is out of range or there twice.
    Index {
        /// Which element.
        position: u32,
        /// What it says.
        value: u32,
    },
}

impl fmt::Display for MetaDamage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Magic(word) => write!(f, "mismatch of magic: {word:#010x}"),
            Self::StructSizes(word) => write!(f, "mismatch of struct size: {word:#010x}"),
            Self::TotalSize(size) => write!(f, "mismatch of total size: {size:#x}"),
            Self::BuffersOffset(offset) => {
                write!(f, "mismatch of first buffer offset: {offset:#x}")
            }
            Self::Scratch => f.write_str("invalid scratch area"),
            Self::SubbufSize(size) => write!(f, "invalid subbuf_size: {size}"),
            Self::NrSubbufs(n) => write!(f, "invalid nr_subbufs: {n}"),
            Self::Head(address) => write!(f, "head buffer out of range: {address:#x}"),
            Self::Commit(address) => write!(f, "commit buffer out of range: {address:#x}"),
            Self::Index { position, value } => {
                write!(
                    f,
                    "array out of range or duplicate: element {position} is {value:#x}"
                )
            }
        }
    }
}

/// Why a sub-buffer was not kept, or not as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reason {
    /// Its contents are not what was sealed.
    Checksum,
    /// It is closed and does not match its seal, nor do its contents.
    SealMismatch,
    /// Its records are bad.
    BadRecord(BadRecord),
    /// The commit word has bits set that nobody sets.
    CommitBits(u64),
    /// An earlier attach by a kernel dropped it.
    DroppedBefore,
    /// Its time does not fit between its neighbours'.
    TimeOutOfOrder,
    /// Its time is none that the trace clock can have.
    TimeBeyondClock(u64),
    /// It is empty between others that are not.
    Emptied,
    /// Kept up to a place behind which nothing was ever written, though the commit word says so.
    Cut {
        /// Bytes kept.
        kept: u32,
    },
    /// Kept; but it ends before its end and the next sub-buffer does not say why.
    Short {
        /// Bytes kept.
        kept: u32,
    },
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Checksum => f.write_str("contents do not match the seal's checksum"),
            Self::SealMismatch => f.write_str("closed, and its header does not match its seal"),
            Self::BadRecord(error) => error.fmt(f),
            Self::CommitBits(word) => write!(f, "commit word {word:#x} has stray bits"),
            Self::DroppedBefore => f.write_str("dropped when a kernel attached it before"),
            Self::TimeOutOfOrder => f.write_str("time out of order with its neighbours"),
            Self::TimeBeyondClock(time) => {
                write!(f, "time stamp {time:#x} is beyond the trace clock")
            }
            Self::Emptied => f.write_str("empty in the middle of the ring"),
            Self::Cut { kept } => write!(f, "unwritten behind the {kept} bytes that are kept"),
            Self::Short { kept } => {
                write!(f, "ends after {kept} bytes, before the sub-buffer's end")
            }
        }
    }
}

impl Reason {
    /// Whether the sub-buffer was kept all the same, in part.
    #[must_use]
    pub fn is_kept(&self) -> bool {
        matches!(self, Self::Cut { .. } | Self::Short { .. })
    }
}

/// A sub-buffer that was not kept as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rejected {
    /// Physical index.
    pub subbuf: u32,
    /// Why.
    pub reason: Reason,
}

/// How a kept sub-buffer was judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PageSource {
    /// Its contents match its seal.
    Sealed,
    /// Its header was damaged; its contents and its seal match, so the seal's header is used.
    RestoredFromSeal,
    /// It has no seal: its structure is that of a sub-buffer, no more is known.
    Unsealed,
}

/// A sub-buffer that is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Page {
    /// Physical index.
    pub subbuf: u32,
    /// Time of the first record.
    pub time_stamp: u64,
    /// Bytes of events.
    pub size: u32,
    /// Entries as the kernel's `stats` counts them: events and discarded records.
    pub entries: u32,
    /// What is missing before it.
    pub missed: Option<Missed>,
    /// How it was judged.
    pub source: PageSource,
    /// Time of the last record, if a walk was needed to judge the page.
    last: Option<u64>,
}

impl Page {
    /// Copies the events' bytes into `buffer` and returns them.
    pub fn read<'b>(
        &self,
        geometry: &Geometry,
        memory: &impl Memory,
        cpu: u32,
        buffer: &'b mut [u8; SUBBUF_DATA],
    ) -> &'b [u8] {
        let data = &mut buffer[..self.size as usize];
        memory.read(
            geometry.subbuf_offset(cpu, self.subbuf) + SUBBUF_HEADER,
            data,
        );
        data
    }

    fn last(&self, geometry: &Geometry, memory: &impl Memory, cpu: u32) -> u64 {
        self.last.unwrap_or_else(|| {
            let mut buffer = [0; SUBBUF_DATA];
            subbuf::walk(
                self.time_stamp,
                self.read(geometry, memory, cpu, &mut buffer),
            )
            .last
        })
    }

    fn span(&self) -> Span {
        Span {
            first: self.time_stamp,
            last: self.last.unwrap_or(self.time_stamp),
            proven: self.source != PageSource::Unsealed,
        }
    }
}

/// Events that are missing between two that are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hole {
    /// Time of the last event before; `None` at the beginning.
    pub after: Option<u64>,
    /// Time of the first event behind; `None` at the end.
    pub before: Option<u64>,
    /// How many.
    pub missed: Missed,
}

/// What is kept of one CPU.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RecoveredCpu {
    /// The CPU.
    pub cpu: u32,
    /// Kept sub-buffers, oldest first.
    pub pages: Vec<Page>,
    /// Sum of the pages' entries: the kernel's `entries`.
    pub entries: u64,
    /// Sum of the pages' sizes: the kernel's `bytes`.
    pub bytes: u64,
    /// Gaps, oldest first.
    pub holes: Vec<Hole>,
    /// Sub-buffers that are not kept, or not as a whole.
    pub rejected: Vec<Rejected>,
    /// Damage of the CPU's meta.
    pub damage: Vec<MetaDamage>,
    /// Time stamp of the head page, the kernel's `oldest event ts`; `None` if it is empty.
    pub oldest: Option<u64>,
}

impl RecoveredCpu {
    /// Whether everything of this CPU was found whole.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.rejected.is_empty() && self.damage.is_empty()
    }
}

/// What is kept of a region.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recovery {
    /// Where the region's parts lie.
    pub geometry: Geometry,
    /// Outlive's extension, if the region has one.
    pub extension: Option<Layout>,
    /// What a kernel noted; `None` if it is damaged.
    pub scratch: Option<Scratch>,
    /// Damage of the global meta.
    pub damage: Vec<MetaDamage>,
    /// Per possible CPU.
    pub cpus: Vec<RecoveredCpu>,
}

impl Recovery {
    /// Recovers a region.
    ///
    /// # Errors
    ///
    /// [`LayoutError::NotARegion`] when nothing of a known layout is found.
    pub fn new(memory: &impl Memory) -> Result<Self, LayoutError> {
        let mut recovery = Self::locate(memory)?;
        recovery.cpus = (0..recovery.geometry.nr_cpus())
            .map(|cpu| recovery.recover_cpu(memory, cpu))
            .collect();
        Ok(recovery)
    }

    /// Finds the region's parts and judges the global meta; no CPU is looked at yet.
    ///
    /// # Errors
    ///
    /// As [`Recovery::new`].
    pub fn locate(memory: &impl Memory) -> Result<Self, LayoutError> {
        let extension = Layout::load(memory);
        let geometry = match &extension {
            Some(layout) => *layout.ring(),
            None => find_geometry(memory)?,
        };
        let scratch = Scratch::load(&geometry, memory);
        let mut damage = global_damage(&geometry, memory);
        if scratch.is_none() {
            damage.push(MetaDamage::Scratch);
        }
        Ok(Self {
            geometry,
            extension,
            scratch,
            damage,
            cpus: Vec::new(),
        })
    }

    /// What is kept of a CPU.
    ///
    /// # Panics
    ///
    /// When there is no such CPU.
    #[must_use]
    pub fn cpu(&self, cpu: u32) -> &RecoveredCpu {
        &self.cpus[cpu as usize]
    }

    /// Recovers one CPU; they are independent of each other.
    #[must_use]
    pub fn recover_cpu(&self, memory: &impl Memory, cpu: u32) -> RecoveredCpu {
        CpuRecovery::new(self, memory, cpu).run()
    }

    /// Entries of all CPUs.
    #[must_use]
    pub fn entries(&self) -> u64 {
        self.cpus.iter().map(|cpu| cpu.entries).sum()
    }

    /// Whether everything was found whole.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.damage.is_empty() && self.cpus.iter().all(RecoveredCpu::is_whole)
    }

    fn max_time_stamp(&self) -> u64 {
        match &self.scratch {
            Some(scratch) if scratch.clock_id == CLOCK_TAI => u64::MAX,
            _ => CLOCK_MAX,
        }
    }
}

/// The geometry of a region without an anchor.
fn find_geometry(memory: &impl Memory) -> Result<Geometry, LayoutError> {
    let len = memory.len() as u64 / 4096 * 4096;
    if memory.len() >= SUBBUF_HEADER + 8 && memory.load_u32(0) == MAGIC {
        let total = memory.load_u64(TOTAL_SIZE);
        if total <= len
            && total.is_multiple_of(4096)
            && let Ok(geometry) = Geometry::find(memory, total)
        {
            return Ok(geometry);
        }
    }
    Geometry::find(memory, len)
}

fn global_damage(geometry: &Geometry, memory: &impl Memory) -> Vec<MetaDamage> {
    let (magic, struct_sizes) = (memory.load_u32(0), memory.load_u32(4));
    let mut damage = Vec::new();
    if magic != MAGIC {
        damage.push(MetaDamage::Magic(magic));
    }
    if struct_sizes != geometry.format().struct_sizes() {
        damage.push(MetaDamage::StructSizes(struct_sizes));
    }
    if geometry.format() == RegionFormat::V6_12 {
        return damage;
    }
    let (total_size, offset) = (memory.load_u64(TOTAL_SIZE), memory.load_u64(BUFFERS_OFFSET));
    if total_size != geometry.size() {
        damage.push(MetaDamage::TotalSize(total_size));
    }
    if offset != geometry.format().buffers_offset() as u64 {
        damage.push(MetaDamage::BuffersOffset(offset));
    }
    damage
}

/// A sub-buffer, judged by itself.
#[derive(Debug, Clone, Copy)]
enum Judged {
    /// Never written, or emptied.
    Empty,
    Bad(Reason),
    /// Kept; the reason says what is cut off.
    Good(Page, Option<Reason>),
}

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
}

struct CpuRecovery<'a, M> {
    region: &'a Recovery,
    memory: &'a M,
    cpu: u32,
    meta: CpuMeta,
    result: RecoveredCpu,
}

impl<'a, M: Memory> CpuRecovery<'a, M> {
    fn new(region: &'a Recovery, memory: &'a M, cpu: u32) -> Self {
        let meta = CpuMeta::load(&region.geometry, memory, cpu);
        Self {
            region,
            memory,
            cpu,
            meta,
            result: RecoveredCpu {
                cpu,
                ..RecoveredCpu::default()
            },
        }
    }

    fn run(mut self) -> RecoveredCpu {
        let head = self
            .meta
            .subbuf_at(&self.region.geometry, self.meta.head_buffer);
        let commit = self
            .meta
            .subbuf_at(&self.region.geometry, self.meta.commit_buffer);
        let index = self.index();
        self.note_damage(head, commit);
        let items = match &index {
            Some(index) => self.ring_order(index, head, commit),
            None => self.time_order(commit),
        };
        let items = self.reject_out_of_order(items);
        self.keep(&items, index.is_some());
        self.result.oldest = head
            .map(|head| self.time_stamp(head))
            .filter(|&time| time != 0);
        self.result
    }

    fn nr_subbufs(&self) -> u32 {
        self.region.geometry.nr_subbufs()
    }

    fn time_stamp(&self, subbuf: u32) -> u64 {
        self.memory
            .load_u64(self.region.geometry.subbuf_offset(self.cpu, subbuf))
    }

    /// The index array, if it is a permutation.
    fn index(&mut self) -> Option<Vec<u32>> {
        let n = self.nr_subbufs();
        let mut seen = alloc::vec![false; n as usize];
        let mut index = Vec::with_capacity(n as usize);
        for position in 0..n {
            let value = self
                .memory
                .load_u32(self.region.geometry.index_offset(self.cpu, position));
            match seen.get_mut(value as usize) {
                Some(seen @ false) => *seen = true,
                _ => {
                    self.result
                        .damage
                        .push(MetaDamage::Index { position, value });
                    return None;
                }
            }
            index.push(value);
        }
        Some(index)
    }

    fn note_damage(&mut self, head: Option<u32>, commit: Option<u32>) {
        let (meta, damage) = (self.meta, &mut self.result.damage);
        if meta.subbuf_size != crate::layout::SUBBUF_SIZE as u32 {
            damage.push(MetaDamage::SubbufSize(meta.subbuf_size));
        }
        if meta.nr_subbufs != self.region.geometry.nr_subbufs() {
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
    }

    /// All sub-buffers from the oldest to the newest, as the index array and the pointers say.
    fn ring_order(&self, index: &[u32], head: Option<u32>, commit: Option<u32>) -> Vec<Item> {
        let (reader, ring) = (index[0], &index[1..]);
        let place_of = |subbuf: Option<u32>| ring.iter().position(|&i| Some(i) == subbuf);
        let newest = place_of(commit).map(|place| (place + 1) % ring.len());
        let oldest = newest.or(place_of(head)).unwrap_or(0);
        let mut subbufs: Vec<u32> = ring[oldest..]
            .iter()
            .chain(&ring[..oldest])
            .copied()
            .collect();
        let begun_next = subbufs.first().copied().filter(|_| newest.is_some());
        // The reader page was taken from before the head; or the writer is still on it.
        let place = match subbufs.iter().position(|&subbuf| Some(subbuf) == head) {
            _ if commit == Some(reader) => subbufs.len(),
            Some(head) => head,
            None => 0,
        };
        subbufs.insert(place, reader);
        let mut items: Vec<Item> = subbufs
            .into_iter()
            .map(|subbuf| self.judge(subbuf, commit, begun_next))
            .collect();
        self.rotate(&mut items);
        items
    }

    /// Cuts the ring elsewhere if time says so.
    fn rotate(&self, items: &mut [Item]) {
        let mut good: Vec<(usize, Span)> = items
            .iter()
            .enumerate()
            .filter_map(|(i, item)| Some((i, item.page()?.span())))
            .collect();
        let first = good.first().map(|&(i, _)| i);
        rotate_to_oldest(&mut good, |&(_, span)| span);
        if let Some(&(i, _)) = good.first().filter(|&&(i, _)| Some(i) != first) {
            items.rotate_left(i);
        }
    }

    /// All sub-buffers by time, where the index array is of no use.
    fn time_order(&self, commit: Option<u32>) -> Vec<Item> {
        let mut items: Vec<Item> = (0..self.nr_subbufs())
            .map(|subbuf| self.judge(subbuf, commit, None))
            .collect();
        items.sort_by_key(|item| item.page().map(|page| (page.time_stamp, page.last)));
        items
    }

    /// Judges a sub-buffer. `commit` is the commit page, as far as known, and `begun_next` the one
    /// behind it, which may be in the middle of being begun.
    fn judge(&self, subbuf: u32, commit: Option<u32>, begun_next: Option<u32>) -> Item {
        let offset = self.region.geometry.subbuf_offset(self.cpu, subbuf);
        let time_stamp = self.memory.load_u64(offset);
        let word = Commit(self.memory.load_u64(offset + 8));
        let seal = self
            .region
            .extension
            .as_ref()
            .and_then(|layout| Seal::load(layout, self.memory, self.cpu, subbuf));
        let may_be_open = commit == Some(subbuf) || begun_next == Some(subbuf);
        let judged = match seal {
            Some(Seal { crc: Some(crc), .. })
                if !may_be_open || seal_matches(&seal, time_stamp, word) =>
            {
                self.judge_sealed(offset, subbuf, time_stamp, word, seal.as_ref(), crc)
            }
            _ => {
                let own = seal.filter(|seal| seal.time_stamp == time_stamp);
                let judged = self.judge_structure(offset, subbuf, time_stamp, word);
                match (judged, own) {
                    // What was missed before an open sub-buffer only its seal knows.
                    (Judged::Good(page, cut), Some(seal)) => Judged::Good(
                        Page {
                            missed: seal.missed.or(page.missed),
                            ..page
                        },
                        cut,
                    ),
                    // Of an extension's ring, all but the open sub-buffer are sealed.
                    (Judged::Good(..), None)
                        if self.region.extension.is_some() && !may_be_open && commit.is_some() =>
                    {
                        Judged::Bad(Reason::SealMismatch)
                    }
                    (judged, _) => judged,
                }
            }
        };
        Item { subbuf, judged }
    }

    /// Judges a sub-buffer that was closed, by its seal.
    fn judge_sealed(
        &self,
        offset: usize,
        subbuf: u32,
        time_stamp: u64,
        word: Commit,
        seal: Option<&Seal>,
        crc: u32,
    ) -> Judged {
        let Some(seal) = seal.filter(|seal| seal.size as usize <= SUBBUF_DATA) else {
            return Judged::Bad(Reason::SealMismatch);
        };
        let mut data = [0; SUBBUF_DATA];
        let data = &mut data[..seal.size as usize];
        self.memory.read(offset + SUBBUF_HEADER, data);
        let header_matches = seal.time_stamp == time_stamp && word.0 == u64::from(seal.size);
        if checksum(seal.time_stamp, data) != crc {
            return Judged::Bad(if header_matches {
                Reason::Checksum
            } else {
                Reason::SealMismatch
            });
        }
        let source = if header_matches {
            PageSource::Sealed
        } else {
            PageSource::RestoredFromSeal
        };
        if seal.size == 0 {
            return Judged::Empty;
        }
        let page = Page {
            subbuf,
            time_stamp: seal.time_stamp,
            size: seal.size,
            entries: u32::from(seal.entries),
            missed: seal.missed,
            source,
            last: None,
        };
        Judged::Good(page, None)
    }

    /// Judges a sub-buffer without a seal by its records.
    fn judge_structure(&self, offset: usize, subbuf: u32, time_stamp: u64, word: Commit) -> Judged {
        if word.0 == DROPPED {
            return Judged::Bad(Reason::DroppedBefore);
        }
        if word.size() > SUBBUF_DATA {
            return Judged::Bad(Reason::BadRecord(BadRecord::Commit { commit: word.0 }));
        }
        if word.has_stray_bits() {
            return Judged::Bad(Reason::CommitBits(word.0));
        }
        if word.size() == 0 {
            return Judged::Empty;
        }
        let mut data = [0; SUBBUF_DATA];
        self.memory.read(offset + SUBBUF_HEADER, &mut data);
        let summary = subbuf::walk(time_stamp, &data[..word.size()]);
        let mut page = Page {
            subbuf,
            time_stamp,
            size: summary.size as u32,
            entries: summary.entries,
            missed: word.missed(&data),
            source: PageSource::Unsealed,
            last: Some(summary.last),
        };
        if time_stamp >= self.region.max_time_stamp() || summary.last < time_stamp {
            return Judged::Bad(Reason::TimeBeyondClock(time_stamp));
        }
        match summary.error {
            None => Judged::Good(page, None),
            // Never written memory proves that what is before it ended there.
            Some(BadRecord::Unwritten { .. }) if summary.entries > 0 => {
                page.size = summary.size as u32;
                Judged::Good(page, Some(Reason::Cut { kept: page.size }))
            }
            Some(error) => Judged::Bad(Reason::BadRecord(error)),
        }
    }

    /// Turns good sub-buffers whose times do not fit into bad ones.
    fn reject_out_of_order(&self, mut items: Vec<Item>) -> Vec<Item> {
        let spans: Vec<Span> = items
            .iter()
            .filter_map(|item| Some(item.page()?.span()))
            .collect();
        let mut kept = chain(&spans).into_iter();
        for item in &mut items {
            if item.page().is_some() && kept.next() == Some(false) {
                item.judged = Judged::Bad(Reason::TimeOutOfOrder);
            }
        }
        items
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
                    if gap && page.missed.is_none() {
                        page.missed = Some(Missed::Unknown);
                    }
                    self.note_hole(after.as_ref(), Some(&page), page.missed);
                    gap = false;
                    if let Some(reason) = cut {
                        self.reject(item.subbuf, reason);
                        gap = true;
                    } else if i < last && self.is_short(&page) {
                        gap = self.next_says_nothing(&items[i + 1..]);
                        if gap {
                            self.reject(item.subbuf, Reason::Short { kept: page.size });
                        }
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

    fn reject(&mut self, subbuf: u32, reason: Reason) {
        self.result.rejected.push(Rejected { subbuf, reason });
    }

    /// A writer fills a sub-buffer to its end before it goes on.
    fn is_short(&self, page: &Page) -> bool {
        page.source == PageSource::Unsealed && (page.size as usize) < SUBBUF_DATA - 8
    }

    fn next_says_nothing(&self, behind: &[Item]) -> bool {
        behind
            .iter()
            .find_map(Item::page)
            .is_some_and(|next| next.missed.is_none())
    }

    fn note_hole(&mut self, after: Option<&Page>, before: Option<&Page>, missed: Option<Missed>) {
        let Some(missed) = missed else { return };
        let geometry = &self.region.geometry;
        self.result.holes.push(Hole {
            after: after.map(|page| page.last(geometry, self.memory, self.cpu)),
            before: before.map(|page| page.time_stamp),
            missed,
        });
    }
}

/// Whether a sub-buffer's header is what its seal says.
fn seal_matches(seal: &Option<Seal>, time_stamp: u64, word: Commit) -> bool {
    seal.is_some_and(|seal| seal.time_stamp == time_stamp && word.0 == u64::from(seal.size))
}

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

mod cpu;
mod judge;

use alloc::vec::Vec;
use core::fmt;

use crate::extension::Layout;
use crate::layout::{
    BUFFERS_OFFSET, CpuMeta, MAGIC, SUBBUF_DATA, SUBBUF_HEADER, SUBBUF_SIZE, TOTAL_SIZE,
};
use crate::other_layout;
use crate::padded::Padded;
use crate::subbuf::{self, BadRecord, Missed};
use crate::{Geometry, LayoutError, Memory, RegionFormat, Scratch};
use cpu::CpuRecovery;

/// Index of the `tai` clock, whose times are those of the calendar.
const CLOCK_TAI: u32 = 8;
/// No clock that counts from boot gets here: 18 years of nanoseconds.
const CLOCK_END: u64 = 1 << 59;

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
    /// The region's end is missing.
    CutOff {
        /// Bytes that are there.
        len: u64,
        /// Bytes of the ring.
        size: u64,
    },
    /// An outlive wrote the region, and its extension is missing: cut off, its anchor damaged, or of a
    /// version that is not known. So nothing is sealed, and run record and catalog are gone.
    NoExtension,
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
            Self::CutOff { len, size } => write!(f, "cut off: {len} bytes of {size}"),
            Self::NoExtension => f.write_str(
                "extension missing: cut off, its anchor damaged, or another version's; nothing is sealed",
            ),
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
    /// It holds what another one holds.
    Copy {
        /// Physical index of the other one.
        of: u32,
    },
    /// Its time is none that the trace clock can have.
    TimeBeyondClock(u64),
    /// It is empty between others that are not.
    Emptied,
    /// Kept up to a place behind which nothing was ever written, though the commit word says so.
    Cut {
        /// Bytes kept.
        kept: u32,
    },
    /// Kept up to a record that no kernel writes, though a kernel reads on behind it.
    OddRecord {
        /// Bytes kept.
        kept: u32,
    },
    /// Kept; but it ends before its end and the next sub-buffer does not say why.
    Short {
        /// Bytes kept.
        kept: u32,
    },
    /// Kept; but a record has a form in which no kernel writes it, though a kernel reads it. It is
    /// [doubtful](Page::is_doubtful).
    OddForm,
    /// Kept; but one of its events has a time that is none that the trace clock can have. It is
    /// [doubtful](Page::is_doubtful).
    EndsBeyondClock(u64),
    /// Kept; but it ends after the sub-buffer behind it begins, and one of the two has wrong times:
    /// events go into a buffer in the order of time. Both are [doubtful](Page::is_doubtful).
    Overlap {
        /// Physical index of the sub-buffer behind it.
        next: u32,
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
            Self::Copy { of } => write!(f, "the same as sub-buffer {of}"),
            Self::TimeBeyondClock(time) => {
                write!(f, "time stamp {time:#x} is beyond the trace clock")
            }
            Self::Emptied => f.write_str("empty in the middle of the ring"),
            Self::Cut { kept } => write!(f, "unwritten behind the {kept} bytes that are kept"),
            Self::OddRecord { kept } => {
                write!(
                    f,
                    "a record that nobody writes behind the {kept} bytes that are kept"
                )
            }
            Self::Short { kept } => {
                write!(f, "ends after {kept} bytes, before the sub-buffer's end")
            }
            Self::OddForm => f.write_str("a record has a form that nobody writes"),
            Self::EndsBeyondClock(time) => {
                write!(f, "has times up to {time:#x}, beyond the trace clock")
            }
            Self::Overlap { next } => write!(
                f,
                "ends after sub-buffer {next} begins: the times of one of the two are wrong"
            ),
        }
    }
}

impl Reason {
    /// Whether the sub-buffer was kept all the same, in part or as a whole.
    #[must_use]
    pub fn is_kept(&self) -> bool {
        self.is_doubt()
            || matches!(
                self,
                Self::Cut { .. } | Self::OddRecord { .. } | Self::Short { .. }
            )
    }

    /// Whether the sub-buffer was kept as a whole and is in doubt.
    #[must_use]
    pub fn is_doubt(&self) -> bool {
        matches!(
            self,
            Self::OddForm | Self::EndsBeyondClock(_) | Self::Overlap { .. }
        )
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
    /// Whether a seal, closed or open, proves the time stamp.
    has_proven_time: bool,
    /// Whether something was damaged in it, and nothing says what: it overlaps the next kept sub-buffer
    /// or the one before, so that the times of one of the two are wrong, or a record has a form in which
    /// no kernel writes it. Never so of one whose seal proves its time.
    pub is_doubtful: bool,
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
        let offset = geometry.subbuf_offset(cpu, self.subbuf);
        memory.read(offset + SUBBUF_HEADER, data);
        // Pages are mostly read in order.
        prefetch_subbuf(memory, offset + SUBBUF_SIZE);
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
}

/// Says that a sub-buffer is going to be read soon: the CPU's own prefetcher stops at a page's end.
fn prefetch_subbuf(memory: &impl Memory, offset: usize) {
    for line in (0..SUBBUF_SIZE).step_by(64) {
        memory.prefetch(offset + line);
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
    /// [`LayoutError::NotARegion`] when nothing of a known layout is found,
    /// [`LayoutError::UnknownLayout`] and [`LayoutError::NothingLeft`] when it is a region all the same.
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
        let padded = Padded::new(memory, geometry.size());
        let scratch = Scratch::load(&geometry, &padded);
        let mut damage = global_damage(&geometry, &padded);
        let (len, size) = (memory.len() as u64, geometry.size());
        if len < size {
            damage.push(MetaDamage::CutOff { len, size });
        }
        if extension.is_none() && is_of_outlive(&geometry, &padded) {
            damage.push(MetaDamage::NoExtension);
        }
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
        let memory = Padded::new(memory, self.geometry.size());
        CpuRecovery::new(self, &memory, cpu).run()
    }

    /// Entries of all CPUs.
    #[must_use]
    pub fn entries(&self) -> u64 {
        self.cpus.iter().map(|cpu| cpu.entries).sum()
    }

    /// Whether an outlive wrote the region, and not a kernel.
    #[must_use]
    pub fn is_of_outlive(&self) -> bool {
        self.extension.is_some() || self.damage.contains(&MetaDamage::NoExtension)
    }

    /// What says that the region's end is missing, if it is.
    #[must_use]
    pub fn cut_off(&self) -> Option<&MetaDamage> {
        let is_cut = |damage: &&MetaDamage| matches!(damage, MetaDamage::CutOff { .. });
        self.damage.iter().find(is_cut)
    }

    /// Whether everything was found whole.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.damage.is_empty() && self.cpus.iter().all(RecoveredCpu::is_whole)
    }

    /// The trace clock does not get here; unknown clocks may.
    fn clock_end(&self) -> u64 {
        match &self.scratch {
            Some(scratch) if scratch.clock_id != CLOCK_TAI => CLOCK_END,
            _ => u64::MAX,
        }
    }
}

/// Whether an outlive wrote the region: where a kernel has addresses it has offsets.
fn is_of_outlive(geometry: &Geometry, memory: &impl Memory) -> bool {
    (0..geometry.nr_cpus()).any(|cpu| {
        CpuMeta::load(geometry, memory, cpu).first_buffer == geometry.stored_address(cpu, 0)
    })
}

/// The geometry of a region without an anchor.
fn find_geometry(memory: &impl Memory) -> Result<Geometry, LayoutError> {
    other_layout::refuse(memory)?;
    let len = memory.len() as u64 / 4096 * 4096;
    let has_magic = memory.len() >= SUBBUF_HEADER + 8 && memory.load_u32(0) == MAGIC;
    let total = has_magic.then(|| memory.load_u64(TOTAL_SIZE));
    let total = total.filter(|total| total.is_multiple_of(4096) && total / 4 <= len);
    if let Some(total) = total
        && let Ok(geometry) = Geometry::find(&Padded::new(memory, total), total)
    {
        return Ok(geometry);
    }
    Geometry::find(memory, len).or_else(|error| {
        let found = Geometry::find_by_blocks(memory).or_else(|| {
            let total = total.unwrap_or(len);
            Geometry::find_by_index(&Padded::new(memory, total), total)
        });
        found.ok_or(error)
    })
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

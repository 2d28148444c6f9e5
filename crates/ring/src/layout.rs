//! Where everything lies in a region.
//!
//! A region is a global meta block, a scratch area, and one block per possible CPU: its meta, its
//! index array, and its sub-buffers on a page boundary. The drawing is in `docs/design.md`; facts
//! are of `kernel/trace/ring_buffer.c` (v7.3.4) unless another version is named.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use crate::Memory;

/// Size in bytes of a sub-buffer of a persistent ring buffer, header included.
pub const SUBBUF_SIZE: usize = 4096;
/// Size in bytes of the header of a sub-buffer: time stamp and commit.
pub const SUBBUF_HEADER: usize = 16;
/// Bytes of events that a sub-buffer holds at most.
pub const SUBBUF_DATA: usize = SUBBUF_SIZE - SUBBUF_HEADER;
/// First word of a region.
pub const MAGIC: u32 = 0x0bad_feed;

/// Offset of the total size in the global meta.
pub(crate) const TOTAL_SIZE: usize = 8;
/// Offset of the offset of the first CPU's meta in the global meta.
pub(crate) const BUFFERS_OFFSET: usize = 16;
/// Offset of the scratch area.
pub(crate) const SCRATCH: usize = 24;
/// Bytes of a scratch area: its header and 128 modules.
pub(crate) const SCRATCH_SIZE: usize = 24 + 128 * SCRATCH_MODULE;
const SCRATCH_MODULE: usize = 64;
const SCRATCH_MODULES: u64 = 128;

/// The layouts of the kernels that have persistent ring buffers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum RegionFormat {
    /// 6.12 to 6.14: no global meta; a meta of 56 bytes with a magic of its own per CPU.
    V6_12,
    /// 6.16 and later, and outlive's own: global meta, scratch with the clock, 32 bytes per CPU.
    V6_16,
    /// 7.2 and later with `CONFIG_RING_BUFFER_PERSISTENT_INJECT`: as 6.16 with 40 bytes per CPU.
    V7_2Inject,
}

impl RegionFormat {
    const ALL: [Self; 3] = [Self::V6_16, Self::V6_12, Self::V7_2Inject];

    /// Bytes of a CPU's meta before its index array.
    pub(crate) fn cpu_meta_size(self) -> usize {
        match self {
            Self::V6_12 => 56,
            Self::V6_16 => 32,
            Self::V7_2Inject => 40,
        }
    }

    /// Offset of the first CPU's meta.
    pub(crate) fn buffers_offset(self) -> usize {
        match self {
            Self::V6_12 => 0,
            Self::V6_16 | Self::V7_2Inject => SCRATCH + SCRATCH_SIZE,
        }
    }

    /// What the kernel takes for the offset of the first CPU's meta when it computes the number
    /// of sub-buffers: it uses the size of the CPU's meta where the global meta lies.
    fn buffers_offset_in_sizing(self) -> usize {
        match self {
            Self::V6_12 => 0,
            Self::V6_16 | Self::V7_2Inject => self.cpu_meta_size() + SCRATCH_SIZE,
        }
    }

    /// The second word of a region: the sizes of the metas, by which kernels tell layouts apart.
    pub(crate) fn struct_sizes(self) -> u32 {
        match self {
            Self::V6_12 => 56,
            Self::V6_16 | Self::V7_2Inject => self.cpu_meta_size() as u32 | (SCRATCH as u32) << 16,
        }
    }

    /// Whether the first words of a region are those of this layout.
    fn is_named_by(self, memory: &impl Memory) -> bool {
        // 6.12 has an address there.
        let has_none = self == Self::V6_12;
        let is_offset = || memory.load_u64(BUFFERS_OFFSET) == self.buffers_offset() as u64;
        let is_named = memory.load_u32(0) == MAGIC && memory.load_u32(4) == self.struct_sizes();
        is_named && (has_none || is_offset())
    }

    fn head_buffer(self) -> usize {
        self.first_buffer() + 8
    }

    fn first_buffer(self) -> usize {
        match self {
            Self::V6_12 => 24,
            Self::V6_16 | Self::V7_2Inject => 0,
        }
    }

    fn subbuf_size(self) -> usize {
        self.first_buffer() + 24
    }

    /// The kernel versions that use this layout, for messages.
    #[must_use]
    pub fn versions(self) -> &'static str {
        match self {
            Self::V6_12 => "6.12 to 6.14",
            Self::V6_16 => "6.16 and later",
            Self::V7_2Inject => "7.2 and later, with fault injection",
        }
    }
}

/// A region cannot be laid out, or what is there is none that is known.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum LayoutError {
    /// Fewer than three sub-buffers per CPU fit: the kernel needs as many.
    TooSmall {
        /// Bytes given.
        size: u64,
        /// Possible CPUs.
        nr_cpus: u32,
        /// Bytes needed at least.
        needed: u64,
    },
    /// The size is not a multiple of 4096, or larger than memory can be.
    BadSize {
        /// Bytes given.
        size: u64,
    },
    /// No CPUs, or more than are supported.
    BadCpuCount {
        /// CPUs given.
        nr_cpus: u32,
    },
    /// The bytes begin as a region does, and nothing in them is where a layout that is known has it.
    UnknownLayout {
        /// The sizes of the metas, by which kernels tell their layouts apart.
        struct_sizes: u32,
        /// Where the first CPU's meta is said to lie.
        buffers_offset: u64,
    },
    /// The bytes begin as a region of a known layout does, and the metas and index arrays of its CPUs, which
    /// say where its sub-buffers lie, are gone.
    NothingLeft {
        /// The layout.
        format: RegionFormat,
    },
    /// The bytes are no region.
    NotARegion {
        /// The first word, which is `0x0badfeed` in a region.
        magic: u32,
        /// The second word, by which kernels tell their layouts apart.
        struct_sizes: u32,
    },
}

/// The layouts that are known, for messages.
const KNOWN: &str = "known: Linux 6.12 to 6.14, 6.16 and later";

impl LayoutError {
    /// What to say of memory in which nothing of a known layout is.
    pub(crate) fn of(memory: &impl Memory) -> Self {
        let word = |offset| match memory.len() < SCRATCH {
            true => 0,
            false => memory.load_u32(offset),
        };
        let (magic, struct_sizes) = (word(0), word(4));
        if magic != MAGIC {
            return Self::NotARegion {
                magic,
                struct_sizes,
            };
        }
        let mut formats = RegionFormat::ALL.into_iter();
        if let Some(format) = formats.find(|format| format.is_named_by(memory)) {
            return Self::NothingLeft { format };
        }
        Self::UnknownLayout {
            struct_sizes,
            buffers_offset: memory.load_u64(BUFFERS_OFFSET),
        }
    }
}

impl fmt::Display for LayoutError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooSmall {
                size,
                nr_cpus,
                needed,
            } => {
                write!(
                    f,
                    "{size} bytes are too few for {nr_cpus} CPUs: {needed} are needed at least"
                )
            }
            Self::BadSize { size } => {
                write!(
                    f,
                    "a region of {size} bytes is not possible: whole pages of 4096 are"
                )
            }
            Self::BadCpuCount { nr_cpus } => {
                write!(
                    f,
                    "{nr_cpus} CPUs are not supported: 1 to {} are",
                    Geometry::MAX_CPUS
                )
            }
            Self::UnknownLayout {
                struct_sizes,
                buffers_offset,
            } => write!(
                f,
                "a persistent ring buffer whose layout is not known: struct sizes \
                 {struct_sizes:#010x}, first CPU at {buffers_offset:#x} ({KNOWN})"
            ),
            Self::NothingLeft { format } => write!(
                f,
                "a persistent ring buffer of Linux {} whose sub-buffers cannot be found: the metas and \
                 index arrays of its CPUs are gone",
                format.versions()
            ),
            Self::NotARegion {
                magic,
                struct_sizes,
            } => write!(
                f,
                "not a persistent ring buffer of a known layout: it begins with {magic:#010x} \
                 {struct_sizes:#010x} ({KNOWN})"
            ),
        }
    }
}

impl core::error::Error for LayoutError {}

/// Size and place of every part of a region.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Geometry {
    format: RegionFormat,
    size: u64,
    nr_cpus: u32,
    nr_subbufs: u32,
}

/// Of two geometries with their scores, the better one; the first if they are equal.
fn better(first: (u32, Geometry), second: (u32, Geometry)) -> (u32, Geometry) {
    if second.0 > first.0 { second } else { first }
}

/// CPU blocks, or what looks like one, from which a geometry is tried.
const MAX_BLOCKS_TRIED: usize = 64;

impl Geometry {
    /// More possible CPUs than Linux can be configured for on x86-64.
    pub const MAX_CPUS: u32 = 8192;
    /// The kernel's smallest ring: a reader page and two sub-buffers.
    const MIN_SUBBUFS: u64 = 3;
    const MAX_SUBBUFS: u64 = 1 << 30;

    /// The layout of outlive's own regions, which is that of Linux 6.16 to 7.3, in `size` bytes
    /// for `nr_cpus` possible CPUs.
    ///
    /// # Errors
    ///
    /// When fewer than three sub-buffers per CPU fit.
    pub fn new(size: u64, nr_cpus: u32) -> Result<Self, LayoutError> {
        Self::with_format(RegionFormat::V6_16, size, nr_cpus)
    }

    /// Bytes in which [`Geometry::new`] lays out at least `subbufs` sub-buffers for each CPU, its reader
    /// page among them.
    #[must_use]
    pub fn size_for(nr_cpus: u32, subbufs: u64) -> u64 {
        // The meta and index array of a CPU, and the global meta.
        let block = subbufs * SUBBUF_SIZE as u64 + (subbufs * 4 + 64).next_multiple_of(4096);
        block * u64::from(nr_cpus) + (4 << 12)
    }

    /// The layout that a kernel of that format makes of `size` bytes for `nr_cpus` possible CPUs.
    ///
    /// # Errors
    ///
    /// As [`Geometry::new`].
    pub fn with_format(format: RegionFormat, size: u64, nr_cpus: u32) -> Result<Self, LayoutError> {
        if !size.is_multiple_of(4096) || size > isize::MAX as u64 {
            return Err(LayoutError::BadSize { size });
        }
        if nr_cpus == 0 || nr_cpus > Self::MAX_CPUS {
            return Err(LayoutError::BadCpuCount { nr_cpus });
        }
        let needed = Self {
            format,
            size,
            nr_cpus,
            nr_subbufs: Self::MIN_SUBBUFS as u32,
        }
        .end();
        let too_small = LayoutError::TooSmall {
            size,
            nr_cpus,
            needed,
        };
        let meta = format.cpu_meta_size() as u64;
        let per_cpu =
            size.saturating_sub(format.buffers_offset_in_sizing() as u64) / u64::from(nr_cpus);
        let first_guess = per_cpu.saturating_sub(meta) / (SUBBUF_SIZE as u64 + 4);
        if !(Self::MIN_SUBBUFS..Self::MAX_SUBBUFS).contains(&first_guess) {
            return Err(too_small);
        }
        let mut geometry = Self {
            format,
            size,
            nr_cpus,
            nr_subbufs: first_guess as u32,
        };
        while geometry.end() > size {
            if u64::from(geometry.nr_subbufs) <= Self::MIN_SUBBUFS {
                return Err(too_small);
            }
            geometry.nr_subbufs -= 1;
        }
        Ok(geometry)
    }

    /// Finds the geometry of a region of `size` bytes that somebody else laid out.
    ///
    /// The number of CPUs is nowhere in a region. It is the one for which the most CPU blocks say
    /// the size and the number of sub-buffers that it implies, so that a lost global meta or lost
    /// CPU blocks cost nothing as long as one block is left.
    ///
    /// # Errors
    ///
    /// [`LayoutError::NotARegion`] or [`LayoutError::UnknownLayout`] when no block of any known layout
    /// is found.
    pub fn find(memory: &impl Memory, size: u64) -> Result<Self, LayoutError> {
        if size > memory.len() as u64 {
            return Err(LayoutError::of(memory));
        }
        let word = |offset| memory.load_u32(offset);
        // A layout that the region itself names is preferred to one that merely fits.
        let is_named = |format: RegionFormat| word(0) == MAGIC && word(4) == format.struct_sizes();
        let score = |geometry: Self| {
            let blocks = geometry.matching_blocks(memory);
            (blocks * 2 + u32::from(is_named(geometry.format)), geometry)
        };
        let candidates = || {
            let formats = RegionFormat::ALL.into_iter();
            formats.flat_map(|format| Self::all_of_size(format, size))
        };
        // In a healthy region the first CPU's block leaves few candidates.
        let whole = candidates()
            .filter(|geometry| geometry.says_the_same(memory, 0))
            .map(score);
        let whole = whole
            .filter(|(score, geometry)| *score == geometry.sampled_cpus().count() as u32 * 2 + 1);
        let best = whole.reduce(better).or_else(|| {
            let fitting = candidates().map(score).filter(|&(score, _)| score > 1);
            fitting.reduce(better)
        });
        best.map(|(_, geometry)| geometry)
            .ok_or_else(|| LayoutError::of(memory))
    }

    /// Finds the geometry of a region of `size` bytes whose CPU blocks say nothing any more, where its first words
    /// still name the layout: it is the one in whose every block an index array has each sub-buffer once.
    pub(crate) fn find_by_index(memory: &impl Memory, size: u64) -> Option<Self> {
        if !(SUBBUF_SIZE as u64..=memory.len() as u64).contains(&size) {
            return None;
        }
        let named = |format: &RegionFormat| format.is_named_by(memory);
        let formats = RegionFormat::ALL.into_iter().filter(named);
        let mut candidates = formats.flat_map(|format| Self::all_of_size(format, size));
        candidates.find(|geometry| {
            let mut cpus = geometry.sampled_cpus();
            cpus.all(|cpu| geometry.has_whole_index(memory, cpu))
        })
    }

    /// Whether a CPU's index array has each sub-buffer once.
    fn has_whole_index(&self, memory: &impl Memory, cpu: u32) -> bool {
        let mut seen = alloc::vec![false; self.nr_subbufs as usize];
        (0..self.nr_subbufs).all(|position| {
            let subbuf = memory.load_u32(self.index_offset(cpu, position));
            let seen = seen.get_mut(subbuf as usize);
            seen.is_some_and(|seen| !core::mem::replace(seen, true))
        })
    }

    /// Finds the geometry of a region whose size is not known, from whatever CPU block is left: its
    /// number of sub-buffers says where the others lie.
    pub(crate) fn find_by_blocks(memory: &impl Memory) -> Option<Self> {
        let last = memory.len().checked_sub(SUBBUF_SIZE)?;
        let pages = (0..=last).step_by(SUBBUF_SIZE);
        let found = pages.flat_map(|page| {
            RegionFormat::ALL
                .into_iter()
                .filter_map(move |format| Self::of_block(memory, format, page))
        });
        found
            .take(MAX_BLOCKS_TRIED)
            .max_by_key(|&(blocks, _)| blocks)
            .map(|(_, geometry)| geometry)
    }

    /// The geometry with a CPU block in the page at `page`, and how many blocks it has.
    fn of_block(memory: &impl Memory, format: RegionFormat, page: usize) -> Option<(u32, Self)> {
        let first = format.buffers_offset();
        let meta = if first / SUBBUF_SIZE == page / SUBBUF_SIZE {
            first
        } else {
            page
        };
        let word = |offset| memory.load_u32(meta + offset);
        let nr_subbufs = word(format.subbuf_size() + 4);
        let possible = (Self::MIN_SUBBUFS..memory.len() as u64 / SUBBUF_SIZE as u64)
            .contains(&nr_subbufs.into());
        if word(format.subbuf_size()) != SUBBUF_SIZE as u32 || !possible {
            return None;
        }
        let mut geometry = Self {
            format,
            size: 0,
            nr_cpus: Self::MAX_CPUS,
            nr_subbufs,
        };
        let fitting = (1..=Self::MAX_CPUS)
            .take_while(|&cpus| geometry.block_offset(cpus) <= memory.len())
            .last()?;
        if !(0..fitting).any(|cpu| geometry.block_offset(cpu) == meta) {
            return None;
        }
        let is_block = |cpu: &u32| geometry.says_the_same(memory, *cpu);
        let blocks = (0..fitting).filter(is_block).count() as u32;
        let nr_cpus = (0..fitting).rev().find(is_block)? + 1;
        geometry.nr_cpus = nr_cpus;
        geometry.size = geometry.end();
        Some((blocks, geometry))
    }

    /// The geometries of a size, for each number of CPUs.
    fn all_of_size(format: RegionFormat, size: u64) -> impl Iterator<Item = Self> {
        (1..=Self::MAX_CPUS).map_while(move |nr_cpus| Self::with_format(format, size, nr_cpus).ok())
    }

    /// At most 64 CPUs, spread over all.
    fn sampled_cpus(&self) -> impl Iterator<Item = u32> {
        (0..self.nr_cpus).step_by(self.nr_cpus.div_ceil(64) as usize)
    }

    /// How many of the sampled CPUs' blocks say what this geometry implies.
    fn matching_blocks(&self, memory: &impl Memory) -> u32 {
        let matching = self
            .sampled_cpus()
            .filter(|&cpu| self.says_the_same(memory, cpu));
        matching.count() as u32
    }

    fn says_the_same(&self, memory: &impl Memory, cpu: u32) -> bool {
        let meta = CpuMeta::load(self, memory, cpu);
        meta.subbuf_size == SUBBUF_SIZE as u32 && meta.nr_subbufs == self.nr_subbufs
    }

    /// Which kernels lay out regions so.
    #[must_use]
    pub fn format(&self) -> RegionFormat {
        self.format
    }

    /// Bytes of the ring: the kernel's `total_size`.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Possible CPUs: the number of CPU blocks.
    #[must_use]
    pub fn nr_cpus(&self) -> u32 {
        self.nr_cpus
    }

    /// Sub-buffers per CPU, the reader page included.
    #[must_use]
    pub fn nr_subbufs(&self) -> u32 {
        self.nr_subbufs
    }

    /// Offset of a CPU's meta.
    #[must_use]
    pub fn meta_offset(&self, cpu: u32) -> usize {
        assert!(cpu < self.nr_cpus, "CPU {cpu} of {}", self.nr_cpus);
        self.block_offset(cpu)
    }

    fn block_offset(&self, cpu: u32) -> usize {
        let first = self.format.buffers_offset();
        match cpu {
            0 => first,
            _ => {
                let bytes = self.nr_subbufs as usize * SUBBUF_SIZE;
                let block_1 = self.data_after(first) + bytes;
                let stride = self.data_after(0) + bytes;
                block_1 + (cpu as usize - 1) * stride
            }
        }
    }

    /// Where the sub-buffers begin of a block whose meta is at `meta`.
    fn data_after(&self, meta: usize) -> usize {
        (meta + self.format.cpu_meta_size() + 4 * self.nr_subbufs as usize)
            .next_multiple_of(SUBBUF_SIZE)
    }

    /// First byte after the last CPU's block.
    pub(crate) fn end(&self) -> u64 {
        self.block_offset(self.nr_cpus) as u64
    }

    /// Offset of the index array's element `position` of a CPU.
    #[must_use]
    pub fn index_offset(&self, cpu: u32, position: u32) -> usize {
        assert!(position < self.nr_subbufs);
        self.meta_offset(cpu) + self.format.cpu_meta_size() + 4 * position as usize
    }

    /// Offset of a sub-buffer by its physical index.
    #[must_use]
    pub fn subbuf_offset(&self, cpu: u32, subbuf: u32) -> usize {
        assert!(
            subbuf < self.nr_subbufs,
            "sub-buffer {subbuf} of {}",
            self.nr_subbufs
        );
        self.data_after(self.meta_offset(cpu)) + subbuf as usize * SUBBUF_SIZE
    }

    /// Offset of a CPU's `head_buffer` word.
    pub(crate) fn head_offset(&self, cpu: u32) -> usize {
        self.meta_offset(cpu) + self.format.head_buffer()
    }

    /// Offset of a CPU's `commit_buffer` word.
    pub(crate) fn commit_offset(&self, cpu: u32) -> usize {
        self.head_offset(cpu) + 8
    }

    /// The address that outlive's own regions store for a sub-buffer: its offset in the region.
    /// Kernels relocate it when they attach.
    pub(crate) fn stored_address(&self, cpu: u32, subbuf: u32) -> u64 {
        self.subbuf_offset(cpu, subbuf) as u64
    }
}

/// A CPU's meta as it stands in the region. Nothing in it is to be trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CpuMeta {
    /// Address of physical sub-buffer 0 in the boot that wrote the region.
    pub(crate) first_buffer: u64,
    /// Address of the oldest sub-buffer in the ring; 0: never used.
    pub(crate) head_buffer: u64,
    /// Address of the newest sub-buffer.
    pub(crate) commit_buffer: u64,
    pub(crate) subbuf_size: u32,
    pub(crate) nr_subbufs: u32,
}

impl CpuMeta {
    pub(crate) fn load(geometry: &Geometry, memory: &impl Memory, cpu: u32) -> Self {
        let meta = geometry.meta_offset(cpu);
        let format = geometry.format;
        Self {
            first_buffer: memory.load_u64(meta + format.first_buffer()),
            head_buffer: memory.load_u64(meta + format.head_buffer()),
            commit_buffer: memory.load_u64(meta + format.head_buffer() + 8),
            subbuf_size: memory.load_u32(meta + format.subbuf_size()),
            nr_subbufs: memory.load_u32(meta + format.subbuf_size() + 4),
        }
    }

    /// The physical index that an address of this meta stands for, if it is that of a sub-buffer.
    pub(crate) fn subbuf_at(&self, geometry: &Geometry, address: u64) -> Option<u32> {
        let distance = address.wrapping_sub(self.first_buffer);
        let subbuf = distance / SUBBUF_SIZE as u64;
        (distance.is_multiple_of(SUBBUF_SIZE as u64) && subbuf < u64::from(geometry.nr_subbufs))
            .then_some(subbuf as u32)
    }
}

/// The scratch area of a kernel's region: what the kernel noted about the boot that wrote it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Scratch {
    /// Index of the trace clock in the kernel's list: 0 local, 1 global, 2 counter, 3 uptime,
    /// 4 perf, 5 mono, 6 mono_raw, 7 boot, 8 tai, 9 x86-tsc.
    pub clock_id: u32,
    /// Address of `_text` in that boot; 0: the instance was never cleared.
    pub text_addr: u64,
    /// Base address and name of the modules.
    pub modules: Vec<(u64, String)>,
}

impl Scratch {
    /// Reads the scratch area, or says nothing where a field is one that the kernel would reject.
    pub(crate) fn load(geometry: &Geometry, memory: &impl Memory) -> Option<Self> {
        if geometry.format == RegionFormat::V6_12 {
            let text_addr = memory.load_u64(8);
            return Some(Self {
                text_addr,
                ..Self::default()
            });
        }
        let clock_id = memory.load_u32(SCRATCH);
        let nr_entries = memory.load_u64(SCRATCH + 16);
        if nr_entries > SCRATCH_MODULES || clock_id > 9 {
            return None;
        }
        let modules = (0..nr_entries as usize)
            .map(|i| load_module(memory, SCRATCH + 24 + i * SCRATCH_MODULE))
            .collect::<Option<Vec<_>>>()?;
        Some(Self {
            clock_id,
            text_addr: memory.load_u64(SCRATCH + 8),
            modules,
        })
    }
}

fn load_module(memory: &impl Memory, offset: usize) -> Option<(u64, String)> {
    let mut name = [0; SCRATCH_MODULE - 8];
    memory.read(offset + 8, &mut name);
    let len = name.iter().position(|&b| b == 0)?;
    let name = &name[..len];
    let printable = name.iter().all(|b| b.is_ascii_graphic() || *b == b' ');
    printable.then(|| {
        (
            memory.load_u64(offset),
            String::from_utf8_lossy(name).into_owned(),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sub_buffers_are_counted_as_the_kernel_counts_them() {
        // Sizes and results seen on Linux 7.3.4.
        for (size, nr_cpus, expected) in [
            (24 << 10, 1, 3),
            (40 << 10, 2, 3),
            (256 << 10, 2, 30),
            (1 << 20, 2, 126),
            (1 << 20, 4, 62),
            (1 << 20, 8, 30),
            (12 << 20, 4, 766),
            (12 << 20, 8, 382),
            (12 << 20, 64, 46),
            (20 << 20, 8, 638),
            (100 << 20, 4, 6392),
            (100 << 20, 8, 3195),
        ] {
            let geometry = Geometry::new(size, nr_cpus).unwrap();
            assert_eq!(
                geometry.nr_subbufs(),
                expected,
                "{size} bytes, {nr_cpus} CPUs"
            );
            assert!(geometry.end() <= size);
        }
        assert_eq!(
            Geometry::new(20 << 10, 1),
            Err(LayoutError::TooSmall {
                size: 20 << 10,
                nr_cpus: 1,
                needed: 24 << 10
            })
        );
    }

    #[test]
    fn blocks_lie_where_the_kernel_lays_them() {
        let geometry = Geometry::new(256 << 10, 2).unwrap();
        assert_eq!(geometry.meta_offset(0), 0x2030);
        assert_eq!(geometry.subbuf_offset(0, 0), 0x3000);
        assert_eq!(geometry.meta_offset(1), 0x21000);
        assert_eq!(geometry.subbuf_offset(1, 0), 0x22000);
        assert_eq!(geometry.end(), 0x40000);
        let geometry = Geometry::new(100 << 20, 4).unwrap();
        assert_eq!(geometry.subbuf_offset(0, 0), 0x9000);
        assert_eq!(geometry.meta_offset(1), 0x190_1000);
        assert_eq!(geometry.subbuf_offset(1, 0), 0x190_8000);
        // 6.12 begins with the first CPU's meta.
        let geometry = Geometry::with_format(RegionFormat::V6_12, 1 << 20, 2).unwrap();
        assert_eq!(
            (geometry.nr_subbufs(), geometry.meta_offset(1)),
            (127, 0x80000)
        );
    }
}

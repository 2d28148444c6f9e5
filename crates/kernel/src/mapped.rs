//! The mapping of one CPU's `trace_pipe_raw`: the only module with `unsafe`.
//!
//! Page 0 of the mapping is the kernel's meta page, then come the sub-buffers in the order of their
//! ids (`Documentation/trace/ring-buffer-map.rst`; offsets seen on v6.18 and v7.3). When the
//! mapping is the first one of its per-CPU buffer, the kernel numbers the sub-buffers anew: 0 is
//! the reader page, 1 the head page, and on in ring order. As long as nobody consumes from the
//! buffer these numbers stay the ring's order, and the writer goes from the last back to 1; it
//! never comes to 0.
//!
//! The kernel writes to this memory at any moment. All reads are atomic loads of whole words into
//! values of our own; there is never a reference to the bytes. What was read is worth something
//! only if time stamp and commit are unchanged *after* it: see [`MappedRing::read_data`].

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering, fence};

use rustix::mm::{MapFlags, ProtFlags};

use crate::cpus::CpuId;
use crate::error::Error;
use crate::subbuf::{DATA_BYTES, HEADER_BYTES, SubbufHeader, SubbufId, WORD_BYTES};

/// The size of the meta page and of a sub-buffer, in bytes: the only one that we use.
pub const PAGE_BYTES: usize = 4096;

/// Offsets in the meta page, in bytes.
const META_PAGE_SIZE: usize = 0;
const META_NR_SUBBUFS: usize = 8;
const META_READER: usize = 24;
/// Events ever written to the buffer, and consumed from it, at the time of the first mapping
/// (v6.18: `read` on a mapped buffer leaves both as they are).
const META_ENTRIES: usize = 40;
const META_READ: usize = 56;

/// More sub-buffers than any machine has memory for: 2^24 of 4 KiB are 64 GiB per CPU.
const MAX_SUBBUFS: u32 = 1 << 24;

/// What the meta page said when the buffer was mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ReaderPage {
    /// Which sub-buffer is the reader page.
    pub(crate) id: SubbufId,
    /// How many of its data bytes were consumed.
    pub(crate) read: usize,
}

/// A read-only mapping of one per-CPU ring buffer.
///
/// # Invariants
/// 1. `base` is the start of a live mapping of `pages * PAGE_BYTES` readable bytes, page aligned.
/// 2. The mapping is this value's own and goes only when it is dropped.
/// 3. Nobody in this process writes to it: it is mapped without write permission.
#[derive(Debug)]
pub(crate) struct MappedRing {
    base: NonNull<AtomicU64>,
    pages: usize,
    nr_subbufs: u32,
    reader: ReaderPage,
}

// SAFETY: the mapping belongs to the process and not to a thread, and is only read (invariants 2, 3).
unsafe impl Send for MappedRing {}

impl MappedRing {
    /// Maps an open `trace_pipe_raw`. Nothing is consumed by it.
    ///
    /// # Errors
    /// [`Error::MapRefused`], or a meta page that cannot be right ([`Error::BadMetaPage`]).
    pub(crate) fn map(cpu: CpuId, raw: &File) -> Result<Self, Error> {
        let refused = |source| Error::MapRefused { cpu: cpu.0, source };
        let nr_subbufs = Self::map_pages(raw, 1)
            .map_err(refused)?
            .checked_nr_subbufs(cpu)?;
        let mut ring = Self::map_pages(raw, 1 + nr_subbufs as usize).map_err(refused)?;
        if ring.checked_nr_subbufs(cpu)? != nr_subbufs {
            return Err(refused(io::ErrorKind::ResourceBusy.into()));
        }
        ring.nr_subbufs = nr_subbufs;
        ring.reader = ring.checked_reader(cpu)?;
        Ok(ring)
    }

    /// The number of sub-buffers, the reader page included.
    pub(crate) fn nr_subbufs(&self) -> u32 {
        self.nr_subbufs
    }

    /// The reader page as it was when the buffer was mapped.
    pub(crate) fn reader(&self) -> ReaderPage {
        self.reader
    }

    /// Events written and events consumed when the ring was first mapped: by us, unless another process
    /// had it mapped before.
    pub(crate) fn first_mapped_at(&self) -> (u64, u64) {
        let meta_u64 = |offset| self.load(offset / WORD_BYTES);
        (meta_u64(META_ENTRIES), meta_u64(META_READ))
    }

    /// Reads a sub-buffer's time stamp and commit word so that they belong together.
    ///
    /// The time stamp is read on both sides of the commit word. A sub-buffer that the kernel is
    /// beginning anew has a commit of zero until its time stamp is final, so a non-empty answer
    /// whose two time stamps agree is of one lap. `None` if they never do.
    pub(crate) fn header(&self, id: SubbufId) -> Option<SubbufHeader> {
        const TRIES: u32 = 8;
        (0..TRIES).find_map(|_| {
            let time_stamp = self.word(id, 0);
            fence(Ordering::Acquire); // the commit word is read after the time stamp
            let commit = self.word(id, 1);
            fence(Ordering::Acquire); // and before the time stamp is read again
            let is_one_lap = self.word(id, 0) == time_stamp;
            is_one_lap.then(|| SubbufHeader::new(time_stamp, commit))
        })
    }

    /// Asks the CPU to fetch a sub-buffer that is going to be read: its lines are in the cache of the
    /// CPU that wrote them, and a CPU's own prefetcher stops at a page's end.
    pub(crate) fn prefetch(&self, id: SubbufId) {
        #[cfg(target_arch = "x86_64")]
        for line in self
            .words(id, 0, PAGE_BYTES / WORD_BYTES)
            .chunks(64 / WORD_BYTES)
        {
            use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
            // SAFETY: every x86-64 CPU has the instruction, which neither faults nor changes memory.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(line.as_ptr().cast()) };
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = id;
    }

    /// Copies the data bytes `from..to` of a sub-buffer into the same place of `buf`, then checks
    /// that the sub-buffer is still the one of `time_stamp` with at least `to` bytes committed.
    /// Only then is the copy whole, and the answer `true`.
    ///
    /// The kernel takes a sub-buffer for a new lap by setting its commit word to zero before it
    /// writes anything else there, so a torn copy shows in the commit word or the time stamp.
    pub(crate) fn read_data(
        &self,
        id: SubbufId,
        time_stamp: u64,
        (from, to): (usize, usize),
        buf: &mut [u8; DATA_BYTES],
    ) -> bool {
        let first = from / WORD_BYTES;
        let end = to.min(DATA_BYTES).div_ceil(WORD_BYTES);
        let words = self.words(
            id,
            HEADER_BYTES / WORD_BYTES + first,
            end.saturating_sub(first),
        );
        let (bytes, _) = buf[first * WORD_BYTES..].as_chunks_mut::<WORD_BYTES>();
        for (word, bytes) in words.iter().zip(bytes) {
            *bytes = word.load(Ordering::Relaxed).to_le_bytes();
        }
        fence(Ordering::Acquire); // the check reads the header after the data
        self.header(id)
            .is_some_and(|now| now.time_stamp == time_stamp && now.size >= to)
    }

    /// Words of a sub-buffer, by the index of the first from the header on. Words outside of the
    /// mapping are a programming error.
    fn words(&self, id: SubbufId, index: usize, count: usize) -> &[AtomicU64] {
        let first = (1 + id.0 as usize) * (PAGE_BYTES / WORD_BYTES) + index;
        let all = self.pages * (PAGE_BYTES / WORD_BYTES);
        assert!(
            first <= all && count <= all - first,
            "words outside of the mapping"
        );
        // SAFETY: `first` words from `base` is inside the mapping or its end (invariant 1, checked
        // above).
        let start = unsafe { self.base.add(first) };
        // SAFETY: `count` words from there are mapped, aligned and live as long as `self`
        // (invariants 1, 2, checked above). The kernel writes them concurrently with single
        // stores; atomic loads are defined for that, also on memory that is mapped read-only
        // (invariant 3), and nothing else is done with the slice.
        unsafe { std::slice::from_raw_parts(start.as_ptr(), count) }
    }

    /// A word of a sub-buffer, by its index from the header on.
    fn word(&self, id: SubbufId, index: usize) -> u64 {
        self.load((1 + id.0 as usize) * (PAGE_BYTES / WORD_BYTES) + index)
    }

    /// The word at `index` of the mapping. An index outside is a programming error.
    fn load(&self, index: usize) -> u64 {
        assert!(
            index < self.pages * (PAGE_BYTES / WORD_BYTES),
            "word outside of the mapping"
        );
        // SAFETY: `index` words from `base` is inside the mapping (invariant 1, checked above).
        let word = unsafe { self.base.add(index) };
        // SAFETY: the word is mapped, aligned and lives as long as `self` (invariants 1, 2). The
        // kernel writes it concurrently with single stores; a relaxed atomic load of 8 bytes is
        // defined for that, also on memory that is mapped read-only (invariant 3).
        unsafe { word.as_ref() }.load(Ordering::Relaxed)
    }

    /// The low or high half of a meta word; all meta fields that we use are 4 bytes, little endian.
    fn meta_u32(&self, offset: usize) -> u32 {
        let word = self.load(offset / WORD_BYTES);
        let half = if offset.is_multiple_of(WORD_BYTES) {
            word
        } else {
            word >> u32::BITS
        };
        (half & u64::from(u32::MAX)) as u32
    }

    fn checked_nr_subbufs(&self, cpu: CpuId) -> Result<u32, Error> {
        let bad = |what, value: u32| Error::BadMetaPage {
            cpu: cpu.0,
            what,
            value: value.into(),
        };
        let meta_page_size = self.meta_u32(META_PAGE_SIZE);
        let subbuf_size = self.meta_u32(META_NR_SUBBUFS);
        let nr_subbufs = self.meta_u32(META_NR_SUBBUFS + 4);
        match () {
            () if meta_page_size as usize != PAGE_BYTES => {
                Err(bad("meta_page_size", meta_page_size))
            }
            () if subbuf_size as usize != PAGE_BYTES => Err(bad("subbuf_size", subbuf_size)),
            // The reader page and a ring of at least two.
            () if !(3..=MAX_SUBBUFS).contains(&nr_subbufs) => Err(bad("nr_subbufs", nr_subbufs)),
            () => Ok(nr_subbufs),
        }
    }

    fn checked_reader(&self, cpu: CpuId) -> Result<ReaderPage, Error> {
        let (id, read) = (self.meta_u32(META_READER), self.meta_u32(META_READER + 4));
        if id >= self.nr_subbufs {
            return Err(Error::BadMetaPage {
                cpu: cpu.0,
                what: "reader.id",
                value: id.into(),
            });
        }
        Ok(ReaderPage {
            id: SubbufId(id),
            read: (read as usize).min(DATA_BYTES),
        })
    }

    fn map_pages(raw: &File, pages: usize) -> Result<Self, io::Error> {
        let len = pages * PAGE_BYTES;
        // SAFETY: the kernel chooses the address, so no memory of this process is replaced.
        let base = unsafe {
            rustix::mm::mmap(
                std::ptr::null_mut(),
                len,
                ProtFlags::READ,
                MapFlags::SHARED,
                raw.as_fd(),
                0,
            )?
        };
        let base = NonNull::new(base.cast()).ok_or(io::ErrorKind::InvalidInput)?;
        let reader = ReaderPage {
            id: SubbufId(0),
            read: 0,
        };
        Ok(Self {
            base,
            pages,
            nr_subbufs: 0,
            reader,
        })
    }
}

impl Drop for MappedRing {
    fn drop(&mut self) {
        // SAFETY: the range is this value's own mapping, and nothing refers to it any more
        // (invariants 1 and 2). A failure would leave it mapped, which harms nobody.
        let _ = unsafe { rustix::mm::munmap(self.base.as_ptr().cast(), self.pages * PAGE_BYTES) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simulated::SimulatedRing;

    #[test]
    fn meta_page_that_cannot_be_is_refused() {
        for (offset, what) in [
            (0, "meta_page_size"),
            (8, "subbuf_size"),
            (12, "nr_subbufs"),
        ] {
            let ring = SimulatedRing::new(4);
            ring.poke_u32(offset, 1);
            let error = MappedRing::map(CpuId(3), ring.file()).unwrap_err();
            assert!(error.to_string().contains(what), "{error}");
        }
    }

    #[test]
    fn reader_page_beyond_the_ring_is_refused() {
        let ring = SimulatedRing::new(4);
        ring.poke_u32(META_READER as u64, 4);
        assert!(matches!(
            MappedRing::map(CpuId(0), ring.file()),
            Err(Error::BadMetaPage {
                what: "reader.id",
                ..
            })
        ));
    }

    #[test]
    fn copy_is_refused_once_the_sub_buffer_was_taken_again() {
        let mut ring = SimulatedRing::new(3);
        ring.event(100);
        let mapped = MappedRing::map(CpuId(0), ring.file()).unwrap();
        let header = mapped.header(SubbufId(1)).unwrap();
        let mut buf = [0; DATA_BYTES];
        let whole = (0, header.size);
        assert!(mapped.read_data(SubbufId(1), header.time_stamp, whole, &mut buf));
        ring.poke_u64(PAGE_BYTES as u64 * 2 + 8, 0);
        assert!(!mapped.read_data(SubbufId(1), header.time_stamp, whole, &mut buf));
    }
}

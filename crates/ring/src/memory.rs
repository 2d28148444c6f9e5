//! Memory that somebody else may be changing: another process, another thread, or the kernel.
//!
//! Nothing here hands out a reference to the bytes. They are loaded and stored as atomic words or
//! copied word by word, so that a racing writer makes a copy torn but never undefined; the callers
//! find a torn copy by what they check afterwards (time stamp and commit of the page, checksums).

use crate::layout::SUBBUF_DATA;
use alloc::boxed::Box;
use core::marker::PhantomData;
use core::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};

use crate::cache::Flush;
use crate::sync::fence;

/// Memory that can be read. Offsets and lengths are in bytes.
///
/// All methods panic when a range is outside the memory or a word is not aligned to its size:
/// callers check untrusted offsets against the layout before they come here.
pub trait Memory {
    /// Length in bytes.
    fn len(&self) -> usize;
    /// Whether the memory has no bytes.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// Loads a little-endian word, relaxed.
    fn load_u32(&self, offset: usize) -> u32;
    /// Loads a little-endian word, relaxed.
    fn load_u64(&self, offset: usize) -> u64;
    /// Loads a little-endian word; pairs with [`MemoryMut::store_u64_release`].
    fn load_u64_acquire(&self, offset: usize) -> u64 {
        let value = self.load_u64(offset);
        fence(Ordering::Acquire);
        value
    }
    /// Copies bytes out. The copy is torn where another writer is at work.
    fn read(&self, offset: usize, out: &mut [u8]);
    /// Continues the CRC32C `crc` over bytes.
    fn crc32c(&self, crc: u32, offset: usize, len: usize) -> u32 {
        let mut buffer = [0; 4096];
        let (mut crc, mut done) = (crc, 0);
        while done < len {
            let part = &mut buffer[..(len - done).min(4096)];
            self.read(offset + done, part);
            crc = crate::crc32c(crc, part);
            done += part.len();
        }
        crc
    }
    /// Says that bytes from `offset` on, wherever that is, are going to be read soon.
    fn prefetch(&self, offset: usize) {
        let _ = offset;
    }
}

/// Memory that can be written, through a shared reference: the bytes are shared anyway.
pub trait MemoryMut: Memory {
    /// Stores a little-endian word, relaxed.
    fn store_u32(&self, offset: usize, value: u32);
    /// Stores a little-endian word, relaxed.
    fn store_u64(&self, offset: usize, value: u64);
    /// Stores a little-endian word after everything stored before it; pairs with
    /// [`Memory::load_u64_acquire`].
    fn store_u64_release(&self, offset: usize, value: u64) {
        fence(Ordering::Release);
        self.store_u64(offset, value);
    }
    /// The sub-buffer whose data begins at `data`, to append to it quickly; `None` where that is not
    /// done: the other methods do what it does.
    fn tail(&self, data: usize) -> Option<Tail<'_>> {
        let _ = data;
        None
    }
    /// Adds to a little-endian word, relaxed, so that of several writers at a time none is lost
    /// where the memory is mapped.
    fn add_u64(&self, offset: usize, by: u64) {
        self.store_u64(offset, self.load_u64(offset).wrapping_add(by));
    }
    /// Continues the CRC32C `crc` over bytes that were written a moment ago: as
    /// [`crc32c`](Memory::crc32c), but nothing is read behind them.
    fn crc32c_of_written(&self, crc: u32, offset: usize, len: usize) -> u32 {
        self.crc32c(crc, offset, len)
    }
    /// Copies bytes in.
    fn write(&self, offset: usize, bytes: &[u8]);
    /// Makes `len` bytes zero.
    fn zero(&self, offset: usize, len: usize) {
        const ZEROS: [u8; 4096] = [0; 4096];
        let mut done = 0;
        while done < len {
            let step = (len - done).min(ZEROS.len());
            self.write(offset + done, &ZEROS[..step]);
            done += step;
        }
    }
}

impl<M: Memory + ?Sized> Memory for &M {
    fn len(&self) -> usize {
        (**self).len()
    }
    fn load_u32(&self, offset: usize) -> u32 {
        (**self).load_u32(offset)
    }
    fn load_u64(&self, offset: usize) -> u64 {
        (**self).load_u64(offset)
    }
    fn load_u64_acquire(&self, offset: usize) -> u64 {
        (**self).load_u64_acquire(offset)
    }
    fn read(&self, offset: usize, out: &mut [u8]) {
        (**self).read(offset, out);
    }
    fn crc32c(&self, crc: u32, offset: usize, len: usize) -> u32 {
        (**self).crc32c(crc, offset, len)
    }
    fn prefetch(&self, offset: usize) {
        (**self).prefetch(offset);
    }
}

impl<M: MemoryMut + ?Sized> MemoryMut for &M {
    fn store_u32(&self, offset: usize, value: u32) {
        (**self).store_u32(offset, value);
    }
    fn store_u64(&self, offset: usize, value: u64) {
        (**self).store_u64(offset, value);
    }
    fn store_u64_release(&self, offset: usize, value: u64) {
        (**self).store_u64_release(offset, value);
    }
    fn tail(&self, data: usize) -> Option<Tail<'_>> {
        (**self).tail(data)
    }
    fn crc32c_of_written(&self, crc: u32, offset: usize, len: usize) -> u32 {
        (**self).crc32c_of_written(crc, offset, len)
    }
    fn add_u64(&self, offset: usize, by: u64) {
        (**self).add_u64(offset, by);
    }
    fn write(&self, offset: usize, bytes: &[u8]) {
        (**self).write(offset, bytes);
    }
    fn zero(&self, offset: usize, len: usize) {
        (**self).zero(offset, len);
    }
}

/// Mapped memory: a pointer and a length.
///
/// *Invariants*
/// 1. `base` is aligned to 8 and valid for reads and writes of `len` bytes for `'m`.
/// 2. Whoever else accesses these bytes during `'m` does so with atomic or volatile accesses, is
///    another process, or is the kernel; no Rust reference to them exists.
/// 3. `len` fits an `isize`.
#[derive(Debug, Clone, Copy)]
pub struct RawMemory<'m> {
    base: *mut u8,
    len: usize,
    /// How stores leave the processor's caches, if they have to.
    flush: Option<Flush>,
    lifetime: PhantomData<&'m AtomicU8>,
}

// SAFETY: by invariant 2 every access is atomic or foreign, so it may come from any thread.
unsafe impl Send for RawMemory<'_> {}
// SAFETY: as for Send.
unsafe impl Sync for RawMemory<'_> {}

impl<'m> RawMemory<'m> {
    /// Whether [`flushing`](Self::flushing) is known for this kind of processor.
    pub const CAN_FLUSH: bool = cfg!(all(target_arch = "x86_64", not(miri)));

    /// Wraps mapped memory.
    ///
    /// A read-only mapping may be wrapped too if nothing calls the methods of [`MemoryMut`].
    ///
    /// # Safety
    ///
    /// The invariants of [`RawMemory`] must hold for `'m`.
    #[must_use]
    pub unsafe fn new(base: *mut u8, len: usize) -> Self {
        assert!(
            base.addr().is_multiple_of(8),
            "mapped memory is page aligned"
        );
        Self {
            base,
            len,
            flush: None,
            lifetime: PhantomData,
        }
    }

    /// What is stored leaves the processor's caches at once, and what a store publishes before that
    /// store: for memory that outlives a reset. Nothing is different where
    /// [`CAN_FLUSH`](Self::CAN_FLUSH) says no.
    #[must_use]
    pub fn flushing(self) -> Self {
        Self {
            flush: Flush::detect(),
            ..self
        }
    }

    /// Writes back what was just stored.
    #[inline]
    fn stored(&self, offset: usize, len: usize) {
        if let Some(flush) = self.flush {
            let first = self.at(offset, len, 1);
            // SAFETY: 1: the range is inside the memory, as `at` checked.
            unsafe { flush.lines(first, len) };
        }
    }

    /// Where a byte lies, for who makes an atomic of it.
    ///
    /// # Panics
    ///
    /// When the offset is outside of the memory.
    #[must_use]
    pub fn byte_ptr(&self, offset: usize) -> *mut u8 {
        self.at(offset, 1, 1)
    }

    #[inline]
    fn at(&self, offset: usize, len: usize, align: usize) -> *mut u8 {
        if offset > self.len || len > self.len - offset || !offset.is_multiple_of(align) {
            is_outside(offset, len, self.len);
        }
        // SAFETY: 1 and 3: the offset is inside the memory, as just checked.
        unsafe { self.base.add(offset) }
    }

    #[inline]
    fn word_u32(&self, offset: usize) -> &AtomicU32 {
        // SAFETY: 1: in bounds and aligned, checked by `at`; 2: only atomics are made of it.
        unsafe { AtomicU32::from_ptr(self.at(offset, 4, 4).cast()) }
    }

    #[inline]
    fn word_u64(&self, offset: usize) -> &AtomicU64 {
        // SAFETY: 1: in bounds and aligned, checked by `at`; 2: only atomics are made of it.
        unsafe { AtomicU64::from_ptr(self.at(offset, 8, 8).cast()) }
    }

    /// The checksum of the bytes, where they are if possible. With `AHEAD` those behind are read next.
    fn checksum<const AHEAD: bool>(&self, crc: u32, offset: usize, len: usize) -> u32 {
        #[cfg(all(feature = "std", target_arch = "x86_64", not(miri)))]
        if offset.is_multiple_of(8) {
            let data = self.at(offset, len, 8);
            // SAFETY: 1: in bounds and aligned, checked by `at`; 2: the access is atomic.
            if let Some(crc) = unsafe { crate::crc::shared::crc32c::<AHEAD>(crc, data, len) } {
                return crc;
            }
        }
        let mut buffer = [0; SUBBUF_DATA];
        (0..len).step_by(SUBBUF_DATA).fold(crc, |crc, done| {
            let part = &mut buffer[..(len - done).min(SUBBUF_DATA)];
            self.read(offset + done, part);
            crate::crc32c(crc, part)
        })
    }

    /// What leaves the caches does so store by store, not by a tail.
    fn tail_at(&self, data: usize) -> Option<Tail<'m>> {
        let commit = self.at(data.wrapping_sub(8), 8 + SUBBUF_DATA, 8);
        self.flush.is_none().then_some(Tail {
            commit,
            lifetime: PhantomData,
        })
    }

    fn byte(&self, offset: usize) -> &AtomicU8 {
        // SAFETY: 1: in bounds, checked by `at`; 2: only atomics are made of it.
        unsafe { AtomicU8::from_ptr(self.at(offset, 1, 1)) }
    }
}

/// A sub-buffer that is written to, of which the bounds have been looked at: for each event's few
/// stores.
///
/// *Invariants*
/// 1. `commit` is aligned to 8, and behind it are the data, so that `8 + SUBBUF_DATA` bytes are as
///    invariants 1 and 2 of [`RawMemory`] say for `'m`.
#[derive(Debug, Clone, Copy)]
pub struct Tail<'m> {
    commit: *mut u8,
    lifetime: PhantomData<&'m AtomicU8>,
}

// SAFETY: as for `RawMemory`.
unsafe impl Send for Tail<'_> {}
// SAFETY: as for `RawMemory`.
unsafe impl Sync for Tail<'_> {}

impl Tail<'_> {
    /// Appends a record to the `used` bytes of data and publishes it: stores the little-endian word
    /// `first` and behind it `bytes`, with zeros up to `size` bytes in all, and then in the commit word
    /// how many bytes are used now.
    ///
    /// # Panics
    ///
    /// When the record does not fit the data, or `used` or `size` is not a multiple of 4.
    #[inline(always)]
    pub fn append(self, used: usize, first: u32, bytes: &[u8], size: usize) {
        assert!(bytes.len() + 4 <= size && size.is_multiple_of(4) && used.is_multiple_of(4));
        assert!(used <= SUBBUF_DATA && size <= SUBBUF_DATA - used);
        // SAFETY: 1: inside the data, as just checked.
        let record = unsafe { self.commit.add(8 + used) }.cast::<u32>();
        let store = |index: usize, word: u32| {
            // SAFETY: 1: the record has size / 4 words, aligned as `used` is; atomic access.
            unsafe { AtomicU32::from_ptr(record.add(index)) }
                .store(word.to_le(), Ordering::Relaxed);
        };
        let (words, rest) = bytes.as_chunks::<4>();
        store(0, first);
        for (i, &word) in words.iter().enumerate() {
            store(1 + i, u32::from_le_bytes(word));
        }
        let mut next = 1 + words.len();
        if let [a, rest @ ..] = rest {
            let [b, c] = [rest.first(), rest.get(1)].map(|byte| u32::from(*byte.unwrap_or(&0)));
            store(next, u32::from(*a) | b << 8 | c << 16);
            next += 1;
        }
        for index in next..size / 4 {
            store(index, 0);
        }
        // SAFETY: 1; atomic access.
        unsafe { AtomicU64::from_ptr(self.commit.cast()) }
            .store(((used + size) as u64).to_le(), Ordering::Release);
    }
}

/// Apart, so that what it says is not put together beside each access.
#[cold]
#[inline(never)]
fn is_outside(offset: usize, len: usize, there: usize) -> ! {
    panic!("{len} bytes at {offset:#x} are outside of {there:#x} bytes or not aligned")
}

/// Splits `len` bytes at `offset` into unaligned bytes, whole words, and the bytes after them.
fn split_words(offset: usize, len: usize) -> (usize, usize) {
    let head = offset.wrapping_neg() % 8;
    if head >= len {
        (len, 0)
    } else {
        (head, (len - head) / 8)
    }
}

/// Copies whole words out of shared memory, one string instruction for all: a copy that a racing
/// writer tears, like one word by word, at three times the speed.
///
/// # Safety
///
/// `base` is valid for atomic reads of `out.len()` bytes, which do not overlap `out`.
#[cfg(all(target_arch = "x86_64", not(miri)))]
unsafe fn copy_out(base: *const u64, out: &mut [u8]) {
    // SAFETY: the caller promises the source, `out` is the destination. To the compiler this is an
    // access from outside, as that of another process is, so that a race is no undefined behaviour.
    unsafe {
        core::arch::asm!(
            "rep movsb",
            inout("rcx") out.len() => _,
            inout("rsi") base => _,
            inout("rdi") out.as_mut_ptr() => _,
            options(nostack, preserves_flags),
        );
    }
}

/// Copies whole words out of shared memory.
///
/// # Safety
///
/// `base` is valid for atomic reads of `out.len()` bytes, which do not overlap `out`.
#[cfg(not(all(target_arch = "x86_64", not(miri))))]
unsafe fn copy_out(base: *const u64, out: &mut [u8]) {
    for (i, word) in out.chunks_exact_mut(8).enumerate() {
        // SAFETY: inside the range, as the caller promises; the pointer is only made mutable for the
        // atomic's sake.
        let value = unsafe { AtomicU64::from_ptr(base.add(i).cast_mut()) }.load(Ordering::Relaxed);
        word.copy_from_slice(&u64::from_le(value).to_le_bytes());
    }
}

impl Memory for RawMemory<'_> {
    fn len(&self) -> usize {
        self.len
    }

    fn load_u32(&self, offset: usize) -> u32 {
        u32::from_le(self.word_u32(offset).load(Ordering::Relaxed))
    }

    fn load_u64(&self, offset: usize) -> u64 {
        u64::from_le(self.word_u64(offset).load(Ordering::Relaxed))
    }

    fn read(&self, offset: usize, out: &mut [u8]) {
        self.at(offset, out.len(), 1);
        let (head, words) = split_words(offset, out.len());
        let (first, rest) = out.split_at_mut(head);
        let (middle, last) = rest.split_at_mut(words * 8);
        for (i, byte) in first.iter_mut().enumerate() {
            *byte = self.byte(offset + i).load(Ordering::Relaxed);
        }
        if words > 0 {
            let base = self.at(offset + head, words * 8, 8).cast::<u64>();
            // SAFETY: 1: the range of `words` words was checked by `at`, which aligned it too; 2: it
            // is not borrowed, and `middle` is as long.
            unsafe { copy_out(base, middle) };
        }
        for (i, byte) in last.iter_mut().enumerate() {
            *byte = self
                .byte(offset + head + words * 8 + i)
                .load(Ordering::Relaxed);
        }
    }

    fn crc32c(&self, crc: u32, offset: usize, len: usize) -> u32 {
        self.checksum::<true>(crc, offset, len)
    }

    #[cfg(target_arch = "x86_64")]
    fn prefetch(&self, offset: usize) {
        use core::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a hint reads nothing: any address will do.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(self.base.wrapping_add(offset).cast()) };
    }
}

impl MemoryMut for RawMemory<'_> {
    #[inline]
    fn store_u32(&self, offset: usize, value: u32) {
        self.word_u32(offset)
            .store(value.to_le(), Ordering::Relaxed);
        self.stored(offset, 4);
    }

    #[inline]
    fn store_u64(&self, offset: usize, value: u64) {
        self.word_u64(offset)
            .store(value.to_le(), Ordering::Relaxed);
        self.stored(offset, 8);
    }

    #[inline]
    fn store_u64_release(&self, offset: usize, value: u64) {
        if let Some(flush) = self.flush {
            flush.fence();
        }
        fence(Ordering::Release);
        self.store_u64(offset, value);
    }

    fn tail(&self, data: usize) -> Option<Tail<'_>> {
        self.tail_at(data)
    }

    fn crc32c_of_written(&self, crc: u32, offset: usize, len: usize) -> u32 {
        self.checksum::<false>(crc, offset, len)
    }

    #[cfg(target_endian = "little")]
    fn add_u64(&self, offset: usize, by: u64) {
        self.word_u64(offset).fetch_add(by, Ordering::Relaxed);
        self.stored(offset, 8);
    }

    fn write(&self, offset: usize, bytes: &[u8]) {
        self.at(offset, bytes.len(), 1);
        let (head, words) = split_words(offset, bytes.len());
        let (first, rest) = bytes.split_at(head);
        let (middle, last) = rest.split_at(words * 8);
        for (i, &byte) in first.iter().enumerate() {
            self.byte(offset + i).store(byte, Ordering::Relaxed);
        }
        if words > 0 {
            let base = self.at(offset + head, words * 8, 8).cast::<u64>();
            for (i, word) in middle.as_chunks::<8>().0.iter().enumerate() {
                let value = u64::from_le_bytes(*word).to_le();
                // SAFETY: 1: the range of `words` words was checked above; 2: atomic access.
                unsafe { AtomicU64::from_ptr(base.add(i)) }.store(value, Ordering::Relaxed);
            }
        }
        for (i, &byte) in last.iter().enumerate() {
            self.byte(offset + head + words * 8 + i)
                .store(byte, Ordering::Relaxed);
        }
        self.stored(offset, bytes.len());
    }
}

/// Memory on the heap, for tests and for regions that are read from a file or made in memory.
#[derive(Debug)]
pub struct HeapMemory {
    words: Box<[AtomicU64]>,
    len: usize,
}

impl HeapMemory {
    /// `len` zero bytes.
    #[must_use]
    pub fn new(len: usize) -> Self {
        Self {
            words: (0..len.div_ceil(8)).map(|_| AtomicU64::new(0)).collect(),
            len,
        }
    }

    /// A copy of `bytes`.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Self {
        let memory = Self::new(bytes.len());
        memory.write(0, bytes);
        memory
    }

    /// A copy of the whole memory.
    #[must_use]
    pub fn to_vec(&self) -> alloc::vec::Vec<u8> {
        let mut out = alloc::vec![0; self.len];
        self.read(0, &mut out);
        out
    }

    fn raw(&self) -> RawMemory<'_> {
        // SAFETY: 1: the words are allocated, aligned to 8, and cover `len`; they live as long as
        // `self` is borrowed, and atomics may be written through a shared reference; 2: they are
        // only accessed here, as atomics; 3: the allocation is no larger than an isize.
        unsafe { RawMemory::new(self.words.as_ptr().cast_mut().cast(), self.len) }
    }
}

impl Memory for HeapMemory {
    fn len(&self) -> usize {
        self.len
    }
    fn load_u32(&self, offset: usize) -> u32 {
        self.raw().load_u32(offset)
    }
    fn load_u64(&self, offset: usize) -> u64 {
        self.raw().load_u64(offset)
    }
    fn read(&self, offset: usize, out: &mut [u8]) {
        self.raw().read(offset, out);
    }
    fn crc32c(&self, crc: u32, offset: usize, len: usize) -> u32 {
        self.raw().crc32c(crc, offset, len)
    }
    fn prefetch(&self, offset: usize) {
        self.raw().prefetch(offset);
    }
}

impl MemoryMut for HeapMemory {
    fn store_u32(&self, offset: usize, value: u32) {
        self.raw().store_u32(offset, value);
    }
    fn store_u64(&self, offset: usize, value: u64) {
        self.raw().store_u64(offset, value);
    }
    fn tail(&self, data: usize) -> Option<Tail<'_>> {
        self.raw().tail_at(data)
    }
    fn crc32c_of_written(&self, crc: u32, offset: usize, len: usize) -> u32 {
        self.raw().crc32c_of_written(crc, offset, len)
    }
    fn add_u64(&self, offset: usize, by: u64) {
        self.raw().add_u64(offset, by);
    }
    fn write(&self, offset: usize, bytes: &[u8]) {
        self.raw().write(offset, bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    #[test]
    fn copies_of_every_alignment_and_length_round_trip() {
        let memory = HeapMemory::new(64);
        for offset in 0..16 {
            for len in 0..40 {
                let bytes: Vec<u8> = (0..len).map(|i| (offset * 7 + i) as u8).collect();
                memory.write(offset, &bytes);
                let mut back = alloc::vec![0xaa; len];
                memory.read(offset, &mut back);
                assert_eq!(back, bytes, "offset {offset} length {len}");
            }
        }
    }

    #[test]
    fn memory_that_flushes_holds_the_same() {
        let memory = HeapMemory::new(4096);
        let flushing = memory.raw().flushing();
        assert_eq!(flushing.flush.is_some(), RawMemory::CAN_FLUSH);
        let bytes: Vec<u8> = (0..200).collect();
        for offset in [0, 1, 63, 64, 65, 4096 - 200] {
            flushing.write(offset, &bytes);
            assert_eq!(memory.to_vec()[offset..offset + 200], bytes);
        }
        flushing.write(4096, &[]);
        flushing.store_u32(4092, 7);
        flushing.store_u64_release(8, 9);
        assert_eq!((memory.load_u32(4092), memory.load_u64(8)), (7, 9));
    }

    /// Whatever the processor has, the older ways work too.
    #[test]
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    fn older_ways_to_flush_hold_the_same() {
        let memory = HeapMemory::new(256);
        let mut raw = memory.raw();
        raw.flush = Some(Flush::Clflush);
        raw.write(60, b"over a line");
        assert_eq!(&memory.to_vec()[60..71], b"over a line");
    }

    #[test]
    #[should_panic(expected = "outside of")]
    fn a_range_that_overflows_panics() {
        HeapMemory::new(64).read(usize::MAX - 3, &mut [0; 8]);
    }
}

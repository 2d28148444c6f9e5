//! Memory that is shorter than the region that it held: what is missing reads as zeros.

use crate::Memory;

/// Memory made longer with zeros. Only whole pages of what is there are seen, so that a sub-buffer
/// is there or not.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Padded<'m, M> {
    memory: &'m M,
    /// Bytes that are there.
    there: usize,
    len: usize,
}

impl<'m, M: Memory> Padded<'m, M> {
    /// `memory`, or at least `len` bytes.
    pub(crate) fn new(memory: &'m M, len: u64) -> Self {
        let there = memory.len() / 4096 * 4096;
        Self {
            memory,
            there,
            len: usize::try_from(len).map_or(there, |len| len.max(there)),
        }
    }

    fn is_there(&self, offset: usize, len: usize) -> bool {
        assert!(
            len <= self.len && offset <= self.len - len,
            "{len} bytes at {offset:#x} are outside of {:#x} bytes",
            self.len
        );
        offset + len <= self.there
    }
}

impl<M: Memory> Memory for Padded<'_, M> {
    fn len(&self) -> usize {
        self.len
    }

    #[inline]
    fn load_u32(&self, offset: usize) -> u32 {
        match self.is_there(offset, 4) {
            true => self.memory.load_u32(offset),
            false => 0,
        }
    }

    #[inline]
    fn load_u64(&self, offset: usize) -> u64 {
        match self.is_there(offset, 8) {
            true => self.memory.load_u64(offset),
            false => 0,
        }
    }

    #[inline]
    fn read(&self, offset: usize, out: &mut [u8]) {
        if self.is_there(offset, out.len()) {
            return self.memory.read(offset, out);
        }
        let there = self.there.saturating_sub(offset);
        let (first, rest) = out.split_at_mut(there);
        if there > 0 {
            self.memory.read(offset, first);
        }
        rest.fill(0);
    }

    #[inline]
    fn crc32c(&self, crc: u32, offset: usize, len: usize) -> u32 {
        if self.is_there(offset, len) {
            return self.memory.crc32c(crc, offset, len);
        }
        let there = self.there.saturating_sub(offset);
        let crc = self.memory.crc32c(crc, offset, there);
        (there..len).fold(crc, |crc, _| crate::crc32c(crc, &[0]))
    }

    #[inline]
    fn prefetch(&self, offset: usize) {
        self.memory.prefetch(offset);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::HeapMemory;

    #[test]
    fn what_is_missing_reads_as_zeros_from_the_last_whole_page_on() {
        let memory = HeapMemory::from_bytes(&[7; 4096 + 100]);
        let padded = Padded::new(&memory, 8192);
        assert_eq!(padded.len(), 8192);
        assert_eq!(padded.load_u32(4092), 0x0707_0707);
        assert_eq!(padded.load_u64(4096), 0);
        let mut bytes = [1; 4];
        padded.read(4094, &mut bytes);
        assert_eq!(bytes, [7, 7, 0, 0]);
        padded.read(8000, &mut bytes);
        assert_eq!(bytes, [0; 4]);
        assert_eq!(Padded::new(&memory, 0).len(), 4096);
    }
}

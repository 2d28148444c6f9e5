//! Building damages: each method does one thing to a region.

use outlive_ring::layout::SUBBUF_SIZE;

use super::base::Base;
use super::edit::{Bytes, Edit};

/// What memory keeps or loses at a time on x86-64, in bytes.
pub(super) const CACHE_LINE: usize = 64;

/// One damage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// What is damaged, in words.
    pub name: String,
    /// What damages of its sort have in common: the rows of the table.
    pub kind: &'static str,
    /// What is done to the undamaged region.
    pub edits: Vec<Edit>,
}

/// A damage in the making.
#[derive(Debug)]
pub(super) struct Draft<'b> {
    pub(super) base: &'b Base,
    edits: Vec<Edit>,
}

impl<'b> Draft<'b> {
    pub(super) fn new(base: &'b Base) -> Self {
        Self {
            base,
            edits: Vec::new(),
        }
    }

    pub(super) fn finish(self, kind: &'static str, name: impl Into<String>) -> Damage {
        Damage {
            name: name.into(),
            kind,
            edits: self.edits,
        }
    }

    fn edit(&mut self, at: usize, bytes: Bytes) {
        self.edits.push(Edit { at, bytes });
    }

    pub(super) fn bytes(&mut self, at: usize, bytes: &[u8]) {
        self.edit(at, Bytes::Given(bytes.to_vec()));
    }

    pub(super) fn u32(&mut self, at: usize, value: u32) {
        self.bytes(at, &value.to_le_bytes());
    }

    pub(super) fn u64(&mut self, at: usize, value: u64) {
        self.bytes(at, &value.to_le_bytes());
    }

    pub(super) fn fill(&mut self, at: usize, byte: u8, len: usize) {
        let len = len.min(self.base.region.len() - at);
        self.edit(at, Bytes::Fill { byte, len });
    }

    pub(super) fn copy(&mut self, at: usize, from: usize, len: usize) {
        self.edit(at, Bytes::Copy { from, len });
    }

    /// Flips one bit of what the undamaged region has.
    pub(super) fn flip(&mut self, at: usize, bit: u32) {
        let byte = self.base.region[at] ^ (1 << bit);
        self.bytes(at, &[byte]);
    }

    /// Changes some bits of a word: those of `mask` become those of `value`.
    pub(super) fn set_bits(&mut self, at: usize, mask: u64, value: u64) {
        let before = self.base.u64_at(at);
        self.u64(at, before & !mask | value & mask);
    }

    /// A sub-buffer's contents, its header included, are another's.
    pub(super) fn copy_subbuf(&mut self, to: (u32, u32), from: (u32, u32)) {
        let (to, from) = (self.subbuf(to), self.subbuf(from));
        self.copy(to, from, SUBBUF_SIZE);
    }

    pub(super) fn swap_subbufs(&mut self, a: (u32, u32), b: (u32, u32)) {
        self.copy_subbuf(a, b);
        self.copy_subbuf(b, a);
    }

    /// A cache line of a sub-buffer is another sub-buffer's.
    pub(super) fn stale_line(&mut self, to: (u32, u32), from: (u32, u32), line: usize) {
        let (to, from) = (self.subbuf(to), self.subbuf(from));
        self.copy(to + line * CACHE_LINE, from + line * CACHE_LINE, CACHE_LINE);
    }

    fn subbuf(&self, (cpu, subbuf): (u32, u32)) -> usize {
        self.base.subbuf(cpu, subbuf)
    }
}

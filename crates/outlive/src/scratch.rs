//! The memory in which an event of unknown length is put together.

#![allow(unsafe_code)]

use std::mem::MaybeUninit;

use crate::encode::EVENT_MAX;

/// Bytes of an event, filled from the front. Clearing all of it would take as long as the rest of an
/// event does.
///
/// *Invariant*: the first `len` bytes are initialised.
#[derive(Debug)]
pub(crate) struct Scratch {
    bytes: [MaybeUninit<u8>; EVENT_MAX],
    len: usize,
}

impl Scratch {
    #[inline(always)]
    pub(crate) fn new() -> Self {
        Self {
            bytes: [const { MaybeUninit::uninit() }; EVENT_MAX],
            len: 0,
        }
    }

    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Appends as many zeros, or as fit.
    #[inline]
    pub(crate) fn push_zeros(&mut self, count: usize) {
        let end = (self.len + count).min(EVENT_MAX);
        self.bytes[self.len..end].fill(MaybeUninit::new(0));
        self.len = end;
    }

    /// Appends these bytes, or as many as fit.
    #[inline]
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        let kept = bytes.len().min(EVENT_MAX - self.len);
        self.bytes[self.len..self.len + kept].write_copy_of_slice(&bytes[..kept]);
        self.len += kept;
    }

    /// What was appended.
    #[inline]
    pub(crate) fn filled(&mut self) -> &mut [u8] {
        // SAFETY: the invariant.
        unsafe { self.bytes[..self.len].assume_init_mut() }
    }
}

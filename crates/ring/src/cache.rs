//! Memory that outlives a reset, and the processor's caches, which do not.
//!
//! What was stored last may lie in a cache only, for as long as nothing else wants its place there, and
//! a reset or a power loss forgets it. So each line is written back when it was stored to. Nobody waits
//! for that, but for the one store that publishes others: it goes behind them.

/// Bytes of a cache line on x86-64 (what CPUID leaf 1 tells is 64 on all that there are).
#[cfg(target_arch = "x86_64")]
const LINE_BYTES: usize = 64;

/// How lines are written back: the best way that this processor has.
#[cfg(all(target_arch = "x86_64", not(miri)))]
#[derive(Clone, Copy, Debug)]
pub(crate) enum Flush {
    /// Written back, and still in the cache.
    Clwb,
    /// Written back and forgotten.
    Clflushopt,
    /// The same, one after the other: each processor has it.
    Clflush,
}

#[cfg(all(target_arch = "x86_64", not(miri)))]
impl Flush {
    /// Of this processor (CPUID leaf 7; Intel SDM volume 2, CPUID).
    pub(crate) fn detect() -> Option<Self> {
        use core::arch::x86_64::{__cpuid, __cpuid_count};
        const CLFLUSHOPT: u32 = 1 << 23;
        const CLWB: u32 = 1 << 24;
        let features = match __cpuid(0).eax {
            0..7 => 0,
            _ => __cpuid_count(7, 0).ebx,
        };
        Some(match features {
            features if features & CLWB != 0 => Self::Clwb,
            features if features & CLFLUSHOPT != 0 => Self::Clflushopt,
            _ => Self::Clflush,
        })
    }

    /// Begins to write back the lines of a range.
    ///
    /// # Safety
    ///
    /// The range is mapped.
    pub(crate) unsafe fn lines(self, first: *const u8, len: usize) {
        let before = first.addr() % LINE_BYTES;
        for offset in (0..len + before).step_by(LINE_BYTES) {
            // The line that `offset` is in; the first one begins before the range.
            let line = first.wrapping_add(offset).wrapping_sub(before);
            // SAFETY: the instruction changes no byte, and a line that has one of the range's bytes is
            // on a page that has it too, so it is mapped.
            unsafe { self.line(line) };
        }
    }

    /// # Safety
    ///
    /// `line` is in a mapped page.
    unsafe fn line(self, line: *const u8) {
        use core::arch::asm;
        match self {
            // SAFETY: the caller's; writes back a line and changes nothing.
            Self::Clwb => unsafe {
                asm!("clwb [{}]", in(reg) line, options(nostack, preserves_flags));
            },
            // SAFETY: as above.
            Self::Clflushopt => unsafe {
                asm!("clflushopt [{}]", in(reg) line, options(nostack, preserves_flags));
            },
            // SAFETY: as above.
            Self::Clflush => unsafe {
                asm!("clflush [{}]", in(reg) line, options(nostack, preserves_flags));
            },
        }
    }

    /// What is stored behind it is written back behind what was begun before it.
    pub(crate) fn fence(self) {
        // SAFETY: each x86-64 has SSE.
        unsafe { core::arch::x86_64::_mm_sfence() };
    }
}

/// No way is known: a mapping that goes past the caches does without.
#[cfg(not(all(target_arch = "x86_64", not(miri))))]
#[derive(Clone, Copy, Debug)]
pub(crate) enum Flush {}

#[cfg(not(all(target_arch = "x86_64", not(miri))))]
impl Flush {
    pub(crate) fn detect() -> Option<Self> {
        None
    }

    /// # Safety
    ///
    /// None is needed: there is no such value.
    pub(crate) unsafe fn lines(self, _first: *const u8, _len: usize) {
        match self {}
    }

    pub(crate) fn fence(self) {
        match self {}
    }
}

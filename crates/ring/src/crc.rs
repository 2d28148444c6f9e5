//! CRC32C (Castagnoli, reflected, polynomial 0x82f63b78): the checksum of seals, catalog records,
//! run records and the anchor.

/// Continues the CRC32C `crc` (0 to begin) over `data`.
#[must_use]
pub fn crc32c(crc: u32, data: &[u8]) -> u32 {
    #[cfg(feature = "std")]
    {
        ::crc32c::crc32c_append(crc, data)
    }
    #[cfg(not(feature = "std"))]
    {
        portable(crc, data)
    }
}

#[cfg(any(test, not(feature = "std")))]
fn portable(crc: u32, data: &[u8]) -> u32 {
    !data
        .iter()
        .fold(!crc, |crc, &byte| next(crc ^ u32::from(byte)))
}

/// The state after one more byte, which was added to the low bits.
const fn next(crc: u32) -> u32 {
    TABLE[(crc & 0xff) as usize] ^ (crc >> 8)
}

static TABLE: [u32; 256] = {
    let mut table = [0; 256];
    let mut i = 0;
    while i < 256 {
        let mut crc = i as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 1 {
                (crc >> 1) ^ 0x82f6_3b78
            } else {
                crc >> 1
            };
            bit += 1;
        }
        table[i] = crc;
        i += 1;
    }
    table
};

/// The data of a nearly full sub-buffer in shared memory, without a copy.
///
/// The CRC32C instruction takes three cycles and one may begin in each: so three stretches of the data
/// go at the same time, and are put together by what zeros as long as a stretch make of a state.
#[cfg(all(feature = "std", target_arch = "x86_64", not(miri)))]
pub(crate) mod shared {
    use core::arch::x86_64::{_MM_HINT_T0, _mm_crc32_u8, _mm_crc32_u64, _mm_prefetch};
    use core::sync::atomic::{AtomicU8, AtomicU64, Ordering};

    use super::next;
    use crate::layout::SUBBUF_SIZE;

    /// Words of a stretch.
    const STRETCH: usize = 168;
    /// Shorter data is left to others.
    pub(crate) const MIN_LEN: usize = 3 * 8 * STRETCH;

    /// Continues `crc` over data of at least [`MIN_LEN`] bytes, if this CPU has the instruction. With
    /// `AHEAD` the sub-buffer behind is going to be read next.
    ///
    /// # Safety
    ///
    /// `data` is aligned to 8 and valid for atomic reads of `len` bytes.
    pub(crate) unsafe fn crc32c<const AHEAD: bool>(
        crc: u32,
        data: *const u8,
        len: usize,
    ) -> Option<u32> {
        if len < MIN_LEN || !std::is_x86_feature_detected!("sse4.2") {
            return None;
        }
        // SAFETY: the instruction is there, and the caller promises the data.
        Some(unsafe { three_stretches::<AHEAD>(crc, data, len) })
    }

    #[target_feature(enable = "sse4.2")]
    unsafe fn three_stretches<const AHEAD: bool>(crc: u32, data: *const u8, len: usize) -> u32 {
        let word = |i: usize| {
            // SAFETY: only words inside of the data are asked for; mutable for the atomic's sake.
            unsafe { AtomicU64::from_ptr(data.add(8 * i).cast_mut().cast()) }
                .load(Ordering::Relaxed)
        };
        let byte = |i: usize| {
            // SAFETY: only bytes inside of the data are asked for.
            unsafe { AtomicU8::from_ptr(data.add(i).cast_mut()) }.load(Ordering::Relaxed)
        };
        let (mut first, mut second, mut third) = (u64::from(!crc), 0, 0);
        for i in 0..STRETCH {
            if AHEAD && i % 2 == 0 {
                // The next sub-buffer, line by line: the CPU's own prefetcher stops at a page's end.
                let next = data.wrapping_add(SUBBUF_SIZE + 64 * (i / 2));
                _mm_prefetch::<_MM_HINT_T0>(next.cast());
            }
            first = _mm_crc32_u64(first, word(i));
            second = _mm_crc32_u64(second, word(STRETCH + i));
            third = _mm_crc32_u64(third, word(2 * STRETCH + i));
        }
        let two = after_zeros(first as u32) ^ second as u32;
        let all = u64::from(after_zeros(two) ^ third as u32);
        let rest = (3 * STRETCH..len / 8).fold(all, |crc, i| _mm_crc32_u64(crc, word(i)));
        !(len / 8 * 8..len).fold(rest as u32, |crc, i| _mm_crc32_u8(crc, byte(i)))
    }

    fn after_zeros(crc: u32) -> u32 {
        let [a, b, c, d] = crc.to_le_bytes();
        let [low, second, third, high] = &AFTER_ZEROS;
        low[usize::from(a)] ^ second[usize::from(b)] ^ third[usize::from(c)] ^ high[usize::from(d)]
    }

    /// For each byte of a state, what a stretch of zeros makes of it.
    static AFTER_ZEROS: [[u32; 256]; 4] = {
        let mut bits = [0; 32];
        let mut bit = 0;
        while bit < 32 {
            let mut crc = 1 << bit;
            let mut i = 0;
            while i < 8 * STRETCH {
                crc = next(crc);
                i += 1;
            }
            bits[bit] = crc;
            bit += 1;
        }
        let mut table = [[0; 256]; 4];
        let mut entry = 0;
        while entry < 4 * 256 {
            let (byte, value) = (entry / 256, entry % 256);
            let mut bit = 0;
            while bit < 8 {
                if value >> bit & 1 == 1 {
                    table[byte][value] ^= bits[8 * byte + bit];
                }
                bit += 1;
            }
            entry += 1;
        }
        table
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_implementations_give_the_check_value() {
        // The check value of CRC-32C in the catalogue of parametrised CRC algorithms.
        assert_eq!(crc32c(0, b"123456789"), 0xe306_9283);
        assert_eq!(portable(0, b"123456789"), 0xe306_9283);
        assert_eq!(portable(portable(0, b"1234"), b"56789"), 0xe306_9283);
    }

    #[test]
    fn checksums_in_shared_memory_are_those_of_a_copy() {
        use crate::{HeapMemory, Memory, MemoryMut};
        use alloc::vec::Vec;
        let bytes: Vec<u8> = (0..9000u32).map(|i| ((i * i) >> 3) as u8).collect();
        let memory = HeapMemory::new(bytes.len());
        memory.write(0, &bytes);
        for offset in [0, 8, 16, 4112, 13] {
            for len in [0, 1, 7, 8, 100, 4031, 4032, 4033, 4076, 4079, 4080, 4800] {
                let expected = portable(0x1234, &bytes[offset..offset + len]);
                assert_eq!(
                    memory.crc32c(0x1234, offset, len),
                    expected,
                    "{offset} {len}"
                );
            }
        }
    }
}

//! Reading a record's bytes: little endian, never beyond the end.
//!
//! A record is the bytes from the start of the trace entry. They are untrusted: they may be
//! shorter than the event's format says, and the offsets in them may point anywhere. What is
//! not there reads as zero, or as an empty slice.

use crate::ctype::IntType;

/// Bytes of the part of a trace entry that every event has: type, flags, preempt count, pid.
pub(crate) const ENTRY_HEADER_SIZE: usize = 8;

/// The integer of type `ty` at `offset`, extended to 64 bits; 0 if the record is too short.
#[inline]
pub(crate) fn load(record: &[u8], offset: usize, ty: IntType) -> u64 {
    match ty.size {
        1 => record.get(offset).map_or(0, |&b| ty.extend(u64::from(b))),
        2 => word::<2>(record, offset).map_or(0, |b| ty.extend(u64::from(u16::from_le_bytes(b)))),
        4 => word::<4>(record, offset).map_or(0, |b| ty.extend(u64::from(u32::from_le_bytes(b)))),
        _ => word::<8>(record, offset).map_or(0, u64::from_le_bytes),
    }
}

#[inline]
fn word<const N: usize>(record: &[u8], offset: usize) -> Option<[u8; N]> {
    record.get(offset..)?.first_chunk::<N>().copied()
}

/// The `u32` at `offset`; 0 if the record is too short.
#[inline]
pub(crate) fn load_u32(record: &[u8], offset: usize) -> u32 {
    word::<4>(record, offset).map_or(0, u32::from_le_bytes)
}

/// The `u64` at `offset`; `None` if the record is too short.
#[inline]
pub(crate) fn load_u64(record: &[u8], offset: usize) -> Option<u64> {
    word::<8>(record, offset).map(u64::from_le_bytes)
}

/// The floating-point number of `size` bytes (4 or 8) at `offset`; 0 if the record is too short.
pub(crate) fn load_float(record: &[u8], offset: usize, size: u8) -> f64 {
    let bits = load(record, offset, IntType::new(size, false));
    float_of(bits, size)
}

/// The floating-point number of `size` bytes (4 or 8) with these bits.
fn float_of(bits: u64, size: u8) -> f64 {
    match size {
        4 => f64::from(f32::from_bits(bits as u32)),
        _ => f64::from_bits(bits),
    }
}

/// Appends the number of `size` bytes (4 or 8) with these bits, with the digits that tell it from
/// its neighbours.
pub(crate) fn push_float(out: &mut Vec<u8>, bits: u64, size: u8) {
    let text = match size {
        4 => format!("{:?}", f32::from_bits(bits as u32)),
        _ => format!("{:?}", f64::from_bits(bits)),
    };
    out.extend_from_slice(text.as_bytes());
}

/// The bytes `offset..offset + len` as far as the record has them.
#[inline]
pub(crate) fn slice(record: &[u8], offset: usize, len: usize) -> &[u8] {
    let start = offset.min(record.len());
    let end = start + len.min(record.len() - start);
    &record[start..end]
}

/// The bytes that a `__data_loc` (or `__rel_loc`) word at `offset` points to.
#[inline]
pub(crate) fn dynamic(record: &[u8], offset: usize, is_relative: bool) -> &[u8] {
    let loc = load_u32(record, offset);
    let base = if is_relative { offset + 4 } else { 0 };
    slice(record, base + (loc & 0xffff) as usize, (loc >> 16) as usize)
}

/// `bytes` up to the first NUL.
#[inline]
pub(crate) fn until_nul(bytes: &[u8]) -> &[u8] {
    // Task names are of 16 bytes: their first zero is found without a loop.
    let len = match bytes.first_chunk().filter(|_| bytes.len() == 16) {
        Some(&name) => first_zero(u128::from_le_bytes(name)),
        None => bytes.iter().position(|&b| b == 0).unwrap_or(bytes.len()),
    };
    &bytes[..len]
}

/// Whether there is more behind the NUL at which a text ends.
pub(crate) fn has_more(text: &[u8]) -> bool {
    let shown = until_nul(text).len();
    text[shown..].iter().any(|&byte| byte != 0)
}

/// The place of the first zero byte; 16 if there is none.
#[inline]
fn first_zero(bytes: u128) -> usize {
    const ONES: u128 = u128::from_le_bytes([1; 16]);
    // Bit 7 of each zero byte up to the first; behind it, of others too.
    let zeros = bytes.wrapping_sub(ONES) & !bytes & (ONES << 7);
    zeros.trailing_zeros() as usize / 8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_zero_of_a_name_ends_it() {
        for len in 0..=16 {
            let mut name = [0x80; 16];
            name[len..].fill(0);
            if let Some(behind) = name.get_mut(len + 1) {
                *behind = 1;
            }
            assert_eq!(until_nul(&name).len(), len, "{name:?}");
        }
    }

    #[test]
    fn what_is_not_there_reads_as_zero_or_empty() {
        let record = [0xff, 0xff, 0xff, 0xff, 0x80];
        assert_eq!(load(&record, 2, IntType::UINT), 0);
        assert_eq!(load(&record, 4, IntType::CHAR), (-128i64) as u64);
        assert_eq!(load(&record, usize::MAX, IntType::LONG), 0);
        assert_eq!(dynamic(&record, 0, false), b"");
        assert_eq!(slice(&record, 4, 100), [0x80]);
    }

    #[test]
    fn dynamic_words_point_into_the_record() {
        let mut record = vec![0; 8];
        record.extend_from_slice(&(12u32 | 3 << 16).to_le_bytes());
        record.extend_from_slice(b"abcdef");
        assert_eq!(dynamic(&record, 8, false), b"abc");
        record[8] = 1;
        assert_eq!(dynamic(&record, 8, true), b"bcd");
    }
}

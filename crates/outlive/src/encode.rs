//! From values to the bytes of an event.
//!
//! The fixed part has the fields in the order of the call, each at a multiple of its size. Behind
//! it lie the bytes of texts and slices, to which words in the fixed part point: the length in the
//! upper and the offset in the lower 16 bits, as in the kernel's `__data_loc`. A text that is cut
//! keeps the length that it had: that it does not fit the event marks it as cut.

use outlive_ring::subbuf::PAYLOAD_MAX;

use crate::field::{Field, FieldType};

/// Bytes of the fields that every event has: id, CPU, thread.
pub(crate) const COMMON_BYTES: usize = 8;
/// A cut event takes this many bytes, so that whatever is missing would lie behind.
pub(crate) const EVENT_MAX: usize = PAYLOAD_MAX / 4 * 4;

/// The values of an event: a tuple of references to [`Field`]s.
pub trait Values {
    /// The fields' types.
    const TYPES: &'static [FieldType];
    /// Bytes of the fixed part.
    const FIXED_BYTES: usize;
    /// Whether something lies behind the fixed part.
    const IS_DYNAMIC: bool;

    /// Bytes of the whole event, uncut.
    fn event_bytes(&self) -> usize;

    /// Writes the fields behind the common ones. `event` has as many bytes as the event, or
    /// `EVENT_MAX` if that is less.
    fn put(&self, event: &mut [u8]);
}

/// The offset of the field number `field`; of one behind the last, the end of the fixed part.
pub(crate) const fn offset_of(types: &[FieldType], field: usize) -> usize {
    let mut end = COMMON_BYTES;
    let mut i = 0;
    while i < types.len() {
        let start = end.next_multiple_of(types[i].align());
        if i == field {
            return start;
        }
        end = start + types[i].fixed_size();
        i += 1;
    }
    end
}

const fn has_dynamic(types: &[FieldType]) -> bool {
    let mut i = 0;
    while i < types.len() {
        if types[i].is_dynamic() {
            return true;
        }
        i += 1;
    }
    false
}

/// Writes the bytes of a text or slice at `tail`, and the word that points there at `offset`.
/// Returns where the next one goes.
#[inline]
fn put_dynamic(event: &mut [u8], offset: usize, tail: usize, bytes: &[u8]) -> usize {
    let room = &mut event[tail..];
    let kept = bytes.len().min(room.len());
    room[..kept].copy_from_slice(&bytes[..kept]);
    event[offset..offset + 4].copy_from_slice(&data_loc(tail, bytes.len()));
    tail + kept
}

/// The word of a text or slice at `tail` that has, or would have had, so many bytes.
#[inline]
pub(crate) fn data_loc(tail: usize, len: usize) -> [u8; 4] {
    let len = len.min(usize::from(u16::MAX)) as u32;
    (len << 16 | tail as u32).to_le_bytes()
}

macro_rules! tuples {
    ($($($name:ident $index:tt),*;)*) => {$(
        impl<$($name: Field),*> Values for ($($name,)*) {
            const TYPES: &'static [FieldType] = &[$($name::TYPE),*];
            const FIXED_BYTES: usize = {
                let bytes = offset_of(Self::TYPES, usize::MAX);
                assert!(bytes <= EVENT_MAX, "the event's fixed fields do not fit a sub-buffer");
                bytes
            };
            const IS_DYNAMIC: bool = has_dynamic(Self::TYPES);

            #[inline]
            fn event_bytes(&self) -> usize {
                Self::FIXED_BYTES $(+ self.$index.dynamic().len())*
            }

            #[inline]
            #[allow(unused_mut, unused_variables, unused_assignments, reason = "no fields, or no texts")]
            fn put(&self, event: &mut [u8]) {
                let mut tail = Self::FIXED_BYTES;
                $(
                    let offset = const { offset_of(Self::TYPES, $index) };
                    if $name::TYPE.is_dynamic() {
                        tail = put_dynamic(event, offset, tail, self.$index.dynamic());
                    } else {
                        self.$index.put(&mut event[offset..offset + $name::TYPE.fixed_size()]);
                    }
                )*
            }
        }
    )*};
}

tuples! {
    ;
    A 0;
    A 0, B 1;
    A 0, B 1, C 2;
    A 0, B 1, C 2, D 3;
    A 0, B 1, C 2, D 3, E 4;
    A 0, B 1, C 2, D 3, E 4, F 5;
    A 0, B 1, C 2, D 3, E 4, F 5, G 6;
    A 0, B 1, C 2, D 3, E 4, F 5, G 6, H 7;
    A 0, B 1, C 2, D 3, E 4, F 5, G 6, H 7, I 8;
    A 0, B 1, C 2, D 3, E 4, F 5, G 6, H 7, I 8, J 9;
    A 0, B 1, C 2, D 3, E 4, F 5, G 6, H 7, I 8, J 9, K 10;
    A 0, B 1, C 2, D 3, E 4, F 5, G 6, H 7, I 8, J 9, K 10, L 11;
    A 0, B 1, C 2, D 3, E 4, F 5, G 6, H 7, I 8, J 9, K 10, L 11, M 12;
    A 0, B 1, C 2, D 3, E 4, F 5, G 6, H 7, I 8, J 9, K 10, L 11, M 12, N 13;
    A 0, B 1, C 2, D 3, E 4, F 5, G 6, H 7, I 8, J 9, K 10, L 11, M 12, N 13, O 14;
    A 0, B 1, C 2, D 3, E 4, F 5, G 6, H 7, I 8, J 9, K 10, L 11, M 12, N 13, O 14, P 15;
}

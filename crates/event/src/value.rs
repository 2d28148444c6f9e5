//! A record's fields as typed values, for JSON and other structured outputs.

use crate::ctype::IntType;
use crate::format::{EventFormat, Field, FieldKind};
use crate::record;

/// The value of a field. Texts are bytes: the kernel does not promise an encoding.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum Value<'a> {
    /// A signed integer.
    Signed(i64),
    /// An unsigned integer.
    Unsigned(u64),
    /// A `bool`.
    Bool(bool),
    /// A floating-point number.
    Float(f64),
    /// An address.
    Pointer(u64),
    /// A text, without its NUL.
    Text(&'a [u8]),
    /// Numbers; see [`Array::iter`].
    Array(Array<'a>),
    /// Bytes of a struct.
    Opaque(&'a [u8]),
    /// The record is too short to have the field.
    Missing,
}

/// An array of integers in a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Array<'a> {
    bytes: &'a [u8],
    elem: IntType,
}

impl<'a> Array<'a> {
    /// The type of the elements.
    #[must_use]
    pub fn elem(&self) -> IntType {
        self.elem
    }

    /// The array's bytes.
    #[must_use]
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The elements: [`Value::Signed`] or [`Value::Unsigned`]. A rest shorter than one element
    /// is left out.
    pub fn iter(&self) -> impl Iterator<Item = Value<'static>> + use<'a> {
        let Self { bytes, elem } = *self;
        let count = bytes.len() / usize::from(elem.size);
        (0..count).map(move |i| int(record::load(bytes, i * usize::from(elem.size), elem), elem))
    }
}

fn int(value: u64, ty: IntType) -> Value<'static> {
    if ty.signed {
        Value::Signed(value as i64)
    } else {
        Value::Unsigned(value)
    }
}

impl Field {
    /// The field's value in the record `payload` (the bytes from the start of the entry).
    #[must_use]
    pub fn value<'a>(&self, payload: &'a [u8]) -> Value<'a> {
        let (offset, size) = (self.offset as usize, self.size as usize);
        if payload.len() < offset + size {
            return Value::Missing;
        }
        let bytes = record::slice(payload, offset, size);
        match self.kind {
            FieldKind::Int(ty) => int(record::load(payload, offset, ty), ty),
            FieldKind::Bool => Value::Bool(bytes.first().is_some_and(|&b| b != 0)),
            FieldKind::Float { size } => Value::Float(record::load_float(payload, offset, size)),
            FieldKind::Pointer { .. } => {
                Value::Pointer(record::load(payload, offset, IntType::ULONG))
            }
            FieldKind::String => Value::Text(record::until_nul(bytes)),
            FieldKind::Array { elem } => Value::Array(Array { bytes, elem }),
            FieldKind::Opaque => Value::Opaque(bytes),
            FieldKind::Flexible { elem, is_string } => {
                numbers_or_text(record::slice(payload, offset, usize::MAX), elem, is_string)
            }
            FieldKind::Dynamic {
                elem,
                is_string,
                is_relative,
            } => numbers_or_text(
                record::dynamic(payload, offset, is_relative),
                elem,
                is_string,
            ),
        }
    }
}

fn numbers_or_text(bytes: &[u8], elem: IntType, is_string: bool) -> Value<'_> {
    if is_string {
        Value::Text(record::until_nul(bytes))
    } else {
        Value::Array(Array { bytes, elem })
    }
}

impl EventFormat {
    /// The event's own fields with their values in the record `payload`.
    pub fn values<'a>(&'a self, payload: &'a [u8]) -> impl Iterator<Item = (&'a str, Value<'a>)> {
        self.fields
            .iter()
            .map(|f| (f.name.as_str(), f.value(payload)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FORMAT: &str = "name: x\nID: 7\nformat:\n\
        \tfield:pid_t pid;\toffset:8;\tsize:4;\tsigned:1;\n\
        \tfield:char comm[4];\toffset:12;\tsize:4;\tsigned:0;\n\
        \tfield:__data_loc u16[] v;\toffset:16;\tsize:4;\tsigned:0;\n\
        \tfield:bool late;\toffset:28;\tsize:1;\tsigned:0;\n";

    #[test]
    fn fields_have_typed_values_and_missing_ones_say_so() {
        let format = EventFormat::parse("t", FORMAT).unwrap();
        let mut record = vec![0; 8];
        record.extend_from_slice(&(-1i32).to_le_bytes());
        record.extend_from_slice(b"sh\0x");
        record.extend_from_slice(&(20u32 | 5 << 16).to_le_bytes());
        record.extend_from_slice(&[1, 0, 2, 0, 9]);
        let values: Vec<_> = format.values(&record).collect();
        assert_eq!(values[0], ("pid", Value::Signed(-1)));
        assert_eq!(values[1], ("comm", Value::Text(b"sh")));
        let Value::Array(array) = values[2].1 else {
            panic!("{values:?}")
        };
        assert_eq!(
            array.iter().collect::<Vec<_>>(),
            [Value::Unsigned(1), Value::Unsigned(2)]
        );
        assert_eq!(values[3], ("late", Value::Missing));
    }
}

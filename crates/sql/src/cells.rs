//! Values of events as SQLite has them.

use std::fmt::Write;

use outlive_event::Value;
use rusqlite::types::{ToSqlOutput, ValueRef};

/// An owned cell.
pub(crate) type Owned = rusqlite::types::Value;

/// A cell for SQLite, which is borrowed from a record where that is possible.
#[derive(Debug)]
pub(crate) enum Datum<'a> {
    Borrowed(ValueRef<'a>),
    Owned(Owned),
}

impl From<Owned> for Datum<'_> {
    fn from(value: Owned) -> Self {
        Self::Owned(value)
    }
}

impl<'a> From<Datum<'a>> for ToSqlOutput<'a> {
    fn from(datum: Datum<'a>) -> Self {
        match datum {
            Datum::Borrowed(value) => Self::Borrowed(value),
            Datum::Owned(value) => Self::Owned(value),
        }
    }
}

/// An unsigned number: SQLite's integers end at `i64::MAX`, what is above is a text that compares as
/// the number does.
pub(crate) fn unsigned(value: u64) -> Owned {
    match i64::try_from(value) {
        Ok(value) => Owned::Integer(value),
        Err(_) => Owned::Text(format!("{value:#018x}")),
    }
}

/// A number that may not be known.
pub(crate) fn optional(value: Option<u64>) -> Owned {
    value.map_or(Owned::Null, unsigned)
}

/// A text that need not be UTF-8.
pub(crate) fn text(bytes: &[u8]) -> Datum<'_> {
    match std::str::from_utf8(bytes) {
        Ok(text) => Datum::Borrowed(ValueRef::Text(text.as_bytes())),
        Err(_) => Owned::Text(String::from_utf8_lossy(bytes).into_owned()).into(),
    }
}

/// A field's value.
pub(crate) fn field(value: Value<'_>) -> Datum<'_> {
    match value {
        Value::Signed(value) => Owned::Integer(value).into(),
        Value::Unsigned(value) => unsigned(value).into(),
        Value::Bool(value) => Owned::Integer(value.into()).into(),
        Value::Float(value) => Owned::Real(value).into(),
        Value::Pointer(address) => Owned::Text(format!("{address:#x}")).into(),
        Value::Text(bytes) => text(bytes),
        Value::Array(array) => Owned::Text(json(array.iter())).into(),
        Value::Opaque(bytes) => Datum::Borrowed(ValueRef::Blob(bytes)),
        _ => Owned::Null.into(),
    }
}

/// Numbers as a JSON array.
fn json(values: impl Iterator<Item = Value<'static>>) -> String {
    let mut text = String::from("[");
    for value in values {
        if text.len() > 1 {
            text.push(',');
        }
        // Writing into a string does not fail.
        let _ = match value {
            Value::Signed(value) => write!(text, "{value}"),
            Value::Unsigned(value) => write!(text, "{value}"),
            _ => write!(text, "null"),
        };
    }
    text.push(']');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_above_the_largest_integer_are_texts_in_the_same_order() {
        let Owned::Text(first) = unsigned(1 << 63) else {
            panic!("not a text")
        };
        let Owned::Text(last) = unsigned(u64::MAX) else {
            panic!("not a text")
        };
        assert_eq!(first, "0x8000000000000000");
        assert!(first < last);
        assert_eq!(unsigned(i64::MAX as u64), Owned::Integer(i64::MAX));
    }
}

//! Compiled expressions whose value is text: strings of the record and the kernel's
//! `__print_*` helpers.

use super::expr::{Data, Int};
use crate::catalog::Catalog;
use crate::ctype::IntType;
use crate::digits::push_0x;
use crate::pointer::{push_bitmap, push_hex_bytes};
use crate::record;

/// A text.
#[derive(Debug, Clone)]
pub(crate) enum Text {
    /// A string literal.
    Literal(Box<[u8]>),
    /// Bytes of the record up to the first NUL.
    Data(Data),
    /// A string of the traced kernel at an address; known if it is in `printk_formats`.
    Pointer(Int),
    /// `__print_flags`: names of the set bits, the rest as a number.
    Flags {
        value: Int,
        delimiter: Box<[u8]>,
        table: Table,
    },
    /// `__print_symbolic`: the name of a value, or the value as a number.
    Symbolic { value: Int, table: Table },
    /// `__print_hex`, `__print_hex_str`.
    Hex {
        data: Data,
        len: Int,
        separator: Option<u8>,
    },
    /// `__print_array`, `__print_dynamic_array`: `{0x1,0x2}`.
    Array {
        data: Data,
        count: Option<Int>,
        size: u8,
    },
    /// `__get_bitmask`, `__get_cpumask`.
    Bitmask(Data),
    /// `__trace_print_untrusted_str`: bytes as one word.
    Untrusted { data: Data, len: Int },
    /// `__trace_landlock_print_layers`: of each number the names of its bits, `{a|b,,b}`.
    Layers {
        data: Data,
        count: Int,
        table: Table,
    },
    /// `a ? b : c` of texts.
    Cond(Box<(Int, Text, Text)>),
}

/// Values and their names, in the order of the `print fmt`.
pub(crate) type Table = Box<[(u64, Box<[u8]>)]>;

impl Text {
    /// Appends the text for `record`.
    pub(crate) fn push(&self, out: &mut Vec<u8>, record: &[u8], catalog: &Catalog) {
        match self {
            Self::Literal(text) => out.extend_from_slice(text),
            Self::Data(data) => out.extend_from_slice(record::until_nul(data.bytes(record))),
            Self::Pointer(address) => push_pointer(out, address.eval(record), catalog),
            Self::Flags {
                value,
                delimiter,
                table,
            } => {
                push_flags(out, value.eval(record), delimiter, table);
            }
            Self::Symbolic { value, table } => push_symbolic(out, value.eval(record), table),
            Self::Hex {
                data,
                len,
                separator,
            } => {
                push_hex_bytes(out, first_bytes(data, len, record), *separator);
            }
            Self::Array { data, count, size } => {
                let count = count.as_ref().map(|c| c.eval(record));
                push_array(out, data.bytes(record), count, *size);
            }
            Self::Bitmask(data) => {
                let bytes = data.bytes(record);
                push_bitmap(out, bytes, bytes.len() * 8);
            }
            Self::Untrusted { data, len } => push_escaped(out, first_bytes(data, len, record)),
            Self::Layers { data, count, table } => {
                push_layers(out, data.bytes(record), count.eval(record), table);
            }
            Self::Cond(abc) => {
                let chosen = if abc.0.eval(record) != 0 {
                    &abc.1
                } else {
                    &abc.2
                };
                chosen.push(out, record, catalog);
            }
        }
    }
}

/// The first `len` bytes of `data`, or as many as there are.
fn first_bytes<'r>(data: &Data, len: &Int, record: &'r [u8]) -> &'r [u8] {
    let bytes = data.bytes(record);
    let len = usize::try_from(len.eval(record)).unwrap_or(0);
    &bytes[..len.min(bytes.len())]
}

/// White space, quotes, `=`, and what is no printable ASCII as C writes it (seen on 7.3.4).
fn push_escaped(out: &mut Vec<u8>, bytes: &[u8]) {
    for &byte in bytes {
        let letter = match byte {
            b'"' | b'\\' => byte,
            b'\n' => b'n',
            b'\r' => b'r',
            b'\t' => b't',
            0x07 => b'a',
            0x0b => b'v',
            0x0c => b'f',
            0x1b => b'e',
            b' ' | b'\'' | b'=' | ..b' ' | 0x7f.. => {
                let digits = [byte >> 6, byte >> 3 & 7, byte & 7].map(|digit| b'0' + digit);
                out.push(b'\\');
                out.extend_from_slice(&digits);
                continue;
            }
            _ => {
                out.push(byte);
                continue;
            }
        };
        out.extend_from_slice(&[b'\\', letter]);
    }
}

/// `count` numbers that fill `bytes`.
fn push_layers(out: &mut Vec<u8>, bytes: &[u8], count: u64, table: &Table) {
    let count = usize::try_from(count).unwrap_or(0);
    let size = bytes.len().checked_div(count).unwrap_or(0);
    out.push(b'{');
    // A count that leaves no whole number of bytes for each is not this record's.
    if matches!(size, 1 | 2 | 4 | 8) {
        let elem = IntType::new(size as u8, false);
        for i in 0..count {
            if i > 0 {
                out.push(b',');
            }
            push_flags(out, record::load(bytes, i * size, elem), b"|", table);
        }
    }
    out.push(b'}');
}

/// A string of the traced kernel; its address in parentheses if the catalog does not have it.
fn push_pointer(out: &mut Vec<u8>, address: u64, catalog: &Catalog) {
    match catalog.printk_format(address) {
        Some(text) => out.extend_from_slice(text.as_bytes()),
        None if address == 0 => out.extend_from_slice(b"(null)"),
        None => {
            out.push(b'(');
            push_0x(out, address);
            out.push(b')');
        }
    }
}

/// The kernel takes each entry whose bits are all set, in order, and clears them; what is left
/// is printed as a number.
fn push_flags(out: &mut Vec<u8>, mut value: u64, delimiter: &[u8], table: &Table) {
    let start = out.len();
    for (mask, name) in table {
        if value == 0 {
            break;
        }
        if value & mask != *mask {
            continue;
        }
        value &= !mask;
        if out.len() > start {
            out.extend_from_slice(delimiter);
        }
        out.extend_from_slice(name);
    }
    if value != 0 {
        if out.len() > start {
            out.extend_from_slice(delimiter);
        }
        push_0x(out, value);
    }
}

fn push_symbolic(out: &mut Vec<u8>, value: u64, table: &Table) {
    match table.iter().find(|(v, _)| *v == value) {
        Some((_, name)) => out.extend_from_slice(name),
        None => push_0x(out, value),
    }
}

fn push_array(out: &mut Vec<u8>, bytes: &[u8], count: Option<u64>, size: u8) {
    let elem = IntType::new(size, false);
    let there = bytes.len() / usize::from(size);
    let count = count.map_or(there, |c| usize::try_from(c).unwrap_or(0).min(there));
    out.push(b'{');
    for i in 0..count {
        if i > 0 {
            out.push(b',');
        }
        push_0x(out, record::load(bytes, i * usize::from(size), elem));
    }
    out.push(b'}');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(entries: &[(u64, &str)]) -> Table {
        entries
            .iter()
            .map(|&(v, n)| (v, n.as_bytes().into()))
            .collect()
    }

    fn flags(value: u64) -> String {
        let mut out = Vec::new();
        push_flags(
            &mut out,
            value,
            b"|",
            &table(&[(1, "S"), (2, "D"), (0x80, "I")]),
        );
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn flags_name_the_bits_and_print_the_rest() {
        assert_eq!(flags(0), "");
        assert_eq!(flags(3), "S|D");
        assert_eq!(flags(0x82), "D|I");
        assert_eq!(flags(0x101), "S|0x100");
        assert_eq!(flags(0x100), "0x100");
    }

    /// Lines of a 7.3.4 kernel; `crates/vm/tests/tracers.rs` compares more.
    #[test]
    fn layers_and_untrusted_texts() {
        let mut out = Vec::new();
        let names = table(&[(1, "read"), (2, "write")]);
        push_layers(&mut out, &[3, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0], 3, &names);
        push_layers(&mut out, &[3, 0, 0, 0], u64::MAX, &names);
        assert_eq!(out, b"{read|write,,write}{}");
        out.clear();
        push_escaped(&mut out, b"a b'c=\"\\\n\x01\xc3~");
        assert_eq!(out, br#"a\040b\047c\075\"\\\n\001\303~"#);
    }

    #[test]
    fn arrays_and_symbols() {
        let mut out = Vec::new();
        push_array(&mut out, &[1, 0, 2, 0, 3], None, 2);
        push_symbolic(&mut out, 1, &table(&[(1, "TIMER")]));
        push_symbolic(&mut out, 16, &table(&[(1, "TIMER")]));
        assert_eq!(out, b"{0x1,0x2}TIMER0x10");
    }
}

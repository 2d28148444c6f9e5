//! `bprint`: a `trace_printk` whose arguments the record holds in binary.
//!
//! The arguments follow each other in the order of the conversions: integers and plain
//! pointers little endian, aligned to their size but at most to 4 bytes, `*` widths as `int`,
//! strings inline with their NUL. Pointer conversions other than plain addresses and symbols
//! were already rendered by the writer and are stored as strings.

use crate::catalog::Catalog;
use crate::ctype::IntType;
use crate::pointer::PointerKind;
use crate::print_fmt::push_address;
use crate::printf::{self, Conversion, Count, Layout, Piece, Spec};
use crate::record;

/// Appends `format` with the arguments in `bytes`.
pub(super) fn push(out: &mut Vec<u8>, format: &str, bytes: &[u8], catalog: &Catalog) {
    let Ok(pieces) = printf::pieces(format.as_bytes()) else {
        return out.extend_from_slice(format.as_bytes());
    };
    let mut arguments = Arguments { bytes, at: 0 };
    for piece in pieces {
        match piece {
            Piece::Literal(text) => out.extend_from_slice(&text),
            Piece::Spec(spec) => arguments.push(out, &spec, catalog),
        }
    }
}

struct Arguments<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Arguments<'a> {
    fn int(&mut self, ty: IntType) -> u64 {
        let align = usize::from(ty.size.min(4));
        let start = self.at.next_multiple_of(align);
        self.at = start + usize::from(ty.size);
        record::load(self.bytes, start, ty)
    }

    fn str(&mut self) -> &'a [u8] {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let text = record::until_nul(rest);
        self.at += text.len() + 1;
        text
    }

    fn layout(&mut self, spec: &Spec) -> Layout {
        let mut layout = Layout {
            flags: spec.flags,
            ..Layout::default()
        };
        match spec.width {
            Count::None => {}
            Count::Fixed(width) => layout.width = width,
            Count::Argument => layout.set_width(self.int(IntType::INT) as i32),
        }
        match spec.precision {
            Count::None => {}
            Count::Fixed(precision) => layout.precision = Some(precision),
            Count::Argument => layout.set_precision(self.int(IntType::INT) as i32),
        }
        layout
    }

    fn push(&mut self, out: &mut Vec<u8>, spec: &Spec, catalog: &Catalog) {
        let layout = self.layout(spec);
        let start = out.len();
        match &spec.conversion {
            Conversion::Int { ty, base } => {
                let value = self.int(*ty);
                return printf::push_int(out, value, *ty, *base, &layout);
            }
            // The kernel has no such conversion, and stores nothing for it.
            Conversion::Float => out.extend_from_slice(b"%g"),
            Conversion::Char => out.push(self.int(IntType::BYTE) as u8),
            Conversion::Str => out.extend_from_slice(self.str()),
            Conversion::Pointer(letters) => match PointerKind::of(letters) {
                Some(PointerKind::Address) => push_address(out, self.int(IntType::ULONG)),
                Some(PointerKind::Symbol(style)) => {
                    catalog.push_symbol(out, self.int(IntType::ULONG), style);
                }
                _ => out.extend_from_slice(self.str()),
            },
        }
        printf::finish_str(out, start, &layout);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_taken_from_the_record_in_order() {
        let mut bytes = vec![b'c', 0, 2, 1];
        bytes.extend_from_slice(&7u32.to_le_bytes());
        bytes.extend_from_slice(&0x1_0000_0000u64.to_le_bytes());
        bytes.extend_from_slice(b"hi\0");
        let mut out = Vec::new();
        push(&mut out, "%c %hd %*s|", &bytes[..8], &Catalog::default());
        assert_eq!(out, b"c 258        |");
        out.clear();
        push(&mut out, "%c%hd %u %llx %s", &bytes, &Catalog::default());
        assert_eq!(out, b"c258 7 100000000 hi");
    }
}

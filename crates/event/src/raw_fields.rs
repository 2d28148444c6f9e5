//! Printing a record from its fields, as the kernel does with its `fields` option and for
//! records of a previous boot: `name: field=0xHEX (DEC) ...`.
//!
//! Observed on Linux 6.18 and in the golden texts of 7.3: one-byte fields show as `(DEC)`,
//! fixed arrays of other sizes than an integer's as `<INVALID-SIZE>`, 8-byte words that are
//! kernel code as `symbol+0xOFF/0xSIZE (DEC)` with the lower 32 bits signed.

use crate::catalog::Catalog;
use crate::ctype::IntType;
use crate::digits::{push_0x, push_i64, push_u64};
use crate::format::{EventFormat, Field, FieldKind};
use crate::pointer::{SymbolStyle, push_hex_bytes};
use crate::record;

/// Appends ` field=value` for every field of the record `payload`.
pub(crate) fn push(out: &mut Vec<u8>, event: &EventFormat, payload: &[u8], catalog: &Catalog) {
    let always_signed = is_always_signed(catalog);
    for field in event.fields.iter() {
        out.push(b' ');
        out.extend_from_slice(field.name.as_bytes());
        out.push(b'=');
        push_value(out, field, payload, catalog, always_signed);
    }
}

/// Up to Linux 6.18 every decimal is signed; 7.3 goes by the field's type.
fn is_always_signed(catalog: &Catalog) -> bool {
    let release = catalog.kernel().map_or("", |k| k.release.as_str());
    let major = release
        .split('.')
        .next()
        .and_then(|m| m.parse::<u32>().ok());
    major.is_some_and(|m| m < 7)
}

fn push_value(
    out: &mut Vec<u8>,
    field: &Field,
    payload: &[u8],
    catalog: &Catalog,
    always_signed: bool,
) {
    let offset = field.offset as usize;
    if payload.len() < offset.saturating_add(field.size as usize) {
        return out.extend_from_slice(b"<OVERFLOW>");
    }
    match field.kind {
        FieldKind::String => push_text(out, record::slice(payload, offset, field.size as usize)),
        FieldKind::Flexible {
            is_string: true, ..
        } => {
            push_text(out, record::slice(payload, offset, usize::MAX));
        }
        FieldKind::Flexible {
            is_string: false, ..
        } => {
            push_bytes(out, record::slice(payload, offset, usize::MAX));
        }
        FieldKind::Dynamic {
            is_string: true,
            is_relative,
            ..
        } => {
            push_text(out, record::dynamic(payload, offset, is_relative));
        }
        FieldKind::Dynamic {
            is_string: false,
            is_relative,
            ..
        } => {
            push_bytes(out, record::dynamic(payload, offset, is_relative));
        }
        FieldKind::Pointer { to_char: true } => {
            push_char_pointer(out, record::load(payload, offset, IntType::ULONG), catalog);
        }
        FieldKind::Float { size } => {
            let bits = record::load(payload, offset, IntType::new(size, false));
            record::push_float(out, bits, size);
        }
        _ => push_number(out, field, payload, catalog, always_signed),
    }
}

fn push_text(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(record::until_nul(bytes));
}

fn push_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    push_hex_bytes(out, bytes, Some(b','));
}

/// `(0xADDRESS:string)`, or `(0xADDRESS)` if the string is not known.
fn push_char_pointer(out: &mut Vec<u8>, address: u64, catalog: &Catalog) {
    out.push(b'(');
    push_0x(out, address);
    if let Some(text) = catalog.printk_format(address) {
        out.push(b':');
        out.extend_from_slice(text.as_bytes());
    }
    out.push(b')');
}

/// A field of 1, 2, 4 or 8 bytes, whatever it is; the kernel goes by the size alone.
fn push_number(
    out: &mut Vec<u8>,
    field: &Field,
    payload: &[u8],
    catalog: &Catalog,
    always_signed: bool,
) {
    let offset = field.offset as usize;
    let is_signed = field.is_signed || always_signed && field.size >= 4;
    let value = |size, signed| record::load(payload, offset, IntType::new(size, signed));
    match field.size {
        1 => push_decimal(out, value(1, field.is_signed), field.is_signed),
        size @ (2 | 4 | 8) => {
            let size = size as u8;
            let bits = value(size, false);
            if size == 8 && push_code_symbol(out, bits, catalog) {
                return;
            }
            push_0x(out, bits);
            out.push(b' ');
            push_decimal(out, value(size, is_signed), is_signed);
        }
        _ => out.extend_from_slice(b"<INVALID-SIZE>"),
    }
}

fn push_decimal(out: &mut Vec<u8>, value: u64, is_signed: bool) {
    out.push(b'(');
    if is_signed {
        push_i64(out, value as i64)
    } else {
        push_u64(out, value)
    }
    out.push(b')');
}

/// An address of kernel code as a symbol; false if it is none.
fn push_code_symbol(out: &mut Vec<u8>, address: u64, catalog: &Catalog) -> bool {
    let is_code = catalog.symbols().lookup(address).is_some_and(|s| s.is_text);
    if is_code {
        catalog.push_symbol(out, address, SymbolStyle::Offset);
        out.push(b' ');
        push_decimal(out, IntType::INT.extend(address), true);
    }
    is_code
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::CatalogRecord;

    const FORMAT: &str = "name: x\nID: 7\nformat:\n\
        \tfield:unsigned int u;\toffset:8;\tsize:4;\tsigned:0;\n\
        \tfield:bool b;\toffset:12;\tsize:1;\tsigned:0;\n\
        \tfield:short s;\toffset:14;\tsize:2;\tsigned:1;\n\
        \tfield:void * f;\toffset:16;\tsize:8;\tsigned:0;\n\
        \tfield:unsigned long v[2];\toffset:24;\tsize:16;\tsigned:0;\n\
        \tfield:char c[4];\toffset:40;\tsize:4;\tsigned:0;\n\
        \tfield:long end;\toffset:44;\tsize:8;\tsigned:1;\n";

    fn record() -> Vec<u8> {
        let mut record = vec![0; 8];
        record.extend_from_slice(&u32::MAX.to_le_bytes());
        record.extend_from_slice(&[1, 0, 0xfe, 0xff]);
        record.extend_from_slice(&0xffff_ffff_8143_0a20u64.to_le_bytes());
        record.extend_from_slice(&[0; 16]);
        record.extend_from_slice(b"sh\0\0");
        record
    }

    fn printed(release: &str) -> String {
        let mut catalog = Catalog::new();
        let records = [
            CatalogRecord::Kernel {
                text_addr: 0,
                release,
                version: "",
                machine: "",
            },
            CatalogRecord::Symbol {
                address: 0xffff_ffff_8143_0a20,
                size: 0x140,
                name: "tick_nohz_handler",
                module: "",
            },
        ];
        records
            .iter()
            .for_each(|r| catalog.apply_record(r).unwrap());
        let mut out = Vec::new();
        push(
            &mut out,
            &EventFormat::parse("t", FORMAT).unwrap(),
            &record(),
            &catalog,
        );
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn values_print_as_the_fields_option_does() {
        let common = "b=(1) s=0xfffe (-2) f=tick_nohz_handler+0x0/0x140 (-2126312928) \
            v=<INVALID-SIZE> c=sh end=<OVERFLOW>";
        assert_eq!(printed("6.18.44"), format!(" u=0xffffffff (-1) {common}"));
        assert_eq!(
            printed("7.3.4"),
            format!(" u=0xffffffff (4294967295) {common}")
        );
    }
}

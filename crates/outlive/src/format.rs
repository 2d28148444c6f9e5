//! The `format` text of an event, as the kernel writes it for its own.

use std::fmt::{self, Write};

use crate::encode::offset_of;
use crate::field::FieldType;

/// The fields that every event has. Where a kernel's event has flags and preempt count, ours has
/// the CPU: the buffer that it lies in is not that of the CPU.
const COMMON: &str = "\
format:
\tfield:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;
\tfield:unsigned short common_cpu;\toffset:2;\tsize:2;\tsigned:0;
\tfield:int common_pid;\toffset:4;\tsize:4;\tsigned:1;

";

/// Appends the text.
pub(crate) fn write(
    out: &mut impl Write,
    name: &str,
    id: u16,
    fields: &[&str],
    types: &[FieldType],
) -> fmt::Result {
    write!(out, "name: {name}\nID: {id}\n{COMMON}")?;
    for (i, (field, &ty)) in fields.iter().zip(types).enumerate() {
        out.write_str("\tfield:")?;
        declaration(out, field, ty)?;
        let (offset, size) = (offset_of(types, i), ty.fixed_size());
        let signed = u8::from(is_signed(ty));
        writeln!(out, ";\toffset:{offset};\tsize:{size};\tsigned:{signed};")?;
    }
    out.write_str("\nprint fmt: \"")?;
    for (i, (field, &ty)) in fields.iter().zip(types).enumerate() {
        let separator = if i == 0 { "" } else { " " };
        write!(out, "{separator}{field}={}", conversion(ty))?;
    }
    out.write_char('"')?;
    for (field, &ty) in fields.iter().zip(types) {
        out.write_str(", ")?;
        argument(out, field, ty)?;
    }
    out.write_char('\n')
}

fn is_signed(ty: FieldType) -> bool {
    match ty {
        FieldType::Int { is_signed, .. }
        | FieldType::Slice { is_signed, .. }
        | FieldType::Array { is_signed, .. } => is_signed,
        FieldType::Float { .. } => true,
        FieldType::Bool | FieldType::Text | FieldType::Symbolic { .. } => false,
    }
}

/// The type's name, as the kernel's.
struct Int(usize, bool);

impl fmt::Display for Int {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", if self.1 { 's' } else { 'u' }, self.0 * 8)
    }
}

fn declaration(out: &mut impl Write, field: &str, ty: FieldType) -> fmt::Result {
    match ty {
        FieldType::Int { size, is_signed } => write!(out, "{} {field}", Int(size, is_signed)),
        FieldType::Symbolic { size, .. } => write!(out, "{} {field}", Int(size, false)),
        FieldType::Bool => write!(out, "bool {field}"),
        FieldType::Float { size: 4 } => write!(out, "float {field}"),
        FieldType::Float { .. } => write!(out, "double {field}"),
        FieldType::Text => write!(out, "__data_loc char[] {field}"),
        FieldType::Slice { size, is_signed } => {
            write!(out, "__data_loc {}[] {field}", Int(size, is_signed))
        }
        FieldType::Array {
            len,
            size,
            is_signed,
        } => write!(out, "{} {field}[{len}]", Int(size, is_signed)),
    }
}

fn conversion(ty: FieldType) -> &'static str {
    match ty {
        FieldType::Int { size: 8, is_signed } => ["%llu", "%lld"][usize::from(is_signed)],
        FieldType::Int { is_signed, .. } => ["%u", "%d"][usize::from(is_signed)],
        FieldType::Float { .. } => "%g",
        _ => "%s",
    }
}

fn argument(out: &mut impl Write, field: &str, ty: FieldType) -> fmt::Result {
    match ty {
        FieldType::Int { .. } | FieldType::Float { .. } => write!(out, "REC->{field}"),
        FieldType::Bool => write!(out, "REC->{field} ? \"true\" : \"false\""),
        FieldType::Text => write!(out, "__get_str({field})"),
        FieldType::Slice { size, .. } => write!(
            out,
            "__print_array(__get_dynamic_array({field}), \
             __get_dynamic_array_len({field}) / {size}, {size})"
        ),
        FieldType::Array { len, size, .. } => {
            write!(out, "__print_array(REC->{field}, {len}, {size})")
        }
        FieldType::Symbolic { names, .. } => {
            write!(out, "__print_symbolic(REC->{field}")?;
            for (value, name) in names {
                write!(out, ", {{ {value}, \"{name}\" }}")?;
            }
            out.write_char(')')
        }
    }
}

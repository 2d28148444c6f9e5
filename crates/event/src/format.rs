//! The `format` file language: one event's id, fields and `print fmt`.
//!
//! A `format` file (`events/SYSTEM/EVENT/format` in tracefs) has a `name:` line, an `ID:` line,
//! a `format:` line, one `field:` line per field (first the common ones, then an empty line,
//! then the event's own) and a `print fmt:` line. Read on Linux 6.12, 6.18 and 7.3.

use std::ops::Range;
use std::sync::OnceLock;

use crate::constants::Constants;
use crate::ctype::{self, IntType};
use crate::doubt::Tells;
use crate::error::{FormatError, FormatErrorKind, NotEvaluated};
use crate::print_fmt::{self, Program};
use crate::record;
use crate::symbol_fields::SymbolFields;
use crate::task_names::NamePairs;

/// Largest field offset or size taken from a `format` file: more than the largest sub-buffer
/// (512 KiB), so that sums of them never overflow.
const MAX_OFFSET: u64 = 1 << 20;

/// One event type: what its `format` file says.
#[derive(Debug)]
pub struct EventFormat {
    /// The system (`sched`) that the event belongs to.
    pub system: String,
    /// The event's name (`sched_switch`).
    pub name: String,
    /// The id that a record carries in its first two bytes.
    pub id: u16,
    /// The fields that every event has: type, flags, preempt count, pid.
    pub common: Vec<Field>,
    /// The event's own fields, in the order of the file.
    pub fields: Vec<Field>,
    /// The text after `print fmt: `.
    pub print_fmt: String,
    /// The whole file.
    pub text: String,
    program: OnceLock<Result<Program, NotEvaluated>>,
    /// Offset of the common field with the CPU.
    cpu_offset: Option<u16>,
    pub(crate) name_pairs: NamePairs,
    pub(crate) tells: Tells,
    pub(crate) symbols: OnceLock<SymbolFields>,
}

/// One field of an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Field {
    /// The field's name.
    pub name: String,
    /// Its C type as declared, without the name and without array lengths.
    pub type_name: String,
    /// Bytes from the start of the trace entry.
    pub offset: u32,
    /// Bytes; 0 for a flexible array at the end of the record.
    pub size: u32,
    /// What the file says in `signed:`.
    pub is_signed: bool,
    /// How the bytes are read.
    pub kind: FieldKind,
}

/// How a field's bytes are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum FieldKind {
    /// One integer, little endian.
    Int(IntType),
    /// One byte, `bool`.
    Bool,
    /// `float` or `double`: no kernel's event has one, those of programs do.
    Float {
        /// Bytes: 4 or 8.
        size: u8,
    },
    /// An address in the traced kernel, or a user's.
    Pointer {
        /// True for `char *`: the address of a string.
        to_char: bool,
    },
    /// `char x[N]`: text up to the first NUL, at most the field's size.
    String,
    /// `T x[N]`.
    Array {
        /// The elements' type.
        elem: IntType,
    },
    /// `T x[]`: everything from the field's offset to the end of the record.
    Flexible {
        /// The elements' type.
        elem: IntType,
        /// True for `char x[]`.
        is_string: bool,
    },
    /// `__data_loc T[] x` or `__rel_loc T[] x`: a word with the length in its upper and the
    /// offset in its lower 16 bits, which points into the record.
    Dynamic {
        /// The elements' type.
        elem: IntType,
        /// True for `char[]`.
        is_string: bool,
        /// True for `__rel_loc`: the offset counts from the end of the word, not from the
        /// start of the entry.
        is_relative: bool,
    },
    /// A struct or union, or an integer of an odd size: bytes without meaning to us.
    Opaque,
}

impl EventFormat {
    /// Parses the `format` file of an event of `system`.
    ///
    /// # Errors
    ///
    /// A missing `name:` or `ID:` line, a `field:` line that is not of the known form, a number
    /// that does not fit; with the place in `text`.
    pub fn parse(system: &str, text: &str) -> Result<Self, FormatError> {
        let mut parsed = Self::empty(system, text);
        let (mut name, mut id) = (None, None);
        let mut in_common = true;
        for line in lines(text) {
            let body = &text[line.clone()];
            if let Some(rest) = body.strip_prefix("name:") {
                name = Some(rest.trim().to_owned());
            } else if let Some(rest) = body.strip_prefix("ID:") {
                id = Some(number(rest.trim(), u64::from(u16::MAX), &line)?);
            } else if let Some(rest) = body.strip_prefix("print fmt:") {
                let start = line.end - rest.len();
                text[start..].trim().clone_into(&mut parsed.print_fmt);
                break;
            } else if body.trim_start().starts_with("field:") {
                let field = parse_field(body, &line)?;
                in_common &= field.name.starts_with("common_");
                if in_common {
                    parsed.common.push(field)
                } else {
                    parsed.fields.push(field)
                }
            }
        }
        parsed.name = name.ok_or_else(|| missing("name:", text))?;
        parsed.id = id.ok_or_else(|| missing("ID:", text))? as u16;
        let cpu = parsed
            .common
            .iter()
            .find(|f| f.name == "common_cpu" && f.size == 2);
        parsed.cpu_offset = cpu.and_then(|cpu| u16::try_from(cpu.offset).ok());
        parsed.name_pairs = NamePairs::of(&parsed);
        parsed.tells = Tells::of(system, &parsed.name, &parsed.fields);
        Ok(parsed)
    }

    fn empty(system: &str, text: &str) -> Self {
        Self {
            system: system.to_owned(),
            name: String::new(),
            id: 0,
            common: Vec::new(),
            fields: Vec::new(),
            print_fmt: String::new(),
            text: text.to_owned(),
            program: OnceLock::new(),
            cpu_offset: None,
            name_pairs: NamePairs::default(),
            tells: Tells::default(),
            symbols: OnceLock::new(),
        }
    }

    /// The field called `name`, of the event's own or of the common ones.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&Field> {
        self.fields
            .iter()
            .chain(&self.common)
            .find(|f| f.name == name)
    }

    /// Whether the record `payload` does not show all of a text or an array: it was cut when it was
    /// recorded, where it keeps its length and reaches beyond the record's end, or a text has a zero,
    /// where it ends for readers, and more behind that.
    #[must_use]
    pub fn is_cut(&self, payload: &[u8]) -> bool {
        self.has_cpu() && self.fields.iter().any(|field| field.is_cut(payload))
    }

    /// The CPU that the record `payload` was written on, where records say so themselves: those of
    /// a program's own events, whose buffers are not the CPUs'.
    #[inline]
    #[must_use]
    pub fn cpu(&self, payload: &[u8]) -> Option<u32> {
        let offset = usize::from(self.cpu_offset?);
        payload
            .get(offset..)?
            .first_chunk()
            .map(|&cpu| u32::from(u16::from_le_bytes(cpu)))
    }

    /// Whether the event's records say on which CPU they were written.
    #[must_use]
    pub fn has_cpu(&self) -> bool {
        self.cpu_offset.is_some()
    }

    /// The compiled `print fmt`; compiled at the first call, with the values that `constants` has
    /// then.
    ///
    /// # Errors
    ///
    /// The part that is not understood. The event is then printed from its fields.
    pub fn program(&self, constants: &Constants) -> Result<&Program, &NotEvaluated> {
        self.program
            .get_or_init(|| print_fmt::compile(self, &|name| constants.get(name)))
            .as_ref()
    }
}

impl Field {
    fn is_cut(&self, payload: &[u8]) -> bool {
        let FieldKind::Dynamic {
            is_relative: false,
            is_string,
            ..
        } = self.kind
        else {
            return false;
        };
        let offset = self.offset as usize;
        let word = record::load_u32(payload, offset);
        (word & 0xffff) + (word >> 16) > payload.len() as u32
            || is_string && record::has_more(record::dynamic(payload, offset, false))
    }
}

/// Byte ranges of the lines of `text`, without their line ends.
fn lines(text: &str) -> impl Iterator<Item = Range<usize>> {
    let mut at = 0;
    text.split_inclusive('\n').map(move |line| {
        let start = at;
        at += line.len();
        start..start + line.trim_end_matches(['\n', '\r']).len()
    })
}

fn missing(what: &'static str, text: &str) -> FormatError {
    FormatError {
        span: text.len()..text.len(),
        kind: FormatErrorKind::Missing(what),
    }
}

fn expected(what: &'static str, span: &Range<usize>) -> FormatError {
    FormatError {
        span: span.clone(),
        kind: FormatErrorKind::Expected(what),
    }
}

fn number(text: &str, max: u64, span: &Range<usize>) -> Result<u64, FormatError> {
    let value: u64 = text.parse().map_err(|_| expected("a number", span))?;
    if value > max {
        return Err(FormatError {
            span: span.clone(),
            kind: FormatErrorKind::OutOfRange(max),
        });
    }
    Ok(value)
}

/// One `field:DECLARATION; offset:N; size:N; signed:N;` line.
fn parse_field(line: &str, span: &Range<usize>) -> Result<Field, FormatError> {
    let part = |key: &str| {
        let mut parts = line.split(';').map(str::trim);
        parts.find_map(|p| p.strip_prefix(key))
    };
    let declaration = part("field:").ok_or_else(|| expected("field:", span))?;
    let offset = part("offset:").ok_or_else(|| expected("offset:", span))?;
    let size = part("size:").ok_or_else(|| expected("size:", span))?;
    let is_signed = part("signed:").is_some_and(|s| s != "0");
    let offset = number(offset, MAX_OFFSET, span)? as u32;
    let size = number(size, MAX_OFFSET, span)? as u32;
    let decl = Declaration::parse(declaration).ok_or_else(|| expected("TYPE NAME", span))?;
    Ok(Field {
        kind: decl.kind(size, is_signed),
        name: decl.name.to_owned(),
        type_name: decl.type_name.to_owned(),
        offset,
        size,
        is_signed,
    })
}

/// A field's declaration, taken apart: `char comm[16]`, `__data_loc char[] name`.
struct Declaration<'a> {
    type_name: &'a str,
    name: &'a str,
    array: Option<&'a str>,
}

impl<'a> Declaration<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        let (head, array) = match text.find('[') {
            Some(open) if text.ends_with(']') => {
                (&text[..open], Some(&text[open + 1..text.len() - 1]))
            }
            _ => (text, None),
        };
        let head = head.trim_end();
        let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let start = head.trim_end_matches(is_word).len();
        let (type_name, name) = (head[..start].trim(), &head[start..]);
        (!name.is_empty() && !type_name.is_empty()).then_some(Self {
            type_name,
            name,
            array,
        })
    }

    fn kind(&self, size: u32, is_signed: bool) -> FieldKind {
        let ty = self.type_name;
        if let Some(inner) = ty
            .strip_prefix("__data_loc")
            .or(ty.strip_prefix("__rel_loc"))
        {
            let inner = inner.trim().trim_end_matches("[]").trim();
            let is_relative = ty.starts_with("__rel_loc");
            return FieldKind::Dynamic {
                elem: element(inner, is_signed),
                is_string: is_char(inner),
                is_relative,
            };
        }
        match self.array.map(str::trim) {
            Some("") => FieldKind::Flexible {
                elem: element(ty, is_signed),
                is_string: is_char(ty),
            },
            Some(_) if is_char(ty) => FieldKind::String,
            Some(count) => self.array_kind(count, size, is_signed),
            None => scalar(ty, size, is_signed),
        }
    }

    fn array_kind(&self, count: &str, size: u32, is_signed: bool) -> FieldKind {
        if self.type_name.ends_with('*') {
            return FieldKind::Array {
                elem: IntType::ULONG,
            };
        }
        let words: Vec<&str> = self.type_name.split_whitespace().collect();
        if let Some(elem) = ctype::by_words(&words) {
            return FieldKind::Array { elem };
        }
        let each = count.parse::<u32>().ok().and_then(|n| size.checked_div(n));
        match each {
            Some(each @ (1 | 2 | 4 | 8)) => FieldKind::Array {
                elem: IntType::new(each as u8, is_signed),
            },
            _ => FieldKind::Opaque,
        }
    }
}

/// The element type of an array whose size does not tell it; bytes if the name is unknown.
fn element(type_name: &str, is_signed: bool) -> IntType {
    if type_name.ends_with('*') {
        return IntType::ULONG;
    }
    let words: Vec<&str> = type_name.split_whitespace().collect();
    ctype::by_words(&words).unwrap_or(IntType::new(1, is_signed))
}

fn is_char(type_name: &str) -> bool {
    type_name
        .split_whitespace()
        .filter(|w| *w != "const")
        .eq(["char"])
}

fn scalar(type_name: &str, size: u32, is_signed: bool) -> FieldKind {
    if let Some(pointee) = type_name.strip_suffix('*').map(str::trim_end)
        && size == 8
    {
        return FieldKind::Pointer {
            to_char: is_char(pointee),
        };
    }
    match size {
        1 if matches!(type_name, "bool" | "_Bool") => FieldKind::Bool,
        4 if type_name == "float" => FieldKind::Float { size: 4 },
        8 if type_name == "double" => FieldKind::Float { size: 8 },
        1 | 2 | 4 | 8 if !type_name.starts_with("struct ") && !type_name.starts_with("union ") => {
            FieldKind::Int(IntType::new(size as u8, is_signed))
        }
        _ => FieldKind::Opaque,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "name: x\nID: 7\nformat:\n\
        \tfield:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;\n\n";

    fn kind_of(field: &str) -> FieldKind {
        let text = format!("{HEAD}\tfield:{field}\n\nprint fmt: \"\"\n");
        EventFormat::parse("t", &text).unwrap().fields[0].kind
    }

    #[test]
    fn field_kinds_follow_the_declaration() {
        use FieldKind::*;
        assert_eq!(
            kind_of("pid_t pid;\toffset:8;\tsize:4;\tsigned:1;"),
            Int(IntType::INT)
        );
        assert_eq!(kind_of("bool b;\toffset:8;\tsize:1;\tsigned:0;"), Bool);
        assert_eq!(
            kind_of("char comm[16];\toffset:8;\tsize:16;\tsigned:0;"),
            String
        );
        assert_eq!(
            kind_of("unsigned long caller[8];\toffset:16;\tsize:64;\tsigned:0;"),
            Array {
                elem: IntType::ULONG
            }
        );
        assert_eq!(
            kind_of("char buf[];\toffset:16;\tsize:0;\tsigned:0;"),
            Flexible {
                elem: IntType::CHAR,
                is_string: true
            }
        );
        assert_eq!(
            kind_of("__data_loc unsigned int[] v;\toffset:8;\tsize:4;\tsigned:0;"),
            Dynamic {
                elem: IntType::UINT,
                is_string: false,
                is_relative: false
            }
        );
        assert_eq!(
            kind_of("__rel_loc char[] v;\toffset:8;\tsize:4;\tsigned:0;"),
            Dynamic {
                elem: IntType::CHAR,
                is_string: true,
                is_relative: true
            }
        );
        assert_eq!(
            kind_of("const char * s;\toffset:8;\tsize:8;\tsigned:0;"),
            Pointer { to_char: true }
        );
        assert_eq!(
            kind_of("struct foo f;\toffset:8;\tsize:24;\tsigned:0;"),
            Opaque
        );
        assert_eq!(
            kind_of("xfs_thing_t v[4];\toffset:8;\tsize:8;\tsigned:0;"),
            Array {
                elem: IntType::new(2, false)
            }
        );
    }

    #[test]
    fn an_empty_line_may_separate_common_fields() {
        let text = format!("{HEAD}\tfield:int a;\toffset:8;\tsize:4;\tsigned:1;\n");
        let format = EventFormat::parse("t", &text).unwrap();
        assert_eq!((format.common.len(), format.fields.len()), (1, 1));
        assert_eq!((format.id, format.name.as_str()), (7, "x"));
    }

    /// The name was looked for behind the byte after the last character that cannot be part of it,
    /// which is inside of a character of several bytes. Found by fuzzing.
    #[test]
    fn a_field_may_end_in_any_character() {
        let text = "name: x\nID: 1\nformat:\n\tfield:char next_comm[1\u{522};\toffset:8;\tsize:16;\tsigned:0;\n";
        assert!(EventFormat::parse("sched", text).is_err());
    }

    #[test]
    fn mistakes_are_reported_with_their_line() {
        let text = "name: x\nID: 70000\n";
        let error = EventFormat::parse("t", text).unwrap_err();
        assert_eq!(&text[error.span.clone()], "ID: 70000");
        assert_eq!(error.kind, FormatErrorKind::OutOfRange(65535));

        let text = format!("{HEAD}\tfield:int a;\tsize:4;\tsigned:1;\n");
        let error = EventFormat::parse("t", &text).unwrap_err();
        assert_eq!(error.kind, FormatErrorKind::Expected("offset:"));

        let error = EventFormat::parse("t", "name: x\n").unwrap_err();
        assert_eq!(error.kind, FormatErrorKind::Missing("ID:"));
    }
}

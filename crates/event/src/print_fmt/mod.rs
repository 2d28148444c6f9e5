//! `print fmt`: compiled once into a flat program, then run per record.
//!
//! A `print fmt` is a C argument list, `"format", argument, ...`, in which `REC` is the record.
//! [`compile`] parses it, resolves fields to offsets, folds constants and splits the format
//! string; the result is a list of steps that append to a `Vec<u8>`. Running it allocates
//! nothing and never fails: bytes that a record lacks read as zeros.
//!
//! What it does not understand (calls of kernel functions, statement expressions, unresolved
//! enum names) makes the whole event *not evaluated*: it is then printed from its fields.

mod expr;
mod lexer;
mod parser;
mod text_expr;

use std::ops::Range;

use crate::catalog::Catalog;
use crate::ctype::IntType;
use crate::digits::{Digits, LOWER, push_fill, push_i64, push_start, push_u64};
use crate::error::{NotEvaluated, Reason};
use crate::format::EventFormat;
use crate::pointer::{BytesKind, PointerKind, SymbolStyle};
use crate::printf::{self, Base, Conversion, Count, Flags, Layout, Piece, Spec};
use crate::record;

use expr::{Data, Int, Place};
use parser::Value;
pub(crate) use parser::bare_names;
use text_expr::Text;

/// A compiled `print fmt`.
#[derive(Debug)]
pub struct Program {
    steps: Vec<Step>,
}

/// Bytes of a text that is appended without a call.
const SHORT: usize = 16;

/// One step of a [`Program`]: what it appends.
#[derive(Debug)]
enum Step {
    /// Fixed text.
    Literal(Box<[u8]>),
    /// Short fixed text: its bytes, filled with zeros, and its length.
    ShortLiteral([u8; SHORT], u8),
    /// A word of the record in plain decimal, the commonest conversion.
    Decimal { offset: u32, ty: IntType },
    /// A fixed character array of the record as a plain string, the next commonest.
    FixedStr { offset: u32, len: u32 },
    /// Any integer conversion.
    Int {
        value: Int,
        ty: IntType,
        base: Base,
        layout: LayoutOf,
    },
    /// `%g`.
    Float { bits: Int, layout: LayoutOf },
    /// `%c`.
    Char { value: Int, layout: LayoutOf },
    /// `%s`.
    Text { text: Text, layout: LayoutOf },
    /// `%p`: 16 hex digits.
    Address { value: Int, layout: LayoutOf },
    /// `%ps` and the like.
    Symbol {
        address: Int,
        style: SymbolStyle,
        layout: LayoutOf,
    },
    /// `%pI4` and the like.
    Bytes {
        data: Data,
        kind: BytesKind,
        layout: LayoutOf,
    },
}

/// A conversion's layout whose numbers may depend on the record.
#[derive(Debug)]
struct LayoutOf {
    flags: Flags,
    width: CountOf,
    precision: CountOf,
}

#[derive(Debug)]
enum CountOf {
    None,
    Fixed(usize),
    Value(Int),
}

impl LayoutOf {
    fn is_plain(&self) -> bool {
        let no_count = |c: &CountOf| matches!(c, CountOf::None);
        self.flags == Flags::default() && no_count(&self.width) && no_count(&self.precision)
    }

    fn resolve(&self, record: &[u8]) -> Layout {
        let mut layout = Layout {
            flags: self.flags,
            ..Layout::default()
        };
        match &self.width {
            CountOf::None => {}
            CountOf::Fixed(width) => layout.width = *width,
            CountOf::Value(value) => layout.set_width(value.eval(record) as i32),
        }
        match &self.precision {
            CountOf::None => {}
            CountOf::Fixed(precision) => layout.precision = Some(*precision),
            CountOf::Value(value) => layout.set_precision(value.eval(record) as i32),
        }
        layout
    }
}

impl Program {
    /// Appends the text of the record `payload`, without the event's name and without a line
    /// end. Symbols and strings of the traced kernel are looked up in `catalog`.
    pub fn run(&self, out: &mut Vec<u8>, payload: &[u8], catalog: &Catalog) {
        for step in &self.steps {
            step.run(out, payload, catalog);
        }
    }

    /// The values that the text shows, each with the name before it, where all of it is
    /// `name=value name=value`; `None` if it is anything else.
    pub(crate) fn named_values<'p>(
        &'p self,
        payload: &[u8],
        catalog: &Catalog,
    ) -> Option<Vec<(&'p str, Vec<u8>)>> {
        let name_in = |step: &'p Step| {
            let literal = str::from_utf8(step.as_literal()?).ok()?;
            literal.trim_start_matches(' ').strip_suffix('=')
        };
        let (pairs, []) = self.steps.as_chunks::<2>() else {
            return None;
        };
        let named = pairs.iter().map(|[name, value]| {
            let name = name_in(name).filter(|_| value.as_literal().is_none())?;
            let mut text = Vec::new();
            value.run(&mut text, payload, catalog);
            Some((name, text))
        });
        named.collect()
    }

    /// Offsets of the 8-byte words of a record that are printed as symbols.
    pub(crate) fn symbol_offsets(&self) -> Vec<u32> {
        let address = |step: &Step| match step {
            Step::Symbol { address, .. } => address.as_load(),
            _ => None,
        };
        let loads = self.steps.iter().filter_map(address);
        loads
            .filter(|(_, ty)| ty.size == 8)
            .map(|(offset, _)| offset)
            .collect()
    }
}

impl Step {
    fn literal(text: Box<[u8]>) -> Self {
        let mut short = [0; SHORT];
        match short.get_mut(..text.len()) {
            Some(start) => {
                start.copy_from_slice(&text);
                Self::ShortLiteral(short, text.len() as u8)
            }
            None => Self::Literal(text),
        }
    }

    fn as_literal(&self) -> Option<&[u8]> {
        match self {
            Self::Literal(text) => Some(text),
            Self::ShortLiteral(text, len) => text.get(..usize::from(*len)),
            _ => None,
        }
    }

    #[inline]
    fn run(&self, out: &mut Vec<u8>, record: &[u8], catalog: &Catalog) {
        match self {
            Self::ShortLiteral(text, len) => push_start(out, text, usize::from(*len)),
            Self::Literal(text) => out.extend_from_slice(text),
            Self::Decimal { offset, ty } => {
                let value = record::load(record, *offset as usize, *ty);
                if ty.signed {
                    push_i64(out, value as i64)
                } else {
                    push_u64(out, value)
                }
            }
            Self::FixedStr { offset, len } => {
                let bytes = record::slice(record, *offset as usize, *len as usize);
                let text = record::until_nul(bytes);
                match bytes.first_chunk::<SHORT>() {
                    Some(chunk) if text.len() <= SHORT => push_start(out, chunk, text.len()),
                    _ => out.extend_from_slice(text),
                }
            }
            _ => self.run_rare(out, record, catalog),
        }
    }

    fn run_rare(&self, out: &mut Vec<u8>, record: &[u8], catalog: &Catalog) {
        match self {
            Self::Int {
                value,
                ty,
                base,
                layout,
            } => {
                let layout = layout.resolve(record);
                printf::push_int(out, value.eval(record), *ty, *base, &layout);
            }
            Self::Float { bits, layout } => finish(out, record, layout, |out| {
                record::push_float(out, bits.eval(record), bits.ty.size);
            }),
            Self::Char { value, layout } => {
                finish(out, record, layout, |out| {
                    out.push(value.eval(record) as u8)
                });
            }
            Self::Text { text, layout } => {
                finish(out, record, layout, |out| text.push(out, record, catalog));
            }
            Self::Address { value, layout } => {
                finish(out, record, layout, |out| {
                    push_address(out, value.eval(record))
                });
            }
            Self::Symbol {
                address,
                style,
                layout,
            } => finish(out, record, layout, |out| {
                catalog.push_symbol(out, address.eval(record), *style);
            }),
            Self::Bytes { data, kind, layout } => {
                let width = layout.resolve(record).width;
                kind.push(out, data.bytes(record), width);
            }
            Self::Literal(_)
            | Self::ShortLiteral(..)
            | Self::Decimal { .. }
            | Self::FixedStr { .. } => {}
        }
    }
}

/// Appends with `push`, then cuts and pads as `layout` says.
fn finish(out: &mut Vec<u8>, record: &[u8], layout: &LayoutOf, push: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    push(out);
    if !layout.is_plain() {
        printf::finish_str(out, start, &layout.resolve(record));
    }
}

/// An address as the kernel's `%p` shows it with the `hash-ptr` option off.
pub(crate) fn push_address(out: &mut Vec<u8>, address: u64) {
    let digits = Digits::power_of_two(address, 4, LOWER);
    push_fill(out, 16 - digits.as_bytes().len(), b'0');
    digits.push(out);
}

/// Compiles the `print fmt` of `event`. `value_of` knows the values of names, as
/// [`Constants`](crate::Constants) has them.
///
/// # Errors
///
/// The first part that is not understood, with its place in the text.
pub(crate) fn compile(
    event: &EventFormat,
    value_of: &dyn Fn(&str) -> Option<u64>,
) -> Result<Program, NotEvaluated> {
    let parsed = parser::parse(event, value_of)?;
    let whole = 0..event.print_fmt.len();
    let pieces = printf::pieces(&parsed.format).map_err(|conversion| NotEvaluated {
        span: whole.clone(),
        reason: Reason::Conversion(conversion),
    })?;
    let mut arguments = Arguments {
        rest: parsed.arguments.into_iter(),
        whole,
    };
    let mut steps = Vec::new();
    for piece in pieces {
        steps.push(match piece {
            Piece::Literal(text) => Step::literal(text.into()),
            Piece::Spec(spec) => arguments.step(spec)?,
        });
    }
    Ok(Program { steps })
}

/// The arguments of a `print fmt` that no conversion has taken yet.
struct Arguments {
    rest: std::vec::IntoIter<(Value, Range<usize>)>,
    whole: Range<usize>,
}

impl Arguments {
    fn next(&mut self) -> Result<(Value, Range<usize>), NotEvaluated> {
        let too_few = || NotEvaluated {
            span: self.whole.clone(),
            reason: Reason::TooFewArguments,
        };
        self.rest.next().ok_or_else(too_few)
    }

    fn int(&mut self) -> Result<Int, NotEvaluated> {
        let (value, span) = self.next()?;
        match value {
            Value::Int(int) | Value::Address { address: int, .. } => Ok(int),
            _ => Err(NotEvaluated {
                span,
                reason: Reason::Expected("a number"),
            }),
        }
    }

    fn count(&mut self, count: Count) -> Result<CountOf, NotEvaluated> {
        Ok(match count {
            Count::None => CountOf::None,
            Count::Fixed(n) => CountOf::Fixed(n),
            Count::Argument => CountOf::Value(self.int()?),
        })
    }

    fn step(&mut self, spec: Spec) -> Result<Step, NotEvaluated> {
        let width = self.count(spec.width)?;
        let precision = self.count(spec.precision)?;
        let layout = LayoutOf {
            flags: spec.flags,
            width,
            precision,
        };
        match spec.conversion {
            Conversion::Int { ty, base } => Ok(int_step(self.int()?, ty, base, layout)),
            Conversion::Float => Ok(Step::Float {
                bits: self.int()?,
                layout,
            }),
            Conversion::Char => Ok(Step::Char {
                value: self.int()?,
                layout,
            }),
            Conversion::Str => {
                let (value, span) = self.next()?;
                let text = parser::as_text(value);
                let text = text.ok_or(NotEvaluated {
                    span,
                    reason: Reason::Expected("a text"),
                })?;
                Ok(text_step(text, layout))
            }
            Conversion::Pointer(letters) => self.pointer(&letters, layout),
        }
    }

    fn pointer(&mut self, letters: &str, layout: LayoutOf) -> Result<Step, NotEvaluated> {
        let kind = PointerKind::of(letters).ok_or_else(|| NotEvaluated {
            span: self.whole.clone(),
            reason: Reason::Conversion(format!("%p{letters}")),
        })?;
        match kind {
            PointerKind::Address => Ok(Step::Address {
                value: self.int()?,
                layout,
            }),
            PointerKind::Symbol(style) => Ok(Step::Symbol {
                address: self.int()?,
                style,
                layout,
            }),
            PointerKind::Bytes(kind) => {
                let (value, span) = self.next()?;
                let Value::Data(data) = value else {
                    let reason = Reason::Unsupported("pointer out of the record");
                    return Err(NotEvaluated { span, reason });
                };
                Ok(Step::Bytes { data, kind, layout })
            }
        }
    }
}

/// The step of an integer conversion; a plain decimal of a word of the same width is special.
fn int_step(value: Int, ty: IntType, base: Base, layout: LayoutOf) -> Step {
    if base == Base::Decimal
        && layout.is_plain()
        && let Some((offset, word)) = value.as_load()
    {
        if word.size == ty.size {
            return Step::Decimal { offset, ty };
        }
        if word.size < ty.size && !word.signed {
            return Step::Decimal { offset, ty: word };
        }
        if word.size < ty.size && word.signed && ty.signed {
            return Step::Decimal { offset, ty: word };
        }
    }
    Step::Int {
        value,
        ty,
        base,
        layout,
    }
}

fn text_step(text: Text, layout: LayoutOf) -> Step {
    match text {
        Text::Data(Data {
            place: Place::Fixed { offset, len },
            ..
        }) if layout.is_plain() => Step::FixedStr { offset, len },
        Text::Literal(text) if layout.is_plain() => Step::literal(text),
        text => Step::Text { text, layout },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIELDS: &str = "name: x\nID: 7\nformat:\n\
        \tfield:int a;\toffset:8;\tsize:4;\tsigned:1;\n\
        \tfield:u16 b;\toffset:12;\tsize:2;\tsigned:0;\n\
        \tfield:__data_loc char[] s;\toffset:16;\tsize:4;\tsigned:0;\n\
        \tfield:char c[4];\toffset:20;\tsize:4;\tsigned:0;\n\
        \tfield:u8 v[4];\toffset:24;\tsize:4;\tsigned:0;\n\
        \tfield:void * p;\toffset:32;\tsize:8;\tsigned:0;\n";

    fn record() -> Vec<u8> {
        let mut record = vec![0; 8];
        record.extend_from_slice(&(-5i32).to_le_bytes());
        record.extend_from_slice(&0xfff0u16.to_le_bytes());
        record.extend_from_slice(&[0, 0]);
        record.extend_from_slice(&(40u32 | 4 << 16).to_le_bytes());
        record.extend_from_slice(b"abcd");
        record.extend_from_slice(&[192, 0, 2, 1, 0, 0, 0, 0]);
        record.extend_from_slice(&0xffff_8881_0000_1000u64.to_le_bytes());
        record.extend_from_slice(b"xyz\0");
        record
    }

    fn compiled(print_fmt: &str) -> Result<Program, NotEvaluated> {
        let text = format!("{FIELDS}\nprint fmt: {print_fmt}\n");
        let event = EventFormat::parse("t", &text).unwrap();
        let value_of = |name: &str| match name {
            "A_CONSTANT" => Some(3),
            "base_variable" => Some(0xffff_ea00_0000_0000),
            "struct page" => Some(64),
            "HZ" => Some(250),
            _ => None,
        };
        compile(&event, &value_of)
    }

    fn printed(print_fmt: &str) -> String {
        let mut out = Vec::new();
        compiled(print_fmt)
            .unwrap()
            .run(&mut out, &record(), &Catalog::default());
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn fields_of_every_kind_are_printed() {
        assert_eq!(printed(r#""a=%d b=%u", REC->a, REC->b"#), "a=-5 b=65520");
        assert_eq!(
            printed(r#""%x %hd %lld", REC->a, REC->b, REC->a"#),
            "fffffffb -16 -5"
        );
        assert_eq!(
            printed(r#""%s|%s|%.2s|%5s", REC->c, __get_str(s), REC->c, __get_str(s)"#),
            "abcd|xyz|ab|  xyz"
        );
        assert_eq!(printed(r#""%.*s", 1, __get_str(s)"#), "x");
        assert_eq!(printed(r#""%p", REC->p"#), "ffff888100001000");
        assert_eq!(printed(r#""%ps", REC->p"#), "0xffff888100001000");
        assert_eq!(
            printed(r#""%pI4 %*ph", REC->v, 4, REC->v"#),
            "192.0.2.1 c0 00 02 01"
        );
        assert_eq!(printed(r#""%d", REC->v[0] + REC->v[3]"#), "193");
        assert_eq!(printed(r#""%c%c", __get_str(s)[0], 'q'"#), "xq");
        assert_eq!(printed(r#""%d", __get_dynamic_array_len(s)"#), "4");
    }

    #[test]
    fn helpers_print_as_the_kernel_does() {
        assert_eq!(
            printed(r#""%s", __print_flags(REC->b, "|", {0x10, "A"}, {0x20, "B"})"#),
            "A|B|0xffc0"
        );
        assert_eq!(
            printed(r#""%s", __print_symbolic(REC->a, {-5, "M" "5"})"#),
            "M5"
        );
        assert_eq!(
            printed(r#""%s", __print_array(REC->v, 2, sizeof(u8))"#),
            "{0xc0,0x0}"
        );
        assert_eq!(printed(r#""%s", __print_hex_str(REC->v, 4)"#), "c0000201");
        assert_eq!(
            printed(
                r#""%llu.%06llu", __print_ns_to_secs(1500000000UL), __print_ns_without_secs(1500000000UL)"#
            ),
            "1.500000000"
        );
    }

    #[test]
    fn expressions_have_c_semantics() {
        assert_eq!(printed(r#""%d", 1 + 2 * 3 - 4 / 2 % 2"#), "7");
        assert_eq!(printed(r#""%d", REC->a < 1U"#), "0");
        assert_eq!(printed(r#""%d", (int)REC->b >> 4"#), "4095");
        assert_eq!(
            printed(r#""%s%s", REC->a ? "y" : "n", REC->a == -5 && !0 ? "+" : "-""#),
            "y+"
        );
        assert_eq!(printed(r#""%lu", (unsigned long)(u8)REC->a"#), "251");
        assert_eq!(
            printed(r#""%u", ((unsigned int) ((REC->b) & ((1U << 8) - 1)))"#),
            "240"
        );
        assert_eq!(printed(r#""%d", (REC)->a"#), "-5");
        assert_eq!(printed(r#""%d", REC->b > 0 ? REC->b > 1 ? 2 : 1 : 0"#), "2");
        assert_eq!(printed(r#""%x", *(u16 *)&REC->b"#), "fff0");
        assert_eq!(printed(r#""%x", __builtin_bswap16(REC->b)"#), "f0ff");
        assert_eq!(printed(r#""%x", __builtin_bswap32(REC->a)"#), "fbffffff");
    }

    #[test]
    fn names_have_the_values_that_they_are_given() {
        assert_eq!(printed(r#""%d", 1 << A_CONSTANT"#), "8");
        assert_eq!(
            printed(
                r#""%p", REC->a != -1UL ? (((struct page *)base_variable) + (REC->b)) : ((void *)0)"#
            ),
            "ffffea00003ffc00"
        );
        assert_eq!(printed(r#""%u", jiffies_to_msecs(REC->b)"#), "262080");
        assert_eq!(
            compiled(r#""%p", ((struct file *)base_variable) + 1"#)
                .unwrap_err()
                .reason,
            Reason::UnknownName("struct file".into())
        );
    }

    #[test]
    fn statement_expressions_may_name_values() {
        assert_eq!(
            printed(r#""%d", ({ int x = (REC->b); int y = (128); ((x) < (y) ? (x) : (y)); })"#),
            "128"
        );
        assert_eq!(
            printed(
                r#""%s %u", ({ const char *s = REC->c; s; }), ({ u8 low = REC->b; low; }) + 1"#
            ),
            "abcd 241"
        );
        let reason = |text: &str| compiled(text).unwrap_err().reason;
        assert_eq!(
            reason(r#""%d", ({ int x = 1; x; }) + x"#),
            Reason::UnknownName("x".into())
        );
        let unsupported = Reason::Unsupported("statement expression");
        assert_eq!(
            reason(r#""%d", ({ union role r; r.x = 1; 1; })"#),
            unsupported
        );
        assert_eq!(
            reason(r#""%d", ({ static const char *a[] = { "a" }; 1; })"#),
            unsupported
        );
        assert_eq!(reason(r#""%d", ({ })"#), unsupported);
    }

    #[test]
    fn what_is_not_understood_is_named() {
        let reason = |text: &str| compiled(text).unwrap_err().reason;
        assert_eq!(reason(r#""%d", FOO"#), Reason::UnknownName("FOO".into()));
        assert_eq!(
            reason(r#""%d", foo(1)"#),
            Reason::UnknownFunction("foo".into())
        );
        assert_eq!(
            reason(r#""%d", REC->nope"#),
            Reason::UnknownField("nope".into())
        );
        assert_eq!(reason(r#""%d %d", 1"#), Reason::TooFewArguments);
        assert_eq!(reason(r#""%pd", REC->p"#), Reason::Conversion("%pd".into()));
        let deep = format!("\"%d\", {}1{}", "(".repeat(5000), ")".repeat(5000));
        assert_eq!(reason(&deep), Reason::TooDeep);
        let deep = format!("\"%d\", {}1", "-".repeat(5000));
        assert_eq!(reason(&deep), Reason::TooDeep);
        let long = format!("\"%d\", REC->a{}", " + REC->a".repeat(5000));
        assert_eq!(reason(&long), Reason::TooDeep);
    }

    #[test]
    fn short_records_print_zeros() {
        let mut out = Vec::new();
        let program = compiled(r#""%d %s %pI4", REC->a, __get_str(s), REC->v"#).unwrap();
        program.run(&mut out, &[], &Catalog::default());
        assert_eq!(out, b"0  0.0.0.0");
    }
}

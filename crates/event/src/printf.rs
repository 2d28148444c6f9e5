//! The kernel's `printf`: conversions with flags, width, precision and length, and the output
//! of integers and strings.
//!
//! The conversions are those that `Documentation/core-api/printk-formats.rst` (v6.18) lists,
//! without the ones that need the running kernel (`%pd`, `%pV`, ...). Where the kernel's output
//! differs from C's, the kernel's is made: `%#x` of zero is `0x0`, and a zero flag stays in
//! force beside a precision.

use crate::ctype::IntType;
use crate::digits::{Digits, LOWER, UPPER, push_fill};

/// Largest width or precision; the kernel's own trace lines end at 8 KiB.
pub(crate) const MAX_WIDTH: usize = 8192;

/// One conversion of a format string.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Spec {
    pub(crate) flags: Flags,
    pub(crate) width: Count,
    pub(crate) precision: Count,
    pub(crate) conversion: Conversion,
}

/// The flag characters of a conversion.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Flags {
    pub(crate) left: bool,
    pub(crate) plus: bool,
    pub(crate) space: bool,
    pub(crate) zero: bool,
    pub(crate) alternate: bool,
}

/// A width or precision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Count {
    /// Not given.
    None,
    /// Given in the format string.
    Fixed(usize),
    /// `*`: the next argument.
    Argument,
}

/// What is converted, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Conversion {
    /// `d i u x X o`.
    Int { ty: IntType, base: Base },
    /// `g`, which no kernel has: floating-point numbers of a program's events.
    Float,
    /// `c`.
    Char,
    /// `s`.
    Str,
    /// `p` and the letters after it.
    Pointer(String),
}

/// How an integer's digits are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Base {
    Decimal,
    LowerHex,
    UpperHex,
    Octal,
}

/// A piece of a format string.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Piece {
    /// Text to be written as it is.
    Literal(Vec<u8>),
    /// A conversion.
    Spec(Spec),
}

/// Takes a format string apart; `Err` has the conversion that is not known.
pub(crate) fn pieces(format: &[u8]) -> Result<Vec<Piece>, String> {
    let mut pieces = Vec::new();
    let mut literal = Vec::new();
    let mut cursor = Cursor {
        bytes: format,
        at: 0,
    };
    while let Some(byte) = cursor.next() {
        if byte != b'%' {
            literal.push(byte);
        } else if cursor.eat(b"%").is_some() {
            literal.push(b'%');
        } else {
            let start = cursor.at - 1;
            let spec = cursor.spec().ok_or_else(|| cursor.text_from(start))?;
            if !literal.is_empty() {
                pieces.push(Piece::Literal(std::mem::take(&mut literal)));
            }
            pieces.push(Piece::Spec(spec));
        }
    }
    if !literal.is_empty() {
        pieces.push(Piece::Literal(literal));
    }
    Ok(pieces)
}

struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Cursor<'_> {
    fn next(&mut self) -> Option<u8> {
        let byte = *self.bytes.get(self.at)?;
        self.at += 1;
        Some(byte)
    }

    /// Takes the next byte if it is one of `set`.
    fn eat(&mut self, set: &[u8]) -> Option<u8> {
        let byte = *self.bytes.get(self.at).filter(|b| set.contains(b))?;
        self.at += 1;
        Some(byte)
    }

    fn text_from(&self, start: usize) -> String {
        String::from_utf8_lossy(&self.bytes[start..self.at]).into_owned()
    }

    fn spec(&mut self) -> Option<Spec> {
        let flags = self.flags();
        let width = self.count();
        let precision = match self.eat(b".") {
            Some(_) => match self.count() {
                Count::None => Count::Fixed(0),
                given => given,
            },
            None => Count::None,
        };
        let size = self.length();
        let conversion = self.conversion(size)?;
        Some(Spec {
            flags,
            width,
            precision,
            conversion,
        })
    }

    fn flags(&mut self) -> Flags {
        let mut flags = Flags::default();
        while let Some(flag) = self.eat(b"-+ 0#") {
            match flag {
                b'-' => flags.left = true,
                b'+' => flags.plus = true,
                b' ' => flags.space = true,
                b'0' => flags.zero = true,
                _ => flags.alternate = true,
            }
        }
        flags
    }

    fn count(&mut self) -> Count {
        if self.eat(b"*").is_some() {
            return Count::Argument;
        }
        let mut count = None;
        while let Some(digit) = self.eat(b"0123456789") {
            let value = count.unwrap_or(0) * 10 + usize::from(digit - b'0');
            count = Some(value.min(MAX_WIDTH));
        }
        count.map_or(Count::None, Count::Fixed)
    }

    /// The length modifier, as the number of bytes of the argument.
    fn length(&mut self) -> u8 {
        match self.eat(b"hlLzZtjq") {
            Some(b'h') if self.eat(b"h").is_some() => 1,
            Some(b'h') => 2,
            Some(b'l') => {
                self.eat(b"l");
                8
            }
            Some(_) => 8,
            None => 4,
        }
    }

    fn conversion(&mut self, size: u8) -> Option<Conversion> {
        let int = |signed, base| Conversion::Int {
            ty: IntType::new(size, signed),
            base,
        };
        Some(match self.next()? {
            b'd' | b'i' => int(true, Base::Decimal),
            b'u' => int(false, Base::Decimal),
            b'x' => int(false, Base::LowerHex),
            b'X' => int(false, Base::UpperHex),
            b'o' => int(false, Base::Octal),
            b'g' => Conversion::Float,
            b'c' => Conversion::Char,
            b's' => Conversion::Str,
            b'p' => Conversion::Pointer(self.pointer_letters()),
            _ => return None,
        })
    }

    /// The kernel takes every letter and digit after `%p` as part of the conversion.
    fn pointer_letters(&mut self) -> String {
        let start = self.at;
        while self
            .bytes
            .get(self.at)
            .is_some_and(u8::is_ascii_alphanumeric)
        {
            self.at += 1;
        }
        self.text_from(start)
    }
}

/// A conversion's flags with width and precision as numbers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Layout {
    pub(crate) flags: Flags,
    pub(crate) width: usize,
    pub(crate) precision: Option<usize>,
}

impl Layout {
    /// A width from an argument: negative means left aligned.
    pub(crate) fn set_width(&mut self, width: i32) {
        self.flags.left |= width < 0;
        self.width = (width.unsigned_abs() as usize).min(MAX_WIDTH);
    }

    /// A precision from an argument: negative counts as 0, as the kernel has it.
    pub(crate) fn set_precision(&mut self, precision: i32) {
        self.precision = Some((precision.max(0) as usize).min(MAX_WIDTH));
    }

    fn is_plain(&self) -> bool {
        *self == Self::default()
    }
}

/// Appends `value` converted as `ty` in `base`.
pub(crate) fn push_int(out: &mut Vec<u8>, value: u64, ty: IntType, base: Base, layout: &Layout) {
    let value = ty.extend(value);
    let is_negative = ty.signed && (value as i64) < 0;
    let magnitude = if is_negative {
        value.wrapping_neg()
    } else {
        value
    };
    let digits = match base {
        Base::Decimal => Digits::decimal(magnitude),
        Base::LowerHex => Digits::power_of_two(magnitude, 4, LOWER),
        Base::UpperHex => Digits::power_of_two(magnitude, 4, UPPER),
        Base::Octal => Digits::power_of_two(magnitude, 3, LOWER),
    };
    let sign = sign(is_negative, ty, layout.flags);
    if layout.is_plain() {
        out.extend_from_slice(sign);
        out.extend_from_slice(digits.as_bytes());
        return;
    }
    let prefix: &[u8] = match base {
        Base::LowerHex if layout.flags.alternate => b"0x",
        Base::UpperHex if layout.flags.alternate => b"0X",
        Base::Octal if layout.flags.alternate && magnitude != 0 => b"0",
        _ => b"",
    };
    push_number(out, sign, prefix, digits.as_bytes(), layout);
}

fn sign(is_negative: bool, ty: IntType, flags: Flags) -> &'static [u8] {
    match () {
        () if is_negative => b"-",
        () if ty.signed && flags.plus => b"+",
        () if ty.signed && flags.space => b" ",
        () => b"",
    }
}

fn push_number(out: &mut Vec<u8>, sign: &[u8], prefix: &[u8], digits: &[u8], layout: &Layout) {
    let zeros = layout.precision.unwrap_or(0).saturating_sub(digits.len());
    let len = sign.len() + prefix.len() + zeros + digits.len();
    let pad = layout.width.saturating_sub(len);
    let (before, inner, after) = match layout.flags {
        Flags { left: true, .. } => (0, 0, pad),
        Flags { zero: true, .. } => (0, pad, 0),
        _ => (pad, 0, 0),
    };
    push_fill(out, before, b' ');
    out.extend_from_slice(sign);
    out.extend_from_slice(prefix);
    push_fill(out, inner + zeros, b'0');
    out.extend_from_slice(digits);
    push_fill(out, after, b' ');
}

/// Cuts and pads what was written to `out` since `start`, as a string conversion does.
pub(crate) fn finish_str(out: &mut Vec<u8>, start: usize, layout: &Layout) {
    if let Some(precision) = layout.precision {
        out.truncate(out.len().min(start + precision));
    }
    let len = out.len() - start;
    let pad = layout.width.saturating_sub(len);
    push_fill(out, pad, b' ');
    if !layout.flags.left {
        out[start..].rotate_right(pad);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn formatted(format: &str, value: i64) -> String {
        let pieces = pieces(format.as_bytes()).unwrap();
        let [Piece::Spec(spec)] = &pieces[..] else {
            panic!("{pieces:?}")
        };
        let Conversion::Int { ty, base } = spec.conversion else {
            panic!("{spec:?}")
        };
        let mut layout = Layout {
            flags: spec.flags,
            ..Layout::default()
        };
        if let Count::Fixed(width) = spec.width {
            layout.width = width;
        }
        if let Count::Fixed(precision) = spec.precision {
            layout.precision = Some(precision);
        }
        let mut out = Vec::new();
        push_int(&mut out, value as u64, ty, base, &layout);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn integers_are_cut_to_their_length_and_laid_out() {
        assert_eq!(formatted("%d", -1), "-1");
        assert_eq!(formatted("%u", -1), "4294967295");
        assert_eq!(formatted("%hhu", -1), "255");
        assert_eq!(formatted("%hd", 0xffff), "-1");
        assert_eq!(formatted("%llx", -1), "ffffffffffffffff");
        assert_eq!(formatted("%03d", 7), "007");
        assert_eq!(formatted("%03d", -7), "-07");
        assert_eq!(formatted("%-4d", 7), "7   ");
        assert_eq!(formatted("%4d", -7), "  -7");
        assert_eq!(formatted("%+d", 7), "+7");
        assert_eq!(formatted("% d", 7), " 7");
        assert_eq!(formatted("%08lX", 0xabc), "00000ABC");
        assert_eq!(formatted("%#x", 0), "0x0");
        assert_eq!(formatted("%#010x", 31), "0x0000001f");
        assert_eq!(formatted("%#o", 8), "010");
        assert_eq!(formatted("%.4u", 7), "0007");
        assert_eq!(formatted("%6.4u", 7), "  0007");
    }

    #[test]
    fn format_strings_are_taken_apart() {
        let found = pieces(b"a %% %pISpc: %.*s%").unwrap_err();
        assert_eq!(found, "%");
        let found = pieces(b"a %% %pISpc: %-.*s").unwrap();
        assert_eq!(found.len(), 4);
        assert_eq!(found[0], Piece::Literal(b"a % ".to_vec()));
        let Piece::Spec(spec) = &found[1] else {
            panic!()
        };
        assert_eq!(spec.conversion, Conversion::Pointer("ISpc".to_owned()));
        let Piece::Spec(spec) = &found[3] else {
            panic!()
        };
        assert_eq!((spec.precision, spec.flags.left), (Count::Argument, true));
        assert!(pieces(b"%f").is_err());
    }

    #[test]
    fn strings_are_cut_and_padded() {
        let mut out = b"x:hello".to_vec();
        let layout = Layout {
            width: 5,
            precision: Some(3),
            ..Layout::default()
        };
        finish_str(&mut out, 2, &layout);
        assert_eq!(out, b"x:  hel");
    }
}

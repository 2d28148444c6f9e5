//! Writing numbers and short texts into a `Vec<u8>`, without `core::fmt`.
//!
//! A copy of a length that is known when this is compiled is a few stores, any other one a call: so
//! short texts are appended with what lies behind them, and cut ([`push_start`]).

const PAIRS: [[u8; 2]; 100] = pairs();

const fn pairs() -> [[u8; 2]; 100] {
    let mut table = [[b'0'; 2]; 100];
    let mut i = 0;
    while i < 100 {
        table[i] = [b'0' + (i / 10) as u8, b'0' + (i % 10) as u8];
        i += 1;
    }
    table
}

/// Appends the first `len` bytes of `text`.
#[inline]
pub(crate) fn push_start<const N: usize>(out: &mut Vec<u8>, text: &[u8; N], len: usize) {
    let end = out.len() + len;
    out.extend_from_slice(text);
    out.truncate(end);
}

/// Digits of one number, filled from the end; long enough for 64 bits in octal.
pub(crate) struct Digits {
    /// The digits end in the middle, so that as many bytes as a number may have follow its first digit.
    bytes: [u8; 2 * MAX_DIGITS],
    start: usize,
}

const MAX_DIGITS: usize = 24;

impl Digits {
    /// `value` in decimal.
    #[inline]
    pub(crate) fn decimal(mut value: u64) -> Self {
        let mut this = Self {
            bytes: [b'0'; 2 * MAX_DIGITS],
            start: MAX_DIGITS,
        };
        while value >= 100 {
            let pair = PAIRS[(value % 100) as usize];
            value /= 100;
            this.start -= 2;
            this.bytes[this.start..this.start + 2].copy_from_slice(&pair);
        }
        let pair = PAIRS[value as usize];
        this.start -= 1;
        this.bytes[this.start] = pair[1];
        if value >= 10 {
            this.start -= 1;
            this.bytes[this.start] = pair[0];
        }
        this
    }

    /// `value` in base `1 << shift` with the given digits.
    pub(crate) fn power_of_two(mut value: u64, shift: u32, alphabet: &[u8; 16]) -> Self {
        let mut this = Self {
            bytes: [b'0'; 2 * MAX_DIGITS],
            start: MAX_DIGITS,
        };
        let mask = (1u64 << shift) - 1;
        loop {
            this.start -= 1;
            this.bytes[this.start] = alphabet[(value & mask) as usize];
            value >>= shift;
            if value == 0 {
                return this;
            }
        }
    }

    /// The digits, without leading zeros.
    #[inline]
    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.bytes[self.start..MAX_DIGITS]
    }

    /// Appends them.
    #[inline]
    pub(crate) fn push(&self, out: &mut Vec<u8>) {
        match self.bytes[self.start..].first_chunk::<MAX_DIGITS>() {
            Some(text) => push_start(out, text, MAX_DIGITS - self.start),
            None => out.extend_from_slice(self.as_bytes()),
        }
    }
}

/// Lower case hex digits.
pub(crate) const LOWER: &[u8; 16] = b"0123456789abcdef";
/// Upper case hex digits.
pub(crate) const UPPER: &[u8; 16] = b"0123456789ABCDEF";

/// Appends `value` in decimal.
#[inline]
pub(crate) fn push_u64(out: &mut Vec<u8>, value: u64) {
    if value < 10 {
        out.push(b'0' + value as u8);
        return;
    }
    Digits::decimal(value).push(out);
}

/// Appends `value` in decimal with its sign.
#[inline]
pub(crate) fn push_i64(out: &mut Vec<u8>, value: i64) {
    if value < 0 {
        out.push(b'-');
    }
    push_u64(out, value.unsigned_abs());
}

/// Appends `value` in lower case hex without prefix.
pub(crate) fn push_hex(out: &mut Vec<u8>, value: u64) {
    Digits::power_of_two(value, 4, LOWER).push(out);
}

/// Appends `value` as `0x..`.
pub(crate) fn push_0x(out: &mut Vec<u8>, value: u64) {
    out.extend_from_slice(b"0x");
    push_hex(out, value);
}

/// Appends two hex digits.
pub(crate) fn push_hex_byte(out: &mut Vec<u8>, byte: u8, alphabet: &[u8; 16]) {
    out.push(alphabet[usize::from(byte >> 4)]);
    out.push(alphabet[usize::from(byte & 15)]);
}

/// Appends `value` in decimal, at least `width` digits, filled with `fill` on the left.
#[inline]
pub(crate) fn push_padded(out: &mut Vec<u8>, value: u64, width: usize, fill: u8) {
    let digits = Digits::decimal(value);
    push_fill(out, width.saturating_sub(digits.as_bytes().len()), fill);
    digits.push(out);
}

/// Appends `count` times `fill`.
#[inline]
pub(crate) fn push_fill(out: &mut Vec<u8>, count: usize, fill: u8) {
    match count {
        0..=16 => push_start(out, &[fill; 16], count),
        _ => out.resize(out.len() + count, fill),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(f: impl Fn(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        f(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn decimal_is_what_the_standard_library_prints() {
        for v in [
            0,
            1,
            9,
            10,
            99,
            100,
            101,
            999,
            1000,
            65_535,
            123_456_789,
            u64::MAX,
        ] {
            assert_eq!(text(|o| push_u64(o, v)), v.to_string());
            assert_eq!(text(|o| push_hex(o, v)), format!("{v:x}"));
            assert_eq!(text(|o| push_padded(o, v, 6, b'0')), format!("{v:06}"));
        }
        assert_eq!(text(|o| push_i64(o, i64::MIN)), i64::MIN.to_string());
        assert_eq!(
            Digits::power_of_two(u64::MAX, 3, LOWER).as_bytes(),
            b"1777777777777777777777"
        );
    }
}

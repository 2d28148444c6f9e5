//! Numbers as the kernel's boot parameters write them.

use super::piece::Piece;

/// A number read from the beginning of a text by [`memparse`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memparse {
    /// The number in bytes (or whatever the parameter counts); 0 if there was no digit.
    pub value: u64,
    /// How many bytes of the text the number and its suffix take; 0 if there was no digit.
    pub len: usize,
    /// The number does not fit in 64 bits, and `value` is `u64::MAX`.
    pub is_saturated: bool,
}

/// Reads a number with an optional suffix from the beginning of `text`.
///
/// `0x` makes it hexadecimal, a leading `0` octal; `K M G T P E` in either case multiply by
/// 1024, 1024², and so on. Reading stops at the first other character, there is no error: no
/// digit gives 0 and takes nothing (`lib/cmdline.c`, Linux 7.3). Where a number does not fit in
/// 64 bits the kernel does not notice; here the value saturates, and every parameter of
/// [`CommandLine`](super::CommandLine) refuses it.
///
/// ```
/// use outlive_trace::cmdline::memparse;
///
/// assert_eq!(memparse("12M:trace").value, 12 << 20);
/// assert_eq!(memparse("0x100000").value, 1 << 20);
/// assert_eq!(memparse("010k").value, 8 << 10);
/// assert_eq!(memparse("trace").len, 0);
/// ```
#[must_use]
pub fn memparse(text: &str) -> Memparse {
    let (radix, prefix) = radix(text.as_bytes());
    let digits = text[prefix..]
        .bytes()
        .take_while(|b| char::from(*b).is_digit(radix))
        .count();
    if digits == 0 {
        return Memparse {
            value: 0,
            len: 0,
            is_saturated: false,
        };
    }
    let number = text[prefix..prefix + digits]
        .chars()
        .filter_map(|c| c.to_digit(radix))
        .try_fold(0u64, |n, d| {
            n.checked_mul(radix.into())?.checked_add(d.into())
        });
    let end = prefix + digits;
    let shift = text.as_bytes().get(end).and_then(|b| suffix_shift(*b));
    let value = number.and_then(|n| n.checked_mul(1 << shift.unwrap_or(0)));
    Memparse {
        value: value.unwrap_or(u64::MAX),
        len: end + usize::from(shift.is_some()),
        is_saturated: value.is_none(),
    }
}

/// The radix, and how many bytes of prefix come before the digits.
///
/// The `0` of an octal number is one of its digits; `0x` without a digit behind it is octal 0.
fn radix(text: &[u8]) -> (u32, usize) {
    match text {
        [b'0', b'x' | b'X', digit, ..] if digit.is_ascii_hexdigit() => (16, 2),
        [b'0', ..] => (8, 0),
        _ => (10, 0),
    }
}

/// The power of two that a suffix stands for.
fn suffix_shift(suffix: u8) -> Option<u32> {
    let place = b"KMGTPE"
        .iter()
        .position(|s| *s == suffix.to_ascii_uppercase())?;
    u32::try_from(10 * (place + 1)).ok()
}

/// A number and what stands behind it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Number<'a> {
    /// What was read.
    pub(super) read: Memparse,
    /// The digits with their suffix.
    pub(super) digits: Piece<'a>,
    /// What comes behind them.
    pub(super) rest: Piece<'a>,
}

/// [`memparse`] of a piece.
pub(super) fn number(piece: Piece<'_>) -> Number<'_> {
    let read = memparse(piece.text);
    Number {
        read,
        digits: piece.take(read.len),
        rest: piece.skip(read.len),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> (u64, usize, bool) {
        let n = memparse(text);
        (n.value, n.len, n.is_saturated)
    }

    #[test]
    fn suffixes_are_powers_of_1024_in_either_case() {
        for (i, suffix) in "KMGTPE".chars().enumerate() {
            let value = 1 << (10 * (i + 1));
            assert_eq!(read(&format!("1{suffix}")), (value, 2, false));
            assert_eq!(
                read(&format!("1{}", suffix.to_ascii_lowercase())),
                (value, 2, false)
            );
        }
    }

    #[test]
    fn only_one_suffix_letter_belongs_to_the_number() {
        assert_eq!(read("12MB"), (12 << 20, 3, false));
        assert_eq!(read("1KK"), (1024, 2, false));
    }

    #[test]
    fn prefix_chooses_the_radix() {
        assert_eq!(read("0x1f"), (31, 4, false));
        assert_eq!(read("0X1F"), (31, 4, false));
        assert_eq!(read("017"), (15, 3, false));
        assert_eq!(read("08"), (0, 1, false));
        assert_eq!(read("0x"), (0, 1, false));
        assert_eq!(read("0xg"), (0, 1, false));
        assert_eq!(read("1f"), (1, 1, false));
    }

    #[test]
    fn hexadecimal_takes_the_letter_e_as_a_digit() {
        assert_eq!(read("0x1E"), (0x1e, 4, false));
        assert_eq!(read("1E"), (1 << 60, 2, false));
    }

    #[test]
    fn text_without_digits_is_zero_and_takes_nothing() {
        for text in ["", "M", "trace", "-1", "+1", " 1", "٣"] {
            assert_eq!(read(text), (0, 0, false), "{text:?}");
        }
    }

    #[test]
    fn number_that_does_not_fit_saturates_and_says_so() {
        assert_eq!(read("18446744073709551615"), (u64::MAX, 20, false));
        assert_eq!(read("18446744073709551616"), (u64::MAX, 20, true));
        assert_eq!(read("16E"), (u64::MAX, 3, true));
        assert_eq!(read("15E"), (15 << 60, 3, false));
        assert_eq!(read("0x1ffffffffffffffff"), (u64::MAX, 19, true));
    }
}

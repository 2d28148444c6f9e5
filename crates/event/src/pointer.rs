//! The `%p` conversions that show bytes: addresses of networks, MACs, UUIDs, hex, bitmaps.
//!
//! After `Documentation/core-api/printk-formats.rst` (v6.18).

use crate::digits::{LOWER, UPPER, push_fill, push_hex, push_hex_byte, push_u64};

/// Most bytes that `%*ph` shows.
const MAX_HEX: usize = 64;

/// What a `%p` conversion does with its argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PointerKind {
    /// `%p`, `%px`, `%pK`: the address, 16 hex digits.
    Address,
    /// `%ps`, `%pS`, `%pB`, `%pf`, `%pF`: a symbol.
    Symbol(SymbolStyle),
    /// Bytes that the argument points to.
    Bytes(BytesKind),
}

/// How a kernel address is shown as a symbol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SymbolStyle {
    /// `name [module]`.
    Name,
    /// `name+0xOFFSET/0xSIZE [module]`.
    Offset,
    /// As `Offset`, for a return address: looked up one byte earlier.
    Backtrace,
}

/// Conversions of bytes in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BytesKind {
    Ipv4 {
        leading_zeros: bool,
        is_little: bool,
    },
    Ipv6 {
        colons: bool,
        compressed: bool,
    },
    Sockaddr {
        port: bool,
        compressed: bool,
        colons: bool,
    },
    Mac {
        separator: Option<u8>,
        is_reversed: bool,
    },
    Uuid {
        is_little: bool,
        is_upper: bool,
    },
    Hex {
        separator: Option<u8>,
    },
    Bitmap {
        is_list: bool,
    },
}

impl PointerKind {
    /// The conversion with these letters after `%p`; `None` if it is not supported.
    pub(crate) fn of(letters: &str) -> Option<Self> {
        let mut chars = letters.chars();
        Some(match chars.next() {
            None | Some('x' | 'K') => Self::Address,
            Some('s' | 'f') => Self::Symbol(SymbolStyle::Name),
            Some('S' | 'F') => Self::Symbol(SymbolStyle::Offset),
            Some('B') => Self::Symbol(SymbolStyle::Backtrace),
            _ => Self::Bytes(BytesKind::of(letters)?),
        })
    }
}

impl BytesKind {
    fn of(letters: &str) -> Option<Self> {
        let has = |c| letters[1..].contains(c);
        Some(match letters.as_bytes() {
            [i @ (b'I' | b'i'), b'4', ..] => Self::Ipv4 {
                leading_zeros: *i == b'i',
                is_little: has('h') || has('l'),
            },
            [i @ (b'I' | b'i'), b'6', ..] => Self::Ipv6 {
                colons: *i == b'I',
                compressed: *i == b'I' && has('c'),
            },
            [i @ (b'I' | b'i'), b'S', ..] => Self::Sockaddr {
                port: has('p'),
                compressed: has('c'),
                colons: *i == b'I',
            },
            [b'M', ..] => Self::Mac {
                separator: Some(if has('F') { b'-' } else { b':' }),
                is_reversed: has('R'),
            },
            [b'm', ..] => Self::Mac {
                separator: None,
                is_reversed: has('R'),
            },
            [b'U', ..] => Self::Uuid {
                is_little: has('l') || has('L'),
                is_upper: has('B') || has('L'),
            },
            [b'h', rest @ ..] => Self::Hex {
                separator: match rest.first() {
                    Some(b'C') => Some(b':'),
                    Some(b'D') => Some(b'-'),
                    Some(b'N') => None,
                    _ => Some(b' '),
                },
            },
            [b'b', ..] => Self::Bitmap { is_list: has('l') },
            _ => return None,
        })
    }

    /// Appends `bytes`; `width` is the field width, which `%*ph` and `%*pb` take as a length.
    /// Bytes that are not there are shown as zeros.
    pub(crate) fn push(self, out: &mut Vec<u8>, bytes: &[u8], width: usize) {
        match self {
            Self::Ipv4 {
                leading_zeros,
                is_little,
            } => {
                push_ipv4(out, first(bytes), leading_zeros, is_little);
            }
            Self::Ipv6 { colons, compressed } => push_ipv6(out, first(bytes), colons, compressed),
            Self::Sockaddr {
                port,
                compressed,
                colons,
            } => {
                push_sockaddr(out, bytes, port, compressed, colons);
            }
            Self::Mac {
                separator,
                is_reversed,
            } => {
                let mut mac: [u8; 6] = first(bytes);
                if is_reversed {
                    mac.reverse();
                }
                push_hex_bytes(out, &mac, separator);
            }
            Self::Uuid {
                is_little,
                is_upper,
            } => push_uuid(out, first(bytes), is_little, is_upper),
            Self::Hex { separator } => {
                let len = if width == 0 { 1 } else { width.min(MAX_HEX) };
                push_hex_bytes(out, &bytes[..bytes.len().min(len)], separator);
            }
            Self::Bitmap { is_list: true } => push_bitmap_list(out, bytes, width),
            Self::Bitmap { is_list: false } => push_bitmap(out, bytes, width),
        }
    }
}

/// The first `N` bytes; zeros where there are fewer.
fn first<const N: usize>(bytes: &[u8]) -> [u8; N] {
    let mut found = [0; N];
    let len = bytes.len().min(N);
    found[..len].copy_from_slice(&bytes[..len]);
    found
}

/// Appends bytes as two hex digits each.
pub(crate) fn push_hex_bytes(out: &mut Vec<u8>, bytes: &[u8], separator: Option<u8>) {
    for (i, &byte) in bytes.iter().enumerate() {
        if i > 0 {
            out.extend(separator);
        }
        push_hex_byte(out, byte, LOWER);
    }
}

fn push_ipv4(out: &mut Vec<u8>, mut address: [u8; 4], leading_zeros: bool, is_little: bool) {
    if is_little {
        address.reverse();
    }
    for (i, byte) in address.into_iter().enumerate() {
        if i > 0 {
            out.push(b'.');
        }
        if leading_zeros {
            push_fill(out, usize::from(byte < 100) + usize::from(byte < 10), b'0');
        }
        push_u64(out, u64::from(byte));
    }
}

fn push_ipv6(out: &mut Vec<u8>, address: [u8; 16], colons: bool, compressed: bool) {
    let words: [u16; 8] =
        std::array::from_fn(|i| u16::from_be_bytes([address[2 * i], address[2 * i + 1]]));
    if compressed {
        return push_ipv6_compressed(out, words, address);
    }
    for (i, word) in words.into_iter().enumerate() {
        if i > 0 && colons {
            out.push(b':');
        }
        for byte in word.to_be_bytes() {
            push_hex_byte(out, byte, LOWER);
        }
    }
}

/// RFC 5952: the longest run of zero words (two or more, the first if equal) becomes `::`;
/// IPv4-mapped addresses end in dotted form.
fn push_ipv6_compressed(out: &mut Vec<u8>, words: [u16; 8], address: [u8; 16]) {
    let is_v4 = words[..5] == [0; 5] && words[5] == 0xffff;
    let is_isatap = words[4] | 0x0200 == 0x0200 && words[5] == 0x5efe;
    let count = if is_v4 || is_isatap { 6 } else { 8 };
    let (start, len) = longest_zero_run(&words[..count]);
    let mut i = 0;
    let mut needs_colon = false;
    while i < count {
        if len > 1 && i == start {
            out.extend_from_slice(b"::");
            needs_colon = false;
            i += len;
            continue;
        }
        if needs_colon {
            out.push(b':');
        }
        push_hex(out, u64::from(words[i]));
        needs_colon = true;
        i += 1;
    }
    if count == 6 {
        if needs_colon {
            out.push(b':');
        }
        push_ipv4(out, first(&address[12..]), false, false);
    }
}

fn longest_zero_run(words: &[u16]) -> (usize, usize) {
    let mut best = (0, 0);
    let mut run = 0;
    for (i, &word) in words.iter().enumerate() {
        run = if word == 0 { run + 1 } else { 0 };
        if run > best.1 {
            best = (i + 1 - run, run);
        }
    }
    best
}

/// `struct sockaddr`: family (u16), then for `AF_INET` (2) port and address, for `AF_INET6`
/// (10) port, flow and address.
fn push_sockaddr(out: &mut Vec<u8>, bytes: &[u8], port: bool, compressed: bool, colons: bool) {
    let number = u16::from_be_bytes(first(bytes.get(2..).unwrap_or_default()));
    let at = |offset: usize| bytes.get(offset..).unwrap_or_default();
    match u16::from_le_bytes(first(bytes)) {
        2 => push_ipv4(out, first(at(4)), !colons, false),
        10 => {
            out.extend(port.then_some(b'['));
            push_ipv6(out, first(at(8)), colons, compressed);
            out.extend(port.then_some(b']'));
        }
        _ => return out.extend_from_slice(b"(einval)"),
    }
    if port {
        out.push(b':');
        push_u64(out, u64::from(number));
    }
}

fn push_uuid(out: &mut Vec<u8>, mut uuid: [u8; 16], is_little: bool, is_upper: bool) {
    if is_little {
        uuid[0..4].reverse();
        uuid[4..6].reverse();
        uuid[6..8].reverse();
    }
    let alphabet = if is_upper { UPPER } else { LOWER };
    for (i, byte) in uuid.into_iter().enumerate() {
        if matches!(i, 4 | 6 | 8 | 10) {
            out.push(b'-');
        }
        push_hex_byte(out, byte, alphabet);
    }
}

fn has_bit(bytes: &[u8], bit: usize) -> bool {
    bytes.get(bit / 8).is_some_and(|b| b >> (bit % 8) & 1 != 0)
}

/// `%*pb`: hex words of 32 bits, the highest first, separated by commas.
pub(crate) fn push_bitmap(out: &mut Vec<u8>, bytes: &[u8], bits: usize) {
    let mut chunk = bits.div_ceil(32);
    while chunk > 0 {
        chunk -= 1;
        let here = (bits - chunk * 32).min(32);
        let value = (0..here).fold(0u64, |v, b| {
            v | u64::from(has_bit(bytes, chunk * 32 + b)) << b
        });
        let start = out.len();
        push_hex(out, value);
        let pad = here.div_ceil(4).saturating_sub(out.len() - start);
        push_fill(out, pad, b'0');
        out[start..].rotate_right(pad);
        if chunk > 0 {
            out.push(b',');
        }
    }
}

/// `%*pbl`: the numbers of the set bits, runs as `first-last`, separated by commas.
fn push_bitmap_list(out: &mut Vec<u8>, bytes: &[u8], bits: usize) {
    let bits = bits.min(bytes.len() * 8);
    let start = out.len();
    let mut bit = 0;
    while bit < bits {
        if !has_bit(bytes, bit) {
            bit += 1;
            continue;
        }
        let first = bit;
        while bit < bits && has_bit(bytes, bit) {
            bit += 1;
        }
        if out.len() > start {
            out.push(b',');
        }
        push_u64(out, first as u64);
        if bit - 1 > first {
            out.push(b'-');
            push_u64(out, bit as u64 - 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(letters: &str, bytes: &[u8], width: usize) -> String {
        let Some(PointerKind::Bytes(kind)) = PointerKind::of(letters) else {
            panic!("{letters}")
        };
        let mut out = Vec::new();
        kind.push(&mut out, bytes, width);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn network_addresses_print_as_the_kernel_documents() {
        assert_eq!(text("I4", &[127, 0, 0, 1], 0), "127.0.0.1");
        assert_eq!(text("i4", &[127, 0, 0, 1], 0), "127.000.000.001");
        assert_eq!(text("I4h", &[1, 0, 0, 127], 0), "127.0.0.1");
        let mut v6 = [0u8; 16];
        assert_eq!(text("I6c", &v6, 0), "::");
        v6[15] = 1;
        assert_eq!(text("I6c", &v6, 0), "::1");
        assert_eq!(
            text("I6", &v6, 0),
            "0000:0000:0000:0000:0000:0000:0000:0001"
        );
        v6[0] = 0xfe;
        v6[1] = 0x80;
        assert_eq!(text("I6c", &v6, 0), "fe80::1");
        let mapped = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 192, 0, 2, 1];
        assert_eq!(text("I6c", &mapped, 0), "::ffff:192.0.2.1");
        assert_eq!(text("ISpc", &[2, 0, 0, 80, 10, 0, 0, 1], 0), "10.0.0.1:80");
        assert_eq!(text("M", &[2, 0xfc, 0, 0, 0, 5], 0), "02:fc:00:00:00:05");
    }

    #[test]
    fn bitmaps_print_as_hex_words_or_as_lists() {
        assert_eq!(
            text("b", &[3, 0, 0, 0, 0, 0, 0, 0], 64),
            "00000000,00000003"
        );
        assert_eq!(text("b", &[3], 10), "003");
        assert_eq!(text("bl", &[0b1110_0101, 1], 10), "0,2,5-8");
        assert_eq!(text("bl", &[0], 8), "");
    }

    #[test]
    fn uuids_and_hex_strings() {
        let bytes: [u8; 16] = std::array::from_fn(|i| i as u8);
        assert_eq!(text("U", &bytes, 0), "00010203-0405-0607-0809-0a0b0c0d0e0f");
        assert_eq!(
            text("UL", &bytes, 0),
            "03020100-0504-0706-0809-0A0B0C0D0E0F"
        );
        assert_eq!(text("h", &bytes, 3), "00 01 02");
        assert_eq!(text("hN", &bytes, 3), "000102");
    }

    #[test]
    fn too_few_bytes_print_as_zeros() {
        assert_eq!(text("I4", &[1], 0), "1.0.0.0");
        assert_eq!(text("ISpc", &[], 0), "(einval)");
    }
}

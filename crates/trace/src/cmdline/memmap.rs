//! `memmap=SIZE$ADDRESS`: a range of physical memory that the kernel leaves alone.
//!
//! The forms are those of `Documentation/admin-guide/kernel-parameters.txt` (Linux 6.18). Only
//! ranges that are reserved (`$`) or protected (`!`) can hold an instance; the others are kept as
//! data. `exactmap` and a size alone say nothing about a range and are left to the kernel.

use std::ops::Range;

use super::diagnostic::Diagnostic;
use super::memparse::number;
use super::piece::Piece;

/// What a range of physical memory is declared to be: the character between size and address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MemmapKind {
    /// `$`: reserved, the kernel does not touch it.
    Reserved,
    /// `!`: protected, becomes a pmem device.
    Protected,
    /// `@`: ordinary memory.
    Usable,
    /// `#`: ACPI data.
    Acpi,
    /// `%`: of another type.
    Retyped,
}

impl MemmapKind {
    /// The kind that `c` stands for.
    fn from_char(c: char) -> Option<Self> {
        Some(match c {
            '$' => Self::Reserved,
            '!' => Self::Protected,
            '@' => Self::Usable,
            '#' => Self::Acpi,
            '%' => Self::Retyped,
            _ => return None,
        })
    }

    /// Whether the kernel leaves it alone and knows nothing more of it.
    #[must_use]
    pub fn is_reserved(self) -> bool {
        self == Self::Reserved
    }

    /// Whether memory of this kind can hold an instance.
    #[must_use]
    pub fn is_kept(self) -> bool {
        matches!(self, Self::Reserved | Self::Protected)
    }
}

/// One range of a `memmap=`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Memmap {
    /// Size in bytes, never 0.
    pub size: u64,
    /// Physical address of the first byte; `address + size` does not overflow.
    pub address: u64,
    /// What the range is.
    pub kind: MemmapKind,
    /// The range in the text.
    pub span: Range<usize>,
}

impl Memmap {
    /// Whether the range can hold `size` bytes at the physical address `start`.
    #[must_use]
    pub fn holds(&self, start: u64, size: u64) -> bool {
        let end = start.checked_add(size);
        self.kind.is_kept()
            && start >= self.address
            && end.is_some_and(|end| end <= self.address + self.size)
    }
}

/// Reads one value, a list of ranges separated by commas.
pub(super) fn read(value: Piece<'_>, ranges: &mut Vec<Memmap>, out: &mut Vec<Diagnostic>) {
    for part in value.split(',').filter(|part| !part.text.is_empty()) {
        match read_range(part) {
            Ok(range) => ranges.extend(range),
            Err(diagnostic) => out.push(diagnostic.consequence("this range is ignored")),
        }
    }
}

/// One range, or `None` for what is the kernel's alone.
fn read_range(part: Piece<'_>) -> Result<Option<Memmap>, Diagnostic> {
    let size = number(part);
    let Some(kind_char) = size.rest.text.chars().next() else {
        return Ok(None);
    };
    if part.text == "exactmap" {
        return Ok(None);
    }
    if size.read.value == 0 || size.read.is_saturated {
        let place = if size.read.len == 0 {
            part
        } else {
            size.digits
        };
        return Err(malformed(place, "this is not a size")
            .expected("expected a size other than 0, such as `12M`"));
    }
    let Some(kind) = MemmapKind::from_char(kind_char) else {
        return Err(malformed(size.rest, "no address follows the size")
            .expected("expected `$` and an address"));
    };
    let behind = size.rest.skip(kind_char.len_utf8());
    let address = number(behind);
    if address.read.len == 0 {
        return Err(malformed(behind.cut(' ').0, "this is not an address")
            .expected("expected an address, such as `0x284500000`"));
    }
    let is_range = address.read.value.checked_add(size.read.value).is_some();
    if address.read.is_saturated || !is_range {
        return Err(Diagnostic::warning(
            part.span(),
            "this range does not fit in 64 bits",
        ));
    }
    if !address.rest.text.is_empty() && kind != MemmapKind::Retyped {
        let message = format!("`{}` is not part of an address", address.rest.text);
        return Err(malformed(address.rest, message));
    }
    let (size, address) = (size.read.value, address.read.value);
    Ok(Some(Memmap {
        size,
        address,
        kind,
        span: part.span(),
    }))
}

/// A range that cannot be read, with what most often is the reason.
fn malformed(place: Piece<'_>, message: impl Into<String>) -> Diagnostic {
    Diagnostic::warning(place.visible_span(), message).help(
        "write it as `memmap=SIZE$ADDRESS`; shells and boot loaders may take the `$` away unless \
         it is quoted",
    )
}

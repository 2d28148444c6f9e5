//! `reserve_mem=SIZE:ALIGN:LABEL`: an area with a name.
//!
//! The checks and their order are those of `mm/memblock.c` (Linux 7.3); the first one that fails
//! drops the parameter. A number that does not fit in 64 bits and a label that cannot be a file's
//! name are refused beyond that.

use std::ops::Range;

use super::diagnostic::Diagnostic;
use super::memparse::{Number, number};
use super::name::unfit_reason;
use super::piece::Piece;

/// How many areas the kernel has room for (`mm/memblock.c`, Linux 7.3).
const RESERVE_MEM_MAX: usize = 8;
/// Longest label, bytes: the kernel's storage has 16 with the NUL (`mm/memblock.c`, Linux 7.3).
pub(crate) const LABEL_LEN_MAX: usize = 15;
/// Least alignment, bytes: a cache line (`mm/memblock.c`, Linux 7.3).
const ALIGN_MIN: u64 = 64;

/// What the kernel prints for whatever it cannot read here.
const KERNEL_MALFORMED: &str = "reserve_mem: empty or malformed parameter";

/// An area to reserve: one `reserve_mem=`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ReserveMem {
    /// Size in bytes as written, never 0. An instance needs a multiple of 4096.
    pub size: u64,
    /// Alignment in bytes as written, at least 64. Need not be a power of two: the kernel clears
    /// the bits of `align - 1` from the address, whatever that gives.
    pub align: u64,
    /// The area's name, 1 to 15 bytes, different from all others.
    pub label: String,
    /// The whole value in the text.
    pub span: Range<usize>,
    /// The size in the text.
    pub size_span: Range<usize>,
    /// The alignment in the text.
    pub align_span: Range<usize>,
    /// The label in the text.
    pub label_span: Range<usize>,
}

/// Reads one value and adds the area to `areas`, or the value to `refused` and says why.
pub(super) fn read<'a>(
    value: Piece<'a>,
    areas: &mut Vec<ReserveMem>,
    refused: &mut Vec<Piece<'a>>,
    out: &mut Vec<Diagnostic>,
) {
    match read_area(value, areas) {
        Ok(area) => {
            out.extend(label_warning(&area));
            areas.push(area);
        }
        Err(diagnostic) => {
            refused.push(value);
            out.push(diagnostic.consequence("this area is not reserved"));
        }
    }
}

/// The checks in the kernel's order.
fn read_area(value: Piece<'_>, areas: &[ReserveMem]) -> Result<ReserveMem, Diagnostic> {
    if areas.len() >= RESERVE_MEM_MAX {
        let message = format!("more than {RESERVE_MEM_MAX} areas");
        return Err(Diagnostic::error(value.span(), message)
            .kernel("reserve_mem: no more room for reserved memory"));
    }
    let size = number(value);
    if size.read.value == 0 {
        return Err(no_size(value, size));
    }
    let size = fitting(size)?;
    let behind_size = colon(size, "ALIGN:LABEL")?;
    let align = number(behind_size);
    if align.read.len == 0 && !align.rest.text.starts_with(':') {
        return Err(no_align(behind_size));
    }
    let align = fitting(align)?;
    let label = colon(align, "LABEL")?;
    check_label(label, areas)?;
    Ok(ReserveMem {
        size: size.read.value,
        align: align.read.value.max(ALIGN_MIN),
        label: label.text.into(),
        span: value.span(),
        size_span: size.digits.span(),
        align_span: align.digits.span(),
        label_span: label.span(),
    })
}

/// Nothing that is a size, or 0.
fn no_size(value: Piece<'_>, size: Number<'_>) -> Diagnostic {
    let (place, message) = match (size.read.len, value.text.is_empty()) {
        (0, true) => (value.visible_span(), "this area has no size"),
        (0, false) => (value.cut(':').0.visible_span(), "this is not a size"),
        _ => (size.digits.span(), "an area of no bytes"),
    };
    Diagnostic::error(place, message)
        .expected("expected a size, such as `12M`")
        .help("write it as `reserve_mem=SIZE:ALIGN:LABEL`")
        .kernel(KERNEL_MALFORMED)
}

/// A word where the alignment should be, most often the label.
fn no_align(behind_size: Piece<'_>) -> Diagnostic {
    let (word, more) = behind_size.cut(':');
    let diagnostic = Diagnostic::error(word.visible_span(), "this is not an alignment")
        .expected("expected an alignment, such as `4096`")
        .help("write it as `reserve_mem=SIZE:ALIGN:LABEL`")
        .kernel(KERNEL_MALFORMED);
    let is_label = more.is_none() && !word.text.is_empty();
    if is_label {
        return diagnostic.suggest(word.start..word.start, "4096:");
    }
    diagnostic
}

/// `number`, unless it does not fit in 64 bits.
fn fitting(number: Number<'_>) -> Result<Number<'_>, Diagnostic> {
    if number.read.is_saturated {
        return Err(Diagnostic::error(
            number.digits.span(),
            "this number does not fit in 64 bits",
        ));
    }
    Ok(number)
}

/// What stands behind the `:` that must follow `number`; `missing` names what that would be.
fn colon<'a>(number: Number<'a>, missing: &str) -> Result<Piece<'a>, Diagnostic> {
    if let Some(behind) = number.rest.text.strip_prefix(':') {
        return Ok(Piece::new(behind, number.rest.start + 1));
    }
    let (wrong, _) = number.rest.cut(':');
    if wrong.text.is_empty() {
        return Err(
            Diagnostic::error(wrong.span(), format!("`:{missing}` is missing"))
                .expected(format!("expected `:{missing}`"))
                .kernel(KERNEL_MALFORMED),
        );
    }
    let message = format!("`{}` is not part of a number", wrong.text);
    Err(Diagnostic::error(wrong.span(), message)
        .expected("expected `:`")
        .help("a number ends with at most one of K, M, G, T, P and E (powers of 1024)")
        .nearest(is_byte_unit(wrong.text).then_some(""))
        .kernel(KERNEL_MALFORMED))
}

/// Whether `text` is the `B` of `MB` or `MiB`.
fn is_byte_unit(text: &str) -> bool {
    text.eq_ignore_ascii_case("b") || text.eq_ignore_ascii_case("ib")
}

/// Refuses labels that are empty, too long, blank, used already, or unfit as a file's name.
fn check_label(label: Piece<'_>, areas: &[ReserveMem]) -> Result<(), Diagnostic> {
    let error = |message: String| Diagnostic::error(label.visible_span(), message);
    if label
        .text
        .chars()
        .all(|c| c.is_ascii_whitespace() || c == '\u{b}')
    {
        return Err(error("the label is empty".into())
            .expected("expected a label of 1 to 15 bytes")
            .kernel(KERNEL_MALFORMED));
    }
    if label.text.len() > LABEL_LEN_MAX {
        let message = format!("the label has {} bytes, at most 15 fit", label.text.len());
        return Err(error(message).kernel(KERNEL_MALFORMED));
    }
    if let Some(other) = areas.iter().find(|area| area.label == label.text) {
        return Err(
            error(format!("the label `{}` was already used", label.text))
                .related(other.label_span.clone(), "here")
                .kernel(format!("name \"{}\" was already used", label.text)),
        );
    }
    match unfit_reason(label.text) {
        Some(reason) => Err(error(format!("the label {reason}"))),
        None => Ok(()),
    }
}

/// Warns of a label that can be reserved but never be named by `trace_instance=`.
fn label_warning(area: &ReserveMem) -> Option<Diagnostic> {
    let separator = area.label.chars().find(|c| matches!(c, ',' | '=' | '^'));
    let reason = match separator {
        Some(c) => format!("what follows a `{c}` is not part of the area there"),
        None if area.label.starts_with(|c: char| c.is_ascii_digit()) => {
            "what begins with a digit is an address there".into()
        }
        None => return None,
    };
    let message = format!("no `trace_instance=` can name the label `{}`", area.label);
    Some(
        Diagnostic::warning(area.label_span.clone(), message)
            .help(reason)
            .consequence("the area is reserved, but no instance can use it"),
    )
}

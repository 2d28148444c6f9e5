//! `trace_instance=`: one instance, and how its text is cut.
//!
//! ```text
//! NAME [^FLAG]... [@AREA] [=SOURCE] [,EVENT]...
//! ```
//!
//! The kernel cuts in this order (`kernel/trace/trace.c`, Linux 7.3), whatever stands where: at the
//! first `,`; what is before it at the first `=`; what is before that at the first `^` and at the
//! first `@`. So flags and area may come in either order, and all behind the `=` is the source's
//! name.

use std::ops::Range;

use super::diagnostic::Diagnostic;
use super::event::EventToken;
use super::nearest::nearest;
use super::piece::Piece;

/// Size of the buffer in which the kernel joins all `trace_instance=` values, with one byte between
/// them (`kernel/trace/trace.c`, Linux 7.3).
const TRACE_INSTANCE_BUFFER_SIZE: usize = 2048;

/// Which memory a persistent instance lies in.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum AreaRef {
    /// The area that a `reserve_mem=` of the same line gave this label.
    Label(String),
    /// A range of physical memory: `@ADDRESS:SIZE`.
    Address {
        /// Physical address of the first byte, a multiple of 4096 other than 0.
        start: u64,
        /// Size in bytes, a multiple of 4096 other than 0; `start + size` does not overflow.
        size: u64,
    },
}

/// What an instance is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum InstanceKind {
    /// In ordinary memory, gone with the program.
    Ordinary,
    /// In an area that outlives the program.
    Persistent {
        /// The area, which no other instance of the line has.
        area: AreaRef,
    },
    /// The read-only copy of a persistent instance as the previous run left it.
    Backup {
        /// Name of the instance that is copied: a persistent one of the same line, or a backup of
        /// one. It may stand later in the line.
        source: String,
    },
}

impl InstanceKind {
    /// The physical address and the size in bytes of one that was given as `@ADDRESS:SIZE`.
    #[must_use]
    pub fn address(&self) -> Option<(u64, u64)> {
        match *self {
            Self::Persistent {
                area: AreaRef::Address { start, size },
            } => Some((start, size)),
            _ => None,
        }
    }
}

/// What the flags of an instance ask for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct InstanceFlags {
    /// `^traceoff`: the instance starts with recording off.
    pub is_traceoff: bool,
}

/// One `trace_instance=`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Instance {
    /// The name, fit for a folder and different from all others.
    pub name: String,
    /// What its flags ask for; none for a backup.
    pub flags: InstanceFlags,
    /// What it is.
    pub kind: InstanceKind,
    /// The events that start once all instances exist; none for a backup.
    pub events: Vec<EventToken>,
    /// The whole value in the text.
    pub span: Range<usize>,
    /// The name in the text.
    pub name_span: Range<usize>,
    /// The area or the source in the text; `None` for an ordinary instance.
    pub place_span: Option<Range<usize>>,
}

/// A value cut into its parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry<'a> {
    pub(super) whole: Piece<'a>,
    pub(super) name: Piece<'a>,
    /// Behind the first `^`.
    pub(super) flags: Option<Piece<'a>>,
    /// Behind the first `@`.
    pub(super) area: Option<Piece<'a>>,
    /// Behind the first `=`.
    pub(super) source: Option<Piece<'a>>,
    /// Behind the first `,`.
    pub(super) events: Option<Piece<'a>>,
}

impl<'a> Entry<'a> {
    /// Cuts a value in the kernel's order.
    pub(super) fn cut(whole: Piece<'a>) -> Self {
        let (first, events) = whole.cut(',');
        let (name_part, source) = first.cut('=');
        // Both marks are searched before the text is cut at either: each part ends at the other.
        let (before_caret, flags) = name_part.cut('^');
        let (before_at, area) = name_part.cut('@');
        let is_caret_first = before_caret.text.len() < before_at.text.len();
        let name = if is_caret_first {
            before_caret
        } else {
            before_at
        };
        let (flags, area) = if is_caret_first {
            (flags.map(|flags| flags.cut('@').0), area)
        } else {
            (flags, area.map(|area| area.cut('^').0))
        };
        Self {
            whole,
            name,
            flags,
            area,
            source,
            events,
        }
    }
}

/// The kernel's buffer of all `trace_instance=` values.
#[derive(Debug, Default)]
pub(super) struct InstanceBuffer<'a> {
    entries: Vec<Entry<'a>>,
    used_len: usize,
}

impl<'a> InstanceBuffer<'a> {
    /// Takes a value in, if there is room. A TAB in it (which only quotes let through) separates
    /// entries as the end of a value does.
    pub(super) fn push(&mut self, value: Piece<'a>, out: &mut Vec<Diagnostic>) {
        if value.text.len() >= TRACE_INSTANCE_BUFFER_SIZE - self.used_len {
            let message = "all `trace_instance=` values together have more than 2048 bytes";
            out.push(
                Diagnostic::error(value.span(), message)
                    .consequence("this instance is skipped")
                    .help("patterns such as `sched_*` shorten lists of events"),
            );
            return;
        }
        self.used_len += value.text.len() + 1;
        self.entries.extend(value.split('\t').map(Entry::cut));
    }

    /// The entries in the order of the line.
    pub(super) fn into_entries(self) -> Vec<Entry<'a>> {
        self.entries
    }
}

/// Reads the flags of the instance `name`. A flag that is none is ignored, as the kernel does.
pub(super) fn read_flags(flags: Piece<'_>, name: &str, out: &mut Vec<Diagnostic>) -> InstanceFlags {
    let mut read = InstanceFlags::default();
    for flag in flags.split('^') {
        match flag.text {
            "traceoff" => read.is_traceoff = true,
            "printk" | "traceprintk" | "trace_printk" => out.push(printk_flag(flag)),
            _ => out.push(unknown_flag(flag, name)),
        }
    }
    read
}

/// A flag that has no effect here: another instance would lose what it has.
fn printk_flag(flag: Piece<'_>) -> Diagnostic {
    let message = "`trace_printk()` writes into one instance of the machine, and outlive takes it from no other";
    Diagnostic::warning(flag.span(), message).consequence("this flag has no effect")
}

/// A flag that the kernel does not have. An empty one, as in the kernel's own example, is only noted.
fn unknown_flag(flag: Piece<'_>, name: &str) -> Diagnostic {
    let diagnostic = if flag.text.is_empty() {
        Diagnostic::note(flag.visible_span(), format!("empty flag for `{name}`"))
    } else {
        Diagnostic::warning(flag.span(), format!("`{}` is not a flag", flag.text))
            .nearest(nearest(flag.text, ["traceoff"]))
    };
    diagnostic
        .expected("expected `traceoff`")
        .consequence("this flag is ignored")
        .kernel(format!(
            "Tracing: Invalid instance flag '{}' for {name}",
            flag.text
        ))
}

#[cfg(test)]
mod tests {
    use super::*;

    type Parts<'a> = (
        &'a str,
        Option<&'a str>,
        Option<&'a str>,
        Option<&'a str>,
        Option<&'a str>,
    );

    fn cut(text: &str) -> Parts<'_> {
        let entry = Entry::cut(Piece::new(text, 0));
        let text = |piece: Option<Piece<'_>>| piece.map(|piece| &text[piece.span()]);
        (
            entry.name.text,
            text(entry.flags),
            text(entry.area),
            text(entry.source),
            text(entry.events),
        )
    }

    #[test]
    fn flags_and_area_come_in_either_order() {
        let parts = ("a", Some("traceoff"), Some("trace"), None, None);
        assert_eq!(cut("a^traceoff@trace"), parts);
        assert_eq!(cut("a@trace^traceoff"), parts);
        assert_eq!(cut("a^@trace").1, Some(""));
    }

    #[test]
    fn only_the_first_of_each_mark_cuts() {
        assert_eq!(cut("a^x^y@l"), ("a", Some("x^y"), Some("l"), None, None));
        assert_eq!(cut("a@l@m"), ("a", None, Some("l@m"), None, None));
        assert_eq!(cut("a^x@l^y"), ("a", Some("x"), Some("l^y"), None, None));
        assert_eq!(cut("a@l^x@m"), ("a", Some("x@m"), Some("l"), None, None));
    }

    #[test]
    fn source_takes_all_behind_the_equals_sign() {
        assert_eq!(
            cut("b=s^x@l=y,e"),
            ("b", None, None, Some("s^x@l=y"), Some("e"))
        );
        assert_eq!(cut("b^x@l=s"), ("b", Some("x"), Some("l"), Some("s"), None));
    }

    #[test]
    fn comma_cuts_first_of_all() {
        assert_eq!(
            cut("a,b=c^d@e,f"),
            ("a", None, None, None, Some("b=c^d@e,f"))
        );
        assert_eq!(cut("a,"), ("a", None, None, None, Some("")));
        assert_eq!(cut(""), ("", None, None, None, None));
    }

    #[test]
    fn value_that_would_fill_the_buffer_is_dropped_and_a_shorter_one_still_fits() {
        let (long, longer) = ("x".repeat(2047), "x".repeat(2048));
        let taken = |values: &[&str]| {
            let (mut buffer, mut out) = (InstanceBuffer::default(), Vec::new());
            values
                .iter()
                .for_each(|value| buffer.push(Piece::new(value, 0), &mut out));
            (buffer.into_entries().len(), out.len())
        };
        assert_eq!(taken(&[&long]), (1, 0));
        assert_eq!(taken(&[&longer]), (0, 1));
        assert_eq!(taken(&["a", &long, "b"]), (2, 1));
        assert_eq!(taken(&[&long, ""]), (1, 1));
    }
}

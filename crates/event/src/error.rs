//! What can be wrong with the texts and bytes this crate reads.

use std::ops::Range;
use std::path::PathBuf;

/// A mistake in a `format` file: what, and where in the text.
///
/// `span` is a byte range of the text given to
/// [`EventFormat::parse`](crate::EventFormat::parse), so that a caller can show the place.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{kind} at bytes {}..{}", span.start, span.end)]
pub struct FormatError {
    /// Byte range of the mistake in the parsed text.
    pub span: Range<usize>,
    /// What is wrong there.
    pub kind: FormatErrorKind,
}

/// The kinds of mistakes in a `format` file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FormatErrorKind {
    /// The text ended before this line was seen.
    #[error("no `{0}` line")]
    Missing(&'static str),
    /// Something else was expected.
    #[error("expected {0}")]
    Expected(&'static str),
    /// A number does not fit.
    #[error("number out of range (at most {0})")]
    OutOfRange(u64),
}

/// Why a `print fmt` is not evaluated; such events are printed from their fields.
///
/// `span` is a byte range of the `print fmt` text, without the words `print fmt: `.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("print fmt not evaluated: {reason} at bytes {}..{}", span.start, span.end)]
pub struct NotEvaluated {
    /// Byte range of the `print fmt` text that was not understood.
    pub span: Range<usize>,
    /// What was not understood.
    pub reason: Reason,
}

/// What of a `print fmt` was not understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Reason {
    /// The text is not of the expected form.
    #[error("expected {0}")]
    Expected(&'static str),
    /// A name whose value the text does not tell: an enum constant or a kernel variable.
    #[error("unknown name `{0}`")]
    UnknownName(String),
    /// A call of something that is not a known helper.
    #[error("unknown function `{0}`")]
    UnknownFunction(String),
    /// A cast to a type of unknown size.
    #[error("unknown type `{0}`")]
    UnknownType(String),
    /// The event has no such field.
    #[error("no field `{0}`")]
    UnknownField(String),
    /// A conversion that is not supported.
    #[error("unsupported conversion `{0}`")]
    Conversion(String),
    /// A construct that needs a C compiler, such as a statement expression.
    #[error("unsupported {0}")]
    Unsupported(&'static str),
    /// The conversions ask for more arguments than there are.
    #[error("too few arguments")]
    TooFewArguments,
    /// Deeper nested than this crate follows.
    #[error("nested too deeply")]
    TooDeep,
}

/// What can be wrong with catalog records or a folder of event formats.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CatalogError {
    /// A record's payload is shorter than its kind needs.
    #[error("catalog record of kind {kind} too short: {len} bytes, needs {needed}")]
    TooShort {
        /// The record's kind.
        kind: u16,
        /// Bytes there are.
        len: usize,
        /// Bytes needed at least.
        needed: usize,
    },
    /// A text of a record is not UTF-8.
    #[error("catalog record of kind {kind}: text is not UTF-8")]
    NotUtf8 {
        /// The record's kind.
        kind: u16,
    },
    /// An event format of a record does not parse.
    #[error("event format of system {system}: {error}")]
    Format {
        /// The event's system.
        system: String,
        /// The mistake.
        #[source]
        error: FormatError,
    },
    /// A file of an `events` folder cannot be read.
    #[error("{}: {error}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        #[source]
        error: std::io::Error,
    },
}

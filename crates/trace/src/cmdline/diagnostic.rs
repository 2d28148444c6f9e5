//! What is wrong with a command line, as data.

use std::ops::Range;

/// How much a [`Diagnostic`] matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// Worth knowing; `--strict` accepts it.
    Note,
    /// Part of the line has no effect, or another than its writer may have meant.
    Warning,
    /// An area, an instance or an event that the line asks for will not be there.
    Error,
}

/// A replacement that would mend the line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Suggestion {
    /// Bytes of the text to take out; empty for an insertion.
    pub span: Range<usize>,
    /// What to put there.
    pub text: String,
}

/// A second place that a [`Diagnostic`] is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Related {
    /// Bytes of the text.
    pub span: Range<usize>,
    /// What is there.
    pub label: String,
}

/// One problem of a command line: where, what, and what happens now.
///
/// All texts are without a full stop and begin with a lower-case letter; names from the line are
/// in back quotes. The command shows them, this library only collects them.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Diagnostic {
    /// How much it matters.
    pub severity: Severity,
    /// The bytes of the text that it is about. Always inside the text and on character
    /// boundaries; empty where something is missing.
    pub span: Range<usize>,
    /// What is wrong.
    pub message: String,
    /// What was expected at the span.
    pub expected: Option<String>,
    /// Another place that explains the problem.
    pub related: Option<Related>,
    /// What to do about it.
    pub help: Option<String>,
    /// A change of the line that would mend it.
    pub suggestion: Option<Suggestion>,
    /// What happens now: "this instance is skipped".
    pub consequence: Option<String>,
    /// What Linux does instead, where it does something else.
    pub kernel_consequence: Option<String>,
    /// What Linux 7.3 prints in this case, if it prints anything.
    pub kernel_message: Option<String>,
}

impl Diagnostic {
    /// A diagnostic of the given severity with nothing but a place and a message.
    pub(super) fn new(
        severity: Severity,
        span: Range<usize>,
        message: impl Into<String>,
    ) -> Diagnostic {
        Diagnostic {
            severity,
            span,
            message: message.into(),
            expected: None,
            related: None,
            help: None,
            suggestion: None,
            consequence: None,
            kernel_consequence: None,
            kernel_message: None,
        }
    }

    /// An error.
    pub fn error(span: Range<usize>, message: impl Into<String>) -> Diagnostic {
        Self::new(Severity::Error, span, message)
    }

    /// A warning.
    pub(super) fn warning(span: Range<usize>, message: impl Into<String>) -> Diagnostic {
        Self::new(Severity::Warning, span, message)
    }

    /// A note.
    pub(super) fn note(span: Range<usize>, message: impl Into<String>) -> Diagnostic {
        Self::new(Severity::Note, span, message)
    }

    /// Says what was expected at the span.
    #[must_use]
    pub fn expected(mut self, text: impl Into<String>) -> Self {
        self.expected = Some(text.into());
        self
    }

    /// Shows a second place.
    pub(crate) fn related(mut self, span: Range<usize>, label: impl Into<String>) -> Self {
        self.related = Some(Related {
            span,
            label: label.into(),
        });
        self
    }

    /// Says what to do.
    pub(crate) fn help(mut self, text: impl Into<String>) -> Self {
        self.help = Some(text.into());
        self
    }

    /// Offers a replacement for `span`.
    pub(super) fn suggest(mut self, span: Range<usize>, text: impl Into<String>) -> Self {
        self.suggestion = Some(Suggestion {
            span,
            text: text.into(),
        });
        self
    }

    /// Offers `nearest`, if there is one, in the place of the diagnostic's span.
    #[must_use]
    pub fn nearest(self, nearest: Option<&str>) -> Self {
        let span = self.span.clone();
        match nearest {
            Some(word) => self.suggest(span, word),
            None => self,
        }
    }

    /// Says what happens now.
    pub(crate) fn consequence(mut self, text: impl Into<String>) -> Self {
        self.consequence = Some(text.into());
        self
    }

    /// Says what Linux does instead.
    pub(super) fn in_kernel(mut self, text: impl Into<String>) -> Self {
        self.kernel_consequence = Some(text.into());
        self
    }

    /// Says what Linux 7.3 prints here.
    pub(super) fn kernel(mut self, text: impl Into<String>) -> Self {
        self.kernel_message = Some(text.into());
        self
    }

    /// Whether `--strict` refuses a line with this diagnostic: errors and warnings, not notes.
    #[must_use]
    pub fn is_refused_by_strict(&self) -> bool {
        self.severity > Severity::Note
    }
}

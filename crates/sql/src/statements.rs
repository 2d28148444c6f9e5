//! Cuts a text into statements.

use std::ops::Range;

/// A statement of a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Statement {
    /// From its first to its last character that is in no comment, the semicolon left out.
    pub(crate) span: Range<usize>,
    /// Whether a semicolon follows.
    is_ended: bool,
}

/// The statements of a text: what stands between semicolons that are in no quotes and no comment.
pub(crate) fn statements(text: &str) -> Vec<Statement> {
    let mut statements = Vec::new();
    let mut span: Option<Range<usize>> = None;
    let mut place = Place::Between;
    for (at, c) in text.char_indices() {
        let before = place;
        place = place.behind(c, &text.as_bytes()[at..]);
        if before == Place::Between && c == ';' {
            let is_ended = true;
            statements.extend(span.take().map(|span| Statement { span, is_ended }));
        } else if !before.is_comment() && !place.is_comment() && !c.is_whitespace() {
            let start = span.map_or(at, |span| span.start);
            span = Some(start..at + c.len_utf8());
        }
    }
    let is_ended = false;
    statements.extend(span.map(|span| Statement { span, is_ended }));
    statements
}

/// Whether there is a statement, and the last one is ended by a semicolon: it can be run.
#[must_use]
pub fn is_complete(text: &str) -> bool {
    statements(text).last().is_some_and(|last| last.is_ended)
}

/// Where in a text one is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Between,
    /// In quotes, until this character.
    Quotes(char),
    LineComment,
    /// In `/* */`; true behind a `*` that may begin its end.
    BlockComment(bool),
}

impl Place {
    fn is_comment(self) -> bool {
        matches!(self, Self::LineComment | Self::BlockComment(_))
    }

    /// The place behind the character with which `rest` begins.
    fn behind(self, c: char, rest: &[u8]) -> Self {
        match (self, c) {
            (Self::Between, '\'' | '"' | '`') => Self::Quotes(c),
            (Self::Between, '[') => Self::Quotes(']'),
            (Self::Between, '-') if rest.starts_with(b"--") => Self::LineComment,
            (Self::Between, '/') if rest.starts_with(b"/*") => Self::BlockComment(false),
            (Self::Quotes(end), c) if c == end => Self::Between,
            (Self::LineComment, '\n') | (Self::BlockComment(true), '/') => Self::Between,
            (Self::BlockComment(_), c) => Self::BlockComment(c == '*'),
            (place, _) => place,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(text: &str) -> Vec<&str> {
        let statements = statements(text).into_iter();
        statements.map(|s| &text[s.span]).collect()
    }

    #[test]
    fn semicolons_in_quotes_and_comments_end_no_statement() {
        assert_eq!(cut("a; b"), ["a", "b"]);
        assert_eq!(cut("a ';' \";\" [;] `;` b;"), ["a ';' \";\" [;] `;` b"]);
        assert_eq!(cut("a -- ;\n b; /* ; */ ; -- c"), ["a -- ;\n b"]);
        assert_eq!(cut("'it''s;'; c"), ["'it''s;'", "c"]);
    }

    #[test]
    fn a_text_is_complete_behind_a_semicolon() {
        assert!(is_complete("SELECT 1;"));
        assert!(is_complete("SELECT 1; -- and a remark"));
        assert!(!is_complete("SELECT ';"));
        assert!(!is_complete("SELECT 1; SELECT"));
        assert!(!is_complete(" -- nothing;"));
    }
}

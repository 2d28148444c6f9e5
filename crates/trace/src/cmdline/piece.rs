//! A part of the command line that knows where it lies.

use std::ops::Range;

/// A part of the text with its place, so that whatever is cut out of it has a span for free.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Piece<'a> {
    /// The part itself.
    pub(super) text: &'a str,
    /// Byte offset of the part in the whole text.
    pub(super) start: usize,
}

impl<'a> Piece<'a> {
    /// The piece `text`, which begins at byte `start` of the whole.
    pub(super) fn new(text: &'a str, start: usize) -> Self {
        Self { text, start }
    }

    /// The bytes of the whole text that this piece is.
    pub(super) fn span(self) -> Range<usize> {
        self.start..self.start + self.text.len()
    }

    /// Like [`span`](Self::span), but an empty piece is shown as the byte before it, which is the
    /// (one byte long) separator that it follows.
    pub(super) fn visible_span(self) -> Range<usize> {
        if self.text.is_empty() {
            self.start.saturating_sub(1)..self.start
        } else {
            self.span()
        }
    }

    /// The empty place behind the piece.
    pub(super) fn end(self) -> Piece<'a> {
        self.skip(self.text.len())
    }

    /// The piece without its first `len` bytes; `len` must be a character boundary inside it.
    pub(super) fn skip(self, len: usize) -> Piece<'a> {
        Piece::new(&self.text[len..], self.start + len)
    }

    /// The first `len` bytes of the piece; `len` must be a character boundary inside it.
    pub(super) fn take(self, len: usize) -> Piece<'a> {
        Piece::new(&self.text[..len], self.start)
    }

    /// Cuts at the first `separator`, which belongs to neither side.
    pub(super) fn cut(self, separator: char) -> (Piece<'a>, Option<Piece<'a>>) {
        match self.text.find(separator) {
            Some(at) => (self.take(at), Some(self.skip(at + separator.len_utf8()))),
            None => (self, None),
        }
    }

    /// All parts between the `separator`s, empty ones too.
    pub(super) fn split(self, separator: char) -> impl Iterator<Item = Piece<'a>> {
        let mut rest = Some(self);
        std::iter::from_fn(move || {
            let (part, behind) = rest?.cut(separator);
            rest = behind;
            Some(part)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_of_a_split_keeps_its_place() {
        let parts: Vec<_> = Piece::new("a,,bc", 10)
            .split(',')
            .map(Piece::span)
            .collect();
        assert_eq!(parts, [10..11, 12..12, 13..15]);
    }

    #[test]
    fn an_empty_piece_is_shown_as_the_separator_before_it() {
        let (_, behind) = Piece::new("x^", 4).cut('^');
        assert_eq!(behind.map(Piece::visible_span), Some(5..6));
    }
}

//! Cuts a command line into parameters, as `next_arg` of `lib/cmdline.c` does (Linux 7.3).
//!
//! Blanks separate parameters. A double quote begins or ends a stretch in which blanks do not; it
//! may stand anywhere. Only the quotes around a whole parameter or a whole value are taken off,
//! others stay in the value, so that name and value are always one stretch of the text.

use super::diagnostic::Diagnostic;
use super::piece::Piece;

/// Where the text comes from, as far as reading it differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// A command line as the kernel takes it.
    Argument,
    /// A file: `#` at the beginning of a parameter starts a comment that goes to the end of the
    /// line, and no quote goes beyond its line.
    File,
}

/// One parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Parameter<'a> {
    /// All of it, with its quotes.
    pub(super) whole: Piece<'a>,
    /// What stands before the `=`.
    pub(super) name: Piece<'a>,
    /// What stands behind the `=`, if there is one.
    pub(super) value: Option<Piece<'a>>,
}

/// The blanks of the kernel's `isspace`, as far as they are ASCII.
fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | 0x0b | 0x0c | b'\r')
}

/// All parameters of `text`, in order. Says where a quote is not closed.
pub(super) fn parameters<'a>(
    text: &'a str,
    form: Form,
    diagnostics: &mut Vec<Diagnostic>,
) -> Vec<Parameter<'a>> {
    let mut rest = Piece::new(text, 0);
    let mut parameters = Vec::new();
    loop {
        rest = skip_blanks(rest, form);
        if rest.text.is_empty() {
            return parameters;
        }
        let (whole, open_quote) = scan(rest, form);
        if let Some(quote) = open_quote {
            diagnostics.push(unclosed_quote(quote, whole, form));
        }
        rest = rest.skip(whole.text.len());
        parameters.push(parameter(whole));
    }
}

/// `rest` without leading blanks, and comments in a file.
fn skip_blanks(mut rest: Piece<'_>, form: Form) -> Piece<'_> {
    loop {
        let blanks = rest.text.bytes().take_while(|b| is_blank(*b)).count();
        rest = rest.skip(blanks);
        if form == Form::Argument || !rest.text.starts_with('#') {
            return rest;
        }
        rest = rest.skip(rest.text.find('\n').unwrap_or(rest.text.len()));
    }
}

/// The parameter at the beginning of `rest`, and the offset in it of a quote that is never closed.
fn scan(rest: Piece<'_>, form: Form) -> (Piece<'_>, Option<usize>) {
    let mut open_quote = None;
    for (i, byte) in rest.text.bytes().enumerate() {
        let is_end = is_blank(byte) && open_quote.is_none();
        if is_end || (form == Form::File && byte == b'\n') {
            return (rest.take(i), open_quote);
        }
        if byte == b'"' {
            open_quote = if open_quote.is_none() { Some(i) } else { None };
        }
    }
    (rest, open_quote)
}

/// A quote without its partner.
fn unclosed_quote(quote: usize, whole: Piece<'_>, form: Form) -> Diagnostic {
    let start = whole.start + quote;
    let reach = if form == Form::File {
        "the line"
    } else {
        "the text"
    };
    Diagnostic::warning(start..start + 1, "this quote is never closed")
        .expected("no `\"` follows")
        .consequence(format!("the parameter goes on to the end of {reach}"))
}

/// Cuts a parameter at its first `=` and takes its outer quotes off.
///
/// An `=` that comes first does not count. One quote at the end goes with the quote before the
/// parameter or the one before the value.
fn parameter(whole: Piece<'_>) -> Parameter<'_> {
    let mut inner = whole;
    let mut is_quoted = inner.text.starts_with('"');
    inner = inner.skip(usize::from(is_quoted));
    let equals = inner
        .text
        .bytes()
        .skip(1)
        .position(|b| b == b'=')
        .map(|at| at + 1);
    let (name, value) = match equals {
        Some(at) => (inner.take(at), Some(inner.skip(at + 1))),
        None => (inner, None),
    };
    let Some(value) = value else {
        return Parameter {
            whole,
            name: without_end_quote(name, is_quoted),
            value: None,
        };
    };
    let is_value_quoted = value.text.starts_with('"');
    is_quoted |= is_value_quoted;
    let value = without_end_quote(value.skip(usize::from(is_value_quoted)), is_quoted);
    Parameter {
        whole,
        name,
        value: Some(value),
    }
}

/// `piece` without one `"` at its end, if `is_quoted`.
fn without_end_quote(piece: Piece<'_>, is_quoted: bool) -> Piece<'_> {
    let has_quote = is_quoted && piece.text.ends_with('"');
    piece.take(piece.text.len() - usize::from(has_quote))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, form: Form) -> Vec<(&str, Option<&str>)> {
        parameters(text, form, &mut Vec::new())
            .iter()
            .map(|p| (p.name.text, p.value.map(|v| v.text)))
            .collect()
    }

    fn argument(text: &str) -> Vec<(&str, Option<&str>)> {
        read(text, Form::Argument)
    }

    #[test]
    fn blanks_of_all_kinds_separate_parameters() {
        let read = argument(" a=1\tb\n\u{b}c=\r\nd==  ");
        assert_eq!(
            read,
            [
                ("a", Some("1")),
                ("b", None),
                ("c", Some("")),
                ("d", Some("="))
            ]
        );
    }

    #[test]
    fn quotes_protect_blanks_around_value_and_parameter() {
        assert_eq!(argument(r#"a="b c" d"#), [("a", Some("b c")), ("d", None)]);
        assert_eq!(argument(r#""a=b c" d"#), [("a", Some("b c")), ("d", None)]);
        assert_eq!(argument(r#""a b" d"#), [("a b", None), ("d", None)]);
        assert_eq!(argument(r#"a="" b"#), [("a", Some("")), ("b", None)]);
    }

    #[test]
    fn quotes_inside_a_value_stay_in_it() {
        assert_eq!(
            argument(r#"a=b" "c d"#),
            [("a", Some(r#"b" "c"#)), ("d", None)]
        );
        assert_eq!(argument(r#"a=b"c d"e"#), [("a", Some(r#"b"c d"e"#))]);
    }

    #[test]
    fn only_one_quote_at_the_end_is_taken_off() {
        assert_eq!(argument(r#""a="b"""#), [("a", Some(r#"b""#))]);
    }

    #[test]
    fn equals_sign_in_front_does_not_count() {
        assert_eq!(argument("=a"), [("=a", None)]);
        assert_eq!(argument("=a=b"), [("=a", Some("b"))]);
    }

    #[test]
    fn open_quote_goes_to_the_end_and_is_reported() {
        let mut diagnostics = Vec::new();
        let read = parameters("a=\"b c\nd", Form::Argument, &mut diagnostics);
        assert_eq!(read[0].value.map(|v| v.text), Some("b c\nd"));
        assert_eq!(diagnostics[0].span, 2..3);
    }

    #[test]
    fn file_has_comments_and_closes_quotes_at_the_line_end() {
        let text = "# one\na=1 # two\nb=#3\nc=\"4 5\nd#6";
        assert_eq!(
            read(text, Form::File),
            [
                ("a", Some("1")),
                ("b", Some("#3")),
                ("c", Some("4 5")),
                ("d#6", None)
            ]
        );
        assert_eq!(argument("# one"), [("#", None), ("one", None)]);
    }

    #[test]
    fn names_and_values_lie_where_their_spans_say() {
        let text = r#"é "ü=x y" z="1 2""#;
        for parameter in parameters(text, Form::Argument, &mut Vec::new()) {
            for piece in [Some(parameter.whole), Some(parameter.name), parameter.value] {
                let piece = piece.unwrap_or(parameter.whole);
                assert_eq!(&text[piece.span()], piece.text);
            }
        }
    }
}

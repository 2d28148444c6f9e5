//! Tokens of a `print fmt`: C's, without the preprocessor.

use std::ops::Range;

use crate::ctype::IntType;
use crate::error::{NotEvaluated, Reason};

/// A token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Token<'a> {
    /// A name.
    Ident(&'a str),
    /// An integer or character constant.
    Int(u64, IntType),
    /// A string literal, escapes resolved.
    Str(Vec<u8>),
    /// An operator or other punctuation.
    Punct(&'static str),
    /// The end of the text.
    End,
}

/// Punctuation, longer ones first.
const PUNCTUATION: &[&str] = &[
    "<<", ">>", "<=", ">=", "==", "!=", "&&", "||", "->", "+", "-", "*", "/", "%", "&", "|", "^",
    "~", "!", "<", ">", "?", ":", "(", ")", "[", "]", "{", "}", ",", ".", ";", "=",
];

/// Splits `text` into tokens with their places, an [`Token::End`] last.
pub(crate) fn tokens(text: &str) -> Result<Vec<(Token<'_>, Range<usize>)>, NotEvaluated> {
    let mut lexer = Lexer { text, at: 0 };
    let mut found = Vec::new();
    loop {
        lexer.skip_space();
        let start = lexer.at;
        let token = lexer.token()?;
        let is_end = token == Token::End;
        found.push((token, start..lexer.at));
        if is_end {
            return Ok(found);
        }
    }
}

struct Lexer<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Lexer<'a> {
    fn rest(&self) -> &'a [u8] {
        &self.text.as_bytes()[self.at..]
    }

    fn peek(&self) -> Option<u8> {
        self.rest().first().copied()
    }

    fn next(&mut self) -> Option<u8> {
        let byte = self.peek()?;
        self.at += 1;
        Some(byte)
    }

    fn skip_space(&mut self) {
        while self.peek().is_some_and(|b| b.is_ascii_whitespace()) {
            self.at += 1;
        }
    }

    fn expected(&self, start: usize, what: &'static str) -> NotEvaluated {
        NotEvaluated {
            span: start..self.at,
            reason: Reason::Expected(what),
        }
    }

    fn token(&mut self) -> Result<Token<'a>, NotEvaluated> {
        match self.peek() {
            None => Ok(Token::End),
            Some(b'"') => self.string(),
            Some(b'\'') => self.character(),
            Some(b'0'..=b'9') => self.number(),
            Some(b) if b.is_ascii_alphabetic() || b == b'_' => Ok(Token::Ident(self.word())),
            Some(_) => self.punctuation(),
        }
    }

    fn word(&mut self) -> &'a str {
        let start = self.at;
        while self
            .peek()
            .is_some_and(|b| b.is_ascii_alphanumeric() || b == b'_')
        {
            self.at += 1;
        }
        &self.text[start..self.at]
    }

    fn punctuation(&mut self) -> Result<Token<'a>, NotEvaluated> {
        let rest = self.rest();
        let found = PUNCTUATION.iter().find(|p| rest.starts_with(p.as_bytes()));
        let found = found.ok_or_else(|| self.expected(self.at, "a C token"))?;
        self.at += found.len();
        Ok(Token::Punct(found))
    }

    fn string(&mut self) -> Result<Token<'a>, NotEvaluated> {
        let start = self.at;
        self.at += 1;
        let mut bytes = Vec::new();
        loop {
            match self.next() {
                Some(b'"') => return Ok(Token::Str(bytes)),
                Some(b'\\') => bytes.push(self.escape(start)?),
                Some(byte) => bytes.push(byte),
                None => return Err(self.expected(start, "a closing `\"`")),
            }
        }
    }

    fn character(&mut self) -> Result<Token<'a>, NotEvaluated> {
        let start = self.at;
        self.at += 1;
        let value = match self.next() {
            Some(b'\\') => self.escape(start)?,
            Some(byte) => byte,
            None => return Err(self.expected(start, "a character")),
        };
        if self.next() != Some(b'\'') {
            return Err(self.expected(start, "a closing `'`"));
        }
        Ok(Token::Int(
            IntType::CHAR.extend(u64::from(value)),
            IntType::INT,
        ))
    }

    fn escape(&mut self, start: usize) -> Result<u8, NotEvaluated> {
        Ok(match self.next() {
            Some(b'n') => b'\n',
            Some(b't') => b'\t',
            Some(b'r') => b'\r',
            Some(b'a') => 7,
            Some(b'b') => 8,
            Some(b'f') => 12,
            Some(b'v') => 11,
            Some(b'e') => 27,
            Some(b'x') => self.digits(16, 2) as u8,
            Some(b'0'..=b'7') => {
                self.at -= 1;
                self.digits(8, 3) as u8
            }
            Some(other) => other,
            None => return Err(self.expected(start, "an escape")),
        })
    }

    /// At most `max` digits of base `radix`.
    fn digits(&mut self, radix: u32, max: usize) -> u32 {
        let mut value = 0;
        for _ in 0..max {
            let Some(digit) = self.peek().and_then(|b| char::from(b).to_digit(radix)) else {
                break;
            };
            value = value * radix + digit;
            self.at += 1;
        }
        value
    }

    fn number(&mut self) -> Result<Token<'a>, NotEvaluated> {
        let start = self.at;
        let word = self.word();
        let digits = word.trim_end_matches(['u', 'U', 'l', 'L']);
        let suffix = &word[digits.len()..];
        let (radix, body) = match digits.as_bytes() {
            [b'0', b'x' | b'X', ..] => (16, &digits[2..]),
            [b'0', _, ..] => (8, &digits[1..]),
            _ => (10, digits),
        };
        let value =
            u64::from_str_radix(body, radix).map_err(|_| self.expected(start, "a number"))?;
        Ok(Token::Int(value, literal_type(value, suffix, radix)))
    }
}

/// C's type of an integer constant: the first of `int`, (`unsigned`), `long`, `unsigned long`
/// that its suffix allows and that holds it.
fn literal_type(value: u64, suffix: &str, radix: u32) -> IntType {
    let is_unsigned = suffix.contains(['u', 'U']);
    let is_long = suffix.contains(['l', 'L']);
    let may_be_unsigned = is_unsigned || radix != 10;
    let fits = |ty: IntType| {
        let bits = u32::from(ty.size) * 8 - u32::from(ty.signed);
        bits >= 64 || value >> bits == 0
    };
    let all = [IntType::INT, IntType::UINT, IntType::LONG, IntType::ULONG];
    let allowed = |ty: &IntType| {
        (!is_unsigned || !ty.signed) && (may_be_unsigned || ty.signed) && (!is_long || ty.size == 8)
    };
    all.into_iter()
        .find(|ty| allowed(ty) && fits(*ty))
        .unwrap_or(IntType::ULONG)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kinds(text: &str) -> Vec<Token<'_>> {
        tokens(text).unwrap().into_iter().map(|(t, _)| t).collect()
    }

    #[test]
    fn constants_have_the_types_that_c_gives_them() {
        assert_eq!(kinds("1")[0], Token::Int(1, IntType::INT));
        assert_eq!(kinds("1U")[0], Token::Int(1, IntType::UINT));
        assert_eq!(kinds("1UL")[0], Token::Int(1, IntType::ULONG));
        assert_eq!(
            kinds("0xffffffff")[0],
            Token::Int(0xffff_ffff, IntType::UINT)
        );
        assert_eq!(
            kinds("4294967295")[0],
            Token::Int(0xffff_ffff, IntType::LONG)
        );
        assert_eq!(kinds("010")[0], Token::Int(8, IntType::INT));
        assert_eq!(kinds("0")[0], Token::Int(0, IntType::INT));
        assert_eq!(kinds("'a'")[0], Token::Int(97, IntType::INT));
    }

    #[test]
    fn strings_resolve_escapes() {
        assert_eq!(
            kinds(r#""a\n\"\x41\0""#)[0],
            Token::Str(b"a\n\"A\0".to_vec())
        );
        assert!(tokens("\"open").is_err());
        assert!(tokens("'").is_err());
    }

    #[test]
    fn operators_are_taken_as_long_as_possible() {
        let found = kinds("REC->a<<1");
        let expected = [
            Token::Ident("REC"),
            Token::Punct("->"),
            Token::Ident("a"),
            Token::Punct("<<"),
            Token::Int(1, IntType::INT),
            Token::End,
        ];
        assert_eq!(found, expected);
    }
}

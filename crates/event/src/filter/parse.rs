//! From a filter's text to its expression.

use super::{Expr, FilterError, FilterErrorKind, Modifier, Operand, Operator, Spanned, Test};

/// Deepest nesting of parentheses and negations.
const MAX_DEPTH: u8 = 100;

/// Operators, longer ones first.
const OPERATORS: &[(&str, Operator)] = &[
    ("==", Operator::Eq),
    ("!=", Operator::NotEq),
    ("<=", Operator::LessEq),
    (">=", Operator::GreaterEq),
    ("<", Operator::Less),
    (">", Operator::Greater),
    ("&", Operator::And),
    ("~", Operator::Glob),
];

type Parse<T> = Result<T, FilterError>;

pub(super) fn parse(text: &str) -> Parse<Expr> {
    let mut parser = Parser {
        text,
        at: 0,
        depth: 0,
    };
    let expr = parser.any()?;
    match parser.peek() {
        None => Ok(expr),
        Some(')') => Err(parser.error_here(1, FilterErrorKind::ClosesNothing)),
        Some(_) => Err(parser.expected("`&&`, `||` or the end")),
    }
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
    depth: u8,
}

impl Operator {
    pub(super) fn text(self) -> &'static str {
        let found = OPERATORS.iter().find(|(_, operator)| *operator == self);
        found.map_or("", |(text, _)| text)
    }
}

impl<'a> Parser<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    /// The next character that is no space.
    fn peek(&mut self) -> Option<char> {
        let rest = self.rest();
        self.at += rest.len() - rest.trim_start().len();
        self.rest().chars().next()
    }

    fn eat(&mut self, word: &str) -> bool {
        self.peek();
        let is_next = self.rest().starts_with(word);
        if is_next {
            self.at += word.len();
        }
        is_next
    }

    /// Takes the characters from here on that `is` holds for.
    fn take_while(&mut self, is: impl Fn(char) -> bool) -> Spanned<&'a str> {
        let (start, rest) = (self.at, self.rest());
        self.at += rest.find(|c| !is(c)).unwrap_or(rest.len());
        Spanned {
            is: &self.text[start..self.at],
            span: start..self.at,
        }
    }

    fn error_here(&self, len: usize, kind: FilterErrorKind) -> FilterError {
        FilterError {
            span: self.at..self.at + len,
            kind,
        }
    }

    /// Something else stands here; the span is up to the next space.
    fn expected(&self, what: &'static str) -> FilterError {
        let rest = self.rest();
        let len = rest.find(char::is_whitespace).unwrap_or(rest.len());
        self.error_here(len, FilterErrorKind::Expected(what))
    }

    fn any(&mut self) -> Parse<Expr> {
        let mut terms = vec![self.all()?];
        while self.eat("||") {
            terms.push(self.all()?);
        }
        Ok(one_or(terms, Expr::Any))
    }

    fn all(&mut self) -> Parse<Expr> {
        let mut terms = vec![self.unary()?];
        while self.eat("&&") {
            terms.push(self.unary()?);
        }
        Ok(one_or(terms, Expr::All))
    }

    fn unary(&mut self) -> Parse<Expr> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(self.error_here(0, FilterErrorKind::TooDeep));
        }
        self.peek();
        let start = self.at;
        let expr = if self.eat("!") {
            Expr::Not(Box::new(self.unary()?))
        } else if self.eat("(") {
            self.parenthesis(start)?
        } else {
            Expr::Test(self.test()?)
        };
        self.depth -= 1;
        Ok(expr)
    }

    fn parenthesis(&mut self, start: usize) -> Parse<Expr> {
        let expr = self.any()?;
        match self.peek() {
            Some(')') => self.at += 1,
            None => {
                return Err(FilterError {
                    span: start..start + 1,
                    kind: FilterErrorKind::NotClosed('('),
                });
            }
            Some(_) => return Err(self.expected("`&&`, `||` or `)`")),
        }
        Ok(expr)
    }

    fn test(&mut self) -> Parse<Test> {
        self.peek();
        let field = self.take_while(is_word);
        if field.is.is_empty() {
            return Err(self.expected("a field's name, `!` or `(`"));
        }
        let modifier = self.modifier()?;
        let operator = self.operator()?;
        let is_function = modifier
            .as_ref()
            .is_some_and(|m| m.is == Modifier::Function);
        let value = self.value(is_function)?;
        Ok(Test {
            field: Spanned {
                is: field.is.to_owned(),
                span: field.span,
            },
            modifier,
            operator,
            value,
        })
    }

    fn modifier(&mut self) -> Parse<Option<Spanned<Modifier>>> {
        if !self.rest().starts_with('.') {
            return Ok(None);
        }
        let start = self.at;
        self.at += 1;
        let word = self.take_while(is_word);
        let is = match word.is {
            "ustring" => Modifier::UserString,
            "function" => Modifier::Function,
            _ => {
                self.at = start;
                return Err(self.expected("`.ustring`, `.function` or an operator"));
            }
        };
        let span = start..self.at;
        Ok(Some(Spanned { is, span }))
    }

    fn operator(&mut self) -> Parse<Spanned<Operator>> {
        self.peek();
        let start = self.at;
        let rest = self.rest();
        let found = OPERATORS.iter().find(|(text, _)| rest.starts_with(text));
        let Some((text, is)) = found else {
            return Err(self.expected("`==`, `!=`, `<`, `<=`, `>`, `>=`, `&` or `~`"));
        };
        self.at += text.len();
        let span = start..self.at;
        Ok(Spanned { is: *is, span })
    }

    fn value(&mut self, is_function: bool) -> Parse<Spanned<Operand>> {
        let next = self.peek();
        let start = self.at;
        let is = match next {
            Some(quote @ ('"' | '\'')) => Operand::Text(self.enclosed(1, quote, quote)?),
            _ if self.rest().starts_with("CPUS{") => Operand::Cpus(self.enclosed(5, '{', '}')?),
            Some('0'..='9' | '-') => self.number()?,
            Some(c) if is_function && is_word(c) => {
                Operand::Function(self.take_while(is_function_word).is.to_owned())
            }
            _ if is_function => return Err(self.expected("a function's name or an address")),
            _ => return Err(self.expected("a number, a text in quotes or `CPUS{...}`")),
        };
        let span = start..self.at;
        Ok(Spanned { is, span })
    }

    /// What stands after `skip` bytes up to `close`.
    fn enclosed(&mut self, skip: usize, open: char, close: char) -> Parse<String> {
        let inner = &self.rest()[skip..];
        let Some(len) = inner.find(close) else {
            let place = self.at + skip - 1;
            return Err(FilterError {
                span: place..place + 1,
                kind: FilterErrorKind::NotClosed(open),
            });
        };
        self.at += skip + len + 1;
        Ok(inner[..len].to_owned())
    }

    fn number(&mut self) -> Parse<Operand> {
        let start = self.at;
        self.eat("-");
        let digits = self.take_while(|c| c.is_ascii_alphanumeric());
        if !digits.is.starts_with(|c: char| c.is_ascii_digit()) {
            self.at = start;
            return Err(self.expected("a number"));
        }
        Ok(Operand::Number(self.text[start..self.at].to_owned()))
    }
}

fn one_or(mut terms: Vec<Expr>, many: impl Fn(Vec<Expr>) -> Expr) -> Expr {
    match terms.len() {
        1 => terms.remove(0),
        _ => many(terms),
    }
}

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

/// Functions may have a suffix as in `schedule.part.0`.
fn is_function_word(c: char) -> bool {
    is_word(c) || c == '.'
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The expression with all parentheses written.
    fn shown(expr: &Expr) -> String {
        let join = |all: &[Expr], sep| {
            let all: Vec<_> = all.iter().map(shown).collect();
            format!("({})", all.join(sep))
        };
        match expr {
            Expr::All(all) => join(all, "&&"),
            Expr::Any(any) => join(any, "||"),
            Expr::Not(inner) => format!("!{}", shown(inner)),
            Expr::Test(test) => test.field.is.clone(),
        }
    }

    fn parsed(text: &str) -> String {
        shown(&parse(text).unwrap())
    }

    #[test]
    fn and_goes_before_or_and_not_before_both() {
        assert_eq!(parsed("a==1||b==2&&c==3"), "(a||(b&&c))");
        assert_eq!(parsed("!a == 1 && (b & 2 || c < -3)"), "(!a&&(b||c))");
        assert_eq!(parsed("! ! ( ( a ~ 'x' ) )"), "!!a");
        assert_eq!(parsed("a == \"x && y\" && b == 1 && c == 2"), "(a&&b&&c)");
    }

    /// The error is `kind` at the last `part` of the text.
    #[track_caller]
    fn assert_error(text: &str, part: &str, kind: FilterErrorKind) {
        let start = text.rfind(part).unwrap();
        let span = start..start + part.len();
        assert_eq!(parse(text).unwrap_err(), FilterError { span, kind });
    }

    #[test]
    fn mistakes_are_shown_where_they_are() {
        use FilterErrorKind::*;
        let field = Expected("a field's name, `!` or `(`");
        let operator = Expected("`==`, `!=`, `<`, `<=`, `>`, `>=`, `&` or `~`");
        let value = Expected("a number, a text in quotes or `CPUS{...}`");
        let end = Expected("`&&`, `||` or the end");
        assert_error("", "", field.clone());
        assert_error("a == 1 &&", "", field.clone());
        assert_error("== 3", "==", field.clone());
        assert_error("()", ")", field.clone());
        assert_error("a == 1 && && b == 2", "&&", field);
        assert_error("a = 3", "=", operator.clone());
        assert_error("a", "", operator.clone());
        assert_error("(a) == 1", ")", operator);
        assert_error("a == bash", "bash", value.clone());
        assert_error("a <> 3", ">", value.clone());
        assert_error("a == (1)", "(1)", value);
        assert_error("a == -x", "-x", Expected("a number"));
        assert_error("a == 1 & b == 2", "&", end.clone());
        assert_error("a == 1 and b == 2", "and", end.clone());
        assert_error("a == 1+1", "+1", end.clone());
        assert_error("a == 1;", ";", end);
        assert_error("(a == 1 b", "b", Expected("`&&`, `||` or `)`"));
        assert_error("a == 1 || (b == 2", "(", NotClosed('('));
        assert_error("a == 1)", ")", ClosesNothing);
        assert_error("a == \"x", "\"", NotClosed('"'));
        assert_error("CPU & CPUS{1", "{", NotClosed('{'));
        assert_error(
            "a.x == 1",
            ".x",
            Expected("`.ustring`, `.function` or an operator"),
        );
        let function = Expected("a function's name or an address");
        assert_error("a.function == +", "+", function);
        let deep = "(".repeat(5000);
        assert_eq!(parse(&deep).unwrap_err().kind, TooDeep);
        assert_eq!(parse(&"!".repeat(5000)).unwrap_err().kind, TooDeep);
        assert!(parse(&["a == 1"; 5000].join(" && ")).is_ok());
    }
}

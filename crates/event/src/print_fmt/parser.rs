//! From the text of a `print fmt` to compiled expressions: a Pratt parser over C's operators.

use std::collections::BTreeSet;
use std::ops::Range;

use super::expr::{BinaryOp, Data, Int, MAX_DEPTH, Place, UnaryOp};
use super::lexer::{Token, tokens};
use super::text_expr::{Table, Text};
use crate::constants::HZ;
use crate::ctype::{self, IntType};
use crate::error::{NotEvaluated, Reason};
use crate::format::{EventFormat, Field, FieldKind};

/// The value of an expression.
#[derive(Debug, Clone)]
pub(crate) enum Value {
    /// A number, or an address of whose target nothing is known.
    Int(Int),
    /// An address that counts in elements of a type.
    Address {
        /// The address.
        address: Int,
        /// The type's size in bytes; its name if the size is not known.
        size: Result<u64, String>,
    },
    /// Bytes of the record.
    Data(Data),
    /// A text.
    Text(Text),
    /// `REC` itself.
    Record,
    /// Names of numbers, which a statement gave a name.
    Table(Table),
}

/// The format string of a `print fmt` and its arguments.
pub(crate) struct Parsed {
    pub(crate) format: Vec<u8>,
    pub(crate) arguments: Vec<(Value, Range<usize>)>,
}

/// Parses `"format", argument, ...`.
pub(crate) fn parse(
    event: &EventFormat,
    value_of: &dyn Fn(&str) -> Option<u64>,
) -> Result<Parsed, NotEvaluated> {
    let mut parser = Parser {
        event,
        value_of,
        tokens: tokens(&event.print_fmt)?,
        at: 0,
        depth: 0,
        locals: Vec::new(),
    };
    let (format, span) = parser.argument()?;
    let Value::Text(Text::Literal(format)) = format else {
        return Err(NotEvaluated {
            span,
            reason: Reason::Expected("a format string"),
        });
    };
    let mut arguments = Vec::new();
    while parser.eat(",") {
        arguments.push(parser.argument()?);
    }
    if *parser.peek() != Token::End {
        return Err(parser.error(Reason::Expected("`,` or the end")));
    }
    Ok(Parsed {
        format: format.into_vec(),
        arguments,
    })
}

/// Names in the `print fmt` of `event` that may have to be looked up; see
/// [`EventFormat::unresolved_names`]. None if it is not C's tokens.
pub(crate) fn bare_names(event: &EventFormat) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let found = tokens(&event.print_fmt).unwrap_or_default();
    let mut previous = &Token::End;
    for (i, (token, _)) in found.iter().enumerate() {
        let next = found.get(i + 1).map_or(&Token::End, |(token, _)| token);
        if let Token::Ident(name) = *token {
            names.extend(bare_name(event, previous, name, next));
        }
        previous = token;
    }
    names
}

fn bare_name(
    event: &EventFormat,
    previous: &Token<'_>,
    name: &str,
    next: &Token<'_>,
) -> Option<String> {
    if let Token::Ident(keyword @ ("struct" | "union")) = *previous {
        return Some(format!("{keyword} {name}"));
    }
    if name.starts_with("jiffies_to_") {
        return Some(HZ.to_owned());
    }
    let is_called = *next == Token::Punct("(");
    let is_member = matches!(previous, Token::Punct("->" | "."));
    let is_type = is_type_word(name) || ctype::by_words(&[name]).is_some();
    let is_known = name == "REC" || event.field(name).is_some();
    (!(is_called || is_member || is_type || is_known)).then(|| name.to_owned())
}

struct Parser<'a> {
    event: &'a EventFormat,
    value_of: &'a dyn Fn(&str) -> Option<u64>,
    tokens: Vec<(Token<'a>, Range<usize>)>,
    at: usize,
    depth: u8,
    /// The names that the statement expressions around give to values, the innermost last.
    locals: Vec<(&'a str, Value)>,
}

type Parse<T> = Result<T, NotEvaluated>;

/// Binding strength of `?`; binary operators bind more strongly.
const CONDITIONAL: u8 = 1;

fn binary_operator(token: &Token<'_>) -> Option<(BinaryOp, u8)> {
    let Token::Punct(punct) = token else {
        return None;
    };
    Some(match *punct {
        "||" => (BinaryOp::LogicOr, 2),
        "&&" => (BinaryOp::LogicAnd, 3),
        "|" => (BinaryOp::Or, 4),
        "^" => (BinaryOp::Xor, 5),
        "&" => (BinaryOp::And, 6),
        "==" => (BinaryOp::Eq, 7),
        "!=" => (BinaryOp::NotEq, 7),
        "<" => (BinaryOp::Less, 8),
        "<=" => (BinaryOp::LessEq, 8),
        ">" => (BinaryOp::Greater, 8),
        ">=" => (BinaryOp::GreaterEq, 8),
        "<<" => (BinaryOp::Shl, 9),
        ">>" => (BinaryOp::Shr, 9),
        "+" => (BinaryOp::Add, 10),
        "-" => (BinaryOp::Sub, 10),
        "*" => (BinaryOp::Mul, 11),
        "/" => (BinaryOp::Div, 11),
        "%" => (BinaryOp::Rem, 11),
        _ => return None,
    })
}

/// A type in parentheses: its words and its stars.
struct TypeName {
    int: Option<IntType>,
    stars: usize,
    text: String,
}

impl<'a> Parser<'a> {
    fn peek(&self) -> &Token<'a> {
        &self.tokens[self.at].0
    }

    fn peek_second(&self) -> &Token<'a> {
        &self.tokens[(self.at + 1).min(self.tokens.len() - 1)].0
    }

    fn span(&self) -> Range<usize> {
        self.tokens[self.at].1.clone()
    }

    fn next(&mut self) -> Token<'a> {
        let token = self.peek().clone();
        self.at = (self.at + 1).min(self.tokens.len() - 1);
        token
    }

    fn is(&self, punct: &str) -> bool {
        matches!(self.peek(), Token::Punct(p) if *p == punct)
    }

    fn eat(&mut self, punct: &str) -> bool {
        let found = self.is(punct);
        if found {
            self.next();
        }
        found
    }

    fn expect(&mut self, punct: &'static str) -> Parse<()> {
        if self.eat(punct) {
            Ok(())
        } else {
            Err(self.error(Reason::Expected(punct)))
        }
    }

    fn error(&self, reason: Reason) -> NotEvaluated {
        NotEvaluated {
            span: self.span(),
            reason,
        }
    }

    fn ident(&mut self) -> Parse<&'a str> {
        match *self.peek() {
            Token::Ident(name) => {
                self.next();
                Ok(name)
            }
            _ => Err(self.error(Reason::Expected("a name"))),
        }
    }

    /// An argument with its place.
    fn argument(&mut self) -> Parse<(Value, Range<usize>)> {
        let start = self.span().start;
        let value = self.expression(CONDITIONAL)?;
        let end = self.tokens[self.at.saturating_sub(1)].1.end;
        Ok((value, start..end))
    }

    /// An expression of operators that bind at least as strongly as `least`.
    fn expression(&mut self, least: u8) -> Parse<Value> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(self.error(Reason::TooDeep));
        }
        let mut left = self.unary()?;
        loop {
            if let Some((op, strength)) = binary_operator(self.peek())
                && strength >= least
            {
                self.next();
                let right = self.expression(strength + 1)?;
                left = self.binary(op, left, right)?;
            } else if least <= CONDITIONAL && self.eat("?") {
                left = self.conditional(left)?;
            } else {
                self.depth -= 1;
                return Ok(left);
            }
        }
    }

    fn conditional(&mut self, test: Value) -> Parse<Value> {
        let test = self.int(test)?;
        let yes = self.expression(CONDITIONAL)?;
        self.expect(":")?;
        let no = self.expression(CONDITIONAL)?;
        if let (Some(yes), Some(no)) = (yes.as_int(), no.as_int()) {
            let cond = Int::cond(test, yes.clone(), no.clone());
            return self.shallow(cond).map(Value::Int);
        }
        let (yes, no) = (self.text(yes)?, self.text(no)?);
        Ok(Value::Text(Text::Cond(Box::new((test, yes, no)))))
    }

    fn binary(&self, op: BinaryOp, left: Value, right: Value) -> Parse<Value> {
        match (left, right) {
            (Value::Data(data), Value::Int(index)) if op == BinaryOp::Add => {
                self.shallow(data.advanced(index)).map(Value::Data)
            }
            (Value::Address { address, size }, Value::Int(index)) if is_sum(op) => {
                self.advanced(op, address, size, index)
            }
            (left, right) => {
                let (left, right) = (self.int(left)?, self.int(right)?);
                self.shallow(Int::binary(op, left, right)).map(Value::Int)
            }
        }
    }

    /// `address OP index`, the index counted in elements of `size` bytes.
    fn advanced(
        &self,
        op: BinaryOp,
        address: Int,
        size: Result<u64, String>,
        index: Int,
    ) -> Parse<Value> {
        let each = match &size {
            Ok(each) => Int::constant(*each, IntType::ULONG),
            Err(name) => return Err(self.error(Reason::UnknownName(name.clone()))),
        };
        let offset = self.shallow(Int::binary(BinaryOp::Mul, index, each))?;
        let address = self.shallow(Int::binary(op, address, offset))?;
        Ok(Value::Address { address, size })
    }

    fn shallow<T>(&self, built: Option<T>) -> Parse<T> {
        built.ok_or_else(|| self.error(Reason::TooDeep))
    }

    fn int(&self, value: Value) -> Parse<Int> {
        match value {
            Value::Int(int) | Value::Address { address: int, .. } => Ok(int),
            Value::Data(_) => Err(self.error(Reason::Unsupported("address used as a number"))),
            Value::Text(_) => Err(self.error(Reason::Unsupported("text used as a number"))),
            Value::Record => Err(self.error(Reason::Unsupported("`REC` used as a number"))),
            Value::Table(_) => Err(self.error(Reason::Unsupported("a table used as a number"))),
        }
    }

    fn data(&self, value: Value) -> Parse<Data> {
        match value {
            Value::Data(data) => Ok(data),
            _ => Err(self.error(Reason::Expected("an array"))),
        }
    }

    pub(crate) fn text(&self, value: Value) -> Parse<Text> {
        as_text(value).ok_or_else(|| self.error(Reason::Expected("a text")))
    }

    fn unary(&mut self) -> Parse<Value> {
        let Token::Punct(punct) = *self.peek() else {
            return self.postfix();
        };
        match punct {
            "-" => self.unary_int(UnaryOp::Neg),
            "~" => self.unary_int(UnaryOp::BitNot),
            "!" => self.unary_int(UnaryOp::Not),
            "+" => {
                self.next();
                self.operand()
            }
            "&" => self.address_of(),
            "*" => self.dereference(),
            "(" if self.is_cast() => self.cast(),
            _ => self.postfix(),
        }
    }

    /// An operand of a prefix operator; counts as a level.
    fn operand(&mut self) -> Parse<Value> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(self.error(Reason::TooDeep));
        }
        let value = self.unary();
        self.depth -= 1;
        value
    }

    fn unary_int(&mut self, op: UnaryOp) -> Parse<Value> {
        self.next();
        let operand = self.operand()?;
        let operand = self.int(operand)?;
        self.shallow(Int::unary(op, operand)).map(Value::Int)
    }

    fn address_of(&mut self) -> Parse<Value> {
        self.next();
        match self.operand()? {
            Value::Int(int) => match int.as_load() {
                Some((offset, ty)) => {
                    let place = Place::Fixed {
                        offset,
                        len: u32::from(ty.size),
                    };
                    Ok(Value::Data(Data { place, elem: ty }))
                }
                None => Err(self.error(Reason::Unsupported("address of an expression"))),
            },
            other => Ok(other),
        }
    }

    fn dereference(&mut self) -> Parse<Value> {
        self.next();
        let operand = self.operand()?;
        let data = self.data(operand)?;
        self.shallow(Int::element(data, Int::constant(0, IntType::INT)))
            .map(Value::Int)
    }

    /// True if the parenthesis here holds a type: a word of C's types, a known name, the type
    /// of one of the event's fields, or any single name in front of an operand.
    fn is_cast(&self) -> bool {
        let Token::Ident(word) = *self.peek_second() else {
            return false;
        };
        let third = &self.tokens[(self.at + 2).min(self.tokens.len() - 1)].0;
        let after = &self.tokens[(self.at + 3).min(self.tokens.len() - 1)].0;
        let is_operand = matches!(after, Token::Ident(_) | Token::Int(..) | Token::Punct("("));
        is_type_word(word)
            || ctype::by_words(&[word]).is_some()
            || self.event.fields.iter().any(|f| f.type_name == word)
            || (word != "REC" && *third == Token::Punct(")") && is_operand)
    }

    fn cast(&mut self) -> Parse<Value> {
        self.expect("(")?;
        let ty = self.type_name();
        self.expect(")")?;
        let value = self.operand()?;
        self.converted(&ty, value)
    }

    /// `value` as type `ty`.
    fn converted(&self, ty: &TypeName, value: Value) -> Parse<Value> {
        if ty.stars > 0 {
            return self.pointer_cast(ty, value);
        }
        let Some(int) = ty.int else {
            return Err(self.error(Reason::UnknownType(ty.text.clone())));
        };
        let value = self.int(value)?;
        self.shallow(value.cast(int)).map(Value::Int)
    }

    fn pointer_cast(&self, ty: &TypeName, value: Value) -> Parse<Value> {
        Ok(match value {
            Value::Int(int) | Value::Address { address: int, .. } => {
                let address = self.shallow(int.cast(IntType::ULONG))?;
                self.address(ty, address)
            }
            Value::Data(data) => {
                let elem = match ty.int {
                    _ if ty.stars > 1 => IntType::ULONG,
                    Some(int) => int,
                    None => IntType::BYTE,
                };
                Value::Data(Data { elem, ..data })
            }
            other => other,
        })
    }

    /// An address of a struct or union counts in its size; others are not computed with.
    fn address(&self, ty: &TypeName, address: Int) -> Value {
        let is_struct = ty.text.starts_with("struct ") || ty.text.starts_with("union ");
        if !is_struct || ty.stars > 1 {
            return Value::Int(address);
        }
        let size = (self.value_of)(&ty.text).ok_or_else(|| ty.text.clone());
        Value::Address { address, size }
    }

    /// The type whose words and stars are next.
    fn type_name(&mut self) -> TypeName {
        let start = self.at;
        while matches!(self.peek(), Token::Ident(_) | Token::Punct("*")) {
            self.next();
        }
        self.type_of(&self.tokens[start..self.at])
    }

    fn type_of(&self, tokens: &[(Token<'a>, Range<usize>)]) -> TypeName {
        let word = |token: &(Token<'a>, _)| match token.0 {
            Token::Ident(word) => Some(word),
            _ => None,
        };
        let words: Vec<&str> = tokens.iter().filter_map(word).collect();
        let stars = tokens.len() - words.len();
        let text = words.join(" ");
        let of_field = || self.event.fields.iter().find(|f| f.type_name == text);
        let int = ctype::by_words(&words).or_else(|| match of_field()?.kind {
            FieldKind::Int(ty) => Some(ty),
            _ => None,
        });
        TypeName { int, stars, text }
    }

    fn postfix(&mut self) -> Parse<Value> {
        let mut value = self.primary()?;
        loop {
            if self.eat("[") {
                let index = self.expression(CONDITIONAL)?;
                let index = self.int(index)?;
                self.expect("]")?;
                let data = self.data(value)?;
                let element = Int::element(data, index);
                value =
                    Value::Int(element.ok_or_else(|| self.error(Reason::Unsupported("index")))?);
            } else if self.is("->") && matches!(value, Value::Record) {
                self.next();
                value = self.field()?;
            } else if self.is("->") || self.is(".") {
                return Err(self.error(Reason::Unsupported("member access")));
            } else {
                return Ok(value);
            }
        }
    }

    fn primary(&mut self) -> Parse<Value> {
        match self.peek().clone() {
            Token::Int(value, ty) => {
                self.next();
                Ok(Value::Int(Int::constant(value, ty)))
            }
            Token::Str(_) => Ok(Value::Text(Text::Literal(self.strings().into()))),
            Token::Ident("REC") => {
                self.next();
                Ok(Value::Record)
            }
            Token::Ident(name) if *self.peek_second() == Token::Punct("(") => self.call(name),
            Token::Ident(name) => self.name(name),
            Token::Punct("(") => {
                self.next();
                if self.is("{") {
                    return self.statements();
                }
                let value = self.expression(CONDITIONAL)?;
                self.expect(")")?;
                Ok(value)
            }
            _ => Err(self.error(Reason::Expected("a value"))),
        }
    }

    /// A value's name: given by a statement, or of a constant.
    fn name(&mut self, name: &str) -> Parse<Value> {
        let local = self.locals.iter().rev().find(|(n, _)| *n == name);
        let value = match local {
            Some((_, value)) => value.clone(),
            None => Value::Int(self.constant(name)?),
        };
        self.next();
        Ok(value)
    }

    /// The constant `name`: an `int` if it fits, as C's enum constants, else a `long`.
    fn constant(&self, name: &str) -> Parse<Int> {
        let value = (self.value_of)(name);
        let value = value.ok_or_else(|| self.error(Reason::UnknownName(name.to_owned())))?;
        let fits = IntType::INT.extend(value) == value;
        let ty = if fits { IntType::INT } else { IntType::ULONG };
        Ok(Int::constant(value, ty))
    }

    /// `{ TYPE NAME = VALUE; ... VALUE; })`: a statement expression without side effects.
    fn statements(&mut self) -> Parse<Value> {
        const UNSUPPORTED: Reason = Reason::Unsupported("statement expression");
        let start = self.span();
        let outer = self.locals.len();
        self.expect("{")?;
        let mut last = None;
        while !self.is("}") {
            last = match self.declaration()? {
                true => None,
                false => Some(self.expression(CONDITIONAL)?),
            };
            if !self.eat(";") {
                return Err(self.error(UNSUPPORTED));
            }
        }
        self.expect("}")?;
        self.expect(")")?;
        self.locals.truncate(outer);
        last.ok_or(NotEvaluated {
            span: start,
            reason: UNSUPPORTED,
        })
    }

    /// `TYPE NAME = VALUE`; false if this is something else.
    fn declaration(&mut self) -> Parse<bool> {
        let (Token::Ident(_), Token::Ident(_) | Token::Punct("*")) =
            (self.peek(), self.peek_second())
        else {
            return Ok(false);
        };
        let start = self.at;
        while matches!(self.peek(), Token::Ident(_) | Token::Punct("*")) {
            self.next();
        }
        // The last of the words is the name.
        let Token::Ident(name) = self.tokens[self.at - 1].0 else {
            return Err(self.error(Reason::Expected("a name")));
        };
        if self.is("[") && self.tokens[self.at - 2].0 == Token::Ident("trace_print_flags") {
            let table = self.named_numbers()?;
            self.locals.push((name, Value::Table(table)));
            return Ok(true);
        }
        if !self.is("=") {
            return Err(self.error(Reason::Unsupported("statement expression")));
        }
        let ty = self.type_of(&self.tokens[start..self.at - 1]);
        self.next();
        let value = self.expression(CONDITIONAL)?;
        let value = self.converted(&ty, value)?;
        self.locals.push((name, value));
        Ok(true)
    }

    /// `[] = { { value, "name" }, ... }`.
    fn named_numbers(&mut self) -> Parse<Table> {
        for punct in ["[", "]", "=", "{"] {
            self.expect(punct)?;
        }
        let mut entries = Vec::new();
        while !self.is("}") {
            entries.extend(self.entry()?);
            if !self.eat(",") {
                break;
            }
        }
        self.expect("}")?;
        Ok(entries.into())
    }

    /// Adjacent string literals, joined.
    fn strings(&mut self) -> Vec<u8> {
        let mut all = Vec::new();
        while let Token::Str(bytes) = self.peek() {
            all.extend_from_slice(bytes);
            self.next();
        }
        all
    }

    /// A field after `REC->`.
    fn field(&mut self) -> Parse<Value> {
        let place = self.span();
        let name = self.ident()?;
        if name == "ent" && self.eat(".") {
            // The start of the entry, whose parts are the common fields.
            let part = format!("common_{}", self.ident()?);
            return self.find_field(&part, &place).map(field_value);
        }
        let field = self.find_field(name, &place)?;
        Ok(field_value(field))
    }

    fn find_field(&self, name: &str, span: &Range<usize>) -> Parse<&'a Field> {
        let bare = name
            .strip_prefix("__data_loc_")
            .or(name.strip_prefix("__rel_loc_"));
        self.event
            .field(bare.unwrap_or(name))
            .ok_or_else(|| NotEvaluated {
                span: span.clone(),
                reason: Reason::UnknownField(name.to_owned()),
            })
    }

    /// A field's name as a helper's argument.
    fn field_argument(&mut self) -> Parse<Data> {
        let place = self.span();
        let name = self.ident()?;
        let field = self.find_field(name, &place)?;
        match field_value(field) {
            Value::Data(data) => Ok(data),
            _ => Err(NotEvaluated {
                span: place,
                reason: Reason::Expected("a dynamic array"),
            }),
        }
    }

    fn call(&mut self, name: &'a str) -> Parse<Value> {
        let start = self.at;
        self.next();
        self.expect("(")?;
        let value = match name {
            "__get_str"
            | "__get_rel_str"
            | "__get_dynamic_array"
            | "__get_rel_dynamic_array"
            | "__get_sockaddr"
            | "__get_rel_sockaddr"
            | "__get_buf" => Value::Data(self.field_argument()?),
            "__get_dynamic_array_len" | "__get_rel_dynamic_array_len" => {
                Value::Int(Int::len(self.field_argument()?))
            }
            "__get_bitmask" | "__get_rel_bitmask" | "__get_cpumask" | "__get_rel_cpumask" => {
                Value::Text(Text::Bitmask(self.field_argument()?))
            }
            "__print_flags" | "__print_flags_u64" => self.print_flags()?,
            "__print_symbolic" | "__print_symbolic_u64" => self.print_symbolic()?,
            "__print_hex" => self.print_hex(Some(b' '))?,
            "__print_hex_str" => self.print_hex(None)?,
            "__print_array" => self.print_array()?,
            "__print_dynamic_array" => self.print_dynamic_array()?,
            "__print_ns_to_secs" => self.nanoseconds(BinaryOp::Div)?,
            "__print_ns_without_secs" => self.nanoseconds(BinaryOp::Rem)?,
            "jiffies_to_msecs" => self.jiffies(1_000)?,
            "jiffies_to_usecs" => self.jiffies(1_000_000)?,
            "__builtin_bswap16" => self.swapped(2)?,
            "__builtin_bswap32" => self.swapped(4)?,
            "__builtin_bswap64" => self.swapped(8)?,
            "__builtin_expect" => self.builtin_expect()?,
            "sizeof" => self.size_of()?,
            "__trace_print_untrusted_str" => self.untrusted_text()?,
            "__trace_landlock_print_layers" => self.layers()?,
            _ => {
                self.at = start;
                return Err(self.error(Reason::UnknownFunction(name.to_owned())));
            }
        };
        self.expect(")")?;
        Ok(value)
    }

    fn int_argument(&mut self) -> Parse<Int> {
        let value = self.expression(CONDITIONAL)?;
        self.int(value)
    }

    fn print_flags(&mut self) -> Parse<Value> {
        let value = self.int_argument()?;
        self.expect(",")?;
        let delimiter = match self.expression(CONDITIONAL)? {
            Value::Text(Text::Literal(text)) => text,
            Value::Int(int) if int.as_const() == Some(0) => Box::default(),
            _ => return Err(self.error(Reason::Expected("a delimiter"))),
        };
        Ok(Value::Text(Text::Flags {
            value,
            delimiter,
            table: self.table()?,
        }))
    }

    fn print_symbolic(&mut self) -> Parse<Value> {
        let value = self.int_argument()?;
        Ok(Value::Text(Text::Symbolic {
            value,
            table: self.table()?,
        }))
    }

    /// `, { value, "name" }` any number of times.
    fn table(&mut self) -> Parse<Table> {
        let mut entries = Vec::new();
        while self.eat(",") {
            entries.extend(self.entry()?);
        }
        Ok(entries.into())
    }

    /// `{ value, "name" }`; none if it is empty, or its name is 0.
    fn entry(&mut self) -> Parse<Option<(u64, Box<[u8]>)>> {
        self.expect("{")?;
        if self.eat("}") {
            return Ok(None);
        }
        let value = self.int_argument()?;
        let value = value
            .as_const()
            .ok_or_else(|| self.error(Reason::Expected("a constant")))?;
        self.expect(",")?;
        let entry = match self.expression(CONDITIONAL)? {
            Value::Text(Text::Literal(name)) => Some((value, name)),
            Value::Int(int) if int.as_const() == Some(0) => None,
            _ => return Err(self.error(Reason::Expected("a string"))),
        };
        self.expect("}")?;
        Ok(entry)
    }

    /// `p, DATA, LENGTH`: `p` is what the kernel prints to.
    fn untrusted_text(&mut self) -> Parse<Value> {
        self.ident()?;
        self.expect(",")?;
        let data = self.data_argument()?;
        self.expect(",")?;
        let len = self.int_argument()?;
        Ok(Value::Text(Text::Untrusted { data, len }))
    }

    /// `p, DATA, COUNT, NAMES, ...`: the rest, the number of names, is not needed.
    fn layers(&mut self) -> Parse<Value> {
        self.ident()?;
        self.expect(",")?;
        let data = self.data_argument()?;
        self.expect(",")?;
        let count = self.int_argument()?;
        self.expect(",")?;
        let Value::Table(table) = self.expression(CONDITIONAL)? else {
            return Err(self.error(Reason::Expected("names of numbers")));
        };
        let mut open = 0;
        while !(open == 0 && self.is(")") || *self.peek() == Token::End) {
            open += i32::from(self.is("(")) - i32::from(self.is(")"));
            self.next();
        }
        Ok(Value::Text(Text::Layers { data, count, table }))
    }

    fn data_argument(&mut self) -> Parse<Data> {
        let value = self.expression(CONDITIONAL)?;
        self.data(value)
    }

    fn print_hex(&mut self, separator: Option<u8>) -> Parse<Value> {
        let data = self.data_argument()?;
        self.expect(",")?;
        let len = self.int_argument()?;
        Ok(Value::Text(Text::Hex {
            data,
            len,
            separator,
        }))
    }

    fn print_array(&mut self) -> Parse<Value> {
        let data = self.data_argument()?;
        self.expect(",")?;
        let count = self.int_argument()?;
        self.expect(",")?;
        let size = self.element_size()?;
        Ok(Value::Text(Text::Array {
            data,
            count: Some(count),
            size,
        }))
    }

    fn print_dynamic_array(&mut self) -> Parse<Value> {
        let data = self.field_argument()?;
        self.expect(",")?;
        let size = self.element_size()?;
        Ok(Value::Text(Text::Array {
            data,
            count: None,
            size,
        }))
    }

    fn element_size(&mut self) -> Parse<u8> {
        match self.int_argument()?.as_const() {
            Some(size @ (1 | 2 | 4 | 8)) => Ok(size as u8),
            _ => Err(self.error(Reason::Expected("an element size"))),
        }
    }

    fn nanoseconds(&mut self, op: BinaryOp) -> Parse<Value> {
        let value = self.int_argument()?;
        let second = Int::constant(1_000_000_000, IntType::ULONG);
        let value = self.shallow(value.cast(IntType::ULONG))?;
        self.shallow(Int::binary(op, value, second)).map(Value::Int)
    }

    /// Timer ticks as parts of a second, which ticks divide evenly on all but odd machines.
    fn jiffies(&mut self, parts_per_second: u64) -> Parse<Value> {
        let value = self.int_argument()?;
        let hz = self.constant(HZ)?.as_const().filter(|hz| *hz > 0);
        let per_tick = hz.filter(|hz| parts_per_second.is_multiple_of(*hz));
        let per_tick = per_tick.ok_or_else(|| self.error(Reason::Unsupported("tick rate")))?;
        let each = Int::constant(parts_per_second / per_tick, IntType::UINT);
        let value = self.shallow(value.cast(IntType::UINT))?;
        self.shallow(Int::binary(BinaryOp::Mul, value, each))
            .map(Value::Int)
    }

    fn swapped(&mut self, size: u8) -> Parse<Value> {
        let value = self.int_argument()?;
        let value = self.shallow(value.cast(IntType::new(size, false)))?;
        let swapped = Int::unary(UnaryOp::SwapBytes, value);
        self.shallow(swapped).map(Value::Int)
    }

    fn builtin_expect(&mut self) -> Parse<Value> {
        let value = self.int_argument()?;
        self.expect(",")?;
        self.int_argument()?;
        self.shallow(value.cast(IntType::LONG)).map(Value::Int)
    }

    fn size_of(&mut self) -> Parse<Value> {
        let size = match *self.peek() {
            Token::Ident(word) if word != "REC" => {
                let ty = self.type_name();
                match ty.int {
                    _ if ty.stars > 0 => 8,
                    Some(int) => u32::from(int.size),
                    None => return Err(self.error(Reason::UnknownType(word.to_owned()))),
                }
            }
            _ => match self.expression(CONDITIONAL)? {
                Value::Int(int) => u32::from(int.ty.size),
                Value::Data(Data {
                    place: Place::Fixed { len, .. },
                    ..
                }) => len,
                _ => return Err(self.error(Reason::Unsupported("sizeof"))),
            },
        };
        Ok(Value::Int(Int::constant(u64::from(size), IntType::ULONG)))
    }
}

fn is_sum(op: BinaryOp) -> bool {
    matches!(op, BinaryOp::Add | BinaryOp::Sub)
}

impl Value {
    /// The number or address that this is.
    fn as_int(&self) -> Option<&Int> {
        match self {
            Self::Int(int) | Self::Address { address: int, .. } => Some(int),
            _ => None,
        }
    }
}

fn is_type_word(word: &str) -> bool {
    matches!(
        word,
        "unsigned"
            | "signed"
            | "char"
            | "short"
            | "int"
            | "long"
            | "const"
            | "volatile"
            | "struct"
            | "union"
            | "enum"
            | "void"
    )
}

/// `value` as a text, if it has one: an integer is taken as the address of a string.
pub(crate) fn as_text(value: Value) -> Option<Text> {
    match value {
        Value::Text(text) => Some(text),
        Value::Data(data) => Some(Text::Data(data)),
        Value::Int(int) | Value::Address { address: int, .. } => Some(Text::Pointer(int)),
        Value::Record | Value::Table(_) => None,
    }
}

fn field_value(field: &Field) -> Value {
    let (offset, len) = (field.offset, field.size);
    let fixed = |elem| {
        Value::Data(Data {
            place: Place::Fixed { offset, len },
            elem,
        })
    };
    match field.kind {
        FieldKind::Int(ty) => Value::Int(Int::load(offset, ty)),
        FieldKind::Bool => Value::Int(Int::load(offset, IntType::BYTE)),
        // Its bits, which `%g` makes a number of.
        FieldKind::Float { size } => Value::Int(Int::load(offset, IntType::new(size, false))),
        FieldKind::Pointer { .. } => Value::Int(Int::load(offset, IntType::ULONG)),
        FieldKind::String => fixed(IntType::CHAR),
        FieldKind::Array { elem } => fixed(elem),
        FieldKind::Opaque => fixed(IntType::BYTE),
        FieldKind::Flexible { elem, .. } => Value::Data(Data {
            place: Place::Flexible { offset },
            elem,
        }),
        FieldKind::Dynamic {
            elem, is_relative, ..
        } => Value::Data(Data {
            place: Place::Dynamic {
                offset,
                is_relative,
            },
            elem,
        }),
    }
}

//! The kernel's filter language: `prev_prio < 100 && next_comm ~ "kw*"`.
//!
//! A [`Filter`] is parsed once from its text and then compiled for each event
//! ([`Filter::compile`]), because what a name means and how its bytes compare is the event's
//! matter. The result, a [`Predicate`], looks at a record without allocating and never fails:
//! bytes that a record lacks read as zeros.
//!
//! ```text
//! filter  = and { "||" and }
//! and     = unary { "&&" unary }
//! unary   = "!" unary | "(" filter ")" | test
//! test    = field [ ".ustring" | ".function" ] operator value
//! value   = number | "text" | 'text' | CPUS{list} | function
//! ```
//!
//! | operator | numbers | texts | CPUs |
//! | --- | --- | --- | --- |
//! | `==` `!=` | yes | yes | yes |
//! | `<` `<=` `>` `>=` | yes | - | - |
//! | `&` | any bit in common | - | any CPU in common |
//! | `~` | - | pattern of `*`, `?`, `[a-z]`, `[!a-z]`; `!` first turns it round | - |
//!
//! Beside its own and the common fields every event has `CPU` (`cpu`, `common_cpu`) and `COMM`
//! (`comm`); an event's own field of such a name goes first. After
//! `Documentation/trace/events.rst` (v6.18), section 5, and experiments on Linux 6.18.44, which
//! the test `live_filters` repeats. Where the kernel accepts what can have no meaning (a trailing
//! `&&`, a number compared with an array) this is an error here; and a pattern that begins with
//! `*` finds the end of a text in a `char[16]` too.

mod compile;
mod cpu_list;
mod error;
mod parse;
mod pattern;
mod predicate;

use std::ops::Range;

pub use error::{FilterError, FilterErrorKind};
pub use predicate::Predicate;

use crate::catalog::Symbols;
use crate::format::EventFormat;

/// A filter as its text says it, not yet bound to an event.
///
/// ```
/// use outlive_event::{EventFormat, Filter, FilterScope, Symbols};
///
/// let event = EventFormat::parse(
///     "t",
///     "name: x\nID: 7\nformat:\n\tfield:int prio;\toffset:8;\tsize:4;\tsigned:1;\n",
/// )?;
/// let symbols = Symbols::default();
/// let scope = FilterScope { symbols: &symbols, nr_cpus: 2 };
/// let filter = Filter::parse("prio < 100 && CPU == 1").unwrap();
/// let predicate = filter.compile(&event, &scope).unwrap();
///
/// let mut record = vec![7, 0, 0, 0, 42, 0, 0, 0];
/// record.extend_from_slice(&99i32.to_le_bytes());
/// assert!(predicate.matches(&record, 1, || *b"bash\0\0\0\0\0\0\0\0\0\0\0\0"));
/// assert!(!predicate.matches(&record, 0, || *b"bash\0\0\0\0\0\0\0\0\0\0\0\0"));
/// # Ok::<(), outlive_event::FormatError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    root: Expr,
}

/// What a filter's values refer to besides the event.
#[derive(Debug, Clone, Copy)]
pub struct FilterScope<'a> {
    /// Functions that `.function` may name.
    pub symbols: &'a Symbols,
    /// CPUs that the machine may have; numbers in `CPUS{}` are below.
    pub nr_cpus: u32,
}

impl Filter {
    /// Parses a filter.
    ///
    /// # Errors
    ///
    /// The first mistake, with its place in `text`.
    pub fn parse(text: &str) -> Result<Self, FilterError> {
        parse::parse(text).map(|root| Self { root })
    }

    /// Compiles the filter for an event.
    ///
    /// # Errors
    ///
    /// The event has no such field, or a field does not compare with its value in that way.
    /// Places are in the text that was parsed.
    pub fn compile(
        &self,
        event: &EventFormat,
        scope: &FilterScope<'_>,
    ) -> Result<Predicate, FilterError> {
        compile::compile(&self.root, event, scope)
    }
}

/// A parsed expression.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Expr {
    All(Vec<Expr>),
    Any(Vec<Expr>),
    Not(Box<Expr>),
    Test(Test),
}

/// `field OPERATOR value`.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Test {
    field: Spanned<String>,
    modifier: Option<Spanned<Modifier>>,
    operator: Spanned<Operator>,
    value: Spanned<Operand>,
}

/// A part of the text with its place.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Spanned<T> {
    is: T,
    span: Range<usize>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Modifier {
    /// `.ustring`: the address of a string of user space.
    UserString,
    /// `.function`: an address in the function that is named.
    Function,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operator {
    Eq,
    NotEq,
    Less,
    LessEq,
    Greater,
    GreaterEq,
    And,
    Glob,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Operand {
    /// Digits, perhaps with a sign and `0x`.
    Number(String),
    /// What stands between the quotes.
    Text(String),
    /// What stands between the braces of `CPUS{}`.
    Cpus(String),
    /// A function's name.
    Function(String),
}

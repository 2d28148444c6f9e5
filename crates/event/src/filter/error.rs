//! What can be wrong with a filter.

use std::ops::Range;

/// A mistake in a filter: what, and where in its text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{kind}")]
pub struct FilterError {
    /// Byte range of the mistake in the filter's text, on character boundaries; empty where
    /// something is missing.
    pub span: Range<usize>,
    /// What is wrong there.
    pub kind: FilterErrorKind,
}

/// The kinds of mistakes in a filter.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FilterErrorKind {
    /// Something else was expected.
    #[error("expected {0}")]
    Expected(&'static str),
    /// A quote, brace or parenthesis that is never closed.
    #[error("`{0}` is not closed")]
    NotClosed(char),
    /// A `)` without its `(`.
    #[error("`)` closes nothing")]
    ClosesNothing,
    /// Deeper nested than this crate follows.
    #[error("nested too deeply")]
    TooDeep,
    /// The event has no such field.
    #[error("no field `{0}`")]
    UnknownField(String),
    /// A field of text, and a value that is none.
    #[error("`{0}` is text: expected a value in quotes")]
    IsText(String),
    /// A field of a number, and a value that is none.
    #[error("`{0}` is a number: expected a number without quotes")]
    IsNumber(String),
    /// The field has no value that compares: an array, or bytes of a struct.
    #[error("`{field}` ({type_name}) does not compare with a value")]
    NotComparable {
        /// The field.
        field: String,
        /// Its C type.
        type_name: String,
    },
    /// The record holds where a string was, not the string.
    #[error("`{0}` is the address of a string: the string is not in the record")]
    AddressOnly(String),
    /// The operator is not for values of this sort.
    #[error("`{operator}` is not for {values}: expected {expected}")]
    Operator {
        /// The operator.
        operator: &'static str,
        /// What is compared.
        values: &'static str,
        /// The operators that are.
        expected: &'static str,
    },
    /// Not a number, or one that does not fit into 64 bits with the sign that the field has.
    #[error("`{0}` is not a number that fits")]
    Number(String),
    /// Not a list of CPUs such as `0,2-3`.
    #[error("`{0}` is not a list of CPUs below {1}")]
    CpuList(String, u32),
    /// `.function` is for addresses.
    #[error("`{0}` does not hold an address")]
    NotAddress(String),
    /// No such function is known.
    #[error("no function `{0}` is known")]
    UnknownFunction(String),
}

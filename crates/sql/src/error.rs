//! What can go wrong.

use std::ops::Range;

/// Why a statement gave no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The statement is wrong.
    #[error("{message}")]
    Statement {
        /// What is wrong, as SQLite says it.
        message: String,
        /// Where, in the text that was to be run; empty if that is not known.
        span: Range<usize>,
        /// The nearest name of a table or column, if one is unknown.
        nearest: Option<String>,
    },
    /// It would change something.
    #[error("only queries are allowed: SELECT, WITH, VALUES and EXPLAIN")]
    NotAQuery {
        /// The statement, in the text that was to be run.
        span: Range<usize>,
    },
    /// The rows could not be handed on.
    #[error("cannot write the answer")]
    Write(#[from] std::io::Error),
    /// SQLite failed.
    #[error("SQLite: {0}")]
    Sqlite(#[from] rusqlite::Error),
}

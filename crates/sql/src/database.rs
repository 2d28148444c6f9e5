//! A connection to SQLite with the tables of some sources.

use std::ops::Range;

use outlive_trace::cmdline::nearest;
use rusqlite::ffi::ErrorCode;
use rusqlite::hooks::{AuthAction, AuthContext, Authorization};
use rusqlite::types::ValueRef;
use rusqlite::{Connection, OpenFlags};

use crate::schema::{self, VIEWS};
use crate::source::Source;
use crate::statements::{Statement, statements};
use crate::{Error, Result, vtab};

/// What a statement gives, in this order: its columns, its rows.
#[derive(Debug)]
pub enum Step<'r> {
    /// Names of the columns; a new statement's answer begins.
    Columns(&'r [String]),
    /// A row.
    Row(&'r [ValueRef<'r>]),
    /// There are no more rows.
    End,
}

/// SQL over sources.
#[derive(Debug)]
pub struct Database {
    connection: Connection,
    /// The names of all tables, and of the columns of each.
    names: Vec<(String, Vec<String>)>,
}

impl Database {
    /// Makes the tables of the sources. Reads no events yet.
    ///
    /// # Errors
    ///
    /// When SQLite has no memory.
    pub fn open(sources: Vec<Source>) -> Result<Self> {
        // In memory, and no statement may name a file by a URI.
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let mut connection = Connection::open_in_memory_with_flags(flags)?;
        // A sort that outgrows the memory would otherwise write temporary files.
        connection.execute_batch("PRAGMA temp_store = MEMORY")?;
        let mut names = Vec::new();
        for table in schema::tables(&sources.into()) {
            let columns = table.columns.iter().map(|column| column.name.clone());
            names.push((table.name.clone(), columns.collect()));
            vtab::add(&connection, table)?;
        }
        for view in VIEWS {
            connection.execute_batch(&format!("CREATE VIEW {} AS {}", view.name, view.select))?;
            let columns = view.columns.iter().map(|&column| column.to_owned());
            names.push((view.name.to_owned(), columns.collect()));
        }
        connection.authorizer(Some(authorize))?;
        Ok(Self { connection, names })
    }

    /// Runs the statements of a text one after the other. `take` gets what they give.
    ///
    /// # Errors
    ///
    /// The first statement that is wrong or no query, and errors of `take`. What came before was
    /// handed out.
    pub fn run(
        &self,
        text: &str,
        take: &mut dyn FnMut(Step<'_>) -> std::io::Result<()>,
    ) -> Result<()> {
        for Statement { span, .. } in statements(text) {
            self.run_one(text, span, take)?;
        }
        Ok(())
    }

    fn run_one(
        &self,
        text: &str,
        span: Range<usize>,
        take: &mut dyn FnMut(Step<'_>) -> std::io::Result<()>,
    ) -> Result<()> {
        let wrong = |error| self.wrong(text, &span, error);
        let mut statement = self
            .connection
            .prepare(&text[span.clone()])
            .map_err(wrong)?;
        if !statement.readonly() || statement.parameter_count() > 0 {
            return Err(refusal(text, &span, &statement));
        }
        let columns: Vec<String> = statement.column_names().map(str::to_owned).collect();
        take(Step::Columns(&columns))?;
        let mut rows = statement.raw_query();
        while let Some(row) = rows.next().map_err(wrong)? {
            let cells = (0..columns.len()).map(|i| row.get_ref(i));
            let cells = cells.collect::<Result<Vec<_>, _>>().map_err(wrong)?;
            take(Step::Row(&cells))?;
        }
        take(Step::End)?;
        Ok(())
    }

    /// What is wrong with the statement at `span` of `text`.
    fn wrong(&self, text: &str, span: &Range<usize>, error: rusqlite::Error) -> Error {
        if error.sqlite_error_code() == Some(ErrorCode::AuthorizationForStatementDenied) {
            return Error::NotAQuery { span: span.clone() };
        }
        let (message, offset) = match &error {
            rusqlite::Error::SqlInputError { msg, offset, .. } => {
                (msg.clone(), usize::try_from(*offset).ok())
            }
            rusqlite::Error::SqliteFailure(_, Some(message)) => (message.clone(), None),
            other => (other.to_string(), None),
        };
        let nearest = self.nearest(&message, &text[span.clone()]);
        let unknown = unknown_name(&message).map(|(_, name)| name);
        let at = offset.map(|at| span.start + at).or_else(|| {
            let name = unknown?;
            Some(span.start + text[span.clone()].find(name)?)
        });
        let at = at.filter(|&at| text.is_char_boundary(at));
        let place = at.map_or(span.start..span.start, |at| word_at(text, at, span.end));
        Error::Statement {
            message,
            span: place,
            nearest,
        }
    }

    /// The name that may have been meant.
    fn nearest(&self, message: &str, statement: &str) -> Option<String> {
        let (what, name) = unknown_name(message)?;
        // `table.column`: only the last part is the column's.
        let name = name.rsplit('.').next().unwrap_or(name);
        let found = match what {
            "table" => nearest(name, self.names.iter().map(|(table, _)| table.as_str())),
            _ => {
                let is_named = |(table, _): &&(String, Vec<String>)| {
                    words(statement).any(|word| word.eq_ignore_ascii_case(table))
                };
                let tables = self.names.iter().filter(is_named);
                let columns = tables.flat_map(|(_, columns)| columns);
                nearest(name, columns.map(String::as_str))
            }
        };
        found.map(str::to_owned)
    }
}

/// Why a statement that SQLite would run is refused.
fn refusal(text: &str, span: &Range<usize>, statement: &rusqlite::Statement<'_>) -> Error {
    if !statement.readonly() {
        return Error::NotAQuery { span: span.clone() };
    }
    let marks = ['?', ':', '@', '$'];
    let at = text[span.clone()].find(marks).unwrap_or(0) + span.start;
    Error::Statement {
        message: "a parameter has no value here; write the value itself".into(),
        span: word_at(text, at, span.end),
        nearest: None,
    }
}

/// Lets queries pass, and nothing else: no file is opened, nothing is changed.
fn authorize(context: AuthContext<'_>) -> Authorization {
    match context.action {
        AuthAction::Select | AuthAction::Read { .. } | AuthAction::Recursive => {
            Authorization::Allow
        }
        AuthAction::Function { function_name }
            if !function_name.eq_ignore_ascii_case("load_extension") =>
        {
            Authorization::Allow
        }
        _ => Authorization::Deny,
    }
}

/// `no such table: name`: what is unknown, and its name.
fn unknown_name(message: &str) -> Option<(&'static str, &str)> {
    ["table", "column"].into_iter().find_map(|what| {
        let name = message.strip_prefix("no such ")?.strip_prefix(what)?;
        Some((what, name.strip_prefix(": ")?))
    })
}

/// The word that begins at `at`, or the one character there.
fn word_at(text: &str, at: usize, end: usize) -> Range<usize> {
    let is_word = |c: char| c.is_alphanumeric() || matches!(c, '_' | '.');
    let rest = text.get(at..end).unwrap_or_default();
    let len = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
    let least = rest.chars().next().map_or(0, char::len_utf8);
    at..at + len.max(least)
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    text.split(move |c| !is_word(c))
}

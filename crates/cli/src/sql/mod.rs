//! `outlive sql`: SQL over regions.

mod print;

use std::io::{BufRead, IsTerminal, Write};
use std::path::Path;

use anyhow::{Context, Result, bail};
use outlive_sql::{Database, Error, Source};
use outlive_trace::cmdline::Diagnostic;

use self::print::{Format, Printer};
use crate::args::{Args, SqlArgs};
use crate::export::say_doubtful;
use crate::filter::Mistake;
use crate::target::Target;
use crate::{Usage, exit};

/// What the user is told that a mistake is in.
const ORIGIN: &str = "statement";
const PROMPT: &str = "sql> ";
const PROMPT_MORE: &str = "...> ";

/// Does what the command's arguments say.
pub(crate) fn run(args: &Args, sql: &SqlArgs) -> Result<u8> {
    let (statement, names) = split(&sql.statement_and_names);
    if names.is_empty() {
        bail!(Usage(
            "which region is to be asked? name an instance, a generation or a file behind the statement"
                .into()
        ));
    }
    let database = Database::open(sources(args, names, sql.formats.as_deref())?)?;
    let format = match (sql.json, sql.csv) {
        (true, _) => Format::JsonLines,
        (_, true) => Format::Csv,
        _ => Format::Table,
    };
    let stdout = std::io::stdout();
    let is_terminal = stdout.is_terminal();
    let mut printer = Printer::new(stdout.lock(), format, is_terminal);
    match statement {
        Some(statement) => ask(&database, statement, &mut printer)?,
        None if std::io::stdin().is_terminal() => converse(&database, &mut printer)?,
        None => {
            let statements = std::io::read_to_string(std::io::stdin())
                .context("cannot read statements from standard input")?;
            ask(&database, &statements, &mut printer)?;
        }
    }
    Ok(exit::DONE)
}

/// The statement and the names. The first argument is a statement if it has white space or a
/// semicolon in it, and no file is called so.
fn split(arguments: &[String]) -> (Option<&str>, &[String]) {
    let is_statement = |text: &str| {
        text.contains(|c: char| c.is_whitespace() || c == ';') && !Path::new(text).exists()
    };
    match arguments {
        [first, names @ ..] if is_statement(first) => (Some(first), names),
        names => (None, names),
    }
}

fn sources(args: &Args, names: &[String], formats: Option<&Path>) -> Result<Vec<Source>> {
    let source = |name: &String| {
        let target = Target::find(args, name)?;
        let view = target.open(formats)?;
        say_doubtful(name, &view);
        Ok(Source {
            name: name.clone(),
            verdict: target.verdict(&view),
            view,
        })
    };
    Target::matching(args, names)?.iter().map(source).collect()
}

/// Runs statements and prints what they give.
fn ask(database: &Database, statements: &str, printer: &mut Printer<impl Write>) -> Result<()> {
    let answered = database.run(statements, &mut |step| printer.take(step));
    answered.map_err(|error| explain(error, statements))
}

/// An error with its place in the statement.
fn explain(error: Error, statements: &str) -> anyhow::Error {
    let diagnostic = match &error {
        Error::Statement {
            message,
            span,
            nearest,
        } => Diagnostic::error(span.clone(), message).nearest(nearest.as_deref()),
        Error::NotAQuery { span } => Diagnostic::error(
            span.clone(),
            "nothing can be changed, and no file opened, from here",
        )
        .expected("expected SELECT, WITH, VALUES or EXPLAIN"),
        _ => return error.into(),
    };
    Mistake::shown(ORIGIN, statements, &[diagnostic]).into()
}

/// Asks a person for statements, and goes on when one is wrong.
fn converse(database: &Database, printer: &mut Printer<impl Write>) -> Result<()> {
    eprintln!("A statement ends with ;. SELECT * FROM tables; lists what there is. Ctrl-D ends.");
    let mut statements = String::new();
    loop {
        let prompt = if statements.is_empty() {
            PROMPT
        } else {
            PROMPT_MORE
        };
        eprint!("{prompt}");
        let read = std::io::stdin().lock().read_line(&mut statements);
        if read.context("cannot read standard input")? == 0 {
            eprintln!();
            return Ok(());
        }
        if outlive_sql::is_complete(&statements) {
            match ask(database, &statements, printer) {
                Err(error) if error.is::<Mistake>() => eprintln!("{error}"),
                answered => answered?,
            }
            statements.clear();
        } else if statements.trim().is_empty() {
            statements.clear();
        }
    }
}

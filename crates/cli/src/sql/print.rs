//! The answers of statements as a table, JSON lines or CSV.
//!
//! A table's columns are as wide as the first rows need; a longer cell further down moves what is
//! right of it. So an answer of any length takes no memory.

use std::io::{Result, Write};

use outlive_sql::{Cell, Step};
use serde_json::{Value, json};

use crate::diagnostic::visible;

/// Rows that a table's columns are measured by.
const MEASURED: usize = 1000;
/// Columns of a text are never made wider than this.
const WIDEST: usize = 60;

/// How answers look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    Table,
    JsonLines,
    Csv,
}

/// Prints answers.
pub(crate) struct Printer<W: Write> {
    out: W,
    format: Format,
    /// Whether control characters would be obeyed.
    is_terminal: bool,
    columns: Vec<String>,
    /// Rows of a table that are not printed yet, because the widths are not known.
    measured: Vec<Vec<Shown>>,
    /// Widths of a table's columns, once they are known.
    widths: Option<Vec<usize>>,
}

/// A cell of a table.
struct Shown {
    text: String,
    is_number: bool,
}

impl<W: Write> Printer<W> {
    pub(crate) fn new(out: W, format: Format, is_terminal: bool) -> Self {
        Self {
            out,
            format,
            is_terminal,
            columns: Vec::new(),
            measured: Vec::new(),
            widths: None,
        }
    }

    /// Prints what a statement gives next.
    pub(crate) fn take(&mut self, step: Step<'_>) -> Result<()> {
        match step {
            Step::Columns(columns) => self.begin(columns),
            Step::Row(cells) => self.row(cells),
            Step::End => self.end(),
        }
    }

    fn begin(&mut self, columns: &[String]) -> Result<()> {
        self.columns = columns.to_vec();
        self.widths = None;
        // Of a statement that failed in its midst.
        self.measured.clear();
        match self.format {
            Format::Csv => {
                let names = columns.iter().map(|name| Cell::Text(name.as_bytes()));
                self.csv(names)
            }
            _ => Ok(()),
        }
    }

    fn row(&mut self, cells: &[Cell<'_>]) -> Result<()> {
        match self.format {
            Format::Csv => self.csv(cells.iter().copied()),
            Format::JsonLines => self.json(cells),
            Format::Table => {
                let row: Vec<Shown> = cells.iter().map(shown).collect();
                if let Some(widths) = &self.widths {
                    return table_row(&mut self.out, &row, widths);
                }
                self.measured.push(row);
                match self.measured.len() {
                    MEASURED => self.print_measured(),
                    _ => Ok(()),
                }
            }
        }
    }

    fn end(&mut self) -> Result<()> {
        if self.format == Format::Table && self.widths.is_none() {
            self.print_measured()?;
        }
        self.out.flush()
    }

    /// Prints the names and the first rows of a table.
    fn print_measured(&mut self) -> Result<()> {
        let names = self.columns.iter();
        let mut widths: Vec<usize> = names.map(|name| width(&visible(name))).collect();
        for row in &self.measured {
            for (column, cell) in widths.iter_mut().zip(row) {
                *column = (*column).max(width(&cell.text).min(WIDEST));
            }
        }
        let is_number = |i: usize| {
            let mut rows = self.measured.iter();
            !self.measured.is_empty() && rows.all(|row| row[i].is_number || row[i].text.is_empty())
        };
        let header: Vec<Shown> = (0..widths.len())
            .map(|i| Shown {
                text: visible(&self.columns[i]),
                is_number: is_number(i),
            })
            .collect();
        table_row(&mut self.out, &header, &widths)?;
        let rules: Vec<String> = widths.iter().map(|width| "-".repeat(*width)).collect();
        writeln!(self.out, "{}", rules.join("  "))?;
        for row in std::mem::take(&mut self.measured) {
            table_row(&mut self.out, &row, &widths)?;
        }
        self.widths = Some(widths);
        Ok(())
    }

    /// An object with the columns in their order.
    fn json(&mut self, cells: &[Cell<'_>]) -> Result<()> {
        let pairs = self.columns.iter().zip(cells);
        let pair = |(name, cell): (&String, &Cell<'_>)| {
            format!("{}:{}", Value::from(name.as_str()), to_json(cell))
        };
        let pairs: Vec<String> = pairs.map(pair).collect();
        let mut line = String::from("{");
        for c in pairs.join(",").chars() {
            match c {
                // What JSON lets through and a terminal would obey.
                '\u{7f}'..='\u{9f}' => line += &format!("\\u{:04x}", u32::from(c)),
                c => line.push(c),
            }
        }
        writeln!(self.out, "{line}}}")
    }

    /// A line of RFC 4180, but for its end, which is that of the system.
    fn csv<'c>(&mut self, cells: impl Iterator<Item = Cell<'c>>) -> Result<()> {
        for (i, cell) in cells.enumerate() {
            if i > 0 {
                write!(self.out, ",")?;
            }
            let text = match self.is_terminal {
                true => visible(&text(&cell)),
                false => text(&cell),
            };
            match text.contains([',', '"', '\n', '\r']) {
                true => write!(self.out, "\"{}\"", text.replace('"', "\"\""))?,
                false => write!(self.out, "{text}")?,
            }
        }
        writeln!(self.out)
    }
}

fn table_row(out: &mut impl Write, row: &[Shown], widths: &[usize]) -> Result<()> {
    let mut line = String::new();
    for (Shown { text, is_number }, &column) in row.iter().zip(widths) {
        let fill = " ".repeat(column.saturating_sub(width(text)));
        match is_number {
            true => line.extend([&fill, text.as_str()]),
            false => line.extend([text.as_str(), &fill]),
        }
        line.push_str("  ");
    }
    writeln!(out, "{}", line.trim_end())
}

fn shown(cell: &Cell<'_>) -> Shown {
    Shown {
        text: visible(&text(cell)),
        is_number: matches!(cell, Cell::Integer(_) | Cell::Real(_)),
    }
}

/// A cell in words: NULL is empty, a blob is in hex.
fn text(cell: &Cell<'_>) -> String {
    match cell {
        Cell::Null => String::new(),
        Cell::Integer(value) => value.to_string(),
        Cell::Real(value) => value.to_string(),
        Cell::Text(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        Cell::Blob(bytes) => bytes.iter().map(|byte| format!("{byte:02x}")).collect(),
    }
}

fn to_json(cell: &Cell<'_>) -> Value {
    match cell {
        Cell::Null => Value::Null,
        Cell::Integer(value) => json!(value),
        Cell::Real(value) => json!(value),
        Cell::Text(bytes) => String::from_utf8_lossy(bytes).into(),
        Cell::Blob(bytes) => json!(bytes),
    }
}

fn width(text: &str) -> usize {
    text.chars().count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn printed(format: Format, is_terminal: bool, rows: &[&[Cell<'_>]]) -> String {
        let mut out = Vec::new();
        let mut printer = Printer::new(&mut out, format, is_terminal);
        let columns = ["name".to_owned(), "n".to_owned()];
        printer.take(Step::Columns(&columns)).unwrap();
        for row in rows {
            printer.take(Step::Row(row)).unwrap();
        }
        printer.take(Step::End).unwrap();
        drop(printer);
        String::from_utf8(out).unwrap()
    }

    const ROWS: [&[Cell<'_>]; 2] = [
        &[Cell::Text(b"a,\"b\""), Cell::Integer(5)],
        &[Cell::Text(b"\x1b[31m\xc2\x9b"), Cell::Null],
    ];

    #[test]
    fn control_characters_never_reach_a_terminal() {
        for format in [Format::Table, Format::JsonLines, Format::Csv] {
            let text = printed(format, true, &ROWS);
            let is_obeyed = |c: char| c.is_control() && c != '\n';
            assert!(!text.contains(is_obeyed), "{text:?}");
        }
    }

    #[test]
    fn answers_look_as_their_format_has_them() {
        let table = "name               n\n---------------  ---\n";
        let text = printed(
            Format::Table,
            false,
            &[&[Cell::Text(b"fifteen letters"), Cell::Integer(500)]],
        );
        assert_eq!(text, format!("{table}fifteen letters  500\n"));
        assert_eq!(
            printed(Format::Csv, false, &ROWS[..1]),
            "name,n\n\"a,\"\"b\"\"\",5\n"
        );
        let text = printed(Format::JsonLines, false, &ROWS);
        let row: Value = serde_json::from_str(text.lines().nth(1).unwrap()).unwrap();
        assert_eq!(row, json!({"name": "\u{1b}[31m\u{9b}", "n": null}));
    }
}

//! The rows of the tables, one after the other.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::Arc;

use outlive_event::{Catalog, Formatter, TextOptions, event_id, pid};
use outlive_ring::Missed;
use outlive_trace::intervals::{Interval, Intervals};
use outlive_trace::view::ViewEvent;

use crate::bounds::Bounds;
use crate::cells::{self, Datum, Owned, optional, unsigned};
use crate::scan::{Scan, Wanted};
use crate::schema::{Column, Format, Kind, Role, Table};
use crate::source::Source;

/// The bound of `gaps` if none is given, in the unit of the trace clock: 1 ms.
const GAP: u64 = 1_000_000;

/// The rows of a table that a statement asks for. It stands before the first of them.
pub(crate) trait Rows: fmt::Debug {
    /// Goes to the next row; false if there is none.
    fn advance(&mut self) -> bool;
    /// A cell of the current row.
    fn cell(&self, column: usize) -> Datum<'_>;
}

/// The rows of a table within bounds.
pub(crate) fn rows(table: &Arc<Table>, bounds: Bounds) -> Box<dyn Rows> {
    let table = table.clone();
    let sources = &table.sources;
    let all = || vec![Wanted::All; sources.len()];
    match &table.kind {
        Kind::Event(formats) => {
            let ids = |formats: &Vec<Format>| Wanted::ids(formats.iter().map(|f| f.id));
            let wanted = formats.iter().map(ids).collect();
            let scan = Scan::new(sources.clone(), wanted, bounds);
            Box::new(EventRows { table, scan })
        }
        Kind::Events => {
            let wanted = sources.iter().map(|s| named(s, &bounds)).collect();
            let scan = Scan::new(sources.clone(), wanted, bounds);
            Box::new(EventRows { table, scan })
        }
        Kind::Intervals => {
            // An interval's ends may both lie outside of the bounds.
            let bounds = Bounds {
                source: bounds.source,
                ..Bounds::default()
            };
            let scan = Scan::new(sources.clone(), all(), bounds);
            Box::new(IntervalRows::new(table, scan))
        }
        Kind::Gaps => {
            let bound = bounds.bound.unwrap_or(GAP);
            // A gap that begins within the bounds may end behind them.
            let bounds = Bounds {
                end: None,
                ..bounds
            };
            let scan = Scan::new(sources.clone(), all(), bounds);
            Box::new(GapRows {
                table,
                scan,
                bound,
                last: HashMap::new(),
                gap: Gap::default(),
            })
        }
        Kind::Plain(_) => Box::new(PlainRows { table, next: 0 }),
    }
}

/// The events that a statement names.
fn named(source: &Source, bounds: &Bounds) -> Wanted {
    if bounds.system.is_none() && bounds.event.is_none() {
        return Wanted::All;
    }
    let is = |asked: &Option<String>, name: &str| asked.as_ref().is_none_or(|a| a == name);
    let events = source.view.catalog.events();
    let named = events.filter(|e| is(&bounds.system, &e.system) && is(&bounds.event, &e.name));
    Wanted::ids(named.map(|e| e.id))
}

/// The name of a task; that of the idle tasks is no record's.
fn task(catalog: &Catalog, pid: i32) -> Datum<'_> {
    match (pid, catalog.tasks().comm(pid)) {
        (0, _) => cells::text(b"<idle>"),
        (_, Some(comm)) => cells::text(comm),
        (_, None) => Owned::Null.into(),
    }
}

fn source_name(source: &Source) -> Datum<'_> {
    cells::text(source.name.as_bytes())
}

/// The number of lost events: NULL if none were, -1 if it is not known.
fn lost(missed: Option<Missed>) -> Owned {
    match missed {
        None => Owned::Null,
        Some(Missed::Events(events)) => unsigned(events),
        Some(Missed::Unknown) => Owned::Integer(-1),
    }
}

/// The records of one event, or of all.
#[derive(Debug)]
struct EventRows {
    table: Arc<Table>,
    scan: Scan,
}

impl EventRows {
    fn field(&self, event: &ViewEvent<'_>, field: usize) -> Option<Datum<'_>> {
        let Kind::Event(formats) = &self.table.kind else {
            return None;
        };
        let id = event_id(event.payload)?;
        let formats = &formats[self.scan.source()];
        let format = formats.iter().find(|format| format.id == id)?;
        let field = format.fields.get(field)?.as_ref()?;
        Some(cells::field(field.value(self.scan.event().payload)))
    }

    fn text(&self, source: &Source, payload: &[u8]) -> Owned {
        let options = TextOptions::for_clock(source.view.clock());
        let mut text = Vec::new();
        Formatter::new(&source.view.catalog, options).text(&mut text, payload);
        if text.last() == Some(&b'\n') {
            text.pop();
        }
        String::from_utf8_lossy(&text).into_owned().into()
    }
}

impl Rows for EventRows {
    fn advance(&mut self) -> bool {
        self.scan.advance()
    }

    fn cell(&self, column: usize) -> Datum<'_> {
        let event = self.scan.event();
        let source = &self.table.sources[self.scan.source()];
        let catalog = &source.view.catalog;
        let format = || event_id(event.payload).and_then(|id| catalog.event(id));
        let null = || Owned::Null.into();
        match self.table.columns[column].role {
            Role::Source => source_name(source),
            Role::Ts => unsigned(event.time_stamp).into(),
            Role::Wall => optional(source.view.realtime_ns(event.time_stamp)).into(),
            Role::Cpu => Owned::Integer(event.cpu.into()).into(),
            Role::Pid => Owned::Integer(pid(event.payload).unwrap_or(0).into()).into(),
            Role::Task => task(catalog, pid(event.payload).unwrap_or(0)),
            Role::System => format().map_or_else(null, |f| cells::text(f.system.as_bytes())),
            Role::Event => format().map_or_else(null, |f| cells::text(f.name.as_bytes())),
            Role::Text => self.text(source, event.payload).into(),
            Role::Lost => lost(event.missed).into(),
            Role::Field(field) => self.field(&event, field).unwrap_or_else(null),
            _ => null(),
        }
    }
}

/// What goes on for a while.
#[derive(Debug)]
struct IntervalRows {
    table: Arc<Table>,
    scan: Scan,
    /// Of the source that is being read.
    intervals: Option<(usize, Intervals)>,
    /// Those that ended, the current one first, with their source.
    ended: VecDeque<(usize, Interval)>,
    is_at_end: bool,
}

impl IntervalRows {
    fn new(table: Arc<Table>, scan: Scan) -> Self {
        Self {
            table,
            scan,
            intervals: None,
            ended: VecDeque::new(),
            is_at_end: false,
        }
    }

    /// Reads an event, and before the first one of a source ends what is open in the one before.
    fn step(&mut self) {
        self.is_at_end = !self.scan.advance();
        let source = self.scan.source();
        if let Some((of, mut intervals)) = self
            .intervals
            .take_if(|(of, _)| self.is_at_end || *of != source)
        {
            intervals.finish(&mut |interval| self.ended.push_back((of, interval)));
        }
        if self.is_at_end {
            return;
        }
        let catalog = &self.table.sources[source].view.catalog;
        let (_, intervals) = self
            .intervals
            .get_or_insert_with(|| (source, Intervals::new(catalog)));
        intervals.push(&self.scan.event(), &mut |interval| {
            self.ended.push_back((source, interval));
        });
    }
}

impl Rows for IntervalRows {
    fn advance(&mut self) -> bool {
        self.ended.pop_front();
        while self.ended.is_empty() && !self.is_at_end {
            self.step();
        }
        !self.ended.is_empty()
    }

    fn cell(&self, column: usize) -> Datum<'_> {
        let null = Owned::Null.into();
        let Some((source, interval)) = self.ended.front() else {
            return null;
        };
        let source = &self.table.sources[*source];
        match self.table.columns[column].role {
            Role::Source => source_name(source),
            Role::Kind => cells::text(interval.kind.word().as_bytes()),
            Role::Name => cells::text(interval.name.as_bytes()),
            Role::Ts => unsigned(interval.start).into(),
            Role::EndTs => optional(interval.end).into(),
            Role::Dur => optional(interval.duration()).into(),
            Role::Cpu => optional(interval.cpu.map(u64::from)).into(),
            Role::Pid => Owned::Integer(interval.pid.into()).into(),
            Role::Task => task(&source.view.catalog, interval.pid),
            _ => null,
        }
    }
}

/// A time without an event.
#[derive(Debug, Clone, Copy, Default)]
struct Gap {
    cpu: u32,
    start: u64,
    end: u64,
    missed: Option<Missed>,
}

/// Times without an event on a CPU.
#[derive(Debug)]
struct GapRows {
    table: Arc<Table>,
    scan: Scan,
    bound: u64,
    /// Time of the last event by source and CPU.
    last: HashMap<(usize, u32), u64>,
    gap: Gap,
}

impl Rows for GapRows {
    fn advance(&mut self) -> bool {
        while self.scan.advance() {
            let event = self.scan.event();
            let end = event.time_stamp;
            let (cpu, missed) = (event.cpu, event.missed);
            let before = self.last.insert((self.scan.source(), cpu), end);
            if let Some(start) = before
                && end.saturating_sub(start) >= self.bound
            {
                self.gap = Gap {
                    cpu,
                    start,
                    end,
                    missed,
                };
                return true;
            }
        }
        false
    }

    fn cell(&self, column: usize) -> Datum<'_> {
        let Gap {
            cpu,
            start,
            end,
            missed,
        } = self.gap;
        match self.table.columns[column].role {
            Role::Source => source_name(&self.table.sources[self.scan.source()]),
            Role::Cpu => Owned::Integer(cpu.into()).into(),
            Role::Ts => unsigned(start).into(),
            Role::EndTs => unsigned(end).into(),
            Role::Dur => unsigned(end.saturating_sub(start)).into(),
            Role::Lost => lost(missed).into(),
            Role::Bound => unsigned(self.bound).into(),
            _ => Owned::Null.into(),
        }
    }
}

/// Rows that are there already.
#[derive(Debug)]
struct PlainRows {
    table: Arc<Table>,
    /// Number of the row behind the current one.
    next: usize,
}

impl Rows for PlainRows {
    fn advance(&mut self) -> bool {
        self.next += 1;
        matches!(&self.table.kind, Kind::Plain(rows) if self.next <= rows.len())
    }

    fn cell(&self, column: usize) -> Datum<'_> {
        let Kind::Plain(rows) = &self.table.kind else {
            return Owned::Null.into();
        };
        let row = self.next.checked_sub(1).and_then(|row| rows.get(row));
        row.and_then(|row| row.get(column))
            .map_or(Owned::Null.into(), |cell| Datum::Borrowed(cell.into()))
    }
}

/// The statement that declares a table to SQLite.
pub(crate) fn declaration(columns: &[Column]) -> String {
    let column = |column: &Column| {
        let hidden = if column.is_hidden { " HIDDEN" } else { "" };
        format!("{}{hidden}", quoted(&column.name))
    };
    let columns: Vec<String> = columns.iter().map(column).collect();
    format!("CREATE TABLE x({})", columns.join(", "))
}

/// A name as a statement has it.
fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\"").replace('\0', ""))
}

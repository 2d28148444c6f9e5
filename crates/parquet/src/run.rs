//! A run's part of all tables.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};

use outlive_event::{
    ColumnNames, EventFormat, Formatter, TextOptions, Unevaluated, Value, event_id,
};
use outlive_export::Error;
use outlive_ring::Hole;
use outlive_trace::view::{Source, ViewEvent};

use crate::column::{Column, Kind, Pattern};
use crate::place::{PARTITIONS, encoded, unique};
use crate::rows::{
    COMMON, Common, EventRows, OF_EVENTS, OF_UNKNOWN, PlainRows, Role, known, number, optional,
};
use crate::table::{Rows, Table};

type EventTable<'v> = Table<EventRows<'v>>;

/// A run whose events are being written.
#[derive(Debug)]
pub(crate) struct Run<'v> {
    source: &'v Source<'v>,
    formatter: Formatter<'v>,
    out: PathBuf,
    /// Its folders below that of a table.
    place: PathBuf,
    events: EventTable<'v>,
    /// The table of each event that occurs, by its id; that of the ids without a format.
    by_id: BTreeMap<Option<u16>, EventTable<'v>>,
    /// Names of the tables that there are.
    names: HashSet<PathBuf>,
    /// Number of the next event.
    seq: u64,
    text: Vec<u8>,
    /// Events whose `text` is their fields.
    unevaluated: Unevaluated,
}

impl<'v> Run<'v> {
    /// A run whose files are to be in `place`, below the folder of each table in `out`.
    pub(crate) fn new(source: &'v Source<'v>, out: &Path, place: PathBuf) -> Result<Self, Error> {
        let view = source.view;
        let (columns, roles) = known(&[&COMMON, &OF_EVENTS]);
        let rows = EventRows::new(view, roles);
        Ok(Self {
            formatter: Formatter::new(&view.catalog, TextOptions::for_clock(view.clock())),
            source,
            events: Table::new(out.join("events").join(&place), columns, rows)?,
            out: out.to_owned(),
            place,
            by_id: BTreeMap::new(),
            names: HashSet::new(),
            seq: 0,
            text: Vec::new(),
            unevaluated: Unevaluated::default(),
        })
    }

    /// Writes an event. Returns the bytes by which what is in memory has grown.
    pub(crate) fn write(&mut self, event: &ViewEvent<'_>) -> Result<isize, Error> {
        let view = self.source.view;
        let id = event_id(event.payload);
        let format = id.and_then(|id| view.catalog.event(id));
        let common = Common {
            seq: self.seq,
            ts: event.time_stamp,
            cpu: event.cpu,
            format,
            missed: event.missed,
            head: head(event.payload),
        };
        self.seq += 1;
        self.text.clear();
        let unevaluated = self.formatter.text(&mut self.text, event.payload);
        self.unevaluated.count(unevaluated);
        let text = self.text.strip_suffix(b"\n").unwrap_or(&self.text);
        let in_events = push(&mut self.events, common, text)?;
        let of_event = push(self.table_of(format)?, common, event.payload)?;
        Ok(in_events + of_event)
    }

    /// The table of an event, made when it occurs first.
    fn table_of(&mut self, format: Option<&'v EventFormat>) -> Result<&mut EventTable<'v>, Error> {
        let id = format.map(|format| format.id);
        if !self.by_id.contains_key(&id) {
            let made = self.new_table(format)?;
            self.by_id.insert(id, made);
        }
        match self.by_id.get_mut(&id) {
            Some(table) => Ok(table),
            None => unreachable!("it was just made"),
        }
    }

    fn new_table(&mut self, format: Option<&'v EventFormat>) -> Result<EventTable<'v>, Error> {
        let name = match format {
            Some(format) => encoded(&format!("{}.{}", format.system, format.name)),
            None => "unknown".to_owned(),
        };
        let name = unique(&mut self.names, Path::new(&name));
        let (columns, roles) = match format {
            Some(format) => columns_of(format),
            None => known(&[&COMMON, &OF_UNKNOWN]),
        };
        let rows = EventRows::new(self.source.view, roles);
        Table::new(self.out.join(name).join(&self.place), columns, rows)
    }

    fn tables(&mut self) -> impl Iterator<Item = &mut EventTable<'v>> {
        std::iter::once(&mut self.events).chain(self.by_id.values_mut())
    }

    /// The table that has most in memory.
    pub(crate) fn largest(&mut self) -> Option<&mut EventTable<'v>> {
        self.tables().max_by_key(|table| table.rows.bytes())
    }

    /// Writes what is left, and what there is to say of the run itself.
    pub(crate) fn finish(mut self) -> Result<(), Error> {
        self.tables().try_for_each(Table::finish)?;
        self.write_holes()?;
        self.write_run()
    }

    fn write_holes(&self) -> Result<(), Error> {
        let names = ["cpu", "after_ts", "before_ts", "lost"];
        let columns = names.map(|name| Column::new(name, Kind::Int, Pattern::Repeated));
        let cpus = self.source.view.cpus.iter();
        let holes = cpus.flat_map(|cpu| cpu.holes.iter().map(move |hole| (cpu.cpu, hole)));
        let row = |(cpu, hole): (u32, &Hole)| {
            vec![
                Value::Unsigned(cpu.into()),
                optional(hole.after),
                optional(hole.before),
                optional(hole.missed.count()),
            ]
        };
        self.write_plain("holes", columns.to_vec(), holes.map(row).collect())
    }

    fn write_run(&self) -> Result<(), Error> {
        let mut cells = run_cells(self.source, self.seq);
        let unevaluated = number(self.unevaluated.total());
        cells.push(("unevaluated", Kind::Int, unevaluated));
        let column = |&(name, kind, _): &_| Column::new(name, kind, Pattern::Repeated);
        let columns = cells.iter().map(column).collect();
        let row = cells.into_iter().map(|(_, _, value)| value).collect();
        self.write_plain("runs", columns, vec![row])
    }

    fn write_plain(
        &self,
        name: &str,
        columns: Vec<Column>,
        rows: Vec<Vec<Value<'_>>>,
    ) -> Result<(), Error> {
        let folder = self.out.join(name).join(&self.place);
        Table::new(folder, columns, PlainRows(rows))?.finish()
    }
}

/// How a record begins; of one that is shorter, zeros behind it.
fn head(record: &[u8]) -> [u8; 8] {
    let mut head = [0; 8];
    let len = record.len().min(head.len());
    head[..len].copy_from_slice(&record[..len]);
    head
}

/// Appends a row, and writes the row group if that made it full. Returns the bytes by which what is
/// in memory has grown.
fn push<'v>(table: &mut EventTable<'v>, common: Common<'v>, bytes: &[u8]) -> Result<isize, Error> {
    let pushed = table.rows.push(common, bytes).cast_signed();
    match table.is_full() {
        true => Ok(pushed - table.flush()?.cast_signed()),
        false => Ok(pushed),
    }
}

/// The columns of an event's table.
fn columns_of(format: &EventFormat) -> (Vec<Column>, Vec<Role>) {
    let fields = format.fields.iter().map(|field| field.name.as_str());
    let names = ColumnNames::new(&COMMON.map(|(name, ..)| name), fields, &PARTITIONS);
    let common = names.common.iter().zip(COMMON);
    let common =
        common.map(|(name, (_, kind, pattern, role))| (Column::new(name, kind, pattern), role));
    let fields = names.fields.iter().zip(&format.fields).zip(0..);
    let fields = fields.map(|((name, field), place)| {
        let column = Column::new(name, Kind::of(field), Pattern::Repeated);
        (column, Role::Field(place))
    });
    common.chain(fields).unzip()
}

type Cell<'v> = (&'static str, Kind, Value<'v>);

/// The row of `runs`.
fn run_cells<'v>(source: &'v Source<'v>, written: u64) -> Vec<Cell<'v>> {
    let view = source.view;
    let run = view.run.as_ref();
    let text = |text: Option<&'v str>| {
        let text = text.filter(|text| !text.is_empty());
        text.map_or(Value::Missing, |text| Value::Text(text.as_bytes()))
    };
    let time = |ns: Option<u64>| optional(ns.filter(|&ns| ns > 0).map(|ns| ns / 1000));
    let pid = run.map_or(Value::Missing, |run| Value::Signed(run.pid.into()));
    let span = view.span();
    let lost = view.cpus.iter().map(|cpu| cpu.counters.lost).sum();
    vec![
        ("source", Kind::Text, text(Some(&source.name))),
        (
            "instance",
            Kind::Text,
            text(run.map(|run| run.instance.as_str())),
        ),
        (
            "program",
            Kind::Text,
            text(run.map(|run| run.program.as_str())),
        ),
        (
            "version",
            Kind::Text,
            text(run.map(|run| run.version.as_str())),
        ),
        (
            "kernel",
            Kind::Text,
            text(run.map(|run| run.kernel.as_str())),
        ),
        (
            "cmdline",
            Kind::Text,
            text(run.map(|run| run.cmdline.as_str())),
        ),
        (
            "run_sequence",
            Kind::Int,
            optional(run.map(|run| run.run_sequence)),
        ),
        ("pid", Kind::Int, pid),
        ("clock", Kind::Text, text(Some(view.clock()))),
        (
            "started",
            Kind::Time,
            time(run.map(|run| run.started_realtime_ns)),
        ),
        (
            "closed",
            Kind::Time,
            time(run.map(|run| run.closed_realtime_ns)),
        ),
        (
            "first_ts",
            Kind::Int,
            optional(span.map(|(first, _)| first)),
        ),
        ("last_ts", Kind::Int, optional(span.map(|(_, last)| last))),
        ("events", Kind::Int, number(view.entries())),
        ("written", Kind::Int, number(written)),
        ("lost", Kind::Int, number(lost)),
        ("overrun", Kind::Int, number(view.overrun())),
        ("is_whole", Kind::Bool, Value::Bool(view.is_whole())),
    ]
}

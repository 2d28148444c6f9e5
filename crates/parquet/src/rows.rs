//! The rows of the tables, from which each column's values are taken when a row group is written.
//!
//! An event's record stays as it is until then: a column at a time is several times as fast as a
//! row at a time.

use outlive_event::{EventFormat, Value, event_id, pid};
use outlive_ring::Missed;
use outlive_trace::view::View;
use parquet::errors::ParquetError;

use crate::column::{Chunk, Column, Kind, Pattern};
use crate::table::Rows;

/// What is kept of an event beside its text or its record.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Common<'v> {
    /// Number of the event in its run.
    pub(crate) seq: u64,
    /// True time, in the unit of the trace clock.
    pub(crate) ts: u64,
    pub(crate) cpu: u32,
    pub(crate) format: Option<&'v EventFormat>,
    pub(crate) missed: Option<Missed>,
    /// The event's id, flags, preempt count and pid: how its record begins.
    pub(crate) head: [u8; 8],
}

/// What a column has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Seq,
    Ts,
    Wall,
    Cpu,
    Pid,
    Task,
    Flags,
    PreemptCount,
    System,
    Event,
    /// What `show` prints.
    Text,
    Lost,
    Id,
    /// All bytes of the record.
    Record,
    /// The field at that place of the format.
    Field(usize),
}

/// A column that does not depend on the event: name, type, pattern, role.
pub(crate) type Known = (&'static str, Kind, Pattern, Role);

/// Those that the table of each event has before its fields.
pub(crate) const COMMON: [Known; 6] = [
    ("seq", Kind::Int, Pattern::Near, Role::Seq),
    ("ts", Kind::Int, Pattern::Near, Role::Ts),
    ("wall", Kind::Time, Pattern::Near, Role::Wall),
    ("cpu", Kind::Int, Pattern::Repeated, Role::Cpu),
    ("pid", Kind::Int, Pattern::Repeated, Role::Pid),
    ("task", Kind::Text, Pattern::Repeated, Role::Task),
];
/// Those that `events` has behind them.
pub(crate) const OF_EVENTS: [Known; 6] = [
    ("flags", Kind::Int, Pattern::Repeated, Role::Flags),
    (
        "preempt_count",
        Kind::Int,
        Pattern::Repeated,
        Role::PreemptCount,
    ),
    ("system", Kind::Text, Pattern::Repeated, Role::System),
    ("event", Kind::Text, Pattern::Repeated, Role::Event),
    ("text", Kind::Text, Pattern::Distinct, Role::Text),
    ("lost_before", Kind::Int, Pattern::Repeated, Role::Lost),
];
/// Those that the table of records without a format has.
pub(crate) const OF_UNKNOWN: [Known; 2] = [
    ("id", Kind::Int, Pattern::Repeated, Role::Id),
    ("record", Kind::Bytes, Pattern::Distinct, Role::Record),
];

/// Events of one run: each with its text in `events`, with its record in the table of its kind.
///
/// What is kept is in a vector of its own for each column, so that to write one does not go through
/// the memory of all.
#[derive(Debug)]
pub(crate) struct EventRows<'v> {
    view: &'v View,
    roles: Vec<Role>,
    seq: Vec<u64>,
    ts: Vec<u64>,
    cpu: Vec<u32>,
    format: Vec<Option<&'v EventFormat>>,
    missed: Vec<Option<Missed>>,
    head: Vec<[u8; 8]>,
    /// Texts or records, one behind the other, and where each ends.
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl<'v> EventRows<'v> {
    /// No rows of a view, and the columns that there will be: a role for each.
    pub(crate) fn new(view: &'v View, roles: Vec<Role>) -> Self {
        Self {
            view,
            roles,
            seq: Vec::new(),
            ts: Vec::new(),
            cpu: Vec::new(),
            format: Vec::new(),
            missed: Vec::new(),
            head: Vec::new(),
            bytes: Vec::new(),
            ends: Vec::new(),
        }
    }

    /// Appends a row. Returns the bytes that it takes.
    pub(crate) fn push(&mut self, common: Common<'v>, bytes: &[u8]) -> usize {
        self.seq.push(common.seq);
        self.ts.push(common.ts);
        self.cpu.push(common.cpu);
        self.format.push(common.format);
        self.missed.push(common.missed);
        self.head.push(common.head);
        self.bytes.extend_from_slice(bytes);
        self.ends.push(self.bytes.len());
        size_of::<Common<'_>>() + size_of::<usize>() + bytes.len()
    }

    /// The texts or records.
    fn own(&self) -> impl ExactSizeIterator<Item = &[u8]> + Clone {
        let start = |row: usize| row.checked_sub(1).map_or(0, |before| self.ends[before]);
        let ends = self.ends.iter().enumerate();
        ends.map(move |(row, &end)| &self.bytes[start(row)..end])
    }

    /// The name of each event, or of its system.
    fn names(
        &self,
        name: fn(&'v EventFormat) -> &'v str,
    ) -> impl ExactSizeIterator<Item = Value<'v>> + Clone {
        let text = move |format| Value::Text(name(format).as_bytes());
        self.format
            .iter()
            .map(move |format| format.map_or(Value::Missing, text))
    }

    /// Flags or preempt counts; where a kernel's records have them, a program's have the CPU.
    fn bytes_at(&self, at: usize) -> impl ExactSizeIterator<Item = Value<'v>> + Clone {
        let heads = self.head.iter().zip(&self.format);
        heads.map(move |(head, format)| match format {
            Some(format) if !format.has_cpu() => Value::Unsigned(head[at].into()),
            _ => Value::Missing,
        })
    }

    fn pids(&self) -> impl ExactSizeIterator<Item = i32> + Clone {
        self.head.iter().map(|head| pid(head).unwrap_or(0))
    }

    /// The name of a task, if it is known.
    fn task(&self, pid: i32) -> Value<'v> {
        let name = match pid {
            0 => Some(&b"<idle>"[..]),
            pid => self.view.catalog.tasks().comm(pid),
        };
        name.map_or(Value::Missing, Value::Text)
    }

    /// The wall clock at a time, in microseconds since 1970.
    fn wall(&self, ts: u64) -> Value<'v> {
        optional(self.view.realtime_ns(ts).map(|ns| ns / 1000))
    }

    fn write_field(&self, place: usize, out: Chunk<'_, '_, '_>) -> Result<(), ParquetError> {
        // All are of one event, or the table had no fields.
        let format = self.format.first().copied().flatten();
        match format.and_then(|format| format.fields.get(place)) {
            Some(field) => out.write(self.own().map(|record| field.value(record))),
            None => out.write(self.own().map(|_| Value::Missing)),
        }
    }
}

impl Rows for EventRows<'_> {
    fn len(&self) -> usize {
        self.ends.len()
    }

    fn bytes(&self) -> usize {
        self.bytes.len() + self.len() * (size_of::<Common<'_>>() + size_of::<usize>())
    }

    fn clear(&mut self) {
        self.seq.clear();
        self.ts.clear();
        self.cpu.clear();
        self.format.clear();
        self.missed.clear();
        self.head.clear();
        self.bytes.clear();
        self.ends.clear();
    }

    fn write(&self, column: usize, out: Chunk<'_, '_, '_>) -> Result<(), ParquetError> {
        match self.roles[column] {
            Role::Seq => out.write(self.seq.iter().map(|&seq| Value::Unsigned(seq))),
            Role::Ts => out.write(self.ts.iter().map(|&ts| number(ts))),
            Role::Wall => out.write(self.ts.iter().map(|&ts| self.wall(ts))),
            Role::Cpu => out.write(self.cpu.iter().map(|&cpu| Value::Unsigned(cpu.into()))),
            Role::Pid => out.write(self.pids().map(|pid| Value::Signed(pid.into()))),
            Role::Task => out.write(self.pids().map(|pid| self.task(pid))),
            Role::Flags => out.write(self.bytes_at(2)),
            Role::PreemptCount => out.write(self.bytes_at(3)),
            Role::System => out.write(self.names(|format| &format.system)),
            Role::Event => out.write(self.names(|format| &format.name)),
            Role::Text => out.write(self.own().map(Value::Text)),
            Role::Lost => out.write(self.missed.iter().map(|&missed| lost(missed))),
            Role::Id => out.write(self.head.iter().map(id)),
            Role::Record => out.write(self.own().map(Value::Opaque)),
            Role::Field(place) => self.write_field(place, out),
        }
    }
}

fn lost(missed: Option<Missed>) -> Value<'static> {
    match missed {
        None => Value::Missing,
        Some(Missed::Events(events)) => number(events),
        Some(Missed::Unknown) => Value::Signed(-1),
    }
}

fn id(head: &[u8; 8]) -> Value<'static> {
    Value::Unsigned(event_id(head).unwrap_or(0).into())
}

/// Rows of which each value is there already.
#[derive(Debug)]
pub(crate) struct PlainRows<'v>(pub(crate) Vec<Vec<Value<'v>>>);

impl Rows for PlainRows<'_> {
    fn len(&self) -> usize {
        self.0.len()
    }

    fn bytes(&self) -> usize {
        self.0.iter().map(|row| size_of_val(row.as_slice())).sum()
    }

    fn clear(&mut self) {
        self.0.clear();
    }

    fn write(&self, column: usize, out: Chunk<'_, '_, '_>) -> Result<(), ParquetError> {
        out.write(self.0.iter().map(|row| row[column]))
    }
}

/// A number for a column of those with a sign: the largest there is at most.
pub(crate) fn number(number: u64) -> Value<'static> {
    Value::Signed(i64::try_from(number).unwrap_or(i64::MAX))
}

/// A number that may not be known.
pub(crate) fn optional(value: Option<u64>) -> Value<'static> {
    value.map_or(Value::Missing, number)
}

/// The columns, and their roles.
pub(crate) fn known(columns: &[&[Known]]) -> (Vec<Column>, Vec<Role>) {
    let columns = columns.iter().copied().flatten();
    columns
        .map(|&(name, kind, pattern, role)| (Column::new(name, kind, pattern), role))
        .unzip()
}

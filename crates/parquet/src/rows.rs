//! The rows of the tables, from which each column's values are taken when a row group is written.
//!
//! An event's record stays as it is until then: a column at a time is several times as fast as a
//! row at a time.

use outlive_event::{EventFormat, Value, event_id};
use outlive_ring::Missed;

use crate::column::{Column, Kind, Pattern};
use crate::table::Rows;

/// What is kept of an event beside its text or its record.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Common<'v> {
    /// Number of the event in its run.
    pub(crate) seq: u64,
    /// True time, in the unit of the trace clock.
    pub(crate) ts: u64,
    /// The wall clock then, in nanoseconds since 1970.
    pub(crate) wall: Option<u64>,
    pub(crate) cpu: u32,
    pub(crate) pid: i32,
    /// Name of the task, if it is known.
    pub(crate) task: Option<&'v [u8]>,
    pub(crate) format: Option<&'v EventFormat>,
    pub(crate) missed: Option<Missed>,
    /// The event's id, flags and preempt count: how its record begins.
    pub(crate) head: [u8; 4],
}

impl<'v> Common<'v> {
    fn name(&self, name: fn(&EventFormat) -> &str) -> Value<'v> {
        self.format.map_or(Value::Missing, |format| {
            Value::Text(name(format).as_bytes())
        })
    }

    /// Flags or preempt count; where a kernel's records have them, a program's have the CPU.
    fn byte(&self, at: usize) -> Value<'v> {
        match self.format {
            Some(format) if !format.has_cpu() => Value::Unsigned(self.head[at].into()),
            _ => Value::Missing,
        }
    }
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
    ("cpu", Kind::Int, Pattern::Near, Role::Cpu),
    ("pid", Kind::Int, Pattern::Repeated, Role::Pid),
    ("task", Kind::Text, Pattern::Repeated, Role::Task),
];
/// Those that `events` has behind them.
pub(crate) const OF_EVENTS: [Known; 6] = [
    ("flags", Kind::Int, Pattern::Near, Role::Flags),
    (
        "preempt_count",
        Kind::Int,
        Pattern::Near,
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
#[derive(Debug)]
pub(crate) struct EventRows<'v> {
    roles: Vec<Role>,
    common: Vec<Common<'v>>,
    /// Texts or records, one behind the other, and where each ends.
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl<'v> EventRows<'v> {
    /// No rows, and the columns that there will be: a role for each.
    pub(crate) fn new(roles: Vec<Role>) -> Self {
        Self {
            roles,
            common: Vec::new(),
            bytes: Vec::new(),
            ends: Vec::new(),
        }
    }

    /// Appends a row. Returns the bytes that it takes.
    pub(crate) fn push(&mut self, common: Common<'v>, bytes: &[u8]) -> usize {
        self.common.push(common);
        self.bytes.extend_from_slice(bytes);
        self.ends.push(self.bytes.len());
        size_of::<Common<'_>>() + size_of::<usize>() + bytes.len()
    }

    fn own_bytes(&self, row: usize) -> &[u8] {
        let start = row.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.bytes[start..self.ends[row]]
    }

    fn value(&self, row: usize, role: Role) -> Value<'_> {
        let common = &self.common[row];
        match role {
            Role::Seq => Value::Unsigned(common.seq),
            Role::Ts => number(common.ts),
            Role::Wall => common.wall.map_or(Value::Missing, |ns| number(ns / 1000)),
            Role::Cpu => Value::Unsigned(common.cpu.into()),
            Role::Pid => Value::Signed(common.pid.into()),
            Role::Task => common.task.map_or(Value::Missing, Value::Text),
            Role::Flags => common.byte(2),
            Role::PreemptCount => common.byte(3),
            Role::System => common.name(|format| &format.system),
            Role::Event => common.name(|format| &format.name),
            Role::Text => Value::Text(self.own_bytes(row)),
            Role::Lost => match common.missed {
                None => Value::Missing,
                Some(Missed::Events(events)) => number(events),
                Some(Missed::Unknown) => Value::Signed(-1),
            },
            Role::Id => Value::Unsigned(event_id(&common.head).unwrap_or(0).into()),
            Role::Record => Value::Opaque(self.own_bytes(row)),
            Role::Field(place) => match common.format.and_then(|format| format.fields.get(place)) {
                Some(field) => field.value(self.own_bytes(row)),
                None => Value::Missing,
            },
        }
    }
}

impl Rows for EventRows<'_> {
    fn len(&self) -> usize {
        self.common.len()
    }

    fn bytes(&self) -> usize {
        self.bytes.len() + self.len() * (size_of::<Common<'_>>() + size_of::<usize>())
    }

    fn clear(&mut self) {
        self.common.clear();
        self.bytes.clear();
        self.ends.clear();
    }

    fn values(&self, column: usize) -> impl ExactSizeIterator<Item = Value<'_>> {
        let role = self.roles[column];
        (0..self.len()).map(move |row| self.value(row, role))
    }
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

    fn values(&self, column: usize) -> impl ExactSizeIterator<Item = Value<'_>> {
        self.0.iter().map(move |row| row[column])
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

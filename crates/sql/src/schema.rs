//! The tables and their columns.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use outlive_event::{ColumnNames, Field};
use outlive_ring::Missed;
use outlive_ring::RunId;
use outlive_trace::view::View;

use crate::cells::{Owned, optional, unsigned};
use crate::source::Source;

/// What a column shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Source,
    Ts,
    Wall,
    Cpu,
    Pid,
    Task,
    System,
    Event,
    Text,
    /// Events that were lost before this one on its CPU.
    Lost,
    /// One of the event's fields, by its place in [`Format::fields`].
    Field(usize),
    Kind,
    Name,
    EndTs,
    Dur,
    /// The argument of a table that is called like a function.
    Bound,
    /// A cell of a row that is there already.
    Plain,
}

/// A column.
#[derive(Debug, Clone)]
pub(crate) struct Column {
    pub(crate) name: String,
    pub(crate) role: Role,
    /// Whether `SELECT *` leaves it out.
    pub(crate) is_hidden: bool,
}

/// An event as one source has it.
#[derive(Debug)]
pub(crate) struct Format {
    pub(crate) id: u16,
    /// Where the columns' fields are; `None` for those that the event does not have there.
    pub(crate) fields: Vec<Option<Field>>,
}

/// What the rows of a table are.
#[derive(Debug)]
pub(crate) enum Kind {
    /// The records of one event; its formats by source. After a module was loaded again there are
    /// several.
    Event(Vec<Vec<Format>>),
    Events,
    Intervals,
    Gaps,
    Plain(Vec<Vec<Owned>>),
}

/// A table.
#[derive(Debug)]
pub(crate) struct Table {
    pub(crate) name: String,
    pub(crate) about: String,
    pub(crate) columns: Vec<Column>,
    pub(crate) kind: Kind,
    pub(crate) sources: Arc<[Source]>,
}

/// A view in SQL's sense: a statement that has a name.
pub(crate) struct SqlView {
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    pub(crate) columns: &'static [&'static str],
    pub(crate) select: &'static str,
}

/// The helper views.
pub(crate) const VIEWS: [SqlView; 5] = [
    SqlView {
        name: "task_states",
        about: "what each task did and when: running, R (waits for a CPU), R+ (preempted), S, D, ... (sleeps)",
        columns: &[
            "source", "ts", "end_ts", "dur", "pid", "task", "state", "cpu",
        ],
        select: "SELECT source, ts, end_ts, dur, pid, task, name AS state, cpu FROM intervals \
                 WHERE kind = 'state' AND pid <> 0",
    },
    SqlView {
        name: "wakeup_latency",
        about: "from each wake-up of a task to its switch-in",
        columns: &["source", "ts", "dur", "pid", "task", "cpu"],
        select: "SELECT source, ts, dur, pid, task, cpu FROM intervals WHERE kind = 'wakeup'",
    },
    SqlView {
        name: "cpu_time",
        about: "time on a CPU per task",
        columns: &["source", "pid", "task", "runs", "total", "longest"],
        select: "SELECT source, pid, task, count(*) AS runs, sum(dur) AS total, max(dur) AS longest \
                 FROM intervals WHERE kind = 'state' AND name = 'running' GROUP BY source, pid",
    },
    SqlView {
        name: "handlers",
        about: "runs of interrupt and softirq handlers",
        columns: &["source", "ts", "dur", "kind", "name", "cpu", "pid", "task"],
        select: "SELECT source, ts, dur, kind, name, cpu, pid, task FROM intervals \
                 WHERE kind IN ('irq', 'softirq')",
    },
    SqlView {
        name: "spans",
        about: "spans of programs; dur is NULL if one was open at the end",
        columns: &["source", "ts", "dur", "name", "cpu", "pid", "task"],
        select: "SELECT source, ts, dur, name, cpu, pid, task FROM intervals WHERE kind = 'span'",
    },
];

/// Columns that all events have, and their names.
const COMMON: [(&str, Role); 6] = [
    ("source", Role::Source),
    ("ts", Role::Ts),
    ("wall", Role::Wall),
    ("cpu", Role::Cpu),
    ("pid", Role::Pid),
    ("task", Role::Task),
];

/// All tables of some sources.
pub(crate) fn tables(sources: &Arc<[Source]>) -> Vec<Table> {
    let mut tables = own_tables(sources);
    tables.extend(event_tables(sources));
    let listed = list(&tables);
    tables.extend(listed.map(|(name, about, columns, rows)| {
        let kind = Kind::Plain(rows);
        table(sources, name, about, plain(columns), kind)
    }));
    tables
}

fn table(
    sources: &Arc<[Source]>,
    name: &str,
    about: &str,
    columns: Vec<Column>,
    kind: Kind,
) -> Table {
    Table {
        name: name.to_owned(),
        about: about.to_owned(),
        columns,
        kind,
        sources: sources.clone(),
    }
}

fn column(name: &str, role: Role) -> Column {
    Column {
        name: name.to_owned(),
        role,
        is_hidden: false,
    }
}

fn columns(columns: &[(&str, Role)]) -> Vec<Column> {
    columns.iter().map(|(n, role)| column(n, *role)).collect()
}

fn plain(names: &[&str]) -> Vec<Column> {
    names.iter().map(|n| column(n, Role::Plain)).collect()
}

/// The tables that do not depend on which events there are.
fn own_tables(sources: &Arc<[Source]>) -> Vec<Table> {
    let of_event = [
        ("system", Role::System),
        ("event", Role::Event),
        ("text", Role::Text),
        ("lost_before", Role::Lost),
    ];
    let of_interval = [
        ("source", Role::Source),
        ("kind", Role::Kind),
        ("name", Role::Name),
        ("ts", Role::Ts),
        ("end_ts", Role::EndTs),
        ("dur", Role::Dur),
        ("cpu", Role::Cpu),
        ("pid", Role::Pid),
        ("task", Role::Task),
    ];
    let mut of_gap = columns(&[
        ("source", Role::Source),
        ("cpu", Role::Cpu),
        ("ts", Role::Ts),
        ("end_ts", Role::EndTs),
        ("dur", Role::Dur),
        ("lost", Role::Lost),
    ]);
    of_gap.push(Column {
        is_hidden: true,
        ..column("bound", Role::Bound)
    });
    vec![
        table(
            sources,
            "events",
            "all events; text is what show prints",
            columns(&[&COMMON[..], &of_event].concat()),
            Kind::Events,
        ),
        table(
            sources,
            "intervals",
            "states of tasks, wake-ups, handlers, spans",
            columns(&of_interval),
            Kind::Intervals,
        ),
        table(
            sources,
            "gaps",
            "gaps(bound): times without an event on a CPU, of at least bound (1 ms if not given)",
            of_gap,
            Kind::Gaps,
        ),
        table(
            sources,
            "tasks",
            "names of tasks",
            plain(&["source", "pid", "tgid", "task"]),
            Kind::Plain(rows_of(sources, tasks)),
        ),
        table(
            sources,
            "holes",
            "where events were lost, and how many (NULL: not known)",
            plain(&["source", "cpu", "after_ts", "before_ts", "lost"]),
            Kind::Plain(rows_of(sources, holes)),
        ),
        table(
            sources,
            "runs",
            "who wrote each source, and how that ended",
            plain(&RUN_COLUMNS),
            Kind::Plain(rows_of(sources, |source| vec![run(source)])),
        ),
    ]
}

fn rows_of(sources: &[Source], rows: impl Fn(&Source) -> Vec<Vec<Owned>>) -> Vec<Vec<Owned>> {
    sources.iter().flat_map(rows).collect()
}

fn tasks(source: &Source) -> Vec<Vec<Owned>> {
    let tasks = source.view.catalog.tasks();
    let mut by_pid: Vec<(i32, &[u8])> = tasks.iter().collect();
    by_pid.sort_unstable();
    let row = |(pid, comm): (i32, &[u8])| {
        vec![
            source.name.clone().into(),
            pid.into(),
            tasks.tgid(pid).map_or(Owned::Null, Owned::from),
            String::from_utf8_lossy(comm).into_owned().into(),
        ]
    };
    by_pid.into_iter().map(row).collect()
}

fn holes(source: &Source) -> Vec<Vec<Owned>> {
    let holes = source
        .view
        .cpus
        .iter()
        .flat_map(|cpu| cpu.holes.iter().map(move |hole| (cpu.cpu, hole)));
    let row = |(cpu, hole): (u32, &outlive_ring::Hole)| {
        vec![
            source.name.clone().into(),
            cpu.into(),
            optional(hole.after),
            optional(hole.before),
            match hole.missed {
                Missed::Events(events) => unsigned(events),
                Missed::Unknown => Owned::Null,
            },
        ]
    };
    holes.map(row).collect()
}

const RUN_COLUMNS: [&str; 20] = [
    "source",
    "verdict",
    "instance",
    "program",
    "version",
    "host",
    "kernel",
    "boot_id",
    "run_id",
    "run_sequence",
    "pid",
    "cmdline",
    "clock",
    "started",
    "closed",
    "first_ts",
    "last_ts",
    "events",
    "lost",
    "overrun",
];

fn run(source: &Source) -> Vec<Owned> {
    let Source {
        name,
        view,
        verdict,
    } = source;
    let mut row: Vec<Owned> = vec![name.clone().into(), verdict.word().to_owned().into()];
    match &view.run {
        Some(run) => {
            let texts = [&run.instance, &run.program, &run.version, &run.host];
            row.extend(texts.map(|text| text.clone().into()));
            row.extend([
                run.kernel.clone().into(),
                RunId(run.boot_id).to_string().into(),
                run.run_id.to_string().into(),
                unsigned(run.run_sequence),
                Owned::Integer(run.pid.into()),
                run.cmdline.clone().into(),
            ]);
        }
        None => row.extend(std::iter::repeat_n(Owned::Null, 10)),
    }
    row.push(view.clock().to_owned().into());
    let time = |time: u64| optional(Some(time).filter(|&time| time > 0));
    let run = view.run.as_ref();
    row.push(run.map_or(Owned::Null, |run| time(run.started_realtime_ns)));
    row.push(run.map_or(Owned::Null, |run| time(run.closed_realtime_ns)));
    let span = view.span();
    row.push(optional(span.map(|(first, _)| first)));
    row.push(optional(span.map(|(_, last)| last)));
    row.push(unsigned(view.entries()));
    row.push(unsigned(lost(view)));
    row.push(unsigned(view.overrun()));
    row
}

fn lost(view: &View) -> u64 {
    view.cpus.iter().map(|cpu| cpu.counters.lost).sum()
}

/// A table per event that any of the sources has.
fn event_tables(sources: &Arc<[Source]>) -> Vec<Table> {
    // SQLite takes names that differ only in case for the same.
    let mut events: BTreeMap<String, BTreeSet<(&str, &str)>> = BTreeMap::new();
    for event in sources.iter().flat_map(|s| s.view.catalog.events()) {
        let alike = events.entry(event.name.to_ascii_lowercase()).or_default();
        alike.insert((&event.system, &event.name));
    }
    let is_plain = |name: &str, alike: &BTreeSet<_>| alike.len() == 1 && !is_taken(name);
    let plain = events.iter().filter(|(name, alike)| is_plain(name, alike));
    let mut used: HashSet<String> = plain.map(|(name, _)| name.clone()).collect();
    let mut tables = Vec::new();
    for (lower_case, alike) in &events {
        for &(system, name) in alike {
            let table_name = match is_plain(lower_case, alike) {
                true => name.to_owned(),
                false => unused(format!("{system}_{name}"), &mut used),
            };
            tables.push(event_table(sources, table_name, system, name));
        }
    }
    tables
}

/// The name, with a number behind it if there is one like it.
fn unused(name: String, used: &mut HashSet<String>) -> String {
    let numbered = (2..).map(|number| format!("{name}_{number}"));
    let mut names = std::iter::once(name.clone()).chain(numbered);
    let is_new = |name: &String| !is_taken(name) && used.insert(name.to_ascii_lowercase());
    names.find(is_new).unwrap_or(name)
}

/// Whether a name is that of a table or view of ours, or one that SQLite keeps for itself.
fn is_taken(name: &str) -> bool {
    const OURS: [&str; 8] = [
        "events",
        "intervals",
        "gaps",
        "tasks",
        "holes",
        "runs",
        "tables",
        "columns",
    ];
    let name = name.to_ascii_lowercase();
    name.starts_with("sqlite_")
        || name.starts_with("pragma_")
        || OURS.contains(&name.as_str())
        || VIEWS.iter().any(|view| view.name == name)
}

fn event_table(sources: &Arc<[Source]>, table_name: String, system: &str, name: &str) -> Table {
    let formats_of = |source: &'_ Source| -> Vec<u16> {
        let events = source.view.catalog.events();
        events
            .filter(|e| e.system == system && e.name == name)
            .map(|e| e.id)
            .collect()
    };
    let ids: Vec<Vec<u16>> = sources.iter().map(formats_of).collect();
    let mut fields: Vec<&str> = Vec::new();
    for (source, ids) in sources.iter().zip(&ids) {
        for event in ids.iter().filter_map(|&id| source.view.catalog.event(id)) {
            for field in &event.fields {
                if !fields.contains(&field.name.as_str()) {
                    fields.push(&field.name);
                }
            }
        }
    }
    let formats = sources.iter().zip(&ids).map(|(source, ids)| {
        let format = |&id: &u16| Format {
            id,
            fields: fields
                .iter()
                .map(|name| {
                    let event = source.view.catalog.event(id)?;
                    event.fields.iter().find(|f| f.name == **name).cloned()
                })
                .collect(),
        };
        ids.iter().map(format).collect()
    });
    let formats = formats.collect();
    Table {
        about: format!("the event {system}:{name}"),
        columns: event_columns(&fields),
        name: table_name,
        kind: Kind::Event(formats),
        sources: sources.clone(),
    }
}

/// The common columns and those of the fields. A field's name goes before that of a common column,
/// which is then called `common_...`; where it is not, that name is there too, but hidden.
fn event_columns(fields: &[&str]) -> Vec<Column> {
    let names = ColumnNames::new(&COMMON.map(|(name, _)| name), fields.iter().copied(), &[]);
    let mut columns = Vec::new();
    let mut hidden = Vec::new();
    for ((name, role), chosen) in COMMON.iter().zip(names.common) {
        if chosen == *name {
            hidden.push(Column {
                is_hidden: true,
                ..column(&format!("common_{name}"), *role)
            });
        }
        columns.push(column(&chosen, *role));
    }
    let fields = names.fields.iter().enumerate();
    columns.extend(fields.map(|(i, name)| column(name, Role::Field(i))));
    columns.extend(hidden);
    columns
}

type Listed = (
    &'static str,
    &'static str,
    &'static [&'static str],
    Vec<Vec<Owned>>,
);

/// The tables that list the tables.
fn list(tables: &[Table]) -> [Listed; 2] {
    let views = VIEWS.iter().map(|view| (view.name, view.about));
    let all = tables.iter().map(|t| (t.name.as_str(), t.about.as_str()));
    let mut names: Vec<(&str, &str)> = all.chain(views).collect();
    names.sort_unstable();
    let of_views = VIEWS
        .iter()
        .flat_map(|view| view.columns.iter().map(|column| (view.name, *column)));
    let of_tables = tables.iter().flat_map(|table| {
        let visible = table.columns.iter().filter(|column| !column.is_hidden);
        visible.map(|column| (table.name.as_str(), column.name.as_str()))
    });
    let columns = of_tables.chain(of_views).collect();
    [
        (
            "tables",
            "the tables and views",
            &["name", "about"],
            pairs(names),
        ),
        (
            "columns",
            "their columns",
            &["table_name", "name"],
            pairs(columns),
        ),
    ]
}

fn pairs(pairs: Vec<(&str, &str)>) -> Vec<Vec<Owned>> {
    let row = |(first, second): (&str, &str)| {
        vec![Owned::from(first.to_owned()), second.to_owned().into()]
    };
    pairs.into_iter().map(row).collect()
}

//! CSV: one row per event, a column per field.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::path::Path;

use outlive_event::{ColumnNames, Value};
use outlive_trace::view::{SourceEvent, Sources};

use crate::{Error, Exporter, Result, Summary, json, output};

/// The columns that each event has.
const COMMON: [&str; 8] = [
    "time",
    "source",
    "cpu",
    "pid",
    "comm",
    "system",
    "event",
    "lost_before",
];

/// Writes a table. Its columns are the common ones, then each field's that an event of the output
/// has, by name; where they have the same name they are named as [`ColumnNames`] does it. Lists are JSON; addresses hexadecimal.
#[derive(Debug)]
pub(crate) struct Csv;

impl Exporter for Csv {
    fn export(&self, sources: &Sources<'_>, out: &Path) -> Result<Summary> {
        let failed = |error| Error::io("write", out)(io_error(error));
        let columns = columns(sources);
        let places: HashMap<&str, usize> = columns.iter().map(String::as_str).zip(0..).collect();
        let mut writer = csv::Writer::from_writer(output::create(out)?);
        let names = ColumnNames::new(&COMMON, columns.iter().map(String::as_str), &[]);
        let header = names.common.iter().chain(&names.fields);
        writer.write_record(header).map_err(failed)?;
        let mut summary = Summary::default();
        let mut fields = vec![String::new(); columns.len()];
        let mut events = sources.events();
        while let Some(next) = events.next_event() {
            fields.iter_mut().for_each(String::clear);
            fill(&mut fields, &places, sources, &next);
            let row = common(sources, &next);
            let row = row.iter().chain(&fields);
            writer.write_record(row).map_err(failed)?;
            summary.count(&next.event);
        }
        summary.note_left(sources, &events);
        writer.flush().map_err(Error::io("write", out))?;
        Ok(summary)
    }

    /// The first pass finds the columns.
    fn to_read(&self, sources: &Sources<'_>) -> u64 {
        2 * sources.to_read()
    }
}

/// What the system said: the conversion of `csv` hides the kind of the error, by which a closed pipe is
/// known.
fn io_error(error: csv::Error) -> io::Error {
    match error.into_kind() {
        csv::ErrorKind::Io(error) => error,
        other => io::Error::other(format!("{other:?}")),
    }
}

/// The names of all fields of the events that the output will have.
fn columns(sources: &Sources<'_>) -> Vec<String> {
    let mut ids = BTreeSet::new();
    let mut events = sources.events();
    while let Some(next) = events.next_event() {
        ids.insert((next.source, outlive_event::event_id(next.event.payload)));
    }
    let formats = ids
        .into_iter()
        .filter_map(|(source, id)| sources.sources()[source].view.catalog.event(id?));
    let names: BTreeSet<String> = formats
        .flat_map(|format| format.fields.iter().map(|field| field.name.clone()))
        .collect();
    names.into_iter().collect()
}

fn common(sources: &Sources<'_>, next: &SourceEvent<'_>) -> [String; COMMON.len()] {
    let source = &sources.sources()[next.source];
    let catalog = &source.view.catalog;
    let event = &next.event;
    let pid = outlive_event::pid(event.payload).unwrap_or(0);
    let comm = catalog.tasks().comm(pid);
    let id = outlive_event::event_id(event.payload);
    let format = id.and_then(|id| catalog.event(id));
    let lost = event.missed.map(|missed| match missed {
        outlive_ring::Missed::Events(count) => count.to_string(),
        outlive_ring::Missed::Unknown => "unknown".into(),
    });
    [
        next.time.to_string(),
        source.name.clone(),
        event.cpu.to_string(),
        pid.to_string(),
        comm.map_or_else(String::new, |comm| {
            String::from_utf8_lossy(comm).into_owned()
        }),
        format.map_or_else(String::new, |format| format.system.clone()),
        // What has no format is there with its number.
        format.map_or_else(
            || id.map_or_else(String::new, |id| id.to_string()),
            |format| format.name.clone(),
        ),
        lost.unwrap_or_default(),
    ]
}

fn fill(
    fields: &mut [String],
    places: &HashMap<&str, usize>,
    sources: &Sources<'_>,
    next: &SourceEvent<'_>,
) {
    let catalog = &sources.sources()[next.source].view.catalog;
    let payload = next.event.payload;
    let format = outlive_event::event_id(payload).and_then(|id| catalog.event(id));
    for (name, value) in format.iter().flat_map(|format| format.values(payload)) {
        if let Some(&place) = places.get(name) {
            fields[place] = cell(value);
        }
    }
}

fn cell(value: Value<'_>) -> String {
    match value {
        Value::Text(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        Value::Missing => String::new(),
        other => match json::to_json(other) {
            serde_json::Value::String(text) => text,
            value => value.to_string(),
        },
    }
}

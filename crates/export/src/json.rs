//! JSON lines: one object per event, with its true time.

use std::io::{BufWriter, Write};
use std::path::Path;

use outlive_event::{Catalog, EventFormat, Value};
use outlive_trace::view::{MergedSources, Source, SourceEvent, Sources, ViewEvent};
use serde_json::{Map, Value as Json, json};

use crate::{Error, Exporter, Result, Summary, output};

/// Writes JSON lines. With several sources, each line has the `source` and the `time` in the
/// common clock beside the source's own `ts`. The last line has the key `missing`, if something is.
#[derive(Debug)]
pub struct JsonLines;

impl Exporter for JsonLines {
    fn export(&self, sources: &Sources<'_>, out: &Path) -> Result<Summary> {
        let file = output::create(out)?;
        let mut writer = BufWriter::with_capacity(1 << 20, file);
        let mut summary = Summary::default();
        // Written when the next one is there: the last one has more to say.
        let mut line = Vec::new();
        let mut put = |line: &[u8]| writer.write_all(line).map_err(Error::io("write", out));
        let mut events = sources.events();
        while let Some(next) = events.next_event() {
            put(&line)?;
            line.clear();
            write_merged(&mut line, sources, &next)?;
            summary.count(&next.event);
        }
        events.left().for_each(|(_, left)| summary.count_left(left));
        push_missing(&mut line, missing(sources, &events))?;
        put(&line)?;
        writer.flush().map_err(Error::io("write", out))?;
        Ok(summary)
    }
}

/// What no event's line tells: what is missing behind the last ones, and what is damaged.
fn missing(sources: &Sources<'_>, events: &MergedSources<'_>) -> Vec<Json> {
    let source = |index: usize| &sources.sources()[index];
    let left = events.left().map(|(index, left)| {
        let Source { name, view, .. } = source(index);
        let buffer = view.buffer_word().to_lowercase();
        json!({"source": name, buffer: left.buffer, "lost": left.missed.count()})
    });
    let damaged = sources.sources().iter().filter(|s| !s.view.is_whole());
    let damaged = damaged.map(|source| json!({"source": source.name, "damaged": true}));
    left.chain(damaged).collect()
}

/// Adds to a line, the last, what is missing; if there is none, as a line of its own.
fn push_missing(line: &mut Vec<u8>, missing: Vec<Json>) -> serde_json::Result<()> {
    if missing.is_empty() {
        return Ok(());
    }
    let is_empty = line.is_empty();
    line.truncate(line.len().saturating_sub("}\n".len()));
    line.extend_from_slice(if is_empty {
        b"{\"missing\":"
    } else {
        b",\"missing\":"
    });
    serde_json::to_writer(&mut *line, &missing)?;
    line.extend_from_slice(b"}\n");
    Ok(())
}

/// Appends the event's object and a line end.
///
/// # Errors
///
/// None that a vector has; the writer's.
pub fn write(
    out: &mut Vec<u8>,
    catalog: &Catalog,
    event: &ViewEvent<'_>,
) -> serde_json::Result<()> {
    serde_json::to_writer(&mut *out, &object(catalog, event))?;
    out.push(b'\n');
    Ok(())
}

/// Appends the object of an event of one of several regions, and a line end: with the `source` and
/// the common `time`.
///
/// # Errors
///
/// None that a vector has; the writer's.
pub fn write_merged(
    out: &mut Vec<u8>,
    sources: &Sources<'_>,
    next: &SourceEvent<'_>,
) -> serde_json::Result<()> {
    let source = &sources.sources()[next.source];
    let mut object = object(&source.view.catalog, &next.event);
    if sources.sources().len() > 1 {
        object.insert("source".into(), source.name.as_str().into());
        object.insert("time".into(), next.time.into());
    }
    serde_json::to_writer(&mut *out, &object)?;
    out.push(b'\n');
    Ok(())
}

/// The event's object.
#[must_use]
pub fn object(catalog: &Catalog, event: &ViewEvent<'_>) -> Map<String, Json> {
    let mut object = Map::new();
    object.insert("ts".into(), event.time_stamp.into());
    object.insert("cpu".into(), event.cpu.into());
    if let Some(missed) = event.missed {
        object.insert("lost_before".into(), missed.count().into());
    }
    if let Some(doubt) = event.doubt(catalog) {
        object.insert("doubt".into(), doubt.to_string().into());
    }
    let [flags, preempt] = flags(event.payload).unwrap_or_default();
    let pid = outlive_event::pid(event.payload).unwrap_or(0);
    object.insert("pid".into(), pid.into());
    object.insert("comm".into(), comm(catalog, pid));
    if catalog.cpu(event.payload).is_none() {
        object.insert("flags".into(), flags.into());
        object.insert("preempt_count".into(), preempt.into());
    }
    match outlive_event::event_id(event.payload).and_then(|id| catalog.event(id)) {
        Some(format) => {
            object.insert("system".into(), format.system.as_str().into());
            object.insert("event".into(), format.name.as_str().into());
            object.insert("fields".into(), fields(format, event.payload).into());
            if format.is_cut(event.payload) {
                object.insert("cut".into(), true.into());
            }
        }
        None => {
            object.insert("id".into(), json!(outlive_event::event_id(event.payload)));
        }
    }
    object
}

/// The fields of a record.
pub(crate) fn fields(format: &EventFormat, payload: &[u8]) -> Map<String, Json> {
    let values = format.values(payload);
    values
        .map(|(name, value)| (name.to_owned(), to_json(value)))
        .collect()
}

/// Flags and preempt count of a record.
fn flags(payload: &[u8]) -> Option<[u8; 2]> {
    payload.get(2..)?.first_chunk().copied()
}

fn comm(catalog: &Catalog, pid: i32) -> Json {
    catalog.tasks().comm(pid).map_or(Json::Null, text)
}

fn text(bytes: &[u8]) -> Json {
    String::from_utf8_lossy(bytes).into()
}

/// A field's value as JSON.
#[must_use]
pub fn to_json(value: Value<'_>) -> Json {
    match value {
        Value::Signed(value) => value.into(),
        Value::Unsigned(value) => value.into(),
        Value::Bool(value) => value.into(),
        // Not a number and infinite are no JSON numbers: null.
        Value::Float(value) => value.into(),
        // More than a JSON number may hold exactly.
        Value::Pointer(address) => format!("{address:#x}").into(),
        Value::Text(bytes) => text(bytes),
        Value::Array(array) => array.iter().map(to_json).collect(),
        Value::Opaque(bytes) => bytes.iter().map(|byte| Json::from(*byte)).collect(),
        _ => Json::Null,
    }
}

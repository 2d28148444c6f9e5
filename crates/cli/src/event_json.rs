//! One event as one line of JSON, with its true time.

use anyhow::Result;
use outlive_event::{Catalog, Value};
use outlive_ring::Missed;
use outlive_trace::view::ViewEvent;
use serde_json::{Map, Value as Json, json};

/// Appends the event's object and a line end.
pub(crate) fn write(out: &mut Vec<u8>, catalog: &Catalog, event: &ViewEvent<'_>) -> Result<()> {
    let mut object = Map::new();
    object.insert("ts".into(), event.time_stamp.into());
    object.insert("cpu".into(), event.cpu.into());
    if let Some(missed) = event.missed {
        let count = match missed {
            Missed::Events(events) => json!(events),
            Missed::Unknown => Json::Null,
        };
        object.insert("lost_before".into(), count);
    }
    let [flags, preempt, pid @ ..] = event
        .payload
        .get(2..8)
        .and_then(|b| <[u8; 6]>::try_from(b).ok())
        .unwrap_or_default();
    let pid = i32::from_le_bytes(pid);
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
            let fields: Map<String, Json> = format
                .values(event.payload)
                .map(|(name, value)| (name.to_owned(), to_json(value)))
                .collect();
            object.insert("fields".into(), fields.into());
            if format.is_cut(event.payload) {
                object.insert("cut".into(), true.into());
            }
        }
        None => {
            object.insert("id".into(), json!(outlive_event::event_id(event.payload)));
        }
    }
    serde_json::to_writer(&mut *out, &object)?;
    out.push(b'\n');
    Ok(())
}

fn comm(catalog: &Catalog, pid: i32) -> Json {
    catalog.tasks().comm(pid).map_or(Json::Null, text)
}

fn text(bytes: &[u8]) -> Json {
    String::from_utf8_lossy(bytes).into()
}

fn to_json(value: Value<'_>) -> Json {
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

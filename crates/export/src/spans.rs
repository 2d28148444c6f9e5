//! Spans of programs: which events begin and end them, and whose lie inside each other.

use std::collections::{HashMap, HashSet};

use outlive_event::{Catalog, EventFormat, Value, pid};
use outlive_trace::view::Sources;

/// What an event is of a span.
pub(crate) enum SpanPart {
    Begin(u64),
    End(u64),
}

/// What an event is of a span, if it is of one.
pub(crate) fn span_part(format: &EventFormat, payload: &[u8]) -> Option<SpanPart> {
    let first = format.fields.first().filter(|f| f.name == "span_id")?;
    let Value::Unsigned(id) = first.value(payload) else {
        return None;
    };
    match format.fields.get(1) {
        Some(second) if second.name == "span_parent" => Some(SpanPart::Begin(id)),
        None if format.name == "span_end" => Some(SpanPart::End(id)),
        _ => None,
    }
}

/// The format of a record.
pub(crate) fn format_of<'c>(catalog: &'c Catalog, payload: &[u8]) -> Option<&'c EventFormat> {
    catalog.event(outlive_event::event_id(payload)?)
}

/// Whether there may be spans: kernels have none.
pub(crate) fn are_possible(sources: &Sources<'_>) -> bool {
    sources
        .sources()
        .iter()
        .any(|source| source.view.has_lanes())
}

/// The threads of each source whose spans do not lie inside each other.
pub(crate) fn unnested(sources: &Sources<'_>) -> HashSet<(usize, i32)> {
    let mut open: HashMap<(usize, i32), Vec<u64>> = HashMap::new();
    let mut unnested = HashSet::new();
    let mut events = sources.events();
    while let Some(next) = events.next_event() {
        let view = sources.sources()[next.source].view;
        let payload = next.event.payload;
        let format = format_of(&view.catalog, payload).filter(|format| format.has_cpu());
        let thread = (next.source, pid(payload).unwrap_or(0));
        match format.and_then(|format| span_part(format, payload)) {
            Some(SpanPart::Begin(id)) => open.entry(thread).or_default().push(id),
            Some(SpanPart::End(id)) => {
                let spans = open.entry(thread).or_default();
                if spans.pop() != Some(id) {
                    spans.clear();
                    unnested.insert(thread);
                }
            }
            None => {}
        }
    }
    unnested
}

//! What a generation holds, in a few numbers, noted in its `meta.json` when it is first read.

use outlive_trace::Meta;
use outlive_trace::view::View;
use serde_json::{Value, json};

/// Key in `meta.json`.
const KEY: &str = "summary";

/// The numbers that a list shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Summary {
    /// Events that are there.
    pub(crate) events: u64,
    /// Events known to be lost before they reached the region.
    pub(crate) lost: u64,
    /// From the first to the last event in the unit of the trace clock.
    pub(crate) span: u64,
    /// Whether everything was found whole.
    pub(crate) is_whole: bool,
}

impl Summary {
    pub(crate) fn of(view: &View) -> Self {
        Self {
            events: view.entries(),
            lost: view.cpus.iter().map(|cpu| cpu.counters.lost).sum(),
            span: view.span().map_or(0, |(first, last)| last - first),
            is_whole: view.is_whole(),
        }
    }

    pub(crate) fn note(self, meta: &mut Meta) {
        let Self {
            events,
            lost,
            span,
            is_whole,
        } = self;
        let value = json!({"events": events, "lost": lost, "span": span, "is_whole": is_whole});
        meta.other.insert(KEY.to_owned(), value);
    }

    /// What was noted earlier.
    pub(crate) fn noted(meta: &Meta) -> Option<Self> {
        let noted = meta.other.get(KEY)?;
        let number = |key: &str| noted.get(key).and_then(Value::as_u64);
        Some(Self {
            events: number("events")?,
            lost: number("lost")?,
            span: number("span")?,
            is_whole: noted.get("is_whole")?.as_bool()?,
        })
    }
}

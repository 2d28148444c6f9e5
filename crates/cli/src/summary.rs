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
    /// When the run ended, as far as it shows: nanoseconds since 1970.
    pub(crate) ended_ns: Option<u64>,
}

impl Summary {
    pub(crate) fn of(view: &View) -> Self {
        Self {
            events: view.entries(),
            lost: view.cpus.iter().map(|cpu| cpu.counters.lost).sum(),
            span: view.span().map_or(0, |(first, last)| last - first),
            is_whole: view.is_whole(),
            ended_ns: ended_ns(view),
        }
    }

    pub(crate) fn note(self, meta: &mut Meta) {
        let Self {
            events,
            lost,
            span,
            is_whole,
            ended_ns,
        } = self;
        let value = json!({
            "events": events,
            "lost": lost,
            "span": span,
            "is_whole": is_whole,
            "ended_ns": ended_ns,
        });
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
            ended_ns: number("ended_ns"),
        })
    }
}

/// When the run said that it ended; else its last sign of life.
pub(crate) fn ended_ns(view: &View) -> Option<u64> {
    let run = view.run.as_ref()?;
    if run.closed_realtime_ns > 0 {
        return Some(run.closed_realtime_ns);
    }
    // What the kernel's ring went on to record after the death is no sign of the recorder's life.
    let last_event = view
        .recorded_until()
        .and_then(|last| view.realtime_ns(last));
    let last = last_event.max(Some(view.heartbeat.realtime_ns));
    last.filter(|&time| time > 0)
}

//! Events of several views one after the other, some sub-buffers at a time.
//!
//! A cursor of SQLite outlives every borrow, so events are taken in stretches of time: those that
//! are wanted are kept with their bytes, the others only looked at.

use std::sync::Arc;

use outlive_event::event_id;
use outlive_ring::Missed;
use outlive_trace::view::{Trust, ViewEvent};

use crate::bounds::Bounds;
use crate::source::Source;

/// Sub-buffers that are read at a time: about a megabyte.
const STRETCH: usize = 256;

/// Which events of a source are wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Wanted {
    All,
    /// By event id.
    Ids(Vec<bool>),
}

impl Wanted {
    /// Those with these ids.
    pub(crate) fn ids(ids: impl Iterator<Item = u16>) -> Self {
        let mut by_id = Vec::new();
        for id in ids.map(usize::from) {
            if by_id.len() <= id {
                by_id.resize(id + 1, false);
            }
            by_id[id] = true;
        }
        Self::Ids(by_id)
    }

    fn has(&self, payload: &[u8]) -> bool {
        match self {
            Self::All => true,
            Self::Ids(ids) => event_id(payload)
                .and_then(|id| ids.get(usize::from(id)))
                .is_some_and(|&wanted| wanted),
        }
    }

    fn is_none(&self) -> bool {
        matches!(self, Self::Ids(ids) if ids.is_empty())
    }
}

/// An event that was kept.
#[derive(Debug, Clone, Copy)]
struct Kept {
    cpu: u32,
    buffer: u32,
    time_stamp: u64,
    text_time_stamp: u64,
    missed: Option<Missed>,
    trust: Trust,
    start: usize,
    len: usize,
}

/// Goes over the events of all sources.
#[derive(Debug)]
pub(crate) struct Scan {
    sources: Arc<[Source]>,
    wanted: Vec<Wanted>,
    bounds: Bounds,
    source: usize,
    /// Where the stretches of the source begin; empty before it is looked at.
    starts: Vec<u64>,
    next_stretch: usize,
    kept: Vec<Kept>,
    bytes: Vec<u8>,
    at: usize,
}

impl Scan {
    /// A scan that stands before its first event. `wanted` is by source.
    pub(crate) fn new(sources: Arc<[Source]>, wanted: Vec<Wanted>, bounds: Bounds) -> Self {
        Self {
            sources,
            wanted,
            bounds,
            source: 0,
            starts: Vec::new(),
            next_stretch: 0,
            kept: Vec::new(),
            bytes: Vec::new(),
            at: 0,
        }
    }

    /// Goes to the next event; false if there is none.
    pub(crate) fn advance(&mut self) -> bool {
        self.at += 1;
        if self.at < self.kept.len() {
            return true;
        }
        self.at = 0;
        self.kept.clear();
        self.bytes.clear();
        while self.kept.is_empty() {
            if self.source >= self.sources.len() {
                return false;
            }
            self.next_stretch();
        }
        true
    }

    /// The source of the current event.
    pub(crate) fn source(&self) -> usize {
        // A stretch is of one source; the next one is begun only when it is used up.
        self.source
    }

    /// The current event.
    pub(crate) fn event(&self) -> ViewEvent<'_> {
        let Some(&kept) = self.kept.get(self.at) else {
            return NOTHING;
        };
        ViewEvent {
            cpu: kept.cpu,
            buffer: kept.buffer,
            time_stamp: kept.time_stamp,
            text_time_stamp: kept.text_time_stamp,
            missed: kept.missed,
            trust: kept.trust,
            payload: &self.bytes[kept.start..kept.start + kept.len],
        }
    }

    fn next_stretch(&mut self) {
        if self.starts.is_empty() && !self.begin_source() || self.next_stretch >= self.starts.len()
        {
            self.source += 1;
            self.starts.clear();
            self.next_stretch = 0;
            return;
        }
        let stretch = self.next_stretch;
        self.next_stretch += 1;
        self.take(stretch);
    }

    /// Cuts the source into stretches; false if nothing in it is wanted.
    fn begin_source(&mut self) -> bool {
        let source = &self.sources[self.source];
        let is_asked = |name: &String| *name == source.name;
        let bounds = &self.bounds;
        if bounds.is_empty
            || self.wanted[self.source].is_none()
            || !bounds.source.as_ref().is_none_or(is_asked)
        {
            return false;
        }
        self.starts = source.view.stretches(bounds.cpu, bounds.from, STRETCH);
        if let Some(end) = bounds.end {
            self.starts.retain(|&start| start < end);
        }
        true
    }

    /// Keeps what is wanted of a stretch.
    fn take(&mut self, stretch: usize) {
        let view = &self.sources[self.source].view;
        let (wanted, bounds) = (&self.wanted[self.source], &self.bounds);
        let from = self.starts[stretch];
        let end = self.starts.get(stretch + 1).copied().or(bounds.end);
        let mut events = match stretch {
            // A time in the text is never later than the true one, by which is asked.
            0 => view.events_around(bounds.cpu, from, end),
            _ => view.events_between(bounds.cpu, from, end),
        };
        while let Some(event) = events.next_event() {
            if wanted.has(event.payload) && bounds.has_time(event.time_stamp) {
                self.kept.push(Kept {
                    cpu: event.cpu,
                    buffer: event.buffer,
                    time_stamp: event.time_stamp,
                    text_time_stamp: event.text_time_stamp,
                    missed: event.missed,
                    trust: event.trust,
                    start: self.bytes.len(),
                    len: event.payload.len(),
                });
                self.bytes.extend_from_slice(event.payload);
            }
        }
    }
}

/// What stands where there is no event.
const NOTHING: ViewEvent<'static> = ViewEvent {
    cpu: 0,
    buffer: 0,
    time_stamp: 0,
    text_time_stamp: 0,
    missed: None,
    trust: Trust::Sealed,
    payload: &[],
};

//! Events that are kept beyond the pass over a view.

use std::collections::VecDeque;

use outlive_ring::Missed;
use outlive_trace::view::{Trust, ViewEvent};

/// An event with bytes of its own.
#[derive(Debug, Clone, Default)]
pub(super) struct Kept {
    cpu: u32,
    buffer: u32,
    time_stamp: u64,
    /// Time as the kernel's text shows it.
    pub(super) time: u64,
    missed: Option<Missed>,
    trust: Trust,
    payload: Vec<u8>,
}

impl Kept {
    pub(super) fn of(event: &ViewEvent<'_>) -> Self {
        let mut this = Self::default();
        this.fill(event);
        this
    }

    /// Takes in another event, without an allocation where the bytes fit.
    fn fill(&mut self, event: &ViewEvent<'_>) {
        self.cpu = event.cpu;
        self.buffer = event.buffer;
        self.time_stamp = event.time_stamp;
        self.time = event.text_time_stamp;
        self.missed = event.missed;
        self.trust = event.trust;
        self.payload.clear();
        self.payload.extend_from_slice(event.payload);
    }

    pub(super) fn event(&self) -> ViewEvent<'_> {
        ViewEvent {
            cpu: self.cpu,
            buffer: self.buffer,
            time_stamp: self.time_stamp,
            text_time_stamp: self.time,
            missed: self.missed,
            trust: self.trust,
            payload: &self.payload,
        }
    }

    pub(super) fn pid(&self) -> i32 {
        outlive_event::pid(&self.payload).unwrap_or(0)
    }
}

/// The last events of a thread, a CPU, or a kind.
#[derive(Debug, Default)]
pub(super) struct Recent {
    /// Events in all.
    pub(super) events: u64,
    /// The last of them, oldest first.
    pub(super) last: VecDeque<Kept>,
}

impl Recent {
    /// Takes in an event; of `count` it keeps the newest.
    pub(super) fn push(&mut self, event: &ViewEvent<'_>, count: usize) {
        self.events += 1;
        let free = (self.last.len() >= count).then(|| self.last.pop_front());
        let mut kept = free.flatten().unwrap_or_default();
        kept.fill(event);
        self.last.push_back(kept);
    }

    /// Time of the newest event.
    pub(super) fn last_time(&self) -> u64 {
        self.last.back().map_or(0, |kept| kept.time)
    }
}

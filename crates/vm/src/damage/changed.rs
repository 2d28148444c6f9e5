//! Events of a damaged region that the undamaged one does not hold: what was done to each, and whether
//! outlive says so.

use std::collections::BTreeMap;

use outlive_ring::layout::SUBBUF_HEADER;

use super::base::{Base, Identity, KeptEvent};
use super::outcome::fingerprint;

/// What the damage did to an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Change {
    /// Its bytes are what they were; the time stamp of its sub-buffer is not.
    SubbufTime,
    /// Its bytes are what they were, and so is its sub-buffer's time stamp; a time delta before it is not.
    Delta,
    /// Its bytes are those of an event of another place.
    Moved,
    /// Its bytes are those of no event.
    Entry,
    /// Nothing: it is there a second time.
    Again,
}

impl Change {
    /// In words.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Again => "none: it is there twice",
            Self::SubbufTime => "the time stamp of its sub-buffer",
            Self::Delta => "a time delta, its own or one before it in the sub-buffer",
            Self::Moved => "its place: another sub-buffer's bytes",
            Self::Entry => "its own bytes",
        }
    }
}

/// Why outlive calls an event doubtful.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mark {
    /// Its sub-buffer is.
    Subbuf,
    /// Its entry is not one that a kernel writes.
    Entry,
}

/// An event that the undamaged region does not hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Changed {
    /// Stands for the event, as in [`Shown::others`](super::Shown::others).
    pub event: u32,
    /// What was done to it.
    pub change: Change,
    /// What outlive says of it; `None` if it is shown as any other.
    pub mark: Option<Mark>,
    /// Whether the kernel shows any event of its sub-buffer that outlive shows.
    pub is_in_shown: bool,
}

impl Mark {
    /// The mark of an event.
    pub(super) fn of(base: &Base, event: &KeptEvent) -> Option<Self> {
        match event.page.is_doubtful {
            true => Some(Self::Subbuf),
            false => base
                .catalog
                .doubt(&event.identity.payload)
                .map(|_| Self::Entry),
        }
    }
}

impl Change {
    fn of(base: &Base, places: &BTreeMap<&Identity, usize>, event: &KeptEvent) -> Self {
        let KeptEvent {
            identity,
            page,
            offset,
        } = event;
        let at = base.subbuf(identity.cpu, page.subbuf);
        let was = base.region.get(at + SUBBUF_HEADER + offset..);
        let is_in_place = was.is_some_and(|was| was.starts_with(&identity.payload));
        let is_payload = |event: &Identity| event.payload == identity.payload;
        match is_in_place {
            _ if places.contains_key(identity) => Self::Again,
            true if base.u64_at(at) != page.time_stamp => Self::SubbufTime,
            true => Self::Delta,
            false if base.events.iter().any(is_payload) => Self::Moved,
            false => Self::Entry,
        }
    }
}

impl Changed {
    /// What became of an event that the undamaged region does not hold.
    pub(super) fn new(
        base: &Base,
        places: &BTreeMap<&Identity, usize>,
        event: &KeptEvent,
        is_in_shown: bool,
    ) -> Self {
        Self {
            event: fingerprint(&event.identity),
            change: Change::of(base, places, event),
            mark: Mark::of(base, event),
            is_in_shown,
        }
    }
}

//! How far an event can be believed: a kernel's region has no checksums.

use std::fmt;

use outlive_event::{Catalog, Doubt};
use outlive_ring::layout::SUBBUF_DATA;
use outlive_ring::{Events, Page, PageSource};

use super::{Placed, View, ViewCpu, ViewEvent};

/// What is known of an event's bytes and time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Trust {
    /// They are what was written: a seal says so, or they come from where nothing damages them.
    #[default]
    Sealed,
    /// They are as a writer leaves them, as far as a sub-buffer's structure shows.
    Unsealed,
    /// Something in the sub-buffer was damaged, and nothing says what ([`Page::is_doubtful`]).
    Doubtful,
}

impl Trust {
    pub(super) fn of(page: &Page) -> Self {
        match page.source {
            PageSource::Sealed | PageSource::RestoredFromSeal => Self::Sealed,
            PageSource::Unsealed if page.is_doubtful => Self::Doubtful,
            PageSource::Unsealed => Self::Unsealed,
        }
    }
}

/// Why an event is doubtful: it is shown, and may not be what was recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventDoubt<'c> {
    /// Its sub-buffer is.
    Subbuf,
    /// Its record is none that a kernel writes.
    Record(Doubt<'c>),
}

impl fmt::Display for EventDoubt<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Subbuf => f.write_str("its sub-buffer is damaged, `check` says how"),
            Self::Record(doubt) => doubt.fmt(f),
        }
    }
}

/// Why the record `payload` is doubtful, if it is.
fn doubt<'c>(trust: Trust, catalog: &'c Catalog, payload: &[u8]) -> Option<EventDoubt<'c>> {
    match trust {
        Trust::Sealed => None,
        Trust::Unsealed => catalog.doubt(payload).map(EventDoubt::Record),
        Trust::Doubtful => Some(EventDoubt::Subbuf),
    }
}

impl ViewEvent<'_> {
    /// Why the event is doubtful; `None` if nothing says that it is.
    #[must_use]
    pub fn doubt<'c>(&self, catalog: &'c Catalog) -> Option<EventDoubt<'c>> {
        doubt(self.trust, catalog, self.payload)
    }
}

impl View {
    /// How many events are doubtful.
    #[must_use]
    pub fn doubtful(&self) -> u64 {
        self.cpus.iter().map(|cpu| self.doubtful_of_cpu(cpu)).sum()
    }

    /// How many events of a CPU are doubtful.
    #[must_use]
    pub fn doubtful_of_cpu(&self, cpu: &ViewCpu) -> u64 {
        let pages = cpu.pages.iter();
        pages
            .map(|placed| self.doubtful_of_page(cpu.cpu, placed))
            .sum()
    }

    fn doubtful_of_page(&self, cpu: u32, placed: &Placed) -> u64 {
        let trust = Trust::of(&placed.page);
        if trust == Trust::Sealed {
            return 0;
        }
        let mut buffer = [0; SUBBUF_DATA];
        let data = self.read_page(cpu, placed, &mut buffer);
        let events = Events::new(placed.page.time_stamp, data).map_while(Result::ok);
        let doubtful = events.filter(|event| doubt(trust, &self.catalog, event.payload).is_some());
        doubtful.count() as u64
    }
}

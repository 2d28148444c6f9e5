//! Which events of a view are wanted.

use std::io::Write;

use outlive_event::{COMM_SIZE, Catalog, EventFormat, Filter, FilterScope, Predicate, Tasks};

use crate::cmdline::EventToken;

/// Which events are wanted: those that a pattern names, and of them those that a filter keeps.
///
/// An event that lacks a field of the filter is not wanted.
#[derive(Debug)]
pub struct Wanted<'c> {
    /// By event id; `None` for events of which nothing is.
    by_id: Vec<Option<Records>>,
    tasks: &'c Tasks,
}

/// Which records of an event are wanted.
#[derive(Debug)]
enum Records {
    All,
    If(Predicate),
}

impl<'c> Wanted<'c> {
    /// What a pattern and a filter want of the events of a catalog; `None` if both are: all is
    /// wanted, of unknown formats too. `nr_cpus` bounds the filter's sets of CPUs.
    #[must_use]
    pub fn new(
        catalog: &'c Catalog,
        nr_cpus: usize,
        glob: Option<&EventToken>,
        filter: Option<&Filter>,
    ) -> Option<Self> {
        if glob.is_none() && filter.is_none() {
            return None;
        }
        let scope = FilterScope {
            symbols: catalog.symbols(),
            nr_cpus: nr_cpus as u32,
        };
        let mut wanted = Self {
            by_id: Vec::new(),
            tasks: catalog.tasks(),
        };
        for event in Self::listed(catalog, glob) {
            let records = match filter {
                None => Some(Records::All),
                Some(filter) => filter.compile(event, &scope).ok().map(Records::If),
            };
            let id = usize::from(event.id);
            if wanted.by_id.len() <= id {
                wanted.by_id.resize_with(id + 1, || None);
            }
            wanted.by_id[id] = records;
        }
        Some(wanted)
    }

    /// The events of a catalog that a pattern names; without one, all.
    pub fn listed<'e>(
        catalog: &'e Catalog,
        glob: Option<&EventToken>,
    ) -> impl Iterator<Item = &'e EventFormat> {
        let is_listed =
            move |e: &&EventFormat| glob.is_none_or(|glob| glob.matches(&e.system, &e.name));
        catalog.events().filter(is_listed)
    }

    /// Whether a record that was written on `cpu` is wanted.
    #[must_use]
    pub fn has(&self, cpu: u32, payload: &[u8]) -> bool {
        let id = outlive_event::event_id(payload).map(usize::from);
        match id.and_then(|id| self.by_id.get(id)) {
            Some(Some(Records::If(predicate))) => {
                predicate.matches(payload, cpu, || comm(self.tasks, payload, cpu))
            }
            Some(Some(Records::All)) => true,
            _ => false,
        }
    }
}

/// The name of the task that a record is of, as the kernel had it at the time.
fn comm(tasks: &Tasks, payload: &[u8], cpu: u32) -> [u8; COMM_SIZE] {
    let mut comm = [0; COMM_SIZE];
    let pid = outlive_event::pid(payload).unwrap_or(0);
    if pid == 0 {
        // Sixteen bytes are enough for any CPU's number.
        let _ = write!(&mut comm[..], "swapper/{cpu}");
    } else if let Some(known) = tasks.comm(pid) {
        comm[..known.len()].copy_from_slice(known);
    }
    comm
}

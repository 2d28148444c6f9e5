//! How many records print their fields because their event's print format cannot be evaluated.

use std::collections::BTreeMap;

use crate::catalog::Catalog;
use crate::format::EventFormat;

/// Numbers of such records, by event of one catalog. [`Formatter::record`](crate::Formatter::record)
/// says which they are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Unevaluated {
    by_id: BTreeMap<u16, u64>,
}

impl Unevaluated {
    /// Counts a record of `event`, if it is one.
    #[inline]
    pub fn count(&mut self, event: Option<&EventFormat>) {
        if let Some(event) = event {
            *self.by_id.entry(event.id).or_default() += 1;
        }
    }

    /// Adds what was counted elsewhere with the same catalog.
    pub fn add(&mut self, other: &Self) {
        for (&id, records) in &other.by_id {
            *self.by_id.entry(id).or_default() += records;
        }
    }

    /// Forgets all.
    pub fn clear(&mut self) {
        self.by_id.clear();
    }

    /// How many records there are of all events.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.by_id.values().sum()
    }

    /// The events, as `system:name`, with their numbers of records.
    pub fn events<'c>(&self, catalog: &'c Catalog) -> impl Iterator<Item = (String, u64)> {
        let named = |(&id, &records): (&u16, &u64)| {
            let event: &'c EventFormat = catalog.event(id)?;
            Some((format!("{}:{}", event.system, event.name), records))
        };
        self.by_id.iter().filter_map(named)
    }

    /// A sentence that tells it; `None` if there are none.
    #[must_use]
    pub fn in_words(&self, catalog: &Catalog) -> Option<String> {
        let events = self.events(catalog);
        let events: Vec<String> = events.map(|(name, n)| format!("{name} {n}")).collect();
        (!events.is_empty()).then(|| {
            format!(
                "{} events print their fields, as their print format cannot be evaluated: {}",
                self.total(),
                events.join(", ")
            )
        })
    }
}

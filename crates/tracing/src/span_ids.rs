//! The recorder's ids of the spans that are open.
//!
//! `tracing`'s registry gives ids again when spans have ended; those of the recorder are of one span
//! each. What a registry can keep with a span costs a lock and an allocation, so the ids are here: in
//! a table in which a span has one of a few places, which its id tells.

use std::sync::atomic::{AtomicU64, Ordering};

/// Places, a power of two.
const PLACES: usize = 1 << 14;
/// Places that a span may have, one behind the other.
const WINDOW: usize = 16;
/// Marks ids of spans that found no place: the registry's own, which may come again.
const REGISTRYS: u64 = 1 << 63;

/// A span: the registry's id, 0 none, and the recorder's, 0 if it is not recorded.
#[derive(Debug, Default)]
struct Place {
    registrys: AtomicU64,
    recorders: AtomicU64,
}

/// The open spans of one registry. Nobody asks for a span that another thread is adding or
/// removing: its id is not known to others yet, or not any more.
#[derive(Debug)]
pub(crate) struct SpanIds(Box<[Place]>);

impl SpanIds {
    pub(crate) fn new() -> Self {
        Self((0..PLACES).map(|_| Place::default()).collect())
    }

    fn places(&self, registrys: u64) -> impl Iterator<Item = &Place> {
        let hash = registrys.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        (0..WINDOW).map(move |i| &self.0[(hash as usize + i) & (PLACES - 1)])
    }

    /// Adds a span. Returns the id that it has for the recorder, which is not the one that was wanted if
    /// there is no place.
    pub(crate) fn add(&self, registrys: u64, wanted: u64) -> u64 {
        let take = |place: &&Place| {
            // Acquire: pairs with the release of `remove`, behind which the place is empty.
            place.registrys.load(Ordering::Relaxed) == 0
                && place
                    .registrys
                    .compare_exchange(0, registrys, Ordering::Acquire, Ordering::Relaxed)
                    .is_ok()
        };
        match self.places(registrys).find(take) {
            Some(place) => {
                place.recorders.store(wanted, Ordering::Relaxed);
                wanted
            }
            None => registrys | REGISTRYS,
        }
    }

    /// The span is not recorded.
    pub(crate) fn forget(&self, registrys: u64) {
        if let Some(place) = self.find(registrys) {
            place.recorders.store(0, Ordering::Relaxed);
        }
    }

    /// The recorder's id of a span; 0 if it is not recorded.
    pub(crate) fn get(&self, registrys: u64) -> u64 {
        self.find(registrys).map_or(registrys | REGISTRYS, |place| {
            place.recorders.load(Ordering::Relaxed)
        })
    }

    /// Removes a span. Returns its id as `get`.
    pub(crate) fn remove(&self, registrys: u64) -> u64 {
        let Some(place) = self.find(registrys) else {
            return registrys | REGISTRYS;
        };
        let id = place.recorders.swap(0, Ordering::Relaxed);
        place.registrys.store(0, Ordering::Release);
        id
    }

    fn find(&self, registrys: u64) -> Option<&Place> {
        // Relaxed: whoever has a span's id got it behind what `add` stored.
        self.places(registrys)
            .find(|place| place.registrys.load(Ordering::Relaxed) == registrys)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn open_spans_are_found_and_those_without_a_place_have_an_id_too() {
        let ids = SpanIds::new();
        let spans = 1..=2 * PLACES as u64;
        let given: Vec<_> = spans.clone().map(|span| ids.add(span, span + 7)).collect();
        let found: Vec<_> = spans.clone().map(|span| ids.get(span)).collect();
        assert_eq!(found, given);
        let placed = given.iter().filter(|&id| id & REGISTRYS == 0).count();
        assert!(placed > PLACES / 2 && placed <= PLACES, "{placed}");
        let removed: Vec<_> = spans.clone().map(|span| ids.remove(span)).collect();
        assert_eq!(removed, given);
        assert_eq!(ids.add(1, 9), 9);
    }
}

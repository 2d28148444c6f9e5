//! The spans that a thread is inside of, so that its innermost one is what it was before when one is
//! left: another of `tracing`, or one of the recorder's own.

use std::cell::Cell;

use outlive::dynamic::replace_current_span;

/// How deep it is known what a span is inside of.
const DEPTH: usize = 32;

/// A span that was entered, and which one was the innermost before.
type Entry = (u64, u64);

struct Entered {
    depth: Cell<usize>,
    entries: [Cell<Entry>; DEPTH],
}

thread_local! {
    static ENTERED: Entered = const {
        Entered {
            depth: Cell::new(0),
            entries: [const { Cell::new((0, 0)) }; DEPTH],
        }
    };
}

/// The thread enters a span.
pub(crate) fn enter(id: u64) {
    let before = replace_current_span(id);
    ENTERED.with(|entered| {
        let depth = entered.depth.get();
        if let Some(entry) = entered.entries.get(depth) {
            entry.set((id, before));
            entered.depth.set(depth + 1);
        }
    });
}

/// The thread leaves a span. `innermost` is asked where that is not known here.
pub(crate) fn exit(id: u64, innermost: impl FnOnce() -> u64) {
    match ENTERED.with(|entered| entered.remove(id)) {
        Some(Removed::Top(before)) => {
            replace_current_span(before);
        }
        Some(Removed::Inside) => {}
        None => {
            replace_current_span(innermost());
        }
    }
}

/// Where a span was that is left.
enum Removed {
    /// It was the innermost one; inside of this one.
    Top(u64),
    /// There are others inside of it.
    Inside,
}

impl Entered {
    fn remove(&self, id: u64) -> Option<Removed> {
        let depth = self.depth.get();
        let entries = &self.entries[..depth];
        let index = entries.iter().rposition(|entry| entry.get().0 == id)?;
        let before = entries[index].get().1;
        self.depth.set(depth - 1);
        let Some(above) = entries.get(index + 1) else {
            return Some(Removed::Top(before));
        };
        above.set((above.get().0, before));
        for i in index..depth - 1 {
            entries[i].set(entries[i + 1].get());
        }
        Some(Removed::Inside)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use outlive::dynamic::current_span;

    fn unknown() -> u64 {
        panic!("it is known what the span is inside of")
    }

    #[test]
    fn spans_may_be_left_in_any_order() {
        for id in 1..=4 {
            enter(id);
        }
        exit(2, unknown);
        assert_eq!(current_span(), 4);
        exit(4, unknown);
        assert_eq!(current_span(), 3);
        exit(3, unknown);
        assert_eq!(current_span(), 1);
        exit(1, unknown);
        assert_eq!(current_span(), 0);
    }

    #[test]
    fn deeper_than_is_known_the_registry_is_asked() {
        for id in 1..=DEPTH as u64 + 2 {
            enter(id);
        }
        exit(DEPTH as u64 + 2, || 99);
        assert_eq!(current_span(), 99);
        exit(DEPTH as u64 + 1, || DEPTH as u64);
        for id in (1..=DEPTH as u64).rev() {
            assert_eq!(current_span(), id);
            exit(id, unknown);
        }
    }
}

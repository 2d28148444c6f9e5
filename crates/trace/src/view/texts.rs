//! Which events have a text that is not the kernel's.

use outlive_event::{Unevaluated, event_id};

use super::View;

impl View {
    /// The events that `show` prints as fields, because their print format cannot be evaluated.
    #[must_use]
    pub fn unevaluated(&self) -> Unevaluated {
        let mut unevaluated = Unevaluated::default();
        let constants = self.catalog.constants();
        let formats = self.catalog.events();
        if formats.into_iter().all(|e| e.program(constants).is_ok()) {
            return unevaluated;
        }
        let mut events = self.events(None);
        while let Some(event) = events.next_event() {
            let format = event_id(event.payload).and_then(|id| self.catalog.event(id));
            unevaluated.count(format.filter(|format| format.program(constants).is_err()));
        }
        unevaluated
    }
}

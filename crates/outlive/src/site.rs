//! The places in a program where events are recorded.
//!
//! A site is a static. It knows its event's switch: a byte in the region, so that another process
//! may flip it. Before its first event, and without a recorder, it looks at a byte of the process
//! that stands for all sites which are not registered.

#![allow(unsafe_code)]

use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicU8, AtomicU16, Ordering};

use outlive_event::Predicate;
use outlive_ring::extension::switch;

/// The switch of all sites that are not registered: off without a recorder.
static UNREGISTERED: AtomicU8 = AtomicU8::new(switch::OFF);
/// The switch of sites whose event cannot be recorded: there are too many events.
static REFUSED: AtomicU8 = AtomicU8::new(switch::OFF);
/// The newest registered site; each knows the one before.
static REGISTERED: AtomicPtr<Site> = AtomicPtr::new(ptr::null_mut());

/// Instead of a package: this crate's own events. No package is called so.
pub(crate) const OWN: &str = "";

/// A place where an event is recorded.
///
/// *Invariants*
/// 1. `switch` points to one of the two statics or to a byte of a region, and a region that sites were
///    registered with stays mapped until the process ends.
/// 2. Every site in the list of `REGISTERED` is a static.
#[derive(Debug)]
pub struct Site {
    package: &'static str,
    name: &'static str,
    fields: &'static [&'static str],
    switch: AtomicPtr<AtomicU8>,
    id: AtomicU16,
    /// Keeps what it matches; null: everything. Leaked, as the region is.
    filter: AtomicPtr<Predicate>,
    before: AtomicPtr<Site>,
}

impl Site {
    /// A site of `package` that records the event `name`, which is `system:event` or `event`.
    #[must_use]
    pub const fn new(
        package: &'static str,
        name: &'static str,
        fields: &'static [&'static str],
    ) -> Self {
        Self {
            package,
            name,
            fields,
            switch: AtomicPtr::new(ptr::from_ref(&UNREGISTERED).cast_mut()),
            id: AtomicU16::new(0),
            filter: AtomicPtr::new(ptr::null_mut()),
            before: AtomicPtr::new(ptr::null_mut()),
        }
    }

    /// Whether the event is to be recorded.
    #[inline]
    #[must_use]
    pub fn is_enabled(&self) -> bool {
        // SAFETY: 1. Acquire: pairs with the registration, whose id is then seen too.
        let switch = unsafe { &*self.switch.load(Ordering::Acquire) };
        switch.load(Ordering::Relaxed) & switch::OFF == 0
    }

    /// Whether the event is recorded whatever its switch says: those of this crate, which are the
    /// other half of something that was recorded, or too rare and too important.
    pub(crate) fn is_unconditional(&self) -> bool {
        self.package == OWN
    }

    /// The event's id; `None` before the site is registered.
    #[inline]
    pub(crate) fn id(&self) -> Option<u16> {
        match self.id.load(Ordering::Relaxed) {
            0 => None,
            id => Some(id),
        }
    }

    /// What an event has to match to be recorded.
    #[inline]
    pub(crate) fn filter(&self) -> Option<&'static Predicate> {
        // SAFETY: leaked when it was stored. Acquire: pairs with that store.
        unsafe { self.filter.load(Ordering::Acquire).as_ref() }
    }

    /// Sets the filter, before the site is registered. Under the registry's lock.
    pub(crate) fn set_filter(&self, filter: Option<&'static Predicate>) {
        let filter = filter.map_or(ptr::null_mut(), |filter| ptr::from_ref(filter).cast_mut());
        self.filter.store(filter, Ordering::Release);
    }

    /// System and name of the event, and the names of its fields.
    pub(crate) fn describe(&self) -> (&'static str, &'static str, &'static [&'static str]) {
        let (system, name) = self
            .name
            .split_once(':')
            .unwrap_or((self.package, self.name));
        (system, name, self.fields)
    }

    /// Leaves the site without an id, and off.
    pub(crate) fn refuse(&'static self) {
        self.enlist(0, ptr::from_ref(&REFUSED).cast_mut());
    }

    /// Gives the site its id and its switch. Under the registry's lock.
    ///
    /// # Safety
    ///
    /// `switch` points to a byte of a region that stays mapped until the process ends.
    pub(crate) unsafe fn register(&'static self, id: u16, switch: *mut u8) {
        self.enlist(id, switch.cast());
    }

    fn enlist(&'static self, id: u16, switch: *mut AtomicU8) {
        self.id.store(id, Ordering::Relaxed);
        self.switch.store(switch, Ordering::Release);
        let before = REGISTERED.load(Ordering::Relaxed);
        self.before.store(before, Ordering::Relaxed);
        REGISTERED.store(ptr::from_ref(self).cast_mut(), Ordering::Relaxed);
    }
}

/// Whether sites may register: there is a recorder.
#[inline]
pub(crate) fn are_on() -> bool {
    UNREGISTERED.load(Ordering::Relaxed) & switch::OFF == 0
}

/// Lets sites register from now on.
pub(crate) fn switch_on() {
    UNREGISTERED.store(0, Ordering::Relaxed);
}

/// Switches all sites off, and forgets what they were registered with. Under the registry's lock.
pub(crate) fn switch_off() {
    UNREGISTERED.store(switch::OFF, Ordering::Relaxed);
    let mut next = REGISTERED.swap(ptr::null_mut(), Ordering::Relaxed);
    // SAFETY: 2.
    while let Some(site) = unsafe { next.as_ref() } {
        site.switch
            .store(ptr::from_ref(&UNREGISTERED).cast_mut(), Ordering::Relaxed);
        site.id.store(0, Ordering::Relaxed);
        next = site.before.load(Ordering::Relaxed);
    }
}

/// Whether `name` is `system:event` or `event`, both of letters, digits and `_`, the event with no
/// digit first.
#[must_use]
pub const fn is_event_name(name: &str) -> bool {
    let bytes = name.as_bytes();
    let (mut i, mut word, mut words) = (0, 0, 1);
    while i < bytes.len() {
        match bytes[i] {
            b':' if word > 0 && words == 1 => (word, words) = (0, 2),
            b'0'..=b'9' if word > 0 => word += 1,
            b'a'..=b'z' | b'A'..=b'Z' | b'_' => word += 1,
            _ => return false,
        }
        i += 1;
    }
    word > 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_events_are_words() {
        for name in ["a", "http:request", "a_1:b2"] {
            assert!(is_event_name(name), "{name}");
        }
        for name in ["", ":", "a:", ":b", "a:b:c", "1a", "a:2b", "a-b", "ä"] {
            assert!(!is_event_name(name), "{name}");
        }
    }
}

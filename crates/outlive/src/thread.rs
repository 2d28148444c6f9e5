//! What a thread remembers: thread-local, without a destructor, so that a signal handler may use it
//! and so that it is there until the very end of the thread.

#![allow(unsafe_code)]

use std::cell::Cell;

use outlive_ring::ThreadSlot;

/// A thread that records.
#[derive(Debug)]
pub(crate) struct Thread {
    /// Its place among the threads that have lanes.
    pub(crate) slot: ThreadSlot,
    /// The recorder that it is known to; 0 none.
    pub(crate) recorder: Cell<u32>,
    /// Its id.
    pub(crate) id: Cell<u32>,
    /// The innermost open span; 0 none.
    pub(crate) span: Cell<u64>,
    /// Ids of spans that are left to it: the next one, and behind the last.
    pub(crate) span_ids: Cell<(u64, u64)>,
}

thread_local! {
    static THREAD: Thread = const {
        Thread {
            slot: ThreadSlot::new(),
            recorder: Cell::new(0),
            id: Cell::new(0),
            span: Cell::new(0),
            span_ids: Cell::new((0, 0)),
        }
    };
}

impl Thread {
    /// Does something with the thread that runs. `f` becomes a part of the caller, where the length of
    /// an event is known when it is compiled.
    #[inline(always)]
    pub(crate) fn with<R>(f: impl FnOnce(&Self) -> R) -> R {
        let thread = THREAD.with(std::ptr::from_ref);
        // SAFETY: it is there as long as the thread, which is here: it has no destructor.
        f(unsafe { &*thread })
    }

    /// Forgets everything: in a forked child it is the parent's.
    pub(crate) fn forget(&self) {
        self.slot.forget();
        self.recorder.set(0);
    }
}

//! What a thread remembers: thread-local, without a destructor, so that a signal handler may use it
//! and so that it is there until the very end of the thread.

#![allow(unsafe_code)]

use std::cell::Cell;
use std::ptr;

use outlive_ring::ThreadSlot;

/// A thread that records.
#[derive(Debug)]
pub(crate) struct Thread {
    /// Its place among the threads that have lanes.
    pub(crate) slot: ThreadSlot<'static>,
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
    /// The thread that runs.
    #[inline(always)]
    pub(crate) fn current() -> &'static Self {
        let thread = THREAD.with(ptr::from_ref);
        // SAFETY: without a destructor it is there as long as the thread, and no other thread gets the
        // reference: the cells are not `Sync`.
        unsafe { &*thread }
    }

    /// Forgets everything: in a forked child it is the parent's.
    pub(crate) fn forget(&self) {
        self.slot.forget();
        self.recorder.set(0);
    }
}

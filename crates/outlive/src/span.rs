//! Spans: something that begins, goes on for a while, and ends.
//!
//! A span is two events. That of the beginning has the span's id and its parent's before its own
//! fields; `outlive:span_end` has the id. A span without an end was open when the program died.

use std::marker::PhantomData;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::recorder::record;
use crate::site::{OWN, Site};
use crate::thread::Thread;

/// Ids that a thread takes at a time.
const BLOCK: u64 = 1 << 16;
/// The next id that no thread has.
static NEXT: AtomicU64 = AtomicU64::new(1);

/// A span that is open until this is dropped. Made by [`span!`](crate::span!).
#[derive(Debug)]
#[must_use = "the span ends when this is dropped"]
pub struct Span {
    /// 0: it is not recorded.
    id: u64,
    parent: u64,
    /// It ends in the thread in which it began.
    not_send: PhantomData<*const ()>,
}

impl Span {
    /// A span whose beginning is recorded: it is the thread's innermost one now.
    #[doc(hidden)]
    pub fn begun(id: u64, parent: u64) -> Self {
        Thread::current().span.set(id);
        Self {
            id,
            parent,
            not_send: PhantomData,
        }
    }

    /// A span that is not recorded.
    #[doc(hidden)]
    pub fn none() -> Self {
        Self {
            id: 0,
            parent: 0,
            not_send: PhantomData,
        }
    }

    /// Its id; 0 if it is not recorded. No other span of this program's run has it.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.id
    }

    /// The id of the span that it is inside of; 0 none.
    #[must_use]
    pub fn parent(&self) -> u64 {
        self.parent
    }
}

impl Drop for Span {
    fn drop(&mut self) {
        if self.id != 0 {
            leave(self.id, self.parent);
            record_end(self.id);
        }
    }
}

/// A new span's id, and that of the thread's innermost one.
pub fn new_span() -> (u64, u64) {
    let thread = Thread::current();
    (next_id(thread), thread.span.get())
}

/// The span is not the thread's innermost any more. One that is left before those inside of it
/// leaves them as they are.
pub(crate) fn leave(id: u64, parent: u64) {
    let span = &Thread::current().span;
    if span.get() == id {
        span.set(parent);
    }
}

/// Records that a span has ended.
pub(crate) fn record_end(id: u64) {
    static END: Site = Site::new(OWN, "outlive:span_end", &["span_id"]);
    record(&END, &(id,));
}

/// An id that no span has yet.
pub(crate) fn next_id(thread: &Thread) -> u64 {
    let (mut next, mut end) = thread.span_ids.get();
    if next == end {
        next = NEXT.fetch_add(BLOCK, Ordering::Relaxed);
        end = next + BLOCK;
    }
    thread.span_ids.set((next + 1, end));
    next
}

//! Nothing is allocated for events and spans at call sites that were met before.

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use common::{Folder, recorded, start, with_layer};

/// The system's, counting what each thread asks for.
struct Counting;

thread_local! {
    static COUNT: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: passes everything on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNT.with(|count| count.set(count.get() + 1));
        // SAFETY: the caller's promise is that of the system's allocator.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise is that of the system's allocator.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn count() -> u64 {
    COUNT.with(Cell::get)
}

fn work(n: u64) {
    let span = tracing::info_span!("work", n, late = tracing::field::Empty);
    let entered = span.enter();
    tracing::info!(n, text = "some text", float = 0.5, debug = ?(n, n), "a message {}", n);
    // More shapes than are kept.
    let bit = |bit| (n & bit != 0).then_some(n);
    tracing::debug!(a = bit(1), b = bit(2), c = bit(4), d = bit(8));
    span.record("late", n);
    drop(entered);
}

#[test]
fn after_the_first_time_nothing_is_allocated() {
    let folder = Folder::new();
    let _recorder = start(&folder);
    with_layer(|| {
        // All shapes, and the pages of the registry of spans.
        (0..16).for_each(work);
        let before = count();
        (16..1_000).for_each(work);
        assert_eq!(count() - before, 0);
        // What is counted is what is said.
        let text = std::hint::black_box(String::from("allocated"));
        assert_eq!(count() - before, 1);
        drop(text);
    });
    assert_eq!(recorded(&folder).len(), 5 * 1_000);
}

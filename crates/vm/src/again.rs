//! Emulation has some kernels die by themselves (6.12 in one boot of ten: the processor's flags are not
//! those that were saved). That says nothing about what a test looks at.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

thread_local! {
    /// Whether a guest of this thread died by itself since the flag was taken back.
    static HAS_DIED: Cell<bool> = const { Cell::new(false) };
}

/// How often a test is run in which the guest dies by itself.
const TRIES: u32 = 10;

/// Whether a kernel died on this console that nobody told to.
pub(crate) fn is_dead_by_itself(console: &str) -> bool {
    let words = ["Fatal exception", "Attempted to kill init"];
    words.iter().any(|word| console.contains(word))
}

/// Notes a console on which a kernel died that nobody told to.
pub(crate) fn note(console: &str) {
    if is_dead_by_itself(console) {
        HAS_DIED.set(true);
    }
}

/// Runs a test; once more, if it failed and a guest had died by itself.
///
/// # Panics
/// As the test, where no guest had died, and at the last try.
pub fn again(test: impl Fn()) {
    for _ in 1..TRIES {
        HAS_DIED.set(false);
        match catch_unwind(AssertUnwindSafe(&test)) {
            Ok(()) => return,
            Err(_) if HAS_DIED.get() => println!("a guest died under emulation: once more"),
            Err(failure) => resume_unwind(failure),
        }
    }
    test();
}

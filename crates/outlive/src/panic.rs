//! Panics, as events: what is looked for first after a crash.

use std::panic::PanicHookInfo;
use std::sync::Once;

use crate::recorder::record;
use crate::site::{OWN, Site};

/// Records every panic from now on, before what was done with it so far.
pub(crate) fn install_hook() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            record_panic(info);
            before(info);
        }));
    });
}

fn record_panic(info: &PanicHookInfo<'_>) {
    static PANIC: Site = Site::new(
        OWN,
        "outlive:panic",
        &["message", "file", "line", "column", "thread"],
    );
    let message = info.payload_as_str().unwrap_or("a value that is no text");
    let (file, line, column) = info.location().map_or(("", 0, 0), |location| {
        (location.file(), location.line(), location.column())
    });
    let thread = std::thread::current();
    let thread = thread.name().unwrap_or("");
    record(&PANIC, &(message, file, line, column, thread));
}

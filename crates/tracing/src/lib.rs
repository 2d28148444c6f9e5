//! The events and spans of [`tracing`](https://docs.rs/tracing) in outlive's flight recorder: they
//! are still there when the program is not.
//!
//! ```
//! use tracing_subscriber::prelude::*;
//!
//! # let state = tempfile::tempdir().unwrap();
//! let _recorder = outlive::Recorder::builder("shop")
//! #   .state(state.path())
//! #   .backing(outlive::Backing::File)
//!     .start()?;
//! tracing_subscriber::registry().with(outlive_tracing::layer()).init();
//!
//! let _request = tracing::info_span!("request", path = "/orders").entered();
//! tracing::warn!(id = 7, customer = "Ada", "no such order");
//! # Ok::<(), outlive::Error>(())
//! ```
//!
//! Whatever kills the program, `outlive show shop` prints
//!
//! ```text
//!   shop-359     [001] ..... 22663.252640: request: span_id=1 span_parent=0 level=INFO path=/orders
//!   shop-359     [001] ..... 22663.252644: main_12: level=WARN span=1 message=no such order id=7 customer=Ada
//! ```
//!
//! # Names
//!
//! An event's system is its target, with `_` for each character that is no letter and no digit: `h2::proto`
//! is `h2__proto`. Its name is what it was given (`name: "checkout"`), or its place in the source: line 12
//! of `main.rs` is `main_12`. Those are the names that `outlive show --event`, `outlive enable` and `outlive
//! disable` take.
//!
//! # Fields
//!
//! Integers of 64 bits, floats, `bool`, texts and bytes keep their types; whatever else there is becomes
//! text. `level` is 1 for an error and 5 for a trace, so `--filter 'level <= 2'` has what went wrong. What
//! does not fit the 4080 bytes of a sub-buffer is cut, and marked. A call site whose fields are not always
//! the same, or not always of the same type, is several events of the same name; from the ninth on all
//! fields of it are text.
//!
//! # Spans
//!
//! A span begins when it is made, with an event of its name, and ends when its last handle is dropped,
//! with `outlive:span_end`. One without an end was open when the program died. Values that are recorded
//! later come as `NAME_record`. Entering and leaving is not recorded: each event has the span that its
//! thread is inside of.
//!
//! # What it costs
//!
//! No allocation, no lock and no system call, but for the first time at each call site, where its format
//! goes into the region's catalog, and for what the values' own `Debug` does. `cargo xtask bench tracing`
//! has the figures.

#![forbid(unsafe_code)]

mod callsite;
mod entered;
mod layer;
mod name;
mod shape;
mod span_ids;

pub use layer::{OutliveLayer, layer};

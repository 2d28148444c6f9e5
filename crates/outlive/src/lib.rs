//! A flight recorder in any program: typed events go into memory that is still there when the
//! program is not. No daemon, no root, no system call per event, and no code that has to run at
//! the moment of death.
//!
//! ```
//! # let state = tempfile::tempdir().unwrap();
//! let recorder = outlive::Recorder::builder("shop")
//! #   .state(state.path())
//! #   .backing(outlive::Backing::File)
//!     .start()?;
//! if let Some(previous) = recorder.previous() {
//!     eprintln!("the run before ended with: {}", previous.verdict());
//! }
//! outlive::event!("shop:order", id = 7u64, items = 3u32, customer = "Ada");
//! # Ok::<(), outlive::Error>(())
//! ```
//!
//! After a crash `outlive show shop` prints the last events, and so does the next start's
//! `outlive show shop/N` for the generation that it kept.
//!
//! # What it survives
//!
//! The death of the process, whatever the cause: every event whose [`event!`] has returned is
//! there. With the default backing, a tmpfs, not that of the machine: see [`Builder::backing`].
//!
//! # What it costs
//!
//! An event of two integers takes about as long as reading the clock with `clock_gettime` plus ten
//! nanoseconds. One that is switched off costs a load and a branch. Nothing on that way blocks or
//! allocates; an event that cannot be written is dropped and counted.
//!
//! # Threads, signals, processes
//!
//! * Any number of threads may record, also in a signal handler. See [`outlive_ring::Lanes`].
//! * A child made by `fork` gets a region of its own with its first event: see [`Recorder`].
//! * `exec` ends the recording; what was recorded is kept by the next start, as after a crash.
//! * Under `outlive run` the recorder of the first process takes the region that the supervisor
//!   gives, and that of each further one has a region beside it: see [`Given`].

#![deny(unsafe_code)]

mod background;
mod beside;
mod builder;
mod clock;
mod control;
pub mod dynamic;
mod encode;
mod error;
mod field;
mod fork;
mod format;
mod given;
mod handed;
mod macros;
mod panic;
mod place;
mod previous;
mod recorder;
mod registry;
mod scratch;
mod site;
mod span;
mod system;
mod thread;

pub use builder::Builder;
pub use error::Error;
pub use field::{Array, Field, FieldType};
pub use given::Given;
pub use outlive_trace::{Backing, Verdict};
pub use previous::Previous;
pub use recorder::Recorder;
pub use span::Span;

#[doc(hidden)]
pub mod __private {
    pub use crate::encode::Values;
    pub use crate::recorder::record;
    pub use crate::site::{Site, is_event_name};
    pub use crate::span::new_span;
}

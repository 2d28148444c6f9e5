//! outlive's flight recorder for programs in C and in whatever calls C. `include/outlive.h` is made
//! from this crate by `cargo xtask header`; `cargo xtask capi PREFIX` builds and installs header,
//! libraries and the pkg-config file.
//!
//! What a caller hands over is looked at in `pointer` alone: null is told, and so are lengths and
//! struct sizes that cannot be. No panic leaves a function: it becomes a status.

#![deny(unsafe_code)]
#![allow(
    non_camel_case_types,
    clippy::missing_safety_doc,
    unreachable_pub,
    reason = "the names, and the promises of the callers, are those of the header"
)]

mod error;
mod event;
mod pointer;
mod recorder;
mod span;
mod status;
mod value;

pub use error::*;
pub use event::*;
pub use recorder::*;
pub use span::*;
pub use status::*;
pub use value::*;

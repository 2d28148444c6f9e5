//! The same damage for a kernel and for outlive.
//!
//! Recorded regions ([`Base`]) are damaged in ways that have a name ([`named`]) and in ways that are drawn
//! from a seed ([`random`]). Each [`Damage`] is put into a guest's memory, many to a boot, and the kernel says what
//! it keeps ([`outcomes_of`]): the events of the raw pages, which are compared with those of the undamaged
//! region by CPU, time and payload. What it said is recorded ([`Judge`]), so that a [`Comparison`] needs no
//! guest. `tests/damage.rs` writes `docs/damages.md` from it.

mod base;
mod changed;
mod compare;
mod draft;
mod edit;
mod guest;
mod named;
mod outcome;
mod random;
mod recording;

pub use base::{Base, Identity, KeptEvent};
pub use changed::{Change, Changed, Mark};
pub use compare::{Comparison, Kept, Sealed};
pub use draft::Damage;
pub use edit::{Bytes, Edit, apply};
pub use guest::{Guest, outcomes_of};
pub use named::named;
pub use outcome::{Outcome, Record, Shown, Split, TRACE_LIMIT};
pub use random::random;
pub use recording::{JUDGES, Judge, Set};

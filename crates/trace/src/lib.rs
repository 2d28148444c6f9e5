//! Where outlive keeps its traces: areas and their backings, the boot command line, and what a
//! start keeps of the run before.
//!
//! An **area** is a named stretch of memory that outlives its writer ([`Area`], [`Backing`]). Its
//! bytes are reached through a [`Mapping`]. Everything else lies in the **state folder**
//! ([`StateDir`]), which one recorder at a time may change ([`StateLock`]). What a run leaves
//! behind becomes a **generation** ([`Generation`]), of which [`retention`] keeps some.
//!
//! ```
//! use outlive_trace::{Area, AreaRequest, Backing, StateDir};
//!
//! # fn main() -> Result<(), outlive_trace::Error> {
//! # let folder = tempfile::tempdir().unwrap();
//! # let path = folder.path().join("state");
//! let state = StateDir::open(&path)?;
//! let lock = state.try_lock_exclusive()?;
//! let request = AreaRequest::new("trace", Backing::File, 1 << 20).with_extension(64 << 10);
//! let area = Area::reserve(&request, &state, &lock)?;
//! let mapping = area.map()?;
//! assert_eq!(mapping.len(), (1 << 20) + (64 << 10));
//! # Ok(())
//! # }
//! ```
//!
//! # Features
//!
//! * `failpoints`: a process kills itself at the step that `OUTLIVE_FAILPOINT` names. For tests.

#![deny(unsafe_code)]

pub mod apps;
mod area;
mod backing;
pub mod beside;
pub mod chores;
pub mod clock;
pub mod cmdline;
mod devdax;
mod durable;
mod error;
pub mod failpoint;
mod fit;
pub mod generation;
pub mod harvest;
pub mod host;
pub mod intervals;
mod iomem;
mod lock;
mod mapping;
mod name;
mod neighbours;
mod place;
pub mod recording;
pub mod retention;
mod spare;
pub mod start;
mod state;
mod switches;
pub mod tail;
#[cfg(test)]
mod testing;
pub mod verdict;
pub mod view;

pub use area::{Area, AreaRequest, BackupMethod};
pub use backing::Backing;
pub use beside::Beside;
pub use chores::Chores;
pub use error::{Error, Holder};
pub use fit::skip_unfit;
pub use generation::{
    CopySource, Generation, GenerationState, Meta, Tidied, keep_by_copy, rotate_file_area, tidy,
};
pub use iomem::{IoMemory, IoMemoryProblem};
pub use lock::{MemoryLock, StateLock};
pub use mapping::{Access, Mapping};
pub use place::RegionPlace;
pub use recording::Recording;
pub use start::{EventSource, Live, Start, Started, Step};
pub use state::{InstanceEntry, Instances, StateDir};
pub use switches::{EventSwitch, Switches};
pub use verdict::Verdict;

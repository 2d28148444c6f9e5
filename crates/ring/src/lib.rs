//! The persistent ring buffer: memory laid out as Linux 7.3 lays out its own persistent trace
//! buffer, with a writer, readers and recovery.
//!
//! A *region* is a ring buffer in some memory that outlives the program: one block per CPU, each
//! with an index array and *sub-buffers* of 4 KiB. Behind it lies outlive's *extension* (run
//! record, catalog, seals, counters, cursors), which a region written by a kernel lacks. The byte
//! layouts are drawn in `docs/design.md`.
//!
//! ```
//! use outlive_ring::{Geometry, HeapMemory, Recovery, Region, extension::Layout};
//!
//! // A 64 KiB ring for two CPUs and its extension, in memory that would be a file or a DAX device.
//! let geometry = Geometry::new(64 << 10, 2).unwrap();
//! let layout = Layout::new(&geometry, 16 << 10, 64);
//! let memory = HeapMemory::new(layout.area_size() as usize);
//! let region = Region::format(&memory, geometry, Some(layout)).unwrap();
//!
//! let mut writer = region.writer(0).unwrap();
//! let event = writer.reserve(12, 1_000).unwrap();
//! writer.write(&event, 0, b"hello, crash");
//! writer.commit(event);
//! // The program dies here: nothing has to run for the event to be kept.
//!
//! let recovery = Recovery::new(&memory).unwrap();
//! assert_eq!(recovery.cpu(0).entries, 1);
//! ```
//!
//! # Entry points
//!
//! * [`Geometry`]: where everything lies in a region of a given size.
//! * [`Region`] and [`CpuWriter`]: laying out a region and writing it.
//! * [`Lanes`]: writing it from many threads at once.
//! * [`LiveReader`]: reading while the writer runs, consuming or not.
//! * [`Recovery`]: what can be kept of a region that somebody else left.
//! * [`subbuf`]: the events of one sub-buffer.
//!
//! # Features
//!
//! * `std` (default): the CRC32C instructions, found at run time.

#![no_std]
#![warn(clippy::std_instead_of_core, clippy::std_instead_of_alloc)]

extern crate alloc;
#[cfg(any(test, feature = "std"))]
extern crate std;

mod cache;
pub mod catalog;
mod crc;
pub mod extension;
mod lanes;
pub mod layout;
mod memory;
mod order;
mod other_layout;
mod padded;
mod page_builder;
pub mod raw_page;
mod reader;
mod recovery;
pub mod run;
pub mod seal;
pub mod subbuf;
mod sync;
mod writer;

pub use crc::crc32c;
pub use lanes::{Barrier, Inside, Lanes, NoLane, Owner, Slot, ThreadSlot};
pub use layout::{Geometry, LayoutError, RegionFormat, Scratch};
pub use memory::{HeapMemory, Memory, MemoryMut, RawMemory, Tail};
pub use page_builder::PageBuilder;
pub use reader::{Chunk, LiveReader};
pub use recovery::{Hole, MetaDamage, Page, PageSource, Reason, RecoveredCpu, Recovery, Rejected};
pub use run::{RunId, RunRecord, RunState};
pub use subbuf::{Event, Events, Missed};
pub use writer::{CpuWriter, Region, Reservation, ReserveError, TakeOverError};

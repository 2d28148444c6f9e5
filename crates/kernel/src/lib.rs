//! The host kernel's tracefs as a source of events.
//!
//! A [`Recorder`] follows the per-CPU ring buffers of host [`Instance`]s through a mapping of their
//! `trace_pipe_raw`, without consuming anything: what was copied goes to a [`SubbufSink`], and the
//! kernel's ring stays a second copy, from which [`drain`] takes what was not copied yet when a
//! recorder died. Nothing outside of its own instances is changed on the machine.
//!
//! ```no_run
//! use std::sync::atomic::AtomicBool;
//! use outlive_kernel::{
//!     Access, CpuId, EventName, Instances, Pace, Recorder, RunId, StateId, SubbufSink, Tracefs,
//! };
//!
//! #[derive(Default)]
//! struct Bytes(usize);
//! impl SubbufSink for Bytes {
//!     fn begin(&mut self, _cpu: CpuId, _time_stamp: u64) {}
//!     fn append(&mut self, _cpu: CpuId, bytes: &[u8]) {
//!         self.0 += bytes.len();
//!     }
//!     fn end(&mut self, _cpu: CpuId) {}
//!     fn lost(&mut self, _cpu: CpuId, _events: Option<u64>) {}
//!     fn settled(&mut self, _cpu: CpuId, _events: u64) {}
//! }
//!
//! let tracefs = Tracefs::find()?;
//! let instance = Instances::new(&tracefs, StateId(1)).create(RunId(1), "boot_mapped")?;
//! // First the mapping, then the events: so that the sub-buffers' ids are the ring's order.
//! let mut recorder = Recorder::new([instance.clone()], Access::default())?;
//! instance.enable_event(&EventName::new("sched", "sched_switch"))?;
//! let stop = AtomicBool::new(false); // set by a signal handler
//! recorder.run(&mut [Bytes::default()], &stop, &Pace::default(), |_, _| {})?;
//! # Ok::<(), outlive_kernel::Error>(())
//! ```
//!
//! Entry points: [`Tracefs::find`], [`Instances`], [`Recorder`], [`drain`]. What a reader needs to
//! decode the events later: [`Tracefs::event_format`], [`scan_tasks`], [`loaded_modules`],
//! [`clock_pair`].
//!
//! The unsafe code is in one module, the mapping. It is verified on x86-64, whose loads and stores
//! keep their order; the kernel's own ordering of a sub-buffer's words is relied upon there.
#![deny(unsafe_code)]

#[cfg(test)]
extern crate self as outlive_kernel;

mod boot_instance;
mod capture;
mod catalog_writer;
mod clock;
#[cfg(test)]
#[path = "../tests/common/collect.rs"]
#[allow(
    unreachable_pub,
    reason = "shared with the tests of the public surface"
)]
mod collect;
mod constants;
mod cpus;
mod drain;
mod error;
mod follower;
mod instance;
mod instance_folder;
mod instance_name;
mod leftover;
#[allow(
    unsafe_code,
    reason = "the mapping of trace_pipe_raw is read here and nowhere else"
)]
mod mapped;
mod modules;
mod names;
mod reader;
mod recorder;
mod refresher;
mod region_sink;
#[cfg(test)]
mod simulated;
mod sink;
mod source;
mod stats;
mod subbuf;
mod tracefs;

pub use boot_instance::{BootInstance, Harvested, Harvester, Keeper, RecordingWriter};
pub use capture::{Capture, Running};
pub use catalog_writer::CatalogWriter;
pub use clock::{ClockPair, clock_pair};
pub use cpus::{CpuId, nr_cpu_ids, online_cpus, possible_cpus};
pub use drain::{Drained, DrainedCpu, drain, drain_cpu, freeze};
pub use error::{Error, Holder, Refusal, in_container, lockdown};
pub use follower::{CpuFollower, EventCount, Progress, Unmapped};
pub use instance::{Instance, Instances};
pub use instance_folder::InstanceFolder;
pub use instance_name::{InstanceName, RunId, StateId};
pub use leftover::{COLLECT_STEPS, Collected, Collector};
pub use mapped::PAGE_BYTES;
pub use modules::{Module, loaded_modules};
pub use names::{TaskName, scan_tasks, task_name};
pub use reader::CpuReader;
pub use recorder::{DELAY_BUCKETS, Delays, Pace, Recorder, Tick};
pub use refresher::Refresher;
pub use region_sink::RegionSink;
pub use sink::{Appended, SubbufSink};
pub use source::{Access, InstanceSource, SourceProgress};
pub use stats::{CpuStats, StatsFile, StatsTime};
pub use subbuf::{DATA_BYTES, HEADER_BYTES};
pub use tracefs::{EventName, Tracefs, unescape_mount};

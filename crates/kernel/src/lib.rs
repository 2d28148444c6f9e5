//! The host kernel's tracefs as a source of events.
#![deny(unsafe_code)]

#[cfg(test)]
extern crate self as outlive_kernel;

mod catalog_writer;
mod clock;
#[cfg(test)]
#[path = "../tests/common/collect.rs"]
#[allow(
    unreachable_pub,
    reason = "shared with the tests of the public surface"
)]
mod collect;
mod cpus;
mod drain;
mod error;
mod follower;
mod instance;
mod instance_name;
#[allow(
    unsafe_code,
    reason = "the mapping of trace_pipe_raw is read here and nowhere else"
)]
mod mapped;
mod reader;
mod recorder;
mod region_sink;
#[cfg(test)]
mod simulated;
mod sink;
mod source;
mod stats;
mod subbuf;
mod tracefs;

pub use catalog_writer::CatalogWriter;
pub use clock::{ClockPair, clock_pair};
pub use cpus::{CpuId, nr_cpu_ids, online_cpus, possible_cpus};
pub use drain::{Drained, DrainedCpu, drain, drain_cpu, freeze};
pub use error::{Error, Holder, Refusal};
pub use follower::{CpuFollower, EventCount, Progress};
pub use instance::{Instance, Instances};
pub use instance_name::{InstanceName, RunId, StateId};
pub use mapped::PAGE_BYTES;
pub use reader::CpuReader;
pub use recorder::{DELAY_BUCKETS, Delays, Pace, Recorder, Tick};
pub use region_sink::RegionSink;
pub use sink::SubbufSink;
pub use source::{Access, InstanceSource, SourceProgress};
pub use stats::{CpuStats, StatsFile, StatsTime};
pub use subbuf::{DATA_BYTES, HEADER_BYTES};
pub use tracefs::{EventName, Tracefs};

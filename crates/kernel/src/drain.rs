//! Reading what a leftover host instance still holds.
//!
//! Recording into it is stopped first. Then every CPU's ring is mapped and all its sub-buffers are
//! delivered whole, in order. Nothing is consumed, so a drain that was killed can be done again; the
//! instance is removed only after what was delivered is safe. Sub-buffers that were followed
//! before come again: the same time stamp, and the longer commit is the later state.

use crate::cpus::CpuId;
use crate::error::Error;
use crate::instance::Instance;
use crate::mapped::{MappedRing, ReaderPage};
use crate::reader::CpuReader;
use crate::sink::SubbufSink;
use crate::stats::CpuStats;
use crate::subbuf::{DATA_BYTES, Records, SubbufHeader, SubbufId};

/// What a drained instance had.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Drained {
    /// The instance's trace clock.
    pub clock: String,
    /// Each CPU that had a ring.
    pub cpus: Vec<DrainedCpu>,
}

/// What one CPU's ring had.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct DrainedCpu {
    /// The CPU.
    pub cpu: CpuId,
    /// The kernel's counters, as they were before anything was read.
    pub stats: CpuStats,
    /// Sub-buffers delivered.
    pub subbufs: u64,
    /// Events in them.
    pub events: u64,
    /// Whether the events had to be consumed, because the kernel refuses the mapping.
    pub is_consumed: bool,
}

/// Stops recording into an instance and delivers all that it holds.
///
/// # Errors
/// The instance or one of its rings cannot be read; what was delivered so far comes again next time.
pub fn drain(instance: &Instance, sink: &mut impl SubbufSink) -> Result<Drained, Error> {
    freeze(instance)?;
    let clock = instance.trace_clock()?;
    let mut cpus = Vec::new();
    for cpu in instance.cpus()? {
        cpus.extend(drain_cpu(instance, cpu, sink)?);
    }
    Ok(Drained { clock, cpus })
}

/// Stops recording and takes the events away, so that they cost nothing any more.
///
/// # Errors
/// The kernel refuses.
pub fn freeze(instance: &Instance) -> Result<(), Error> {
    instance.set_tracing_on(false)?;
    instance.disable_all_events()
}

/// Delivers what one CPU of a frozen instance holds. `None` if the CPU never had a ring.
///
/// # Errors
/// As [`drain`].
pub fn drain_cpu(
    instance: &Instance,
    cpu: CpuId,
    sink: &mut impl SubbufSink,
) -> Result<Option<DrainedCpu>, Error> {
    let stats = instance.stats(cpu)?.read()?;
    let raw = instance.open_raw(cpu)?;
    match MappedRing::map(cpu, &raw) {
        Ok(ring) => Ok(Some(drain_ring(cpu, &ring, stats, sink))),
        Err(Error::MapRefused { .. }) if stats.written() == 0 => Ok(None),
        Err(Error::MapRefused { .. }) => {
            let mut reader = CpuReader::new(cpu, raw, instance.stats(cpu)?);
            let subbufs = drain_reader(&mut reader, sink)?;
            let events = reader.count().delivered;
            Ok(Some(DrainedCpu {
                cpu,
                stats,
                subbufs,
                events,
                is_consumed: true,
            }))
        }
        Err(e) => Err(e),
    }
}

fn drain_reader(reader: &mut CpuReader, sink: &mut impl SubbufSink) -> Result<u64, Error> {
    let mut subbufs = 0;
    loop {
        let progress = reader.poll(sink)?;
        subbufs += progress.subbufs;
        if progress.is_caught_up {
            reader.finish(sink)?;
            return Ok(subbufs);
        }
    }
}

fn drain_ring(
    cpu: CpuId,
    ring: &MappedRing,
    stats: CpuStats,
    sink: &mut impl SubbufSink,
) -> DrainedCpu {
    let mut drained = DrainedCpu {
        cpu,
        stats,
        subbufs: 0,
        events: 0,
        is_consumed: false,
    };
    let mut buf = [0; DATA_BYTES];
    for (id, header) in in_order(ring, &stats) {
        if !ring.read_data(id, header.time_stamp, (0, header.size), &mut buf) {
            continue; // Somebody switched recording on again and the writer took it.
        }
        sink.begin(cpu, header.time_stamp);
        sink.append(cpu, &buf[..header.size]);
        sink.end(cpu);
        drained.subbufs += 1;
        drained.events += Records::count(&buf[..header.size]).events;
    }
    drained
}

/// All sub-buffers with unconsumed events, oldest first: the reader page, then from the head around
/// the ring. If somebody consumed from a mapping that still lives, ids are no order; then by time.
fn in_order(ring: &MappedRing, stats: &CpuStats) -> Vec<(SubbufId, SubbufHeader)> {
    let ReaderPage { id: reader, read } = ring.reader();
    let with_header = |id: u32| Some((SubbufId(id), ring.header(SubbufId(id))?));
    let pages = (0..ring.nr_subbufs()).filter_map(with_header);
    let mut pages: Vec<_> = pages
        .filter(|(id, h)| h.size > if *id == reader { read } else { 0 })
        .collect();
    if reader != SubbufId(0) {
        pages.sort_by_key(|(_, header)| header.time_stamp);
        return pages;
    }
    let from_ring = usize::from(pages.first().is_some_and(|(id, _)| *id == reader));
    let is_head = |(_, h): &(SubbufId, SubbufHeader)| stats.oldest_event_ts.is_of(h.time_stamp);
    let head = pages[from_ring..].iter().position(is_head).unwrap_or(0);
    pages[from_ring..].rotate_left(head);
    pages
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collect::Collected;
    use crate::simulated::SimulatedRing;
    use crate::stats::StatsFile;

    fn drained(ring: &SimulatedRing) -> (DrainedCpu, Collected) {
        let mapped = MappedRing::map(CpuId(0), ring.file()).unwrap();
        let stats = StatsFile::open(ring.stats_path()).unwrap().read().unwrap();
        let mut sink = Collected::default();
        (drain_ring(CpuId(0), &mapped, stats, &mut sink), sink)
    }

    #[test]
    fn ring_is_walked_from_its_head_wherever_that_is() {
        for pages in 1..12 {
            let mut ring = SimulatedRing::new(6);
            ring.fill(pages);
            let (drained, sink) = drained(&ring);
            assert_eq!(drained.subbufs, pages.min(5) as u64);
            assert_eq!(drained.events, drained.stats.entries);
            assert!(
                sink.pages(CpuId(0))
                    .windows(2)
                    .all(|pair| pair[0].0 < pair[1].0)
            );
        }
    }

    #[test]
    fn empty_ring_has_nothing() {
        assert_eq!(drained(&SimulatedRing::new(4)).0.subbufs, 0);
    }
}

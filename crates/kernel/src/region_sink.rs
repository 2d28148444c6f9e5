//! The way of the host's sub-buffers into a region.

use outlive_ring::extension::{Counter, count};
use outlive_ring::{CpuWriter, MemoryMut, Missed, Region};

use crate::catalog_writer::CatalogWriter;
use crate::cpus::CpuId;
use crate::sink::{Appended, SubbufSink};

/// Takes the sub-buffers of a host instance over into a region, as they are.
#[derive(Debug)]
pub struct RegionSink<'r, M> {
    region: &'r Region<M>,
    writers: Vec<CpuWriter<'r, M>>,
    /// By CPU: a piece of the open sub-buffer was refused, so that none behind it can be right.
    is_broken: Vec<bool>,
    catalog: Option<CatalogWriter<&'r M>>,
    refused: u64,
}

impl<'r, M: MemoryMut> RegionSink<'r, M> {
    /// A sink into a fresh region. What the events mention is written to `catalog`, if given.
    pub fn new(region: &'r Region<M>, catalog: Option<CatalogWriter<&'r M>>) -> Self {
        let writers: Vec<_> = (0..region.geometry().nr_cpus())
            .filter_map(|cpu| region.writer(cpu))
            .collect();
        Self {
            region,
            is_broken: vec![false; writers.len()],
            writers,
            catalog,
            refused: 0,
        }
    }

    /// The region.
    #[must_use]
    pub fn region(&self) -> &'r Region<M> {
        self.region
    }

    /// The region's catalog.
    pub fn catalog(&mut self) -> Option<&mut CatalogWriter<&'r M>> {
        self.catalog.as_mut()
    }

    /// Pieces of sub-buffers that were no whole records, or of a CPU that the region does not have.
    /// A kernel gives none.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.refused
    }

    /// Counts events that the host's ring had overwritten before the first one that came here.
    pub fn overwritten_before(&self, cpu: CpuId, events: u64) {
        if let Some(layout) = self.region.extension() {
            count(
                layout,
                self.region.memory(),
                cpu.0,
                Counter::Overrun,
                events,
            );
        }
    }

    /// Seals the open sub-buffers; nothing may be written behind them.
    pub fn close(&mut self) {
        self.writers.iter_mut().for_each(CpuWriter::close);
    }

    fn with_writer(&mut self, cpu: CpuId, write: impl FnOnce(&mut CpuWriter<'r, M>) -> bool) {
        let written = self.writers.get_mut(cpu.0 as usize).is_some_and(write);
        self.refused += u64::from(!written);
    }
}

impl<M: MemoryMut> SubbufSink for RegionSink<'_, M> {
    fn begin(&mut self, cpu: CpuId, time_stamp: u64) {
        if let Some(is_broken) = self.is_broken.get_mut(cpu.0 as usize) {
            *is_broken = false;
        }
        self.with_writer(cpu, |writer| writer.begin(time_stamp).is_ok());
    }

    fn append(&mut self, cpu: CpuId, bytes: &[u8]) {
        self.append_counted(cpu, bytes);
    }

    fn append_counted(&mut self, cpu: CpuId, bytes: &[u8]) -> Appended {
        let Some(writer) = self.writers.get_mut(cpu.0 as usize) else {
            self.refused += 1;
            return Appended::Refused;
        };
        let is_broken = &mut self.is_broken[cpu.0 as usize];
        if *is_broken {
            self.refused += 1;
            return Appended::Refused;
        }
        let (catalog, mut events) = (&mut self.catalog, 0);
        let appended = writer.append(bytes, |event| {
            events += 1;
            if let Some(catalog) = catalog {
                catalog.note_event(event.time_stamp, event.payload);
            }
        });
        if appended.is_err() {
            // Said at its place, not left out silently.
            *is_broken = true;
            self.refused += 1;
            writer.lost(Missed::Unknown);
            return Appended::Refused;
        }
        Appended::Counted(events)
    }

    fn end(&mut self, _cpu: CpuId) {}

    fn lost(&mut self, cpu: CpuId, events: Option<u64>) {
        let missed = events.map_or(Missed::Unknown, Missed::Events);
        self.with_writer(cpu, |writer| {
            writer.lost(missed);
            true
        });
    }

    fn settled(&mut self, cpu: CpuId, events: u64) {
        self.with_writer(cpu, |writer| {
            writer.settle(events);
            true
        });
    }
}

#[cfg(test)]
mod tests {
    use outlive_ring::{Geometry, HeapMemory};

    use super::*;

    /// A data record of 8 bytes of payload.
    const EVENT: [u8; 12] = [2, 0, 0, 0, 1, 0, 0, 0, 9, 0, 0, 0];

    #[test]
    fn nothing_is_taken_behind_a_piece_that_was_refused() {
        let geometry = Geometry::new(1 << 20, 1).unwrap();
        let region = Region::format(HeapMemory::new(1 << 20), geometry, None).unwrap();
        let mut sink = RegionSink::new(&region, None);
        let cpu = CpuId(0);
        sink.begin(cpu, 100);
        assert_eq!(sink.append_counted(cpu, &EVENT), Appended::Counted(1));
        assert_eq!(
            sink.append_counted(cpu, &EVENT[..9]),
            Appended::Refused,
            "a torn record"
        );
        assert_eq!(
            sink.append_counted(cpu, &EVENT),
            Appended::Refused,
            "behind it"
        );
        sink.end(cpu);
        sink.begin(cpu, 200);
        assert_eq!(sink.append_counted(cpu, &EVENT), Appended::Counted(1));
        assert_eq!(sink.refused(), 2);
    }
}

//! The data: the sub-buffers of the CPUs of one source.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use outlive_ring::layout::SUBBUF_SIZE;
use outlive_ring::{Missed, PageBuilder};
use outlive_trace::view::{LeftOver, Source, Sources, Timeline, ViewCpu, ViewEvent};

use super::ids::Ids;
use super::{Buffer, CpuData, PAGE, texts};
use crate::spans::format_of;
use crate::{Error, Result, Summary, output};

/// Sub-buffers that are written at once.
const BATCH: usize = 256;

/// What of a source goes into the file.
pub(super) struct Data<'s> {
    sources: &'s Sources<'s>,
    source: usize,
    ids: &'s Ids<'s>,
}

impl<'s> Data<'s> {
    pub(super) fn new(sources: &'s Sources<'s>, source: usize, ids: &'s Ids<'s>) -> Self {
        Self {
            sources,
            source,
            ids,
        }
    }

    fn source(&self) -> &'s Source<'s> {
        &self.sources.sources()[self.source]
    }

    /// Whether sub-buffers are copied as they are: all their events are wanted, and their times,
    /// CPUs and ids are those of the file.
    pub(super) fn is_copied(&self) -> bool {
        let source = self.source();
        source.wanted.is_none()
            && source.from == 0
            && self.sources.timeline() == Timeline::Trace
            && !source.view.has_lanes()
            && !self.ids.has_changes(self.source)
    }

    /// How many sub-buffers there will be.
    pub(super) fn buffer(&self) -> Result<Buffer> {
        let mut pages: BTreeMap<u32, u64> = BTreeMap::new();
        if self.is_copied() {
            pages.extend(self.cpus().map(|cpu| (cpu.cpu, cpu.subbufs().0 as u64)));
        } else {
            if !self.source().view.has_lanes() {
                pages.extend(self.cpus().map(|cpu| (cpu.cpu, 0)));
            }
            let mut count = |cpu, _: &_| {
                *pages.entry(cpu).or_default() += 1;
                Ok(())
            };
            self.encode(&mut count, |_| (), |_| ())?;
        }
        let source = self.source();
        let cpus = pages.into_iter().map(|(cpu, pages)| CpuData {
            cpu,
            pages,
            offset: 0,
        });
        Ok(Buffer {
            name: match self.sources.sources() {
                [_] => String::new(),
                _ => source.name.clone(),
            },
            clock: clock(self.sources, source),
            cpus: cpus.collect(),
        })
    }

    /// The CPUs that are wanted.
    fn cpus(&self) -> impl Iterator<Item = &'s ViewCpu> {
        let source = self.source();
        let is_wanted = |cpu: &&ViewCpu| source.cpu.is_none_or(|wanted| cpu.cpu == wanted);
        source.view.cpus.iter().filter(is_wanted)
    }

    /// Writes the sub-buffers to their places in the file.
    pub(super) fn write(
        &self,
        buffer: &Buffer,
        file: &File,
        out: &Path,
        summary: &mut Summary,
    ) -> Result<()> {
        if self.is_copied() {
            return self.copy(buffer, file, out, summary);
        }
        let mut left: BTreeMap<u32, (u64, u64)> = buffer
            .cpus
            .iter()
            .map(|data| (data.cpu, (data.offset, data.pages)))
            .collect();
        let mut put = |cpu, page: &[u8; SUBBUF_SIZE]| {
            let (offset, pages) = left.entry(cpu).or_default();
            // Somebody else writes to the region's file, so that there is more than was counted.
            *pages = pages
                .checked_sub(1)
                .ok_or_else(|| Error::io("write", out)(io::ErrorKind::InvalidData.into()))?;
            let written = file.write_all_at(page, *offset);
            *offset += PAGE;
            written.map_err(Error::io("write", out))
        };
        let mut left = Vec::new();
        let mut written = |event: &ViewEvent<'_>| summary.count(event);
        self.encode(&mut put, &mut written, |one| left.push(one))?;
        for one in left {
            summary.note_one_left(self.source(), one);
        }
        Ok(())
    }

    fn copy(&self, buffer: &Buffer, file: &File, out: &Path, summary: &mut Summary) -> Result<()> {
        let view = self.source().view;
        let mut batch = vec![[0; SUBBUF_SIZE]; BATCH];
        for (cpu, data) in self.cpus().zip(&buffer.cpus) {
            let pages = data.pages as usize;
            for first in (0..pages).step_by(BATCH) {
                let batch = &mut batch[..BATCH.min(pages - first)];
                for (page, number) in batch.iter_mut().zip(first..) {
                    if let Some(copied) = view.copy_subbuf(cpu, number, page) {
                        summary.add(u64::from(copied.entries), copied.missed);
                        self.sources.note_read(copied.entries.into());
                    }
                }
                let at = data.offset + first as u64 * PAGE;
                let written = file.write_all_at(batch.as_flattened(), at);
                written.map_err(Error::io("write", out))?;
                output::start_write_back(file, at, batch.as_flattened().len());
            }
        }
        Ok(())
    }

    /// Encodes the wanted events anew, by the CPUs that they say they were written on. `put` gets
    /// each sub-buffer, those of a CPU in order, and `left` what is missing behind the last events.
    fn encode(
        &self,
        put: &mut dyn FnMut(u32, &[u8; SUBBUF_SIZE]) -> Result<()>,
        mut written: impl FnMut(&ViewEvent<'_>),
        left: impl FnMut(LeftOver),
    ) -> Result<()> {
        let source = self.source();
        let mut cpus: BTreeMap<u32, CpuEncoder> = BTreeMap::new();
        let mut events = self.sources.events_of(source);
        let mut payload = Vec::new();
        while let Some(event) = events.next_event() {
            let encoder = cpus.entry(event.cpu).or_default();
            payload.clear();
            payload.extend_from_slice(event.payload);
            if source.view.has_lanes()
                && let Some(format) = format_of(&source.view.catalog, &payload)
            {
                texts::end(format, &mut payload);
            }
            self.rename(&mut payload);
            let time = self.sources.time(self.source, event.text_time_stamp);
            let put = &mut |page: &_| put(event.cpu, page);
            encoder.push(time, &payload, event.missed, put)?;
            written(&event);
        }
        events.left().for_each(left);
        for (cpu, encoder) in &mut cpus {
            encoder.finish(&mut |page| put(*cpu, page))?;
        }
        Ok(())
    }

    /// Gives a record the event's id in the file.
    fn rename(&self, payload: &mut [u8]) {
        if let Some(id) = payload.first_chunk_mut() {
            *id = self
                .ids
                .id(self.source, u16::from_le_bytes(*id))
                .to_le_bytes();
        }
    }
}

/// The name of the clock of a source's times in the file.
pub(super) fn clock(sources: &Sources<'_>, source: &Source<'_>) -> &'static str {
    use outlive_trace::cmdline::TraceClock;
    match sources.timeline() {
        Timeline::Trace => TraceClock::from_name(source.view.clock())
            .unwrap_or(TraceClock::Local)
            .name(),
        Timeline::Monotonic => TraceClock::Mono.name(),
        // No trace clock of the kernel counts so. Of this one trace-cmd shows seconds.
        Timeline::Realtime => TraceClock::Global.name(),
    }
}

/// Encodes the events of one CPU.
#[derive(Default)]
struct CpuEncoder {
    page: PageBuilder,
}

type Put<'p> = &'p mut dyn FnMut(&[u8; SUBBUF_SIZE]) -> Result<()>;

impl CpuEncoder {
    fn push(
        &mut self,
        time: u64,
        payload: &[u8],
        missed: Option<Missed>,
        put: Put<'_>,
    ) -> Result<()> {
        // A sub-buffer's header is the only place that says what is missing.
        if let Some(missed) = missed {
            self.finish(put)?;
            self.page.set_missed(missed);
        }
        if !self.page.push(time, payload) {
            self.finish(put)?;
            // It came out of a sub-buffer, so it fits one.
            let _ = self.page.push(time, payload);
        }
        Ok(())
    }

    fn finish(&mut self, put: Put<'_>) -> Result<()> {
        match self.page.is_empty() {
            true => Ok(()),
            false => put(self.page.finish()),
        }
    }
}

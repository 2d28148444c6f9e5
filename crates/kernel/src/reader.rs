//! The fallback where `trace_pipe_raw` cannot be mapped: reading it, which consumes.
//!
//! A read takes a whole sub-buffer out of the ring, or copies what a sub-buffer that is still being
//! written holds so far. Such a copy's header has the time up to which earlier records went, so that
//! the pieces of one sub-buffer can be put together again: a piece that begins at the time at which
//! the last one ended, and still fits, goes on with it. Losses are told by flags in the header
//! (seen on v6.18 and v7.3).

use std::fs::File;
use std::io::{self, Read};

use crate::cpus::CpuId;
use crate::error::Error;
use crate::follower::{EventCount, Progress};
use crate::mapped::PAGE_BYTES;
use crate::sink::{Appended, SubbufSink};
use crate::stats::StatsFile;
use crate::subbuf::{DATA_BYTES, HEADER_BYTES, Records, SubbufHeader};

/// At most so many reads in one poll, so that a fast writer cannot hold us for ever.
const MAX_READS: u32 = 4096;

/// Reads and consumes one CPU's ring.
#[derive(Debug)]
pub struct CpuReader {
    cpu: CpuId,
    raw: File,
    stats: StatsFile,
    open: Option<OpenSubbuf>,
    count: EventCount,
    has_told: bool,
    buf: Box<[u8; PAGE_BYTES]>,
}

/// The sub-buffer that the next piece may belong to.
#[derive(Clone, Copy, Debug)]
struct OpenSubbuf {
    size: usize,
    /// The time of its last record, if its records tell it.
    end_time: Option<u64>,
}

impl CpuReader {
    /// Reads from an open, non-blocking `trace_pipe_raw`.
    #[must_use]
    pub fn new(cpu: CpuId, raw: File, stats: StatsFile) -> Self {
        let buf = Box::new([0; PAGE_BYTES]);
        Self {
            cpu,
            raw,
            stats,
            open: None,
            count: EventCount::default(),
            has_told: false,
            buf,
        }
    }

    /// The CPU.
    #[must_use]
    pub fn cpu(&self) -> CpuId {
        self.cpu
    }

    /// What was delivered and lost so far.
    #[must_use]
    pub fn count(&self) -> EventCount {
        self.count
    }

    /// Consumes and delivers what is there.
    ///
    /// # Errors
    /// Reading fails, or gives less than a sub-buffer's header.
    pub fn poll(&mut self, sink: &mut impl SubbufSink) -> Result<Progress, Error> {
        if !std::mem::replace(&mut self.has_told, true) {
            sink.consuming(self.cpu);
        }
        let mut progress = Progress::default();
        for _ in 0..MAX_READS {
            let Some(len) = self.read()? else {
                progress.is_caught_up = true;
                break;
            };
            self.deliver(len, sink, &mut progress)?;
        }
        Ok(progress)
    }

    /// Delivers the rest and settles the count, when the kernel no longer writes to the instance.
    ///
    /// # Errors
    /// As [`CpuReader::poll`].
    pub fn finish(&mut self, sink: &mut impl SubbufSink) -> Result<EventCount, Error> {
        while !self.poll(sink)?.is_caught_up {}
        self.close(sink, &mut Progress::default());
        let written = self.stats.read()?.written();
        let lost = written.saturating_sub(self.count.delivered);
        if lost > self.count.lost {
            sink.settled(self.cpu, lost - self.count.lost);
        }
        self.count.lost = lost;
        Ok(self.count)
    }

    /// One read; `None` if the ring is empty.
    fn read(&mut self) -> Result<Option<usize>, Error> {
        match self.raw.read(&mut self.buf[..]) {
            Ok(0) => Ok(None),
            Ok(len) => Ok(Some(len)),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(e) => Err(self.error(e)),
        }
    }

    fn deliver(
        &mut self,
        len: usize,
        sink: &mut impl SubbufSink,
        progress: &mut Progress,
    ) -> Result<(), Error> {
        let header = self.header(len)?;
        if header.has_missed_events {
            self.close(sink, progress);
            let events = self.missed_count(&header, len);
            self.count.lost += events.unwrap_or(0);
            sink.lost(self.cpu, events);
        }
        let data = &self.buf[HEADER_BYTES..HEADER_BYTES + header.size];
        if data.is_empty() {
            return Ok(());
        }
        let records = Records::count(data);
        let is_more = self.open.is_some_and(|open| open.is_continued_by(&header));
        if !is_more {
            self.close(sink, progress);
            sink.begin(self.cpu, header.time_stamp);
        }
        let piece = &self.buf[HEADER_BYTES..HEADER_BYTES + header.size];
        let events = match sink.append_counted(self.cpu, piece) {
            Appended::Counted(events) => events,
            Appended::Uncounted => records.events,
            Appended::Refused => 0,
        };
        let size_before = self.open.map_or(0, |open| open.size);
        let end_time = records
            .duration
            .and_then(|d| header.time_stamp.checked_add(d));
        self.open = Some(OpenSubbuf {
            size: size_before + header.size,
            end_time,
        });
        progress.bytes += header.size as u64;
        progress.events += events;
        self.count.delivered += events;
        Ok(())
    }

    fn header(&self, len: usize) -> Result<SubbufHeader, Error> {
        let word = |at| {
            self.buf[at..at + 8]
                .try_into()
                .map_or(0, u64::from_le_bytes)
        };
        let header = SubbufHeader::new(word(0), word(8));
        if len < HEADER_BYTES + header.size {
            return Err(self.error(io::ErrorKind::UnexpectedEof.into()));
        }
        Ok(header)
    }

    /// The number of lost events that is stored behind the data.
    fn missed_count(&self, header: &SubbufHeader, len: usize) -> Option<u64> {
        let at = HEADER_BYTES + header.size;
        let bytes = self.buf[..len]
            .get(at..at + 8)
            .filter(|_| header.has_missed_count)?;
        Some(u64::from_le_bytes(bytes.try_into().ok()?))
    }

    fn close(&mut self, sink: &mut impl SubbufSink, progress: &mut Progress) {
        if self.open.take().is_some() {
            progress.subbufs += 1;
            sink.end(self.cpu);
        }
    }

    fn error(&self, source: io::Error) -> Error {
        let file = format!("per_cpu/cpu{}/trace_pipe_raw", self.cpu);
        Error::io("read", std::path::Path::new(&file), source)
    }
}

impl OpenSubbuf {
    fn is_continued_by(&self, header: &SubbufHeader) -> bool {
        self.end_time == Some(header.time_stamp) && self.size + header.size <= DATA_BYTES
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_piece_that_begins_where_the_last_one_ended_goes_on_with_it() {
        let open = OpenSubbuf {
            size: 4000,
            end_time: Some(7),
        };
        assert!(open.is_continued_by(&SubbufHeader::new(7, 80)));
        assert!(!open.is_continued_by(&SubbufHeader::new(8, 80)));
        assert!(!open.is_continued_by(&SubbufHeader::new(7, 84)));
        assert!(
            !OpenSubbuf {
                end_time: None,
                ..open
            }
            .is_continued_by(&SubbufHeader::new(7, 80))
        );
    }
}

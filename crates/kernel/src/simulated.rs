//! A ring buffer as the kernel would write it, in a file that can be mapped: each step of the
//! writer by itself, so that tests can look in between.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;

use crate::subbuf::{DATA_BYTES, HEADER_BYTES};

const PAGE: u64 = 4096;
/// Every simulated event is a data record of 16 bytes.
pub(crate) const EVENT_BYTES: usize = 16;

pub(crate) struct SimulatedRing {
    file: File,
    stats: tempfile::NamedTempFile,
    nr_subbufs: u32,
    tail: u32,
    head: u32,
    used: usize,
    last_time: u64,
    written: u64,
    overrun: u64,
    per_page: Vec<u64>,
}

impl SimulatedRing {
    /// An empty ring with `nr_subbufs` sub-buffers, the reader page included.
    pub(crate) fn new(nr_subbufs: u32) -> Self {
        let file = tempfile::tempfile().unwrap();
        file.set_len(PAGE * (1 + u64::from(nr_subbufs))).unwrap();
        let this = Self {
            file,
            stats: tempfile::NamedTempFile::new().unwrap(),
            nr_subbufs,
            tail: 1,
            head: 1,
            used: 0,
            last_time: 0,
            written: 0,
            overrun: 0,
            per_page: vec![0; nr_subbufs as usize],
        };
        for (offset, value) in [(0, 4096), (4, 80), (8, 4096), (12, nr_subbufs)] {
            this.poke_u32(offset, value);
        }
        this.write_stats();
        this
    }

    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    pub(crate) fn stats_path(&self) -> &std::path::Path {
        self.stats.path()
    }

    pub(crate) fn written(&self) -> u64 {
        self.written
    }

    pub(crate) fn tail(&self) -> u32 {
        self.tail
    }

    /// One event, committed, at a time later than all before.
    pub(crate) fn event(&mut self, time: u64) {
        if self.used + EVENT_BYTES > DATA_BYTES {
            self.begin_page();
        }
        self.write_event(time);
        self.set_commit();
    }

    /// As many events as fill `pages` sub-buffers, one clock unit apart.
    pub(crate) fn fill(&mut self, pages: usize) {
        for _ in 0..pages * (DATA_BYTES / EVENT_BYTES) {
            self.event(self.last_time + 1);
        }
    }

    /// The tail moves: the next sub-buffer loses its commit, its time stamp stays the old one.
    pub(crate) fn begin_page(&mut self) {
        let next = if self.tail + 1 == self.nr_subbufs {
            1
        } else {
            self.tail + 1
        };
        if next == self.head {
            self.overrun += self.per_page[self.head as usize];
            self.head = if self.head + 1 == self.nr_subbufs {
                1
            } else {
                self.head + 1
            };
        }
        self.per_page[next as usize] = 0;
        (self.tail, self.used) = (next, 0);
        self.poke_u64(self.page(next) + 8, 0);
        self.write_stats();
    }

    /// A record is written behind the commit, and the time stamp if it is the first.
    pub(crate) fn write_event(&mut self, time: u64) {
        let delta = if self.used == 0 {
            0
        } else {
            (time - self.last_time) as u32
        };
        let header = 3 | delta << 5;
        let at = self.page(self.tail) + (HEADER_BYTES + self.used) as u64;
        self.poke_u32(at, header);
        self.poke_u64(at + 4, self.written);
        if self.used == 0 {
            self.poke_u64(self.page(self.tail), time);
        }
        self.used += EVENT_BYTES;
        self.last_time = time;
    }

    /// What was written on the tail page is committed.
    pub(crate) fn set_commit(&mut self) {
        let events = (self.used / EVENT_BYTES) as u64;
        self.written += events - self.per_page[self.tail as usize];
        self.per_page[self.tail as usize] = events;
        self.poke_u64(self.page(self.tail) + 8, self.used as u64);
        self.write_stats();
    }

    /// Another page's commit, as an outer writer sets it late.
    pub(crate) fn set_commit_of(&mut self, id: u32, size: usize) {
        self.poke_u64(self.page(id) + 8, size as u64);
    }

    /// The buffer is cleared, and the writer begins where a new mapping has its head.
    pub(crate) fn clear(&mut self) {
        for id in 0..self.nr_subbufs {
            self.poke_u64(self.page(id), 0);
            self.poke_u64(self.page(id) + 8, 0);
        }
        self.per_page.fill(0);
        (self.tail, self.head, self.used, self.written, self.overrun) = (1, 1, 0, 0, 0);
        self.write_stats();
    }

    pub(crate) fn poke_u32(&self, offset: u64, value: u32) {
        self.file
            .write_all_at(&value.to_le_bytes(), offset)
            .unwrap();
    }

    pub(crate) fn poke_u64(&self, offset: u64, value: u64) {
        self.file
            .write_all_at(&value.to_le_bytes(), offset)
            .unwrap();
    }

    fn page(&self, id: u32) -> u64 {
        PAGE * (1 + u64::from(id))
    }

    fn write_stats(&self) {
        let mut oldest = [0; 8];
        self.file
            .read_exact_at(&mut oldest, self.page(self.head))
            .unwrap();
        let text = format!(
            "entries: {}\noverrun: {}\ncommit overrun: 0\nbytes: 0\noldest event ts: {}\n\
             now ts: {}\ndropped events: 0\nread events: 0\n",
            self.written - self.overrun,
            self.overrun,
            u64::from_le_bytes(oldest),
            self.last_time,
        );
        let mut file = self.stats.as_file();
        file.set_len(0).unwrap();
        file.write_all_at(text.as_bytes(), 0).unwrap();
        file.flush().unwrap();
    }
}

//! A sink that keeps every sub-buffer, for the tests.

use std::collections::BTreeMap;

use outlive_kernel::{CpuId, SubbufSink};

/// A sub-buffer: its time stamp and data bytes.
pub type Page = (u64, Vec<u8>);

/// Keeps what it is given, per CPU, and checks the order of the calls.
#[derive(Default)]
pub struct Collected {
    cpus: BTreeMap<CpuId, OfCpu>,
}

#[derive(Default)]
struct OfCpu {
    pages: Vec<Page>,
    is_open: bool,
    lost: u64,
    unknown: u64,
}

#[allow(dead_code, reason = "each test binary uses some of them")]
impl Collected {
    /// All sub-buffers of a CPU, the open one included.
    pub fn pages(&self, cpu: CpuId) -> &[Page] {
        self.cpus.get(&cpu).map_or(&[], |of| &of.pages)
    }

    /// The open sub-buffer of a CPU.
    pub fn open(&self, cpu: CpuId) -> Option<&Page> {
        self.cpus
            .get(&cpu)
            .filter(|of| of.is_open)
            .and_then(|of| of.pages.last())
    }

    /// Events lost, as far as their number was told.
    pub fn lost(&self, cpu: CpuId) -> u64 {
        self.cpus.get(&cpu).map_or(0, |of| of.lost)
    }

    /// How often events were lost without a number.
    pub fn unknown(&self, cpu: CpuId) -> u64 {
        self.cpus.get(&cpu).map_or(0, |of| of.unknown)
    }

    fn of(&mut self, cpu: CpuId) -> &mut OfCpu {
        self.cpus.entry(cpu).or_default()
    }
}

impl SubbufSink for Collected {
    fn begin(&mut self, cpu: CpuId, time_stamp: u64) {
        let of = self.of(cpu);
        assert!(
            !std::mem::replace(&mut of.is_open, true),
            "begin without end"
        );
        of.pages.push((time_stamp, Vec::new()));
    }

    fn append(&mut self, cpu: CpuId, bytes: &[u8]) {
        let of = self.of(cpu);
        assert!(
            of.is_open && !bytes.is_empty(),
            "append outside of a sub-buffer, or of nothing"
        );
        of.pages.last_mut().unwrap().1.extend_from_slice(bytes);
    }

    fn end(&mut self, cpu: CpuId) {
        assert!(
            std::mem::take(&mut self.of(cpu).is_open),
            "end without begin"
        );
    }

    fn lost(&mut self, cpu: CpuId, events: Option<u64>) {
        let of = self.of(cpu);
        assert!(!of.is_open, "lost inside of a sub-buffer");
        of.lost += events.unwrap_or(0);
        of.unknown += u64::from(events.is_none());
    }

    fn settled(&mut self, cpu: CpuId, events: u64) {
        self.of(cpu).lost += events;
    }
}

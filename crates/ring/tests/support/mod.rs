//! What the tests of recorded regions share: the recordings, and the events that are kept.
#![allow(dead_code, reason = "each test uses its part of what the tests share")]

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use outlive_ring::layout::SUBBUF_DATA;
use outlive_ring::{HeapMemory, Memory, Recovery};

/// A file or folder of the recordings.
pub(crate) fn fixture_path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../fixtures")
        .join(name)
}

/// The bytes of a recording; compressed ones (`.gz`) are unpacked.
pub(crate) fn fixture(name: &str) -> Vec<u8> {
    let path = fixture_path(name);
    let bytes = std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    if path.extension().is_none_or(|extension| extension != "gz") {
        return bytes;
    }
    let mut unpacked = Vec::new();
    flate2::read::GzDecoder::new(&bytes[..])
        .read_to_end(&mut unpacked)
        .unwrap();
    unpacked
}

/// The golden region: 256 KiB, two CPUs.
pub(crate) fn golden_region() -> Vec<u8> {
    fixture("golden/2-region-256KiB-2cpu.bin.gz")
}

/// The lines of a `stats` file.
pub(crate) fn stats(name: &str) -> BTreeMap<String, String> {
    String::from_utf8(fixture(name))
        .unwrap()
        .lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(key, value)| (key.trim().into(), value.trim().into()))
        .collect()
}

/// A number of a `stats` file.
pub(crate) fn stat(stats: &BTreeMap<String, String>, key: &str) -> u64 {
    stats[key].parse().unwrap()
}

/// An event, detached from its memory.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Kept {
    pub(crate) time_stamp: u64,
    pub(crate) payload: Vec<u8>,
}

/// The events that a recovery keeps of a CPU, oldest first. All must be readable.
pub(crate) fn kept_events(recovery: &Recovery, memory: &impl Memory, cpu: u32) -> Vec<Kept> {
    let mut buffer = [0; SUBBUF_DATA];
    let mut events = Vec::new();
    for page in &recovery.cpu(cpu).pages {
        let data = page.read(&recovery.geometry, memory, cpu, &mut buffer);
        let page_events = outlive_ring::Events::new(page.time_stamp, data);
        events.extend(page_events.map(|event| {
            let event = event.expect("a kept sub-buffer has no bad record");
            Kept {
                time_stamp: event.time_stamp,
                payload: event.payload.to_vec(),
            }
        }));
    }
    events
}

/// Recovers a region in bytes.
pub(crate) fn recover(bytes: &[u8]) -> (HeapMemory, Recovery) {
    let memory = HeapMemory::from_bytes(bytes);
    let recovery = Recovery::new(&memory).expect("a region");
    (memory, recovery)
}

/// What the kernel prints of a time in `stats`: microseconds, rounded to the nearest (7.3.4 and
/// 6.12 show 1.576903 for 1576902887 ns).
pub(crate) fn stats_time(time_stamp: u64) -> String {
    let micros = (time_stamp + 500) / 1000;
    format!("{}.{:06}", micros / 1_000_000, micros % 1_000_000)
}

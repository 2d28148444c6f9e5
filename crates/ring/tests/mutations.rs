//! Recordings and our own regions with random words changed, and random bytes: every reader ends, none
//! panics, and what is kept can be read. The fuzz targets (`fuzz/`) look further in the same way.

mod support;

use outlive_ring::catalog::{CatalogRecords, task_names};
use outlive_ring::extension::{Counters, Cursor, Heartbeat, Layout, clock_pairs};
use outlive_ring::layout::SUBBUF_DATA;
use outlive_ring::subbuf::walk;
use outlive_ring::{
    Events, Geometry, HeapMemory, LiveReader, Memory, MemoryMut, Recovery, Region, RunRecord,
};
use support::{fixture, golden_region};

const MUTANTS: u64 = 400;

/// A small generator (xorshift), so that a failure can be repeated by its number.
struct Random(u64);

impl Random {
    fn new(number: u64) -> Self {
        Self(number.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    /// A value that parsers like least.
    fn word(&mut self) -> u64 {
        match self.below(6) {
            0 => 0,
            1 => u64::MAX,
            2 => 1 << self.below(64),
            3 => self.next() & 0xffff,
            4 => 0xffff_ffff_8000_0000,
            _ => self.next(),
        }
    }

    /// Changes some words, most of them in headers.
    fn mutate(&mut self, memory: &HeapMemory) {
        for _ in 0..=self.below(12) {
            let page = self.below(memory.len() / 4096) * 4096;
            let within = match self.below(3) {
                0 => self.below(4096 / 8) * 8,
                _ => self.below(8) * 8,
            };
            match self.below(4) {
                0 => {
                    let offset = page + within;
                    memory.store_u64(offset, memory.load_u64(offset) ^ 1 << self.below(64));
                }
                1 => memory.zero(page + within, 4096 - within),
                _ => memory.store_u64(page + within, self.word()),
            }
        }
    }
}

/// Everything that reads a region.
fn read_all(memory: &HeapMemory) {
    let Ok(recovery) = Recovery::new(memory) else {
        return;
    };
    let mut buffer = [0; SUBBUF_DATA];
    for cpu in &recovery.cpus {
        for page in &cpu.pages {
            let data = page.read(&recovery.geometry, memory, cpu.cpu, &mut buffer);
            let summary = walk(page.time_stamp, data);
            assert_eq!((summary.error, summary.entries), (None, page.entries));
        }
        let extension = recovery.extension;
        // None where the region's end is missing.
        if let Some(reader) = LiveReader::new(memory, recovery.geometry, extension, cpu.cpu) {
            follow(reader, recovery.geometry.nr_subbufs());
        }
    }
    if let Some(layout) = &recovery.extension {
        let _ = (RunRecord::load(layout, memory), task_names(layout, memory));
        let _ = (
            CatalogRecords::load(layout, memory),
            clock_pairs(layout, memory),
        );
        let _ = (
            Heartbeat::load(layout, memory),
            Cursor::load(layout, memory, 0),
        );
        let _ = Counters::load(layout, memory, 0);
    }
}

fn follow(mut reader: LiveReader<&HeapMemory>, nr_subbufs: u32) {
    reader.resume();
    for _ in 0..4 * nr_subbufs {
        let Some(chunk) = reader.next_chunk() else {
            break;
        };
        let events = chunk.events().count() as u64;
        reader.consume(events);
    }
}

fn read_mutants(region: &[u8]) {
    for number in 0..MUTANTS {
        let memory = HeapMemory::from_bytes(region);
        Random::new(number).mutate(&memory);
        read_all(&memory);
    }
}

#[test]
fn mutants_of_a_kernels_region_are_read() {
    read_mutants(&golden_region());
}

#[test]
fn mutants_of_an_old_kernels_region_are_read() {
    // Its first 256 KiB: the global meta is missing there, and the rest of the region.
    read_mutants(&fixture("6.12.107-2cpu-1M/region.bin.gz")[..256 << 10]);
}

#[test]
fn mutants_of_a_sealed_region_are_read() {
    let geometry = Geometry::new(64 << 10, 2).unwrap();
    let layout = Layout::new(&geometry, 4096, 16);
    let memory = HeapMemory::new(layout.area_size() as usize);
    let region = Region::format(&memory, geometry, Some(layout)).unwrap();
    for cpu in 0..2 {
        let mut writer = region.writer(cpu).unwrap();
        for i in 0..600 {
            let event = writer.reserve(8 + i as usize % 90, 100 * i).unwrap();
            writer.write(&event, 0, &i.to_le_bytes());
            writer.commit(event);
        }
    }
    RunRecord::default().store(&layout, &memory);
    read_mutants(&memory.to_vec());
}

#[test]
fn random_bytes_are_walked_to_an_end() {
    for number in 0..20_000 {
        let mut random = Random::new(number);
        let len = random.below(200);
        let data: Vec<u8> = (0..len / 4)
            .flat_map(|_| {
                match random.below(3) {
                    // A header with a plausible length and delta, or any word.
                    0 => random.word() as u32,
                    _ => (random.below(32) | random.below(4) << 5) as u32,
                }
                .to_le_bytes()
            })
            .collect();
        let mut events = Events::new(random.word(), &data);
        let mut bytes = 0;
        while let Some(Ok(event)) = events.next() {
            bytes += event.payload.len();
        }
        assert!(bytes <= data.len() && events.position().offset <= data.len());
        assert!(events.entries() as usize <= data.len() / 8 + 1);
    }
}

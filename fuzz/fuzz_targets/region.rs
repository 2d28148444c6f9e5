//! Recovery of any region: it ends, keeps only what is inside, and says the same twice.
//!
//! The input is a kind, edits of 64-bit words, and bytes; `cargo xtask fuzz` seeds it with kernels' own
//! regions, of 7.3 and of 6.12, whose layout is another.
#![no_main]

use libfuzzer_sys::fuzz_target;
use outlive_ring::catalog::{CatalogRecords, task_names};
use outlive_ring::extension::{Layout, clock_pairs};
use outlive_ring::layout::SUBBUF_DATA;
use outlive_ring::{Events, Geometry, HeapMemory, MemoryMut, Recovery, Region, RunRecord};

const RING: u64 = 32 << 10;
const CPUS: u32 = 2;

/// A region with an extension.
fn ours() -> HeapMemory {
    let ring = Geometry::new(RING, 1).unwrap();
    let layout = Layout::new(&ring, 4096, 16);
    let memory = HeapMemory::new(layout.area_size() as usize);
    let region = Region::format(&memory, ring, Some(layout)).unwrap();
    let mut writer = region.writer(0).unwrap();
    for i in 0..900 {
        let event = writer.reserve(20, 10 * i).unwrap();
        writer.write(&event, 0, &i.to_le_bytes());
        writer.commit(event);
    }
    memory
}

/// A bare ring, so that the fuzzer need not find the magic, with these bytes as its first sub-buffers.
fn bare(bytes: &[u8]) -> HeapMemory {
    let memory = HeapMemory::new(RING as usize * 2);
    let ring = Geometry::new(RING * 2, CPUS).unwrap();
    Region::format(&memory, ring, None).unwrap();
    let start = ring.subbuf_offset(0, 1);
    memory.write(start, &bytes[..bytes.len().min(3 * 4096)]);
    memory
}

fuzz_target!(|input: (u8, Vec<(u32, u64)>, &[u8])| {
    let (kind, edits, bytes) = input;
    let memory = match kind % 3 {
        0 => HeapMemory::from_bytes(bytes),
        1 => bare(bytes),
        _ => ours(),
    };
    let len = outlive_ring::Memory::len(&memory) / 8;
    for (at, word) in edits.into_iter().filter(|_| len > 0) {
        memory.store_u64(at as usize % len * 8, word);
    }
    let Ok(recovery) = Recovery::new(&memory) else { return };
    assert_eq!(Recovery::new(&memory).as_ref(), Ok(&recovery));
    let mut buffer = [0; SUBBUF_DATA];
    for cpu in &recovery.cpus {
        for page in &cpu.pages {
            let data = page.read(&recovery.geometry, &memory, cpu.cpu, &mut buffer);
            assert!(Events::new(page.time_stamp, data).all(|event| event.is_ok()));
        }
    }
    if let Some(layout) = &recovery.extension {
        let _ = RunRecord::load(layout, &memory);
        let _ = CatalogRecords::load(layout, &memory);
        let _ = (task_names(layout, &memory), clock_pairs(layout, &memory));
    }
});

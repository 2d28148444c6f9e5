//! A full region for benches whose result does not depend on what the events are.

use std::path::Path;

use anyhow::{Context, Result};
use outlive_ring::extension::Layout;
use outlive_ring::subbuf::PAYLOAD_MAX;
use outlive_ring::{Geometry, HeapMemory, MemoryMut, Region, RunId, RunRecord};

/// Bytes of an event's payload: that of `sched_switch`.
const PAYLOAD: usize = 64;
const CPUS: u32 = 2;
const LOG_BYTES: usize = 4 << 20;
const TASK_NAMES: usize = 8192;

/// Where `sched_switch` has `prev_state`.
const NUMBER: std::ops::Range<usize> = 32..40;

/// Writes a region whose ring of `size` bytes is full of events with the id `event` on every CPU,
/// sealed, as a run left it that died in this boot.
pub(crate) fn write_full(path: &Path, size: u64, event: u16) -> Result<()> {
    let ring = Geometry::new(size, CPUS)?;
    let layout = Layout::new(&ring, LOG_BYTES, TASK_NAMES);
    let memory = HeapMemory::new(layout.area_size() as usize);
    let region = Region::format(&memory, ring, Some(layout))?;
    RunRecord {
        sequence: 1,
        run_id: RunId([1; 16]),
        ..RunRecord::default()
    }
    .store(&layout, &memory);
    for cpu in 0..CPUS {
        fill(&region, cpu, event)?;
    }
    std::fs::write(path, memory.to_vec())
        .with_context(|| format!("cannot write {}", path.display()))
}

fn fill<M: MemoryMut>(region: &Region<M>, cpu: u32, event: u16) -> Result<()> {
    let mut writer = region.writer(cpu).context("no such CPU")?;
    let events = u64::from(region.geometry().nr_subbufs()) * (PAYLOAD_MAX / PAYLOAD) as u64;
    let mut payload = [0; PAYLOAD];
    payload[..2].copy_from_slice(&event.to_le_bytes());
    for i in 0..events {
        payload[NUMBER].copy_from_slice(&i.to_le_bytes());
        let event = writer.reserve(PAYLOAD, 1000 * i)?;
        writer.write(&event, 0, &payload);
        writer.commit(event);
    }
    Ok(())
}

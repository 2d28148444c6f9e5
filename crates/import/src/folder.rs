//! A folder of raw sub-buffers: `per_cpu/cpuN/trace_pipe_raw` as somebody copied them from tracefs,
//! and a copy of its `events`.

use std::fs;
use std::path::Path;

use outlive_event::Catalog;

use crate::recording::{Buffer, CpuPages, Recording};
use crate::trace_dat::in_brackets;
use crate::{Error, Result};

pub(crate) fn open(path: &Path) -> Result<Recording> {
    let cpus = cpus(path)?;
    let events = path.join("events");
    if cpus.is_empty() || !events.is_dir() {
        let missing = match cpus.is_empty() {
            true => "sub-buffers: no per_cpu/cpuN/trace_pipe_raw has any",
            false => "event formats: there is no folder events, a copy of tracefs'",
        };
        return Err(Error::Nothing {
            path: path.to_owned(),
            why: format!("it has no {missing}"),
        });
    }
    let catalog = Catalog::from_events_dir(&events)?;
    let header = catalog.header_page();
    let page_size = header.map_or(4096, |page| page.data_offset + page.data_size);
    let clock = fs::read_to_string(path.join("trace_clock")).unwrap_or_default();
    let notes = catalog.skipped_formats().iter().map(ToString::to_string);
    Ok(Recording {
        notes: notes.collect(),
        buffers: vec![Buffer {
            name: String::new(),
            clock: in_brackets(&clock),
            page_size: page_size as usize,
            cpus,
        }],
        catalog,
        ..Recording::default()
    })
}

/// The CPUs that have sub-buffers, and where.
fn cpus(path: &Path) -> Result<Vec<(u32, CpuPages)>> {
    let mut cpus = Vec::new();
    let per_cpu = path.join("per_cpu");
    for entry in fs::read_dir(&per_cpu).map_err(Error::io("list", &per_cpu))? {
        let folder = entry.map_err(Error::io("list", &per_cpu))?.path();
        let name = folder.file_name().and_then(|name| name.to_str());
        let cpu = name.and_then(|name| name.strip_prefix("cpu")?.parse().ok());
        let raw = folder.join("trace_pipe_raw");
        let has_some = fs::metadata(&raw).is_ok_and(|metadata| metadata.len() > 0);
        if let Some(cpu) = cpu.filter(|&cpu| has_some && cpu < outlive_ring::Geometry::MAX_CPUS) {
            cpus.push((cpu, CpuPages::File(raw)));
        }
    }
    cpus.sort_by_key(|&(cpu, _)| cpu);
    Ok(cpus)
}

//! One region of a view: its bytes and what is kept of them.

use std::fs::File;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

use outlive_event::Catalog;
use outlive_ring::catalog::{CatalogRecords, task_names};
use outlive_ring::extension::{Counters, Layout};
use outlive_ring::layout::SUBBUF_DATA;
use outlive_ring::{HeapMemory, Memory, Page, RecoveredCpu, Recovery};

use super::{Result, snapshot};
use crate::{Access, Error, Mapping, RegionPlace};

/// One region of a view.
#[derive(Debug)]
pub struct Part {
    /// Where it is.
    pub place: RegionPlace,
    /// What is kept of it.
    pub recovery: Recovery,
    /// Whether a recorder was writing it when it was opened. Then it was copied, and what is seen
    /// is the region as it was at that time.
    pub is_live: bool,
    bytes: Bytes,
}

/// Where a part's bytes are.
#[derive(Debug)]
enum Bytes {
    Mapped(Mapping),
    Copied(HeapMemory),
}

/// Does the same with either kind of memory, compiled for each.
macro_rules! with_memory {
    ($bytes:expr, |$memory:ident| $body:expr) => {
        match $bytes {
            Bytes::Mapped($memory) => $body,
            Bytes::Copied($memory) => $body,
        }
    };
}

impl Part {
    pub(super) fn open(place: &RegionPlace) -> Result<Self> {
        Self::of_mapping(place.map()?, place)
    }

    pub(super) fn of_file(file: &File, path: &Path) -> Result<Self> {
        let len = file.metadata().map_err(Error::io("look at", path))?.len();
        let mapping = Mapping::of_file(file, path, len, Access::ReadOnly)?;
        Self::of_mapping(mapping, &RegionPlace::File(path.to_owned()))
    }

    fn of_mapping(mapping: Mapping, place: &RegionPlace) -> Result<Self> {
        let mut recovery = locate(&mapping, place)?;
        let is_live = place.is_in_use().unwrap_or(false);
        let bytes = match &recovery.extension {
            Some(layout) if is_live => Bytes::Copied(snapshot::of(&mapping, layout)),
            _ => Bytes::Mapped(mapping),
        };
        recovery.cpus = with_memory!(&bytes, |memory| recover_cpus(&recovery, memory));
        if is_live {
            for cpu in &mut recovery.cpus {
                cpu.oldest = cpu.oldest.filter(|&time| !snapshot::is_blank(time));
            }
        }
        Ok(Self {
            place: place.clone(),
            recovery,
            is_live,
            bytes,
        })
    }

    /// The counters of a CPU; zero where the region has no extension.
    #[must_use]
    pub fn counters(&self, cpu: u32) -> Counters {
        match &self.recovery.extension {
            Some(layout) if cpu < layout.ring().nr_cpus() => {
                with_memory!(&self.bytes, |memory| Counters::load(layout, memory, cpu))
            }
            _ => Counters::default(),
        }
    }

    /// What `load` reads of the extension; `None` if there is none.
    pub(super) fn load<T>(&self, load: impl FnOnce(&Layout, &dyn Memory) -> T) -> Option<T> {
        let layout = self.recovery.extension.as_ref()?;
        Some(with_memory!(&self.bytes, |memory| load(layout, memory)))
    }

    pub(super) fn read_page<'b>(
        &self,
        cpu: u32,
        page: &Page,
        buffer: &'b mut [u8; SUBBUF_DATA],
    ) -> &'b [u8] {
        let geometry = &self.recovery.geometry;
        with_memory!(&self.bytes, |memory| page
            .read(geometry, memory, cpu, buffer))
    }

    /// Number of the first event behind this part in the ring that it was copied from.
    pub(super) fn next_event(&self, cpu: u32) -> u64 {
        let counters = self.counters(cpu);
        let entries = self
            .recovery
            .cpus
            .get(cpu as usize)
            .map_or(0, |cpu| cpu.entries);
        counters.overrun + counters.lost + entries
    }
}

pub(super) fn locate(memory: &impl Memory, place: &RegionPlace) -> Result<Recovery> {
    Recovery::locate(memory).map_err(|source| Error::NotARegion {
        path: place.as_path(),
        source,
    })
}

/// Recovers all CPUs, on as many threads as there are processors.
fn recover_cpus(recovery: &Recovery, memory: &(impl Memory + Sync)) -> Vec<RecoveredCpu> {
    let nr_cpus = recovery.geometry.nr_cpus();
    let threads = std::thread::available_parallelism()
        .map_or(1, usize::from)
        .min(nr_cpus as usize);
    let next = AtomicU32::new(0);
    let mut cpus: Vec<RecoveredCpu> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|_| {
                scope.spawn(|| {
                    let mut done = Vec::new();
                    loop {
                        let cpu = next.fetch_add(1, Ordering::Relaxed);
                        if cpu >= nr_cpus {
                            return done;
                        }
                        done.push(recovery.recover_cpu(memory, cpu));
                    }
                })
            })
            .collect();
        workers
            .into_iter()
            .flat_map(|worker| worker.join().unwrap_or_default())
            .collect()
    });
    cpus.sort_unstable_by_key(|cpu| cpu.cpu);
    cpus
}

/// Applies what the extension knows about events and tasks, and returns how many of its records
/// are damaged.
pub(super) fn load_catalog(layout: &Layout, memory: &dyn Memory, catalog: &mut Catalog) -> u32 {
    let records = CatalogRecords::load(layout, &memory);
    let mut damaged = records.damaged;
    for (kind, payload) in &records.records {
        damaged += u32::from(catalog.apply(*kind, payload).is_err());
    }
    for (pid, name) in task_names(layout, &memory) {
        catalog.tasks_mut().set_comm(pid, &name);
    }
    damaged
}

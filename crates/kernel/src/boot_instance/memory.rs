//! An instance's own memory, where the kernel's command line tells its address (`@ADDRESS:SIZE`).
//!
//! The kernel lets nobody map such a ring and consumes what is read from it. The memory itself, which was set
//! aside with `memmap=`, can be read through `/dev/mem`, and is then recovered as any region that a kernel left.
//! That the kernel has attached it before changes nothing but what it gave up.

use outlive_ring::layout::SUBBUF_DATA;
use outlive_ring::{Page, Recovery};
use outlive_trace::{Mapping, RegionPlace};

use super::{BootInstance, kernel_line};
use crate::cpus::CpuId;
use crate::error::Error;

/// The memory of an instance into which nothing records.
#[derive(Debug)]
pub(super) struct RingMemory {
    mapping: Mapping,
    recovery: Recovery,
}

impl RingMemory {
    /// That of `instance`; `None` if its address is not known.
    ///
    /// # Errors
    /// The system refuses it, or it has less than the kernel counts.
    pub(super) fn of(instance: &BootInstance) -> Result<Option<Self>, Error> {
        let Some(place) = place_of(instance)? else {
            return Ok(None);
        };
        let mapping = place.map()?;
        let recovery = Recovery::new(&mapping).map_err(|source| outlive_trace::Error::Layout {
            name: instance.name().to_owned(),
            source,
        })?;
        for (cpu, stats) in instance.counts()? {
            let found = recovery.cpus.iter().find(|found| found.cpu == cpu.0);
            let found = found.map_or(0, |found| found.entries);
            if found < stats.entries {
                let counted = stats.entries;
                return Err(Error::Malformed {
                    path: place.to_string().into(),
                    what: format!(
                        "{cpu} has {found} entries there, and the kernel counts {counted}"
                    ),
                });
            }
        }
        Ok(Some(Self { mapping, recovery }))
    }

    /// Calls `each` with every sub-buffer and its records, CPU by CPU, oldest first.
    pub(super) fn each_page(&self, mut each: impl FnMut(CpuId, &Page, &[u8])) {
        let mut buffer = [0; SUBBUF_DATA];
        for cpu in &self.recovery.cpus {
            for page in &cpu.pages {
                let geometry = &self.recovery.geometry;
                let records = page.read(geometry, &self.mapping, cpu.cpu, &mut buffer);
                each(CpuId(cpu.cpu), page, records);
            }
        }
    }
}

fn place_of(instance: &BootInstance) -> Result<Option<RegionPlace>, Error> {
    let line = kernel_line()?;
    let mut instances = line.instances.iter();
    let declared = instances.find(|declared| declared.name == instance.name);
    let address = declared.and_then(|declared| declared.kind.address());
    Ok(address.map(|(address, len_bytes)| RegionPlace::Physical { address, len_bytes }))
}

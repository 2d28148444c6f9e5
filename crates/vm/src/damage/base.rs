//! The undamaged regions that damages are done to, and where their parts lie.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use outlive_event::Catalog;
use outlive_ring::layout::{SUBBUF_DATA, SUBBUF_SIZE};
use outlive_ring::{Events, Geometry, HeapMemory, Memory, Page, Recovery};

/// An event, detached from its region: what makes it this one and no other.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Identity {
    /// The CPU whose buffer it is in.
    pub cpu: u32,
    /// True time, in the unit of the trace clock.
    pub time_stamp: u64,
    /// The trace entry.
    pub payload: Vec<u8>,
}

/// An event that is kept, and where it lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptEvent {
    /// The event.
    pub identity: Identity,
    /// Its sub-buffer.
    pub page: Page,
    /// Where in the sub-buffer's data its entry begins.
    pub offset: usize,
}

impl AsRef<Identity> for Identity {
    fn as_ref(&self) -> &Self {
        self
    }
}

impl AsRef<Identity> for KeptEvent {
    fn as_ref(&self) -> &Identity {
        &self.identity
    }
}

/// A recorded region.
#[derive(Debug)]
pub struct Base {
    /// Its file's name under `fixtures`.
    pub file: &'static str,
    /// Its bytes.
    pub region: Vec<u8>,
    /// Where its parts lie.
    pub geometry: Geometry,
    /// Its events by CPU, oldest first.
    pub events: Vec<Identity>,
    /// The formats of the kernel that wrote it.
    pub catalog: Catalog,
}

/// `fixtures` of the project.
pub(super) fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures")
}

/// The bytes of a file under `fixtures` that gzip compressed.
///
/// # Errors
///
/// When it is not there or damaged.
pub(super) fn unpack(file: &str) -> Result<Vec<u8>> {
    let path = fixtures().join(file);
    let packed = std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut bytes = Vec::new();
    flate2::read::GzDecoder::new(&packed[..])
        .read_to_end(&mut bytes)
        .with_context(|| format!("cannot unpack {}", path.display()))?;
    Ok(bytes)
}

impl Base {
    /// Loads one.
    ///
    /// # Errors
    ///
    /// When the file is not there, or is no undamaged region.
    pub fn load(file: &'static str) -> Result<Self> {
        let region = unpack(file)?;
        let memory = HeapMemory::from_bytes(&region);
        let recovery = Recovery::new(&memory).with_context(|| format!("{file} is no region"))?;
        let events = kept_events(&recovery, &memory).map(|event| event.identity);
        let writer = match file.contains("6.12.107") {
            true => "6.12.107-2cpu-1M",
            false => "7.3.4-2cpu-1M",
        };
        Ok(Self {
            file,
            region,
            geometry: recovery.geometry,
            events: events.collect(),
            catalog: Catalog::from_events_dir(fixtures().join(writer).join("events"))?,
        })
    }

    /// Offset of a sub-buffer, by its physical index.
    #[must_use]
    pub fn subbuf(&self, cpu: u32, subbuf: u32) -> usize {
        self.geometry.subbuf_offset(cpu, subbuf)
    }

    /// Offset of a CPU's `first_buffer`; `head_buffer`, `commit_buffer`, `subbuf_size` and
    /// `nr_subbufs` follow, in every layout, up to the index array.
    #[must_use]
    pub fn first_buffer(&self, cpu: u32) -> usize {
        self.geometry.index_offset(cpu, 0) - 32
    }

    /// Offset of a CPU's `head_buffer`.
    #[must_use]
    pub fn head_buffer(&self, cpu: u32) -> usize {
        self.first_buffer(cpu) + 8
    }

    /// Offset of a CPU's `commit_buffer`.
    #[must_use]
    pub fn commit_buffer(&self, cpu: u32) -> usize {
        self.first_buffer(cpu) + 16
    }

    /// Offset of an element of a CPU's index array.
    #[must_use]
    pub fn index(&self, cpu: u32, position: u32) -> usize {
        self.geometry.index_offset(cpu, position)
    }

    /// What the undamaged region has there.
    #[must_use]
    pub fn u64_at(&self, at: usize) -> u64 {
        u64::from_le_bytes(*self.region[at..].first_chunk().expect("inside the region"))
    }

    /// As [`Base::u64_at`].
    #[must_use]
    pub fn u32_at(&self, at: usize) -> u32 {
        u32::from_le_bytes(*self.region[at..].first_chunk().expect("inside the region"))
    }

    fn subbuf_of(&self, cpu: u32, address: usize) -> u32 {
        let distance = self.u64_at(address) - self.u64_at(self.first_buffer(cpu));
        u32::try_from(distance / SUBBUF_SIZE as u64).expect("an address of the region")
    }

    /// The address, as the region has it, of a sub-buffer.
    #[must_use]
    pub fn address(&self, cpu: u32, subbuf: u32) -> u64 {
        self.u64_at(self.first_buffer(cpu)) + u64::from(subbuf) * SUBBUF_SIZE as u64
    }

    /// Physical index of a CPU's reader page.
    #[must_use]
    pub fn reader(&self, cpu: u32) -> u32 {
        self.u32_at(self.index(cpu, 0))
    }

    /// Physical indices of the sub-buffers that are in use in the ring, from the head to the commit page.
    #[must_use]
    pub fn in_use(&self, cpu: u32) -> Vec<u32> {
        let positions = self.geometry.nr_subbufs() - 1;
        let ring: Vec<u32> = (1..=positions)
            .map(|i| self.u32_at(self.index(cpu, i)))
            .collect();
        let place = |subbuf: u32| ring.iter().position(|&i| i == subbuf).expect("in the ring");
        let head = place(self.subbuf_of(cpu, self.head_buffer(cpu)));
        let commit = place(self.subbuf_of(cpu, self.commit_buffer(cpu)));
        let len = (commit + ring.len() - head) % ring.len() + 1;
        (0..len).map(|i| ring[(head + i) % ring.len()]).collect()
    }

    /// Offsets of the records of a sub-buffer, from the sub-buffer's begin.
    #[must_use]
    pub fn records(&self, cpu: u32, subbuf: u32) -> Vec<usize> {
        let at = self.subbuf(cpu, subbuf);
        let size = usize::try_from(self.u64_at(at + 8))
            .unwrap_or(0)
            .min(SUBBUF_DATA);
        let mut events = Events::new(0, &self.region[at + 16..at + 16 + size]);
        let mut records = vec![16];
        while let Some(Ok(_)) = events.next() {
            records.push(16 + events.position().offset);
        }
        records.pop();
        records
    }

    /// Where in [`Base::events`] each event is.
    #[must_use]
    pub fn places(&self) -> BTreeMap<&Identity, usize> {
        self.events.iter().zip(0..).collect()
    }
}

/// The events that a recovery keeps, by CPU, oldest first.
pub(super) fn kept_events(
    recovery: &Recovery,
    memory: &impl Memory,
) -> impl Iterator<Item = KeptEvent> {
    let pages = recovery.cpus.iter();
    let pages = pages.flat_map(|cpu| cpu.pages.iter().map(|page| (cpu.cpu, *page)));
    pages.flat_map(|(cpu, page)| {
        let mut buffer = [0; SUBBUF_DATA];
        let data = page.read(&recovery.geometry, memory, cpu, &mut buffer);
        events_of(cpu, page, data).collect::<Vec<_>>()
    })
}

/// The events in the data of a sub-buffer, as far as there are any.
fn events_of(cpu: u32, page: Page, data: &[u8]) -> impl Iterator<Item = KeptEvent> {
    Events::new(page.time_stamp, data)
        .map_while(Result::ok)
        .map(move |event| KeptEvent {
            identity: Identity {
                cpu,
                time_stamp: event.time_stamp,
                payload: event.payload.to_vec(),
            },
            page,
            offset: event.payload.as_ptr().addr() - data.as_ptr().addr(),
        })
}

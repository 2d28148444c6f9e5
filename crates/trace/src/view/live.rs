//! Following a region while its recorder writes it, from another process.

use outlive_event::Catalog;
use outlive_ring::extension::{Counters, Layout};
use outlive_ring::{LayoutError, LiveReader, RunRecord};

use super::{Result, part};
use crate::{Error, Mapping, RegionPlace};

/// A region that a recorder is writing. Nothing of it is changed or locked.
#[derive(Debug)]
pub struct LiveRegion {
    place: RegionPlace,
    /// Of the file, where it is one.
    identity: Option<(u64, u64)>,
    mapping: Mapping,
    layout: Layout,
}

impl LiveRegion {
    /// Opens the file or memory.
    ///
    /// # Errors
    ///
    /// When it cannot be read or has no region of outlive's.
    pub fn open(place: &RegionPlace) -> Result<Self> {
        let identity = place.identity()?;
        let mapping = place.map()?;
        let recovery = part::locate(&mapping, place)?;
        let layout = recovery.extension.ok_or_else(|| Error::NotARegion {
            path: place.as_path(),
            source: LayoutError::NotARegion {
                magic: 0,
                struct_sizes: 0,
            },
        })?;
        Ok(Self {
            place: place.clone(),
            identity,
            mapping,
            layout,
        })
    }

    /// Whether a recorder still writes this region.
    #[must_use]
    pub fn is_recorded(&self) -> bool {
        self.place.identity().is_ok_and(|now| now == self.identity)
            && self.place.is_in_use().unwrap_or(false)
    }

    /// Where the region's parts lie.
    pub(crate) fn layout(&self) -> &Layout {
        &self.layout
    }

    /// A reader for each CPU, which begins with the oldest event.
    #[must_use]
    pub fn readers(&self) -> Vec<LiveReader<&Mapping>> {
        let ring = *self.layout.ring();
        (0..ring.nr_cpus())
            .filter_map(|cpu| LiveReader::new(&self.mapping, ring, Some(self.layout), cpu))
            .collect()
    }

    /// What is needed to decode the events that are there by now.
    #[must_use]
    pub fn catalog(&self) -> Catalog {
        let mut catalog = Catalog::default();
        part::load_catalog(&self.layout, &self.mapping, &mut catalog);
        catalog
    }

    /// Who writes it.
    #[must_use]
    pub fn run(&self) -> Option<RunRecord> {
        RunRecord::load(&self.layout, &self.mapping)
    }

    /// The counters of a CPU by now.
    #[must_use]
    pub fn counters(&self, cpu: u32) -> Counters {
        match cpu < self.layout.ring().nr_cpus() {
            true => Counters::load(&self.layout, &self.mapping, cpu),
            false => Counters::default(),
        }
    }
}

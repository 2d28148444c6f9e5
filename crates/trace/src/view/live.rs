//! Following a region while its recorder writes it, from another process.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use outlive_event::Catalog;
use outlive_ring::extension::{Counters, Layout};
use outlive_ring::{LayoutError, LiveReader, RunRecord};

use super::{Result, part};
use crate::{Error, Mapping, lock};

/// A region in a file that a recorder is writing. Nothing of it is changed or locked.
#[derive(Debug)]
pub struct LiveFile {
    path: PathBuf,
    /// Device and inode: the next start puts another file in this place.
    identity: (u64, u64),
    mapping: Mapping,
    layout: Layout,
}

impl LiveFile {
    /// Opens the file.
    ///
    /// # Errors
    ///
    /// When it cannot be read or has no region of outlive's.
    pub fn open(path: &Path) -> Result<Self> {
        let identity = identity(path).map_err(Error::io("look at", path))?;
        let mapping = part::map(path)?;
        let recovery = part::locate(&mapping, path)?;
        let layout = recovery.extension.ok_or_else(|| Error::NotARegion {
            path: path.to_owned(),
            source: LayoutError::NotARegion {
                magic: 0,
                struct_sizes: 0,
            },
        })?;
        Ok(Self {
            path: path.to_owned(),
            identity,
            mapping,
            layout,
        })
    }

    /// Whether a recorder still writes this file.
    #[must_use]
    pub fn is_recorded(&self) -> bool {
        identity(&self.path).is_ok_and(|identity| identity == self.identity)
            && lock::is_file_locked(&self.path).unwrap_or(false)
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

fn identity(path: &Path) -> std::io::Result<(u64, u64)> {
    let metadata = std::fs::metadata(path)?;
    Ok((metadata.dev(), metadata.ino()))
}

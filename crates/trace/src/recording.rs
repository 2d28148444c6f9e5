//! Recordings: what is known about the events that a kernel records into its own persistent instance.
//!
//! Nothing in such an instance says which kernel wrote it, in which boot, with which events. So each boot
//! that records has a file `STATE/kernel/INSTANCE/BOOT-ID`: a region of ours without events, whose
//! run record, clock pairs and catalog are those of that boot. The start after the crash puts them
//! beside the events.

use std::fs;
use std::path::{Path, PathBuf};

use outlive_ring::extension::Layout;
use outlive_ring::{Geometry, RunId, RunRecord};

use crate::{Access, Error, Mapping, StateDir, StateLock, durable, name, tail};

/// Bytes of the smallest ring for one more CPU: meta, index array, three sub-buffers.
const RING_BYTES_PER_CPU: u64 = 4 * 4096;

/// What is known of one boot's recording.
#[derive(Debug)]
pub struct Recording {
    path: PathBuf,
    mapping: Mapping,
    layout: Layout,
    run: RunRecord,
}

impl Recording {
    /// The layout of a recording's file with a catalog log of `log_bytes` and `names` task names.
    ///
    /// # Errors
    ///
    /// [`Error::Layout`] if there are too many CPUs.
    pub fn layout_for(nr_cpus: u32, log_bytes: usize, names: usize) -> Result<Layout, Error> {
        let size = 2 * RING_BYTES_PER_CPU + RING_BYTES_PER_CPU * u64::from(nr_cpus);
        let ring = Geometry::new(size, nr_cpus).map_err(|source| Error::Layout {
            name: "recording".to_owned(),
            source,
        })?;
        Ok(Layout::new(&ring, log_bytes, names))
    }

    /// Writes the recording of a boot, durably: `write` gets blank memory of `len_bytes` for a region.
    /// One of the same boot is replaced.
    ///
    /// # Errors
    ///
    /// [`Error::NoSpace`], [`Error::Io`], or what `write` returns.
    pub fn write<E: From<Error>>(
        state: &StateDir,
        _lock: &StateLock,
        instance: &str,
        boot_id: &[u8; 16],
        len_bytes: u64,
        write: impl FnOnce(&Mapping) -> Result<(), E>,
    ) -> Result<PathBuf, E> {
        let folder = folder(state, instance)?;
        durable::private_dir(durable::parent(&folder))?;
        durable::private_dir(&folder)?;
        let path = folder.join(RunId(*boot_id).to_string());
        tail::write_file(&path, len_bytes, write)?;
        Ok(path)
    }

    /// The recordings of an instance, oldest first. What is no recording is left out.
    ///
    /// # Errors
    ///
    /// [`Error::BadName`], [`Error::Io`] if the folder cannot be listed.
    pub fn list(state: &StateDir, instance: &str) -> Result<Vec<Self>, Error> {
        let folder = folder(state, instance)?;
        if !folder.is_dir() {
            return Ok(Vec::new());
        }
        let entries = fs::read_dir(&folder).map_err(Error::io("list", &folder))?;
        let mut recordings: Vec<Self> = entries
            .flatten()
            .filter_map(|entry| Self::open(&entry.path()))
            .collect();
        recordings.sort_by_key(|recording| recording.run.run_sequence);
        Ok(recordings)
    }

    /// Opens a whole recording.
    #[must_use]
    pub fn open(path: &Path) -> Option<Self> {
        let file = durable::open_private(path).ok()??;
        let len = file.metadata().ok()?.len();
        let mapping = Mapping::of_file(&file, path, len, Access::ReadWrite).ok()?;
        let layout = Layout::load(&mapping)?;
        let run = RunRecord::load(&layout, &mapping)?;
        Some(Self {
            path: path.to_owned(),
            mapping,
            layout,
            run,
        })
    }

    /// Who recorded.
    #[must_use]
    pub fn run(&self) -> &RunRecord {
        &self.run
    }

    /// Where its parts lie.
    #[must_use]
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Its bytes.
    #[must_use]
    pub fn mapping(&self) -> &Mapping {
        &self.mapping
    }

    /// Removes the file: its generation has all that it says.
    ///
    /// # Errors
    ///
    /// [`Error::Io`].
    pub fn remove(self, _lock: &StateLock) -> Result<(), Error> {
        durable::remove_if_there(&self.path)
    }
}

fn folder(state: &StateDir, instance: &str) -> Result<PathBuf, Error> {
    Ok(state.path().join("kernel").join(name::check(instance)?))
}

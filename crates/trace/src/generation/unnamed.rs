//! A generation's folder while it is being made.

use std::fs;
use std::path::PathBuf;

use super::{Generation, Meta, UNNAMED, seq_name, write_meta};
use crate::{Error, StateDir, durable, name};

/// The folder `SEQ.new`, which becomes `SEQ` when the region is in it.
pub(super) struct Unnamed {
    /// `SEQ.new`.
    pub(super) temporary: PathBuf,
    /// `SEQ`.
    pub(super) path: PathBuf,
}

impl Unnamed {
    /// Makes the folder `SEQ.new` with its `meta.json`, durably but for its own name.
    pub(super) fn make(state: &StateDir, meta: &Meta) -> Result<Self, Error> {
        let of_instance = state.generations().join(name::check(&meta.instance)?);
        let path = of_instance.join(seq_name(meta.seq));
        let temporary = durable::with_suffix(&path, UNNAMED);
        for path in [&path, &temporary.join("region")] {
            if fs::symlink_metadata(path).is_ok() {
                return Err(Error::GenerationExists { path: path.clone() });
            }
        }
        let folder = Self { temporary, path };
        folder.discard();
        durable::private_dir(&of_instance)?;
        durable::private_dir(&folder.temporary)?;
        if let Err(error) = write_meta(&folder.temporary, meta) {
            folder.discard();
            return Err(error);
        }
        Ok(folder)
    }

    pub(super) fn region(&self) -> PathBuf {
        self.temporary.join("region")
    }

    /// Gives the folder its name, durably.
    pub(super) fn name(&self) -> Result<(), Error> {
        durable::sync_dir(&self.temporary)?;
        self.name_for_now()?;
        durable::sync_up(&self.path, 2)
    }

    /// Gives the folder its name, as long as the machine is up.
    pub(super) fn name_for_now(&self) -> Result<(), Error> {
        durable::rename_new(&self.temporary, &self.path)
            .map_err(Error::io("name the generation", &self.path))
    }

    /// Removes a folder that holds no region yet.
    pub(super) fn discard(&self) {
        let _ = fs::remove_dir_all(&self.temporary);
        // Stays where it holds other generations.
        let _ = fs::remove_dir(durable::parent(&self.path));
    }

    pub(super) fn into_generation(self, meta: &Meta) -> Generation {
        Generation {
            instance: meta.instance.clone(),
            seq: meta.seq,
            path: self.path,
            meta: Some(meta.clone()),
        }
    }
}

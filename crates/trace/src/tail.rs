//! The tail of a generation: what the host's ring still held when the recorder had died.
//!
//! It is written beside, synced and renamed, so a kill leaves no tail or all of it; writing it
//! again replaces it.

use std::path::Path;

use crate::{Access, Error, Generation, Mapping, StateDir, StateLock, durable, failpoint};

/// Suffix of a tail that is being written.
const PART: &str = ".part";

/// The steps of writing a tail, for [`failpoint`].
pub const TAIL_STEPS: [&str; 3] = ["tail-allocated", "tail-written", "tail-named"];

impl Generation {
    /// Writes the tail: `write` gets blank memory of `len_bytes`.
    ///
    /// # Errors
    ///
    /// [`Error::NoSpace`], [`Error::Io`], or what `write` returns. Then no tail was written, and
    /// one that was there is as it was.
    pub fn write_tail<E: From<Error>>(
        &self,
        _lock: &StateLock,
        len_bytes: u64,
        write: impl FnOnce(&Mapping) -> Result<(), E>,
    ) -> Result<(), E> {
        write_file(&self.tail_path(), len_bytes, write)
    }
}

/// Writes a region into a file of the state folder from which it is then kept by copying: for
/// events of a run that left no region.
///
/// # Errors
///
/// As [`Generation::write_tail`].
pub fn write_orphan<E: From<Error>>(
    state: &StateDir,
    _lock: &StateLock,
    len_bytes: u64,
    write: impl FnOnce(&Mapping) -> Result<(), E>,
) -> Result<std::path::PathBuf, E> {
    let path = state.path().join("orphan");
    write_file(&path, len_bytes, write)?;
    Ok(path)
}

fn write_file<E: From<Error>>(
    path: &Path,
    len_bytes: u64,
    write: impl FnOnce(&Mapping) -> Result<(), E>,
) -> Result<(), E> {
    let part = durable::with_suffix(path, PART);
    durable::remove_if_there(&part)?;
    let file = durable::create_allocated(&part, len_bytes)?;
    failpoint::reached("tail-allocated");
    let mapping = Mapping::of_file(&file, &part, len_bytes, Access::ReadWrite)?;
    let written = write(&mapping).and_then(|()| {
        mapping
            .sync(0..mapping.len())
            .map_err(Error::io("sync", &part))?;
        file.sync_all().map_err(Error::io("sync", &part))?;
        failpoint::reached("tail-written");
        std::fs::rename(&part, path).map_err(Error::io("name", path))?;
        Ok(durable::sync_dir(durable::parent(path))?)
    });
    if written.is_err() {
        let _ = std::fs::remove_file(&part);
    }
    failpoint::reached("tail-named");
    written
}

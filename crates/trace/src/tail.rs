//! The tail of a generation: what the host's ring still held when the recorder had died.
//!
//! It is written beside, synced and renamed, so a kill leaves no tail or all of it; writing it
//! again replaces it.

use std::path::{Path, PathBuf};

use crate::generation::list;
use crate::{Access, Error, Generation, Mapping, StateDir, StateLock, durable, failpoint};

/// Suffix of a tail that is being written.
const PART: &str = ".part";
/// Name of what [`write_orphan`] writes.
const ORPHAN: &str = "orphan";

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
) -> Result<PathBuf, E> {
    let path = state.path().join(ORPHAN);
    write_file(&path, len_bytes, write)?;
    Ok(path)
}

/// Removes what a killed collector left, and returns what that was. The host's instance is removed
/// only when the generation has everything, so that it can be done again.
pub(crate) fn tidy(state: &StateDir) -> Result<Vec<PathBuf>, Error> {
    let orphan = state.path().join(ORPHAN);
    let mut paths = vec![durable::with_suffix(&orphan, PART), orphan];
    let tails = list(state)?.into_iter().map(|kept| kept.tail_path());
    paths.extend(tails.map(|tail| durable::with_suffix(&tail, PART)));
    paths.retain(|path| path.exists());
    paths
        .iter()
        .try_for_each(|path| durable::remove_if_there(path))?;
    Ok(paths)
}

/// Writes a region into a file: beside it, synced, and then renamed.
pub(crate) fn write_file<E: From<Error>>(
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generation::{CopySource, keep_by_copy, tidy};
    use crate::{Meta, testing};

    const LEN: u64 = 64 << 10;

    fn write(mapping: &Mapping) -> Result<(), Error> {
        outlive_ring::MemoryMut::write(&mapping.memory_mut().unwrap(), 0, b"tail");
        Ok(())
    }

    fn kept(state: &StateDir) -> Generation {
        list(state).unwrap().remove(0)
    }

    /// What a child does that is to be killed.
    #[test]
    fn child_writes_an_orphan_and_a_tail() {
        let Some(folder) = std::env::var_os(testing::KILLED_IN) else {
            return;
        };
        let state = StateDir::open(Path::new(&folder)).unwrap();
        let lock = state.try_lock_exclusive().unwrap();
        match list(&state).unwrap().pop() {
            None => drop(write_orphan(&state, &lock, LEN, write).unwrap()),
            Some(kept) => kept.write_tail(&lock, LEN, write).unwrap(),
        }
    }

    #[test]
    fn killed_collector_leaves_no_file_that_nobody_removes() {
        let child = "tail::tests::child_writes_an_orphan_and_a_tail";
        for step in TAIL_STEPS {
            let folder = tempfile::tempdir().unwrap();
            let state = StateDir::open(folder.path()).unwrap();
            let tidied = || {
                let lock = state.try_lock_exclusive().unwrap();
                tidy(&state, &lock).unwrap().removed.len()
            };
            testing::kill_child(child, folder.path(), step);
            assert_eq!(tidied(), 1, "{step}");
            let source = CopySource::File(&state.path().join("id"));
            let meta = Meta::new("a", 1, "tmpfs");
            let lock = state.try_lock_exclusive().unwrap();
            keep_by_copy(&state, &lock, source, &meta).unwrap();
            drop(lock);
            testing::kill_child(child, folder.path(), step);
            let is_whole = step == "tail-named";
            assert_eq!(
                (tidied(), kept(&state).tail_path().exists()),
                (usize::from(!is_whole), is_whole)
            );
            assert_eq!(
                std::fs::read_dir(kept(&state).path()).unwrap().count(),
                2 + usize::from(is_whole)
            );
        }
    }
}

//! Backup of an area file by renaming it.

use std::fs;
use std::path::{Path, PathBuf};

use super::unnamed::Unnamed;
use super::{Generation, Meta};
use crate::{Error, StateDir, StateLock, durable, failpoint, name, spare};

/// The steps of [`rotate_file_area`], in order, for [`failpoint`].
pub const ROTATE_STEPS: [&str; 6] = [
    "rotate-allocated",
    "rotate-folder",
    "rotate-moved",
    "rotate-named",
    "rotate-live",
    "rotate-synced",
];

/// Makes the live file of an area a generation, and a new blank file of `new_len_bytes` the live
/// one, at a cost that does not grow with the size. Mappings of the old file stay valid, and are
/// mappings of the generation's region afterwards.
///
/// # Errors
///
/// [`Error::NoSpace`] if there is no room for the new file, [`Error::GenerationExists`],
/// [`Error::BadName`], [`Error::Io`] (`EXDEV` if `live` is on another file system than the state).
/// Then everything is as it was, unless the system fails between two renames: then [`tidy`](crate::tidy) and a
/// new call finish the work.
pub fn rotate_file_area(
    state: &StateDir,
    lock: &StateLock,
    live: &Path,
    new_len_bytes: u64,
    meta: &Meta,
) -> Result<Generation, Error> {
    name::check(&meta.instance)?;
    let prepared = prepare(lock, live, new_len_bytes)?;
    failpoint::reached("rotate-allocated");
    let folder = match move_to_generation(state, live, meta) {
        Ok(folder) => folder,
        Err(error) => {
            let _ = fs::remove_file(&prepared);
            return Err(error);
        }
    };
    failpoint::reached("rotate-moved");
    folder.name()?;
    failpoint::reached("rotate-named");
    show_prepared(&prepared, live, "rotate-live")?;
    failpoint::reached("rotate-synced");
    Ok(folder.into_generation(meta))
}

/// Makes a file of the state's file system that holds a region a generation, by renaming it.
///
/// # Errors
///
/// As [`rotate_file_area`].
pub fn keep_by_move(
    state: &StateDir,
    _lock: &StateLock,
    file: &Path,
    meta: &Meta,
) -> Result<Generation, Error> {
    let folder = move_to_generation(state, file, meta)?;
    failpoint::reached("move-moved");
    folder.name()?;
    Ok(folder.into_generation(meta))
}

/// Makes the blank file that will be the live one, beside it, of the spare one if there is one. What
/// a killed start left there is ours to remove.
pub(crate) fn prepare(_lock: &StateLock, live: &Path, len_bytes: u64) -> Result<PathBuf, Error> {
    let prepared = durable::with_suffix(live, name::PREPARED);
    if durable::open_private(&prepared)?.is_some() {
        durable::remove_if_there(&prepared)?;
    }
    if !spare::take(live, len_bytes, &prepared)? {
        durable::create_allocated(&prepared, len_bytes)?;
    }
    Ok(prepared)
}

/// Gives the prepared file the live name, durably, if there is none. `step` is the failpoint
/// between the two.
pub(crate) fn show_prepared(prepared: &Path, live: &Path, step: &'static str) -> Result<(), Error> {
    durable::rename_new(prepared, live).map_err(Error::io("make the new area file", live))?;
    failpoint::reached(step);
    durable::sync_dir(durable::parent(live))
}

fn move_to_generation(state: &StateDir, live: &Path, meta: &Meta) -> Result<Unnamed, Error> {
    let folder = Unnamed::make(state, meta)?;
    failpoint::reached("rotate-folder");
    match durable::rename_new(live, &folder.region()) {
        Ok(()) => Ok(folder),
        Err(source) => {
            folder.discard();
            Err(Error::Io {
                action: "move to its generation",
                path: live.to_owned(),
                source,
            })
        }
    }
}

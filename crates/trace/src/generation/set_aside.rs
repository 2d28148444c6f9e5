//! Backup of a file on a tmpfs: by renaming it there, and copying it later.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use super::copy::{CopySource, holds_same_bytes};
use super::rotate::{prepare, show_prepared};
use super::unnamed::Unnamed;
use super::{Generation, Meta, list};
use crate::{Error, StateDir, StateLock, durable, failpoint, name};

/// The steps of [`set_aside`], in order, for [`failpoint`].
pub const SET_ASIDE_STEPS: [&str; 4] = [
    "set-aside-linked",
    "set-aside-moved",
    "set-aside-named",
    "set-aside-live",
];

/// The steps of [`copy_set_aside`], in order, for [`failpoint`].
pub const COPY_LATER_STEPS: [&str; 3] = ["later-half", "later-synced", "later-copied"];

/// Bytes that are copied and written back at a time: who ends the copying waits for so many.
const CHUNK_BYTES: u64 = 8 << 20;

/// Makes the live file of an area, on a tmpfs, a generation, and a blank file of `new_len_bytes` the
/// live one, at a cost that does not grow with the size if there is a spare file. `None` if a file of
/// the area is set aside already, or the tmpfs has no room for another one: then nothing was done.
///
/// # Errors
///
/// [`Error::NoSpace`] if the state's file system has no room for the copy, [`Error::GenerationExists`],
/// [`Error::BadName`], [`Error::Io`]. Then everything is as it was, unless the system fails between
/// two renames: then [`tidy`](crate::tidy) and a new call finish the work.
pub fn set_aside(
    state: &StateDir,
    lock: &StateLock,
    live: &Path,
    new_len_bytes: u64,
    meta: &Meta,
) -> Result<Option<Generation>, Error> {
    let file = durable::with_suffix(live, name::SET_ASIDE);
    if !is_free(state, &file)? {
        return Ok(None);
    }
    let len_bytes = fs::metadata(live)
        .map_err(Error::io("look at", live))?
        .len();
    durable::check_free(&state.generations(), len_bytes)?;
    let prepared = match prepare(lock, live, new_len_bytes) {
        Err(Error::NoSpace { .. }) => return Ok(None),
        result => result?,
    };
    let folder = match link_and_move(state, live, &file, meta) {
        Ok(folder) => folder,
        Err(error) => {
            let _ = fs::remove_file(&prepared);
            return Err(error);
        }
    };
    failpoint::reached("set-aside-moved");
    folder.name_for_now()?;
    failpoint::reached("set-aside-named");
    show_prepared(&prepared, live, "set-aside-live")?;
    Ok(Some(folder.into_generation(meta)))
}

/// Whether nothing is set aside at `file`. Where a kill came between putting the copy in the link's
/// place and removing the file, it is removed now; a file that no generation is a copy of stays.
fn is_free(state: &StateDir, file: &Path) -> Result<bool, Error> {
    if fs::symlink_metadata(file).is_err() {
        return Ok(true);
    }
    let generations = list(state)?;
    let has_link = |kept: &Generation| file_of(&kept.region_path()).is_some_and(|of| of == file);
    if generations.iter().any(has_link) {
        return Ok(false);
    }
    for kept in generations.iter().rev() {
        if holds_same_bytes(kept, CopySource::File(file))? {
            durable::remove_if_there(file)?;
            return Ok(true);
        }
    }
    Ok(false)
}

/// The link comes first: when the live file is moved, something leads to it.
fn link_and_move(
    state: &StateDir,
    live: &Path,
    file: &Path,
    meta: &Meta,
) -> Result<Unnamed, Error> {
    let folder = Unnamed::make(state, meta)?;
    let moved = symlink(file, folder.region()).and_then(|()| {
        failpoint::reached("set-aside-linked");
        durable::rename_new(live, file)
    });
    match moved {
        Ok(()) => Ok(folder),
        Err(source) => {
            folder.discard();
            Err(Error::io("set aside", live)(source))
        }
    }
}

/// Copies what is set aside into the generations that it belongs to, durably, and removes it. Returns
/// whether all of it is done: `is_ended` is asked between pieces, and ends the copying if it says so.
/// Calling again begins anew.
///
/// # Errors
///
/// [`Error::NoSpace`] and [`Error::Io`]. What was not copied is still set aside.
pub fn copy_set_aside(
    state: &StateDir,
    _lock: &StateLock,
    is_ended: &dyn Fn() -> bool,
) -> Result<bool, Error> {
    for generation in list(state)? {
        let region = generation.region_path();
        let Some(file) = file_of(&region).filter(|_| !is_gone(&region)) else {
            continue;
        };
        if !copy(&file, &region, is_ended)? {
            return Ok(false);
        }
        failpoint::reached("later-copied");
        durable::remove_if_there(&file)?;
    }
    Ok(true)
}

/// Puts a durable copy of `file` in the place of the link `region`; `false` if it was ended.
fn copy(file: &Path, region: &Path, is_ended: &dyn Fn() -> bool) -> Result<bool, Error> {
    let part = durable::with_suffix(region, ".part");
    durable::remove_if_there(&part)?;
    let from = File::open(file).map_err(Error::io("open", file))?;
    let len_bytes = from.metadata().map_err(Error::io("look at", file))?.len();
    let to = durable::create_new(&part)?;
    let copied = durable::check_room(&to, &part, len_bytes).and_then(|()| {
        copy_pieces(&from, &to, len_bytes, is_ended)
            .map_err(|error| durable::allocation_error(&part, len_bytes, error))
    });
    match copied {
        Ok(true) => {}
        result => {
            durable::remove_if_there(&part)?;
            return result;
        }
    }
    to.sync_all().map_err(Error::io("sync", &part))?;
    failpoint::reached("later-synced");
    fs::rename(&part, region).map_err(Error::io("rename", &part))?;
    durable::sync_up(region, 3)?;
    Ok(true)
}

fn copy_pieces(
    from: &File,
    mut to: &File,
    len_bytes: u64,
    is_ended: &dyn Fn() -> bool,
) -> io::Result<bool> {
    let mut piece = Vec::new();
    let mut copied = 0;
    while copied < len_bytes {
        if is_ended() {
            return Ok(false);
        }
        piece.clear();
        let read = from.take(CHUNK_BYTES).read_to_end(&mut piece)?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        to.write_all(&piece)?;
        to.sync_data()?;
        copied += read as u64;
        if copied >= len_bytes / 2 {
            failpoint::reached("later-half");
        }
    }
    Ok(true)
}

/// The file that is set aside for the region at `region`, if it is a link to one.
pub(super) fn file_of(region: &Path) -> Option<PathBuf> {
    let file = fs::read_link(region).ok()?;
    let is_ours = file
        .as_os_str()
        .as_encoded_bytes()
        .ends_with(name::SET_ASIDE.as_bytes());
    is_ours.then_some(file)
}

/// Whether the file that was set aside for the region is not there.
pub(super) fn is_gone(region: &Path) -> bool {
    let is_missing = |file: PathBuf| {
        fs::symlink_metadata(file).is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
    };
    file_of(region).is_some_and(is_missing)
}

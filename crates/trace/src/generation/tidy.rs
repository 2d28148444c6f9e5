//! What a killed start left behind.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use super::unnamed::Unnamed;
use super::{REMOVING, UNNAMED, entries, parse_seq, remove_folder, seq_name};
use crate::{Error, StateDir, StateLock, durable, name, tail};

/// What [`tidy`] found and did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Tidied {
    /// Generations that lacked nothing but their name, and have it now.
    pub completed: Vec<PathBuf>,
    /// Files and folders that were worth nothing, and are gone.
    pub removed: Vec<PathBuf>,
    /// Folders that hold a region whose name is taken by another: left as they are.
    pub left: Vec<PathBuf>,
}

/// Finishes what a killed start left: blank area files and half-made copies are removed, a
/// generation that has its region gets its name, a removal that was begun is ended. Called by each
/// start before anything else.
///
/// # Errors
///
/// [`Error::Io`]; calling again goes on.
pub fn tidy(state: &StateDir, lock: &StateLock) -> Result<Tidied, Error> {
    let mut tidied = Tidied {
        removed: state.tidy_small_files()?,
        ..Tidied::default()
    };
    for path in entries(&state.areas())? {
        if path
            .as_os_str()
            .as_encoded_bytes()
            .ends_with(name::PREPARED.as_bytes())
        {
            durable::remove_if_there(&path)?;
            tidied.removed.push(path);
        }
    }
    for of_instance in entries(&state.generations())? {
        if of_instance.is_dir() {
            tidy_instance(lock, &of_instance, &mut tidied)?;
        }
    }
    tidied.removed.extend(tail::tidy(state)?);
    Ok(tidied)
}

fn tidy_instance(_lock: &StateLock, folder: &Path, tidied: &mut Tidied) -> Result<(), Error> {
    for path in entries(folder)? {
        let file_name = path.file_name().and_then(OsStr::to_str).unwrap_or("");
        if file_name
            .strip_suffix(REMOVING)
            .and_then(parse_seq)
            .is_some()
        {
            remove_folder(&path)?;
            tidied.removed.push(path);
        } else if let Some(seq) = file_name.strip_suffix(UNNAMED).and_then(parse_seq) {
            tidy_unnamed(
                Unnamed {
                    path: folder.join(seq_name(seq)),
                    temporary: path,
                },
                tidied,
            )?;
        }
    }
    // Stays where there are generations.
    let _ = fs::remove_dir(folder);
    Ok(())
}

fn tidy_unnamed(folder: Unnamed, tidied: &mut Tidied) -> Result<(), Error> {
    if fs::symlink_metadata(folder.region()).is_err() {
        remove_folder(&folder.temporary)?;
        tidied.removed.push(folder.temporary);
    } else if fs::symlink_metadata(&folder.path).is_ok() {
        tidied.left.push(folder.temporary);
    } else {
        folder.name()?;
        tidied.completed.push(folder.path);
    }
    Ok(())
}

//! What a killed start left behind.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use outlive_ring::RunId;

use super::unnamed::Unnamed;
use super::{REMOVING, UNNAMED, entries, parse_seq, read_meta, remove_folder, seq_name, set_aside};
use crate::verdict::boot_id;
use crate::{Error, StateDir, StateLock, durable, name, tail};

/// What [`tidy`] found and did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Tidied {
    /// Generations that lacked nothing but their name, and have it now.
    pub completed: Vec<PathBuf>,
    /// Files and folders that were worth nothing, and are gone.
    pub removed: Vec<PathBuf>,
    /// Generations whose region was on a tmpfs that is gone, with the machine: so are they.
    pub lost: Vec<PathBuf>,
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
        } else if parse_seq(file_name).is_some() && is_lost(&path) {
            tidy_lost(&path)?;
            tidied.lost.push(path);
        }
    }
    // Stays where there are generations.
    let _ = fs::remove_dir(folder);
    Ok(())
}

/// Whether the region was on a tmpfs of another boot. In this boot a file that is not there may be in a
/// mount that is not.
fn is_lost(path: &Path) -> bool {
    let of_this_boot = || {
        let meta = read_meta(path).and_then(|meta| meta.boot_id);
        meta.is_some_and(|boot| boot == RunId(boot_id()).to_string())
    };
    set_aside::is_gone(&path.join("region")) && !of_this_boot()
}

/// What was drained from the host's ring is still there, and stays.
fn tidy_lost(path: &Path) -> Result<(), Error> {
    match path.join("tail").exists() {
        true => durable::remove_if_there(&path.join("region")),
        false => remove_folder(path),
    }
}

fn tidy_unnamed(folder: Unnamed, tidied: &mut Tidied) -> Result<(), Error> {
    // Through the link of one that was about to be set aside.
    if fs::metadata(folder.region()).is_err() {
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

//! The programs that record for themselves: each has a state folder of its own, `STATE/apps/NAME`.
//!
//! There it has its lock, its runs, its generations, as any recorder. Beside its live area lie the
//! areas of children that were forked from it, `AREA.PID`; when they have ended, the next start keeps
//! them as generations of `NAME.child`.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use crate::{Error, StateDir, name};

/// What the instance of a program's forked children has behind the program's name.
pub const CHILD: &str = ".child";

/// The folder of a program's state in the state folder `root`.
///
/// # Errors
///
/// [`Error::BadName`] if the name cannot be a folder's.
pub fn folder(root: &Path, program: &str) -> Result<PathBuf, Error> {
    Ok(root.join("apps").join(name::check(program)?))
}

/// The state of the program that has the instance `instance`, if there is one.
///
/// # Errors
///
/// As [`StateDir::open_existing`].
pub fn of_instance(root: &Path, instance: &str) -> Result<Option<StateDir>, Error> {
    let program = instance.strip_suffix(CHILD).unwrap_or(instance);
    match folder(root, program) {
        Ok(folder) => StateDir::open_existing(&folder),
        Err(_) => Ok(None),
    }
}

/// The states of all programs that ever recorded, by name.
///
/// # Errors
///
/// [`Error::Io`] if the folder cannot be listed; as [`StateDir::open_existing`].
pub fn list(root: &Path) -> Result<Vec<StateDir>, Error> {
    let path = root.join("apps");
    if !path.is_dir() {
        return Ok(Vec::new());
    }
    let entries = fs::read_dir(&path).map_err(Error::io("list", &path))?;
    let mut folders: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    folders.sort_unstable();
    folders
        .iter()
        .filter_map(|folder| StateDir::open_existing(folder).transpose())
        .collect()
}

/// The areas of the children forked from who records, or recorded, into the area file `live`: each
/// with its process id.
#[must_use]
pub fn children(live: &Path) -> Vec<(u32, PathBuf)> {
    let Some((folder, name)) = live.parent().zip(live.file_name().and_then(OsStr::to_str)) else {
        return Vec::new();
    };
    let pid = |path: &Path| {
        let (file, pid) = path.file_name()?.to_str()?.rsplit_once('.')?;
        pid.parse().ok().filter(|_| file == name)
    };
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut children: Vec<(u32, PathBuf)> = entries
        .filter_map(|entry| Some((pid(&entry.path())?, entry.path())))
        .collect();
    children.sort_unstable();
    children
}

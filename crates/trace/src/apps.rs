//! The programs that record for themselves: each has a state folder of its own, `STATE/apps/NAME`.
//!
//! There it has its lock, its runs, its generations, as any recorder. Beside its live area lie the
//! areas of children that were forked from it, and those of the further processes of a supervised run
//! ([`Beside`](crate::Beside)): `AREA.PID`. When these have ended, the next start keeps them as
//! generations of `NAME.child`.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use crate::cmdline::LABEL_LEN_MAX;
use crate::start::{Holds, look_at};
use crate::verdict::boot_id;
use crate::{
    Access, CopySource, Error, Generation, Mapping, Meta, StateDir, StateLock, Verdict, beside,
    durable, generation, lock, name, neighbours,
};

/// The label of the area of an instance whose name is no label.
const AREA: &str = "area";

/// What the instance of a program's children has behind the program's name.
pub const CHILD: &str = ".child";

/// The folder of a program's state in the state folder `root`.
///
/// # Errors
///
/// [`Error::BadName`] if the name cannot be a folder's.
pub fn folder(root: &Path, program: &str) -> Result<PathBuf, Error> {
    Ok(root.join("apps").join(name::check(program)?))
}

/// The command line of one persistent instance `name`, in an area of `size` bytes, with these events: a state of
/// its own has no other area. The area is called as the instance is, unless that is too long for a label
/// (`reserve_mem=`: 15 bytes).
#[must_use]
pub fn command_line(name: &str, size: u64, events: &[String]) -> String {
    let label = if name.len() > LABEL_LEN_MAX {
        AREA
    } else {
        name
    };
    let words = [format!("{name}@{label}")];
    let words = [&words, events].concat().join(",");
    format!("reserve_mem={size}:4096:{label} trace_instance={words}")
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

/// The area of the process `pid` beside the area file `live`.
pub(crate) fn child_path(live: &Path, pid: u32) -> PathBuf {
    durable::with_suffix(live, &format!(".{pid}"))
}

/// The areas of children beside the area file `live`: each with its process id.
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

/// Keeps what the children left that have ended, each as a generation of `INSTANCE.child`, and
/// removes their areas.
///
/// # Errors
///
/// As [`generation::keep_by_copy`]. An area that was not kept is still there.
pub fn keep_children(
    state: &StateDir,
    state_lock: &StateLock,
    instance: &str,
    live: &Path,
) -> Result<Vec<Generation>, Error> {
    let mut kept = Vec::new();
    for (pid, path) in children(live) {
        let is_ours = !lock::is_file_locked(&path)? && !is_being_made(pid, &path);
        if is_ours {
            kept.extend(keep_child(state, state_lock, instance, &path)?);
            durable::remove_if_there(&path)?;
        }
    }
    beside::forget_removed(live)?;
    Ok(kept)
}

/// A child locks its file before it gives it a length.
fn is_being_made(pid: u32, path: &Path) -> bool {
    let is_empty = fs::metadata(path).is_ok_and(|metadata| metadata.len() == 0);
    is_empty && neighbours::is_process(pid)
}

fn keep_child(
    state: &StateDir,
    state_lock: &StateLock,
    instance: &str,
    path: &Path,
) -> Result<Option<Generation>, Error> {
    let file = fs::File::open(path).map_err(Error::io("open", path))?;
    let len = file.metadata().map_err(Error::io("look at", path))?.len();
    if len == 0 {
        return Ok(None);
    }
    let mapping = Mapping::of_file(&file, path, len, Access::ReadOnly)?;
    let (holds, run) = look_at(&mapping);
    let run_id = run.as_ref().map(|run| run.run_id.to_string());
    let instance = format!("{instance}{CHILD}");
    let was_kept = |generation: &Generation| {
        let meta = generation.meta();
        run_id.is_some() && meta.is_some_and(|meta| meta.run_id == run_id)
    };
    // A start was killed between keeping and removing it.
    let is_kept = generation::list_instance(state, &instance)?
        .iter()
        .any(was_kept);
    if holds == Holds::Nothing || is_kept {
        return Ok(None);
    }
    let sequence = state.next_sequence(state_lock)?;
    let mut meta = Meta::new(&instance, sequence, &path.display().to_string());
    meta.recorded_as = run.as_ref().map(|run| run.instance.clone());
    meta.boot_id = run
        .as_ref()
        .map(|run| outlive_ring::RunId(run.boot_id).to_string());
    meta.run_id = run_id;
    Verdict::of_ended(run.as_ref(), &boot_id()).note(&mut meta);
    generation::keep_by_copy(state, state_lock, CopySource::Memory(&mapping), &meta).map(Some)
}

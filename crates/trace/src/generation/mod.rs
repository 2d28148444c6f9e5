//! Generations: what each run left, kept in the state folder.
//!
//! A generation is the folder `generations/INSTANCE/SEQ` with `region` (the area as the run left
//! it), `tail` (what was drained from the host's ring after its death, if anything) and
//! `meta.json`. It comes to be in one of three ways, and in each the old region is, at every
//! instant, whole in at least one place whose name [`tidy`] knows:
//!
//! * [`rotate_file_area`], where the area is a file on the state's file system. The *new* file is
//!   allocated and synced first; then the old one is renamed into `SEQ.new/`, that folder to
//!   `SEQ`, and the new file to the live name. No byte of the area is touched, so the cost does
//!   not grow with its size. The folders are synced between the second and third rename: on a file
//!   system that reorders renames the live name must not be durable before the generation's is.
//! * [`set_aside`], where the area is a file on a tmpfs that has room for another one. It is renamed
//!   beside the live name, and `SEQ/region` is a symbolic link to it; whatever opens the region
//!   follows that. [`copy_set_aside`] copies it later, when the program records already, and puts the
//!   copy in the link's place. Only one file of an area is set aside at a time. Nothing of this is
//!   synced before the copy is: a tmpfs does not outlive the machine either, and a link without a file
//!   is what is left of it then.
//! * [`keep_by_copy`], for all other memory: copied to `SEQ.new/region.part`, synced, renamed to
//!   `region`, and the folder to `SEQ`. The original is not written to; it may be cleared when the
//!   call has returned.
//!
//! Whatever a kill leaves is `LIVE.outlive-new` (blank), or a folder `SEQ.new`: with `region`, it
//! lacks nothing but its name; without, it is worth nothing.

mod copy;
mod rotate;
mod set_aside;
mod tidy;
mod unnamed;

#[cfg(test)]
mod tests;

use std::ffi::OsStr;
use std::fmt;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use serde::{Deserialize, Serialize};

use crate::state::read_small;
use crate::{Error, StateDir, StateLock, clock, durable, failpoint, name};

pub use copy::{COPY_STEPS, CopySource, keep_by_copy};
pub use rotate::{ROTATE_STEPS, keep_by_move, rotate_file_area};
pub(crate) use rotate::{prepare, show_prepared};
pub use set_aside::{COPY_LATER_STEPS, SET_ASIDE_STEPS, copy_set_aside, set_aside};
pub use tidy::{Tidied, tidy};

/// Suffix of a generation's folder that is being made.
const UNNAMED: &str = ".new";
/// Suffix of a generation's folder that is being removed.
const REMOVING: &str = ".removing";

/// Whether a generation is all there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum GenerationState {
    /// The host's ring may still hold events of that run which are not in `tail`.
    Collecting,
    /// Nothing is missing that could be had.
    #[default]
    Complete,
}

/// What `meta.json` of a generation says. Written whole, by the start that makes the generation
/// and by whoever completes it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Meta {
    /// The instance that the generation is one of.
    pub instance: String,
    /// Number of the run whose start made the generation.
    pub seq: u64,
    /// The run that wrote the region: hexadecimal digits. `None` of a region without run record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_id: Option<String>,
    /// The instance that the run recorded the region as, if its run record says so: another one
    /// than `instance` if the area has changed its instance since. With `run_id` it tells a region
    /// from all others. `None` also where the run left no region and all is from the host's ring.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recorded_as: Option<String>,
    /// When the generation was made: nanoseconds since 1970-01-01 00:00:00 UTC.
    pub created_ns: u64,
    /// Where the region lived, as in `--area`.
    pub backing: String,
    /// Whether the generation is all there.
    pub state: GenerationState,
    /// The boot in which the region was written, if its run record says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot_id: Option<String>,
    /// What other versions of outlive wrote; kept as it is.
    #[serde(flatten)]
    pub other: serde_json::Map<String, serde_json::Value>,
}

impl Meta {
    /// A complete generation made now.
    #[must_use]
    pub fn new(instance: &str, seq: u64, backing: &str) -> Self {
        Self {
            instance: instance.to_owned(),
            seq,
            run_id: None,
            recorded_as: None,
            created_ns: clock::realtime_ns(),
            backing: backing.to_owned(),
            state: GenerationState::Complete,
            boot_id: None,
            other: serde_json::Map::new(),
        }
    }
}

/// One generation, as its folder was when it was looked at.
#[derive(Clone, Debug)]
pub struct Generation {
    instance: String,
    seq: u64,
    path: PathBuf,
    meta: Option<Meta>,
}

/// Its name: `boot_mapped/12`.
impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.instance, self.seq)
    }
}

impl Generation {
    fn open(instance: &str, seq: u64, path: PathBuf) -> Self {
        Self {
            instance: instance.to_owned(),
            seq,
            meta: read_meta(&path),
            path,
        }
    }

    /// The generation in this folder, as [`path`](Self::path) says it; `None` if that is no folder
    /// of a generation.
    #[must_use]
    pub fn in_folder(path: &Path) -> Option<Self> {
        Self::out_of_sight(path).filter(|_| path.is_dir())
    }

    /// The generation whose folder this is where it can be seen, which need not be here: without
    /// what `meta.json` says then.
    #[must_use]
    pub fn out_of_sight(path: &Path) -> Option<Self> {
        let seq = parse_seq(path.file_name()?.to_str()?)?;
        let instance = path.parent()?.file_name()?.to_str()?;
        Some(Self::open(instance, seq, path.to_owned()))
    }

    /// The instance that it is one of.
    #[must_use]
    pub fn instance(&self) -> &str {
        &self.instance
    }

    /// Number of the run whose start made it; newer generations have larger ones.
    #[must_use]
    pub fn seq(&self) -> u64 {
        self.seq
    }

    /// Its folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The region as the run left it.
    #[must_use]
    pub fn region_path(&self) -> PathBuf {
        self.path.join("region")
    }

    /// Where the events drained after the run's death go; need not be there.
    #[must_use]
    pub fn tail_path(&self) -> PathBuf {
        self.path.join("tail")
    }

    /// What `meta.json` says; `None` if it is missing or damaged, which harms nothing else.
    #[must_use]
    pub fn meta(&self) -> Option<&Meta> {
        self.meta.as_ref()
    }

    /// Whether events may still be missing. A generation with a damaged `meta.json` is taken for
    /// complete.
    #[must_use]
    pub fn is_collecting(&self) -> bool {
        self.meta
            .as_ref()
            .is_some_and(|meta| meta.state == GenerationState::Collecting)
    }

    /// When it was made, in nanoseconds since 1970-01-01 00:00:00 UTC; by the folder's time stamp
    /// if `meta.json` is damaged.
    #[must_use]
    pub fn created_ns(&self) -> Option<u64> {
        let of_folder = || {
            let modified = fs::metadata(&self.path).ok()?.modified().ok()?;
            u64::try_from(modified.duration_since(UNIX_EPOCH).ok()?.as_nanos()).ok()
        };
        self.meta
            .as_ref()
            .map(|meta| meta.created_ns)
            .or_else(of_folder)
    }

    /// Bytes that its files take on the disk now.
    #[must_use]
    pub fn disk_bytes(&self) -> u64 {
        disk_bytes(&self.path)
    }

    /// Changes `meta.json` durably. One that is damaged is written anew.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] or [`Error::NoSpace`]; then the old file is still there.
    pub fn update_meta(
        &mut self,
        _lock: &StateLock,
        change: impl FnOnce(&mut Meta),
    ) -> Result<(), Error> {
        let mut meta = self
            .meta
            .clone()
            .unwrap_or_else(|| Meta::new(&self.instance, self.seq, "unknown"));
        change(&mut meta);
        write_meta(&self.path, &meta)?;
        self.meta = Some(meta);
        Ok(())
    }

    /// Removes it: renamed first, so that a kill never leaves half of one under its name.
    ///
    /// # Errors
    ///
    /// [`Error::Io`]; [`tidy`] goes on with it.
    pub fn remove(self, _lock: &StateLock) -> Result<(), Error> {
        // First, so that a kill leaves a link without a file, which is worth nothing, and no file
        // that nothing leads to.
        if let Some(file) = set_aside::file_of(&self.region_path()) {
            durable::remove_if_there(&file)?;
        }
        let removing = durable::with_suffix(&self.path, REMOVING);
        fs::rename(&self.path, &removing).map_err(Error::io("remove", &self.path))?;
        failpoint::reached("remove-renamed");
        remove_folder(&removing)
    }
}

/// `None` if it is missing or damaged.
fn read_meta(folder: &Path) -> Option<Meta> {
    let text = read_small(&folder.join("meta.json")).ok().flatten()?;
    serde_json::from_slice(&text).ok()
}

fn write_meta(folder: &Path, meta: &Meta) -> Result<(), Error> {
    let path = folder.join("meta.json");
    let text = serde_json::to_vec_pretty(meta)
        .map_err(|error| Error::io("write", &path)(io::Error::from(error)))?;
    durable::write_atomic(&path, &text)
}

/// Removes a folder and what is in it. The sync makes its space free for a new file at once.
fn remove_folder(path: &Path) -> Result<(), Error> {
    fs::remove_dir_all(path).map_err(Error::io("remove", path))?;
    durable::sync_dir(durable::parent(path))
}

fn disk_bytes(path: &Path) -> u64 {
    let own = fs::symlink_metadata(path).map_or(0, |metadata| metadata.blocks() * 512);
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    own + entries
        .map(|entry| disk_bytes_of_entry(&entry))
        .sum::<u64>()
}

fn disk_bytes_of_entry(entry: &fs::DirEntry) -> u64 {
    match entry.file_type() {
        Ok(kind) if kind.is_dir() => disk_bytes(&entry.path()),
        _ => entry
            .metadata()
            .map_or(0, |metadata| metadata.blocks() * 512),
    }
}

/// All generations, oldest first.
///
/// # Errors
///
/// [`Error::Io`] if a folder cannot be listed.
pub fn list(state: &StateDir) -> Result<Vec<Generation>, Error> {
    let mut generations = Vec::new();
    for path in entries(&state.generations())? {
        if let Some(instance) = path.file_name().and_then(OsStr::to_str)
            && path.is_dir()
        {
            list_into(instance, &path, &mut generations)?;
        }
    }
    generations.sort_by(|a, b| (a.seq, &a.instance).cmp(&(b.seq, &b.instance)));
    Ok(generations)
}

/// The generations of one instance, oldest first; none if there is no such instance.
///
/// # Errors
///
/// [`Error::BadName`] if no instance can have this name; [`Error::Io`] as for [`list`].
pub fn list_instance(state: &StateDir, instance: &str) -> Result<Vec<Generation>, Error> {
    let folder = state.generations().join(name::check(instance)?);
    let mut generations = Vec::new();
    if folder.is_dir() {
        list_into(instance, &folder, &mut generations)?;
    }
    generations.sort_by_key(|generation| generation.seq);
    Ok(generations)
}

fn list_into(instance: &str, folder: &Path, into: &mut Vec<Generation>) -> Result<(), Error> {
    for path in entries(folder)? {
        if let Some(seq) = path.file_name().and_then(OsStr::to_str).and_then(parse_seq) {
            into.push(Generation::open(instance, seq, path));
        }
    }
    Ok(())
}

fn entries(folder: &Path) -> Result<Vec<PathBuf>, Error> {
    let entries = fs::read_dir(folder).map_err(Error::io("list", folder))?;
    entries
        .map(|entry| Ok(entry.map_err(Error::io("list", folder))?.path()))
        .collect()
}

/// The number of a generation's folder. Only what [`seq_name`] writes.
fn parse_seq(text: &str) -> Option<u64> {
    let seq = text.parse().ok()?;
    (seq_name(seq) == text).then_some(seq)
}

/// Eight digits at least, so that a plain listing is in order.
fn seq_name(seq: u64) -> String {
    format!("{seq:08}")
}

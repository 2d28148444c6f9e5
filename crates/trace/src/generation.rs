//! Generations: what each run left, kept in the state folder.
//!
//! A generation is the folder `generations/INSTANCE/SEQ` with `region` (the area as the run left
//! it), `tail` (what was drained from the host's ring after its death, if anything) and
//! `meta.json`. It comes to be in one of two ways, and in both the old region is, at every
//! instant, whole in at least one place whose name [`tidy`] knows:
//!
//! * [`rotate_file_area`], where the area is a file on the state's file system. The *new* file is
//!   allocated and synced first; then the old one is renamed into `SEQ.new/`, that folder to
//!   `SEQ`, and the new file to the live name. No byte of the area is touched, so the cost does
//!   not grow with its size. The folders are synced between the second and third rename: on a file
//!   system that reorders renames the live name must not be durable before the generation's is.
//! * [`keep_by_copy`], for all other memory: copied to `SEQ.new/region.part`, synced, renamed to
//!   `region`, and the folder to `SEQ`. The original is not written to; it may be cleared when the
//!   call has returned.
//!
//! Whatever a kill leaves is `LIVE.outlive-new` (blank), or a folder `SEQ.new`: with `region`, it
//! lacks nothing but its name; without, it is worth nothing.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use outlive_ring::Memory;
use serde::{Deserialize, Serialize};

use crate::state::read_small;
use crate::{Error, Mapping, StateDir, StateLock, clock, durable, failpoint, name};

/// The steps of [`rotate_file_area`], in order, for [`failpoint`].
pub const ROTATE_STEPS: [&str; 6] = [
    "rotate-allocated",
    "rotate-folder",
    "rotate-moved",
    "rotate-named",
    "rotate-live",
    "rotate-synced",
];

/// The steps of [`keep_by_copy`], in order, for [`failpoint`].
pub const COPY_STEPS: [&str; 6] = [
    "copy-folder",
    "copy-allocated",
    "copy-half",
    "copy-synced",
    "copy-region",
    "copy-named",
];

/// Bytes copied or compared at a time.
const CHUNK_BYTES: usize = 1 << 20;

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

impl Generation {
    fn open(instance: &str, seq: u64, path: PathBuf) -> Self {
        let text = read_small(&path.join("meta.json")).ok().flatten();
        let meta = text.and_then(|text| serde_json::from_slice(&text).ok());
        Self {
            instance: instance.to_owned(),
            seq,
            path,
            meta,
        }
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
        let removing = durable::with_suffix(&self.path, REMOVING);
        fs::rename(&self.path, &removing).map_err(Error::io("remove", &self.path))?;
        failpoint::reached("remove-renamed");
        remove_folder(&removing)
    }
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

/// A generation's folder while it is being made.
struct Unnamed {
    /// `SEQ.new`.
    temporary: PathBuf,
    /// `SEQ`.
    path: PathBuf,
}

impl Unnamed {
    /// Makes the folder `SEQ.new` with its `meta.json`, durably but for its own name.
    fn make(state: &StateDir, meta: &Meta) -> Result<Self, Error> {
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

    fn region(&self) -> PathBuf {
        self.temporary.join("region")
    }

    /// Gives the folder its name, durably.
    fn name(&self) -> Result<(), Error> {
        durable::sync_dir(&self.temporary)?;
        durable::rename_new(&self.temporary, &self.path)
            .map_err(Error::io("name the generation", &self.path))?;
        let of_instance = durable::parent(&self.path);
        durable::sync_dir(of_instance)?;
        durable::sync_dir(durable::parent(of_instance))
    }

    /// Removes a folder that holds no region yet.
    fn discard(&self) {
        let _ = fs::remove_dir_all(&self.temporary);
        // Stays where it holds other generations.
        let _ = fs::remove_dir(durable::parent(&self.path));
    }

    fn into_generation(self, meta: &Meta) -> Generation {
        Generation {
            instance: meta.instance.clone(),
            seq: meta.seq,
            path: self.path,
            meta: Some(meta.clone()),
        }
    }
}

/// Makes the live file of an area a generation, and a new blank file of `new_len_bytes` the live
/// one, at a cost that does not grow with the size. Mappings of the old file stay valid, and are
/// mappings of the generation's region afterwards.
///
/// # Errors
///
/// [`Error::NoSpace`] if there is no room for the new file, [`Error::GenerationExists`],
/// [`Error::BadName`], [`Error::Io`] (`EXDEV` if `live` is on another file system than the state).
/// Then everything is as it was, unless the system fails between two renames: then [`tidy`] and a
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

/// Makes the blank file that will be the live one, beside it. What a killed start left there is
/// ours to remove.
pub(crate) fn prepare(_lock: &StateLock, live: &Path, len_bytes: u64) -> Result<PathBuf, Error> {
    let prepared = durable::with_suffix(live, name::PREPARED);
    if durable::open_private(&prepared)?.is_some() {
        durable::remove_if_there(&prepared)?;
    }
    durable::create_allocated(&prepared, len_bytes)?;
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

/// Memory to be kept by copying.
#[derive(Clone, Copy, Debug)]
pub enum CopySource<'a> {
    /// All of a file.
    File(&'a Path),
    /// All of a mapping: what cannot be read as a file (physical memory, device-DAX).
    Memory(&'a Mapping),
}

impl<'a> CopySource<'a> {
    fn len_bytes(&self) -> Result<u64, Error> {
        match self {
            Self::File(path) => fs::metadata(path)
                .map(|metadata| metadata.len())
                .map_err(Error::io("look at", path)),
            Self::Memory(mapping) => Ok(mapping.len() as u64),
        }
    }

    fn open(&self) -> Result<Box<dyn Read + 'a>, Error> {
        match *self {
            Self::File(path) => Ok(Box::new(File::open(path).map_err(Error::io("open", path))?)),
            Self::Memory(mapping) => Ok(Box::new(MappingReader { mapping, at: 0 })),
        }
    }
}

/// Reads a mapping from its beginning to its end.
struct MappingReader<'a> {
    mapping: &'a Mapping,
    at: usize,
}

impl Read for MappingReader<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let len = out.len().min(self.mapping.len() - self.at);
        Memory::read(self.mapping, self.at, &mut out[..len]);
        self.at += len;
        Ok(len)
    }
}

/// Keeps memory as a generation by copying it. When this has returned, the copy is durable and
/// the original may be cleared.
///
/// If the newest generation of the instance holds the very same bytes, the start that copied them
/// was killed before it could clear the original: nothing is copied, and that generation returned.
///
/// # Errors
///
/// [`Error::NoSpace`], [`Error::GenerationExists`], [`Error::BadName`], [`Error::Io`]. Then the
/// original is as it was, and of the copy nothing is left that [`tidy`] would not remove.
pub fn keep_by_copy(
    state: &StateDir,
    _lock: &StateLock,
    source: CopySource<'_>,
    meta: &Meta,
) -> Result<Generation, Error> {
    if let Some(newest) = list_instance(state, &meta.instance)?.pop()
        && holds_same_bytes(&newest, source)?
    {
        return Ok(newest);
    }
    let folder = Unnamed::make(state, meta)?;
    failpoint::reached("copy-folder");
    if let Err(error) = copy_region(source, &folder.region()) {
        folder.discard();
        return Err(error);
    }
    failpoint::reached("copy-region");
    folder.name()?;
    failpoint::reached("copy-named");
    Ok(folder.into_generation(meta))
}

fn holds_same_bytes(generation: &Generation, source: CopySource<'_>) -> Result<bool, Error> {
    let path = generation.region_path();
    let Ok(file) = File::open(&path) else {
        return Ok(false);
    };
    if file.metadata().map_err(Error::io("look at", &path))?.len() != source.len_bytes()? {
        return Ok(false);
    }
    is_same(file, source.open()?).map_err(Error::io("compare", &path))
}

/// Whether both give the same bytes until the first of them ends.
fn is_same(a: impl Read, b: impl Read) -> io::Result<bool> {
    let (mut a, mut b) = (a.take(u64::MAX), b.take(u64::MAX));
    let (mut bytes_a, mut bytes_b) = (Vec::new(), Vec::new());
    loop {
        bytes_a.clear();
        bytes_b.clear();
        a.by_ref()
            .take(CHUNK_BYTES as u64)
            .read_to_end(&mut bytes_a)?;
        b.by_ref()
            .take(CHUNK_BYTES as u64)
            .read_to_end(&mut bytes_b)?;
        if bytes_a != bytes_b {
            return Ok(false);
        }
        if bytes_a.is_empty() {
            return Ok(true);
        }
    }
}

/// Copies to `region.part`, and to its name when it is all there.
fn copy_region(source: CopySource<'_>, region: &Path) -> Result<(), Error> {
    let part = durable::with_suffix(region, ".part");
    let len_bytes = source.len_bytes()?;
    let mut file = durable::create_allocated(&part, len_bytes)?;
    failpoint::reached("copy-allocated");
    let copied =
        copy_bytes(source.open()?, &mut file, len_bytes).map_err(Error::io("write", &part))?;
    if copied != len_bytes {
        return Err(Error::TooShort {
            path: part,
            needed_bytes: len_bytes,
            found_bytes: copied,
        });
    }
    file.sync_all().map_err(Error::io("sync", &part))?;
    failpoint::reached("copy-synced");
    durable::rename_new(&part, region).map_err(Error::io("rename", &part))
}

/// Copies at most `len_bytes`; returns how many there were.
fn copy_bytes(from: impl Read, to: &mut File, len_bytes: u64) -> io::Result<u64> {
    let mut from = from.take(len_bytes);
    let mut chunk = vec![0; CHUNK_BYTES];
    let mut copied = 0;
    loop {
        let len = match from.read(&mut chunk) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            result => result?,
        };
        if len == 0 {
            return Ok(copied);
        }
        to.write_all(&chunk[..len])?;
        copied += len as u64;
        if copied >= len_bytes / 2 {
            failpoint::reached("copy-half");
        }
    }
}

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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Access;

    const LEN: u64 = 64 << 10;

    /// A state with a live area file whose every byte is `fill`.
    struct Fixture {
        folder: tempfile::TempDir,
        state: StateDir,
        live: PathBuf,
    }

    impl Fixture {
        fn new(fill: u8) -> Self {
            let folder = tempfile::tempdir().unwrap();
            let state = StateDir::open(folder.path()).unwrap();
            let live = state.area_path("trace").unwrap();
            let fixture = Self {
                folder,
                state,
                live,
            };
            fixture.fill_live(fill);
            fixture
        }

        fn fill_live(&self, fill: u8) {
            durable::remove_if_there(&self.live).unwrap();
            let mut file = durable::create_new(&self.live).unwrap();
            file.write_all(&vec![fill; LEN as usize]).unwrap();
        }

        fn lock(&self) -> StateLock {
            self.state.try_lock_exclusive().unwrap()
        }

        fn rotate(&self, seq: u64) -> Result<Generation, Error> {
            let meta = Meta::new("boot_mapped", seq, "file");
            rotate_file_area(&self.state, &self.lock(), &self.live, LEN, &meta)
        }

        fn copy(&self, seq: u64) -> Result<Generation, Error> {
            let meta = Meta::new("boot_mapped", seq, "tmpfs");
            keep_by_copy(
                &self.state,
                &self.lock(),
                CopySource::File(&self.live),
                &meta,
            )
        }

        /// How many generations hold a whole region of this byte.
        fn kept(&self, fill: u8) -> usize {
            let generations = list(&self.state).unwrap();
            generations
                .iter()
                .filter(|kept| is_filled(&kept.region_path(), fill))
                .count()
        }
    }

    fn is_filled(path: &Path, fill: u8) -> bool {
        fs::read(path).is_ok_and(|bytes| bytes == vec![fill; LEN as usize])
    }

    #[test]
    fn rotation_keeps_the_old_file_and_leaves_a_blank_one() {
        let fixture = Fixture::new(1);
        let inode = fs::metadata(&fixture.live).unwrap().ino();
        let generation = fixture.rotate(7).unwrap();
        assert_eq!(fs::metadata(generation.region_path()).unwrap().ino(), inode);
        assert!(is_filled(&fixture.live, 0));
        assert_eq!(generation.meta().unwrap().backing, "file");
        assert_eq!(
            generation.path(),
            fixture
                .folder
                .path()
                .join("generations/boot_mapped/00000007")
        );
    }

    #[test]
    fn mapping_of_the_live_file_becomes_one_of_the_generation() {
        let fixture = Fixture::new(1);
        let file = durable::open_private(&fixture.live).unwrap().unwrap();
        let old = Mapping::of_file(&file, &fixture.live, LEN, Access::ReadOnly).unwrap();
        fixture.rotate(1).unwrap();
        fs::write(&fixture.live, vec![9; LEN as usize]).unwrap();
        assert_eq!(old.load_u32(0), 0x0101_0101);
    }

    #[test]
    fn generations_are_listed_oldest_first() {
        let fixture = Fixture::new(1);
        for (seq, fill) in [(2, 20), (10, 100), (123_456_789, 9)] {
            fixture.fill_live(fill);
            fixture.rotate(seq).unwrap();
        }
        fs::create_dir(fixture.state.generations().join("boot_mapped/4")).unwrap();
        fs::create_dir(fixture.state.generations().join("boot_mapped/notes")).unwrap();
        let seqs: Vec<_> = list(&fixture.state)
            .unwrap()
            .iter()
            .map(Generation::seq)
            .collect();
        assert_eq!(seqs, [2, 10, 123_456_789]);
        assert_eq!(
            list_instance(&fixture.state, "boot_mapped").unwrap().len(),
            3
        );
        assert!(list_instance(&fixture.state, "other").unwrap().is_empty());
        assert!(list_instance(&fixture.state, "../areas").is_err());
    }

    #[test]
    fn generation_is_never_replaced() {
        let fixture = Fixture::new(1);
        fixture.rotate(3).unwrap();
        fixture.fill_live(2);
        assert!(matches!(
            fixture.rotate(3),
            Err(Error::GenerationExists { .. })
        ));
        assert!(matches!(
            fixture.copy(3),
            Err(Error::GenerationExists { .. })
        ));
        assert!(is_filled(&fixture.live, 2));
        assert_eq!(fixture.kept(1), 1);
    }

    #[test]
    fn rotation_without_room_leaves_everything_as_it_was() {
        let Some(tmpfs) = durable::tests::SmallTmpfs::mount("256k") else {
            return;
        };
        let state = StateDir::open(tmpfs.path()).unwrap();
        let lock = state.try_lock_exclusive().unwrap();
        let live = state.area_path("trace").unwrap();
        fs::write(&live, vec![1; LEN as usize]).unwrap();
        let meta = Meta::new("boot_mapped", 1, "file");
        let error = rotate_file_area(&state, &lock, &live, 1 << 20, &meta).unwrap_err();
        assert!(
            matches!(
                error,
                Error::NoSpace {
                    needed_bytes: 0x100000,
                    ..
                }
            ),
            "{error}"
        );
        assert!(is_filled(&live, 1));
        assert_eq!(entries(&state.areas()).unwrap(), [live]);
        assert!(entries(&state.generations()).unwrap().is_empty());
    }

    #[test]
    fn copy_without_room_leaves_everything_as_it_was() {
        let Some(tmpfs) = durable::tests::SmallTmpfs::mount("64k") else {
            return;
        };
        let fixture = Fixture::new(1);
        let state = StateDir::open(tmpfs.path()).unwrap();
        let lock = state.try_lock_exclusive().unwrap();
        let meta = Meta::new("boot_mapped", 1, "mem");
        let source = CopySource::File(&fixture.live);
        let error = keep_by_copy(&state, &lock, source, &meta).unwrap_err();
        assert!(
            matches!(
                error,
                Error::NoSpace {
                    needed_bytes: LEN,
                    ..
                }
            ),
            "{error}"
        );
        assert!(entries(&state.generations()).unwrap().is_empty());
    }

    #[test]
    fn rotation_over_two_file_systems_fails_and_undoes_itself() {
        let Some(tmpfs) = durable::tests::SmallTmpfs::mount("1m") else {
            return;
        };
        let mut fixture = Fixture::new(1);
        fixture.live = tmpfs.path().join("trace");
        fixture.fill_live(2);
        let error = fixture.rotate(1).unwrap_err();
        let Error::Io { source, .. } = &error else {
            panic!("{error}")
        };
        assert_eq!(source.kind(), io::ErrorKind::CrossesDevices);
        assert!(is_filled(&fixture.live, 2));
        assert_eq!(entries(tmpfs.path()).unwrap().len(), 1);
        assert!(list(&fixture.state).unwrap().is_empty());
    }

    #[test]
    fn copy_of_a_file_and_of_a_mapping_are_the_same() {
        let fixture = Fixture::new(5);
        fixture.copy(1).unwrap();
        let file = durable::open_private(&fixture.live).unwrap().unwrap();
        let mapping = Mapping::of_file(&file, &fixture.live, LEN, Access::ReadWrite).unwrap();
        let meta = Meta::new("other", 2, "mem");
        let source = CopySource::Memory(&mapping);
        let copy = keep_by_copy(&fixture.state, &fixture.lock(), source, &meta).unwrap();
        assert!(is_filled(&copy.region_path(), 5));
        assert!(is_filled(&fixture.live, 5));
    }

    #[test]
    fn same_bytes_are_not_copied_twice() {
        let fixture = Fixture::new(5);
        fixture.copy(1).unwrap();
        assert_eq!(fixture.copy(2).unwrap().seq(), 1);
        fixture.fill_live(6);
        assert_eq!(fixture.copy(3).unwrap().seq(), 3);
        assert_eq!(list(&fixture.state).unwrap().len(), 2);
    }

    #[test]
    fn collecting_generation_becomes_complete_and_keeps_unknown_fields() {
        let fixture = Fixture::new(1);
        let mut meta = Meta::new("boot_mapped", 1, "file");
        meta.state = GenerationState::Collecting;
        meta.other.insert("future".into(), 3.into());
        let lock = fixture.lock();
        rotate_file_area(&fixture.state, &lock, &fixture.live, LEN, &meta).unwrap();
        let mut found = list(&fixture.state).unwrap().pop().unwrap();
        assert!(found.is_collecting());
        found
            .update_meta(&lock, |meta| meta.state = GenerationState::Complete)
            .unwrap();
        let found = list(&fixture.state).unwrap().pop().unwrap();
        assert!(!found.is_collecting());
        assert_eq!(found.meta().unwrap().other["future"], 3);
    }

    #[test]
    fn damaged_meta_costs_nothing_but_itself() {
        let fixture = Fixture::new(1);
        let generation = fixture.rotate(1).unwrap();
        fs::write(generation.path().join("meta.json"), b"{\"instance\": 5}").unwrap();
        let mut found = list(&fixture.state).unwrap().pop().unwrap();
        assert!(found.meta().is_none() && !found.is_collecting());
        assert!(found.created_ns().is_some());
        assert!(found.disk_bytes() >= LEN);
        found.update_meta(&fixture.lock(), |_| ()).unwrap();
        assert_eq!(list(&fixture.state).unwrap()[0].meta().unwrap().seq, 1);
    }

    #[test]
    fn tidying_never_replaces_a_generation() {
        let fixture = Fixture::new(1);
        fixture.rotate(1).unwrap();
        let folder = fixture.state.generations().join("boot_mapped/00000001.new");
        fs::create_dir(&folder).unwrap();
        fs::copy(&fixture.live, folder.join("region")).unwrap();
        let tidied = tidy(&fixture.state, &fixture.lock()).unwrap();
        assert_eq!(
            tidied,
            Tidied {
                left: vec![folder],
                ..Tidied::default()
            }
        );
        assert_eq!(fixture.kept(1), 1);
    }

    #[test]
    fn removed_generation_leaves_no_folder() {
        let fixture = Fixture::new(1);
        fixture.rotate(1).unwrap().remove(&fixture.lock()).unwrap();
        assert!(list(&fixture.state).unwrap().is_empty());
        assert_eq!(
            tidy(&fixture.state, &fixture.lock()).unwrap(),
            Tidied::default()
        );
        assert!(entries(&fixture.state.generations()).unwrap().is_empty());
    }

    /// Tests that run in a child process, which kills itself at a step.
    mod killed {
        use super::*;
        use std::os::unix::process::ExitStatusExt;
        use std::process::Command;

        const FOLDER: &str = "OUTLIVE_TEST_STATE";

        /// Runs a test of this module, which does nothing in the parent, in a child that dies.
        fn kill_child(test: &str, fixture: &Fixture, step: &str) {
            let output = Command::new(std::env::current_exe().unwrap())
                .args([
                    "--exact",
                    &format!("generation::tests::killed::{test}"),
                    "--nocapture",
                ])
                .env(FOLDER, fixture.state.path())
                .env(failpoint::VARIABLE, step)
                .output()
                .unwrap();
            let signal = output.status.signal();
            assert_eq!(signal, Some(9), "{step} was not reached: {output:?}");
        }

        /// The parent's fixture, in the child only.
        fn of_parent() -> Option<Fixture> {
            let state = StateDir::open(Path::new(&std::env::var_os(FOLDER)?)).unwrap();
            let live = state.area_path("trace").unwrap();
            Some(Fixture {
                folder: tempfile::tempdir().unwrap(),
                state,
                live,
            })
        }

        #[test]
        fn child_rotates() {
            if let Some(fixture) = of_parent() {
                fixture.rotate(1).unwrap();
            }
        }

        #[test]
        fn child_copies() {
            if let Some(fixture) = of_parent() {
                fixture.copy(1).unwrap();
            }
        }

        #[test]
        fn child_takes_a_sequence() {
            if let Some(fixture) = of_parent() {
                fixture.state.next_sequence(&fixture.lock()).unwrap();
            }
        }

        #[test]
        fn child_removes() {
            if let Some(fixture) = of_parent() {
                let lock = fixture.lock();
                list(&fixture.state)
                    .unwrap()
                    .remove(0)
                    .remove(&lock)
                    .unwrap();
            }
        }

        /// What every start does first: tidy, and make a live file if there is none.
        fn start_again(fixture: &Fixture) {
            let lock = fixture.lock();
            let tidied = tidy(&fixture.state, &lock).unwrap();
            assert!(tidied.left.is_empty());
            assert_eq!(tidy(&fixture.state, &lock).unwrap(), Tidied::default());
            if !fixture.live.exists() {
                let prepared = prepare(&lock, &fixture.live, LEN).unwrap();
                show_prepared(&prepared, &fixture.live, "reserve-live").unwrap();
            }
        }

        #[test]
        fn rotation_killed_at_any_step_loses_no_region() {
            for step in ROTATE_STEPS {
                let fixture = Fixture::new(1);
                kill_child("child_rotates", &fixture, step);
                start_again(&fixture);
                let is_live = is_filled(&fixture.live, 1);
                assert_eq!(usize::from(is_live) + fixture.kept(1), 1, "{step}");
                // The same call again, by the next start.
                fixture.rotate(2).unwrap();
                assert_eq!(fixture.kept(1), 1, "{step}");
                assert!(is_filled(&fixture.live, 0), "{step}");
            }
        }

        #[test]
        fn rotation_killed_before_it_began_can_have_the_same_number() {
            let fixture = Fixture::new(1);
            kill_child("child_rotates", &fixture, "rotate-folder");
            fixture.rotate(1).unwrap();
            assert_eq!(fixture.kept(1), 1);
        }

        #[test]
        fn copy_killed_at_any_step_loses_no_region_and_keeps_none_twice() {
            for step in COPY_STEPS {
                let fixture = Fixture::new(1);
                kill_child("child_copies", &fixture, step);
                assert!(is_filled(&fixture.live, 1), "{step}");
                start_again(&fixture);
                fixture.copy(2).unwrap();
                assert_eq!(fixture.kept(1), 1, "{step}");
                assert_eq!(list(&fixture.state).unwrap().len(), 1, "{step}");
            }
        }

        #[test]
        fn sequence_killed_at_any_step_is_never_given_twice() {
            for (step, next) in [("sequence-read", 1), ("sequence-written", 2)] {
                let fixture = Fixture::new(1);
                kill_child("child_takes_a_sequence", &fixture, step);
                assert_eq!(
                    fixture.state.next_sequence(&fixture.lock()).unwrap(),
                    next,
                    "{step}"
                );
            }
        }

        #[test]
        fn removal_that_was_killed_is_ended() {
            let fixture = Fixture::new(1);
            fixture.rotate(1).unwrap();
            kill_child("child_removes", &fixture, "remove-renamed");
            assert!(list(&fixture.state).unwrap().is_empty());
            assert_eq!(
                tidy(&fixture.state, &fixture.lock()).unwrap().removed.len(),
                1
            );
            assert!(entries(&fixture.state.generations()).unwrap().is_empty());
        }

        #[test]
        fn lock_ends_with_a_killed_holder() {
            let fixture = Fixture::new(1);
            kill_child("child_rotates", &fixture, "rotate-moved");
            assert!(!fixture.state.is_locked().unwrap());
            assert_ne!(fixture.state.lock_holder().unwrap().pid, std::process::id());
        }
    }
}

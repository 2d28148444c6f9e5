//! The state folder: all that one recorder keeps between its runs.
//!
//! ```text
//! STATE/id                    16 hexadecimal digits, made once; part of the host instances' names
//! STATE/lock                  locked while a recorder runs; says who
//! STATE/sequence              number of the newest run, decimal
//! STATE/instances.json        what the last start configured
//! STATE/areas/LABEL           live area files
//! STATE/generations/INSTANCE/SEQ/{region,tail,meta.json}
//! STATE/kernel/INSTANCE/BOOT  what is known of what the kernel records itself
//! STATE/harvest/INSTANCE/     what is being taken out of a kernel's instance
//! ```
//!
//! Whoever may read the folder may look at it at any time; only the holder of [`StateLock`]
//! changes it. Small files are replaced whole (written beside, synced, renamed, folder synced), so
//! a crash leaves the old or the new one.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::lock::{self, StateLock};
use crate::{Error, Holder, durable, failpoint, generation, name};

/// A small file that is larger than this is not ours.
const SMALL_FILE_BYTES_MAX: u64 = 16 << 20;

/// An open state folder.
#[derive(Clone, Debug)]
pub struct StateDir {
    path: PathBuf,
    id: String,
}

/// What the last start configured (`instances.json`).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Instances {
    /// The number of the run that wrote it.
    pub run_sequence: u64,
    /// In the order of their creation.
    pub instances: Vec<InstanceEntry>,
    /// What other versions of outlive wrote; kept as it is.
    #[serde(flatten)]
    pub other: serde_json::Map<String, serde_json::Value>,
}

/// One instance of the last start.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct InstanceEntry {
    /// Its name.
    pub name: String,
    /// `ordinary`, `persistent` or `backup`.
    pub kind: String,
    /// The label of its area, or `ADDRESS:SIZE`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub area: Option<String>,
    /// Where the area lives, as in `--area`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backing: Option<String>,
    /// Of a backup: the instance that it is one of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// What other versions of outlive wrote; kept as it is.
    #[serde(flatten)]
    pub other: serde_json::Map<String, serde_json::Value>,
}

impl Instances {
    /// No instances, of the run with this number.
    #[must_use]
    pub fn of_run(run_sequence: u64) -> Self {
        Self {
            run_sequence,
            ..Self::default()
        }
    }
}

impl InstanceEntry {
    /// An instance without area and source.
    #[must_use]
    pub fn new(name: &str, kind: &str) -> Self {
        Self {
            name: name.to_owned(),
            kind: kind.to_owned(),
            ..Self::default()
        }
    }
}

impl StateDir {
    /// Opens the folder, and makes it (`0700`) with all above it where it is missing.
    ///
    /// # Errors
    ///
    /// [`Error::NotOurs`] and [`Error::OthersMayWrite`] if somebody else could change the folder
    /// under us, [`Error::DamagedState`] if its `id` is not one.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let path = std::path::absolute(path).map_err(Error::io("resolve", path))?;
        make_parents(&path)?;
        durable::private_dir(&path)?;
        durable::private_dir(&path.join("areas"))?;
        durable::private_dir(&path.join("generations"))?;
        let id = read_or_make_id(&path.join("id"))?;
        Ok(Self { path, id })
    }

    /// Opens the folder if it is there: for those who only look. `None` if there is none.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open).
    pub fn open_existing(path: &Path) -> Result<Option<Self>, Error> {
        if path.join("id").exists() {
            Self::open(path).map(Some)
        } else {
            Ok(None)
        }
    }

    /// The folder that is used where none is given: `/var/lib/outlive` for root, else
    /// `$XDG_STATE_HOME/outlive` or `~/.local/state/outlive`.
    ///
    /// # Errors
    ///
    /// [`Error::NoStateFolder`] if neither variable is set.
    pub fn default_path() -> Result<PathBuf, Error> {
        let absolute = |name| {
            std::env::var_os(name)
                .map(PathBuf::from)
                .filter(|p| p.is_absolute())
        };
        let is_root = rustix::process::geteuid().is_root();
        default_path(is_root, absolute("XDG_STATE_HOME"), absolute("HOME"))
    }

    /// The folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// 16 hexadecimal digits that tell this state from all others.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Where the live file of an area is.
    ///
    /// # Errors
    ///
    /// [`Error::BadName`] if the label cannot be a file's name.
    pub fn area_path(&self, label: &str) -> Result<PathBuf, Error> {
        Ok(self.areas().join(name::check(label)?))
    }

    pub(crate) fn areas(&self) -> PathBuf {
        self.path.join("areas")
    }

    pub(crate) fn generations(&self) -> PathBuf {
        self.path.join("generations")
    }

    fn lock_path(&self) -> PathBuf {
        self.path.join("lock")
    }

    /// Takes the lock of the folder, which ends when it is dropped or the process dies. Waits for
    /// nobody but a holder that is just ending, as one that was killed a moment ago.
    ///
    /// # Errors
    ///
    /// [`Error::Locked`], with who has it, if a recorder runs on this folder.
    pub fn try_lock_exclusive(&self) -> Result<StateLock, Error> {
        StateLock::acquire(&self.lock_path())
    }

    /// Whether somebody has the lock, without taking it.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if the lock's file cannot be opened.
    pub fn is_locked(&self) -> Result<bool, Error> {
        lock::is_file_locked(&self.lock_path())
    }

    /// Who took the lock last, and has it if [`is_locked`](Self::is_locked).
    #[must_use]
    pub fn lock_holder(&self) -> Option<Holder> {
        lock::holder(&self.lock_path())
    }

    /// The number of a new run: larger than that of each run before, also after a crash at any
    /// place. Runs of different boots are ordered by it.
    ///
    /// A `sequence` that is missing or damaged starts again behind the newest generation.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] or [`Error::NoSpace`] if it cannot be made durable; then the number is not
    /// used up.
    pub fn next_sequence(&self, _lock: &StateLock) -> Result<u64, Error> {
        let newest_kept = generation::list(self)?
            .iter()
            .map(generation::Generation::seq)
            .max();
        let newest = self.read_sequence().max(newest_kept).unwrap_or(0);
        let next = newest
            .checked_add(1)
            .ok_or_else(|| self.sequence_used_up())?;
        failpoint::reached("sequence-read");
        durable::write_atomic(&self.path.join("sequence"), format!("{next}\n").as_bytes())?;
        failpoint::reached("sequence-written");
        Ok(next)
    }

    fn sequence_used_up(&self) -> Error {
        Error::DamagedState {
            path: self.path.join("sequence"),
            why: "its number is the largest that there is".to_owned(),
            help: "remove it, and the generation of that number",
        }
    }

    /// The number of the newest run; `None` before the first, or if the file is damaged.
    #[must_use]
    pub fn read_sequence(&self) -> Option<u64> {
        let text = read_small(&self.path.join("sequence")).ok()??;
        std::str::from_utf8(&text).ok()?.trim().parse().ok()
    }

    /// What the last start configured; nothing before the first.
    ///
    /// # Errors
    ///
    /// [`Error::DamagedState`] if the file cannot be read as JSON of this form.
    pub fn read_instances(&self) -> Result<Instances, Error> {
        let path = self.path.join("instances.json");
        let Some(text) = read_small(&path)? else {
            return Ok(Instances::default());
        };
        serde_json::from_slice(&text).map_err(|error| Error::DamagedState {
            path,
            why: error.to_string(),
            help: "the next start writes it anew",
        })
    }

    /// Replaces what the last start configured.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] or [`Error::NoSpace`]; then the old file is still there.
    pub fn write_instances(&self, _lock: &StateLock, instances: &Instances) -> Result<(), Error> {
        let path = self.path.join("instances.json");
        let text = serde_json::to_vec_pretty(instances)
            .map_err(|error| Error::io("write", &path)(io::Error::from(error)))?;
        durable::write_atomic(&path, &text)
    }

    /// A small file of somebody who keeps notes beside the state, by its name in the folder. `None`
    /// if there is none.
    ///
    /// # Errors
    ///
    /// [`Error::BadName`] if that is no file's name, [`Error::Io`] if it cannot be read.
    pub fn read_note(&self, name: &str) -> Result<Option<Vec<u8>>, Error> {
        read_small(&self.path.join(name::check(name)?))
    }

    /// Replaces such a file whole. Of two who do it at once, one is later.
    ///
    /// # Errors
    ///
    /// [`Error::BadName`], [`Error::Io`] or [`Error::NoSpace`]; then the old file is still there.
    pub fn write_note(&self, name: &str, bytes: &[u8]) -> Result<(), Error> {
        durable::write_atomic(&self.path.join(name::check(name)?), bytes)
    }

    /// Removes what a killed start left of small files.
    pub(crate) fn tidy_small_files(&self) -> Result<Vec<PathBuf>, Error> {
        let mut removed = Vec::new();
        for entry in fs::read_dir(&self.path).map_err(Error::io("list", &self.path))? {
            let path = entry.map_err(Error::io("list", &self.path))?.path();
            if path.extension().is_some_and(|extension| extension == "tmp") {
                durable::remove_if_there(&path)?;
                removed.push(path);
            }
        }
        Ok(removed)
    }
}

fn default_path(
    is_root: bool,
    xdg_state_home: Option<PathBuf>,
    home: Option<PathBuf>,
) -> Result<PathBuf, Error> {
    if is_root {
        return Ok(PathBuf::from("/var/lib/outlive"));
    }
    xdg_state_home
        .or_else(|| home.map(|home| home.join(".local/state")))
        .map(|folder| folder.join("outlive"))
        .ok_or(Error::NoStateFolder)
}

fn make_parents(path: &Path) -> Result<(), Error> {
    use std::os::unix::fs::DirBuilderExt;

    let folder = durable::parent(path);
    let mut builder = fs::DirBuilder::new();
    builder
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .map_err(Error::io("create folder", folder))
}

/// Reads a small file; `None` if there is none.
pub(crate) fn read_small(path: &Path) -> Result<Option<Vec<u8>>, Error> {
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        result => result.map_err(Error::io("open", path))?,
    };
    let mut bytes = Vec::new();
    file.take(SMALL_FILE_BYTES_MAX)
        .read_to_end(&mut bytes)
        .map_err(Error::io("read", path))?;
    Ok(Some(bytes))
}

/// The id, made by whoever comes first.
fn read_or_make_id(path: &Path) -> Result<String, Error> {
    if let Some(text) = read_small(path)? {
        return parse_id(path, &text);
    }
    make_id(path)?;
    let text = read_small(path)?.unwrap_or_default();
    parse_id(path, &text)
}

fn parse_id(path: &Path, text: &[u8]) -> Result<String, Error> {
    let text = String::from_utf8_lossy(text);
    let id = text.trim();
    let is_digit = |c: char| c.is_ascii_digit() || ('a'..='f').contains(&c);
    if id.len() == 16 && id.chars().all(is_digit) {
        return Ok(id.to_owned());
    }
    Err(Error::DamagedState {
        path: path.to_owned(),
        why: "it is not 16 hexadecimal digits".to_owned(),
        help: "remove it for a new one, after removing the host's `outlive.*` trace instances",
    })
}

/// Writes a new id under a name of its own and links it: of two processes, one is first.
fn make_id(path: &Path) -> Result<(), Error> {
    let id = random_u64(path)?;
    let temporary = durable::with_suffix(path, &format!(".{id:016x}.tmp"));
    let mut file = durable::create_new(&temporary)?;
    writeln!(file, "{id:016x}")
        .and_then(|()| file.sync_all())
        .map_err(Error::io("write", &temporary))?;
    let result = match fs::hard_link(&temporary, path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        result => result.map_err(Error::io("create", path)),
    };
    durable::remove_if_there(&temporary)?;
    result?;
    durable::sync_dir(durable::parent(path))
}

fn random_u64(path: &Path) -> Result<u64, Error> {
    let mut bytes = [0; 8];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())
        .map_err(Error::io("get random bytes for", path))?;
    Ok(u64::from_le_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn state() -> (tempfile::TempDir, StateDir) {
        let folder = tempfile::tempdir().unwrap();
        let state = StateDir::open(&folder.path().join("a/b/state")).unwrap();
        (folder, state)
    }

    #[test]
    fn new_state_folder_is_private_and_has_an_id_that_stays() {
        let (_folder, state) = state();
        for path in [state.path().to_owned(), state.areas(), state.generations()] {
            let mode = fs::metadata(&path).unwrap().permissions().mode();
            assert_eq!(mode & 0o7777, 0o700, "{}", path.display());
        }
        assert_eq!(StateDir::open(state.path()).unwrap().id(), state.id());
        assert_eq!(
            fs::metadata(state.path().join("id"))
                .unwrap()
                .permissions()
                .mode()
                & 0o777,
            0o600
        );
    }

    #[test]
    fn processes_that_open_a_new_state_at_once_agree_on_its_id() {
        let folder = tempfile::tempdir().unwrap();
        let ids: Vec<_> = std::thread::scope(|scope| {
            let open = || StateDir::open(folder.path()).unwrap().id().to_owned();
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(open)).collect();
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap())
                .collect()
        });
        assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 3);
    }

    #[test]
    fn damaged_id_is_not_replaced() {
        let (_folder, state) = state();
        fs::write(state.path().join("id"), "1234").unwrap();
        assert!(matches!(
            StateDir::open(state.path()),
            Err(Error::DamagedState { .. })
        ));
    }

    #[test]
    fn folder_that_others_may_write_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777)).unwrap();
        assert!(matches!(
            StateDir::open(folder.path()),
            Err(Error::OthersMayWrite { .. })
        ));
    }

    #[test]
    fn looking_makes_no_folder() {
        let folder = tempfile::tempdir().unwrap();
        assert!(
            StateDir::open_existing(&folder.path().join("none"))
                .unwrap()
                .is_none()
        );
        assert!(!folder.path().join("none").exists());
    }

    #[test]
    fn default_folder_follows_the_user() {
        let path = |root, xdg: Option<&str>, home: Option<&str>| {
            default_path(root, xdg.map(PathBuf::from), home.map(PathBuf::from)).ok()
        };
        assert_eq!(
            path(true, Some("/x"), Some("/h")),
            Some("/var/lib/outlive".into())
        );
        assert_eq!(
            path(false, Some("/x"), Some("/h")),
            Some("/x/outlive".into())
        );
        assert_eq!(
            path(false, None, Some("/h")),
            Some("/h/.local/state/outlive".into())
        );
        assert_eq!(path(false, None, None), None);
    }

    #[test]
    fn sequence_grows_and_survives_damage() {
        let (_folder, state) = state();
        let lock = state.try_lock_exclusive().unwrap();
        assert_eq!(state.read_sequence(), None);
        assert_eq!(state.next_sequence(&lock).unwrap(), 1);
        assert_eq!(state.next_sequence(&lock).unwrap(), 2);
        fs::write(state.path().join("sequence"), b"\xff\xff").unwrap();
        fs::create_dir_all(state.generations().join("boot_mapped/00000041")).unwrap();
        assert_eq!(state.next_sequence(&lock).unwrap(), 42);
    }

    #[test]
    fn sequence_never_wraps() {
        let (_folder, state) = state();
        let lock = state.try_lock_exclusive().unwrap();
        fs::write(state.path().join("sequence"), u64::MAX.to_string()).unwrap();
        assert!(matches!(
            state.next_sequence(&lock),
            Err(Error::DamagedState { .. })
        ));
    }

    #[test]
    fn running_recorder_is_seen_without_a_lock() {
        let (_folder, state) = state();
        assert!(!state.is_locked().unwrap());
        let lock = state.try_lock_exclusive().unwrap();
        assert!(state.is_locked().unwrap());
        assert_eq!(state.lock_holder().unwrap().pid, std::process::id());
        drop(lock);
        assert!(!state.is_locked().unwrap());
    }

    #[test]
    fn instances_keep_what_another_version_wrote() {
        let (_folder, state) = state();
        let lock = state.try_lock_exclusive().unwrap();
        assert_eq!(state.read_instances().unwrap(), Instances::default());
        let text = r#"{"run_sequence":7,"new":1,
            "instances":[{"name":"backup","kind":"backup","source":"boot_mapped","x":[2]}]}"#;
        fs::write(state.path().join("instances.json"), text).unwrap();
        let instances = state.read_instances().unwrap();
        assert_eq!(
            instances.instances[0].source.as_deref(),
            Some("boot_mapped")
        );
        state.write_instances(&lock, &instances).unwrap();
        assert_eq!(state.read_instances().unwrap(), instances);
        let text = fs::read_to_string(state.path().join("instances.json")).unwrap();
        assert!(
            text.contains("\"new\": 1") && text.contains("\"x\""),
            "{text}"
        );
    }

    #[test]
    fn damaged_instances_are_an_error_and_no_panic() {
        let (_folder, state) = state();
        fs::write(state.path().join("instances.json"), "[").unwrap();
        assert!(matches!(
            state.read_instances(),
            Err(Error::DamagedState { .. })
        ));
    }

    #[test]
    fn labels_that_leave_the_folder_are_refused() {
        let (_folder, state) = state();
        assert!(matches!(
            state.area_path("../id"),
            Err(Error::BadName { .. })
        ));
        assert_eq!(
            state.area_path("trace").unwrap(),
            state.areas().join("trace")
        );
    }
}

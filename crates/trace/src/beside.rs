//! Areas of a supervised run's further processes.
//!
//! The first process of a run records into the area that its supervisor laid out. Each further one
//! makes an area beside it, `AREA.PID`, where those of forked children lie too: readers and the next
//! start find both in the same way ([`apps`]). A run may start any number of processes, so there
//! are [`BESIDE_MAX`] such areas at most: for a new one the oldest of a process that has ended goes,
//! those of crashed processes last. How many have gone is the length of the file
//! `AREA.outlive-removed`, to which each removal appends a byte.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use outlive_ring::extension::Layout;
use outlive_ring::{RunRecord, RunState};

use crate::lock::LockedFile;
use crate::{Access, Error, Mapping, apps, durable, name};

/// Areas beside that of a run's first process, at most.
pub const BESIDE_MAX: usize = 15;

/// The area of a further process of a run. Its lock lasts as long as this, or the process.
#[derive(Debug)]
pub struct Beside {
    file: LockedFile,
    path: PathBuf,
    len_bytes: u64,
}

impl Beside {
    /// Makes a blank area for this process beside `live`, as large as that is.
    ///
    /// # Errors
    ///
    /// [`Error::TooManyBeside`] and [`Error::NoSpace`] if no process has ended whose area could go;
    /// [`Error::Io`], also if this process has one already.
    pub fn create(live: &Path, len_bytes: u64) -> Result<Self, Error> {
        let pid = std::process::id();
        make_room(live, pid, len_bytes)?;
        let path = apps::child_path(live, pid);
        let file = durable::create_new(&path)?;
        // Before it has a length: until then it is left alone by who looks for areas to keep.
        let file = LockedFile::of_area(file, &path)?;
        if let Err(error) = durable::allocate(&file, &path, len_bytes) {
            let _ = fs::remove_file(&path);
            return Err(error);
        }
        Ok(Self {
            file,
            path,
            len_bytes,
        })
    }

    /// Maps it, through another open file than the one that has the lock: a forked child keeps its
    /// mapping, and shall not keep the lock.
    ///
    /// # Errors
    ///
    /// [`Error::Io`].
    pub fn map(&self) -> Result<Mapping, Error> {
        let open = durable::open_private(&self.path)?;
        let file = open.ok_or_else(|| Error::AreaInUse {
            path: self.path.clone(),
        })?;
        Mapping::of_file(&file, &self.path, self.len_bytes, Access::ReadWrite)
    }

    /// The descriptor that holds the lock.
    #[must_use]
    pub fn descriptor(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// How many areas beside `live` have gone to make room since its run began.
#[must_use]
pub fn removed(live: &Path) -> u64 {
    fs::metadata(removals(live)).map_or(0, |file| file.len())
}

/// Forgets how many have gone: another run begins.
pub(crate) fn forget_removed(live: &Path) -> Result<(), Error> {
    durable::remove_if_there(&removals(live))
}

fn removals(live: &Path) -> PathBuf {
    durable::with_suffix(live, name::REMOVED)
}

/// Removes areas of processes that have ended, as many as are too many for one more.
fn make_room(live: &Path, pid: u32, len_bytes: u64) -> Result<(), Error> {
    let mut areas = apps::children(live);
    // One of an earlier process with this id is in the way.
    areas.sort_by_cached_key(|(of, path)| (*of != pid, worth(path)));
    let mut count = areas.len();
    let mut areas = areas.into_iter().peekable();
    loop {
        let room = durable::check_free(live, len_bytes);
        let is_in_way = areas.peek().is_some_and(|(of, _)| *of == pid);
        if count < BESIDE_MAX && room.is_ok() && !is_in_way {
            return Ok(());
        }
        let Some((of, path)) = areas.next() else {
            return room.and(Err(Error::TooManyBeside {
                path: live.to_owned(),
                count,
            }));
        };
        if remove_ended(live, of, &path)? {
            count -= 1;
        }
    }
}

/// Less for clean exits than for crashes, less for older ones than for newer ones.
fn worth(path: &Path) -> (bool, u64) {
    let run = Mapping::of_path(path).ok().and_then(|mapping| {
        let layout = Layout::load(&mapping)?;
        RunRecord::load(&layout, &mapping)
    });
    run.map_or((false, 0), |run| {
        (run.state != RunState::Closed, run.started_realtime_ns)
    })
}

/// Removes an area, if its process has ended, and counts that. Of several who try one does it.
fn remove_ended(live: &Path, pid: u32, path: &Path) -> Result<bool, Error> {
    if apps::is_being_made(pid, path) {
        return Ok(false);
    }
    let Some(file) = durable::open_private(path)? else {
        return Ok(true);
    };
    let file = match LockedFile::of_area(file, path) {
        Err(Error::AreaInUse { .. }) => return Ok(false),
        file => file?,
    };
    let opened = file.metadata().map_err(Error::io("look at", path))?;
    match fs::symlink_metadata(path) {
        Ok(there) if there.ino() == opened.ino() => {}
        _ => return Ok(true),
    }
    durable::remove_if_there(path)?;
    let counted = removals(live);
    OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(&counted)
        .and_then(|mut file| file.write_all(b"."))
        .map_err(Error::io("count a removal in", &counted))?;
    Ok(true)
}

//! Areas of forked children, and of a supervised run's further processes.
//!
//! The first process of a run records into the area that its supervisor laid out. Each further one
//! makes an area beside it, `AREA.PID`, and so does each child that was forked from a program that
//! records: readers and the next start find both in the same way ([`apps`]). There may be any number
//! of processes, so there are [`BESIDE_MAX`] such areas at most: for a new one the oldest of a process
//! that has ended goes, those of crashed processes last. How many have gone, and how many forked
//! children got none, is told by the file `AREA.outlive-removed`, to which each appends a byte.

use std::fs;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use crate::lock::LockedFile;
use crate::neighbours::{self, Neighbours, Refusal};
use crate::{Access, Error, Mapping, apps, durable, name};

/// Areas beside that of a run's first process, at most.
pub const BESIDE_MAX: usize = neighbours::MAX;

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
        let path = apps::child_path(live, pid);
        let made = Neighbours::of(live).and_then(|areas| areas.create(pid, len_bytes));
        let file = made.map_err(|refusal| Self::error(refusal, live, &path, len_bytes))?;
        Ok(Self {
            file: LockedFile::of_area(file, &path)?,
            path,
            len_bytes,
        })
    }

    fn error(refusal: Refusal, live: &Path, path: &Path, needed_bytes: u64) -> Error {
        match refusal {
            Refusal::TooMany(count) => Error::TooManyBeside {
                path: live.to_owned(),
                count,
            },
            Refusal::NoSpace => Error::NoSpace {
                path: path.to_owned(),
                needed_bytes,
                free_bytes: durable::free_bytes(path).unwrap_or(0),
            },
            Refusal::Io(action, errno) => Error::io(action, path)(errno),
        }
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

/// Makes a blank area for this process, a forked child, beside `live`. The open file has its lock. `None`,
/// and counted, if there is no room. Nothing here allocates, nor takes a lock of the C library.
#[must_use]
pub fn create_in_child(live: &Path, len_bytes: u64) -> Option<OwnedFd> {
    let areas = Neighbours::of(live).ok()?;
    let pid = rustix::process::getpid().as_raw_pid().cast_unsigned();
    match areas.create(pid, len_bytes) {
        Ok(file) => Some(file.into()),
        Err(_) => {
            let _ = areas.count(neighbours::REFUSED);
            None
        }
    }
}

/// How many areas beside `live` have gone to make room since its run began.
#[must_use]
pub fn removed(live: &Path) -> u64 {
    counted(live, neighbours::REMOVED)
}

/// How many forked children of the run in `live` got no area.
#[must_use]
pub fn refused(live: &Path) -> u64 {
    counted(live, neighbours::REFUSED)
}

fn counted(live: &Path, what: u8) -> u64 {
    let counts = fs::read(removals(live)).unwrap_or_default();
    counts.iter().filter(|&&byte| byte == what).count() as u64
}

/// Forgets how many have gone: another run begins.
pub(crate) fn forget_removed(live: &Path) -> Result<(), Error> {
    durable::remove_if_there(&removals(live))
}

fn removals(live: &Path) -> PathBuf {
    durable::with_suffix(live, name::REMOVED)
}

//! Locks that end with their holder.
//!
//! Open-file-description locks (`F_OFD_SETLK`, fcntl(2)): the kernel drops them when the last
//! descriptor of the open file is closed, however the process ends, and one can ask for them
//! without taking them. They are held by files beside the memory: no lock word is ever in a
//! region, where a crash would leave it taken.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::ops::Deref;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;
use rustix::fs::OFlags;

use crate::durable;
use crate::{Error, Holder, host};

/// A range of bytes of a file, for locking.
#[derive(Clone, Copy, Debug)]
struct ByteRange {
    start: libc::off_t,
    /// 0 is "to the end of the file, wherever that will be".
    len: libc::off_t,
}

impl ByteRange {
    const ALL: Self = Self { start: 0, len: 0 };

    fn exclusive(self) -> libc::flock {
        self.of_kind(libc::F_WRLCK)
    }

    fn of_kind(self, kind: libc::c_int) -> libc::flock {
        libc::flock {
            l_type: kind as libc::c_short,
            l_whence: libc::SEEK_SET as libc::c_short,
            l_start: self.start,
            l_len: self.len,
            // Has to be 0 for locks of an open file description.
            l_pid: 0,
        }
    }
}

/// An open file with a lock, which ends when this is dropped.
///
/// Closing alone would not do: a process that another thread is about to start holds copies of
/// all descriptors until it executes its program.
#[derive(Debug)]
pub(crate) struct LockedFile {
    file: File,
    range: ByteRange,
}

impl LockedFile {
    /// Takes the lock of the file, open for writing. `None` if somebody has it.
    fn try_new(file: File, range: ByteRange) -> io::Result<Option<Self>> {
        Ok(try_lock(&file, range)?.then_some(Self { file, range }))
    }

    /// Takes the lock of an area's own file or device.
    pub(crate) fn of_area(file: File, path: &Path) -> Result<Self, Error> {
        Self::try_new(file, ByteRange::ALL)
            .map_err(Error::io("lock", path))?
            .ok_or_else(|| Error::AreaInUse {
                path: path.to_owned(),
            })
    }
}

impl Deref for LockedFile {
    type Target = File;

    fn deref(&self) -> &File {
        &self.file
    }
}

impl Drop for LockedFile {
    fn drop(&mut self) {
        let lock = self.range.of_kind(libc::F_UNLCK);
        let result = fcntl(&self.file, FcntlArg::F_OFD_SETLK(&lock));
        debug_assert!(
            result.is_ok(),
            "a lock of ours can be given back: {result:?}"
        );
    }
}

/// Takes the lock if nobody has it. The file has to be open for writing.
fn try_lock(file: &File, range: ByteRange) -> io::Result<bool> {
    match fcntl(file, FcntlArg::F_OFD_SETLK(&range.exclusive())) {
        Ok(_) => Ok(true),
        Err(Errno::EAGAIN | Errno::EACCES) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Takes the lock of an area's file, open for writing, for as long as the file is open. `false` if
/// somebody has it. Allocates nothing.
pub(crate) fn lock_area(file: &File) -> Result<bool, rustix::io::Errno> {
    try_lock(file, ByteRange::ALL)
        .map_err(|error| rustix::io::Errno::from_io_error(&error).unwrap_or(rustix::io::Errno::IO))
}

/// Whether somebody with another open file has the lock.
fn is_locked(file: &File, range: ByteRange) -> io::Result<bool> {
    let mut lock = range.exclusive();
    fcntl(file, FcntlArg::F_OFD_GETLK(&mut lock))?;
    Ok(lock.l_type != libc::F_UNLCK as libc::c_short)
}

/// Whether a recorder has the area file at `path`. `false` if there is none.
pub(crate) fn is_file_locked(path: &Path) -> Result<bool, Error> {
    is_range_locked(path, ByteRange::ALL)
}

fn is_range_locked(path: &Path, range: ByteRange) -> Result<bool, Error> {
    let result = OpenOptions::new()
        .read(true)
        .custom_flags((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed())
        .open(path);
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(source) => Err(Error::Io {
            action: "open",
            path: path.to_owned(),
            source,
        }),
        Ok(file) => is_locked(&file, range).map_err(Error::io("ask for the lock of", path)),
    }
}

/// The right to change a state folder: what changes it asks for this. Held until dropped.
#[derive(Debug)]
#[must_use = "the lock ends when this is dropped"]
pub struct StateLock {
    path: PathBuf,
    file: LockedFile,
}

impl StateLock {
    /// How long a process that was killed may take to let go: its memory goes first.
    const PATIENCE: Duration = Duration::from_secs(2);

    /// Looks at a holder that goes on: on its way out there is a moment in which nothing shows it.
    const LOOKS: u32 = 3;

    /// Takes the lock at `path`, and writes into the file who has it. Waits only for a holder that is
    /// about to end, as where a start follows a kill at once.
    pub(crate) fn acquire(path: &Path) -> Result<Self, Error> {
        let until = Instant::now() + Self::PATIENCE;
        let mut seen_going_on = 0;
        loop {
            let result = Self::try_acquire(path);
            let Err(Error::Locked { holder, .. }) = &result else {
                return result;
            };
            seen_going_on += u32::from(holder.as_ref().is_none_or(is_going_on));
            if seen_going_on == Self::LOOKS || Instant::now() >= until {
                return result;
            }
            thread::sleep(Duration::from_millis(1));
        }
    }

    fn try_acquire(path: &Path) -> Result<Self, Error> {
        loop {
            let file = open_lock_file(path)?;
            let locked = LockedFile::try_new(file, ByteRange::ALL);
            let Some(file) = locked.map_err(Error::io("lock", path))? else {
                return Err(Error::Locked {
                    path: path.to_owned(),
                    holder: holder(path),
                });
            };
            // Somebody may have removed the file since, and a third locked a new one.
            if is_still_at(&file, path) {
                write_holder(&file);
                return Ok(Self {
                    path: path.to_owned(),
                    file,
                });
            }
        }
    }

    /// The lock's file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// The open file: a forked child that closes its copy leaves the lock to its parent alone.
impl AsFd for StateLock {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

fn open_lock_file(path: &Path) -> Result<File, Error> {
    loop {
        if let Some(file) = durable::open_private(path)? {
            return Ok(file);
        }
        match durable::create_new(path) {
            Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::AlreadyExists => {}
            result => return result,
        }
    }
}

fn is_going_on(holder: &Holder) -> bool {
    host::is_going_on(holder.pid, holder.start_ticks)
}

fn is_still_at(file: &File, path: &Path) -> bool {
    match (file.metadata(), std::fs::symlink_metadata(path)) {
        (Ok(ours), Ok(there)) => (ours.dev(), ours.ino()) == (there.dev(), there.ino()),
        _ => false,
    }
}

/// Says who has the lock. Information only, so a disk that has no room for it is no error.
fn write_holder(file: &File) {
    let pid = std::process::id();
    let holder = Holder {
        pid,
        start_ticks: host::process_start_ticks(pid).unwrap_or(0),
        boot_id: host::boot_id().unwrap_or_default(),
        hostname: host::hostname(),
    };
    if let Ok(text) = serde_json::to_vec(&holder) {
        // Not shortened first: to give a block back and take another costs a disk half a millisecond.
        let _ = file.write_all_at(&text, 0);
        let _ = file.set_len(text.len() as u64);
    }
}

/// Who wrote the file; `None` where it is empty, half written or not ours.
fn read_holder(file: File) -> Option<Holder> {
    let mut text = Vec::new();
    file.take(4096).read_to_end(&mut text).ok()?;
    serde_json::from_slice(&text).ok()
}

/// Who holds the lock at `path`, if somebody does.
pub(crate) fn holder(path: &Path) -> Option<Holder> {
    File::open(path).ok().and_then(read_holder)
}

/// The right to use a range of physical memory, against all other recorders of the machine,
/// whatever their state folder. Held until dropped.
///
/// One file stands for the whole address space: the range of addresses is locked as the same
/// range of the file's bytes, so that ranges which overlap exclude each other.
#[derive(Debug)]
#[must_use = "the lock ends when this is dropped"]
pub struct MemoryLock {
    _file: LockedFile,
}

impl MemoryLock {
    /// Where the file is. Not in a state folder: two of them may name the same memory.
    const FOLDER: &'static str = "/run/outlive";
    const FILE: &'static str = "memory.lock";

    /// Takes the lock of `len_bytes` from physical address `address` on.
    ///
    /// # Errors
    ///
    /// [`Error::MemoryInUse`] if another recorder has a part of it, [`Error::IoMemory`] if there
    /// is no such range, [`Error::Io`] if `/run/outlive` cannot be used.
    pub fn try_acquire(address: u64, len_bytes: u64) -> Result<Self, Error> {
        Self::try_acquire_in(Path::new(Self::FOLDER), address, len_bytes)
    }

    /// Whether a recorder has a part of the range.
    pub(crate) fn is_held(address: u64, len_bytes: u64) -> Result<bool, Error> {
        let range = memory_range(address, len_bytes)?;
        let path = Path::new(Self::FOLDER).join(Self::FILE);
        is_range_locked(&path, range)
    }

    fn try_acquire_in(folder: &Path, address: u64, len_bytes: u64) -> Result<Self, Error> {
        let range = memory_range(address, len_bytes)?;
        durable::private_dir(folder)?;
        let path = folder.join(Self::FILE);
        let file = open_lock_file(&path)?;
        let locked = LockedFile::try_new(file, range).map_err(Error::io("lock", &path))?;
        match locked {
            Some(file) => Ok(Self { _file: file }),
            None => Err(Error::MemoryInUse { address, len_bytes }),
        }
    }
}

fn memory_range(address: u64, len_bytes: u64) -> Result<ByteRange, Error> {
    let problem = crate::iomem::IoMemoryProblem::Impossible;
    let impossible = Error::IoMemory {
        address,
        len_bytes,
        problem,
    };
    let fits = address
        .checked_add(len_bytes)
        .is_some_and(|end| end <= i64::MAX as u64);
    match (
        libc::off_t::try_from(address),
        libc::off_t::try_from(len_bytes),
    ) {
        (Ok(start), Ok(len)) if fits && len > 0 => Ok(ByteRange { start, len }),
        _ => Err(impossible),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lock_path() -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        (folder, path)
    }

    #[test]
    fn second_lock_is_refused_and_names_the_holder() {
        let (_folder, path) = lock_path();
        let _first = StateLock::acquire(&path).unwrap();
        let error = StateLock::acquire(&path).unwrap_err();
        let Error::Locked {
            holder: Some(holder),
            ..
        } = &error
        else {
            panic!("{error}")
        };
        assert_eq!(holder.pid, std::process::id());
        assert!(
            error
                .to_string()
                .contains(&format!("by process {}", holder.pid)),
            "{error}"
        );
    }

    #[test]
    fn asking_does_not_take_the_lock() {
        let (_folder, path) = lock_path();
        assert!(!is_file_locked(&path).unwrap());
        let lock = StateLock::acquire(&path).unwrap();
        assert!(is_file_locked(&path).unwrap());
        assert!(is_file_locked(&path).unwrap());
        drop(lock);
        assert!(!is_file_locked(&path).unwrap());
        let _again = StateLock::acquire(&path).unwrap();
    }

    /// The tests' own children, between their fork and their exec, held locks that had been
    /// dropped, now and then.
    #[test]
    fn dropped_lock_ends_although_a_copy_of_the_descriptor_is_open() {
        let (_folder, path) = lock_path();
        let lock = StateLock::acquire(&path).unwrap();
        let copy = lock.file.try_clone().unwrap();
        drop(lock);
        let _again = StateLock::acquire(&path).unwrap();
        drop(copy);
        assert!(is_file_locked(&path).unwrap());
    }

    #[test]
    fn damaged_lock_file_still_locks() {
        let (_folder, path) = lock_path();
        let _first = StateLock::acquire(&path).unwrap();
        std::fs::write(&path, b"{\"pid\":").unwrap();
        let error = StateLock::acquire(&path).unwrap_err();
        assert!(
            matches!(error, Error::Locked { holder: None, .. }),
            "{error}"
        );
        assert!(error.to_string().contains("is in use; stop"), "{error}");
    }

    #[test]
    fn lock_on_a_file_that_was_removed_does_not_count() {
        let (_folder, path) = lock_path();
        let file = open_lock_file(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert!(!is_still_at(&file, &path));
        let _lock = StateLock::acquire(&path).unwrap();
        assert!(!is_still_at(&file, &path));
    }

    #[test]
    fn overlapping_physical_memory_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let take = |address, len| MemoryLock::try_acquire_in(folder.path(), address, len);
        let first = take(0x2_8450_0000, 12 << 20).unwrap();
        assert!(matches!(
            take(0x2_8450_0000, 4096),
            Err(Error::MemoryInUse { .. })
        ));
        assert!(matches!(
            take(0x2_844f_f000, 8192),
            Err(Error::MemoryInUse { .. })
        ));
        let _below = take(0x2_844f_f000, 4096).unwrap();
        let _above = take(0x2_8450_0000 + (12 << 20), 4096).unwrap();
        drop(first);
        let _again = take(0x2_8450_0000, 12 << 20).unwrap();
    }

    #[test]
    fn impossible_memory_is_refused() {
        for (address, len) in [(0, 0), (u64::MAX, 1), (1 << 62, 1 << 62), (1 << 63, 1)] {
            assert!(memory_range(address, len).is_err(), "{address:#x}:{len:#x}");
        }
    }
}

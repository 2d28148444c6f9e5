//! The areas beside a program's: how one more is made.
//!
//! A forked child comes here from its first event, which may be in a signal handler: nothing
//! allocates, nor takes a lock of the C library.

use std::ffi::{CStr, OsStr};
use std::fmt::{self, Write};
use std::fs::File;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::Path;

use outlive_ring::extension::Layout;
use outlive_ring::{Memory, RunRecord, RunState};
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, RawDir};
use rustix::io::Errno;
use rustix::process::{Pid, geteuid, test_kill_process};

use crate::{durable, lock, name};

/// Areas beside that of a run's first process, at most.
pub(crate) const MAX: usize = 15;
/// Areas that are looked at: there may be more than [`MAX`] where several are made at once.
const LOOKED_AT: usize = 4 * MAX;
/// Longest path, and longest name of a file, with a zero behind it (limits.h).
const PATH_MAX: usize = 4096;
const NAME_MAX: usize = 256;
/// Bytes of a folder that are read at a time: some hundred names.
const FOLDER_BYTES: usize = 2048;

/// What the file that counts has for each area that made room, and for each process that got none.
pub(crate) const REMOVED: u8 = b'.';
pub(crate) const REFUSED: u8 = b'!';

/// Why there is no area.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Refusal {
    /// None of so many has ended.
    TooMany(usize),
    /// The file system has no room, and nothing to remove.
    NoSpace,
    /// What could not be done.
    Io(&'static str, Errno),
}

impl Refusal {
    fn io(action: &'static str) -> impl Fn(Errno) -> Self {
        move |errno| Self::Io(action, errno)
    }
}

/// The areas beside the one of this name, in this folder.
#[derive(Debug)]
pub(crate) struct Neighbours<'a> {
    folder: OwnedFd,
    first: &'a [u8],
}

/// One of them.
#[derive(Debug, Clone, Copy, Default)]
struct Area {
    pid: u32,
    /// Less for one that is in the way, then for clean exits than for crashes, then for older ones.
    worth: (bool, bool, u64),
}

impl<'a> Neighbours<'a> {
    /// Those beside the area file `live`.
    pub(crate) fn of(live: &'a Path) -> Result<Self, Refusal> {
        let mut path = Text::<PATH_MAX>::new();
        path.push(durable::parent(live).as_os_str());
        let flags = OFlags::DIRECTORY | OFlags::CLOEXEC;
        let folder = path
            .c_str()
            .and_then(|path| rustix::fs::openat(CWD, path, flags, Mode::empty()));
        Ok(Self {
            folder: folder.map_err(Refusal::io("open folder"))?,
            first: live.file_name().unwrap_or_default().as_bytes(),
        })
    }

    /// Makes a blank area of the process `pid`, locked by the open file that is returned. For one more
    /// than may be, or than there is room for, the one that is worth least of a process that has
    /// ended goes.
    pub(crate) fn create(&self, pid: u32, len_bytes: u64) -> Result<File, Refusal> {
        self.make_room(pid, len_bytes)?;
        let name = self.name(format_args!(".{pid}"));
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::RDWR | OFlags::NOFOLLOW;
        let file = self.open(&name, flags).map_err(Refusal::io("create"))?;
        // Before it has a length: until then it is left alone by who looks for areas to keep.
        let made = match lock::lock_area(&file) {
            Ok(true) => durable::fill(&file, len_bytes).map_err(|errno| match errno {
                Errno::NOSPC | Errno::DQUOT | Errno::NOMEM => Refusal::NoSpace,
                errno => Refusal::Io("allocate", errno),
            }),
            Ok(false) => Err(Refusal::Io("lock", Errno::AGAIN)),
            Err(errno) => Err(Refusal::Io("lock", errno)),
        };
        if let Err(refusal) = made {
            let _ = self.unlink(&name);
            return Err(refusal);
        }
        Ok(file)
    }

    /// Counts one area or process.
    pub(crate) fn count(&self, what: u8) -> Result<(), Errno> {
        let name = self.name(format_args!("{}", name::REMOVED));
        let flags = OFlags::APPEND | OFlags::CREATE | OFlags::WRONLY | OFlags::NOFOLLOW;
        let file = self.open(&name, flags)?;
        rustix::io::write(&file, &[what]).map(drop)
    }

    /// Removes areas of processes that have ended, as many as are too many for one more.
    fn make_room(&self, pid: u32, len_bytes: u64) -> Result<(), Refusal> {
        let mut areas = [Area::default(); LOOKED_AT];
        let mut count = self.list(pid, &mut areas).map_err(Refusal::io("list"))?;
        let areas = &mut areas[..count.min(LOOKED_AT)];
        areas.sort_unstable_by_key(|area| area.worth);
        let mut areas = areas.iter().peekable();
        loop {
            let is_in_way = areas.peek().is_some_and(|area| area.pid == pid);
            let has_room = self
                .has_room(len_bytes)
                .map_err(Refusal::io("look at the file system of"))?;
            if count < MAX && has_room && !is_in_way {
                return Ok(());
            }
            let Some(area) = areas.next() else {
                return Err(match has_room {
                    true => Refusal::TooMany(count),
                    false => Refusal::NoSpace,
                });
            };
            let is_gone = self.remove_ended(area.pid);
            count -= usize::from(is_gone.map_err(Refusal::io("remove"))?);
        }
    }

    /// Finds areas, as many as there is room for. Returns how many there are.
    fn list(&self, own_pid: u32, areas: &mut [Area]) -> Result<usize, Errno> {
        let flags = OFlags::DIRECTORY | OFlags::CLOEXEC;
        let folder = rustix::fs::openat(&self.folder, c".", flags, Mode::empty())?;
        let mut bytes = [MaybeUninit::uninit(); FOLDER_BYTES];
        let mut entries = RawDir::new(&folder, &mut bytes);
        let mut count = 0;
        while let Some(entry) = entries.next() {
            let entry = entry?;
            let Some(pid) = self.pid(entry.file_name()) else {
                continue;
            };
            if let Some(area) = areas.get_mut(count) {
                let (is_crash, started_ns) = self.run(entry.file_name()).unwrap_or_default();
                *area = Area {
                    pid,
                    worth: (pid != own_pid, is_crash, started_ns),
                };
            }
            count += 1;
        }
        Ok(count)
    }

    /// The process that has an area of this name.
    fn pid(&self, name: &CStr) -> Option<u32> {
        let pid = name
            .to_bytes()
            .strip_prefix(self.first)?
            .strip_prefix(b".")?;
        std::str::from_utf8(pid).ok()?.parse().ok()
    }

    /// Whether a run has not ended cleanly, and when it began.
    fn run(&self, name: &CStr) -> Option<(bool, u64)> {
        let file = self
            .open_c(name, OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK)
            .ok()?;
        let memory = FileMemory::new(&file)?;
        let (state, started_ns) = RunRecord::glance(&Layout::load(&memory)?, &memory)?;
        Some((state != RunState::Closed, started_ns))
    }

    fn has_room(&self, len_bytes: u64) -> Result<bool, Errno> {
        let stat = rustix::fs::fstatvfs(&self.folder)?;
        // A file system without a limit says that it has no bytes at all.
        Ok(stat.f_blocks == 0 || stat.f_bavail.saturating_mul(stat.f_frsize) >= len_bytes)
    }

    /// Removes an area, if its process has ended, and counts that. Of several who try one does it. Whether
    /// it is gone.
    fn remove_ended(&self, pid: u32) -> Result<bool, Errno> {
        let name = self.name(format_args!(".{pid}"));
        let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let file = match self.open(&name, flags) {
            Err(Errno::NOENT) => return Ok(true),
            file => file?,
        };
        let stat = rustix::fs::fstat(&file)?;
        let is_ours = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile
            && stat.st_uid == geteuid().as_raw();
        let is_being_made = stat.st_size == 0 && is_process(pid);
        if !is_ours || is_being_made || !lock::lock_area(&file)? {
            return Ok(false);
        }
        let there = rustix::fs::statat(&self.folder, name.c_str()?, AtFlags::SYMLINK_NOFOLLOW);
        if there.is_ok_and(|there| there.st_ino == stat.st_ino) {
            self.unlink(&name)?;
            self.count(REMOVED)?;
        }
        Ok(true)
    }

    /// The name of the first area with this behind it.
    fn name(&self, suffix: fmt::Arguments<'_>) -> Text<NAME_MAX> {
        let mut name = Text::new();
        name.push(OsStr::from_bytes(self.first));
        // What does not fit is no name.
        let _ = name.write_fmt(suffix);
        name
    }

    fn open(&self, name: &Text<NAME_MAX>, flags: OFlags) -> Result<File, Errno> {
        self.open_c(name.c_str()?, flags)
    }

    fn open_c(&self, name: &CStr, flags: OFlags) -> Result<File, Errno> {
        let mode = Mode::RUSR | Mode::WUSR;
        rustix::fs::openat(&self.folder, name, flags | OFlags::CLOEXEC, mode).map(File::from)
    }

    fn unlink(&self, name: &Text<NAME_MAX>) -> Result<(), Errno> {
        match rustix::fs::unlinkat(&self.folder, name.c_str()?, AtFlags::empty()) {
            Err(Errno::NOENT) => Ok(()),
            result => result,
        }
    }
}

/// Whether there is a process of this id.
pub(crate) fn is_process(pid: u32) -> bool {
    let pid = Pid::from_raw(pid.cast_signed());
    pid.is_some_and(|pid| !matches!(test_kill_process(pid), Err(Errno::SRCH)))
}

/// The bytes of a file, without mapping it.
#[derive(Debug)]
struct FileMemory<'f> {
    file: &'f File,
    len: usize,
}

impl<'f> FileMemory<'f> {
    fn new(file: &'f File) -> Option<Self> {
        let stat = rustix::fs::fstat(file).ok()?;
        let len = usize::try_from(stat.st_size).ok()?;
        Some(Self { file, len })
    }

    fn array<const N: usize>(&self, offset: usize) -> [u8; N] {
        let mut bytes = [0; N];
        self.read(offset, &mut bytes);
        bytes
    }
}

impl Memory for FileMemory<'_> {
    fn len(&self) -> usize {
        self.len
    }

    fn load_u32(&self, offset: usize) -> u32 {
        u32::from_le_bytes(self.array(offset))
    }

    fn load_u64(&self, offset: usize) -> u64 {
        u64::from_le_bytes(self.array(offset))
    }

    fn read(&self, offset: usize, out: &mut [u8]) {
        // What cannot be read is zeros, and no region.
        if self.file.read_exact_at(out, offset as u64).is_err() {
            out.fill(0);
        }
    }
}

/// A path or a name, with a zero behind it.
struct Text<const N: usize> {
    bytes: [u8; N],
    len: usize,
    fits: bool,
}

impl<const N: usize> Text<N> {
    fn new() -> Self {
        Self {
            bytes: [0; N],
            len: 0,
            fits: true,
        }
    }

    fn push(&mut self, text: &OsStr) {
        let text = text.as_bytes();
        let end = self.len + text.len();
        match self.bytes[..N - 1].get_mut(self.len..end) {
            Some(room) => {
                room.copy_from_slice(text);
                self.len = end;
            }
            None => self.fits = false,
        }
    }

    fn c_str(&self) -> Result<&CStr, Errno> {
        let text = CStr::from_bytes_until_nul(&self.bytes);
        text.ok().filter(|_| self.fits).ok_or(Errno::NAMETOOLONG)
    }
}

impl<const N: usize> Write for Text<N> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.push(OsStr::new(text));
        Ok(())
    }
}

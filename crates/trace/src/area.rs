//! Areas: named memory that outlives its writer.
//!
//! An area has the ring's SIZE as the kernel's `reserve_mem=SIZE:ALIGN:LABEL` gives it, and behind
//! it the bytes of the extension. Reserving finds a full disk: all blocks of a file are allocated
//! before it has its name, and an existing file's holes are filled. An area that exists is never
//! cleared, shortened or replaced by reserving it; what it holds is kept first ([`Area::keep`]).
//!
//! Not promised: on a copy-on-write file system (btrfs, ZFS) each write-back of a page needs a new
//! block, so that one that is full can still fail a store with `SIGBUS`. Such a machine puts its
//! areas on a tmpfs, or on another file system.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

use crate::devdax::DevDax;
use crate::generation::{self, CopySource, Generation, Meta};
use crate::iomem::{self, IoMemory};
use crate::lock::{self, LockedFile, MemoryLock};
use crate::{
    Access, Backing, Error, Mapping, RegionPlace, StateDir, StateLock, durable, failpoint, name,
};

/// `f_type` of a tmpfs (statfs(2)).
const TMPFS_MAGIC: u64 = 0x0102_1994;

/// The tmpfs that every Linux has (shm_overview(7)).
const SHM: &str = "/dev/shm";

/// Alignments below a cache line are raised to it (`mm/memblock.c`, Linux 7.3).
const ALIGN_MIN: u64 = 64;
/// What the start and the size of an instance have to be a multiple of, in bytes.
const PAGE_BYTES: u64 = 4096;

/// What an area has to be.
#[derive(Clone, Debug)]
#[must_use]
pub struct AreaRequest {
    name: String,
    backing: Backing,
    ring_bytes: u64,
    extension_bytes: u64,
    align: u64,
}

impl AreaRequest {
    /// An area of `ring_bytes`, without extension and of any alignment.
    pub fn new(name: &str, backing: Backing, ring_bytes: u64) -> Self {
        Self {
            name: name.to_owned(),
            backing,
            ring_bytes,
            extension_bytes: 0,
            align: 0,
        }
    }

    /// Adds bytes behind the ring. On fixed memory the caller carves them from the size instead.
    pub fn with_extension(mut self, extension_bytes: u64) -> Self {
        self.extension_bytes = extension_bytes;
        self
    }

    /// Sets the alignment of the start, in bytes. Any number is accepted, as by the kernel, and
    /// one that is no power of two is used as a mask, as by the kernel: `12M` excludes the bits of
    /// `12M - 1`. It matters for fixed memory only; a mapped file begins at a page.
    pub fn with_align(mut self, align: u64) -> Self {
        self.align = align.max(ALIGN_MIN);
        self
    }

    /// The area's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where it is to live.
    #[must_use]
    pub fn backing(&self) -> &Backing {
        &self.backing
    }

    /// Where the area's file is or will be, with the state folder at `state`. `None` for memory that
    /// is no file; for a tmpfs of our own the folder that has ours.
    #[must_use]
    pub fn file_in(&self, state: &Path) -> Option<PathBuf> {
        match &self.backing {
            Backing::DevMem { .. } | Backing::DevDax(_) => None,
            Backing::Tmpfs(None) => Some(PathBuf::from(SHM)),
            backing => Some(match backing.path() {
                None => state.join("areas").join(&self.name),
                Some(folder) if folder.is_dir() => folder.join(&self.name),
                Some(path) => path.to_owned(),
            }),
        }
    }

    /// Whether there can be such an area, as far as that is known without looking at the machine.
    ///
    /// # Errors
    ///
    /// [`Error::BadName`], [`Error::BadSize`] and [`Error::Misaligned`] as they say.
    pub(crate) fn check(&self) -> Result<(), Error> {
        name::check(&self.name)?;
        self.total_bytes()?;
        match self.backing {
            Backing::DevMem { address } => check_alignment(address, self.align),
            _ => Ok(()),
        }
    }

    /// Whether an instance can lie in it: the kernel maps whole pages only, so start and size of
    /// the ring are multiples of 4096. An area need not be; it is reserved all the same.
    ///
    /// # Errors
    ///
    /// [`Error::NotPageAligned`] if not.
    pub(crate) fn check_page_aligned(&self) -> Result<(), Error> {
        let start = match self.backing {
            Backing::DevMem { address } => address,
            _ => 0,
        };
        for (what, value) in [("start", start), ("size", self.ring_bytes)] {
            if value % PAGE_BYTES != 0 {
                return Err(Error::NotPageAligned {
                    name: self.name.clone(),
                    what,
                    value,
                });
            }
        }
        Ok(())
    }

    /// Ring and extension, in bytes.
    ///
    /// # Errors
    ///
    /// [`Error::BadSize`] if no file can have so many, or there are none.
    pub fn total_bytes(&self) -> Result<u64, Error> {
        let bad = |size_bytes, why| Error::BadSize {
            name: self.name.clone(),
            size_bytes,
            why,
        };
        match self.ring_bytes.checked_add(self.extension_bytes) {
            _ if self.ring_bytes == 0 => Err(bad(0, "an area has at least one byte")),
            Some(total) if total <= i64::MAX as u64 => Ok(total),
            _ => Err(bad(self.ring_bytes, "no file can have so many")),
        }
    }
}

/// How the memory of an area becomes a generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BackupMethod {
    /// Its file is renamed, and a blank one takes its place.
    Rename,
    /// Its file is set aside, a blank one takes its place, and it is copied later. If there is no room
    /// for both, it is copied at once.
    SetAside,
    /// It is copied, and has to be cleared afterwards.
    Copy,
}

/// A reserved area. While it lives, no other recorder can reserve it.
#[derive(Debug)]
pub struct Area {
    request: AreaRequest,
    place: Place,
    /// As the memory is now.
    len_bytes: u64,
    /// As it has to be for the request.
    wanted_bytes: u64,
    is_new: bool,
}

/// The memory behind an area.
#[derive(Debug)]
enum Place {
    /// A file, locked. `is_dax`: on a file system with DAX.
    File {
        path: PathBuf,
        file: LockedFile,
        is_dax: bool,
    },
    /// A device-DAX node, locked.
    Device { path: PathBuf, file: LockedFile },
    /// `/dev/mem`, and the lock of the range.
    Physical {
        address: u64,
        file: File,
        _lock: MemoryLock,
    },
}

impl Area {
    /// Reserves the memory: opens what is there, makes what is not.
    ///
    /// # Errors
    ///
    /// [`Error::NoSpace`] if it does not fit (nothing is left behind); [`Error::AreaInUse`] and
    /// [`Error::MemoryInUse`] if another recorder has it; [`Error::WrongKind`] and
    /// [`Error::NotDax`] if the path is not of the kind that the backing says; [`Error::NotOurs`],
    /// [`Error::OthersMayWrite`], [`Error::ManyLinks`] if somebody else could change it;
    /// [`Error::BadName`], [`Error::BadSize`], [`Error::Misaligned`], [`Error::IoMemory`],
    /// [`Error::DevMem`], [`Error::TooShort`] as they say.
    pub fn reserve(
        request: &AreaRequest,
        state: &StateDir,
        lock: &StateLock,
    ) -> Result<Self, Error> {
        request.check()?;
        let total_bytes = request.total_bytes()?;
        match &request.backing {
            Backing::DevMem { address } => reserve_physical(request, *address, total_bytes),
            Backing::DevDax(path) => reserve_device(request, path, total_bytes),
            _ => reserve_file(request, state, lock, total_bytes),
        }
    }

    /// The area's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.request.name
    }

    /// Where it lives, as asked for.
    #[must_use]
    pub fn backing(&self) -> &Backing {
        &self.request.backing
    }

    /// The file or device; `None` for physical memory.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        match &self.place {
            Place::File { path, .. } | Place::Device { path, .. } => Some(path),
            Place::Physical { .. } => None,
        }
    }

    /// Where its bytes are, for those who only read them.
    #[must_use]
    pub fn place(&self) -> RegionPlace {
        let len_bytes = self.len_bytes;
        match &self.place {
            Place::File { path, .. } => RegionPlace::File(path.clone()),
            Place::Device { path, .. } => RegionPlace::Device {
                path: path.clone(),
                len_bytes,
            },
            Place::Physical { address, .. } => RegionPlace::Physical {
                address: *address,
                len_bytes,
            },
        }
    }

    /// All bytes, as they are now. That is ring and extension as asked for, and more where the
    /// memory comes in larger pieces: the extension then reaches to the last byte. An area file
    /// of an earlier run can have another size: see [`has_wanted_size`](Self::has_wanted_size).
    #[must_use]
    pub fn len_bytes(&self) -> u64 {
        self.len_bytes
    }

    /// Bytes of the ring, as asked for.
    #[must_use]
    pub fn ring_bytes(&self) -> u64 {
        self.request.ring_bytes
    }

    /// Whether the memory was made just now and is all zero. If not, it may hold what a previous
    /// run left.
    #[must_use]
    pub fn is_new(&self) -> bool {
        self.is_new
    }

    /// Whether the size is what was asked for. If not, keep what the area holds
    /// ([`keep`](Self::keep)), and the size is right.
    #[must_use]
    pub fn has_wanted_size(&self) -> bool {
        self.len_bytes == self.wanted_bytes
    }

    /// The open file or device, which has the area's lock; `None` for physical memory.
    #[must_use]
    pub fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        match &self.place {
            Place::File { file, .. } | Place::Device { file, .. } => Some(file.as_fd()),
            Place::Physical { .. } => None,
        }
    }

    /// Maps all of it for reading and writing.
    ///
    /// # Errors
    ///
    /// As the constructors of [`Mapping`].
    pub fn map(&self) -> Result<Mapping, Error> {
        self.map_for(Access::ReadWrite)
    }

    /// Maps all of it for reading.
    ///
    /// # Errors
    ///
    /// As the constructors of [`Mapping`].
    pub fn map_read_only(&self) -> Result<Mapping, Error> {
        self.map_for(Access::ReadOnly)
    }

    /// Maps what it holds, to be looked at and [kept](Self::keep): for reading and writing where the
    /// mapping is still of the area afterwards, so that it need not be mapped twice. To map physical
    /// memory the kernel writes an entry for each of its pages.
    ///
    /// # Errors
    ///
    /// As the constructors of [`Mapping`].
    pub fn map_held(&self, state: &StateDir) -> Result<Mapping, Error> {
        match self.backup_method(state) {
            BackupMethod::Rename | BackupMethod::SetAside => {
                let held = self.map_read_only()?;
                held.advise_no_read_around();
                Ok(held)
            }
            BackupMethod::Copy => self.map(),
        }
    }

    fn map_for(&self, access: Access) -> Result<Mapping, Error> {
        match &self.place {
            // Opened anew: a mapping keeps its open file, and with it the lock, and a forked child has
            // the mapping for as long as it lives.
            Place::File { path, is_dax, .. } => {
                let file = open_existing(path)?;
                match is_dax {
                    true => Mapping::of_dax_file(file, path, self.len_bytes, access),
                    false => Mapping::of_file(file, path, self.len_bytes, access),
                }
            }
            Place::Device { path, file } => {
                Mapping::of_device(&**file, path, self.len_bytes, access)
            }
            Place::Physical { address, file, .. } => {
                Mapping::of_physical(file, *address, self.len_bytes, access)
            }
        }
    }

    /// Whether a recorder has the area file at `path`, also one of another state folder. `false`
    /// if there is no such file.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if it cannot be opened.
    pub fn is_file_in_use(path: &Path) -> Result<bool, Error> {
        lock::is_file_locked(path)
    }

    /// How [`keep`](Self::keep) will keep it, unless the file systems turn out to be two, or the tmpfs
    /// is full.
    #[must_use]
    pub fn backup_method(&self, state: &StateDir) -> BackupMethod {
        match &self.place {
            Place::File { path, .. } if is_on_state(state, path) => BackupMethod::Rename,
            Place::File { .. } if matches!(self.backing(), Backing::Tmpfs(_)) => {
                BackupMethod::SetAside
            }
            _ => BackupMethod::Copy,
        }
    }

    /// Keeps what the area holds as a generation, and gives it the size that was asked for. `held` is
    /// a mapping of all of it.
    ///
    /// Afterwards [`is_new`](Self::is_new) says whether the area is a blank file, which has to be
    /// mapped anew; mappings made before are of the generation's region. If not, the same memory
    /// still holds the old bytes, and the caller clears it.
    ///
    /// # Errors
    ///
    /// As [`rotate_file_area`](crate::rotate_file_area) and
    /// [`keep_by_copy`](crate::keep_by_copy). [`Error::NoSpace`] leaves everything as it was.
    pub fn keep(
        &mut self,
        held: &Mapping,
        state: &StateDir,
        lock: &StateLock,
        meta: &Meta,
    ) -> Result<Generation, Error> {
        if let Place::File { path, .. } = &self.place {
            let path = path.clone();
            let kept = match self.backup_method(state) {
                BackupMethod::Rename => self.rotate(&path, state, lock, meta)?,
                BackupMethod::SetAside => self.set_aside(&path, state, lock, meta)?,
                BackupMethod::Copy => None,
            };
            if let Some(kept) = kept {
                return self.reopen(path).map(|()| kept);
            }
        }
        self.keep_by_copy(held, state, lock, meta)
    }

    /// `None` if the file systems are two after all.
    fn rotate(
        &self,
        path: &Path,
        state: &StateDir,
        lock: &StateLock,
        meta: &Meta,
    ) -> Result<Option<Generation>, Error> {
        match generation::rotate_file_area(state, lock, path, self.wanted_bytes, meta) {
            Err(error) if is_between_file_systems(&error) => Ok(None),
            result => result.map(Some),
        }
    }

    /// `None` if that cannot be.
    fn set_aside(
        &self,
        path: &Path,
        state: &StateDir,
        lock: &StateLock,
        meta: &Meta,
    ) -> Result<Option<Generation>, Error> {
        // The run before did not live long enough to copy what it had set aside.
        generation::copy_set_aside(state, lock, &|| false)?;
        generation::set_aside(state, lock, path, self.wanted_bytes, meta)
    }

    fn keep_by_copy(
        &mut self,
        held: &Mapping,
        state: &StateDir,
        lock: &StateLock,
        meta: &Meta,
    ) -> Result<Generation, Error> {
        held.advise_read_around();
        let source = CopySource::Memory(held);
        let generation = generation::keep_by_copy(state, lock, source, meta)?;
        if let Place::File { path, .. } = &self.place
            && !self.has_wanted_size()
        {
            let path = path.clone();
            self.replace(lock, &path)?;
            self.reopen(path)?;
        }
        Ok(generation)
    }

    /// The file beside which the next start's is to be made while this run records, if that saves time:
    /// see [`spare`](crate::spare).
    pub(crate) fn spared(&self) -> Option<&Path> {
        self.path()
            .filter(|_| matches!(self.backing(), Backing::Tmpfs(_)))
    }

    /// Puts a blank file of the wanted size in the place of one that has been kept. By a rename,
    /// since the old file may still be mapped.
    fn replace(&self, lock: &StateLock, path: &Path) -> Result<(), Error> {
        let prepared = generation::prepare(lock, path, self.wanted_bytes)?;
        failpoint::reached("replace-allocated");
        fs::rename(&prepared, path).map_err(Error::io("replace", path))?;
        failpoint::reached("replace-live");
        durable::sync_dir(durable::parent(path))
    }

    /// Goes over to the blank file that is now at `path`.
    fn reopen(&mut self, path: PathBuf) -> Result<(), Error> {
        let file = LockedFile::of_area(open_existing(&path)?, &path)?;
        let is_dax = matches!(self.request.backing, Backing::DaxFile(_));
        self.place = Place::File { path, file, is_dax };
        self.len_bytes = self.wanted_bytes;
        self.is_new = true;
        Ok(())
    }
}

fn is_between_file_systems(error: &Error) -> bool {
    let kind = match error {
        Error::Io { source, .. } => Some(source.kind()),
        _ => None,
    };
    kind == Some(io::ErrorKind::CrossesDevices)
}

fn is_on_state(state: &StateDir, path: &Path) -> bool {
    let device = durable::device(path);
    matches!((device, durable::device(&state.generations())), (Ok(a), Ok(b)) if a == b)
}

fn open_existing(path: &Path) -> Result<File, Error> {
    let missing = || Error::io("open", path)(io::Error::from(io::ErrorKind::NotFound));
    durable::open_private(path)?.ok_or_else(missing)
}

fn reserve_physical(request: &AreaRequest, address: u64, len_bytes: u64) -> Result<Area, Error> {
    IoMemory::check_now(address, len_bytes)?;
    let memory_lock = MemoryLock::try_acquire(address, len_bytes)?;
    let file = iomem::open_dev_mem(address, Access::ReadWrite)?;
    Ok(Area {
        request: request.clone(),
        place: Place::Physical {
            address,
            file,
            _lock: memory_lock,
        },
        len_bytes,
        wanted_bytes: len_bytes,
        is_new: false,
    })
}

/// Whether the kernel could have chosen this start: it rounds down by clearing the bits of
/// `align - 1`, power of two or not (`mm/memblock.c`, Linux 7.3).
fn check_alignment(address: u64, align: u64) -> Result<(), Error> {
    let lower = address & !align.saturating_sub(1);
    if lower == address {
        Ok(())
    } else {
        Err(Error::Misaligned {
            address,
            align,
            lower,
        })
    }
}

fn reserve_device(request: &AreaRequest, path: &Path, total_bytes: u64) -> Result<Area, Error> {
    let len_bytes = DevDax::of(path)?.mapped_bytes(path, total_bytes)?;
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(OFlags::NOFOLLOW.bits().cast_signed())
        .open(path)
        .map_err(Error::io("open", path))?;
    let file = LockedFile::of_area(file, path)?;
    Ok(Area {
        request: request.clone(),
        place: Place::Device {
            path: path.to_owned(),
            file,
        },
        len_bytes,
        wanted_bytes: len_bytes,
        is_new: false,
    })
}

fn reserve_file(
    request: &AreaRequest,
    state: &StateDir,
    lock: &StateLock,
    total_bytes: u64,
) -> Result<Area, Error> {
    let path = file_path(request, state)?;
    check_file_system(&request.backing, durable::parent(&path))?;
    let wanted_bytes = round_to_pieces(durable::parent(&path), total_bytes)?;
    let is_dax = matches!(request.backing, Backing::DaxFile(_));
    let found = durable::open_private(&path)?;
    let mut is_new = found.is_none();
    let file = match found {
        Some(file) => file,
        None => create_file(lock, &path, wanted_bytes, is_dax)?,
    };
    let file = LockedFile::of_area(file, &path)?;
    let is_tmpfs = matches!(request.backing, Backing::Tmpfs(_));
    is_new |= fill_holes(&file, &path, wanted_bytes, is_tmpfs)?;
    let len_bytes = file.metadata().map_err(Error::io("look at", &path))?.len();
    if is_dax {
        Mapping::of_dax_file(&*file, &path, len_bytes, Access::ReadOnly)?;
    }
    let place = Place::File { path, file, is_dax };
    Ok(Area {
        request: request.clone(),
        place,
        len_bytes,
        wanted_bytes,
        is_new,
    })
}

/// Makes the blank file, and shows it under its name when it is known to be usable.
fn create_file(lock: &StateLock, path: &Path, len_bytes: u64, is_dax: bool) -> Result<File, Error> {
    let prepared = generation::prepare(lock, path, len_bytes)?;
    failpoint::reached("reserve-allocated");
    let file = open_existing(&prepared)?;
    if is_dax && let Err(error) = Mapping::of_dax_file(&file, path, len_bytes, Access::ReadOnly) {
        durable::remove_if_there(&prepared)?;
        return Err(error);
    }
    generation::show_prepared(&prepared, path, "reserve-live")?;
    Ok(file)
}

/// Allocates what an existing file lacks: all of it if it is empty (somebody made it for us), its
/// holes else. Whether it was empty.
fn fill_holes(file: &File, path: &Path, wanted_bytes: u64, is_tmpfs: bool) -> Result<bool, Error> {
    let found = file.metadata().map_err(Error::io("look at", path))?;
    let len_bytes = found.len();
    let is_empty = len_bytes == 0;
    // To ask a tmpfs for what it has takes a microsecond for each page.
    let is_allocated = is_tmpfs && !is_empty && durable::is_allocated(&found);
    if !is_allocated {
        durable::allocate(file, path, if is_empty { wanted_bytes } else { len_bytes })?;
    }
    Ok(is_empty)
}

/// Where the area's file is.
fn file_path(request: &AreaRequest, state: &StateDir) -> Result<PathBuf, Error> {
    match &request.backing {
        Backing::Tmpfs(None) => {
            let folder = PathBuf::from(format!("{SHM}/outlive-{}", state.id()));
            durable::private_dir(&folder)?;
            Ok(folder.join(&request.name))
        }
        backing => match backing.path() {
            None => state.area_path(&request.name),
            Some(folder) if folder.is_dir() => Ok(folder.join(&request.name)),
            Some(path) => Ok(path.to_owned()),
        },
    }
}

/// Whether the file system is what the backing says.
fn check_file_system(backing: &Backing, folder: &Path) -> Result<(), Error> {
    let (kind, _) = durable::file_system(folder)?;
    let (magic, expected) = match backing {
        Backing::Tmpfs(_) => (TMPFS_MAGIC, "on a tmpfs"),
        Backing::Hugetlbfs(_) => (durable::HUGETLBFS_MAGIC, "on a hugetlbfs"),
        _ => return Ok(()),
    };
    if kind == magic {
        return Ok(());
    }
    let found = format!("on a file system of type {kind:#x}");
    Err(Error::WrongKind {
        path: folder.to_owned(),
        expected,
        found,
    })
}

/// `total_bytes`, in whole huge pages on a hugetlbfs: a file there has no other length.
fn round_to_pieces(folder: &Path, total_bytes: u64) -> Result<u64, Error> {
    let (kind, piece) = durable::file_system(folder)?;
    if kind != durable::HUGETLBFS_MAGIC || piece == 0 {
        return Ok(total_bytes);
    }
    total_bytes
        .checked_next_multiple_of(piece)
        .ok_or_else(|| Error::BadSize {
            name: folder.display().to_string(),
            size_bytes: total_bytes,
            why: "no file can have so many",
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{KILLED_IN, SmallTmpfs, kill_child};
    use outlive_ring::{Memory, MemoryMut};
    use std::os::unix::fs::MetadataExt;
    use tempfile::TempDir;

    const RING: u64 = 64 << 10;

    fn state() -> (TempDir, StateDir, StateLock) {
        let folder = TempDir::new().unwrap();
        let state = StateDir::open(&folder.path().join("state")).unwrap();
        let lock = state.try_lock_exclusive().unwrap();
        (folder, state, lock)
    }

    fn request(backing: &str) -> AreaRequest {
        AreaRequest::new("trace", backing.parse().unwrap(), RING).with_extension(8192)
    }

    fn write(area: &Area, offset: usize, bytes: &[u8]) {
        area.map()
            .unwrap()
            .memory_mut()
            .unwrap()
            .write(offset, bytes);
    }

    fn read(area: &Area, offset: usize) -> [u8; 4] {
        let mut bytes = [0; 4];
        Memory::read(&area.map_read_only().unwrap(), offset, &mut bytes);
        bytes
    }

    fn meta(seq: u64) -> Meta {
        Meta::new("boot_mapped", seq, "file")
    }

    fn keep(
        area: &mut Area,
        state: &StateDir,
        lock: &StateLock,
        seq: u64,
    ) -> Result<Generation, Error> {
        let held = area.map_held(state)?;
        area.keep(&held, state, lock, &meta(seq))
    }

    /// Reserves, writes, keeps, and checks the generation and what the area is afterwards.
    fn keeps_a_run(request: &AreaRequest, method: BackupMethod) {
        let (_folder, state, lock) = state();
        let mut area = Area::reserve(request, &state, &lock).unwrap();
        assert!(area.is_new() && area.has_wanted_size());
        assert_eq!(area.backup_method(&state), method);
        write(&area, 8, b"lost");
        drop(area);
        area = Area::reserve(request, &state, &lock).unwrap();
        assert!(!area.is_new());
        let generation = keep(&mut area, &state, &lock, 1).unwrap();
        assert_eq!(&fs::read(generation.region_path()).unwrap()[8..12], b"lost");
        assert_eq!(area.is_new(), method != BackupMethod::Copy);
        assert_eq!(
            &read(&area, 8),
            if area.is_new() { b"\0\0\0\0" } else { b"lost" }
        );
    }

    #[test]
    fn area_in_the_state_folder_is_kept_by_renaming() {
        keeps_a_run(&request("file"), BackupMethod::Rename);
    }

    #[test]
    fn area_elsewhere_on_the_same_file_system_is_kept_by_renaming() {
        let folder = TempDir::new().unwrap();
        let backing = format!("file:{}/my-area", folder.path().display());
        keeps_a_run(&request(&backing), BackupMethod::Rename);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn area_on_a_tmpfs_is_kept_by_setting_it_aside() {
        let Some(tmpfs) = SmallTmpfs::mount("1m") else {
            return;
        };
        let path = tmpfs.path().display();
        keeps_a_run(&request(&format!("tmpfs:{path}")), BackupMethod::SetAside);
        let kept = tmpfs.path().join("trace.outlive-kept");
        for file in [tmpfs.path().join("trace"), kept] {
            assert_eq!(fs::metadata(file).unwrap().len(), RING + 8192);
        }
        keeps_a_run(&request(&format!("file:{path}/other")), BackupMethod::Copy);
    }

    #[test]
    fn area_on_a_tmpfs_that_has_no_room_for_two_is_copied() {
        let Some(tmpfs) = SmallTmpfs::mount("128k") else {
            return;
        };
        let (_folder, state, lock) = state();
        let request = request(&format!("tmpfs:{}", tmpfs.path().display()));
        write(&Area::reserve(&request, &state, &lock).unwrap(), 8, b"lost");
        let mut area = Area::reserve(&request, &state, &lock).unwrap();
        let kept = keep(&mut area, &state, &lock, 1).unwrap();
        assert_eq!(&fs::read(kept.region_path()).unwrap()[8..12], b"lost");
        assert!(fs::symlink_metadata(kept.region_path()).unwrap().is_file());
        assert!(!area.is_new());
        assert_eq!(fs::read_dir(tmpfs.path()).unwrap().count(), 1);
    }

    /// A program that dies again and again, each time before it has copied what it set aside.
    #[test]
    fn one_region_is_set_aside_at_a_time() {
        let Some(tmpfs) = SmallTmpfs::mount("1m") else {
            return;
        };
        let (_folder, state, lock) = state();
        let request = request(&format!("tmpfs:{}", tmpfs.path().display()));
        for seq in 0..4_u8 {
            let mut area = Area::reserve(&request, &state, &lock).unwrap();
            if seq > 0 {
                keep(&mut area, &state, &lock, seq.into()).unwrap();
            }
            write(&area, 8, &[seq; 4]);
        }
        let kept = generation::list(&state).unwrap();
        let first = |kept: &Generation| fs::read(kept.region_path()).unwrap()[8];
        assert_eq!(kept.iter().map(first).collect::<Vec<_>>(), [0, 1, 2]);
        let is_link = |kept: &Generation| kept.region_path().is_symlink();
        let links: Vec<_> = kept.iter().map(is_link).collect();
        assert_eq!(links, [false, false, true]);
        assert_eq!(fs::read_dir(tmpfs.path()).unwrap().count(), 2);
    }

    #[test]
    fn next_start_takes_the_spare_if_it_has_the_size() {
        let Some(tmpfs) = SmallTmpfs::mount("1m") else {
            return;
        };
        let (_folder, state, lock) = state();
        let request = request(&format!("tmpfs:{}", tmpfs.path().display()));
        let live = tmpfs.path().join("trace");
        let spare = tmpfs.path().join("trace.outlive-spare");
        let inode = |path: &Path| fs::metadata(path).unwrap().ino();
        let mut area = Area::reserve(&request, &state, &lock).unwrap();
        for (seq, larger) in [(1, 0), (2, 4096)] {
            let chores = crate::Chores::new(&state, [&area]);
            chores.run(&lock, &|| false).unwrap();
            let is_same = larger == 0;
            let made = inode(&spare);
            drop(area);
            let request = request.clone().with_extension(8192 + larger);
            area = Area::reserve(&request, &state, &lock).unwrap();
            keep(&mut area, &state, &lock, seq).unwrap();
            assert_eq!(inode(&live) == made, is_same);
            assert_eq!(area.map().unwrap().len() as u64, RING + 8192 + larger);
            assert!(!spare.exists());
        }
    }

    /// It would let the others have no memory.
    #[test]
    fn spare_is_not_made_of_the_last_room() {
        let Some(tmpfs) = SmallTmpfs::mount("192k") else {
            return;
        };
        let (_folder, state, lock) = state();
        let request = request(&format!("tmpfs:{}", tmpfs.path().display()));
        let area = Area::reserve(&request, &state, &lock).unwrap();
        let chores = crate::Chores::new(&state, [&area]);
        chores.run(&lock, &|| false).unwrap();
        assert_eq!(fs::read_dir(tmpfs.path()).unwrap().count(), 1);
    }

    #[test]
    fn tmpfs_without_a_path_is_a_private_folder_of_the_state() {
        let (_folder, state, lock) = state();
        let area = Area::reserve(&request("tmpfs"), &state, &lock);
        let folder = PathBuf::from(format!("{SHM}/outlive-{}", state.id()));
        match area {
            Err(Error::Io { source, .. }) => eprintln!("skipped: no /dev/shm: {source}"),
            area => {
                assert_eq!(area.unwrap().path().unwrap(), folder.join("trace"));
                assert_eq!(fs::metadata(&folder).unwrap().mode() & 0o7777, 0o700);
            }
        }
        let _ = fs::remove_dir_all(folder);
    }

    #[test]
    fn backing_of_another_kind_is_refused_and_nothing_made() {
        let (_folder, state, lock) = state();
        let folder = TempDir::new().unwrap();
        for word in ["tmpfs", "hugetlbfs"] {
            let request = request(&format!("{word}:{}/area", folder.path().display()));
            let error = Area::reserve(&request, &state, &lock).unwrap_err();
            assert!(matches!(error, Error::WrongKind { .. }), "{error}");
        }
        let dax = request(&format!("dax:{}/area", folder.path().display()));
        let error = Area::reserve(&dax, &state, &lock).unwrap_err();
        assert!(matches!(error, Error::NotDax { .. }), "{error}");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn folder_means_the_file_in_it_with_the_areas_name() {
        let (_folder, state, lock) = state();
        let folder = TempDir::new().unwrap();
        let request = request(&format!("file:{}", folder.path().display()));
        let area = Area::reserve(&request, &state, &lock).unwrap();
        assert_eq!(area.path().unwrap(), folder.path().join("trace"));
    }

    #[test]
    fn area_of_another_size_is_left_alone_until_it_is_kept() {
        let (_folder, state, lock) = state();
        write(
            &Area::reserve(&request("file"), &state, &lock).unwrap(),
            8,
            b"lost",
        );
        let larger = request("file").with_extension(RING);
        let mut area = Area::reserve(&larger, &state, &lock).unwrap();
        assert_eq!(area.len_bytes(), RING + 8192);
        assert!(!area.has_wanted_size());
        assert_eq!(&read(&area, 8), b"lost");
        keep(&mut area, &state, &lock, 1).unwrap();
        assert_eq!(area.len_bytes(), 2 * RING);
        assert!(area.is_new() && area.has_wanted_size());
    }

    #[test]
    fn copied_area_gets_the_new_size_after_it_is_kept() {
        let Some(tmpfs) = SmallTmpfs::mount("1m") else {
            return;
        };
        let (_folder, state, lock) = state();
        let small = request(&format!("file:{}", tmpfs.path().display()));
        let area = Area::reserve(&small, &state, &lock).unwrap();
        write(&area, 8, b"lost");
        drop(area);
        let mut area = Area::reserve(&small.with_extension(RING), &state, &lock).unwrap();
        let old = area.map_read_only().unwrap();
        let generation = keep(&mut area, &state, &lock, 1).unwrap();
        assert_eq!(&fs::read(generation.region_path()).unwrap()[8..12], b"lost");
        assert!(area.is_new() && area.has_wanted_size());
        assert_eq!(area.map().unwrap().len() as u64, 2 * RING);
        assert_eq!(old.load_u32(8), u32::from_le_bytes(*b"lost"));
    }

    #[test]
    fn full_disk_is_found_when_the_area_is_reserved() {
        let Some(tmpfs) = SmallTmpfs::mount("64k") else {
            return;
        };
        let (_folder, state, lock) = state();
        let request = request(&format!("tmpfs:{}", tmpfs.path().display()));
        let error = Area::reserve(&request, &state, &lock).unwrap_err();
        let Error::NoSpace {
            needed_bytes,
            free_bytes,
            ..
        } = error
        else {
            panic!("{error}")
        };
        assert_eq!((needed_bytes, free_bytes), (RING + 8192, 64 << 10));
        assert_eq!(fs::read_dir(tmpfs.path()).unwrap().count(), 0);
    }

    #[test]
    fn holes_of_an_existing_file_are_filled_and_its_bytes_kept() {
        let (_folder, state, lock) = state();
        let path = state.area_path("trace").unwrap();
        let file = durable::create_new(&path).unwrap();
        file.set_len(RING + 8192).unwrap();
        std::os::unix::fs::FileExt::write_all_at(&file, b"lost", 8).unwrap();
        let area = Area::reserve(&request("file"), &state, &lock).unwrap();
        assert!(fs::metadata(&path).unwrap().blocks() * 512 >= RING + 8192);
        assert_eq!(&read(&area, 8), b"lost");
    }

    #[test]
    fn empty_file_is_taken_for_a_new_area() {
        let (_folder, state, lock) = state();
        durable::create_new(&state.area_path("trace").unwrap()).unwrap();
        let area = Area::reserve(&request("file"), &state, &lock).unwrap();
        assert!(area.is_new() && area.has_wanted_size());
    }

    #[test]
    fn area_file_of_two_recorders_is_refused_to_the_second() {
        let (_folder_a, state_a, lock_a) = state();
        let (_folder_b, state_b, lock_b) = state();
        let folder = TempDir::new().unwrap();
        let request = request(&format!("file:{}/area", folder.path().display()));
        let mut area = Area::reserve(&request, &state_a, &lock_a).unwrap();
        let path = area.path().unwrap().to_owned();
        let second = || Area::reserve(&request, &state_b, &lock_b);
        assert!(matches!(second(), Err(Error::AreaInUse { .. })));
        keep(&mut area, &state_a, &lock_a, 1).unwrap();
        assert!(matches!(second(), Err(Error::AreaInUse { .. })));
        assert!(Area::is_file_in_use(&path).unwrap());
        drop(area);
        assert!(!Area::is_file_in_use(&path).unwrap());
        second().unwrap();
    }

    #[test]
    fn names_and_sizes_that_cannot_be_are_refused() {
        let (_folder, state, lock) = state();
        let refusal = |name: &str, size| {
            let request = AreaRequest::new(name, Backing::File, size).with_extension(8192);
            Area::reserve(&request, &state, &lock).unwrap_err()
        };
        assert!(matches!(refusal("../x", RING), Error::BadName { .. }));
        assert!(matches!(refusal("x", 0), Error::BadSize { .. }));
        assert!(matches!(refusal("x", u64::MAX), Error::BadSize { .. }));
        assert!(matches!(
            refusal("x", i64::MAX as u64),
            Error::BadSize { .. }
        ));
    }

    #[test]
    fn area_of_broken_pages_is_reserved_and_no_instance_can_use_it() {
        let (_folder, state, lock) = state();
        let request = AreaRequest::new("trace", Backing::File, RING + 100);
        let area = Area::reserve(&request, &state, &lock).unwrap();
        assert_eq!(area.len_bytes(), RING + 100);
        let error = request.check_page_aligned().unwrap_err();
        assert!(
            matches!(error, Error::NotPageAligned { what: "size", .. }),
            "{error}"
        );
    }

    #[test]
    fn alignment_is_a_mask_as_in_the_kernel() {
        // `100M:12M:trace` on a machine of 2 GiB, as seen at run time: no multiple of 12 MiB.
        assert!(check_alignment(0x7740_0000, 12 << 20).is_ok());
        let error = check_alignment(0x7780_0000, 12 << 20).unwrap_err();
        let Error::Misaligned { lower, .. } = error else {
            panic!("{error}")
        };
        assert_eq!(lower, 0x7700_0000);
        assert!(check_alignment(0x1001, 0).is_ok());
        let request = AreaRequest::new("trace", Backing::File, RING).with_align(3);
        assert_eq!(request.align, ALIGN_MIN);
    }

    #[test]
    fn physical_memory_of_the_kernel_is_refused() {
        let (_folder, state, lock) = state();
        let error = Area::reserve(&request("mem:0x100000"), &state, &lock).unwrap_err();
        assert!(matches!(error, Error::IoMemory { .. }), "{error}");
    }

    /// What a child does that is to be killed: the first half of a start, on an area of a tmpfs
    /// whose size has changed.
    #[test]
    fn child_keeps_an_area_of_another_size() {
        let Some(folder) = std::env::var_os(KILLED_IN) else {
            return;
        };
        let state = StateDir::open(&Path::new(&folder).join("state")).unwrap();
        let lock = state.try_lock_exclusive().unwrap();
        let request = request(&format!(
            "file:{}",
            Path::new(&folder).join("tmpfs").display()
        ));
        let mut area = Area::reserve(&request.with_extension(RING), &state, &lock).unwrap();
        keep(&mut area, &state, &lock, 1).unwrap();
    }

    #[test]
    fn start_killed_while_an_area_changes_its_size_loses_nothing() {
        let Some(tmpfs) = SmallTmpfs::mount("1m") else {
            return;
        };
        let steps = [
            "copy-half",
            "copy-named",
            "replace-allocated",
            "replace-live",
        ];
        for step in steps {
            let (folder, state, lock) = state();
            let path = tmpfs.path().join(step);
            std::os::unix::fs::symlink(tmpfs.path(), folder.path().join("tmpfs")).unwrap();
            let small = request(&format!("file:{}", tmpfs.path().display()));
            write(&Area::reserve(&small, &state, &lock).unwrap(), 8, b"lost");
            drop(lock);
            let test = "area::tests::child_keeps_an_area_of_another_size";
            kill_child(test, folder.path(), step);
            let lock = state.try_lock_exclusive().unwrap();
            crate::tidy(&state, &lock).unwrap();
            let large = small.clone().with_extension(RING);
            let mut area = Area::reserve(&large, &state, &lock).unwrap();
            if &read(&area, 8) == b"lost" {
                keep(&mut area, &state, &lock, 2).unwrap();
            }
            assert!(area.has_wanted_size(), "{step}");
            let kept = crate::generation::list(&state).unwrap();
            assert_eq!(kept.len(), 1, "{step}");
            assert_eq!(
                &fs::read(kept[0].region_path()).unwrap()[8..12],
                b"lost",
                "{step}"
            );
            fs::rename(area.path().unwrap(), path).unwrap();
        }
    }

    /// What a child does that is to be killed: the very first start.
    #[test]
    fn child_reserves_its_first_area() {
        let Some(folder) = std::env::var_os(KILLED_IN) else {
            return;
        };
        let state = StateDir::open(&Path::new(&folder).join("state")).unwrap();
        let lock = state.try_lock_exclusive().unwrap();
        Area::reserve(&request("file"), &state, &lock).unwrap();
    }

    #[test]
    fn first_start_killed_at_any_step_can_be_made_again() {
        for step in ["reserve-allocated", "reserve-live"] {
            let (folder, state, lock) = state();
            drop(lock);
            kill_child(
                "area::tests::child_reserves_its_first_area",
                folder.path(),
                step,
            );
            let lock = state.try_lock_exclusive().unwrap();
            // Without tidying: what lies in the way is ours to remove.
            let area = Area::reserve(&request("file"), &state, &lock).unwrap();
            assert!(area.has_wanted_size(), "{step}");
            assert_eq!(fs::read_dir(state.areas()).unwrap().count(), 1, "{step}");
        }
    }

    /// Huge pages for the time of a test.
    struct HugePages {
        mount: TempDir,
        pages_before: String,
    }

    const NR_HUGEPAGES: &str = "/proc/sys/vm/nr_hugepages";

    impl HugePages {
        fn new(pages: u32) -> Option<Self> {
            use rustix::mount::{MountFlags, mount};

            let pages_before = fs::read_to_string(NR_HUGEPAGES).ok()?;
            let folder = TempDir::new().unwrap();
            let flags = MountFlags::empty();
            let mounted = mount("none", folder.path(), "hugetlbfs", flags, c"mode=0700");
            if let Err(error) = mounted {
                eprintln!("skipped: cannot mount a hugetlbfs: {error}");
                return None;
            }
            let huge_pages = Self {
                mount: folder,
                pages_before,
            };
            let total = huge_pages.pages_before.trim().parse().unwrap_or(0) + pages;
            if let Err(error) = fs::write(NR_HUGEPAGES, total.to_string()) {
                eprintln!("skipped: cannot get huge pages: {error}");
                return None;
            }
            Some(huge_pages)
        }
    }

    impl Drop for HugePages {
        fn drop(&mut self) {
            let flags = rustix::mount::UnmountFlags::DETACH;
            let _ = rustix::mount::unmount(self.mount.path(), flags);
            let _ = fs::write(NR_HUGEPAGES, &self.pages_before);
        }
    }

    #[test]
    fn area_on_a_hugetlbfs_is_rounded_to_huge_pages_and_kept_by_copying() {
        let Some(huge) = HugePages::new(4) else {
            return;
        };
        let request = request(&format!("hugetlbfs:{}", huge.mount.path().display()));
        let (_, piece) = durable::file_system(huge.mount.path()).unwrap();
        let free = durable::free_bytes(huge.mount.path()).unwrap();
        if free < 2 * piece {
            eprintln!("skipped: {free} bytes of huge pages are free");
            return;
        }
        keeps_a_run(&request, BackupMethod::Copy);
        assert_eq!(
            fs::metadata(huge.mount.path().join("trace")).unwrap().len(),
            piece
        );
        let (_folder, state, lock) = state();
        let name = format!("hugetlbfs:{}/large", huge.mount.path().display());
        let request = AreaRequest::new("large", name.parse().unwrap(), 1 << 40);
        let error = Area::reserve(&request, &state, &lock).unwrap_err();
        assert!(matches!(error, Error::NoSpace { .. }), "{error}");
        assert!(!huge.mount.path().join("large").exists());
    }
}

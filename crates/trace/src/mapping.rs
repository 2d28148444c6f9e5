//! An area's bytes in our address space.
//!
//! Shared mappings, so that every store is in the page cache (or the device) the moment it is
//! made and outlives the process. No slice of it is ever handed out: others may be writing, so the
//! bytes are reached through [`Memory`], which uses atomic words.
//!
//! A file that is made shorter while it is mapped gives `SIGBUS` at the next access, and no
//! program can rule that out for a file. What makes it unlikely: areas lie `0600` in folders of
//! `0700`, their blocks are allocated before they are mapped, a length is checked against the
//! file's, and the area's file is locked, so that our own kind leaves it alone.

#![allow(unsafe_code)]

use std::io;
use std::mem::MaybeUninit;
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;
use std::ptr::{self, NonNull};

use outlive_ring::{Memory, RawMemory};
use rustix::fs::{AtFlags, FileType, StatxAttributes, StatxFlags};
use rustix::io::Errno;
use rustix::mm::{Advice, MapFlags, MsyncFlags, ProtFlags};

use crate::Error;

/// What a mapping may be used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Loads only; the file need not be open for writing.
    ReadOnly,
    /// Loads and stores.
    ReadWrite,
}

impl Access {
    fn protection(self) -> ProtFlags {
        match self {
            Self::ReadOnly => ProtFlags::READ,
            Self::ReadWrite => ProtFlags::READ | ProtFlags::WRITE,
        }
    }
}

/// A shared mapping of a file, a device or a range of physical memory. Unmapped when dropped.
///
/// *Invariants*
/// 1. `base` is page aligned and begins a mapping of `len` bytes that only this value unmaps.
/// 2. No Rust reference to the mapped bytes exists, other than to atomics inside [`RawMemory`].
/// 3. `0 < len <= isize::MAX`.
/// 4. The mapping permits stores if `access` is [`Access::ReadWrite`], and loads always.
#[derive(Debug)]
pub struct Mapping {
    base: NonNull<u8>,
    len: usize,
    access: Access,
    /// Whether the memory itself outlives a reset, and so what is stored must not stay in a cache.
    is_lasting: bool,
}

// SAFETY: by 2 all accesses are atomic, and by 1 the mapping belongs to no thread.
unsafe impl Send for Mapping {}
// SAFETY: as for Send.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps the first `len_bytes` of a file or device. `path` is for the error's text.
    ///
    /// # Errors
    ///
    /// [`Error::TooShort`] if a regular file has fewer bytes; [`Error::Io`] if the system refuses.
    pub fn of_file(
        file: impl AsFd,
        path: &Path,
        len_bytes: u64,
        access: Access,
    ) -> Result<Self, Error> {
        check_len(&file, path, len_bytes)?;
        Self::map(file, 0, len_bytes, access, MapFlags::SHARED).map_err(Error::io("map", path))
    }

    /// Maps a whole file that holds a region, for reading.
    ///
    /// # Errors
    ///
    /// [`Error::Io`]; [`Error::NotARegion`] if the file is empty.
    pub fn of_path(path: &Path) -> Result<Self, Error> {
        let file = std::fs::File::open(path).map_err(Error::io("open", path))?;
        let len = file.metadata().map_err(Error::io("look at", path))?.len();
        if len == 0 {
            let source = outlive_ring::LayoutError::BadSize { size: 0 };
            return Err(Error::NotARegion {
                path: path.to_owned(),
                source,
            });
        }
        Self::of_file(&file, path, len, Access::ReadOnly)
    }

    /// Maps the first `len_bytes` of a file on a DAX file system so that a store is in the memory of
    /// the device once it has left the processor's caches.
    ///
    /// With `MAP_SYNC` (mmap(2)) the file system sees to it that its own records of the file are
    /// durable when a page is first written. Where the device cannot tell when something is durable
    /// (virtio-pmem), a mapping for writing writes to each page and syncs the file, so that there is
    /// no such first time later.
    ///
    /// # Errors
    ///
    /// [`Error::NotDax`] if the file has no DAX, else as [`of_file`](Self::of_file).
    pub fn of_dax_file(
        file: impl AsFd,
        path: &Path,
        len_bytes: u64,
        access: Access,
    ) -> Result<Self, Error> {
        check_len(&file, path, len_bytes)?;
        let flags = MapFlags::SHARED_VALIDATE | MapFlags::SYNC;
        match Self::map(&file, 0, len_bytes, access, flags) {
            Ok(mapping) => Ok(mapping.into_lasting()),
            Err(Errno::OPNOTSUPP) if has_dax(&file, path)? => {
                let mapping = Self::of_file(&file, path, len_bytes, access)?.into_lasting();
                if access == Access::ReadWrite {
                    mapping.populate().map_err(Error::io("write to", path))?;
                    rustix::fs::fsync(&file).map_err(Error::io("sync", path))?;
                }
                Ok(mapping)
            }
            Err(Errno::OPNOTSUPP) => Err(Error::NotDax {
                path: path.to_owned(),
            }),
            Err(error) => Err(Error::io("map", path)(error)),
        }
    }

    /// Maps physical memory through `/dev/mem`.
    ///
    /// # Errors
    ///
    /// [`Error::DevMem`] if the system refuses.
    pub fn of_physical(
        dev_mem: impl AsFd,
        address: u64,
        len_bytes: u64,
        access: Access,
    ) -> Result<Self, Error> {
        let mapping = Self::map(dev_mem, address, len_bytes, access, MapFlags::SHARED)
            .map_err(|error| crate::iomem::dev_mem_error(address, error.into()))?;
        Ok(mapping.into_lasting())
    }

    /// Maps the first `len_bytes` of a device-DAX node.
    ///
    /// # Errors
    ///
    /// As [`of_file`](Self::of_file).
    pub fn of_device(
        file: impl AsFd,
        path: &Path,
        len_bytes: u64,
        access: Access,
    ) -> Result<Self, Error> {
        Ok(Self::of_file(file, path, len_bytes, access)?.into_lasting())
    }

    fn into_lasting(mut self) -> Self {
        self.is_lasting = true;
        self
    }

    fn map(
        file: impl AsFd,
        offset: u64,
        len_bytes: u64,
        access: Access,
        flags: MapFlags,
    ) -> Result<Self, Errno> {
        let len = usize::try_from(len_bytes).map_err(|_| Errno::NOMEM)?;
        if isize::try_from(len).is_err() {
            return Err(Errno::NOMEM);
        }
        let protection = access.protection();
        // SAFETY: the address is the system's choice, so nothing is mapped over. A length of 0 is
        // refused by the system (3).
        let base =
            unsafe { rustix::mm::mmap(ptr::null_mut(), len, protection, flags, file, offset) }?;
        let base = NonNull::new(base.cast()).ok_or(Errno::FAULT)?;
        Ok(Self {
            base,
            len,
            access,
            is_lasting: false,
        })
    }

    /// The first byte. Stores through it are permitted only with [`Access::ReadWrite`].
    #[must_use]
    pub fn as_ptr(&self) -> *mut u8 {
        self.base.as_ptr()
    }

    /// Length in bytes, never 0.
    #[must_use]
    #[allow(
        clippy::len_without_is_empty,
        reason = "a mapping of no bytes cannot be made"
    )]
    pub fn len(&self) -> usize {
        self.len
    }

    /// The bytes for reading and writing; `None` if the mapping is read-only.
    #[must_use]
    pub fn memory_mut(&self) -> Option<RawMemory<'_>> {
        let memory = (self.access == Access::ReadWrite).then(|| self.raw())?;
        Some(match self.is_lasting {
            true => memory.flushing(),
            false => memory,
        })
    }

    fn raw(&self) -> RawMemory<'_> {
        // SAFETY: invariants 1 to 3 are those of `RawMemory` for the lifetime of `self`. Stores
        // are reached through `memory_mut` alone, which answers for 4.
        unsafe { RawMemory::new(self.as_ptr(), self.len) }
    }

    /// Writes bytes to the end of a file, by one `write(2)` that takes them from here: how many. What
    /// another process changes meanwhile is torn. What is outside the mapping is left out.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn write_to(&self, file: impl AsFd, range: Range<usize>) -> io::Result<usize> {
        let end = range.end.min(self.len);
        let start = range.start.min(end);
        // SAFETY: 1: `start` is inside the mapping, or its end.
        let first = unsafe { self.as_ptr().add(start) };
        let fd = file.as_fd().as_raw_fd();
        // SAFETY: 1 and 4: the range is mapped and can be read; the kernel reads it, so that no
        // reference is needed (2).
        let written = unsafe { nix::libc::write(fd, first.cast(), end - start) };
        usize::try_from(written).map_err(|_| io::Error::last_os_error())
    }

    /// Writes the pages of `range` back to the file and waits (`msync`, `MS_SYNC`). Bounds in
    /// bytes; what is outside the mapping is left out. Nothing to do on tmpfs and hugetlbfs.
    ///
    /// # Errors
    ///
    /// What the system says, `EIO` above all: then the file may lack these bytes.
    pub fn sync(&self, range: Range<usize>) -> io::Result<()> {
        let end = range.end.min(self.len);
        let start = range.start - range.start % rustix::param::page_size();
        if start >= end {
            return Ok(());
        }
        // SAFETY: 1: `start` is inside the mapping.
        let first = unsafe { self.as_ptr().add(start) };
        // SAFETY: 1: the range is inside the mapping, and msync changes no byte.
        unsafe { rustix::mm::msync(first.cast(), end - start, MsyncFlags::SYNC) }?;
        Ok(())
    }

    /// One `read` of a file into `range`, straight into the mapped memory: what was read is in the
    /// mapped file when the call returns, so that a kill right after it loses nothing. Returns how many
    /// bytes there were. Bounds in bytes; what is outside the mapping is left out.
    ///
    /// # Errors
    ///
    /// What the system says; `EFAULT` for a read-only mapping.
    pub fn read_into(&self, range: Range<usize>, from: impl AsFd) -> io::Result<usize> {
        let end = range.end.min(self.len);
        if self.access != Access::ReadWrite || range.start >= end {
            return Err(Errno::FAULT.into());
        }
        // SAFETY: 1: `range.start` is inside the mapping.
        let first = unsafe { self.as_ptr().add(range.start) };
        // SAFETY: 1, 3, 4: so many bytes from there are mapped and may be stored to. They are lent to
        // the system call alone, which is the only one that looks at the slice; bytes that may be
        // changed by others at any time are what `MaybeUninit` is for.
        let bytes = unsafe {
            std::slice::from_raw_parts_mut(first.cast::<MaybeUninit<u8>>(), end - range.start)
        };
        Ok(rustix::io::read(from, bytes).map(|(read, _)| read.len())?)
    }

    /// Makes all pages present and writable now (`MADV_POPULATE_WRITE`, Linux 5.14), so that no
    /// later store has to wait for one or fail. The pages of a disk file become dirty by it.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::InvalidInput`] on an older kernel or a read-only mapping, `EFAULT` where a
    /// store would have given `SIGBUS`.
    pub fn populate(&self) -> io::Result<()> {
        self.advise(Advice::LinuxPopulateWrite)
    }

    /// Asks for huge pages where the file system has them (`MADV_HUGEPAGE`; tmpfs mounted with
    /// `huge=advise`).
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::InvalidInput`] if the kernel has none.
    pub fn advise_huge_pages(&self) -> io::Result<()> {
        self.advise(Advice::LinuxHugepage)
    }

    /// For memory of which few pages are touched, far from each other, or that is written page by
    /// page. Else a disk file's fault brings in, and clears where nothing was written yet, all that the
    /// device reads ahead around the page that is wanted: 8 MiB on some.
    pub(crate) fn advise_no_read_around(&self) {
        // Advice that is not taken costs time, nothing else.
        let _ = self.advise(Advice::Random);
    }

    /// Ends the advice that nothing is to be read around the pages that are touched, which the start of
    /// a recording gives: for memory of which all is read, or is written again and again. The kernel
    /// takes pages that are advised so for used once, and where memory is short they go first
    /// (`vma_has_recency`, Linux 6.3 and later).
    pub fn advise_read_around(&self) {
        let _ = self.advise(Advice::Normal);
    }

    fn advise(&self, advice: Advice) -> io::Result<()> {
        // SAFETY: 1: the range is our mapping; all these kinds of advice leave its bytes as they are.
        unsafe { rustix::mm::madvise(self.as_ptr().cast(), self.len, advice) }?;
        Ok(())
    }
}

/// A read-only mapping has no [`MemoryMut`](outlive_ring::MemoryMut): see
/// [`Mapping::memory_mut`].
impl Memory for Mapping {
    fn len(&self) -> usize {
        self.len
    }
    fn load_u32(&self, offset: usize) -> u32 {
        self.raw().load_u32(offset)
    }
    fn load_u64(&self, offset: usize) -> u64 {
        self.raw().load_u64(offset)
    }
    fn read(&self, offset: usize, out: &mut [u8]) {
        self.raw().read(offset, out);
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: 1: the mapping is ours alone; 2: nothing refers to it any longer.
        let result = unsafe { rustix::mm::munmap(self.as_ptr().cast(), self.len) };
        debug_assert!(result.is_ok(), "the range was mapped by us: {result:?}");
    }
}

/// Whether the file's pages are those of the device (`STATX_ATTR_DAX`, Linux 5.8).
fn has_dax(file: impl AsFd, path: &Path) -> Result<bool, Error> {
    let found = rustix::fs::statx(file, "", AtFlags::EMPTY_PATH, StatxFlags::empty())
        .map_err(Error::io("look at", path))?;
    Ok(found.stx_attributes.contains(StatxAttributes::DAX))
}

/// Refuses to map beyond the end of a regular file, where an access gives `SIGBUS`.
fn check_len(file: &impl AsFd, path: &Path, needed_bytes: u64) -> Result<(), Error> {
    let stat = rustix::fs::fstat(file).map_err(Error::io("look at", path))?;
    let found_bytes = u64::try_from(stat.st_size).unwrap_or(0);
    let is_file = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
    if is_file && found_bytes < needed_bytes {
        return Err(Error::TooShort {
            path: path.to_owned(),
            needed_bytes,
            found_bytes,
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::durable::{create_allocated, open_private};
    use outlive_ring::MemoryMut;
    use std::fs::{self, File};

    fn area_file(len: u64) -> (tempfile::TempDir, std::path::PathBuf, File) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("area");
        let file = create_allocated(&path, len).unwrap();
        (folder, path, file)
    }

    #[test]
    fn stores_reach_the_file_without_any_sync() {
        let (_folder, path, file) = area_file(8192);
        let mapping = Mapping::of_file(&file, &path, 8192, Access::ReadWrite).unwrap();
        mapping.memory_mut().unwrap().write(4090, b"over the page");
        assert_eq!(&fs::read(&path).unwrap()[4090..4103], b"over the page");
    }

    #[test]
    fn read_only_mapping_sees_stores_and_permits_none() {
        let (_folder, path, file) = area_file(4096);
        let reading = File::open(&path).unwrap();
        let reader = Mapping::of_file(&reading, &path, 4096, Access::ReadOnly).unwrap();
        let writer = Mapping::of_file(&file, &path, 4096, Access::ReadWrite).unwrap();
        writer.memory_mut().unwrap().store_u64(8, 42);
        assert_eq!(reader.load_u64(8), 42);
        assert_eq!(reader.load_u32(8), 42);
        assert!(reader.memory_mut().is_none());
    }

    #[test]
    fn mapping_beyond_the_end_of_a_file_is_refused() {
        let (_folder, path, file) = area_file(4096);
        let error = Mapping::of_file(&file, &path, 4097, Access::ReadWrite).unwrap_err();
        assert!(matches!(
            error,
            Error::TooShort {
                needed_bytes: 4097,
                found_bytes: 4096,
                ..
            }
        ));
    }

    #[test]
    fn empty_and_impossible_lengths_are_refused() {
        let (_folder, path, file) = area_file(4096);
        assert!(Mapping::of_file(&file, &path, 0, Access::ReadWrite).is_err());
        let zero = File::open("/dev/zero").unwrap();
        let path = Path::new("/dev/zero");
        assert!(Mapping::of_file(&zero, path, u64::MAX, Access::ReadOnly).is_err());
    }

    #[test]
    fn file_without_dax_is_no_dax_file() {
        let (_folder, path, file) = area_file(4096);
        let error = Mapping::of_dax_file(&file, &path, 4096, Access::ReadWrite).unwrap_err();
        assert!(matches!(error, Error::NotDax { .. }), "{error}");
    }

    #[test]
    fn bytes_are_written_to_a_file_from_where_they_are() {
        let (folder, path, file) = area_file(8192);
        let mapping = Mapping::of_file(&file, &path, 8192, Access::ReadWrite).unwrap();
        mapping.memory_mut().unwrap().write(4090, b"over the page");
        let to = folder.path().join("copy");
        let out = File::create(&to).unwrap();
        for (range, len) in [(4090..4103, 13), (8190..9000, 2), (9000..9001, 0)] {
            assert_eq!(mapping.write_to(&out, range).unwrap(), len);
        }
        assert_eq!(fs::read(&to).unwrap(), b"over the page\0\0");
        assert!(mapping.write_to(File::open(&to).unwrap(), 0..1).is_err());
    }

    #[test]
    fn any_range_can_be_synced() {
        let (_folder, path, file) = area_file(3 * 4096);
        let mapping = Mapping::of_file(&file, &path, 3 * 4096, Access::ReadWrite).unwrap();
        for range in [
            0..0,
            1..2,
            4095..4097,
            0..3 * 4096,
            5000..usize::MAX,
            1 << 40..1 << 41,
        ] {
            mapping.sync(range).unwrap();
        }
    }

    #[test]
    fn populated_mapping_keeps_its_bytes() {
        let (_folder, path, _) = area_file(1 << 20);
        fs::write(&path, vec![7; 1 << 20]).unwrap();
        let file = open_private(&path).unwrap().unwrap();
        let mapping = Mapping::of_file(&file, &path, 1 << 20, Access::ReadWrite).unwrap();
        match mapping.populate() {
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                eprintln!("skipped: this kernel has no MADV_POPULATE_WRITE");
            }
            result => result.unwrap(),
        }
        let _ = mapping.advise_huge_pages();
        assert_eq!(mapping.load_u64(4096), 0x0707_0707_0707_0707);
    }
}

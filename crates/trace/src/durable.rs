//! Files and folders that are private, allocated up front, and there after a power failure.
//!
//! Three habits, each in one place. *Private*: folders are `0700`, files `0600`; what exists
//! already must be ours alone; symbolic links are not followed. *Allocated*: a file has all its
//! blocks before anybody sees its name, so that no later store can fail for lack of space.
//! *Durable*: contents are synced before the rename that shows them, the folder after it.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FallocateFlags, FileType, OFlags, RenameFlags, Stat};
use rustix::io::Errno;

use crate::Error;

/// `f_type` of a hugetlbfs (statfs(2)).
pub(crate) const HUGETLBFS_MAGIC: u64 = 0x9584_58f6;

/// Makes the folder `path` with mode 0700, or checks the one that is there.
pub(crate) fn private_dir(path: &Path) -> Result<(), Error> {
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => check_dir(path),
        result => result.map_err(Error::io("create folder", path)),
    }
}

/// Checks that `path` is a folder that nobody but us can change.
pub(crate) fn check_dir(path: &Path) -> Result<(), Error> {
    let folder = rustix::fs::open(path, OFlags::DIRECTORY | OFlags::CLOEXEC, 0.into())
        .map_err(Error::io("open folder", path))?;
    let stat = rustix::fs::fstat(&folder).map_err(Error::io("look at", path))?;
    check_owner(path, &stat)
}

fn check_owner(path: &Path, stat: &Stat) -> Result<(), Error> {
    let user = rustix::process::geteuid().as_raw();
    if stat.st_uid != user {
        return Err(Error::NotOurs {
            path: path.to_owned(),
            owner: stat.st_uid,
            user,
        });
    }
    if stat.st_mode & 0o022 != 0 {
        return Err(Error::OthersMayWrite {
            path: path.to_owned(),
            mode: stat.st_mode & 0o7777,
        });
    }
    Ok(())
}

/// Opens an existing file of ours for reading and writing. `None` if there is none.
pub(crate) fn open_private(path: &Path) -> Result<Option<File>, Error> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let result = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(flags.bits().cast_signed())
        .open(path);
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(refused_open(path, error)),
        Ok(file) => {
            check_file(path, &file)?;
            Ok(Some(file))
        }
    }
}

/// Says why an open failed where the system's words would puzzle.
fn refused_open(path: &Path, error: io::Error) -> Error {
    let is_link = error.raw_os_error() == Some(Errno::LOOP.raw_os_error());
    if is_link {
        let found = "a symbolic link".to_owned();
        Error::WrongKind {
            path: path.to_owned(),
            expected: "a regular file",
            found,
        }
    } else {
        Error::Io {
            action: "open",
            path: path.to_owned(),
            source: error,
        }
    }
}

/// Checks that an open file is a regular one, ours alone, and has no second name.
fn check_file(path: &Path, file: &File) -> Result<(), Error> {
    let stat = rustix::fs::fstat(file).map_err(Error::io("look at", path))?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        let found = kind_name(path);
        return Err(Error::WrongKind {
            path: path.to_owned(),
            expected: "a regular file",
            found,
        });
    }
    #[allow(
        clippy::useless_conversion,
        reason = "the type differs between architectures"
    )]
    let links = u64::from(stat.st_nlink);
    if links > 1 {
        return Err(Error::ManyLinks {
            path: path.to_owned(),
            links,
        });
    }
    check_owner(path, &stat)
}

/// What kind of file is at `path`, in words.
pub(crate) fn kind_name(path: &Path) -> String {
    let name = match fs::symlink_metadata(path).map(|metadata| metadata.file_type()) {
        Ok(kind) if kind.is_dir() => "a folder",
        Ok(kind) if kind.is_symlink() => "a symbolic link",
        Ok(kind) if kind.is_char_device() => "a character device",
        Ok(kind) if kind.is_block_device() => "a block device",
        Ok(kind) if kind.is_file() => "a regular file",
        Ok(_) => "a pipe or socket",
        Err(_) => "not readable",
    };
    name.to_owned()
}

/// Makes a new file of `len_bytes` zeros that has all its blocks, and syncs it. On an error there
/// is no file.
pub(crate) fn create_allocated(path: &Path, len_bytes: u64) -> Result<File, Error> {
    let file = create_new(path)?;
    let result = allocate(&file, path, len_bytes)
        .and_then(|()| file.sync_all().map_err(Error::io("sync", path)));
    if let Err(error) = result {
        let _ = fs::remove_file(path);
        return Err(error);
    }
    Ok(file)
}

/// Makes a new empty file that only we may read and write; there must be none.
pub(crate) fn create_new(path: &Path) -> Result<File, Error> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .map_err(Error::io("create", path))
}

/// Gives `file` blocks for `len_bytes` and at least that length. What it holds stays as it is.
///
/// What cannot fit is not even tried: a file system that is full for a moment is trouble for others.
pub(crate) fn allocate(file: &File, path: &Path, len_bytes: u64) -> Result<(), Error> {
    check_room(file, path, len_bytes)?;
    fill(file, len_bytes).map_err(|error| allocation_error(path, len_bytes, error.into()))
}

/// As [`allocate`], whatever there is room for. Allocates no memory.
pub(crate) fn fill(file: &File, len_bytes: u64) -> Result<(), Errno> {
    match fallocate(file, len_bytes) {
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => extend_with_zeros(file, len_bytes)
            .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO)),
        result => result,
    }
}

/// Whether `file` can become as long as `len_bytes`, as far as the file system knows now.
pub(crate) fn check_room(file: &File, path: &Path, len_bytes: u64) -> Result<(), Error> {
    let has_bytes = file
        .metadata()
        .map_or(0, |metadata| metadata.blocks() * 512);
    check_free_beside(path, len_bytes, has_bytes)
}

/// Whether the file system of `path` has room for a file of `len_bytes`, as far as it knows now.
pub(crate) fn check_free(path: &Path, len_bytes: u64) -> Result<(), Error> {
    check_free_beside(path, len_bytes, 0)
}

fn check_free_beside(path: &Path, len_bytes: u64, has_bytes: u64) -> Result<(), Error> {
    let free_bytes = free_bytes(path)?;
    // A file system without a limit says that it has no bytes at all.
    let is_limited = total_bytes(path)? > 0;
    if is_limited && len_bytes.saturating_sub(has_bytes) > free_bytes {
        return Err(Error::NoSpace {
            path: path.to_owned(),
            needed_bytes: len_bytes,
            free_bytes,
        });
    }
    Ok(())
}

/// Whether a file of a tmpfs has a page for each of its bytes. Not less and not more: a huge page may
/// reach beyond the end.
pub(crate) fn is_allocated(file: &fs::Metadata) -> bool {
    file.blocks() * 512 == file.len().next_multiple_of(4096)
}

fn fallocate(file: &File, len_bytes: u64) -> Result<(), Errno> {
    loop {
        match rustix::fs::fallocate(file, FallocateFlags::empty(), 0, len_bytes) {
            Err(Errno::INTR) => {}
            result => return result,
        }
    }
}

/// What a file system without `fallocate` leaves: zeros written behind the present end.
fn extend_with_zeros(file: &File, len_bytes: u64) -> io::Result<()> {
    use std::os::unix::fs::FileExt;

    static ZEROS: [u8; 1 << 20] = [0; 1 << 20];
    let mut at = file.metadata()?.len();
    while at < len_bytes {
        let step =
            usize::try_from(len_bytes - at).map_or(ZEROS.len(), |left| left.min(ZEROS.len()));
        file.write_all_at(&ZEROS[..step], at)?;
        at += step as u64;
    }
    Ok(())
}

/// What it means that a file could not be made so long.
pub(crate) fn allocation_error(path: &Path, needed_bytes: u64, source: io::Error) -> Error {
    match source.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::NOSPC | Errno::DQUOT | Errno::NOMEM) => {
            let free_bytes = free_bytes(path).unwrap_or(0);
            Error::NoSpace {
                path: path.to_owned(),
                needed_bytes,
                free_bytes,
            }
        }
        _ => Error::Io {
            action: "allocate",
            path: path.to_owned(),
            source,
        },
    }
}

/// Bytes that an unprivileged user can still allocate on the file system of `path`, which need
/// not exist itself.
pub(crate) fn free_bytes(path: &Path) -> Result<u64, Error> {
    let folder = if path.exists() { path } else { parent(path) };
    let stat =
        rustix::fs::statvfs(folder).map_err(Error::io("look at the file system of", folder))?;
    let (kind, piece) = file_system(folder)?;
    if kind == HUGETLBFS_MAGIC && stat.f_blocks == 0 {
        // Mounted without a limit of its own: it then shows nothing but zeros.
        return Ok(free_huge_pages(piece).saturating_mul(piece));
    }
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// Huge pages of `piece` bytes that are neither used nor promised
/// (Documentation/admin-guide/mm/hugetlbpage.rst of Linux 6.18).
fn free_huge_pages(piece: u64) -> u64 {
    let number = |name: &str| -> u64 {
        let path = format!(
            "/sys/kernel/mm/hugepages/hugepages-{}kB/{name}",
            piece / 1024
        );
        fs::read_to_string(path)
            .ok()
            .and_then(|text| text.trim().parse().ok())
            .unwrap_or(0)
    };
    number("free_hugepages").saturating_sub(number("resv_hugepages"))
}

/// `f_type` and `f_bsize` of the file system that `folder` is on.
pub(crate) fn file_system(folder: &Path) -> Result<(u64, u64), Error> {
    let stat =
        rustix::fs::statfs(folder).map_err(Error::io("look at the file system of", folder))?;
    #[allow(
        clippy::unnecessary_cast,
        reason = "the types differ between architectures"
    )]
    let (kind, piece) = (stat.f_type as u64 & 0xffff_ffff, stat.f_bsize as u64);
    Ok((kind, piece))
}

/// All bytes of the file system of `path`, used or not.
pub(crate) fn total_bytes(path: &Path) -> Result<u64, Error> {
    let stat = rustix::fs::statvfs(path).map_err(Error::io("look at the file system of", path))?;
    Ok(stat.f_blocks.saturating_mul(stat.f_frsize))
}

/// The device number of the file system that `path` is on.
pub(crate) fn device(path: &Path) -> Result<u64, Error> {
    fs::metadata(path)
        .map(|metadata| metadata.dev())
        .map_err(Error::io("look at", path))
}

/// The folder that holds `path`.
pub(crate) fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

/// `path` with `suffix` behind its name.
pub(crate) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// Makes the names in a folder durable.
pub(crate) fn sync_dir(path: &Path) -> Result<(), Error> {
    File::open(path)
        .and_then(|folder| folder.sync_all())
        .map_err(Error::io("sync folder", path))
}

/// Makes the names durable of the folders above `path`, so many of them.
pub(crate) fn sync_up(path: &Path, folders: usize) -> Result<(), Error> {
    path.ancestors()
        .skip(1)
        .take(folders)
        .try_for_each(sync_dir)
}

/// Renames, and never over anything: [`io::ErrorKind::AlreadyExists`] if `to` is there.
pub(crate) fn rename_new(from: &Path, to: &Path) -> io::Result<()> {
    match rustix::fs::renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        // A file system that cannot promise it. The state's lock keeps our own kind away.
        Err(Errno::INVAL | Errno::NOSYS) => {
            if fs::symlink_metadata(to).is_ok() {
                return Err(io::ErrorKind::AlreadyExists.into());
            }
            fs::rename(from, to)
        }
        result => result.map_err(io::Error::from),
    }
}

/// Replaces the small file `path`: after a crash it holds the old bytes or all of the new ones.
pub(crate) fn write_atomic(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let temporary = with_suffix(path, ".tmp");
    write_synced(&temporary, bytes)?;
    fs::rename(&temporary, path).map_err(Error::io("replace", path))?;
    sync_dir(parent(path))
}

fn write_synced(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    remove_if_there(path)?;
    let mut file = create_new(path)?;
    let result = file.write_all(bytes).and_then(|()| file.sync_all());
    result.map_err(|error| {
        let _ = fs::remove_file(path);
        allocation_error(path, bytes.len() as u64, error)
    })
}

/// Removes a file; that there is none is no error.
pub(crate) fn remove_if_there(path: &Path) -> Result<(), Error> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::Io {
            action: "remove",
            path: path.to_owned(),
            source: error,
        }),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::SmallTmpfs;
    use std::os::unix::fs::{PermissionsExt, symlink};
    use tempfile::TempDir;

    #[test]
    fn allocated_file_has_its_blocks_and_is_private() {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("area");
        create_allocated(&path, 1 << 20).unwrap();
        let metadata = fs::metadata(&path).unwrap();
        assert_eq!(metadata.len(), 1 << 20);
        assert!(metadata.blocks() * 512 >= 1 << 20);
        assert_eq!(metadata.permissions().mode() & 0o7777, 0o600);
    }

    #[test]
    fn full_file_system_is_found_at_once_and_leaves_no_file() {
        let Some(tmpfs) = SmallTmpfs::mount("256k") else {
            return;
        };
        let path = tmpfs.path().join("area");
        let error = create_allocated(&path, 1 << 20).unwrap_err();
        let Error::NoSpace {
            needed_bytes,
            free_bytes,
            ..
        } = error
        else {
            panic!("{error}")
        };
        assert_eq!((needed_bytes, free_bytes), (1 << 20, 256 << 10));
        assert!(!path.exists());
    }

    #[test]
    fn zeros_are_written_where_fallocate_is_missing() {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("area");
        let file = create_new(&path).unwrap();
        extend_with_zeros(&file, (2 << 20) + 5).unwrap();
        assert_eq!(fs::read(&path).unwrap(), vec![0; (2 << 20) + 5]);
    }

    #[test]
    fn zeros_on_a_full_file_system_are_a_lack_of_space() {
        let Some(tmpfs) = SmallTmpfs::mount("256k") else {
            return;
        };
        let path = tmpfs.path().join("area");
        let file = create_new(&path).unwrap();
        let error = extend_with_zeros(&file, 1 << 20).unwrap_err();
        let error = allocation_error(&path, 1 << 20, error);
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
    }

    #[test]
    fn allocating_again_keeps_what_the_file_holds() {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("area");
        fs::write(&path, b"old").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        let file = open_private(&path).unwrap().unwrap();
        allocate(&file, &path, 4096).unwrap();
        assert_eq!(&fs::read(&path).unwrap()[..4], b"old\0");
    }

    #[test]
    fn symbolic_links_and_second_names_are_refused() {
        let folder = TempDir::new().unwrap();
        let (file, link, name) = (
            folder.path().join("file"),
            folder.path().join("link"),
            folder.path().join("name"),
        );
        create_new(&file).unwrap();
        symlink(&file, &link).unwrap();
        assert!(matches!(open_private(&link), Err(Error::WrongKind { .. })));
        fs::hard_link(&file, &name).unwrap();
        assert!(matches!(
            open_private(&name),
            Err(Error::ManyLinks { links: 2, .. })
        ));
    }

    #[test]
    fn files_that_others_may_write_or_own_are_refused() {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("file");
        create_new(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o620)).unwrap();
        assert!(matches!(
            open_private(&path),
            Err(Error::OthersMayWrite { mode: 0o620, .. })
        ));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        if std::os::unix::fs::chown(&path, Some(4711), None).is_err() {
            eprintln!("skipped: giving a file away needs root");
            return;
        }
        assert!(matches!(
            open_private(&path),
            Err(Error::NotOurs { owner: 4711, .. })
        ));
    }

    #[test]
    fn pipes_and_folders_are_refused_without_waiting() {
        let folder = TempDir::new().unwrap();
        let pipe = folder.path().join("pipe");
        rustix::fs::mknodat(CWD, &pipe, FileType::Fifo, 0o600.into(), 0).unwrap();
        assert!(matches!(open_private(&pipe), Err(Error::WrongKind { .. })));
        assert!(open_private(folder.path()).is_err());
    }

    #[test]
    fn renaming_never_replaces() {
        let folder = TempDir::new().unwrap();
        let (a, b) = (folder.path().join("a"), folder.path().join("b"));
        fs::write(&a, b"a").unwrap();
        fs::write(&b, b"b").unwrap();
        assert_eq!(
            rename_new(&a, &b).unwrap_err().kind(),
            io::ErrorKind::AlreadyExists
        );
        assert_eq!(fs::read(&b).unwrap(), b"b");
    }

    #[test]
    fn small_files_are_replaced_whole() {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("sequence");
        fs::write(with_suffix(&path, ".tmp"), b"left by a kill").unwrap();
        write_atomic(&path, b"1").unwrap();
        write_atomic(&path, b"2").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"2");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}

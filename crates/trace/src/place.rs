//! Where the bytes of a live region are, for those who read it and do not record.
//!
//! Nothing is reserved, locked or changed. A region in physical memory has no file: what is said of a
//! path elsewhere is said of its address.

use std::fmt;
use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::devdax::DevDax;
use crate::iomem::{self, IoMemory};
use crate::lock::{self, MemoryLock};
use crate::{Access, Backing, Error, InstanceEntry, Mapping};

/// Key of a live area's file or device in `instances.json`.
const PATH_KEY: &str = "path";
/// Key of its length in bytes, where there is no file that has one.
const BYTES_KEY: &str = "bytes";

/// Where a region lies.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RegionPlace {
    /// In a file.
    File(PathBuf),
    /// On a device-DAX node, from its beginning on.
    Device {
        /// The node.
        path: PathBuf,
        /// Bytes of the area.
        len_bytes: u64,
    },
    /// In physical memory, reached through `/dev/mem`.
    Physical {
        /// Physical address of the first byte.
        address: u64,
        /// Bytes of the area.
        len_bytes: u64,
    },
}

/// Written as in `--area`, but for a file, which is its path alone.
impl fmt::Display for RegionPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            Self::Device { path, .. } => Backing::DevDax(path.clone()).fmt(f),
            Self::Physical { address, .. } => Backing::DevMem { address: *address }.fmt(f),
        }
    }
}

impl RegionPlace {
    /// Where an instance's live region is; `None` if it has none, or the start that made it did not
    /// say so.
    #[must_use]
    pub fn of_instance(entry: &InstanceEntry) -> Option<Self> {
        let path = || Some(PathBuf::from(entry.other.get(PATH_KEY)?.as_str()?));
        let len_bytes = || entry.other.get(BYTES_KEY)?.as_u64();
        match entry.backing.as_deref().map(str::parse) {
            Some(Ok(Backing::DevMem { address })) => Some(Self::Physical {
                address,
                len_bytes: len_bytes()?,
            }),
            Some(Ok(Backing::DevDax(path))) => Some(Self::Device {
                path,
                len_bytes: len_bytes()?,
            }),
            _ => path().map(Self::File),
        }
    }

    /// Notes it for [`of_instance`](Self::of_instance), beside the backing.
    pub(crate) fn note(&self, entry: &mut InstanceEntry) {
        let (key, value) = match self {
            Self::File(path) => (PATH_KEY, path.to_string_lossy().into()),
            Self::Device { len_bytes, .. } | Self::Physical { len_bytes, .. } => {
                (BYTES_KEY, (*len_bytes).into())
            }
        };
        entry.other.insert(key.to_owned(), value);
    }

    /// For messages, which name a path.
    pub(crate) fn as_path(&self) -> PathBuf {
        let path = self.path().map(Path::to_owned);
        path.unwrap_or_else(|| self.to_string().into())
    }

    /// The file or device.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::File(path) | Self::Device { path, .. } => Some(path),
            Self::Physical { .. } => None,
        }
    }

    /// Bytes of it, 0 where that cannot be found out.
    #[must_use]
    pub fn len_bytes(&self) -> u64 {
        match self {
            Self::File(path) => std::fs::metadata(path).map_or(0, |metadata| metadata.len()),
            Self::Device { len_bytes, .. } | Self::Physical { len_bytes, .. } => *len_bytes,
        }
    }

    /// Whether a recorder writes it, also one of another state folder.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if that cannot be asked.
    pub fn is_in_use(&self) -> Result<bool, Error> {
        match self {
            Self::File(path) | Self::Device { path, .. } => lock::is_file_locked(path),
            Self::Physical { address, len_bytes } => MemoryLock::is_held(*address, *len_bytes),
        }
    }

    /// Maps it for reading.
    ///
    /// # Errors
    ///
    /// [`Error::WrongKind`] for a folder, an empty file or a node that is no device-DAX;
    /// [`Error::IoMemory`] and [`Error::DevMem`] for memory that is not set aside; else
    /// [`Error::Io`].
    pub fn map(&self) -> Result<Mapping, Error> {
        match self {
            Self::File(path) => map_file(path),
            Self::Device { path, len_bytes } => {
                let len_bytes = DevDax::of(path)?.mapped_bytes(path, *len_bytes)?;
                let file = File::open(path).map_err(Error::io("open", path))?;
                Mapping::of_device(&file, path, len_bytes, Access::ReadOnly)
            }
            Self::Physical { address, len_bytes } => {
                IoMemory::check_now(*address, *len_bytes)?;
                let file = iomem::open_dev_mem(*address, Access::ReadOnly)?;
                Mapping::of_physical(&file, *address, *len_bytes, Access::ReadOnly)
            }
        }
    }

    /// Device and inode: the next start puts another file in this place. `None` where it cannot.
    pub(crate) fn identity(&self) -> Result<Option<(u64, u64)>, Error> {
        let Self::File(path) = self else {
            return Ok(None);
        };
        let metadata = std::fs::metadata(path).map_err(Error::io("look at", path))?;
        Ok(Some((metadata.dev(), metadata.ino())))
    }
}

fn map_file(path: &Path) -> Result<Mapping, Error> {
    let file = File::open(path).map_err(Error::io("open", path))?;
    let metadata = file.metadata().map_err(Error::io("look at", path))?;
    let found = match (metadata.is_dir(), metadata.len()) {
        (true, _) => Some("a folder"),
        (false, 0) => Some("empty"),
        (false, _) => None,
    };
    if let Some(found) = found {
        return Err(Error::WrongKind {
            path: path.to_owned(),
            expected: "a file with a region",
            found: found.to_owned(),
        });
    }
    Mapping::of_file(&file, path, metadata.len(), Access::ReadOnly)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_written_as_areas_are_given() {
        let device = RegionPlace::Device {
            path: "/dev/dax0.0".into(),
            len_bytes: 1,
        };
        let memory = RegionPlace::Physical {
            address: 0x1000_0000,
            len_bytes: 1,
        };
        assert_eq!(
            [RegionPlace::File("/x/y".into()), device, memory].map(|place| place.to_string()),
            ["/x/y", "devdax:/dev/dax0.0", "mem:0x10000000"]
        );
    }

    /// A state folder is the user's, and what it says may be old: another boot's memory, say.
    #[test]
    fn memory_that_was_not_set_aside_is_not_read() {
        let memory = RegionPlace::Physical {
            address: 0x10_0000,
            len_bytes: 4096,
        };
        assert!(matches!(memory.map(), Err(Error::IoMemory { .. })));
    }
}

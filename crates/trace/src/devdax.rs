//! Device-DAX nodes: persistent or set-aside memory as a character device.
//!
//! What sysfs says about `/dev/daxR.N` is under `/sys/dev/char/MAJOR:MINOR/`: `size` and `align`
//! in bytes (Documentation/ABI/testing/sysfs-bus-dax of Linux 6.18), and `subsystem`, a link to
//! the `dax` bus.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use crate::Error;
use crate::durable::kind_name;

/// What a mapping of a device-DAX node has to fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DevDax {
    /// Bytes of the device.
    pub(crate) size_bytes: u64,
    /// Mappings have to be a multiple of it; a power of two.
    pub(crate) align_bytes: u64,
}

impl DevDax {
    /// Looks up the device at `path`.
    pub(crate) fn of(path: &Path) -> Result<Self, Error> {
        let metadata = fs::metadata(path).map_err(Error::io("look at", path))?;
        if !metadata.file_type().is_char_device() {
            return Err(wrong_kind(path, kind_name(path)));
        }
        let (major, minor) = (
            rustix::fs::major(metadata.rdev()),
            rustix::fs::minor(metadata.rdev()),
        );
        let folder = format!("/sys/dev/char/{major}:{minor}");
        Self::from_sysfs(path, Path::new(&folder))
    }

    fn from_sysfs(path: &Path, folder: &Path) -> Result<Self, Error> {
        let subsystem = fs::read_link(folder.join("subsystem")).unwrap_or_default();
        if subsystem.file_name().is_none_or(|name| name != "dax") {
            return Err(wrong_kind(
                path,
                "a character device of another kind".to_owned(),
            ));
        }
        let size_bytes = read_number(&folder.join("size"))?;
        let align_bytes = read_number(&folder.join("align"))?;
        if !align_bytes.is_power_of_two() || size_bytes == 0 {
            let found = format!("a device of {size_bytes} bytes, aligned to {align_bytes}");
            return Err(wrong_kind(path, found));
        }
        Ok(Self {
            size_bytes,
            align_bytes,
        })
    }

    /// The length of a mapping that holds `wanted_bytes`.
    pub(crate) fn mapped_bytes(self, path: &Path, wanted_bytes: u64) -> Result<u64, Error> {
        let found_bytes = self.size_bytes;
        match wanted_bytes.checked_next_multiple_of(self.align_bytes) {
            Some(len_bytes) if len_bytes <= found_bytes => Ok(len_bytes),
            _ => Err(Error::TooShort {
                path: path.to_owned(),
                needed_bytes: wanted_bytes,
                found_bytes,
            }),
        }
    }
}

fn wrong_kind(path: &Path, found: String) -> Error {
    Error::WrongKind {
        path: path.to_owned(),
        expected: "a device-DAX node",
        found,
    }
}

fn read_number(path: &Path) -> Result<u64, Error> {
    let text = fs::read_to_string(path).map_err(Error::io("read", path))?;
    parse_number(&text).ok_or_else(|| Error::DamagedState {
        path: path.to_owned(),
        why: format!("{:?} is no number of bytes", text.trim()),
        help: "see ndctl(1) and daxctl(1)",
    })
}

/// A number as sysfs writes it: decimal, or hexadecimal with `0x`, and a line feed.
fn parse_number(text: &str) -> Option<u64> {
    let text = text.trim();
    match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn sysfs(subsystem: &str, size: &str, align: &str) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        symlink(
            format!("../../../bus/{subsystem}"),
            folder.path().join("subsystem"),
        )
        .unwrap();
        fs::write(folder.path().join("size"), size).unwrap();
        fs::write(folder.path().join("align"), align).unwrap();
        folder
    }

    const NODE: &str = "/dev/dax0.0";

    fn lookup(subsystem: &str, size: &str, align: &str) -> Result<DevDax, Error> {
        DevDax::from_sysfs(Path::new(NODE), sysfs(subsystem, size, align).path())
    }

    #[test]
    fn size_and_alignment_come_from_sysfs() {
        let dax = lookup("dax", "1073741824\n", "2097152\n").unwrap();
        assert_eq!(
            dax,
            DevDax {
                size_bytes: 1 << 30,
                align_bytes: 2 << 20
            }
        );
        assert_eq!(
            lookup("dax", "0x200000\n", "0x1000\n").unwrap().align_bytes,
            4096
        );
    }

    #[test]
    fn mapping_is_rounded_to_the_alignment_and_stays_inside() {
        let dax = lookup("dax", "16777216\n", "2097152\n").unwrap();
        let path = Path::new(NODE);
        assert_eq!(dax.mapped_bytes(path, (12 << 20) + 1).unwrap(), 14 << 20);
        assert_eq!(dax.mapped_bytes(path, 16 << 20).unwrap(), 16 << 20);
        assert!(matches!(
            dax.mapped_bytes(path, 17 << 20),
            Err(Error::TooShort { .. })
        ));
        assert!(matches!(
            dax.mapped_bytes(path, u64::MAX),
            Err(Error::TooShort { .. })
        ));
    }

    #[test]
    fn other_devices_and_damaged_answers_are_refused() {
        assert!(matches!(
            lookup("mem", "4096\n", "4096\n"),
            Err(Error::WrongKind { .. })
        ));
        assert!(matches!(
            lookup("dax", "0\n", "4096\n"),
            Err(Error::WrongKind { .. })
        ));
        assert!(matches!(
            lookup("dax", "4096\n", "3\n"),
            Err(Error::WrongKind { .. })
        ));
        assert!(matches!(
            lookup("dax", "many\n", "4096\n"),
            Err(Error::DamagedState { .. })
        ));
    }

    #[test]
    fn nodes_that_are_no_device_dax_are_refused() {
        assert!(matches!(
            DevDax::of(Path::new("/dev/null")),
            Err(Error::WrongKind { .. })
        ));
        assert!(matches!(
            DevDax::of(Path::new("/proc/iomem")),
            Err(Error::WrongKind { .. })
        ));
        assert!(matches!(
            DevDax::of(Path::new("/dev/no-such")),
            Err(Error::Io { .. })
        ));
    }
}

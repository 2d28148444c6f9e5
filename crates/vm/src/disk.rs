//! A disk that outlives the boots of a machine.

use std::path::Path;
use std::process::Command;

use tempfile::NamedTempFile;

use crate::Error;
use crate::initramfs::output;

/// A new ext4 in a file, which a guest has as a disk or, by its bytes, as persistent memory.
#[derive(Debug)]
pub struct Disk(NamedTempFile);

impl Disk {
    /// A file system of so many MiB.
    ///
    /// # Errors
    /// No space, or `mkfs.ext4` fails.
    pub fn new(mib: u64) -> Result<Self, Error> {
        let folder = std::env::temp_dir();
        let image =
            NamedTempFile::new_in(&folder).map_err(Error::io("cannot make a file in", folder))?;
        let resized = image.as_file().set_len(mib << 20);
        resized.map_err(Error::io("cannot make", image.path()))?;
        // DAX needs blocks as large as a page.
        let mut command = Command::new("mkfs.ext4");
        output(command.args(["-q", "-F", "-b", "4096"]).arg(image.path()))?;
        Ok(Self(image))
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// Arguments that give QEMU the disk, which is `/dev/vda` where the module `virtio_blk` is loaded.
    #[must_use]
    pub fn drive(&self) -> [String; 2] {
        let path = self.path().display();
        let drive = format!("file={path},format=raw,if=virtio,cache=writethrough");
        ["-drive".to_owned(), drive]
    }
}

//! Where the facts are read from: files of `/proc`, `/sys`, `/boot`. Nothing is opened for writing.

use std::io::Read;
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

/// A file that is larger is none that is asked for here.
const FILE_BYTES_MAX: u64 = 16 << 20;
/// Longest record of the kernel's log (`Documentation/ABI/testing/dev-kmsg`, Linux 6.18).
const KMSG_RECORD_BYTES_MAX: usize = 8192;
/// More records than any kernel's log has.
const KMSG_RECORDS_MAX: usize = 1 << 20;

/// The machine's file tree; a copy of one in tests.
#[derive(Clone, Debug)]
pub(crate) struct System {
    root: PathBuf,
}

impl System {
    /// The tree below `root`: `/` for the machine itself.
    pub(crate) fn at(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
        }
    }

    /// Where `path`, which begins with `/`, is.
    pub(crate) fn path(&self, path: impl AsRef<Path>) -> PathBuf {
        let path = path.as_ref();
        self.root.join(path.strip_prefix("/").unwrap_or(path))
    }

    pub(crate) fn exists(&self, path: &str) -> bool {
        self.path(path).exists()
    }

    /// The bytes of a file; `None` if it is not there or not to be read.
    pub(crate) fn bytes(&self, path: impl AsRef<Path>) -> Option<Vec<u8>> {
        let mut bytes = Vec::new();
        let file = std::fs::File::open(self.path(path)).ok()?;
        file.take(FILE_BYTES_MAX).read_to_end(&mut bytes).ok()?;
        Some(bytes)
    }

    /// The text of a file without the white space around it.
    pub(crate) fn text(&self, path: impl AsRef<Path>) -> Option<String> {
        let bytes = self.bytes(path)?;
        Some(String::from_utf8_lossy(&bytes).trim().to_owned())
    }

    /// A file that holds one number.
    pub(crate) fn number(&self, path: &str) -> Option<i64> {
        self.text(path)?.parse().ok()
    }

    /// The messages of the kernel's log that it still has; none without permission. Reading
    /// `/dev/kmsg` takes nothing away from other readers.
    pub(crate) fn kernel_log(&self) -> Vec<String> {
        use std::os::unix::fs::OpenOptionsExt;
        let file = std::fs::OpenOptions::new()
            .read(true)
            .custom_flags(OFlags::NONBLOCK.bits().cast_signed())
            .open(self.path("/dev/kmsg"));
        let Ok(mut file) = file else {
            return Vec::new();
        };
        let mut record = vec![0; KMSG_RECORD_BYTES_MAX];
        let mut messages = Vec::new();
        while messages.len() < KMSG_RECORDS_MAX {
            match file.read(&mut record) {
                Ok(0) => break,
                Ok(len) => messages.push(message_of(&record[..len])),
                // Overwritten while we read: the next read goes on behind.
                Err(error)
                    if error.raw_os_error() == Some(rustix::io::Errno::PIPE.raw_os_error()) => {}
                Err(_) => break,
            }
        }
        messages
    }
}

/// What stands behind the `;` of a record.
fn message_of(record: &[u8]) -> String {
    let text = String::from_utf8_lossy(record);
    let message = text.split_once(';').map_or(&*text, |(_, message)| message);
    message.lines().next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn message_of_a_log_record_is_its_first_line_behind_the_prefix() {
        let record = b"6,339,5140900,-;NET: Registered PF_INET\n SUBSYSTEM=net\n";
        assert_eq!(message_of(record), "NET: Registered PF_INET");
    }

    #[test]
    fn files_that_are_not_there_are_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let system = System::at(folder.path());
        std::fs::write(folder.path().join("n"), "12\n").unwrap();
        assert_eq!(system.number("/n"), Some(12));
        assert_eq!((system.text("/x"), system.exists("/x")), (None, false));
        assert!(system.kernel_log().is_empty());
    }
}

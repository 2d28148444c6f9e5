//! The kernel's own words about an instance, saved before anything is consumed.

use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;

use outlive_trace::harvest::About;

use super::BootInstance;
use crate::error::Error;

/// Bytes of text for each event, and beside them: more is the text of a damaged ring, which on 7.3.4 may
/// never end.
const TEXT_BYTES_PER_EVENT: u64 = 1024;
const TEXT_BYTES_MIN: u64 = 16 << 20;

/// Saves what can be read without consuming.
pub(super) fn save(instance: &BootInstance, about: &About, to: &Path) -> Result<(), Error> {
    let files = instance.files();
    for name in ["last_boot_info", "trace_clock"] {
        copy(&files.folder().join(name), &to.join(name), TEXT_BYTES_MIN)?;
    }
    for cpu in files.cpus()? {
        let copy_file = |name: &str| {
            let to = to.join(format!("cpu{cpu}.{name}"));
            copy(&files.cpu_file(cpu, name), &to, TEXT_BYTES_MIN)
        };
        copy_file("stats")?;
        match copy_file("buffer_meta") {
            // A CPU that never came up has none (7.3).
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::NODEV.raw_os_error()) => {
            }
            result => result?,
        }
    }
    let most = TEXT_BYTES_MIN + about.entries.saturating_mul(TEXT_BYTES_PER_EVENT);
    copy(&files.folder().join("trace"), &to.join("trace"), most)
}

/// Copies a file of tracefs by plain reads: it has no length, and splicing from it is another thing.
fn copy(from: &Path, to: &Path, most: u64) -> Result<(), Error> {
    let source = File::open(from).map_err(|e| Error::io("open", from, e))?;
    let mut source = source.take(most);
    let mut target = File::create_new(to).map_err(|e| Error::io("create", to, e))?;
    let mut chunk = vec![0; 64 << 10];
    loop {
        let len = source
            .read(&mut chunk)
            .map_err(|e| Error::io("read", from, e))?;
        if len == 0 {
            return Ok(());
        }
        target
            .write_all(&chunk[..len])
            .map_err(|e| Error::io("write", to, e))?;
    }
}

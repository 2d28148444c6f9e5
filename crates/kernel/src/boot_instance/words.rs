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
/// The text of all events.
pub(super) const TRACE: &str = "trace";

/// Saves what can be read without consuming.
pub(super) fn save(instance: &BootInstance, to: &Path, about: &mut About) -> Result<(), Error> {
    let files = instance.files();
    let mut cut = Vec::new();
    let mut save = |from: &Path, name: &str, most: u64| {
        if !copy(from, &to.join(name), most)? {
            cut.push(name.to_owned());
        }
        Ok::<_, Error>(())
    };
    for name in ["last_boot_info", "trace_clock"] {
        save(&files.folder().join(name), name, TEXT_BYTES_MIN)?;
    }
    for cpu in files.cpus()? {
        let mut save_file = |name: &str| {
            let to = format!("cpu{cpu}.{name}");
            save(&files.cpu_file(cpu, name), &to, TEXT_BYTES_MIN)
        };
        save_file("stats")?;
        match save_file("buffer_meta") {
            // A CPU that never came up has none (7.3).
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::NODEV.raw_os_error()) => {
            }
            result => result?,
        }
    }
    let of_events = about.entries.saturating_mul(TEXT_BYTES_PER_EVENT);
    let most = of_events.saturating_add(TEXT_BYTES_MIN);
    save(&files.folder().join(TRACE), TRACE, most)?;
    about.cut = cut;
    Ok(())
}

/// Copies a file of tracefs by plain reads, since it has no length, and splicing from it is another thing.
/// `false` if it has more than `most` bytes, which are copied.
fn copy(from: &Path, to: &Path, most: u64) -> Result<bool, Error> {
    let source = File::open(from).map_err(|e| Error::io("open", from, e))?;
    let mut source = source.take(most);
    let mut target = File::create_new(to).map_err(|e| Error::io("create", to, e))?;
    let mut chunk = vec![0; 64 << 10];
    loop {
        let len = source
            .read(&mut chunk)
            .map_err(|e| Error::io("read", from, e))?;
        if len == 0 {
            break;
        }
        target
            .write_all(&chunk[..len])
            .map_err(|e| Error::io("write", to, e))?;
    }
    let is_whole = source.limit() > 0 || is_at_end(source.get_mut(), from)?;
    Ok(is_whole)
}

fn is_at_end(source: &mut File, from: &Path) -> Result<bool, Error> {
    let read = source.read(&mut [0]);
    Ok(read.map_err(|e| Error::io("read", from, e))? == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_that_is_longer_than_its_limit_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let [from, to] = ["from", "to"].map(|name| folder.path().join(name));
        std::fs::write(&from, "0123456789").unwrap();
        for (most, is_whole) in [(9, false), (10, true), (11, true)] {
            assert_eq!(copy(&from, &to, most).unwrap(), is_whole, "{most}");
            let copied = std::fs::read(&to).unwrap();
            assert_eq!(copied.len() as u64, most.min(10));
            std::fs::remove_file(&to).unwrap();
        }
    }
}

//! Spare area files: what the next start will record into, made while this run records.
//!
//! To allocate 256 MiB of a tmpfs takes a tenth of a second, since the kernel has to find and clear
//! each page; on a disk, where blocks are promised and not written, a millisecond. So only an area on a
//! tmpfs has a spare, `AREA.outlive-spare`, as large as it is. It is blank and has all its blocks when
//! it gets this name. A start of another size removes it.

use std::fs;
use std::path::Path;

use crate::{Error, StateLock, durable, failpoint, generation, name};

/// Makes the spare file of the area `live`, if there is none, and the file system has room for as much
/// again when it is made: a spare is no reason for others to have none.
///
/// # Errors
///
/// [`Error::NoSpace`] and [`Error::Io`]; nothing is left behind then.
pub(crate) fn make(lock: &StateLock, live: &Path, len_bytes: u64) -> Result<(), Error> {
    let spare = durable::with_suffix(live, name::SPARE);
    if fs::symlink_metadata(&spare).is_ok() {
        return Ok(());
    }
    durable::check_free(live, len_bytes.saturating_mul(2))?;
    let prepared = generation::prepare(lock, live, len_bytes)?;
    failpoint::reached("spare-allocated");
    durable::rename_new(&prepared, &spare).map_err(Error::io("rename", &prepared))?;
    failpoint::reached("spare-named");
    Ok(())
}

/// Gives the spare of the area `live` the name `to`, if there is one of this length. Another one is
/// removed.
pub(crate) fn take(live: &Path, len_bytes: u64, to: &Path) -> Result<bool, Error> {
    let spare = durable::with_suffix(live, name::SPARE);
    let Some(file) = durable::open_private(&spare)? else {
        return Ok(false);
    };
    let found = file.metadata().map_err(Error::io("look at", &spare))?;
    if found.len() != len_bytes || !durable::is_allocated(&found) {
        durable::remove_if_there(&spare)?;
        return Ok(false);
    }
    durable::rename_new(&spare, to).map_err(Error::io("rename", &spare))?;
    Ok(true)
}

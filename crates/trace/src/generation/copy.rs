//! Backup of memory by copying it.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;

use outlive_ring::Memory;

use super::unnamed::Unnamed;
use super::{Generation, Meta, list_instance};
use crate::{Error, Mapping, StateDir, StateLock, durable, failpoint};

/// The steps of [`keep_by_copy`], in order, for [`failpoint`].
pub const COPY_STEPS: [&str; 6] = [
    "copy-folder",
    "copy-created",
    "copy-half",
    "copy-synced",
    "copy-region",
    "copy-named",
];

/// Bytes copied or compared at a time.
const CHUNK_BYTES: usize = 1 << 20;

/// Memory to be kept by copying.
#[derive(Clone, Copy, Debug)]
pub enum CopySource<'a> {
    /// All of a file.
    File(&'a Path),
    /// All of a mapping: what cannot be read as a file (physical memory, device-DAX).
    Memory(&'a Mapping),
}

impl<'a> CopySource<'a> {
    fn len_bytes(&self) -> Result<u64, Error> {
        match self {
            Self::File(path) => fs::metadata(path)
                .map(|metadata| metadata.len())
                .map_err(Error::io("look at", path)),
            Self::Memory(mapping) => Ok(mapping.len() as u64),
        }
    }

    fn open(&self) -> Result<Box<dyn Read + 'a>, Error> {
        match *self {
            Self::File(path) => Ok(Box::new(File::open(path).map_err(Error::io("open", path))?)),
            Self::Memory(mapping) => Ok(Box::new(MappingReader { mapping, at: 0 })),
        }
    }
}

/// Reads a mapping from its beginning to its end.
struct MappingReader<'a> {
    mapping: &'a Mapping,
    at: usize,
}

impl Read for MappingReader<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let len = out.len().min(self.mapping.len() - self.at);
        Memory::read(self.mapping, self.at, &mut out[..len]);
        self.at += len;
        Ok(len)
    }
}

/// Keeps memory as a generation by copying it. When this has returned, the copy is durable and
/// the original may be cleared.
///
/// If a generation of the instance has the same region of the same run, or the newest holds the very
/// same bytes, the start that copied them was killed before it had cleared the original: nothing is
/// copied, and that generation returned. A copy is made only after its run has ended, so it has all
/// of it; the original may have been cleared in part. A generation of the run that has another of
/// its regions, or only what the host's ring held, is no copy.
///
/// # Errors
///
/// [`Error::NoSpace`], [`Error::GenerationExists`], [`Error::BadName`], [`Error::Io`]. Then the
/// original is as it was, and of the copy nothing is left that [`tidy`](crate::tidy) would not remove.
pub fn keep_by_copy(
    state: &StateDir,
    _lock: &StateLock,
    source: CopySource<'_>,
    meta: &Meta,
) -> Result<Generation, Error> {
    if let Some(kept) = already_kept(state, source, meta)? {
        return Ok(kept);
    }
    let folder = Unnamed::make(state, meta)?;
    failpoint::reached("copy-folder");
    if let Err(error) = copy_region(source, &folder.region()) {
        folder.discard();
        return Err(error);
    }
    failpoint::reached("copy-region");
    folder.name()?;
    failpoint::reached("copy-named");
    Ok(folder.into_generation(meta))
}

fn already_kept(
    state: &StateDir,
    source: CopySource<'_>,
    meta: &Meta,
) -> Result<Option<Generation>, Error> {
    let mut generations = list_instance(state, &meta.instance)?;
    let region_of = |meta: &Meta| Some((meta.run_id.clone()?, meta.recorded_as.clone()?));
    let region = region_of(meta);
    let is_copy = |kept: &Generation| {
        region.is_some()
            && kept.meta().and_then(region_of) == region
            && kept.region_path().is_file()
    };
    if let Some(i) = generations.iter().position(is_copy) {
        return Ok(Some(generations.swap_remove(i)));
    }
    match generations.pop() {
        Some(newest) if holds_same_bytes(&newest, source)? => Ok(Some(newest)),
        _ => Ok(None),
    }
}

/// Whether the region of a generation has the very bytes of `source`.
pub(super) fn holds_same_bytes(
    generation: &Generation,
    source: CopySource<'_>,
) -> Result<bool, Error> {
    let path = generation.region_path();
    let Ok(file) = File::open(&path) else {
        return Ok(false);
    };
    if file.metadata().map_err(Error::io("look at", &path))?.len() != source.len_bytes()? {
        return Ok(false);
    }
    is_same(file, source.open()?).map_err(Error::io("compare", &path))
}

/// Whether both give the same bytes until the first of them ends.
fn is_same(a: impl Read, b: impl Read) -> io::Result<bool> {
    let (mut a, mut b) = (a.take(u64::MAX), b.take(u64::MAX));
    let (mut bytes_a, mut bytes_b) = (Vec::new(), Vec::new());
    loop {
        bytes_a.clear();
        bytes_b.clear();
        a.by_ref()
            .take(CHUNK_BYTES as u64)
            .read_to_end(&mut bytes_a)?;
        b.by_ref()
            .take(CHUNK_BYTES as u64)
            .read_to_end(&mut bytes_b)?;
        if bytes_a != bytes_b {
            return Ok(false);
        }
        if bytes_a.is_empty() {
            return Ok(true);
        }
    }
}

/// Copies to `region.part`, and to its name when it is all there.
fn copy_region(source: CopySource<'_>, region: &Path) -> Result<(), Error> {
    let part = durable::with_suffix(region, ".part");
    let len_bytes = source.len_bytes()?;
    let mut file = durable::create_new(&part)?;
    // Its blocks are not allocated before: on a tmpfs that takes as long as writing them.
    durable::check_room(&file, &part, len_bytes)?;
    failpoint::reached("copy-created");
    let copied = match source {
        CopySource::File(path) => {
            let mut from = File::open(path).map_err(Error::io("open", path))?;
            copy_file(&mut from, &mut file, len_bytes)
        }
        CopySource::Memory(mapping) => copy_memory(mapping, &file),
    };
    let copied = copied.map_err(|error| durable::allocation_error(&part, len_bytes, error))?;
    if copied != len_bytes {
        return Err(Error::TooShort {
            path: part,
            needed_bytes: len_bytes,
            found_bytes: copied,
        });
    }
    file.sync_all().map_err(Error::io("sync", &part))?;
    failpoint::reached("copy-synced");
    durable::rename_new(&part, region).map_err(Error::io("rename", &part))
}

/// Copies at most `len_bytes`; returns how many there were.
fn copy_file(from: &mut File, to: &mut File, len_bytes: u64) -> io::Result<u64> {
    let half = io::copy(&mut from.take(len_bytes / 2), to)?;
    failpoint::reached("copy-half");
    Ok(half + io::copy(&mut from.take(len_bytes - half), to)?)
}

/// Copies all of a mapping. The kernel takes the bytes from where they are.
fn copy_memory(from: &Mapping, to: &File) -> io::Result<u64> {
    let mut copied = 0;
    while copied < from.len() {
        let end = from.len().min(copied + CHUNK_BYTES);
        match from.write_to(to, copied..end) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(len) => copied += len,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        if copied >= from.len() / 2 {
            failpoint::reached("copy-half");
        }
    }
    Ok(copied as u64)
}

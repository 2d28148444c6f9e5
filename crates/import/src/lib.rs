//! What others recorded, made a generation like any other: a `trace.dat` of trace-cmd, a folder of
//! raw sub-buffers of a kernel, an image of a machine's memory.
//!
//! [`open()`] tells what a path is. Of a [`Recording`] the sub-buffers are laid out as a region with a
//! catalog; a region that is [found](memory) in an image is taken as it is. All bytes are
//! untrusted: no length is believed, and what cannot be read is said.

#![forbid(unsafe_code)]

mod bytes;
mod elf;
mod error;
mod folder;
mod kdump;
mod keep;
pub mod memory;
mod pages;
mod recording;
mod trace_dat;

use std::fs::File;
use std::path::Path;

pub use self::bytes::Bytes;
pub use self::elf::load_segments;
pub use self::error::Error;
pub use self::keep::{Imported, keep_buffer, keep_region};
pub use self::memory::{Found, FoundRegion, Segment};
pub use self::recording::{Buffer, Compression, CpuPages, Recording};

type Result<T, E = Error> = std::result::Result<T, E>;

/// What can be imported.
#[derive(Debug)]
pub enum Source {
    /// Sub-buffers of a kernel, and what is needed to decode them.
    Recording(Box<Recording>),
    /// An image of memory, and what was found in it.
    Memory(File, Found),
}

/// Looks what a path is: a folder of raw sub-buffers, a `trace.dat`, an ELF core, or else an image
/// of memory.
///
/// # Errors
///
/// When it cannot be read, or nothing that can be imported is in it.
pub fn open(path: &Path) -> Result<Source> {
    if path.is_dir() {
        let recording = folder::open(path)?;
        return Ok(Source::Recording(Box::new(recording)));
    }
    let file = File::open(path).map_err(Error::io("open", path))?;
    if trace_dat::is_one(&file) {
        let recording = Recording::from_trace_dat(&file)?.of_file(file);
        return Ok(Source::Recording(Box::new(recording)));
    }
    kdump::refuse(&file)?;
    let segments = if elf::is_one(&file) {
        load_segments(&file)?
    } else {
        let segment = Segment {
            offset: 0,
            len: Bytes::len(&file),
            missing: 0,
            address: 0,
        };
        vec![segment]
    };
    let found = memory::find(&file, &segments)?;
    Ok(Source::Memory(file, found))
}

//! Sub-buffers of a kernel's instances, and what is needed to decode them.

use std::fs::File;
use std::path::PathBuf;

use outlive_event::Catalog;

use crate::{Bytes, Result, pages};

/// Where the sub-buffers of one CPU are.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum CpuPages {
    /// One behind the other.
    Plain {
        /// Where they begin in the file.
        offset: u64,
        /// Their bytes.
        len: u64,
    },
    /// In chunks that are compressed.
    Chunks {
        /// Where the number of chunks is.
        offset: u64,
        /// How they are compressed.
        compression: Compression,
    },
    /// In a file of their own.
    File(PathBuf),
}

/// How chunks and sections are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Compression {
    /// zstd (RFC 8878).
    Zstd,
    /// zlib (RFC 1950).
    Zlib,
}

/// The sub-buffers of one instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Buffer {
    /// The instance; empty for the top one.
    pub name: String,
    /// The trace clock.
    pub clock: String,
    /// Bytes of a sub-buffer: 4096 << 0 to 7.
    pub page_size: usize,
    /// By CPU.
    pub cpus: Vec<(u32, CpuPages)>,
}

/// What somebody recorded.
#[derive(Debug, Default)]
pub struct Recording {
    /// Formats, names, symbols.
    pub catalog: Catalog,
    /// The machine's name.
    pub host: String,
    /// The kernel: release and machine.
    pub kernel: (String, String),
    /// The program that wrote the file, if it says so.
    pub program: String,
    /// The instances that have sub-buffers.
    pub buffers: Vec<Buffer>,
    /// The file with the sub-buffers; none if each CPU has its own.
    pub(crate) file: Option<File>,
    /// What was not understood.
    pub notes: Vec<String>,
}

impl CpuPages {
    /// Calls `each` with every sub-buffer; the last may be cut. `file` is the one that they are in.
    ///
    /// # Errors
    ///
    /// When some cannot be read: those before were handed out.
    pub fn for_each(
        &self,
        file: &dyn Bytes,
        page_size: usize,
        each: &mut dyn FnMut(&[u8]),
    ) -> Result<()> {
        pages::for_each(file, page_size, self, each)
    }
}

impl Recording {
    pub(crate) fn of_file(mut self, file: File) -> Self {
        self.file = Some(file);
        self
    }

    /// Takes in a `format` file; one that is not understood is noted.
    pub(crate) fn add_format(&mut self, system: &str, text: &str) {
        if let Err(error) = self.catalog.add_format(system, text) {
            self.notes.push(error.to_string());
        }
    }

    /// Takes in what `uname` says: system, host, release, machine.
    pub(crate) fn set_uname(&mut self, uname: &str) {
        let mut words = uname.split_whitespace().skip(1);
        let mut next = || words.next().unwrap_or_default().to_owned();
        self.host = next();
        self.kernel = (next(), next());
    }
}

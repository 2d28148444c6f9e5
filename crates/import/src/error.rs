//! What can go wrong with an import.

use std::io;
use std::path::{Path, PathBuf};

/// An error of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file cannot be read.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Bytes are not what they have to be there.
    #[error("{what} at {at:#x} is not as it has to be: the file is damaged or cut off")]
    Malformed {
        /// What was expected.
        what: &'static str,
        /// Where in the file, or in the section that was uncompressed.
        at: u64,
    },
    /// The file is sound, and of a kind that is not read.
    #[error("{0} is not supported")]
    Unsupported(String),
    /// There is nothing to import.
    #[error("{}: {why}", path.display())]
    Nothing {
        /// Where.
        path: PathBuf,
        /// What was looked for.
        why: String,
    },
    /// No region begins at any page of an image.
    #[error(
        "no region was found at any of {pages} pages of {segments} stretches of memory{}",
        notes.iter().map(|note| format!("\n{note}")).collect::<String>()
    )]
    NoRegion {
        /// Pages of 4 KiB that were looked at.
        pages: u64,
        /// Stretches of memory: one, or the ELF core's.
        segments: usize,
        /// What is missing, or begins as a region and is none.
        notes: Vec<String>,
    },
    /// The catalog of a folder cannot be read.
    #[error(transparent)]
    Catalog(#[from] outlive_event::CatalogError),
    /// The generation cannot be made.
    #[error(transparent)]
    Trace(#[from] outlive_trace::Error),
}

impl Error {
    /// For `map_err`: what was tried with which file.
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io {
            action,
            path: path.to_owned(),
            source,
        }
    }
}

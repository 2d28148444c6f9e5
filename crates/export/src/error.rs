//! What can go wrong with an export.

use std::io;
use std::path::{Path, PathBuf};

/// An error of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The output cannot be written. Nothing is left under its name.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The output.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// There is something else where the output's folder is to be.
    #[error("{} is there already; remove it, or choose another name", .0.display())]
    IsThere(PathBuf),
    /// Parts of the format say where others are, so that it is not written in one go.
    #[error("{} is no file, and this format cannot be written into a pipe; give a file", .0.display())]
    NeedsFile(PathBuf),
    /// Standard output is no folder.
    #[error("{0} is a folder with several files, which standard output cannot be; give -o a name")]
    NoFolder(&'static str),
    /// A value cannot be written in this format.
    #[error("cannot write an event as JSON: {0}")]
    Json(#[from] serde_json::Error),
}

impl Error {
    /// For `map_err`: what was tried with which file.
    pub fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io {
            action,
            path: path.to_owned(),
            source,
        }
    }
}

//! What can go wrong.

use std::io;
use std::path::{Path, PathBuf};

/// A machine that could not be made or did not come back.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file or program.
    #[error("{what} {}: {source}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// With what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A program failed.
    #[error("{command} failed: {told}")]
    Command {
        /// The program with its first arguments.
        command: String,
        /// What it wrote on its standard error.
        told: String,
    },
    /// No pinned kernel begins with this version.
    #[error("no pinned kernel {version}; there are {pinned}")]
    NotPinned {
        /// As asked for.
        version: String,
        /// Those that are.
        pinned: String,
    },
    /// Nothing says where Debian's packages come from.
    #[error(
        "no mirror of Debian is named in /etc/apt/sources.list or a file of /etc/apt/sources.list.d: \
         add one, whose address ends with /debian"
    )]
    NoMirror,
    /// Debian no longer offers a pinned package.
    #[error(
        "Debian no longer offers {package}; it has kernels {offered}: pin one of these in kernel.rs"
    )]
    NotOffered {
        /// The package's name.
        package: String,
        /// The versions that are offered.
        offered: String,
    },
    /// A package is not the one that was pinned.
    #[error("{package}: SHA-256 is {found}, not {pinned} as pinned: not used")]
    WrongHash {
        /// The package's name.
        package: String,
        /// Its hash.
        found: String,
        /// The hash in the list.
        pinned: String,
    },
    /// The kernel has no such module.
    #[error("Linux {kernel} has no module {module}")]
    NoModule {
        /// The kernel's version.
        kernel: String,
        /// The module's name.
        module: String,
    },
    /// An address outside of the machine's memory.
    #[error("{len} bytes at {address:#x} are outside of the machine's {memory} bytes of memory")]
    NoSuchMemory {
        /// Physical address.
        address: u64,
        /// Bytes.
        len: usize,
        /// Bytes of memory.
        memory: u64,
    },
    /// The guest neither powered off nor reset in time.
    #[error("the guest did not come back in {seconds} s; its console ends with\n{console}")]
    Hangs {
        /// How long it was waited for.
        seconds: u64,
        /// The console's last lines.
        console: String,
    },
    /// QEMU ended before the guest did.
    #[error("QEMU ended: {told}\nthe console ends with\n{console}")]
    Qemu {
        /// What QEMU wrote on its standard error.
        told: String,
        /// The console's last lines.
        console: String,
    },
    /// The guest did not say what it was to say.
    #[error("the guest did not say {text:?}; it said\n{said}")]
    NotSaid {
        /// The text.
        text: String,
        /// All that it said where that was looked for.
        said: String,
    },
    /// The guest did not leave a result.
    #[error("the guest left no {name}; it left {there}; its console ends with\n{console}")]
    NoResult {
        /// The result's name under `/out`.
        name: String,
        /// What there is.
        there: String,
        /// The console's last lines.
        console: String,
    },
}

impl Error {
    pub(crate) fn io(what: &'static str, path: impl AsRef<Path>) -> impl FnOnce(io::Error) -> Self {
        let path = path.as_ref().to_owned();
        move |source| Self::Io { what, path, source }
    }
}

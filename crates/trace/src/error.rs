//! What can go wrong with areas, the state folder and generations.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::iomem::IoMemoryProblem;

/// An error of this crate. Each says which file or address it is about, the values that matter,
/// and what to do where there is something to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The system refused an operation.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried: "create", "rename to its generation".
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file is no region of a layout that is known. It is left as it is.
    #[error("{}: {source}", path.display())]
    NotARegion {
        /// The file.
        path: PathBuf,
        /// What is there instead.
        source: outlive_ring::LayoutError,
    },
    /// An area cannot hold a ring for this machine's CPUs.
    #[error("area {name}: {source}; ask for a larger area")]
    Layout {
        /// The area.
        name: String,
        /// Why.
        source: outlive_ring::LayoutError,
    },
    /// The file system (or the pool of huge pages) cannot hold the bytes. Nothing is left behind.
    #[error(
        "no space for {}: {needed_bytes} bytes needed, {free_bytes} free; \
         free some, ask for a smaller area, or choose another place with --area",
        path.display()
    )]
    NoSpace {
        /// The file that was to be made.
        path: PathBuf,
        /// Its whole size in bytes.
        needed_bytes: u64,
        /// Bytes that an unprivileged user may still use on this file system.
        free_bytes: u64,
    },
    /// Another process holds the lock.
    #[error(
        "{} is in use{}; stop that process, or give another --state",
        path.display(),
        held_by(holder.as_ref())
    )]
    Locked {
        /// The lock's file.
        path: PathBuf,
        /// Who wrote its name into the lock file. For information only: the lock is what counts.
        holder: Option<Holder>,
    },
    /// An area's file is in use by another process (or twice by this one).
    #[error("area file {} is in use by another recorder", path.display())]
    AreaInUse {
        /// The file or device.
        path: PathBuf,
    },
    /// As many processes of a run as may record beside its first one do.
    #[error("{count} processes record beside that of {} already", path.display())]
    TooManyBeside {
        /// The first process's area.
        path: PathBuf,
        /// Areas beside it.
        count: usize,
    },
    /// Somebody uses a part of this physical memory.
    #[error("physical memory {address:#x}:{len_bytes:#x} is in use by another recorder")]
    MemoryInUse {
        /// First physical address asked for.
        address: u64,
        /// Bytes asked for.
        len_bytes: u64,
    },
    /// A file or folder belongs to somebody else, who could change it under us.
    #[error("{} belongs to user {owner}, not to user {user}; choose another path", path.display())]
    NotOurs {
        /// The file or folder.
        path: PathBuf,
        /// User id of its owner.
        owner: u32,
        /// Our effective user id.
        user: u32,
    },
    /// A file or folder can be written by others.
    #[error(
        "{} has mode {mode:04o}, others may write it; run `chmod go-w` on it, or choose another path",
        path.display()
    )]
    OthersMayWrite {
        /// The file or folder.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// A file has more than one name, so that it could be changed through another folder.
    #[error("{} has {links} names (hard links); choose another path", path.display())]
    ManyLinks {
        /// The file.
        path: PathBuf,
        /// How many.
        links: u64,
    },
    /// A path is something else than it has to be.
    #[error("{} is {found}, expected {expected}", path.display())]
    WrongKind {
        /// The path.
        path: PathBuf,
        /// What it should be: "a regular file", "on a tmpfs".
        expected: &'static str,
        /// What it is.
        found: String,
    },
    /// A DAX backing on a file system or file without DAX.
    #[error(
        "{} has no DAX: its file system is not mounted so; \
         mount it with `-o dax`, or use the backing `file:PATH`",
        path.display()
    )]
    NotDax {
        /// The file.
        path: PathBuf,
    },
    /// A file is shorter than what was to be mapped of it.
    #[error("{} has {found_bytes} bytes, {needed_bytes} are needed", path.display())]
    TooShort {
        /// The file or device.
        path: PathBuf,
        /// Bytes needed.
        needed_bytes: u64,
        /// Bytes there are.
        found_bytes: u64,
    },
    /// A size that cannot be an area's.
    #[error("area {name} cannot have {size_bytes} bytes: {why}")]
    BadSize {
        /// The area.
        name: String,
        /// Ring and extension together, in bytes.
        size_bytes: u64,
        /// Why not.
        why: &'static str,
    },
    /// An instance can lie on whole pages only (`kernel/trace/trace.c`, Linux 7.3: "mapping size
    /// is not page aligned").
    #[error("area {name}: its {what} {value:#x} is not a multiple of 4096, no instance can use it")]
    NotPageAligned {
        /// The area.
        name: String,
        /// "start" or "size".
        what: &'static str,
        /// The address or the bytes.
        value: u64,
    },
    /// A fixed address that the wanted alignment excludes.
    #[error(
        "address {address:#x} is not aligned to {align:#x} as the kernel reads it; \
         the next lower address that is: {lower:#x}"
    )]
    Misaligned {
        /// The address given.
        address: u64,
        /// The alignment given, in bytes.
        align: u64,
        /// `address & ~(align - 1)`.
        lower: u64,
    },
    /// A name that cannot be a file's or folder's.
    #[error("{name:?} cannot name a file: {why}")]
    BadName {
        /// The name.
        name: String,
        /// Why not.
        why: &'static str,
    },
    /// The text of a backing that cannot be read.
    #[error("backing {text:?}: {why}; {}", crate::backing::HELP)]
    BadBacking {
        /// The text.
        text: String,
        /// What is wrong with it.
        why: String,
    },
    /// A range of physical memory that must not be touched, or cannot be judged.
    #[error("physical memory {address:#x}:{len_bytes:#x}: {problem}")]
    IoMemory {
        /// First physical address asked for.
        address: u64,
        /// Bytes asked for.
        len_bytes: u64,
        /// Why not.
        problem: IoMemoryProblem,
    },
    /// The system refuses `/dev/mem`.
    #[error("cannot use {address:#x} through /dev/mem: {source}; {help}")]
    DevMem {
        /// First physical address asked for.
        address: u64,
        /// What the system said.
        source: io::Error,
        /// Why this may be, and what to do.
        help: &'static str,
    },
    /// A small file of the state folder that cannot be read as what it is.
    #[error("{} is damaged: {why}; {help}", path.display())]
    DamagedState {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
        /// What to do.
        help: &'static str,
    },
    /// A generation of this instance and sequence is there already.
    #[error("generation {} exists already", path.display())]
    GenerationExists {
        /// Its folder.
        path: PathBuf,
    },
    /// No home and no `XDG_STATE_HOME`, so there is no default for the state folder.
    #[error("no state folder: neither HOME nor XDG_STATE_HOME is set; give one with --state")]
    NoStateFolder,
}

impl Error {
    /// A closure for `map_err` that says what was tried with which path.
    pub(crate) fn io<E: Into<io::Error>>(
        action: &'static str,
        path: &Path,
    ) -> impl FnOnce(E) -> Self {
        let path = path.to_owned();
        move |source| Self::Io {
            action,
            path,
            source: source.into(),
        }
    }
}

/// Who holds a state folder, as written into its lock file by the holder.
///
/// Valid while the lock is held; of a process that died, it is what the file still says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Holder {
    /// Process id, in the holder's pid namespace.
    pub pid: u32,
    /// When the process started, in clock ticks since the boot (`/proc/PID/stat`, field 22).
    pub start_ticks: u64,
    /// The boot that it ran in.
    pub boot_id: String,
    /// The machine's name.
    pub hostname: String,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "process {} on {}", self.pid, self.hostname)
    }
}

fn held_by(holder: Option<&Holder>) -> String {
    holder
        .map(|holder| format!(" by {holder}"))
        .unwrap_or_default()
}

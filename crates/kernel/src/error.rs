//! What can go wrong with the host's tracefs, and what to do about it.

use std::io;
use std::path::{Path, PathBuf};

/// An error of the host's tracefs. [`Error::help`] says what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The process lacks the permission (EACCES or EPERM).
    #[error("not permitted to {operation} {}", path.display())]
    NotPermitted {
        /// What was tried: `open`, `mount`, ...
        operation: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why the system may have refused, as far as it can be seen from here.
        cause: Refusal,
    },
    /// An area or generation cannot be written.
    #[error(transparent)]
    Trace(#[from] outlive_trace::Error),
    /// This kernel was built without tracefs.
    #[error("this kernel has no tracefs")]
    NoTracefs,
    /// tracefs is in the kernel but mounted nowhere, and this process may not mount it.
    #[error("tracefs is not mounted")]
    NotMounted,
    /// tracefs is mounted read-only.
    #[error("tracefs at {} is mounted read-only", path.display())]
    ReadOnlyMount {
        /// The mount point.
        path: PathBuf,
    },
    /// The kernel is locked down and refuses tracing.
    #[error("kernel lockdown `{mode}` refuses tracing")]
    Lockdown {
        /// `integrity` or `confidentiality`.
        mode: String,
    },
    /// It was told to end; the next start does it again.
    #[error("told to end before it was done")]
    Ended,
    /// There is no such event on this machine.
    #[error("no event `{system}:{event}`")]
    NoSuchEvent {
        /// The event's system.
        system: String,
        /// The event's name.
        event: String,
    },
    /// There is no such option, or it reaches beyond one instance.
    #[error("option `{option}` cannot be set for one instance")]
    NoSuchOption {
        /// The option's name, without `no`.
        option: String,
    },
    /// A name that is not of the form `outlive.<state>.<run>.<name>`, or of another state.
    #[error("host instance `{name}` is not ours")]
    NotOurs {
        /// The instance's folder name.
        name: String,
    },
    /// A name that cannot be part of a path in tracefs.
    #[error("`{name}` cannot be a name in tracefs")]
    BadName {
        /// The name as given.
        name: String,
    },
    /// The host instance is in use and could not be removed.
    #[error("host instance `{name}` is in use{}", holders_text(holders))]
    Busy {
        /// The instance's folder name.
        name: String,
        /// The processes that were seen to have a file of it open or mapped.
        holders: Vec<Holder>,
    },
    /// The kernel refused to map `trace_pipe_raw` (before 6.10, or an instance that cannot be mapped).
    #[error("CPU {cpu}: trace_pipe_raw cannot be mapped: {source}")]
    MapRefused {
        /// The CPU.
        cpu: u32,
        /// What `mmap` returned.
        source: io::Error,
    },
    /// The meta page of a mapping says something that cannot be.
    #[error("CPU {cpu}: meta page of trace_pipe_raw: {what} is {value:#x}")]
    BadMetaPage {
        /// The CPU.
        cpu: u32,
        /// The field.
        what: &'static str,
        /// Its value.
        value: u64,
    },
    /// Somebody else consumed events of the instance or cleared it, so that the sub-buffers' ids
    /// are no longer the ring's order. Mapping anew numbers them anew.
    #[error("CPU {cpu}: somebody else reads or clears this instance")]
    Disturbed {
        /// The CPU.
        cpu: u32,
    },
    /// The instance's clock stands still for longer than a sub-buffer takes to fill.
    #[error("trace clock `{clock}` is too coarse to follow a ring buffer")]
    ClockTooCoarse {
        /// The clock's name.
        clock: String,
    },
    /// A file of tracefs or /proc does not look as expected.
    #[error("{}: {what}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// Any other failure of a system call.
    #[error("cannot {operation} {}: {source}", path.display())]
    Io {
        /// What was tried.
        operation: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// Why the system may have refused, as far as a process can see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Refusal {
    /// The effective user is not root.
    NotRoot,
    /// Root of a user namespace, or in a container, not of the machine.
    Container,
    /// None of these.
    Unknown,
}

/// A process that has a file of an instance open or mapped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Its process id.
    pub pid: u32,
    /// Its name, at most 15 bytes.
    pub comm: String,
}

impl Error {
    /// What the user can do about it, in one line; `None` if there is nothing to advise.
    #[must_use]
    pub fn help(&self) -> Option<&'static str> {
        match self {
            Self::NotPermitted { cause, .. } => Some(cause.help()),
            Self::NoTracefs => Some(
                "use a kernel with CONFIG_TRACING and CONFIG_TRACEFS_FS, or record application events only",
            ),
            Self::NotMounted => Some(
                "run as root, or mount it first: sudo mount -t tracefs nodev /sys/kernel/tracing",
            ),
            Self::ReadOnlyMount { .. } => Some(
                "remount it: sudo mount -o remount,rw /sys/kernel/tracing; in a container, give it the host's tracefs read-write",
            ),
            Self::Lockdown { .. } => Some(
                "boot without lockdown=confidentiality (or with Secure Boot off) to trace this kernel",
            ),
            Self::NoSuchEvent { .. } => Some(
                "the events of this machine are listed in /sys/kernel/tracing/available_events",
            ),
            Self::Busy { .. } => Some("end the processes that use it; the next start removes it"),
            Self::MapRefused { .. } => Some("reading instead of mapping works on every kernel"),
            Self::Disturbed { .. } => {
                Some("leave instances named `outlive.*` alone while outlive runs")
            }
            Self::ClockTooCoarse { .. } => Some("use trace_clock=local, the default"),
            _ => None,
        }
    }

    /// Wraps a system call's error, and says more where the number alone would mislead.
    pub(crate) fn io(operation: &'static str, path: &Path, source: io::Error) -> Self {
        let path = path.to_path_buf();
        match source
            .raw_os_error()
            .map(rustix::io::Errno::from_raw_os_error)
        {
            Some(rustix::io::Errno::ACCESS | rustix::io::Errno::PERM) => match lockdown_mode() {
                Some(mode) => Self::Lockdown { mode },
                None => Self::NotPermitted {
                    operation,
                    path,
                    cause: Refusal::probe(),
                },
            },
            Some(rustix::io::Errno::ROFS) => Self::ReadOnlyMount { path },
            _ => Self::Io {
                operation,
                path,
                source,
            },
        }
    }

    /// The number of the system call's error, where there is one.
    #[must_use]
    pub fn raw_os_error(&self) -> Option<i32> {
        match self {
            Self::Io { source, .. } | Self::MapRefused { source, .. } => source.raw_os_error(),
            _ => None,
        }
    }

    /// Whether a file was not there.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }
}

impl Refusal {
    fn probe() -> Self {
        if in_container() {
            Self::Container
        } else if !rustix::process::geteuid().is_root() {
            Self::NotRoot
        } else {
            Self::Unknown
        }
    }

    fn help(self) -> &'static str {
        match self {
            Self::NotRoot => {
                "kernel events need root: run it with sudo (application events need no root)"
            }
            Self::Container => {
                "run it on the host, or give the container CAP_SYS_ADMIN and the host's /sys/kernel/tracing"
            }
            Self::Unknown => "a security module or a missing capability (CAP_SYS_ADMIN) refuses it",
        }
    }
}

/// The lockdown mode that refuses tracing: `confidentiality` refuses it, `integrity` does not.
fn lockdown_mode() -> Option<String> {
    lockdown().filter(|mode| mode == "confidentiality")
}

/// The kernel's lockdown mode: `none`, `integrity` or `confidentiality`. `None` of a kernel without
/// (kernel_lockdown(7)).
#[must_use]
pub fn lockdown() -> Option<String> {
    parse_lockdown(&std::fs::read_to_string("/sys/kernel/security/lockdown").ok()?)
}

/// The word in brackets of `none integrity [confidentiality]`.
fn parse_lockdown(text: &str) -> Option<String> {
    let (_, rest) = text.split_once('[')?;
    let (mode, _) = rest.split_once(']')?;
    Some(mode.to_owned())
}

/// Whether the signs of a container are there: its marker files, or a user namespace of its own.
#[must_use]
pub fn in_container() -> bool {
    let marked = ["/.dockerenv", "/run/.containerenv"]
        .iter()
        .any(|p| Path::new(p).exists());
    marked
        || std::fs::read_to_string("/proc/self/uid_map").is_ok_and(|map| !is_initial_uid_map(&map))
}

/// The first user namespace maps all ids to themselves (`user_namespaces(7)`).
fn is_initial_uid_map(map: &str) -> bool {
    map.split_whitespace().eq(["0", "0", "4294967295"])
}

fn holders_text(holders: &[Holder]) -> String {
    if holders.is_empty() {
        return String::new();
    }
    let list: Vec<_> = holders
        .iter()
        .map(|h| format!("{} ({})", h.comm, h.pid))
        .collect();
    format!(" by {}", list.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lockdown_mode_is_the_word_in_brackets() {
        assert_eq!(
            parse_lockdown("none integrity [confidentiality]\n").unwrap(),
            "confidentiality"
        );
        assert_eq!(
            parse_lockdown("[none] integrity confidentiality\n").unwrap(),
            "none"
        );
        assert_eq!(parse_lockdown("none"), None);
    }

    #[test]
    fn a_partial_uid_map_is_a_container() {
        assert!(is_initial_uid_map("         0          0 4294967295\n"));
        assert!(!is_initial_uid_map("         0     100000      65536\n"));
    }

    #[test]
    fn busy_names_who_holds_the_instance() {
        let holders = vec![Holder {
            pid: 12,
            comm: "cat".into(),
        }];
        let error = Error::Busy {
            name: "outlive.1.2.x".into(),
            holders,
        };
        assert_eq!(
            error.to_string(),
            "host instance `outlive.1.2.x` is in use by cat (12)"
        );
    }

    #[test]
    fn a_refused_open_becomes_not_permitted() {
        let source = io::Error::from_raw_os_error(rustix::io::Errno::ACCESS.raw_os_error());
        let error = Error::io("open", Path::new("/x"), source);
        assert!(matches!(
            error,
            Error::NotPermitted { .. } | Error::Lockdown { .. }
        ));
        assert!(error.help().is_some());
    }
}

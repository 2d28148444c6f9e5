//! Where the host's tracefs is, and what it says about the machine.
//!
//! Everything here only reads, with one exception: a tracefs that nobody has mounted yet is mounted
//! at `/sys/kernel/tracing`, its usual place, and [`Tracefs::was_mounted_here`] says so. Files at
//! the top level belong to whoever else traces on this machine; nothing here writes to them.

use std::io;
use std::path::{Path, PathBuf};

use crate::error::Error;

/// Where tracefs is by convention (`Documentation/trace/ftrace.rst`).
const USUAL_PLACE: &str = "/sys/kernel/tracing";

/// The host's tracefs.
#[derive(Clone, Debug)]
pub struct Tracefs {
    root: PathBuf,
    mounted_here: bool,
}

/// The name of an event: its system and its own name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventName {
    /// The group, for example `sched`.
    pub system: String,
    /// The event, for example `sched_switch`.
    pub event: String,
}

impl Tracefs {
    /// Finds tracefs where it is mounted; mounts it at `/sys/kernel/tracing` if it is nowhere.
    ///
    /// # Errors
    /// Each with its own [`Error`]: no permission, no tracefs in this kernel, not mounted and not
    /// root, mounted read-only, lockdown.
    pub fn find() -> Result<Self, Error> {
        let this = match Self::find_mounted() {
            Err(Error::NotMounted) => Self::mount(Path::new(USUAL_PLACE))?,
            result => result?,
        };
        this.check()?;
        Ok(this)
    }

    /// As [`find`](Self::find) for those who only look: nothing is mounted, and nothing is said
    /// about what may be done there.
    ///
    /// # Errors
    /// [`Error::NotMounted`] if it is nowhere, or mounted read-only.
    pub fn find_mounted() -> Result<Self, Error> {
        let path = Path::new("/proc/self/mountinfo");
        let mounts = std::fs::read_to_string(path).map_err(|e| Error::io("read", path, e))?;
        match find_in_mounts(&mounts) {
            Some(mount) if mount.is_read_only => Err(Error::ReadOnlyMount { path: mount.path }),
            Some(mount) => Ok(Self {
                root: mount.path,
                mounted_here: false,
            }),
            None => Err(Error::NotMounted),
        }
    }

    /// Takes a folder as tracefs without looking at the mounts, for a copy or a test.
    #[must_use]
    pub fn at(root: &Path) -> Self {
        Self {
            root: root.to_path_buf(),
            mounted_here: false,
        }
    }

    /// The mount point.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Whether [`Tracefs::find`] had to mount it: the only thing it ever changes on the machine.
    #[must_use]
    pub fn was_mounted_here(&self) -> bool {
        self.mounted_here
    }

    /// All events of this machine, as `available_events` lists them.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn available_events(&self) -> Result<Vec<EventName>, Error> {
        Ok(parse_available_events(&self.read("available_events")?))
    }

    /// The events of one system, also those of `ftrace` that `available_events` leaves out.
    ///
    /// # Errors
    /// There is no such system, or its folder cannot be read.
    pub fn events_of(&self, system: &str) -> Result<Vec<EventName>, Error> {
        let folder = self.root.join("events").join(system);
        let entries = std::fs::read_dir(&folder).map_err(|e| Error::io("list", &folder, e))?;
        let mut events: Vec<EventName> = entries
            .flatten()
            .filter(|entry| entry.path().join("format").is_file())
            .map(|entry| EventName::new(system, &entry.file_name().to_string_lossy()))
            .collect();
        events.sort();
        Ok(events)
    }

    /// The `format` file of an event.
    ///
    /// # Errors
    /// There is no such event, or the file cannot be read.
    pub fn event_format(&self, name: &EventName) -> Result<String, Error> {
        self.read_event_file(name, "format")
    }

    /// The id of an event: the first field of its records.
    ///
    /// # Errors
    /// There is no such event, or the file cannot be read.
    pub fn event_id(&self, name: &EventName) -> Result<u16, Error> {
        let text = self.read_event_file(name, "id")?;
        text.trim().parse().map_err(|_| Error::Malformed {
            path: self
                .root
                .join("events")
                .join(&name.system)
                .join(&name.event)
                .join("id"),
            what: format!("`{}` is no event id", text.trim_end()),
        })
    }

    /// `events/header_page`: the layout of a sub-buffer's header.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn header_page(&self) -> Result<String, Error> {
        self.read("events/header_page")
    }

    /// `events/header_event`: the layout of a record's header.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn header_event(&self) -> Result<String, Error> {
        self.read("events/header_event")
    }

    /// `printk_formats`: the addresses of format strings and the strings.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn printk_formats(&self) -> Result<String, Error> {
        self.read("printk_formats")
    }

    /// `saved_cmdlines`: the names that the kernel remembers of processes that were traced, some of
    /// which are gone. Lines that are no pair of pid and name are left out.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn saved_cmdlines(&self) -> Result<Vec<(i32, String)>, Error> {
        Ok(parse_saved_cmdlines(&self.read("saved_cmdlines")?))
    }

    fn read_event_file(&self, name: &EventName, file: &str) -> Result<String, Error> {
        check_name(&name.system)?;
        check_name(&name.event)?;
        let result = self.read(&format!("events/{}/{}/{file}", name.system, name.event));
        result.map_err(|e| {
            if e.is_not_found() {
                name.not_found()
            } else {
                e
            }
        })
    }

    fn read(&self, file: &str) -> Result<String, Error> {
        read_text(&self.root.join(file))
    }

    fn mount(place: &Path) -> Result<Self, Error> {
        if !kernel_has_tracefs()? {
            return Err(Error::NoTracefs);
        }
        let flags = rustix::mount::MountFlags::NOSUID
            | rustix::mount::MountFlags::NODEV
            | rustix::mount::MountFlags::NOEXEC;
        match rustix::mount::mount(c"nodev", place, c"tracefs", flags, None) {
            Ok(()) => Ok(Self {
                root: place.to_path_buf(),
                mounted_here: true,
            }),
            Err(_) if !rustix::process::geteuid().is_root() => Err(Error::NotMounted),
            Err(e) => Err(Error::io("mount tracefs at", place, e.into())),
        }
    }

    /// Opens what only somebody who may trace can open, so that refusals are found at the start.
    ///
    /// # Errors
    /// What refuses it: no permission, lockdown, or no instances in this kernel's tracefs.
    pub fn check(&self) -> Result<(), Error> {
        let path = self.root.join("instances");
        match std::fs::read_dir(&path) {
            Ok(_) => Ok(()),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Err(Error::NoTracefs),
            Err(e) => Err(Error::io("open", &path, e)),
        }
    }
}

impl EventName {
    /// A name from its two parts.
    #[must_use]
    pub fn new(system: &str, event: &str) -> Self {
        Self {
            system: system.to_owned(),
            event: event.to_owned(),
        }
    }

    pub(crate) fn not_found(&self) -> Error {
        Error::NoSuchEvent {
            system: self.system.clone(),
            event: self.event.clone(),
        }
    }
}

impl std::fmt::Display for EventName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.system, self.event)
    }
}

/// Refuses what would leave the folder that a name is put into.
pub(crate) fn check_name(name: &str) -> Result<(), Error> {
    let is_bad = name.is_empty()
        || name == "."
        || name == ".."
        || name.len() > MAX_NAME_BYTES
        || name.bytes().any(|b| b == b'/' || b.is_ascii_control());
    if is_bad {
        Err(Error::BadName {
            name: name.to_owned(),
        })
    } else {
        Ok(())
    }
}

/// The longest name of a folder entry (`NAME_MAX`, `limits.h`).
pub(crate) const MAX_NAME_BYTES: usize = 255;

/// Reads a whole file as text; bytes that are no UTF-8 (a process name) are replaced.
pub(crate) fn read_text(path: &Path) -> Result<String, Error> {
    let bytes = std::fs::read(path).map_err(|e| Error::io("read", path, e))?;
    Ok(String::from_utf8(bytes)
        .unwrap_or_else(|e| String::from_utf8_lossy(e.as_bytes()).into_owned()))
}

fn kernel_has_tracefs() -> Result<bool, Error> {
    let list = read_text(Path::new("/proc/filesystems"))?;
    Ok(list
        .lines()
        .any(|line| line.split_whitespace().last() == Some("tracefs")))
}

#[derive(Debug, PartialEq, Eq)]
struct Mount {
    path: PathBuf,
    is_read_only: bool,
}

/// The tracefs of a `mountinfo` text: the usual place first, then any other, then the folder that
/// debugfs mounts on demand.
fn find_in_mounts(mountinfo: &str) -> Option<Mount> {
    let of_type = |fstype: &'static str| {
        mountinfo
            .lines()
            .rev()
            .filter_map(move |line| parse_mount(line, fstype))
    };
    // The last mount at a place is the one on top.
    let usual = of_type("tracefs").find(|mount| mount.path == Path::new(USUAL_PLACE));
    usual.or_else(|| of_type("tracefs").next()).or_else(|| {
        let mut mount = of_type("debugfs").next()?;
        mount.path.push("tracing");
        mount.path.join("instances").is_dir().then_some(mount)
    })
}

/// One line of `/proc/self/mountinfo` (`proc_pid_mountinfo(5)`) if it is a whole `fstype`.
fn parse_mount(line: &str, fstype: &str) -> Option<Mount> {
    let (before, after) = line.split_once(" - ")?;
    let mut fields = before.split(' ').skip(3);
    let (root, place, options) = (fields.next()?, fields.next()?, fields.next()?);
    let mut after = after.split(' ');
    let is_wanted = after.next()? == fstype && root == "/";
    let super_options = after.nth(1).unwrap_or("");
    is_wanted.then(|| Mount {
        path: PathBuf::from(unescape_mount(place)),
        is_read_only: is_read_only(options) || is_read_only(super_options),
    })
}

fn is_read_only(options: &str) -> bool {
    options.split(',').any(|option| option == "ro")
}

/// A path of `/proc/self/mountinfo` as it is: space, tab, newline and backslash are written there
/// as three octal digits.
#[must_use]
pub fn unescape_mount(text: &str) -> String {
    [
        ("\\040", " "),
        ("\\011", "\t"),
        ("\\012", "\n"),
        ("\\134", "\\"),
    ]
    .iter()
    .fold(text.to_owned(), |text, (code, plain)| {
        text.replace(code, plain)
    })
}

fn parse_available_events(text: &str) -> Vec<EventName> {
    let pairs = text
        .lines()
        .filter_map(|line| line.trim_end().split_once(':'));
    pairs
        .map(|(system, event)| EventName::new(system, event))
        .collect()
}

fn parse_saved_cmdlines(text: &str) -> Vec<(i32, String)> {
    let pairs = text.lines().filter_map(|line| line.split_once(' '));
    pairs
        .filter_map(|(pid, comm)| Some((pid.parse().ok()?, comm.to_owned())))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_at_the_usual_place_wins() {
        let text = "20 1 0:7 / /debug\\040fs/tracing rw - tracefs nodev rw\n\
                    21 1 0:7 / /sys/kernel/tracing rw,relatime shared:9 - tracefs nodev rw\n\
                    22 1 0:8 / /proc rw - proc proc rw\n";
        let mount = find_in_mounts(text).unwrap();
        assert_eq!(
            mount,
            Mount {
                path: USUAL_PLACE.into(),
                is_read_only: false
            }
        );
    }

    #[test]
    fn mount_elsewhere_is_found_and_unescaped() {
        let text = "20 1 0:7 / /debug\\040fs/tracing rw - tracefs nodev rw\n";
        assert_eq!(
            find_in_mounts(text).unwrap().path,
            Path::new("/debug fs/tracing")
        );
    }

    #[test]
    fn read_only_is_seen_in_either_list_of_options() {
        for text in [
            "20 1 0:7 / /t ro,nosuid - tracefs nodev rw",
            "20 1 0:7 / /t rw,nosuid - tracefs nodev ro",
        ] {
            assert!(find_in_mounts(text).unwrap().is_read_only, "{text}");
        }
    }

    #[test]
    fn a_part_of_tracefs_bound_elsewhere_is_not_taken() {
        assert_eq!(
            find_in_mounts("20 1 0:7 /instances/a /t rw - tracefs nodev rw"),
            None
        );
        assert_eq!(find_in_mounts("garbage\n\n- - -"), None);
    }

    #[test]
    fn events_and_cmdlines_are_parsed_line_by_line() {
        let events = parse_available_events("sched:sched_switch\nbad\nirq:softirq_entry\n");
        assert_eq!(events[0].to_string(), "sched:sched_switch");
        assert_eq!(events.len(), 2);
        let names = parse_saved_cmdlines("12 kworker/0:1\nx y\n7 my prog\n");
        assert_eq!(
            names,
            [(12, "kworker/0:1".to_owned()), (7, "my prog".to_owned())]
        );
    }

    #[test]
    fn names_that_leave_their_folder_are_refused() {
        for name in ["", ".", "..", "a/b", "a\nb"] {
            assert!(check_name(name).is_err(), "{name:?}");
        }
        assert!(check_name("sched_switch").is_ok());
    }
}

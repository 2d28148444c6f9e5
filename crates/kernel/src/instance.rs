//! Host instances: ordinary trace instances of the host's kernel that we create and remove.
//!
//! [`Instances`] is the only way to one, and it hands out only those of its own state. An
//! [`Instance`] writes to files inside its own folder and to no other, so the machine's global
//! tracing knobs and other users' instances stay as they are.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use crate::error::{Error, Holder};
use crate::instance_folder::InstanceFolder;
use crate::instance_name::{InstanceName, RunId, StateId};
use crate::tracefs::{Tracefs, check_name, read_text};

/// The host instances of one state.
#[derive(Clone, Debug)]
pub struct Instances {
    folder: PathBuf,
    state: StateId,
}

/// One host instance. Dropping it leaves it in the kernel: that is what makes it survive us.
#[derive(Clone, Debug)]
pub struct Instance {
    name: InstanceName,
    folder: InstanceFolder,
}

/// What may be done with any instance.
impl std::ops::Deref for Instance {
    type Target = InstanceFolder;

    fn deref(&self) -> &InstanceFolder {
        &self.folder
    }
}

/// Options whose effect reaches beyond the instance: the first takes `trace_printk()` away from
/// another instance, the second fills the global `saved_tgids`.
const REACHING_OPTIONS: [&str; 2] = ["trace_printk_dest", "record-tgid"];

/// How often a busy instance is tried again, and how long to wait in between: 1 s in all.
const REMOVE_TRIES: u32 = 20;
const REMOVE_PAUSE: Duration = Duration::from_millis(50);

impl Instances {
    /// The instances of `state` in this tracefs.
    #[must_use]
    pub fn new(tracefs: &Tracefs, state: StateId) -> Self {
        Self {
            folder: tracefs.root().join("instances"),
            state,
        }
    }

    /// Creates an instance for a run. Nothing is recorded into it before an event is enabled.
    ///
    /// # Errors
    /// The name cannot be one, exists already, or the kernel refuses.
    pub fn create(&self, run: RunId, name: &str) -> Result<Instance, Error> {
        let instance = self.instance(InstanceName::new(self.state, run, name)?);
        fs::create_dir(instance.folder()).map_err(|e| Error::io("create", instance.folder(), e))?;
        Ok(instance)
    }

    /// Opens an instance that an earlier run left.
    ///
    /// # Errors
    /// It is not of this state, or does not exist.
    pub fn open_existing(&self, name: &InstanceName) -> Result<Instance, Error> {
        if name.state() != self.state {
            return Err(Error::NotOurs {
                name: name.to_string(),
            });
        }
        let instance = self.instance(name.clone());
        fs::metadata(instance.folder()).map_err(|e| Error::io("open", instance.folder(), e))?;
        Ok(instance)
    }

    /// The names of all instances of this state that exist now, sorted.
    ///
    /// # Errors
    /// The `instances` folder cannot be read.
    pub fn list(&self) -> Result<Vec<InstanceName>, Error> {
        let failed = |e| Error::io("list", &self.folder, e);
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.folder).map_err(failed)? {
            let file_name = entry.map_err(failed)?.file_name();
            let name = file_name
                .to_str()
                .and_then(|name| name.parse::<InstanceName>().ok());
            names.extend(name.filter(|name| name.state() == self.state));
        }
        names.sort();
        Ok(names)
    }

    /// When an instance was created, as far as the kernel tells.
    pub(crate) fn created(&self, name: &InstanceName) -> Option<SystemTime> {
        let folder = self.folder.join(name.to_string());
        fs::metadata(folder)
            .and_then(|folder| folder.modified())
            .ok()
    }

    fn instance(&self, name: InstanceName) -> Instance {
        let folder = InstanceFolder::new(self.folder.join(name.to_string()));
        Instance { name, folder }
    }
}

impl Instance {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &InstanceName {
        &self.name
    }

    /// Sets the size of each per-CPU buffer, in KiB; the kernel rounds up to whole sub-buffers.
    ///
    /// # Errors
    /// No memory for it, or a buffer is mapped.
    pub fn set_buffer_size_kb(&self, kib_per_cpu: u64) -> Result<(), Error> {
        self.write("buffer_size_kb", &kib_per_cpu.to_string())
    }

    /// Sets the clock. The kernel clears the instance's buffers.
    ///
    /// # Errors
    /// This kernel has no such clock.
    pub fn set_trace_clock(&self, clock: &str) -> Result<(), Error> {
        self.write("trace_clock", clock)
    }

    /// Sets one of the instance's options, as in `trace_options`; `option` without `no` in front.
    ///
    /// # Errors
    /// The option is unknown, or would change something outside of this instance.
    pub fn set_option(&self, option: &str, is_on: bool) -> Result<(), Error> {
        let unknown = || Error::NoSuchOption {
            option: option.to_owned(),
        };
        if check_name(option).is_err() || REACHING_OPTIONS.contains(&option) {
            return Err(unknown());
        }
        let result = self.write(&format!("options/{option}"), if is_on { "1" } else { "0" });
        result.map_err(|e| if e.is_not_found() { unknown() } else { e })
    }

    /// Records only events of the task `pid`, and of the tasks that it and they start from now on.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn set_event_pid(&self, pid: u32) -> Result<(), Error> {
        self.set_option("event-fork", true)?;
        self.write("set_event_pid", &pid.to_string())
    }

    /// Disables all events in this instance.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn disable_all_events(&self) -> Result<(), Error> {
        self.write("events/enable", "0")
    }

    /// Removes the instance and all that it holds.
    ///
    /// # Errors
    /// [`Error::Busy`] with the processes that hold it, after a second of trying.
    pub fn remove(self) -> Result<(), Error> {
        for _ in 1..REMOVE_TRIES {
            match fs::remove_dir(self.folder()) {
                Ok(()) => return Ok(()),
                Err(e) if e.kind() == io::ErrorKind::ResourceBusy => {
                    std::thread::sleep(REMOVE_PAUSE);
                }
                Err(e) => return Err(Error::io("remove", self.folder(), e)),
            }
        }
        fs::remove_dir(self.folder()).map_err(|e| match e.kind() {
            io::ErrorKind::ResourceBusy => Error::Busy {
                name: self.name.to_string(),
                holders: holders(self.folder()),
            },
            _ => Error::io("remove", self.folder(), e),
        })
    }
}

/// Processes with a file below `folder` open or mapped, as far as this process may see them.
fn holders(folder: &Path) -> Vec<Holder> {
    let Ok(processes) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    let pids = processes
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let holding = pids.filter(|&pid| has_open(pid, folder) || has_mapped(pid, folder));
    holding
        .map(|pid| Holder {
            pid,
            comm: comm_of(pid),
        })
        .collect()
}

fn has_open(pid: u32, folder: &Path) -> bool {
    let Ok(files) = fs::read_dir(format!("/proc/{pid}/fd")) else {
        return false;
    };
    files
        .flatten()
        .any(|entry| fs::read_link(entry.path()).is_ok_and(|to| to.starts_with(folder)))
}

fn has_mapped(pid: u32, folder: &Path) -> bool {
    let Ok(maps) = fs::read_to_string(format!("/proc/{pid}/maps")) else {
        return false;
    };
    let Some(folder) = folder.to_str() else {
        return false;
    };
    maps.lines().any(|line| line.contains(folder))
}

fn comm_of(pid: u32) -> String {
    let comm = read_text(Path::new(&format!("/proc/{pid}/comm"))).unwrap_or_default();
    comm.trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_instances_of_the_own_state_are_listed_and_opened() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("instances");
        fs::create_dir(&folder).unwrap();
        let tracefs = Tracefs::at(dir.path());
        let (ours, theirs) = (
            Instances::new(&tracefs, StateId(1)),
            Instances::new(&tracefs, StateId(2)),
        );
        let own = ours.create(RunId(3), "a").unwrap();
        let other = theirs.create(RunId(3), "a").unwrap();
        fs::create_dir(folder.join("foo")).unwrap();
        assert_eq!(ours.list().unwrap(), [own.name().clone()]);
        assert!(matches!(
            ours.open_existing(other.name()),
            Err(Error::NotOurs { .. })
        ));
        assert!(ours.open_existing(own.name()).is_ok());
    }

    #[test]
    fn options_that_reach_beyond_the_instance_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("instances")).unwrap();
        let instances = Instances::new(&Tracefs::at(dir.path()), StateId(1));
        let instance = instances.create(RunId(1), "a").unwrap();
        for option in [
            "trace_printk_dest",
            "record-tgid",
            "../tracing_on",
            "unknown",
        ] {
            let result = instance.set_option(option, true);
            assert!(
                matches!(result, Err(Error::NoSuchOption { .. })),
                "{option}"
            );
        }
    }
}

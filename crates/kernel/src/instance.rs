//! Host instances: ordinary trace instances of the host's kernel that we create and remove.
//!
//! [`Instances`] is the only way to one, and it hands out only those of its own state. An
//! [`Instance`] writes to files inside its own folder and to no other, so the machine's global
//! tracing knobs and other users' instances stay as they are.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use crate::cpus::CpuId;
use crate::error::{Error, Holder};
use crate::instance_name::{InstanceName, RunId, StateId};
use crate::stats::StatsFile;
use crate::tracefs::{EventName, Tracefs, check_name, read_text};

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
    folder: PathBuf,
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
        fs::create_dir(&instance.folder).map_err(|e| Error::io("create", &instance.folder, e))?;
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
        fs::metadata(&instance.folder).map_err(|e| Error::io("open", &instance.folder, e))?;
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
        let folder = self.folder.join(name.to_string());
        Instance { name, folder }
    }
}

impl Instance {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &InstanceName {
        &self.name
    }

    /// Its folder in tracefs.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Sets the size of each per-CPU buffer, in KiB; the kernel rounds up to whole sub-buffers.
    ///
    /// # Errors
    /// No memory for it, or a buffer is mapped.
    pub fn set_buffer_size_kb(&self, kib_per_cpu: u64) -> Result<(), Error> {
        self.write("buffer_size_kb", &kib_per_cpu.to_string())
    }

    /// The size of a CPU's buffer, in KiB.
    ///
    /// # Errors
    /// The CPU is not there, or the file holds no number.
    pub fn buffer_size_kb(&self, cpu: CpuId) -> Result<u64, Error> {
        let path = self.cpu_file(cpu, "buffer_size_kb");
        let text = read_text(&path)?;
        // `7 (expanded: 1408)` before the first use.
        let number = text
            .split([' ', '\n', ')'])
            .filter_map(|word| word.parse().ok())
            .max();
        number.ok_or_else(|| Error::Malformed {
            path,
            what: "no size".into(),
        })
    }

    /// The clocks of this kernel, and the index of the one in use.
    ///
    /// # Errors
    /// The file cannot be read or has no clock in brackets.
    pub fn clocks(&self) -> Result<(Vec<String>, usize), Error> {
        let text = self.read("trace_clock")?;
        parse_bracketed(&text).ok_or_else(|| Error::Malformed {
            path: self.folder.join("trace_clock"),
            what: "no clock in brackets".into(),
        })
    }

    /// The clock in use.
    ///
    /// # Errors
    /// As [`Instance::clocks`].
    pub fn trace_clock(&self) -> Result<String, Error> {
        let (mut clocks, current) = self.clocks()?;
        Ok(clocks.swap_remove(current))
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

    /// Enables an event in this instance.
    ///
    /// # Errors
    /// There is no such event, or the kernel refuses it.
    pub fn enable_event(&self, name: &EventName) -> Result<(), Error> {
        check_name(&name.system)?;
        check_name(&name.event)?;
        let result = self.write(
            &format!("events/{}/{}/enable", name.system, name.event),
            "1",
        );
        result.map_err(|e| {
            if e.is_not_found() {
                name.not_found()
            } else {
                e
            }
        })
    }

    /// Disables all events in this instance.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn disable_all_events(&self) -> Result<(), Error> {
        self.write("events/enable", "0")
    }

    /// The events that are enabled in this instance.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn enabled_events(&self) -> Result<Vec<EventName>, Error> {
        let text = self.read("set_event")?;
        let pairs = text.lines().filter_map(|line| line.split_once(':'));
        Ok(pairs
            .map(|(system, event)| EventName::new(system, event))
            .collect())
    }

    /// Starts or stops recording; what is in the buffers stays.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn set_tracing_on(&self, is_on: bool) -> Result<(), Error> {
        self.write("tracing_on", if is_on { "1" } else { "0" })
    }

    /// Whether events are recorded.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn is_tracing_on(&self) -> Result<bool, Error> {
        Ok(self.read("tracing_on")?.trim() != "0")
    }

    /// The CPUs that the instance has a folder for, ascending.
    ///
    /// # Errors
    /// The `per_cpu` folder cannot be read.
    pub fn cpus(&self) -> Result<Vec<CpuId>, Error> {
        let path = self.folder.join("per_cpu");
        let failed = |e| Error::io("list", &path, e);
        let mut cpus = Vec::new();
        for entry in fs::read_dir(&path).map_err(failed)? {
            let file_name = entry.map_err(failed)?.file_name();
            let number = file_name.to_str().and_then(|name| name.strip_prefix("cpu"));
            cpus.extend(number.and_then(|number| number.parse().ok()).map(CpuId));
        }
        cpus.sort_unstable();
        Ok(cpus)
    }

    /// Opens the counters of a CPU.
    ///
    /// # Errors
    /// The CPU is not there.
    pub fn stats(&self, cpu: CpuId) -> Result<StatsFile, Error> {
        StatsFile::open(&self.cpu_file(cpu, "stats"))
    }

    /// Opens `trace_pipe_raw` of a CPU without blocking. Opening consumes nothing.
    ///
    /// # Errors
    /// The CPU is not there.
    pub fn open_raw(&self, cpu: CpuId) -> Result<File, Error> {
        use std::os::unix::fs::OpenOptionsExt;
        let path = self.cpu_file(cpu, "trace_pipe_raw");
        let nonblock = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
        let opened = OpenOptions::new()
            .read(true)
            .custom_flags(nonblock)
            .open(&path);
        opened.map_err(|e| Error::io("open", &path, e))
    }

    /// Removes the instance and all that it holds.
    ///
    /// # Errors
    /// [`Error::Busy`] with the processes that hold it, after a second of trying.
    pub fn remove(self) -> Result<(), Error> {
        for _ in 1..REMOVE_TRIES {
            match fs::remove_dir(&self.folder) {
                Ok(()) => return Ok(()),
                Err(e) if e.kind() == io::ErrorKind::ResourceBusy => {
                    std::thread::sleep(REMOVE_PAUSE);
                }
                Err(e) => return Err(Error::io("remove", &self.folder, e)),
            }
        }
        fs::remove_dir(&self.folder).map_err(|e| match e.kind() {
            io::ErrorKind::ResourceBusy => Error::Busy {
                name: self.name.to_string(),
                holders: holders(&self.folder),
            },
            _ => Error::io("remove", &self.folder, e),
        })
    }

    fn cpu_file(&self, cpu: CpuId, file: &str) -> PathBuf {
        self.folder.join(format!("per_cpu/cpu{cpu}")).join(file)
    }

    fn read(&self, file: &str) -> Result<String, Error> {
        read_text(&self.folder.join(file))
    }

    /// One write to one file, never truncating: opening `trace` or `set_event` so would clear them.
    fn write(&self, file: &str, text: &str) -> Result<(), Error> {
        let path = self.folder.join(file);
        let opened = OpenOptions::new().write(true).open(&path);
        opened
            .and_then(|mut f| f.write_all(text.as_bytes()))
            .map_err(|e| Error::io("write", &path, e))
    }
}

/// Words of a line such as `[local] global`, and the index of the one in brackets.
fn parse_bracketed(text: &str) -> Option<(Vec<String>, usize)> {
    let words: Vec<_> = text.split_whitespace().collect();
    let current = words.iter().position(|word| word.starts_with('['))?;
    let strip = |word: &&str| word.trim_matches(['[', ']']).to_owned();
    Some((words.iter().map(strip).collect(), current))
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
    fn clock_in_brackets_is_the_current_one() {
        let (clocks, current) = parse_bracketed("local global [mono] x86-tsc\n").unwrap();
        assert_eq!((clocks.len(), clocks[current].as_str()), (4, "mono"));
        assert_eq!(parse_bracketed("local global"), None);
    }

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

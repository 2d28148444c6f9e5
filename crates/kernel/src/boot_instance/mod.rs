//! The kernel's own persistent instances (`trace_instance=NAME@...` on its command line), managed.
//!
//! The kernel records into them by itself, and nothing is copied meanwhile. After the next boot what
//! it recorded is made a generation ([`Harvester`]), and only then do events start again
//! ([`BootInstance::start`]). How the previous boot's events can be had depends on the kernel:
//!
//! | kernel | the instance's own ring | a backup (`trace_instance=backup=NAME`) |
//! |---|---|---|
//! | 6.12 to 6.15 | consumed; by address read from memory | there is none |
//! | 6.16 to 7.0 | by label mapped; by address read from memory | 6.19: too late if the kernel starts events |
//! | from 7.1 | by label mapped; by address read from memory | consumed, removed by the read that finds it empty |
//!
//! What is mapped or read from memory (`/dev/mem`; where the system refuses that, it is consumed) is copied whole and
//! stays until its generation is durable. What is consumed goes through a [`Harvest`]. An instance
//! whose events the kernel started itself has nothing of the previous boot any more: then only a
//! backup has it.
//!
//! These instances are fragile: a write to `current_tracer`, `set_event` or an `enable` file of an event
//! that does not exist clears them, a change of the clock too, and in 7.3.4 a change of the `overwrite`
//! option or of `tracing_cpumask` crashes the kernel. So nothing here writes to them but `enable` of
//! events that exist, `tracing_on`, and the truncation of `trace`; each after the events are kept.

mod buffer_meta;
mod harvest;
mod memory;
mod recording;
mod words;

use std::fs::OpenOptions;

use outlive_trace::cmdline::{CommandLine, InstanceKind};
use outlive_trace::verdict::boot_id;

pub use self::harvest::{Harvested, Harvester};
pub use self::recording::{Keeper, RecordingWriter};
use crate::error::Error;
use crate::instance_folder::InstanceFolder;
use crate::mapped::MappedRing;
use crate::stats::CpuStats;
use crate::tracefs::{EventName, Tracefs, check_name, read_text};

#[cfg(doc)]
use outlive_trace::harvest::Harvest;

/// What `last_boot_info` says of an instance that has no events of the previous boot (7.0; seen on 6.18).
const CURRENT: &str = "# Current";

/// A persistent instance that the kernel made at its boot.
#[derive(Clone, Debug)]
pub struct BootInstance {
    name: String,
    files: InstanceFolder,
}

impl BootInstance {
    /// The instance of this name, if the kernel has a persistent one. Only those have `last_boot_info`.
    #[must_use]
    pub fn find(tracefs: &Tracefs, name: &str) -> Option<Self> {
        check_name(name).ok()?;
        let folder = tracefs.root().join("instances").join(name);
        folder.join("last_boot_info").exists().then(|| Self {
            name: name.to_owned(),
            files: InstanceFolder::new(folder),
        })
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its files.
    #[must_use]
    pub fn files(&self) -> &InstanceFolder {
        &self.files
    }

    /// Whether something records into it in this boot.
    ///
    /// # Errors
    /// `set_event` cannot be read.
    pub fn is_recording(&self) -> Result<bool, Error> {
        if self.is_read_only() {
            return Ok(false);
        }
        Ok(!self.files.enabled_events()?.is_empty())
    }

    /// Starts events, and switches recording on or off. Those that are enabled are left as they are. The
    /// first that is enabled clears what the instance has of the previous boot.
    ///
    /// Events that this kernel does not have must not be given: asking for one would clear it too. Those
    /// that fail are returned with the reason.
    ///
    /// # Errors
    /// The instance cannot be read or switched on.
    pub fn start(
        &self,
        events: &[EventName],
        is_on: bool,
    ) -> Result<Vec<(EventName, Error)>, Error> {
        let enabled = self.files.enabled_events()?;
        let missing = events.iter().filter(|event| !enabled.contains(event));
        let enable = |name: &EventName| Some((name.clone(), self.files.enable_event(name).err()?));
        let failed = missing.filter_map(enable).collect();
        if self.files.is_tracing_on()? != is_on {
            self.files.set_tracing_on(is_on)?;
        }
        Ok(failed)
    }

    /// Throws away what it holds.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn clear(&self) -> Result<(), Error> {
        let path = self.files.folder().join("trace");
        let opened = OpenOptions::new().write(true).truncate(true).open(&path);
        opened.map(drop).map_err(|e| Error::io("clear", &path, e))
    }

    /// Whether it is a backup of a kernel from 7.1 on, into which nothing can be recorded.
    fn is_read_only(&self) -> bool {
        !self.files.folder().join("tracing_on").exists()
    }

    /// Whether what it holds is of the previous boot, as far as the kernel tells: up to 6.14 only by the
    /// events that nobody has enabled.
    fn is_of_previous_boot(&self) -> Result<bool, Error> {
        let path = self.files.folder().join("last_boot_info");
        Ok(!read_text(&path)?.starts_with(CURRENT) && !self.is_recording()?)
    }

    /// The counters of each CPU that has events.
    fn counts(&self) -> Result<Vec<(crate::CpuId, CpuStats)>, Error> {
        let mut counts = Vec::new();
        for cpu in self.files.cpus()? {
            let stats = self.files.stats(cpu)?.read()?;
            if stats.entries > 0 {
                counts.push((cpu, stats));
            }
        }
        Ok(counts)
    }

    /// Whether the kernel lets us map all rings that have events, and tells their order: of a damaged one it
    /// may name sub-buffers that are not there. What it gives when it is consumed is in order.
    fn is_mappable(&self) -> Result<bool, Error> {
        for (cpu, _) in self.counts()? {
            match MappedRing::map(cpu, &self.files.open_raw(cpu)?) {
                Ok(_) if harvest::buffer_meta(self, cpu).is_ok() => {}
                Ok(_) | Err(Error::MapRefused { .. } | Error::BadMetaPage { .. }) => {
                    return Ok(false);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    /// The backup that the kernel's command line asked for, if the kernel has made one. One that can be
    /// recorded into is of a kernel before 7.1, which copies it after it has started the source's events.
    fn backup(&self, tracefs: &Tracefs) -> Result<Option<Self>, Error> {
        let line = kernel_line()?;
        let is_backup = |kind: &InstanceKind| matches!(kind, InstanceKind::Backup { source } if *source == self.name);
        let mut instances = line.instances.iter();
        let found = instances.find_map(|instance| {
            is_backup(&instance.kind).then(|| Self::find(tracefs, &instance.name))?
        });
        Ok(found.filter(Self::is_read_only))
    }

    /// Whether the kernel has started events in it at its boot without making a backup before: then what
    /// the previous boot had left is gone.
    ///
    /// # Errors
    /// The kernel's command line cannot be read.
    pub fn was_cleared_by_kernel(&self, tracefs: &Tracefs) -> Result<bool, Error> {
        let line = kernel_line()?;
        let mut instances = line.instances.iter();
        let has_events =
            instances.any(|instance| instance.name == self.name && !instance.events.is_empty());
        Ok(has_events && self.backup(tracefs)?.is_none())
    }
}

/// What this kernel was booted with.
fn kernel_line() -> Result<CommandLine, Error> {
    let text = read_text(std::path::Path::new("/proc/cmdline"))?;
    Ok(CommandLine::parse(text.trim_end()))
}

/// This boot, as it is noted in the state folder.
fn this_boot() -> String {
    outlive_ring::RunId(boot_id()).to_string()
}

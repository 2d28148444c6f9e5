//! The kernel's own persistent instances in `outlive boot`: harvested, noted, and started.
//!
//! An instance of the line that the kernel has made at its boot is not recorded by us. What it has of the
//! previous boot is kept, and its events are started; the kernel records them by itself.

use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Result;
use outlive_kernel::{
    BootInstance, EventName, Harvested, Harvester, Keeper, RecordingWriter, Tracefs,
};
use outlive_trace::cmdline::{CommandLine, Instance, InstanceKind};
use outlive_trace::start::area_label;
use outlive_trace::{Backing, Generation, StateDir, StateLock, failpoint};

use crate::boot::say;

/// Time between two notes about what the kernel records.
const KEEP_NS: u64 = 10_000_000_000;
/// Time between two looks at whether to stop, where nothing is recorded by us.
const LOOK: rustix::time::Timespec = rustix::time::Timespec {
    tv_sec: 1,
    tv_nsec: 0,
};

/// The instances of a line that are the kernel's.
#[derive(Debug)]
pub(crate) struct KernelInstances<'a> {
    tracefs: &'a Tracefs,
    instances: Vec<(Instance, BootInstance)>,
    /// Names that the line has backups of.
    sources: Vec<String>,
}

impl<'a> KernelInstances<'a> {
    /// Those that this kernel has made. One whose area is said to live elsewhere is not meant.
    pub(crate) fn find(
        tracefs: &'a Tracefs,
        line: &CommandLine,
        areas: &[(String, Backing)],
    ) -> Self {
        let is_elsewhere = |instance: &Instance| {
            let label = area_label(instance);
            areas.iter().any(|(name, _)| Some(name) == label.as_ref())
        };
        let of_kernel = |instance: &Instance| {
            let is_backup = matches!(instance.kind, InstanceKind::Backup { .. });
            let boot = BootInstance::find(tracefs, &instance.name)?;
            (!is_backup && !is_elsewhere(instance)).then(|| (instance.clone(), boot))
        };
        let source = |instance: &Instance| match &instance.kind {
            InstanceKind::Backup { source } => Some(source.clone()),
            _ => None,
        };
        Self {
            tracefs,
            instances: line.instances.iter().filter_map(of_kernel).collect(),
            sources: line.instances.iter().filter_map(source).collect(),
        }
    }

    /// Their names.
    pub(crate) fn names(&self) -> Vec<String> {
        let names = self.instances.iter();
        names.map(|(instance, _)| instance.name.clone()).collect()
    }

    /// Leaves only these, and their backups, in a line that was written for the kernel.
    pub(crate) fn restrict(&self, line: &mut CommandLine) {
        let names = self.names();
        line.instances.retain(|instance| match &instance.kind {
            InstanceKind::Backup { source } => names.contains(source),
            _ => names.contains(&instance.name),
        });
    }

    /// Whether there is anything to do for one of them.
    pub(crate) fn is_wanted(&self, events: &[(String, Vec<EventName>)]) -> bool {
        let mut instances = self.instances.iter();
        instances.any(|(instance, boot)| self.is_meant(instance, boot, events_of(events, instance)))
    }

    /// Whether an instance is to be kept and cleared: as in the kernel, one without events keeps what it
    /// has, unless a backup takes it.
    fn is_meant(&self, instance: &Instance, boot: &BootInstance, events: &[EventName]) -> bool {
        !events.is_empty()
            || self.sources.contains(&instance.name)
            || boot.is_recording().unwrap_or(false)
    }

    /// Keeps what they have of the previous boot, and starts their events. One that fails is said, and
    /// left as it is.
    pub(crate) fn start(
        &self,
        state: &StateDir,
        lock: &StateLock,
        run: &outlive_ring::RunRecord,
        events: &[(String, Vec<EventName>)],
    ) -> KernelRecording {
        let one = StartOne {
            tracefs: self.tracefs,
            state,
            lock,
            run,
        };
        let mut recording = KernelRecording::default();
        for (instance, boot) in &self.instances {
            let events = events_of(events, instance);
            if !self.is_meant(instance, boot, events) {
                say!(
                    "{}: the kernel's own, left as it is: no events are given",
                    instance.name
                );
                continue;
            }
            match one.start(instance, boot, events, &mut recording.kept) {
                Ok(keeper) => recording.keepers.extend(keeper),
                Err(error) => {
                    recording.has_failed = true;
                    say!("{}: left as it is: {error:#}", instance.name);
                }
            }
        }
        recording
    }
}

fn events_of<'e>(events: &'e [(String, Vec<EventName>)], instance: &Instance) -> &'e [EventName] {
    let found = events.iter().find(|(name, _)| *name == instance.name);
    found.map_or(&[], |(_, events)| events)
}

struct StartOne<'a> {
    tracefs: &'a Tracefs,
    state: &'a StateDir,
    lock: &'a StateLock,
    run: &'a outlive_ring::RunRecord,
}

impl StartOne<'_> {
    fn start(
        &self,
        instance: &Instance,
        boot: &BootInstance,
        events: &[EventName],
        kept: &mut Vec<Generation>,
    ) -> Result<Option<Keeper>> {
        let writer = RecordingWriter {
            tracefs: self.tracefs,
            state: self.state,
            lock: self.lock,
        };
        let harvester = Harvester {
            tracefs: self.tracefs,
            state: self.state,
            lock: self.lock,
            sequence: self.run.run_sequence,
        };
        let is_recording = boot.is_recording()?;
        let has_started = harvester.has_started(boot)?;
        if is_recording {
            if !has_started && boot.was_cleared_by_kernel(self.tracefs)? {
                tell_cleared(instance);
            }
            // First of all, so that a crash from here on finds it.
            let mut recorded = boot.files().enabled_events()?;
            recorded.extend_from_slice(events);
            writer.write(boot, &recorded, self.run)?;
        }
        for harvested in harvester.harvest(boot)? {
            tell_harvested(&harvested);
            kept.push(harvested.generation);
        }
        failpoint::reached("kernel-harvested");
        if events.is_empty() && !is_recording {
            // What was recorded in this boot is kept nowhere yet.
            if !has_started {
                boot.clear()?;
            }
            return Ok(None);
        }
        let keeper = writer.write(boot, events, self.run)?;
        failpoint::reached("kernel-noted");
        for (name, error) in boot.start(events, !instance.flags.is_traceoff)? {
            say!("{}: cannot enable {name}: {error}", instance.name);
        }
        failpoint::reached("kernel-started");
        let events = boot.files().enabled_events()?.len();
        say!(
            "{}: the kernel records {events} events itself; the start after the next boot keeps them",
            instance.name
        );
        Ok(Some(keeper))
    }
}

fn tell_cleared(instance: &Instance) {
    say!(
        "{name}: the kernel has started its events and so cleared what the previous boot had left; boot it \
         with trace_instance={name}^traceoff@... without events, or from Linux 7.1 with \
         trace_instance=backup={name} behind it",
        name = instance.name
    );
}

fn tell_harvested(harvested: &Harvested) {
    let generation = &harvested.generation;
    let name = generation.to_string();
    say!(
        "{}: what the kernel recorded in the previous boot is kept as {name} (host rebooted): \
         {} events, from {}",
        generation.instance(),
        harvested.events,
        harvested.source,
    );
    if let Some(why) = &harvested.not_copied {
        say!("{name}: consumed from the kernel, since its memory cannot be copied: {why}");
    }
    if !harvested.is_recording_known {
        say!(
            "{name}: nobody noted which kernel recorded it: it is decoded with this kernel's formats"
        );
    }
    if !harvested.is_whole {
        say!(
            "{name}: the kernel's buffers were lost while they were read; the text of all that they had \
             is in {}",
            generation.path().join("kernel/trace").display()
        );
    }
    if !harvested.cut.is_empty() {
        say!(
            "{name}: the kernel's texts were longer than could be kept: {} in {} are cut",
            harvested.cut.join(", "),
            generation.path().join("kernel").display()
        );
    }
}

/// What the kernel records for us.
#[derive(Debug, Default)]
pub(crate) struct KernelRecording {
    keepers: Vec<Keeper>,
    /// What was kept of the previous boot.
    pub(crate) kept: Vec<Generation>,
    /// Whether an instance was left as it is because something failed.
    pub(crate) has_failed: bool,
    last_ns: u64,
}

impl KernelRecording {
    /// Whether nothing is recorded.
    pub(crate) fn is_empty(&self) -> bool {
        self.keepers.is_empty()
    }

    /// Notes what has changed, every ten seconds. What fails is said, and tried again.
    pub(crate) fn tick(&mut self, now_ns: u64) {
        if now_ns.saturating_sub(self.last_ns) < KEEP_NS {
            return;
        }
        self.last_ns = now_ns;
        for keeper in &mut self.keepers {
            if let Err(error) = keeper.tick() {
                say!("{}: {error}", keeper.instance().name());
            }
        }
    }

    /// Does nothing but that until told to stop.
    pub(crate) fn wait(&mut self, stop: &AtomicBool) {
        // Relaxed: the flag carries no data with it.
        while !stop.load(Ordering::Relaxed) {
            self.tick(outlive_trace::clock::monotonic_ns());
            // A signal ends it early.
            let _ = rustix::thread::nanosleep(&LOOK);
        }
        self.last_ns = 0;
        self.tick(outlive_trace::clock::monotonic_ns());
    }
}

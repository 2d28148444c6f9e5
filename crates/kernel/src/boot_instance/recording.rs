//! Writing down what is known of this boot's recording, so that the boot after a crash can read it.

use std::collections::HashSet;

use outlive_event::{CatalogRecord, RecordKind};
use outlive_ring::catalog::CatalogRecords;
use outlive_ring::extension::{ClockPair, Heartbeat, clock_pairs, store_clock_pair};
use outlive_ring::{Recovery, Region, RunRecord};
use outlive_trace::cmdline::TraceClock;
use outlive_trace::verdict::boot_id;
use outlive_trace::{Mapping, Recording, StateDir, StateLock, clock, retention};

use super::BootInstance;
use crate::capture::{Running, text_address, write_catalog};
use crate::catalog_writer::CatalogWriter;
use crate::clock::clock_pair;
use crate::cpus::nr_cpu_ids;
use crate::error::Error;
use crate::names::scan_tasks;
use crate::tracefs::{EventName, Tracefs};

/// Bytes for everything but the symbols: the formats of all events of a kernel.
const LOG_BYTES: usize = 4 << 20;
/// Kind of the record that has the kernel's symbols, as lines of `/proc/kallsyms`: none of a catalog, into
/// which only those symbols go that occur.
pub(super) const KALLSYMS: u16 = 0x4b53;
/// Task names that are kept.
const TASK_NAMES: usize = 8192;

/// Writes the recording of this boot.
#[derive(Clone, Copy, Debug)]
pub struct RecordingWriter<'a> {
    /// The machine's tracefs.
    pub tracefs: &'a Tracefs,
    /// Where recordings are kept.
    pub state: &'a StateDir,
    /// Its lock.
    pub lock: &'a StateLock,
}

impl RecordingWriter<'_> {
    /// Writes what is known of the events that an instance records in this boot, or is going to. One that
    /// this boot has already is gone on with: it knows tasks that have ended since.
    ///
    /// # Errors
    /// The kernel's files cannot be read, or the file not be written.
    pub fn write(
        &self,
        instance: &BootInstance,
        events: &[EventName],
        run: &RunRecord,
    ) -> Result<Keeper, Error> {
        let of_this_boot = |recording: &Recording| recording.run().boot_id == boot_id();
        let found = Recording::list(self.state, instance.name())?
            .into_iter()
            .rfind(of_this_boot);
        let recording = match found {
            Some(recording) => recording,
            None => self.create(instance, events, run)?,
        };
        Keeper::open(self.tracefs.clone(), instance.clone(), recording, events)
    }

    fn create(
        &self,
        instance: &BootInstance,
        events: &[EventName],
        run: &RunRecord,
    ) -> Result<Recording, Error> {
        let symbols = code_symbols();
        let log_bytes = LOG_BYTES + symbols.len();
        let layout = Recording::layout_for(nr_cpu_ids()?, log_bytes, TASK_NAMES)?;
        let run = RunRecord {
            sequence: 1,
            instance: instance.name().to_owned(),
            clock: instance.files().trace_clock()?,
            source: format!("the kernel's instance {}", instance.name()),
            ..run.clone()
        };
        let write = |mapping: &Mapping| {
            let Some(memory) = mapping.memory_mut() else {
                return Ok(());
            };
            let region =
                Region::format(memory, *layout.ring(), Some(layout)).map_err(|source| {
                    outlive_trace::Error::Layout {
                        name: instance.name().to_owned(),
                        source,
                    }
                })?;
            let mut catalog = CatalogWriter::new(&layout, region.memory());
            let text_addr = write_catalog(self.tracefs, events, &run.clock, &mut catalog)?;
            Running::now()?.write(&mut catalog);
            catalog.copy(KALLSYMS, symbols.as_bytes());
            let clock_id = TraceClock::from_name(&run.clock).map_or(0, TraceClock::id);
            region.store_scratch(clock_id, text_addr);
            run.store(&layout, region.memory());
            Ok::<_, Error>(())
        };
        let (name, len) = (instance.name(), layout.area_size());
        retention::make_room(self.state, self.lock, len)?;
        let path = Recording::write(self.state, self.lock, name, &run.boot_id, len, write)?;
        Recording::open(&path).ok_or_else(|| Error::Malformed {
            path,
            what: "it was written, and cannot be read".into(),
        })
    }
}

/// The lines of `/proc/kallsyms` that are about code: that is what addresses in events point to. Nothing where
/// the kernel hides it.
fn code_symbols() -> String {
    let text = std::fs::read_to_string("/proc/kallsyms").unwrap_or_default();
    let is_code = |line: &&str| {
        let kind = line.split(' ').nth(1).unwrap_or_default();
        matches!(kind, "T" | "t" | "W" | "w") && !line.starts_with("0000000000000000")
    };
    let lines = text.split_inclusive('\n');
    lines.filter(is_code).collect()
}

/// Keeps the recording of this boot up to date while the kernel records: events that somebody enables,
/// names of new tasks, clocks.
#[derive(Debug)]
pub struct Keeper {
    tracefs: Tracefs,
    instance: BootInstance,
    recording: Recording,
    known: HashSet<EventName>,
    pairs: u64,
    ticks: u64,
}

impl Keeper {
    fn open(
        tracefs: Tracefs,
        instance: BootInstance,
        recording: Recording,
        events: &[EventName],
    ) -> Result<Self, Error> {
        let (layout, mapping) = (recording.layout(), recording.mapping());
        let known = formats_in(&CatalogRecords::load(layout, mapping));
        let pairs = clock_pairs(layout, mapping).len() as u64;
        let mut keeper = Self {
            tracefs,
            instance,
            recording,
            known,
            pairs,
            ticks: 0,
        };
        keeper.learn(events)?;
        keeper.tick()?;
        Ok(keeper)
    }

    /// The instance.
    #[must_use]
    pub fn instance(&self) -> &BootInstance {
        &self.instance
    }

    /// Notes what has changed, durably.
    ///
    /// # Errors
    /// The kernel's files cannot be read, or the file not be written.
    pub fn tick(&mut self) -> Result<(), Error> {
        self.learn(&self.instance.files().enabled_events()?)?;
        let (layout, mapping) = (self.recording.layout(), self.recording.mapping());
        let Some(memory) = mapping.memory_mut() else {
            return Ok(());
        };
        let mut catalog = CatalogWriter::open(layout, memory);
        for (pid, name) in self.tracefs.saved_cmdlines().unwrap_or_default() {
            catalog.task_name(pid, name.as_bytes());
        }
        for task in scan_tasks()? {
            catalog.task_name(task.tid, task.comm.as_bytes());
        }
        if let Some(&cpu) = self.instance.files().cpus()?.first() {
            let pair = clock_pair(&self.instance.files().stats(cpu)?)?;
            let pair = ClockPair {
                trace: pair.trace,
                monotonic_ns: pair.monotonic_ns,
                boottime_ns: pair.boottime_ns,
                realtime_ns: pair.realtime_ns,
                error_ns: pair.error_ns,
            };
            store_clock_pair(layout, &memory, self.pairs, pair);
            self.pairs += 1;
        }
        self.ticks += 1;
        let now = clock::read();
        let beat = Heartbeat {
            monotonic_ns: now.monotonic_ns,
            boottime_ns: now.boottime_ns,
            realtime_ns: now.realtime_ns,
            polls: self.ticks,
            catalog_dropped: catalog.dropped(),
            ..Heartbeat::default()
        };
        beat.store(layout, &memory);
        let synced = mapping.sync(0..mapping.len());
        synced.map_err(|e| Error::io("sync the recording of", self.instance.files().folder(), e))
    }

    /// Writes the formats of events that are not known yet.
    fn learn(&mut self, events: &[EventName]) -> Result<(), Error> {
        let Some(memory) = self.recording.mapping().memory_mut() else {
            return Ok(());
        };
        let mut catalog = CatalogWriter::open(self.recording.layout(), memory);
        for event in events {
            if self.known.insert(event.clone()) {
                catalog.format(&event.system, &self.tracefs.event_format(event)?);
            }
        }
        Ok(())
    }
}

/// The events whose formats a catalog has.
fn formats_in(catalog: &CatalogRecords) -> HashSet<EventName> {
    let name = |(kind, payload): &(u16, Vec<u8>)| {
        let kind = RecordKind::from_u16(*kind)?;
        let Ok(CatalogRecord::EventFormat { system, text }) = CatalogRecord::decode(kind, payload)
        else {
            return None;
        };
        let name = text.lines().next()?.strip_prefix("name: ")?;
        Some(EventName::new(system, name.trim()))
    };
    catalog.records.iter().filter_map(name).collect()
}

/// The recording that events of an instance are of: the newest before a run, of another boot, that does not
/// contradict what the kernel says of the boot before. `None` where nobody noted it.
pub(super) fn find(
    state: &StateDir,
    instance: &str,
    before_run: u64,
    last_boot_info: &str,
) -> Result<Option<Recording>, Error> {
    let mut recordings = Recording::list(state, instance)?.into_iter();
    let written_at = text_address_of(last_boot_info);
    let fits = |recording: &Recording| {
        let run = recording.run();
        run.run_sequence < before_run
            && run.boot_id != boot_id()
            && may_be_one(text_address_in(recording), written_at)
    };
    Ok(recordings.rfind(fits))
}

/// Whether two addresses of `_text` may be those of one boot; 0 is unknown.
fn may_be_one(a: u64, b: u64) -> bool {
    a == 0 || b == 0 || a == b
}

/// Where the kernel lay that recorded; 0 where it did not tell.
pub(super) fn text_address_in(recording: &Recording) -> u64 {
    let region = Recovery::locate(recording.mapping()).ok();
    let scratch = region.and_then(|region| region.scratch);
    scratch.map_or(0, |scratch| scratch.text_addr)
}

/// The address at which the kernel lay that recorded: from 6.15 on it is said, before as a difference to
/// that of this kernel; 0 if it is not said.
fn text_address_of(last_boot_info: &str) -> u64 {
    let Some(first) = last_boot_info.lines().next() else {
        return 0;
    };
    if let Some(delta) = first.strip_prefix("text delta:") {
        let here = text_address();
        return match delta.trim().parse::<i64>() {
            Ok(delta) if here != 0 => here.wrapping_sub(delta.cast_unsigned()),
            _ => 0,
        };
    }
    let (address, name) = first.split_once('\t').unwrap_or(("0", ""));
    match name {
        "[kernel]" => u64::from_str_radix(address, 16).unwrap_or(0),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn address_of_the_kernel_that_recorded_is_read_in_all_forms() {
        let of_6_18 = "ffffffff81000000\t[kernel]\nffffffffc0000000\text4\n";
        assert_eq!(text_address_of(of_6_18), 0xffff_ffff_8100_0000);
        assert_eq!(text_address_of("0\t[kernel]\n"), 0);
        let of_7_3 =
            include_str!("../../../../fixtures/golden/4-nextboot-backup-last_boot_info.txt");
        assert_eq!(text_address_of(of_7_3), 0xffff_ffff_9fe0_0000);
        let live = include_str!("../../../../fixtures/golden/3-live-last_boot_info.txt");
        assert_eq!(text_address_of(live), 0);
        assert_eq!(text_address_of(""), 0);
        assert_eq!(text_address_of("text delta:\tunreadable\n"), 0);
        let moved = text_address_of("text delta:\t4096\ndata delta:\t0\n");
        assert_eq!(moved, text_address().saturating_sub(4096));
    }
}

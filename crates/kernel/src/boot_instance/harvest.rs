//! Making a generation of what an instance has of the previous boot.

use outlive_event::Symbols;
use outlive_ring::catalog::{CatalogRecords, task_names};
use outlive_ring::extension::{Heartbeat, Layout, clock_pairs, store_clock_pair};
use outlive_ring::{MemoryMut, RawMemory, Region, RunRecord};
use outlive_trace::cmdline::TraceClock;
use outlive_trace::generation::{keep_by_move, list_instance};
use outlive_trace::harvest::{About, Harvest, PageFile};
use outlive_trace::start::KERNEL_BACKING;
use outlive_trace::{
    Generation, Mapping, Meta, Recording, StateDir, StateLock, Verdict, failpoint, retention, tail,
};

use super::buffer_meta::BufferMeta;
use super::memory::RingMemory;
use super::recording::KALLSYMS;
use super::{BootInstance, recording, this_boot, words};
use crate::capture::{text_address, write_catalog};
use crate::catalog_writer::CatalogWriter;
use crate::cpus::{CpuId, nr_cpu_ids};
use crate::error::Error;
use crate::leftover::layout_for;
use crate::mapped::MappedRing;
use crate::region_sink::RegionSink;
use crate::sink::SubbufSink;
use crate::stats::CpuStats;
use crate::subbuf::{DATA_BYTES, HEADER_BYTES, Records, SubbufHeader};
use crate::tracefs::{Tracefs, read_text};

/// Key of a generation's `meta.json` for where its events are from.
const META_KEY: &str = "harvested";
/// Bytes of a kernel's text for each byte of its ring, about, and the copies that are made of the ring.
const ROOM_FACTOR: u64 = 5;

type Sink<'r, 'm> = RegionSink<'r, RawMemory<'m>>;

/// Makes generations of what the kernel's own instances have of the previous boot.
#[derive(Clone, Copy, Debug)]
pub struct Harvester<'a> {
    /// The machine's tracefs.
    pub tracefs: &'a Tracefs,
    /// Where the generations are.
    pub state: &'a StateDir,
    /// Its lock: no other recorder runs on it.
    pub lock: &'a StateLock,
    /// The number of this run, and so of a generation that is begun now.
    pub sequence: u64,
}

/// A generation that was made of a kernel's instance.
#[derive(Debug)]
#[non_exhaustive]
pub struct Harvested {
    /// It.
    pub generation: Generation,
    /// The kernel's instance that was read.
    pub source: String,
    /// Events that the kernel counted. Discarded ones may be among them.
    pub entries: u64,
    /// Events in the generation.
    pub events: u64,
    /// Whether the kernel gave all that it had. If it did not, because the machine went down while its
    /// buffers were being consumed, the generation has the kernel's text of the rest.
    pub is_whole: bool,
    /// Whether the boot that recorded had noted formats and symbols. Else they are this kernel's.
    pub is_recording_known: bool,
    /// Why the instance's memory, whose address is known, was consumed through the kernel and not copied.
    pub not_copied: Option<Error>,
    /// Which of the kernel's own words the generation has only the beginning of: those of a damaged ring
    /// may never end.
    pub cut: Vec<String>,
}

/// How a ring is read.
#[derive(Debug)]
enum Way {
    /// The kernel lets us map it. Nothing is consumed.
    Map,
    /// The memory has an address that we can read. Nothing is consumed.
    Memory(RingMemory),
    /// What was read is gone from the kernel. With the reason, if the memory has an address.
    Consume(Option<Error>),
}

/// What one pass over pages brought.
#[derive(Clone, Copy, Debug, Default)]
struct Delivered {
    events: u64,
}

impl Harvester<'_> {
    /// Keeps what an instance has of the previous boot; nothing if there is none, or it is kept already.
    /// A harvest that a killed start had begun is ended first.
    ///
    /// # Errors
    /// The kernel's files cannot be read, or the state folder not be written. Nothing is lost then, and
    /// the instance must not be started.
    pub fn harvest(&self, instance: &BootInstance) -> Result<Vec<Harvested>, Error> {
        let mut harvested = Vec::new();
        if let Some(begun) = Harvest::find(self.state, self.lock, instance.name())? {
            harvested.push(self.go_on(instance, begun)?);
        }
        let Some((source, mut way)) = self.source(instance)? else {
            return Ok(harvested);
        };
        let about = self.about(instance, &source)?;
        if about.entries > 0 && !self.is_kept(&about)? {
            harvested.push(match &mut way {
                Way::Map => self.copy(instance, about.clone(), deliver_mapped)?,
                Way::Memory(memory) => {
                    self.copy(instance, about.clone(), |_, sink, delivered| {
                        deliver_memory(memory, sink, delivered);
                        Ok(())
                    })?
                }
                Way::Consume(not_copied) => {
                    let begun = self.begin(&source, about.clone())?;
                    Harvested {
                        not_copied: not_copied.take(),
                        ..self.consume(&source, begun)?
                    }
                }
            });
        }
        if matches!(way, Way::Memory(_)) && self.is_kept(&about)? {
            // Kept twice otherwise, where starting events does not clear all CPUs.
            source.clear()?;
        }
        let is_drained = about.entries == 0 || self.is_kept_of_this_boot(&about)?;
        if is_drained && source.is_read_only() {
            end(&source);
        }
        Ok(harvested)
    }

    /// Where the previous boot's events are, and how they are read there.
    fn source(&self, instance: &BootInstance) -> Result<Option<(BootInstance, Way)>, Error> {
        let is_own = instance.is_of_previous_boot()? && !self.has_started(instance)?;
        if is_own && instance.is_mappable()? {
            return Ok(Some((instance.clone(), Way::Map)));
        }
        if let Some(backup) = instance.backup(self.tracefs)? {
            return Ok(Some((backup, Way::Consume(None))));
        }
        if !is_own {
            return Ok(None);
        }
        let way = match RingMemory::of(instance) {
            Ok(Some(memory)) => Way::Memory(memory),
            Ok(None) => Way::Consume(None),
            Err(error) => Way::Consume(Some(error)),
        };
        Ok(Some((instance.clone(), way)))
    }

    /// Whether a start of this boot has noted its recording: then it has started events, or found them
    /// started. Up to 6.14 the kernel does not tell.
    ///
    /// # Errors
    /// The state folder cannot be read.
    pub fn has_started(&self, instance: &BootInstance) -> Result<bool, Error> {
        let boot = outlive_trace::verdict::boot_id();
        let recordings = Recording::list(self.state, instance.name())?;
        Ok(recordings
            .iter()
            .any(|recording| recording.run().boot_id == boot))
    }

    fn about(&self, instance: &BootInstance, source: &BootInstance) -> Result<About, Error> {
        let mut about = About::new(instance.name(), source.name(), self.sequence, &this_boot());
        for (cpu, stats) in source.counts()? {
            about.entries = about.entries.saturating_add(stats.entries);
            about.fingerprint.push(fingerprint(cpu, &stats));
        }
        Ok(about)
    }

    /// Whether the events of a source are in a generation: of this boot, or of one before in which nothing
    /// was recorded behind them.
    fn is_kept(&self, about: &About) -> Result<bool, Error> {
        let newest = self.newest(about)?;
        Ok(
            newest.is_some_and(|newest| newest.fingerprint == about.fingerprint)
                || self.is_kept_of_this_boot(about)?,
        )
    }

    fn is_kept_of_this_boot(&self, about: &About) -> Result<bool, Error> {
        let newest = self.newest(about)?;
        Ok(newest.is_some_and(|newest| {
            (newest.boot_id, newest.source) == (about.boot_id.clone(), about.source.clone())
        }))
    }

    /// Of what the newest generation was harvested.
    fn newest(&self, about: &About) -> Result<Option<About>, Error> {
        let kept = list_instance(self.state, &about.instance)?;
        Ok(kept.iter().rev().find_map(noted))
    }

    /// Copies rings of which nothing is consumed.
    fn copy(
        &self,
        instance: &BootInstance,
        about: About,
        deliver: impl FnOnce(&BootInstance, &mut Sink<'_, '_>, &mut Delivered) -> Result<(), Error>,
    ) -> Result<Harvested, Error> {
        let info = last_boot_info(instance)?;
        let recording = recording::find(self.state, instance.name(), self.sequence, &info)?;
        let mut subbufs = 0;
        for (cpu, _) in instance.counts()? {
            subbufs = subbufs.max(buffer_meta(instance, cpu)?.nr_subbufs());
        }
        let layout = layout_for(instance.name(), nr_cpu_ids()?, subbufs as u64 + 1)?;
        let len = layout.area_size();
        retention::make_room(self.state, self.lock, len)?;
        let filler = Filler {
            tracefs: self.tracefs,
            about: &about,
            recording: recording.as_ref(),
            clock: instance.files().trace_clock()?,
        };
        let mut delivered = Delivered::default();
        let path = tail::write_orphan(self.state, self.lock, len, |mapping| {
            filler.fill(&layout, mapping, |sink| {
                deliver(instance, sink, &mut delivered)
            })
        })?;
        let meta = meta(&about, recording.as_ref());
        let generation = keep_by_move(self.state, self.lock, &path, &meta)?;
        failpoint::reached("harvest-mapped");
        let harvested = Harvested {
            generation,
            source: about.source.clone(),
            entries: about.entries,
            events: delivered.events,
            is_whole: true,
            is_recording_known: recording.is_some(),
            not_copied: None,
            cut: Vec::new(),
        };
        self.forget(recording)?;
        Ok(harvested)
    }

    /// Saves what the kernel says, before anything is consumed.
    fn begin(&self, source: &BootInstance, about: About) -> Result<Harvest, Error> {
        let counts = source.counts()?;
        let bytes = counts.iter().map(|(_, stats)| stats.bytes);
        let bytes = bytes.fold(0, u64::saturating_add);
        retention::make_room(self.state, self.lock, bytes.saturating_mul(ROOM_FACTOR))?;
        Harvest::begin(self.state, self.lock, about, |folder, about| {
            words::save(source, folder, about)
        })
    }

    /// Goes on with a harvest that a start had begun which was killed, or whose machine went down.
    fn go_on(&self, instance: &BootInstance, harvest: Harvest) -> Result<Harvested, Error> {
        let about = harvest.about();
        let source = BootInstance::find(self.tracefs, &about.source);
        let is_there = match &source {
            _ if about.is_drained => false,
            Some(_) if about.boot_id == this_boot() => true,
            // Of a backup nothing is left. An instance that nobody has started still has the rest.
            Some(source) if about.source == about.instance => {
                source.is_of_previous_boot()?
                    && self.about(instance, source)?.entries <= about.entries
            }
            _ => false,
        };
        match source.filter(|_| is_there) {
            Some(source) => self.consume(&source, harvest),
            None => self.keep(harvest),
        }
    }

    /// Reads what the kernel still has.
    fn consume(&self, source: &BootInstance, mut harvest: Harvest) -> Result<Harvested, Error> {
        for (cpu, stats) in source.counts()? {
            // What a damaged ring says of itself may be wrong; the file grows.
            let subbufs = buffer_meta(source, cpu).map_or(0, |meta| meta.nr_subbufs());
            if let Some(mut pages) = harvest.pages(cpu.0, subbufs + 1)? {
                take_all(source, cpu, &stats, &mut pages)?;
            }
        }
        harvest.set_drained()?;
        failpoint::reached("harvest-consumed");
        let harvested = self.keep(harvest)?;
        if source.name() == harvested.generation.instance() {
            // The kernel shows the last sub-buffer of each CPU again after the next crash.
            source.clear()?;
        }
        Ok(harvested)
    }

    /// Makes a generation of what was read.
    fn keep(&self, harvest: Harvest) -> Result<Harvested, Error> {
        let mut about = harvest.about().clone();
        let is_whole = about.is_drained;
        if is_whole {
            harvest.drop_text()?;
            about.cut.retain(|name| name != words::TRACE);
        }
        let info = read_text(&harvest.word("last_boot_info"))?;
        let recording = recording::find(self.state, &about.instance, about.seq, &info)?;
        let nr_cpus = nr_cpu_ids()?;
        let mut files = Vec::new();
        for cpu in 0..nr_cpus {
            files.extend(harvest.pages(cpu, 0)?.map(|pages| (CpuId(cpu), pages)));
        }
        let subbufs = files.iter().map(|(_, pages)| pages.len()).max();
        let layout = layout_for(&about.instance, nr_cpus, subbufs.unwrap_or(0) as u64 + 2)?;
        let filler = Filler {
            tracefs: self.tracefs,
            about: &about,
            recording: recording.as_ref(),
            clock: clock_in_brackets(&read_text(&harvest.word("trace_clock"))?),
        };
        let meta = meta(&about, recording.as_ref());
        let mut delivered = Delivered::default();
        let len = layout.area_size();
        retention::make_room(self.state, self.lock, len)?;
        let generation = harvest.keep(self.state, self.lock, &meta, len, |mapping| {
            filler.fill(&layout, mapping, |sink| {
                for (cpu, pages) in &files {
                    deliver_pages(*cpu, pages, sink, &mut delivered);
                }
                Ok(())
            })
        })?;
        let harvested = Harvested {
            generation,
            source: about.source,
            entries: about.entries,
            events: delivered.events,
            is_whole,
            is_recording_known: recording.is_some(),
            not_copied: None,
            cut: about.cut.clone(),
        };
        self.forget(recording)?;
        Ok(harvested)
    }

    /// Removes a recording that a generation has, and what is older.
    fn forget(&self, kept: Option<Recording>) -> Result<(), Error> {
        let Some(kept) = kept else {
            return Ok(());
        };
        let run = kept.run().clone();
        for recording in Recording::list(self.state, &run.instance)? {
            if recording.run().run_sequence <= run.run_sequence {
                recording.remove(self.lock)?;
            }
        }
        Ok(())
    }
}

/// Reads a backup that has nothing any more, which removes it (7.1). One without that habit stays, and so
/// does one that somebody else has open; each next start tries again.
fn end(backup: &BootInstance) {
    use std::io::Read;
    for cpu in backup.files().cpus().unwrap_or_default() {
        if let Ok(mut raw) = backup.files().open_raw(cpu) {
            let _ = raw.read(&mut [0; HEADER_BYTES + DATA_BYTES]);
        }
    }
    failpoint::reached("harvest-ended");
}

/// Takes all sub-buffers of a CPU. The read that would find it empty is left out: for a backup it comes
/// when all is kept.
fn take_all(
    source: &BootInstance,
    cpu: CpuId,
    stats: &CpuStats,
    pages: &mut PageFile,
) -> Result<(), Error> {
    let raw = source.files().open_raw(cpu)?;
    let counters = source.files().stats(cpu)?;
    let mut left = stats.entries;
    while left > 0 && pages.take(&raw)? {
        left = counters.read()?.entries;
    }
    Ok(pages.sync()?)
}

fn deliver_mapped(
    instance: &BootInstance,
    sink: &mut Sink<'_, '_>,
    delivered: &mut Delivered,
) -> Result<(), Error> {
    let mut data = [0; DATA_BYTES];
    for (cpu, _) in instance.counts()? {
        let ring = MappedRing::map(cpu, &instance.files().open_raw(cpu)?)?;
        for id in buffer_meta(instance, cpu)?.in_order() {
            let Some(header) = ring.header(id) else {
                continue;
            };
            if ring.read_data(id, header.time_stamp, (0, header.size), &mut data) {
                delivered.take(sink, cpu, &header, &data);
            }
        }
    }
    Ok(())
}

fn deliver_memory(memory: &RingMemory, sink: &mut Sink<'_, '_>, delivered: &mut Delivered) {
    memory.each_page(|cpu, page, records| {
        if let Some(missed) = page.missed {
            sink.lost(cpu, missed.count());
        }
        delivered.take_records(sink, cpu, page.time_stamp, records);
    });
}

fn deliver_pages(cpu: CpuId, pages: &PageFile, sink: &mut Sink<'_, '_>, delivered: &mut Delivered) {
    let mut last = None;
    for number in 0..pages.len() {
        let page = pages.page(number);
        // After a crash of the machine the kernel gives the last one that it gave before once more.
        if last.as_ref() == Some(&page) {
            continue;
        }
        let (header, data) = page.split_at(HEADER_BYTES);
        let word = |at: usize| u64::from_le_bytes(*header[at..].first_chunk().unwrap_or(&[0; 8]));
        let header = SubbufHeader::new(word(0), word(8));
        let data = data.first_chunk().unwrap_or(&[0; DATA_BYTES]);
        delivered.take(sink, cpu, &header, data);
        last = Some(page);
    }
}

impl Delivered {
    /// Takes a sub-buffer over, and before it what was lost there.
    fn take(
        &mut self,
        sink: &mut Sink<'_, '_>,
        cpu: CpuId,
        header: &SubbufHeader,
        data: &[u8; DATA_BYTES],
    ) {
        if header.has_missed_events {
            let count = data.get(header.size..).and_then(|rest| rest.first_chunk());
            let count = count.filter(|_| header.has_missed_count);
            // A loss of unknown size is stored as the largest number.
            let known = count.map(|bytes| u64::from_le_bytes(*bytes));
            sink.lost(cpu, known.filter(|&count| count != u64::MAX));
        }
        self.take_records(sink, cpu, header.time_stamp, &data[..header.size]);
    }

    fn take_records(
        &mut self,
        sink: &mut Sink<'_, '_>,
        cpu: CpuId,
        time_stamp: u64,
        records: &[u8],
    ) {
        if records.is_empty() {
            return;
        }
        sink.begin(cpu, time_stamp);
        sink.append(cpu, records);
        sink.end(cpu);
        self.events += Records::count(records).events;
    }
}

/// Fills a region of ours.
struct Filler<'a> {
    tracefs: &'a Tracefs,
    about: &'a About,
    recording: Option<&'a Recording>,
    clock: String,
}

impl Filler<'_> {
    fn fill(
        &self,
        layout: &Layout,
        mapping: &Mapping,
        deliver: impl FnOnce(&mut Sink<'_, '_>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let of_layout = |source| outlive_trace::Error::Layout {
            name: self.about.instance.clone(),
            source,
        };
        let bad = outlive_ring::LayoutError::BadSize { size: 0 };
        let memory = mapping.memory_mut().ok_or_else(|| of_layout(bad))?;
        let region = Region::format(memory, *layout.ring(), Some(*layout)).map_err(of_layout)?;
        let (catalog, text_addr) = match self.recording {
            Some(recording) => copy_extension(recording, layout, region.memory()),
            None => self.catalog_of_this_kernel(layout, region.memory())?,
        };
        let run = self.run_record();
        let clock_id = TraceClock::from_name(&run.clock).map_or(0, TraceClock::id);
        region.store_scratch(clock_id, text_addr);
        run.store(layout, region.memory());
        let mut sink = RegionSink::new(&region, Some(catalog));
        deliver(&mut sink)?;
        sink.close();
        Ok(())
    }

    fn run_record(&self) -> RunRecord {
        match self.recording {
            Some(recording) => recording.run().clone(),
            None => RunRecord {
                sequence: 1,
                host: outlive_trace::host::hostname(),
                instance: self.about.instance.clone(),
                clock: self.clock.clone(),
                source: format!("the kernel's instance {}", self.about.instance),
                ..RunRecord::default()
            },
        }
    }

    /// Nobody noted what recorded: the formats of this kernel are the best guess.
    fn catalog_of_this_kernel<'r, M: MemoryMut>(
        &self,
        layout: &Layout,
        memory: &'r M,
    ) -> Result<(CatalogWriter<&'r M>, u64), Error> {
        let mut catalog = CatalogWriter::of_past_boot(layout, memory, Symbols::default());
        let events = self.tracefs.available_events()?;
        write_catalog(self.tracefs, &events, &self.clock, &mut catalog)?;
        Ok((catalog, text_address()))
    }
}

/// Copies what a recording knows, and returns where its kernel lay.
fn copy_extension<'r, M: MemoryMut>(
    recording: &Recording,
    layout: &Layout,
    memory: &'r M,
) -> (CatalogWriter<&'r M>, u64) {
    let (from, bytes) = (recording.layout(), recording.mapping());
    let records = CatalogRecords::load(from, bytes).records;
    let mut symbols = Symbols::default();
    let kallsyms = records.iter().find(|(kind, _)| *kind == KALLSYMS);
    if let Some((_, text)) = kallsyms {
        symbols.parse_kallsyms(&String::from_utf8_lossy(text));
    }
    let mut catalog = CatalogWriter::of_past_boot(layout, memory, symbols);
    for (kind, payload) in records.iter().filter(|(kind, _)| *kind != KALLSYMS) {
        catalog.copy(*kind, payload);
    }
    for (pid, name) in task_names(from, bytes) {
        catalog.task_name(pid, &name);
    }
    for (pair, number) in clock_pairs(from, bytes).into_iter().zip(0..) {
        store_clock_pair(layout, memory, number, pair);
    }
    Heartbeat::load(from, bytes).store(layout, memory);
    (catalog, recording::text_address_in(recording))
}

fn meta(about: &About, recording: Option<&Recording>) -> Meta {
    let mut meta = Meta::new(&about.instance, about.seq, KERNEL_BACKING);
    if let Some(run) = recording.map(Recording::run) {
        meta.run_id = Some(run.run_id.to_string());
        meta.boot_id = Some(outlive_ring::RunId(run.boot_id).to_string());
    }
    meta.recorded_as = Some(about.instance.clone());
    Verdict::HostRebooted.note(&mut meta);
    if let Ok(about) = serde_json::to_value(about) {
        meta.other.insert(META_KEY.to_owned(), about);
    }
    meta
}

/// What a generation was harvested from.
fn noted(generation: &Generation) -> Option<About> {
    let noted = generation.meta()?.other.get(META_KEY)?;
    serde_json::from_value(noted.clone()).ok()
}

/// What tells the events of a CPU from any others.
fn fingerprint(cpu: CpuId, stats: &CpuStats) -> String {
    let CpuStats {
        entries,
        bytes,
        oldest_event_ts,
        ..
    } = stats;
    format!("{cpu}: {entries} {bytes} {}", oldest_event_ts.value)
}

pub(super) fn buffer_meta(instance: &BootInstance, cpu: CpuId) -> Result<BufferMeta, Error> {
    let path = instance.files().cpu_file(cpu, "buffer_meta");
    BufferMeta::parse(&read_text(&path)?).ok_or_else(|| Error::Malformed {
        path,
        what: "it does not tell the order of the sub-buffers".into(),
    })
}

fn last_boot_info(instance: &BootInstance) -> Result<String, Error> {
    read_text(&instance.files().folder().join("last_boot_info"))
}

/// The clock of a saved `trace_clock`.
fn clock_in_brackets(text: &str) -> String {
    let clock = text
        .split_once('[')
        .and_then(|(_, rest)| rest.split_once(']'));
    clock.map_or_else(String::new, |(clock, _)| clock.to_owned())
}

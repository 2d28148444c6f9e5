//! A region and its catalog, whoever wrote them: what every command that shows events reads.
//!
//! A view is made of one or two regions: the *region* that a recorder or a kernel wrote, and the
//! *tail*, what the host kernel's ring still held when the recorder had died. Both hold
//! sub-buffers of the same ring, so they are read as one: by CPU and time stamp, and of two copies
//! of a sub-buffer the longer one.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use outlive_event::Catalog;
use outlive_ring::catalog::{CatalogRecords, task_names};
use outlive_ring::extension::{ClockPair, Counters, Heartbeat, clock_pairs};
use outlive_ring::layout::SUBBUF_DATA;
use outlive_ring::subbuf::Position;
use outlive_ring::{Events, Hole, Missed, Page, RecoveredCpu, Recovery, RunRecord};

use crate::{Access, Error, Mapping};

type Result<T, E = Error> = std::result::Result<T, E>;

/// One region of a view.
#[derive(Debug)]
pub struct Part {
    /// The file that it is in.
    pub path: PathBuf,
    /// What is kept of it.
    pub recovery: Recovery,
    mapping: Mapping,
}

impl Part {
    fn open(path: &Path) -> Result<Self> {
        let mapping = map(path)?;
        let mut recovery = Recovery::locate(&mapping).map_err(|source| Error::NotARegion {
            path: path.to_owned(),
            source,
        })?;
        recovery.cpus = recover_cpus(&recovery, &mapping);
        Ok(Self {
            path: path.to_owned(),
            recovery,
            mapping,
        })
    }

    /// The counters of a CPU; zero where the region has no extension.
    #[must_use]
    pub fn counters(&self, cpu: u32) -> Counters {
        match &self.recovery.extension {
            Some(layout) if cpu < layout.ring().nr_cpus() => {
                Counters::load(layout, &self.mapping, cpu)
            }
            _ => Counters::default(),
        }
    }

    /// Number of the first event behind this part in the ring that it was copied from.
    fn next_event(&self, cpu: u32) -> u64 {
        let counters = self.counters(cpu);
        let entries = self
            .recovery
            .cpus
            .get(cpu as usize)
            .map_or(0, |cpu| cpu.entries);
        counters.overrun + counters.lost + entries
    }
}

/// Maps a whole file for reading.
fn map(path: &Path) -> Result<Mapping> {
    let file = std::fs::File::open(path).map_err(Error::io("open", path))?;
    let len = file.metadata().map_err(Error::io("look at", path))?.len();
    if len == 0 {
        let source = outlive_ring::LayoutError::BadSize { size: 0 };
        return Err(Error::NotARegion {
            path: path.to_owned(),
            source,
        });
    }
    Mapping::of_file(&file, path, len, Access::ReadOnly)
}

/// Recovers all CPUs, on as many threads as there are processors.
fn recover_cpus(recovery: &Recovery, mapping: &Mapping) -> Vec<RecoveredCpu> {
    let nr_cpus = recovery.geometry.nr_cpus();
    let threads = std::thread::available_parallelism()
        .map_or(1, usize::from)
        .min(nr_cpus as usize);
    let next = std::sync::atomic::AtomicU32::new(0);
    let mut cpus: Vec<RecoveredCpu> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|_| {
                scope.spawn(|| {
                    let mut done = Vec::new();
                    loop {
                        let cpu = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                        if cpu >= nr_cpus {
                            return done;
                        }
                        done.push(recovery.recover_cpu(mapping, cpu));
                    }
                })
            })
            .collect();
        workers
            .into_iter()
            .flat_map(|worker| worker.join().unwrap_or_default())
            .collect()
    });
    cpus.sort_unstable_by_key(|cpu| cpu.cpu);
    cpus
}

/// A sub-buffer of one of the parts.
#[derive(Debug, Clone, Copy)]
struct Placed {
    part: usize,
    page: Page,
}

/// The sub-buffers of one CPU over all parts, oldest first.
#[derive(Debug, Default)]
pub struct ViewCpu {
    /// The CPU.
    pub cpu: u32,
    /// Entries, as the kernel's `stats` counts them.
    pub entries: u64,
    /// Bytes of events.
    pub bytes: u64,
    /// Counters over all parts: overrun, lost and so on.
    pub counters: Counters,
    /// Time stamp of the oldest sub-buffer, in the unit of the trace clock.
    pub oldest: Option<u64>,
    /// Gaps inside the parts and between them.
    pub holes: Vec<Hole>,
    pages: Vec<Placed>,
}

/// One or two regions, read as one.
#[derive(Debug)]
pub struct View {
    /// The region, and the tail if there is one.
    pub parts: Vec<Part>,
    /// What is needed to decode the events.
    pub catalog: Catalog,
    /// Catalog records that are damaged.
    pub catalog_damaged: u32,
    /// Who wrote the region; `None` for a kernel's region.
    pub run: Option<RunRecord>,
    /// The recorder's last sign of life.
    pub heartbeat: Heartbeat,
    /// Trace time beside the system's clocks, oldest first.
    pub clock_pairs: Vec<ClockPair>,
    /// Per CPU.
    pub cpus: Vec<ViewCpu>,
}

impl View {
    /// Opens a region in a file: one of outlive's, or a kernel's as memory held it.
    ///
    /// # Errors
    ///
    /// When the file cannot be read or is no region of a known layout.
    pub fn open(region: &Path) -> Result<Self> {
        Ok(Self::of_parts(vec![Part::open(region)?]))
    }

    /// Opens a region and the tail that belongs to it. A tail that cannot be read is left out and
    /// returned as an error beside the view.
    ///
    /// # Errors
    ///
    /// As [`View::open`].
    pub fn open_with_tail(region: &Path, tail: &Path) -> Result<(Self, Option<Error>)> {
        let first = Part::open(region)?;
        if !tail.exists() {
            return Ok((Self::of_parts(vec![first]), None));
        }
        match Part::open(tail) {
            Ok(tail) => Ok((Self::of_parts(vec![first, tail]), None)),
            Err(error) => Ok((Self::of_parts(vec![first]), Some(error))),
        }
    }

    fn of_parts(parts: Vec<Part>) -> Self {
        let mut catalog = Catalog::default();
        let mut catalog_damaged = 0;
        for part in &parts {
            catalog_damaged += load_catalog(part, &mut catalog);
        }
        let first = &parts[0];
        let layout = first.recovery.extension.as_ref();
        let memory = &first.mapping;
        let run = layout.and_then(|layout| RunRecord::load(layout, memory));
        let heartbeat = layout
            .map(|layout| Heartbeat::load(layout, memory))
            .unwrap_or_default();
        let clock_pairs = layout
            .map(|layout| clock_pairs(layout, memory))
            .unwrap_or_default();
        let nr_cpus = parts
            .iter()
            .map(|part| part.recovery.geometry.nr_cpus())
            .max()
            .unwrap_or(0);
        let cpus = (0..nr_cpus).map(|cpu| merge_parts(&parts, cpu)).collect();
        Self {
            parts,
            catalog,
            catalog_damaged,
            run,
            heartbeat,
            clock_pairs,
            cpus,
        }
    }

    /// Entries of all CPUs.
    #[must_use]
    pub fn entries(&self) -> u64 {
        self.cpus.iter().map(|cpu| cpu.entries).sum()
    }

    /// Events that are not there any more but were written: overwritten by newer ones.
    #[must_use]
    pub fn overrun(&self) -> u64 {
        self.cpus.iter().map(|cpu| cpu.counters.overrun).sum()
    }

    /// Name of the trace clock.
    #[must_use]
    pub fn clock(&self) -> &str {
        const KERNEL_CLOCKS: [&str; 10] = [
            "local", "global", "counter", "uptime", "perf", "mono", "mono_raw", "boot", "tai",
            "x86-tsc",
        ];
        match &self.run {
            Some(run) if !run.clock.is_empty() => &run.clock,
            _ => {
                let scratch = self.parts[0].recovery.scratch.as_ref();
                let id = scratch.map_or(0, |scratch| scratch.clock_id);
                KERNEL_CLOCKS.get(id as usize).copied().unwrap_or("local")
            }
        }
    }

    /// Whether the trace clock counts nanoseconds.
    #[must_use]
    pub fn clock_in_ns(&self) -> bool {
        !matches!(self.clock(), "counter" | "uptime" | "x86-tsc")
    }

    /// Whether everything was found whole.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.catalog_damaged == 0 && self.parts.iter().all(|part| part.recovery.is_whole())
    }

    /// Time of the first and of the last event; `None` if there are none.
    #[must_use]
    pub fn span(&self) -> Option<(u64, u64)> {
        let first = self
            .cpus
            .iter()
            .filter_map(|cpu| cpu.pages.first())
            .map(|p| p.page.time_stamp)
            .min()?;
        let last = self
            .cpus
            .iter()
            .filter_map(|cpu| self.last_time(cpu))
            .max()?;
        Some((first, last))
    }

    fn last_time(&self, cpu: &ViewCpu) -> Option<u64> {
        let placed = cpu.pages.last()?;
        let mut buffer = [0; SUBBUF_DATA];
        let data = self.read_page(cpu.cpu, placed, &mut buffer);
        let mut events = Events::new(placed.page.time_stamp, data);
        events.by_ref().for_each(drop);
        Some(events.position().time_stamp)
    }

    fn read_page<'b>(
        &self,
        cpu: u32,
        placed: &Placed,
        buffer: &'b mut [u8; SUBBUF_DATA],
    ) -> &'b [u8] {
        let part = &self.parts[placed.part];
        placed
            .page
            .read(&part.recovery.geometry, &part.mapping, cpu, buffer)
    }

    /// The events of all CPUs, or of one, in the order of time; of equal times the lower CPU
    /// first, as the kernel shows them.
    #[must_use]
    pub fn events(&self, cpu: Option<u32>) -> MergedEvents<'_> {
        let cpus = self
            .cpus
            .iter()
            .filter(|c| cpu.is_none_or(|cpu| c.cpu == cpu));
        MergedEvents {
            streams: cpus.map(|cpu| CpuStream::new(self, cpu, 0)).collect(),
        }
    }

    /// As [`View::events`], without the sub-buffers that end before `from`.
    #[must_use]
    pub fn events_since(&self, cpu: Option<u32>, from: u64) -> MergedEvents<'_> {
        let cpus = self
            .cpus
            .iter()
            .filter(|c| cpu.is_none_or(|cpu| c.cpu == cpu));
        let streams = cpus.map(|cpu| {
            let behind = cpu
                .pages
                .partition_point(|placed| placed.page.time_stamp <= from);
            CpuStream::new(self, cpu, behind.saturating_sub(1))
        });
        MergedEvents {
            streams: streams.collect(),
        }
    }
}

/// Applies a part's catalog, and returns how many of its records are damaged.
fn load_catalog(part: &Part, catalog: &mut Catalog) -> u32 {
    let Some(layout) = &part.recovery.extension else {
        return 0;
    };
    let memory = &part.mapping;
    let records = CatalogRecords::load(layout, memory);
    let mut damaged = records.damaged;
    for (kind, payload) in &records.records {
        damaged += u32::from(catalog.apply(*kind, payload).is_err());
    }
    for (pid, name) in task_names(layout, memory) {
        catalog.tasks_mut().set_comm(pid, &name);
    }
    damaged
}

/// Reads the sub-buffers of one CPU over all parts as one.
fn merge_parts(parts: &[Part], cpu: u32) -> ViewCpu {
    let mut view = ViewCpu {
        cpu,
        ..ViewCpu::default()
    };
    let mut by_time: HashMap<u64, Placed> = HashMap::new();
    for (i, part) in parts.iter().enumerate() {
        let Some(recovered) = part.recovery.cpus.get(cpu as usize) else {
            continue;
        };
        view.holes.extend(&recovered.holes);
        for &page in &recovered.pages {
            let placed = Placed { part: i, page };
            by_time
                .entry(page.time_stamp)
                .and_modify(|other| {
                    let missed = other.page.missed.or(page.missed);
                    if page.size > other.page.size {
                        *other = placed;
                    }
                    other.page.missed = missed;
                })
                .or_insert(placed);
        }
    }
    view.pages = by_time.into_values().collect();
    view.pages
        .sort_unstable_by_key(|placed| placed.page.time_stamp);
    if let [region, tail] = parts {
        note_gap_before_tail(&mut view, region, tail);
    }
    view.counters = parts[0].counters(cpu);
    view.entries = view.pages.iter().map(|p| u64::from(p.page.entries)).sum();
    view.bytes = view.pages.iter().map(|p| u64::from(p.page.size)).sum();
    if let [_, tail] = parts {
        count_with_tail(&mut view, tail);
    }
    let oldest = parts[0]
        .recovery
        .cpus
        .get(cpu as usize)
        .and_then(|cpu| cpu.oldest);
    view.oldest = oldest.or_else(|| view.pages.first().map(|p| p.page.time_stamp));
    view
}

/// The counters over both parts. The tail's come from the kernel at a standstill, so what was
/// written is exact, also where the recorder died before it knew how much it had missed.
fn count_with_tail(view: &mut ViewCpu, tail: &Part) {
    let from_tail = view.pages.iter().take_while(|placed| placed.part == 1);
    // Overwritten in the region, but the host's ring is larger and still had them.
    let back: u64 = match view.pages.iter().any(|placed| placed.part == 0) {
        true => from_tail.map(|placed| u64::from(placed.page.entries)).sum(),
        false => view.entries,
    };
    let overrun = view.counters.overrun.saturating_sub(back);
    let written = tail.next_event(view.cpu);
    if let Some(lost) = written.checked_sub(view.entries + overrun) {
        (view.counters.overrun, view.counters.lost) = (overrun, lost);
    }
}

/// If the host's ring had already overwritten what the region ends with, events are missing
/// between the two, and how many is known from both counters.
fn note_gap_before_tail(view: &mut ViewCpu, region: &Part, tail: &Part) {
    let Some(first) = view.pages.iter().position(|placed| placed.part == 1) else {
        return;
    };
    let tail_recovered = &tail.recovery.cpus[view.cpu as usize];
    let continues = first > 0
        && tail_recovered.pages.first().is_some_and(|oldest| {
            view.pages[..=first]
                .iter()
                .any(|p| p.page.time_stamp == oldest.time_stamp && p.part == 0)
                || view.pages[first].page.time_stamp == oldest.time_stamp
                    && region.recovery.cpus[view.cpu as usize]
                        .pages
                        .iter()
                        .any(|page| page.time_stamp == oldest.time_stamp)
        });
    let before_tail = tail.counters(view.cpu).overrun;
    let missing = before_tail.saturating_sub(region.next_event(view.cpu));
    if continues || missing == 0 || view.pages[first].page.missed.is_some() {
        return;
    }
    // What the recorder had not settled when it died is in the number, and not in this gap.
    let missed = match region.counters(view.cpu).lost_unknown {
        0 => Missed::Events(missing),
        _ => Missed::Unknown,
    };
    view.pages[first].page.missed = Some(missed);
    let after = first.checked_sub(1).map(|i| view.pages[i].page.time_stamp);
    let before = Some(view.pages[first].page.time_stamp);
    view.holes.push(Hole {
        after,
        before,
        missed,
    });
}

/// One event of a view.
#[derive(Debug, Clone, Copy)]
pub struct ViewEvent<'a> {
    /// CPU that wrote it.
    pub cpu: u32,
    /// True time, in the unit of the trace clock.
    pub time_stamp: u64,
    /// Time as the kernel's text shows it.
    pub text_time_stamp: u64,
    /// What is missing before it on its CPU.
    pub missed: Option<Missed>,
    /// The trace entry.
    pub payload: &'a [u8],
}

/// The events of several CPUs in the order of time. A lending iterator: an event is valid until
/// the next one is asked for.
#[derive(Debug)]
pub struct MergedEvents<'v> {
    streams: Vec<CpuStream<'v>>,
}

impl MergedEvents<'_> {
    /// The next event.
    pub fn next_event(&mut self) -> Option<ViewEvent<'_>> {
        let earliest = (0..self.streams.len())
            .filter_map(|i| Some((self.streams[i].next.as_ref()?.text_time_stamp, i)))
            .min()?
            .1;
        Some(self.streams[earliest].take())
    }
}

/// The events of one CPU, one decoded ahead.
#[derive(Debug)]
struct CpuStream<'v> {
    view: &'v View,
    cpu: &'v ViewCpu,
    next_page: usize,
    position: Position,
    size: usize,
    buffer: Box<[u8; SUBBUF_DATA]>,
    /// The buffer of the event that was handed out last, when the next one is on another page.
    taken: Box<[u8; SUBBUF_DATA]>,
    next: Option<Ahead>,
}

#[derive(Debug, Clone, Copy)]
struct Ahead {
    time_stamp: u64,
    text_time_stamp: u64,
    missed: Option<Missed>,
    start: usize,
    len: usize,
}

impl<'v> CpuStream<'v> {
    fn new(view: &'v View, cpu: &'v ViewCpu, first_page: usize) -> Self {
        let mut stream = Self {
            view,
            cpu,
            next_page: first_page,
            position: Position::default(),
            size: 0,
            buffer: Box::new([0; SUBBUF_DATA]),
            taken: Box::new([0; SUBBUF_DATA]),
            next: None,
        };
        stream.advance();
        stream
    }

    /// Hands out the event that was decoded ahead, and decodes the next one.
    fn take(&mut self) -> ViewEvent<'_> {
        let event = self.next.take().unwrap_or(Ahead {
            time_stamp: 0,
            text_time_stamp: 0,
            missed: None,
            start: 0,
            len: 0,
        });
        let page = self.next_page;
        self.advance();
        let buffer = if self.next_page == page {
            &self.buffer
        } else {
            &self.taken
        };
        ViewEvent {
            cpu: self.cpu.cpu,
            time_stamp: event.time_stamp,
            text_time_stamp: event.text_time_stamp,
            missed: event.missed,
            payload: &buffer[event.start..event.start + event.len],
        }
    }

    fn advance(&mut self) {
        let mut missed = None;
        let first_page = self.next_page;
        loop {
            let mut events = Events::resume(self.position, &self.buffer[..self.size]);
            // A page that changed since it was judged ends where it does not decode any more.
            if let Some(Ok(event)) = events.next() {
                let start = event.payload.as_ptr().addr() - self.buffer.as_ptr().addr();
                self.next = Some(Ahead {
                    time_stamp: event.time_stamp,
                    text_time_stamp: event.text_time_stamp,
                    missed,
                    start,
                    len: event.payload.len(),
                });
                self.position = events.position();
                return;
            }
            let Some(placed) = self.cpu.pages.get(self.next_page) else {
                self.size = 0;
                return;
            };
            // The event that is being handed out stays where it is; pages without events do not count.
            if self.next_page == first_page {
                std::mem::swap(&mut self.buffer, &mut self.taken);
            }
            self.next_page += 1;
            self.size = self
                .view
                .read_page(self.cpu.cpu, placed, &mut self.buffer)
                .len();
            let time_stamp = placed.page.time_stamp;
            self.position = Position {
                offset: 0,
                time_stamp,
                text_time_stamp: time_stamp,
            };
            missed = placed.page.missed.or(missed);
        }
    }
}

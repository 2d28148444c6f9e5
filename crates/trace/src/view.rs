//! A region and its catalog, whoever wrote them: what every command that shows events reads.
//!
//! A view is made of one or two regions: the *region* that a recorder or a kernel wrote, and the
//! *tail*, what the host kernel's ring still held when the recorder had died. Both hold
//! sub-buffers of the same ring, so they are read as one: by CPU and time stamp, and of two copies
//! of a sub-buffer the longer one.

//!
//! A region that is being written is copied when it is opened ([`Part::is_live`]), so that what is
//! judged is what is shown. [`LiveRegion`] follows one instead.

mod clock_line;
mod events;
mod live;
mod part;
mod raw;
mod snapshot;
mod sources;
mod texts;
mod trust;
mod wanted;

use std::collections::HashMap;
use std::fs::File;
use std::path::Path;

use outlive_event::{Catalog, EventFormat};
use outlive_ring::extension::{ClockPair, Counters, Heartbeat, clock_pairs};
use outlive_ring::layout::SUBBUF_DATA;
use outlive_ring::{Events, Hole, Missed, Page, PageSource, RunRecord};

use self::clock_line::convert;
pub use self::events::{LeftOver, MergedEvents, ViewEvent};
pub use self::live::LiveRegion;
pub use self::part::Part;
pub use self::raw::RawSubbuf;
pub use self::sources::{MergedSources, NoCommonTime, Source, SourceEvent, Sources, Timeline};
pub use self::trust::{EventDoubt, Trust};
pub use self::wanted::Wanted;
use crate::cmdline::TraceClock;
use crate::{Error, RegionPlace, host, verdict};

type Result<T, E = Error> = std::result::Result<T, E>;

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

impl ViewCpu {
    /// Whether nothing was ever recorded here, and nothing lost.
    #[must_use]
    pub fn is_untouched(&self) -> bool {
        let (subbufs, _) = self.subbufs();
        subbufs == 0 && self.holes.is_empty() && self.counters == Counters::default()
    }

    /// The sub-buffer from which on events of the time `from` may be: the last one that begins before. Of
    /// equal times, all are looked at.
    fn first_page(&self, from: u64) -> usize {
        let begins_before = |placed: &Placed| placed.page.time_stamp < from;
        self.pages.partition_point(begins_before).saturating_sub(1)
    }

    /// What is missing behind all that is kept, and the time of the last event that is; 0 if
    /// nothing is.
    fn missed_at_end(&self) -> Option<(u64, Missed)> {
        let last = self.pages.last().map(|placed| placed.page.time_stamp);
        // One of several parts may end where another goes on.
        let is_last = |hole: &&Hole| hole.before.is_none() && hole.after >= last;
        let hole = self.holes.iter().find(is_last)?;
        Some((hole.after.unwrap_or(0), hole.missed))
    }

    /// Sub-buffers that are kept, and how many of them a seal proves; of the others only the
    /// structure is known to be right.
    #[must_use]
    pub fn subbufs(&self) -> (usize, usize) {
        let is_sealed = |placed: &&Placed| placed.page.source != PageSource::Unsealed;
        (
            self.pages.len(),
            self.pages.iter().filter(is_sealed).count(),
        )
    }
}

/// One or two regions, read as one.
#[derive(Debug)]
pub struct View {
    /// The region, and the tail if there is one; or a tail whose region cannot be read.
    pub parts: Vec<Part>,
    is_tail_alone: bool,
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

/// Whether the buffers of a region are not those of CPUs: a program wrote them, each event says its CPU.
#[must_use]
pub fn has_lanes(catalog: &Catalog, run: Option<&RunRecord>) -> bool {
    let mut events = catalog.events().peekable();
    match events.peek() {
        Some(_) => events.any(EventFormat::has_cpu),
        // Nothing was recorded yet. A program looks at no source.
        None => run.is_some_and(|run| run.poll_interval_ns == 0),
    }
}

/// What a buffer is called where buffers are lanes, and where they are not.
#[must_use]
pub fn buffer_word(has_lanes: bool) -> &'static str {
    match has_lanes {
        true => "lane",
        false => "CPU",
    }
}

impl View {
    /// Opens a region in a file: one of outlive's, or a kernel's as memory held it.
    ///
    /// # Errors
    ///
    /// When the file cannot be read or is no region of a known layout.
    pub fn open(region: &Path) -> Result<Self> {
        Self::open_place(&RegionPlace::File(region.to_owned()))
    }

    /// Opens a region in an open file. Its path is for messages, and need not lead to it.
    ///
    /// # Errors
    ///
    /// As [`View::open`].
    pub fn of_file(region: &File, path: &Path) -> Result<Self> {
        Ok(Self::of_parts(vec![Part::of_file(region, path)?]))
    }

    /// Opens a region wherever it is, such as one that a recorder writes into physical memory.
    ///
    /// # Errors
    ///
    /// As [`View::open`], and when the memory is not one that may be read.
    pub fn open_place(place: &RegionPlace) -> Result<Self> {
        Ok(Self::of_parts(vec![Part::open(place)?]))
    }

    /// Opens a region and the tail that belongs to it. Of the two, one that cannot be read is left
    /// out and returned as an error beside the view.
    ///
    /// # Errors
    ///
    /// As [`View::open`], if that is so of both.
    pub fn open_with_tail(region: &Path, tail: &Path) -> Result<(Self, Option<Error>)> {
        let open = |path: &Path| Part::open(&RegionPlace::File(path.to_owned()));
        let region = open(region);
        if !tail.exists() {
            return Ok((Self::of_parts(vec![region?]), None));
        }
        match (region, open(tail)) {
            (Ok(region), Ok(tail)) => Ok((Self::of_parts(vec![region, tail]), None)),
            (Ok(region), Err(error)) => Ok((Self::of_parts(vec![region]), Some(error))),
            (Err(error), Ok(tail)) => {
                let mut view = Self::of_parts(vec![tail]);
                view.is_tail_alone = true;
                Ok((view, Some(error)))
            }
            (Err(error), Err(_)) => Err(error),
        }
    }

    fn of_parts(parts: Vec<Part>) -> Self {
        let mut catalog = Catalog::default();
        let mut catalog_damaged = 0;
        for part in &parts {
            catalog_damaged += part
                .load(|layout, memory| part::load_catalog(layout, memory, &mut catalog))
                .unwrap_or(0);
        }
        let first = &parts[0];
        let run = first.load(|layout, memory| RunRecord::load(layout, &memory));
        let heartbeat = first.load(|layout, memory| Heartbeat::load(layout, &memory));
        let pairs = first.load(|layout, memory| clock_pairs(layout, &memory));
        let nr_cpus = parts
            .iter()
            .map(|part| part.recovery.geometry.nr_cpus())
            .max()
            .unwrap_or(0);
        let cpus = (0..nr_cpus).map(|cpu| merge_parts(&parts, cpu)).collect();
        Self {
            parts,
            is_tail_alone: false,
            catalog,
            catalog_damaged,
            run: run.flatten(),
            heartbeat: heartbeat.unwrap_or_default(),
            clock_pairs: pairs.unwrap_or_default(),
            cpus,
        }
    }

    /// The parts, and what each is called.
    pub fn named_parts(&self) -> impl Iterator<Item = (&'static str, &Part)> {
        let names = ["region", "tail"].into_iter();
        names.skip(usize::from(self.is_tail_alone)).zip(&self.parts)
    }

    /// Whether the region cannot be read, and the tail is all there is.
    #[must_use]
    pub fn is_tail_alone(&self) -> bool {
        self.is_tail_alone
    }

    /// Whether there is a tail.
    #[must_use]
    pub fn has_tail(&self) -> bool {
        self.is_tail_alone || self.parts.len() > 1
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
        match &self.run {
            Some(run) if !run.clock.is_empty() => &run.clock,
            _ => {
                let scratch = self.parts[0].recovery.scratch.as_ref();
                let id = scratch.map_or(0, |scratch| scratch.clock_id);
                let clock = TraceClock::ALL.into_iter().find(|clock| clock.id() == id);
                clock.unwrap_or(TraceClock::Local).name()
            }
        }
    }

    /// Whether the trace clock counts nanoseconds.
    #[must_use]
    pub fn clock_in_ns(&self) -> bool {
        !matches!(self.clock(), "counter" | "uptime" | "x86-tsc")
    }

    /// Whether the region has addresses of the kernel that runs now, and that are not for us.
    #[must_use]
    pub fn hides_addresses(&self) -> bool {
        let is_of_now = |run: &RunRecord| run.boot_id == verdict::boot_id();
        self.run.as_ref().is_some_and(is_of_now) && host::hides_kernel_addresses()
    }

    /// Whether everything was found whole.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        let is_region_read = !self.is_tail_alone;
        is_region_read
            && self.catalog_damaged == 0
            && self.parts.iter().all(|part| part.recovery.is_whole())
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
            .filter_map(|cpu| self.last_time(cpu.cpu, cpu.pages.last()?))
            .max()?;
        Some((first, last))
    }

    /// Time of the last event that the recorder itself wrote, which is about when it died: the
    /// tail goes on behind it. Without any, that of the last event; `None` if there are none.
    #[must_use]
    pub fn recorded_until(&self) -> Option<u64> {
        let recovered = self.parts[0].recovery.cpus.iter();
        let last = recovered.filter_map(|cpu| {
            let page = *cpu.pages.last()?;
            self.last_time(cpu.cpu, &Placed { part: 0, page })
        });
        last.max().or_else(|| self.span().map(|(_, last)| last))
    }

    fn last_time(&self, cpu: u32, placed: &Placed) -> Option<u64> {
        let mut buffer = [0; SUBBUF_DATA];
        let data = self.read_page(cpu, placed, &mut buffer);
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
        self.parts[placed.part].read_page(cpu, &placed.page, buffer)
    }

    /// The events of all CPUs, or of one, in the order of time; of equal times the lower CPU
    /// first, as the kernel shows them.
    #[must_use]
    pub fn events(&self, cpu: Option<u32>) -> MergedEvents<'_> {
        self.events_between(cpu, 0, None)
    }

    /// As [`View::events`], those whose time in the kernel's text is `from` or later, and before
    /// `end`.
    #[must_use]
    pub fn events_between(
        &self,
        cpu: Option<u32>,
        from: u64,
        end: Option<u64>,
    ) -> MergedEvents<'_> {
        let only_cpu = cpu.filter(|_| self.has_lanes());
        MergedEvents::new(self, self.selected(cpu), (from, end), only_cpu)
    }

    /// Entries of the sub-buffers that [`View::events_between`] reads.
    pub(crate) fn entries_from(&self, cpu: Option<u32>, from: u64) -> u64 {
        let pages = self
            .selected(cpu)
            .flat_map(|cpu| &cpu.pages[cpu.first_page(from)..]);
        pages.map(|placed| u64::from(placed.page.entries)).sum()
    }

    /// As [`View::events_between`], and the events before `from` that share a sub-buffer with it: their
    /// true time, which is never before that in the text, may be `from` or later.
    #[must_use]
    pub fn events_around(&self, cpu: Option<u32>, from: u64, end: Option<u64>) -> MergedEvents<'_> {
        let only_cpu = cpu.filter(|_| self.has_lanes());
        MergedEvents::around(self, self.selected(cpu), (from, end), only_cpu)
    }

    /// Cuts the time from `from` on into stretches of about `subbufs` sub-buffers each: where each
    /// begins. The events of the stretches, one after the other, are all events.
    #[must_use]
    pub fn stretches(&self, cpu: Option<u32>, from: u64, subbufs: usize) -> Vec<u64> {
        let mut times: Vec<u64> = self
            .selected(cpu)
            .flat_map(|cpu| cpu.pages.iter().map(|placed| placed.page.time_stamp))
            .filter(|&time| time > from)
            .collect();
        times.sort_unstable();
        let later = times
            .into_iter()
            .skip(subbufs.max(1))
            .step_by(subbufs.max(1));
        let mut starts: Vec<u64> = std::iter::once(from).chain(later).collect();
        starts.dedup();
        starts
    }

    /// The buffers that may have events of a CPU.
    fn selected(&self, cpu: Option<u32>) -> impl Iterator<Item = &ViewCpu> {
        let cpu = cpu.filter(|_| !self.has_lanes());
        self.cpus
            .iter()
            .filter(move |c| cpu.is_none_or(|cpu| c.cpu == cpu))
    }

    /// What a buffer is called: it is a CPU's, or one of a program's lanes.
    #[must_use]
    pub fn buffer_word(&self) -> &'static str {
        buffer_word(self.has_lanes())
    }

    /// See [`has_lanes`].
    #[must_use]
    pub fn has_lanes(&self) -> bool {
        has_lanes(&self.catalog, self.run.as_ref())
    }

    /// The wall clock, in nanoseconds since 1970, at a time of the trace clock: between two clock pairs
    /// by the line through both, outside at the distance from the nearest. `None` without clock pairs,
    /// or if the clock counts no nanoseconds.
    #[must_use]
    pub fn realtime_ns(&self, time_stamp: u64) -> Option<u64> {
        if self.clock_pairs.is_empty() || !self.clock_in_ns() {
            return None;
        }
        let realtime = |pair: &ClockPair| pair.realtime_ns;
        Some(convert(
            &self.clock_pairs,
            time_stamp,
            |pair| pair.trace,
            realtime,
        ))
    }
}

/// Reads the sub-buffers of one CPU over all parts as one.
fn merge_parts(parts: &[Part], cpu: u32) -> ViewCpu {
    let mut view = ViewCpu {
        cpu,
        ..ViewCpu::default()
    };
    for (part, number) in parts.iter().zip(0..) {
        if let Some(recovered) = part.recovery.cpus.get(cpu as usize) {
            view.holes.extend(&recovered.holes);
            let placed = recovered
                .pages
                .iter()
                .map(|&page| Placed { part: number, page });
            view.pages.extend(placed);
        }
    }
    if let [region, tail] = parts {
        unite_copies(&mut view.pages);
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

/// Of two copies of a sub-buffer keeps the longer one. With a coarse clock several sub-buffers have
/// the same time stamp: they are told apart by their order.
fn unite_copies(pages: &mut Vec<Placed>) {
    let mut seen: HashMap<(usize, u64), u32> = HashMap::new();
    let mut united: HashMap<(u64, u32), Placed> = HashMap::new();
    for &placed in pages.iter() {
        let time = placed.page.time_stamp;
        let nth = seen.entry((placed.part, time)).or_default();
        united
            .entry((time, *nth))
            .and_modify(|other| {
                let missed = other.page.missed.or(placed.page.missed);
                if placed.page.size > other.page.size {
                    *other = placed;
                }
                other.page.missed = missed;
            })
            .or_insert(placed);
        *nth += 1;
    }
    let mut by_time: Vec<_> = united.into_iter().collect();
    by_time.sort_unstable_by_key(|&(key, _)| key);
    *pages = by_time.into_iter().map(|(_, placed)| placed).collect();
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
    let oldest_of_tail = pages_of(tail, view.cpu).first().map(|page| page.time_stamp);
    let continues = first > 0
        && oldest_of_tail.is_some_and(|oldest| {
            pages_of(region, view.cpu)
                .iter()
                .any(|page| page.time_stamp == oldest)
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

fn pages_of(part: &Part, cpu: u32) -> &[Page] {
    let recovered = part.recovery.cpus.get(cpu as usize);
    recovered.map_or(&[], |recovered| &recovered.pages)
}

//! Several views, read as one: their events in the order of time.

use std::sync::atomic::{AtomicU64, Ordering};

use outlive_ring::extension::ClockPair;

use super::clock_line::convert;
use super::{LeftOver, MergedEvents, View, ViewEvent, Wanted};

/// A view, and what is wanted of it.
#[derive(Debug)]
pub struct Source<'v> {
    /// What the user calls it.
    pub name: String,
    /// The region.
    pub view: &'v View,
    /// Only this CPU.
    pub cpu: Option<u32>,
    /// Only events from this time of its trace clock on.
    pub from: u64,
    /// Only these events; `None` for all.
    pub wanted: Option<Wanted<'v>>,
}

impl<'v> Source<'v> {
    /// All of a view.
    #[must_use]
    pub fn new(name: &str, view: &'v View) -> Self {
        Self {
            name: name.to_owned(),
            view,
            cpu: None,
            from: 0,
            wanted: None,
        }
    }
}

/// The clock in which the events of several sources are put in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Timeline {
    /// The trace clock of the only source, or of all, in its own unit.
    Trace,
    /// `CLOCK_MONOTONIC` of the boot that all sources are of, in nanoseconds.
    Monotonic,
    /// `CLOCK_REALTIME` in nanoseconds since 1970: the sources are of different boots or machines.
    Realtime,
}

impl Timeline {
    /// Its time of a clock pair.
    fn clock(self) -> fn(&ClockPair) -> u64 {
        match self {
            Self::Trace => |pair| pair.trace,
            Self::Monotonic => |pair| pair.monotonic_ns,
            Self::Realtime => |pair| pair.realtime_ns,
        }
    }
}

/// Why sources have no common time.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NoCommonTime {
    /// Nothing leads from its trace clock to another region's.
    #[error(
        "{name} has no clock pairs, or its clock counts no nanoseconds, so its times cannot be put beside \
         those of another region; read it by itself"
    )]
    NotConverted {
        /// The source.
        name: String,
    },
    /// They are of one boot, and of different trace clocks.
    #[error(
        "{name} has no clock pairs and the trace clock {clock}, another region has {other}, so that their \
         times have nothing in common; read it by itself"
    )]
    OtherClock {
        /// The source.
        name: String,
        /// Its trace clock.
        clock: String,
        /// The other's.
        other: String,
    },
}

/// Several sources with a common time.
#[derive(Debug)]
pub struct Sources<'v> {
    sources: Vec<Source<'v>>,
    timeline: Timeline,
    /// Entries that were read.
    read: AtomicU64,
}

impl<'v> Sources<'v> {
    /// Finds the common time: the trace clock of a single source, the monotonic clock of a common
    /// boot, else the wall clock. Where one cannot be converted, as it has no clock pairs (a kernel's own
    /// region, an import) or its trace clock counts no nanoseconds, it is the trace clock, if all say that they
    /// are of one boot and have the same.
    ///
    /// # Errors
    ///
    /// When one cannot be converted, and their boots or clocks differ or are not known.
    pub fn new(sources: Vec<Source<'v>>) -> Result<Self, NoCommonTime> {
        let timeline = timeline(&sources, are_of_one_boot(&sources))?;
        Ok(Self::with(sources, timeline))
    }

    /// As [`Sources::new`], of sources that the caller knows to be of one boot.
    ///
    /// # Errors
    ///
    /// When one cannot be converted, and their clocks differ.
    pub fn of_one_boot(sources: Vec<Source<'v>>) -> Result<Self, NoCommonTime> {
        let timeline = timeline(&sources, true)?;
        Ok(Self::with(sources, timeline))
    }

    fn with(sources: Vec<Source<'v>>, timeline: Timeline) -> Self {
        Self {
            sources,
            timeline,
            read: AtomicU64::new(0),
        }
    }

    /// The sources, as they were given.
    #[must_use]
    pub fn sources(&self) -> &[Source<'v>] {
        &self.sources
    }

    /// The clock of the times of the events.
    #[must_use]
    pub fn timeline(&self) -> Timeline {
        self.timeline
    }

    /// Entries of all sources: an upper bound of the events.
    #[must_use]
    pub fn entries(&self) -> u64 {
        self.sources.iter().map(|s| s.view.entries()).sum()
    }

    /// Entries that [`Sources::events`] reads, those that nobody asked for among them.
    #[must_use]
    pub fn to_read(&self) -> u64 {
        let entries = |source: &Source<'_>| source.view.entries_from(source.cpu, source.from);
        self.sources.iter().map(entries).sum()
    }

    /// Entries that were read of all sources so far, each time that they are gone through: how far
    /// somebody is. May be asked from another thread.
    #[must_use]
    pub fn read(&self) -> u64 {
        self.read.load(Ordering::Relaxed)
    }

    /// Notes entries that were read past [`Sources::events`].
    pub fn note_read(&self, entries: u64) {
        self.read.fetch_add(entries, Ordering::Relaxed);
    }

    /// A time of a source's trace clock, in the common time.
    #[must_use]
    pub fn time(&self, source: usize, trace: u64) -> u64 {
        if self.timeline == Timeline::Trace {
            return trace;
        }
        let pairs = &self.sources[source].view.clock_pairs;
        convert(pairs, trace, |pair| pair.trace, self.timeline.clock())
    }

    /// A common time, in the time of a source's trace clock.
    fn trace_time(&self, source: usize, time: u64) -> u64 {
        let pairs = &self.sources[source].view.clock_pairs;
        convert(pairs, time, self.timeline.clock(), |pair| pair.trace)
    }

    /// Leaves out what is before the last `ns` nanoseconds of all sources together, with their tails.
    pub fn keep_last(&mut self, ns: u64) {
        let ends = (0..self.sources.len()).filter_map(|i| {
            let (_, end) = self.sources[i].view.span()?;
            Some(self.time(i, end))
        });
        let from = ends.max().unwrap_or(0).saturating_sub(ns);
        for source in 0..self.sources.len() {
            self.sources[source].from = self.trace_time(source, from);
        }
    }

    /// A time of a source's trace clock as `CLOCK_BOOTTIME` of its boot, in nanoseconds; the time
    /// itself if the source has no clock pairs.
    #[must_use]
    pub fn boottime(&self, source: usize, trace: u64) -> u64 {
        let pairs = &self.sources[source].view.clock_pairs;
        convert(pairs, trace, |pair| pair.trace, |pair| pair.boottime_ns)
    }

    /// The wanted events of all sources in the order of the common time; of equal times the
    /// source that was given first.
    #[must_use]
    pub fn events(&self) -> MergedSources<'_> {
        MergedSources {
            sources: self,
            streams: self.sources.iter().map(|s| self.events_of(s)).collect(),
        }
    }

    /// The wanted events of one of the sources.
    #[must_use]
    pub fn events_of<'s>(&'s self, source: &'s Source<'s>) -> MergedEvents<'s> {
        let events = source.view.events_between(source.cpu, source.from, None);
        events.wanting(source.wanted.as_ref()).counting(&self.read)
    }
}

fn timeline(sources: &[Source<'_>], are_of_one_boot: bool) -> Result<Timeline, NoCommonTime> {
    let is_alone = |s: &&Source<'_>| s.view.clock_pairs.is_empty() || !s.view.clock_in_ns();
    let alone = match sources {
        [] | [_] => return Ok(Timeline::Trace),
        _ => sources.iter().find(is_alone),
    };
    let other = |alone: &Source<'_>| {
        let clocks = sources.iter().map(|source| source.view.clock());
        clocks
            .map(str::to_owned)
            .find(|clock| clock != alone.view.clock())
    };
    let name = |alone: &Source<'_>| alone.name.clone();
    match alone {
        None if are_of_one_boot => Ok(Timeline::Monotonic),
        None => Ok(Timeline::Realtime),
        Some(alone) if !are_of_one_boot => Err(NoCommonTime::NotConverted { name: name(alone) }),
        Some(alone) => match other(alone) {
            None => Ok(Timeline::Trace),
            Some(other) => Err(NoCommonTime::OtherClock {
                name: name(alone),
                clock: alone.view.clock().to_owned(),
                other,
            }),
        },
    }
}

/// Whether all name the same boot. An import names none.
fn are_of_one_boot(sources: &[Source<'_>]) -> bool {
    let mut boots = sources
        .iter()
        .map(|source| Some(source.view.run.as_ref()?.boot_id));
    let first = boots.next().flatten().filter(|boot| *boot != [0; 16]);
    first.is_some() && boots.all(|boot| boot == first)
}

/// An event of one of several sources.
#[derive(Debug, Clone, Copy)]
pub struct SourceEvent<'a> {
    /// Which source, by its place.
    pub source: usize,
    /// True time in the common time.
    pub time: u64,
    /// The event, with its times in its source's trace clock.
    pub event: ViewEvent<'a>,
}

/// The wanted events of several sources. A lending iterator: an event is valid until the next one
/// is asked for.
#[derive(Debug)]
pub struct MergedSources<'s> {
    sources: &'s Sources<'s>,
    streams: Vec<MergedEvents<'s>>,
}

impl MergedSources<'_> {
    /// The next event.
    pub fn next_event(&mut self) -> Option<SourceEvent<'_>> {
        let source = self.earliest()?;
        let event = self.streams[source].next_event()?;
        let time = self.sources.time(source, event.time_stamp);
        Some(SourceEvent {
            source,
            time,
            event,
        })
    }

    /// What is missing behind the last event of each buffer, and of which source, once there is no
    /// next event.
    pub fn left(&self) -> impl Iterator<Item = (usize, LeftOver)> {
        let streams = self.streams.iter().enumerate();
        streams.flat_map(|(source, stream)| stream.left().map(move |left| (source, left)))
    }

    fn earliest(&mut self) -> Option<usize> {
        if let [_] = self.streams.as_slice() {
            return Some(0);
        }
        let sources = self.sources;
        let streams = self.streams.iter_mut().enumerate();
        let times =
            streams.filter_map(|(i, stream)| Some((sources.time(i, stream.peek_time()?), i)));
        times.min().map(|(_, i)| i)
    }
}

//! Several views, read as one: their events in the order of time.

use outlive_ring::extension::ClockPair;

use super::{MergedEvents, View, ViewEvent, Wanted};

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

    fn wants(&self, event: &ViewEvent<'_>) -> bool {
        let wanted = self.wanted.as_ref();
        wanted.is_none_or(|wanted| wanted.has(event.cpu, event.payload))
    }
}

/// The clock in which the events of several sources are put in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Timeline {
    /// The trace clock of the only source, in its own unit.
    Trace,
    /// `CLOCK_MONOTONIC` of the boot that all sources are of, in nanoseconds.
    Monotonic,
    /// `CLOCK_REALTIME` in nanoseconds since 1970: the sources are of different boots or machines.
    Realtime,
}

/// Why sources have no common time.
#[derive(Debug, thiserror::Error)]
#[error(
    "{name} has no clock pairs, so its times cannot be put beside those of another region; \
     read it by itself"
)]
pub struct NoCommonTime {
    /// The source.
    pub name: String,
}

/// Several sources with a common time.
#[derive(Debug)]
pub struct Sources<'v> {
    sources: Vec<Source<'v>>,
    timeline: Timeline,
}

impl<'v> Sources<'v> {
    /// Finds the common time: the trace clock of a single source, the monotonic clock of a common
    /// boot, else the wall clock.
    ///
    /// # Errors
    ///
    /// When there are several, and one cannot be converted: it has no clock pairs, as a kernel's
    /// own region has none, or its trace clock counts no nanoseconds.
    pub fn new(sources: Vec<Source<'v>>) -> Result<Self, NoCommonTime> {
        let timeline = match sources.as_slice() {
            [] | [_] => Timeline::Trace,
            [first, others @ ..] => {
                let cannot = sources
                    .iter()
                    .find(|s| s.view.clock_pairs.is_empty() || !s.view.clock_in_ns());
                if let Some(source) = cannot {
                    let name = source.name.clone();
                    return Err(NoCommonTime { name });
                }
                match others.iter().all(|s| is_same_boot(s.view, first.view)) {
                    true => Timeline::Monotonic,
                    false => Timeline::Realtime,
                }
            }
        };
        Ok(Self { sources, timeline })
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

    /// A time of a source's trace clock, in the common time.
    #[must_use]
    pub fn time(&self, source: usize, trace: u64) -> u64 {
        let pairs = &self.sources[source].view.clock_pairs;
        match self.timeline {
            Timeline::Trace => trace,
            Timeline::Monotonic => convert(pairs, trace, |pair| pair.monotonic_ns),
            Timeline::Realtime => convert(pairs, trace, |pair| pair.realtime_ns),
        }
    }

    /// A time of a source's trace clock as `CLOCK_BOOTTIME` of its boot, in nanoseconds; the time
    /// itself if the source has no clock pairs.
    #[must_use]
    pub fn boottime(&self, source: usize, trace: u64) -> u64 {
        let pairs = &self.sources[source].view.clock_pairs;
        convert(pairs, trace, |pair| pair.boottime_ns)
    }

    /// The wanted events of all sources in the order of the common time; of equal times the
    /// source that was given first.
    #[must_use]
    pub fn events(&self) -> MergedSources<'_> {
        let streams = self
            .sources
            .iter()
            .map(|source| source.view.events_between(source.cpu, source.from, None));
        MergedSources {
            sources: self,
            streams: streams.collect(),
        }
    }
}

fn is_same_boot(a: &View, b: &View) -> bool {
    match (&a.run, &b.run) {
        (Some(a), Some(b)) => a.boot_id == b.boot_id,
        _ => false,
    }
}

/// A time of the trace clock in another clock: between two pairs by the line through both, so that
/// times keep their order, and outside at the distance from the nearest pair.
fn convert(pairs: &[ClockPair], trace: u64, clock: impl Fn(&ClockPair) -> u64) -> u64 {
    let later = pairs.partition_point(|pair| pair.trace <= trace);
    let (before, after) = (later.checked_sub(1).map(|i| &pairs[i]), pairs.get(later));
    let converted = match (before, after) {
        (Some(before), Some(after)) => {
            let ratio = i128::from(trace - before.trace);
            let span = i128::from(after.trace - before.trace);
            let passed = i128::from(clock(after)) - i128::from(clock(before));
            i128::from(clock(before)) + passed * ratio / span
        }
        (Some(pair), None) | (None, Some(pair)) => {
            i128::from(clock(pair)) + i128::from(trace) - i128::from(pair.trace)
        }
        (None, None) => i128::from(trace),
    };
    u64::try_from(converted.max(0)).unwrap_or(u64::MAX)
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
        loop {
            let source = self.earliest()?;
            let event = self.streams[source].peek()?;
            if self.sources.sources[source].wants(&event) {
                let event = self.streams[source].next_event()?;
                let time = self.sources.time(source, event.time_stamp);
                return Some(SourceEvent {
                    source,
                    time,
                    event,
                });
            }
            self.streams[source].next_event();
        }
    }

    fn earliest(&mut self) -> Option<usize> {
        if let [_] = self.streams.as_slice() {
            return Some(0);
        }
        let sources = self.sources;
        let streams = self.streams.iter_mut().enumerate();
        let times = streams.filter_map(|(i, stream)| {
            let event = stream.peek()?;
            Some((sources.time(i, event.text_time_stamp), i))
        });
        times.min().map(|(_, i)| i)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(trace: u64, monotonic_ns: u64) -> ClockPair {
        ClockPair {
            trace,
            monotonic_ns,
            ..ClockPair::default()
        }
    }

    #[test]
    fn a_time_is_converted_between_outside_and_without_clock_pairs() {
        let pairs = [pair(1000, 5000), pair(2000, 6010)];
        let at = |trace| convert(&pairs, trace, |pair| pair.monotonic_ns);
        assert_eq!(at(1000), 5000);
        assert_eq!(at(1500), 5505);
        assert_eq!(at(2000), 6010);
        assert_eq!(at(2001), 6011);
        assert_eq!(at(900), 4900);
        assert_eq!(convert(&[], 7, |pair| pair.monotonic_ns), 7);
        assert_eq!(convert(&[pair(100, 5)], 1, |pair| pair.monotonic_ns), 0);
    }
}

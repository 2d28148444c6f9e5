//! What is counted and measured of the last part of a run.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Result, bail};
use outlive_event::event_id;
use outlive_ring::Missed;
use outlive_trace::Verdict;
use outlive_trace::intervals::{Interval, IntervalKind, Intervals};
use outlive_trace::view::View;

use crate::units;

/// The last part of one run, or of several put together.
#[derive(Debug)]
pub(crate) struct Window {
    /// What the user calls the runs.
    pub(crate) names: Vec<String>,
    /// How each ended.
    pub(crate) verdicts: Vec<Verdict>,
    /// How long it is in all, in nanoseconds.
    pub(crate) length_ns: u64,
    /// Records of each event, by `system:event`.
    pub(crate) events: BTreeMap<String, u64>,
    /// How long things took, in nanoseconds, by what they are; in ascending order.
    pub(crate) durations: BTreeMap<String, Vec<u64>>,
    /// Events that are known to be missing.
    pub(crate) lost: u64,
    /// How often a number of them is missing that nobody knows.
    pub(crate) lost_unknown: u64,
}

impl Window {
    /// The last part of a run, as long as `last` and no longer than what is there of every CPU.
    pub(crate) fn of(name: &str, view: &View, verdict: Verdict, last: Duration) -> Result<Self> {
        let (Some((first, _)), Some(until)) = (view.span(), view.recorded_until()) else {
            bail!("{name} has no events");
        };
        if !view.clock_in_ns() {
            bail!(
                "{name}: the trace clock {} counts no nanoseconds, so nothing happens per second",
                view.clock()
            );
        }
        let last = units::nanos(last);
        // Where a CPU's buffer has wrapped, what it recorded before is gone, of that CPU alone.
        let wrapped = view.cpus.iter().filter(|cpu| cpu.counters.overrun > 0);
        let all_there = wrapped.filter_map(|cpu| cpu.oldest).max().unwrap_or(first);
        let from = until.saturating_sub(last).max(all_there).min(until);
        let mut window = Self {
            names: vec![name.to_owned()],
            verdicts: vec![verdict],
            length_ns: (until - from).max(1),
            events: BTreeMap::new(),
            durations: BTreeMap::new(),
            lost: 0,
            lost_unknown: 0,
        };
        window.read(view, from, until);
        Ok(window)
    }

    fn read(&mut self, view: &View, from: u64, until: u64) {
        let mut counts: Vec<u64> = Vec::new();
        let mut intervals = Intervals::new(&view.catalog);
        let mut events = view.events_between(None, from, until.checked_add(1));
        while let Some(event) = events.next_event() {
            match event.missed {
                Some(Missed::Events(missed)) => self.lost += missed,
                Some(Missed::Unknown) => self.lost_unknown += 1,
                None => {}
            }
            if let Some(id) = event_id(event.payload).map(usize::from) {
                if counts.len() <= id {
                    counts.resize(id + 1, 0);
                }
                counts[id] += 1;
            }
            intervals.push(&event, &mut |interval| self.note(view, &interval));
        }
        for (id, count) in (0..).zip(counts).filter(|(_, count)| *count > 0) {
            let name = match view.catalog.event(id) {
                Some(event) => format!("{}:{}", event.system, event.name),
                None => format!("unknown type {id}"),
            };
            *self.events.entry(name).or_default() += count;
        }
        self.sort();
    }

    /// Notes how long something took. Sleeping is not measured: it lasts as long as there is nothing
    /// to do.
    fn note(&mut self, view: &View, interval: &Interval) {
        let Some(duration) = interval.duration() else {
            return;
        };
        let what = match (interval.kind, &*interval.name) {
            (IntervalKind::State, "running") if interval.pid != 0 => "on CPU",
            (IntervalKind::Wakeup, _) => "wake-up latency",
            (IntervalKind::Irq, _) => "irq",
            (IntervalKind::Softirq, _) => "softirq",
            (IntervalKind::Span, _) => "span",
            _ => return,
        };
        let is_of_task = matches!(interval.kind, IntervalKind::State | IntervalKind::Wakeup);
        let of = match is_of_task {
            true => {
                self.add_duration(what.to_owned(), duration);
                let comm = view.catalog.tasks().comm(interval.pid);
                let Some(comm) = comm else {
                    return;
                };
                String::from_utf8_lossy(comm).into_owned()
            }
            false => interval.name.to_string(),
        };
        self.add_duration(format!("{what}: {of}"), duration);
    }

    fn add_duration(&mut self, what: String, duration: u64) {
        self.durations.entry(what).or_default().push(duration);
    }

    fn sort(&mut self) {
        self.durations.values_mut().for_each(|d| d.sort_unstable());
    }

    /// Puts another window to this one.
    pub(crate) fn add(&mut self, other: Self) {
        self.names.extend(other.names);
        self.verdicts.extend(other.verdicts);
        self.length_ns = self.length_ns.saturating_add(other.length_ns);
        self.lost += other.lost;
        self.lost_unknown += other.lost_unknown;
        for (name, count) in other.events {
            *self.events.entry(name).or_default() += count;
        }
        for (what, durations) in other.durations {
            self.durations.entry(what).or_default().extend(durations);
        }
        self.sort();
    }

    /// Its length in seconds.
    pub(crate) fn seconds(&self) -> f64 {
        self.length_ns as f64 / 1e9
    }
}

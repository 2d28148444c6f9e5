//! `outlive show --follow`: the events of a live instance as they are recorded.
//!
//! The recorder copies each CPU's events in turn, so an event may arrive after a later one of
//! another CPU. One is printed when an event of each CPU is there to compare it with, or when it is
//! no newer than what the round before had seen: the recorder looked at all CPUs since.

use std::collections::HashSet;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use outlive_event::{Catalog, Formatter};
use outlive_ring::{LiveReader, Missed};
use outlive_trace::Mapping;
use outlive_trace::view::{self, LiveRegion, Trust, ViewEvent};

use crate::show::{Lines, Look, Output, Selection, Text, is_wanted};
use crate::target::Target;

/// Least time between two rounds. The recorder's own interval is 10 ms unless set.
const ROUND: Duration = Duration::from_millis(100);
/// How often it is looked whether to stop.
const STEP: Duration = Duration::from_millis(20);

/// Prints what is there, then what comes, until the recorder ends or a signal comes.
pub(crate) fn run(
    target: &Target,
    selection: &Selection,
    look: Look,
    out: impl Write,
) -> Result<()> {
    let Target::Live { place, is_running } = target else {
        bail!("--follow needs a live instance: this is what an earlier run left");
    };
    if !is_running {
        bail!("no recorder runs on this state: there is nothing to follow");
    }
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&stop))?;
    }
    let file = LiveRegion::open(place)?;
    let readers = file.readers();
    let nr_cpus = readers.len();
    let catalog = file.catalog();
    let run = file.run();
    let has_lanes = view::has_lanes(&catalog, run.as_ref());
    if !has_lanes {
        selection.check_cpu(nr_cpus)?;
    }
    selection.check_events(&catalog, nr_cpus)?;
    let (clock, poll_interval_ns) =
        run.map_or_else(Default::default, |run| (run.clock, run.poll_interval_ns));
    let mut follower = Follower {
        cpus: readers
            .into_iter()
            .zip(0..)
            .filter(|(_, cpu)| has_lanes || selection.has_cpu(*cpu))
            .map(|(reader, cpu)| Queue::new(cpu, reader))
            .collect(),
        file: &file,
        selection,
        look,
        clock: &clock,
        nr_cpus,
        is_of_program: has_lanes,
        catalog,
        given_up: HashSet::new(),
        horizon: 0,
        text: Text::default(),
    };
    // As the kernel's `trace_pipe`: no header, and no word where a CPU's buffer starts.
    let mut output = Output::new(out);
    let pause = ROUND.max(Duration::from_nanos(poll_interval_ns.saturating_mul(2)));
    loop {
        // In this order: what was written before the recorder ended is there.
        let is_last = !file.is_recorded() || stop.load(Ordering::Relaxed);
        follower.round(&mut output, is_last)?;
        output.flush()?;
        if is_last {
            return output.finish(&follower.catalog);
        }
        wait(pause, &stop);
    }
}

fn wait(pause: Duration, stop: &AtomicBool) {
    let end = Instant::now() + pause;
    while Instant::now() < end && !stop.load(Ordering::Relaxed) {
        std::thread::sleep(STEP.min(pause));
    }
}

struct Follower<'f> {
    file: &'f LiveRegion,
    selection: &'f Selection,
    look: Look,
    clock: &'f str,
    nr_cpus: usize,
    is_of_program: bool,
    catalog: Catalog,
    /// What the recorder does not know either.
    given_up: HashSet<Unknown>,
    cpus: Vec<Queue<'f>>,
    /// What is not newer may be printed: time of the newest event that the round before saw.
    horizon: u64,
    text: Text,
}

impl Follower<'_> {
    /// Prints all that may be printed; in the last round, everything.
    fn round<W: Write>(&mut self, output: &mut Output<W>, is_last: bool) -> Result<()> {
        for queue in &mut self.cpus {
            queue.at_end = false;
        }
        let horizon = match is_last {
            true => u64::MAX,
            false => self.horizon,
        };
        while self.fill() {
            let drained = self.print(output, horizon)?;
            if !drained {
                break;
            }
        }
        Ok(())
    }

    /// Gets the next events of each CPU that has none, and what is needed to decode them.
    /// Returns whether there are any events.
    fn fill(&mut self) -> bool {
        let mut unknown = Vec::new();
        for queue in &mut self.cpus {
            if queue.is_empty() && !queue.at_end {
                queue.fill();
                self.horizon = self.horizon.max(queue.newest());
                unknown.extend(queue.unknown(&self.catalog));
            }
        }
        unknown.retain(|what| !self.given_up.contains(what));
        if !unknown.is_empty() {
            self.catalog = self.file.catalog();
            let still_unknown = self.cpus.iter().flat_map(|q| q.unknown(&self.catalog));
            self.given_up.extend(still_unknown);
        }
        self.cpus.iter().any(|queue| !queue.is_empty())
    }

    /// Prints until a CPU is out of events that might have more. Returns false if the rest has to
    /// wait for the next round.
    fn print<W: Write>(&mut self, output: &mut Output<W>, horizon: u64) -> Result<bool> {
        let formatter = Formatter::new(&self.catalog, self.look.options(self.clock));
        let lines = Lines::new(&self.catalog, formatter, self.look, self.is_of_program);
        let wanted = self.selection.wanted(&self.catalog, self.nr_cpus);
        self.text.clear();
        let mut may_go_on = true;
        while !self.cpus.iter().any(|q| q.is_empty() && !q.at_end) {
            let next = |i: usize| Some((self.cpus[i].next_time()?, i));
            let Some((time, i)) = (0..self.cpus.len()).filter_map(next).min() else {
                break;
            };
            if time > horizon && self.cpus.iter().any(Queue::is_empty) {
                may_go_on = false;
                break;
            }
            let Some(event) = self.cpus[i].pop(&self.catalog) else {
                continue;
            };
            let is_wanted = is_wanted(wanted.as_ref(), event.cpu, event.payload);
            if is_wanted && self.selection.has_cpu(event.cpu) {
                lines.push(&mut self.text, &event)?;
            } else {
                let missed = event.missed;
                self.cpus[i].missed = missed;
            }
        }
        output.write(&lines, &self.text)?;
        Ok(may_go_on)
    }
}

/// The events of one CPU that are read and not printed: those of one chunk.
struct Queue<'f> {
    cpu: u32,
    reader: LiveReader<&'f Mapping>,
    /// No more events in this round.
    at_end: bool,
    missed: Option<Missed>,
    events: Vec<Queued>,
    next: usize,
    payloads: Vec<u8>,
}

/// Something that the catalog has not.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Unknown {
    /// The format of an event, by its id.
    Event(u16),
    /// The name of a task, by its pid.
    Task(i32),
}

#[derive(Clone, Copy)]
struct Queued {
    time_stamp: u64,
    text_time_stamp: u64,
    start: usize,
    end: usize,
}

impl<'f> Queue<'f> {
    fn new(cpu: u32, reader: LiveReader<&'f Mapping>) -> Self {
        Self {
            cpu,
            reader,
            at_end: false,
            missed: None,
            events: Vec::new(),
            next: 0,
            payloads: Vec::new(),
        }
    }

    fn is_empty(&self) -> bool {
        self.next == self.events.len()
    }

    fn next_time(&self) -> Option<u64> {
        Some(self.events.get(self.next)?.text_time_stamp)
    }

    fn newest(&self) -> u64 {
        self.events.last().map_or(0, |event| event.text_time_stamp)
    }

    /// Copies the next chunk that has events.
    fn fill(&mut self) {
        self.events.clear();
        self.payloads.clear();
        self.next = 0;
        while self.events.is_empty() {
            let Some(chunk) = self.reader.next_chunk() else {
                self.at_end = true;
                return;
            };
            self.missed = Missed::sum(self.missed, chunk.missed);
            for event in chunk.events().flatten() {
                let start = self.payloads.len();
                self.payloads.extend_from_slice(event.payload);
                self.events.push(Queued {
                    time_stamp: event.time_stamp,
                    text_time_stamp: event.text_time_stamp,
                    start,
                    end: self.payloads.len(),
                });
            }
        }
    }

    /// What the catalog lacks for the events.
    fn unknown(&self, catalog: &Catalog) -> impl Iterator<Item = Unknown> {
        self.events.iter().flat_map(|event| {
            let payload = &self.payloads[event.start..event.end];
            let id = outlive_event::event_id(payload).filter(|&id| catalog.event(id).is_none());
            let pid = outlive_event::pid(payload);
            let pid = pid.filter(|&pid| pid > 0 && catalog.tasks().comm(pid).is_none());
            let id = id.map(Unknown::Event);
            id.into_iter().chain(pid.map(Unknown::Task))
        })
    }

    fn pop(&mut self, catalog: &Catalog) -> Option<ViewEvent<'_>> {
        let event = *self.events.get(self.next)?;
        self.next += 1;
        let payload = &self.payloads[event.start..event.end];
        Some(ViewEvent {
            cpu: catalog.cpu(payload).unwrap_or(self.cpu),
            buffer: self.cpu,
            time_stamp: event.time_stamp,
            text_time_stamp: event.text_time_stamp,
            missed: self.missed.take(),
            trust: Trust::default(),
            payload,
        })
    }
}

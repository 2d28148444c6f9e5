//! The end of a run: what its events, its sign of life and its counters say of it.

use std::collections::BTreeMap;

use outlive_event::Value;
use outlive_trace::Verdict;
use outlive_trace::view::{View, ViewCpu, ViewEvent};

use super::kept::{Kept, Recent};
use super::roles::{Role, Roles};
use super::spans::{Span, Spans};
use super::tasks::{Task, Tasks};
use crate::run::SUPERVISOR;
use crate::summary;

/// A time without any event that is worth telling: recorders give a sign of life each second.
const SILENCE_NS: u64 = 1_000_000_000;
/// A time without a sign of life that is worth telling.
const GAP_NS: u64 = 2_000_000_000;
/// Silences that are told, the longest ones.
const SILENCES: usize = 3;
/// Messages that are told, the newest ones.
const MESSAGES: usize = 8;
/// A difference of two clocks that is no error of reading them.
const SUSPEND_NS: u64 = 100_000_000;

/// A time without any event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Silence {
    pub(super) from: u64,
    pub(super) until: u64,
}

impl Silence {
    pub(super) fn len(self) -> u64 {
        self.until - self.from
    }
}

/// A time in which the recorder gave no sign of life: its program was stopped, or did not get a processor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Gap {
    pub(super) len: u64,
    /// `CLOCK_REALTIME` at its end; `None`: it goes on.
    pub(super) until_ns: Option<u64>,
}

impl Gap {
    /// The longest one, and the one that goes on.
    fn of(view: &View, verdict: Verdict) -> Vec<Self> {
        let beat = &view.heartbeat;
        let longest = (beat.max_delay_until_ns > 0).then_some(Self {
            len: beat.max_delay_ns,
            until_ns: Some(beat.max_delay_until_ns),
        });
        // Who never gave two signs of life by the clock may give none for want of events.
        let is_regular = beat.max_delay_ns > 0 && verdict == Verdict::StillRunning;
        let now_ns = outlive_trace::clock::realtime_ns();
        let present = is_regular.then_some(Self {
            len: now_ns.saturating_sub(beat.realtime_ns),
            until_ns: None,
        });
        let gaps = longest.into_iter().chain(present);
        gaps.filter(|gap| gap.len >= GAP_NS).collect()
    }
}

/// Events that are not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Lost {
    /// Overwritten by newer ones.
    pub(super) overwritten: u64,
    /// Dropped by the recorder itself: no room, no lane.
    pub(super) dropped: u64,
    /// Lost before they reached the region.
    pub(super) lost: u64,
    /// How often a number was lost that nobody knows.
    pub(super) unknown: u64,
    /// Formats and names that did not fit the catalog.
    pub(super) catalog: u64,
    /// Sub-buffers that were rejected.
    pub(super) rejected: usize,
}

impl Lost {
    fn of(view: &View) -> Self {
        let recovered = view.parts.iter().flat_map(|part| &part.recovery.cpus);
        let mut lost = Self {
            catalog: view.heartbeat.catalog_dropped,
            rejected: recovered.map(|cpu| cpu.rejected.len()).sum(),
            ..Self::default()
        };
        for ViewCpu { counters, .. } in &view.cpus {
            lost.overwritten += counters.overrun;
            lost.dropped += counters.dropped + counters.commit_overrun;
            lost.lost += counters.lost;
            lost.unknown += counters.lost_unknown;
        }
        lost
    }
}

/// What is known about the end of a run.
#[derive(Debug)]
pub(super) struct End<'v> {
    pub(super) view: &'v View,
    pub(super) verdict: Verdict,
    /// When the run said that it ended, else its last sign of life: nanoseconds since 1970.
    pub(super) ended_ns: Option<u64>,
    /// Time of the last event.
    pub(super) last_time: u64,
    /// Where there is a tail: time of the last event that the recorder itself wrote.
    pub(super) recorded_until: Option<u64>,
    pub(super) lost: Lost,
    /// From this time on no event is missing.
    pub(super) certain_since: u64,
    /// The same for what each CPU alone recorded.
    certain_since_of_cpu: BTreeMap<u32, u64>,
    /// Nanoseconds for which the machine was suspended.
    pub(super) suspended_ns: u64,
    /// In the order of time.
    pub(super) silences: Vec<Silence>,
    pub(super) gaps: Vec<Gap>,
    /// The last panic.
    pub(super) panic: Option<Kept>,
    /// What the kernel, or a program that a supervisor ran, said.
    pub(super) messages: Recent,
    /// How that program ended.
    pub(super) program_end: Option<Kept>,
    /// What it took.
    pub(super) program_usage: Option<Kept>,
    /// The open spans, oldest first.
    pub(super) spans: Vec<Span>,
    /// The last events of each thread of a program, by its id; of each CPU of a kernel.
    pub(super) groups: BTreeMap<i32, Recent>,
    pub(super) tasks: Tasks,
}

impl<'v> End<'v> {
    /// Looks at all events; of each thread or CPU it keeps `count`. Without its whole end
    /// (`has_end`) nothing is certain that a later event could have changed.
    pub(super) fn of(view: &'v View, verdict: Verdict, has_end: bool, count: usize) -> Self {
        let roles = Roles::of(&view.catalog);
        let mut pass = Pass {
            by_thread: view.has_lanes(),
            count,
            ..Pass::default()
        };
        let mut events = view.events(None);
        while let Some(event) = events.next_event() {
            pass.event(roles.role(event.payload), &event);
        }
        let since = |cpu: &ViewCpu| match has_end {
            true => certain_since(view, cpu),
            false => u64::MAX,
        };
        let cpus = view.cpus.iter();
        let certain_since_of_cpu: BTreeMap<_, _> = cpus.map(|cpu| (cpu.cpu, since(cpu))).collect();
        let certain_since = certain_since_of_cpu.values().max().copied().unwrap_or(0);
        Self {
            view,
            verdict,
            ended_ns: summary::ended_ns(view),
            last_time: pass.last_time.unwrap_or(0),
            recorded_until: view.recorded_until().filter(|_| view.parts.len() > 1),
            lost: Lost::of(view),
            certain_since,
            certain_since_of_cpu,
            suspended_ns: suspended_ns(view),
            silences: match view.clock_in_ns() {
                true => longest(pass.silences),
                false => Vec::new(),
            },
            gaps: Gap::of(view, verdict),
            panic: pass.panic,
            messages: pass.messages,
            program_end: pass.program_end,
            program_usage: pass.program_usage,
            spans: pass.spans.open(certain_since),
            groups: pass.groups,
            tasks: pass.tasks,
        }
    }

    /// Whether a supervisor wrote it: `outlive run`.
    pub(super) fn is_of_supervisor(&self) -> bool {
        is_of_supervisor(self.view)
    }

    /// What each CPU ran, and since when.
    pub(super) fn on_cpu(&self) -> impl Iterator<Item = (u32, Task)> {
        let since = |cpu| self.certain_since_of_cpu.get(&cpu).copied();
        let tasks = self.tasks.on_cpu();
        tasks.map(move |(cpu, task)| (cpu, task.judged(since(cpu).unwrap_or(u64::MAX))))
    }

    /// What the groups of last events are those of.
    pub(super) fn group_word(&self) -> &'static str {
        match self.view.has_lanes() {
            true => "thread",
            false => "CPU",
        }
    }

    /// Nanoseconds from a time of the trace clock to the last event.
    pub(super) fn before_end(&self, time: u64) -> u64 {
        self.last_time.saturating_sub(time)
    }
}

/// What has been seen so far.
#[derive(Debug, Default)]
struct Pass {
    by_thread: bool,
    count: usize,
    last_time: Option<u64>,
    silences: Vec<Silence>,
    panic: Option<Kept>,
    messages: Recent,
    program_end: Option<Kept>,
    program_usage: Option<Kept>,
    spans: Spans,
    groups: BTreeMap<i32, Recent>,
    tasks: Tasks,
}

impl Pass {
    fn event(&mut self, role: Role<'_>, event: &ViewEvent<'_>) {
        let time = event.text_time_stamp;
        let from = self.last_time.replace(time).unwrap_or(time);
        if time.saturating_sub(from) >= SILENCE_NS {
            self.silences.push(Silence { from, until: time });
        }
        let group = match self.by_thread {
            true => outlive_event::pid(event.payload).unwrap_or(0),
            false => event.cpu.cast_signed(),
        };
        let recent = self.groups.entry(group).or_default();
        recent.push(event, self.count);
        self.take_role(role, event);
    }

    fn take_role(&mut self, role: Role<'_>, event: &ViewEvent<'_>) {
        let payload = event.payload;
        let number = |field: &outlive_event::Field| match field.value(payload) {
            Value::Unsigned(id) => id,
            _ => 0,
        };
        match role {
            Role::Other => {}
            Role::SpanBegin { id, parent } => {
                let (id, parent) = (number(id), number(parent));
                self.spans.begin(id, parent, Kept::of(event));
                self.spans.name(parent, event);
            }
            Role::InSpan { id } => self.spans.name(number(id), event),
            Role::SpanEnd { id } => self.spans.end(number(id)),
            Role::Panic => self.panic = Some(Kept::of(event)),
            Role::Message => self.messages.push(event, MESSAGES),
            Role::ProgramEnd => self.program_end = Some(Kept::of(event)),
            Role::ProgramUsage => self.program_usage = Some(Kept::of(event)),
            Role::Switch(fields) => {
                let (cpu, time) = (event.cpu, event.text_time_stamp);
                self.tasks.switch(&fields, payload, cpu, time);
            }
            Role::Wake { pid, comm } => {
                self.tasks.wake(pid, comm, payload, event.text_time_stamp);
            }
        }
    }
}

/// Whether a supervisor wrote it: `outlive run`.
pub(super) fn is_of_supervisor(view: &View) -> bool {
    let run = view.run.as_ref();
    run.is_some_and(|run| run.instance.ends_with(SUPERVISOR))
}

/// The longest silences, in the order of time.
fn longest(mut silences: Vec<Silence>) -> Vec<Silence> {
    silences.sort_by_key(|silence| std::cmp::Reverse(silence.len()));
    silences.truncate(SILENCES);
    silences.sort_unstable_by_key(|silence| silence.from);
    silences
}

/// From which time on a buffer lacks no event; the end of time if that is not known.
fn certain_since(view: &View, cpu: &ViewCpu) -> u64 {
    if cpu.counters.dropped + cpu.counters.commit_overrun > 0 {
        return u64::MAX;
    }
    // A kernel's region has no counters: there may always have been older ones.
    let has_older = cpu.counters.overrun > 0 || view.run.is_none();
    let oldest = cpu.oldest.filter(|_| has_older);
    let holes = cpu.holes.iter().map(|hole| hole.before.unwrap_or(u64::MAX));
    holes.chain(oldest).max().unwrap_or(0)
}

/// How much more the clock that counts a suspended machine has gone on than the one that does not.
fn suspended_ns(view: &View) -> u64 {
    let ahead = |pair: &outlive_ring::extension::ClockPair| {
        pair.boottime_ns.saturating_sub(pair.monotonic_ns)
    };
    let pairs = &view.clock_pairs;
    let (Some(first), Some(last)) = (pairs.first(), pairs.last()) else {
        return 0;
    };
    let suspended = ahead(last).saturating_sub(ahead(first));
    if suspended > SUSPEND_NS { suspended } else { 0 }
}

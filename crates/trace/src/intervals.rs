//! What goes on for a while: states of tasks, waits for a CPU, interrupt handlers, spans of programs.
//!
//! Each of them is two events, its beginning and its end. [`Intervals`] takes the events of a view in
//! the order of time and gives an [`Interval`] at each end. What is not known is left out rather
//! than guessed: where events were lost, and where the buffer of a CPU begins (in a ring that has
//! wrapped, each at another time), everything that was open is forgotten, but for spans: those have
//! ids, so that an end never goes with another's beginning.
//!
//! | kind | begins | ends |
//! | --- | --- | --- |
//! | state | `sched_switch`, `sched_wakeup`, `sched_wakeup_new` | the next of them that is about the task |
//! | wakeup | `sched_wakeup`, `sched_wakeup_new` of a task that does not run | the `sched_switch` to it |
//! | irq | `irq_handler_entry` | `irq_handler_exit` on that CPU |
//! | softirq | `softirq_entry` | `softirq_exit` on that CPU |
//! | span | a program's event with `span_id` and `span_parent` | `outlive:span_end` |
//!
//! The events' fields are those of Linux 6.12 to 7.3.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use outlive_event::{Catalog, EventFormat, Field, Value, event_id, pid};

use crate::view::ViewEvent;

/// What an interval is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum IntervalKind {
    /// A task is in a state: `running`, or the kernel's letters: `R` it waits for a CPU, `R+` it was
    /// preempted, `S`, `D` and so on it sleeps.
    State,
    /// A task was woken and does not run yet: the wake-up latency.
    Wakeup,
    /// An interrupt handler runs.
    Irq,
    /// A softirq handler runs.
    Softirq,
    /// A program's span is open.
    Span,
}

impl IntervalKind {
    /// The kind in a word.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::State => "state",
            Self::Wakeup => "wakeup",
            Self::Irq => "irq",
            Self::Softirq => "softirq",
            Self::Span => "span",
        }
    }
}

/// Something that went on for a while.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interval {
    /// What it is.
    pub kind: IntervalKind,
    /// The state, the handler, or `system:event` of the span.
    pub name: Arc<str>,
    /// When it began, in the unit of the trace clock.
    pub start: u64,
    /// When it ended; `None` if it was open at the last event.
    pub end: Option<u64>,
    /// Where it ran, or will run; `None` for a task that sleeps or waits.
    pub cpu: Option<u32>,
    /// The task.
    pub pid: i32,
}

impl Interval {
    /// How long it took, in the unit of the trace clock.
    #[must_use]
    pub fn duration(&self) -> Option<u64> {
        self.end.map(|end| end.saturating_sub(self.start))
    }
}

/// Names of the softirqs by their number, as the `print fmt` of `softirq_entry` has them.
const SOFTIRQS: [&str; 10] = [
    "HI", "TIMER", "NET_TX", "NET_RX", "BLOCK", "IRQ_POLL", "TASKLET", "SCHED", "HRTIMER", "RCU",
];
/// Bits of `prev_state` and their letters, as the `print fmt` of `sched_switch` has them.
const STATES: [(i64, &str); 8] = [
    (0x01, "S"),
    (0x02, "D"),
    (0x04, "T"),
    (0x08, "t"),
    (0x10, "X"),
    (0x20, "Z"),
    (0x40, "P"),
    (0x80, "I"),
];
/// The bit of `prev_state` that says that the task was preempted.
const PREEMPTED: i64 = 0x100;
const RUNNING: &str = "running";

/// What an event means here.
#[derive(Debug)]
enum Role {
    Switch {
        prev_pid: Field,
        prev_state: Field,
        next_pid: Field,
    },
    Wakeup {
        pid: Field,
        is_new: bool,
    },
    Entry {
        kind: IntervalKind,
        number: Field,
        name: Option<Field>,
    },
    Exit {
        kind: IntervalKind,
        number: Field,
    },
    SpanBegin {
        id: Field,
        name: Arc<str>,
    },
    SpanEnd {
        id: Field,
    },
}

impl Role {
    fn of(event: &EventFormat) -> Option<Self> {
        let field = |name| event.field(name).cloned();
        Some(match (event.system.as_str(), event.name.as_str()) {
            ("sched", "sched_switch") => Self::Switch {
                prev_pid: field("prev_pid")?,
                prev_state: field("prev_state")?,
                next_pid: field("next_pid")?,
            },
            ("sched", name @ ("sched_wakeup" | "sched_wakeup_new")) => Self::Wakeup {
                pid: field("pid")?,
                is_new: name == "sched_wakeup_new",
            },
            ("irq", "irq_handler_entry") => Self::Entry {
                kind: IntervalKind::Irq,
                number: field("irq")?,
                name: field("name"),
            },
            ("irq", "irq_handler_exit") => Self::Exit {
                kind: IntervalKind::Irq,
                number: field("irq")?,
            },
            ("irq", "softirq_entry") => Self::Entry {
                kind: IntervalKind::Softirq,
                number: field("vec")?,
                name: None,
            },
            ("irq", "softirq_exit") => Self::Exit {
                kind: IntervalKind::Softirq,
                number: field("vec")?,
            },
            ("outlive", "span_end") => Self::SpanEnd {
                id: field("span_id")?,
            },
            (system, name) if field("span_parent").is_some() => Self::SpanBegin {
                id: field("span_id")?,
                name: format!("{system}:{name}").into(),
            },
            _ => return None,
        })
    }
}

/// Something that is open.
#[derive(Debug)]
struct Open {
    name: Arc<str>,
    start: u64,
}

/// A handler that runs on a CPU.
#[derive(Debug)]
struct Handler {
    kind: IntervalKind,
    number: i64,
    open: Open,
    pid: i32,
}

/// What is known of a CPU.
#[derive(Debug, Default)]
struct CpuState {
    /// The task that runs, and since when.
    running: Option<(i32, u64)>,
    /// The innermost handler last.
    handlers: Vec<Handler>,
}

#[derive(Debug)]
struct OpenSpan {
    open: Open,
    cpu: u32,
    pid: i32,
    /// Its end may be among events that were lost.
    is_uncertain: bool,
}

/// Makes intervals of the events of one view, which must be given in the order of time.
#[derive(Debug, Default)]
pub struct Intervals {
    /// By event id.
    roles: Vec<Option<Role>>,
    /// Buffers that have been seen.
    begun: Vec<bool>,
    cpus: BTreeMap<u32, CpuState>,
    /// States of the tasks that do not run.
    states: BTreeMap<i32, Open>,
    /// When tasks were woken that do not run yet.
    woken: HashMap<i32, u64>,
    spans: BTreeMap<i64, OpenSpan>,
    names: HashMap<Vec<u8>, Arc<str>>,
}

impl Intervals {
    /// Intervals of events with these formats.
    #[must_use]
    pub fn new(catalog: &Catalog) -> Self {
        let mut intervals = Self::default();
        for event in catalog.events() {
            let id = usize::from(event.id);
            if intervals.roles.len() <= id {
                intervals.roles.resize_with(id + 1, || None);
            }
            intervals.roles[id] = Role::of(event);
        }
        intervals
    }

    /// Takes the next event, and gives what it ends.
    pub fn push(&mut self, event: &ViewEvent<'_>, give: &mut dyn FnMut(Interval)) {
        let buffer = event.buffer as usize;
        if self.begun.len() <= buffer {
            self.begun.resize(buffer + 1, false);
        }
        if event.missed.is_some() {
            self.spans.values_mut().for_each(|s| s.is_uncertain = true);
        }
        if event.missed.is_some() || !self.begun[buffer] {
            self.forget();
        }
        self.begun[buffer] = true;
        let Some(id) = event_id(event.payload).map(usize::from) else {
            return;
        };
        // Taken out while it is used: nothing else looks at it meanwhile.
        if let Some(role) = self.roles.get_mut(id).and_then(Option::take) {
            self.apply(&role, event, give);
            self.roles[id] = Some(role);
        }
    }

    /// Gives what is still open.
    pub fn finish(&mut self, give: &mut dyn FnMut(Interval)) {
        let running: Arc<str> = RUNNING.into();
        for (cpu, state) in std::mem::take(&mut self.cpus) {
            if let Some((pid, start)) = state.running {
                let name = running.clone();
                give(of_state(Open { name, start }, None, Some(cpu), pid));
            }
            for Handler {
                kind, open, pid, ..
            } in state.handlers
            {
                give(interval(kind, open, None, Some(cpu), pid));
            }
        }
        for (pid, open) in std::mem::take(&mut self.states) {
            give(of_state(open, None, None, pid));
        }
        for span in std::mem::take(&mut self.spans).into_values() {
            if !span.is_uncertain {
                let OpenSpan { open, cpu, pid, .. } = span;
                give(interval(IntervalKind::Span, open, None, Some(cpu), pid));
            }
        }
        self.woken.clear();
    }

    fn forget(&mut self) {
        self.cpus.clear();
        self.states.clear();
        self.woken.clear();
    }

    fn apply(&mut self, role: &Role, event: &ViewEvent<'_>, give: &mut dyn FnMut(Interval)) {
        let value = |field: &Field| number(field, event.payload);
        match role {
            Role::Switch {
                prev_pid,
                prev_state,
                next_pid,
            } => {
                if let (Some(prev), Some(next)) = (value(prev_pid), value(next_pid)) {
                    let state = value(prev_state).unwrap_or(0);
                    self.switch(event, (prev as i32, state), next as i32, give);
                }
            }
            Role::Wakeup { pid, is_new } => {
                if let Some(pid) = value(pid) {
                    self.wake(event.time_stamp, pid as i32, *is_new, give);
                }
            }
            Role::Entry { kind, number, name } => {
                if let Some(number) = value(number) {
                    let name = self.handler_name(*kind, number, name.as_ref(), event.payload);
                    let (kind, start, pid) =
                        (*kind, event.time_stamp, pid(event.payload).unwrap_or(0));
                    let open = Open { name, start };
                    let cpu = self.cpus.entry(event.cpu).or_default();
                    cpu.handlers.push(Handler {
                        kind,
                        number,
                        open,
                        pid,
                    });
                }
            }
            Role::Exit { kind, number } => {
                let cpu = self.cpus.entry(event.cpu).or_default();
                let is_it = |h: &mut Handler| h.kind == *kind && Some(h.number) == value(number);
                match cpu.handlers.pop_if(is_it) {
                    Some(Handler {
                        kind, open, pid, ..
                    }) => {
                        let end = Some(event.time_stamp);
                        give(interval(kind, open, end, Some(event.cpu), pid));
                    }
                    // An end without its beginning: what lies below it cannot be trusted.
                    None => cpu.handlers.clear(),
                }
            }
            Role::SpanBegin { id, name } => {
                if let Some(id) = value(id) {
                    let span = OpenSpan {
                        open: Open {
                            name: name.clone(),
                            start: event.time_stamp,
                        },
                        cpu: event.cpu,
                        pid: pid(event.payload).unwrap_or(0),
                        is_uncertain: false,
                    };
                    self.spans.insert(id, span);
                }
            }
            Role::SpanEnd { id } => {
                if let Some(span) = value(id).and_then(|id| self.spans.remove(&id)) {
                    let OpenSpan { open, cpu, pid, .. } = span;
                    let end = Some(event.time_stamp);
                    give(interval(IntervalKind::Span, open, end, Some(cpu), pid));
                }
            }
        }
    }

    /// A CPU changes from one task to another.
    fn switch(
        &mut self,
        event: &ViewEvent<'_>,
        (prev, prev_state): (i32, i64),
        next: i32,
        give: &mut dyn FnMut(Interval),
    ) {
        let (now, on) = (event.time_stamp, event.cpu);
        let cpu = self.cpus.entry(on).or_default();
        let was = cpu.running.replace((next, now));
        if let Some((pid, start)) = was
            && pid == prev
        {
            let name = self.intern(RUNNING.as_bytes());
            give(of_state(Open { name, start }, Some(now), Some(on), pid));
        }
        // Each CPU has an idle task of its own, all of them with pid 0.
        if prev != 0 {
            let name = self.state_name(prev_state);
            self.states.insert(prev, Open { name, start: now });
        }
        if let Some(open) = self.states.remove(&next) {
            give(of_state(open, Some(now), None, next));
        }
        if let Some(start) = self.woken.remove(&next) {
            let name = self.intern(b"wakeup");
            let open = Open { name, start };
            give(interval(
                IntervalKind::Wakeup,
                open,
                Some(now),
                Some(on),
                next,
            ));
        }
    }

    fn wake(&mut self, now: u64, pid: i32, is_new: bool, give: &mut dyn FnMut(Interval)) {
        let is_running = |cpu: &CpuState| cpu.running.is_some_and(|(running, _)| running == pid);
        if self.cpus.values().any(is_running) {
            return;
        }
        match self.states.remove(&pid) {
            Some(open) if open.name.starts_with('R') => {
                self.states.insert(pid, open);
                return;
            }
            // The pid's last owner is dead.
            Some(_) if is_new => {}
            Some(open) => give(of_state(open, Some(now), None, pid)),
            None => {}
        }
        let name = self.intern(b"R");
        self.states.insert(pid, Open { name, start: now });
        self.woken.insert(pid, now);
    }

    fn handler_name(
        &mut self,
        kind: IntervalKind,
        number: i64,
        name: Option<&Field>,
        payload: &[u8],
    ) -> Arc<str> {
        let known = match name.map(|field| field.value(payload)) {
            Some(Value::Text(text)) if !text.is_empty() => Some(text),
            _ => usize::try_from(number)
                .ok()
                .and_then(|i| SOFTIRQS.get(i))
                .filter(|_| kind == IntervalKind::Softirq)
                .map(|name| name.as_bytes()),
        };
        match known {
            Some(name) => self.intern(name),
            None => self.intern(number.to_string().as_bytes()),
        }
    }

    fn state_name(&mut self, prev_state: i64) -> Arc<str> {
        let letters = STATES.iter().filter(|(bit, _)| prev_state & bit != 0);
        let mut name = letters.map(|(_, l)| *l).collect::<Vec<_>>().join("|");
        if name.is_empty() {
            name.push('R');
        }
        if prev_state & PREEMPTED != 0 {
            name.push('+');
        }
        self.intern(name.as_bytes())
    }

    fn intern(&mut self, name: &[u8]) -> Arc<str> {
        if let Some(known) = self.names.get(name) {
            return known.clone();
        }
        let shared: Arc<str> = String::from_utf8_lossy(name).into();
        self.names.insert(name.to_owned(), shared.clone());
        shared
    }
}

fn interval(
    kind: IntervalKind,
    Open { name, start }: Open,
    end: Option<u64>,
    cpu: Option<u32>,
    pid: i32,
) -> Interval {
    Interval {
        kind,
        name,
        start,
        end,
        cpu,
        pid,
    }
}

fn of_state(open: Open, end: Option<u64>, cpu: Option<u32>, pid: i32) -> Interval {
    interval(IntervalKind::State, open, end, cpu, pid)
}

/// An integer field's value.
fn number(field: &Field, payload: &[u8]) -> Option<i64> {
    match field.value(payload) {
        Value::Signed(value) => Some(value),
        Value::Unsigned(value) => Some(value as i64),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use outlive_ring::Missed;

    use super::*;

    const SWITCH: &str = "name: sched_switch\nID: 1\nformat:\n\
        \tfield:pid_t prev_pid;\toffset:8;\tsize:4;\tsigned:1;\n\
        \tfield:long prev_state;\toffset:16;\tsize:8;\tsigned:1;\n\
        \tfield:pid_t next_pid;\toffset:24;\tsize:4;\tsigned:1;\n\nprint fmt: \"\"\n";
    const WAKEUP: &str = "name: sched_wakeup\nID: 2\nformat:\n\
        \tfield:pid_t pid;\toffset:8;\tsize:4;\tsigned:1;\n\nprint fmt: \"\"\n";
    const ENTRY: &str = "name: softirq_entry\nID: 3\nformat:\n\
        \tfield:unsigned int vec;\toffset:8;\tsize:4;\tsigned:0;\n\nprint fmt: \"\"\n";
    const EXIT: &str = "name: softirq_exit\nID: 4\nformat:\n\
        \tfield:unsigned int vec;\toffset:8;\tsize:4;\tsigned:0;\n\nprint fmt: \"\"\n";

    struct Feed {
        intervals: Intervals,
        got: Vec<String>,
    }

    impl Feed {
        fn new() -> Self {
            let mut catalog = Catalog::new();
            for (system, text) in [
                ("sched", SWITCH),
                ("sched", WAKEUP),
                ("irq", ENTRY),
                ("irq", EXIT),
            ] {
                catalog.add_format(system, text).unwrap();
            }
            Self {
                intervals: Intervals::new(&catalog),
                got: Vec::new(),
            }
        }

        fn event(&mut self, cpu: u32, time: u64, payload: &[u8], missed: Option<Missed>) {
            let event = ViewEvent {
                cpu,
                buffer: cpu,
                time_stamp: time,
                text_time_stamp: time,
                missed,
                trust: crate::view::Trust::default(),
                payload,
            };
            let got = &mut self.got;
            self.intervals.push(&event, &mut |i| got.push(text(&i)));
        }

        fn switch(&mut self, cpu: u32, time: u64, prev: i32, state: i64, next: i32) {
            let mut payload = record(1, prev);
            payload.extend([0; 4]);
            payload.extend(state.to_le_bytes());
            payload.extend(next.to_le_bytes());
            self.event(cpu, time, &payload, None);
        }

        fn wake(&mut self, cpu: u32, time: u64, pid: i32) {
            self.event(cpu, time, &record(2, pid), None);
        }

        fn finish(mut self) -> Vec<String> {
            let got = &mut self.got;
            self.intervals.finish(&mut |i| got.push(text(&i)));
            self.got
        }
    }

    fn record(id: u16, field: i32) -> Vec<u8> {
        let mut payload = id.to_le_bytes().to_vec();
        payload.extend([0; 6]);
        payload.extend(field.to_le_bytes());
        payload
    }

    fn text(i: &Interval) -> String {
        let end = i.end.map_or("-".into(), |end| end.to_string());
        format!("{} {} {} {}-{end}", i.pid, i.kind.word(), i.name, i.start)
    }

    #[test]
    fn a_task_sleeps_is_woken_waits_and_runs() {
        let mut feed = Feed::new();
        feed.switch(0, 10, 0, 0, 7);
        feed.switch(0, 20, 7, 1, 0);
        feed.wake(0, 50, 7);
        feed.wake(0, 51, 7);
        feed.switch(0, 55, 0, 0, 7);
        assert_eq!(
            feed.finish(),
            [
                "7 state running 10-20",
                "7 state S 20-50",
                "0 state running 20-55",
                "7 state R 50-55",
                "7 wakeup wakeup 50-55",
                "7 state running 55--",
            ]
        );
    }

    #[test]
    fn a_preempted_task_waits_and_was_not_woken() {
        let mut feed = Feed::new();
        feed.switch(0, 10, 0, 0, 7);
        feed.switch(0, 20, 7, PREEMPTED, 8);
        feed.wake(0, 25, 7);
        feed.switch(0, 30, 8, 0x82, 7);
        let got = feed.finish();
        assert!(got.contains(&"7 state R+ 20-30".into()), "{got:?}");
        assert!(got.contains(&"8 state D|I 30--".into()), "{got:?}");
        assert!(!got.iter().any(|i| i.contains("wakeup")), "{got:?}");
    }

    #[test]
    fn what_was_open_where_events_were_lost_is_forgotten() {
        let mut feed = Feed::new();
        feed.switch(0, 10, 0, 0, 7);
        feed.switch(0, 20, 7, 1, 0);
        feed.wake(0, 30, 7);
        feed.event(0, 40, &record(2, 9), Some(Missed::Unknown));
        feed.switch(0, 55, 0, 0, 7);
        assert_eq!(
            feed.finish(),
            [
                "7 state running 10-20",
                "7 state S 20-30",
                "7 state running 55--",
                "9 state R 40--",
            ]
        );
    }

    #[test]
    fn the_beginning_of_another_cpus_buffer_hides_what_was_before() {
        let mut feed = Feed::new();
        feed.switch(0, 10, 7, 1, 0);
        feed.switch(1, 20, 0, 0, 8);
        feed.switch(0, 30, 0, 0, 7);
        assert_eq!(
            feed.finish().iter().filter(|i| i.contains(" S ")).count(),
            0
        );
    }

    #[test]
    fn handlers_nest_and_an_end_without_a_beginning_is_none() {
        let mut feed = Feed::new();
        feed.event(0, 5, &record(4, 1), None);
        feed.event(0, 10, &record(3, 1), None);
        feed.event(0, 12, &record(3, 42), None);
        feed.event(0, 15, &record(4, 42), None);
        feed.event(0, 20, &record(4, 1), None);
        assert_eq!(
            feed.finish(),
            ["0 softirq 42 12-15", "0 softirq TIMER 10-20"]
        );
    }
}

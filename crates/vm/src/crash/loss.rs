//! What outlive's region lacks of the kernel's own, which recorded the same events until the end.
//!
//! Both instances hear of an event one after the other on the same CPU, and note its fields alike; the
//! time that each reads is its own. So a CPU's events are the same sequence in both, but where something
//! came between the two: an interrupt, whose events are exchanged with the interrupted one; or, for the
//! few events that may be preempted (`sched_process_exec`), another task, or even another CPU. An event
//! of the kernel's is found in ours by its bytes and its place, within a few events.
//!
//! One field may change between the two: a task that exits is a zombie (`prev_state` `Z`) when one
//! instance hears that it is switched away, and dead (`X`) when the other does, if its parent on another
//! CPU waits for it just then. (Seen with 7.3.4, once in fifteen runs of `tests/machine_crash.rs`.) So may the
//! name that a task loses in `exec`: `sched_stat_runtime` reads it while another CPU accounts the task's
//! time. (Seen with 7.3.4, once in fifteen.)

use std::collections::{HashMap, VecDeque};
use std::path::Path;

use outlive_event::{Catalog, Formatter, TextOptions, event_id};
use outlive_trace::view::View;

/// Events of ours that may come before the one that is looked for.
const AHEAD: usize = 64;
/// Equal events in a row that show where the two begin to be the same.
const SURE: usize = 24;
/// The two times of an event are closer than this, unless another task came between.
const NEAR_NS: u64 = 50_000_000;
/// And closer than this even then: other events of the same bytes may be as far away.
const FAR_NS: u64 = 2_000_000_000;
/// The load makes events more often than this: where none came for longer, the machine itself was halted,
/// as an emulated one is while its host does something else.
const HALTED_NS: u64 = 50_000_000;
/// What may be missing at the end beyond the longest delay between two polls that the recorder noted: it
/// notes that once a second, so that of the last second nothing is known, and the emulated processors take
/// turns of some ten milliseconds, each of which a poll may wait for.
const SLACK_NS: u64 = 250_000_000;
/// Events of a CPU that only one of the two may have before they begin to be the same: the recording of one
/// event begins after that of another.
const PASSED_OVER: u64 = 256;
/// Events that both must have at least, and of the kernel's at least so many of a hundred.
const BOTH: u64 = 100;
const BOTH_PERCENT: u64 = 80;

/// Bits of `prev_state` of a task that exited, as the `print fmt` of `sched_switch` names them: `X` and `Z`.
const EXIT_DEAD: u64 = 0x10;
const EXIT_ZOMBIE: u64 = 0x20;

/// What is missing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Loss {
    /// Events of the kernel's that ours has too.
    pub both: u64,
    /// Events of the kernel's behind the last one that ours has, over all CPUs.
    pub last: u64,
    /// From the first of these to the kernel's last event, in ns: how far back ours is not complete.
    pub last_ns: u64,
    /// How much of that time the machine ran, and was not halted by its host.
    pub last_ran_ns: u64,
    /// How much of that time was before our recorder's last reading of the clocks, which is at its end if it had
    /// one.
    pub last_before_pair_ns: u64,
    /// The longest time between two polls that our recorder noted, in ns.
    pub max_delay_ns: u64,
    /// The oldest that an event of ours was before it was written back to the disk, in ns; 0 where memory keeps it.
    pub max_unflushed_ns: u64,
    /// Events, of the CPU that has most, from before the two begin to be the same, though both were recording.
    pub passed_over: u64,
    /// Events of ours that the kernel's instance lacks.
    pub more: u64,
    /// Events of the kernel's that ours lacks before others that it has: the text of each, and its place
    /// among its CPU's.
    pub between: Vec<String>,
}

/// One CPU's event: time and bytes.
type Recorded = (u64, Vec<u8>);

impl Loss {
    /// Compares two regions in files: ours, and the kernel's of the same boot.
    ///
    /// # Errors
    /// One of them cannot be read.
    pub fn between(ours: &Path, kernels: &Path) -> Result<Self, outlive_trace::Error> {
        let (ours, kernels) = (View::open(ours)?, View::open(kernels)?);
        // The first clock pair is taken when all events are enabled, which are so one by one.
        let from = ours.clock_pairs.first().map_or(0, |pair| pair.trace);
        let cpus = kernels.cpus.iter().map(|cpu| cpu.cpu);
        let switch = Switch::of(&ours.catalog);
        let of = |view: &View, cpu: u32| events(view, switch, cpu, from);
        let cpus = cpus.map(|cpu| (of(&ours, cpu), of(&kernels, cpu)));
        let formatter = Formatter::new(&ours.catalog, TextOptions::for_clock(ours.clock()));
        let text = |cpu: usize, (time, bytes): &Recorded| {
            let mut text = Vec::new();
            formatter.record(&mut text, cpu as u32, *time, bytes);
            String::from_utf8_lossy(text.trim_ascii()).into_owned()
        };
        let cpus: Vec<_> = cpus.collect();
        let runtime = Runtime::of(&ours.catalog);
        let unnamed = |event: &[u8]| runtime.and_then(|runtime| runtime.without_name(event));
        let loss = Self::of_cpus(&cpus, text, unnamed);
        let last_pair = ours.clock_pairs.last().map_or(0, |pair| pair.trace);
        let behind_pair = end_of(&cpus).saturating_sub(last_pair);
        Ok(Self {
            max_delay_ns: ours.heartbeat.max_delay_ns,
            max_unflushed_ns: ours.heartbeat.max_unflushed_ns,
            last_before_pair_ns: loss.last_ns.saturating_sub(behind_pair),
            ..loss
        })
    }

    /// Checks that ours lacks nothing before its end, and that it is the same recording.
    ///
    /// # Errors
    /// What does not hold, in words.
    pub fn check(&self) -> Result<(), String> {
        let all = self.both + self.last + self.between.len() as u64;
        let holds = self.between.is_empty()
            && self.both > BOTH
            && self.both * 100 >= all * BOTH_PERCENT
            && self.passed_over <= PASSED_OVER
            && self.more <= PASSED_OVER;
        if holds {
            Ok(())
        } else {
            Err(format!("{self:?}"))
        }
    }

    /// Checks that what ours lacks at the end is from after its recorder's end: between its last copying and
    /// its last reading of the clocks is less than between two polls.
    ///
    /// # Errors
    /// What does not hold, in words.
    pub fn check_closed(&self) -> Result<(), String> {
        if self.last_before_pair_ns <= self.max_delay_ns + SLACK_NS {
            return Ok(());
        }
        Err(format!("events before a clean end are missing: {self:?}"))
    }

    /// Checks that what ours lacks at the end is not older than its recorder's polls are far apart, and on a disk
    /// than what it had not written back.
    ///
    /// # Errors
    /// What does not hold, in words.
    pub fn check_poll_bound(&self) -> Result<(), String> {
        let bound = self.max_delay_ns + self.max_unflushed_ns + SLACK_NS;
        if self.max_delay_ns > 0 && self.last_ran_ns <= bound {
            return Ok(());
        }
        Err(format!("more than a poll's events are missing: {self:?}"))
    }

    /// Of each CPU ours and the kernel's; `text` is that of a CPU's event, `unnamed` what is left of one that
    /// names a task, if the name may differ.
    fn of_cpus(
        cpus: &[(Vec<Recorded>, Vec<Recorded>)],
        text: impl Fn(usize, &Recorded) -> String,
        unnamed: impl Fn(&[u8]) -> Option<Vec<u8>>,
    ) -> Self {
        let end = end_of(cpus);
        let mut loss = Self::default();
        let (mut left, mut lacking) = (Vec::new(), Vec::new());
        for (cpu, (ours, kernels)) in cpus.iter().enumerate() {
            let (ours, kernels, passed_over) = beginning(ours, kernels);
            loss.passed_over = loss.passed_over.max(passed_over);
            let found = find_all(ours, kernels, &mut left);
            let last = found.iter().rposition(|&is_found| is_found);
            let behind = last.map_or(0, |last| last + 1);
            let before = kernels.iter().enumerate().zip(&found).take(behind);
            loss.both += found.iter().filter(|&&is_found| is_found).count() as u64;
            lacking.extend(
                before
                    .filter(|(_, is_found)| !**is_found)
                    .map(|((place, event), _)| (cpu, place, event)),
            );
            loss.last += (kernels.len() - behind) as u64;
            if let Some((time, _)) = kernels.get(behind) {
                loss.last_ns = loss.last_ns.max(end.saturating_sub(*time));
            }
        }
        loss.last_ran_ns = ran_ns(cpus, end.saturating_sub(loss.last_ns));
        for (cpu, place, event) in lacking {
            let is_renamed = |ours: &Recorded| {
                let name = unnamed(&event.1).filter(|_| ours.0.abs_diff(event.0) < NEAR_NS);
                name.is_some_and(|event| Some(event) == unnamed(&ours.1))
            };
            let found = left.iter().position(|ours| is_same(ours, event, FAR_NS));
            match found.or_else(|| left.iter().position(is_renamed)) {
                Some(at) => {
                    left.swap_remove(at);
                    loss.both += 1;
                }
                None => loss
                    .between
                    .push(format!("{}, number {place} of its CPU", text(cpu, event))),
            }
        }
        loss.more = left.len() as u64;
        loss
    }
}

/// When the kernel's last event was.
fn end_of(cpus: &[(Vec<Recorded>, Vec<Recorded>)]) -> u64 {
    let kernels = cpus.iter().filter_map(|(_, kernels)| kernels.last());
    kernels.map(|(time, _)| *time).max().unwrap_or(0)
}

/// How long the machine ran from a time to the kernel's last event.
fn ran_ns(cpus: &[(Vec<Recorded>, Vec<Recorded>)], from: u64) -> u64 {
    let events = cpus.iter().flat_map(|(_, kernels)| kernels);
    let times = events.map(|(time, _)| *time).filter(|time| *time >= from);
    let mut times: Vec<u64> = times.collect();
    times.sort_unstable();
    let gaps = times.windows(2).map(|pair| pair[1] - pair[0]);
    gaps.map(|gap| gap.min(HALTED_NS)).sum()
}

/// Whether an event of ours is one of the kernel's.
fn is_same(ours: &Recorded, kernels: &Recorded, within_ns: u64) -> bool {
    ours.1 == kernels.1 && ours.0.abs_diff(kernels.0) < within_ns
}

/// A CPU's events from a time on.
fn events(view: &View, switch: Option<Switch>, cpu: u32, from: u64) -> Vec<Recorded> {
    let (mut events, mut all) = (view.events_between(Some(cpu), from, None), Vec::new());
    while let Some(event) = events.next_event() {
        all.push((event.time_stamp, identity(event.payload, switch)));
    }
    all
}

/// `sched_switch` and where its `prev_state` lies.
#[derive(Debug, Clone, Copy)]
struct Switch {
    id: u16,
    prev_state: usize,
}

impl Switch {
    fn of(catalog: &Catalog) -> Option<Self> {
        let event = catalog.find_event("sched", "sched_switch")?;
        let prev_state = event.field("prev_state")?.offset as usize;
        Some(Self {
            id: event.id,
            prev_state,
        })
    }

    /// Makes a zombie of a task that is dead.
    fn forget_reaped(self, event: &mut [u8]) {
        let is_switch = event_id(event) == Some(self.id);
        let state = event.get_mut(self.prev_state..).filter(|_| is_switch);
        if let Some(state) = state.and_then(|state| state.first_chunk_mut())
            && *state == EXIT_DEAD.to_le_bytes()
        {
            *state = EXIT_ZOMBIE.to_le_bytes();
        }
    }
}

/// `sched_stat_runtime`: where the reference to its name lies, and where its fields end.
#[derive(Debug, Clone, Copy)]
struct Runtime {
    id: u16,
    name: usize,
    end: usize,
}

impl Runtime {
    fn of(catalog: &Catalog) -> Option<Self> {
        let event = catalog.find_event("sched", "sched_stat_runtime")?;
        let end = event.fields.iter().map(|field| field.offset + field.size);
        Some(Self {
            id: event.id,
            name: event.field("comm")?.offset as usize,
            end: end.max()? as usize,
        })
    }

    /// The event without the name, which is as long as it is; `None` of any other event.
    fn without_name(self, event: &[u8]) -> Option<Vec<u8>> {
        let mut fields = event.get(..self.end)?.to_vec();
        let reference = fields.get_mut(self.name..)?.first_chunk_mut::<4>()?;
        *reference = [0; 4];
        (event_id(event) == Some(self.id)).then_some(fields)
    }
}

/// An event's bytes, without what may differ between two instances: flags and preemption count
/// (`common_flags` and `common_preempt_count`, bytes 2 and 3), and whatever was before behind a string
/// at the end, up to a whole word; and of a `switch`, whether the task that went was waited for yet.
fn identity(event: &[u8], switch: Option<Switch>) -> Vec<u8> {
    let mut event = event.to_vec();
    if let Some(switch) = switch {
        switch.forget_reaped(&mut event);
    }
    event.iter_mut().skip(2).take(2).for_each(|byte| *byte = 0);
    let last = event.len().saturating_sub(4);
    let mut word = event[last..].iter_mut();
    if word.by_ref().any(|byte| *byte == 0) {
        word.for_each(|byte| *byte = 0);
    }
    event
}

/// Both from the first place on where they are the same: one of them may have begun later, event by
/// event, or have overwritten more of its oldest. And how many come before that though both were recording.
fn beginning<'a>(
    ours: &'a [Recorded],
    kernels: &'a [Recorded],
) -> (&'a [Recorded], &'a [Recorded], u64) {
    let first = |events: &[Recorded]| events.first().map_or(0, |(time, _)| *time);
    let from = first(ours).max(first(kernels));
    let passed_over = |events: &[Recorded]| events.iter().filter(|(time, _)| *time >= from).count();
    let mut places: HashMap<&[u8], Vec<usize>> = HashMap::new();
    for (at, (_, bytes)) in kernels.iter().enumerate() {
        places.entry(bytes).or_default().push(at);
    }
    let begin_both = |ours: &[Recorded], kernels: &[Recorded]| {
        let mut pairs = ours.iter().zip(kernels).take(SURE);
        pairs.len() == SURE && pairs.all(|(ours, kernels)| is_same(ours, kernels, NEAR_NS))
    };
    for (begin, (_, bytes)) in ours.iter().enumerate() {
        let mut places = places.get(bytes.as_slice()).into_iter().flatten();
        if let Some(&at) = places.find(|&&at| begin_both(&ours[begin..], &kernels[at..])) {
            let passed_over = passed_over(&ours[..begin]).max(passed_over(&kernels[..at]));
            return (&ours[begin..], &kernels[at..], passed_over as u64);
        }
    }
    (&[], kernels, passed_over(ours) as u64)
}

/// Of each of the kernel's events, whether ours has it; what ours has beside them goes to `left`.
fn find_all(ours: &[Recorded], kernels: &[Recorded], left: &mut Vec<Recorded>) -> Vec<bool> {
    let mut rest = ours.iter();
    // Ours that come next and are not taken yet.
    let mut window: VecDeque<&Recorded> = rest.by_ref().take(AHEAD).collect();
    let find = |event: &Recorded| {
        let at = window.iter().position(|ours| is_same(ours, event, NEAR_NS));
        let Some(at) = at else { return false };
        window.remove(at);
        window.extend(rest.next());
        true
    };
    let found = kernels.iter().map(find).collect();
    left.extend(window.into_iter().chain(rest).cloned());
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Events that all differ, one each microsecond.
    fn events(numbers: impl IntoIterator<Item = u64>) -> Vec<Recorded> {
        let event = |number: u64| (number * 1000, number.to_le_bytes().to_vec());
        numbers.into_iter().map(event).collect()
    }

    fn of_cpus(cpus: &[(Vec<Recorded>, Vec<Recorded>)]) -> Loss {
        let unnamed = |event: &[u8]| Some(event.strip_prefix(b"named")?.get(8..)?.to_vec());
        Loss::of_cpus(cpus, |cpu, (time, _)| format!("{cpu} {time}"), unnamed)
    }

    fn compare(ours: Vec<Recorded>, kernels: Vec<Recorded>) -> Loss {
        of_cpus(&[(ours, kernels)])
    }

    #[test]
    fn what_the_kernel_has_behind_our_last_event_is_lost() {
        let loss = compare(events(50..190), events(0..200));
        let expected = Loss {
            both: 140,
            last: 10,
            last_ns: 9000,
            last_ran_ns: 9000,
            ..Loss::default()
        };
        assert_eq!(loss, expected);
    }

    #[test]
    fn events_that_an_interrupt_exchanged_are_not_lost() {
        let (mut ours, kernels) = (events(0..100), events(20..100));
        ours.swap(60, 63);
        let loss = compare(ours, kernels);
        assert_eq!((loss.both, loss.last, loss.between.len()), (80, 0, 0));
    }

    #[test]
    fn event_on_another_cpu_is_not_lost() {
        let moved = events([60]);
        let (first, second) = (events((0..60).chain(61..100)), events(200..300));
        let ours = second.iter().take(50).cloned().chain(moved);
        let ours = ours.chain(second.iter().skip(50).cloned()).collect();
        let loss = of_cpus(&[(first, events(0..100)), (ours, second)]);
        assert_eq!((loss.both, loss.last, loss.between.len()), (200, 0, 0));
    }

    #[test]
    fn event_of_a_task_that_was_renamed_meanwhile_is_not_lost() {
        let with = |bytes: &[u8]| {
            let mut events = events(0..100);
            events[50].1 = bytes.to_vec();
            events
        };
        let loss = compare(with(b"namedshell...17"), with(b"namedexe.....17"));
        assert_eq!((loss.both, loss.more, loss.between.len()), (100, 0, 0));
        let loss = compare(with(b"namedshell...18"), with(b"namedexe.....17"));
        assert_eq!((loss.both, loss.more, loss.between.len()), (99, 1, 1));
    }

    #[test]
    fn name_of_a_task_is_not_in_what_is_left() {
        let runtime = Runtime {
            id: 7,
            name: 8,
            end: 16,
        };
        let of = |id: u8, name: u8, pid: u8, text: &[u8]| {
            let fields = [id, 0, 0, 0, 1, 0, 0, 0, name, 0, 0, 0, pid, 0, 0, 0];
            runtime.without_name(&[&fields, text].concat())
        };
        assert_eq!(of(7, 1, 3, b"exe\0"), of(7, 2, 3, b"shell\0"));
        assert_ne!(of(7, 1, 3, b"exe\0"), of(7, 1, 4, b"exe\0"));
        assert_eq!(of(8, 1, 3, b"exe\0"), None);
    }

    /// A task was preempted between the two; its event came late in ours, and was taken for one of the
    /// same bytes that the kernel had at the end.
    #[test]
    fn late_event_is_not_taken_for_one_of_the_last() {
        let (mut ours, mut kernels) = (events(0..1000), events(0..1020));
        let late = (500_000_000, b"wait".to_vec());
        for (time, _) in ours
            .iter_mut()
            .chain(&mut kernels)
            .filter(|event| event.0 > 300_000)
        {
            *time += 1_000_000_000;
        }
        kernels.insert(300, (300_000, late.1.clone()));
        kernels.push((1_001_020_000, late.1.clone()));
        ours.insert(400, late);
        let loss = compare(ours, kernels);
        assert_eq!((loss.both, loss.last, loss.between.len()), (1001, 21, 0));
    }

    #[test]
    fn what_may_differ_between_instances_is_left_out() {
        let of = |bytes: &[u8]| identity(bytes, None);
        assert_eq!(
            of(b"\x31\x01\x26\x02pid.exe\0xyz"),
            of(b"\x31\x01\0\0pid.exe\0abc")
        );
        assert_ne!(of(b"\x31\x01\0\0pid."), of(b"\x31\x01\0\0pix."));
        assert_eq!(of(b"\x31"), b"\x31");
    }

    #[test]
    fn task_that_is_waited_for_between_the_two_instances_is_the_same() {
        let switch = Switch {
            id: 7,
            prev_state: 8,
        };
        let of = |id: u8, state: u8| {
            let event = [[id, 0, 0, 0, 1, 0, 0, 0], [state, 0, 0, 0, 0, 0, 0, 0]];
            identity(&event.concat(), Some(switch))
        };
        assert_eq!(of(7, 0x10), of(7, 0x20));
        assert_ne!(of(7, 0x10), of(7, 0x01));
        assert_ne!(of(8, 0x10), of(8, 0x20));
    }

    #[test]
    fn hole_in_ours_is_told_from_the_end() {
        let ours = events((0..60).chain(63..100));
        let loss = compare(ours, events(0..110));
        assert_eq!((loss.both, loss.last), (97, 10));
        let named = [60, 61, 62].map(|at| format!("0 {at}000, number {at} of its CPU"));
        assert_eq!(loss.between, named);
    }

    #[test]
    fn time_in_which_the_machine_was_halted_is_not_counted() {
        let mut kernels = events(0..200);
        for (time, _) in &mut kernels[195..] {
            *time += 3_000_000_000;
        }
        let loss = compare(events(0..190), kernels);
        assert_eq!(loss.last_ns, 3_000_009_000);
        assert_eq!(loss.last_ran_ns, HALTED_NS + 8_000);
    }

    #[test]
    fn more_than_a_polls_events_at_the_end_are_no_last_ones() {
        let loss = |lost| Loss {
            last_ran_ns: lost,
            max_delay_ns: 20_000_000,
            ..Loss::default()
        };
        loss(20_000_000 + SLACK_NS).check_poll_bound().unwrap();
        loss(20_000_001 + SLACK_NS).check_poll_bound().unwrap_err();
        // Of a recorder that noted nothing nothing is known.
        Loss::default().check_poll_bound().unwrap_err();
    }

    /// 64 events of ours that the kernel has not: none behind them is found.
    #[test]
    fn search_that_stands_still_is_no_loss_at_the_end() {
        let mut ours = events(0..1000);
        ours.splice(500..500, (0..64).map(|_| (500_500, b"other".to_vec())));
        let loss = compare(ours, events(0..1000));
        assert_eq!((loss.both, loss.last), (500, 500));
        loss.check().unwrap_err();
        compare(events(0..900), events(0..1000)).check().unwrap();
    }

    #[test]
    fn beginning_that_only_one_has_is_counted() {
        let loss = compare(events((0..300).chain(600..1000)), events(300..1000));
        assert_eq!((loss.both, loss.passed_over), (400, 300));
        loss.check().unwrap_err();
        // Older than anything that the other one has: overwritten there.
        let loss = compare(events(0..1000), events(400..1000));
        assert_eq!((loss.both, loss.passed_over), (600, 0));
        loss.check().unwrap();
    }

    #[test]
    fn events_of_another_run_have_nothing_in_common() {
        let loss = compare(events(1000..1100), events(0..100));
        assert_eq!((loss.both, loss.last), (0, 100));
    }
}

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
//! CPU waits for it just then. (Seen with 7.3.4, once in fifteen runs of `tests/machine_crash.rs`.)

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
        Ok(Self::of_cpus(&cpus.collect::<Vec<_>>(), text))
    }

    /// Of each CPU ours and the kernel's; `text` is that of a CPU's event.
    fn of_cpus(
        cpus: &[(Vec<Recorded>, Vec<Recorded>)],
        text: impl Fn(usize, &Recorded) -> String,
    ) -> Self {
        let kernels = cpus.iter().filter_map(|(_, kernels)| kernels.last());
        let end = kernels.map(|(time, _)| *time).max().unwrap_or(0);
        let mut loss = Self::default();
        let (mut left, mut lacking) = (Vec::new(), Vec::new());
        for (cpu, (ours, kernels)) in cpus.iter().enumerate() {
            let (ours, kernels) = beginning(ours, kernels);
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
        for (cpu, place, event) in lacking {
            match left.iter().position(|ours| is_same(ours, event, FAR_NS)) {
                Some(at) => {
                    left.swap_remove(at);
                    loss.both += 1;
                }
                None => loss
                    .between
                    .push(format!("{}, number {place} of its CPU", text(cpu, event))),
            }
        }
        loss
    }
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
/// event, or have overwritten more of its oldest.
fn beginning<'a>(
    ours: &'a [Recorded],
    kernels: &'a [Recorded],
) -> (&'a [Recorded], &'a [Recorded]) {
    let mut places: HashMap<&[u8], Vec<usize>> = HashMap::new();
    for (at, (_, bytes)) in kernels.iter().enumerate() {
        places.entry(bytes).or_default().push(at);
    }
    let begin_both = |ours: &[Recorded], kernels: &[Recorded]| {
        let mut pairs = ours.iter().zip(kernels).take(SURE);
        pairs.len() == SURE && pairs.all(|(ours, kernels)| is_same(ours, kernels, NEAR_NS))
    };
    for (skipped, (_, bytes)) in ours.iter().enumerate() {
        let ours = &ours[skipped..];
        let mut places = places.get(bytes.as_slice()).into_iter().flatten();
        if let Some(&at) = places.find(|&&at| begin_both(ours, &kernels[at..])) {
            return (ours, &kernels[at..]);
        }
    }
    (&[], kernels)
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
        Loss::of_cpus(cpus, |cpu, (time, _)| format!("{cpu} {time}"))
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
            between: Vec::new(),
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
    fn events_of_another_run_have_nothing_in_common() {
        let loss = compare(events(1000..1100), events(0..100));
        assert_eq!((loss.both, loss.last), (0, 100));
    }
}

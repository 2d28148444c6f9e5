//! What the kernel's tasks were doing when the recording ended, from its scheduler events.

use std::collections::{BTreeMap, HashMap};

use outlive_event::{Field, Value};

use super::roles::Switch;

/// Bits of `prev_state`, and the letters that the kernel prints for them (`print fmt` of
/// `sched_switch`, Linux 6.18).
const STATES: [(u64, char); 8] = [
    (0x01, 'S'),
    (0x02, 'D'),
    (0x04, 'T'),
    (0x08, 't'),
    (0x10, 'X'),
    (0x20, 'Z'),
    (0x40, 'P'),
    (0x80, 'I'),
];

/// What a task was doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Doing {
    /// It ran on this CPU.
    Ran(u32),
    /// It had something to do, and waited for a CPU.
    Waited,
    /// It slept in the state with this letter.
    Slept(char),
}

/// A task.
#[derive(Debug, Clone)]
pub(super) struct Task {
    pub(super) pid: i32,
    pub(super) comm: String,
    pub(super) doing: Doing,
    /// Since when, in the trace clock.
    pub(super) since: u64,
    /// False if an event that says otherwise may have been overwritten or lost.
    pub(super) is_certain: bool,
}

impl Task {
    /// The same, of which an event may be gone if it has done this since before `certain_since`.
    pub(super) fn judged(&self, certain_since: u64) -> Self {
        Self {
            is_certain: self.since >= certain_since,
            ..self.clone()
        }
    }
}

/// All tasks that were seen.
#[derive(Debug, Default)]
pub(super) struct Tasks {
    tasks: HashMap<i32, Task>,
    /// By CPU; the idle task too, which each CPU has.
    on_cpu: BTreeMap<u32, Task>,
}

impl Tasks {
    pub(super) fn switch(&mut self, fields: &Switch<'_>, payload: &[u8], cpu: u32, time: u64) {
        let prev_pid = number(fields.prev_pid, payload) as i32;
        match after(number(fields.prev_state, payload) as u64) {
            Some(doing) => self.set(prev_pid, || text(fields.prev_comm, payload), doing, time),
            None => drop(self.tasks.remove(&prev_pid)),
        }
        let next = Task {
            pid: number(fields.next_pid, payload) as i32,
            comm: text(fields.next_comm, payload),
            doing: Doing::Ran(cpu),
            since: time,
            is_certain: true,
        };
        if next.pid != 0 {
            self.tasks.insert(next.pid, next.clone());
        }
        self.on_cpu.insert(cpu, next);
    }

    pub(super) fn wake(&mut self, pid: &Field, comm: &Field, payload: &[u8], time: u64) {
        let pid = number(pid, payload) as i32;
        let doing = self.tasks.get(&pid).map(|task| task.doing);
        // A task that has not left its CPU yet goes on, and one is woken once.
        if matches!(doing, None | Some(Doing::Slept(_))) {
            self.set(pid, || text(comm, payload), Doing::Waited, time);
        }
    }

    fn set(&mut self, pid: i32, comm: impl Fn() -> String, doing: Doing, since: u64) {
        // Each CPU has its own idle task of that number.
        if pid == 0 {
            return;
        }
        let task = self.tasks.entry(pid).or_insert_with(|| Task {
            pid,
            comm: comm(),
            doing,
            since,
            is_certain: true,
        });
        (task.doing, task.since) = (doing, since);
    }

    /// What each CPU ran, and since when.
    pub(super) fn on_cpu(&self) -> impl Iterator<Item = (u32, &Task)> {
        self.on_cpu.iter().map(|(&cpu, task)| (cpu, task))
    }

    /// The tasks of which `is_wanted`, the longest first. Of one that has done it since before
    /// `certain_since` an event may be gone.
    pub(super) fn that(&self, certain_since: u64, is_wanted: impl Fn(Doing) -> bool) -> Vec<Task> {
        let wanted = self.tasks.values().filter(|task| is_wanted(task.doing));
        let mut tasks: Vec<Task> = wanted.map(|task| task.judged(certain_since)).collect();
        tasks.sort_unstable_by_key(|task| (task.since, task.pid));
        tasks
    }

    pub(super) fn is_empty(&self) -> bool {
        self.tasks.is_empty() && self.on_cpu.is_empty()
    }
}

/// What a task does that leaves its CPU in this state; `None` if it has ended.
fn after(state: u64) -> Option<Doing> {
    let letter = STATES.iter().find(|(bit, _)| state & bit != 0);
    match letter {
        None => Some(Doing::Waited),
        Some((_, 'X' | 'Z')) => None,
        Some((_, letter)) => Some(Doing::Slept(*letter)),
    }
}

fn number(field: &Field, payload: &[u8]) -> i64 {
    match field.value(payload) {
        Value::Signed(value) => value,
        Value::Unsigned(value) => value as i64,
        _ => 0,
    }
}

fn text(field: &Field, payload: &[u8]) -> String {
    match field.value(payload) {
        Value::Text(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_that_leaves_its_cpu_waits_sleeps_or_has_ended() {
        assert_eq!(after(0), Some(Doing::Waited));
        // Preempted: the bit behind the reported states.
        assert_eq!(after(0x100), Some(Doing::Waited));
        assert_eq!(after(0x02), Some(Doing::Slept('D')));
        assert_eq!(after(0x80), Some(Doing::Slept('I')));
        assert_eq!(after(0x10), None);
        assert_eq!(after(0x20), None);
    }
}

//! The (pid, name) pairs that records of some events contain.
//!
//! The kernel's own pid-to-comm map is small and not persistent; the records of the scheduler
//! say the names again and again. A recorder feeds them into the catalog.

use crate::ctype::IntType;
use crate::format::{EventFormat, Field, FieldKind};
use crate::record;

/// Most pairs in one event.
const MAX_PAIRS: usize = 2;

/// Events that name a task, and in which fields: (system, event, pid field, name field).
const SOURCES: &[(&str, &str, &str, &str)] = &[
    ("sched", "sched_switch", "prev_pid", "prev_comm"),
    ("sched", "sched_switch", "next_pid", "next_comm"),
    ("sched", "sched_waking", "pid", "comm"),
    ("sched", "sched_wakeup", "pid", "comm"),
    ("sched", "sched_wakeup_new", "pid", "comm"),
    ("sched", "sched_migrate_task", "pid", "comm"),
    ("sched", "sched_process_fork", "parent_pid", "parent_comm"),
    ("sched", "sched_process_fork", "child_pid", "child_comm"),
    ("sched", "sched_process_exec", "pid", "filename"),
    ("sched", "sched_process_exit", "pid", "comm"),
    ("sched", "sched_process_free", "pid", "comm"),
    ("sched", "sched_stat_runtime", "pid", "comm"),
    ("sched", "sched_pi_setprio", "pid", "comm"),
    ("task", "task_newtask", "pid", "comm"),
    ("task", "task_rename", "pid", "newcomm"),
    ("signal", "signal_generate", "pid", "comm"),
];

/// Longest task name without its NUL.
const COMM_LEN: usize = 15;

/// Where an event's records contain pairs of pid and task name.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct NamePairs {
    pairs: [Option<NamePair>; MAX_PAIRS],
}

#[derive(Debug, Clone, Copy)]
struct NamePair {
    pid_offset: u32,
    name: NamePlace,
}

#[derive(Debug, Clone, Copy)]
enum NamePlace {
    Fixed {
        offset: u32,
        size: u32,
    },
    Dynamic {
        offset: u32,
        is_relative: bool,
        is_path: bool,
    },
}

impl NamePairs {
    pub(crate) fn of(format: &EventFormat) -> Self {
        let mut this = Self::default();
        let here = SOURCES
            .iter()
            .filter(|s| s.0 == format.system && s.1 == format.name);
        let found = here.filter_map(|s| NamePair::of(format.field(s.2)?, format.field(s.3)?));
        for (slot, pair) in this.pairs.iter_mut().zip(found) {
            *slot = Some(pair);
        }
        this
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.pairs[0].is_none()
    }
}

impl NamePair {
    fn of(pid: &Field, name: &Field) -> Option<Self> {
        let place = match name.kind {
            FieldKind::String => NamePlace::Fixed {
                offset: name.offset,
                size: name.size,
            },
            FieldKind::Dynamic {
                is_string: true,
                is_relative,
                ..
            } => NamePlace::Dynamic {
                offset: name.offset,
                is_relative,
                is_path: name.name == "filename",
            },
            _ => return None,
        };
        Some(Self {
            pid_offset: pid.offset,
            name: place,
        })
    }

    fn place(&self) -> Option<TaskNamePlace> {
        let (name, is_data_loc) = match self.name {
            NamePlace::Fixed { offset, size: 16 } => (offset, false),
            NamePlace::Dynamic {
                offset,
                is_relative: false,
                is_path: false,
            } => (offset, true),
            _ => return None,
        };
        Some(TaskNamePlace {
            pid: self.pid_offset,
            name,
            is_data_loc,
        })
    }

    fn read<'a>(&self, payload: &'a [u8]) -> Option<(i32, &'a [u8])> {
        let pid = record::load(payload, self.pid_offset as usize, IntType::INT) as i32;
        let name = self.name.read(payload);
        (pid > 0 && !name.is_empty()).then_some((pid, name))
    }
}

impl NamePlace {
    fn read(self, payload: &[u8]) -> &[u8] {
        let bytes = match self {
            Self::Fixed { offset, size } => record::slice(payload, offset as usize, size as usize),
            Self::Dynamic {
                offset,
                is_relative,
                ..
            } => record::dynamic(payload, offset as usize, is_relative),
        };
        let mut name = record::until_nul(bytes);
        if matches!(self, Self::Dynamic { is_path: true, .. }) {
            let start = name.iter().rposition(|&b| b == b'/').map_or(0, |at| at + 1);
            name = &name[start..];
        }
        &name[..name.len().min(COMM_LEN)]
    }
}

/// Where an event's records have a pid and the name of its task: offsets from the start of the
/// trace entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TaskNamePlace {
    /// Of the pid, 4 bytes.
    pub pid: u32,
    /// Of the name.
    pub name: u32,
    /// Whether there is a `__data_loc` word of 4 bytes at `name`: the offset of the name in its low
    /// half, its length with the NUL in its high half. If not, the name itself, 16 bytes.
    pub is_data_loc: bool,
}

/// The pairs of pid and task name of one record; see [`EventFormat::task_names`].
#[derive(Debug, Clone)]
pub struct TaskNames<'a> {
    payload: &'a [u8],
    pairs: [Option<NamePair>; MAX_PAIRS],
    next: usize,
}

impl<'a> Iterator for TaskNames<'a> {
    type Item = (i32, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        while let Some(pair) = self.pairs.get(self.next)? {
            self.next += 1;
            let found = pair.read(self.payload);
            if found.is_some() {
                return found;
            }
        }
        None
    }
}

impl EventFormat {
    /// The task names that the record `payload` of this event tells, with their pids.
    ///
    /// Names have at most 15 bytes and no NUL; the idle task (pid 0) is left out. The name of
    /// `sched_process_exec` is the last part of the executable's path, which is what the kernel
    /// calls the task, unless it was executed through a descriptor.
    #[inline]
    #[must_use]
    pub fn task_names<'a>(&self, payload: &'a [u8]) -> TaskNames<'a> {
        TaskNames {
            payload,
            pairs: self.name_pairs.pairs,
            next: 0,
        }
    }

    /// Where the pairs of pid and name lie, for a recorder that looks at every record and knows
    /// most of the names; `None` if a name is in no usual place.
    #[must_use]
    pub fn task_name_places(&self) -> Option<Vec<TaskNamePlace>> {
        let pairs = self.name_pairs.pairs.iter().flatten();
        pairs.map(NamePair::place).collect()
    }

    /// True if records of this event may contain task names.
    #[inline]
    #[must_use]
    pub fn has_task_names(&self) -> bool {
        !self.name_pairs.is_empty()
    }
}

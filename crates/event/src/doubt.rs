//! What in a record of a kernel's event no kernel writes.
//!
//! A kernel's ring buffer has no checksums. A record whose bytes were damaged is still one of its
//! event's format, and what it says is mostly as good as any; only what is said here tells it.

use std::fmt;
use std::ops::RangeInclusive;

use crate::ctype::IntType;
use crate::format::{EventFormat, Field, FieldKind};
use crate::record::{self, ENTRY_HEADER_SIZE};

/// Largest pid: `PID_MAX_LIMIT` of 64-bit kernels less one (`proc_sys_kernel(5)`, `pid_max`).
const PID_LAST: i32 = (1 << 22) - 1;
/// Where each record says the task that ran.
const COMMON_PID: usize = 4;
/// Bytes of a task's name, with the NUL that ends it (`TASK_COMM_LEN`).
const COMM_SIZE: u32 = 16;
/// Priorities: `prio` of the deadline class is -1, `MAX_PRIO` (140) is that of no task.
const PRIOS: RangeInclusive<i16> = -1..=140;
/// Numbers of processors: `NR_CPUS` is at most 8192; some events say -1 for none.
const CPUS: RangeInclusive<i16> = -1..=8191;
/// What a task's state may be, as `sched_switch` says it: bits up to `TASK_REPORT_MAX` (0x100), with
/// room for those that newer kernels add.
const STATES: RangeInclusive<i16> = 0..=0xfff;
/// Fields that say the task that runs, which the common fields say too.
const RUNNING: [(&str, &str); 3] = [
    ("sched_switch", "prev_pid"),
    ("sched_process_fork", "parent_pid"),
    ("sched_process_exit", "pid"),
];
/// Bytes that a record may be longer than its last field: its struct's end, and its rounding up.
const BEHIND_LAST: usize = 12;

/// What no kernel writes, in a record that is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Doubt<'a> {
    /// The id is none of the catalog's.
    NoFormat(u16),
    /// The record ends before its event's fields do.
    Short,
    /// The record goes on behind its event's fields.
    Long,
    /// A pid that no task has.
    Pid {
        /// The field.
        field: &'a str,
        /// What it says.
        pid: i32,
    },
    /// Of the task that runs another pid than the record's own.
    NotRunning {
        /// The field.
        field: &'a str,
        /// What it says.
        pid: i32,
    },
    /// A number that this field never has.
    Range {
        /// The field.
        field: &'a str,
        /// What it says.
        value: i64,
    },
    /// A task's name without its end.
    Name {
        /// The field.
        field: &'a str,
    },
    /// Something behind the end of a task's name.
    BehindName {
        /// The field.
        field: &'a str,
    },
    /// An array that lies before or behind where the record has its arrays.
    Outside {
        /// The field.
        field: &'a str,
    },
}

impl fmt::Display for Doubt<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoFormat(id) => write!(f, "no event has the id {id}"),
            Self::Short => f.write_str("shorter than its fields"),
            Self::Long => f.write_str("longer than its fields"),
            Self::Pid { field, pid } => write!(f, "{field}={pid} is no pid"),
            Self::NotRunning { field, pid } => write!(f, "{field}={pid} is not the task that runs"),
            Self::Range { field, value } => write!(f, "{field}={value} is out of range"),
            Self::Name { field } => write!(f, "{field} has no end"),
            Self::BehindName { field } => write!(f, "{field} goes on behind its end"),
            Self::Outside { field } => write!(f, "{field} lies outside of the record"),
        }
    }
}

/// Which fields of an event tell whether its record is one that a kernel writes.
#[derive(Debug, Default)]
pub(crate) struct Tells {
    /// Where the last field ends.
    end: u32,
    /// Whether a record may be as long as it likes.
    is_open: bool,
    /// Places in [`EventFormat::fields`].
    telling: Vec<(usize, Tell)>,
}

#[derive(Debug, Clone, Copy)]
enum Tell {
    Pid,
    Running,
    Range { ty: IntType, first: i16, last: i16 },
    Name { is_filled: bool },
    Array { is_relative: bool },
}

impl Tell {
    fn of(system: &str, event: &str, field: &Field) -> Option<Self> {
        let name = field.name.as_str();
        let within = |ty, range: RangeInclusive<i16>| {
            let (first, last) = range.into_inner();
            Some(Self::Range { ty, first, last })
        };
        match field.kind {
            FieldKind::Dynamic { is_relative, .. } => Some(Self::Array { is_relative }),
            FieldKind::Int(ty) if ty.size == 4 && field.type_name == "pid_t" => {
                let is_running = system == "sched" && RUNNING.contains(&(event, name));
                Some(if is_running { Self::Running } else { Self::Pid })
            }
            FieldKind::Int(ty) if system == "sched" && field.type_name == "int" && ty.size == 4 => {
                match name {
                    _ if name.ends_with("prio") => within(ty, PRIOS),
                    _ if name.ends_with("_cpu") => within(ty, CPUS),
                    _ => None,
                }
            }
            FieldKind::Int(ty) if system == "sched" && name == "prev_state" && ty.size == 8 => {
                within(ty, STATES)
            }
            FieldKind::Bool => within(IntType::new(1, false), 0..=1),
            FieldKind::String if field.size == COMM_SIZE && name.ends_with("comm") => {
                // Elsewhere it may be copied up to its end (`newcomm` of `task_rename`, Linux 6.12),
                // and what the ring held there before stays behind it.
                let is_filled = system == "sched";
                Some(Self::Name { is_filled })
            }
            _ => None,
        }
    }
}

impl Tells {
    pub(crate) fn of(system: &str, event: &str, fields: &[Field]) -> Self {
        let is_open = |field: &Field| {
            matches!(
                field.kind,
                FieldKind::Dynamic { .. } | FieldKind::Flexible { .. }
            )
        };
        let telling = fields.iter().enumerate();
        Self {
            end: fields.iter().map(|f| f.offset + f.size).max().unwrap_or(0),
            is_open: fields.iter().any(is_open),
            telling: telling
                .filter_map(|(at, field)| Some((at, Tell::of(system, event, field)?)))
                .collect(),
        }
    }
}

impl EventFormat {
    /// What in the record `payload` no kernel writes; `None` if nothing, or if the event is a program's.
    #[must_use]
    pub fn doubt(&self, payload: &[u8]) -> Option<Doubt<'_>> {
        if self.has_cpu() {
            return None;
        }
        self.doubt_length(payload)
            .or_else(|| doubt_pid("common_pid", payload, COMMON_PID, 0))
            .or_else(|| {
                let mut telling = self.tells.telling.iter();
                telling.find_map(|&(at, tell)| self.doubt_field(&self.fields[at], tell, payload))
            })
    }

    /// The tracers' own events say nothing about their lengths: a stack has as many entries as it has.
    fn doubt_length(&self, payload: &[u8]) -> Option<Doubt<'_>> {
        let end = self.tells.end as usize;
        match payload.len() {
            len if len < ENTRY_HEADER_SIZE => Some(Doubt::Short),
            _ if self.system == "ftrace" => None,
            len if len < end => Some(Doubt::Short),
            len if !self.tells.is_open && len > end.max(ENTRY_HEADER_SIZE) + BEHIND_LAST => {
                Some(Doubt::Long)
            }
            _ => None,
        }
    }

    fn doubt_field<'a>(
        &'a self,
        field: &'a Field,
        tell: Tell,
        payload: &[u8],
    ) -> Option<Doubt<'a>> {
        let (name, offset) = (field.name.as_str(), field.offset as usize);
        match tell {
            // Some say -1 where there is no task.
            Tell::Pid => doubt_pid(name, payload, offset, -1),
            Tell::Running => {
                let pid = record::load_u32(payload, offset) as i32;
                let is_running = pid == record::load_u32(payload, COMMON_PID) as i32;
                (!is_running).then_some(Doubt::NotRunning { field: name, pid })
            }
            Tell::Range { ty, first, last } => {
                let value = record::load(payload, offset, ty).cast_signed();
                let is_within = (i64::from(first)..=i64::from(last)).contains(&value);
                (!is_within).then_some(Doubt::Range { field: name, value })
            }
            Tell::Name { is_filled } => {
                let bytes = record::slice(payload, offset, field.size as usize);
                if record::until_nul(bytes).len() == bytes.len() {
                    return Some(Doubt::Name { field: name });
                }
                let goes_on = is_filled && record::has_more(bytes);
                goes_on.then_some(Doubt::BehindName { field: name })
            }
            Tell::Array { is_relative } => {
                let word = record::load_u32(payload, offset);
                let base = if is_relative { field.offset + 4 } else { 0 };
                let (start, len) = (base + (word & 0xffff), word >> 16);
                let is_inside = start >= self.tells.end && (start + len) as usize <= payload.len();
                (!is_inside).then_some(Doubt::Outside { field: name })
            }
        }
    }
}

fn doubt_pid<'a>(field: &'a str, payload: &[u8], offset: usize, first: i32) -> Option<Doubt<'a>> {
    let pid = record::load_u32(payload, offset) as i32;
    let is_pid = (first..=PID_LAST).contains(&pid);
    (!is_pid).then_some(Doubt::Pid { field, pid })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SWITCH: &str = "\tfield:pid_t prev_pid;\toffset:8;\tsize:4;\tsigned:1;\n\
        \tfield:int prev_prio;\toffset:12;\tsize:4;\tsigned:1;\n\
        \tfield:long prev_state;\toffset:16;\tsize:8;\tsigned:1;\n";
    const HEAD: &str = "name: x\nID: 7\nformat:\n\
        \tfield:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;\n\
        \tfield:int common_pid;\toffset:4;\tsize:4;\tsigned:1;\n\n";
    const EXEC: &str = "\tfield:__data_loc char[] filename;\toffset:8;\tsize:4;\tsigned:0;\n\
        \tfield:pid_t pid;\toffset:12;\tsize:4;\tsigned:1;\n";
    const FREE: &str = "\tfield:char comm[16];\toffset:8;\tsize:16;\tsigned:0;\n";

    fn event(system: &str, fields: &str) -> EventFormat {
        EventFormat::parse(system, &format!("{HEAD}{fields}\nprint fmt: \"\"\n")).unwrap()
    }

    /// A record of task 5.
    fn record(fields: &[u8]) -> Vec<u8> {
        [&[7, 0, 0, 0, 5, 0, 0, 0], fields].concat()
    }

    #[test]
    fn record_of_a_kernel_is_in_no_doubt() {
        let exec = event("sched", EXEC);
        assert_eq!(exec.doubt(&record(b"\x10\0\x04\0\x06\0\0\0abc\0")), None);
        assert_eq!(exec.doubt(&record(b"\x10\0\0\0\xff\xff\xff\xff")), None);
        let free = event("sched", FREE);
        assert_eq!(free.doubt(&record(b"0123456789abcde\0")), None);
        // A struct that ends with its last field, rounded up, and one word that no record may have.
        assert_eq!(free.doubt(&record(&[0; 28])), None);
    }

    #[test]
    fn what_no_kernel_writes_is_named_with_its_field() {
        let exec = event("sched", EXEC);
        let outside = Some(Doubt::Outside { field: "filename" });
        assert_eq!(exec.doubt(&record(b"\x10\0\x05\0\x06\0\0\0abc\0")), outside);
        assert_eq!(exec.doubt(&record(b"\x0c\0\x04\0\x06\0\0\0abc\0")), outside);
        assert_eq!(exec.doubt(&record(b"\x10\0\0\0")), Some(Doubt::Short));
        let text = |payload: &[u8]| exec.doubt(payload).unwrap().to_string();
        assert_eq!(
            text(&record(b"\x10\0\0\0\0\0\x40\0")),
            "pid=4194304 is no pid"
        );
        assert_eq!(
            text(b"\x07\0\0\0\xff\xff\xff\xff\x10\0\0\0\0\0\0\0"),
            "common_pid=-1 is no pid"
        );
        let free = event("sched", FREE);
        let name = record(b"0123456789abcdef");
        assert_eq!(free.doubt(&name), Some(Doubt::Name { field: "comm" }));
        let behind = record(b"01234\x006789abcdef");
        assert_eq!(
            free.doubt(&behind),
            Some(Doubt::BehindName { field: "comm" })
        );
        assert_eq!(event("task", FREE).doubt(&behind), None);
        assert_eq!(free.doubt(&record(&[0; 32])), Some(Doubt::Long));
    }

    #[test]
    fn what_the_scheduler_never_says_is_named() {
        let text = HEAD.replace("name: x", "name: sched_switch");
        let switch = EventFormat::parse("sched", &format!("{text}{SWITCH}\nprint fmt: \"\"\n"));
        let switch = switch.unwrap();
        let doubt = |pid: i32, prio: i32, state: i64| {
            let fields = [
                &pid.to_le_bytes()[..],
                &prio.to_le_bytes(),
                &state.to_le_bytes(),
            ];
            let doubt = switch
                .doubt(&record(&fields.concat()))
                .map(|doubt| doubt.to_string());
            doubt.unwrap_or_default()
        };
        assert_eq!(doubt(5, -1, 0x100), "");
        assert_eq!(doubt(5, 139, 0), "");
        assert_eq!(doubt(6, 120, 0), "prev_pid=6 is not the task that runs");
        assert_eq!(doubt(5, -2, 0), "prev_prio=-2 is out of range");
        assert_eq!(doubt(5, 376, 0), "prev_prio=376 is out of range");
        assert_eq!(
            doubt(5, 120, 1 << 40),
            "prev_state=1099511627776 is out of range"
        );
    }

    #[test]
    fn a_truth_value_is_0_or_1() {
        let dead = event(
            "sched",
            "\tfield:bool group_dead;\toffset:8;\tsize:1;\tsigned:0;\n",
        );
        assert_eq!(dead.doubt(&record(&[1, 0, 0, 0])), None);
        let doubt = Some(Doubt::Range {
            field: "group_dead",
            value: 3,
        });
        assert_eq!(dead.doubt(&record(&[3, 0, 0, 0])), doubt);
    }

    #[test]
    fn the_tracers_own_events_are_as_long_as_they_are() {
        let stack = "\tfield:unsigned long caller[8];\toffset:8;\tsize:64;\tsigned:0;\n";
        assert_eq!(event("ftrace", stack).doubt(&record(&[0; 16])), None);
        assert_eq!(
            event("sched", stack).doubt(&record(&[0; 16])),
            Some(Doubt::Short)
        );
        assert_eq!(event("ftrace", stack).doubt(&[7, 0]), Some(Doubt::Short));
    }
}

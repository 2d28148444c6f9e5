//! A filter compiled for one event.

use super::Operator;
use super::cpu_list::CpuSet;
use super::pattern::Pattern;
use crate::catalog::COMM_SIZE;
use crate::ctype::IntType;
use crate::record;

/// A filter compiled for one event; see [`Filter::compile`](super::Filter::compile).
#[derive(Debug, Clone)]
pub struct Predicate {
    pub(super) root: Node,
}

/// A step of a [`Predicate`].
#[derive(Debug, Clone)]
pub(super) enum Node {
    All(Box<[Node]>),
    Any(Box<[Node]>),
    Not(Box<Node>),
    /// A number compared with `value`, which is extended as the number.
    Number {
        number: Number,
        operator: Operator,
        value: u64,
    },
    /// A text; `is_equal` is false for `!=`.
    Text {
        text: TextOf,
        pattern: Pattern,
        is_equal: bool,
    },
    /// A number taken as a CPU's.
    CpuNumber {
        number: Number,
        operator: Operator,
        set: CpuSet,
        nr_cpus: u32,
    },
    /// A cpumask.
    CpuMask {
        offset: u32,
        is_relative: bool,
        operator: Operator,
        set: CpuSet,
    },
    /// An address in a function; `is_inside` is false for `!=`.
    Function {
        offset: u32,
        start: u64,
        end: u64,
        is_inside: bool,
    },
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Number {
    /// A word of the record.
    Word { offset: u32, ty: IntType },
    /// The CPU that the record is of.
    Cpu,
}

impl Number {
    pub(super) fn ty(self) -> IntType {
        match self {
            Self::Word { ty, .. } => ty,
            Self::Cpu => IntType::INT,
        }
    }

    #[inline]
    fn of(self, place: &Place<'_>) -> u64 {
        match self {
            Self::Word { offset, ty } => record::load(place.record, offset as usize, ty),
            Self::Cpu => u64::from(place.cpu),
        }
    }
}

/// Where a text lies.
#[derive(Debug, Clone, Copy)]
pub(super) enum TextOf {
    Fixed {
        offset: u32,
        len: u32,
    },
    Dynamic {
        offset: u32,
        is_relative: bool,
    },
    Flexible {
        offset: u32,
    },
    /// The name of the task that the record is of.
    Comm,
}

/// A record and where it was recorded.
struct Place<'r> {
    record: &'r [u8],
    cpu: u32,
}

impl Predicate {
    /// True if the filter keeps `record` (the bytes from the start of the trace entry), which was
    /// recorded on `cpu` by a task called `comm()`, padded with NULs. Neither allocates nor fails.
    #[inline]
    pub fn matches(&self, record: &[u8], cpu: u32, comm: impl Fn() -> [u8; COMM_SIZE]) -> bool {
        self.root.matches(&Place { record, cpu }, &comm)
    }
}

impl Node {
    fn matches(&self, place: &Place<'_>, comm: &impl Fn() -> [u8; COMM_SIZE]) -> bool {
        match self {
            Self::All(all) => all.iter().all(|node| node.matches(place, comm)),
            Self::Any(any) => any.iter().any(|node| node.matches(place, comm)),
            Self::Not(node) => !node.matches(place, comm),
            Self::Number {
                number,
                operator,
                value,
            } => operator.compares(number.ty(), number.of(place), *value),
            Self::Text {
                text,
                pattern,
                is_equal,
            } => *is_equal == text.matches(place.record, pattern, comm),
            Self::CpuNumber {
                number,
                operator,
                set,
                nr_cpus,
            } => is_cpu_kept(number.of(place), *operator, set, *nr_cpus),
            Self::CpuMask {
                offset,
                is_relative,
                operator,
                set,
            } => {
                let mask = record::dynamic(place.record, *offset as usize, *is_relative);
                match operator {
                    Operator::And => set.intersects(mask),
                    Operator::NotEq => !set.equals(mask),
                    _ => set.equals(mask),
                }
            }
            Self::Function {
                offset,
                start,
                end,
                is_inside,
            } => {
                let address = record::load(place.record, *offset as usize, IntType::ULONG);
                *is_inside == (*start..*end).contains(&address)
            }
        }
    }
}

/// A number that is no CPU's is never kept.
fn is_cpu_kept(cpu: u64, operator: Operator, set: &CpuSet, nr_cpus: u32) -> bool {
    cpu < u64::from(nr_cpus)
        && match operator {
            Operator::And => set.has(cpu),
            Operator::NotEq => !set.is_only(cpu),
            _ => set.is_only(cpu),
        }
}

impl Operator {
    #[inline]
    fn compares(self, ty: IntType, a: u64, b: u64) -> bool {
        let order = match ty.signed {
            true => (a as i64).cmp(&(b as i64)),
            false => a.cmp(&b),
        };
        match self {
            Self::Eq => order.is_eq(),
            Self::NotEq => order.is_ne(),
            Self::Less => order.is_lt(),
            Self::LessEq => order.is_le(),
            Self::Greater => order.is_gt(),
            Self::GreaterEq => order.is_ge(),
            Self::And => a & b != 0,
            Self::Glob => false,
        }
    }
}

impl TextOf {
    #[inline]
    fn matches(
        self,
        record: &[u8],
        pattern: &Pattern,
        comm: &impl Fn() -> [u8; COMM_SIZE],
    ) -> bool {
        let bytes = match self {
            Self::Fixed { offset, len } => record::slice(record, offset as usize, len as usize),
            Self::Dynamic {
                offset,
                is_relative,
            } => record::dynamic(record, offset as usize, is_relative),
            Self::Flexible { offset } => record::slice(record, offset as usize, usize::MAX),
            Self::Comm => return pattern.matches(record::until_nul(&comm())),
        };
        pattern.matches(record::until_nul(bytes))
    }
}

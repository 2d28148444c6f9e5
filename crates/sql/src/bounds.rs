//! What a statement asks of a table, as far as the reader can use it.
//!
//! SQLite offers each comparison of a column with a value ([`Comparison`]), and later gives the
//! values. It checks the rows again itself, so that bounds may be wider than what was asked, and
//! never narrower.

use rusqlite::types::ValueRef;

use crate::schema::Role;

/// How a column is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operator {
    Eq,
    Greater,
    GreaterEq,
    Less,
    LessEq,
}

impl Operator {
    const ALL: [(char, Self); 5] = [
        ('=', Self::Eq),
        ('>', Self::Greater),
        ('g', Self::GreaterEq),
        ('<', Self::Less),
        ('l', Self::LessEq),
    ];
}

/// A column of one of these roles, compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Comparison {
    pub(crate) role: Role,
    pub(crate) operator: Operator,
}

/// The roles whose comparisons are of use, with their letter in a plan.
const ROLES: [(char, Role); 6] = [
    ('t', Role::Ts),
    ('c', Role::Cpu),
    ('s', Role::Source),
    ('y', Role::System),
    ('e', Role::Event),
    ('b', Role::Bound),
];

impl Comparison {
    /// The comparison, if the reader can use it.
    pub(crate) fn useful(role: Role, operator: Operator) -> Option<Self> {
        let is_known = ROLES.iter().any(|(_, known)| *known == role);
        let is_useful = is_known && (role == Role::Ts || operator == Operator::Eq);
        is_useful.then_some(Self { role, operator })
    }

    /// The two letters that stand for it in a plan, which SQLite keeps as a text.
    pub(crate) fn code(self) -> [char; 2] {
        let role = ROLES.iter().find(|(_, role)| *role == self.role);
        let operator = Operator::ALL.iter().find(|(_, op)| *op == self.operator);
        [role.map_or('?', |r| r.0), operator.map_or('?', |o| o.0)]
    }

    /// The comparisons of a plan.
    pub(crate) fn of_plan(plan: &str) -> Vec<Self> {
        let codes: Vec<char> = plan.chars().collect();
        let decode = |code: &[char]| {
            let role = ROLES.iter().find(|(letter, _)| *letter == code[0])?.1;
            let operator = Operator::ALL
                .iter()
                .find(|(letter, _)| *letter == code[1])?
                .1;
            Some(Self { role, operator })
        };
        codes.chunks_exact(2).filter_map(decode).collect()
    }
}

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Bounds {
    /// First time of interest.
    pub(crate) from: u64,
    /// First time that is of no interest.
    pub(crate) end: Option<u64>,
    pub(crate) cpu: Option<u32>,
    pub(crate) source: Option<String>,
    pub(crate) system: Option<String>,
    pub(crate) event: Option<String>,
    /// The argument of `gaps`.
    pub(crate) bound: Option<u64>,
    /// No row can be asked for.
    pub(crate) is_empty: bool,
}

impl Bounds {
    /// Narrows the bounds by a comparison with a value.
    pub(crate) fn narrow(&mut self, comparison: Comparison, value: ValueRef<'_>) {
        let text = || value.as_str().ok().map(str::to_owned);
        let Comparison { role, operator } = comparison;
        match role {
            Role::Ts => self.narrow_time(operator, value),
            Role::Cpu => self.narrow_cpu(value),
            Role::Source => self.source = text(),
            Role::System => self.system = text(),
            Role::Event => self.event = text(),
            Role::Bound => match value {
                ValueRef::Integer(bound) => self.bound = Some(bound.max(0) as u64),
                ValueRef::Real(bound) => self.bound = Some(bound as u64),
                _ => self.is_empty = true,
            },
            _ => {}
        }
    }

    fn narrow_cpu(&mut self, value: ValueRef<'_>) {
        let ValueRef::Integer(cpu) = value else {
            return;
        };
        match u32::try_from(cpu) {
            Ok(cpu) => self.is_empty |= self.cpu.replace(cpu).is_some_and(|c| c != cpu),
            Err(_) => self.is_empty = true,
        }
    }

    fn narrow_time(&mut self, operator: Operator, value: ValueRef<'_>) {
        // A number with a fraction lies between two times: both stay.
        let (low, high) = match value {
            ValueRef::Integer(time) => (time, time),
            ValueRef::Real(time) if time.abs() < 9e18 => (time.floor() as i64, time.ceil() as i64),
            _ => return,
        };
        if matches!(
            operator,
            Operator::Eq | Operator::Greater | Operator::GreaterEq
        ) {
            self.from = self.from.max(u64::try_from(low).unwrap_or(0));
        }
        if matches!(operator, Operator::Eq | Operator::Less | Operator::LessEq) {
            match u64::try_from(high) {
                Ok(last) => self.end = Some(self.end.map_or(last + 1, |end| end.min(last + 1))),
                Err(_) => self.is_empty = true,
            }
        }
    }

    /// Whether a time is inside.
    pub(crate) fn has_time(&self, time: u64) -> bool {
        time >= self.from && self.end.is_none_or(|end| time < end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bounds(comparisons: &[(Operator, ValueRef<'_>)]) -> Bounds {
        let mut bounds = Bounds::default();
        for &(operator, value) in comparisons {
            let role = Role::Ts;
            bounds.narrow(Comparison { role, operator }, value);
        }
        bounds
    }

    #[test]
    fn bounds_on_time_are_never_narrower_than_what_is_asked() {
        use Operator::*;
        let got = bounds(&[
            (Greater, ValueRef::Integer(10)),
            (Less, ValueRef::Real(20.5)),
        ]);
        assert_eq!((got.from, got.end), (10, Some(22)));
        let got = bounds(&[(LessEq, ValueRef::Integer(-1))]);
        assert!(got.is_empty);
        let got = bounds(&[(GreaterEq, ValueRef::Integer(-1))]);
        assert_eq!((got.from, got.end), (0, None));
        let got = bounds(&[(Less, ValueRef::Text(b"0x8000000000000000"))]);
        assert_eq!((got.from, got.end), (0, None));
        let got = bounds(&[(LessEq, ValueRef::Integer(i64::MAX))]);
        assert_eq!(got.end, Some(1 << 63));
    }

    #[test]
    fn plans_read_back_as_they_were_written() {
        let all = [
            Comparison::useful(Role::Ts, Operator::LessEq).unwrap(),
            Comparison::useful(Role::Cpu, Operator::Eq).unwrap(),
        ];
        let plan: String = all.iter().flat_map(|c| c.code()).collect();
        assert_eq!(Comparison::of_plan(&plan), all);
        assert_eq!(Comparison::useful(Role::Cpu, Operator::Less), None);
        assert_eq!(Comparison::useful(Role::Wall, Operator::Eq), None);
    }
}

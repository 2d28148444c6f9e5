//! Names of the columns of a table that has the records of one event.

use std::collections::HashSet;

/// The names of a table's columns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ColumnNames {
    /// Of the columns that all events have.
    pub common: Vec<String>,
    /// Of the event's fields.
    pub fields: Vec<String>,
}

impl ColumnNames {
    /// Names that engines tell apart, which know no case. A field's name goes before that of a
    /// common column, which is then called `common_...`; that name is kept free in any case, and so
    /// are those of `reserved`. A field whose name is taken gets a `_` behind it.
    #[must_use]
    pub fn new<'f>(
        common: &[&str],
        fields: impl Iterator<Item = &'f str> + Clone,
        reserved: &[&str],
    ) -> Self {
        let long = |name: &str| format!("common_{name}");
        let is_field = |name: &str| fields.clone().any(|field| field.eq_ignore_ascii_case(name));
        let chosen = |&name: &&str| match is_field(name) {
            true => long(name),
            false => name.to_owned(),
        };
        let named: Vec<String> = common.iter().map(chosen).collect();
        let kept_free = reserved.iter().map(|name| (*name).to_owned());
        let mut taken: HashSet<String> = common.iter().map(|name| long(name)).collect();
        taken.extend(named.iter().cloned().chain(kept_free));
        let unique = |field: &str| {
            let mut name = field.to_owned();
            while !taken.insert(name.to_ascii_lowercase()) {
                name.push('_');
            }
            name
        };
        Self {
            common: named,
            fields: fields.map(unique).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_columns_have_a_name_that_an_engine_takes_for_the_same() {
        let fields = ["pid", "Pid", "common_cpu", "host", "prio", "prio"];
        let names = ColumnNames::new(&["ts", "cpu", "pid"], fields.into_iter(), &["host"]);
        assert_eq!(names.common, ["ts", "cpu", "common_pid"]);
        assert_eq!(
            names.fields,
            ["pid", "Pid_", "common_cpu_", "host_", "prio", "prio_"]
        );
    }
}

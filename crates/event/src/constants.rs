//! Values of names that `print fmt`s contain without their value.
//!
//! The kernel replaces most of its enum constants by numbers in the `format` files, but only
//! those that its sources list for it. The other names stand there bare: enum constants
//! (`VMSCAN_THROTTLE_WRITEBACK`), variables (`vmemmap_base`), types whose size counts
//! (`struct page`) and the tick rate behind `jiffies_to_msecs`. Their values differ between
//! kernels, so whoever reads the formats on the running kernel looks them up there
//! ([`Constants::from_btf_dir`] has the enum constants and sizes) and puts them into the catalog.

use std::collections::{BTreeMap, BTreeSet};

use crate::format::EventFormat;
use crate::print_fmt;

/// The name under which the timer ticks per second are stored.
pub(crate) const HZ: &str = "HZ";

/// Names with their values.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Constants {
    values: BTreeMap<String, u64>,
}

impl Constants {
    /// Sets the value of `name`: an enum constant, a variable, `struct NAME` for a type's size in
    /// bytes, or `HZ`. Negative values are extended by their sign.
    pub fn set(&mut self, name: &str, value: u64) {
        self.values.insert(name.to_owned(), value);
    }

    /// The value of `name`; if it was not set, that of the constants that are the same in every
    /// kernel.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<u64> {
        self.values
            .get(name)
            .copied()
            .or_else(|| in_every_kernel(name))
    }

    /// What was set, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, u64)> {
        self.values
            .iter()
            .map(|(name, &value)| (name.as_str(), value))
    }
}

impl EventFormat {
    /// Names in the `print fmt` whose values the text does not tell: candidates to be looked up
    /// on the kernel and put into the catalog. `HZ` and `struct NAME` are as in
    /// [`Constants::set`]. Some may turn out to be names of something else.
    #[must_use]
    pub fn unresolved_names(&self) -> BTreeSet<String> {
        let mut names = print_fmt::bare_names(self);
        names.retain(|name| in_every_kernel(name).is_none());
        names
    }
}

/// Constants that are ABI (uapi headers), or were read off running kernels by printing the same
/// record as text and with the `fields` option: a region without a catalog is read with them.
const IN_EVERY_KERNEL: &[(&str, u64)] = &[
    // Observed on Linux 6.18: `hrtimer_start` with `mode=REL|HARD` has `mode=0x9`.
    ("HRTIMER_MODE_ABS", 0),
    ("HRTIMER_MODE_REL", 1),
    ("HRTIMER_MODE_ABS_PINNED", 2),
    ("HRTIMER_MODE_REL_PINNED", 3),
    ("HRTIMER_MODE_ABS_SOFT", 4),
    ("HRTIMER_MODE_REL_SOFT", 5),
    ("HRTIMER_MODE_ABS_PINNED_SOFT", 6),
    ("HRTIMER_MODE_REL_PINNED_SOFT", 7),
    ("HRTIMER_MODE_ABS_HARD", 8),
    ("HRTIMER_MODE_REL_HARD", 9),
    ("HRTIMER_MODE_ABS_PINNED_HARD", 10),
    ("HRTIMER_MODE_REL_PINNED_HARD", 11),
    // netinet/tcp.h; the last one observed on Linux 6.18.
    ("TCP_ESTABLISHED", 1),
    ("TCP_SYN_SENT", 2),
    ("TCP_SYN_RECV", 3),
    ("TCP_FIN_WAIT1", 4),
    ("TCP_FIN_WAIT2", 5),
    ("TCP_TIME_WAIT", 6),
    ("TCP_CLOSE", 7),
    ("TCP_CLOSE_WAIT", 8),
    ("TCP_LAST_ACK", 9),
    ("TCP_LISTEN", 10),
    ("TCP_CLOSING", 11),
    ("TCP_NEW_SYN_RECV", 12),
    // linux/ioprio.h.
    ("IOPRIO_CLASS_NONE", 0),
    ("IOPRIO_CLASS_RT", 1),
    ("IOPRIO_CLASS_BE", 2),
    ("IOPRIO_CLASS_IDLE", 3),
    ("IOPRIO_CLASS_INVALID", 7),
    ("true", 1),
    ("false", 0),
    ("NULL", 0),
];

fn in_every_kernel(name: &str) -> Option<u64> {
    IN_EVERY_KERNEL
        .iter()
        .find(|(n, _)| *n == name)
        .map(|&(_, v)| v)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(print_fmt: &str) -> Vec<String> {
        let text = format!(
            "name: x\nID: 7\nformat:\n\tfield:int a;\toffset:8;\tsize:4;\tsigned:1;\n\
             \tfield:__data_loc char[] s;\toffset:12;\tsize:4;\tsigned:0;\n\nprint fmt: {print_fmt}\n"
        );
        let format = EventFormat::parse("t", &text).unwrap();
        format.unresolved_names().into_iter().collect()
    }

    #[test]
    fn only_names_without_a_value_are_listed() {
        assert!(names(r#""%d %s", (u32)REC->a + sizeof(u64), __get_str(s)"#).is_empty());
        assert!(names(r#""%s", __print_symbolic(REC->a, { TCP_LISTEN, "L" })"#).is_empty());
        assert_eq!(
            names(r#""%s", __print_flags(REC->a, "|", { (1 << THROTTLE_A), "THROTTLE_B" })"#),
            ["THROTTLE_A"]
        );
        assert_eq!(
            names(r#""%p", ((struct page *)vmemmap_base) + REC->a"#),
            ["struct page", "vmemmap_base"]
        );
        assert_eq!(names(r#""%u", jiffies_to_msecs(REC->a)"#), ["HZ"]);
    }

    #[test]
    fn what_was_set_goes_before_what_every_kernel_has() {
        let mut constants = Constants::default();
        assert_eq!(constants.get("TCP_LISTEN"), Some(10));
        constants.set("TCP_LISTEN", 11);
        assert_eq!(constants.get("TCP_LISTEN"), Some(11));
        assert_eq!(constants.get("TCP"), None);
    }
}

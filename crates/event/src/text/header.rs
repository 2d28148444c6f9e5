//! The header of `trace`, and the lines between records.

use super::Formatter;
use crate::digits::{push_fill, push_u64};

/// The numbers in the header of `trace`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeaderCounts {
    /// Events that can still be read, over all CPUs.
    pub entries: u64,
    /// Those and the overwritten ones.
    pub written: u64,
    /// CPUs online; `None` where nobody knows: a program's buffers are not those of CPUs.
    pub cpus: Option<u32>,
}

/// What the flag columns mean, drawn; indented by [`INDENT`].
const DRAWING: [&str; 6] = [
    "  _-----=> irqs-off/BH-disabled",
    " / _----=> need-resched",
    "| / _---=> hardirq/softirq",
    "|| / _--=> preempt-depth",
    "||| / _-=> migrate-disable",
    "|||| /     delay",
];

/// Blanks before the drawing, after the `#`.
const INDENT: usize = 30;
/// Blanks more with thread groups.
const TGID_INDENT: usize = 10;

const TITLES: &str = "\
#           TASK-PID     CPU#  |||||  TIMESTAMP  FUNCTION
#              | |         |   |||||     |         |
";
const TITLES_TGID: &str = "\
#           TASK-PID       TGID    CPU#  |||||  TIMESTAMP  FUNCTION
#              | |           |       |   |||||     |         |
";

impl Formatter<'_> {
    /// Appends the lines at the top of `trace`.
    pub fn header(&self, out: &mut Vec<u8>, counts: &HeaderCounts) {
        out.extend_from_slice(b"# tracer: nop\n#\n# entries-in-buffer/entries-written: ");
        push_u64(out, counts.entries);
        out.push(b'/');
        push_u64(out, counts.written);
        if let Some(cpus) = counts.cpus {
            out.extend_from_slice(b"   #P:");
            push_u64(out, u64::from(cpus));
        }
        out.extend_from_slice(b"\n#\n");
        let with_tgid = self.options().record_tgid;
        let indent = if with_tgid {
            INDENT + TGID_INDENT
        } else {
            INDENT
        };
        for line in DRAWING {
            out.push(b'#');
            push_fill(out, indent, b' ');
            out.extend_from_slice(line.as_bytes());
            out.push(b'\n');
        }
        let titles = if with_tgid { TITLES_TGID } else { TITLES };
        out.extend_from_slice(titles.as_bytes());
    }

    /// Appends the line that tells of events lost in a buffer; `None` if their number is unknown. The
    /// kernel's `kind` of a buffer is `CPU`.
    pub fn lost_events(&self, out: &mut Vec<u8>, kind: &str, buffer: u32, count: Option<u64>) {
        out.extend_from_slice(kind.as_bytes());
        out.push(b':');
        push_u64(out, u64::from(buffer));
        out.extend_from_slice(b" [LOST ");
        if let Some(count) = count {
            push_u64(out, count);
            out.push(b' ');
        }
        out.extend_from_slice(b"EVENTS]\n");
    }

    /// Appends the line that the kernel prints before the first event of each further CPU of a
    /// buffer that had overruns.
    pub fn buffer_started(&self, out: &mut Vec<u8>, cpu: u32) {
        out.extend_from_slice(b"##### CPU ");
        push_u64(out, u64::from(cpu));
        out.extend_from_slice(b" buffer started ####\n");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::Catalog;
    use crate::text::TextOptions;

    const COUNTS: HeaderCounts = HeaderCounts {
        entries: 78,
        written: 78,
        cpus: Some(2),
    };

    /// Lines of a 7.3.4 kernel.
    const PLAIN: &str = "\
# tracer: nop
#
# entries-in-buffer/entries-written: 78/78   #P:2
#
#                                _-----=> irqs-off/BH-disabled
#                               / _----=> need-resched
#                              | / _---=> hardirq/softirq
#                              || / _--=> preempt-depth
#                              ||| / _-=> migrate-disable
#                              |||| /     delay
#           TASK-PID     CPU#  |||||  TIMESTAMP  FUNCTION
#              | |         |   |||||     |         |
";
    const WITH_TGID: &str = "\
# tracer: nop
#
# entries-in-buffer/entries-written: 78/78   #P:2
#
#                                          _-----=> irqs-off/BH-disabled
#                                         / _----=> need-resched
#                                        | / _---=> hardirq/softirq
#                                        || / _--=> preempt-depth
#                                        ||| / _-=> migrate-disable
#                                        |||| /     delay
#           TASK-PID       TGID    CPU#  |||||  TIMESTAMP  FUNCTION
#              | |           |       |   |||||     |         |
";

    #[test]
    fn the_header_is_the_kernels() {
        let catalog = Catalog::new();
        for (record_tgid, expected) in [(false, PLAIN), (true, WITH_TGID)] {
            let options = TextOptions {
                record_tgid,
                ..TextOptions::default()
            };
            let mut out = Vec::new();
            Formatter::new(&catalog, options).header(&mut out, &COUNTS);
            assert_eq!(String::from_utf8(out).unwrap(), expected);
        }
    }

    #[test]
    fn lines_between_records() {
        let catalog = Catalog::new();
        let formatter = Formatter::new(&catalog, TextOptions::default());
        let mut out = Vec::new();
        formatter.lost_events(&mut out, "CPU", 0, Some(103));
        formatter.lost_events(&mut out, "CPU", 1, None);
        formatter.buffer_started(&mut out, 1);
        let expected =
            "CPU:0 [LOST 103 EVENTS]\nCPU:1 [LOST EVENTS]\n##### CPU 1 buffer started ####\n";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }
}

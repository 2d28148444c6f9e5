//! The kernel's `trace` text: one line per record, byte for byte as `trace` shows it.
//!
//! Line format and header as read on Linux 6.18 and 7.3; see `Documentation/trace/ftrace.rst`.
//! Records are untrusted: whatever they hold, a line comes out and nothing panics.

mod binary_print;
mod flags;
mod header;
mod static_events;

pub use header::HeaderCounts;

use crate::COMM_SIZE;
use crate::catalog::Catalog;
use crate::ctype::IntType;
use crate::digits::{push_fill, push_i64, push_padded, push_start, push_u64};
use crate::format::EventFormat;
use crate::raw_fields;
use crate::record::{self, ENTRY_HEADER_SIZE};
use crate::value::Value;

/// How the text looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct TextOptions {
    /// Print fields instead of the print format, as the kernel's `fields` option and as the
    /// kernel prints a previous boot. Static events (markers, stacks) keep their own form, where
    /// the `fields` option says `UNKNOWN TYPE`.
    pub raw_fields: bool,
    /// Print the thread group behind the pid, as the kernel's `record-tgid` option.
    pub record_tgid: bool,
    /// True if time stamps count nanoseconds; false for the clocks `counter`, `uptime` and
    /// `x86-tsc`.
    pub clock_in_ns: bool,
    /// Print symbols with `+0xOFFSET/0xSIZE`, as the kernel's `sym-offset` option.
    pub sym_offset: bool,
    /// Print symbols with their address, as the kernel's `sym-addr` option.
    pub sym_addr: bool,
}

impl Default for TextOptions {
    fn default() -> Self {
        Self {
            raw_fields: false,
            record_tgid: false,
            clock_in_ns: true,
            sym_offset: false,
            sym_addr: false,
        }
    }
}

impl TextOptions {
    /// The defaults, with `clock_in_ns` as the trace clock of this name needs it.
    #[must_use]
    pub fn for_clock(name: &str) -> Self {
        let clock_in_ns = !matches!(name, "counter" | "uptime" | "x86-tsc");
        Self {
            clock_in_ns,
            ..Self::default()
        }
    }
}

/// Prints records as the kernel's `trace` does.
#[derive(Debug, Clone, Copy)]
pub struct Formatter<'a> {
    catalog: &'a Catalog,
    options: TextOptions,
}

impl<'a> Formatter<'a> {
    /// A formatter that looks names up in `catalog`. Making one costs nothing.
    #[must_use]
    pub fn new(catalog: &'a Catalog, options: TextOptions) -> Self {
        Self { catalog, options }
    }

    /// The options.
    #[must_use]
    pub fn options(&self) -> TextOptions {
        self.options
    }

    /// The event that the record `payload` is of, if the catalog knows it.
    #[must_use]
    pub fn event(&self, payload: &[u8]) -> Option<&'a EventFormat> {
        self.catalog.event(event_id(payload)?)
    }

    /// The name of the event that the record `payload` is of, if the catalog knows it.
    #[must_use]
    pub fn event_name(&self, payload: &[u8]) -> Option<&'a str> {
        self.event(payload).map(|e| e.name.as_str())
    }

    /// The fields of the record `payload` with their values; none if its event is not known.
    pub fn fields(&self, payload: &'a [u8]) -> impl Iterator<Item = (&'a str, Value<'a>)> {
        self.event(payload)
            .into_iter()
            .flat_map(|e| e.values(payload))
    }

    /// Appends the line of one record, with its line end. (A stack trace has more lines; so
    /// has a text with line ends in it, as in the kernel.)
    ///
    /// `ts` is the record's time stamp in the trace clock, in nanoseconds if
    /// [`TextOptions::clock_in_ns`]. `payload` are the bytes from the start of the trace entry.
    ///
    /// Returns the record's event if its fields are printed because its print format cannot be
    /// evaluated, for [`Unevaluated`](crate::Unevaluated) to count.
    pub fn record(
        &self,
        out: &mut Vec<u8>,
        cpu: u32,
        ts: u64,
        payload: &[u8],
    ) -> Option<&'a EventFormat> {
        self.head(out, cpu, ts, payload);
        let unevaluated = self.text_at(out, Some(ts), payload);
        if out.last() != Some(&b'\n') {
            out.push(b'\n');
        }
        unevaluated
    }

    /// Everything of a line up to the `: ` before the event's text.
    fn head(&self, out: &mut Vec<u8>, cpu: u32, ts: u64, payload: &[u8]) {
        let header: [u8; ENTRY_HEADER_SIZE] = payload.first_chunk().copied().unwrap_or_default();
        let [_, _, mut flags, mut preempt_count, pid @ ..] = header;
        if self.event(payload).is_some_and(EventFormat::has_cpu) {
            // That is where the CPU lies.
            (flags, preempt_count) = (0, 0);
        }
        let pid = i32::from_le_bytes(pid);
        self.push_task(out, pid);
        out.extend_from_slice(b" [");
        push_padded(out, u64::from(cpu), 3, b'0');
        out.extend_from_slice(b"] ");
        out.extend_from_slice(&flags::column(flags, preempt_count));
        out.push(b' ');
        self.push_time(out, ts);
        out.extend_from_slice(b": ");
    }

    /// `comm-pid`, the name right and the pid left aligned, and the thread group if wanted.
    fn push_task(&self, out: &mut Vec<u8>, pid: i32) {
        let (comm, len) = self.comm(pid);
        push_fill(out, COMM_SIZE - len, b' ');
        push_start(out, comm, len);
        out.push(b'-');
        let start = out.len();
        push_i64(out, i64::from(pid));
        push_fill(out, 7usize.saturating_sub(out.len() - start), b' ');
        if self.options.record_tgid {
            self.push_tgid(out, pid);
        }
    }

    fn push_tgid(&self, out: &mut Vec<u8>, pid: i32) {
        out.extend_from_slice(b" (");
        match self.catalog.tasks().tgid(pid) {
            Some(tgid) if tgid > 0 => push_padded(out, u64::from(tgid as u32), 7, b' '),
            _ => out.extend_from_slice(b"-------"),
        }
        out.push(b')');
    }

    /// The name of a task as the kernel shows it, and its length.
    fn comm(&self, pid: i32) -> (&'a [u8; COMM_SIZE], usize) {
        const IDLE: &[u8; COMM_SIZE] = b"<idle>\0\0\0\0\0\0\0\0\0\0";
        const NEGATIVE: &[u8; COMM_SIZE] = b"<XXX>\0\0\0\0\0\0\0\0\0\0\0";
        const UNKNOWN: &[u8; COMM_SIZE] = b"<...>\0\0\0\0\0\0\0\0\0\0\0";
        let comm = match pid {
            0 => IDLE,
            ..0 => NEGATIVE,
            _ => self.catalog.tasks().padded_comm(pid).unwrap_or(UNKNOWN),
        };
        (comm, record::until_nul(comm).len())
    }

    /// Seconds and microseconds, rounded to the nearest; or the bare number.
    fn push_time(&self, out: &mut Vec<u8>, ts: u64) {
        if !self.options.clock_in_ns {
            return push_padded(out, ts, 12, b' ');
        }
        let us = ts.wrapping_add(500) / 1000;
        push_padded(out, us / 1_000_000, 5, b' ');
        out.push(b'.');
        push_padded(out, us % 1_000_000, 6, b'0');
    }

    /// Appends what stands behind the time of a record's line: its event's text, that of an ordinary
    /// event with its line end. Returns what [`record`](Self::record) does.
    pub fn text(&self, out: &mut Vec<u8>, payload: &[u8]) -> Option<&'a EventFormat> {
        self.text_at(out, None, payload)
    }

    fn text_at(
        &self,
        out: &mut Vec<u8>,
        ts: Option<u64>,
        payload: &[u8],
    ) -> Option<&'a EventFormat> {
        if payload.len() < ENTRY_HEADER_SIZE {
            out.extend_from_slice(b"[record of ");
            push_u64(out, payload.len() as u64);
            out.extend_from_slice(b" bytes: too short for an event]");
            return None;
        }
        let id = record::load(payload, 0, IntType::new(2, false)) as u16;
        let event = self.catalog.event(id);
        if self.push_static(out, id, event, ts, payload) {
            return None;
        }
        let Some(event) = event else {
            out.extend_from_slice(b"Unknown type ");
            push_u64(out, u64::from(id));
            return None;
        };
        let is_evaluated = self.event_text(out, event, payload);
        if event.is_cut(payload) {
            out.extend_from_slice(b" [cut]");
        }
        out.push(b'\n');
        (!is_evaluated).then_some(event)
    }

    /// The values that a record's text shows, each with the name before it, where the print format is
    /// `name=value name=value`, as those of programs are; `None` if it is anything else.
    #[must_use]
    pub fn named_values(&self, payload: &[u8]) -> Option<Vec<(&'a str, Vec<u8>)>> {
        let program = self.event(payload)?.program(self.catalog.constants());
        program.ok()?.named_values(payload, self.catalog)
    }

    /// Appends an ordinary event's text. False if its print format was wanted, and cannot be
    /// evaluated.
    #[inline]
    fn event_text(&self, out: &mut Vec<u8>, event: &EventFormat, payload: &[u8]) -> bool {
        if !self.options.raw_fields
            && let Ok(program) = event.program(self.catalog.constants())
        {
            push_name(out, event);
            program.run(out, payload, self.catalog);
            return true;
        }
        self.name_and_fields(out, event, payload);
        self.options.raw_fields
    }

    fn name_and_fields(&self, out: &mut Vec<u8>, event: &EventFormat, payload: &[u8]) {
        out.extend_from_slice(event.name.as_bytes());
        out.push(b':');
        raw_fields::push(out, event, payload, self.catalog);
    }
}

fn push_name(out: &mut Vec<u8>, event: &EventFormat) {
    out.extend_from_slice(event.name.as_bytes());
    out.extend_from_slice(b": ");
}

/// The event id of the record `payload`: its first two bytes.
#[must_use]
pub fn event_id(payload: &[u8]) -> Option<u16> {
    payload.first_chunk().copied().map(u16::from_le_bytes)
}

/// The task that wrote the record `payload`: `common_pid`, the four bytes behind id, flags and preempt
/// count.
#[inline]
#[must_use]
pub fn pid(payload: &[u8]) -> Option<i32> {
    let pid = payload.get(4..)?.first_chunk()?;
    Some(i32::from_le_bytes(*pid))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FORMAT: &str = "name: hello\nID: 30\nformat:\n\
        \tfield:int a;\toffset:8;\tsize:4;\tsigned:1;\n\nprint fmt: \"a=%d\", REC->a\n";

    fn record(id: u16, pid: i32) -> Vec<u8> {
        let mut record = id.to_le_bytes().to_vec();
        record.extend_from_slice(&[1, 2]);
        record.extend_from_slice(&pid.to_le_bytes());
        record.extend_from_slice(&5i32.to_le_bytes());
        record
    }

    fn line(options: TextOptions, cpu: u32, ts: u64, payload: &[u8]) -> String {
        let mut catalog = Catalog::new();
        catalog.add_format("t", FORMAT).unwrap();
        catalog.tasks_mut().set_comm(42, b"rcu_preempt");
        catalog.tasks_mut().set_tgid(42, 41);
        let mut out = Vec::new();
        Formatter::new(&catalog, options).record(&mut out, cpu, ts, payload);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn lines_have_the_kernels_columns() {
        let options = TextOptions::default();
        assert_eq!(
            line(options, 1, 4_113_104_964, &record(30, 0)),
            "          <idle>-0       [001] d..2.     4.113105: hello: a=5\n"
        );
        assert_eq!(
            line(options, 0, 123_456_000_000_000, &record(30, 42)),
            "     rcu_preempt-42      [000] d..2. 123456.000000: hello: a=5\n"
        );
        assert_eq!(
            line(options, 0, 499, &record(31, 43)),
            "           <...>-43      [000] d..2.     0.000000: Unknown type 31\n"
        );
        assert_eq!(
            line(options, 0, 500, &record(30, -2)),
            "           <XXX>--2      [000] d..2.     0.000001: hello: a=5\n"
        );
    }

    #[test]
    fn options_change_the_columns() {
        let counter = TextOptions::for_clock("counter");
        assert_eq!(
            line(counter, 0, 17, &record(30, 0)),
            "          <idle>-0       [000] d..2.           17: hello: a=5\n"
        );
        let tgid = TextOptions {
            record_tgid: true,
            ..TextOptions::default()
        };
        assert_eq!(
            line(tgid, 0, 0, &record(30, 42)),
            "     rcu_preempt-42      (     41) [000] d..2.     0.000000: hello: a=5\n"
        );
        assert_eq!(
            line(tgid, 0, 0, &record(30, 0)),
            "          <idle>-0       (-------) [000] d..2.     0.000000: hello: a=5\n"
        );
        let fields = TextOptions {
            raw_fields: true,
            ..TextOptions::default()
        };
        assert_eq!(
            line(fields, 0, 0, &record(30, 0)),
            "          <idle>-0       [000] d..2.     0.000000: hello: a=0x5 (5)\n"
        );
    }

    #[test]
    fn values_are_named_where_the_whole_text_is_of_names_and_values() {
        let values = |print_fmt: &str| {
            let mut catalog = Catalog::new();
            let format = FORMAT.replace("\"a=%d\", REC->a", print_fmt);
            catalog.add_format("t", &format).unwrap();
            let formatter = Formatter::new(&catalog, TextOptions::default());
            let values = formatter.named_values(&record(30, 1))?;
            let values = values.into_iter();
            let text = |(name, value): (&str, Vec<u8>)| {
                format!("{name}: {}", String::from_utf8(value).unwrap())
            };
            Some(values.map(text).collect::<Vec<_>>())
        };
        let both = values("\"a=%d b=%s\", REC->a, __print_symbolic(REC->a, { 5, \"five\" })");
        assert_eq!(both.unwrap(), ["a: 5", "b: five"]);
        for other in [
            "\"%d\", REC->a",
            "\"a=%d.\", REC->a",
            "\"a=%d%d\", REC->a, REC->a",
            "\"a\"",
        ] {
            assert_eq!(values(other), None, "{other}");
        }
    }

    #[test]
    fn short_records_still_make_a_line() {
        for len in 0..8 {
            let text = line(TextOptions::default(), 0, 0, &record(30, 0)[..len]);
            assert!(text.ends_with(&format!(
                "[record of {len} bytes: too short for an event]\n"
            )));
        }
    }
}

//! `trace_clock=`, `trace_buf_size=` and `trace_options=`: settings for all instances of the line.
//!
//! For the kernel they are about its top-level instance. There is none here: clock and options
//! hold for every instance of the line, and the size for its ordinary ones.

use std::ops::Range;

use super::diagnostic::Diagnostic;
use super::memparse::number;
use super::nearest::nearest;
use super::piece::Piece;

/// Size of an ordinary instance's buffer without `trace_buf_size=`, bytes per CPU
/// (`kernel/trace/trace.c`, Linux 7.3).
pub const TRACE_BUF_SIZE_DEFAULT: u64 = 1_441_792;
/// Least `trace_buf_size=`, bytes (`kernel/trace/trace.c`, Linux 7.3).
const TRACE_BUF_SIZE_MIN: u64 = 4096;
/// Size of the buffer in which the kernel joins all `trace_options=` values, bytes
/// (`kernel/trace/trace.c`, Linux 7.3).
const TRACE_OPTIONS_BUFFER_SIZE: usize = 100;

/// A trace clock. The numbers are those that a region's scratch stores (`kernel/trace/trace.c`,
/// Linux 7.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum TraceClock {
    /// `local`: nanoseconds, fast, CPUs may differ. The default.
    Local = 0,
    /// `global`: nanoseconds, the same order on all CPUs.
    Global = 1,
    /// `counter`: a count, one for each event.
    Counter = 2,
    /// `uptime`: jiffies since the boot.
    Uptime = 3,
    /// `perf`: nanoseconds, the clock of `perf`.
    Perf = 4,
    /// `mono`: nanoseconds, `CLOCK_MONOTONIC`.
    Mono = 5,
    /// `mono_raw`: nanoseconds, `CLOCK_MONOTONIC_RAW`.
    MonoRaw = 6,
    /// `boot`: nanoseconds, `CLOCK_BOOTTIME`.
    Boot = 7,
    /// `tai`: nanoseconds, `CLOCK_TAI`.
    Tai = 8,
    /// `x86-tsc`: cycles of the time stamp counter, on x86 only.
    X86Tsc = 9,
}

impl TraceClock {
    /// All clocks, in the order of their numbers.
    pub const ALL: [Self; 10] = [
        Self::Local,
        Self::Global,
        Self::Counter,
        Self::Uptime,
        Self::Perf,
        Self::Mono,
        Self::MonoRaw,
        Self::Boot,
        Self::Tai,
        Self::X86Tsc,
    ];

    /// The clock's name as in the file `trace_clock`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Global => "global",
            Self::Counter => "counter",
            Self::Uptime => "uptime",
            Self::Perf => "perf",
            Self::Mono => "mono",
            Self::MonoRaw => "mono_raw",
            Self::Boot => "boot",
            Self::Tai => "tai",
            Self::X86Tsc => "x86-tsc",
        }
    }

    /// Whether the clock stands still while whole sub-buffers are filled (`uptime` counts jiffies), so
    /// that it tells no order of events and no lap of the ring.
    #[must_use]
    pub fn is_coarse(self) -> bool {
        self == Self::Uptime
    }

    /// The clock's number, as a region's scratch stores it.
    #[must_use]
    pub fn id(self) -> u32 {
        self as u32
    }

    /// The clock called `name`.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|clock| clock.name() == name)
    }
}

/// One word of `trace_options=`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TraceOption {
    /// The option's name without `no`, as in the folder `options`.
    pub name: &'static str,
    /// Whether it is to be on; off if it was written with `no` before it.
    pub is_on: bool,
    /// The word in the text.
    pub span: Range<usize>,
}

impl TraceOption {
    /// The names of the options that there can be: those that change what is recorded, each instance
    /// for itself.
    pub const NAMES: [&str; 5] = [
        "event-fork",
        "markers",
        "overwrite",
        "stacktrace",
        "userstacktrace",
    ];
}

/// Options of the whole machine, which would fill its tables, and why outlive needs none.
const GLOBAL_OPTIONS: [(&str, &str); 2] = [
    (
        "record-cmd",
        "`record-cmd` fills a table of the whole machine; outlive records the tasks' names without it",
    ),
    (
        "record-tgid",
        "`record-tgid` fills a table of the whole machine, which outlive leaves alone",
    ),
];

/// Options that change how the kernel shows events.
const DISPLAY_OPTIONS: [&str; 15] = [
    "annotate",
    "bin",
    "context-info",
    "fields",
    "hash-ptr",
    "hex",
    "irq-info",
    "latency-format",
    "print-parent",
    "printk-msg-only",
    "raw",
    "sym-addr",
    "sym-offset",
    "sym-userobj",
    "verbose",
];

/// Options that belong to tracers, to the files of tracefs, or to other instances than ours.
const UNUSED_OPTIONS: [&str; 16] = [
    "blk_cgname",
    "blk_cgroup",
    "blk_classic",
    "block",
    "copy_trace_marker",
    "disable_on_free",
    "display-graph",
    "func-no-repeats",
    "func_stack_trace",
    "function-fork",
    "function-trace",
    "pause-on-trace",
    "test_nop_accept",
    "test_nop_refuse",
    "trace_printk",
    "trace_printk_dest",
];

/// Reads `trace_clock=`. An unknown clock is the default one, as for the kernel, and so is one that
/// is too coarse.
pub(super) fn read_clock(value: Piece<'_>, out: &mut Vec<Diagnostic>) -> Option<TraceClock> {
    let named = TraceClock::from_name(value.text);
    if let Some(clock) = named.filter(|clock| !clock.is_coarse()) {
        return Some(clock);
    }
    let usable = TraceClock::ALL
        .into_iter()
        .filter(|clock| !clock.is_coarse());
    let names: Vec<_> = usable.map(TraceClock::name).collect();
    let message = match named {
        Some(_) => "this clock stands still while many events come in, and tells no order",
        None => "this is not a clock",
    };
    let diagnostic = Diagnostic::warning(value.visible_span(), message)
        .expected(format!("expected one of {}", names.join(", ")))
        .consequence("the clock is `local`");
    out.push(match named {
        Some(_) => diagnostic,
        None => diagnostic
            .nearest(nearest(value.text, names))
            .kernel(format!(
                "Trace clock {} not defined, going back to default",
                value.text
            )),
    });
    None
}

/// Reads `trace_buf_size=`, bytes per CPU. Whatever is no number or too small is the least size,
/// as for the kernel.
pub(super) fn read_buf_size(value: Piece<'_>, out: &mut Vec<Diagnostic>) -> Option<u64> {
    let size = number(value);
    if size.read.is_saturated {
        out.push(
            Diagnostic::warning(size.digits.span(), "this number does not fit in 64 bits")
                .consequence("this parameter is ignored"),
        );
        return None;
    }
    if size.read.value < TRACE_BUF_SIZE_MIN {
        let place = if size.read.len == 0 {
            value
        } else {
            size.digits
        };
        let message = if size.read.len == 0 {
            "this is not a size"
        } else {
            "this is less than one page"
        };
        out.push(
            Diagnostic::warning(place.visible_span(), message)
                .expected("expected a size of at least 4096")
                .consequence("the size is 4096 bytes per CPU"),
        );
    } else if !size.rest.text.is_empty() {
        let message = format!("`{}` is not part of a size", size.rest.text);
        out.push(
            Diagnostic::warning(size.rest.span(), message)
                .help("a number ends with at most one of K, M, G, T, P and E (powers of 1024)")
                .consequence(format!("the size is {} bytes per CPU", size.read.value)),
        );
    }
    Some(size.read.value.max(TRACE_BUF_SIZE_MIN))
}

/// The kernel's buffer of all `trace_options=` values.
#[derive(Debug, Default)]
pub(super) struct OptionBuffer {
    used_len: usize,
}

impl OptionBuffer {
    /// Reads a value, if there is room for it.
    pub(super) fn read(
        &mut self,
        value: Piece<'_>,
        options: &mut Vec<TraceOption>,
        out: &mut Vec<Diagnostic>,
    ) {
        // Values are joined with a comma, and a NUL ends them.
        let len = value.text.len() + usize::from(self.used_len > 0);
        if self.used_len + len >= TRACE_OPTIONS_BUFFER_SIZE {
            let message = "all `trace_options=` values together have more than 100 bytes";
            let diagnostic = Diagnostic::warning(value.span(), message);
            out.push(diagnostic.consequence("these options are ignored"));
            return;
        }
        self.used_len += len;
        for word in value.split(',').filter(|word| !word.text.is_empty()) {
            match read_option(word) {
                Ok(option) => options.push(option),
                Err(diagnostic) => out.push(diagnostic.consequence("this option is ignored")),
            }
        }
    }
}

/// Reads one word.
fn read_option(word: Piece<'_>) -> Result<TraceOption, Diagnostic> {
    let (name, is_on) = match word.text.strip_prefix("no") {
        Some(name) if all_options().any(|option| option == name) => (name, false),
        _ => (word.text, true),
    };
    let find = |list: &[&'static str]| list.iter().copied().find(|option| *option == name);
    if name == "overwrite" && !is_on {
        return Err(
            Diagnostic::warning(word.span(), "a flight recorder always overwrites")
                .help("`nooverwrite` would keep the oldest events and lose those before the crash"),
        );
    }
    if let Some(name) = find(&TraceOption::NAMES) {
        let span = word.span();
        return Ok(TraceOption { name, is_on, span });
    }
    if let Some((_, why)) = GLOBAL_OPTIONS.iter().find(|(option, _)| *option == name) {
        return Err(Diagnostic::warning(word.span(), *why));
    }
    if find(&DISPLAY_OPTIONS).is_some() {
        return Err(display_option(word, name));
    }
    if find(&UNUSED_OPTIONS).is_some() {
        let message = format!("outlive has no use for the option `{name}`");
        return Err(Diagnostic::note(word.span(), message));
    }
    Err(unknown_option(word))
}

/// An option of the kernel's text, which is made when a recording is shown.
fn display_option(word: Piece<'_>, name: &str) -> Diagnostic {
    let message = format!("`{name}` changes how events are shown, not what is recorded");
    let help = match name {
        "fields" | "raw" => "`outlive show --raw-fields` shows the fields",
        _ => "`outlive show` has options of its own",
    };
    Diagnostic::warning(word.span(), message).help(help)
}

/// Every option that Linux 7.3 has.
fn all_options() -> impl Iterator<Item = &'static str> {
    TraceOption::NAMES
        .into_iter()
        .chain(GLOBAL_OPTIONS.map(|(name, _)| name))
        .chain(DISPLAY_OPTIONS)
        .chain(UNUSED_OPTIONS)
}

/// A word that is no option; the nearest one keeps its `no`.
fn unknown_option(word: Piece<'_>) -> Diagnostic {
    let negated = all_options().map(|option| format!("no{option}"));
    let words: Vec<_> = all_options().map(String::from).chain(negated).collect();
    Diagnostic::warning(word.span(), format!("`{}` is not an option", word.text))
        .nearest(nearest(word.text, words.iter().map(String::as_str)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_have_the_numbers_of_the_scratch() {
        for (id, clock) in TraceClock::ALL.into_iter().enumerate() {
            assert_eq!(usize::try_from(clock.id()), Ok(id));
            assert_eq!(TraceClock::from_name(clock.name()), Some(clock));
        }
    }

    #[test]
    fn options_that_do_not_fit_in_the_buffer_are_dropped_whole() {
        let (mut options, mut out) = (Vec::new(), Vec::new());
        let mut buffer = OptionBuffer::default();
        let long = ["stacktrace"; 7].join(",") + ",userstacktrace";
        for value in [long.as_str(), "overwrite", "markers", "nomarkers"] {
            buffer.read(Piece::new(value, 0), &mut options, &mut out);
        }
        // 91 bytes, then a comma and 9: 101 do not fit; a comma and 7 do; then nothing.
        assert_eq!(options.len(), 9);
        assert_eq!(options[8].name, "markers");
        assert_eq!(out.len(), 2);
    }
}

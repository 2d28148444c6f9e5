//! The whole command line.

use std::collections::HashSet;
use std::ops::Range;

use super::diagnostic::Diagnostic;
use super::instance::{Instance, InstanceBuffer, InstanceKind};
use super::memmap::{self, Memmap};
use super::nearest::nearest_within;
use super::piece::Piece;
use super::reserve_mem::{self, ReserveMem};
use super::setting::{OptionBuffer, TraceClock, TraceOption, read_buf_size, read_clock};
use super::settle::{Memory, SKIPPED, drop_lone_backups, settle};
use super::token::{Form, Parameter, parameters};

/// The parameters that are ours.
const OURS: [&str; 6] = [
    "reserve_mem",
    "memmap",
    "trace_instance",
    "trace_clock",
    "trace_buf_size",
    "trace_options",
];

/// Parameters of the kernel's tracing that have no meaning here, with what to do instead.
///
/// `Documentation/admin-guide/kernel-parameters.txt`, Linux 6.18.
const NOT_APPLIED: [(&str, Option<&str>); 18] = [
    ("alloc_snapshot", None),
    ("ftrace", None),
    ("ftrace_boot_snapshot", None),
    ("ftrace_dump_on_oops", None),
    ("ftrace_filter", None),
    ("ftrace_graph_filter", None),
    ("ftrace_graph_max_depth", None),
    ("ftrace_graph_notrace", None),
    ("ftrace_notrace", None),
    ("kprobe_event", None),
    ("stacktrace", None),
    ("stacktrace_filter", None),
    ("tp_printk", None),
    ("tp_printk_stop_on_boot", None),
    (
        "trace_event",
        Some("name the events behind an instance: `trace_instance=NAME,EVENTS`"),
    ),
    ("trace_trigger", None),
    ("traceoff_after_boot", None),
    ("traceoff_on_warning", None),
];

/// A parameter that is not ours.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct IgnoredParameter {
    /// What stands before its `=`.
    pub name: String,
    /// All of it in the text.
    pub span: Range<usize>,
}

/// A boot command line, read.
///
/// Holds what is to be done, in the order of the line, after everything that cannot be done has
/// been taken out; [`diagnostics`](Self::diagnostics) tells what and why.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CommandLine {
    /// The areas to reserve, at most 8.
    pub reserve_mem: Vec<ReserveMem>,
    /// The ranges of physical memory that the kernel was told about.
    pub memmap: Vec<Memmap>,
    /// The instances to make. A backup may stand before its source, see
    /// [`creation_order`](Self::creation_order).
    pub instances: Vec<Instance>,
    /// Names of instances that the line asks for and that cannot be made.
    pub skipped: Vec<String>,
    /// The clock of all instances; `local` if there is none.
    pub trace_clock: Option<TraceClock>,
    /// Size of the ordinary instances' buffers, bytes per CPU and at least 4096;
    /// [`TRACE_BUF_SIZE_DEFAULT`](super::TRACE_BUF_SIZE_DEFAULT) if there is none.
    pub trace_buf_size: Option<u64>,
    /// Options of all instances; of two about the same option the later one holds.
    pub trace_options: Vec<TraceOption>,
    /// Parameters that are not ours.
    pub ignored: Vec<IgnoredParameter>,
    /// What is wrong with the line, by place.
    pub diagnostics: Vec<Diagnostic>,
}

impl CommandLine {
    /// Reads a command line as the kernel is given it.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        Self::read(text, Form::Argument)
    }

    /// Reads a command line from a file: the same, but `#` at the beginning of a parameter starts
    /// a comment that goes to the end of the line, and no quote goes beyond its line.
    #[must_use]
    pub fn parse_file(text: &str) -> Self {
        Self::read(text, Form::File)
    }

    /// Whether `--strict` accepts the line: no errors, no warnings. Notes do not count.
    #[must_use]
    pub fn is_clean_for_strict(&self) -> bool {
        !self
            .diagnostics
            .iter()
            .any(Diagnostic::is_refused_by_strict)
    }

    /// The instances in an order in which each backup comes after its source, else as in the line.
    #[must_use]
    pub fn creation_order(&self) -> Vec<&Instance> {
        let mut waiting: Vec<&Instance> = self.instances.iter().collect();
        let mut ordered: Vec<&Instance> = Vec::new();
        let mut names: HashSet<&str> = HashSet::new();
        loop {
            let is_ready = |instance: &Instance, names: &HashSet<&str>| match &instance.kind {
                InstanceKind::Backup { source } => names.contains(source.as_str()),
                _ => true,
            };
            let Some(next) = waiting.iter().position(|i| is_ready(i, &names)) else {
                return ordered;
            };
            let instance = waiting.remove(next);
            names.insert(&instance.name);
            ordered.push(instance);
        }
    }

    /// A note for each parameter that is not ours, for who wants to see them.
    #[must_use]
    pub fn ignored_notes(&self) -> Vec<Diagnostic> {
        let note = |parameter: &IgnoredParameter| {
            let message = format!("`{}` is not a parameter of outlive", parameter.name);
            Diagnostic::note(parameter.span.clone(), message)
                .consequence("this parameter is ignored")
        };
        self.ignored.iter().map(note).collect()
    }

    /// Reads all parameters, then settles the instances.
    fn read(text: &str, form: Form) -> Self {
        let mut line = Self::default();
        let mut reader = Reader::default();
        let parameters = parameters(text, form, &mut line.diagnostics);
        let end = parameters
            .iter()
            .position(|p| p.whole.text == "--")
            .unwrap_or(parameters.len());
        for parameter in &parameters[..end] {
            reader.read(parameter, &mut line);
        }
        line.diagnostics.extend(behind_dashes(&parameters[end..]));
        let entries = reader.instances.into_entries();
        let memory = Memory {
            areas: &line.reserve_mem,
            ranges: &line.memmap,
            refused: &reader.refused,
        };
        (line.instances, line.skipped) = settle(&entries, memory, &mut line.diagnostics);
        line.sort_diagnostics();
        line
    }

    /// Takes instances out that turned out to be impossible, with what is to be said about each, and
    /// the backups of them.
    pub(crate) fn skip(&mut self, unfit: Vec<(String, Diagnostic)>) {
        for (name, diagnostic) in unfit {
            self.instances.retain(|instance| instance.name != name);
            self.diagnostics.push(diagnostic.consequence(SKIPPED));
            self.skipped.push(name);
        }
        let skipped = self.skipped.iter().map(String::as_str).collect();
        drop_lone_backups(&mut self.instances, &skipped, &mut self.diagnostics);
        self.sort_diagnostics();
    }

    fn sort_diagnostics(&mut self) {
        self.diagnostics
            .sort_by_key(|diagnostic| (diagnostic.span.start, diagnostic.span.end));
    }
}

/// What is remembered from one parameter to the next.
#[derive(Debug, Default)]
struct Reader<'a> {
    instances: InstanceBuffer<'a>,
    /// The values of `reserve_mem=` that gave no area.
    refused: Vec<Piece<'a>>,
    options: OptionBuffer,
    clock_span: Option<Range<usize>>,
    buf_size_span: Option<Range<usize>>,
}

impl<'a> Reader<'a> {
    /// Reads one parameter into `line`.
    fn read(&mut self, parameter: &Parameter<'a>, line: &mut CommandLine) {
        let name = kernel_name(parameter.name.text);
        let Some(ours) = OURS.into_iter().find(|ours| *ours == name) else {
            return read_other(parameter, &name, line);
        };
        let Some(value) = parameter.value else {
            return line.diagnostics.push(no_value(parameter, ours));
        };
        let out = &mut line.diagnostics;
        match ours {
            "reserve_mem" => {
                reserve_mem::read(value, &mut line.reserve_mem, &mut self.refused, out)
            }
            "memmap" => memmap::read(value, &mut line.memmap, out),
            "trace_instance" => self.instances.push(value, out),
            "trace_clock" => {
                note_repeated(&mut self.clock_span, parameter, out);
                line.trace_clock = read_clock(value, out);
            }
            "trace_buf_size" => {
                note_repeated(&mut self.buf_size_span, parameter, out);
                line.trace_buf_size = read_buf_size(value, out);
            }
            _ => self.options.read(value, &mut line.trace_options, out),
        }
    }
}

/// A parameter's name as the kernel compares it: `-` and `_` are the same.
fn kernel_name(name: &str) -> String {
    name.replace('-', "_")
}

/// One of ours without a value.
fn no_value(parameter: &Parameter<'_>, ours: &str) -> Diagnostic {
    let place = parameter.name.end().span();
    Diagnostic::warning(place, format!("`{ours}` has no value"))
        .expected("expected `=` and a value")
        .help("no blank may stand on either side of the `=`")
        .consequence("this parameter is ignored")
}

/// Notes that a parameter of which only the last one counts was given before.
fn note_repeated(
    last: &mut Option<Range<usize>>,
    parameter: &Parameter<'_>,
    out: &mut Vec<Diagnostic>,
) {
    if let Some(first) = last.replace(parameter.whole.span()) {
        let message = format!("`{}` is given again", parameter.name.text);
        out.push(
            Diagnostic::note(parameter.whole.span(), message)
                .related(first, "first here")
                .consequence("the last one counts"),
        );
    }
}

/// A parameter that is not ours: known but not applied, a slip, nothing that a parameter looks
/// like, or somebody else's.
fn read_other(parameter: &Parameter<'_>, name: &str, line: &mut CommandLine) {
    let (word, rest) = leading_word(parameter.name);
    let is_ordinary = rest.text.is_empty() && !word.text.is_empty();
    let diagnostic = if let Some((_, help)) = NOT_APPLIED.iter().find(|(known, _)| *known == name) {
        Some(not_applied(parameter, *help))
    } else if let Some(ours) = near_miss(word.text) {
        Some(slip(parameter, (word, rest), ours))
    } else if !is_ordinary {
        Some(not_a_parameter(parameter))
    } else {
        None
    };
    match diagnostic {
        Some(d) => line
            .diagnostics
            .push(d.consequence("this parameter is ignored")),
        None => line.ignored.push(IgnoredParameter {
            name: parameter.name.text.into(),
            span: parameter.whole.span(),
        }),
    }
}

/// The beginning of `name` that a parameter's name can be, and what is left.
fn leading_word(name: Piece<'_>) -> (Piece<'_>, Piece<'_>) {
    let is_name = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
    let end = name.text.find(|c| !is_name(c)).unwrap_or(name.text.len());
    (name.take(end), name.skip(end))
}

/// The parameter of ours that `word` is a slip of: at most one change in four characters.
fn near_miss(word: &str) -> Option<&'static str> {
    let name = kernel_name(word);
    OURS.into_iter()
        .find(|ours| nearest_within(&name, [*ours], ours.len() / 4).is_some())
}

/// A parameter of the kernel's tracing that is not applied.
fn not_applied(parameter: &Parameter<'_>, help: Option<&str>) -> Diagnostic {
    let message = format!("`{}` is not applied by outlive", parameter.name.text);
    let diagnostic = Diagnostic::note(parameter.whole.span(), message);
    match help {
        Some(help) => diagnostic.help(help),
        None => diagnostic,
    }
}

/// A parameter that was most probably meant to be `ours`: its name is misspelt, or something else
/// than `=` follows it.
fn slip(parameter: &Parameter<'_>, (word, rest): (Piece<'_>, Piece<'_>), ours: &str) -> Diagnostic {
    let is_separator = rest.text.starts_with([':', ',', '@']) && parameter.value.is_none();
    let wrong = if is_separator {
        parameter.name.take(word.text.len() + 1)
    } else {
        word
    };
    let right = if is_separator {
        format!("{ours}=")
    } else {
        ours.into()
    };
    Diagnostic::warning(wrong.span(), format!("`{}` is not a parameter", wrong.text))
        .expected(format!("expected `{right}`"))
        .suggest(wrong.span(), right)
}

/// Something that does not look like a parameter, most often a piece of one.
fn not_a_parameter(parameter: &Parameter<'_>) -> Diagnostic {
    Diagnostic::warning(
        parameter.whole.span(),
        "this does not look like a parameter",
    )
    .expected("expected NAME or NAME=VALUE")
    .help("a value with blanks in it needs quotes: NAME=\"VALUE\"")
}

/// Warns of ours behind `--`, where the kernel's parameters end and those of init begin.
fn behind_dashes(behind: &[Parameter<'_>]) -> Option<Diagnostic> {
    let dashes = behind.first()?;
    let is_ours = |p: &&Parameter<'_>| OURS.contains(&kernel_name(p.name.text).as_str());
    let ours = behind.iter().find(is_ours)?;
    let message = format!("`{}` stands behind `--`", ours.name.text);
    Some(
        Diagnostic::warning(ours.whole.span(), message)
            .related(dashes.whole.span(), "what follows is for the init program")
            .consequence("everything behind `--` is ignored"),
    )
}

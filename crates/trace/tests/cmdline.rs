//! The command line against a table of lines with all that is read from them and said about them,
//! and against lines that nobody wrote.
//!
//! `tests/cmdline/cases.txt` has the table. A case is a `=== name`, the line, `---`, and what is
//! expected. `=== [file] name` reads the text as a file. In the line, `\t` and `\e` stand for a
//! TAB and an ESC, and `{x*300}` for 300 times `x`. To write the expected parts anew:
//! `OUTLIVE_UPDATE=1 cargo test -p outlive-trace --test cmdline`, then read the difference.

use std::fmt::Write as _;
use std::ops::Range;
use std::path::PathBuf;

use outlive_trace::cmdline::{
    AreaRef, CommandLine, Diagnostic, Instance, InstanceKind, Memmap, MemmapKind, Severity,
    TraceOption, resolve,
};
use proptest::prelude::*;

/// One case of the table.
struct Case {
    name: String,
    line: String,
    expected: String,
}

impl Case {
    /// The text that the case stands for.
    fn text(&self) -> String {
        unescape(&self.line)
    }

    fn is_file(&self) -> bool {
        self.name.starts_with("[file]")
    }

    fn read(&self) -> CommandLine {
        read(&self.text(), self.is_file())
    }
}

fn read(text: &str, is_file: bool) -> CommandLine {
    if is_file {
        CommandLine::parse_file(text)
    } else {
        CommandLine::parse(text)
    }
}

fn table_path() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/cmdline/cases.txt")
}

/// All cases of the table.
fn cases() -> Vec<Case> {
    let table = std::fs::read_to_string(table_path()).expect("the table is there");
    let cases = table.split("=== ").skip(1).map(|case| {
        let (name, rest) = case.split_once('\n').expect("a name ends with its line");
        let (line, expected) = rest.split_once("\n---\n").expect("`---` follows the line");
        Case {
            name: name.into(),
            line: line.into(),
            expected: expected.trim_end().into(),
        }
    });
    cases.collect()
}

/// Replaces `\t`, `\e` and `{x*300}`.
fn unescape(line: &str) -> String {
    let line = line.replace("\\t", "\t").replace("\\e", "\u{1b}");
    let mut parts = line.split('{');
    let mut text: String = parts.next().unwrap_or_default().into();
    for part in parts {
        let (repetition, rest) = part.split_once('}').expect("`{` has its `}`");
        let (word, count) = repetition.split_once('*').expect("`{word*count}`");
        text += &word.repeat(count.parse().expect("a count"));
        text += rest;
    }
    text
}

/// Everything that was read from `text`, then everything that is said about it.
fn show(text: &str, line: &CommandLine) -> String {
    let mut out = String::new();
    for area in &line.reserve_mem {
        let _ = writeln!(
            out,
            "area {:?} size {} align {}",
            area.label, area.size, area.align
        );
    }
    for Memmap {
        size,
        address,
        kind,
        ..
    } in &line.memmap
    {
        let _ = writeln!(out, "range {address:#x} size {size} {kind:?}");
    }
    line.instances
        .iter()
        .for_each(|instance| show_instance(&mut out, instance));
    if let Some(clock) = line.trace_clock {
        let _ = writeln!(out, "clock {}", clock.name());
    }
    if let Some(size) = line.trace_buf_size {
        let _ = writeln!(out, "buffer size {size}");
    }
    for TraceOption { name, is_on, .. } in &line.trace_options {
        let _ = writeln!(out, "option {name} {is_on}");
    }
    if !line.ignored.is_empty() {
        let names: Vec<_> = line.ignored.iter().map(|p| p.name.as_str()).collect();
        let _ = writeln!(out, "ignored {}", names.join(" "));
    }
    let verdict = if line.is_clean_for_strict() {
        "accepts"
    } else {
        "refuses"
    };
    let _ = writeln!(out, "--strict {verdict}");
    line.diagnostics
        .iter()
        .for_each(|diagnostic| show_diagnostic(&mut out, text, diagnostic));
    out.trim_end().replace('\t', "\\t").replace('\u{1b}', "\\e")
}

fn show_instance(out: &mut String, instance: &Instance) {
    let kind = match &instance.kind {
        InstanceKind::Ordinary => "ordinary".into(),
        InstanceKind::Persistent {
            area: AreaRef::Label(label),
        } => format!("in {label:?}"),
        InstanceKind::Persistent {
            area: AreaRef::Address { start, size },
        } => {
            format!("at {start:#x} size {size}")
        }
        InstanceKind::Backup { source } => format!("backup of {source:?}"),
        other => format!("{other:?}"),
    };
    let _ = write!(out, "instance {:?} {kind}", instance.name);
    if instance.flags.is_traceoff {
        out.push_str(" traceoff");
    }
    for event in &instance.events {
        let _ = write!(out, " +{event}");
    }
    out.push('\n');
}

fn show_diagnostic(out: &mut String, text: &str, d: &Diagnostic) {
    let severity = match d.severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
        Severity::Note => "note",
    };
    let _ = writeln!(out, "{severity}: {}", d.message);
    show_place(out, text, &d.span, '^', d.expected.as_deref().unwrap_or(""));
    if let Some(related) = &d.related {
        show_place(out, text, &related.span, '-', &related.label);
    }
    if let Some(suggestion) = &d.suggestion {
        let old = &text[suggestion.span.clone()];
        let _ = writeln!(out, "  instead of `{old}`: `{}`", suggestion.text);
    }
    let remarks = [
        ("now", &d.consequence),
        ("help", &d.help),
        ("Linux", &d.kernel_message),
    ];
    for (word, remark) in remarks {
        if let Some(remark) = remark {
            let _ = writeln!(out, "  {word}: {remark}");
        }
    }
}

/// The line that `span` begins on, and a mark below the span.
fn show_place(out: &mut String, text: &str, span: &Range<usize>, mark: char, label: &str) {
    const SHOWN_MAX: usize = 200;
    let start = text[..span.start].rfind('\n').map_or(0, |at| at + 1);
    let end = text[span.start..]
        .find('\n')
        .map_or(text.len(), |at| span.start + at);
    if end - start > SHOWN_MAX {
        let _ = writeln!(out, "  {mark} bytes {} to {} {label}", span.start, span.end);
        return;
    }
    // TAB and ESC are shown with two characters.
    let columns = |range: Range<usize>| -> usize {
        text[range]
            .chars()
            .map(|c| if matches!(c, '\t' | '\u{1b}') { 2 } else { 1 })
            .sum()
    };
    let blanks = " ".repeat(columns(start..span.start));
    let marks = mark
        .to_string()
        .repeat(columns(span.start..span.end.min(end)).max(1));
    let _ = writeln!(out, "  | {}", &text[start..end]);
    let _ = writeln!(out, "{}", format!("  | {blanks}{marks} {label}").trim_end());
}

#[test]
fn every_line_of_the_table_is_read_as_the_table_says() {
    let cases = cases();
    let shown: Vec<_> = cases
        .iter()
        .map(|case| show(&case.text(), &case.read()))
        .collect();
    if std::env::var_os("OUTLIVE_UPDATE").is_some() {
        let blocks = cases.iter().zip(&shown);
        let table: String = blocks
            .map(|(case, shown)| format!("=== {}\n{}\n---\n{shown}\n\n", case.name, case.line))
            .collect();
        std::fs::write(table_path(), table.trim_end().to_owned() + "\n").expect("written");
        return;
    }
    for (case, shown) in cases.iter().zip(&shown) {
        assert_eq!(*shown, case.expected, "case {:?}", case.name);
    }
}

#[test]
fn table_begins_with_the_seed_line_and_has_at_least_sixty_cases() {
    let cases = cases();
    assert!(cases[0].line.ends_with("trace_instance=backup=boot_mapped"));
    assert!(cases.len() >= 60, "{}", cases.len());
}

/// A suggestion that leads to the same mistake again would be worse than none.
#[test]
fn every_suggestion_of_the_table_mends_its_mistake() {
    for case in cases() {
        let (text, line) = (case.text(), case.read());
        for d in &line.diagnostics {
            let Some(suggestion) = &d.suggestion else {
                continue;
            };
            let mut mended = text.clone();
            mended.replace_range(suggestion.span.clone(), &suggestion.text);
            let again = read(&mended, case.is_file());
            let count = |line: &CommandLine| {
                line.diagnostics
                    .iter()
                    .filter(|other| other.message == d.message)
                    .count()
            };
            assert!(
                count(&again) < count(&line),
                "case {:?}: {mended}",
                case.name
            );
        }
    }
}

/// Everything that must hold whatever the text is.
fn check_any(text: &str, line: &CommandLine) {
    for d in line.diagnostics.iter().chain(&line.ignored_notes()) {
        check_span(text, &d.span);
        d.related
            .iter()
            .for_each(|related| check_span(text, &related.span));
        d.suggestion
            .iter()
            .for_each(|suggestion| check_span(text, &suggestion.span));
        assert!(!d.message.is_empty());
        assert!(
            !d.is_refused_by_strict() || d.consequence.is_some() || d.help.is_some(),
            "{d:?}"
        );
    }
    for area in &line.reserve_mem {
        assert_eq!(text[area.label_span.clone()], area.label);
        assert!(area.size > 0 && area.align >= 64);
    }
    for instance in &line.instances {
        assert_eq!(text[instance.name_span.clone()], instance.name);
        check_span(text, &instance.span);
        for event in &instance.events {
            assert_eq!(&text[event.span()], event.as_str());
        }
    }
    assert_eq!(line.creation_order().len(), line.instances.len());
    let tokens: Vec<_> = line
        .instances
        .iter()
        .flat_map(|i| i.events.clone())
        .collect();
    for d in resolve(
        &tokens,
        &[("sched", "sched_switch"), ("irq", "softirq_entry")],
    )
    .1
    {
        check_span(text, &d.span);
        d.suggestion
            .iter()
            .for_each(|suggestion| check_span(text, &suggestion.span));
    }
}

fn check_span(text: &str, span: &Range<usize>) {
    assert!(text.get(span.clone()).is_some(), "{span:?} in {text:?}");
}

/// Text made of what the grammar is made of, in any order.
fn pieces() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        4 => prop::sample::select(vec![
            "reserve_mem=", "memmap=", "trace_instance=", "trace_clock=", "trace_buf_size=",
            "trace_options=", "trace_instnace=", "1M", "4096", "0x1000", "trace", "boot", "sched",
            "traceoff", "local", "raw", "no", ":mod:", "--", "99999999999999999999", "18E", "12Mé",
        ]),
        3 => prop::sample::select(vec![
            "^", "@", "=", ",", ":", "$", "!", "*", "?", "[", "]", "#", "\"", "\t", "\n", "/", ".",
        ]),
        2 => Just(" "),
    ];
    prop::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn any_text_is_read_without_panic_and_every_span_lies_in_it(text in any::<String>()) {
        check_any(&text, &CommandLine::parse(&text));
        check_any(&text, &CommandLine::parse_file(&text));
    }

    #[test]
    fn any_mix_of_the_grammar_is_read_without_panic(text in pieces()) {
        check_any(&text, &CommandLine::parse(&text));
        check_any(&text, &CommandLine::parse_file(&text));
    }

    #[test]
    fn valid_line_comes_back_as_it_was_meant(plan in plan()) {
        let line = CommandLine::parse(&plan.text());
        prop_assert!(line.is_clean_for_strict(), "{}: {:?}", plan.text(), line.diagnostics);
        plan.check(&line);
    }
}

/// What a valid line is made from.
#[derive(Clone, Debug)]
struct Plan {
    /// Size and alignment, both in pages.
    areas: Vec<(u64, u64)>,
    /// Flags and events of the instance in each area.
    instances: Vec<(bool, Vec<&'static str>)>,
    /// Whether the area stands before the flags.
    is_area_first: bool,
    /// Whether the backups stand before their sources.
    are_backups_first: bool,
    kept: Vec<(u64, MemmapKind)>,
}

fn plan() -> impl Strategy<Value = Plan> {
    let events = prop::sample::subsequence(
        vec![
            "sched",
            "irq:*",
            "timer:timer_start",
            "*:sys_enter",
            "sched_*",
            "kvm:mod:kvm",
        ],
        0..4,
    );
    let kinds = prop::sample::select(vec![MemmapKind::Reserved, MemmapKind::Protected]);
    (
        prop::collection::vec((1u64..1 << 20, 0u64..100), 1..8),
        prop::collection::vec((any::<bool>(), events), 8),
        any::<bool>(),
        any::<bool>(),
        prop::collection::vec((1u64..1 << 20, kinds), 0..3),
    )
        .prop_map(
            |(areas, instances, is_area_first, are_backups_first, kept)| Plan {
                areas,
                instances,
                is_area_first,
                are_backups_first,
                kept,
            },
        )
}

impl Plan {
    fn text(&self) -> String {
        let mut parameters = Vec::new();
        for (i, (size, align)) in self.areas.iter().enumerate() {
            let backup = format!("trace_instance=b{i}=i{i}");
            let (size, align) = (size * 4, align * 4096);
            parameters.push(format!("reserve_mem={size}K:{align:#x}:l{i}"));
            if self.are_backups_first {
                parameters.extend([backup, self.instance_text(i)]);
            } else {
                parameters.extend([self.instance_text(i), backup]);
            }
        }
        for (i, (size, kind)) in self.kept.iter().enumerate() {
            let mark = if *kind == MemmapKind::Reserved {
                '$'
            } else {
                '!'
            };
            let start = (i + 1) << 40;
            parameters.push(format!("memmap={size}k{mark}{start:#x}"));
        }
        parameters.join(" ")
    }

    fn instance_text(&self, i: usize) -> String {
        let (is_traceoff, events) = &self.instances[i];
        let traceoff = if *is_traceoff { "^traceoff" } else { "" };
        let events: String = events.iter().map(|event| format!(",{event}")).collect();
        if self.is_area_first {
            format!("trace_instance=i{i}@l{i}{traceoff}{events}")
        } else {
            format!("trace_instance=i{i}{traceoff}@l{i}{events}")
        }
    }

    fn check(&self, line: &CommandLine) {
        let areas: Vec<_> = line
            .reserve_mem
            .iter()
            .map(|area| (area.size, area.align.max(64)))
            .collect();
        let meant = self
            .areas
            .iter()
            .map(|(size, align)| (size << 12, (align << 12).max(64)));
        assert_eq!(areas, meant.collect::<Vec<_>>());
        let kept: Vec<_> = line
            .memmap
            .iter()
            .map(|range| (range.size, range.kind))
            .collect();
        let meant: Vec<_> = self
            .kept
            .iter()
            .map(|(size, kind)| (size << 10, *kind))
            .collect();
        assert_eq!(kept, meant);
        let find = |name: String| line.instances.iter().find(|instance| instance.name == name);
        for (i, (is_traceoff, events)) in self.instances.iter().enumerate().take(self.areas.len()) {
            let instance = find(format!("i{i}")).expect("the instance");
            let area = AreaRef::Label(format!("l{i}"));
            assert_eq!(instance.kind, InstanceKind::Persistent { area });
            assert_eq!(instance.flags.is_traceoff, *is_traceoff);
            let read: Vec<_> = instance.events.iter().map(|event| event.as_str()).collect();
            assert_eq!(read, *events);
            let backup = find(format!("b{i}")).expect("the backup");
            assert_eq!(
                backup.kind,
                InstanceKind::Backup {
                    source: format!("i{i}")
                }
            );
        }
        let order = line.creation_order();
        let place = |name: String| order.iter().position(|instance| instance.name == name);
        assert!((0..self.areas.len()).all(|i| place(format!("i{i}")) < place(format!("b{i}"))));
    }
}

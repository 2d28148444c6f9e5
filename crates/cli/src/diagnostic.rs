//! Shows what is wrong with a command line: the place, what was expected, what happens now.
//!
//! The look is rustc's. A line of a kernel's command line may have thousands of characters, and
//! only the few around the mark matter: what does not fit is left out at both ends, two places that
//! are far apart are shown one below the other, and a correction is told in words instead of
//! showing the line again.

use std::ops::Range;

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};
use outlive_trace::cmdline::{Diagnostic, Related, Severity, Suggestion};

/// How many columns a shown line takes at most.
const WIDTH: usize = 100;
/// Places on one line that are further apart than this, in bytes, are not shown together.
const TOGETHER_MAX: usize = 60;

/// The diagnostics as plain text, one after the other, with an empty line behind each. Nothing but
/// ASCII is added to what comes from `text`.
///
/// `text` is what the spans of the diagnostics refer to; `origin` says where it comes from: the
/// name of a file, or `command line`.
pub(crate) fn render(origin: &str, text: &str, diagnostics: &[Diagnostic]) -> String {
    render_with(&Renderer::plain(), origin, text, diagnostics)
}

/// [`render`] with colours, for a terminal that has them.
pub(crate) fn render_coloured(origin: &str, text: &str, diagnostics: &[Diagnostic]) -> String {
    render_with(&Renderer::styled(), origin, text, diagnostics)
}

fn render_with(
    renderer: &Renderer,
    origin: &str,
    text: &str,
    diagnostics: &[Diagnostic],
) -> String {
    let renderer = renderer.clone().term_width(WIDTH);
    let text = without_c1(text);
    let render_one = |diagnostic| renderer.render(&[group(origin, &text, diagnostic)]) + "\n\n";
    diagnostics.iter().map(render_one).collect()
}

/// One diagnostic as the renderer takes it.
fn group<'a>(origin: &'a str, text: &'a str, diagnostic: &'a Diagnostic) -> Group<'a> {
    let label = diagnostic.expected.as_deref();
    let mark = AnnotationKind::Primary
        .span(diagnostic.span.clone())
        .label(label);
    let mut snippet = Snippet::source(text).path(origin).annotation(mark);
    let mut far = None;
    if let Some(Related { span, label }) = &diagnostic.related {
        let mark = AnnotationKind::Context.span(span.clone()).label(label);
        if is_shown_together(text, span, &diagnostic.span) {
            snippet = snippet.annotation(mark);
        } else {
            far = Some(Snippet::source(text).path(origin).annotation(mark));
        }
    }
    let group = level(diagnostic.severity)
        .primary_title(&diagnostic.message)
        .element(snippet);
    remarks(group.elements(far), diagnostic)
}

/// Whether both places fit into what is shown of one line, or are on different ones.
fn is_shown_together(text: &str, a: &Range<usize>, b: &Range<usize>) -> bool {
    let (start, end) = (a.start.min(b.start), a.end.max(b.end));
    end - start <= TOGETHER_MAX || text[start..end].contains('\n')
}

/// What is said below the marked place.
fn remarks<'a>(group: Group<'a>, diagnostic: &'a Diagnostic) -> Group<'a> {
    let correction = diagnostic.suggestion.as_ref().map(correction);
    let remarks = [
        (Level::NOTE, diagnostic.consequence.as_deref()),
        (Level::HELP, correction.as_deref()),
        (Level::HELP, diagnostic.help.as_deref()),
        (
            Level::NOTE.with_name("Linux says"),
            diagnostic.kernel_message.as_deref(),
        ),
    ];
    let remarks = remarks
        .into_iter()
        .filter_map(|(level, text)| Some((level, text?)));
    group.elements(remarks.map(|(level, text)| level.message(visible(text))))
}

/// `text` with the control characters from U+0080 to U+009F replaced, which some terminals obey and
/// the renderer lets through. The dot has two bytes as they have, so that every span stays right.
fn without_c1(text: &str) -> String {
    text.replace(|c| ('\u{80}'..='\u{9f}').contains(&c), "·")
}

/// `text` with control characters spelled out: a command line, and a region, may be anybody's.
pub(crate) fn visible(text: &str) -> String {
    text.chars().fold(String::new(), |mut out, c| {
        if c.is_control() {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
        out
    })
}

/// As [`visible`], of the text from `start` on: all control characters but those `kept`, and bytes that
/// are no UTF-8, which terminals without it may obey.
pub(crate) fn escape_from(text: &mut Vec<u8>, start: usize, kept: &[char]) {
    // Most texts have nothing of that, and are many.
    if text[start..].iter().all(|byte| matches!(byte, b' '..=b'~')) {
        return;
    }
    for chunk in text.split_off(start).utf8_chunks() {
        for c in chunk.valid().chars() {
            match c.is_control() && !kept.contains(&c) {
                true => text.extend(c.escape_default().to_string().into_bytes()),
                false => text.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
        text.extend(chunk.invalid().escape_ascii());
    }
}

/// A correction in words.
fn correction(suggestion: &Suggestion) -> String {
    match (suggestion.span.is_empty(), suggestion.text.as_str()) {
        (true, text) => format!("insert `{text}` here"),
        (false, "") => "leave this out".into(),
        (false, text) => format!("did you mean `{text}`?"),
    }
}

/// The renderer's word for a severity.
fn level(severity: Severity) -> Level<'static> {
    match severity {
        Severity::Error => Level::ERROR,
        Severity::Warning => Level::WARNING,
        Severity::Note => Level::NOTE,
    }
}

#[cfg(test)]
mod tests {
    use outlive_trace::cmdline::CommandLine;

    use super::*;

    fn shown(text: &str) -> String {
        render("command line", text, &CommandLine::parse(text).diagnostics)
    }

    #[test]
    fn seed_line_gets_one_note_about_its_empty_flag() {
        let text = "reserve_mem=100M:12M:trace trace_instance=boot_mapped^@trace,sched \
                    trace_instance=backup=boot_mapped";
        assert_eq!(
            shown(text),
            "\
note: empty flag for `boot_mapped`
 --> command line:1:54
  |
1 | reserve_mem=100M:12M:trace trace_instance=boot_mapped^@trace,sched trace_instance=backup=boot...
  |                                                      ^ expected `traceoff`
  |
  = note: this flag is ignored
  = Linux says: Tracing: Invalid instance flag '' for boot_mapped

"
        );
    }

    #[test]
    fn nearest_word_is_offered_and_the_consequence_told() {
        let text = "reserve_mem=12M:4096:trace trace_instance=a@trac,sched";
        assert_eq!(
            shown(text),
            "\
error: no area is called `trac`
 --> command line:1:45
  |
1 | reserve_mem=12M:4096:trace trace_instance=a@trac,sched
  |                                             ^^^^ expected the label of a `reserve_mem=`, or `ADDRESS:SIZE`
  |
  = note: this instance is skipped
  = help: did you mean `trace`?
  = Linux says: Failed to map boot instance a to trac

"
        );
    }

    #[test]
    fn places_in_a_file_have_their_line_and_far_ones_are_both_shown() {
        let text = "# areas\nreserve_mem=12M:4096:trace\n\nreserve_mem=1M:4096:trace\n";
        let diagnostics = CommandLine::parse_file(text).diagnostics;
        assert_eq!(
            render("/etc/outlive/cmdline", text, &diagnostics),
            "\
error: the label `trace` was already used
 --> /etc/outlive/cmdline:4:21
  |
2 | reserve_mem=12M:4096:trace
  |                      ----- here
3 |
4 | reserve_mem=1M:4096:trace
  |                     ^^^^^
  |
  = note: this area is not reserved
  = Linux says: name \"trace\" was already used

"
        );
    }

    #[test]
    fn long_lines_are_cut_to_what_is_around_the_marks() {
        let filler = " foo=bar".repeat(300);
        let text = format!(
            "reserve_mem=1M:2M:x{filler} trace_instance=a@x trace_instance=b@y{filler} \
             reserve_mem=1M:2M:x trace_instance={}{filler}",
            "n".repeat(300)
        );
        let shown = shown(&text);
        assert!(shown.contains("the label `x` was already used"));
        assert!(shown.contains("no area is called `y`"));
        assert!(shown.contains("the name has 300 bytes"));
        let longest = shown.lines().map(|line| line.chars().count()).max();
        assert!(longest < Some(2 * WIDTH), "{shown}");
    }

    #[test]
    fn control_characters_of_the_line_do_not_reach_the_terminal() {
        let text = "reserve_mem=1M:2M:\u{1b}[2J trace_instance=\"a^\u{1b}[31m\u{7}@\u{1b}[0m\" \
                    trace_clock=\u{9b}31m trace_instance=b=c\u{1b}c \u{1b}=1 trace_options=\u{1b}";
        let shown = shown(text);
        assert!(shown.len() > text.len());
        assert!(
            !shown.contains(|c: char| c.is_control() && c != '\n'),
            "{shown:?}"
        );
    }

    #[test]
    fn colours_come_only_when_asked_for() {
        let text = "trace_clock=lokal";
        let diagnostics = CommandLine::parse(text).diagnostics;
        assert!(!render("x", text, &diagnostics).contains('\u{1b}'));
        assert!(render_coloured("x", text, &diagnostics).contains('\u{1b}'));
    }

    #[test]
    fn no_diagnostics_are_no_text() {
        assert_eq!(shown("root=/dev/vda1"), "");
    }

    /// `docs/command-line.md` shows what is really shown.
    #[test]
    fn every_example_of_the_document_is_what_is_shown() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/command-line.md");
        let document = std::fs::read_to_string(path).expect("the document is there");
        let examples: Vec<_> = document.split("```console\n").skip(1).collect();
        assert!(examples.len() >= 5);
        for example in examples {
            let (example, _) = example.split_once("\n```").expect("a block has its end");
            let (command, expected) = example.split_once('\n').expect("a command, then text");
            let line = command
                .strip_prefix("$ outlive boot '")
                .and_then(|c| c.strip_suffix('\''));
            assert_eq!(shown(line.expect("one argument")).trim_end(), expected);
        }
    }
}

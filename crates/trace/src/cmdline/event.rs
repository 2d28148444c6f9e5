//! Event tokens: which events an instance starts with.
//!
//! The kernel's tokens (`__ftrace_set_clr_event`, `kernel/trace/trace_events.c`, Linux 7.3) name a
//! system, an event, or both, with `*` or nothing for "all". Here each name may also be a pattern
//! with `*`, `?` and `[...]`, which the kernel does not match.

use std::collections::HashSet;
use std::ops::Range;

use super::diagnostic::Diagnostic;
use super::glob::glob_match;
use super::nearest::nearest;
use super::piece::Piece;

/// What limits a token to the events of a module.
const MODULE_MARK: &str = ":mod:";

/// One side of a token.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum NamePattern {
    /// Every name: `*` or nothing.
    Any,
    /// This name.
    Exact(String),
    /// Every name that matches: `*` any text, `?` one character, `[a-z]` and `[!a-z]` a set.
    Glob(String),
}

impl NamePattern {
    /// The pattern that `text` stands for.
    #[must_use]
    pub fn new(text: &str) -> Self {
        match text {
            "" | "*" => Self::Any,
            _ if text.contains(['*', '?', '[']) => Self::Glob(text.into()),
            _ => Self::Exact(text.into()),
        }
    }

    /// Whether `name` is meant.
    #[must_use]
    pub fn matches(&self, name: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Exact(text) => text == name,
            Self::Glob(pattern) => glob_match(pattern, name),
        }
    }

    /// The name, if it is one.
    fn exact(&self) -> Option<&str> {
        match self {
            Self::Exact(text) => Some(text),
            _ => None,
        }
    }
}

/// The two kinds of token.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Selector {
    /// `word`: an event or a system of that name.
    Word(NamePattern),
    /// `system:event`.
    Pair {
        system: NamePattern,
        event: NamePattern,
    },
}

/// One event token, such as `sched`, `sched:sched_switch`, `irq:*` or `sched_*`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct EventToken {
    text: String,
    span: Range<usize>,
    selector: Selector,
    module: Option<String>,
}

impl EventToken {
    /// Reads a token that stands alone; `text` must not be empty.
    ///
    /// # Errors
    ///
    /// An empty token, more than one `:`, a `!`, or a character that no event name has.
    ///
    /// # Examples
    ///
    /// ```
    /// use outlive_trace::cmdline::EventToken;
    ///
    /// let token = EventToken::new("sched:*_wakeup")?;
    /// assert!(token.matches("sched", "sched_wakeup"));
    /// assert!(!token.matches("sched", "sched_wakeup_new"));
    /// # Ok::<(), Box<outlive_trace::cmdline::Diagnostic>>(())
    /// ```
    pub fn new(text: &str) -> Result<Self, Box<Diagnostic>> {
        Self::read(Piece::new(text, 0))
    }

    /// Reads one token.
    pub(super) fn read(piece: Piece<'_>) -> Result<Self, Box<Diagnostic>> {
        let (names, module) = cut_module(piece);
        let selector = read_selector(names, piece.text)
            .and_then(|selector| check_module(module).map(|()| selector))
            .map_err(|d| Box::new(d.kernel(kernel_message(piece.text))))?;
        Ok(Self {
            text: piece.text.into(),
            span: piece.span(),
            selector,
            module: module.map(|module| module.text.into()),
        })
    }

    /// The token as written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Where the token stands in the command line; from 0 for a token that stands alone.
    #[must_use]
    pub fn span(&self) -> Range<usize> {
        self.span.clone()
    }

    /// The module that the token is limited to: `TOKEN:mod:MODULE`.
    #[must_use]
    pub fn module(&self) -> Option<&str> {
        self.module.as_deref()
    }

    /// Whether the kernel, which matches no patterns, would find nothing by this token.
    #[must_use]
    pub fn is_pattern(&self) -> bool {
        let is_glob = |name: &NamePattern| matches!(name, NamePattern::Glob(_));
        match &self.selector {
            Selector::Word(word) => is_glob(word) || *word == NamePattern::Any,
            Selector::Pair { system, event } => is_glob(system) || is_glob(event),
        }
    }

    /// Whether the token means the event `event` of `system`, its module aside.
    #[must_use]
    pub fn matches(&self, system: &str, event: &str) -> bool {
        match &self.selector {
            Selector::Word(word) => word.matches(system) || word.matches(event),
            Selector::Pair {
                system: s,
                event: e,
            } => s.matches(system) && e.matches(event),
        }
    }

    /// The place of the system and of the event of a pair.
    fn pair_spans(&self) -> (Range<usize>, Range<usize>) {
        let (names, _) = cut_module(Piece::new(&self.text, self.span.start));
        let (system, event) = names.cut(':');
        (
            system.visible_span(),
            event.unwrap_or(names.end()).visible_span(),
        )
    }
}

impl std::fmt::Display for EventToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}

/// What Linux 7.3 prints for a token that starts nothing.
fn kernel_message(token: &str) -> String {
    format!("Failed to enable trace event: {token}")
}

/// Cuts a token into its names and the module behind `:mod:`.
fn cut_module(piece: Piece<'_>) -> (Piece<'_>, Option<Piece<'_>>) {
    match piece.text.find(MODULE_MARK) {
        Some(at) => (piece.take(at), Some(piece.skip(at + MODULE_MARK.len()))),
        None => (piece, None),
    }
}

/// Reads the names of a token, `token` being all of it.
fn read_selector(names: Piece<'_>, token: &str) -> Result<Selector, Diagnostic> {
    if token.is_empty() {
        return Err(Diagnostic::error(
            names.visible_span(),
            "the event name is empty",
        ));
    }
    if names.text.starts_with('!') {
        let place = names.take(1).span();
        return Err(
            Diagnostic::error(place.clone(), "`!` stops events, and none is started yet")
                .help("leave the event out, or name the others with a pattern such as `[!x]*`")
                .expected("expected a system or an event"),
        );
    }
    check_characters(names)?;
    let (system, event) = names.cut(':');
    let Some(event) = event else {
        return Ok(Selector::Word(NamePattern::new(names.text)));
    };
    if let (_, Some(more)) = event.cut(':') {
        let place = more.start - 1..names.span().end;
        return Err(Diagnostic::error(place, "an event has one `:` only")
            .expected("expected `,` or the end")
            .help("write `SYSTEM:EVENT`, and `,` between events"));
    }
    let (system, event) = (NamePattern::new(system.text), NamePattern::new(event.text));
    Ok(Selector::Pair { system, event })
}

/// Refuses characters that neither a name nor a pattern has.
fn check_characters(names: Piece<'_>) -> Result<(), Diagnostic> {
    let is_ours = |c: char| c.is_ascii_alphanumeric() || "_-.:*?[]!".contains(c);
    let Some((at, c)) = names.text.char_indices().find(|(_, c)| !is_ours(*c)) else {
        return Ok(());
    };
    let place = names.skip(at).take(c.len_utf8()).span();
    let shown = c.escape_debug();
    let diagnostic = Diagnostic::error(place, format!("no event has a `{shown}` in its name"));
    Err(match c {
        '^' | '@' | '=' => diagnostic
            .help("flags, area and source stand before the first comma: `NAME^FLAG@AREA,EVENTS`"),
        _ => diagnostic,
    })
}

/// Refuses `:mod:` without a module.
fn check_module(module: Option<Piece<'_>>) -> Result<(), Diagnostic> {
    match module {
        Some(module) if module.text.is_empty() => Err(Diagnostic::error(
            module.visible_span(),
            "the module's name is empty",
        )
        .expected("expected the name of a module")),
        _ => Ok(()),
    }
}

/// Reads a list of tokens separated by commas. Empty ones are skipped with a note.
pub(super) fn read_list(list: Piece<'_>, out: &mut Vec<Diagnostic>) -> Vec<EventToken> {
    let mut tokens = Vec::new();
    for piece in list.split(',') {
        if piece.text.is_empty() {
            let place = piece.visible_span();
            out.push(
                Diagnostic::note(place, "no event between the commas").expected("nothing here"),
            );
            continue;
        }
        match EventToken::read(piece) {
            Ok(token) => tokens.push(token),
            Err(diagnostic) => out.push(diagnostic.consequence("this event is not started")),
        }
    }
    tokens
}

/// The events of `available` (pairs of system and event) that any of `tokens` means, each once and
/// in the order of `available`; and a diagnostic for every token that means none of them, with the
/// nearest name.
///
/// Which module an event belongs to is known to the kernel only: a token that is limited to a
/// module chooses nothing here, and a diagnostic says so. Its text is what `set_event` takes.
#[must_use]
pub fn resolve<'a, S: AsRef<str>>(
    tokens: &[EventToken],
    available: &'a [(S, S)],
) -> (Vec<(&'a str, &'a str)>, Vec<Diagnostic>) {
    let mut is_used = vec![false; tokens.len()];
    let mut seen = HashSet::new();
    let mut events = Vec::new();
    for (system, event) in available.iter().map(|(s, e)| (s.as_ref(), e.as_ref())) {
        let mut is_meant = false;
        for (token, is_used) in tokens.iter().zip(&mut is_used) {
            if token.module.is_none() && token.matches(system, event) {
                (is_meant, *is_used) = (true, true);
            }
        }
        if is_meant && seen.insert((system, event)) {
            events.push((system, event));
        }
    }
    let unused = tokens.iter().zip(is_used).filter(|(_, is_used)| !is_used);
    let diagnostics = unused
        .map(|(token, _)| unresolved(token, available))
        .collect();
    (events, diagnostics)
}

/// Says why `token` chose nothing.
fn unresolved<S: AsRef<str>>(token: &EventToken, available: &[(S, S)]) -> Diagnostic {
    if let Some(module) = &token.module {
        let message = format!("which events belong to the module `{module}` is not known");
        return Diagnostic::warning(token.span(), message)
            .help("name the events or their system, without `:mod:`")
            .consequence("this event is not started");
    }
    let names: Vec<_> = available
        .iter()
        .map(|(s, e)| (s.as_ref(), e.as_ref()))
        .collect();
    let diagnostic = match &token.selector {
        Selector::Word(NamePattern::Exact(word)) => unknown_word(token, word, &names),
        Selector::Pair { system, event } => unknown_pair(token, (system, event), &names),
        Selector::Word(_) => no_match(token),
    };
    diagnostic
        .consequence("this event is not started")
        .kernel(kernel_message(&token.text))
}

/// A pattern that nothing matches.
fn no_match(token: &EventToken) -> Diagnostic {
    Diagnostic::error(token.span(), format!("no event matches `{token}`"))
}

/// A word that is neither an event nor a system.
fn unknown_word(token: &EventToken, word: &str, names: &[(&str, &str)]) -> Diagnostic {
    let message = format!("no event and no system is called `{word}`");
    let diagnostic = Diagnostic::error(token.span(), message);
    let words = names.iter().flat_map(|(system, event)| [*system, *event]);
    match nearest(word, words) {
        Some(near) => diagnostic.nearest(Some(near)),
        None => with_containing(diagnostic, word, names),
    }
}

/// Names events that have `word` in them: `switch` finds `sched:sched_switch`.
fn with_containing(diagnostic: Diagnostic, word: &str, names: &[(&str, &str)]) -> Diagnostic {
    const SHOWN_MAX: usize = 3;
    let containing = names.iter().filter(|(_, event)| event.contains(word));
    let shown: Vec<_> = containing
        .take(SHOWN_MAX)
        .map(|(s, e)| format!("`{s}:{e}`"))
        .collect();
    if shown.is_empty() {
        return diagnostic;
    }
    diagnostic.help(format!(
        "events with that in their name: {}",
        shown.join(", ")
    ))
}

/// A pair that nothing matches: is it the system, the event, or both?
fn unknown_pair(
    token: &EventToken,
    (system, event): (&NamePattern, &NamePattern),
    names: &[(&str, &str)],
) -> Diagnostic {
    let (system_span, event_span) = token.pair_spans();
    if let Some(name) = system.exact()
        && !names.iter().any(|(s, _)| *s == name)
    {
        let near = system_of(event, names).or_else(|| nearest(name, names.iter().map(|(s, _)| *s)));
        return Diagnostic::error(system_span, format!("no system is called `{name}`"))
            .nearest(near);
    }
    let Some(name) = event.exact() else {
        return no_match(token);
    };
    if let Some(home) = system_of(event, names) {
        let message = format!("the event `{name}` is in the system `{home}`");
        return Diagnostic::error(system_span, message).nearest(Some(home));
    }
    let candidates = names
        .iter()
        .filter(|(s, _)| system.matches(s))
        .map(|(_, e)| *e);
    let diagnostic = match system.exact() {
        Some(s) => Diagnostic::error(event_span, format!("no event of `{s}` is called `{name}`")),
        None => Diagnostic::error(event_span, format!("no event is called `{name}`")),
    };
    match nearest(name, candidates) {
        Some(near) => diagnostic.nearest(Some(near)),
        None => with_containing(diagnostic, name, names),
    }
}

/// The first system that has exactly this event.
fn system_of<'a>(event: &NamePattern, names: &[(&'a str, &'a str)]) -> Option<&'a str> {
    let name = event.exact()?;
    names.iter().find(|(_, e)| *e == name).map(|(s, _)| *s)
}

#[cfg(test)]
mod tests {
    use super::*;

    const AVAILABLE: [(&str, &str); 8] = [
        ("sched", "sched_switch"),
        ("sched", "sched_waking"),
        ("sched", "sched_wakeup"),
        ("irq", "irq_handler_entry"),
        ("irq", "softirq_entry"),
        ("timer", "timer_start"),
        ("signal", "sched"),
        ("xdp", "timer_start"),
    ];

    fn chosen(tokens: &[&str]) -> Vec<String> {
        let tokens: Vec<_> = tokens.iter().map(|t| EventToken::new(t).unwrap()).collect();
        let (events, diagnostics) = resolve(&tokens, &AVAILABLE);
        assert_eq!(diagnostics, []);
        events.iter().map(|(s, e)| format!("{s}:{e}")).collect()
    }

    #[test]
    fn what_the_kernel_does_not_match_is_a_pattern() {
        let is_pattern = |text| EventToken::new(text).unwrap().is_pattern();
        for text in ["*", "sched_*", "sched:sched_wak*", "i?q:*"] {
            assert!(is_pattern(text), "{text}");
        }
        for text in ["sched", "sched:*", "sched:", "*:sched_switch", "*:*"] {
            assert!(!is_pattern(text), "{text}");
        }
    }

    fn problem(token: &str) -> Diagnostic {
        let token = EventToken::new(token).unwrap();
        let (events, mut diagnostics) = resolve(&[token], &AVAILABLE);
        assert_eq!(events, []);
        assert_eq!(diagnostics.len(), 1);
        diagnostics.remove(0)
    }

    #[test]
    fn word_means_a_system_or_events_of_that_name() {
        let sched = [
            "sched:sched_switch",
            "sched:sched_waking",
            "sched:sched_wakeup",
            "signal:sched",
        ];
        assert_eq!(chosen(&["sched"]), sched);
        assert_eq!(
            chosen(&["timer_start"]),
            ["timer:timer_start", "xdp:timer_start"]
        );
    }

    #[test]
    fn star_and_nothing_mean_all_on_their_side() {
        assert_eq!(
            chosen(&["irq:*"]),
            ["irq:irq_handler_entry", "irq:softirq_entry"]
        );
        assert_eq!(chosen(&["irq:"]), chosen(&["irq:*"]));
        assert_eq!(
            chosen(&["*:timer_start"]),
            ["timer:timer_start", "xdp:timer_start"]
        );
        assert_eq!(chosen(&[":timer_start"]), chosen(&["*:timer_start"]));
        for all in ["*:*", ":", "*", "*:", ":*"] {
            assert_eq!(chosen(&[all]).len(), AVAILABLE.len(), "{all}");
        }
    }

    #[test]
    fn globs_match_where_the_kernel_does_not() {
        let wake = ["sched:sched_waking", "sched:sched_wakeup"];
        assert_eq!(chosen(&["sched_wak*"]), wake);
        assert_eq!(chosen(&["s*d:sched_wak???"]), wake);
        assert_eq!(
            chosen(&["[i-s]*:*_entry"]),
            ["irq:irq_handler_entry", "irq:softirq_entry"]
        );
    }

    #[test]
    fn events_come_once_and_in_the_order_of_the_available_ones() {
        let both = chosen(&[
            "timer",
            "sched:sched_waking",
            "sched_*",
            "sched:sched_waking",
        ]);
        assert_eq!(
            both,
            [
                "sched:sched_switch",
                "sched:sched_waking",
                "sched:sched_wakeup",
                "timer:timer_start"
            ]
        );
    }

    #[test]
    fn unknown_names_get_the_nearest_one_in_their_place() {
        let suggestion = |token| problem(token).suggestion.map(|s| (s.span, s.text));
        assert_eq!(suggestion("shced"), Some((0..5, "sched".into())));
        assert_eq!(
            suggestion("sched:sched_swich"),
            Some((6..17, "sched_switch".into()))
        );
        assert_eq!(
            suggestion("shed:sched_switch"),
            Some((0..4, "sched".into()))
        );
        assert_eq!(suggestion("irq:sched_switch"), Some((0..3, "sched".into())));
        assert_eq!(
            suggestion("*:softirq_entri"),
            Some((2..15, "softirq_entry".into()))
        );
        assert_eq!(suggestion("nothing_like_it"), None);
    }

    #[test]
    fn part_of_a_name_finds_the_events_that_have_it() {
        let help = problem("handler").help;
        assert_eq!(
            help.unwrap(),
            "events with that in their name: `irq:irq_handler_entry`"
        );
    }

    #[test]
    fn pattern_that_matches_nothing_is_reported_whole() {
        assert_eq!(problem("y*").message, "no event matches `y*`");
        assert_eq!(problem("sched:x*").message, "no event matches `sched:x*`");
        assert_eq!(problem("nosys:*").message, "no system is called `nosys`");
    }

    #[test]
    fn module_is_kept_and_left_to_the_kernel() {
        for (text, module) in [
            ("kvm:*:mod:kvm", "kvm"),
            (":mod:xfs", "xfs"),
            ("a:mod:b:c", "b:c"),
        ] {
            let token = EventToken::new(text).unwrap();
            assert_eq!(token.module(), Some(module));
            assert_eq!(resolve(&[token], &AVAILABLE).0, []);
        }
        assert!(EventToken::new("kvm:mod:").is_err());
    }

    #[test]
    fn malformed_tokens_are_refused_where_they_go_wrong() {
        let span = |token| EventToken::new(token).unwrap_err().span;
        assert_eq!(span("sched:sched_switch:x"), 18..20);
        assert_eq!(span("!sched"), 0..1);
        assert_eq!(span("sched^traceoff"), 5..6);
        assert_eq!(span("scheé"), 4..6);
        assert_eq!(span(""), 0..0);
    }
}

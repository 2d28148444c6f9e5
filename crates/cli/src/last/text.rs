//! `last` as text: one screen.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::fmt::Display;
use std::io::Write;

use anyhow::Result;
use outlive_event::{EventFormat, Formatter, TextOptions};
use outlive_trace::Verdict;

use super::end::{End, Lost};
use super::kept::{Kept, Recent};
use super::others::{Other, Others};
use super::program;
use super::spans::{Parents, Span, shares};
use super::tasks::{Doing, Task};
use crate::info;
use crate::show::push_doubt;
use crate::units;

/// Columns of the names before the values.
const NAMES: usize = 11;
/// Lines of last events in all, as far as nobody asks for more.
const EVENT_LINES: usize = 24;
/// Spans and tasks of a kind that are shown.
const SHOWN: usize = 12;
/// Spans around a span that it is indented for.
const DEPTH: usize = 8;
/// Lines of a message that are shown.
const MESSAGE_LINES: usize = 8;

/// Writes the end of the run that is called `name`.
pub(super) fn write(
    out: &mut impl Write,
    name: &str,
    end: &End<'_>,
    others: &Others,
    wanted: Option<usize>,
) -> Result<()> {
    let text = Text { end };
    text.head(out, name)?;
    text.usage(out)?;
    text.losses(out)?;
    text.gaps(out)?;
    write_others(out, others)?;
    text.panic(out)?;
    text.messages(out)?;
    text.spans(out)?;
    text.tasks(out)?;
    text.last_events(out, wanted)
}

struct Text<'e, 'v> {
    end: &'e End<'v>,
}

impl Text<'_, '_> {
    fn head(&self, out: &mut impl Write, name: &str) -> Result<()> {
        let end = self.end;
        let ended = end.ended_ns.map_or(String::new(), |time| {
            let word = match end.verdict {
                Verdict::CleanExit => "",
                _ => "last sign of life ",
            };
            format!(", {word}{}", units::wall_clock_us(time))
        });
        writeln!(out, "{name}: {}{ended}", self.how())?;
        let view = end.view;
        match &view.run {
            Some(run) => {
                let program = format!("{} {}", run.program, run.version);
                let lasted = end
                    .ended_ns
                    .and_then(|time| time.checked_sub(run.started_realtime_ns));
                // Who was killed may have lived on behind its last sign of life.
                let at_least = match run.closed_realtime_ns {
                    0 => "at least ",
                    _ => "",
                };
                let after = lasted.map_or(String::new(), |ns| {
                    format!(", ran for {at_least}{}", units::span(ns))
                });
                line(
                    out,
                    "program",
                    format_args!(
                        "{}, {}{after}",
                        clean(program.trim_end()),
                        self.process(run.pid)
                    ),
                )?;
                let host = format!("{}, Linux {}", run.host, run.kernel);
                line(out, "host", clean(&host))?;
            }
            None => line(out, "program", info::without_run(view))?,
        }
        self.events(out)
    }

    fn events(&self, out: &mut impl Write) -> Result<()> {
        let end = self.end;
        let Some((first, _)) = end.view.span() else {
            let none = match end.lost == Lost::default() {
                true => "none: nothing was recorded",
                false => "none",
            };
            return line(out, "events", none);
        };
        let groups = units::count(end.groups.len(), end.group_word());
        let (first, last) = (self.time(first), self.time(end.last_time));
        let events = end.view.entries();
        line(
            out,
            "events",
            format_args!("{events} of {groups}, {first} to {last}"),
        )?;
        let Some(until) = end.recorded_until else {
            return Ok(());
        };
        line(
            out,
            "tail",
            format_args!(
                "the recorder's last event is of {}; the kernel's ring went on for {}",
                self.time(until),
                self.distance(end.before_end(until))
            ),
        )
    }

    /// How the run ended; where a supervisor wrote it, how its program did.
    fn how(&self) -> String {
        let end = self.end;
        if !end.is_of_supervisor() {
            return end.verdict.to_string();
        }
        let Some(exit) = &end.program_end else {
            return match end.verdict {
                Verdict::StillRunning => "the program runs".to_owned(),
                verdict => format!("{verdict} of the supervisor, before the program ended"),
            };
        };
        program::words(end.view, &exit.event())
    }

    /// The process that ran: that of a supervisor is its program's, as far as it tells.
    fn process(&self, own: i32) -> String {
        let exit = self.end.program_end.as_ref();
        let pid = exit.and_then(|exit| self.number(exit, "program_pid"));
        match pid {
            Some(pid) => format!("pid {pid} under supervisor {own}"),
            None if self.end.is_of_supervisor() => format!("under supervisor {own}"),
            None => format!("pid {own}"),
        }
    }

    /// What a program took that a supervisor ran.
    fn usage(&self, out: &mut impl Write) -> Result<()> {
        let Some(usage) = &self.end.program_usage else {
            return Ok(());
        };
        let number = |name| {
            let number = self.number(usage, name).unwrap_or(0);
            u64::try_from(number).unwrap_or(0)
        };
        let time = |name| units::span(number(name).saturating_mul(1000));
        line(
            out,
            "took",
            format_args!(
                "{} of user time, {} of system time, {} of memory at most",
                time("user_us"),
                time("system_us"),
                units::size(number("max_rss_kib").saturating_mul(1024))
            ),
        )
    }

    fn losses(&self, out: &mut impl Write) -> Result<()> {
        let Lost {
            overwritten,
            dropped,
            lost,
            unknown,
            catalog,
            rejected,
        } = self.end.lost;
        let losses: Vec<String> = [
            (lost, "before they were recorded"),
            (dropped, "dropped by the recorder"),
            (unknown, "times a number that nobody knows"),
            (catalog, "formats or names without room"),
            (rejected as u64, "damaged sub-buffers"),
            (overwritten, "older ones overwritten"),
        ]
        .iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, what)| format!("{count} {what}"))
        .collect();
        match losses.is_empty() {
            true => line(out, "lost", "nothing"),
            false => line(out, "lost", losses.join(", ")),
        }
    }

    /// Gaps: of the heartbeat, and between events.
    fn gaps(&self, out: &mut impl Write) -> Result<()> {
        let end = self.end;
        let beat = &end.view.heartbeat;
        let last_event = end.view.span();
        let last_event = last_event.and_then(|_| end.view.realtime_ns(end.last_time));
        if beat.realtime_ns > 0 {
            let distance = last_event.map_or(String::new(), |last| {
                match last.checked_sub(beat.realtime_ns) {
                    Some(before) => format!(", {} before the last event", units::span(before)),
                    None => format!(
                        ", {} after the last event",
                        units::span(beat.realtime_ns - last)
                    ),
                }
            });
            let delay = match beat.max_delay_ns {
                0 => String::new(),
                delay => format!(", at most {} apart", units::span(delay)),
            };
            line(
                out,
                "heartbeat",
                format_args!(
                    "{}{distance}; {} so far{delay}",
                    units::wall_clock_us(beat.realtime_ns),
                    beat.polls
                ),
            )?;
        }
        for gap in &end.gaps {
            let until = match gap.until_ns {
                Some(until_ns) => format!("until {}", units::wall_clock_us(until_ns)),
                None => "up to now".to_owned(),
            };
            let len = units::span(gap.len);
            line(
                out,
                "gap",
                format_args!("no sign of life for {len}, {until}"),
            )?;
        }
        for silence in &end.silences {
            line(
                out,
                "silence",
                format_args!(
                    "no event for {}, until {} before the last one",
                    units::span(silence.len()),
                    units::span(end.before_end(silence.until))
                ),
            )?;
        }
        match end.suspended_ns {
            0 => Ok(()),
            time => line(out, "suspended", format_args!("for {}", units::span(time))),
        }
    }

    fn panic(&self, out: &mut impl Write) -> Result<()> {
        let Some(panic) = &self.end.panic else {
            return Ok(());
        };
        let field = |name| self.field(panic, name).unwrap_or_default();
        writeln!(out, "\nlast panic")?;
        let when = match self.end.before_end(panic.time) {
            0 => "the last event".to_owned(),
            before => format!("{} before the last event", units::span(before)),
        };
        writeln!(
            out,
            "  {when}, thread {:?} ({}), {}:{}:{}",
            field("thread"),
            panic.pid(),
            clean(&field("file")),
            field("line"),
            field("column")
        )?;
        for text in field("message").lines().take(MESSAGE_LINES) {
            writeln!(out, "  {}", clean(text))?;
        }
        Ok(())
    }

    fn messages(&self, out: &mut impl Write) -> Result<()> {
        let messages = &self.end.messages;
        if messages.events == 0 {
            return Ok(());
        }
        let title = match self.end.is_of_supervisor() {
            true => "last lines of standard error",
            false => "last messages",
        };
        writeln!(out, "\n{title}")?;
        for message in &messages.last {
            let text = self.field(message, "msg");
            let text = text
                .or_else(|| self.field(message, "line"))
                .unwrap_or_default();
            writeln!(
                out,
                "  {} {}",
                self.time(message.time),
                clean(text.trim_end())
            )?;
        }
        Ok(())
    }

    /// Of the threads with the newest spans, the outermost and the newest ones.
    fn spans(&self, out: &mut impl Write) -> Result<()> {
        let spans = &self.end.spans;
        if spans.is_empty() {
            return Ok(());
        }
        writeln!(out, "\nopen spans")?;
        let parents = Parents::of(spans);
        let mut threads: BTreeMap<i32, Vec<&Span>> = BTreeMap::new();
        for span in spans {
            threads.entry(span.first.pid()).or_default().push(span);
        }
        let mut threads: Vec<_> = threads.into_iter().collect();
        let newest = |(_, spans): &(i32, Vec<&Span>)| spans.last().map(|span| span.first.time);
        threads.sort_by_key(|thread| Reverse(newest(thread)));
        let left_out = threads.split_off(threads.len().min(SHOWN));
        threads.sort_by_key(|(pid, _)| *pid);
        let counts: Vec<usize> = threads.iter().map(|(_, spans)| spans.len()).collect();
        for ((pid, spans), room) in threads.iter().zip(shares(&counts, SHOWN)) {
            writeln!(out, "  {}", self.thread(*pid))?;
            // The innermost is what the thread does, the outermost why.
            let outermost = room / 3;
            let newest = spans.len() - (room - outermost);
            for span in &spans[..outermost] {
                self.span(out, &parents, span)?;
            }
            if newest > outermost {
                writeln!(out, "    and {} more: --json has all", newest - outermost)?;
            }
            for span in &spans[newest..] {
                self.span(out, &parents, span)?;
            }
        }
        match left_out.iter().map(|(_, spans)| spans.len()).sum() {
            0 => Ok(()),
            more => {
                let of = units::count(left_out.len(), "thread");
                Ok(writeln!(out, "  and {more} more of {of}: --json has all")?)
            }
        }
    }

    fn span(&self, out: &mut impl Write, parents: &Parents, span: &Span) -> Result<()> {
        let indent = 4 + 2 * parents.depth(span, DEPTH);
        let doubt = match span.is_certain {
            true => "",
            false => "; its end may be lost",
        };
        let at_least = if span.has_begin { "" } else { "at least " };
        Ok(writeln!(
            out,
            "{:indent$}{}  (for {at_least}{}{doubt})",
            "",
            self.span_words(span),
            units::span(self.end.before_end(span.first.time)),
        )?)
    }

    /// What a span is; of one whose beginning is not there, its number.
    fn span_words(&self, span: &Span) -> String {
        let first = span.first.event();
        let id = outlive_event::event_id(first.payload);
        match id.and_then(|id| self.end.view.catalog.event(id)) {
            Some(format) if span.has_begin => {
                let fields = self.fields(format, first.payload);
                format!("{}:{}{fields}", format.system, format.name)
            }
            _ => {
                let why = match self.end.lost.overwritten {
                    0 => "not there",
                    _ => "overwritten",
                };
                format!("span {}: its beginning is {why}", span.id)
            }
        }
    }

    /// The fields of a span's beginning, but for its ids: the tree shows what they say. A text that
    /// has blanks is in quotes.
    fn fields(&self, format: &EventFormat, payload: &[u8]) -> String {
        let formatter = self.formatter();
        let Some(values) = formatter.named_values(payload) else {
            let mut whole = Vec::new();
            formatter.text(&mut whole, payload);
            let whole = String::from_utf8_lossy(&whole);
            return format!(" {}", clean(whole.trim_end_matches('\n')));
        };
        let mut fields = String::new();
        for (name, value) in values {
            let value = String::from_utf8_lossy(&value);
            if !matches!(name, "span_id" | "span_parent") {
                fields += &format!(" {name}={}", quoted(&value));
            }
        }
        if format.is_cut(payload) {
            fields += " [cut]";
        }
        fields
    }

    fn tasks(&self, out: &mut impl Write) -> Result<()> {
        let end = self.end;
        if end.tasks.is_empty() {
            return Ok(());
        }
        writeln!(out, "\nrunning")?;
        for (cpu, task) in end.on_cpu() {
            writeln!(out, "  CPU {cpu}  {}", self.task(&task))?;
        }
        let certain = end.certain_since;
        let blocked = end.tasks.that(certain, |doing| doing == Doing::Slept('D'));
        self.list(out, "blocked, uninterruptible", &blocked)?;
        let waiting = end.tasks.that(certain, |doing| doing == Doing::Waited);
        self.list(out, "waiting for a CPU", &waiting)
    }

    fn list(&self, out: &mut impl Write, title: &str, tasks: &[Task]) -> Result<()> {
        if tasks.is_empty() {
            return Ok(());
        }
        writeln!(out, "{title}")?;
        for task in tasks.iter().take(SHOWN) {
            writeln!(out, "  {}", self.task(task))?;
        }
        match tasks.len().saturating_sub(SHOWN) {
            0 => Ok(()),
            more => Ok(writeln!(out, "  and {more} more: --json has all")?),
        }
    }

    fn task(&self, task: &Task) -> String {
        let name = match task.pid {
            0 => "idle".to_owned(),
            pid => format!("{}-{pid}", clean(&task.comm)),
        };
        let doubt = match task.is_certain {
            true => "",
            false => "; a later event may be lost",
        };
        let time = self.distance(self.end.before_end(task.since));
        format!("{name}  (for {time}{doubt})")
    }

    /// The last events of those groups that have the newest ones.
    fn last_events(&self, out: &mut impl Write, wanted: Option<usize>) -> Result<()> {
        let mut groups: Vec<&Recent> = self.end.groups.values().collect();
        if groups.is_empty() || wanted == Some(0) {
            return Ok(());
        }
        groups.sort_by_key(|recent| recent.last_time());
        let room = match wanted {
            Some(_) => usize::MAX,
            None => EVENT_LINES,
        };
        let left_out = groups.len().saturating_sub(room);
        let groups = &groups[left_out..];
        let each = wanted.unwrap_or((EVENT_LINES / groups.len()).clamp(1, super::EVENTS));
        writeln!(out, "\nlast events of each {}", self.end.group_word())?;
        if left_out > 0 {
            let more = units::count(left_out, self.end.group_word());
            writeln!(out, "  {more} with older ones left out: --events 1 has all")?;
        }
        for recent in groups {
            let skipped = recent.last.len().saturating_sub(each);
            for kept in recent.last.iter().skip(skipped) {
                self.event(out, kept)?;
            }
        }
        Ok(())
    }

    fn event(&self, out: &mut impl Write, kept: &Kept) -> Result<()> {
        let event = kept.event();
        let mut text = Vec::new();
        self.formatter()
            .record(&mut text, event.cpu, event.text_time_stamp, event.payload);
        push_doubt(&self.end.view.catalog, &mut text, &event);
        let text = String::from_utf8_lossy(&text);
        Ok(writeln!(out, "{}", clean(text.trim_end_matches('\n')))?)
    }

    fn formatter(&self) -> Formatter<'_> {
        let view = self.end.view;
        Formatter::new(&view.catalog, TextOptions::for_clock(view.clock()))
    }

    fn thread(&self, pid: i32) -> String {
        let comm = self.end.view.catalog.tasks().comm(pid);
        let comm = comm.map_or_else(|| "<...>".into(), String::from_utf8_lossy);
        format!("{}-{pid}", clean(&comm))
    }

    fn time(&self, time: u64) -> String {
        units::trace_time(time, self.end.view.clock_in_ns())
    }

    /// A distance of two times of the trace clock.
    fn distance(&self, len: u64) -> String {
        match self.end.view.clock_in_ns() {
            true => units::span(len),
            false => format!("{len} ticks"),
        }
    }

    fn number(&self, kept: &Kept, name: &str) -> Option<i64> {
        program::number(self.end.view, &kept.event(), name)
    }

    fn field(&self, kept: &Kept, name: &str) -> Option<String> {
        program::field(self.end.view, &kept.event(), name)
    }
}

/// The further processes of the run: each has a region of its own.
fn write_others(out: &mut impl Write, others: &Others) -> Result<()> {
    for other in others.processes.iter().take(SHOWN) {
        let Other {
            name,
            verdict,
            pid,
            program,
            events,
        } = other;
        let program = clean(program);
        line(
            out,
            "and",
            format_args!("{name}: {verdict}, {events} events of {program}, pid {pid}"),
        )?;
    }
    match others.processes.len().saturating_sub(SHOWN) {
        0 => {}
        more => line(out, "and", format_args!("{more} more: --json has all"))?,
    }
    for (count, what) in [
        (
            others.removed,
            "older ones that ended, and made room for these",
        ),
        (
            others.refused,
            "forked children that recorded nothing for want of room",
        ),
    ] {
        if count > 0 {
            line(out, "and", format_args!("{count} {what}"))?;
        }
    }
    Ok(())
}

fn line(out: &mut impl Write, name: &str, value: impl Display) -> Result<()> {
    Ok(writeln!(out, "  {name:NAMES$}{value}")?)
}

/// The text of a value, in quotes if it would not be seen where it ends.
fn quoted(text: &str) -> String {
    let is_plain = |c: char| !c.is_whitespace() && !c.is_control() && c != '"';
    match !text.is_empty() && text.chars().all(is_plain) {
        true => text.to_owned(),
        false => format!("{text:?}"),
    }
}

/// A text of the region without what would move the terminal's cursor or change its colours.
pub(super) fn clean(text: &str) -> String {
    let clean = |c: char| match c {
        '\t' => " ".to_owned(),
        c if c.is_control() => c.escape_default().to_string(),
        c => c.to_string(),
    };
    text.chars().map(clean).collect()
}

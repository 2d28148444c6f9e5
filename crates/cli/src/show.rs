//! `outlive show`: the events as text in the kernel's own format, or as JSON lines.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{IsTerminal, Write};
use std::ops::Range;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use anyhow::{Result, bail};
use outlive_event::{Catalog, EventFormat, Formatter, HeaderCounts, TextOptions, Unevaluated};
use outlive_export::json;
use outlive_ring::Missed;
use outlive_trace::cmdline::{self, EventToken};
use outlive_trace::view::{self, LeftOver, View, ViewEvent, Wanted};

use crate::args::{Args, SelectionArgs, ShowArgs};
use crate::boot::say;
use crate::diagnostic::escape_from;
use crate::export::say_damage;
use crate::filter::{FilterText, Mistake};
use crate::target::Target;
use crate::{Usage, exit, follow, merged, units};

/// Sub-buffers that are made into text at a time: about a megabyte of text.
const STRETCH: usize = 64;
/// Stretches of text that a thread may be ahead.
const AHEAD: usize = 2;

/// What is to be shown.
#[derive(Debug, Default)]
pub(crate) struct Selection {
    /// Only this CPU.
    pub(crate) cpu: Option<u32>,
    /// Only the last part of the time.
    pub(crate) last: Option<Duration>,
    /// Only these events.
    pub(crate) event: Option<EventToken>,
    /// Only what this keeps.
    pub(crate) filter: Option<FilterText>,
    /// Whether the regions are known to be of one boot.
    pub(crate) same_boot: bool,
}

impl SelectionArgs {
    /// What the options select; an error if the filter is none.
    pub(crate) fn selection(&self) -> Result<Selection> {
        let filter = self.filter.as_deref().map(FilterText::parse);
        Ok(Selection {
            cpu: self.cpu,
            last: self.last,
            event: self.event.clone(),
            filter: filter.transpose()?,
            same_boot: self.same_boot,
        })
    }
}

impl Selection {
    /// The time, in the unit of the trace clock, from which on events are shown.
    pub(crate) fn since(&self, view: &View) -> u64 {
        match (self.last, view.span()) {
            (Some(last), Some((_, end))) => end.saturating_sub(units::nanos(last)),
            _ => 0,
        }
    }

    /// What is wanted of each event; `None` if all is.
    pub(crate) fn wanted<'c>(&self, catalog: &'c Catalog, nr_cpus: usize) -> Option<Wanted<'c>> {
        let filter = self.filter.as_ref().map(FilterText::filter);
        Wanted::new(catalog, nr_cpus, self.event.as_ref(), filter)
    }

    /// The events that `--event` names.
    fn listed<'c>(&self, catalog: &'c Catalog) -> impl Iterator<Item = &'c EventFormat> {
        Wanted::listed(catalog, self.event.as_ref())
    }

    /// Whether a CPU's events are wanted.
    pub(crate) fn has_cpu(&self, cpu: u32) -> bool {
        self.cpu.is_none_or(|only| only == cpu)
    }

    /// Refuses what a region cannot have, so that a typing error does not look like silence.
    pub(crate) fn check(&self, view: &View) -> Result<()> {
        match view.has_lanes() {
            true => self.check_cpu_of_program(view)?,
            false => self.check_cpu(view.cpus.len())?,
        }
        self.check_events(&view.catalog, view.cpus.len())
    }

    /// Refuses a CPU that is not there.
    pub(crate) fn check_cpu(&self, nr_cpus: usize) -> Result<()> {
        match self.cpu {
            Some(cpu) if cpu as usize >= nr_cpus => bail!(Usage(format!(
                "there is no CPU {cpu}: CPUs 0 to {} are",
                nr_cpus.max(1) - 1
            ))),
            _ => Ok(()),
        }
    }

    /// Refuses a CPU on which a program recorded nothing. The CPUs are known from its events only.
    fn check_cpu_of_program(&self, view: &View) -> Result<()> {
        let Some(cpu) = self.cpu else {
            return Ok(());
        };
        let mut cpus = BTreeSet::new();
        let mut events = view.events(None);
        while let Some(event) = events.next_event() {
            if event.cpu == cpu {
                return Ok(());
            }
            cpus.insert(event.cpu);
        }
        if cpus.is_empty() {
            return Ok(());
        }
        let cpus: Vec<String> = cpus.iter().map(u32::to_string).collect();
        bail!(Usage(format!(
            "no event is of CPU {cpu}: there are events of CPU {}",
            cpus.join(", ")
        )))
    }

    /// Refuses a pattern that no event has, and a filter that makes no sense for any, so that a
    /// typing error does not look like silence.
    pub(crate) fn check_events(&self, catalog: &Catalog, nr_cpus: usize) -> Result<()> {
        if catalog.events().next().is_none() {
            return Ok(());
        }
        if self.listed(catalog).next().is_some() {
            return match &self.filter {
                Some(filter) => Ok(filter.check(catalog, self.listed(catalog), nr_cpus as u32)?),
                None => Ok(()),
            };
        }
        match &self.event {
            Some(event) => Err(no_such_event(event, catalog).into()),
            None => Ok(()),
        }
    }
}

/// The token marked, and the nearest name; without one, the systems that there are.
fn no_such_event(token: &EventToken, catalog: &Catalog) -> Mistake {
    let names = catalog.events();
    let names: Vec<_> = names
        .map(|event| (event.system.as_str(), event.name.as_str()))
        .collect();
    let (_, mistakes) = cmdline::resolve(std::slice::from_ref(token), &names);
    let mistakes = mistakes.into_iter().map(|mut mistake| {
        // Nothing is to be started here, and no kernel is asked.
        mistake.consequence = None;
        mistake.kernel_message = None;
        if mistake.suggestion.is_none() && mistake.help.is_none() {
            let systems: BTreeSet<&str> = names.iter().map(|(system, _)| *system).collect();
            let systems = Vec::from_iter(systems).join(", ");
            mistake.help = Some(format!("there are events of the systems {systems}"));
        }
        mistake
    });
    Mistake::shown("--event", &token.to_string(), &Vec::from_iter(mistakes))
}

/// How it is to be shown.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Look {
    /// Fields instead of the print format.
    pub(crate) raw_fields: bool,
    /// One JSON object per line.
    pub(crate) json: bool,
    /// Whether control characters would be obeyed.
    pub(crate) is_terminal: bool,
}

impl Look {
    /// Options for the text of events with times of this clock.
    pub(crate) fn options(self, clock: &str) -> TextOptions {
        let mut options = TextOptions::for_clock(clock);
        options.raw_fields = self.raw_fields;
        options
    }

    /// Spells out the control characters of a line, which begins at `start`. Those in a program's texts
    /// always, so that each event is one line; the kernel's text stays as it is, but at a terminal.
    fn escape(self, text: &mut Vec<u8>, start: usize, is_of_program: bool) {
        let kept: &[char] = match (is_of_program, self.is_terminal) {
            (true, _) => &[],
            (false, true) => &['\n', '\t'],
            (false, false) => return,
        };
        let line_end = text.pop_if(|last| *last == b'\n');
        escape_from(text, start, kept);
        text.extend(line_end);
    }
}

/// Does what the command's arguments say.
pub(crate) fn run(args: &Args, show_args: &ShowArgs) -> Result<u8> {
    let selection = show_args.selection.selection()?;
    let out = std::io::stdout().lock();
    let look = Look {
        raw_fields: show_args.raw_fields,
        json: show_args.json,
        is_terminal: out.is_terminal(),
    };
    let names = Target::matching(args, &show_args.names)?;
    let [name] = names.as_slice() else {
        if show_args.follow {
            bail!("--follow shows one instance at a time");
        }
        let formats = show_args.formats.as_deref();
        let views = Target::open_all(&Target::find_all(args, &names)?, formats)?;
        merged::show(&names, &views, &selection, look, out)?;
        return Ok(exit::DONE);
    };
    let target = Target::find(args, name)?;
    if show_args.follow {
        follow::run(&target, &selection, look, out)?;
        return Ok(exit::DONE);
    }
    let view = target.open(show_args.formats.as_deref())?;
    selection.check(&view)?;
    if view.catalog.events().next().is_none() && view.entries() > 0 {
        eprintln!(
            "outlive: there are no event formats in this region: events print as `Unknown type N`; \
             --formats DIR, a copy of its kernel's tracefs events folder, decodes them"
        );
    }
    show(&view, &selection, look, out)?;
    say_damage(name, &view);
    Ok(exit::DONE)
}

/// Prints the selected events of a view.
///
/// The time is cut into stretches, which threads make into text in turn, and which are written in
/// order.
pub(crate) fn show(view: &View, selection: &Selection, look: Look, out: impl Write) -> Result<()> {
    let formatter = Formatter::new(&view.catalog, look.options(view.clock()));
    let lines = Lines::new(&view.catalog, formatter, look, view.has_lanes());
    let mut output = Output::telling_starts(view, out);
    if !look.json {
        output.header(&lines, view)?;
    }
    let stretches = Stretches {
        view,
        lines,
        wanted: selection.wanted(&view.catalog, view.cpus.len()),
        cpu: selection.cpu,
        starts: view.stretches(selection.cpu, selection.since(view), STRETCH),
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = threads.min(stretches.starts.len());
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|first| {
                let (give, take) = sync_channel(AHEAD);
                let (give_back, take_back) = sync_channel(AHEAD + 1);
                let stretches = &stretches;
                scope.spawn(move || stretches.format_every(first, threads, &give, &take_back));
                (take, give_back)
            })
            .collect();
        // A closed pipe ends this, and by that the threads: they find their channels closed.
        write_in_turn(&workers, stretches.starts.len(), &lines, &mut output)
    })?;
    output.write_left(&lines, view)?;
    output.finish(&view.catalog)
}

fn write_in_turn<W: Write>(
    workers: &[(Receiver<Result<Text>>, SyncSender<Text>)],
    count: usize,
    lines: &Lines<'_>,
    output: &mut Output<W>,
) -> Result<()> {
    for i in 0..count {
        let (take, give_back) = &workers[i % workers.len()];
        let text = take.recv()??;
        output.write(lines, &text)?;
        let _ = give_back.try_send(text);
    }
    Ok(())
}

/// The stretches of time of a view, to be made into text.
struct Stretches<'v> {
    view: &'v View,
    lines: Lines<'v>,
    wanted: Option<Wanted<'v>>,
    cpu: Option<u32>,
    starts: Vec<u64>,
}

impl Stretches<'_> {
    /// Makes each `step`th stretch into text, until nobody wants them any more.
    fn format_every(
        &self,
        first: usize,
        step: usize,
        give: &SyncSender<Result<Text>>,
        take_back: &Receiver<Text>,
    ) {
        for stretch in (first..self.starts.len()).step_by(step) {
            let mut text = take_back.try_recv().unwrap_or_default();
            text.clear();
            let formatted = self.format(stretch, &mut text).map(|()| text);
            if give.send(formatted).is_err() {
                return;
            }
        }
    }

    fn format(&self, stretch: usize, text: &mut Text) -> Result<()> {
        let from = self.starts[stretch];
        let end = self.starts.get(stretch + 1).copied();
        let events = self.view.events_between(self.cpu, from, end);
        let mut events = events.wanting(self.wanted.as_ref());
        while let Some(event) = events.next_event() {
            self.lines.push(text, &event)?;
        }
        text.left.extend(events.left());
        Ok(())
    }
}

/// Whether an event is wanted; all are if nothing was selected.
pub(crate) fn is_wanted(wanted: Option<&Wanted<'_>>, cpu: u32, payload: &[u8]) -> bool {
    wanted.is_none_or(|wanted| wanted.has(cpu, payload))
}

/// Lines of some events.
#[derive(Debug, Default)]
pub(crate) struct Text {
    bytes: Vec<u8>,
    /// The first event of each buffer.
    firsts: Vec<First>,
    /// What is missing behind the last ones.
    left: Vec<LeftOver>,
    /// Those that print their fields although they should not.
    unevaluated: Unevaluated,
}

/// The first event of a buffer: what was before it is not known until all that goes before is
/// written.
#[derive(Debug)]
struct First {
    /// Its lines in the text.
    lines: Range<usize>,
    /// Its payload is beside it.
    event: ViewEvent<'static>,
    payload: Vec<u8>,
}

impl First {
    fn event(&self) -> ViewEvent<'_> {
        ViewEvent {
            payload: &self.payload,
            ..self.event
        }
    }
}

impl Text {
    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
        self.firsts.clear();
        self.left.clear();
        self.unevaluated.clear();
    }
}

/// Makes events into lines.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Lines<'v> {
    catalog: &'v Catalog,
    formatter: Formatter<'v>,
    look: Look,
    /// Whether a program wrote the region.
    is_of_program: bool,
}

impl<'v> Lines<'v> {
    pub(crate) fn new(
        catalog: &'v Catalog,
        formatter: Formatter<'v>,
        look: Look,
        is_of_program: bool,
    ) -> Self {
        Self {
            catalog,
            formatter,
            look,
            is_of_program,
        }
    }

    /// What makes the lines.
    pub(crate) fn formatter(&self) -> &Formatter<'v> {
        &self.formatter
    }

    /// Appends an event, and before it what was lost there.
    pub(crate) fn push(&self, text: &mut Text, event: &ViewEvent<'_>) -> Result<()> {
        let start = text.bytes.len();
        let unevaluated = self.append(&mut text.bytes, event, None)?;
        text.unevaluated.count(unevaluated);
        let is_of_buffer = |first: &First| first.event.buffer == event.buffer;
        if !text.firsts.iter().any(is_of_buffer) {
            text.firsts.push(First {
                lines: start..text.bytes.len(),
                event: ViewEvent {
                    payload: &[],
                    ..*event
                },
                payload: event.payload.to_vec(),
            });
        }
        Ok(())
    }

    /// Appends an event, and in a text what was lost before it, and what starts here. Returns what
    /// [`Formatter::record`] does.
    fn append(
        &self,
        out: &mut Vec<u8>,
        event: &ViewEvent<'_>,
        starts: Option<Starts>,
    ) -> Result<Option<&'v EventFormat>> {
        if self.look.json {
            json::write(out, self.catalog, event)?;
            return Ok(None);
        }
        self.push_lost(out, event.buffer, event.missed);
        match starts {
            Some(Starts::Buffer) => self.formatter.buffer_started(out, event.buffer),
            Some(Starts::Whole) => out.extend_from_slice(WHOLE.as_bytes()),
            None => {}
        }
        Ok(self.push_line(out, event, event.text_time_stamp))
    }

    /// Appends the line that says what is missing at a place of a buffer, if something is.
    pub(crate) fn push_lost(&self, out: &mut Vec<u8>, buffer: u32, missed: Option<Missed>) {
        if let Some(missed) = missed {
            let kind = view::buffer_word(self.is_of_program);
            self.formatter
                .lost_events(out, kind, buffer, missed.count());
        }
    }

    /// Appends the line of an event. Returns what [`Formatter::record`] does.
    pub(crate) fn push_line(
        &self,
        out: &mut Vec<u8>,
        event: &ViewEvent<'_>,
        time: u64,
    ) -> Option<&'v EventFormat> {
        let start = out.len();
        let unevaluated = self.formatter.record(out, event.cpu, time, event.payload);
        push_doubt(self.catalog, out, event);
        self.look.escape(out, start, self.is_of_program);
        unevaluated
    }
}

/// Puts behind the line of an event why it is doubtful, if it is.
pub(crate) fn push_doubt(catalog: &Catalog, text: &mut Vec<u8>, event: &ViewEvent<'_>) {
    if let Some(doubt) = event.doubt(catalog) {
        let line_end = text.pop_if(|last| *last == b'\n');
        text.extend_from_slice(format!(" [doubtful: {doubt}]").as_bytes());
        text.extend(line_end);
    }
}

/// What a text says before the first event of a buffer.
#[derive(Debug, Clone, Copy)]
enum Starts {
    /// That it starts, as the kernel does of each but the first.
    Buffer,
    /// [`WHOLE`].
    Whole,
}

const WHOLE: &str = "##### nothing is overwritten from here on ####\n";

/// Writes lines, and between them where a CPU's buffer starts.
pub(crate) struct Output<W: Write> {
    /// Buffers that have been seen, if any had overruns.
    started: Option<Vec<u32>>,
    /// Of a program's lanes, of which there are many, the one that starts last of those with overruns.
    last_lane: Option<u32>,
    /// By buffer: what is missing behind the last event that was written.
    left: BTreeMap<u32, Missed>,
    unevaluated: Unevaluated,
    out: W,
}

impl<W: Write> Output<W> {
    /// Without a word of where a buffer starts.
    pub(crate) fn new(out: W) -> Self {
        Self {
            started: None,
            last_lane: None,
            left: BTreeMap::new(),
            unevaluated: Unevaluated::default(),
            out,
        }
    }

    fn telling_starts(view: &View, out: W) -> Self {
        let overwritten = view.cpus.iter().filter(|cpu| cpu.counters.overrun > 0);
        let last = overwritten.max_by_key(|cpu| cpu.oldest).map(|cpu| cpu.cpu);
        Self {
            started: (view.overrun() > 0).then(Vec::new),
            last_lane: last.filter(|_| view.has_lanes()),
            ..Self::new(out)
        }
    }

    fn header(&mut self, lines: &Lines<'_>, view: &View) -> Result<()> {
        let entries = view.entries();
        let counts = HeaderCounts {
            entries,
            written: entries + view.overrun(),
            cpus: (!view.has_lanes()).then_some(view.cpus.len() as u32),
        };
        let mut text = Vec::new();
        lines.formatter.header(&mut text, &counts);
        Ok(self.out.write_all(&text)?)
    }

    pub(crate) fn write(&mut self, lines: &Lines<'_>, text: &Text) -> Result<()> {
        let mut written = 0;
        let mut line = Vec::new();
        for first in &text.firsts {
            let left = self.left.remove(&first.event.buffer);
            let starts = self.starts(first.event.buffer);
            let starts = starts.filter(|_| !lines.look.json);
            if left.is_none() && starts.is_none() {
                continue;
            }
            let mut event = first.event();
            event.missed = Missed::sum(left, event.missed);
            line.clear();
            lines.append(&mut line, &event, starts)?;
            self.out
                .write_all(&text.bytes[written..first.lines.start])?;
            self.out.write_all(&line)?;
            written = first.lines.end;
        }
        for left in &text.left {
            let before = self.left.remove(&left.buffer);
            let both = Missed::sum(before, Some(left.missed));
            self.left.extend(both.map(|both| (left.buffer, both)));
        }
        self.unevaluated.add(&text.unevaluated);
        Ok(self.out.write_all(&text.bytes[written..])?)
    }

    /// What is said before the first event of a buffer: nothing of the first one.
    fn starts(&mut self, buffer: u32) -> Option<Starts> {
        let started = self.started.as_mut()?;
        if started.contains(&buffer) {
            return None;
        }
        started.push(buffer);
        let is_later = started.len() > 1;
        match self.last_lane {
            Some(lane) => (is_later && lane == buffer).then_some(Starts::Whole),
            None => is_later.then_some(Starts::Buffer),
        }
    }

    /// Writes what is missing behind the last events. In JSON it has no place: it is said.
    fn write_left(&mut self, lines: &Lines<'_>, view: &View) -> Result<()> {
        for (&buffer, &missed) in &self.left {
            if lines.look.json {
                say!("{}", LeftOver { buffer, missed }.in_words(view));
                continue;
            }
            let mut line = Vec::new();
            lines.push_lost(&mut line, buffer, Some(missed));
            self.out.write_all(&line)?;
        }
        Ok(())
    }

    pub(crate) fn flush(&mut self) -> Result<()> {
        Ok(self.out.flush()?)
    }

    /// Ends the output, and tells which events it has as fields only.
    pub(crate) fn finish(mut self, catalog: &Catalog) -> Result<()> {
        self.flush()?;
        if let Some(words) = self.unevaluated.in_words(catalog) {
            say!("{words}");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn losses_are_told_of_a_cpu_or_of_a_programs_lane() {
        let catalog = Catalog::default();
        let look = Look::default();
        let told = |is_of_program| {
            let formatter = Formatter::new(&catalog, look.options("local"));
            let lines = Lines::new(&catalog, formatter, look, is_of_program);
            let mut text = Vec::new();
            lines.push_lost(&mut text, 3, None);
            lines.push_lost(&mut text, 3, Some(Missed::Events(5)));
            lines.push_lost(&mut text, 4, Some(Missed::Unknown));
            String::from_utf8(text).unwrap()
        };
        assert_eq!(told(false), "CPU:3 [LOST 5 EVENTS]\nCPU:4 [LOST EVENTS]\n");
        assert_eq!(told(true), "lane:3 [LOST 5 EVENTS]\nlane:4 [LOST EVENTS]\n");
    }

    #[test]
    fn a_kernels_text_is_escaped_for_a_terminal_only_and_a_programs_always() {
        let line = b"before\x1b\na\x1b[2J\tb\nc\x9b\xc2\x9b \xc3\xbc\n";
        let escaped = |is_terminal, is_of_program| {
            let look = Look {
                is_terminal,
                ..Look::default()
            };
            let mut text = line.to_vec();
            look.escape(&mut text, 8, is_of_program);
            text
        };
        assert_eq!(escaped(false, false), line);
        assert_eq!(
            escaped(true, false),
            "before\x1b\na\\u{1b}[2J\tb\nc\\x9b\\u{9b} ü\n".as_bytes()
        );
        for is_terminal in [false, true] {
            assert_eq!(
                escaped(is_terminal, true),
                "before\x1b\na\\u{1b}[2J\\tb\\nc\\x9b\\u{9b} ü\n".as_bytes()
            );
        }
    }
}

//! `show` of several regions: their events in one text, in the order of a common clock.

use std::io::{BufWriter, Write};

use anyhow::Result;
use outlive_event::{EventFormat, Formatter, HeaderCounts, Unevaluated};
use outlive_export::json;
use outlive_trace::view::{SourceEvent, Sources, Timeline, View};

use crate::boot::say;
use crate::export;
use crate::show::{Lines, Look, Selection};

/// Prints the selected events of the regions `names`. Times are those of the common clock.
pub(crate) fn show(
    names: &[String],
    views: &[View],
    selection: &Selection,
    look: Look,
    out: impl Write,
) -> Result<()> {
    let sources = export::sources(names, views, selection)?;
    if sources.timeline() == Timeline::Realtime {
        say!("these regions are of different boots: times are those of the wall clock");
    }
    let lines = MergedLines::new(&sources, look);
    let mut out = BufWriter::new(out);
    if !look.json {
        lines.write_header(&mut out)?;
    }
    let mut line = Vec::new();
    let mut unevaluated = vec![Unevaluated::default(); sources.sources().len()];
    let mut events = sources.events();
    while let Some(next) = events.next_event() {
        line.clear();
        match look.json {
            true => json::write_merged(&mut line, &sources, &next)?,
            false => unevaluated[next.source].count(lines.push(&mut line, &next)?),
        }
        out.write_all(&line)?;
    }
    for (source, left) in events.left() {
        if look.json {
            let source = &sources.sources()[source];
            say!("{}: {}", source.name, left.in_words(source.view));
            continue;
        }
        line.clear();
        lines.by_source[source].push_lost(&mut line, left.buffer, Some(left.missed));
        lines.write_named(&mut out, source, &line)?;
    }
    out.flush()?;
    for (source, unevaluated) in sources.sources().iter().zip(&unevaluated) {
        export::say_damage(&source.name, source.view);
        if let Some(words) = unevaluated.in_words(&source.view.catalog) {
            say!("{}: {words}", source.name);
        }
    }
    Ok(())
}

/// Makes events into lines that begin with the name of their region.
struct MergedLines<'s> {
    sources: &'s Sources<'s>,
    by_source: Vec<Lines<'s>>,
    /// Columns of the names.
    width: usize,
}

impl<'s> MergedLines<'s> {
    fn new(sources: &'s Sources<'s>, look: Look) -> Self {
        let by_source = sources.sources().iter().map(|source| {
            let clock = match sources.timeline() {
                Timeline::Trace => source.view.clock(),
                // Nanoseconds.
                Timeline::Monotonic | Timeline::Realtime => "mono",
            };
            let view = source.view;
            let formatter = Formatter::new(&view.catalog, look.options(clock));
            Lines::new(&view.catalog, formatter, look, view.has_lanes())
        });
        let widths = sources.sources().iter().map(|s| s.name.chars().count());
        Self {
            by_source: by_source.collect(),
            width: widths.max().unwrap_or(0),
            sources,
        }
    }

    fn write_header(&self, out: &mut impl Write) -> Result<()> {
        let Some(first) = self.by_source.first() else {
            return Ok(());
        };
        let views = || self.sources.sources().iter().map(|source| source.view);
        let counts = HeaderCounts {
            entries: self.sources.entries(),
            written: views().map(|view| view.entries() + view.overrun()).sum(),
            cpus: views()
                .filter(|view| !view.has_lanes())
                .map(|view| view.cpus.len() as u32)
                .max(),
        };
        let mut text = Vec::new();
        first.formatter().header(&mut text, &counts);
        // Its drawing moves to the right by the columns of the names.
        for line in String::from_utf8_lossy(&text).lines() {
            match line.strip_prefix("#  ") {
                Some(drawing) => writeln!(out, "#{:1$}  {drawing}", "", self.width + 1)?,
                None => writeln!(out, "{line}")?,
            }
        }
        Ok(())
    }

    /// Appends an event, and before it what was lost there. Returns what [`Formatter::record`] does.
    fn push(&self, out: &mut Vec<u8>, next: &SourceEvent<'_>) -> Result<Option<&'s EventFormat>> {
        let event = &next.event;
        let lines = &self.by_source[next.source];
        let mut text = Vec::new();
        lines.push_lost(&mut text, event.buffer, event.missed);
        let time = self.sources.time(next.source, event.text_time_stamp);
        let unevaluated = lines.push_line(&mut text, event, time);
        self.write_named(out, next.source, &text)?;
        Ok(unevaluated)
    }

    /// Writes lines with the name of their source before each.
    fn write_named(&self, out: &mut impl Write, source: usize, text: &[u8]) -> Result<()> {
        let name = &self.sources.sources()[source].name;
        for line in text.split_inclusive(|&byte| byte == b'\n') {
            write!(out, "{name:width$} ", width = self.width)?;
            out.write_all(line)?;
        }
        Ok(())
    }
}

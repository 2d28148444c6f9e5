//! `outlive show`: the events as text in the kernel's own format, or as JSON lines.

use std::io::{BufWriter, Write};
use std::time::Duration;

use anyhow::Result;
use outlive_event::{Catalog, Formatter, HeaderCounts, TextOptions};
use outlive_ring::Missed;
use outlive_trace::cmdline::EventToken;
use outlive_trace::view::{View, ViewEvent};

use crate::args::{Args, ShowArgs};
use crate::{event_json, exit};

/// Bytes of text that are collected before they are written.
const CHUNK: usize = 1 << 16;

/// What is to be shown.
#[derive(Debug, Default)]
pub(crate) struct Selection {
    /// Only this CPU.
    pub(crate) cpu: Option<u32>,
    /// Only the last part of the time.
    pub(crate) last: Option<Duration>,
    /// Only these events.
    pub(crate) event: Option<EventToken>,
}

impl Selection {
    /// The time, in the unit of the trace clock, from which on events are shown.
    fn since(&self, view: &View) -> u64 {
        match (self.last, view.span()) {
            (Some(last), Some((_, end))) => {
                end.saturating_sub(u64::try_from(last.as_nanos()).unwrap_or(u64::MAX))
            }
            _ => 0,
        }
    }

    fn has_event(&self, formatter: &Formatter<'_>, payload: &[u8]) -> bool {
        self.event.as_ref().is_none_or(|glob| {
            formatter
                .event(payload)
                .is_some_and(|event| glob.matches(&event.system, &event.name))
        })
    }
}

/// How it is to be shown.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Look {
    /// Fields instead of the print format.
    pub(crate) raw_fields: bool,
    /// One JSON object per line.
    pub(crate) json: bool,
}

/// Does what the command's arguments say.
pub(crate) fn run(args: &Args, show_args: &ShowArgs) -> Result<u8> {
    let (_, view) = show_args.target.open(args)?;
    let selection = Selection {
        cpu: show_args.cpu,
        last: show_args.last,
        event: show_args.event.clone(),
    };
    let look = Look {
        raw_fields: show_args.raw_fields,
        json: show_args.json,
    };
    show(&view, &selection, look, std::io::stdout().lock())?;
    Ok(exit::DONE)
}

/// Options for a view's text.
pub(crate) fn text_options(view: &View, look: Look) -> TextOptions {
    let mut options = TextOptions::for_clock(view.clock());
    options.raw_fields = look.raw_fields;
    options
}

/// Prints the selected events of a view.
pub(crate) fn show(view: &View, selection: &Selection, look: Look, out: impl Write) -> Result<()> {
    let formatter = Formatter::new(&view.catalog, text_options(view, look));
    let mut printer = Printer::new(&view.catalog, formatter, look, view.overrun() > 0, out);
    if !look.json {
        printer.header(view);
    }
    let since = selection.since(view);
    let mut events = view.events_since(selection.cpu, since);
    while let Some(event) = events.next_event() {
        if event.time_stamp >= since && selection.has_event(&formatter, event.payload) {
            printer.event(&event)?;
        }
    }
    printer.finish()
}

/// Prints events as they come.
pub(crate) struct Printer<'v, W: Write> {
    catalog: &'v Catalog,
    formatter: Formatter<'v>,
    look: Look,
    text: Vec<u8>,
    /// CPUs that have been seen, if the buffers had overruns: the kernel then says where each
    /// further one starts.
    started: Option<Vec<u32>>,
    out: BufWriter<W>,
}

impl<'v, W: Write> Printer<'v, W> {
    pub(crate) fn new(
        catalog: &'v Catalog,
        formatter: Formatter<'v>,
        look: Look,
        had_overrun: bool,
        out: W,
    ) -> Self {
        let started = had_overrun.then(Vec::new);
        Self {
            catalog,
            formatter,
            look,
            text: Vec::with_capacity(2 * CHUNK),
            started,
            out: BufWriter::new(out),
        }
    }

    pub(crate) fn header(&mut self, view: &View) {
        let entries = view.entries();
        let counts = HeaderCounts {
            entries,
            written: entries + view.overrun(),
            cpus: view.cpus.len() as u32,
        };
        self.formatter.header(&mut self.text, &counts);
    }

    pub(crate) fn event(&mut self, event: &ViewEvent<'_>) -> Result<()> {
        if self.look.json {
            event_json::write(&mut self.text, self.catalog, event)?;
        } else {
            self.annotate(event);
            let (cpu, time) = (event.cpu, event.text_time_stamp);
            self.formatter
                .record(&mut self.text, cpu, time, event.payload);
        }
        if self.text.len() >= CHUNK {
            self.flush_text()?;
        }
        Ok(())
    }

    /// The kernel's lines between events: what was lost, and where a CPU's buffer starts.
    fn annotate(&mut self, event: &ViewEvent<'_>) {
        if let Some(missed) = event.missed {
            let count = match missed {
                Missed::Events(events) => Some(events),
                Missed::Unknown => None,
            };
            self.formatter.lost_events(&mut self.text, event.cpu, count);
        }
        if let Some(started) = &mut self.started
            && !started.contains(&event.cpu)
        {
            if !started.is_empty() {
                self.formatter.buffer_started(&mut self.text, event.cpu);
            }
            started.push(event.cpu);
        }
    }

    fn flush_text(&mut self) -> Result<()> {
        self.out.write_all(&self.text)?;
        self.text.clear();
        Ok(())
    }

    /// Writes what is left.
    pub(crate) fn finish(mut self) -> Result<()> {
        self.flush()
    }

    /// Writes what there is, for a reader that waits.
    pub(crate) fn flush(&mut self) -> Result<()> {
        self.flush_text()?;
        self.out.flush()?;
        Ok(())
    }
}

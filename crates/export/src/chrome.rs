//! Chrome's trace events, JSON that chrome://tracing, ui.perfetto.dev and speedscope open.
//!
//! The file is one object ("Trace Event Format" of the Chromium project, its *JSON object format*):
//! `traceEvents` has a line for each event, `otherData` what is known of the whole. Every event of the
//! sources is one trace event: `B` and `E` for spans of programs that lie inside each other on their
//! thread, `b` and `e` with the span's id for those that cross, `i` for all others. Beside them there
//! are `M` for names, `X` for who ran on each CPU, and `i` of the category `lost` where events are missing.
//!
//! Times are microseconds with three digits behind the point, of the clock that Perfetto's traces have.

use std::collections::{HashMap, HashSet};
use std::fmt::Write as _;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use outlive_event::{EventFormat, pid};
use outlive_ring::Missed;
use outlive_trace::intervals::{Interval, IntervalKind, Intervals};
use outlive_trace::view::{Source, SourceEvent, Sources, Timeline, ViewEvent};
use serde_json::{Map, Value as Json, json};

use crate::perfetto::{clock_notes, time};
use crate::spans::{self, SpanPart, format_of, span_part};
use crate::{Error, Exporter, Result, Summary, json as json_lines, output};

/// More than any process has on Linux (`PID_MAX_LIMIT`): processes of the trace that are none of a machine.
const NO_PIDS: i64 = 1 << 22;
/// What a source's processes are moved by if it is of another boot than the others.
const BOOT: i64 = 1 << 23;

/// Writes Chrome traces.
#[derive(Debug)]
pub(crate) struct Chrome;

impl Exporter for Chrome {
    fn export(&self, sources: &Sources<'_>, out: &Path) -> Result<Summary> {
        let mut output = Output {
            writer: BufWriter::with_capacity(1 << 20, output::create(out)?),
            path: out,
            line: String::new(),
            is_first: true,
        };
        let mut summary = Summary::default();
        summary.notes.extend(clock_notes(sources));
        output.put("{\"displayTimeUnit\":\"ns\",\"traceEvents\":[\n")?;
        write_events(&mut output, sources, &mut summary)?;
        let other = json!({
            "program": concat!("outlive ", env!("CARGO_PKG_VERSION")),
            "lost": summary.lost,
            "damaged": damaged(sources),
        });
        output.put(&format!("\n],\"otherData\":{other}}}\n"))?;
        let flushed = output.writer.flush();
        flushed.map_err(Error::io("write", out))?;
        Ok(summary)
    }

    /// The first pass, if there are spans, finds those that cross.
    fn to_read(&self, sources: &Sources<'_>) -> u64 {
        sources.to_read() * if spans::are_possible(sources) { 2 } else { 1 }
    }
}

fn damaged<'s>(sources: &'s Sources<'_>) -> Vec<&'s str> {
    let damaged = sources.sources().iter().filter(|s| !s.view.is_whole());
    damaged.map(|source| source.name.as_str()).collect()
}

fn write_events(out: &mut Output<'_>, sources: &Sources<'_>, summary: &mut Summary) -> Result<()> {
    let crossing = match spans::are_possible(sources) {
        true => spans::unnested(sources),
        false => HashSet::new(),
    };
    let mut rows = Vec::new();
    for (index, source) in sources.sources().iter().enumerate() {
        let row = Rows::new(sources, index, &crossing);
        row.write_names(out, source)?;
        rows.push(row);
    }
    let mut last = 0;
    let mut events = sources.events();
    while let Some(next) = events.next_event() {
        last = time(sources, next.source, next.event.time_stamp);
        rows[next.source].add(out, &next, last)?;
        summary.count(&next.event);
    }
    for (source, left) in events.left() {
        rows[source].lose(out, left.buffer, left.missed, last)?;
        summary.count_left(left);
    }
    for row in &mut rows {
        row.finish(out, last)?;
    }
    Ok(())
}

/// Where the events go.
struct Output<'o> {
    writer: BufWriter<File>,
    path: &'o Path,
    line: String,
    is_first: bool,
}

impl Output<'_> {
    fn put(&mut self, text: &str) -> Result<()> {
        let written = self.writer.write_all(text.as_bytes());
        written.map_err(Error::io("write", self.path))
    }

    /// Writes a trace event. Its times, in nanoseconds, are no JSON numbers of serde: they would lose
    /// digits.
    fn event(&mut self, ns: u64, dur_ns: Option<u64>, event: &Json) -> Result<()> {
        let mut line = std::mem::take(&mut self.line);
        line.clear();
        line.push_str(if self.is_first { "{" } else { ",\n{" });
        self.is_first = false;
        for (key, ns) in [("ts", Some(ns)), ("dur", dur_ns)] {
            if let Some(ns) = ns {
                let _ = write!(line, "\"{key}\":{}.{:03},", ns / 1000, ns % 1000);
            }
        }
        let text = event.to_string();
        line.push_str(text.trim_start_matches('{'));
        let written = self.put(&line);
        self.line = line;
        written
    }
}

/// The rows of one source: a process of its CPUs and those of its tasks, or the process of a program.
struct Rows<'s> {
    sources: &'s Sources<'s>,
    index: usize,
    /// Who ran when; only if no switch between tasks was left out.
    running: Option<Intervals>,
    /// Threads whose spans cross.
    crossing: HashSet<i32>,
    /// Threads that have a name already.
    named: HashSet<i32>,
    /// Spans that are open: their threads and names.
    open: HashMap<u64, (i32, Json)>,
}

impl<'s> Rows<'s> {
    fn new(sources: &'s Sources<'s>, index: usize, crossing: &HashSet<(usize, i32)>) -> Self {
        let source = &sources.sources()[index];
        let crossing = crossing.iter().filter(|(source, _)| *source == index);
        let has_switches = source.wanted.is_none() && !source.view.has_lanes();
        Self {
            sources,
            index,
            running: has_switches.then(|| Intervals::new(&source.view.catalog)),
            crossing: crossing.map(|&(_, thread)| thread).collect(),
            named: HashSet::new(),
            open: HashMap::new(),
        }
    }

    fn source(&self) -> &'s Source<'s> {
        &self.sources.sources()[self.index]
    }

    /// What the numbers of processes and threads are moved by: each boot has its own.
    fn base(&self) -> i64 {
        match self.sources.timeline() {
            Timeline::Realtime => self.index as i64 * BOOT,
            _ => 0,
        }
    }

    /// The process whose threads are the CPUs.
    fn cpus(&self) -> i64 {
        self.base() + NO_PIDS + 1 + self.index as i64
    }

    /// The process of a task: its thread group, or itself if that is not known.
    fn process(&self, thread: i32) -> i64 {
        let view = self.source().view;
        let of_run = view.run.as_ref().filter(|_| view.has_lanes());
        let process = match of_run {
            Some(run) => run.pid,
            None => view.catalog.tasks().tgid(thread).unwrap_or(thread),
        };
        self.base() + i64::from(process)
    }

    fn thread(&self, thread: i32) -> i64 {
        self.base() + i64::from(thread)
    }

    /// Names of processes, tasks and CPUs.
    fn write_names(&self, out: &mut Output<'_>, source: &Source<'_>) -> Result<()> {
        let view = source.view;
        if view.has_lanes() {
            let process = view.run.as_ref().map_or(0, |run| run.pid);
            let process = self.base() + i64::from(process);
            return name(out, "process_name", (process, process), &source.name);
        }
        let cpus = format!("{}: CPUs", source.name);
        name(out, "process_name", (self.cpus(), 0), &cpus)?;
        for cpu in &view.cpus {
            let at = (self.cpus(), i64::from(cpu.cpu));
            name(out, "thread_name", at, &format!("CPU {}", cpu.cpu))?;
        }
        let mut tasks: Vec<(i32, &[u8])> = view.catalog.tasks().iter().collect();
        tasks.sort_unstable();
        for (pid, comm) in tasks {
            let comm = String::from_utf8_lossy(comm);
            let at = (self.process(pid), self.thread(pid));
            name(out, "thread_name", at, &comm)?;
            if at.0 == at.1 {
                name(out, "process_name", at, &comm)?;
            }
        }
        Ok(())
    }

    /// Adds an event at `time`.
    fn add(&mut self, out: &mut Output<'_>, next: &SourceEvent<'_>, time: u64) -> Result<()> {
        let event = &next.event;
        if let Some(missed) = event.missed {
            self.lose(out, event.buffer, missed, time)?;
        }
        self.add_running(out, event)?;
        let view = self.source().view;
        let thread = pid(event.payload).unwrap_or(0);
        if view.has_lanes() && self.named.insert(thread) {
            let comm = view.catalog.tasks().comm(thread).unwrap_or_default();
            let comm = String::from_utf8_lossy(comm);
            let at = (self.process(thread), self.thread(thread));
            name(out, "thread_name", at, &comm)?;
        }
        let format = format_of(&view.catalog, event.payload);
        let part = format.and_then(|format| span_part(format, event.payload));
        let mut object = self.object(event, format, thread);
        self.place(&mut object, part, thread);
        out.event(time, None, &object.into())
    }

    /// What all trace events of an event have.
    fn object(
        &self,
        event: &ViewEvent<'_>,
        format: Option<&EventFormat>,
        thread: i32,
    ) -> Map<String, Json> {
        let mut object = Map::new();
        object.insert("pid".into(), self.process(thread).into());
        object.insert("tid".into(), self.thread(thread).into());
        let mut args = match format {
            Some(format) => json_lines::fields(format, event.payload),
            None => Map::new(),
        };
        if let Some(doubt) = event.doubt(&self.source().view.catalog) {
            args.insert("doubt".into(), doubt.to_string().into());
        }
        // A field of that name says the same.
        args.entry("cpu").or_insert_with(|| event.cpu.into());
        object.insert("args".into(), args.into());
        let id = outlive_event::event_id(event.payload).unwrap_or_default();
        let (category, name) = match format {
            Some(format) => (format.system.as_str(), format.name.clone()),
            None => ("unknown", format!("event {id}")),
        };
        object.insert("cat".into(), category.into());
        object.insert("name".into(), name.into());
        object
    }

    /// Says what kind of trace event it is.
    fn place(&mut self, object: &mut Map<String, Json>, part: Option<SpanPart>, thread: i32) {
        let is_crossing = self.crossing.contains(&thread);
        let (kind, id) = match part {
            Some(SpanPart::Begin(id)) => {
                self.open.insert(id, (thread, object["name"].clone()));
                (if is_crossing { "b" } else { "B" }, Some(id))
            }
            Some(SpanPart::End(id)) => match self.open.remove(&id) {
                Some((begun_on, name)) if begun_on == thread => {
                    object.insert("name".into(), name);
                    (if is_crossing { "e" } else { "E" }, Some(id))
                }
                // The beginning is not there any more, or on another thread.
                _ => ("i", None),
            },
            None => ("i", None),
        };
        object.insert("ph".into(), kind.into());
        match id {
            Some(id) if is_crossing => {
                // Both have to agree.
                object.insert("cat".into(), "span".into());
                object.insert("id".into(), format!("{}:{id}", self.index).into());
            }
            Some(_) => {}
            None => {
                object.insert("s".into(), "t".into());
            }
        }
    }

    /// Adds who ran until an event.
    fn add_running(&mut self, out: &mut Output<'_>, event: &ViewEvent<'_>) -> Result<()> {
        let Some(mut running) = self.running.take() else {
            return Ok(());
        };
        let mut ended = Vec::new();
        running.push(event, &mut |interval| ended.push(interval));
        self.running = Some(running);
        ended
            .iter()
            .try_for_each(|interval| self.run(out, interval, 0))
    }

    /// Adds who still ran at the end.
    fn finish(&mut self, out: &mut Output<'_>, last: u64) -> Result<()> {
        let mut open = Vec::new();
        if let Some(mut running) = self.running.take() {
            running.finish(&mut |interval| open.push(interval));
        }
        open.iter()
            .try_for_each(|interval| self.run(out, interval, last))
    }

    /// Adds an interval if it is the time of a task on a CPU. One without an end goes to `last`.
    fn run(&self, out: &mut Output<'_>, interval: &Interval, last: u64) -> Result<()> {
        let cpu = match interval {
            Interval {
                kind: IntervalKind::State,
                cpu: Some(cpu),
                pid: 1..,
                ..
            } => *cpu,
            _ => return Ok(()),
        };
        let start = time(self.sources, self.index, interval.start);
        let end = interval.end.map(|end| time(self.sources, self.index, end));
        let comm = self.source().view.catalog.tasks().comm(interval.pid);
        let event = json!({
            "ph": "X",
            "pid": self.cpus(),
            "tid": cpu,
            "cat": "running",
            "name": String::from_utf8_lossy(comm.unwrap_or(b"?")),
            "args": {"pid": interval.pid, "open": end.is_none()},
        });
        let dur = end.unwrap_or(last).saturating_sub(start);
        out.event(start, Some(dur), &event)
    }

    /// Says that events of a buffer are missing before `time`.
    fn lose(&self, out: &mut Output<'_>, buffer: u32, missed: Missed, time: u64) -> Result<()> {
        let view = self.source().view;
        let at = match view.has_lanes() {
            true => (self.process(0), self.process(0)),
            false => (self.cpus(), i64::from(buffer)),
        };
        let event = json!({
            "ph": "i",
            "s": "p",
            "pid": at.0,
            "tid": at.1,
            "cat": "lost",
            "name": "events are missing",
            "args": {view.buffer_word(): buffer, "lost": missed.count()},
        });
        out.event(time, None, &event)
    }
}

/// Gives a process or a thread its name.
fn name(out: &mut Output<'_>, what: &str, (pid, tid): (i64, i64), name: &str) -> Result<()> {
    let event = json!({"ph": "M", "pid": pid, "tid": tid, "name": what, "args": {"name": name}});
    out.event(0, None, &event)
}

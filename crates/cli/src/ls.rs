//! `outlive ls`: the instances and what is kept of earlier runs.

use std::collections::HashMap;
use std::io::Write;

use anyhow::Result;
use outlive_ring::RunRecord;
use outlive_trace::start::KERNEL_BACKING;
use outlive_trace::view::View;
use outlive_trace::{Area, Generation, InstanceEntry, RegionPlace, StateDir, Verdict, generation};
use serde_json::{Value, json};

use crate::args::{Args, LsArgs};
use crate::last::{ProgramEnd, supervisor};
use crate::run::SUPERVISOR;
use crate::summary::Summary;
use crate::target::{all_states, newest, state_path};
use crate::{exit, target, units};

/// One line of the list.
struct Row {
    name: String,
    /// Names of backup instances that stand for it now.
    aliases: Vec<String>,
    /// `recording` or `closed` for a live area; `complete` or `collecting` for a generation.
    state: &'static str,
    verdict: Verdict,
    /// The run record, where it was read.
    run: Option<RunRecord>,
    /// How the program ended, of a run that had a supervisor.
    program_end: Option<ProgramEnd>,
    /// When the run ended, or when one that goes on was started: nanoseconds since 1970.
    when_ns: Option<u64>,
    summary: Summary,
    size_bytes: u64,
    /// Why nothing more is known.
    problem: Option<String>,
}

/// Does what the command's arguments say.
pub(crate) fn run(args: &Args, ls: &LsArgs) -> Result<u8> {
    let states = all_states(args)?;
    if states.is_empty() {
        eprintln!(
            "outlive: there is no state folder {}: nothing was recorded yet",
            state_path(args)?.display()
        );
        if ls.json {
            println!("[]");
        }
        return Ok(exit::DONE);
    }
    let rows: Result<Vec<Vec<Row>>> = states.iter().map(rows).collect();
    let mut rows: Vec<Row> = rows?.into_iter().flatten().collect();
    share_program_ends(&mut rows);
    let mut out = std::io::stdout().lock();
    match ls.json {
        true => {
            let rows: Vec<Value> = rows.iter().map(Row::to_json).collect();
            writeln!(out, "{}", Value::from(rows))?;
        }
        false => write_table(&mut out, &rows)?,
    }
    Ok(exit::DONE)
}

/// What a supervisor says of its program's end is told of the program's own region too.
fn share_program_ends(rows: &mut [Row]) {
    let ends: HashMap<_, _> = rows
        .iter()
        .filter_map(|row| Some((row.supervised_by()?, row.program_end.clone()?)))
        .collect();
    for row in rows {
        let end = row.supervised_by().and_then(|by| ends.get(&by));
        row.program_end = end.cloned();
    }
}

/// Prints the list of a state folder.
pub(crate) fn list(state: &StateDir, out: &mut impl Write) -> Result<()> {
    write_table(out, &rows(state)?)
}

fn rows(state: &StateDir) -> Result<Vec<Row>> {
    let configured = target::configured(state)?;
    let is_running = state.is_locked()?;
    let mut rows = Vec::new();
    for entry in &configured {
        if let Some(place) = RegionPlace::of_instance(entry) {
            let is_running = is_running || place.is_in_use()?;
            rows.push(Row::of_live(&entry.name, &place, is_running));
            for (name, path) in target::children(entry) {
                let is_running = Area::is_file_in_use(&path)?;
                rows.push(Row::of_live(&name, &RegionPlace::File(path), is_running));
            }
        } else if entry.backing.as_deref() == Some(KERNEL_BACKING) {
            rows.push(Row::of_kernel(&entry.name));
        }
    }
    for generation in generation::list(state)? {
        let aliases = aliases(state, &configured, &generation)?;
        rows.push(Row::of_generation(&generation, aliases));
    }
    Ok(rows)
}

/// The backup instances that a generation is shown as.
fn aliases(
    state: &StateDir,
    configured: &[InstanceEntry],
    generation: &Generation,
) -> Result<Vec<String>> {
    let is_newest = newest(state, generation.instance())?
        .is_some_and(|newest| newest.seq() == generation.seq());
    let of_this = |entry: &&InstanceEntry| {
        is_newest && entry.source.as_deref() == Some(generation.instance())
    };
    let names = configured.iter().filter(of_this);
    Ok(names.map(|entry| entry.name.clone()).collect())
}

impl Row {
    /// An instance that the kernel has made itself, and records into whether we run or not.
    fn of_kernel(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            aliases: Vec::new(),
            state: "recording",
            verdict: Verdict::StillRunning,
            run: None,
            program_end: None,
            when_ns: None,
            summary: Summary::default(),
            size_bytes: 0,
            problem: Some(format!(
                "in the kernel's memory, see instances/{name} of tracefs"
            )),
        }
    }

    fn of_live(name: &str, place: &RegionPlace, is_running: bool) -> Self {
        let mut row = Self {
            name: name.to_owned(),
            aliases: Vec::new(),
            state: if is_running { "recording" } else { "closed" },
            verdict: Verdict::Unknown,
            run: None,
            program_end: None,
            when_ns: None,
            summary: Summary::default(),
            size_bytes: place.len_bytes(),
            problem: None,
        };
        match View::open_place(place) {
            Ok(view) => {
                row.read_view(&view);
                let started = view.run.as_ref().map(|run| run.started_realtime_ns);
                (row.verdict, row.when_ns) = match is_running {
                    true => (Verdict::StillRunning, started),
                    false => (ended(&view), row.summary.ended_ns.or(started)),
                };
            }
            Err(error) => row.problem = Some(error.to_string()),
        }
        row
    }

    fn of_generation(generation: &Generation, aliases: Vec<String>) -> Self {
        let mut row = Self {
            name: generation.to_string(),
            aliases,
            state: if generation.is_collecting() {
                "collecting"
            } else {
                "complete"
            },
            verdict: Verdict::of_generation(generation, None),
            run: None,
            program_end: None,
            when_ns: None,
            summary: Summary::default(),
            size_bytes: generation.disk_bytes(),
            problem: None,
        };
        match generation.meta().and_then(Summary::noted) {
            Some(noted) => row.summary = noted,
            None => row.read(generation),
        }
        row.when_ns = row.summary.ended_ns.or_else(|| generation.created_ns());
        row
    }

    /// What nobody has noted yet.
    fn read(&mut self, generation: &Generation) {
        match View::open_with_tail(&generation.region_path(), &generation.tail_path()) {
            Ok((view, problem)) => {
                self.read_view(&view);
                self.verdict = Verdict::of_generation(generation, view.run.as_ref());
                self.problem = problem.map(|problem| problem.to_string());
            }
            Err(error) => self.problem = Some(error.to_string()),
        }
    }

    fn read_view(&mut self, view: &View) {
        self.summary = Summary::of(view);
        self.run.clone_from(&view.run);
        self.program_end = ProgramEnd::of(view);
    }

    /// What the instance of its supervisor is called, and the process and boot of that: those of a
    /// supervisor are its own.
    fn supervised_by(&self) -> Option<(String, String, [u8; 16])> {
        let run = self.run.as_ref()?;
        let instance = self.name.split('/').next().unwrap_or_default();
        let (name, pid) = match instance.ends_with(SUPERVISOR) {
            true => (instance.to_owned(), run.pid.to_string()),
            false => (
                format!("{instance}{SUPERVISOR}"),
                supervisor(&run.source)?.to_owned(),
            ),
        };
        Some((name, pid, run.boot_id))
    }

    fn to_json(&self) -> Value {
        json!({
            "name": self.name,
            "aliases": self.aliases,
            "state": self.state,
            "verdict": self.verdict.word(),
            "program_end": self.program_end.as_ref().map(|end| &end.json),
            "when_ns": self.when_ns,
            "span": self.summary.span,
            "events": self.summary.events,
            "lost": self.summary.lost,
            "size_bytes": self.size_bytes,
            "whole": self.summary.is_whole,
            "problem": self.problem,
        })
    }

    fn columns(&self) -> [String; 7] {
        let aliases: String = self
            .aliases
            .iter()
            .map(|name| format!(" = {name}"))
            .collect();
        // How a program ended says more than that its recording ended well.
        let mut verdict = match (&self.program_end, self.verdict) {
            (Some(end), Verdict::CleanExit) => end.words.clone(),
            (Some(end), verdict) => format!("{verdict}, {}", end.words),
            (None, verdict) => verdict.to_string(),
        };
        if self.state == "collecting" {
            verdict += " (collecting)";
        }
        [
            format!("{}{aliases}", self.name),
            verdict,
            self.when_ns.map_or("-".to_owned(), units::wall_clock),
            units::span(self.summary.span),
            self.summary.events.to_string(),
            self.summary.lost.to_string(),
            units::size(self.size_bytes),
        ]
    }

    /// What does not fit the columns.
    fn remark(&self) -> Option<String> {
        match &self.problem {
            Some(problem) => Some(problem.clone()),
            None if !self.summary.is_whole => Some("damaged, see outlive check".to_owned()),
            None => None,
        }
    }
}

fn ended(view: &View) -> Verdict {
    Verdict::of_ended(view.run.as_ref(), &outlive_trace::verdict::boot_id())
}

const TITLES: [&str; 7] = ["NAME", "VERDICT", "WHEN", "SPAN", "EVENTS", "LOST", "SIZE"];

fn write_table(out: &mut impl Write, rows: &[Row]) -> Result<()> {
    let titles = TITLES.map(str::to_owned);
    let cells: Vec<[String; 7]> = std::iter::once(titles)
        .chain(rows.iter().map(Row::columns))
        .collect();
    let mut widths = [0; 7];
    for cell in &cells {
        for (width, text) in widths.iter_mut().zip(cell) {
            *width = (*width).max(text.chars().count());
        }
    }
    let remarks = std::iter::once(None).chain(rows.iter().map(Row::remark));
    for (cell, remark) in cells.iter().zip(remarks) {
        let [name, verdict, when, span, events, lost, size] = cell;
        let [w0, w1, w2, w3, w4, w5, w6] = widths;
        write!(
            out,
            "{name:w0$}  {verdict:w1$}  {when:w2$}  {span:>w3$}  {events:>w4$}  {lost:>w5$}  {size:>w6$}"
        )?;
        match remark {
            Some(remark) => writeln!(out, "  {remark}")?,
            None => writeln!(out)?,
        }
    }
    Ok(())
}

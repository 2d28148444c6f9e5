//! `outlive check`: what can be recovered of a region, what is missing, and why.

use std::io::Write;

use anyhow::Result;
use outlive_ring::{Hole, Missed, Rejected};
use outlive_trace::Verdict;
use outlive_trace::view::{Part, View, ViewCpu};
use serde_json::{Value, json};

use crate::args::{Args, CheckArgs};
use crate::last::where_end_is_told;
use crate::{exit, units};

/// What the check comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Whole,
    Damaged,
    /// There was something, and nothing of it can be recovered.
    Nothing,
}

impl Outcome {
    fn of(view: &View) -> Self {
        match view.is_whole() && view.doubtful() == 0 {
            true => Self::Whole,
            false if view.entries() > 0 => Self::Damaged,
            false => Self::Nothing,
        }
    }

    fn code(self) -> u8 {
        match self {
            Self::Whole => exit::DONE,
            Self::Damaged => exit::FAILED,
            Self::Nothing => exit::USAGE,
        }
    }

    fn word(self) -> &'static str {
        match self {
            Self::Whole => "whole",
            Self::Damaged => "damaged",
            Self::Nothing => "nothing-recoverable",
        }
    }
}

/// Does what the command's arguments say.
pub(crate) fn run(args: &Args, check: &CheckArgs) -> Result<u8> {
    let (target, view) = check.target.open(args)?;
    let verdict = target.verdict(&view);
    let outcome = Outcome::of(&view);
    let mut out = std::io::stdout().lock();
    match check.json {
        true => writeln!(out, "{}", to_json(&view, verdict, outcome))?,
        false => write_text(&mut out, &view, verdict, outcome)?,
    }
    Ok(outcome.code())
}

fn to_json(view: &View, verdict: Verdict, outcome: Outcome) -> Value {
    let cpus: Vec<Value> = view.cpus.iter().map(|cpu| cpu_json(view, cpu)).collect();
    let parts: Vec<Value> = view.parts.iter().map(part_json).collect();
    json!({
        "cpus": cpus,
        "verdict": verdict.word(),
        "outcome": outcome.word(),
        "entries": view.entries(),
        "catalog_damaged": view.catalog_damaged,
        "parts": parts,
        "tail": view.has_tail(),
        "live": view.parts[0].is_live,
    })
}

fn cpu_json(view: &View, cpu: &ViewCpu) -> Value {
    let holes: Vec<Value> = cpu.holes.iter().map(hole_json).collect();
    let (subbufs, sealed) = cpu.subbufs();
    let rejected: Vec<Value> = parts_of(view, cpu)
        .flat_map(|(part, rejected)| rejected.iter().map(move |r| rejected_json(part, r)))
        .collect();
    let damage: Vec<String> = damage_of(view, cpu).collect();
    json!({
        "cpu": cpu.cpu,
        "entries": cpu.entries,
        "bytes": cpu.bytes,
        "holes": holes,
        "rejected": rejected,
        "sealed": sealed,
        "unsealed": subbufs - sealed,
        "doubtful": view.doubtful_of_cpu(cpu),
        "damage": damage,
    })
}

fn hole_json(hole: &Hole) -> Value {
    json!({"after": hole.after, "before": hole.before, "missed": hole.missed.count()})
}

fn rejected_json(part: &str, rejected: &Rejected) -> Value {
    json!({
        "subbuf": rejected.subbuf,
        "reason": rejected.reason.to_string(),
        "kept_in_part": rejected.reason.is_kept(),
        "part": part,
    })
}

fn part_json(part: &Part) -> Value {
    let damage: Vec<String> = part
        .recovery
        .damage
        .iter()
        .map(ToString::to_string)
        .collect();
    json!({"path": part.place.to_string(), "damage": damage})
}

/// The rejected sub-buffers of a CPU in each part, with the part's name.
fn parts_of<'v>(
    view: &'v View,
    cpu: &ViewCpu,
) -> impl Iterator<Item = (&'static str, &'v [Rejected])> {
    let cpu = cpu.cpu as usize;
    view.named_parts()
        .filter_map(move |(name, part)| Some((name, &part.recovery.cpus.get(cpu)?.rejected[..])))
}

/// What is wrong in a CPU's metas.
fn damage_of(view: &View, cpu: &ViewCpu) -> impl Iterator<Item = String> {
    let cpu = cpu.cpu as usize;
    view.parts
        .iter()
        .filter_map(move |part| part.recovery.cpus.get(cpu))
        .flat_map(|cpu| cpu.damage.iter().map(ToString::to_string))
}

fn write_text(out: &mut impl Write, view: &View, verdict: Verdict, outcome: Outcome) -> Result<()> {
    for (name, part) in view.named_parts() {
        let format = part.recovery.geometry.format().versions();
        let by = match part.recovery.is_of_outlive() {
            true => "of outlive",
            false => "of a kernel",
        };
        let now = if part.is_live {
            ", being written now"
        } else {
            ""
        };
        writeln!(
            out,
            "{name} {by} (layout of Linux {format}){now}: {}",
            part.place
        )?;
        for damage in &part.recovery.damage {
            writeln!(out, "  damaged: {damage}")?;
        }
    }
    for cpu in &view.cpus {
        if !(view.has_lanes() && cpu.is_untouched()) {
            write_cpu(out, view, cpu)?;
        }
    }
    if view.catalog_damaged > 0 {
        writeln!(out, "catalog: {} damaged places", view.catalog_damaged)?;
    }
    let end = view
        .run
        .as_ref()
        .map_or_else(String::new, where_end_is_told);
    writeln!(out, "run: {verdict}{end}")?;
    let rejected = view.cpus.iter().flat_map(|cpu| parts_of(view, cpu));
    let rejected = rejected.flat_map(|(_, rejected)| rejected);
    let rejected = rejected.filter(|rejected| !rejected.reason.is_doubt());
    let rejected = rejected.count();
    let doubtful = match view.doubtful() {
        0 => String::new(),
        events => format!(", {} doubtful", units::count(events as usize, "event")),
    };
    let result = match outcome {
        Outcome::Whole => "whole".to_owned(),
        Outcome::Damaged => format!(
            "damaged: {} events kept, {} rejected or cut{doubtful}",
            view.entries(),
            units::count(rejected, "sub-buffer")
        ),
        Outcome::Nothing => "nothing is recoverable".to_owned(),
    };
    Ok(writeln!(out, "{result}")?)
}

fn write_cpu(out: &mut impl Write, view: &View, cpu: &ViewCpu) -> Result<()> {
    let (subbufs, sealed) = cpu.subbufs();
    let unsealed = match subbufs - sealed {
        0 => String::new(),
        n => format!(", {n} of them unsealed"),
    };
    writeln!(
        out,
        "{} {}: {} entries, {} bytes in {}{unsealed}",
        view.buffer_word(),
        cpu.cpu,
        cpu.entries,
        cpu.bytes,
        units::count(subbufs, "sub-buffer")
    )?;
    for damage in damage_of(view, cpu) {
        writeln!(out, "  damaged: {damage}")?;
    }
    match view.doubtful_of_cpu(cpu) {
        0 => {}
        events => writeln!(
            out,
            "  {} doubtful: `show` marks each",
            units::count(events as usize, "event")
        )?,
    }
    for hole in &cpu.holes {
        writeln!(out, "  {}", hole_text(hole, view.clock_in_ns()))?;
    }
    for (part, rejected) in parts_of(view, cpu) {
        let place = if part == "tail" { " of the tail" } else { "" };
        for Rejected { subbuf, reason } in rejected {
            let fate = match reason {
                reason if reason.is_doubt() => "doubtful",
                reason if reason.is_kept() => "cut",
                _ => "rejected",
            };
            writeln!(out, "  sub-buffer {subbuf}{place} {fate}: {reason}")?;
        }
    }
    Ok(())
}

/// `12 events lost between 1.234567 and 1.345678`.
fn hole_text(hole: &Hole, in_ns: bool) -> String {
    let events = match hole.missed {
        Missed::Events(events) => format!("{events} events lost"),
        Missed::Unknown => "an unknown number of events lost".to_owned(),
    };
    let time = |time| units::trace_time(time, in_ns);
    match (hole.after, hole.before) {
        (Some(after), Some(before)) => {
            format!("{events} between {} and {}", time(after), time(before))
        }
        (None, Some(before)) => format!("{events} before {}", time(before)),
        (Some(after), None) => format!("{events} after {}", time(after)),
        (None, None) => events,
    }
}

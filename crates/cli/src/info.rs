//! `outlive info`: who wrote a region, how the run ended, its clocks and its counters.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::io::Write;

use anyhow::Result;
use outlive_ring::extension::Heartbeat;
use outlive_ring::{RunId, RunRecord, RunState};
use outlive_trace::Verdict;
use outlive_trace::view::{Part, View, ViewCpu};
use serde_json::{Value, json};

use crate::args::{Args, InfoArgs};
use crate::last::where_end_is_told;
use crate::{exit, summary, units};

/// Columns of the names before the values.
const NAMES: usize = 14;

/// Does what the command's arguments say.
pub(crate) fn run(args: &Args, info_args: &InfoArgs) -> Result<u8> {
    let (target, view) = info_args.target.open(args)?;
    let info = Info {
        verdict: target.verdict(&view),
        address: target.address(),
        view: &view,
    };
    let mut out = std::io::stdout().lock();
    match info_args.json {
        true => writeln!(out, "{}", info.to_json())?,
        false => info.write(&mut out)?,
    }
    Ok(exit::DONE)
}

struct Info<'v> {
    view: &'v View,
    verdict: Verdict,
    /// Physical address of a region in fixed memory.
    address: Option<u64>,
}

impl Info<'_> {
    /// `@ADDRESS:SIZE`, with which a kernel attaches the ring.
    fn place(&self) -> Option<String> {
        let size = self.view.parts[0].recovery.geometry.size();
        self.address
            .map(|address| format!("@{address:#x}:{size:#x}"))
    }

    /// How much more real time than trace time went by from the first to the last clock pair, in
    /// millionths.
    fn drift_ppm(&self) -> Option<f64> {
        let pairs = &self.view.clock_pairs;
        let (first, last) = (pairs.first()?, pairs.last()?);
        let trace = last.trace.checked_sub(first.trace).filter(|&t| t > 0)? as f64;
        let real = last.realtime_ns as f64 - first.realtime_ns as f64;
        self.view
            .clock_in_ns()
            .then_some((real - trace) / trace * 1e6)
    }

    fn last_time(&self) -> Option<u64> {
        let last_event = self.view.span().map(|(_, last)| last);
        last_event.max(self.view.clock_pairs.last().map(|pair| pair.trace))
    }

    fn time(&self, time: u64) -> String {
        units::trace_time(time, self.view.clock_in_ns())
    }

    fn write(&self, out: &mut impl Write) -> Result<()> {
        for (name, part) in self.view.named_parts() {
            self.write_part(out, part, name)?;
        }
        if let Some(place) = self.place() {
            line(out, "kernel", format_args!("attaches the ring as {place}"))?;
        }
        match &self.view.run {
            Some(run) => self.write_run(out, run)?,
            None => self.write_kernel(out)?,
        }
        self.write_clocks(out)?;
        if let Some(words) = self.view.unevaluated().in_words(&self.view.catalog) {
            line(out, "print formats", words)?;
        }
        for cpu in &self.view.cpus {
            // Lanes are many, and a program with few threads comes to few of them.
            if !(self.view.has_lanes() && cpu.is_untouched()) {
                self.write_cpu(out, cpu)?;
            }
        }
        Ok(())
    }

    fn write_part(&self, out: &mut impl Write, part: &Part, name: &str) -> Result<()> {
        let geometry = &part.recovery.geometry;
        let live = if part.is_live { ", being written" } else { "" };
        line(out, name, format_args!("{}{live}", part.place))?;
        let extension = match &part.recovery.extension {
            Some(layout) => format!(
                ", {} with outlive's extension",
                units::size(layout.area_size())
            ),
            None => ", no extension: unsealed".to_owned(),
        };
        line(
            out,
            "  layout",
            format_args!(
                "Linux {}; ring {}, {} of {} sub-buffers of 4096{extension}",
                geometry.format().versions(),
                units::size(geometry.size()),
                units::count(geometry.nr_cpus() as usize, self.view.buffer_word()),
                geometry.nr_subbufs(),
            ),
        )?;
        match part.recovery.cut_off() {
            Some(damage) => line(out, "  damaged", damage),
            None => Ok(()),
        }
    }

    fn write_run(&self, out: &mut impl Write, run: &RunRecord) -> Result<()> {
        let instance = format!(
            "{} of {} {}, run {} ({})",
            run.instance, run.program, run.version, run.run_sequence, run.run_id
        );
        line(out, "instance", instance)?;
        line(out, "command line", &run.cmdline)?;
        let host = format!(
            "{}, Linux {}, boot {}, pid {}",
            run.host,
            run.kernel,
            RunId(run.boot_id),
            run.pid
        );
        line(out, "host", host)?;
        if !run.source.is_empty() {
            let end = where_end_is_told(run);
            line(out, "source", format_args!("{}{end}", run.source))?;
        }
        line(out, "started", units::wall_clock(run.started_realtime_ns))?;
        let ended = summary::ended_ns(self.view).map_or("-".to_owned(), units::wall_clock);
        let ended = match (self.verdict, run.state) {
            (Verdict::StillRunning, _) => self.verdict.to_string(),
            (_, RunState::Closed) => format!("{}, {ended}", self.verdict),
            _ => format!("{}, last sign of life {ended}", self.verdict),
        };
        line(out, "verdict", ended)?;
        let beat = &self.view.heartbeat;
        let beats = match run.poll_interval_ns {
            // A program looks at no source: it gives a sign of life.
            0 => match beat.max_delay_ns {
                0 => format!("{} so far", beat.polls),
                delay => format!(
                    "{} so far, at most {} apart",
                    beat.polls,
                    units::span(delay)
                ),
            },
            interval => format!(
                "{} looks at the source, at most {} apart (wanted: {})",
                beat.polls,
                units::span(beat.max_delay_ns),
                units::span(interval),
            ),
        };
        let last_beat = match beat.realtime_ns {
            0 => "none".to_owned(),
            time => units::wall_clock(time),
        };
        let dropped = beat.catalog_dropped;
        let beats = format_args!("{last_beat}; {beats}; {dropped} catalog records dropped");
        line(out, "heartbeat", beats)?;
        let write_back = match beat.max_unflushed_ns {
            0 => "left to the kernel".to_owned(),
            age => format!(
                "by the recorder; an event was at most {} old then",
                units::span(age)
            ),
        };
        line(out, "write-back", write_back)
    }

    /// What a kernel noted.
    fn write_kernel(&self, out: &mut impl Write) -> Result<()> {
        let recovery = &self.view.parts[0].recovery;
        let by = without_run(self.view);
        line(out, "verdict", format_args!("{}: {by}", self.verdict))?;
        let Some(scratch) = &recovery.scratch else {
            return line(out, "scratch", "damaged");
        };
        line(
            out,
            "text address",
            format_args!("{:#x}", scratch.text_addr),
        )?;
        for (base, name) in &scratch.modules {
            line(out, "module", format_args!("{base:#x} {name}"))?;
        }
        Ok(())
    }

    fn write_clocks(&self, out: &mut impl Write) -> Result<()> {
        line(out, "trace clock", self.view.clock())?;
        let pairs = &self.view.clock_pairs;
        for pair in pairs
            .first()
            .into_iter()
            .chain(pairs.get(1..).and_then(<[_]>::last))
        {
            line(
                out,
                "clock pair",
                format_args!(
                    "{} is {}, monotonic {}, boottime {}, within {}",
                    self.time(pair.trace),
                    units::wall_clock(pair.realtime_ns),
                    units::trace_time(pair.monotonic_ns, true),
                    units::trace_time(pair.boottime_ns, true),
                    units::span(pair.error_ns),
                ),
            )?;
        }
        if let Some(drift) = self.drift_ppm() {
            line(
                out,
                "drift",
                format_args!(
                    "{drift:+.1} ppm of real time, over {} clock pairs",
                    pairs.len()
                ),
            )?;
        }
        Ok(())
    }

    /// The lines of the kernel's `stats`, and what it does not know.
    fn write_cpu(&self, out: &mut impl Write, cpu: &ViewCpu) -> Result<()> {
        let counters = &cpu.counters;
        let ts = |time: Option<u64>| time.map_or("-".to_owned(), |time| self.time(time));
        let (subbufs, sealed) = cpu.subbufs();
        writeln!(out, "{} {}", self.view.buffer_word(), cpu.cpu)?;
        writeln!(out, "  entries: {}", cpu.entries)?;
        writeln!(out, "  overrun: {}", counters.overrun)?;
        writeln!(out, "  commit overrun: {}", counters.commit_overrun)?;
        writeln!(out, "  bytes: {}", cpu.bytes)?;
        writeln!(out, "  oldest event ts: {}", ts(cpu.oldest))?;
        writeln!(out, "  now ts: {} (last known)", ts(self.last_time()))?;
        writeln!(out, "  dropped events: {}", counters.dropped)?;
        writeln!(out, "  read events: {}", counters.read)?;
        let more = match counters.lost_unknown {
            0 => String::new(),
            times => format!(", and {times} times a number that nobody knows"),
        };
        writeln!(out, "  lost events: {}{more}", counters.lost)?;
        writeln!(
            out,
            "  sub-buffers: {subbufs}, {} of them unsealed",
            subbufs - sealed
        )?;
        match self.view.doubtful_of_cpu(cpu) {
            0 => {}
            events => writeln!(out, "  doubtful events: {events}")?,
        }
        Ok(())
    }

    fn to_json(&self) -> Value {
        let view = self.view;
        let cpus: Vec<Value> = view.cpus.iter().map(|cpu| self.cpu_json(cpu)).collect();
        let parts: Vec<Value> = view
            .parts
            .iter()
            .map(|part| part_json(part, view.hides_addresses()))
            .collect();
        let pairs: Vec<Value> = view
            .clock_pairs
            .iter()
            .map(|pair| {
                json!({
                    "trace": pair.trace,
                    "monotonic_ns": pair.monotonic_ns,
                    "boottime_ns": pair.boottime_ns,
                    "realtime_ns": pair.realtime_ns,
                    "error_ns": pair.error_ns,
                })
            })
            .collect();
        let unevaluated = view.unevaluated();
        let unevaluated = unevaluated.events(&view.catalog);
        json!({
            "verdict": self.verdict.word(),
            "ended_ns": summary::ended_ns(view),
            "parts": parts,
            "address": self.place(),
            "run": view.run.as_ref().map(run_json),
            "heartbeat": view.run.as_ref().map(|_| heartbeat_json(&view.heartbeat)),
            "trace_clock": view.clock(),
            "clock_pairs": pairs,
            "drift_ppm": self.drift_ppm(),
            "last_ts": self.last_time(),
            "unevaluated": unevaluated.collect::<BTreeMap<String, u64>>(),
            "cpus": cpus,
        })
    }

    fn cpu_json(&self, cpu: &ViewCpu) -> Value {
        let counters = &cpu.counters;
        let (subbufs, sealed) = cpu.subbufs();
        json!({
            "cpu": cpu.cpu,
            "entries": cpu.entries,
            "overrun": counters.overrun,
            "commit_overrun": counters.commit_overrun,
            "bytes": cpu.bytes,
            "oldest_event_ts": cpu.oldest,
            "dropped_events": counters.dropped,
            "read_events": counters.read,
            "lost": counters.lost,
            "lost_unknown": counters.lost_unknown,
            "subbufs": subbufs,
            "unsealed": subbufs - sealed,
            "doubtful": self.view.doubtful_of_cpu(cpu),
        })
    }
}

/// Who wrote a region that has no run record.
pub(crate) fn without_run(view: &View) -> &'static str {
    match view.parts[0].recovery.is_of_outlive() {
        true => "an outlive wrote it, and its run record cannot be read",
        false => "a kernel wrote it",
    }
}

fn line(out: &mut impl Write, name: &str, value: impl Display) -> Result<()> {
    Ok(writeln!(out, "{name:NAMES$}{value}")?)
}

fn part_json(part: &Part, hides_addresses: bool) -> Value {
    let geometry = &part.recovery.geometry;
    let scratch = part.recovery.scratch.as_ref().filter(|_| !hides_addresses);
    let modules = |scratch: &outlive_ring::Scratch| -> Vec<Value> {
        let modules = scratch.modules.iter();
        modules
            .map(|(base, name)| json!({"base": base, "name": name}))
            .collect()
    };
    json!({
        "path": part.place.to_string(),
        "live": part.is_live,
        "layout": geometry.format().versions(),
        "ring_bytes": geometry.size(),
        "area_bytes": part.recovery.extension.as_ref().map(|layout| layout.area_size()),
        "cpus": geometry.nr_cpus(),
        "subbufs_per_cpu": geometry.nr_subbufs(),
        "text_address": scratch.map(|scratch| format!("{:#x}", scratch.text_addr)),
        "modules": scratch.map(modules),
    })
}

/// The recorder's last sign of life.
pub(crate) fn heartbeat_json(beat: &Heartbeat) -> Value {
    json!({
        "monotonic_ns": beat.monotonic_ns,
        "boottime_ns": beat.boottime_ns,
        "realtime_ns": beat.realtime_ns,
        "max_delay_ns": beat.max_delay_ns,
        "polls": beat.polls,
        "catalog_dropped": beat.catalog_dropped,
        "max_unflushed_ns": beat.max_unflushed_ns,
        "max_delay_until_ns": beat.max_delay_until_ns,
    })
}

/// Who wrote the region.
pub(crate) fn run_json(run: &RunRecord) -> Value {
    json!({
        "run_id": run.run_id.to_string(),
        "run_sequence": run.run_sequence,
        "boot_id": RunId(run.boot_id).to_string(),
        "pid": run.pid,
        "pid_start_ticks": run.pid_start_ticks,
        "closed": run.state == RunState::Closed,
        "started_realtime_ns": run.started_realtime_ns,
        "closed_realtime_ns": run.closed_realtime_ns,
        "poll_interval_ns": run.poll_interval_ns,
        "host": run.host,
        "program": run.program,
        "version": run.version,
        "instance": run.instance,
        "clock": run.clock,
        "kernel": run.kernel,
        "source": run.source,
        "cmdline": run.cmdline,
    })
}

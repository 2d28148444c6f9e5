//! Perfetto's protocol buffers, which its UI and its trace processor read.
//!
//! A trace is a stream of `TracePacket`s. The kernel's events are in bundles per CPU, in their own
//! messages where Perfetto has such; a program's events are track events. Only what is written of
//! the messages is here, with the field numbers of the public `perfetto_trace.proto` (v59.1).
//!
//! Times are `CLOCK_BOOTTIME` in nanoseconds, which is what readers take them for. They are
//! converted by the clock pairs, which are in the trace too: each is a clock snapshot that also has
//! the source's trace clock, as clock 128 + the source's number. Sources of several boots are put on
//! the wall clock, which then stands in the place of `CLOCK_BOOTTIME`. Without clock pairs, times are
//! those of the trace clock.

mod encode;
mod ftrace;
mod plan;
mod tracks;

use std::io::{self, BufWriter, Write};
use std::path::Path;

use outlive_event::Value;
use outlive_ring::extension::ClockPair;
use outlive_trace::view::{Source, Sources, Timeline, View};

use self::encode::Message;
use self::ftrace::Ftrace;
use self::tracks::Tracks;
use crate::{Error, Exporter, Result, Summary, json, output, spans};

/// `Trace.packet`.
const PACKET: u32 = 1;

/// `TracePacket`.
mod packet {
    pub(super) const FTRACE_EVENTS: u32 = 1;
    pub(super) const PROCESS_TREE: u32 = 2;
    pub(super) const CLOCK_SNAPSHOT: u32 = 6;
    pub(super) const TIMESTAMP: u32 = 8;
    pub(super) const SEQUENCE_ID: u32 = 10;
    pub(super) const TRACK_EVENT: u32 = 11;
    pub(super) const INTERNED_DATA: u32 = 12;
    pub(super) const SEQUENCE_FLAGS: u32 = 13;
    pub(super) const FTRACE_STATS: u32 = 34;
    pub(super) const PREVIOUS_PACKET_DROPPED: u32 = 42;
    pub(super) const SYSTEM_INFO: u32 = 45;
    pub(super) const TRACK_DESCRIPTOR: u32 = 60;
    pub(super) const TRACE_UUID: u32 = 89;
}

/// `BuiltinClock`.
mod clock {
    pub(super) const REALTIME: u64 = 1;
    pub(super) const MONOTONIC: u64 = 3;
    pub(super) const BOOTTIME: u64 = 6;
    /// The first id that traces may use for clocks of their own.
    pub(super) const OWN: u64 = 128;
}

/// The sequence of the packets that belong to no source.
const SEQUENCE: u64 = 1;

fn sequence_of(source: usize) -> u64 {
    SEQUENCE + 1 + source as u64
}

/// Writes Perfetto traces.
#[derive(Debug)]
pub(crate) struct Perfetto;

impl Exporter for Perfetto {
    fn export(&self, sources: &Sources<'_>, out: &Path) -> Result<Summary> {
        let file = output::create(out)?;
        let mut output = Output {
            writer: &mut BufWriter::with_capacity(1 << 20, file),
            message: Message::default(),
        };
        let written = write(&mut output, sources);
        let flushed = written.and_then(|summary| output.writer.flush().map(|()| summary));
        flushed.map_err(Error::io("write", out))
    }

    /// The first pass, if there are spans, finds those that cross.
    fn to_read(&self, sources: &Sources<'_>) -> u64 {
        sources.to_read() * if spans::are_possible(sources) { 2 } else { 1 }
    }
}

fn write(out: &mut Output<'_>, sources: &Sources<'_>) -> io::Result<Summary> {
    let mut summary = Summary::default();
    summary.notes.extend(clock_notes(sources));
    let mut streams = head(out, sources)?;
    let mut events = sources.events();
    while let Some(next) = events.next_event() {
        let time = time(sources, next.source, next.event.time_stamp);
        match &mut streams[next.source] {
            Stream::Kernel(ftrace) => ftrace.add(out, &next, time)?,
            Stream::Program(tracks) => tracks.add(out, &next, time)?,
        }
        summary.count(&next.event);
    }
    for (source, left) in events.left() {
        match &mut streams[source] {
            Stream::Kernel(ftrace) => ftrace.lose(out, left.buffer)?,
            Stream::Program(tracks) => tracks.lose(out)?,
        }
        summary.count_left(left);
    }
    for (stream, source) in streams.iter_mut().zip(sources.sources()) {
        if let Stream::Kernel(ftrace) = stream {
            ftrace.finish(out)?;
            ftrace_stats(out, source.view, Phase::End)?;
        }
    }
    Ok(summary)
}

/// The events of a source on their way out.
#[derive(Debug)]
enum Stream<'v> {
    Kernel(Ftrace<'v>),
    Program(Box<Tracks<'v>>),
}

/// Everything that goes before the events.
fn head<'v>(out: &mut Output<'_>, sources: &'v Sources<'v>) -> io::Result<Vec<Stream<'v>>> {
    if let Some(first) = sources.sources().first() {
        identity(out, first.view)?;
    }
    let unnested = match spans::are_possible(sources) {
        true => spans::unnested(sources),
        false => Default::default(),
    };
    let mut streams = Vec::new();
    for (index, source) in sources.sources().iter().enumerate() {
        clock_snapshots(out, sources, index)?;
        streams.push(if source.view.has_lanes() {
            Stream::Program(Box::new(Tracks::new(out, index, source, &unnested)?))
        } else {
            process_tree(out, source)?;
            ftrace_stats(out, source.view, Phase::Start)?;
            Stream::Kernel(Ftrace::new(source))
        });
    }
    Ok(streams)
}

/// A time of a source's trace clock in the output's clock.
pub(crate) fn time(sources: &Sources<'_>, source: usize, trace: u64) -> u64 {
    match sources.timeline() {
        Timeline::Realtime => sources.time(source, trace),
        // Some have nothing that leads to it.
        Timeline::Trace if sources.sources().len() > 1 => trace,
        _ => sources.boottime(source, trace),
    }
}

/// What is to be said of times that are no nanoseconds.
pub(crate) fn clock_notes(sources: &Sources<'_>) -> Option<String> {
    let [source] = sources.sources() else {
        return None;
    };
    let view = source.view;
    let is_known = view.clock_in_ns() || view.clock_pairs.len() > 1;
    (!is_known).then(|| {
        format!(
            "the trace clock {} counts no nanoseconds: readers take its numbers for them",
            view.clock()
        )
    })
}

/// A list as JSON, a floating-point number with the digits that tell it from its neighbours.
fn as_text(value: Value<'_>) -> String {
    match value {
        // Also those that are no JSON numbers: inf, NaN.
        Value::Float(value) => format!("{value:?}"),
        other => json::to_json(other).to_string(),
    }
}

/// Where packets go.
struct Output<'w> {
    writer: &'w mut dyn Write,
    /// The packet that is being written.
    message: Message,
}

impl Output<'_> {
    fn packet(&mut self, write: impl FnOnce(&mut Message)) -> io::Result<()> {
        self.message.clear();
        self.message.message(PACKET, write);
        self.writer.write_all(self.message.as_bytes())
    }
}

/// What was traced: `TraceUuid`, `SystemInfo`.
fn identity(out: &mut Output<'_>, view: &View) -> io::Result<()> {
    if let Some(run) = &view.run {
        let id = u128::from_be_bytes(run.run_id.0);
        out.packet(|packet| {
            packet.message(packet::TRACE_UUID, |out| {
                out.int(1, (id >> 64) as i64);
                out.int(2, id as i64);
            });
        })?;
    }
    let kernel = view.catalog.kernel();
    let release = kernel.map(|kernel| kernel.release.as_str());
    let release = release.or(view.run.as_ref().map(|run| run.kernel.as_str()));
    out.packet(|packet| {
        packet.message(packet::SYSTEM_INFO, |out| {
            out.message(1, |utsname| {
                utsname.text(1, b"Linux");
                if let Some(kernel) = kernel {
                    utsname.text(2, kernel.version.as_bytes());
                    utsname.text(4, kernel.machine.as_bytes());
                }
                if let Some(release) = release {
                    utsname.text(3, release.as_bytes());
                }
            });
            out.text(4, concat!("outlive ", env!("CARGO_PKG_VERSION")).as_bytes());
            if let Some(run) = &view.run {
                out.text(17, run.host.as_bytes());
            }
            if !view.has_lanes() {
                out.uint(8, view.cpus.len() as u64);
            }
        });
    })
}

/// A `ClockSnapshot` per clock pair.
fn clock_snapshots(out: &mut Output<'_>, sources: &Sources<'_>, index: usize) -> io::Result<()> {
    for pair in &sources.sources()[index].view.clock_pairs {
        let boottime = time(sources, index, pair.trace);
        let is_one_boot = sources.timeline() != Timeline::Realtime;
        out.packet(|packet| {
            packet.uint(packet::TIMESTAMP, boottime);
            packet.uint(packet::SEQUENCE_ID, SEQUENCE);
            packet.message(packet::CLOCK_SNAPSHOT, |out| {
                for (clock, value) in clocks(index, pair, boottime, is_one_boot) {
                    out.message(1, |out| {
                        out.uint(1, clock);
                        out.uint(2, value);
                    });
                }
                out.uint(2, clock::BOOTTIME);
            });
        })?;
    }
    Ok(())
}

/// The clocks of a snapshot. Other boots have another monotonic clock, so it is left out then.
fn clocks(
    index: usize,
    pair: &ClockPair,
    boottime: u64,
    is_one_boot: bool,
) -> impl Iterator<Item = (u64, u64)> {
    let monotonic = is_one_boot.then_some((clock::MONOTONIC, pair.monotonic_ns));
    let always = [
        (clock::BOOTTIME, boottime),
        (clock::REALTIME, pair.realtime_ns),
        (clock::OWN + index as u64, pair.trace),
    ];
    always.into_iter().chain(monotonic)
}

/// The names of tasks. One whose thread group is not known is said to be a process of its own:
/// Perfetto has no other place for its name.
fn process_tree(out: &mut Output<'_>, source: &Source<'_>) -> io::Result<()> {
    let tasks = source.view.catalog.tasks();
    let mut names: Vec<(i32, &[u8])> = tasks.iter().filter(|(pid, _)| *pid > 0).collect();
    names.sort_unstable();
    if names.is_empty() {
        return Ok(());
    }
    out.packet(|packet| {
        packet.uint(packet::SEQUENCE_ID, SEQUENCE);
        packet.message(packet::PROCESS_TREE, |out| {
            for &(pid, name) in &names {
                match tasks.tgid(pid) {
                    Some(tgid) if tgid != pid => out.message(2, |thread| {
                        thread.int(1, pid.into());
                        thread.text(2, name);
                        thread.int(3, tgid.into());
                    }),
                    _ => out.message(1, |process| {
                        process.int(1, pid.into());
                        process.text(3, name);
                        process.uint(9, 1);
                    }),
                }
            }
        });
    })
}

/// `FtraceStats.phase`. Readers take the difference between both.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Start = 1,
    End = 2,
}

fn ftrace_stats(out: &mut Output<'_>, view: &View, phase: Phase) -> io::Result<()> {
    out.packet(|packet| {
        packet.uint(packet::SEQUENCE_ID, SEQUENCE);
        packet.message(packet::FTRACE_STATS, |out| {
            out.uint(1, phase as u64);
            for cpu in &view.cpus {
                let at_end = |value: u64| if phase == Phase::End { value } else { 0 };
                let counters = &cpu.counters;
                out.message(2, |out| {
                    out.uint(1, cpu.cpu.into());
                    out.uint(2, at_end(cpu.entries));
                    out.uint(3, at_end(counters.overrun));
                    out.uint(4, at_end(counters.commit_overrun));
                    out.uint(8, at_end(counters.dropped + counters.lost));
                    out.uint(9, at_end(counters.read));
                });
            }
        });
    })
}

//! The Common Trace Format: a folder with a file per buffer and a file `metadata` that describes them.
//!
//! CTF 1.8 and CTF 2 have the same files of events and differ in the metadata. Each source is a
//! stream class, each of its buffers a stream. Where events are missing, a packet ends, and the next
//! one's count of discarded events tells how many; where nobody counted them, it grows by one.

mod json;
mod layout;
mod tsdl;

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use outlive_event::{Catalog, event_id, pid};
use outlive_ring::Missed;
use outlive_trace::view::{SourceEvent, Sources, Timeline, View};

use self::layout::EventClass;
use crate::{Error, Exporter, Result, Summary};

/// Begins each packet.
const MAGIC: u32 = 0xc1fc_1fc1;
/// Bytes of what goes before a packet's events: packet header and packet context.
const PACKET_HEAD: usize = 12 + 40;
/// Bytes of events from which on a packet is written: what is kept in memory per buffer.
const PACKET_SIZE: usize = 32 << 10;
const NS_PER_S: u64 = 1_000_000_000;

/// Writes a folder.
#[derive(Debug)]
pub(crate) enum Ctf {
    /// CTF 1.8.
    V1,
    /// CTF 2.
    V2,
}

impl Exporter for Ctf {
    fn export(&self, sources: &Sources<'_>, out: &Path) -> Result<Summary> {
        let mut writer = Writer::new(sources, out);
        let summary = writer.events(sources);
        let summary = summary.map_err(Error::io("write a stream of", out))?;
        let info = TraceInfo::of(sources);
        let metadata = match self {
            Self::V1 => tsdl::metadata(&info, &writer.classes),
            Self::V2 => json::metadata(&info, &writer.classes),
        };
        std::fs::write(out.join("metadata"), metadata).map_err(Error::io("write", out))?;
        Ok(summary)
    }
}

/// What is said of the trace as a whole.
#[derive(Debug)]
struct TraceInfo {
    /// The first source's run.
    uuid: Option<[u8; 16]>,
    environment: Vec<(&'static str, String)>,
    clock: Clock,
}

impl TraceInfo {
    fn of(sources: &Sources<'_>) -> Self {
        let view = sources.sources().first().map(|source| source.view);
        let mut environment = vec![
            ("tracer_name", "outlive".to_owned()),
            ("tracer_version", env!("CARGO_PKG_VERSION").to_owned()),
            ("sysname", "Linux".to_owned()),
        ];
        if let Some(kernel) = view.and_then(|view| view.catalog.kernel()) {
            environment.push(("kernel_release", kernel.release.clone()));
            environment.push(("kernel_version", kernel.version.clone()));
        }
        let run = view.and_then(|view| view.run.as_ref());
        if let Some(run) = run {
            environment.push(("hostname", run.host.clone()));
            environment.push(("instance", run.instance.clone()));
        }
        let names: Vec<&str> = sources.sources().iter().map(|s| s.name.as_str()).collect();
        environment.push(("sources", names.join(" ")));
        Self {
            uuid: run.map(|run| run.run_id.0),
            environment,
            clock: Clock::of(sources.timeline(), view),
        }
    }
}

/// The clock of the time stamps.
#[derive(Debug)]
struct Clock {
    description: String,
    /// Cycles per second.
    frequency: u64,
    /// Nanoseconds since 1970 at its zero; 0 if that is not known.
    zero_ns: i128,
    /// Whether it is known.
    is_absolute: bool,
}

impl Clock {
    fn of(timeline: Timeline, view: Option<&View>) -> Self {
        let pairs = view.map_or(&[][..], |view| &view.clock_pairs);
        let first = pairs.first().copied().unwrap_or_default();
        let (description, frequency, time) = match timeline {
            Timeline::Realtime => ("CLOCK_REALTIME".to_owned(), NS_PER_S, first.realtime_ns),
            Timeline::Monotonic => ("CLOCK_MONOTONIC".to_owned(), NS_PER_S, first.monotonic_ns),
            Timeline::Trace => {
                let name = view.map_or("", View::clock);
                let frequency = view.map_or(NS_PER_S, frequency);
                (format!("trace clock {name}"), frequency, first.trace)
            }
        };
        let passed = i128::from(time) * i128::from(NS_PER_S) / i128::from(frequency);
        Self {
            description,
            frequency,
            zero_ns: i128::from(first.realtime_ns) - passed,
            is_absolute: !pairs.is_empty(),
        }
    }

    /// Seconds and cycles from 1970 to its zero.
    fn offset(&self) -> (i64, u64) {
        let ns = i128::from(NS_PER_S);
        let seconds = self.zero_ns.div_euclid(ns) as i64;
        let cycles = self.zero_ns.rem_euclid(ns) * i128::from(self.frequency) / ns;
        (seconds, cycles as u64)
    }
}

/// Cycles of the trace clock per second: by its clock pairs, if it counts no nanoseconds.
fn frequency(view: &View) -> u64 {
    let (Some(first), Some(last)) = (view.clock_pairs.first(), view.clock_pairs.last()) else {
        return NS_PER_S;
    };
    let cycles = u128::from(last.trace.saturating_sub(first.trace)) * u128::from(NS_PER_S);
    let passed = u128::from(last.monotonic_ns.saturating_sub(first.monotonic_ns));
    match (view.clock_in_ns(), cycles.checked_div(passed)) {
        (false, Some(frequency @ 1..)) => frequency as u64,
        _ => NS_PER_S,
    }
}

/// What is written of a source.
#[derive(Debug)]
struct StreamClass<'v> {
    catalog: &'v Catalog,
    has_lanes: bool,
    /// The events that occur, by id.
    events: BTreeMap<u16, EventClass<'v>>,
}

impl<'v> StreamClass<'v> {
    fn buffer_word(&self) -> &'static str {
        if self.has_lanes { "lane" } else { "cpu_id" }
    }

    fn events(&self) -> impl Iterator<Item = (u16, &EventClass<'v>)> {
        self.events.iter().map(|(&id, class)| (id, class))
    }

    /// A task's name, never empty: babeltrace2 2.0.4 shows an earlier text where one is empty.
    fn comm(&self, pid: i32) -> &[u8] {
        let known = self.catalog.tasks().comm(pid);
        let unknown: &[u8] = if pid == 0 { b"<idle>" } else { b"<...>" };
        known.filter(|comm| !comm.is_empty()).unwrap_or(unknown)
    }

    /// Appends an event. Returns how many of its fields are missing.
    fn write(&mut self, out: &mut Vec<u8>, time: u64, payload: &[u8]) -> u64 {
        let id = event_id(payload).unwrap_or_default();
        out.extend_from_slice(&id.to_le_bytes());
        out.extend_from_slice(&time.to_le_bytes());
        let common: [u8; 8] = payload.first_chunk().copied().unwrap_or_default();
        out.extend_from_slice(&common[2..]);
        layout::push_text(out, self.comm(pid(payload).unwrap_or(0)));
        let catalog = self.catalog;
        let class = self.events.entry(id).or_insert_with(|| {
            let format = catalog.event(id);
            format.map_or_else(|| EventClass::unknown(id), EventClass::of)
        });
        class.write(out, payload)
    }
}

/// A buffer's file.
#[derive(Debug)]
struct Stream {
    path: PathBuf,
    class: u32,
    buffer: u32,
    /// The packet that is not written yet: room for its head, then its events.
    packet: Vec<u8>,
    begin: u64,
    end: u64,
    discarded: u64,
    written: u32,
}

impl Stream {
    fn new(path: PathBuf, class: u32, buffer: u32) -> Self {
        Self {
            path,
            class,
            buffer,
            packet: vec![0; PACKET_HEAD],
            begin: 0,
            end: 0,
            discarded: 0,
            written: 0,
        }
    }

    fn is_empty(&self) -> bool {
        self.packet.len() == PACKET_HEAD
    }

    /// Ends the packet, so that the next one can say what is missing between the two.
    fn lose(&mut self, missed: Missed) -> io::Result<()> {
        self.flush()?;
        self.discarded += missed.count().unwrap_or(1);
        Ok(())
    }

    /// Ends the stream with a packet of no events, whose count of discarded ones has grown.
    fn lose_at_end(&mut self, missed: Missed) -> io::Result<()> {
        self.lose(missed)?;
        self.begin = self.end;
        self.write_packet()
    }

    /// Writes the packet, if there are events in it.
    fn flush(&mut self) -> io::Result<()> {
        match self.is_empty() {
            true => Ok(()),
            false => self.write_packet(),
        }
    }

    /// The file is open only here: there may be more buffers than a process may have files.
    fn write_packet(&mut self) -> io::Result<()> {
        self.put_head();
        let mut options = OpenOptions::new();
        let mut file = options.create(true).append(true).open(&self.path)?;
        file.write_all(&self.packet)?;
        self.packet.truncate(PACKET_HEAD);
        self.written = self.written.wrapping_add(1);
        Ok(())
    }

    /// As [`layout::packet_header`] and [`layout::packet_context`] say.
    fn put_head(&mut self) {
        let bits = self.packet.len() as u32 * 8;
        let mut head = Vec::with_capacity(PACKET_HEAD);
        for word in [MAGIC, self.class, self.buffer, bits, bits] {
            head.extend_from_slice(&word.to_le_bytes());
        }
        for word in [self.begin, self.end, self.discarded] {
            head.extend_from_slice(&word.to_le_bytes());
        }
        for word in [self.written, self.buffer] {
            head.extend_from_slice(&word.to_le_bytes());
        }
        self.packet[..PACKET_HEAD].copy_from_slice(&head);
    }
}

#[derive(Debug)]
struct Writer<'v, 'o> {
    out: &'o Path,
    classes: Vec<StreamClass<'v>>,
    /// By source and buffer.
    streams: BTreeMap<(usize, u32), Stream>,
    missing_fields: u64,
    moved_times: u64,
}

impl<'v, 'o> Writer<'v, 'o> {
    fn new(sources: &'v Sources<'_>, out: &'o Path) -> Self {
        let classes = sources.sources().iter().map(|source| StreamClass {
            catalog: &source.view.catalog,
            has_lanes: source.view.has_lanes(),
            events: BTreeMap::new(),
        });
        Self {
            out,
            classes: classes.collect(),
            streams: BTreeMap::new(),
            missing_fields: 0,
            moved_times: 0,
        }
    }

    fn events(&mut self, sources: &Sources<'_>) -> io::Result<Summary> {
        let mut summary = Summary::default();
        let mut events = sources.events();
        while let Some(next) = events.next_event() {
            self.add(&next)?;
            summary.count(&next.event);
        }
        for (source, left) in events.left() {
            match self.streams.get_mut(&(source, left.buffer)) {
                Some(stream) => {
                    stream.lose_at_end(left.missed)?;
                    summary.count_left(left);
                }
                None => summary.note_one_left(&sources.sources()[source], left),
            }
        }
        for stream in self.streams.values_mut() {
            stream.flush()?;
        }
        summary.notes.extend(self.notes());
        Ok(summary)
    }

    fn add(&mut self, next: &SourceEvent<'_>) -> io::Result<()> {
        let key = (next.source, next.event.buffer);
        if !self.streams.contains_key(&key) {
            self.streams.insert(key, self.stream(key));
        }
        let Some(stream) = self.streams.get_mut(&key) else {
            return Ok(());
        };
        if let Some(missed) = next.event.missed {
            stream.lose(missed)?;
        }
        // Readers refuse a stream whose time goes back, as the wall clock's may.
        let time = next.time.max(stream.end);
        self.moved_times += u64::from(time != next.time);
        if stream.is_empty() {
            stream.begin = time;
        }
        stream.end = time;
        let class = &mut self.classes[next.source];
        self.missing_fields += class.write(&mut stream.packet, time, next.event.payload);
        if stream.packet.len() >= PACKET_SIZE {
            stream.flush()?;
        }
        Ok(())
    }

    fn stream(&self, (source, buffer): (usize, u32)) -> Stream {
        let word = if self.classes[source].has_lanes {
            "lane"
        } else {
            "cpu"
        };
        let name = match self.classes.len() {
            1 => format!("{word}{buffer}"),
            _ => format!("{source}_{word}{buffer}"),
        };
        Stream::new(self.out.join(name), source as u32, buffer)
    }

    fn notes(&self) -> impl Iterator<Item = String> {
        let notes = [
            (
                self.missing_fields,
                "fields that their records are too short for are zero",
            ),
            (
                self.moved_times,
                "events have the time of the event before them, which was later",
            ),
        ];
        let notes = notes.into_iter().filter(|(count, _)| *count > 0);
        notes.map(|(count, what)| format!("{count} {what}"))
    }
}

//! A program's own events: a track per thread, spans as slices on it.
//!
//! Slices of a track lie inside each other, and the end of one has no name: it ends the innermost.
//! A thread whose spans end in another order, or where events are missing, has each of its spans on
//! a track of its own, below the thread's.

use std::collections::{HashMap, HashSet};
use std::io;

use outlive_event::{Catalog, EventFormat, Value, pid};
use outlive_trace::view::{Source, SourceEvent};

use super::encode::Message;
use super::{Output, as_text, packet, sequence_of};
use crate::spans::{SpanPart, format_of, span_part};

/// `TrackDescriptor`, `ProcessDescriptor`, `ThreadDescriptor`.
mod descriptor {
    pub(super) const UUID: u32 = 1;
    pub(super) const NAME: u32 = 2;
    pub(super) const PROCESS: u32 = 3;
    pub(super) const THREAD: u32 = 4;
    pub(super) const PARENT_UUID: u32 = 5;
    pub(super) const PID: u32 = 1;
    pub(super) const CMDLINE: u32 = 2;
    pub(super) const PROCESS_NAME: u32 = 6;
    pub(super) const TID: u32 = 2;
    pub(super) const THREAD_NAME: u32 = 5;
}

/// `TrackEvent` and its `DebugAnnotation`.
mod track_event {
    pub(super) const CATEGORY_IIDS: u32 = 3;
    pub(super) const DEBUG_ANNOTATIONS: u32 = 4;
    pub(super) const TYPE: u32 = 9;
    pub(super) const NAME_IID: u32 = 10;
    pub(super) const TRACK_UUID: u32 = 11;
    pub(super) const SLICE_BEGIN: u64 = 1;
    pub(super) const SLICE_END: u64 = 2;
    pub(super) const INSTANT: u64 = 3;
}
mod annotation {
    pub(super) const NAME_IID: u32 = 1;
    pub(super) const BOOL: u32 = 2;
    pub(super) const UINT: u32 = 3;
    pub(super) const INT: u32 = 4;
    pub(super) const DOUBLE: u32 = 5;
    pub(super) const STRING: u32 = 6;
    pub(super) const POINTER: u32 = 7;
}

/// `InternedData`: names that are written once.
mod interned {
    pub(super) const EVENT_CATEGORIES: u32 = 1;
    pub(super) const EVENT_NAMES: u32 = 2;
    pub(super) const DEBUG_ANNOTATION_NAMES: u32 = 3;
    pub(super) const IID: u32 = 1;
    pub(super) const NAME: u32 = 2;
}

/// `TracePacket.sequence_flags`.
const STATE_CLEARED: u64 = 1;
const NEEDS_STATE: u64 = 2;

/// The events of one source.
#[derive(Debug)]
pub(super) struct Tracks<'v> {
    source: usize,
    process: i32,
    catalog: &'v Catalog,
    unnested: HashSet<i32>,
    threads: HashSet<i32>,
    /// Spans on tracks of their own, and their threads.
    open: HashSet<u64>,
    names: Names,
}

impl<'v> Tracks<'v> {
    /// Begins with the descriptor of the process.
    pub(super) fn new(
        out: &mut Output<'_>,
        index: usize,
        source: &Source<'v>,
        unnested: &HashSet<(usize, i32)>,
    ) -> io::Result<Self> {
        let view = source.view;
        let unnested = unnested.iter().filter(|(source, _)| *source == index);
        let this = Self {
            source: index,
            process: view.run.as_ref().map_or(0, |run| run.pid),
            catalog: &view.catalog,
            unnested: unnested.map(|&(_, thread)| thread).collect(),
            threads: HashSet::new(),
            open: HashSet::new(),
            names: Names::default(),
        };
        let cmdline = view.run.as_ref().map_or("", |run| run.cmdline.as_str());
        out.packet(|packet| {
            packet.message(packet::TRACK_DESCRIPTOR, |out| {
                out.uint(descriptor::UUID, this.process_track());
                out.message(descriptor::PROCESS, |out| {
                    out.int(descriptor::PID, this.process.into());
                    out.text(descriptor::CMDLINE, cmdline.as_bytes());
                    out.text(descriptor::PROCESS_NAME, source.name.as_bytes());
                });
            });
            packet.uint(packet::SEQUENCE_ID, sequence_of(this.source));
            packet.uint(packet::SEQUENCE_FLAGS, STATE_CLEARED);
        })?;
        Ok(this)
    }

    /// Tracks are numbered: source, kind, number.
    fn process_track(&self) -> u64 {
        (self.source as u64 + 1) << 48
    }

    fn thread_track(&self, thread: i32) -> u64 {
        self.process_track() | 1 << 40 | u64::from(thread as u32)
    }

    /// Ids of spans count from 1 in each run.
    fn span_track(&self, span: u64) -> u64 {
        self.process_track() | 1 << 47 | span & ((1 << 47) - 1)
    }

    /// Adds an event at `time`, in nanoseconds of the output's clock.
    pub(super) fn add(
        &mut self,
        out: &mut Output<'_>,
        next: &SourceEvent<'_>,
        time: u64,
    ) -> io::Result<()> {
        let payload = next.event.payload;
        if next.event.missed.is_some() {
            self.lose(out)?;
        }
        let thread = pid(payload).unwrap_or(0);
        if self.threads.insert(thread) {
            self.describe_thread(out, thread)?;
        }
        let format = format_of(self.catalog, payload);
        let (kind, track) = self.place(out, thread, format, payload)?;
        let id = outlive_event::event_id(payload).unwrap_or_default();
        let mut interned = Message::default();
        let mut event = Message::default();
        event.uint(track_event::TYPE, kind);
        event.uint(track_event::TRACK_UUID, track);
        if kind != track_event::SLICE_END {
            let (category, name) = self.names.event(&mut interned, id, format);
            event.uint(track_event::CATEGORY_IIDS, category);
            event.uint(track_event::NAME_IID, name);
        }
        match format {
            Some(format) => self.annotate(&mut interned, &mut event, format, payload),
            None => {
                let name = self.names.field(&mut interned, "record");
                annotate(&mut event, name, Value::Opaque(payload));
            }
        }
        out.packet(|packet| {
            packet.uint(packet::TIMESTAMP, time);
            packet.uint(packet::SEQUENCE_ID, sequence_of(self.source));
            packet.uint(packet::SEQUENCE_FLAGS, NEEDS_STATE);
            if !interned.is_empty() {
                packet.bytes(packet::INTERNED_DATA, interned.as_bytes());
            }
            packet.bytes(packet::TRACK_EVENT, event.as_bytes());
        })
    }

    fn annotate(
        &mut self,
        interned: &mut Message,
        event: &mut Message,
        format: &EventFormat,
        payload: &[u8],
    ) {
        for (name, value) in format.values(payload) {
            annotate(event, self.names.field(interned, name), value);
        }
        if format.is_cut(payload) {
            annotate(event, self.names.field(interned, "cut"), Value::Bool(true));
        }
    }

    /// The type of the track event and its track.
    fn place(
        &mut self,
        out: &mut Output<'_>,
        thread: i32,
        format: Option<&EventFormat>,
        payload: &[u8],
    ) -> io::Result<(u64, u64)> {
        let on_thread = self.thread_track(thread);
        let is_nested = !self.unnested.contains(&thread);
        let part = format.and_then(|format| Some((format, span_part(format, payload)?)));
        Ok(match part {
            Some((_, SpanPart::Begin(_))) if is_nested => (track_event::SLICE_BEGIN, on_thread),
            Some((_, SpanPart::End(_))) if is_nested => (track_event::SLICE_END, on_thread),
            Some((format, SpanPart::Begin(id))) => {
                self.open.insert(id);
                self.describe_span(out, on_thread, id, &format.name)?;
                (track_event::SLICE_BEGIN, self.span_track(id))
            }
            Some((_, SpanPart::End(id))) if self.open.remove(&id) => {
                (track_event::SLICE_END, self.span_track(id))
            }
            // The beginning is not there any more.
            _ => (track_event::INSTANT, on_thread),
        })
    }

    fn describe_thread(&self, out: &mut Output<'_>, thread: i32) -> io::Result<()> {
        let name = self.catalog.tasks().comm(thread);
        out.packet(|packet| {
            packet.message(packet::TRACK_DESCRIPTOR, |out| {
                out.uint(descriptor::UUID, self.thread_track(thread));
                out.uint(descriptor::PARENT_UUID, self.process_track());
                out.message(descriptor::THREAD, |out| {
                    out.int(descriptor::PID, self.process.into());
                    out.int(descriptor::TID, thread.into());
                    if let Some(name) = name {
                        out.text(descriptor::THREAD_NAME, name);
                    }
                });
            });
            packet.uint(packet::SEQUENCE_ID, sequence_of(self.source));
        })
    }

    fn describe_span(
        &self,
        out: &mut Output<'_>,
        parent: u64,
        span: u64,
        name: &str,
    ) -> io::Result<()> {
        out.packet(|packet| {
            packet.message(packet::TRACK_DESCRIPTOR, |out| {
                out.uint(descriptor::UUID, self.span_track(span));
                out.uint(descriptor::PARENT_UUID, parent);
                out.text(descriptor::NAME, name.as_bytes());
            });
            packet.uint(packet::SEQUENCE_ID, sequence_of(self.source));
        })
    }

    /// Says that events are missing here. A reader forgets the names then.
    pub(super) fn lose(&mut self, out: &mut Output<'_>) -> io::Result<()> {
        self.names = Names::default();
        out.packet(|packet| {
            packet.uint(packet::SEQUENCE_ID, sequence_of(self.source));
            packet.uint(packet::SEQUENCE_FLAGS, STATE_CLEARED);
            packet.uint(packet::PREVIOUS_PACKET_DROPPED, 1);
        })
    }
}

fn annotate(event: &mut Message, name: u64, value: Value<'_>) {
    if value == Value::Missing {
        return;
    }
    event.message(track_event::DEBUG_ANNOTATIONS, |out| {
        out.uint(annotation::NAME_IID, name);
        match value {
            Value::Signed(value) => out.int(annotation::INT, value),
            Value::Unsigned(value) => out.uint(annotation::UINT, value),
            Value::Bool(value) => out.uint(annotation::BOOL, value.into()),
            Value::Float(value) => out.double(annotation::DOUBLE, value),
            Value::Pointer(value) => out.uint(annotation::POINTER, value),
            Value::Text(text) => out.text(annotation::STRING, text),
            other => out.text(annotation::STRING, as_text(other).as_bytes()),
        }
    });
}

/// The names that a reader knows by number.
#[derive(Debug, Default)]
struct Names {
    categories: HashMap<String, u64>,
    events: HashMap<u16, u64>,
    fields: HashMap<String, u64>,
}

impl Names {
    /// The numbers of the category and the name of an event.
    fn event(&mut self, out: &mut Message, id: u16, format: Option<&EventFormat>) -> (u64, u64) {
        let system = format.map_or("unknown", |format| format.system.as_str());
        let category = number_of(
            &mut self.categories,
            system,
            interned::EVENT_CATEGORIES,
            out,
        );
        let next = self.events.len() as u64 + 1;
        let name = *self.events.entry(id).or_insert_with(|| {
            let name = format.map_or_else(|| format!("event {id}"), |f| f.name.clone());
            intern(out, interned::EVENT_NAMES, next, &name);
            next
        });
        (category, name)
    }

    fn field(&mut self, out: &mut Message, name: &str) -> u64 {
        number_of(
            &mut self.fields,
            name,
            interned::DEBUG_ANNOTATION_NAMES,
            out,
        )
    }
}

fn number_of(known: &mut HashMap<String, u64>, name: &str, kind: u32, out: &mut Message) -> u64 {
    if let Some(&number) = known.get(name) {
        return number;
    }
    let number = known.len() as u64 + 1;
    known.insert(name.to_owned(), number);
    intern(out, kind, number, name);
    number
}

fn intern(out: &mut Message, kind: u32, number: u64, name: &str) {
    out.message(kind, |out| {
        out.uint(interned::IID, number);
        out.text(interned::NAME, name.as_bytes());
    });
}

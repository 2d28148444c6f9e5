//! The events of a view, merged over its CPUs.
//!
//! What is missing before an event that nobody asked for is missing before the next event of its
//! buffer that somebody did; behind the last one, it is [left](MergedEvents::left).

use std::sync::atomic::{AtomicU64, Ordering};

use outlive_ring::layout::SUBBUF_DATA;
use outlive_ring::subbuf::Position;
use outlive_ring::{Events, Missed};

use super::{Trust, View, ViewCpu, Wanted};

/// One event of a view.
#[derive(Debug, Clone, Copy)]
pub struct ViewEvent<'a> {
    /// CPU that wrote it.
    pub cpu: u32,
    /// The buffer that it is in: that of its CPU, but for a program's own events.
    pub buffer: u32,
    /// True time, in the unit of the trace clock.
    pub time_stamp: u64,
    /// Time as the kernel's text shows it.
    pub text_time_stamp: u64,
    /// What is missing between it and the event before it of its buffer.
    pub missed: Option<Missed>,
    /// What is known of its bytes and time.
    pub trust: Trust,
    /// The trace entry.
    pub payload: &'a [u8],
}

/// What is missing behind the last event of a buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeftOver {
    /// The buffer.
    pub buffer: u32,
    /// How many events.
    pub missed: Missed,
}

impl LeftOver {
    /// In words, of a buffer of `view`.
    #[must_use]
    pub fn in_words(&self, view: &View) -> String {
        let (word, buffer) = (view.buffer_word(), self.buffer);
        let count = match self.missed {
            Missed::Events(count) => format!("{count} events"),
            Missed::Unknown => "events, it is not known how many,".to_owned(),
        };
        format!("{word} {buffer}: {count} are missing behind the last one that was asked for")
    }
}

/// The events of several CPUs in the order of time. A lending iterator: an event is valid until
/// the next one is asked for.
#[derive(Debug)]
pub struct MergedEvents<'v> {
    streams: Vec<CpuStream<'v>>,
    /// Events before this time of the text are left out.
    from: u64,
    /// Events from this time of the text on are left out.
    end: Option<u64>,
    /// Only events that say that they were written on this CPU.
    only_cpu: Option<u32>,
    /// Only these events.
    wanted: Option<&'v Wanted<'v>>,
}

impl<'v> MergedEvents<'v> {
    /// The events of `cpus` whose time in the text is in `range`.
    pub(super) fn new(
        view: &'v View,
        cpus: impl Iterator<Item = &'v ViewCpu>,
        range: (u64, Option<u64>),
        only_cpu: Option<u32>,
    ) -> Self {
        let mut events = Self::around(view, cpus, range, only_cpu);
        for stream in &mut events.streams {
            stream.skip_before(range.0);
        }
        events
    }

    /// As [`MergedEvents::new`], and what shares a sub-buffer with the first of them.
    pub(super) fn around(
        view: &'v View,
        cpus: impl Iterator<Item = &'v ViewCpu>,
        (from, end): (u64, Option<u64>),
        only_cpu: Option<u32>,
    ) -> Self {
        Self {
            streams: cpus.map(|cpu| CpuStream::new(view, cpu, from)).collect(),
            from,
            end,
            only_cpu,
            wanted: None,
        }
    }

    /// What is missing behind the last event of each buffer, once there is no next event: lost
    /// before events that were not asked for, or at the buffer's end.
    pub fn left(&self) -> impl Iterator<Item = LeftOver> {
        self.streams.iter().filter_map(|stream| {
            let at_end = stream.cpu.missed_at_end();
            let is_here = |&(time, _): &(u64, Missed)| {
                time >= self.from && self.end.is_none_or(|end| time < end)
            };
            let at_end = at_end.filter(is_here).map(|(_, missed)| missed);
            Some(LeftOver {
                buffer: stream.cpu.cpu,
                missed: Missed::sum(stream.skipped, at_end)?,
            })
        })
    }

    /// Adds the entries of the sub-buffers that are read to `read`, those among them that nobody asked for
    /// too: how far this is.
    #[must_use]
    pub(super) fn counting(mut self, read: &'v AtomicU64) -> Self {
        for stream in &mut self.streams {
            read.fetch_add(stream.entries_read, Ordering::Relaxed);
            stream.read = Some(read);
        }
        self
    }

    /// Only those that are wanted; all if nothing was selected.
    #[must_use]
    pub fn wanting(mut self, wanted: Option<&'v Wanted<'v>>) -> Self {
        self.wanted = wanted;
        self
    }

    /// The next event.
    pub fn next_event(&mut self) -> Option<ViewEvent<'_>> {
        self.earliest()
            .map(|earliest| self.streams[earliest].take())
    }

    /// The time of the next event in the text.
    pub(super) fn peek_time(&mut self) -> Option<u64> {
        let earliest = self.earliest()?;
        Some(self.streams[earliest].next.as_ref()?.text_time_stamp)
    }

    /// The stream that has the next event, all that is not asked for skipped before it.
    fn earliest(&mut self) -> Option<usize> {
        loop {
            let (time, earliest) = (0..self.streams.len())
                .filter_map(|i| Some((self.streams[i].next.as_ref()?.text_time_stamp, i)))
                .min()?;
            if self.end.is_some_and(|end| time >= end) {
                return None;
            }
            if self.is_asked_for(&self.streams[earliest]) {
                return Some(earliest);
            }
            self.streams[earliest].skip();
        }
    }

    /// Whether the event that a stream has decoded ahead is one of those.
    fn is_asked_for(&self, stream: &CpuStream<'_>) -> bool {
        if self.only_cpu.is_none() && self.wanted.is_none() {
            return true;
        }
        stream.ahead().is_some_and(|event| {
            self.only_cpu.is_none_or(|cpu| event.cpu == cpu)
                && self
                    .wanted
                    .is_none_or(|wanted| wanted.has(event.cpu, event.payload))
        })
    }
}

/// The events of one CPU, one decoded ahead.
#[derive(Debug)]
struct CpuStream<'v> {
    view: &'v View,
    cpu: &'v ViewCpu,
    next_page: usize,
    position: Position,
    size: usize,
    /// Of the page in `buffer`.
    trust: Trust,
    buffer: Box<[u8; SUBBUF_DATA]>,
    /// The buffer of the event that was handed out last, when the next one is on another page.
    taken: Box<[u8; SUBBUF_DATA]>,
    next: Option<Ahead>,
    /// What is missing before events that were skipped since the last one that was handed out.
    skipped: Option<Missed>,
    /// Entries of the sub-buffers that were read.
    entries_read: u64,
    /// Who wants to know them.
    read: Option<&'v AtomicU64>,
}

#[derive(Debug, Clone, Copy)]
struct Ahead {
    time_stamp: u64,
    text_time_stamp: u64,
    missed: Option<Missed>,
    trust: Trust,
    start: usize,
    len: usize,
}

impl<'v> CpuStream<'v> {
    fn new(view: &'v View, cpu: &'v ViewCpu, from: u64) -> Self {
        let first_page = cpu.first_page(from);
        let mut stream = Self {
            view,
            cpu,
            next_page: first_page,
            position: Position::default(),
            size: 0,
            trust: Trust::default(),
            buffer: Box::new([0; SUBBUF_DATA]),
            taken: Box::new([0; SUBBUF_DATA]),
            next: None,
            skipped: None,
            entries_read: 0,
            read: None,
        };
        stream.advance();
        stream
    }

    /// Leaves out what the text shows before `from`.
    fn skip_before(&mut self, from: u64) {
        while self.next.is_some_and(|event| event.text_time_stamp < from) {
            self.next = None;
            self.advance();
        }
    }

    /// The event that was decoded ahead.
    fn ahead(&self) -> Option<ViewEvent<'_>> {
        let event = self.next?;
        let payload = self.buffer.get(event.start..event.start + event.len)?;
        Some(self.view_event(event, payload))
    }

    fn view_event<'b>(&self, event: Ahead, payload: &'b [u8]) -> ViewEvent<'b> {
        ViewEvent {
            cpu: self.view.catalog.cpu(payload).unwrap_or(self.cpu.cpu),
            buffer: self.cpu.cpu,
            time_stamp: event.time_stamp,
            text_time_stamp: event.text_time_stamp,
            missed: event.missed,
            trust: event.trust,
            payload,
        }
    }

    /// Leaves out the event that was decoded ahead, and keeps in mind what is missing before it.
    fn skip(&mut self) {
        if let Some(event) = self.next.take() {
            self.skipped = Missed::sum(self.skipped, event.missed);
        }
        self.advance();
    }

    /// Hands out the event that was decoded ahead, and decodes the next one.
    fn take(&mut self) -> ViewEvent<'_> {
        let mut event = self.next.take().unwrap_or(Ahead {
            time_stamp: 0,
            text_time_stamp: 0,
            missed: None,
            trust: Trust::default(),
            start: 0,
            len: 0,
        });
        event.missed = Missed::sum(self.skipped.take(), event.missed);
        let page = self.next_page;
        self.advance();
        let buffer = if self.next_page == page {
            &self.buffer
        } else {
            &self.taken
        };
        self.view_event(event, &buffer[event.start..event.start + event.len])
    }

    fn advance(&mut self) {
        let mut missed = None;
        let first_page = self.next_page;
        loop {
            let mut events = Events::resume(self.position, &self.buffer[..self.size]);
            // A page whose file was changed since it was judged ends where it does not decode.
            if let Some(Ok(event)) = events.next() {
                let start = event.payload.as_ptr().addr() - self.buffer.as_ptr().addr();
                self.next = Some(Ahead {
                    time_stamp: event.time_stamp,
                    text_time_stamp: event.text_time_stamp,
                    missed,
                    trust: self.trust,
                    start,
                    len: event.payload.len(),
                });
                self.position = events.position();
                return;
            }
            let Some(placed) = self.cpu.pages.get(self.next_page) else {
                self.size = 0;
                return;
            };
            // The event that is being handed out stays where it is; pages without events do not count.
            if self.next_page == first_page {
                std::mem::swap(&mut self.buffer, &mut self.taken);
            }
            self.next_page += 1;
            let entries = u64::from(placed.page.entries);
            self.entries_read += entries;
            if let Some(read) = self.read {
                read.fetch_add(entries, Ordering::Relaxed);
            }
            self.size = self
                .view
                .read_page(self.cpu.cpu, placed, &mut self.buffer)
                .len();
            self.trust = Trust::of(&placed.page);
            let time_stamp = placed.page.time_stamp;
            self.position = Position {
                offset: 0,
                time_stamp,
                text_time_stamp: time_stamp,
            };
            missed = Missed::sum(missed, placed.page.missed);
        }
    }
}

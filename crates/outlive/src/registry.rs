//! Which events there are: what the catalog says of them, and their switches.
//!
//! A format is written into the catalog before the site learns its event's id, so it is there
//! before the first event. Nothing here allocates once the recorder runs, but for an event with a
//! filter: a site may be met for the first time in a signal handler.

#![allow(unsafe_code)]

use std::cell::UnsafeCell;
use std::fmt;
use std::sync::atomic::{AtomicU32, Ordering};

use outlive_event::{
    CatalogRecord, EventFormat, Filter, FilterError, FilterScope, Predicate, Symbols,
};
use outlive_ring::catalog::{CatalogLog, TaskNames};
use outlive_ring::extension::{Heartbeat, Layout, store_clock_pair, switch};
use outlive_ring::{MemoryMut, RawMemory, RunRecord};
use outlive_trace::cmdline::EventToken;

use crate::clock::Clock;
use crate::field::FieldType;
use crate::site::Site;
use crate::{format, system};

/// Time between two clock pairs, in nanoseconds.
const CLOCK_PAIR_NS: u64 = 10_000_000_000;
/// Longest format text; the kernel's own limit for a file that is read in one piece is a page.
const FORMAT_MAX: usize = 8192;
/// The hash of an id that no event has. One event in 2^64 has it too.
const NO_EVENT: u64 = 0;
/// How often a thread looks again at the lock that another one holds, for some microseconds.
const PATIENCE: u32 = 10_000;

/// What is written under the lock.
#[derive(Debug)]
pub(crate) struct Registry {
    log: CatalogLog,
    names: TaskNames,
    /// A hash of each event's system and format, in the order of ids.
    known: Vec<u64>,
    encoded: Vec<u8>,
    /// The events that are switched on from the start.
    enabled: &'static [EventToken],
    /// What events have to match; of several for an event the last one counts.
    filters: Vec<(EventToken, Filter)>,
    /// Each event's filter, in the order of ids.
    compiled: Vec<Option<&'static Predicate>>,
    /// Catalog records that did not fit.
    dropped: u64,
    pulse: Pulse,
    /// The recorder has ended: what a site would learn here is wrong for the next one.
    has_ended: bool,
    pub(crate) run: RunRecord,
}

/// The signs of life and clock pairs so far.
#[derive(Debug, Default)]
struct Pulse {
    beats: u64,
    pairs: u64,
    /// `CLOCK_MONOTONIC` of the last of each.
    last_beat_ns: u64,
    last_pair_ns: u64,
    /// The longest time between two beats, and when it ended.
    max_delay: (u64, u64),
}

impl Registry {
    /// Begins the catalog of a fresh region. `run` is stored by the caller.
    pub(crate) fn new(
        layout: &Layout,
        memory: RawMemory<'static>,
        (enabled, filters): (&'static [EventToken], Vec<(EventToken, Filter)>),
        run: RunRecord,
    ) -> Self {
        Self {
            log: CatalogLog::clear(layout, &memory),
            names: TaskNames::clear(layout, &memory),
            known: Vec::with_capacity(switch::IDS.len()),
            encoded: Vec::with_capacity(FORMAT_MAX + 256),
            enabled,
            filters,
            compiled: Vec::with_capacity(switch::IDS.len()),
            dropped: 0,
            pulse: Pulse::default(),
            has_ended: false,
            run,
        }
    }

    /// Registers a site whose fields have these types. Returns what is wrong with the event's filter:
    /// then all of its events are recorded.
    pub(crate) fn register(
        &mut self,
        layout: &Layout,
        memory: RawMemory<'static>,
        site: &'static Site,
        types: &[FieldType],
    ) -> Option<FilterError> {
        if self.has_ended || site.id().is_some() {
            return None;
        }
        let Some((id, problem)) = self.event(layout, memory, site, types) else {
            self.dropped += 1;
            site.refuse();
            return None;
        };
        let offset = layout.switch(id)?;
        site.set_filter(self.compiled[usize::from(id - switch::IDS.start)]);
        // SAFETY: the byte is one of the region, which is mapped for good.
        unsafe { site.register(id, memory.byte_ptr(offset)) };
        problem
    }

    /// The id of the site's event: that of another site, if the events are the same. `None` if there
    /// are no more ids, or the event has more to say than a format can.
    fn event(
        &mut self,
        layout: &Layout,
        memory: RawMemory<'static>,
        site: &Site,
        types: &[FieldType],
    ) -> Option<(u16, Option<FilterError>)> {
        let (system, name, fields) = site.describe();
        let mut text = Text::new();
        format::write(&mut text, name, 0, fields, types).ok()?;
        let hash = hash(system, text.as_str());
        if let Some(index) = self.known.iter().position(|&known| known == hash) {
            return Some((switch::IDS.start + index as u16, None));
        }
        let id = switch::IDS.start + u16::try_from(self.known.len()).ok()?;
        let switch = layout.switch(id)?;
        let mut text = Text::new();
        format::write(&mut text, name, id, fields, types).ok()?;
        self.append(
            &memory,
            &CatalogRecord::EventFormat {
                system,
                text: text.as_str(),
            },
        );
        let is_on = self.enabled.iter().any(|token| token.matches(system, name));
        memory.write(switch, &[if is_on { 0 } else { switch::OFF }]);
        self.known.push(hash);
        let compiled = self.compile(system, name, text.as_str());
        self.compiled
            .push(compiled.as_ref().ok().copied().flatten());
        Some((id, compiled.err()))
    }

    /// The event's filter, if it has one. Only then something is allocated.
    fn compile(
        &self,
        system: &str,
        name: &str,
        text: &str,
    ) -> Result<Option<&'static Predicate>, FilterError> {
        let mut filters = self.filters.iter().rev();
        let filter = filters.find(|(token, _)| token.matches(system, name));
        let (Some((_, filter)), Ok(event)) = (filter, EventFormat::parse(system, text)) else {
            return Ok(None);
        };
        let scope = FilterScope {
            symbols: &Symbols::default(),
            nr_cpus: u32::from(u16::MAX),
        };
        let predicate = filter.compile(&event, &scope)?;
        Ok(Some(Box::leak(Box::new(predicate))))
    }

    /// Appends a record to the catalog.
    pub(crate) fn append(&mut self, memory: &impl MemoryMut, record: &CatalogRecord<'_>) {
        self.encoded.clear();
        record.encode(&mut self.encoded);
        let kind = record.kind() as u16;
        self.dropped += u64::from(!self.log.append(memory, kind, &self.encoded));
    }

    /// Notes a thread's name.
    pub(crate) fn name_thread(&mut self, memory: &impl MemoryMut, id: u32, name: &[u8]) {
        let len = name
            .iter()
            .position(|&byte| byte == 0)
            .unwrap_or(name.len());
        self.names.store(memory, id.cast_signed(), &name[..len]);
    }

    /// Notes that the process lives, and how the clocks go on. Whether that is due each second: then the
    /// times between are told.
    pub(crate) fn beat(
        &mut self,
        layout: &Layout,
        memory: &impl MemoryMut,
        clock: &Clock,
        is_regular: bool,
    ) {
        let now = outlive_trace::clock::read();
        let pulse = &mut self.pulse;
        let delay = now.monotonic_ns.saturating_sub(pulse.last_beat_ns);
        if is_regular && pulse.beats > 0 && delay > pulse.max_delay.0 {
            pulse.max_delay = (delay, now.realtime_ns);
        }
        pulse.last_beat_ns = now.monotonic_ns;
        pulse.beats += 1;
        let heartbeat = Heartbeat {
            monotonic_ns: now.monotonic_ns,
            boottime_ns: now.boottime_ns,
            realtime_ns: now.realtime_ns,
            max_delay_ns: pulse.max_delay.0,
            max_delay_until_ns: pulse.max_delay.1,
            polls: pulse.beats,
            catalog_dropped: self.dropped,
            ..Heartbeat::default()
        };
        heartbeat.store(layout, memory);
        if now.monotonic_ns.saturating_sub(pulse.last_pair_ns) >= CLOCK_PAIR_NS {
            self.pair(layout, memory, clock);
        }
    }

    /// Stores a clock pair.
    pub(crate) fn pair(&mut self, layout: &Layout, memory: &impl MemoryMut, clock: &Clock) {
        let pair = clock.pair();
        store_clock_pair(layout, memory, self.pulse.pairs, pair);
        self.pulse.pairs += 1;
        self.pulse.last_pair_ns = pair.monotonic_ns;
    }

    /// The recorder ends: no site is registered any more.
    pub(crate) fn end(&mut self, layout: &Layout, memory: &impl MemoryMut, clock: &Clock) {
        self.has_ended = true;
        self.beat(layout, memory, clock, false);
        self.pair(layout, memory, clock);
    }

    /// Another region begins: that of a forked child.
    pub(crate) fn begin_pulse(&mut self, layout: &Layout, memory: &impl MemoryMut, clock: &Clock) {
        self.pulse = Pulse::default();
        self.pair(layout, memory, clock);
    }

    /// In a forked child: an event that another thread of the parent was registering when the process
    /// forked may have a format, and none of its sites an id. Nobody gets that id.
    fn settle_in_child(&mut self) {
        let whole = self.known.len().min(self.compiled.len());
        self.known.truncate(whole);
        self.compiled.truncate(whole);
        if whole < switch::IDS.len() {
            self.known.push(NO_EVENT);
            self.compiled.push(None);
        }
    }

    /// Gives a forked child's region the catalog that this process has.
    pub(crate) fn copy_catalog(&self, layout: &Layout, from: RawMemory<'_>, to: RawMemory<'_>) {
        use outlive_ring::Memory;
        self.log.copy(&from, &to);
        let mut switches = [0; 4096];
        let first = layout.switch(switch::IDS.start);
        if let (Some(first), Some(switches)) = (first, switches.get_mut(..switch::IDS.len())) {
            from.read(first, switches);
            to.write(first, switches);
        }
    }
}

/// FNV-1a of system and format. Of two events of one program that are not the same, one in 2^64
/// would be taken for the other.
fn hash(system: &str, text: &str) -> u64 {
    let bytes = system.bytes().chain([0]).chain(text.bytes());
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// A text in a buffer of its own.
struct Text {
    bytes: [u8; FORMAT_MAX],
    len: usize,
}

impl Text {
    fn new() -> Self {
        Self {
            bytes: [0; FORMAT_MAX],
            len: 0,
        }
    }

    fn as_str(&self) -> &str {
        std::str::from_utf8(&self.bytes[..self.len]).unwrap_or_default()
    }
}

impl fmt::Write for Text {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = self.bytes.get_mut(self.len..self.len + text.len());
        room.ok_or(fmt::Error)?.copy_from_slice(text.as_bytes());
        self.len += text.len();
        Ok(())
    }
}

/// The registry behind a lock that a signal handler may try.
///
/// *Invariant*: the registry is touched only by the thread whose id is in `holder`.
#[derive(Debug)]
pub(crate) struct Locked {
    /// The id of the thread that has the lock; 0 none.
    holder: AtomicU32,
    registry: UnsafeCell<Registry>,
}

// SAFETY: by the invariant one thread at a time touches the registry.
unsafe impl Sync for Locked {}

impl Locked {
    pub(crate) fn new(registry: Registry) -> Self {
        Self {
            holder: AtomicU32::new(0),
            registry: UnsafeCell::new(registry),
        }
    }

    /// Does something with the registry. `None` if this very thread has it, and was interrupted by
    /// the signal handler that we are, or if another one does not let go of it.
    pub(crate) fn with<R>(&self, f: impl FnOnce(&mut Registry) -> R) -> Option<R> {
        let id = system::thread_id();
        let mut patience = PATIENCE;
        // Acquire and release: what the last holder did is seen.
        while let Err(holder) =
            self.holder
                .compare_exchange(0, id, Ordering::Acquire, Ordering::Relaxed)
        {
            patience -= 1;
            if holder == id || patience == 0 {
                return None;
            }
            system::yield_now();
        }
        // SAFETY: we are the holder.
        let result = f(unsafe { &mut *self.registry.get() });
        self.holder.store(0, Ordering::Release);
        Some(result)
    }

    /// Unlocks what another thread of the parent may have held when the process forked. By the only
    /// thread that uses the registry yet.
    pub(crate) fn unlock_in_child(&self) {
        if self.holder.swap(0, Ordering::AcqRel) != 0 {
            self.with(Registry::settle_in_child);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::field::Field;
    use outlive_ring::Geometry;

    fn register(locked: &Locked, layout: &Layout, memory: RawMemory<'static>, site: &'static Site) {
        let types = [u64::TYPE];
        locked.with(|registry| registry.register(layout, memory, site, &types));
    }

    /// The parent's other thread had written the format, and given the id to nobody.
    #[test]
    fn an_id_that_was_being_given_when_the_process_forked_is_nobodys() {
        static BEFORE: Site = Site::new("fork", "before", &["number"]);
        static BEHIND: Site = Site::new("fork", "behind", &["number"]);
        let layout = Layout::new(&Geometry::new(64 << 10, 1).unwrap(), 4096, 0);
        let len = usize::try_from(layout.area_size()).unwrap();
        let words = Vec::leak(vec![0u64; len / 8]);
        // SAFETY: for good, and used by nobody else.
        let memory = unsafe { RawMemory::new(words.as_mut_ptr().cast(), len) };
        let registry = Registry::new(&layout, memory, (&[], Vec::new()), RunRecord::default());
        let locked = Locked::new(registry);
        register(&locked, &layout, memory, &BEFORE);
        locked.with(|registry| registry.known.push(1));
        locked.holder.store(u32::MAX, Ordering::Relaxed);
        locked.unlock_in_child();
        register(&locked, &layout, memory, &BEHIND);
        let first = switch::IDS.start;
        assert_eq!((BEFORE.id(), BEHIND.id()), (Some(first), Some(first + 2)));
    }
}

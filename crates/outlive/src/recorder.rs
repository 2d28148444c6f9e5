//! The recorder: its start, its end, and the way of an event into the region.

#![allow(unsafe_code)]

use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicI32, AtomicPtr, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use outlive_event::{FilterError, Predicate};
use outlive_ring::extension::Layout;
use outlive_ring::{Lanes, RawMemory, Region, RunRecord};
use outlive_trace::cmdline::EventToken;
use outlive_trace::start::close_run;

use crate::background::Background;
use crate::builder::Prepared;
use crate::clock::{Clock, Comparison};
use crate::control::Control;
use crate::encode::{COMMON_BYTES, EVENT_MAX, Values};
use crate::field::FieldType;
use crate::place::Place;
use crate::registry::{Locked, Registry};
use crate::site::{self, OWN, Site};
use crate::system::{self, AtThreadEnd, CpuWord};
use crate::thread::Thread;
use crate::{Builder, Error, Previous};

/// Time between two signs of life.
const BEAT: Duration = Duration::from_secs(1);
/// No event gives a sign of life: a thread does.
const NEVER: u64 = u64::MAX;
/// Events of up to so many bytes are put together in a small buffer.
const SMALL_EVENT: usize = 256;

/// The recorder that events go to.
static CURRENT: AtomicPtr<Inner> = AtomicPtr::new(ptr::null_mut());
/// Recorders that were started so far.
static STARTED: AtomicU32 = AtomicU32::new(0);

/// The program's flight recorder. Events are recorded while it lives; dropping it closes the run
/// cleanly, as does `exit`. Where a panic drops it on its way out of `main`, the run has ended in a
/// crash: recording ends, and the run is not closed.
///
/// A program has one at a time, and [`event!`](crate::event) finds it by itself. What the run before
/// left was kept when it started: [`previous`](Self::previous).
///
/// # Forked children
///
/// A child of `fork` begins a region of its own with its first event: the file beside its parent's
/// with the child's process id behind the name. The parent's next start keeps it as a generation of
/// `NAME.child`. There are 15 such files at most: for a new one the oldest goes whose child has ended.
/// A child that records nothing makes nothing, and cannot end its parent's recording.
#[derive(Debug)]
#[must_use = "recording ends when this is dropped"]
pub struct Recorder {
    inner: &'static Inner,
    previous: Option<Previous>,
}

/// What the recorder consists of. It stays when the recorder ends: a thread may still be inside.
#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) lanes: Lanes<'static, RawMemory<'static>>,
    pub(crate) control: &'static Control,
    pub(crate) registry: Locked,
    pub(crate) layout: Layout,
    pub(crate) clock: Clock,
    /// Where the CPU is read quickly, if it can be.
    cpu_word: Option<CpuWord>,
    /// Tells recorders of one process apart, from 1. A forked child that has a region of its own gets
    /// another one: its threads have to be met again.
    number: AtomicU32,
    /// The events that are switched on from the start.
    enabled: &'static [EventToken],
    /// The process that the region belongs to: the one that started it, or a forked child with a
    /// region of its own.
    pub(crate) process: AtomicU32,
    /// The open files that hold the locks of state and area; -1 when given back.
    pub(crate) locks: [AtomicI32; 2],
    at_thread_end: Option<AtThreadEnd>,
    /// From when on an event that takes the long way gives a sign of life, in the trace clock.
    next_beat_ns: AtomicU64,
    /// What gives signs of life without events.
    heart: OnceLock<Background>,
    /// Where the region lies.
    pub(crate) place: &'static Place,
    /// What the start has left to be done, with the locks.
    background: OnceLock<Background>,
}

impl Recorder {
    /// A recorder for the program `name`: what [`Builder::start`] starts.
    pub fn builder(name: &str) -> Builder {
        Builder::new(name)
    }

    pub(crate) fn start(prepared: Prepared, clock: Comparison) -> Result<Self, Error> {
        let Prepared {
            place,
            run,
            enabled,
            filters,
            overwrite,
            has_heart,
        } = prepared;
        // For good: a thread may be inside of an event when the recorder ends.
        let place: &'static Place = Box::leak(Box::new(place));
        let region: &'static Region<_> = Box::leak(Box::new(place.lay_out()?));
        let layout = *place.layout();
        let clock = clock.end();
        let memory = *region.memory();
        let mut run = RunRecord {
            sequence: run.sequence + 1,
            instance: place.instance().to_owned(),
            clock: clock.name().to_owned(),
            ..run
        };
        // A forked child writes here, and must not allocate.
        run.source.reserve(64);
        run.store(&layout, &memory);
        let enabled: &'static [EventToken] = Vec::leak(enabled);
        let mut registry = Registry::new(&layout, memory, (enabled, filters), run);
        registry.begin_pulse(&layout, &memory, &clock);
        let control = Control::new().map_err(Error::Memory)?;
        let mut lanes = Lanes::open(region, &control.owners, &control.slots, system::barrier());
        lanes.set_overwrite(overwrite);
        let inner = Box::leak(Box::new(Inner {
            lanes,
            control,
            registry: Locked::new(registry),
            layout,
            clock,
            cpu_word: CpuWord::find(),
            number: AtomicU32::new(next_number()),
            enabled,
            process: AtomicU32::new(system::process_id()),
            locks: place.locks().map(AtomicI32::new),
            at_thread_end: at_thread_end(),
            next_beat_ns: AtomicU64::new(0),
            heart: OnceLock::new(),
            place,
            background: OnceLock::new(),
        }));
        inner.install()?;
        if has_heart {
            inner.begin_to_beat();
        }
        if let Some(background) = place.begin_rest() {
            let _ = inner.background.set(background);
        }
        let previous = place.previous();
        Ok(Self { inner, previous })
    }

    /// Waits until that is done which the start has left to a thread of its own: the region that the
    /// run before left on a tmpfs is copied to the state folder, the file for the next start is made, and
    /// generations that are too many are removed. A recorder that ends before leaves it to the next
    /// start, which then takes longer.
    pub fn wait_for_background(&self) {
        if let Some(background) = self.inner.background.get() {
            background.wait();
        }
    }

    /// What the run before left, if it left anything.
    #[must_use]
    pub fn previous(&self) -> Option<&Previous> {
        self.previous.as_ref()
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        // A panic that unwinds out of `main` comes by here: that is no clean exit.
        self.inner.end(!std::thread::panicking());
    }
}

impl Inner {
    fn install(&'static self) -> Result<(), Error> {
        static HANDLERS: std::sync::Once = std::sync::Once::new();
        let this = ptr::from_ref(self).cast_mut();
        // Release: pairs with the acquire of whoever finds it.
        CURRENT
            .compare_exchange(ptr::null_mut(), this, Ordering::Release, Ordering::Relaxed)
            .map_err(|_| Error::AlreadyStarted)?;
        HANDLERS.call_once(|| {
            // Without memory for it: a child holds the locks of its parent until it ends.
            let _ = system::at_fork(crate::fork::in_child);
            system::at_exit(process_exits);
        });
        site::switch_on();
        Ok(())
    }

    /// Ends the recording, in the process that started it, once. The run is closed if that is a clean
    /// exit.
    fn end(&'static self, is_clean: bool) {
        let this = ptr::from_ref(self).cast_mut();
        let is_current = self.process.load(Ordering::Relaxed) == system::process_id()
            && CURRENT
                .compare_exchange(this, ptr::null_mut(), Ordering::AcqRel, Ordering::Relaxed)
                .is_ok();
        if !is_current {
            return;
        }
        if let Some(heart) = self.heart.get() {
            heart.end();
        }
        let memory = self.memory();
        self.registry.with(|registry| {
            site::switch_off();
            registry.end(&self.layout, &memory, &self.clock);
            if is_clean {
                close_run(&mut registry.run, &self.layout, &memory);
            }
        });
        if let Some(background) = self.background.get() {
            background.end();
        }
        self.release();
    }

    /// Gives the locks back: the next start may be made, or the parent has them alone.
    pub(crate) fn release(&self) {
        for lock in &self.locks {
            let descriptor = lock.swap(-1, Ordering::Relaxed);
            if descriptor >= 0 {
                // SAFETY: nobody uses it again: area and lock are never dropped.
                unsafe { system::close(descriptor) };
            }
        }
    }

    pub(crate) fn memory(&self) -> RawMemory<'static> {
        *self.lanes.region().memory()
    }

    /// Records an event if it matches the filter. The first bytes of `event` are filled in here. Whether it
    /// was recorded.
    #[inline(always)]
    pub(crate) fn write(&self, id: u16, event: &mut [u8], filter: Option<&Predicate>) -> bool {
        self.write_quickly(id, event, filter) || self.write_slowly(id, event, filter)
    }

    /// Records an event if nothing else has to be done; says whether it did. Nothing here takes the
    /// event's address, so that a short one need not be in memory.
    #[inline(always)]
    fn write_quickly(&self, id: u16, event: &mut [u8], filter: Option<&Predicate>) -> bool {
        let thread = Thread::current();
        let cpu = self.cpu_word.and_then(CpuWord::read);
        let (Some(clock), Some(cpu)) = (self.clock.quick(), cpu) else {
            return false;
        };
        if thread.recorder.get() != self.number() || filter.is_some() {
            return false;
        }
        put_common(event, id, cpu, thread);
        self.lanes.record_own(&thread.slot, event, clock)
    }

    /// Records an event of a thread whose lane another one has, or that has none, or that needs more
    /// than to be written.
    #[inline(never)]
    pub(crate) fn write_slowly(
        &self,
        id: u16,
        event: &mut [u8],
        filter: Option<&Predicate>,
    ) -> bool {
        let thread = Thread::current();
        if !self.has_region() {
            return false;
        }
        if thread.recorder.get() != self.number() {
            self.meet(thread);
        }
        let cpu = self.cpu_word.and_then(CpuWord::read);
        put_common(event, id, cpu.unwrap_or_else(system::cpu), thread);
        if filter.is_some_and(|filter| !is_wanted(filter, event)) {
            return false;
        }
        let Ok(mut lane) = self.lanes.enter(&thread.slot) else {
            return false;
        };
        // Inside, so that time goes forwards in each lane.
        let now = self.clock.now();
        // A full ring that is not overwritten: counted.
        let is_recorded = lane.writer().record(event, now).is_ok();
        drop(lane);
        if now >= self.next_beat_ns.load(Ordering::Relaxed) {
            self.beat_as_event(now);
        }
        is_recorded
    }

    /// Whether this process has a region: a forked child's begins here, before anything is written,
    /// since until then what is mapped is its parent's.
    fn has_region(&self) -> bool {
        !self.lanes.is_forked() || crate::fork::begin_region(self)
    }

    #[inline(always)]
    fn number(&self) -> u32 {
        self.number.load(Ordering::Relaxed)
    }

    /// The process has another region from now on: that of a forked child.
    pub(crate) fn renumber(&self) {
        self.process.store(system::process_id(), Ordering::Relaxed);
        self.number.store(next_number(), Ordering::Relaxed);
    }

    /// Whether an event that this process has not recorded yet is on from the start.
    fn is_on_from_start(&self, site: &Site) -> bool {
        let (system, name, _) = site.describe();
        let mut tokens = self.enabled.iter();
        site.is_unconditional() || tokens.any(|token| token.matches(system, name))
    }

    /// A thread's first event.
    #[cold]
    fn meet(&self, thread: &Thread) {
        thread.slot.forget();
        thread.id.set(system::thread_id());
        thread.recorder.set(self.number());
        if let Some(at_thread_end) = self.at_thread_end {
            at_thread_end.ask();
        }
        self.registry.with(|registry| {
            let name = system::thread_name();
            registry.name_thread(&self.memory(), thread.id.get(), &name);
        });
    }

    /// Signs of life come from a thread, if the system has one: that nothing happens is not that nobody
    /// lives.
    fn begin_to_beat(&'static self) {
        let beat = || self.beat(true);
        beat();
        if let Some(heart) = Background::every(BEAT, beat) {
            self.next_beat_ns.store(NEVER, Ordering::Relaxed);
            let _ = self.heart.set(heart);
        }
    }

    /// A forked child has no such thread.
    pub(crate) fn beat_with_events(&self) {
        self.next_beat_ns.store(0, Ordering::Relaxed);
    }

    /// Gives a sign of life, if no other event does.
    #[cold]
    fn beat_as_event(&self, now: u64) {
        let due = self.next_beat_ns.load(Ordering::Relaxed);
        let next = now + BEAT.as_nanos() as u64;
        let is_ours = now >= due
            && self
                .next_beat_ns
                .compare_exchange(due, next, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok();
        if is_ours {
            self.beat(false);
        }
    }

    fn beat(&self, is_regular: bool) {
        let memory = self.memory();
        self.registry
            .with(|registry| registry.beat(&self.layout, &memory, &self.clock, is_regular));
    }
}

/// One key for all recorders: a process has 1024 at most.
fn at_thread_end() -> Option<AtThreadEnd> {
    static KEY: OnceLock<Option<AtThreadEnd>> = OnceLock::new();
    *KEY.get_or_init(|| AtThreadEnd::new(thread_ends))
}

fn next_number() -> u32 {
    STARTED.fetch_add(1, Ordering::Relaxed) + 1
}

/// The fields that every event has.
#[inline(always)]
fn put_common(event: &mut [u8], id: u16, cpu: u16, thread: &Thread) {
    // In one piece: a word that was stored in parts is slow to load.
    let common = u64::from(id) | u64::from(cpu) << 16 | u64::from(thread.id.get()) << 32;
    event[..COMMON_BYTES].copy_from_slice(&common.to_le_bytes());
}

fn is_wanted(filter: &Predicate, event: &[u8]) -> bool {
    let cpu = u32::from(u16::from_le_bytes([event[2], event[3]]));
    filter.matches(event, cpu, system::thread_name)
}

/// The recorder that events go to, if there is one.
#[inline]
pub(crate) fn current() -> Option<&'static Inner> {
    // SAFETY: what it points to was leaked. Acquire: pairs with the store of `install`.
    unsafe { CURRENT.load(Ordering::Acquire).as_ref() }
}

extern "C" fn process_exits() {
    if let Some(inner) = current() {
        inner.end(true);
    }
}

unsafe extern "C" fn thread_ends(_: *mut libc::c_void) {
    let thread = Thread::current();
    if let Some(inner) = current()
        && inner.number() == thread.recorder.get()
    {
        inner.lanes.leave(&thread.slot);
    }
    thread.forget();
}

/// Records the event of a site with these values, and says whether it did. Called by the macros, when the
/// site is on.
#[inline]
pub fn record<V: Values>(site: &'static Site, values: &V) -> bool {
    let Some(inner) = current() else {
        return false;
    };
    let Some(id) = site.id().or_else(|| register(inner, site, V::TYPES)) else {
        return false;
    };
    // Known when this is compiled: a buffer that is not larger than it has to be, since it is cleared.
    match V::FIXED_BYTES {
        0..=24 if !V::IS_DYNAMIC => {
            let mut event = [0; 24];
            values.put(&mut event[..V::FIXED_BYTES]);
            let (words, _) = event.as_chunks::<8>();
            let [_, first, second] = [words[0], words[1], words[2]].map(u64::from_le_bytes);
            record_two_words::<V>(inner, id, site, first, second)
        }
        0..=48 if !V::IS_DYNAMIC => record_short::<48, V>(inner, id, site, values),
        _ => record_long(inner, id, site, values),
    }
}

/// Records an event whose own fields come in registers. Not a part of each site: once for each kind of
/// values.
#[inline(never)]
fn record_two_words<V: Values>(
    inner: &Inner,
    id: u16,
    site: &Site,
    first: u64,
    second: u64,
) -> bool {
    let mut event = [0; 24];
    event[8..16].copy_from_slice(&first.to_le_bytes());
    event[16..].copy_from_slice(&second.to_le_bytes());
    record_array::<24, V>(inner, id, site, event)
}

/// Not a part of each site: once for each kind of values.
#[inline(never)]
fn record_short<const MAX: usize, V: Values>(
    inner: &Inner,
    id: u16,
    site: &Site,
    values: &V,
) -> bool {
    let mut event = [0; MAX];
    values.put(&mut event[..V::FIXED_BYTES]);
    record_array::<MAX, V>(inner, id, site, event)
}

#[inline(always)]
fn record_array<const MAX: usize, V: Values>(
    inner: &Inner,
    id: u16,
    site: &Site,
    mut event: [u8; MAX],
) -> bool {
    inner.write_quickly(id, &mut event[..V::FIXED_BYTES], site.filter()) || {
        // A copy: only this one is in memory.
        let mut event = event;
        inner.write_slowly(id, &mut event[..V::FIXED_BYTES], site.filter())
    }
}

#[inline(never)]
fn record_long<V: Values>(inner: &Inner, id: u16, site: &Site, values: &V) -> bool {
    let len = values.event_bytes();
    if len <= SMALL_EVENT {
        put(inner, id, site, values, &mut [0; SMALL_EVENT][..len])
    } else {
        let len = len.min(EVENT_MAX);
        put(inner, id, site, values, &mut [0; EVENT_MAX][..len])
    }
}

#[inline(always)]
fn put<V: Values>(inner: &Inner, id: u16, site: &Site, values: &V, event: &mut [u8]) -> bool {
    values.put(event);
    inner.write(id, event, site.filter())
}

/// Registers a site, and gives its id if the event is to be recorded.
#[cold]
pub(crate) fn register(inner: &Inner, site: &'static Site, types: &[FieldType]) -> Option<u16> {
    // A forked child that records nothing makes no region, and its parent's is not its to write.
    let may_begin = !inner.lanes.is_forked() || inner.is_on_from_start(site);
    if !may_begin || !inner.has_region() {
        return None;
    }
    let done = inner
        .registry
        .with(|registry| registry.register(&inner.layout, inner.memory(), site, types));
    if let Some(Some(problem)) = &done {
        tell_bad_filter(site, problem);
    }
    if done.is_none() {
        // A signal handler has interrupted a registration: there is no format for its event.
        inner.lanes.count_dropped(1);
    }
    site.id()
        .filter(|_| site.is_unconditional() || site.is_enabled())
}

/// A filter that does not fit its event can only be told when the event is known.
fn tell_bad_filter(site: &Site, problem: &FilterError) {
    static BAD_FILTER: Site = Site::new(OWN, "outlive:bad_filter", &["event", "problem"]);
    let (_, name, _) = site.describe();
    record(&BAD_FILTER, &(name, problem.to_string()));
}

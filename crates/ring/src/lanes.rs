//! Many threads writing one region: each per-CPU buffer is a *lane*, and a lane has one writer at
//! a time.
//!
//! A thread owns a lane for as long as it takes to fill half of its sub-buffers, then goes on to the
//! next free one, so that all of the region is used however few threads there are. While it owns a lane
//! it enters it without an atomic read-modify-write: it says so in its own *slot* and then looks
//! whether it still is the owner. Whoever needs a lane when none is free takes one from an owner
//! who is not inside: it changes the owner, has the system put a memory barrier into every running
//! thread, and then looks into the owner's slot. So a thread that is preempted inside its lane is
//! in nobody's way, and no thread ever waits for another.
//!
//! | who | stores | then loads |
//! | --- | --- | --- |
//! | a thread that enters | its slot: inside lane L | the owner of L: still me? |
//! | a thread that takes | the owner of L: nobody | the old owner's slot: inside L? |
//!
//! Between the store and the load there is a full barrier on both sides. That of the thread that
//! enters costs nothing where the system does it for both (`membarrier(2)`); see [`Barrier`].
//!
//! A signal handler that interrupts a thread inside its lane sees that in the slot, and *borrows*
//! another lane for the one event.
//!
//! Owners and slots lie in ordinary memory of the process, never in the region: a crash leaves
//! nothing locked. The memory is such that a forked child sees it wiped with zeros (`madvise(2)`,
//! `MADV_WIPEONFORK`): no lane has an owner and none is free then, so that the child cannot write
//! where its parent does before it has got a region of its own ([`Lanes::restart`]).

use alloc::boxed::Box;
use core::cell::{Cell, UnsafeCell};
use core::sync::atomic::Ordering;

use crate::extension::{Counter, count};
use crate::sync::{AtomicU32, compiler_fence, fence};
use crate::{CpuWriter, MemoryMut, Region};

/// Owner of a lane that nobody has. Not 0, which is what a forked child sees.
const FREE: u32 = u32::MAX;
/// Owner of a lane that is borrowed or being taken: for others it is neither free nor to be taken.
const HELD: u32 = u32::MAX - 1;
/// In a slot: its thread is looking for a lane.
const LOOKING: u32 = u32::MAX;
/// Owners that are asked for their lane before an event is given up.
const ASKED_MAX: usize = 16;

/// What one thread writes to with each event, in cache lines that no other thread's is in: two, since
/// processors fetch them in pairs.
#[derive(Debug)]
#[repr(C, align(128))]
struct Apart<T>(T);

/// Who owns a lane. All zero until the lanes are opened.
#[derive(Debug, Default)]
#[repr(C, align(64))]
pub struct Owner {
    /// [`FREE`], [`HELD`], or the number of a slot.
    owner: AtomicU32,
}

/// What a thread says of itself. All zero until a thread takes the slot; slots are numbered from 1.
#[derive(Debug, Default)]
#[repr(C, align(128))]
pub struct Slot {
    /// 1 when a thread has it.
    taken: AtomicU32,
    /// The lane that its thread is inside of, plus 1; 0 outside. Stored by its thread only.
    inside: AtomicU32,
}

/// A thread's place among the slots, in thread-local memory.
#[derive(Debug, Default)]
pub struct ThreadSlot<'r> {
    /// 0: none yet.
    number: Cell<u32>,
    /// The slot of this number.
    slot: Cell<Option<&'r Slot>>,
    /// The lane that the thread means to own, plus 1; 0 none.
    lane: Cell<u32>,
}

impl<'r> ThreadSlot<'r> {
    /// A thread that has not written yet.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            number: Cell::new(0),
            slot: Cell::new(None),
            lane: Cell::new(0),
        }
    }

    /// Whether the thread has a slot.
    #[must_use]
    pub fn is_taken(&self) -> bool {
        self.number.get() != 0
    }

    /// Forgets the slot: in a forked child it is the parent's.
    pub fn forget(&self) {
        self.lane.set(0);
        self.slot.set(None);
        self.number.set(0);
    }

    fn take(&self, slot: &'r Slot, number: u32) {
        self.number.set(number);
        self.slot.set(Some(slot));
    }
}

/// How the two sides see each other's stores.
#[derive(Debug, Clone, Copy)]
pub enum Barrier {
    /// The thread that takes runs this, which puts a full barrier into all running threads of the
    /// process, and says whether it did; the thread that enters needs none.
    Process(fn() -> bool),
    /// Both run a full barrier.
    Own,
}

/// Why nothing could be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoLane {
    /// Others were inside of all lanes that were tried. Counted as dropped.
    AllBusy,
    /// This process was forked from the one that opened the lanes.
    Forked,
}

/// A per-CPU buffer that threads write.
#[derive(Debug)]
struct Lane<'r, M> {
    /// [`Owner::owner`].
    owner: &'r AtomicU32,
    writer: UnsafeCell<CpuWriter<'r, M>>,
}

/// The writers of a region, for any number of threads.
///
/// *Invariants*
/// 1. Only the thread that is inside a lane touches its writer. A thread is inside while its slot
///    says so and it was the owner after that was visible, or while it has borrowed the lane.
/// 2. An owner other than the thread itself is changed to `HELD` only by compare-and-exchange,
///    and is given to somebody else only when the old owner's slot, looked at behind the barrier,
///    does not say that it is inside this lane.
#[derive(Debug)]
pub struct Lanes<'r, M> {
    region: &'r Region<M>,
    lanes: Box<[Apart<Lane<'r, M>>]>,
    slots: &'r [Slot],
    barrier: Barrier,
    /// Where the next search for a lane begins.
    next: Apart<core::sync::atomic::AtomicU32>,
}

// SAFETY: a writer is touched by one thread at a time (1), with the ordering of acquire and
// release between them; everything else is atomic or not changed.
unsafe impl<M: Sync> Sync for Lanes<'_, M> {}
// SAFETY: nothing in it belongs to a thread.
unsafe impl<M: Sync> Send for Lanes<'_, M> {}

impl<'r, M: MemoryMut> Lanes<'r, M> {
    /// Opens the lanes of a region that was just laid out, one for each of its CPUs. There may be
    /// more `owners` than lanes; both they and the slots are all zero.
    ///
    /// # Panics
    ///
    /// When there are fewer owners than lanes, or no slot.
    #[must_use]
    pub fn open(
        region: &'r Region<M>,
        owners: &'r [Owner],
        slots: &'r [Slot],
        barrier: Barrier,
    ) -> Self {
        let nr_lanes = region.geometry().nr_cpus();
        let owners = &owners[..nr_lanes as usize];
        assert!(!slots.is_empty(), "a thread needs a slot");
        let lane = |(cpu, owner): (u32, &'r Owner)| {
            let writer = UnsafeCell::new(region.writer(cpu)?);
            let owner = &owner.owner;
            Some(Apart(Lane { owner, writer }))
        };
        let lanes = Self {
            region,
            lanes: (0..nr_lanes).zip(owners).filter_map(lane).collect(),
            slots,
            barrier,
            next: Apart(core::sync::atomic::AtomicU32::new(0)),
        };
        lanes.free_all();
        lanes
    }

    /// Begins anew in a forked child, when its own region has been laid out where the parent's
    /// was mapped.
    ///
    /// # Safety
    ///
    /// Owners and slots are wiped, and no other thread of this process is inside `restart`.
    pub unsafe fn restart(&self) {
        for Apart(lane) in &self.lanes {
            // SAFETY: 1: all owners are zero, so nobody is inside any lane nor can get there.
            unsafe { &mut *lane.writer.get() }.restart();
        }
        self.free_all();
    }

    fn free_all(&self) {
        for Apart(lane) in &self.lanes {
            lane.owner.store(FREE, Ordering::Release);
        }
    }

    /// The region.
    pub fn region(&self) -> &'r Region<M> {
        self.region
    }

    /// Whether events are dropped when the ring is full, instead of overwriting the oldest. To be
    /// called before any thread writes.
    pub fn set_overwrite(&mut self, overwrite: bool) {
        for Apart(lane) in &mut self.lanes {
            lane.writer.get_mut().set_overwrite(overwrite);
        }
    }

    /// Records an event in the lane that the thread owns, if nothing else has to be done: what
    /// succeeds nearly always, and is the quickest. `now` is asked for the time inside the lane, so
    /// that time goes forwards there.
    ///
    /// Whether it was; if not, nothing was done, and [`enter`](Self::enter) does it.
    #[inline(always)]
    pub fn record_own(
        &self,
        thread: &ThreadSlot<'r>,
        payload: &[u8],
        now: impl FnOnce() -> u64,
    ) -> bool {
        let Some((slot, lane)) = self.step_inside(thread) else {
            return false;
        };
        // SAFETY: 1: we are inside, until the slot says that we are not.
        let is_recorded = unsafe { &mut *lane.writer.get() }.record_plain(payload, now());
        // Release: pairs with the load of whoever takes the lane.
        slot.inside.store(0, Ordering::Release);
        is_recorded
    }

    /// Goes inside of the lane that the thread means to own, if it does own it and is in none.
    #[inline(always)]
    fn step_inside(&self, thread: &ThreadSlot<'r>) -> Option<(&'r Slot, &Lane<'r, M>)> {
        let slot = thread.slot.get()?;
        let number = thread.lane.get();
        let Apart(lane) = self.lanes.get((number as usize).wrapping_sub(1))?;
        if slot.inside.load(Ordering::Relaxed) != 0 {
            // We are a signal handler.
            return None;
        }
        // Release, as all stores here: whoever takes the lane that we were inside of before may see
        // this one instead of the 0 in between.
        slot.inside.store(number, Ordering::Release);
        match self.barrier {
            Barrier::Process(_) => compiler_fence(Ordering::SeqCst),
            Barrier::Own => fence(Ordering::SeqCst),
        }
        // Acquire: the lane may have been given back to us by somebody who tried to take it.
        if lane.owner.load(Ordering::Acquire) == thread.number.get() {
            return Some((slot, lane));
        }
        slot.inside.store(0, Ordering::Release);
        None
    }

    /// Enters the lane that the thread owns.
    fn enter_own<'l>(&'l self, thread: &'l ThreadSlot<'r>) -> Option<Inside<'l, 'r, M>> {
        let (slot, lane) = self.step_inside(thread)?;
        let own = Some((slot, thread));
        Some(Inside { own, lane })
    }

    /// Enters a lane that nobody else is inside of: the thread's own, or another one.
    ///
    /// # Errors
    ///
    /// See [`NoLane`].
    pub fn enter<'l>(&'l self, thread: &'l ThreadSlot<'r>) -> Result<Inside<'l, 'r, M>, NoLane> {
        if let Some(inside) = self.enter_own(thread) {
            return Ok(inside);
        }
        self.take_slot(thread);
        if let Some(slot) = thread.slot.get()
            && slot.inside.load(Ordering::Relaxed) == 0
        {
            // A signal handler that comes meanwhile borrows its lane.
            slot.inside.store(LOOKING, Ordering::Release);
            let lane = self.obtain(thread.number.get());
            thread.lane.set(lane.map_or(0, |lane| lane as u32 + 1));
            slot.inside.store(0, Ordering::Release);
            if let Some(inside) = self.enter_own(thread) {
                return Ok(inside);
            }
        }
        self.borrow()
    }

    fn slot(&self, number: u32) -> Option<&'r Slot> {
        self.slots.get((number as usize).wrapping_sub(1))
    }

    /// Gives the thread a slot, if it has none and one is free.
    fn take_slot(&self, thread: &ThreadSlot<'r>) {
        // A signal handler comes between the search and the store: its slot is lost to the thread
        // then, and free again when all of them are looked for.
        if thread.is_taken() || self.is_forked() {
            return;
        }
        let take = |(_, slot): &(u32, &Slot)| {
            let result = slot
                .taken
                .compare_exchange(0, 1, Ordering::Acquire, Ordering::Relaxed);
            result.is_ok()
        };
        if let Some((number, slot)) = (1..).zip(self.slots).find(take) {
            thread.take(slot, number);
        }
    }

    /// Gives back a thread's slot and lane, when it ends.
    pub fn leave(&self, thread: &ThreadSlot<'r>) {
        if let Some(Apart(lane)) = self.lanes.get((thread.lane.get() as usize).wrapping_sub(1)) {
            lane.give_up(thread);
        }
        if let Some(slot) = thread.slot.get() {
            thread.forget();
            slot.taken.store(0, Ordering::Release);
        }
    }

    /// A lane of which `number` is the owner now.
    fn obtain(&self, number: u32) -> Option<usize> {
        self.claim_free(number).or_else(|| {
            let lane = self.take()?;
            self.owner(lane).store(number, Ordering::Release);
            Some(lane)
        })
    }

    fn owner(&self, lane: usize) -> &'r AtomicU32 {
        let Apart(lane) = &self.lanes[lane];
        lane.owner
    }

    fn search_order(&self) -> impl Iterator<Item = usize> + use<M> {
        let nr_lanes = self.lanes.len();
        let Apart(next) = &self.next;
        let first = next.fetch_add(1, Ordering::Relaxed) as usize;
        (0..nr_lanes).map(move |i| first.wrapping_add(i) % nr_lanes)
    }

    fn claim_free(&self, number: u32) -> Option<usize> {
        // Acquire: pairs with the release of whoever gave it up.
        let found = self.search_order().find(|&lane| {
            let owner = self.owner(lane);
            owner.load(Ordering::Relaxed) == FREE
                && owner
                    .compare_exchange(FREE, number, Ordering::Acquire, Ordering::Relaxed)
                    .is_ok()
        });
        self.go_on_behind(found)
    }

    /// The next search begins behind the lane that was found: behind lanes whose owners record
    /// nothing all searches would find the same one, and its old events would go long before those of others.
    fn go_on_behind(&self, found: Option<usize>) -> Option<usize> {
        let Apart(next) = &self.next;
        let lane = found?;
        next.store(lane as u32 + 1, Ordering::Relaxed);
        Some(lane)
    }

    /// Takes a lane from an owner who is not inside. The lane is held then.
    fn take(&self) -> Option<usize> {
        let found = self
            .search_order()
            .filter_map(|lane| {
                let old = self.owner(lane).load(Ordering::Relaxed);
                Some((lane, old, self.slot(old)?))
            })
            .take(ASKED_MAX)
            .find_map(|(lane, old, slot)| self.take_from(lane, old, slot).then_some(lane));
        self.go_on_behind(found)
    }

    fn take_from(&self, lane: usize, old: u32, slot: &Slot) -> bool {
        let owner = self.owner(lane);
        if owner
            .compare_exchange(old, HELD, Ordering::Acquire, Ordering::Relaxed)
            .is_err()
        {
            return false;
        }
        let is_ordered = match self.barrier {
            Barrier::Process(barrier) => barrier(),
            Barrier::Own => {
                fence(Ordering::SeqCst);
                true
            }
        };
        // Without the barrier it may be inside whatever its slot says.
        // Acquire: pairs with the stores of the old owner since it left.
        let is_inside = !is_ordered || slot.inside.load(Ordering::Acquire) == lane as u32 + 1;
        if is_inside {
            owner.store(old, Ordering::Release);
        }
        !is_inside
    }

    /// Enters a lane that is given back afterwards.
    fn borrow<'l>(&'l self) -> Result<Inside<'l, 'r, M>, NoLane> {
        if let Some(lane) = self.claim_free(HELD).or_else(|| self.take()) {
            // It is held by us, so nobody else is inside (2) nor gets there.
            let Apart(lane) = &self.lanes[lane];
            return Ok(Inside { own: None, lane });
        }
        if self.is_forked() {
            return Err(NoLane::Forked);
        }
        self.count_dropped(1);
        Err(NoLane::AllBusy)
    }

    /// Whether the memory of owners and slots is that of a forked child, whose own region has not
    /// begun: this one is its parent's.
    #[must_use]
    pub fn is_forked(&self) -> bool {
        // Acquire: pairs with the release of `restart`.
        self.owner(0).load(Ordering::Acquire) == 0
    }

    /// Counts events that could not be written.
    pub fn count_dropped(&self, events: u64) {
        if let Some(layout) = self.region.extension() {
            count(layout, self.region.memory(), 0, Counter::Dropped, events);
        }
    }
}

impl<M> Lane<'_, M> {
    #[cold]
    fn give_up(&self, thread: &ThreadSlot<'_>) {
        thread.lane.set(0);
        let number = thread.number.get();
        let _ = self
            .owner
            .compare_exchange(number, FREE, Ordering::Release, Ordering::Relaxed);
    }
}

/// A lane that a thread is inside of, until this is dropped. To be dropped by the thread that entered.
#[derive(Debug)]
#[must_use = "the lane is left at once"]
pub struct Inside<'l, 'r, M: MemoryMut> {
    /// The thread that owns it, and what says that it is inside; `None` if the lane is borrowed.
    own: Option<(&'r Slot, &'l ThreadSlot<'r>)>,
    lane: &'l Lane<'r, M>,
}

impl<'r, M: MemoryMut> Inside<'_, 'r, M> {
    /// The lane's writer.
    pub fn writer(&mut self) -> &mut CpuWriter<'r, M> {
        // SAFETY: 1 of `Lanes`: we are inside; and `self` is borrowed as long as the writer.
        unsafe { &mut *self.lane.writer.get() }
    }
}

impl<M: MemoryMut> Drop for Inside<'_, '_, M> {
    fn drop(&mut self) {
        let is_next_lanes_turn = self.writer().take_turn();
        let Some((slot, thread)) = self.own else {
            return self.lane.owner.store(FREE, Ordering::Release);
        };
        // Release: pairs with the load of whoever takes the lane.
        slot.inside.store(0, Ordering::Release);
        if is_next_lanes_turn {
            self.lane.give_up(thread);
        }
    }
}

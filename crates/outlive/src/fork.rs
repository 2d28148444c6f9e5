//! The child of a `fork`: a region of its own, in the place of its parent's.
//!
//! The child sees owners and slots wiped, so it cannot write where its parent does. Before it writes
//! anything, with its first event, it makes a file beside its parent's, lays out a region in it, gives it the catalog, and
//! puts the mapping where the parent's was: whatever points into the region stays right. All this
//! without allocating and without a lock of the C library, since the first event may come from a
//! signal handler.

#![allow(unsafe_code)]

use std::fmt::Write;
use std::os::fd::IntoRawFd;
use std::ptr;
use std::sync::atomic::Ordering;

use outlive_ring::{Memory, RawMemory, Region, RunState};
use outlive_trace::beside;

use crate::control::Control;
use crate::recorder::{Inner, current};
use crate::system;
use crate::thread::Thread;

/// The child is making its region, or cannot.
const BEGUN: u32 = 1;
/// It has one.
const READY: u32 = 2;

/// In the child, before `fork` returns: the parent's locks are the parent's alone, and the thread
/// that forked is another one now.
pub(crate) extern "C" fn in_child() {
    Thread::current().forget();
    if let Some(inner) = current() {
        inner.release();
    }
}

/// Makes the child's region. Whether it may record now; of threads that come at the same time, one
/// makes it and the others' events are dropped, and counted there.
#[cold]
pub(crate) fn begin_region(inner: &Inner) -> bool {
    let Control { child, lost, .. } = inner.control;
    match child.compare_exchange(0, BEGUN, Ordering::SeqCst, Ordering::SeqCst) {
        Ok(_) => {}
        Err(READY) => return true,
        Err(_) => {
            lost.fetch_add(1, Ordering::SeqCst);
            // Sequentially consistent on both sides: either we see that it is ready, or it sees our count.
            if child.load(Ordering::SeqCst) == READY {
                count_lost(inner);
            }
            return false;
        }
    }
    inner.registry.unlock_in_child();
    let is_ready = make(inner).is_some_and(|place| place.replace(inner.memory()));
    if is_ready {
        inner.renumber();
        inner.beat_with_events();
        // SAFETY: owners and slots are wiped: that is how we came here; and nobody else is here.
        unsafe { inner.lanes.restart() };
        child.store(READY, Ordering::SeqCst);
        count_lost(inner);
    }
    is_ready
}

/// Counts the events that came while the region was being made.
fn count_lost(inner: &Inner) {
    let lost = inner.control.lost.swap(0, Ordering::SeqCst);
    inner.lanes.count_dropped(lost);
}

/// A mapping of the child's file, not yet where the parent's is.
struct Place {
    address: *mut libc::c_void,
    len: usize,
}

impl Place {
    /// Puts it where the parent's mapping is.
    fn replace(self, parents: RawMemory<'_>) -> bool {
        let to = parents.byte_ptr(0).cast::<libc::c_void>();
        let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
        // SAFETY: the two mappings are as long as each other; that of the parent stays as it is in
        // the parent, and in this process nobody is inside of it.
        let moved = unsafe { libc::mremap(self.address, self.len, self.len, flags, to) };
        moved == to
    }
}

/// Makes the file and everything that is in it.
fn make(inner: &Inner) -> Option<Place> {
    let parents = inner.memory();
    let len = parents.len();
    let file = beside::create_in_child(inner.place.path()?, len as u64)?;
    // It stays open, for the lock.
    let descriptor = file.into_raw_fd();
    inner.locks[0].store(descriptor, Ordering::Relaxed);
    // SAFETY: a new mapping of the file, where the kernel finds room.
    let address = unsafe {
        libc::mmap(
            ptr::null_mut(),
            len,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_SHARED,
            descriptor,
            0,
        )
    };
    if address == libc::MAP_FAILED {
        return None;
    }
    // SAFETY: mapped just now, and used by nobody else.
    let memory = unsafe { RawMemory::new(address.cast(), len) };
    lay_out(inner, memory)?;
    Some(Place { address, len })
}

fn lay_out(inner: &Inner, memory: RawMemory<'_>) -> Option<()> {
    let layout = inner.layout;
    Region::format(memory, *layout.ring(), Some(layout)).ok()?;
    inner.registry.with(|registry| {
        let run = &mut registry.run;
        run.sequence = 1;
        run.state = RunState::Running;
        run.source.clear();
        let _ = write!(run.source, "forked from {}", run.pid);
        run.pid = system::process_id().cast_signed();
        run.pid_start_ticks = 0;
        system::random(&mut run.run_id.0);
        let now = outlive_trace::clock::read();
        run.started_realtime_ns = now.realtime_ns;
        run.started_monotonic_ns = now.monotonic_ns;
        run.started_boottime_ns = now.boottime_ns;
        run.store(&layout, &memory);
        registry.begin_pulse(&layout, &memory, &inner.clock);
        registry.copy_catalog(&layout, inner.memory(), memory);
    })
}

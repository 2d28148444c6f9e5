//! The child of a `fork`: a region of its own, in the place of its parent's.
//!
//! The child sees owners and slots wiped, so it cannot write where its parent does. Before it writes
//! anything, with its first event, it makes a file beside its parent's, lays out a region in it, gives it the catalog, and
//! puts the mapping where the parent's was: whatever points into the region stays right. All this
//! without allocating and without a lock of the C library, since the first event may come from a
//! signal handler.

#![allow(unsafe_code)]

use std::ffi::CStr;
use std::fmt::Write;
use std::os::unix::ffi::OsStrExt;
use std::ptr;
use std::sync::atomic::Ordering;

use outlive_ring::extension::store_clock_pair;
use outlive_ring::{Memory, RawMemory, Region, RunState};

use crate::recorder::{Inner, current};
use crate::system;
use crate::thread::Thread;

/// Longest path of a file (`PATH_MAX`, limits.h).
const PATH_MAX: usize = 4096;
/// The child is making its region.
const BEGUN: u32 = 1;

/// In the child, before `fork` returns: the parent's locks are the parent's alone, and the thread
/// that forked is another one now.
pub(crate) extern "C" fn in_child() {
    Thread::current().forget();
    if let Some(inner) = current() {
        inner.release();
    }
}

/// Makes the child's region. Whether it may record now; of threads that come at the same time, one
/// makes it and the others' events are lost.
#[cold]
pub(crate) fn begin_region(inner: &Inner) -> bool {
    let is_first = inner
        .control
        .child
        .compare_exchange(0, BEGUN, Ordering::Relaxed, Ordering::Relaxed)
        .is_ok();
    if !is_first {
        return false;
    }
    inner.registry.unlock_in_child();
    let Some(place) = make(inner) else {
        return false;
    };
    let is_moved = place.replace(inner.memory());
    if is_moved {
        inner.renumber();
        // SAFETY: owners and slots are wiped: that is how we came here; and nobody else is here.
        unsafe { inner.lanes.restart() };
    }
    is_moved
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
    let descriptor = create(inner, len)?;
    // It stays open, for the lock.
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
        let pair = inner.clock.pair();
        run.started_realtime_ns = pair.realtime_ns;
        run.started_monotonic_ns = pair.monotonic_ns;
        run.started_boottime_ns = pair.boottime_ns;
        run.store(&layout, &memory);
        store_clock_pair(&layout, &memory, 0, pair);
        registry.copy_catalog(&layout, inner.memory(), memory);
    })
}

/// Creates, allocates and locks the file. An older one of that process id is not ours to remove.
fn create(inner: &Inner, len: usize) -> Option<libc::c_int> {
    let mut path = [0; PATH_MAX];
    let path = file_name(inner, &mut path)?;
    let flags = libc::O_CREAT | libc::O_EXCL | libc::O_RDWR | libc::O_CLOEXEC | libc::O_NOFOLLOW;
    // SAFETY: the path ends with a zero.
    let descriptor = unsafe { libc::open(path.as_ptr(), flags, 0o600) };
    if descriptor < 0 {
        return None;
    }
    // Locked before it has a length: until then the parent's next start leaves it alone.
    if lock(descriptor) && allocate(descriptor, len) {
        return Some(descriptor);
    }
    // SAFETY: the path ends with a zero.
    unsafe { libc::unlink(path.as_ptr()) };
    // SAFETY: ours, and not used again.
    unsafe { system::close(descriptor) };
    None
}

fn lock(descriptor: libc::c_int) -> bool {
    // SAFETY: zero is a lock of the whole file, of no process.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    lock.l_type = libc::F_WRLCK as libc::c_short;
    // SAFETY: the lock is as fcntl(2) wants it.
    unsafe { libc::fcntl(descriptor, libc::F_OFD_SETLK, &raw const lock) == 0 }
}

fn allocate(descriptor: libc::c_int, len: usize) -> bool {
    // SAFETY: numbers only.
    libc::off_t::try_from(len)
        .is_ok_and(|len| unsafe { libc::fallocate(descriptor, 0, 0, len) == 0 })
}

/// The parent's file name with the process id behind it.
fn file_name<'b>(inner: &Inner, buffer: &'b mut [u8; PATH_MAX]) -> Option<&'b CStr> {
    let parents = inner.place.path()?.as_os_str().as_bytes();
    let mut digits = Digits::default();
    write!(digits, ".{}", system::process_id()).ok()?;
    let digits = &digits.bytes[..digits.len];
    let end = parents.len() + digits.len();
    buffer.get_mut(..parents.len())?.copy_from_slice(parents);
    buffer.get_mut(parents.len()..end)?.copy_from_slice(digits);
    CStr::from_bytes_until_nul(buffer.get(..=end)?).ok()
}

#[derive(Default)]
struct Digits {
    bytes: [u8; 16],
    len: usize,
}

impl Write for Digits {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        let room = self.bytes.get_mut(self.len..self.len + text.len());
        room.ok_or(std::fmt::Error)?
            .copy_from_slice(text.as_bytes());
        self.len += text.len();
        Ok(())
    }
}

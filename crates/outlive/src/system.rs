//! What the hot path and the handlers ask the system for.

#![allow(unsafe_code)]

use std::io;
use std::mem;
use std::num::NonZeroIsize;

use outlive_ring::Barrier;
use outlive_ring::catalog::TASK_NAME_MAX;

/// `MEMBARRIER_CMD_PRIVATE_EXPEDITED` and its registration (membarrier(2)).
const PRIVATE_EXPEDITED: libc::c_int = 1 << 3;
const REGISTER_PRIVATE_EXPEDITED: libc::c_int = 1 << 4;

/// Where each thread's area for restartable sequences lies, from the thread pointer on: what the CPU is
/// read from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CpuWord(#[cfg_attr(not(target_arch = "x86_64"), expect(dead_code))] NonZeroIsize);

impl CpuWord {
    /// Looks for it: glibc 2.35 and later tell (`__rseq_offset`, `__rseq_size`). Looked up by name, so
    /// that the program still starts with an older one.
    #[cfg(all(target_arch = "x86_64", target_env = "gnu"))]
    pub(crate) fn find() -> Option<Self> {
        // SAFETY: the names end with a zero.
        let find =
            |name: &std::ffi::CStr| unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) };
        let offset: *const isize = find(c"__rseq_offset").cast_const().cast();
        let size: *const u32 = find(c"__rseq_size").cast_const().cast();
        // SAFETY: constants of the C library, of these types; the area's first 8 bytes have the CPU.
        match unsafe { (offset.as_ref(), size.as_ref()) } {
            (Some(&offset), Some(8..)) => NonZeroIsize::new(offset).map(Self),
            _ => None,
        }
    }

    /// Unknown here.
    #[cfg(not(all(target_arch = "x86_64", target_env = "gnu")))]
    pub(crate) fn find() -> Option<Self> {
        None
    }

    /// The CPU that the thread runs on, if the thread has such an area.
    #[inline(always)]
    pub(crate) fn read(self) -> Option<u16> {
        #[cfg(all(target_arch = "x86_64", target_env = "gnu"))]
        {
            let cpu: u32;
            // SAFETY: the thread's own area, which the kernel keeps up to date: `cpu_id` is its second
            // word (rseq(2)).
            unsafe {
                std::arch::asm!(
                    "mov {cpu:e}, dword ptr fs:[{offset} + 4]",
                    offset = in(reg) self.0.get(),
                    cpu = lateout(reg) cpu,
                    options(nostack, readonly, preserves_flags)
                );
            }
            // Of a thread that is not registered the word is below zero.
            u16::try_from(cpu).ok()
        }
        #[cfg(not(all(target_arch = "x86_64", target_env = "gnu")))]
        None
    }
}

/// The CPU that the thread runs on, however long it takes; 0 where the system does not tell.
pub(crate) fn cpu() -> u16 {
    // SAFETY: no arguments, no memory.
    u16::try_from(unsafe { libc::sched_getcpu() }).unwrap_or(0)
}

/// The thread's id.
pub(crate) fn thread_id() -> u32 {
    // SAFETY: no arguments, no memory.
    unsafe { libc::gettid() }.cast_unsigned()
}

/// The process's id, asked for each time: after a fork it is another one.
pub(crate) fn process_id() -> u32 {
    // SAFETY: no arguments, no memory.
    unsafe { libc::getpid() }.cast_unsigned()
}

/// The thread's name, padded with zeros. No allocation.
pub(crate) fn thread_name() -> [u8; TASK_NAME_MAX] {
    let mut name = [0; TASK_NAME_MAX];
    // SAFETY: the buffer has the 16 bytes that are written (PR_GET_NAME, prctl(2)).
    unsafe { libc::prctl(libc::PR_GET_NAME, name.as_mut_ptr()) };
    name
}

/// Fills `bytes` with random ones, or leaves them as they are.
pub(crate) fn random(bytes: &mut [u8]) {
    // SAFETY: the buffer is as long as is said.
    unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), 0) };
}

/// Lets the others have the processor. For a lock that is held for microseconds.
pub(crate) fn yield_now() {
    // SAFETY: no arguments, no memory.
    unsafe { libc::sched_yield() };
}

fn membarrier(command: libc::c_int) -> bool {
    // SAFETY: takes two numbers, touches no memory.
    unsafe { libc::syscall(libc::SYS_membarrier, command, 0) == 0 }
}

/// The cheapest barrier between threads that the system has.
pub(crate) fn barrier() -> Barrier {
    if membarrier(REGISTER_PRIVATE_EXPEDITED) {
        // It may fail later: a filter of system calls forbids it.
        Barrier::Process(|| membarrier(PRIVATE_EXPEDITED))
    } else {
        Barrier::Own
    }
}

/// Calls `handler` in each child of `fork`, in the thread that forked, before `fork` returns.
pub(crate) fn at_fork(handler: extern "C" fn()) -> io::Result<()> {
    // SAFETY: the handler is a function, which is there as long as the process.
    match unsafe { libc::pthread_atfork(None, None, Some(handler)) } {
        0 => Ok(()),
        error => Err(io::Error::from_raw_os_error(error)),
    }
}

/// Calls `handler` at `exit`, in what thread that may be.
pub(crate) fn at_exit(handler: extern "C" fn()) {
    // SAFETY: the handler is a function, which is there as long as the process.
    unsafe { libc::atexit(handler) };
}

/// Something to be called at the end of each thread that asks for it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct AtThreadEnd(libc::pthread_key_t);

impl AtThreadEnd {
    /// `None` if the process has used up its keys.
    pub(crate) fn new(handler: unsafe extern "C" fn(*mut libc::c_void)) -> Option<Self> {
        let mut key = 0;
        // SAFETY: the key is written; the handler is there as long as the process.
        let result = unsafe { libc::pthread_key_create(&raw mut key, Some(handler)) };
        (result == 0).then_some(Self(key))
    }

    /// This thread asks for it.
    pub(crate) fn ask(self) {
        // SAFETY: the key was created; the value is never looked at.
        unsafe { libc::pthread_setspecific(self.0, std::ptr::without_provenance(1)) };
    }
}

/// While it lives, this thread gets no signals, and threads that it starts get none for good.
#[derive(Debug)]
pub(crate) struct SignalsBlocked(libc::sigset_t);

impl SignalsBlocked {
    pub(crate) fn new() -> Self {
        // SAFETY: bits, for which zeros are valid.
        let (mut all, mut before) = unsafe { mem::zeroed::<(libc::sigset_t, libc::sigset_t)>() };
        // SAFETY: the set is written.
        unsafe { libc::sigfillset(&raw mut all) };
        // SAFETY: reads one set and writes the other.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const all, &raw mut before) };
        Self(before)
    }
}

impl Drop for SignalsBlocked {
    fn drop(&mut self) {
        // SAFETY: reads the set that was written when this was made.
        unsafe {
            libc::pthread_sigmask(libc::SIG_SETMASK, &raw const self.0, std::ptr::null_mut())
        };
    }
}

/// Closes a descriptor that nothing will use any more.
///
/// # Safety
///
/// Nobody uses it afterwards, nor closes it.
pub(crate) unsafe fn close(descriptor: libc::c_int) {
    // SAFETY: as the caller promises.
    unsafe { libc::close(descriptor) };
}

/// Memory of our own that a forked child sees wiped, for good.
///
/// # Errors
///
/// When the system has none, or does not wipe (before Linux 4.14).
pub(crate) fn wiped_on_fork<T>(count: usize) -> io::Result<*mut T> {
    let bytes = count * mem::size_of::<T>();
    // SAFETY: a new mapping, where the kernel finds room.
    let address = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            bytes,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
            -1,
            0,
        )
    };
    if address == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the mapping that was just made.
    match unsafe { libc::madvise(address, bytes, libc::MADV_WIPEONFORK) } {
        0 => Ok(address.cast()),
        _ => Err(io::Error::last_os_error()),
    }
}

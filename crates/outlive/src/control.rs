//! The memory in which lanes have their owners and threads their slots.

#![allow(unsafe_code)]

use std::io;
use std::sync::atomic::{AtomicU32, AtomicU64};

use outlive_ring::{Owner, Slot};

use crate::system;

/// Most lanes of a region.
pub(crate) const LANES_MAX: usize = 256;
/// Threads that may own a lane at a time. Further ones borrow one for each event.
const SLOTS: usize = 4096;

/// All zero at first, and again in a forked child.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Control {
    pub(crate) owners: [Owner; LANES_MAX],
    pub(crate) slots: [Slot; SLOTS],
    /// How far this process is with a region of its own, if it was forked.
    pub(crate) child: AtomicU32,
    /// Events that came while another thread made that region.
    pub(crate) lost: AtomicU64,
}

impl Control {
    /// Memory for good.
    pub(crate) fn new() -> io::Result<&'static Self> {
        let memory = system::wiped_on_fork::<Self>(1)?;
        // SAFETY: the memory is there for good, aligned to a page, zero, which atomics may be, and
        // used through this reference only.
        Ok(unsafe { &*memory })
    }
}

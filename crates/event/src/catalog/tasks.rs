//! Names and thread groups by pid.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use super::record::COMM_SIZE;
use crate::record::until_nul;

/// Pids are small and come from the kernel: a multiplication spreads them well enough.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct PidHasher(u64);

impl Hasher for PidHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_u32(u32::from(byte));
        }
    }

    fn write_u32(&mut self, value: u32) {
        let mixed = (self.0 ^ u64::from(value)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 = mixed ^ mixed >> 32;
    }

    fn write_i32(&mut self, value: i32) {
        self.write_u32(value as u32);
    }
}

type PidMap<T> = HashMap<i32, T, BuildHasherDefault<PidHasher>>;

/// What is known of the tasks in a trace.
#[derive(Debug, Default, Clone)]
pub struct Tasks {
    comms: PidMap<[u8; COMM_SIZE]>,
    tgids: PidMap<i32>,
}

impl Tasks {
    /// Notes that `pid` is called `comm`; a later name replaces an earlier one.
    pub fn set_comm(&mut self, pid: i32, comm: &[u8]) {
        let comm = until_nul(comm);
        let len = comm.len().min(COMM_SIZE);
        let mut name = [0; COMM_SIZE];
        name[..len].copy_from_slice(&comm[..len]);
        self.comms.insert(pid, name);
    }

    /// The name of `pid`, without NUL.
    #[inline]
    #[must_use]
    pub fn comm(&self, pid: i32) -> Option<&[u8]> {
        self.padded_comm(pid).map(|name| until_nul(name))
    }

    /// The name of `pid`, padded with NULs.
    #[inline]
    pub(crate) fn padded_comm(&self, pid: i32) -> Option<&[u8; COMM_SIZE]> {
        self.comms.get(&pid)
    }

    /// Notes that thread `pid` belongs to the group `tgid`.
    pub fn set_tgid(&mut self, pid: i32, tgid: i32) {
        self.tgids.insert(pid, tgid);
    }

    /// The group of thread `pid`.
    #[must_use]
    pub fn tgid(&self, pid: i32) -> Option<i32> {
        self.tgids.get(&pid).copied()
    }

    /// Number of pids with a name.
    #[must_use]
    pub fn len(&self) -> usize {
        self.comms.len()
    }

    /// True if no pid has a name.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.comms.is_empty()
    }

    /// All names, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (i32, &[u8])> {
        self.comms.iter().map(|(&pid, name)| (pid, until_nul(name)))
    }
}

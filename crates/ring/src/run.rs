//! The run record: who wrote a region, and how the run ended.
//!
//! Two slots are used in turn, each with a sequence number and a checksum, so that a crash while
//! one is written leaves the other.

use alloc::string::String;

use crate::extension::{Layout, RUN_SLOT};
use crate::{Memory, MemoryMut, crc32c};

/// First word of a run record.
const MAGIC: u32 = u32::from_le_bytes(*b"ORUN");
/// Offsets of the words that are looked at without the rest.
const SEQUENCE: usize = 8;
const PID_AND_STATE: usize = 56;
const STARTED_REALTIME: usize = 72;
/// Offsets and lengths of the texts, which are UTF-8 and padded with zeros.
const HOST: (usize, usize) = (160, 64);
const PROGRAM: (usize, usize) = (224, 128);
const VERSION: (usize, usize) = (352, 32);
const INSTANCE: (usize, usize) = (384, 64);
const CLOCK: (usize, usize) = (448, 16);
const KERNEL: (usize, usize) = (464, 112);
const SOURCE: (usize, usize) = (576, 128);
const CMDLINE: (usize, usize) = (1024, RUN_SLOT - 1024);

/// Identifies a run: 16 random bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, PartialOrd, Ord)]
pub struct RunId(pub [u8; 16]);

impl core::fmt::Display for RunId {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Whether a run says that it has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RunState {
    /// It never said so: it still runs, or it died.
    #[default]
    Running,
    /// It ended cleanly.
    Closed,
}

/// Who wrote a region. Texts longer than their field are cut at a character's boundary.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RunRecord {
    /// Grows with every store of the record.
    pub sequence: u64,
    /// The run.
    pub run_id: RunId,
    /// The machine's boot id; zero if unknown.
    pub boot_id: [u8; 16],
    /// Number of the run among the runs of its state folder: the order of runs.
    pub run_sequence: u64,
    /// Process id of the writer, for information.
    pub pid: i32,
    /// Running or closed.
    pub state: RunState,
    /// Start time of that process in clock ticks since boot (`/proc/PID/stat` field 22).
    pub pid_start_ticks: u64,
    /// `CLOCK_REALTIME` at the start, in nanoseconds since 1970.
    pub started_realtime_ns: u64,
    /// `CLOCK_MONOTONIC` at the start, in nanoseconds.
    pub started_monotonic_ns: u64,
    /// `CLOCK_BOOTTIME` at the start, in nanoseconds.
    pub started_boottime_ns: u64,
    /// `CLOCK_REALTIME` at the clean end, in nanoseconds since 1970; 0 while running.
    pub closed_realtime_ns: u64,
    /// Intended time between two looks at the source, in nanoseconds.
    pub poll_interval_ns: u64,
    /// The machine's name, 64 bytes at most.
    pub host: String,
    /// The program, 128 bytes at most.
    pub program: String,
    /// Its version, 32 bytes at most.
    pub version: String,
    /// The instance, 64 bytes at most.
    pub instance: String,
    /// Trace clock, 16 bytes at most.
    pub clock: String,
    /// The kernel's release, 112 bytes at most.
    pub kernel: String,
    /// What the events were taken from, such as the host instance's name, 128 bytes at most.
    pub source: String,
    /// The command line, 3072 bytes at most.
    pub cmdline: String,
}

impl RunRecord {
    /// Reads the newer of the two slots that is whole.
    #[must_use]
    pub fn load(layout: &Layout, memory: &impl Memory) -> Option<Self> {
        (0..2)
            .filter_map(|slot| {
                let mut bytes = [0; RUN_SLOT];
                memory.read(layout.run_slot(slot), &mut bytes);
                Self::decode(&bytes)
            })
            .max_by_key(|run| run.sequence)
    }

    /// State and start (`CLOCK_REALTIME`) of the newer slot, without a look at its checksum: for who may
    /// not allocate.
    #[must_use]
    pub fn glance(layout: &Layout, memory: &impl Memory) -> Option<(RunState, u64)> {
        let slots = [0, 1].map(|slot| layout.run_slot(slot));
        let newer = slots
            .into_iter()
            .filter(|&at| memory.load_u32(at) == MAGIC)
            .max_by_key(|&at| memory.load_u64(at + SEQUENCE))?;
        let state = state_of(memory.load_u64(newer + PID_AND_STATE));
        Some((state, memory.load_u64(newer + STARTED_REALTIME)))
    }

    /// Stores the record in the slot that does not hold the newest one.
    pub fn store(&self, layout: &Layout, memory: &impl MemoryMut) {
        memory.write(layout.run_slot(self.sequence as usize % 2), &self.encode());
    }

    fn words(&self) -> [(usize, u64); 9] {
        [
            (SEQUENCE, self.sequence),
            (48, self.run_sequence),
            (64, self.pid_start_ticks),
            (STARTED_REALTIME, self.started_realtime_ns),
            (80, self.started_monotonic_ns),
            (88, self.started_boottime_ns),
            (96, self.closed_realtime_ns),
            (104, self.poll_interval_ns),
            (
                PID_AND_STATE,
                u64::from(self.pid.cast_unsigned()) | (self.state as u64) << 32,
            ),
        ]
    }

    fn encode(&self) -> [u8; RUN_SLOT] {
        let mut bytes = [0; RUN_SLOT];
        bytes[..4].copy_from_slice(&MAGIC.to_le_bytes());
        bytes[16..32].copy_from_slice(&self.run_id.0);
        bytes[32..48].copy_from_slice(&self.boot_id);
        for (at, word) in self.words() {
            bytes[at..at + 8].copy_from_slice(&word.to_le_bytes());
        }
        for ((at, len), text) in [
            (HOST, &self.host),
            (PROGRAM, &self.program),
            (VERSION, &self.version),
            (INSTANCE, &self.instance),
            (CLOCK, &self.clock),
            (KERNEL, &self.kernel),
            (SOURCE, &self.source),
            (CMDLINE, &self.cmdline),
        ] {
            let cut = text.floor_char_boundary(len);
            bytes[at..at + cut].copy_from_slice(&text.as_bytes()[..cut]);
        }
        let crc = crc32c(0, &bytes[8..]);
        bytes[4..8].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    fn decode(bytes: &[u8; RUN_SLOT]) -> Option<Self> {
        let word = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap_or_default());
        let text = |(at, len): (usize, usize)| {
            let bytes = bytes[at..at + len]
                .split(|&b| b == 0)
                .next()
                .unwrap_or_default();
            String::from_utf8_lossy(bytes).into_owned()
        };
        let id = |at: usize| -> [u8; 16] { bytes[at..at + 16].try_into().unwrap_or_default() };
        let first = word(0);
        if first as u32 != MAGIC || (first >> 32) as u32 != crc32c(0, &bytes[8..]) {
            return None;
        }
        let pid_and_state = word(PID_AND_STATE);
        Some(Self {
            sequence: word(SEQUENCE),
            run_id: RunId(id(16)),
            boot_id: id(32),
            run_sequence: word(48),
            pid: (pid_and_state as u32).cast_signed(),
            state: state_of(pid_and_state),
            pid_start_ticks: word(64),
            started_realtime_ns: word(STARTED_REALTIME),
            started_monotonic_ns: word(80),
            started_boottime_ns: word(88),
            closed_realtime_ns: word(96),
            poll_interval_ns: word(104),
            host: text(HOST),
            program: text(PROGRAM),
            version: text(VERSION),
            instance: text(INSTANCE),
            clock: text(CLOCK),
            kernel: text(KERNEL),
            source: text(SOURCE),
            cmdline: text(CMDLINE),
        })
    }
}

fn state_of(pid_and_state: u64) -> RunState {
    match pid_and_state >> 32 {
        0 => RunState::Running,
        _ => RunState::Closed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Geometry, HeapMemory};

    #[test]
    fn a_record_round_trips_and_a_torn_store_leaves_the_one_before() {
        let layout = Layout::new(&Geometry::new(64 << 10, 1).unwrap(), 0, 0);
        let memory = HeapMemory::new(layout.area_size() as usize);
        assert_eq!(RunRecord::load(&layout, &memory), None);
        let mut run = RunRecord {
            sequence: 1,
            run_id: RunId([7; 16]),
            boot_id: [9; 16],
            run_sequence: 3,
            started_realtime_ns: 77,
            pid: -5,
            host: "böx".into(),
            cmdline: "trace_instance=boot_mapped^@trace,sched".into(),
            ..RunRecord::default()
        };
        run.store(&layout, &memory);
        assert_eq!(RunRecord::load(&layout, &memory).as_ref(), Some(&run));
        let before = run.clone();
        run.sequence = 2;
        run.state = RunState::Closed;
        run.closed_realtime_ns = 5;
        run.store(&layout, &memory);
        assert_eq!(RunRecord::load(&layout, &memory), Some(run));
        let glance = RunRecord::glance(&layout, &memory);
        assert_eq!(glance, Some((RunState::Closed, before.started_realtime_ns)));
        memory.write(layout.run_slot(0) + 2000, &[1]);
        assert_eq!(RunRecord::load(&layout, &memory), Some(before));
    }

    #[test]
    fn a_long_text_is_cut_between_characters() {
        let run = RunRecord {
            version: "ä".repeat(40),
            ..RunRecord::default()
        };
        assert_eq!(
            RunRecord::decode(&run.encode()).unwrap().version,
            "ä".repeat(16)
        );
    }
}

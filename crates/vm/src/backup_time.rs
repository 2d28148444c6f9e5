//! How long a backup takes at boot: the kernel's, and outlive's of the same memory through `/dev/mem`.
//!
//! Both are asked for by the same words, of a region of 100 MiB that is full of events, and both have
//! the copy in memory: the kernel's in pages of its own, outlive's in a file on a tmpfs.
//! Both are timed alike, by when what they say comes out of the machine's second serial port: the kernel's clock does
//! not go yet when it makes its backup. The kernel's time begins when the source is attached and ends
//! when the copy is; outlive's begins when the memory is reserved and ends when the copy is a generation.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use outlive_ring::layout::SUBBUF_DATA;
use outlive_ring::{Geometry, HeapMemory, Region, subbuf};

use crate::{Boot, Error, Kernel, Machine};

const ADDRESS: u64 = 0x1400_0000;
const RING_BYTES: u64 = 100 << 20;

const BACKUP: &str = "trace_instance=backup=boot_mapped";
/// Where the kernel's messages go from its first moments on.
const EARLY: &str = "earlyprintk=serial,0x2f8,115200 loglevel=7";
/// The kernel attached a region: first the source, then the backup.
const ATTACHED: &str = "Ring buffer meta [0] is from previous boot!";

/// How often the serial port is looked at.
const LOOK: Duration = Duration::from_millis(1);

/// The times of one pair of boots.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BackupTime {
    /// The kernel's backup.
    pub kernel: Duration,
    /// Outlive's.
    pub outlive: Duration,
}

/// Boots a machine of one CPU twice with the same region in its memory, and times both.
///
/// # Errors
/// As [`Machine::boot`]; [`Error::NotSaid`] if one of them does not say that it kept the region.
pub fn measure(kernel: Kernel, outlive: &Path) -> Result<BackupTime, Error> {
    let mut machine = Machine::new(kernel, 1, 1024)?;
    let reserved = format!("memmap=100M${ADDRESS:#x}");

    let source = format!("trace_instance=boot_mapped@{ADDRESS:#x}:100M");

    let boot = Boot::new(&format!("{reserved} {EARLY} {source} {BACKUP}"));
    let kernel = time(&mut machine, boot, ATTACHED, ATTACHED)?;

    let boot = Boot::new(&reserved)
        .program("outlive", outlive)
        .script("mkdir /state; mount -t tmpfs state /state")
        .script(&format!(
            "outlive --state /state/outlive boot \
             '{source},sched {BACKUP}' 2> /dev/ttyS1 & outlive=$!"
        ))
        // Written behind the backup. What looks for it is the shell, and has little work.
        .script("until [ -e /state/outlive/instances.json ]; do sleep 1; done")
        .script("kill $outlive; wait $outlive");
    let outlive = time(&mut machine, boot, "outlive: area ", "previous run kept as")?;
    Ok(BackupTime { kernel, outlive })
}

/// Boots with a full region, and times what comes out of the second serial port: from a line with one
/// text to the next one with another.
fn time(machine: &mut Machine, boot: Boot, from: &str, to: &str) -> Result<Duration, Error> {
    machine.write(ADDRESS, &full_region())?;
    let port = tempfile::NamedTempFile::new().map_err(Error::io("cannot make", "a file"))?;
    let boot = boot.qemu(["-serial", &format!("file:{}", port.path().display())]);
    let is_over = AtomicBool::new(false);
    let (booted, lines) = std::thread::scope(|scope| {
        let watching = scope.spawn(|| watch(port.path(), &is_over));
        let booted = machine.boot(&boot);
        is_over.store(true, Ordering::Relaxed);
        (booted, watching.join().unwrap_or_default())
    });
    booted?;
    let mut said = lines.iter();
    let mut time_of = |text: &str| {
        let line = said.find(|(_, line)| line.contains(text));
        line.map(|(time, _)| *time).ok_or_else(|| Error::NotSaid {
            text: text.to_owned(),
            said: lines.iter().map(|(_, line)| format!("{line}\n")).collect(),
        })
    };
    let (from, to) = (time_of(from)?, time_of(to)?);
    Ok(to - from)
}

/// The lines that come into a file, and when each was there.
fn watch(file: &Path, is_over: &AtomicBool) -> Vec<(Instant, String)> {
    let mut lines = Vec::new();
    let mut len = 0;
    loop {
        let is_last = is_over.load(Ordering::Relaxed);
        let text = std::fs::read(file).unwrap_or_default();
        let now = Instant::now();
        let new = &text[len.min(text.len())..];
        if let Some(end) = new.iter().rposition(|&byte| byte == b'\n') {
            let new = String::from_utf8_lossy(&new[..end]);
            lines.extend(new.lines().map(|line| (now, line.to_owned())));
            len += end + 1;
        }
        if is_last {
            return lines;
        }
        std::thread::sleep(LOOK);
    }
}

/// A region for one CPU, each sub-buffer full of events.
fn full_region() -> Vec<u8> {
    // With its header 48 bytes: a sub-buffer has 85 of these.
    const PAYLOAD: [u8; 44] = [5; 44];
    const DELTA_NS: u32 = 1000;
    let ring = Geometry::new(RING_BYTES, 1).expect("100 MiB are enough for one CPU");
    let memory = HeapMemory::new(RING_BYTES as usize);
    let region = Region::format(&memory, ring, None).expect("the memory is as large as the ring");
    let mut writer = region.writer(0).expect("there is a CPU");
    let header = (PAYLOAD.len() as u32 / 4) | (DELTA_NS << 5);
    let record = [&header.to_le_bytes()[..], &PAYLOAD].concat();
    let records = record.repeat(SUBBUF_DATA / subbuf::record_size(PAYLOAD.len()));
    for number in 1..u64::from(ring.nr_subbufs()) {
        writer.begin(number * 1_000_000).expect("it grows");
        writer
            .append(&records, |_| {})
            .expect("these are whole records");
    }
    memory.to_vec()
}

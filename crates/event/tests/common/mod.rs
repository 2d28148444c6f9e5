//! A tracing instance of this machine's kernel, and a walker over its raw pages.

#![allow(dead_code, reason = "each test file uses its part")]

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

pub(crate) const TRACEFS: &str = "/sys/kernel/tracing";
const O_NONBLOCK: i32 = 0o4000;
const PAGE_SIZE: usize = 4096;

/// A tracing instance that is removed when it is dropped.
pub(crate) struct Instance {
    path: PathBuf,
}

impl Instance {
    /// A new instance with recording off; `Err` says why there can be none.
    pub(crate) fn create() -> Result<Self, String> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("outlive-test.{}.{number}", std::process::id());
        let path = Path::new(TRACEFS).join("instances").join(name);
        fs::create_dir(&path).map_err(|e| format!("{}: {e}", path.display()))?;
        let this = Self { path };
        this.write("tracing_on", "0");
        Ok(this)
    }

    pub(crate) fn write(&self, file: &str, text: &str) {
        self.try_write(file, text)
            .unwrap_or_else(|e| panic!("{file}: {e}"));
    }

    pub(crate) fn try_write(&self, file: &str, text: &str) -> io::Result<()> {
        fs::write(self.path.join(file), text)
    }

    pub(crate) fn read(&self, file: &str) -> String {
        let bytes = fs::read(self.path.join(file)).unwrap_or_else(|e| panic!("{file}: {e}"));
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// The number behind `key:` in a CPU's `stats`.
    pub(crate) fn stat(&self, cpu: u32, key: &str) -> u64 {
        let text = self.read(&format!("per_cpu/cpu{cpu}/stats"));
        let line = text
            .lines()
            .find_map(|l| l.strip_prefix(key)?.strip_prefix(": "));
        line.and_then(|n| n.parse().ok()).unwrap_or(0)
    }

    pub(crate) fn cpus(&self) -> u32 {
        (0..)
            .take_while(|cpu| self.path.join(format!("per_cpu/cpu{cpu}")).is_dir())
            .count() as u32
    }

    /// Takes all records out of the buffers, merged by time.
    pub(crate) fn drain(&self) -> Vec<Record> {
        let mut all = Vec::new();
        for cpu in 0..self.cpus() {
            let path = self.path.join(format!("per_cpu/cpu{cpu}/trace_pipe_raw"));
            let open = OpenOptions::new()
                .read(true)
                .custom_flags(O_NONBLOCK)
                .open(&path);
            read_pages(open.unwrap(), cpu, &mut all);
        }
        all.sort_by_key(|r| r.ts);
        all
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        let _ = self.try_write("tracing_on", "0");
        let _ = self.try_write("events/enable", "0");
        let _ = fs::remove_dir(&self.path);
    }
}

/// One data event of the ring buffer.
pub(crate) struct Record {
    pub(crate) ts: u64,
    pub(crate) cpu: u32,
    pub(crate) payload: Vec<u8>,
}

fn read_pages(mut file: File, cpu: u32, all: &mut Vec<Record>) {
    let mut page = vec![0; PAGE_SIZE];
    loop {
        match file.read(&mut page) {
            Ok(0) => return,
            Ok(len) => walk(&page[..len], cpu, all),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
            Err(error) => panic!("{error}"),
        }
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

/// Appends the data events of one sub-buffer; as the kernel's text, it ignores the deltas of
/// discarded events.
pub(crate) fn walk(page: &[u8], cpu: u32, all: &mut Vec<Record>) {
    let mut ts = u64::from_le_bytes(page[..8].try_into().unwrap());
    let size = (u32_at(page, 8) & 0x3fff_ffff) as usize;
    let data = &page[16..16 + size];
    let mut at = 0;
    while at + 4 <= data.len() {
        let header = u32_at(data, at);
        let (type_len, delta) = (header & 31, u64::from(header >> 5));
        let long = |at: usize| u32_at(data, at + 4) as usize;
        match type_len {
            29 if delta == 0 => return,
            29 => at += 4 + long(at),
            30 => {
                ts += ((long(at) as u64) << 27) + delta;
                at += 8;
            }
            31 => {
                let stamp = ((long(at) as u64) << 27) + delta;
                ts = stamp | ts & (31 << 59);
                at += 8;
            }
            0 => {
                ts += delta;
                let end = at + 4 + long(at);
                all.push(Record {
                    ts,
                    cpu,
                    payload: data[at + 8..end].to_vec(),
                });
                at = end;
            }
            words => {
                ts += delta;
                let end = at + 4 + 4 * words as usize;
                all.push(Record {
                    ts,
                    cpu,
                    payload: data[at + 4..end].to_vec(),
                });
                at = end;
            }
        }
    }
}

//! What Linux 7.3.4 keeps of a region when it attaches it: a model of its validator and of what its
//! `trace` shows afterwards, written from observed behaviour. `kernel_model_keeps_what_the_kernel_kept`
//! holds it against the records of 75 attaches.
//!
//! It knows one geometry, that of the golden region: 256 KiB for two CPUs.

use super::support::Kept;

const NR_CPUS: usize = 2;
const NR_SUBBUFS: usize = 30;
const REGION_SIZE: usize = 256 << 10;
const BUFFERS_OFFSET: usize = 8240;
const SUBBUF_SIZE: usize = 4096;
const DATA_MAX: u64 = 4080;
const CLOCKS: u32 = 10;
/// What the validator makes of the commit word of a sub-buffer that it drops.
const INVALID_COMMIT: u64 = 0xffff_ffff_8000_0000;

/// What the kernel keeps of a CPU.
#[derive(Debug, Clone, Default)]
pub(crate) struct KernelCpu {
    pub(crate) entries: u64,
    pub(crate) bytes: u64,
    /// In the order of its `trace`.
    pub(crate) events: Vec<Kept>,
}

/// Attaches a region.
pub(crate) fn attach(region: &[u8]) -> Vec<KernelCpu> {
    if !global_meta_is_valid(region) {
        return vec![KernelCpu::default(); NR_CPUS];
    }
    let mut kept: Vec<KernelCpu> = (0..NR_CPUS)
        .map(|cpu| Attach::load(region, cpu).map_or_else(KernelCpu::default, Attach::run))
        .collect();
    // Setting another clock resets the CPUs that are up: the first one.
    if (1..CLOCKS).contains(&u32_at(region, 24)) {
        kept[0] = KernelCpu::default();
    }
    kept
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

fn global_meta_is_valid(region: &[u8]) -> bool {
    u32_at(region, 0) == 0x0bad_feed
        && u32_at(region, 4) == 0x0018_0020
        && u64_at(region, 8) == REGION_SIZE as u64
        && u64_at(region, 16) == BUFFERS_OFFSET as u64
}

/// A sub-buffer as the validator sees and changes it.
#[derive(Debug, Clone)]
struct Subbuf {
    time_stamp: u64,
    commit: u64,
    /// The data, and the word behind the sub-buffer: a length word may be taken from there.
    data: Vec<u8>,
    counted: Option<Checked>,
}

#[derive(Debug, Clone)]
struct Checked {
    entries: u64,
    last: u64,
    events: Vec<Kept>,
}

struct Attach {
    subbufs: Vec<Subbuf>,
    reader: usize,
    /// The ring proper, from position 1.
    ring: Vec<usize>,
    head: usize,
    tail: usize,
}

impl Attach {
    /// Checks the CPU's meta; `None` if the kernel resets the CPU.
    fn load(region: &[u8], cpu: usize) -> Option<Self> {
        let meta = [BUFFERS_OFFSET, 0x21000][cpu];
        let first_subbuf = [0x3000, 0x22000][cpu];
        let n = NR_SUBBUFS;
        if u32_at(region, meta + 24) != SUBBUF_SIZE as u32 || u32_at(region, meta + 28) != n as u32
        {
            return None;
        }
        let first = u64_at(region, meta);
        let inside = |at: usize| {
            let address = u64_at(region, at);
            let end = first.wrapping_add((n * SUBBUF_SIZE) as u64);
            (first <= address && address < end).then(|| (address - first) as usize)
        };
        let (head, commit) = (inside(meta + 8)?, inside(meta + 16)?);
        let index: Vec<usize> = (0..n)
            .map(|i| u32_at(region, meta + 32 + 4 * i) as usize)
            .collect();
        let mut seen = vec![false; n];
        if !index
            .iter()
            .all(|&i| i < n && !core::mem::replace(&mut seen[i], true))
        {
            return None;
        }
        assert!(head % SUBBUF_SIZE == 0, "the kernel crashes");
        // A misaligned commit buffer matches no sub-buffer.
        let tail = if commit % SUBBUF_SIZE == 0 {
            commit / SUBBUF_SIZE
        } else {
            usize::MAX
        };
        let subbufs = (0..n)
            .map(|i| &region[first_subbuf + i * SUBBUF_SIZE..])
            .map(|bytes| Subbuf {
                time_stamp: u64_at(bytes, 0),
                commit: u64_at(bytes, 8),
                data: bytes[16..bytes.len().min(SUBBUF_SIZE + 4)].to_vec(),
                counted: None,
            })
            .collect();
        Some(Self {
            subbufs,
            reader: index[0],
            ring: index[1..].to_vec(),
            head: head / SUBBUF_SIZE,
            tail,
        })
    }

    fn run(mut self) -> KernelCpu {
        let (head_0, reader_0) = (self.head, self.reader);
        let head_is_valid = self.check(head_0, 0, 0).is_some();
        let mut bound = if head_is_valid {
            self.subbufs[head_0].time_stamp
        } else {
            0
        };
        if self.check_and_count(reader_0, 0, bound) {
            bound = self.subbufs[reader_0].time_stamp;
        }
        if head_is_valid && head_0 != self.tail {
            self.rewind(head_0, bound);
        }
        if self.tail == self.reader {
            return self.show([self.reader]);
        }
        match self.forward(head_0, reader_0) {
            true => self.show_ring(),
            false => KernelCpu::default(),
        }
    }

    fn place(&self, subbuf: usize) -> Option<usize> {
        self.ring.iter().position(|&i| i == subbuf)
    }

    /// Walks back from the head over what older sub-buffers there are.
    fn rewind(&mut self, head_0: usize, mut bound: u64) {
        let Some(head_place) = self.place(head_0) else {
            // The head is the reader page: it is tested again and again, and nothing is linked.
            return;
        };
        let len = self.ring.len();
        let mut oldest = None;
        for step in 1..=NR_SUBBUFS + 1 {
            let place = (head_place + len * 2 - step) % len;
            let subbuf = self.ring[place];
            let page = &self.subbufs[subbuf];
            if subbuf == self.tail || (page.time_stamp == 0 && page.commit as u32 == 0) {
                break;
            }
            if self.check_and_count(subbuf, 0, bound) {
                bound = self.subbufs[subbuf].time_stamp;
            }
            oldest = Some(subbuf);
        }
        let Some(oldest) = oldest else { return };
        self.ring.insert(head_place, self.reader);
        let place = self.place(oldest).unwrap();
        self.head = self.ring[(place + 1) % self.ring.len()];
        self.ring.remove(place);
        self.reader = oldest;
    }

    /// Checks from the head to the commit page; says whether it was reached.
    fn forward(&mut self, head_0: usize, reader_0: usize) -> bool {
        let mut bound = self.subbufs[head_0].time_stamp;
        let Some(start) = self.place(head_0) else {
            return false;
        };
        let len = self.ring.len();
        for step in 0..=NR_SUBBUFS {
            let subbuf = self.ring[(start + step) % len];
            if subbuf == reader_0 {
                continue;
            }
            if self.check_and_count(subbuf, bound, 0) {
                bound = self.subbufs[subbuf].time_stamp;
            }
            if subbuf == self.tail {
                return true;
            }
        }
        false
    }

    fn check_and_count(&mut self, subbuf: usize, prev: u64, next: u64) -> bool {
        let checked = self.check(subbuf, prev, next);
        self.subbufs[subbuf].counted = checked;
        self.subbufs[subbuf].counted.is_some()
    }

    /// The page check: marks the sub-buffer if it is invalid.
    fn check(&mut self, subbuf: usize, prev: u64, next: u64) -> Option<Checked> {
        let page = &mut self.subbufs[subbuf];
        let checked = (page.commit <= DATA_MAX)
            .then(|| walk(page.time_stamp, &page.data, page.commit as usize))
            .flatten()
            .filter(|checked| prev <= checked.last && (next == 0 || checked.last <= next));
        if checked.is_none() {
            page.commit = INVALID_COMMIT;
            page.time_stamp = if prev == 0 { next } else { prev };
        }
        checked
    }

    fn show_ring(&self) -> KernelCpu {
        let start = self.place(self.head).unwrap_or(0);
        let from_head = self.ring[start..].iter().chain(&self.ring[..start]);
        let end = from_head.clone().position(|&i| i == self.tail).unwrap();
        self.show(core::iter::once(self.reader).chain(from_head.take(end + 1).copied()))
    }

    /// Entries and bytes of all that was counted, and the events of the sub-buffers that are shown.
    fn show(&self, shown: impl IntoIterator<Item = usize>) -> KernelCpu {
        let counted = self.subbufs.iter().filter(|page| page.counted.is_some());
        KernelCpu {
            entries: counted
                .clone()
                .map(|page| page.counted.as_ref().unwrap().entries)
                .sum(),
            bytes: counted.map(|page| page.commit).sum(),
            events: shown
                .into_iter()
                .filter_map(|subbuf| self.subbufs[subbuf].counted.clone())
                .flat_map(|checked| checked.events)
                .collect(),
        }
    }
}

/// Walks the records in the first `size` bytes; `None` if they are invalid. Odd lengths and a length
/// of 4 are followed.
fn walk(time_stamp: u64, data: &[u8], size: usize) -> Option<Checked> {
    let mut checked = Checked {
        entries: 0,
        last: time_stamp,
        events: Vec::new(),
    };
    let mut offset = 0;
    while offset < size {
        let rest = &data[offset..];
        let word = |at: usize| rest.get(at..at + 4).map_or(0, |bytes| u32_at(bytes, 0));
        let (type_len, delta) = (word(0) & 0x1f, u64::from(word(0) >> 5));
        let long = (u64::from(word(4)) << 27) + delta;
        let (len, payload) = match type_len {
            1..=28 => (4 + 4 * i64::from(type_len), 4),
            29 if delta == 0 => return None,
            0 | 29 => (4 + i64::from(word(4).cast_signed()), 8),
            _ => (8, 8),
        };
        if len <= 0 || len > (size - offset) as i64 {
            return None;
        }
        match type_len {
            30 => checked.last = checked.last.wrapping_add(long),
            31 => {
                let top = checked.last & 0xf800_0000_0000_0000;
                let mut time = long | top;
                if top != 0 && time < checked.last {
                    time = time.wrapping_add(1 << 59);
                }
                if time < checked.last {
                    return None;
                }
                checked.last = time;
            }
            29 if delta == 1 => {}
            _ => {
                checked.entries += 1;
                checked.last = checked.last.wrapping_add(delta);
                if type_len != 29 {
                    checked.events.push(Kept {
                        time_stamp: checked.last,
                        payload: rest.get(payload..len as usize).unwrap_or_default().to_vec(),
                    });
                }
            }
        }
        offset += len as usize;
    }
    Some(checked)
}

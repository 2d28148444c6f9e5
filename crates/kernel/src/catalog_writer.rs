//! Filling a region's catalog: what a reader will need to decode the events without this kernel.
//!
//! Formats and the like are written before the events start. Task names and symbols are written
//! when an event comes in that mentions one for the first time, before that event is published.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;

use outlive_event::{CatalogRecord, EventFormat, RecordKind, Symbols, TaskNamePlace};
use outlive_ring::MemoryMut;
use outlive_ring::catalog::{CatalogLog, TASK_NAME_MAX, TaskNames};
use outlive_ring::extension::Layout;

use crate::constants::constants;
use crate::modules::Module;

/// Where the kernel tells its symbols.
pub(crate) const KALLSYMS: &str = "/proc/kallsyms";

/// Addresses without a symbol that are looked up again: beyond, they stay numbers.
const MISSED_MAX: usize = 1 << 12;
/// Addresses from here on are the kernel's, on x86-64.
const KERNEL_ADDRESSES: u64 = 1 << 63;

/// Tasks whose names are remembered here, so that each is stored once: beyond, all are forgotten
/// and stored again when they occur.
const KNOWN_TASKS_MAX: usize = 1 << 16;
/// Tasks that are found without hashing, by the low bits of their pid.
const RECENT_TASKS: usize = 1 << 10;

type Comm = [u8; TASK_NAME_MAX];

/// Writes the catalog of one region.
#[derive(Debug)]
pub struct CatalogWriter<M> {
    log: Log<M>,
    tasks: KnownTasks<M>,
    formats: Vec<Option<Box<EventFormat>>>,
    /// By event id, as the formats.
    plans: Vec<Plan>,
    /// Read when the first one is needed, and again by a [`Refresher`](crate::Refresher).
    symbols: Option<Arc<Symbols>>,
    seen_addresses: HashSet<u64>,
    /// Those that were of no symbol.
    missed: Vec<u64>,
    /// How many of these were there when the symbols were asked for that come next.
    asked: usize,
}

impl<M: MemoryMut + Copy> CatalogWriter<M> {
    /// Begins the catalog of a fresh region whose events this kernel records: what it says now of tasks
    /// and symbols is true of them.
    pub fn new(layout: &Layout, memory: M) -> Self {
        Self::with(layout, memory, None)
    }

    /// Begins the catalog of a fresh region with events of a boot that is over: only what was known
    /// then is true of them.
    pub fn of_past_boot(layout: &Layout, memory: M, symbols: Symbols) -> Self {
        let mut this = Self::with(layout, memory, Some(Arc::new(symbols)));
        this.tasks.is_past = true;
        this
    }

    /// Goes on with a catalog that was written before.
    pub fn open(layout: &Layout, memory: M) -> Self {
        let log = CatalogLog::open(layout, &memory);
        let names = TaskNames::open(layout, &memory);
        Self::of_parts(log, names, memory, None)
    }

    fn with(layout: &Layout, memory: M, symbols: Option<Arc<Symbols>>) -> Self {
        let log = CatalogLog::clear(layout, &memory);
        let names = TaskNames::clear(layout, &memory);
        Self::of_parts(log, names, memory, symbols)
    }

    fn of_parts(
        log: CatalogLog,
        names: TaskNames,
        memory: M,
        symbols: Option<Arc<Symbols>>,
    ) -> Self {
        Self {
            log: Log {
                log,
                memory,
                encoded: Vec::new(),
                dropped: 0,
            },
            tasks: KnownTasks {
                table: names,
                memory,
                known: HashMap::new(),
                recent: vec![(0, [0; TASK_NAME_MAX]); RECENT_TASKS].into(),
                is_past: false,
            },
            formats: Vec::new(),
            plans: Vec::new(),
            symbols,
            seen_addresses: HashSet::new(),
            missed: Vec::new(),
            asked: 0,
        }
    }

    /// Records that did not fit, and names that had to go for newer ones.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.log.dropped + self.tasks.table.overwritten()
    }

    /// Writes a record.
    pub fn record(&mut self, record: &CatalogRecord<'_>) {
        self.log.append(record);
    }

    /// Writes a record of another catalog.
    pub fn copy(&mut self, kind: u16, payload: &[u8]) {
        let known = RecordKind::from_u16(kind);
        match known.map(|kind| CatalogRecord::decode(kind, payload)) {
            Some(Ok(CatalogRecord::EventFormat { system, text })) => self.format(system, text),
            _ => self.log.append_encoded(kind, payload),
        }
    }

    /// Writes the format of an event, and from here on looks into such events for task names and
    /// symbols.
    pub fn format(&mut self, system: &str, text: &str) {
        self.record(&CatalogRecord::EventFormat { system, text });
        // A format that is not understood is kept for the reader all the same.
        let Ok(format) = EventFormat::parse(system, text) else {
            return;
        };
        let id = usize::from(format.id);
        if self.formats.len() <= id {
            self.formats.resize_with(id + 1, || None);
            self.plans.resize(id + 1, Plan::default());
        }
        self.plans[id] = Plan::of(&format);
        self.formats[id] = Some(Box::new(format));
    }

    /// Writes a module, if the kernel tells where it lies.
    pub(crate) fn module(&mut self, module: &Module) {
        if let Some(address) = module.address {
            let name = &module.name;
            self.record(&CatalogRecord::Module { address, name });
        }
    }

    /// Whether an address came that was of no symbol, and one may be known by now. What comes from
    /// here on is asked for the next time.
    pub(crate) fn ask_for_symbols(&mut self) -> bool {
        self.asked = self.missed.len();
        // None at all are known where the kernel hides them.
        self.asked > 0 && self.symbols.as_ref().is_some_and(|known| !known.is_empty())
    }

    /// Looks addresses up from here on in symbols that were read anew, and those that were of none
    /// once more. Whether that found any.
    pub(crate) fn renew_symbols(&mut self, symbols: &Arc<Symbols>) -> bool {
        let asked = std::mem::take(&mut self.asked);
        let (mut looked_up, mut has_found) = (0, false);
        self.missed.retain(|&address| {
            let is_found = self.log.symbol(symbols, address);
            has_found |= is_found;
            looked_up += 1;
            !is_found && looked_up > asked
        });
        self.symbols = Some(Arc::clone(symbols));
        has_found
    }

    /// Writes the values of the names that the formats written so far mention.
    pub fn constants(&mut self) {
        let formats = self.formats.iter().flatten();
        let names = formats.flat_map(|format| format.unresolved_names());
        for (name, value) in constants(&names.collect()).iter() {
            self.log.append(&CatalogRecord::Constant { name, value });
        }
    }

    /// Writes a task's name, unless it is the one that is known. Any event knows better.
    pub fn task_name(&mut self, pid: i32, name: &[u8]) {
        self.task_name_until(pid, name, 0);
    }

    /// As [`CatalogWriter::task_name`]; but only events after `time_stamp` know better.
    pub fn task_name_until(&mut self, pid: i32, name: &[u8], time_stamp: u64) {
        self.tasks.store(pid, name, time_stamp);
    }

    /// Writes what an event mentions and the catalog does not have yet. `time_stamp` tells which of
    /// two names of a task is the newer one, because the CPUs' events come one CPU after the other.
    #[inline]
    pub fn note_event(&mut self, time_stamp: u64, payload: &[u8]) {
        let Some((&[id0, id1, _, _, pid0, pid1, pid2, pid3], _)) = payload.split_first_chunk()
        else {
            return;
        };
        let id = usize::from(u16::from_le_bytes([id0, id1]));
        match self.plans.get(id) {
            Some(plan) if plan.tells_only_known(payload, &self.tasks) => {}
            _ => self.note_fields(id, time_stamp, payload),
        }
        self.tasks
            .occurs(i32::from_le_bytes([pid0, pid1, pid2, pid3]), time_stamp);
    }

    /// As [`CatalogWriter::note_event`], by the event's format.
    #[inline(never)]
    fn note_fields(&mut self, id: usize, time_stamp: u64, payload: &[u8]) {
        let Some(Some(format)) = self.formats.get(id) else {
            return;
        };
        format
            .task_names(payload)
            .for_each(|(pid, name)| self.tasks.store(pid, name, time_stamp));
        for address in format.symbol_addresses(payload) {
            if address != 0 && self.seen_addresses.insert(address) {
                let read = || Arc::new(read_symbols(Path::new(KALLSYMS)));
                let symbols = self.symbols.get_or_insert_with(read);
                let is_found = self.log.symbol(symbols, address);
                let is_of_kernel = address >= KERNEL_ADDRESSES;
                if !is_found && is_of_kernel && self.missed.len() < MISSED_MAX {
                    self.missed.push(address);
                }
            }
        }
    }
}

/// What to look at in most records of an event, so as to see that they tell nothing new.
#[derive(Clone, Copy, Debug, Default)]
struct Plan {
    names: [TaskNamePlace; 2],
    /// How many of `names` there are.
    len: u8,
    /// Whether that is all that there is to look at.
    is_all: bool,
}

impl Plan {
    fn of(format: &EventFormat) -> Self {
        let mut plan = Self::default();
        let Some(places) = format.task_name_places() else {
            return plan;
        };
        let has_symbols = !format.symbol_offsets().is_empty() || format.stack_offset().is_some();
        plan.is_all = !has_symbols && places.len() <= plan.names.len();
        plan.len = places.len().min(plan.names.len()) as u8;
        for (slot, place) in plan.names.iter_mut().zip(places) {
            *slot = place;
        }
        plan
    }

    #[inline]
    fn tells_only_known<M>(&self, payload: &[u8], tasks: &KnownTasks<M>) -> bool {
        let [first, second] = &self.names;
        let knows = |place| is_known(place, payload, tasks) == Some(true);
        self.is_all && (self.len < 1 || knows(first)) && (self.len < 2 || knows(second))
    }
}

/// Whether a name is the one that is known; `None` if the record is too short.
#[inline]
fn is_known<M>(place: &TaskNamePlace, payload: &[u8], tasks: &KnownTasks<M>) -> Option<bool> {
    let pid = i32::from_le_bytes(*payload.get(place.pid as usize..)?.first_chunk()?);
    if pid == 0 {
        return Some(true);
    }
    let at = payload.get(place.name as usize..)?;
    if !place.is_data_loc {
        return Some(tasks.is_recent(pid, at.first_chunk()?));
    }
    let [low, high, len_low, len_high] = *at.first_chunk()?;
    let (start, len) = (
        usize::from(u16::from_le_bytes([low, high])),
        usize::from(u16::from_le_bytes([len_low, len_high])),
    );
    Some(tasks.is_recent_string(pid, payload.get(start..)?.get(..len)?))
}

/// The kernel's symbols; none where their addresses are hidden from us.
pub(crate) fn read_symbols(kallsyms: &Path) -> Symbols {
    let mut symbols = Symbols::default();
    if let Ok(text) = std::fs::read_to_string(kallsyms) {
        symbols.parse_kallsyms(&text);
    }
    symbols
}

#[derive(Debug)]
struct Log<M> {
    memory: M,
    log: CatalogLog,
    encoded: Vec<u8>,
    dropped: u64,
}

impl<M: MemoryMut> Log<M> {
    fn append(&mut self, record: &CatalogRecord<'_>) {
        self.encoded.clear();
        record.encode(&mut self.encoded);
        let payload = std::mem::take(&mut self.encoded);
        self.append_encoded(record.kind() as u16, &payload);
        self.encoded = payload;
    }

    fn append_encoded(&mut self, kind: u16, payload: &[u8]) {
        self.dropped += u64::from(!self.log.append(&self.memory, kind, payload));
    }

    /// Writes the symbol that an address lies in. Whether there is one.
    fn symbol(&mut self, symbols: &Symbols, address: u64) -> bool {
        let Some(symbol) = symbols.lookup(address) else {
            return false;
        };
        self.append(&CatalogRecord::Symbol {
            address: symbol.address,
            size: symbol.size,
            name: symbol.name,
            module: symbol.module,
        });
        true
    }
}

/// The task names that are in the region's table already.
#[derive(Debug)]
struct KnownTasks<M> {
    memory: M,
    table: TaskNames,
    /// Each with the time of the event that told it.
    known: HashMap<i32, (Comm, u64)>,
    recent: Box<[(i32, Comm)]>,
    /// The tasks are of a boot that is over: a pid is another task's by now.
    is_past: bool,
}

impl<M> KnownTasks<M> {
    /// Whether this is the name under which the task is known, padded with zeros.
    #[inline]
    fn is_recent(&self, pid: i32, comm: &Comm) -> bool {
        let recent = &self.recent[pid as usize % RECENT_TASKS];
        recent.0 == pid && recent.1 == *comm
    }

    /// As [`KnownTasks::is_recent`], of a name that ends with its first zero. It is compared where it
    /// lies: a copy of a few bytes that is read as a whole right away stalls the CPU.
    #[inline]
    fn is_recent_string(&self, pid: i32, name: &[u8]) -> bool {
        let recent = &self.recent[pid as usize % RECENT_TASKS];
        recent.0 == pid
            && name.last() == Some(&0)
            && recent
                .1
                .get(..name.len())
                .is_some_and(|known| is_same(known, name))
    }
}

/// Whether two short strings of the same length are equal: by their first and last eight bytes,
/// which may overlap.
#[inline]
fn is_same(a: &[u8], b: &[u8]) -> bool {
    match (a.first_chunk::<8>(), b.first_chunk::<8>()) {
        (Some(first_a), Some(first_b)) if a.len() <= TASK_NAME_MAX => {
            first_a == first_b && a.last_chunk::<8>() == b.last_chunk::<8>()
        }
        _ => a == b,
    }
}

impl<M: MemoryMut> KnownTasks<M> {
    fn store(&mut self, pid: i32, name: &[u8], time_stamp: u64) {
        let mut comm = [0; TASK_NAME_MAX];
        let len = name.len().min(TASK_NAME_MAX);
        comm[..len].copy_from_slice(&name[..len]);
        let recent = &mut self.recent[pid as usize % RECENT_TASKS];
        if *recent == (pid, comm) {
            return;
        }
        let known = self.known.get(&pid);
        if known.is_some_and(|&(_, at)| at > time_stamp) {
            return;
        }
        let is_new = known.is_none_or(|(known, _)| *known != comm);
        *recent = (pid, comm);
        if self.known.len() >= KNOWN_TASKS_MAX {
            self.known.clear();
        }
        self.known.insert(pid, (comm, time_stamp));
        if is_new {
            self.table.store(&self.memory, pid, &comm[..len]);
        }
    }

    /// A task occurs: the system is asked for its name if no event has told it.
    #[inline]
    fn occurs(&mut self, pid: i32, time_stamp: u64) {
        if !self.is_past && pid > 0 && self.recent[pid as usize % RECENT_TASKS].0 != pid {
            self.look_up(pid, time_stamp);
        }
    }

    #[inline(never)]
    fn look_up(&mut self, pid: i32, time_stamp: u64) {
        let recent = &mut self.recent[pid as usize % RECENT_TASKS];
        if let Some(&(comm, _)) = self.known.get(&pid) {
            *recent = (pid, comm);
            return;
        }
        match std::fs::read(format!("/proc/{pid}/comm")) {
            Ok(name) => self.store(pid, name.strip_suffix(b"\n").unwrap_or(&name), time_stamp),
            // Gone already: not asked again, but an event may still name it.
            Err(_) => *recent = (pid, [0; TASK_NAME_MAX]),
        }
    }
}

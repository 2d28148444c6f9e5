//! Everything in the file but the data, as texts in the words of tracefs.

use std::collections::BTreeMap;
use std::fmt::Write;

use outlive_event::Catalog;
use outlive_ring::RunId;
use outlive_ring::extension::ClockPair;
use outlive_trace::cmdline::TraceClock;
use outlive_trace::view::{Source, Sources, View, ViewCpu};

use super::ids::Ids;
use super::{data, option};

/// `events/header_page` of a 64-bit kernel with sub-buffers of 4 KiB, which all regions have.
const HEADER_PAGE: &str = "\
\tfield: u64 timestamp;\toffset:0;\tsize:8;\tsigned:0;
\tfield: local_t commit;\toffset:8;\tsize:8;\tsigned:1;
\tfield: int overwrite;\toffset:8;\tsize:1;\tsigned:1;
\tfield: char data;\toffset:16;\tsize:4080;\tsigned:0;
";
/// `events/header_event`, the same since Linux 2.6.32.
const HEADER_EVENT: &str = "\
# compressed entry header
\ttype_len    :    5 bits
\ttime_delta  :   27 bits
\tarray       :   32 bits

\tpadding     : type == 29
\ttime_extend : type == 30
\ttime_stamp : type == 31
\tdata max type_len  == 28
";
/// The system whose formats have a place of their own.
const FTRACE: &str = "ftrace";

/// The texts.
#[derive(Debug, Default)]
pub(super) struct Content {
    pub(super) header_page: String,
    pub(super) header_event: String,
    /// Formats of the system `ftrace`.
    pub(super) ftrace: Vec<String>,
    /// Formats by system.
    pub(super) systems: BTreeMap<String, Vec<String>>,
    pub(super) kallsyms: String,
    pub(super) printk_formats: String,
    pub(super) cmdlines: String,
    /// Options that are texts.
    pub(super) texts: Vec<(u16, String)>,
    /// What tells the recording from others.
    pub(super) trace_id: Option<u64>,
    pub(super) tsc: Option<TscToNs>,
    /// What the file lacks.
    pub(super) notes: Vec<String>,
}

impl Content {
    pub(super) fn of(sources: &Sources<'_>, ids: &Ids<'_>) -> Self {
        let mut this = Self {
            header_page: HEADER_PAGE.to_owned(),
            header_event: HEADER_EVENT.to_owned(),
            cmdlines: cmdlines(sources),
            trace_id: trace_id(sources),
            ..Self::default()
        };
        for (system, text) in ids.formats() {
            match system {
                FTRACE => this.ftrace.push(text),
                _ => this
                    .systems
                    .entry(system.to_owned())
                    .or_default()
                    .push(text),
            }
        }
        if ids.without_id > 0 {
            let count = ids.without_id;
            let note = format!("{count} events are without a format: there are no more ids");
            this.notes.push(note);
        }
        this.add_symbols(sources);
        this.add_printk_formats(sources);
        this.add_texts(sources);
        if let [source] = sources.sources() {
            this.tsc = TscToNs::of(source.view);
        }
        this
    }

    /// Of several kernels only one has its symbols in the file, as it has one table.
    fn add_symbols(&mut self, sources: &Sources<'_>) {
        let mut of_kernel = None;
        for source in sources.sources() {
            let catalog = &source.view.catalog;
            if catalog.symbols().is_empty() {
                continue;
            }
            let kernel = catalog.kernel();
            let name = &source.name;
            if source.view.hides_addresses() {
                self.notes.push(format!(
                    "{name}: symbols of this kernel are left out, as /proc/sys/kernel/kptr_restrict \
                     hides their addresses"
                ));
            } else if of_kernel.is_some_and(|of| of != kernel) {
                self.notes.push(format!(
                    "{name}: its symbols are left out: another kernel's are in the file"
                ));
            } else {
                of_kernel = Some(kernel);
                push_symbols(&mut self.kallsyms, catalog);
            }
        }
    }

    /// The kernel shows these addresses to root whatever `kptr_restrict` says, and without them a reader
    /// finds no text of a `trace_printk`.
    fn add_printk_formats(&mut self, sources: &Sources<'_>) {
        let mut all = BTreeMap::new();
        for source in sources.sources() {
            let mut formats = source.view.catalog.printk_formats().peekable();
            let is_hidden = formats.peek().is_some()
                && source.view.hides_addresses()
                && !rustix::process::geteuid().is_root();
            match is_hidden {
                true => self.notes.push(format!(
                    "{}: formats of trace_printk are left out, as /proc/sys/kernel/kptr_restrict hides \
                     their addresses",
                    source.name
                )),
                false => all.extend(formats),
            }
        }
        self.printk_formats = printk_formats(&all);
    }

    fn add_texts(&mut self, sources: &Sources<'_>) {
        let Some(first) = sources.sources().first() else {
            return;
        };
        let clock = data::clock(sources, first);
        self.texts.push((option::TRACECLOCK, trace_clock(clock)));
        self.texts
            .extend(uname(first.view).map(|text| (option::UNAME, text)));
        let version = concat!("outlive ", env!("CARGO_PKG_VERSION"));
        self.texts.push((option::VERSION, version.to_owned()));
        for source in sources.sources() {
            self.texts.push((option::CPUSTAT, about(source)));
            let word = source.view.buffer_word();
            let stats = source.view.cpus.iter().map(|cpu| stats(word, cpu));
            self.texts.extend(stats.map(|text| (option::CPUSTAT, text)));
        }
    }
}

/// Lines of `/proc/kallsyms`.
fn push_symbols(out: &mut String, catalog: &Catalog) {
    for symbol in catalog.symbols().iter() {
        let kind = if symbol.is_text { 'T' } else { 'D' };
        let _ = write!(out, "{:016x} {kind} {}", symbol.address, symbol.name);
        if !symbol.module.is_empty() {
            let _ = write!(out, "\t[{}]", symbol.module);
        }
        out.push('\n');
    }
}

/// Lines of `printk_formats`.
fn printk_formats(all: &BTreeMap<u64, &str>) -> String {
    let mut out = String::new();
    for (address, text) in all {
        let escaped = text
            .replace('\\', "\\\\")
            .replace('\n', "\\n")
            .replace('\t', "\\t")
            .replace('"', "\\\"");
        let _ = writeln!(out, "0x{address:x} : \"{escaped}\"");
    }
    out
}

/// Lines of `saved_cmdlines`. A name that has a line end ends there.
fn cmdlines(sources: &Sources<'_>) -> String {
    let mut all = BTreeMap::new();
    for source in sources.sources() {
        for (pid, comm) in source.view.catalog.tasks().iter() {
            all.entry(pid).or_insert(comm);
        }
    }
    let mut out = String::new();
    for (pid, comm) in all {
        let comm = String::from_utf8_lossy(comm);
        let comm = comm.lines().next().unwrap_or_default();
        let _ = writeln!(out, "{pid} {comm}");
    }
    out
}

/// The recording of a single source.
fn trace_id(sources: &Sources<'_>) -> Option<u64> {
    match sources.sources() {
        [source] => {
            let RunId(id) = source.view.run.as_ref()?.run_id;
            id.first_chunk().map(|id| u64::from_le_bytes(*id))
        }
        _ => None,
    }
}

/// The file `trace_clock`: all clocks, the one that is used in brackets.
fn trace_clock(used: &str) -> String {
    let names = TraceClock::ALL.map(|clock| match clock.name() {
        name if name == used => format!("[{name}]"),
        name => name.to_owned(),
    });
    names.join(" ")
        + "
"
}

/// As `uname` says it: system, host, release, machine.
fn uname(view: &View) -> Option<String> {
    let kernel = view.catalog.kernel();
    let host = view.run.as_ref().map(|run| run.host.as_str());
    let release = kernel.map(|kernel| kernel.release.as_str());
    let release = release.or(view.run.as_ref().map(|run| run.kernel.as_str()))?;
    let machine = kernel.map_or("", |kernel| kernel.machine.as_str());
    let host = host.filter(|host| !host.is_empty()).unwrap_or("unknown");
    Some(
        format!("Linux {host} {release} {machine}")
            .trim_end()
            .to_owned(),
    )
}

/// The buffer's name and what is known of the boot in which it was recorded: as `last_boot_info` of
/// a kernel says it, and what the run says.
fn about(source: &Source<'_>) -> String {
    let view = source.view;
    let mut text = format!("\nBuffer: {}\n\n", source.name);
    if !view.hides_addresses() {
        push_addresses(&mut text, view);
    }
    if let Some(run) = &view.run {
        let _ = writeln!(text, "recorded by: {} {}", run.program, run.version);
        let _ = writeln!(text, "boot id: {}", RunId(run.boot_id));
        let _ = writeln!(text, "run: {} ({})", run.run_sequence, run.run_id);
        let end = match run.state {
            outlive_ring::RunState::Running => "no clean end",
            outlive_ring::RunState::Closed => "clean exit",
        };
        let _ = writeln!(text, "ended: {end}");
    }
    if !view.is_whole() {
        let _ = writeln!(text, "damaged: events are missing");
    }
    text
}

/// Where the kernel and its modules were: as a recorder's catalog has it, or as the kernel itself noted it.
fn push_addresses(text: &mut String, view: &View) {
    let noted = view
        .parts
        .first()
        .and_then(|part| part.recovery.scratch.as_ref());
    let noted = noted.filter(|noted| noted.text_addr != 0);
    let kernel = view.catalog.kernel().map(|kernel| kernel.text_addr);
    if let Some(address) = kernel.or(noted.map(|noted| noted.text_addr)) {
        let _ = writeln!(text, "{address:x}\t[kernel]");
    }
    let modules = noted.map_or(&[][..], |noted| &noted.modules);
    for (address, module) in view.catalog.modules().iter().chain(modules) {
        let _ = writeln!(text, "{address:x}\t{module}");
    }
}

/// The file `stats` of a CPU.
fn stats(word: &str, cpu: &ViewCpu) -> String {
    let oldest = cpu.oldest.unwrap_or(0) / 1000;
    format!(
        "{word}: {}\nentries: {}\noverrun: {}\ncommit overrun: {}\nbytes: {}\n\
         oldest event ts: {:5}.{:06}\ndropped events: {}\nmissed events: {}\n",
        cpu.cpu,
        cpu.entries,
        cpu.counters.overrun,
        cpu.counters.commit_overrun,
        cpu.bytes,
        oldest / 1_000_000,
        oldest % 1_000_000,
        cpu.counters.dropped,
        cpu.counters.lost,
    )
}

/// How cycles of the time stamp counter become nanoseconds: `(cycles * mult >> shift) + offset`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TscToNs {
    mult: u32,
    shift: u32,
    offset: u64,
}

impl TscToNs {
    /// By the first and the last clock pair of a region that was recorded with `x86-tsc`.
    fn of(view: &View) -> Option<Self> {
        if view.clock() != TraceClock::X86Tsc.name() {
            return None;
        }
        match view.clock_pairs.as_slice() {
            [first, .., last] => Self::between(first, last),
            _ => None,
        }
    }

    fn between(first: &ClockPair, last: &ClockPair) -> Option<Self> {
        let cycles = u128::from(last.trace.checked_sub(first.trace)?);
        let ns = u128::from(last.monotonic_ns.checked_sub(first.monotonic_ns)?);
        // As many bits as the multiplier has room for.
        let factor = |shift: u32| (ns << shift).checked_div(cycles);
        let fits = |shift: &u32| factor(*shift).is_some_and(|factor| factor <= u32::MAX.into());
        let shift = (0..32).rev().find(fits)?;
        let mult = u32::try_from(factor(shift)?).ok()?;
        let at_first = (u128::from(first.trace) * u128::from(mult)) >> shift;
        let offset = u128::from(first.monotonic_ns).checked_sub(at_first)?;
        Some(Self {
            mult,
            shift,
            offset: u64::try_from(offset).ok()?,
        })
    }

    pub(super) fn encode(self) -> [u8; 16] {
        let mut data = [0; 16];
        data[..4].copy_from_slice(&self.mult.to_le_bytes());
        data[4..8].copy_from_slice(&self.shift.to_le_bytes());
        data[8..].copy_from_slice(&self.offset.to_le_bytes());
        data
    }
}

//! What is loaded while a recording goes on: modules, with symbols and format strings of their own.
//!
//! A catalog has the modules and format strings of the start, and its symbols are looked up in the
//! kernel's table as it was when the first one was needed. So `/proc/modules` is looked at again every
//! ten seconds; if it has changed the format strings are read anew, and if an event had an address
//! without a symbol (of a module, a BPF program, a trampoline) the symbols are. That takes a tenth of a
//! second, so a thread does it, and the thread that records takes over what was found.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;

use outlive_event::{Catalog, CatalogRecord, Symbols};
use outlive_ring::MemoryMut;

use crate::catalog_writer::{CatalogWriter, KALLSYMS, read_symbols};
use crate::modules::{MODULES, Module, modules_in};
use crate::tracefs::Tracefs;

/// Time between two looks.
const PAUSE_NS: u64 = 10_000_000_000;
/// Time between two looks for symbols, if none helps: an address may be of nothing that has a name.
const SYMBOLS_PAUSE_MAX_NS: u64 = 600_000_000_000;
/// Nice value of the thread that looks.
const NICE: i32 = 10;

/// Keeps the catalogs of a recording up to date with what is loaded.
#[derive(Debug)]
pub struct Refresher {
    places: Places,
    known: Loaded,
    next_ns: u64,
    symbols_next_ns: u64,
    symbols_pause_ns: u64,
    looking: Option<JoinHandle<Found>>,
}

/// The kernel's files.
#[derive(Clone, Debug)]
struct Places {
    modules: PathBuf,
    kallsyms: PathBuf,
    tracefs: Tracefs,
}

/// What the catalogs have of modules.
#[derive(Clone, Debug, Default)]
struct Loaded {
    modules: Vec<Module>,
    printk_formats: HashSet<(u64, String)>,
}

/// What a look has found: nothing where nothing has changed, or nobody asked.
#[derive(Debug)]
struct Found {
    loaded: Option<Loaded>,
    symbols: Option<Symbols>,
}

impl Refresher {
    /// For catalogs that are begun from now on.
    #[must_use]
    pub fn new(tracefs: &Tracefs) -> Self {
        Self::of(Places {
            modules: MODULES.into(),
            kallsyms: KALLSYMS.into(),
            tracefs: tracefs.clone(),
        })
    }

    fn of(places: Places) -> Self {
        Self {
            known: places.loaded(places.modules()),
            places,
            next_ns: 0,
            symbols_next_ns: 0,
            symbols_pause_ns: PAUSE_NS,
            looking: None,
        }
    }

    /// Lets a thread look if it is time to, and writes what it found into the catalogs. `now_ns` is
    /// `CLOCK_MONOTONIC`. To be called after each poll; costs next to nothing most of the time.
    pub fn tick<'c, M: MemoryMut + Copy + 'c>(
        &mut self,
        now_ns: u64,
        catalogs: impl Iterator<Item = &'c mut CatalogWriter<M>>,
    ) {
        match self.looking.take() {
            Some(looking) if looking.is_finished() => {
                if let Ok(found) = looking.join() {
                    self.take_over(now_ns, found, &mut catalogs.collect::<Vec<_>>());
                }
            }
            Some(looking) => self.looking = Some(looking),
            None if now_ns >= self.next_ns => {
                self.next_ns = now_ns + PAUSE_NS;
                let is_time = now_ns >= self.symbols_next_ns;
                let asking = catalogs.filter_map(|catalog| {
                    let is_asking = is_time && catalog.ask_for_symbols();
                    is_asking.then_some(())
                });
                self.look(asking.count() > 0);
            }
            None => {}
        }
    }

    fn look(&mut self, wants_symbols: bool) {
        let (places, known) = (self.places.clone(), self.known.modules.clone());
        let thread = std::thread::Builder::new().name("outlive-loaded".into());
        let look = move || {
            // Only this thread, which has inherited the recorder's.
            let _ = rustix::process::setpriority_process(None, NICE);
            places.look(&known, wants_symbols)
        };
        // Without one, the next time.
        self.looking = thread.spawn(look).ok();
    }

    fn take_over<M: MemoryMut + Copy>(
        &mut self,
        now_ns: u64,
        found: Found,
        catalogs: &mut [&mut CatalogWriter<M>],
    ) {
        if let Some(loaded) = found.loaded {
            for catalog in &mut *catalogs {
                loaded.write_new(&self.known, catalog);
            }
            self.known = loaded;
        }
        if let Some(symbols) = found.symbols.map(Arc::new) {
            let mut has_helped = false;
            for catalog in catalogs {
                has_helped |= catalog.renew_symbols(&symbols);
            }
            self.symbols_pause_ns = match has_helped {
                true => PAUSE_NS,
                false => (self.symbols_pause_ns * 2).min(SYMBOLS_PAUSE_MAX_NS),
            };
            self.symbols_next_ns = now_ns + self.symbols_pause_ns;
        }
    }
}

impl Places {
    fn modules(&self) -> Vec<Module> {
        modules_in(&self.modules).unwrap_or_default()
    }

    fn loaded(&self, modules: Vec<Module>) -> Loaded {
        let mut printk = Catalog::new();
        printk.parse_printk_formats(&self.tracefs.printk_formats().unwrap_or_default());
        let formats = printk.printk_formats();
        Loaded {
            modules,
            printk_formats: formats.map(|(at, text)| (at, text.to_owned())).collect(),
        }
    }

    fn look(&self, known: &[Module], wants_symbols: bool) -> Found {
        let modules = self.modules();
        let has_changed = modules != known;
        Found {
            loaded: has_changed.then(|| self.loaded(modules)),
            symbols: wants_symbols.then(|| read_symbols(&self.kallsyms)),
        }
    }
}

impl Loaded {
    /// Writes what was not `known`.
    fn write_new<M: MemoryMut + Copy>(&self, known: &Self, catalog: &mut CatalogWriter<M>) {
        let is_known = |module: &&Module| known.modules.contains(module);
        for module in self.modules.iter().filter(|module| !is_known(module)) {
            catalog.module(module);
        }
        for (address, text) in self.printk_formats.difference(&known.printk_formats) {
            let address = *address;
            catalog.record(&CatalogRecord::PrintkFormat { address, text });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use outlive_event::RecordKind;
    use outlive_ring::catalog::CatalogRecords;
    use outlive_ring::extension::Layout;
    use outlive_ring::{Geometry, HeapMemory, Region};

    use super::*;

    const FORMAT: &str = "name: probe\nID: 700\nformat:\n\
        \tfield:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;\n\
        \tfield:unsigned char common_flags;\toffset:2;\tsize:1;\tsigned:0;\n\
        \tfield:unsigned char common_preempt_count;\toffset:3;\tsize:1;\tsigned:0;\n\
        \tfield:int common_pid;\toffset:4;\tsize:4;\tsigned:1;\n\n\
        \tfield:unsigned long function;\toffset:8;\tsize:8;\tsigned:0;\n\n\
        print fmt: \"%ps\", (void *)REC->function\n";
    const IN_KERNEL: u64 = 0xffff_ffff_8100_0004;
    const IN_MODULE: u64 = 0xffff_ffff_c020_1004;
    const OF_NOTHING: u64 = 0xffff_ffff_d000_0000;
    const OF_USER: u64 = 0x5555_0000_1000;
    const SYMBOLS: &str = "ffffffff81000000 T start\nffffffff81000010 t second\n";

    fn event(address: u64) -> Vec<u8> {
        let mut payload = vec![0xbc, 2, 0, 0, 0, 0, 0, 0];
        payload.extend_from_slice(&address.to_le_bytes());
        payload
    }

    struct Rig {
        folder: tempfile::TempDir,
        region: Region<HeapMemory>,
    }

    impl Rig {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let ring = Geometry::new(256 << 10, 1).unwrap();
            let layout = Layout::new(&ring, 64 << 10, 16);
            let memory = HeapMemory::new(layout.area_size() as usize);
            let region = Region::format(memory, ring, Some(layout)).unwrap();
            let this = Self { folder, region };
            this.write("kallsyms", SYMBOLS);
            this.write("modules", "first 4096 1 - Live 0xffffffffc0100000\n");
            this.write(
                "printk_formats",
                "0xffffffff82000000 : \"of the kernel\\n\"\n",
            );
            this
        }

        fn write(&self, file: &str, text: &str) {
            fs::write(self.folder.path().join(file), text).unwrap();
        }

        fn refresher(&self) -> Refresher {
            Refresher::of(Places {
                modules: self.folder.path().join("modules"),
                kallsyms: self.folder.path().join("kallsyms"),
                tracefs: Tracefs::at(self.folder.path()),
            })
        }

        fn catalog(&self) -> CatalogWriter<&HeapMemory> {
            let symbols = read_symbols(&self.folder.path().join("kallsyms"));
            let (layout, memory) = (self.region.extension().unwrap(), self.region.memory());
            let mut catalog = CatalogWriter::of_past_boot(layout, memory, symbols);
            catalog.format("test", FORMAT);
            catalog
        }

        /// What the catalog has beside the format, as `kind name`.
        fn records(&self) -> Vec<String> {
            let layout = self.region.extension().unwrap();
            let records = CatalogRecords::load(layout, self.region.memory()).records;
            let named = |(kind, payload): &(u16, Vec<u8>)| {
                let kind = RecordKind::from_u16(*kind)?;
                Some(match CatalogRecord::decode(kind, payload).ok()? {
                    CatalogRecord::Symbol { name, module, .. } => format!("symbol {name} {module}"),
                    CatalogRecord::Module { name, .. } => format!("module {name}"),
                    CatalogRecord::PrintkFormat { text, .. } => format!("printk {}", text.trim()),
                    _ => return None,
                })
            };
            records.iter().filter_map(named).collect()
        }
    }

    /// One look, to its end.
    fn look(refresher: &mut Refresher, now_ns: u64, catalog: &mut CatalogWriter<&HeapMemory>) {
        refresher.tick(now_ns, std::iter::once(&mut *catalog));
        while let Some(looking) = &refresher.looking {
            match looking.is_finished() {
                true => refresher.tick(now_ns, std::iter::once(&mut *catalog)),
                false => std::thread::yield_now(),
            }
        }
    }

    /// Their addresses stayed numbers, and their `trace_printk` texts were lost.
    #[test]
    fn module_that_is_loaded_during_the_recording_has_its_symbols_and_formats() {
        let rig = Rig::new();
        let (mut refresher, mut catalog) = (rig.refresher(), rig.catalog());
        catalog.note_event(1, &event(IN_KERNEL));
        rig.write(
            "kallsyms",
            &format!("{SYMBOLS}ffffffffc0201000 t probe\t[late]\n"),
        );
        catalog.note_event(2, &event(IN_MODULE));
        assert_eq!(rig.records(), ["symbol start "]);
        rig.write(
            "modules",
            "late 8192 0 - Live 0xffffffffc0201000\nfirst 4096 1 - Live 0xffffffffc0100000\n",
        );
        rig.write(
            "printk_formats",
            "0xffffffff82000000 : \"of the kernel\\n\"\n0xffffffffc0202000 : \"of it\\n\"\n",
        );
        look(&mut refresher, 1, &mut catalog);
        let all = [
            "symbol start ",
            "module late",
            "printk of it",
            "symbol probe late",
        ];
        assert_eq!(rig.records(), all);
        look(&mut refresher, 2 * PAUSE_NS, &mut catalog);
        assert_eq!(rig.records(), all, "each once");
    }

    #[test]
    fn symbols_are_read_again_only_for_a_kernel_address_and_ever_rarer_in_vain() {
        let rig = Rig::new();
        let (mut refresher, mut catalog) = (rig.refresher(), rig.catalog());
        catalog.note_event(1, &event(OF_USER));
        look(&mut refresher, 0, &mut catalog);
        assert_eq!(refresher.symbols_next_ns, 0, "not read");
        let mut last = 0;
        for (number, pause) in [2, 4, 8, 16].into_iter().enumerate() {
            let now = refresher.next_ns.max(refresher.symbols_next_ns);
            catalog.note_event(1, &event(OF_NOTHING + number as u64 * 8));
            look(&mut refresher, now, &mut catalog);
            assert_eq!(refresher.symbols_next_ns, now + pause * PAUSE_NS);
            assert!(now > last || number == 0);
            last = now;
        }
        // Asked for too early.
        catalog.note_event(1, &event(OF_NOTHING + 800));
        let (early, next) = (refresher.next_ns, refresher.symbols_next_ns);
        assert!(early < next);
        look(&mut refresher, early, &mut catalog);
        assert_eq!(refresher.symbols_next_ns, next);
    }

    /// What is missed while a thread reads may not be in what it has read.
    #[test]
    fn address_that_is_missed_during_a_look_is_looked_up_in_the_next() {
        let rig = Rig::new();
        let mut catalog = rig.catalog();
        catalog.note_event(1, &event(OF_NOTHING));
        assert!(catalog.ask_for_symbols());
        let older = Arc::new(read_symbols(&rig.folder.path().join("kallsyms")));
        catalog.note_event(2, &event(IN_MODULE));
        assert!(!catalog.renew_symbols(&older));
        rig.write(
            "kallsyms",
            &format!("{SYMBOLS}ffffffffc0201000 t probe\t[late]\n"),
        );
        assert!(catalog.ask_for_symbols());
        let newer = Arc::new(read_symbols(&rig.folder.path().join("kallsyms")));
        assert!(catalog.renew_symbols(&newer));
        assert_eq!(rig.records(), ["symbol probe late"]);
        assert!(!catalog.ask_for_symbols());
    }
}

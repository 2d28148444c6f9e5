//! The catalog: everything that a reader needs to show records without their writer.
//!
//! It is built from the catalog records of a region ([`Catalog::apply`]) or from a copy of a
//! tracefs `events` folder ([`Catalog::from_events_dir`]).

mod events_dir;
mod record;
mod symbols;
mod tasks;
mod text_files;

use std::collections::HashMap;

pub(crate) use events_dir::{files, read_optional};
pub use record::{COMM_SIZE, CatalogRecord, RecordKind};
pub use symbols::{Symbol, Symbols};
pub use tasks::Tasks;

use crate::constants::Constants;
use crate::doubt::Doubt;
use crate::error::CatalogError;
use crate::format::EventFormat;
use crate::header_page::HeaderPage;
use crate::pointer::SymbolStyle;
use crate::text::event_id;

/// What is known about the writer of records: formats, names, symbols, kernel and clock.
#[derive(Debug, Default)]
pub struct Catalog {
    /// By event id.
    events: Vec<Option<Box<EventFormat>>>,
    header_page: Option<HeaderPage>,
    header_event: Option<String>,
    printk_formats: HashMap<u64, String>,
    symbols: Symbols,
    tasks: Tasks,
    kernel: Option<Kernel>,
    modules: Vec<(u64, String)>,
    trace_clock: Option<String>,
    constants: Constants,
    unknown_records: u64,
    skipped_formats: Vec<CatalogError>,
}

/// The kernel that wrote the records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kernel {
    /// The address of `_text`; 0 if unknown.
    pub text_addr: u64,
    /// `uname -r`, for example `6.18.44`.
    pub release: String,
    /// `uname -v`.
    pub version: String,
    /// `uname -m`, for example `x86_64`.
    pub machine: String,
}

impl Catalog {
    /// An empty catalog.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes in one catalog record. Records of unknown kinds are counted and ignored.
    ///
    /// # Errors
    ///
    /// The payload is too short, not UTF-8, or holds an event format that does not parse. The
    /// catalog is as before then.
    pub fn apply(&mut self, kind: u16, payload: &[u8]) -> Result<(), CatalogError> {
        let Some(kind) = RecordKind::from_u16(kind) else {
            self.unknown_records += 1;
            return Ok(());
        };
        self.apply_record(&CatalogRecord::decode(kind, payload)?)
    }

    /// Takes in one decoded catalog record.
    ///
    /// # Errors
    ///
    /// It holds an event format that does not parse.
    pub fn apply_record(&mut self, record: &CatalogRecord<'_>) -> Result<(), CatalogError> {
        match *record {
            CatalogRecord::EventFormat { system, text } => self.add_format(system, text)?,
            CatalogRecord::HeaderPage(text) => self.header_page = Some(HeaderPage::parse(text)),
            CatalogRecord::HeaderEvent(text) => self.header_event = Some(text.to_owned()),
            CatalogRecord::PrintkFormat { address, text } => {
                self.printk_formats.insert(address, text.to_owned());
            }
            CatalogRecord::Symbol {
                address,
                size,
                name,
                module,
            } => {
                self.symbols.insert(Symbol {
                    address,
                    size,
                    name,
                    module,
                    is_text: true,
                });
            }
            CatalogRecord::Kernel {
                text_addr,
                release,
                version,
                machine,
            } => {
                self.kernel = Some(Kernel {
                    text_addr,
                    release: release.to_owned(),
                    version: version.to_owned(),
                    machine: machine.to_owned(),
                });
            }
            CatalogRecord::Module { address, name } => {
                self.modules.push((address, name.to_owned()))
            }
            CatalogRecord::TaskName { pid, comm } => self.tasks.set_comm(pid, comm),
            CatalogRecord::TraceClock(name) => self.trace_clock = Some(name.to_owned()),
            CatalogRecord::SavedTgid { pid, tgid } => self.tasks.set_tgid(pid, tgid),
            CatalogRecord::Constant { name, value } => self.constants.set(name, value),
        }
        Ok(())
    }

    /// Parses the `format` file `text` of an event of `system` and adds it; an event that had
    /// the same id is replaced.
    ///
    /// # Errors
    ///
    /// The text does not parse.
    pub fn add_format(&mut self, system: &str, text: &str) -> Result<(), CatalogError> {
        let format = EventFormat::parse(system, text).map_err(|error| CatalogError::Format {
            system: system.to_owned(),
            error,
        })?;
        let index = usize::from(format.id);
        if self.events.len() <= index {
            self.events.resize_with(index + 1, || None);
        }
        self.events[index] = Some(Box::new(format));
        Ok(())
    }

    /// Reads the text of `printk_formats`.
    pub fn parse_printk_formats(&mut self, text: &str) {
        self.printk_formats.extend(text_files::printk_formats(text));
    }

    /// Reads `saved_cmdlines`; names are bytes.
    pub fn parse_saved_cmdlines(&mut self, text: &[u8]) {
        for (pid, comm) in text_files::saved_cmdlines(text).filter(|(_, c)| *c != b"<...>") {
            self.tasks.set_comm(pid, comm);
        }
    }

    /// Reads the text of `saved_tgids`.
    pub fn parse_saved_tgids(&mut self, text: &str) {
        for (pid, tgid) in text_files::saved_tgids(text) {
            self.tasks.set_tgid(pid, tgid);
        }
    }

    /// Reads the text of `/proc/kallsyms`; symbols known before are dropped.
    pub fn parse_kallsyms(&mut self, text: &str) {
        self.symbols.parse_kallsyms(text);
    }

    /// Reads lines of `NAME = NUMBER`: values of names in print formats, as
    /// [`Constants::set`] takes them.
    pub fn parse_constants(&mut self, text: &str) {
        for (name, value) in text_files::constants(text) {
            self.constants.set(name, value);
        }
    }

    /// The event with this id.
    #[inline]
    #[must_use]
    pub fn event(&self, id: u16) -> Option<&EventFormat> {
        self.events.get(usize::from(id))?.as_deref()
    }

    /// The CPU that the record `payload` says that it was written on; see [`EventFormat::cpu`].
    #[inline]
    #[must_use]
    pub fn cpu(&self, payload: &[u8]) -> Option<u32> {
        let id = payload.first_chunk().copied().map(u16::from_le_bytes)?;
        self.event(id)?.cpu(payload)
    }

    /// What in the record `payload` no kernel writes; `None` if nothing, if the event is a program's, or if
    /// there are no formats at all.
    #[must_use]
    pub fn doubt(&self, payload: &[u8]) -> Option<Doubt<'_>> {
        if self.events.is_empty() {
            return None;
        }
        let Some(id) = event_id(payload) else {
            return Some(Doubt::Short);
        };
        match self.event(id) {
            Some(event) => event.doubt(payload),
            None => Some(Doubt::NoFormat(id)),
        }
    }

    /// The event with this system and name.
    #[must_use]
    pub fn find_event(&self, system: &str, name: &str) -> Option<&EventFormat> {
        self.events().find(|e| e.system == system && e.name == name)
    }

    /// All events, in the order of their ids.
    pub fn events(&self) -> impl Iterator<Item = &EventFormat> {
        self.events.iter().flatten().map(|e| &**e)
    }

    /// What `events/header_page` says.
    #[must_use]
    pub fn header_page(&self) -> Option<&HeaderPage> {
        self.header_page.as_ref()
    }

    /// The text of `events/header_event`.
    #[must_use]
    pub fn header_event(&self) -> Option<&str> {
        self.header_event.as_deref()
    }

    /// The kernel's string at `address`.
    #[must_use]
    pub fn printk_format(&self, address: u64) -> Option<&str> {
        self.printk_formats.get(&address).map(String::as_str)
    }

    /// All known strings of the kernel, in no order.
    pub fn printk_formats(&self) -> impl Iterator<Item = (u64, &str)> {
        self.printk_formats.iter().map(|(&a, s)| (a, s.as_str()))
    }

    /// The known kernel symbols.
    #[must_use]
    pub fn symbols(&self) -> &Symbols {
        &self.symbols
    }

    /// The known names of tasks.
    #[must_use]
    pub fn tasks(&self) -> &Tasks {
        &self.tasks
    }

    /// The names of tasks, to be changed.
    pub fn tasks_mut(&mut self) -> &mut Tasks {
        &mut self.tasks
    }

    /// The kernel that wrote the records.
    #[must_use]
    pub fn kernel(&self) -> Option<&Kernel> {
        self.kernel.as_ref()
    }

    /// Modules that were loaded, in the order of their records: (text base, name).
    #[must_use]
    pub fn modules(&self) -> &[(u64, String)] {
        &self.modules
    }

    /// The name of the trace clock.
    #[must_use]
    pub fn trace_clock(&self) -> Option<&str> {
        self.trace_clock.as_deref()
    }

    /// Values of the names in print formats. They count for the events that are printed for the
    /// first time from now on.
    #[must_use]
    pub fn constants(&self) -> &Constants {
        &self.constants
    }

    /// The values of names, to be changed; see [`Catalog::constants`].
    pub fn constants_mut(&mut self) -> &mut Constants {
        &mut self.constants
    }

    /// Records of unknown kinds that were ignored.
    #[must_use]
    pub fn unknown_records(&self) -> u64 {
        self.unknown_records
    }

    /// `format` files of the folder that were skipped, and why.
    #[must_use]
    pub fn skipped_formats(&self) -> &[CatalogError] {
        &self.skipped_formats
    }

    /// Appends `address` as a symbol.
    pub(crate) fn push_symbol(&self, out: &mut Vec<u8>, address: u64, style: SymbolStyle) {
        self.symbols.push(out, address, style);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_of_unknown_kinds_are_counted() {
        let mut catalog = Catalog::new();
        catalog.apply(999, b"whatever").unwrap();
        assert_eq!(catalog.unknown_records(), 1);
    }

    #[test]
    fn later_names_replace_earlier_ones() {
        let mut catalog = Catalog::new();
        for comm in [&b"bash"[..], b"sleep\0\0"] {
            let mut payload = Vec::new();
            CatalogRecord::TaskName { pid: 7, comm }.encode(&mut payload);
            catalog
                .apply(RecordKind::TaskName as u16, &payload)
                .unwrap();
        }
        assert_eq!(catalog.tasks().comm(7), Some(&b"sleep"[..]));
        assert_eq!(catalog.tasks().comm(8), None);
    }

    #[test]
    fn a_bad_format_is_an_error_and_changes_nothing() {
        let mut payload = Vec::new();
        CatalogRecord::EventFormat {
            system: "s",
            text: "name: x\n",
        }
        .encode(&mut payload);
        let mut catalog = Catalog::new();
        assert!(matches!(
            catalog.apply(1, &payload),
            Err(CatalogError::Format { .. })
        ));
        assert_eq!(catalog.events().count(), 0);
    }
}

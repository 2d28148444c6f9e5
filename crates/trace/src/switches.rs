//! The switches of a program's events, from outside of the program.
//!
//! A program registers an event when it comes to it for the first time; from then on the event has a
//! format in the region's catalog and a switch, a byte that the program looks at before each event.

use std::fs::OpenOptions;
use std::path::Path;

use outlive_event::EventFormat;
use outlive_ring::extension::{Layout, switch};
use outlive_ring::{Memory, MemoryMut};

use crate::view::LiveRegion;
use crate::{Access, Error, Mapping, RegionPlace};

/// One event and its switch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventSwitch {
    /// The event's id.
    pub id: u16,
    /// The event's system.
    pub system: String,
    /// Its name.
    pub name: String,
    /// Whether it is recorded.
    pub is_on: bool,
}

/// The switches of a live region.
#[derive(Debug)]
pub struct Switches {
    region: LiveRegion,
    mapping: Mapping,
    layout: Layout,
}

impl Switches {
    /// Opens the region of a program. Nothing of it is locked.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if the file may not be written; [`Error::NotARegion`] if there is none in it.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let live = LiveRegion::open(&RegionPlace::File(path.to_owned()))?;
        let file = OpenOptions::new().read(true).write(true).open(path);
        let file = file.map_err(Error::io("open", path))?;
        let len = file.metadata().map_err(Error::io("look at", path))?.len();
        let mapping = Mapping::of_file(&file, path, len, Access::ReadWrite)?;
        Ok(Self {
            layout: *live.layout(),
            region: live,
            mapping,
        })
    }

    /// The events that the program has come to, by their ids.
    #[must_use]
    pub fn list(&self) -> Vec<EventSwitch> {
        let catalog = self.region.catalog();
        let events = catalog.events();
        events.filter_map(|event| self.of_event(event)).collect()
    }

    fn of_event(&self, event: &EventFormat) -> Option<EventSwitch> {
        let mut byte = [0];
        self.mapping.read(self.layout.switch(event.id)?, &mut byte);
        Some(EventSwitch {
            id: event.id,
            system: event.system.clone(),
            name: event.name.clone(),
            is_on: byte[0] & switch::OFF == 0,
        })
    }

    /// Switches an event.
    pub fn set(&self, event: &mut EventSwitch, is_on: bool) {
        if let (Some(memory), Some(offset)) =
            (self.mapping.memory_mut(), self.layout.switch(event.id))
        {
            memory.write(offset, &[if is_on { 0 } else { switch::OFF }]);
            event.is_on = is_on;
        }
    }
}

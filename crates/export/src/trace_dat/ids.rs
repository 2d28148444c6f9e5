//! The ids of events in the file: it has one format for each, where each source has its own.

use std::collections::{BTreeMap, HashMap};

use outlive_event::EventFormat;
use outlive_trace::view::Sources;

/// Formats of all sources, and which id of a source is another one in the file.
#[derive(Debug, Default)]
pub(super) struct Ids<'c> {
    formats: BTreeMap<u16, &'c EventFormat>,
    /// By source.
    changed: Vec<HashMap<u16, u16>>,
    /// Events for which there was no id left.
    pub(super) without_id: u64,
}

impl<'c> Ids<'c> {
    /// The first source that has an id keeps it.
    pub(super) fn of(sources: &Sources<'c>) -> Self {
        let mut this = Self::default();
        let mut known: HashMap<(&str, &str), Vec<u16>> = HashMap::new();
        for source in sources.sources() {
            let mut changed = HashMap::new();
            for format in source.view.catalog.events() {
                let same_name = known.entry((&format.system, &format.name)).or_default();
                let same = |id: &&u16| is_same(this.formats[id], format);
                let id = match same_name.iter().find(same) {
                    Some(&id) => Some(id),
                    None => this.free(format.id),
                };
                let Some(id) = id else {
                    this.without_id += 1;
                    continue;
                };
                if this.formats.insert(id, format).is_none() {
                    same_name.push(id);
                }
                if id != format.id {
                    changed.insert(format.id, id);
                }
            }
            this.changed.push(changed);
        }
        this
    }

    fn free(&self, wanted: u16) -> Option<u16> {
        let mut ids = std::iter::once(wanted).chain((1..=u16::MAX).rev());
        ids.find(|id| !self.formats.contains_key(id))
    }

    /// Whether an event of the source has another id in the file.
    pub(super) fn has_changes(&self, source: usize) -> bool {
        !self.changed[source].is_empty()
    }

    /// The id in the file of an event of a source.
    pub(super) fn id(&self, source: usize, id: u16) -> u16 {
        self.changed[source].get(&id).copied().unwrap_or(id)
    }

    /// System and text of all formats, each with its id in the file.
    pub(super) fn formats(&self) -> impl Iterator<Item = (&'c str, String)> {
        self.formats
            .iter()
            .map(|(&id, format)| (format.system.as_str(), with_id(format, id)))
    }
}

/// Whether two formats differ in nothing but their ids.
fn is_same(a: &EventFormat, b: &EventFormat) -> bool {
    a.system == b.system && lines_but_id(a).eq(lines_but_id(b))
}

fn lines_but_id(format: &EventFormat) -> impl Iterator<Item = &str> {
    format.text.lines().filter(|line| !line.starts_with("ID:"))
}

fn with_id(format: &EventFormat, id: u16) -> String {
    if id == format.id {
        return format.text.clone();
    }
    let lines = format.text.lines().map(|line| match line {
        line if line.starts_with("ID:") => format!("ID: {id}\n"),
        line => format!("{line}\n"),
    });
    lines.collect()
}

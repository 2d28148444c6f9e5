//! What is known of each call site, found by the address of its metadata without a lock.

use std::sync::OnceLock;

use outlive::{Field, FieldType};
use tracing_core::Metadata;

use crate::name;
use crate::shape::Shapes;

/// The values of `level`.
const LEVELS: &[(u64, &str)] = &[
    (1, "ERROR"),
    (2, "WARN"),
    (3, "INFO"),
    (4, "DEBUG"),
    (5, "TRACE"),
];
const LEVEL: FieldType = FieldType::Symbolic {
    size: 1,
    names: LEVELS,
};
/// The numbers of the fields that are not the call site's: those of an event, of a span that begins, and
/// of values that a span gets later.
const OF_EVENT: &[(&str, FieldType)] = &[("level", LEVEL), ("span", u64::TYPE)];
const OF_SPAN: &[(&str, FieldType)] = &[
    ("span_id", u64::TYPE),
    ("span_parent", u64::TYPE),
    ("level", LEVEL),
];
const OF_VALUES: &[(&str, FieldType)] = &[("span_id", u64::TYPE)];

/// A call site.
#[derive(Debug)]
pub(crate) struct Callsite {
    metadata: &'static Metadata<'static>,
    level: [u8; 1],
    /// Its events, or the beginnings of its spans.
    events: Shapes,
    /// The values that its spans get later.
    values: Shapes,
}

impl Callsite {
    /// The call site with this metadata.
    #[inline]
    pub(crate) fn of(metadata: &'static Metadata<'static>) -> &'static Self {
        CALLSITES.find(metadata)
    }

    fn new(metadata: &'static Metadata<'static>) -> Self {
        let (target, fields) = (metadata.target(), metadata.fields());
        let name = name::of_event(metadata);
        let values = format!("{name}_record");
        let own = if metadata.is_span() {
            OF_SPAN
        } else {
            OF_EVENT
        };
        let level = metadata.level().as_str();
        let level = LEVELS.iter().find(|(_, name)| *name == level);
        Self {
            metadata,
            level: [level.map_or(0, |&(level, _)| level as u8)],
            events: Shapes::new(target, name, own, fields),
            values: Shapes::new(target, values, OF_VALUES, fields),
        }
    }

    /// Records an event in a span.
    #[inline]
    pub(crate) fn event(&self, event: &tracing_core::Event<'_>, span: u64) {
        self.events.record(
            |fields| fields.put_bytes(0, &self.level) && fields.put(1, &span),
            |visitor| event.record(visitor),
        );
    }

    /// Records that a span begins. Whether it was recorded.
    #[inline]
    pub(crate) fn span(
        &self,
        attributes: &tracing_core::span::Attributes<'_>,
        id: u64,
        parent: u64,
    ) -> bool {
        self.events.record(
            |fields| {
                fields.put(0, &id) && fields.put(1, &parent) && fields.put_bytes(2, &self.level)
            },
            |visitor| attributes.record(visitor),
        )
    }

    /// Records values that a span got.
    pub(crate) fn values(&self, values: &tracing_core::span::Record<'_>, id: u64) {
        self.values.record(
            |fields| fields.put(0, &id),
            |visitor| values.record(visitor),
        );
    }
}

/// Call sites of a table.
const PLACES: usize = 4096;
/// Places that a call site may have, one behind the other.
const WINDOW: usize = 8;

static CALLSITES: Table = Table::new();

/// A table of call sites, and another one when this one has no place. Call sites stay for good, as
/// their metadata does.
struct Table {
    places: [OnceLock<&'static Callsite>; PLACES],
    next: OnceLock<&'static Table>,
}

impl Table {
    const fn new() -> Self {
        Self {
            places: [const { OnceLock::new() }; PLACES],
            next: OnceLock::new(),
        }
    }

    #[inline]
    fn find(&self, metadata: &'static Metadata<'static>) -> &'static Callsite {
        let hash = (std::ptr::from_ref(metadata).addr() as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        for i in 0..WINDOW {
            let place = &self.places[((hash >> 32) as usize + i) % PLACES];
            let callsite = match place.get() {
                Some(callsite) => callsite,
                None => place.get_or_init(|| Box::leak(Box::new(Callsite::new(metadata)))),
            };
            if std::ptr::eq(callsite.metadata, metadata) {
                return callsite;
            }
        }
        self.next().find(metadata)
    }

    #[cold]
    fn next(&self) -> &'static Table {
        self.next.get_or_init(|| Box::leak(Box::new(Table::new())))
    }
}

//! Events and spans that are known only when the program runs: what other languages and other
//! tracing interfaces record through.
//!
//! An event is declared once, and is there until the process ends. Whoever knows its events when the
//! program is compiled uses [`event!`](crate::event) and [`span!`](crate::span).
//!
//! ```
//! use outlive::{Field, dynamic::Event};
//!
//! let event = Event::declare("shop", "order", &[("id", u64::TYPE), ("customer", str::TYPE)])?;
//! event.record(|fields| fields.put(0, &7u64) && fields.put(1, "Ada"));
//! # Ok::<(), outlive::Error>(())
//! ```

use std::fmt;

use crate::encode::{COMMON_BYTES, EVENT_MAX, data_loc, offset_of};
use crate::field::{Field, FieldType};
use crate::recorder::{current, register};
use crate::scratch::Scratch;
use crate::site::{Site, is_event_name};
use crate::span;
use crate::thread::Thread;
use crate::{Error, site};

/// An event with these fields.
#[derive(Debug)]
pub struct Event {
    site: Site,
    types: Box<[FieldType]>,
    places: Box<[Place]>,
    fixed_bytes: usize,
}

/// What has to be known of a field to put it.
#[derive(Debug)]
struct Place {
    /// That of its type.
    code: u64,
    /// Where it lies.
    offset: usize,
}

impl Event {
    /// Declares an event of these names, letters, digits and `_`, no digit first. What it takes is
    /// never freed: declare it once and keep it. Events that are declared alike are one event to the
    /// reader.
    ///
    /// # Errors
    ///
    /// [`Error::BadDeclaration`] when a name is none, occurs twice, or is one of those that every
    /// event has, or when the fixed fields do not fit a sub-buffer.
    pub fn declare(
        system: &str,
        name: &str,
        fields: &[(&str, FieldType)],
    ) -> Result<&'static Self, Error> {
        let bad = |why| Error::BadDeclaration {
            system: system.to_owned(),
            name: name.to_owned(),
            why,
        };
        check_names(system, name, fields).map_err(bad)?;
        let types: Box<[_]> = fields.iter().map(|(_, ty)| *ty).collect();
        check_types(&types).map_err(bad)?;
        let names: Vec<_> = fields.iter().map(|(name, _)| leak(name)).collect();
        let event = Self {
            site: Site::new(leak(system), leak(name), Vec::leak(names)),
            places: (0..types.len()).map(|i| Place::of(&types, i)).collect(),
            fixed_bytes: offset_of(&types, usize::MAX),
            types,
        };
        Ok(Box::leak(Box::new(event)))
    }

    /// Whether the event is to be recorded: there is a recorder, and it is not switched off.
    #[inline]
    #[must_use]
    pub fn is_enabled(&self) -> bool {
        self.site.is_enabled()
    }

    /// The fields' types.
    #[must_use]
    pub fn types(&self) -> &[FieldType] {
        &self.types
    }

    /// Records the event with the fields that `fill` puts; those that it leaves out are 0 or empty.
    /// Nothing is recorded if `fill` says `false`, and it is not called if the event is switched off.
    /// Whether the event was recorded: a filter may have left it out, or no lane was free.
    #[inline]
    pub fn record(&'static self, fill: impl FnOnce(&mut Fields<'_>) -> bool) -> bool {
        if !self.is_enabled() {
            return false;
        }
        let Some(inner) = current() else {
            return false;
        };
        let id = self.site.id();
        let Some(id) = id.or_else(|| register(inner, &self.site, &self.types)) else {
            return false;
        };
        let mut scratch = Scratch::new();
        scratch.push_zeros(self.fixed_bytes);
        let mut fields = Fields {
            event: self,
            scratch: &mut scratch,
        };
        if !fill(&mut fields) {
            return false;
        }
        let event = scratch.filled();
        inner.write(id, event, self.site.filter())
    }
}

impl Place {
    fn of(types: &[FieldType], index: usize) -> Self {
        Self {
            code: types[index].code(),
            offset: offset_of(types, index),
        }
    }
}

fn leak(text: &str) -> &'static str {
    Box::leak(text.into())
}

fn check_names(system: &str, name: &str, fields: &[(&str, FieldType)]) -> Result<(), &'static str> {
    let is_word = |text: &str| is_event_name(text) && !text.contains(':');
    if !is_word(system) || !is_word(name) || !fields.iter().all(|(field, _)| is_word(field)) {
        return Err("its names have to be of letters, digits and _, with no digit first");
    }
    if fields.iter().any(|(field, _)| field.starts_with("common_")) {
        return Err("fields that begin with common_ are those that every event has");
    }
    let is_twice = |i: usize| fields[..i].iter().any(|(field, _)| *field == fields[i].0);
    match (0..fields.len()).any(is_twice) {
        true => Err("two of its fields have the same name"),
        false => Ok(()),
    }
}

fn check_types(types: &[FieldType]) -> Result<(), &'static str> {
    let sizes = |ty: &FieldType| match ty {
        FieldType::Float { size } => matches!(size, 4 | 8),
        FieldType::Int { size, .. }
        | FieldType::Slice { size, .. }
        | FieldType::Array { size, .. }
        | FieldType::Symbolic { size, .. } => matches!(size, 1 | 2 | 4 | 8),
        FieldType::Bool | FieldType::Text => true,
    };
    if !types.iter().all(sizes) {
        return Err("a field has a size that no number has");
    }
    let is_quoted = |ty: &FieldType| match ty {
        FieldType::Symbolic { names, .. } => {
            names.iter().any(|(_, name)| name.contains(['"', '\\']))
        }
        _ => false,
    };
    if types.iter().any(is_quoted) {
        return Err("a name of a value has a quote or a backslash");
    }
    // Lengths that are too long together may be so each: no sum of them.
    let room = EVENT_MAX - COMMON_BYTES;
    let is_long = |ty: &FieldType| matches!(ty, FieldType::Array { len, .. } if *len > room);
    match types.iter().any(is_long) || offset_of(types, usize::MAX) > EVENT_MAX {
        true => Err("its fixed fields do not fit a sub-buffer"),
        false => Ok(()),
    }
}

/// The fields of an event that is being recorded.
#[derive(Debug)]
pub struct Fields<'a> {
    event: &'static Event,
    scratch: &'a mut Scratch,
}

impl Fields<'_> {
    /// Sets the field number `index`. `false`, and nothing is set, if it is of another type or there
    /// is no such field. A text or slice that does not fit the sub-buffer is cut, and marked.
    #[inline]
    pub fn put<T: Field + ?Sized>(&mut self, index: usize, value: &T) -> bool {
        let Some(offset) = self.offset(index, const { T::TYPE.code() }) else {
            return false;
        };
        if T::TYPE.is_dynamic() {
            self.put_dynamic(offset, value.dynamic());
        } else {
            let end = offset + T::TYPE.fixed_size();
            value.put(&mut self.scratch.filled()[offset..end]);
        }
        true
    }

    /// Sets a field of the fixed part to these bytes, little endian. `false` if it has not so many, or
    /// lies behind the fixed part.
    #[inline]
    pub fn put_bytes(&mut self, index: usize, bytes: &[u8]) -> bool {
        let Some(ty) = self.event.types.get(index) else {
            return false;
        };
        let offset = self.event.places[index].offset;
        if ty.is_dynamic() || ty.fixed_size() != bytes.len() {
            return false;
        }
        self.scratch.filled()[offset..offset + bytes.len()].copy_from_slice(bytes);
        true
    }

    /// Sets a text to these bytes, UTF-8 or not.
    #[inline]
    pub fn put_text(&mut self, index: usize, text: &[u8]) -> bool {
        let Some(offset) = self.offset(index, const { FieldType::Text.code() }) else {
            return false;
        };
        self.put_dynamic(offset, text);
        true
    }

    /// Sets a text to what is formatted, which need not be in memory at once.
    #[inline]
    pub fn format(&mut self, index: usize, text: fmt::Arguments<'_>) -> bool {
        let Some(offset) = self.offset(index, const { FieldType::Text.code() }) else {
            return false;
        };
        let tail = self.scratch.len();
        let mut writer = Counting {
            scratch: self.scratch,
            len: 0,
        };
        // A value that fails to format itself: what it wrote so far.
        let _ = fmt::write(&mut writer, text);
        let len = writer.len;
        self.point(offset, tail, len);
        true
    }

    /// Where the field lies, if its type has this code.
    #[inline]
    fn offset(&self, index: usize, code: u64) -> Option<usize> {
        let place = self.event.places.get(index)?;
        (place.code == code).then_some(place.offset)
    }

    #[inline]
    fn put_dynamic(&mut self, offset: usize, bytes: &[u8]) {
        let tail = self.scratch.len();
        self.scratch.push(bytes);
        self.point(offset, tail, bytes.len());
    }

    #[inline]
    fn point(&mut self, offset: usize, tail: usize, len: usize) {
        self.scratch.filled()[offset..offset + 4].copy_from_slice(&data_loc(tail, len));
    }
}

/// Writes what fits, and counts all.
struct Counting<'a> {
    scratch: &'a mut Scratch,
    len: usize,
}

impl fmt::Write for Counting<'_> {
    #[inline]
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.scratch.push(text.as_bytes());
        self.len += text.len();
        Ok(())
    }
}

/// Whether there is a recorder.
#[inline]
#[must_use]
pub fn is_recording() -> bool {
    site::are_on()
}

/// The thread's innermost span; 0 none.
#[inline]
#[must_use]
pub fn current_span() -> u64 {
    Thread::current().span.get()
}

/// Makes a span the thread's innermost one; 0 none. Returns which one was.
#[inline]
pub fn replace_current_span(id: u64) -> u64 {
    Thread::current().span.replace(id)
}

/// The id of a span that the thread is not inside of yet. No other span of this program's run has it.
#[must_use]
pub fn new_span_id() -> u64 {
    span::next_id(Thread::current())
}

/// Begins a span inside of the thread's innermost one: `record` records its beginning, an event of which
/// the first fields are `span_id` and `span_parent`. `None` if it says that it was not recorded: then there
/// is no span.
pub fn begin_span(record: impl FnOnce(SpanIds) -> bool) -> Option<SpanIds> {
    let (id, parent) = span::new_span();
    let ids = SpanIds { id, parent };
    record(ids).then(|| {
        replace_current_span(id);
        ids
    })
}

/// Ends a span that [`begin_span`] began, in the thread in which it began.
pub fn end_span(ids: SpanIds) {
    span::leave(ids.id, ids.parent);
    record_span_end(ids.id);
}

/// Records that a span of this id has ended. The thread's innermost one stays.
pub fn record_span_end(id: u64) {
    if id != 0 && is_recording() {
        span::record_end(id);
    }
}

/// A span's id and its parent's; 0 none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpanIds {
    /// Its own.
    pub id: u64,
    /// That of the span that it is inside of.
    pub parent: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn why(system: &str, name: &str, fields: &[(&str, FieldType)]) -> &'static str {
        match Event::declare(system, name, fields) {
            Err(Error::BadDeclaration { why, .. }) => why,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn declarations_that_no_reader_could_read_are_refused() {
        let names = why("a", "b", &[("x", u8::TYPE), ("1", u8::TYPE)]);
        assert!(names.contains("no digit first"), "{names}");
        for (system, name) in [("", "b"), ("a", ""), ("a:b", "c"), ("a", "b:c"), ("ä", "b")] {
            assert_eq!(why(system, name, &[]), names);
        }
        assert!(why("a", "b", &[("common_pid", u8::TYPE)]).contains("every event"));
        assert!(why("a", "b", &[("x", u8::TYPE), ("x", u16::TYPE)]).contains("same name"));
        let quoted = FieldType::Symbolic {
            size: 1,
            names: &[(1, "a\"b")],
        };
        assert!(why("a", "b", &[("x", quoted)]).contains("quote"));
        let long = |len| FieldType::Array {
            len,
            size: 8,
            is_signed: false,
        };
        for len in [509, usize::MAX, usize::MAX / 8 + 2] {
            assert!(why("a", "b", &[("x", long(len))]).contains("do not fit"));
        }
        assert!(Event::declare("a", "b", &[("x", long(508))]).is_ok());
        let three = FieldType::Int {
            size: 3,
            is_signed: false,
        };
        assert!(why("a", "b", &[("x", three)]).contains("size"));
    }
}

//! How the fields of a call site lie in an event.
//!
//! `tracing` knows the names of a call site's fields, but not their types, and not each field has a value
//! each time. So the first event tells the *shape*: which fields have values, and of which types. A call
//! site has one shape mostly, and so the shape of its last event is tried: if a value does not fit, the
//! types are asked for, which formats nothing, and the shape is looked up, or made.

use std::error::Error;
use std::fmt::{self, Display};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use outlive::dynamic::{self, Event, Fields};
use outlive::{Field, FieldType};
use tracing_core::field::{self, Visit};

use crate::name;

/// Shapes that a call site may have; of others each field is text.
const SHAPES: usize = 8;

/// A number that no field has.
const NO_VALUE: usize = usize::MAX;

/// An outlive event, and which fields of the call site it has.
#[derive(Debug)]
struct Shape {
    event: &'static Event,
    /// Each field's type; of one without a value none.
    types: Vec<Option<FieldType>>,
    /// Each field's number in the event, or `NO_VALUE`.
    numbers: Vec<usize>,
    /// Fields that have values.
    count: usize,
    /// Whether everything is text, whatever it is, or left out.
    is_text: bool,
}

/// The shapes of a call site's events.
#[derive(Debug)]
pub(crate) struct Shapes {
    system: String,
    name: String,
    /// The fields that each event of this kind has, before those of the call site.
    own: &'static [(&'static str, FieldType)],
    names: Vec<String>,
    shapes: [OnceLock<Shape>; SHAPES],
    text: OnceLock<Option<Shape>>,
    /// The shape of the last event.
    last: AtomicUsize,
}

impl Shapes {
    pub(crate) fn new(
        system: &str,
        name: String,
        own: &'static [(&'static str, FieldType)],
        fields: &field::FieldSet,
    ) -> Self {
        let taken: Vec<&str> = own.iter().map(|(name, _)| *name).collect();
        Self {
            system: name::word(system),
            name,
            own,
            names: name::of_fields(&taken, fields.iter().map(|field| field.name())),
            shapes: [const { OnceLock::new() }; SHAPES],
            text: OnceLock::new(),
            last: AtomicUsize::new(0),
        }
    }

    /// Records an event: its own fields, and those that `values` shows. Whether it was: see
    /// [`Outcome::Off`].
    #[inline]
    pub(crate) fn record(
        &self,
        own: impl Fn(&mut Fields<'_>) -> bool,
        values: impl Fn(&mut dyn Visit),
    ) -> bool {
        let last = self.shapes.get(self.last.load(Ordering::Relaxed));
        match last.and_then(OnceLock::get) {
            Some(shape) => match shape.record(&own, &values) {
                Outcome::Recorded => true,
                Outcome::Off => false,
                Outcome::OtherShape => self.record_other(own, values),
            },
            None => self.record_other(own, values),
        }
    }

    #[cold]
    fn record_other(
        &self,
        own: impl Fn(&mut Fields<'_>) -> bool,
        values: impl Fn(&mut dyn Visit),
    ) -> bool {
        if !dynamic::is_recording() {
            return false;
        }
        // Without a shape: so many fields that they do not fit a sub-buffer, whatever they are.
        let shape = self.find(&values).or_else(|| self.add(&values));
        shape.is_some_and(|shape| matches!(shape.record(&own, &values), Outcome::Recorded))
    }

    /// The shape of these values, if it is known. Allocates nothing: a call site may change its shape
    /// with each event.
    fn find(&self, values: impl Fn(&mut dyn Visit)) -> Option<&Shape> {
        let mut fits = [true; SHAPES];
        let mut count = 0;
        values(&mut Types(|index: usize, ty| {
            count += 1;
            for (fits, shape) in fits.iter_mut().zip(self.known()) {
                *fits &= shape.types.get(index) == Some(&Some(ty));
            }
        }));
        let found = self.known().zip(fits).enumerate();
        let mut found = found.filter(|(_, (shape, fits))| *fits && shape.count == count);
        let (index, (shape, _)) = found.next()?;
        self.last.store(index, Ordering::Relaxed);
        Some(shape)
    }

    fn known(&self) -> impl Iterator<Item = &Shape> {
        self.shapes.iter().map_while(OnceLock::get)
    }

    /// A new shape for these values, or that of texts if there are too many.
    #[cold]
    fn add(&self, values: impl Fn(&mut dyn Visit)) -> Option<&Shape> {
        let texts = || self.declare(vec![Some(FieldType::Text); self.names.len()], true);
        if self.shapes.iter().all(|place| place.get().is_some()) {
            return self.text.get_or_init(texts).as_ref();
        }
        let mut types = vec![None; self.names.len()];
        values(&mut Types(|index, ty| {
            if let Some(place) = types.get_mut(index) {
                *place = Some(ty);
            }
        }));
        for place in &self.shapes {
            if place.get().is_none() {
                // Another thread may be faster, with the same shape or another one.
                let _ = place.set(self.declare(types.clone(), false)?);
            }
            if let Some(shape) = place.get().filter(|shape| shape.types == types) {
                return Some(shape);
            }
        }
        self.text.get_or_init(texts).as_ref()
    }

    fn declare(&self, types: Vec<Option<FieldType>>, is_text: bool) -> Option<Shape> {
        let mut fields = self.own.to_vec();
        let mut numbers = Vec::with_capacity(types.len());
        for (name, ty) in self.names.iter().zip(&types) {
            numbers.push(ty.map_or(NO_VALUE, |_| fields.len()));
            fields.extend(ty.map(|ty| (name.as_str(), ty)));
        }
        Some(Shape {
            event: Event::declare(&self.system, &self.name, &fields).ok()?,
            count: fields.len() - self.own.len(),
            types,
            numbers,
            is_text,
        })
    }
}

enum Outcome {
    Recorded,
    /// It is switched off or left out by a filter, no lane is free, or there is no recorder.
    Off,
    /// The values are not those of this shape.
    OtherShape,
}

impl Shape {
    #[inline]
    fn record(
        &self,
        own: impl Fn(&mut Fields<'_>) -> bool,
        values: impl Fn(&mut dyn Visit),
    ) -> Outcome {
        let mut has_fit = true;
        let is_recorded = self.event.record(|fields| {
            let mut put = Put {
                shape: self,
                has_fit: own(fields),
                fields,
                count: 0,
            };
            values(&mut put);
            has_fit = put.has_fit && (self.is_text || put.count == self.count);
            has_fit
        });
        match (has_fit, is_recorded) {
            (false, _) => Outcome::OtherShape,
            (true, true) => Outcome::Recorded,
            (true, false) => Outcome::Off,
        }
    }
}

/// Puts values into an event of a shape, until one does not fit.
struct Put<'a, 'b> {
    shape: &'a Shape,
    fields: &'a mut Fields<'b>,
    has_fit: bool,
    count: usize,
}

impl Put<'_, '_> {
    /// Puts a field's value, if all before it have fit: `put` is given the field's number in the event,
    /// and says whether it fits.
    #[inline(always)]
    fn fit(&mut self, field: &field::Field, put: impl FnOnce(&mut Fields<'_>, usize) -> bool) {
        let number = self.shape.numbers.get(field.index());
        self.count += 1;
        self.has_fit = self.has_fit && put(self.fields, *number.unwrap_or(&NO_VALUE));
    }

    #[inline]
    fn put<T: Field + Display + ?Sized>(&mut self, field: &field::Field, value: &T) {
        if self.shape.is_text {
            self.format(field, format_args!("{value}"));
        } else {
            self.fit(field, |fields, number| fields.put(number, value));
        }
    }

    #[inline]
    fn format(&mut self, field: &field::Field, text: fmt::Arguments<'_>) {
        self.fit(field, |fields, number| fields.format(number, text));
    }
}

impl Visit for Put<'_, '_> {
    #[inline]
    fn record_f64(&mut self, field: &field::Field, value: f64) {
        self.put(field, &value);
    }

    #[inline]
    fn record_i64(&mut self, field: &field::Field, value: i64) {
        self.put(field, &value);
    }

    #[inline]
    fn record_u64(&mut self, field: &field::Field, value: u64) {
        self.put(field, &value);
    }

    #[inline]
    fn record_bool(&mut self, field: &field::Field, value: bool) {
        self.put(field, &value);
    }

    #[inline]
    fn record_str(&mut self, field: &field::Field, value: &str) {
        self.put(field, value);
    }

    fn record_bytes(&mut self, field: &field::Field, value: &[u8]) {
        if self.shape.is_text {
            self.format(field, format_args!("{value:?}"));
        } else {
            self.fit(field, |fields, number| fields.put(number, value));
        }
    }

    fn record_error(&mut self, field: &field::Field, value: &(dyn Error + 'static)) {
        self.format(field, format_args!("{value}"));
    }

    fn record_debug(&mut self, field: &field::Field, value: &dyn fmt::Debug) {
        self.format(field, format_args!("{value:?}"));
    }
}

/// Tells the number and type of each field that has a value.
struct Types<F>(F);

impl<F: FnMut(usize, FieldType)> Visit for Types<F> {
    fn record_f64(&mut self, field: &field::Field, _: f64) {
        self.0(field.index(), f64::TYPE);
    }

    fn record_i64(&mut self, field: &field::Field, _: i64) {
        self.0(field.index(), i64::TYPE);
    }

    fn record_u64(&mut self, field: &field::Field, _: u64) {
        self.0(field.index(), u64::TYPE);
    }

    fn record_bool(&mut self, field: &field::Field, _: bool) {
        self.0(field.index(), bool::TYPE);
    }

    fn record_bytes(&mut self, field: &field::Field, _: &[u8]) {
        self.0(field.index(), <[u8]>::TYPE);
    }

    fn record_str(&mut self, field: &field::Field, _: &str) {
        self.0(field.index(), FieldType::Text);
    }

    fn record_i128(&mut self, field: &field::Field, _: i128) {
        self.0(field.index(), FieldType::Text);
    }

    fn record_u128(&mut self, field: &field::Field, _: u128) {
        self.0(field.index(), FieldType::Text);
    }

    fn record_error(&mut self, field: &field::Field, _: &(dyn Error + 'static)) {
        self.0(field.index(), FieldType::Text);
    }

    fn record_debug(&mut self, field: &field::Field, _: &dyn fmt::Debug) {
        self.0(field.index(), FieldType::Text);
    }
}

//! Events.

#![allow(unsafe_code)]

use std::ffi::c_char;
use std::ptr;

use outlive::dynamic::{Event, Fields};
use outlive::{Field, FieldType};

use crate::error::{outlive_error, tell};
use crate::pointer;
use crate::status::{Failure, OUTLIVE_BAD_COUNT, OUTLIVE_BAD_KIND, outlive_status, status};
use crate::value::{outlive_field, outlive_value};

/// An event, or the beginning of a span. It is there until the process ends.
#[derive(Debug)]
pub struct outlive_event {
    event: &'static Event,
    is_span: bool,
}

/// The fields of a span before its own.
const SPAN_FIELDS: [(&str, FieldType); 2] = [("span_id", u64::TYPE), ("span_parent", u64::TYPE)];

/// Declares the event SYSTEM:NAME with these fields, and stores it in *event. Declare each once: what it
/// takes is never freed. It may be declared before there is a recorder, and stays good for the next one.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn outlive_event_declare(
    system: *const c_char,
    name: *const c_char,
    fields: *const outlive_field,
    nr_fields: usize,
    event: *mut *const outlive_event,
    error: *mut *mut outlive_error,
) -> outlive_status {
    // SAFETY: the caller's promise.
    unsafe { declare((system, name), (fields, nr_fields), &[], event, error) }
}

/// Declares the event with which spans SYSTEM:NAME begin, for outlive_span_begin. The span's id and its
/// parent's are added to the fields.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn outlive_span_declare(
    system: *const c_char,
    name: *const c_char,
    fields: *const outlive_field,
    nr_fields: usize,
    event: *mut *const outlive_event,
    error: *mut *mut outlive_error,
) -> outlive_status {
    // SAFETY: the caller's promise.
    unsafe {
        declare(
            (system, name),
            (fields, nr_fields),
            &SPAN_FIELDS,
            event,
            error,
        )
    }
}

/// # Safety
///
/// That of the functions above.
unsafe fn declare(
    (system, name): (*const c_char, *const c_char),
    (fields, nr_fields): (*const outlive_field, usize),
    own: &[(&str, FieldType)],
    event: *mut *const outlive_event,
    error: *mut *mut outlive_error,
) -> outlive_status {
    let work = || {
        // SAFETY: the caller's promise.
        unsafe { pointer::reference(event) }?;
        // SAFETY: the caller's promise.
        let (system, name) = unsafe { (pointer::text(system)?, pointer::text(name)?) };
        // SAFETY: the caller's promise.
        let given = unsafe { pointer::array(fields, nr_fields) }?;
        let mut fields = own.to_vec();
        for field in given {
            // SAFETY: the caller's promise.
            fields.push(unsafe { field.read() }?);
        }
        let declared = outlive_event {
            event: Event::declare(system, name, &fields)?,
            is_span: !own.is_empty(),
        };
        // SAFETY: the caller's promise.
        unsafe { pointer::store(event, Box::leak(Box::new(declared))) };
        Ok(())
    };
    // SAFETY: the caller's promise.
    unsafe {
        pointer::store(event, ptr::null());
        tell(error, work)
    }
}

/// Whether the event would be recorded: there is a recorder, and nobody switched the event off. false for
/// NULL. For values that are dear to compute; outlive_record looks itself.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn outlive_event_is_enabled(event: *const outlive_event) -> bool {
    // SAFETY: the caller's promise.
    unsafe { pointer::reference(event) }.is_ok_and(|event| event.event.is_enabled())
}

/// Records an event with a value for each of its fields. Nothing is recorded, and OUTLIVE_OK returned, if
/// there is no recorder or the event is switched off. What does not fit 4080 bytes is cut, and marked.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn outlive_record(
    event: *const outlive_event,
    values: *const outlive_value,
    nr_values: usize,
) -> outlive_status {
    status(|| {
        // SAFETY: the caller's promise.
        let event = unsafe { pointer::reference(event) }?;
        // SAFETY: the caller's promise.
        unsafe { event.record(None, values, nr_values) }.map(drop)
    })
}

impl outlive_event {
    /// Records the event, or that a span of these ids begins. Whether it was recorded.
    ///
    /// # Safety
    ///
    /// `values` is null or to so many values, as [`outlive_value::put`] needs them.
    #[inline]
    pub(crate) unsafe fn record(
        &self,
        span: Option<[u64; 2]>,
        values: *const outlive_value,
        nr_values: usize,
    ) -> Result<bool, Failure> {
        if self.is_span != span.is_some() {
            return Err(OUTLIVE_BAD_KIND.into());
        }
        // SAFETY: as the caller promises.
        let values = unsafe { pointer::array(values, nr_values) }?;
        let ids = span.as_ref().map_or(&[][..], |ids| ids);
        if ids.len() + values.len() != self.event.types().len() {
            return Err(OUTLIVE_BAD_COUNT.into());
        }
        let mut result = Ok(());
        let is_recorded = self.event.record(|fields| {
            // SAFETY: as the caller promises.
            result = unsafe { put_all(fields, ids, values) };
            result.is_ok()
        });
        result.map(|()| is_recorded)
    }
}

/// # Safety
///
/// That of [`outlive_event::record`].
unsafe fn put_all(
    fields: &mut Fields<'_>,
    ids: &[u64],
    values: &[outlive_value],
) -> Result<(), Failure> {
    for (index, id) in ids.iter().enumerate() {
        fields.put(index, id);
    }
    for (index, value) in values.iter().enumerate() {
        // SAFETY: as the caller promises.
        unsafe { value.put(fields, ids.len() + index) }?;
    }
    Ok(())
}

//! Spans.

#![allow(unsafe_code)]

use outlive::dynamic::{self, SpanIds};

use crate::event::outlive_event;
use crate::pointer;
use crate::status::{outlive_status, status};
use crate::value::outlive_value;

/// A span that has begun. It ends in the thread in which it began.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct outlive_span {
    /// No other span of this program's run has it; 0: it is not recorded.
    pub id: u64,
    /// That of the span that it is inside of; 0 none.
    pub parent: u64,
}

const NONE: outlive_span = outlive_span { id: 0, parent: 0 };

/// Begins a span, inside of the thread's innermost one: records its event, which outlive_span_declare
/// made. *span is set, to zeros if nothing is recorded.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn outlive_span_begin(
    event: *const outlive_event,
    values: *const outlive_value,
    nr_values: usize,
    span: *mut outlive_span,
) -> outlive_status {
    status(|| {
        // SAFETY: the caller's promise.
        unsafe { pointer::store(span, NONE) };
        // SAFETY: the caller's promise; it was just set.
        unsafe { pointer::reference(span) }?;
        // SAFETY: the caller's promise.
        let event = unsafe { pointer::reference(event) }?;
        let mut result = Ok(false);
        let begun = dynamic::begin_span(|SpanIds { id, parent }| {
            // SAFETY: the caller's promise.
            result = unsafe { event.record(Some([id, parent]), values, nr_values) };
            matches!(result, Ok(true))
        });
        if let Some(SpanIds { id, parent }) = begun {
            // SAFETY: the caller's promise.
            unsafe { pointer::store(span, outlive_span { id, parent }) };
        }
        result.map(drop)
    })
}

/// Ends a span and sets it to zeros. One of zeros is none: nothing happens.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn outlive_span_end(span: *mut outlive_span) -> outlive_status {
    status(|| {
        // SAFETY: the caller's promise.
        let outlive_span { id, parent } = *unsafe { pointer::reference(span) }?;
        dynamic::end_span(SpanIds { id, parent });
        // SAFETY: the caller's promise.
        unsafe { pointer::store(span, NONE) };
        Ok(())
    })
}

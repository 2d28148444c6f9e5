//! Errors with a message.

#![allow(unsafe_code)]

use std::ffi::{CString, c_char};
use std::ptr;

use crate::pointer;
use crate::status::{Failure, OUTLIVE_OK, guarded, outlive_status};

/// What went wrong, in words.
#[derive(Debug)]
pub struct outlive_error {
    status: outlive_status,
    message: CString,
}

/// The status that the function returned; 0 for NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn outlive_error_status(error: *const outlive_error) -> outlive_status {
    // SAFETY: the caller's promise.
    unsafe { pointer::reference(error) }.map_or(OUTLIVE_OK, |error| error.status)
}

/// What went wrong, in words, as long as the error is there; NULL for NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn outlive_error_message(error: *const outlive_error) -> *const c_char {
    // SAFETY: the caller's promise.
    let error = unsafe { pointer::reference(error) };
    error.map_or(ptr::null(), |error| error.message.as_ptr())
}

/// Frees an error and sets the pointer to NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn outlive_error_free(error: *mut *mut outlive_error) {
    // SAFETY: the caller's promise: what `tell` stored.
    drop(unsafe { pointer::take_back(error) });
}

/// The status of a function that tells more: into `place`, where the caller wants it.
///
/// # Safety
///
/// `place` is null, or to memory for a pointer.
pub(crate) unsafe fn tell(
    place: *mut *mut outlive_error,
    f: impl FnOnce() -> Result<(), Failure>,
) -> outlive_status {
    let (status, error) = match guarded(f) {
        Ok(()) => (OUTLIVE_OK, ptr::null_mut()),
        Err(failure) => (failure.status, made(&failure)),
    };
    // SAFETY: as the caller promises.
    unsafe { pointer::store(place, error) };
    if place.is_null() && !error.is_null() {
        // SAFETY: just made, and handed to nobody.
        drop(unsafe { Box::from_raw(error) });
    }
    status
}

fn made(failure: &Failure) -> *mut outlive_error {
    let message = failure.message().replace('\0', " ");
    Box::into_raw(Box::new(outlive_error {
        status: failure.status,
        message: CString::new(message).unwrap_or_default(),
    }))
}

//! The pointers that callers hand over: all that is looked at through them.

#![allow(unsafe_code)]

use std::ffi::{CStr, c_char};
use std::mem::{MaybeUninit, size_of};

use crate::status::{
    Failure, OUTLIVE_BAD_COUNT, OUTLIVE_BAD_STRUCT, OUTLIVE_NOT_UTF8, OUTLIVE_NULL_POINTER,
};

/// A struct that a caller fills, and which grows in later versions.
///
/// # Safety
///
/// It is `repr(C)`, begins with its size as `usize`, has no padding, and may be all zero.
pub(crate) unsafe trait Sized_: Copy {
    /// Bytes of the smallest version that there was.
    const LEAST: usize;
}

/// A text.
///
/// # Safety
///
/// Null, or to bytes that end with a zero and stay as they are for `'a`.
pub(crate) unsafe fn text<'a>(text: *const c_char) -> Result<&'a str, Failure> {
    // SAFETY: as the caller promises.
    unsafe { optional_text(text) }?.ok_or(OUTLIVE_NULL_POINTER.into())
}

/// A text that need not be there.
///
/// # Safety
///
/// That of [`text()`].
pub(crate) unsafe fn optional_text<'a>(text: *const c_char) -> Result<Option<&'a str>, Failure> {
    if text.is_null() {
        return Ok(None);
    }
    // SAFETY: not null, and as the caller promises.
    let text = unsafe { CStr::from_ptr(text) };
    text.to_str().map(Some).map_err(|_| OUTLIVE_NOT_UTF8.into())
}

/// An array; null is one of no elements.
///
/// # Safety
///
/// Null, or to so many elements that stay as they are for `'a`.
#[inline]
pub(crate) unsafe fn array<'a, T>(first: *const T, count: usize) -> Result<&'a [T], Failure> {
    if count == 0 {
        return Ok(&[]);
    }
    if first.is_null() {
        return Err(OUTLIVE_NULL_POINTER.into());
    }
    if count > isize::MAX as usize / size_of::<T>() || !first.is_aligned() {
        return Err(OUTLIVE_BAD_COUNT.into());
    }
    // SAFETY: not null, aligned, not too long, and as the caller promises.
    Ok(unsafe { std::slice::from_raw_parts(first, count) })
}

/// What is behind a pointer.
///
/// # Safety
///
/// Null, or to a valid `T` that stays as it is for `'a`.
#[inline]
pub(crate) unsafe fn reference<'a, T>(pointer: *const T) -> Result<&'a T, Failure> {
    // SAFETY: as the caller promises.
    unsafe { pointer.as_ref() }.ok_or(OUTLIVE_NULL_POINTER.into())
}

/// A struct of the caller's version, with zeros for what this library knows beyond it. What it has
/// beyond what this library knows must be zero.
///
/// # Safety
///
/// Null, or to a `usize` that is the number of bytes that may be read there.
pub(crate) unsafe fn sized<T: Sized_>(pointer: *const T) -> Result<T, Failure> {
    if pointer.is_null() {
        return Err(OUTLIVE_NULL_POINTER.into());
    }
    // SAFETY: the caller promises so many bytes at least.
    let size = unsafe { pointer.cast::<usize>().read_unaligned() };
    if !(T::LEAST..=4096).contains(&size) {
        return Err(OUTLIVE_BAD_STRUCT.into());
    }
    // SAFETY: the caller promises so many bytes.
    let given = unsafe { std::slice::from_raw_parts(pointer.cast::<u8>(), size) };
    let (known, beyond) = given.split_at(size.min(size_of::<T>()));
    if beyond.iter().any(|&byte| byte != 0) {
        return Err(OUTLIVE_BAD_STRUCT.into());
    }
    let mut value = MaybeUninit::<T>::zeroed();
    // SAFETY: `known` is not longer than the value, and no part of it.
    unsafe {
        std::ptr::copy_nonoverlapping(known.as_ptr(), value.as_mut_ptr().cast(), known.len());
    }
    // SAFETY: zero or what the caller filled in, which the trait's promise makes a value: every member
    // is a number or a raw pointer.
    Ok(unsafe { value.assume_init() })
}

/// Stores a result, where the caller wants it.
///
/// # Safety
///
/// Null, or to memory for a `T`.
#[inline]
pub(crate) unsafe fn store<T>(place: *mut T, value: T) {
    if !place.is_null() {
        // SAFETY: as the caller promises.
        unsafe { place.write(value) };
    }
}

/// Takes back what was handed out by `Box::into_raw`, and leaves null.
///
/// # Safety
///
/// Null, or to a pointer that is null or was handed out so, once.
pub(crate) unsafe fn take_back<T>(place: *mut *mut T) -> Option<Box<T>> {
    if place.is_null() {
        return None;
    }
    // SAFETY: as the caller promises.
    let pointer = unsafe { place.replace(std::ptr::null_mut()) };
    // SAFETY: not null, and so handed out by us and not taken back yet.
    (!pointer.is_null()).then(|| unsafe { Box::from_raw(pointer) })
}

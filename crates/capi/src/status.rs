//! What functions return.

use std::ffi::{CStr, c_char};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// What a function returns: 0 or what went wrong.
pub type outlive_status = i32;

/// All is well.
pub const OUTLIVE_OK: outlive_status = 0;
/// A pointer is null that must not be.
pub const OUTLIVE_NULL_POINTER: outlive_status = 1;
/// A text is not UTF-8.
pub const OUTLIVE_NOT_UTF8: outlive_status = 2;
/// A struct's type_size is none that this library knows, or a reserved member is not zero.
pub const OUTLIVE_BAD_STRUCT: outlive_status = 3;
/// There are more or fewer values than the event has fields.
pub const OUTLIVE_BAD_COUNT: outlive_status = 4;
/// A value is not of its field's type, or a type is none.
pub const OUTLIVE_BAD_TYPE: outlive_status = 5;
/// An event or span cannot be declared so.
pub const OUTLIVE_BAD_DECLARATION: outlive_status = 6;
/// A span's event where another one is needed, or the other way round.
pub const OUTLIVE_BAD_KIND: outlive_status = 7;
/// The recorder cannot be started; what the run before left is as it was, or kept.
pub const OUTLIVE_NOT_STARTED: outlive_status = 8;
/// The process has a recorder already.
pub const OUTLIVE_ALREADY_STARTED: outlive_status = 9;
/// A fault of this library.
pub const OUTLIVE_PANIC: outlive_status = 10;

/// Of a status: what it means. Never null, and never freed.
#[allow(unsafe_code)]
#[unsafe(no_mangle)]
pub extern "C" fn outlive_status_text(status: outlive_status) -> *const c_char {
    text(status).as_ptr()
}

fn text(status: outlive_status) -> &'static CStr {
    match status {
        OUTLIVE_OK => c"all is well",
        OUTLIVE_NULL_POINTER => c"a pointer is null that must not be",
        OUTLIVE_NOT_UTF8 => c"a text is not UTF-8",
        OUTLIVE_BAD_STRUCT => {
            c"a struct's type_size is none that this library knows, or a reserved member is not zero"
        }
        OUTLIVE_BAD_COUNT => c"there are more or fewer values than the event has fields",
        OUTLIVE_BAD_TYPE => c"a value is not of its field's type, or a type is none",
        OUTLIVE_BAD_DECLARATION => c"an event cannot be declared so",
        OUTLIVE_BAD_KIND => c"a span's event where another one is needed, or the other way round",
        OUTLIVE_NOT_STARTED => c"the recorder cannot be started",
        OUTLIVE_ALREADY_STARTED => c"the process has a recorder already",
        OUTLIVE_PANIC => c"a fault of this library",
        _ => c"no status",
    }
}

/// What went wrong, and more words on it, if there are any.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) status: outlive_status,
    pub(crate) message: Option<String>,
}

impl Failure {
    /// The message of the failure.
    pub(crate) fn message(&self) -> String {
        self.message
            .clone()
            .unwrap_or_else(|| text(self.status).to_string_lossy().into_owned())
    }
}

impl From<outlive_status> for Failure {
    fn from(status: outlive_status) -> Self {
        Self {
            status,
            message: None,
        }
    }
}

impl From<outlive::Error> for Failure {
    fn from(error: outlive::Error) -> Self {
        let status = match error {
            outlive::Error::AlreadyStarted => OUTLIVE_ALREADY_STARTED,
            outlive::Error::BadDeclaration { .. } => OUTLIVE_BAD_DECLARATION,
            _ => OUTLIVE_NOT_STARTED,
        };
        Self {
            status,
            message: Some(error.to_string()),
        }
    }
}

/// The work of a function: no panic leaves it.
#[inline]
pub(crate) fn guarded<T>(f: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
    // What a panic leaves half done is seen by nobody: each function makes its own.
    catch_unwind(AssertUnwindSafe(f)).unwrap_or_else(|_| Err(OUTLIVE_PANIC.into()))
}

/// The status of a function that tells no more.
#[inline]
pub(crate) fn status(f: impl FnOnce() -> Result<(), Failure>) -> outlive_status {
    match guarded(f) {
        Ok(()) => OUTLIVE_OK,
        Err(failure) => failure.status,
    }
}

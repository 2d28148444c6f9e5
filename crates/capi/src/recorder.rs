//! The recorder.

#![allow(unsafe_code)]

use std::ffi::{CString, c_char};
use std::os::unix::ffi::OsStrExt;
use std::ptr;

use outlive::{Backing, Builder, Recorder, Verdict};

use crate::error::{outlive_error, tell};
use crate::pointer::{self, Sized_};
use crate::status::{Failure, OUTLIVE_BAD_STRUCT, OUTLIVE_NOT_STARTED, outlive_status};

/// How a recorder is configured. All zero but type_size and name is right.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct outlive_options {
    /// sizeof(struct outlive_options).
    pub type_size: usize,
    /// The program's name: that of its folder in the state. Not NULL.
    pub name: *const c_char,
    /// The program's version; NULL none.
    pub version: *const c_char,
    /// The state folder; NULL: that of OUTLIVE_STATE, else /var/lib/outlive for root, `outlive` in the XDG
    /// state folder for others.
    pub state: *const c_char,
    /// Where the region lives while the program runs: tmpfs, tmpfs:PATH, file, file:PATH, dax:PATH; NULL
    /// tmpfs.
    pub area: *const c_char,
    /// Size and events in the kernel's grammar, in the place of size_bytes and events; NULL none.
    pub command_line: *const c_char,
    /// Patterns of the events that are on from the start, as `http:*`; NULL all.
    pub events: *const *const c_char,
    /// How many those are.
    pub nr_events: usize,
    /// Bytes of the ring; 0: 4 MiB.
    pub size_bytes: u64,
    /// Earlier runs to keep; 0: 8.
    pub keep: u32,
    /// 1: a full ring drops new events instead of overwriting the oldest.
    pub no_overwrite: u32,
    /// Zeros.
    pub reserved: [u64; 4],
}

// SAFETY: numbers and pointers, the size first, each member at a multiple of its size with none of it
// left between, on 64 bits; null pointers and zeros are values.
unsafe impl Sized_ for outlive_options {
    // The first version is this one.
    const LEAST: usize = size_of::<Self>();
}

impl outlive_options {
    /// # Safety
    ///
    /// Texts are null or texts; there are so many events.
    unsafe fn builder(&self) -> Result<Builder, Failure> {
        if self.reserved != [0; 4] || self.no_overwrite > 1 {
            return Err(OUTLIVE_BAD_STRUCT.into());
        }
        // SAFETY: as the caller promises, here and below.
        let mut builder = Recorder::builder(unsafe { pointer::text(self.name) }?).no_panic_hook();
        // SAFETY: as above.
        if let Some(version) = unsafe { pointer::optional_text(self.version) }? {
            builder = builder.version(version);
        }
        // SAFETY: as above.
        if let Some(state) = unsafe { pointer::optional_text(self.state) }? {
            builder = builder.state(state);
        }
        // SAFETY: as above.
        if let Some(area) = unsafe { pointer::optional_text(self.area) }? {
            builder = builder.backing(backing(area)?);
        }
        // SAFETY: as above.
        if let Some(line) = unsafe { pointer::optional_text(self.command_line) }? {
            builder = builder.command_line(line);
        }
        if !self.events.is_null() {
            // SAFETY: as above.
            let events = unsafe { pointer::array(self.events, self.nr_events) }?;
            // SAFETY: as above.
            let events = events.iter().map(|&event| unsafe { pointer::text(event) });
            builder = builder.events(events.collect::<Result<Vec<_>, _>>()?);
        }
        if self.size_bytes > 0 {
            builder = builder.size(self.size_bytes);
        }
        if self.keep > 0 {
            builder = builder.keep(self.keep);
        }
        Ok(match self.no_overwrite {
            1 => builder.no_overwrite(),
            _ => builder,
        })
    }
}

fn backing(area: &str) -> Result<Backing, Failure> {
    area.parse().map_err(|error| Failure {
        status: OUTLIVE_NOT_STARTED,
        message: Some(format!("area {area:?}: {error}")),
    })
}

/// A recorder.
#[derive(Debug)]
pub struct outlive_recorder {
    recorder: Recorder,
    previous: Option<CString>,
}

/// Keeps what the run before left, starts to record, and stores the recorder in *recorder. A process has
/// one at a time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn outlive_recorder_start(
    options: *const outlive_options,
    recorder: *mut *mut outlive_recorder,
    error: *mut *mut outlive_error,
) -> outlive_status {
    let work = || {
        // SAFETY: the caller's promise; it was just set.
        unsafe { pointer::reference(recorder) }?;
        // SAFETY: the caller's promise.
        let options = unsafe { pointer::sized(options) }?;
        // SAFETY: the caller's promise.
        let started = unsafe { options.builder() }?.start()?;
        let path = started.previous().map(|previous| {
            let path = previous.generation().path().as_os_str();
            CString::new(path.as_bytes()).unwrap_or_default()
        });
        let started = Box::new(outlive_recorder {
            recorder: started,
            previous: path,
        });
        // SAFETY: the caller's promise.
        unsafe { pointer::store(recorder, Box::into_raw(started)) };
        Ok(())
    };
    // SAFETY: the caller's promise.
    unsafe {
        pointer::store(recorder, ptr::null_mut());
        tell(error, work)
    }
}

/// Ends the recording, cleanly, and sets the pointer to NULL. `exit` does it too.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn outlive_recorder_close(recorder: *mut *mut outlive_recorder) {
    crate::status::status(|| {
        // SAFETY: the caller's promise: what `outlive_recorder_start` stored.
        drop(unsafe { pointer::take_back(recorder) });
        Ok(())
    });
}

/// There was no run before.
pub const OUTLIVE_NO_PREVIOUS: u32 = 0;
/// The run before ended by itself.
pub const OUTLIVE_CLEAN_EXIT: u32 = 1;
/// The run before died, and the machine went on.
pub const OUTLIVE_CRASH: u32 = 2;
/// The machine went down in the run before.
pub const OUTLIVE_HOST_REBOOTED: u32 = 3;
/// How the run before ended is not known.
pub const OUTLIVE_UNKNOWN: u32 = 4;

/// How the run before ended: one of OUTLIVE_NO_PREVIOUS and so on.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn outlive_previous_verdict(recorder: *const outlive_recorder) -> u32 {
    // SAFETY: the caller's promise.
    let recorder = unsafe { pointer::reference(recorder) };
    let previous = recorder.ok().and_then(|this| this.recorder.previous());
    match previous.map(outlive::Previous::verdict) {
        None => OUTLIVE_NO_PREVIOUS,
        Some(Verdict::CleanExit) => OUTLIVE_CLEAN_EXIT,
        Some(Verdict::Crash) => OUTLIVE_CRASH,
        Some(Verdict::HostRebooted) => OUTLIVE_HOST_REBOOTED,
        Some(_) => OUTLIVE_UNKNOWN,
    }
}

/// The folder in which the run before is kept, as long as the recorder is there; NULL: there was none.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn outlive_previous_path(recorder: *const outlive_recorder) -> *const c_char {
    // SAFETY: the caller's promise.
    let recorder = unsafe { pointer::reference(recorder) };
    let path = recorder.ok().and_then(|this| this.previous.as_ref());
    path.map_or(ptr::null(), |path| path.as_ptr())
}

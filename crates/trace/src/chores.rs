//! What a start leaves to be done when the recording has begun.

use std::path::PathBuf;

use crate::{Area, Error, StateDir, StateLock, generation, retention, spare};

/// The steps of making a spare, for [`failpoint`](crate::failpoint). Those of copying are
/// [`COPY_LATER_STEPS`](generation::COPY_LATER_STEPS).
pub const SPARE_STEPS: [&str; 2] = ["spare-allocated", "spare-named"];

/// What is to be done behind a start, for its cost not to grow with the size of what the run before
/// left: to copy what it has [set aside](generation::set_aside), and to make the spare files that the
/// next start takes. A process that ends before leaves the rest to the next start, which then takes
/// longer.
#[derive(Debug)]
#[must_use = "without it the next start takes longer"]
pub struct Chores {
    state: StateDir,
    /// Live files that have a spare, and its length.
    spared: Vec<(PathBuf, u64)>,
}

impl Chores {
    /// Those of a start on `state` that has reserved these areas.
    pub fn new<'a>(state: &StateDir, areas: impl IntoIterator<Item = &'a Area>) -> Self {
        let spared = |area: &Area| Some((area.spared()?.to_owned(), area.len_bytes()));
        Self {
            state: state.clone(),
            spared: areas.into_iter().filter_map(spared).collect(),
        }
    }

    /// Does them. `is_ended` is asked every few milliseconds, and before each spare, and ends it if it
    /// says so.
    ///
    /// # Errors
    ///
    /// [`Error::NoSpace`] if what was set aside has no room, even after retention; [`Error::Io`]. It
    /// is still there, and the next start tries again.
    pub fn run(&self, lock: &StateLock, is_ended: &dyn Fn() -> bool) -> Result<(), Error> {
        let copy = || generation::copy_set_aside(&self.state, lock, is_ended);
        if !retention::with_room(&self.state, lock, copy)? {
            return Ok(());
        }
        for (live, len_bytes) in &self.spared {
            if is_ended() {
                break;
            }
            match spare::make(lock, live, *len_bytes) {
                // The next start finds out whether it has room.
                Err(Error::NoSpace { .. }) => {}
                result => result?,
            }
        }
        Ok(())
    }
}

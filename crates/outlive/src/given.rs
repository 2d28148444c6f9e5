//! A region that one process prepares, and another one records into.
//!
//! A supervisor makes the start for its program: it keeps what the run before left, lays out a fresh
//! region, and hands its file over as an inherited descriptor. So the program needs no writable
//! folder, no state, not even `/proc`. The environment names the descriptor and the region's run
//! id, so that a descriptor that is something else by now is not taken for it; and the area's path,
//! for a process that was started without the descriptor.
//!
//! Of all processes that have these, the first that starts a recorder takes the region: it locks
//! the file with a lock of its process (`F_SETLK`, fcntl(2)), which its forked children do not
//! have, and changes the run record. One that comes later finds the lock or the changed record, and
//! makes a region of its own beside it ([`beside`](crate::beside)); where it cannot see the area, it
//! starts as if nothing was given. The lock lasts as long as the process, so a start that would
//! keep the region of a program whose supervisor has died is refused.

#![allow(unsafe_code)]

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use outlive_ring::extension::Layout;
use outlive_ring::{LayoutError, RawMemory, Region, RunRecord, RunState};
use outlive_trace::start::close_run;
use outlive_trace::{Access, Generation, Mapping, StateLock, clock};

use crate::Error;
use crate::background::Background;
use crate::handed::{self, Handed};
use crate::place::Own;

/// `DESCRIPTOR:RUN-ID` in the program's environment.
const VARIABLE: &str = "OUTLIVE_FD";
/// The area's path, in the program's environment.
pub(crate) const AREA: &str = "OUTLIVE_AREA";
/// Source of a run record whose region nobody has taken yet, before the giver's process id.
const GIVEN: &str = "given by the supervisor with pid ";
/// The same, when it was taken.
const TAKEN: &str = "taken from the supervisor with pid ";

/// A region for another process, made by [`Builder::give`](crate::Builder::give).
///
/// The process inherits [`descriptors`](Self::descriptors), made inheritable by the caller, and has
/// [`environment`](Self::environment). Its recorder then takes the region. The state folder stays
/// locked while this lives.
///
/// ```
/// # let state = tempfile::tempdir().unwrap();
/// let given = outlive::Recorder::builder("shop")
/// #   .state(state.path())
/// #   .backing(outlive::Backing::File)
///     .give()?;
/// let mut shop = std::process::Command::new("shop");
/// shop.envs(given.environment());
/// assert!(!given.was_taken());
/// # Ok::<(), outlive::Error>(())
/// ```
#[derive(Debug)]
#[must_use = "the region is closed when this is dropped and nobody has taken it"]
pub struct Given {
    file: File,
    path: PathBuf,
    mapping: Mapping,
    layout: Layout,
    run: RunRecord,
    kept: Option<Handed>,
    /// What the start has left to be done.
    background: Background,
    _lock: Arc<StateLock>,
}

impl Given {
    pub(crate) fn new(own: Own, mut run: RunRecord) -> Result<Self, Error> {
        let path = own.live.area.path().ok_or(Error::NotAFile)?.to_owned();
        let region = own.live.lay_out()?;
        run.sequence = 1;
        run.source = format!("{GIVEN}{}", std::process::id());
        let layout = *own.live.layout();
        run.store(&layout, region.memory());
        let open = || File::options().read(true).write(true).open(&path);
        // Another open file than the one that has the area's lock, which ends here.
        let file = open().map_err(Error::Given)?;
        let len = layout.area_size();
        let mapping = Mapping::of_file(&file, &path, len, Access::ReadWrite)?;
        // Before it is copied to where it is kept, in the background.
        let kept = own.live.kept.clone().map(Handed::new);
        let (rest, lock) = (own.rest(), Arc::new(own.lock));
        let of_rest = Arc::clone(&lock);
        Ok(Self {
            file,
            path,
            mapping,
            layout,
            run,
            kept,
            background: Background::begin(move |is_ended| rest.run(&of_rest, is_ended)),
            _lock: lock,
        })
    }

    /// The descriptors that the process has to inherit. They are closed on `exec` unless the caller
    /// changes that.
    pub fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let previous = self.kept.as_ref().and_then(Handed::descriptor);
        std::iter::once(self.file.as_fd()).chain(previous)
    }

    /// Closes the descriptor of what the run before left, when the process has it: only that one
    /// keeps its memory then.
    pub fn close_previous(&mut self) {
        if let Some(kept) = &mut self.kept {
            kept.close();
        }
    }

    /// The variables that the process needs in its environment, and their values: the region, and
    /// where the run before is kept, which is empty if it left nothing.
    #[must_use]
    pub fn environment(&self) -> [(&'static str, OsString); 3] {
        let region = format!("{}:{}", self.file.as_raw_fd(), self.run.run_id);
        let previous = self.kept.as_ref().map_or_else(OsString::new, Handed::value);
        [
            (VARIABLE, region.into()),
            (AREA, self.path.clone().into()),
            (handed::VARIABLE, previous),
        ]
    }

    /// What the run before left.
    #[must_use]
    pub fn previous(&self) -> Option<&Generation> {
        self.kept.as_ref().map(Handed::generation)
    }

    /// Whether a process has taken it.
    #[must_use]
    pub fn was_taken(&self) -> bool {
        let now = RunRecord::load(&self.layout, &self.mapping);
        now.is_none_or(|run| !run.source.starts_with(GIVEN))
    }
}

impl Drop for Given {
    /// Of a region that nobody has taken it cannot be said that its recorder died.
    fn drop(&mut self) {
        self.background.end();
        if !self.was_taken()
            && let Some(memory) = self.mapping.memory_mut()
        {
            close_run(&mut self.run, &self.layout, &memory);
        }
    }
}

/// A region that was given to this process.
#[derive(Debug)]
pub(crate) struct Taken {
    file: File,
    mapping: Mapping,
    layout: Layout,
    run: RunRecord,
    path: Option<PathBuf>,
}

impl Taken {
    /// Takes the region that the environment names. `None` if there is none, or another process has
    /// it, or had it.
    pub(crate) fn from_environment() -> Option<Self> {
        let (descriptor, run_id) = named_in_environment()?;
        Self::inherited(descriptor, &run_id).or_else(|| Self::by_path(&run_id))
    }

    fn inherited(descriptor: RawFd, run_id: &str) -> Option<Self> {
        let file = adopt(descriptor)?;
        let Some(taken) = Self::take(&file, run_id) else {
            // It is not ours to close.
            std::mem::forget(file);
            return None;
        };
        close_on_exec(&file);
        Some(Self::new(file, taken))
    }

    /// Some programs close what their children would inherit.
    fn by_path(run_id: &str) -> Option<Self> {
        let path = std::env::var_os(AREA)?;
        let file = File::options().read(true).write(true).open(path).ok()?;
        let taken = Self::take(&file, run_id)?;
        Some(Self::new(file, taken))
    }

    fn new(file: File, (mapping, layout, run): (Mapping, Layout, RunRecord)) -> Self {
        Self {
            path: path_of(&file),
            file,
            mapping,
            layout,
            run,
        }
    }

    fn take(file: &File, run_id: &str) -> Option<(Mapping, Layout, RunRecord)> {
        let len = file.metadata().ok().filter(|m| m.is_file())?.len();
        let path = Path::new(VARIABLE);
        let mapping = Mapping::of_file(file, path, len, Access::ReadWrite).ok()?;
        let layout = Layout::load(&mapping)?;
        let is_given = |run: &RunRecord| {
            run.run_id.to_string() == run_id
                && run.state == RunState::Running
                && run.source.starts_with(GIVEN)
        };
        // Looked at first: a file that is no region of ours is not touched.
        RunRecord::load(&layout, &mapping).filter(is_given)?;
        set_lock(file, libc::F_WRLCK).ok()?;
        // Once more, under the lock.
        let Some(mut run) = RunRecord::load(&layout, &mapping).filter(is_given) else {
            let _ = set_lock(file, libc::F_UNLCK);
            return None;
        };
        run.source = run.source.replace(GIVEN, TAKEN);
        run.sequence += 1;
        run.store(&layout, &mapping.memory_mut()?);
        Some((mapping, layout, run))
    }

    /// The run record, with what this process is.
    pub(crate) fn run(&self, program: &str, version: &str) -> RunRecord {
        of_this_process(&self.run, program, version)
    }

    pub(crate) fn lay_out(&self) -> Result<Region<RawMemory<'_>>, Error> {
        lay_out(&self.mapping, &self.layout)
    }

    pub(crate) fn layout(&self) -> &Layout {
        &self.layout
    }

    pub(crate) fn instance(&self) -> &str {
        &self.run.instance
    }

    pub(crate) fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    pub(crate) fn descriptor(&self) -> RawFd {
        self.file.as_raw_fd()
    }
}

/// The descriptor of the region that the environment names, and its run id.
pub(crate) fn named_in_environment() -> Option<(RawFd, String)> {
    let value = std::env::var(VARIABLE).ok()?;
    let (descriptor, run_id) = value.split_once(':')?;
    Some((descriptor.parse().ok()?, run_id.to_owned()))
}

/// A prepared run record, with what this process is.
pub(crate) fn of_this_process(prepared: &RunRecord, program: &str, version: &str) -> RunRecord {
    let now = clock::read();
    RunRecord {
        program: program.to_owned(),
        version: version.to_owned(),
        pid: std::process::id().cast_signed(),
        pid_start_ticks: 0,
        started_realtime_ns: now.realtime_ns,
        started_monotonic_ns: now.monotonic_ns,
        started_boottime_ns: now.boottime_ns,
        ..prepared.clone()
    }
}

/// Lays out a region where nothing is, or the same one in which nothing was recorded: then no store
/// changes anything, and other processes of the run read it meanwhile.
pub(crate) fn lay_out<'m>(
    mapping: &'m Mapping,
    layout: &Layout,
) -> Result<Region<RawMemory<'m>>, Error> {
    let memory = mapping.memory_mut();
    let memory = memory.ok_or(Error::Given(io::ErrorKind::PermissionDenied.into()))?;
    Region::format(memory, *layout.ring(), Some(*layout))
        .map_err(|error: LayoutError| Error::Given(io::Error::other(error)))
}

/// The file of an inherited descriptor, if it is open.
pub(crate) fn adopt(descriptor: RawFd) -> Option<File> {
    // SAFETY: takes two numbers; of a descriptor that is not open it says so.
    let flags = unsafe { libc::fcntl(descriptor, libc::F_GETFD) };
    // SAFETY: it is open. The supervisor opened it for us alone, so nobody else in this process
    // closes it; if it is something else, whoever has opened it keeps it: it is forgotten then.
    (flags >= 0).then(|| unsafe { OwnedFd::from_raw_fd(descriptor) }.into())
}

/// No program that this one starts inherits it.
pub(crate) fn close_on_exec(file: &File) {
    // SAFETY: takes three numbers.
    unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETFD, libc::FD_CLOEXEC) };
}

/// Takes or gives back the lock of this process. It is lost when the process closes any descriptor
/// of the file, which it does when the recorder ends.
fn set_lock(file: &File, kind: libc::c_int) -> io::Result<()> {
    // SAFETY: zero is a lock of the whole file.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    lock.l_type = kind as libc::c_short;
    // SAFETY: the lock is as fcntl(2) wants it.
    match unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETLK, &raw const lock) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The file's name here, for the regions of forked children; `None` in a container that does not
/// have the folder.
fn path_of(file: &File) -> Option<PathBuf> {
    use std::os::unix::fs::MetadataExt;
    let path = std::fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd())).ok()?;
    let (there, here) = (path.metadata().ok()?, file.metadata().ok()?);
    (there.dev() == here.dev() && there.ino() == here.ino()).then_some(path)
}

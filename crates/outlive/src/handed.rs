//! What the run before left, as a supervisor hands it to its program.
//!
//! The environment has the generation's folder and the verdict, and names an inherited descriptor of
//! the region: a program that cannot see the folder reads that. A descriptor that is something else
//! by then has another run id, or none.

use std::ffi::OsString;
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use outlive_ring::RunRecord;
use outlive_ring::extension::Layout;
use outlive_trace::{Access, Generation, Mapping, Verdict};

use crate::Previous;
use crate::given::{adopt, close_on_exec};

/// `DESCRIPTOR:RUN-ID:VERDICT:FOLDER` in the program's environment; empty if there is no run before.
pub(crate) const VARIABLE: &str = "OUTLIVE_PREVIOUS";

/// The run before, with a descriptor that the program inherits.
#[derive(Debug)]
pub(crate) struct Handed {
    generation: Generation,
    /// Read-only. `None` if it cannot be opened or tells no run id, or was closed.
    region: Option<(File, String)>,
}

impl Handed {
    pub(crate) fn new(generation: Generation) -> Self {
        let file = File::open(generation.region_path()).ok();
        let region = file.and_then(|file| {
            let run_id = run_id(&file)?;
            Some((file, run_id))
        });
        Self { generation, region }
    }

    pub(crate) fn generation(&self) -> &Generation {
        &self.generation
    }

    pub(crate) fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.region.as_ref().map(|(file, _)| file.as_fd())
    }

    pub(crate) fn close(&mut self) {
        self.region = None;
    }

    /// The variable's value.
    pub(crate) fn value(&self) -> OsString {
        let verdict = Verdict::of_generation(&self.generation, None).word();
        let region = match &self.region {
            Some((file, run_id)) => format!("{}:{run_id}", file.as_raw_fd()),
            None => ":".to_owned(),
        };
        let mut value = OsString::from(format!("{region}:{verdict}:"));
        value.push(self.generation.path());
        value
    }
}

/// What the environment hands to this process, which has taken its region. The descriptor is closed
/// where it is not needed: what it is open on may be memory of a tmpfs that would be free by now.
pub(crate) fn take() -> Option<Previous> {
    let value = std::env::var_os(VARIABLE)?.into_vec();
    let mut parts = value.splitn(4, |byte| *byte == b':');
    let mut text = || std::str::from_utf8(parts.next()?).ok();
    let (descriptor, run_id, verdict) = (text()?, text()?, text()?);
    let folder = Path::new(std::ffi::OsStr::from_bytes(parts.next()?));
    let inherited = descriptor.parse().ok().and_then(|it| inherited(it, run_id));
    let verdict = Verdict::from_word(verdict).unwrap_or(Verdict::Unknown);
    match (Generation::in_folder(folder), inherited) {
        (Some(generation), _) => Some(Previous::new(generation)),
        (None, Some(region)) => {
            let generation = Generation::out_of_sight(folder)?;
            Some(Previous::inherited(generation, verdict, region))
        }
        (None, None) => None,
    }
}

/// The descriptor, if it is the region of that run.
fn inherited(descriptor: i32, wanted: &str) -> Option<File> {
    let file = adopt(descriptor)?;
    if run_id(&file).is_some_and(|run_id| run_id == wanted) {
        close_on_exec(&file);
        return Some(file);
    }
    // It is not ours to close.
    std::mem::forget(file);
    None
}

/// The run that a region in a file is of.
fn run_id(file: &File) -> Option<String> {
    let len = file.metadata().ok().filter(|m| m.is_file())?.len();
    let mapping = Mapping::of_file(file, Path::new(VARIABLE), len, Access::ReadOnly).ok()?;
    let layout = Layout::load(&mapping)?;
    let run = RunRecord::load(&layout, &mapping)?;
    Some(run.run_id.to_string())
}

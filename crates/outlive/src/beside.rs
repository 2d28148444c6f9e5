//! The region of a further process of a run under a supervisor.
//!
//! The region that the supervisor gives is the first process's. One that finds it taken, or did not
//! inherit it, but sees the area where the environment says, makes a region of its own beside it.

use std::os::fd::{AsRawFd, RawFd};
use std::path::{Path, PathBuf};

use outlive_ring::extension::Layout;
use outlive_ring::{RawMemory, Region, RunId, RunRecord, RunState};
use outlive_trace::Mapping;

use crate::given::{self, AREA};
use crate::{Error, system};

/// Source of a run record, before the supervisor's process id.
const BESIDE: &str = "beside what was taken from the supervisor with pid ";

/// See the module.
#[derive(Debug)]
pub(crate) struct Beside {
    area: outlive_trace::Beside,
    mapping: Mapping,
    layout: Layout,
    run: RunRecord,
    /// The first process's area.
    first: PathBuf,
}

impl Beside {
    /// Makes a region beside the one that the environment names. `None` if it names none, or one of a
    /// run that is over.
    ///
    /// # Errors
    ///
    /// [`Error::UnseenArea`]; those of [`outlive_trace::Beside::create`].
    pub(crate) fn from_environment() -> Option<Result<Self, Error>> {
        let (_, run_id) = given::named_in_environment()?;
        let path = PathBuf::from(std::env::var_os(AREA)?);
        let Some((layout, run)) = look_at(&path) else {
            return Some(Err(Error::UnseenArea(path)));
        };
        (run.run_id.to_string() == run_id).then(|| Self::make(path, layout, run))
    }

    fn make(first: PathBuf, layout: Layout, run: RunRecord) -> Result<Self, Error> {
        let area = outlive_trace::Beside::create(&first, layout.area_size())?;
        let mapping = area.map()?;
        let mut run_id = RunId::default();
        system::random(&mut run_id.0);
        let supervisor = run.source.rsplit(' ').next().unwrap_or_default();
        let run = RunRecord {
            sequence: 0,
            run_id,
            state: RunState::Running,
            closed_realtime_ns: 0,
            source: format!("{BESIDE}{supervisor}"),
            ..run
        };
        Ok(Self {
            area,
            mapping,
            layout,
            run,
            first,
        })
    }

    /// The run record, with what this process is.
    pub(crate) fn run(&self, program: &str, version: &str) -> RunRecord {
        given::of_this_process(&self.run, program, version)
    }

    pub(crate) fn lay_out(&self) -> Result<Region<RawMemory<'_>>, Error> {
        given::lay_out(&self.mapping, &self.layout)
    }

    pub(crate) fn layout(&self) -> &Layout {
        &self.layout
    }

    pub(crate) fn instance(&self) -> &str {
        &self.run.instance
    }

    /// Beside which a forked child puts its area, as this one was.
    pub(crate) fn first(&self) -> &Path {
        &self.first
    }

    pub(crate) fn descriptor(&self) -> RawFd {
        self.area.descriptor().as_raw_fd()
    }
}

/// What the region in a file is, and who records into it.
fn look_at(path: &Path) -> Option<(Layout, RunRecord)> {
    let mapping = Mapping::of_path(path).ok()?;
    let layout = Layout::load(&mapping)?;
    let run = RunRecord::load(&layout, &mapping)?;
    Some((layout, run))
}

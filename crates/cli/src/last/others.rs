//! The further processes of a run: forked children, and under a supervisor those that were started.

use anyhow::Result;
use outlive_ring::RunRecord;
use outlive_trace::{Verdict, apps, beside};

use super::Found;
use crate::args::{Args, LastArgs};
use crate::target::Target;

/// What the further processes of a run left.
#[derive(Debug, Default)]
pub(super) struct Others {
    pub(super) processes: Vec<Other>,
    /// Regions that had to make room for these.
    pub(super) removed: u64,
    /// Forked children that got none.
    pub(super) refused: u64,
}

/// One of them.
#[derive(Debug)]
pub(super) struct Other {
    pub(super) name: String,
    pub(super) verdict: Verdict,
    pub(super) pid: i32,
    pub(super) program: String,
    pub(super) events: u64,
}

impl Others {
    /// Those of the run `first`: beside its live area, and among what is kept of the program's
    /// children.
    pub(super) fn of(first: &Found, args: &Args, last: &LastArgs) -> Result<Self> {
        let live = first.target.live_file();
        let beside = live.map(apps::children).unwrap_or_default().into_iter();
        let mut names: Vec<String> = beside
            .map(|(pid, _)| format!("{}.{pid}", first.asked))
            .collect();
        let kept = Target::generations(args, &format!("{}{}", first.program(), apps::CHILD))?;
        names.extend(kept.iter().map(|kept| kept.name("")));
        let mut processes = Vec::new();
        for name in names {
            // One that cannot be read is told by `ls`.
            let found = Target::find(args, &name).and_then(|it| Found::open(last, &name, it));
            processes.extend(found.ok().and_then(|found| Other::of(first, &found)));
        }
        Ok(Self {
            processes,
            removed: live.map_or(0, beside::removed),
            refused: live.map_or(0, beside::refused),
        })
    }
}

impl Other {
    /// `None` if it was of another run.
    fn of(first: &Found, found: &Found) -> Option<Self> {
        let (of_first, run) = (first.view.run.as_ref()?, found.view.run.as_ref()?);
        let forked = format!("forked from {}", of_first.pid);
        let is_of_run =
            run.source == forked || supervisor(&run.source)? == supervisor(&of_first.source)?;
        (of_first.boot_id == run.boot_id && is_of_run).then(|| Self {
            name: found.name.clone(),
            verdict: found.target.verdict(&found.view),
            pid: run.pid,
            program: run.program.clone(),
            events: found.view.entries(),
        })
    }
}

/// Where the end of a program is told whose region a supervisor gave: empty of any other run.
pub(crate) fn where_end_is_told(run: &RunRecord) -> String {
    match supervisor(&run.source) {
        Some(_) => format!("; how the program ended: outlive last {}", run.instance),
        None => String::new(),
    }
}

/// The process id of the supervisor, as the source of a run record says it.
pub(crate) fn supervisor(source: &str) -> Option<&str> {
    Some(source.rsplit_once("supervisor with pid ")?.1)
}

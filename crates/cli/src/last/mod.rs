//! `outlive last`: how a run ended, and what was going on then, on one screen.
//!
//! One pass over all events finds the spans that began and did not end, the last panic, the last
//! events of each thread or CPU, the times without any event, and what the kernel's tasks were
//! doing. An event that is missing can make a span look open, or a task look blocked: what began
//! before the oldest time from which on nothing is missing is marked so.

mod end;
mod json;
mod kept;
mod others;
mod program;
mod roles;
mod spans;
mod tasks;
mod text;

use std::io::Write;

use anyhow::Result;
use outlive_trace::view::View;

use self::end::End;
use self::others::Others;
pub(crate) use self::others::{supervisor, where_end_is_told};
pub(crate) use self::program::ProgramEnd;
use crate::args::{Args, LastArgs};
use crate::boot::say;
use crate::exit;
use crate::run::SUPERVISOR;
use crate::target::{self, Target, Unknown};

/// Last events that are kept of each thread or CPU, where nobody asks for more.
const EVENTS: usize = 8;

/// Does what the command's arguments say.
pub(crate) fn run(args: &Args, last: &LastArgs) -> Result<u8> {
    let name = &last.target.name;
    let own = Found::find(args, last, name)?;
    let mut supervisor = own.supervisor(args, last)?;
    let others = Others::of(&own, args, last)?;
    // A program that does not record by itself leaves an empty region.
    let found = match supervisor.take_if(|_| own.view.entries() == 0) {
        Some(supervisor) => vec![supervisor],
        None => std::iter::once(own).chain(supervisor).collect(),
    };
    found.iter().for_each(|found| found.tell_which(last));
    let count = last.events.unwrap_or(EVENTS);
    let ends = found.iter().map(|found| found.end(count));
    let ends: Vec<End<'_>> = ends.collect();
    let mut out = std::io::stdout().lock();
    if last.json {
        let mut of_own = json::of(&found[0].name, &ends[0]);
        of_own["others"] = json::others(&others);
        if let Some(end) = ends.get(1) {
            of_own["supervisor"] = json::of(&found[1].name, end);
        }
        writeln!(out, "{of_own}")?;
        return Ok(exit::DONE);
    }
    // How it ended comes first; the supervisor's other events are told by then.
    if let Some(end) = ends.get(1) {
        text::write(&mut out, &found[1].name, end, &Others::default(), Some(0))?;
        writeln!(out)?;
    }
    text::write(&mut out, &found[0].name, &ends[0], &others, last.events)?;
    Ok(exit::DONE)
}

/// A run that is looked at.
struct Found {
    /// What it was looked for by.
    asked: String,
    /// What it is called.
    name: String,
    target: Target,
    view: View,
}

impl Found {
    /// The run that ended last, or the one that goes on if that is wanted or the only one.
    fn find(args: &Args, last: &LastArgs, name: &str) -> Result<Self> {
        let mut target = Target::find(args, name)?;
        if target.is_running()
            && !last.live
            && let Some(ended) = Target::generations(args, name)?.into_iter().next()
        {
            target = ended;
        }
        Self::open(last, name, target)
    }

    fn open(last: &LastArgs, name: &str, target: Target) -> Result<Self> {
        Ok(Self {
            asked: name.to_owned(),
            name: target.name(name),
            view: target.open(last.target.formats.as_deref())?,
            target,
        })
    }

    /// The instance of the program: that of a child is its parent's.
    fn program(&self) -> &str {
        let instance = self.asked.split('/').next().unwrap_or_default();
        match &self.view.run {
            // A child's run record has its parent's instance.
            Some(run) if target::parent_of(instance) == Some(&run.instance) => &run.instance,
            _ => instance,
        }
    }

    /// What the supervisor (`outlive run`) of this run recorded; of a program that has recorded
    /// nothing, that of the newest run. `None` if there was no supervisor.
    fn supervisor(&self, args: &Args, last: &LastArgs) -> Result<Option<Self>> {
        let name = format!("{}{SUPERVISOR}", self.program());
        let newest = match Self::find(args, last, &name) {
            Ok(newest) => newest,
            Err(error) if error.is::<Unknown>() => return Ok(None),
            Err(error) => return Err(error),
        };
        if self.view.entries() == 0 || self.is_run_by(&newest) {
            return Ok(Some(newest));
        }
        for target in Target::generations(args, &name)? {
            let older = Self::open(last, &name, target)?;
            if self.is_run_by(&older) {
                return Ok(Some(older));
            }
        }
        Ok(None)
    }

    /// Whether this is a region of the supervisor's run.
    fn is_run_by(&self, supervisor: &Self) -> bool {
        let (Some(own), Some(other)) = (&self.view.run, &supervisor.view.run) else {
            return false;
        };
        let of_supervisor = Some(other.pid.to_string());
        own.boot_id == other.boot_id && others::supervisor(&own.source) == of_supervisor.as_deref()
    }

    /// Says so if a run is shown that was not asked for by its own name.
    fn tell_which(&self, last: &LastArgs) {
        let is_named = self.name == self.asked || self.asked.contains('/');
        if !is_named && self.asked == last.target.name {
            say!(
                "this is {}, the newest run of {} that has ended (--live: one that goes on)",
                self.name,
                self.asked
            );
        }
    }

    fn end(&self, count: usize) -> End<'_> {
        let verdict = self.target.verdict(&self.view);
        let has_end = self.target.has_end(&self.view);
        End::of(&self.view, verdict, has_end, count)
    }
}

//! `outlive last`: how a run ended, and what was going on then, on one screen.
//!
//! One pass over all events finds the spans that began and did not end, the last panic, the last
//! events of each thread or CPU, the times without any event, and what the kernel's tasks were
//! doing. An event that is missing can make a span look open, or a task look blocked: what began
//! before the oldest time from which on nothing is missing is marked so.

mod end;
mod json;
mod kept;
mod roles;
mod spans;
mod tasks;
mod text;

use std::io::Write;

use anyhow::Result;

use self::end::End;
use crate::args::{Args, LastArgs};
use crate::boot::say;
use crate::exit;
use crate::target::Target;

/// Last events that are kept of each thread or CPU, where nobody asks for more.
const EVENTS: usize = 8;

/// Does what the command's arguments say.
pub(crate) fn run(args: &Args, last: &LastArgs) -> Result<u8> {
    let name = &last.target.name;
    let mut target = Target::find(args, name)?;
    if target.is_running()
        && !last.live
        && let Some(ended) = Target::newest_of(args, name)?
    {
        target = ended;
        say!(
            "{name} runs again; this is {}, what the run before left (--live: the one that runs)",
            target.name(name)
        );
    }
    let view = target.open(last.target.formats.as_deref())?;
    let end = End::of(&view, target.verdict(&view), last.events.unwrap_or(EVENTS));
    let mut out = std::io::stdout().lock();
    match last.json {
        true => writeln!(out, "{}", json::of(&target.name(name), &end))?,
        false => text::write(&mut out, &target.name(name), &end, last.events)?,
    }
    Ok(exit::DONE)
}

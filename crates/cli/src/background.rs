//! What a recorder does beside recording: it collects what the host's ring still held of dead
//! runs, validates what was kept, applies retention, and writes areas back.

use std::sync::{Condvar, Mutex};
use std::time::Duration;

use outlive_kernel::{Instances, RunId, Tracefs, collect_leftovers};
use outlive_trace::retention::{self, Policy};
use outlive_trace::view::View;
use outlive_trace::{Generation, Mapping, StateDir, StateLock, clock};

use crate::boot::say;
use crate::summary::Summary;
use crate::units;

pub(crate) struct Background<'a> {
    pub(crate) tracefs: &'a Tracefs,
    pub(crate) instances: &'a Instances,
    pub(crate) state: &'a StateDir,
    pub(crate) lock: &'a StateLock,
    pub(crate) run: RunId,
    pub(crate) sequence: u64,
    pub(crate) policy: Policy,
    /// What this start has kept.
    pub(crate) kept: Vec<Generation>,
}

impl Background<'_> {
    /// Does all of it once. Nothing here stops the recording: what fails is said, and tried again
    /// by the next start.
    pub(crate) fn run(&self) {
        self.collect();
        for generation in &self.kept {
            self.validate(generation);
        }
        self.retain();
    }

    fn collect(&self) {
        let tell =
            |name: &str, collected: Result<outlive_kernel::Collected, outlive_kernel::Error>| {
                match collected {
                    Ok(collected) => match &collected.generation {
                        Some(generation) if collected.events > 0 => say!(
                            "{}/{}: {} events collected from the host's ring",
                            generation.instance(),
                            generation.seq(),
                            collected.events
                        ),
                        _ => {}
                    },
                    Err(error) => say!("{name} stays for the next start: {error}"),
                }
            };
        let collected = collect_leftovers(
            self.tracefs,
            self.instances,
            self.state,
            self.lock,
            self.run,
            self.sequence,
            tell,
        );
        if let Err(error) = collected {
            say!("cannot collect what dead runs left in the host's rings: {error}");
        }
    }

    /// Reads a generation once, and notes what is in it, so that listing it is cheap.
    fn validate(&self, generation: &Generation) {
        let opened = View::open_with_tail(&generation.region_path(), &generation.tail_path());
        let name = format!("{}/{}", generation.instance(), generation.seq());
        let view = match opened {
            Ok((view, None)) => view,
            Ok((view, Some(problem))) => {
                say!("{name}: its tail cannot be read: {problem}");
                view
            }
            Err(error) => return say!("{name}: cannot be read: {error}"),
        };
        let summary = Summary::of(&view);
        let state = if view.is_whole() {
            "whole"
        } else {
            "damaged, see outlive check"
        };
        say!(
            "{name}: {} events, {} lost, {state}",
            summary.events,
            summary.lost
        );
        let newest = outlive_trace::generation::list_instance(self.state, generation.instance());
        let found = newest
            .into_iter()
            .flatten()
            .find(|other| other.seq() == generation.seq());
        if let Some(mut generation) = found
            && let Err(error) = generation.update_meta(self.lock, |meta| summary.note(meta))
        {
            say!("{name}: {error}");
        }
    }

    fn retain(&self) {
        match retention::apply(self.state, self.lock, &self.policy, clock::realtime_ns()) {
            Ok(removed) => {
                for generation in removed {
                    say!(
                        "retention removed {}/{} ({})",
                        generation.instance,
                        generation.seq,
                        units::size(generation.bytes)
                    );
                }
            }
            Err(error) => say!("cannot apply retention: {error}"),
        }
    }
}

/// Writes the areas back every so often, until `stopped`.
pub(crate) fn flush(
    interval: Option<Duration>,
    mappings: &[&Mapping],
    (stopped, wake): &(Mutex<bool>, Condvar),
) {
    let Some(interval) = interval else { return };
    let mut stop = stopped
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    while !*stop {
        (stop, _) = wake
            .wait_timeout(stop, interval)
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        for mapping in mappings {
            if let Err(error) = mapping.sync(0..mapping.len()) {
                say!("cannot write an area back: {error}");
            }
        }
    }
}

//! What a recorder does beside recording: it collects what the host's ring still held of dead
//! runs, validates what was kept, applies retention, and writes areas back.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use outlive_kernel::{Collected, Collector};
use outlive_trace::retention::{self, Policy};
use outlive_trace::view::View;
use outlive_trace::{Chores, Generation, Mapping, clock};

use crate::boot::say;
use crate::summary::Summary;
use crate::units;

pub(crate) struct Background<'a> {
    pub(crate) collector: Collector<'a>,
    pub(crate) chores: Chores,
    pub(crate) policy: Policy,
    /// What this start has kept.
    pub(crate) kept: Vec<Generation>,
    /// Ends it behind the piece that it is at; the next start goes on.
    pub(crate) stop: &'a AtomicBool,
}

impl Background<'_> {
    /// Does all of it once. Nothing here stops the recording: what fails is said, and tried again
    /// by the next start.
    pub(crate) fn run(&self) {
        // What is read here may be damaged in ways that nobody thought of; each step's work is
        // durable or not there, so that nothing is left half done.
        let steps = std::panic::AssertUnwindSafe(|| self.steps());
        if std::panic::catch_unwind(steps).is_err() {
            say!("this is a bug; the recording goes on, the next start tries again");
        }
    }

    fn steps(&self) {
        let collected = self.collect();
        let done = self.chores.run(self.collector.lock, &|| self.is_stopped());
        for generation in self.kept.iter().chain(&self.unread()) {
            if self.is_stopped() {
                return;
            }
            self.validate(generation);
        }
        match done {
            // Not all may have been copied.
            Ok(()) if self.is_stopped() => {}
            Ok(()) => self.retain(&collected),
            // An older one goes when the newest is safe.
            Err(error) => say!("what is kept on a tmpfs stays there for the next start: {error}"),
        }
    }

    fn is_stopped(&self) -> bool {
        // Relaxed: the flag carries no data with it.
        self.stop.load(Ordering::Relaxed)
    }

    /// What earlier starts have kept and had not read when they ended.
    fn unread(&self) -> Vec<Generation> {
        let mut all = outlive_trace::generation::list(self.collector.state).unwrap_or_default();
        all.retain(|kept| {
            let is_noted = kept.meta().and_then(Summary::noted).is_some();
            !is_noted && !kept.is_collecting() && !self.has_kept(kept)
        });
        all
    }

    fn has_kept(&self, generation: &Generation) -> bool {
        let path = generation.path();
        self.kept.iter().any(|kept| kept.path() == path)
    }

    /// Returns the generations that have what was collected now.
    fn collect(&self) -> Vec<Generation> {
        let is_stopped = || self.is_stopped();
        let mut generations = Vec::new();
        let collected = self.collector.collect(&is_stopped, |name, collected| {
            tell_collected(name, &collected);
            let collected = collected.ok().filter(|collected| collected.events > 0);
            generations.extend(collected.and_then(|collected| collected.generation));
        });
        if let Err(error) = collected {
            say!("cannot collect what dead runs left in the host's rings: {error}");
        }
        generations
    }

    /// Reads a generation once, and notes what is in it, so that listing it is cheap.
    fn validate(&self, generation: &Generation) {
        let opened = View::open_with_tail(&generation.region_path(), &generation.tail_path());
        let name = generation.to_string();
        let view = match opened {
            Ok((view, None)) => view,
            Ok((view, Some(problem))) => {
                let part = if view.is_tail_alone() {
                    "region"
                } else {
                    "tail"
                };
                say!("{name}: its {part} cannot be read: {problem}");
                view
            }
            Err(error) if self.has_kept(generation) => {
                return say!("{name}: cannot be read: {error}");
            }
            // That was said by the start that kept it.
            Err(_) => return,
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
        let newest =
            outlive_trace::generation::list_instance(self.collector.state, generation.instance());
        let found = newest
            .into_iter()
            .flatten()
            .find(|other| other.seq() == generation.seq());
        // One that is still to get its tail is read again when it has it.
        if let Some(mut generation) = found.filter(|found| !found.is_collecting())
            && let Err(error) =
                generation.update_meta(self.collector.lock, |meta| summary.note(meta))
        {
            say!("{name}: {error}");
        }
    }

    /// What was collected now may be of an older run than what is kept, and is no less new.
    fn retain(&self, collected: &[Generation]) {
        match retention::apply(
            self.collector.state,
            self.collector.lock,
            &self.policy,
            clock::realtime_ns(),
            collected,
        ) {
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

fn tell_collected(name: &str, collected: &Result<Collected, outlive_kernel::Error>) {
    match collected {
        Ok(collected) => {
            if let Some(generation) = &collected.generation
                && collected.events > 0
            {
                say!(
                    "{generation}: {} events collected from the host's ring",
                    collected.events
                );
            }
        }
        Err(error) => say!("{name} stays for the next start: {error}"),
    }
}

/// Writes areas back to their disk every so often.
pub(crate) struct Flusher {
    interval: Duration,
    /// See [`Heartbeat::max_unflushed_ns`](outlive_ring::extension::Heartbeat).
    max_unflushed_ns: AtomicU64,
    is_stopped: Mutex<bool>,
    wake: Condvar,
}

/// Ends the flushing when it goes, whichever way the recording ends.
pub(crate) struct StopGuard<'a>(pub(crate) Option<&'a Flusher>);

impl Drop for StopGuard<'_> {
    fn drop(&mut self) {
        if let Some(flusher) = self.0 {
            *flusher.is_stopped() = true;
            flusher.wake.notify_all();
        }
    }
}

impl Flusher {
    pub(crate) fn new(interval: Duration) -> Self {
        Self {
            interval,
            max_unflushed_ns: AtomicU64::new(0),
            is_stopped: Mutex::new(false),
            wake: Condvar::new(),
        }
    }

    /// The oldest that an event was before it was written back.
    pub(crate) fn max_unflushed_ns(&self) -> u64 {
        self.max_unflushed_ns.load(Ordering::Relaxed)
    }

    /// Writes back until it is told to stop.
    pub(crate) fn run(&self, mappings: &[&Mapping]) {
        // What was written before this is on the disk.
        let mut safe_until = Instant::now();
        let mut is_stopped = self.is_stopped();
        while !*is_stopped {
            (is_stopped, _) = self
                .wake
                .wait_timeout(is_stopped, self.interval)
                .unwrap_or_else(PoisonError::into_inner);
            let begin = Instant::now();
            let failed: Vec<_> = mappings
                .iter()
                .filter_map(|mapping| mapping.sync(0..mapping.len()).err())
                .collect();
            match failed.first() {
                Some(error) => say!("cannot write an area back: {error}"),
                None => {
                    let age = units::nanos(safe_until.elapsed());
                    self.max_unflushed_ns.fetch_max(age, Ordering::Relaxed);
                    safe_until = begin;
                }
            }
        }
    }

    fn is_stopped(&self) -> MutexGuard<'_, bool> {
        self.is_stopped
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

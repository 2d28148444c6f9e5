//! What is done beside the recording, in threads of their own: what a start leaves to be done, and the signs
//! of life.
//!
//! The threads take no signals: the program's handlers run where they did before. In a forked child
//! there are no such threads, and nothing to wait for.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::Builder;
use std::time::Duration;

use crate::system::{self, SignalsBlocked};

/// Work in the background. The work's own end is its process's or [`end`](Self::end).
#[derive(Debug, Clone)]
pub(crate) struct Background(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// The process that has the thread.
    process: u32,
    is_ended: AtomicBool,
    is_done: Mutex<bool>,
    done: Condvar,
}

impl Background {
    /// Begins `work`, which asks the function that it is given whether to end. Where the system has no
    /// thread left it is done at once.
    pub(crate) fn begin(work: impl FnOnce(&dyn Fn() -> bool) + Send + 'static) -> Self {
        let shared = Arc::new(Shared::new());
        // Handed over through a lock, since a thread that cannot be made takes its closure with it.
        let work = Arc::new(Mutex::new(Some(work)));
        let of_thread = (Arc::clone(&shared), Arc::clone(&work));
        let run = move || {
            let (shared, work) = of_thread;
            shared.run(&work);
        };
        if spawn(run).is_err() {
            shared.run(&work);
        }
        Self(shared)
    }

    /// Begins to call `tick` each `period`, until [`end`](Self::end). `None` where the system has no
    /// thread left.
    pub(crate) fn every(period: Duration, tick: impl Fn() + Send + 'static) -> Option<Self> {
        let shared = Arc::new(Shared::new());
        let of_thread = Arc::clone(&shared);
        let run = move || {
            let _done = DoneGuard(&of_thread);
            while of_thread.sleep(period) {
                tick();
            }
        };
        spawn(run).ok()?;
        Some(Self(shared))
    }

    /// Waits until all is done.
    pub(crate) fn wait(&self) {
        if self.0.process != system::process_id() {
            return;
        }
        let mut is_done = self.0.is_done();
        while !*is_done {
            is_done = self
                .0
                .done
                .wait(is_done)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Has it end, and waits for that: for the piece that it is at.
    pub(crate) fn end(&self) {
        if self.0.process != system::process_id() {
            return;
        }
        // Under the lock, so that who goes to sleep sees it. Relaxed: the flag carries no data with it.
        let is_done = self.0.is_done();
        self.0.is_ended.store(true, Ordering::Relaxed);
        drop(is_done);
        self.0.done.notify_all();
        self.wait();
    }
}

fn spawn(run: impl FnOnce() + Send + 'static) -> io::Result<()> {
    let _blocked = SignalsBlocked::new();
    let name = "outlive".to_owned();
    Builder::new().name(name).spawn(run).map(drop)
}

impl Shared {
    fn new() -> Self {
        Self {
            process: system::process_id(),
            is_ended: AtomicBool::new(false),
            is_done: Mutex::new(false),
            done: Condvar::new(),
        }
    }

    /// Sleeps so long; `false`, and at once, when it has to end.
    fn sleep(&self, time: Duration) -> bool {
        let goes_on = |_: &mut bool| !self.is_ended.load(Ordering::Relaxed);
        let slept = self.done.wait_timeout_while(self.is_done(), time, goes_on);
        slept.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }

    fn run(&self, work: &Mutex<Option<impl FnOnce(&dyn Fn() -> bool)>>) {
        let _done = DoneGuard(self);
        let work = work.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(work) = work {
            work(&|| self.is_ended.load(Ordering::Relaxed));
        }
    }

    fn is_done(&self) -> MutexGuard<'_, bool> {
        self.is_done.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Says that the work is done, also when it has panicked: who waits would wait for good.
struct DoneGuard<'a>(&'a Shared);

impl Drop for DoneGuard<'_> {
    fn drop(&mut self) {
        *self.0.is_done() = true;
        self.0.done.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicU32;

    #[test]
    fn work_is_waited_for() {
        let done = Arc::new(AtomicBool::new(false));
        let in_thread = Arc::clone(&done);
        let background = Background::begin(move |_| in_thread.store(true, Ordering::Relaxed));
        background.wait();
        assert!(done.load(Ordering::Relaxed));
        background.end();
    }

    #[test]
    fn work_that_panics_is_done() {
        Background::begin(|_| panic!("a fault in the work")).wait();
    }

    #[test]
    fn ticks_come_until_their_end() {
        let ticks = Arc::new(AtomicU32::new(0));
        let in_thread = Arc::clone(&ticks);
        let tick = move || {
            in_thread.fetch_add(1, Ordering::Relaxed);
        };
        let background = Background::every(Duration::from_millis(1), tick).unwrap();
        while ticks.load(Ordering::Relaxed) < 3 {
            std::thread::yield_now();
        }
        background.end();
        let last = ticks.load(Ordering::Relaxed);
        std::thread::sleep(Duration::from_millis(10));
        assert_eq!(ticks.load(Ordering::Relaxed), last);
        // A long sleep is broken off.
        Background::every(Duration::MAX, || {}).unwrap().end();
    }

    /// It would never end by itself.
    #[test]
    fn work_is_ended() {
        let background = Background::begin(|is_ended| {
            while !is_ended() {
                std::thread::yield_now();
            }
        });
        background.end();
    }
}

//! What a start leaves to be done, in a thread of its own that ends with it.
//!
//! The thread takes no signals: the program's handlers run where they did before. In a forked child
//! there is no such thread, and nothing to wait for.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::Builder;

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
        let shared = Arc::new(Shared {
            process: system::process_id(),
            is_ended: AtomicBool::new(false),
            is_done: Mutex::new(false),
            done: Condvar::new(),
        });
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
        // Relaxed: the flag carries no data with it.
        self.0.is_ended.store(true, Ordering::Relaxed);
        self.wait();
    }
}

fn spawn(run: impl FnOnce() + Send + 'static) -> io::Result<()> {
    let _blocked = SignalsBlocked::new();
    let name = "outlive".to_owned();
    Builder::new().name(name).spawn(run).map(drop)
}

impl Shared {
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

//! Named steps at which a test may kill the process.
//!
//! A start must lose nothing wherever it is killed. Its steps therefore call [`reached`] with
//! their name. In a product this does nothing. In this crate's own tests, and with the cargo
//! feature `failpoints`, the process sends itself `SIGKILL` when the environment variable
//! `OUTLIVE_FAILPOINT` is that name: no destructor runs, as in a real kill.

/// The environment variable that names the step.
pub const VARIABLE: &str = "OUTLIVE_FAILPOINT";

/// Marks that the step of this name is about to be left behind.
#[cfg(not(any(test, feature = "failpoints")))]
#[inline]
pub fn reached(_step: &'static str) {}

/// Dies here if `OUTLIVE_FAILPOINT` is `step`.
#[cfg(any(test, feature = "failpoints"))]
pub fn reached(step: &'static str) {
    use rustix::process::{Signal, getpid, kill_process};

    if std::env::var_os(VARIABLE).is_some_and(|name| name == step) {
        // A process may always signal itself, and does not come back from this one.
        let _ = kill_process(getpid(), Signal::KILL);
    }
}

//! Signals that the supervisor is sent, and the program is meant.

use std::fs;
use std::io;
use std::process::Child;

use outlive::event;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2};
use signal_hook::iterator::Signals as Caught;

/// What is passed on.
const FORWARDED: [i32; 6] = [SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2];
/// What the terminal sends to the program by itself.
const BY_TERMINAL: [i32; 2] = [SIGINT, SIGQUIT];

/// Catches signals from its beginning on, so that one that comes before the program is there ends
/// the program, not the supervisor.
#[derive(Debug)]
pub(super) struct Signals(Caught);

impl Signals {
    pub(super) fn begin() -> io::Result<Self> {
        // What was ignored before (nohup) stays so, here and in the program.
        let ignored = ignored();
        let wanted = FORWARDED.iter().filter(|&&s| ignored & 1 << (s - 1) == 0);
        Caught::new(wanted).map(Self)
    }

    /// Passes them on, those that came so far too, in a thread of its own.
    pub(super) fn forward_to(mut self, child: &Child) -> io::Result<()> {
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        let pid = pid.ok_or(io::ErrorKind::NotFound)?;
        // Not by number: that may be another process's by the time a signal comes.
        let program = pidfd_open(pid, PidfdFlags::empty())?;
        let forward = move || {
            for number in self.0.forever() {
                let is_sent = BY_TERMINAL.contains(&number) && is_in_foreground();
                event!(
                    "run:signal",
                    signal = number,
                    name = name(number),
                    by_terminal = is_sent
                );
                if let (false, Some(signal)) = (is_sent, Signal::from_named_raw(number)) {
                    let _ = pidfd_send_signal(&program, signal);
                }
            }
        };
        let thread = std::thread::Builder::new().name("signals".into());
        thread.spawn(forward).map(drop)
    }
}

/// Whether a terminal sends its signals to us, and so to the program, which is of our group.
fn is_in_foreground() -> bool {
    let terminal = fs::File::open("/dev/tty");
    let group = terminal.map(|tty| rustix::termios::tcgetpgrp(&tty));
    matches!(group, Ok(Ok(group)) if group == rustix::process::getpgrp())
}

/// The signals that this process ignores, as a mask.
fn ignored() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .unwrap_or(0)
}

/// The signal's name; of none, and of one without a name, nothing.
pub(super) fn name(number: i32) -> &'static str {
    signal_hook::low_level::signal_name(number).unwrap_or("")
}

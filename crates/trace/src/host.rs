//! The machine and the process that run: what a run record and a lock file say about them.

use std::fs;
use std::path::{Path, PathBuf};

use crate::Error;

/// The id of this boot of the machine: a UUID as 36 characters, another one after each boot
/// (`/proc/sys/kernel/random/boot_id`, random(4)). The same in all containers of a machine.
///
/// # Errors
///
/// [`Error::Io`] when `/proc` is not mounted.
pub fn boot_id() -> Result<String, Error> {
    read_proc(Path::new("/proc/sys/kernel/random/boot_id")).map(|id| id.trim().to_owned())
}

/// Whether the kernel that runs hides its addresses from this process.
///
/// `kptr_restrict` (Documentation/admin-guide/sysctl/kernel.rst): 0 for all, 1 for privileged
/// programs, 2 for nobody.
#[must_use]
pub fn hides_kernel_addresses() -> bool {
    let restrict = fs::read_to_string("/proc/sys/kernel/kptr_restrict");
    match restrict.as_deref().map(str::trim) {
        Ok("0") | Err(_) => false,
        Ok("1") => !rustix::process::geteuid().is_root(),
        Ok(_) => true,
    }
}

/// The machine's name (`uname -n`), bytes that are not UTF-8 replaced.
#[must_use]
pub fn hostname() -> String {
    rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned()
}

/// When a process started, in clock ticks since the boot (`/proc/PID/stat` field 22,
/// proc_pid_stat(5)). Together with the boot id this tells two processes of one pid apart.
///
/// # Errors
///
/// [`Error::Io`] when there is no such process or no `/proc`; [`Error::DamagedState`] when the
/// line is not as documented.
pub fn process_start_ticks(pid: u32) -> Result<u64, Error> {
    let path = stat_path(pid);
    stat_field(&read_proc(&path)?, START_TICKS).ok_or_else(|| Error::DamagedState {
        path,
        why: "no start time in field 22".to_owned(),
        help: "mount the kernel's own /proc",
    })
}

/// Whether the process runs and goes on doing so: not one that has ended, is just ending, or was
/// sent SIGKILL, nor another one with its pid.
pub(crate) fn is_going_on(pid: u32, start_ticks: u64) -> bool {
    /// `PF_EXITING` of `flags` (include/linux/sched.h, Linux 6.12).
    const EXITING: u64 = 1 << 2;
    /// SIGKILL, 9, among the signals that wait to be taken.
    const KILLED: u64 = 1 << (9 - 1);
    let Ok(stat) = read_proc(&stat_path(pid)) else {
        return false;
    };
    let has = |field, bit| stat_field(&stat, field).is_some_and(|bits| bits & bit != 0);
    stat_field(&stat, START_TICKS) == Some(start_ticks)
        && !has(FLAGS, EXITING)
        && !has(PENDING_SIGNALS, KILLED)
}

/// How many of the clock ticks of [`process_start_ticks`] make a second.
#[must_use]
pub fn ticks_per_second() -> u64 {
    rustix::param::clock_ticks_per_second()
}

fn stat_path(pid: u32) -> PathBuf {
    PathBuf::from(format!("/proc/{pid}/stat"))
}

fn read_proc(path: &Path) -> Result<String, Error> {
    let bytes = fs::read(path).map_err(Error::io("read", path))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

// Fields of `/proc/PID/stat` (proc_pid_stat(5)).
const FLAGS: usize = 9;
const START_TICKS: usize = 22;
const PENDING_SIGNALS: usize = 31;

/// A field of a `stat` line, from the fourth on. The name in field 2 may hold anything, parentheses
/// too: the fields are counted from the last one.
fn stat_field(line: &str, field: usize) -> Option<u64> {
    let (_, behind_name) = line.rsplit_once(')')?;
    // The first field here is the state, which is field 3.
    let mut fields = behind_name.split_ascii_whitespace();
    fields.nth(field - 3)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boot_id_is_a_uuid() {
        let id = boot_id().unwrap();
        assert_eq!((id.len(), id.matches('-').count()), (36, 4));
    }

    #[test]
    fn own_start_time_is_readable() {
        assert!(process_start_ticks(std::process::id()).unwrap() > 0);
        assert!(ticks_per_second() > 0);
    }

    #[test]
    fn a_process_goes_on_until_it_has_ended() {
        let ours = std::process::id();
        let started = process_start_ticks(ours).unwrap();
        assert!(is_going_on(ours, started));
        assert!(!is_going_on(ours, started + 1), "another process");
        let mut child = std::process::Command::new("sleep");
        let mut child = child.arg("1000").spawn().unwrap();
        let started = process_start_ticks(child.id()).unwrap();
        assert!(is_going_on(child.id(), started));
        child.kill().unwrap();
        // Ended at the latest when it can be waited for, and still there until it is.
        use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};
        let ended = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
        waitid(WaitId::Pid(Pid::from_child(&child)), ended).unwrap();
        assert!(!is_going_on(child.id(), started));
        child.wait().unwrap();
        assert!(!is_going_on(child.id(), started), "there is none");
    }

    #[test]
    fn start_time_is_found_behind_a_hostile_process_name() {
        let line = "7 (a) R 9) S 1 7 7 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 4711 12 13";
        assert_eq!(stat_field(line, START_TICKS), Some(4711));
    }

    #[test]
    fn damaged_stat_lines_give_nothing() {
        for line in [
            "",
            "7 (a",
            "7 (a) S 1 2",
            "7 (a) S 1 7 7 0 -1 4 1 2 3 4 5 6 7 8 20 0 1 0 x",
        ] {
            assert_eq!(stat_field(line, START_TICKS), None, "{line}");
        }
    }
}

//! The machine and the process that run: what a run record and a lock file say about them.

use std::fs;
use std::path::Path;

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
    let path = format!("/proc/{pid}/stat");
    let path = Path::new(&path);
    parse_start_ticks(&read_proc(path)?).ok_or_else(|| Error::DamagedState {
        path: path.to_owned(),
        why: "no start time in field 22".to_owned(),
        help: "mount the kernel's own /proc",
    })
}

/// How many of the clock ticks of [`process_start_ticks`] make a second.
#[must_use]
pub fn ticks_per_second() -> u64 {
    rustix::param::clock_ticks_per_second()
}

fn read_proc(path: &Path) -> Result<String, Error> {
    let bytes = fs::read(path).map_err(Error::io("read", path))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Field 22 of a `stat` line. The name in field 2 may hold anything, parentheses too: the fields
/// are counted from the last one.
fn parse_start_ticks(line: &str) -> Option<u64> {
    let (_, behind_name) = line.rsplit_once(')')?;
    // The first field here is the state, which is field 3.
    behind_name
        .split_ascii_whitespace()
        .nth(22 - 3)?
        .parse()
        .ok()
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
    fn start_time_is_found_behind_a_hostile_process_name() {
        let line = "7 (a) R 9) S 1 7 7 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 4711 12 13";
        assert_eq!(parse_start_ticks(line), Some(4711));
    }

    #[test]
    fn damaged_stat_lines_give_nothing() {
        for line in [
            "",
            "7 (a",
            "7 (a) S 1 2",
            "7 (a) S 1 7 7 0 -1 4 1 2 3 4 5 6 7 8 20 0 1 0 x",
        ] {
            assert_eq!(parse_start_ticks(line), None, "{line}");
        }
    }
}

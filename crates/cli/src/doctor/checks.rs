//! What was looked at on the machine, one line each.

use std::path::Path;

use outlive_kernel::{Error as KernelError, InstanceName, Tracefs};
use outlive_trace::{AreaRequest, Backing, StateDir};
use rustix::process::Resource;

use super::boot_instance::{BootInstance, INSTANCES};
use super::machine::Machine;
use super::notes::Notes;
use super::traps::{self, Traps};
use crate::units;

/// What a check found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Finding {
    /// As it should be.
    Good,
    /// Something to know.
    Note,
    /// Something that takes away from what survives.
    Warning,
    /// Nothing is recorded like this.
    Blocker,
}

impl Finding {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Good => "ok",
            Self::Note => "note",
            Self::Warning => "warning",
            Self::Blocker => "blocker",
        }
    }
}

/// One line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Check {
    /// What was looked at, in a word.
    pub(crate) name: &'static str,
    pub(crate) finding: Finding,
    pub(crate) says: String,
}

fn check(name: &'static str, finding: Finding, says: impl Into<String>) -> Check {
    let says = says.into();
    Check {
        name,
        finding,
        says,
    }
}

/// Everything that was looked at.
pub(crate) fn all(
    machine: &Machine,
    notes: &Notes,
    requests: &[AreaRequest],
    state: &Path,
) -> Vec<Check> {
    let mut checks = vec![
        kernel(machine),
        tracefs(),
        space(machine, requests, state),
        limits(requests),
        parameters(machine),
        memory(machine),
        clock(machine),
        panic(machine),
        ftrace(machine),
        service(machine),
    ];
    checks.extend(instances(machine, notes));
    checks.extend(leftovers(machine, state));
    checks
}

fn kernel(machine: &Machine) -> Check {
    let release = &machine.release;
    let origin = match &machine.config.origin {
        Some(origin) => format!("configuration in {origin}"),
        None => "its configuration is not known".into(),
    };
    if machine.config.has("EVENT_TRACING") == Some(false) {
        let says = format!("{release} has no events (CONFIG_EVENT_TRACING)");
        return check("kernel", Finding::Blocker, says);
    }
    let mut can = vec![match machine.is_at_least(6, 10) {
        true => "its ring can be mapped",
        false => "its ring is read, not mapped (before 6.10)",
    }];
    can.push(match machine.version {
        (0..=5, _) | (6, 0..=11) => "no persistent instances of its own (before 6.12)",
        (6, _) | (7, 0) => "persistent instances without a read-only backup (before 7.1)",
        _ => "persistent instances with a backup",
    });
    let says = format!("{release}: {}; {origin}", can.join(", "));
    check("kernel", Finding::Good, says)
}

fn tracefs() -> Check {
    let tracefs = Tracefs::find_mounted();
    match tracefs.and_then(|tracefs| tracefs.check().map(|()| tracefs)) {
        Ok(tracefs) => {
            let says = format!("{}, readable", tracefs.root().display());
            check("tracefs", Finding::Good, says)
        }
        Err(KernelError::NotMounted) if rustix::process::geteuid().is_root() => check(
            "tracefs",
            Finding::Note,
            "not mounted; `outlive boot` mounts it",
        ),
        Err(error) => {
            let help = error
                .help()
                .map_or_else(String::new, |help| format!("; {help}"));
            check("tracefs", Finding::Blocker, format!("{error}{help}"))
        }
    }
}

/// Room for what a start allocates: the area, and beside it a second file or a copy of it.
fn space(machine: &Machine, requests: &[AreaRequest], state: &Path) -> Check {
    let mut needed: Vec<(std::path::PathBuf, u64)> = Vec::new();
    let mut need = |path: &Path, bytes: u64| {
        let place = machine.mounts.of(path).map(|mount| mount.place.clone());
        let place = place.unwrap_or_else(|| path.to_owned());
        match needed.iter_mut().find(|(known, _)| *known == place) {
            Some((_, sum)) => *sum = sum.saturating_add(bytes),
            None => needed.push((place, bytes)),
        }
    };
    for request in requests {
        let bytes = request.total_bytes().unwrap_or(0);
        if let Some(file) = request.file_in(state) {
            use std::os::unix::fs::MetadataExt;
            let has = std::fs::metadata(&file).map_or(0, |file| file.blocks() * 512);
            need(&file, bytes.saturating_sub(has));
        }
        need(state, bytes);
    }
    let mut enough = Vec::new();
    for (place, bytes) in needed {
        match free_bytes(&place) {
            Some(free) if free < bytes => {
                let says = format!(
                    "{} free on {}, {} needed: the area and one copy of it",
                    units::size(free),
                    place.display(),
                    units::size(bytes)
                );
                return check("space", Finding::Blocker, says);
            }
            Some(free) => enough.push(format!(
                "{} free on {}, {} needed",
                units::size(free),
                place.display(),
                units::size(bytes)
            )),
            None => enough.push(format!("{}: no limit is known", place.display())),
        }
    }
    check("space", Finding::Good, enough.join("; "))
}

/// Bytes that may still be used; `None` of a file system without a limit.
fn free_bytes(place: &Path) -> Option<u64> {
    let stat = rustix::fs::statvfs(place).ok()?;
    (stat.f_blocks > 0).then(|| stat.f_bavail.saturating_mul(stat.f_frsize))
}

fn limits(requests: &[AreaRequest]) -> Check {
    let largest = requests
        .iter()
        .filter(|request| {
            !matches!(
                request.backing(),
                Backing::DevMem { .. } | Backing::DevDax(_)
            )
        })
        .filter_map(|request| request.total_bytes().ok())
        .max()
        .unwrap_or(0);
    let file = rustix::process::getrlimit(Resource::Fsize).current;
    let locked = rustix::process::getrlimit(Resource::Memlock).current;
    let shown = |limit: Option<u64>| limit.map_or_else(|| "unlimited".into(), units::size);
    if file.is_some_and(|file| file < largest) {
        let says = format!(
            "no file may be larger than {} (ulimit -f), the area has {}",
            shown(file),
            units::size(largest)
        );
        return check("limits", Finding::Blocker, says);
    }
    let says = format!(
        "files {}, locked memory {} (none is locked)",
        shown(file),
        shown(locked)
    );
    check("limits", Finding::Good, says)
}

/// What the kernel's command line sets aside.
fn parameters(machine: &Machine) -> Check {
    let line = &machine.kernel_line;
    let mut found: Vec<String> = Vec::new();
    found.extend(
        line.reserve_mem
            .iter()
            .map(|area| format!("reserve_mem {} ({})", area.label, units::size(area.size))),
    );
    found.extend(
        line.memmap
            .iter()
            .filter(|memmap| memmap.kind.is_kept())
            .map(|memmap| {
                format!(
                    "memmap {} at {:#x}",
                    units::size(memmap.size),
                    memmap.address
                )
            }),
    );
    match found.is_empty() {
        true => check(
            "parameters",
            Finding::Note,
            "the kernel sets no memory aside (reserve_mem=, memmap=); `outlive install --reserve` chooses some",
        ),
        false => check("parameters", Finding::Good, found.join(", ")),
    }
}

/// What may keep memory from being as it was after a reset.
fn memory(machine: &Machine) -> Check {
    let has = |option| match machine.config.has(option) {
        Some(true) => "on",
        Some(false) => "off",
        None => "not known",
    };
    let kaslr = match machine.has_parameter("nokaslr") {
        true => "off (nokaslr)",
        false => has("RANDOMIZE_BASE"),
    };
    let dev_mem = match (machine.system.exists("/dev/mem"), has("STRICT_DEVMEM")) {
        (false, _) => "there is none",
        (true, "off") => "all of memory",
        (true, _)
            if machine.config.has("IO_STRICT_DEVMEM") == Some(true)
                && machine.parameter("iomem=") != Some("relaxed") =>
        {
            "only what is set aside and no driver has"
        }
        (true, _) => "only what is set aside",
    };
    let wipe = match (machine.is_efi, machine.is_wipe_requested) {
        (false, _) => "no EFI, nobody asks the firmware to clear memory".to_owned(),
        (true, Some(true)) => {
            "the firmware is asked to clear memory after a reset (MOR)".to_owned()
        }
        (true, Some(false)) => "the firmware is not asked to clear memory (MOR)".to_owned(),
        (true, None) => format!("reset attack mitigation {}", has("RESET_ATTACK_MITIGATION")),
    };
    let finding = match machine.is_wipe_requested {
        Some(true) => Finding::Warning,
        _ => Finding::Note,
    };
    let lockdown = machine.lockdown.as_deref().unwrap_or("none");
    let says = format!("KASLR {kaslr}; {wipe}; /dev/mem: {dev_mem}; lockdown {lockdown}");
    check("memory", finding, says)
}

fn clock(machine: &Machine) -> Check {
    let folder = "/sys/devices/system/clocksource/clocksource0";
    let text = |file: &str| machine.system.text(format!("{folder}/{file}"));
    let Some(current) = text("current_clocksource") else {
        return check("clock", Finding::Note, "the clock source is not known");
    };
    let flags = machine.system.text("/proc/cpuinfo").unwrap_or_default();
    let is_stable = ["constant_tsc", "nonstop_tsc"]
        .iter()
        .all(|flag| flags.split_ascii_whitespace().any(|word| word == *flag));
    match (current.as_str(), is_stable) {
        ("tsc", true) => check("clock", Finding::Good, "tsc, constant and never stopping"),
        ("tsc", false) => check(
            "clock",
            Finding::Note,
            "tsc; the processor does not call it constant",
        ),
        ("jiffies", _) => check(
            "clock",
            Finding::Warning,
            "jiffies: events of 1 to 10 ms have the same time",
        ),
        (other, _) => check("clock", Finding::Good, other),
    }
}

/// What happens at a panic.
fn panic(machine: &Machine) -> Check {
    let number = |name: &str| machine.system.number(name);
    let seconds = number("/proc/sys/kernel/panic");
    let mut says = vec![match seconds {
        Some(0) => "the machine stays as it is at a panic: who cuts the power loses the memory; set panic=10".into(),
        Some(seconds) if seconds < 0 => "the machine reboots at once at a panic".to_owned(),
        Some(seconds) => format!("the machine reboots {seconds} s after a panic"),
        None => "what a panic does is not known".into(),
    }];
    if number("/proc/sys/kernel/panic_on_oops") == Some(0) {
        says.push("an oops is no panic".into());
    }
    let has_crash_kernel = number("/sys/kernel/kexec_crash_loaded") == Some(1);
    if has_crash_kernel {
        says.push("kdump is loaded: its kernel starts first, and memory is as it leaves it".into());
    }
    if number("/sys/kernel/kexec_loaded") == Some(1) {
        says.push("a kexec kernel is loaded: it needs the same parameters".into());
    }
    let finding = match seconds == Some(0) || has_crash_kernel {
        true => Finding::Warning,
        false => Finding::Good,
    };
    check("panic", finding, says.join("; "))
}

/// Global knobs of tracing that are traps.
fn ftrace(machine: &Machine) -> Check {
    let text = |name: &str| machine.system.text(format!("/proc/sys/kernel/{name}"));
    let dump = text("ftrace_dump_on_oops").unwrap_or_else(|| "0".into());
    let dumps = |name: &str| dump.split([',', '=']).any(|word| word == name);
    let mut instances = machine.boot_instances.iter();
    if let Some(eaten) = instances.find(|instance| dumps(&instance.name)) {
        let says = format!(
            "ftrace_dump_on_oops={dump}: the dump takes the events out of {}; leave it out",
            eaten.name
        );
        return check("ftrace", Finding::Warning, says);
    }
    let on_oops = match dump.as_str() {
        "0" => "no dump on oops".to_owned(),
        other => format!("dump on oops {other}: of other buffers than ours"),
    };
    let function = match text("ftrace_enabled").as_deref() {
        Some("0") => "; the function tracer is off (ftrace_enabled=0), events do not need it",
        _ => "",
    };
    check("ftrace", Finding::Good, format!("{on_oops}{function}"))
}

/// Who starts outlive again.
fn service(machine: &Machine) -> Check {
    let is_running = machine.system.exists("/run/systemd/system");
    let unit = format!("/etc/systemd/system/{}", crate::install::UNIT);
    match (is_running, machine.system.exists(&unit)) {
        (true, true) => check("service", Finding::Good, format!("systemd starts {unit}")),
        (true, false) => check(
            "service",
            Finding::Note,
            "systemd does not start outlive: `outlive install`",
        ),
        (false, _) => check(
            "service",
            Finding::Note,
            "no systemd runs here: something else has to start outlive again",
        ),
    }
}

/// Host instances that record on though their recorder is dead. Those of this state are the next start's.
fn leftovers(machine: &Machine, state: &Path) -> Vec<Check> {
    let state = StateDir::open_existing(state).ok().flatten();
    let id = state.and_then(|state| u64::from_str_radix(state.id(), 16).ok());
    let told = |name: &InstanceName| {
        let (finding, way_out) = match id == Some(name.state().0) {
            true => (
                Finding::Note,
                "the next `outlive boot` collects it".to_owned(),
            ),
            false => (
                Finding::Warning,
                format!(
                    "`outlive boot` with its state folder collects it; if that folder is gone, \
                     `rmdir {INSTANCES}/{name}` ends it"
                ),
            ),
        };
        let says = format!("{name} of a recorder that died records on: {way_out}");
        check("leftover", finding, says)
    };
    machine.leftovers.iter().map(told).collect()
}

/// The kernel's own instances, and how not to lose what they hold.
fn instances(machine: &Machine, notes: &Notes) -> Vec<Check> {
    let instances = &machine.boot_instances;
    let traps = Traps {
        instances,
        version: machine.version,
        nr_cpus: machine.nr_cpus,
        nr_cpus_before: notes.nr_cpus_before(&machine.boot_id),
    };
    let of_line = traps::of_line(&machine.kernel_line, &machine.kernel_text);
    let traps = traps.all().into_iter().chain(of_line);
    let traps = traps.map(|trap| check("trap", Finding::Warning, trap));
    instances.iter().map(instance).chain(traps).collect()
}

fn instance(instance: &BootInstance) -> Check {
    let kind = match &instance.source {
        Some(source) => format!("backup of {source}"),
        None => "persistent".into(),
    };
    let boot = match instance.is_last_boot {
        true => "of the boot before",
        false => "of this boot",
    };
    let place = instance.range.map_or_else(String::new, |(address, bytes)| {
        format!(", {} at {address:#x}", units::size(bytes))
    });
    let says = format!(
        "{}: {kind}, {} events {boot}{place}",
        instance.name, instance.entries
    );
    check("instance", Finding::Good, says)
}

#[cfg(test)]
mod tests {
    use super::super::notes::Boot;
    use super::super::system::System;
    use super::*;

    /// A machine whose kernel was booted with this line, and has these instances from the boot before.
    fn machine(root: &Path, line: &str, names: &[&str]) -> Machine {
        let write = |path: String, text: &str| {
            let path = root.join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        write("proc/cmdline".into(), line);
        write("proc/sys/kernel/osrelease".into(), "7.3.4");
        for name in names {
            let folder = format!("sys/kernel/tracing/instances/{name}");
            write(
                format!("{folder}/last_boot_info"),
                "ffffffff81000000\t[kernel]\n",
            );
            write(format!("{folder}/trace_clock"), "[local] mono\n");
        }
        Machine::look(System::at(root))
    }

    fn traps(machine: &Machine, notes: &Notes) -> Vec<String> {
        let checks = instances(machine, notes).into_iter();
        let traps = checks.filter(|check| check.name == "trap");
        traps.map(|check| check.says).collect()
    }

    #[test]
    fn traps_are_those_of_the_instances_the_line_and_the_boots_before() {
        let folder = tempfile::tempdir().unwrap();
        let line = "reserve_mem=1M:2M:t trace_instance=a@t trace_instance=b=a,sched";
        let mut machine = machine(folder.path(), line, &["a", "b"]);
        machine.nr_cpus = Some(4);
        let mut notes = Notes::default();
        notes.boots.push(Boot {
            nr_cpus: Some(2),
            ..Boot::default()
        });
        let found = traps(&machine, &notes);
        for words in [
            "a, b: reading trace_pipe",
            "a: a write to set_event",
            "a: rmdir",
            "a: there can be 4 CPUs, and 2 when",
            "a backup is read-only, it has no events (`sched`); Linux clears the copy",
        ] {
            assert!(
                found.iter().any(|trap| trap.starts_with(words)),
                "{words}: {found:?}"
            );
        }
    }

    #[test]
    fn machine_without_instances_has_the_traps_of_its_line_only() {
        let folder = tempfile::tempdir().unwrap();
        let bare = machine(folder.path(), "quiet", &[]);
        assert_eq!(traps(&bare, &Notes::default()), [""; 0]);
        let mistaken = machine(folder.path(), "quiet trace_instance=a@t", &[]);
        let found = traps(&mistaken, &Notes::default());
        assert!(
            found.len() == 1 && found[0].starts_with("no area is called `t`"),
            "{found:?}"
        );
    }
}

//! The kernel's own persistent instances, and what must not be done to them.
//!
//! Each file that is read here is read without consuming or changing anything: `last_boot_info`,
//! `trace_clock`, `tracing_on` and `per_cpu/cpuN/stats`. Nothing is opened that maps, drains or
//! clears (`trace_pipe`, `trace_pipe_raw`, `free_buffer`, or `trace` for writing).
//!
//! What the traps do was seen at run time with Linux 7.3.4 unless another version is named.

use outlive_trace::cmdline::{CommandLine, InstanceKind};

use super::system::System;

/// Where tracefs is by convention.
const INSTANCES: &str = "/sys/kernel/tracing/instances";
/// What the kernel says when it has mapped an instance (Linux 6.12 to 7.3).
const MAPPED: &str = "Tracing: mapped boot instance ";

/// An instance of the kernel that lies in memory which was set aside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BootInstance {
    pub(crate) name: String,
    /// The instance that it is a copy of.
    pub(crate) source: Option<String>,
    /// Whether its memory was given as `@ADDRESS:SIZE`.
    pub(crate) is_by_address: bool,
    /// Whether the command line starts events in it.
    pub(crate) has_events: bool,
    /// First physical address and bytes, if the kernel's log still tells.
    pub(crate) range: Option<(u64, u64)>,
    /// Whether what it holds is the previous boot's.
    pub(crate) is_last_boot: bool,
    /// Events that it holds.
    pub(crate) entries: u64,
    /// Its clock.
    pub(crate) clock: String,
}

/// The persistent instances and backups of the kernel.
pub(crate) fn list(system: &System, line: &CommandLine) -> Vec<BootInstance> {
    let Ok(folder) = std::fs::read_dir(system.path(INSTANCES)) else {
        return Vec::new();
    };
    let mut names: Vec<String> = folder
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| system.exists(&format!("{INSTANCES}/{name}/last_boot_info")))
        .collect();
    names.sort();
    // Reading the log takes a moment: only where there is something to look for.
    let log = match names.is_empty() {
        true => Vec::new(),
        false => system.kernel_log(),
    };
    let look = |name: String| BootInstance::look(system, line, &log, name);
    names.into_iter().map(look).collect()
}

impl BootInstance {
    fn look(system: &System, line: &CommandLine, log: &[String], name: String) -> Self {
        let folder = format!("{INSTANCES}/{name}");
        let given = line.instances.iter().find(|given| given.name == name);
        let kind = given.map(|given| &given.kind);
        let info = system.text(format!("{folder}/last_boot_info"));
        let clocks = system
            .text(format!("{folder}/trace_clock"))
            .unwrap_or_default();
        Self {
            source: match kind {
                Some(InstanceKind::Backup { source }) => Some(source.clone()),
                _ => None,
            },
            is_by_address: kind.is_some_and(|kind| kind.address().is_some()),
            has_events: given.is_some_and(|given| !given.events.is_empty()),
            range: log.iter().rev().find_map(|line| mapped_range(line, &name)),
            is_last_boot: info.is_some_and(|info| !info.starts_with("# Current")),
            entries: entries(system, &folder),
            clock: in_brackets(&clocks).to_owned(),
            name,
        }
    }

    /// Whether it shows that memory was kept over the last boot.
    pub(crate) fn has_survived(&self) -> bool {
        self.is_last_boot && self.entries > 0
    }

    /// What must not be done to it, and what is wrong with it already. `others` are all of the
    /// machine, `line` is the kernel's command line.
    pub(crate) fn traps(&self, others: &[Self], version: (u32, u32)) -> Vec<String> {
        let mut traps = Vec::new();
        let mut trap = |is_there: bool, text: String| {
            if is_there {
                traps.push(text);
            }
        };
        let name = &self.name;
        let has_backup = others
            .iter()
            .any(|other| other.source.as_ref() == Some(name));
        trap(
            self.source.is_none() && self.has_events && !has_backup,
            format!(
                "its events start at boot and wipe what the previous boot left: add \
                 trace_instance=backup={name} behind it (Linux 7.1 and later), or name no events"
            ),
        );
        trap(
            self.source.is_none() && self.has_events && has_backup && version < (7, 1),
            "before Linux 7.1 its events start before the backup is taken: name no events".into(),
        );
        trap(
            self.is_last_boot && self.source.is_none(),
            "a write to set_event, any `enable` or current_tracer wipes the previous boot's events, \
             even one with a mistyped name; trace_marker overwrites the newest ones"
                .into(),
        );
        trap(
            self.source.is_some(),
            "reading trace_pipe or trace_pipe_raw consumes it; splice (BusyBox cat) never ends"
                .into(),
        );
        trap(
            self.clock != "local" && !self.clock.is_empty(),
            format!(
                "with trace_clock {} the next boot loses the events of the boot's CPU: use local",
                self.clock
            ),
        );
        trap(
            true,
            "writing options/overwrite or clearing a bit of tracing_cpumask crashes Linux 7.3.4"
                .into(),
        );
        traps
    }
}

/// What is wrong with the kernel's command line as far as its order goes.
pub(crate) fn line_traps(line: &CommandLine) -> Vec<String> {
    let mut traps = Vec::new();
    for (at, instance) in line.instances.iter().enumerate() {
        let before = &line.instances[..at];
        let InstanceKind::Backup { source } = &instance.kind else {
            continue;
        };
        if before.iter().all(|earlier| earlier.name != *source) {
            traps.push(format!(
                "`{}` is named before its source `{source}`: the kernel makes neither; put it behind",
                instance.name
            ));
        }
        if before
            .iter()
            .any(|earlier| earlier.kind.address().is_some())
        {
            traps.push(format!(
                "`{}` stands behind an instance given as @ADDRESS:SIZE: it is never removed, and \
                 unusable once it was read empty",
                instance.name
            ));
        }
    }
    traps
}

/// The range in a message of the kernel's log about this instance.
fn mapped_range(message: &str, name: &str) -> Option<(u64, u64)> {
    let rest = message.strip_prefix(MAPPED)?.strip_prefix(name)?;
    let rest = rest.strip_prefix(" at physical memory 0x")?;
    let (address, size) = rest.split_once(" of size 0x")?;
    Some((
        u64::from_str_radix(address, 16).ok()?,
        u64::from_str_radix(size.trim(), 16).ok()?,
    ))
}

/// Events that all CPUs of an instance hold.
fn entries(system: &System, folder: &str) -> u64 {
    let cpus = std::fs::read_dir(system.path(format!("{folder}/per_cpu")));
    let of_cpu = |entry: std::fs::DirEntry| {
        let stats = std::fs::read_to_string(entry.path().join("stats")).ok()?;
        stats
            .lines()
            .find_map(|line| line.strip_prefix("entries:"))?
            .trim()
            .parse::<u64>()
            .ok()
    };
    let cpus = cpus.into_iter().flatten().flatten();
    cpus.filter_map(of_cpu).fold(0, u64::saturating_add)
}

/// The word in brackets: `[local] global`.
fn in_brackets(words: &str) -> &str {
    let behind = words.split_once('[').map_or("", |(_, behind)| behind);
    behind.split(']').next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn range_is_read_from_the_kernels_message() {
        let message = "Tracing: mapped boot instance a.b at physical memory 0x0000000077400000 of size 0x6400000";
        assert_eq!(mapped_range(message, "a.b"), Some((0x7740_0000, 100 << 20)));
        assert_eq!(mapped_range(message, "a"), None);
        assert_eq!(
            mapped_range("Tracing: mapped boot instance a at", "a"),
            None
        );
    }

    fn instance(name: &str) -> BootInstance {
        BootInstance {
            name: name.into(),
            source: None,
            is_by_address: false,
            has_events: true,
            range: None,
            is_last_boot: false,
            entries: 0,
            clock: "local".into(),
        }
    }

    #[test]
    fn events_without_a_backup_wipe_the_previous_boot() {
        let one = instance("a");
        let backup = BootInstance {
            source: Some("a".into()),
            ..instance("b")
        };
        let wipes = |others: &[BootInstance], version| {
            let traps = one.traps(others, version);
            traps.iter().any(|trap| trap.contains("events start"))
        };
        assert!(wipes(std::slice::from_ref(&one), (7, 3)));
        assert!(!wipes(&[one.clone(), backup.clone()], (7, 3)));
        assert!(wipes(&[one.clone(), backup], (6, 18)));
    }

    #[test]
    fn order_of_a_backup_and_its_source_is_a_trap() {
        let line = "reserve_mem=1M:4096:t trace_instance=b=a trace_instance=a@t,sched";
        let traps = line_traps(&CommandLine::parse(line));
        assert_eq!(traps.len(), 1, "{traps:?}");
        assert!(traps[0].contains("before its source"));
        let line = "trace_instance=a@0x1000000:1M,sched trace_instance=b=a";
        let traps = line_traps(&CommandLine::parse(line));
        assert!(traps[0].contains("never removed"), "{traps:?}");
    }

    #[test]
    fn instance_is_read_without_a_write() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder
            .path()
            .join("sys/kernel/tracing/instances/boot_mapped");
        std::fs::create_dir_all(place.join("per_cpu/cpu0")).unwrap();
        std::fs::write(place.join("last_boot_info"), "ffffffff81000000\t[kernel]\n").unwrap();
        std::fs::write(place.join("trace_clock"), "local [mono] boot\n").unwrap();
        std::fs::write(
            place.join("per_cpu/cpu0/stats"),
            "entries: 12\noverrun: 0\n",
        )
        .unwrap();
        let line = "reserve_mem=1M:4096:t trace_instance=boot_mapped@t,sched";
        let found = list(&System::at(folder.path()), &CommandLine::parse(line));
        let [found] = &found[..] else {
            panic!("{found:?}")
        };
        assert!(found.has_survived() && found.has_events && !found.is_by_address);
        assert_eq!((found.entries, &*found.clock), (12, "mono"));
        assert!(
            found
                .traps(&[], (7, 3))
                .iter()
                .any(|trap| trap.contains("mono"))
        );
    }
}

//! The kernel's own persistent instances.
//!
//! Each file that is read here is read without consuming or changing anything: `last_boot_info`,
//! `trace_clock`, `tracing_on` and `per_cpu/cpuN/stats`. Nothing is opened that maps, drains or
//! clears (`trace_pipe`, `trace_pipe_raw`, `free_buffer`, or `trace` for writing).

use outlive_trace::cmdline::{CommandLine, InstanceKind};

use super::system::System;

/// Where tracefs is by convention.
pub(crate) const INSTANCES: &str = "/sys/kernel/tracing/instances";
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
    }
}

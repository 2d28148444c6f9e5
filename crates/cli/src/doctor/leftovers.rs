//! Host instances of recorders that have died: they record on, into rings that nobody reads.

use std::fs;
use std::str::FromStr;

use outlive_kernel::InstanceName;

use super::boot_instance::INSTANCES;
use super::system::System;

/// The host instances that no process has open.
///
/// A recorder has its files open as long as it runs. Of processes that are not ours to look at, and
/// in a container, nobody can tell; then there are none.
pub(crate) fn list(system: &System) -> Vec<InstanceName> {
    let Ok(folder) = fs::read_dir(system.path(INSTANCES)) else {
        return Vec::new();
    };
    let mut names: Vec<InstanceName> = folder
        .flatten()
        .filter_map(|entry| InstanceName::from_str(entry.file_name().to_str()?).ok())
        .collect();
    names.sort();
    if !names.is_empty() {
        let open = open_instances(system);
        names.retain(|name| !open.contains(&name.to_string()));
    }
    names
}

/// The names of the instances that processes have files open of, wherever tracefs is mounted.
fn open_instances(system: &System) -> Vec<String> {
    let Ok(processes) = fs::read_dir(system.path("/proc")) else {
        return Vec::new();
    };
    let files = processes
        .flatten()
        .filter_map(|process| fs::read_dir(process.path().join("fd")).ok())
        .flatten()
        .flatten();
    files
        .filter_map(|file| {
            let path = fs::read_link(file.path()).ok()?;
            let (_, name) = path.to_str()?.split_once("/instances/")?;
            Some(name.split('/').next().unwrap_or(name).to_owned())
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn instances_that_a_process_has_open_are_none_and_those_of_others_neither() {
        let root = tempfile::tempdir().unwrap();
        let system = System::at(root.path());
        assert_eq!(list(&system), []);
        let name = |run: u32, instance| format!("outlive.{:016x}.{run:032x}.{instance}", 7);
        let (read, left) = (name(1, "boot_mapped"), name(2, "boot_mapped"));
        for name in [&read, &left, "mine", "outlive.7.1.short"] {
            fs::create_dir_all(system.path(format!("{INSTANCES}/{name}"))).unwrap();
        }
        for (process, target) in [
            ("12", "/dev/null".to_owned()),
            (
                "13",
                format!("/mnt/instances/{read}/per_cpu/cpu0/trace_pipe_raw"),
            ),
        ] {
            let folder = system.path(format!("/proc/{process}/fd"));
            fs::create_dir_all(&folder).unwrap();
            symlink(target, folder.join("5")).unwrap();
        }
        let leftovers: Vec<_> = list(&system).iter().map(InstanceName::to_string).collect();
        assert_eq!(leftovers, [left]);
    }
}

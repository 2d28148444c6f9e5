//! Host instances of recorders that have died: they record on, into rings that nobody reads.

use std::collections::BTreeSet;
use std::path::Path;
use std::str::FromStr;
use std::{fs, io};

use outlive_kernel::InstanceName;

use super::boot_instance::INSTANCES;
use super::system::System;

/// The namespace of the machine's own processes (`PROC_PID_INIT_INO`, include/linux/proc_ns.h, Linux 6.12).
const FIRST_PID_NAMESPACE: &str = "pid:[4026531836]";

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
    if names.is_empty() {
        return names;
    }
    let Some(open) = open_instances(system) else {
        return Vec::new();
    };
    names.retain(|name| !open.contains(&name.to_string()));
    names
}

/// The names of the instances that processes have files open of, wherever tracefs is mounted. `None` if
/// not all processes of the machine can be looked at.
fn open_instances(system: &System) -> Option<BTreeSet<String>> {
    let namespace = fs::read_link(system.path("/proc/self/ns/pid")).ok()?;
    if namespace != Path::new(FIRST_PID_NAMESPACE) {
        return None;
    }
    let mut open = BTreeSet::new();
    for process in fs::read_dir(system.path("/proc")).ok()?.flatten() {
        let files = match fs::read_dir(process.path().join("fd")) {
            Ok(files) => files,
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return None,
            // It has ended, or is no process.
            Err(_) => continue,
        };
        let paths = files
            .flatten()
            .filter_map(|file| fs::read_link(file.path()).ok());
        open.extend(paths.filter_map(|path| {
            let (_, name) = path.to_str()?.split_once("/instances/")?;
            Some(name.split('/').next().unwrap_or(name).to_owned())
        }));
    }
    Some(open)
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
        assert_eq!(list(&system), [], "of another namespace");
        fs::create_dir_all(system.path("/proc/self/ns")).unwrap();
        symlink(FIRST_PID_NAMESPACE, system.path("/proc/self/ns/pid")).unwrap();
        let leftovers: Vec<_> = list(&system).iter().map(InstanceName::to_string).collect();
        assert_eq!(leftovers, [left]);
    }
}

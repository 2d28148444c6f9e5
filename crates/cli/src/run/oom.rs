//! Whether the kernel killed somebody for want of memory.

use std::fs;
use std::path::{Path, PathBuf};

/// Counts the OOM kills of the control group that this process and its children are in; where
/// that does not count them, those of the machine.
#[derive(Debug)]
pub(super) struct OomKills {
    file: PathBuf,
    before: Option<u64>,
}

impl OomKills {
    pub(super) fn begin() -> Self {
        let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let counted = files(&groups).into_iter().find_map(|file| {
            let before = count(&file)?;
            Some(Self {
                file,
                before: Some(before),
            })
        });
        counted.unwrap_or_else(|| Self {
            file: PathBuf::new(),
            before: None,
        })
    }

    /// Kills since the beginning; `None` where the system does not count them.
    pub(super) fn so_far(&self) -> Option<u64> {
        count(&self.file)?.checked_sub(self.before?)
    }
}

/// The files that may count, the narrowest first: of version 2, of version 1, of the machine.
fn files(groups: &str) -> Vec<PathBuf> {
    let of_group = |line: &str| {
        let mut columns = line.splitn(3, ':').skip(1);
        let (controllers, path) = (columns.next()?, columns.next()?.trim_start_matches('/'));
        match controllers {
            "" => Some(Path::new("/sys/fs/cgroup").join(path).join("memory.events")),
            _ if controllers.split(',').any(|name| name == "memory") => {
                let memory = Path::new("/sys/fs/cgroup/memory").join(path);
                Some(memory.join("memory.oom_control"))
            }
            _ => None,
        }
    };
    let groups = groups.lines().filter_map(of_group);
    groups.chain([PathBuf::from("/proc/vmstat")]).collect()
}

fn count(file: &Path) -> Option<u64> {
    let text = fs::read_to_string(file).ok()?;
    let value = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
    value?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_group_counts_before_the_machine() {
        let groups = "4:cpu,memory:/box/a:b\n2:pids:/box\n0::/unified\n";
        let files: Vec<_> = files(groups);
        let files: Vec<_> = files.iter().map(|file| file.to_str().unwrap()).collect();
        assert_eq!(
            files,
            [
                "/sys/fs/cgroup/memory/box/a:b/memory.oom_control",
                "/sys/fs/cgroup/unified/memory.events",
                "/proc/vmstat"
            ]
        );
    }

    #[test]
    fn a_count_is_the_number_behind_its_name() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), "oom 3\noom_kill 2\noom_group_kill 1\n").unwrap();
        assert_eq!(count(file.path()), Some(2));
        fs::write(file.path(), "oom_kill_disable 0\nunder_oom 0\n").unwrap();
        assert_eq!(count(file.path()), None);
        assert_eq!(count(Path::new("")), None);
    }
}

//! Whether the kernel killed somebody for want of memory.

use std::fs;
use std::path::{Path, PathBuf};

/// Counts those of the machine.
const MACHINE: &str = "/proc/vmstat";
/// Where they are counted then.
pub(crate) const ON_MACHINE: &str = "machine";

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
        Self::of(files(&groups))
    }

    /// Those that the first of these files counts that does.
    fn of(files: Vec<PathBuf>) -> Self {
        let counted = files.into_iter().find_map(|file| {
            let before = Some(count(&file)?);
            Some(Self { file, before })
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

    /// Where they are counted: one on the whole machine need not be of the program.
    pub(super) fn scope(&self) -> &'static str {
        match self.file.to_str() {
            Some("") => "",
            Some(MACHINE) => ON_MACHINE,
            _ => "control group",
        }
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
    groups.chain([PathBuf::from(MACHINE)]).collect()
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
    fn kills_are_those_of_the_first_file_that_counts_since_the_beginning() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), "oom_kill 2\n").unwrap();
        let kills = OomKills::of(vec!["/none".into(), file.path().into(), MACHINE.into()]);
        assert_eq!((kills.so_far(), kills.scope()), (Some(0), "control group"));
        fs::write(file.path(), "oom_kill 5\n").unwrap();
        assert_eq!(kills.so_far(), Some(3));
        let of_machine = OomKills {
            file: MACHINE.into(),
            before: Some(0),
        };
        assert_eq!(of_machine.scope(), ON_MACHINE);
        let of_nobody = OomKills::of(vec!["/none".into()]);
        assert_eq!((of_nobody.so_far(), of_nobody.scope()), (None, ""));
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

//! Where a run's files of a table are: folders that engines read as columns.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use outlive_ring::RunId;
use outlive_trace::view::Source;

/// Longest name that is made of what a region says: with what goes before and behind it, a file
/// system takes it as a file's name (255 bytes).
const NAME_MAX: usize = 200;
/// Stands for what a region does not say. Not Hive's name for NULL: pyarrow cannot tell the type of a
/// column that has nothing else.
const UNKNOWN: &str = "unknown";

/// The partition columns. No column of a file has such a name.
pub(crate) const PARTITIONS: [&str; 3] = ["host", "boot", "run"];

/// The folders of a run below those of the tables: `host=H/boot=B/run=R`. A region that a kernel
/// wrote itself says nothing of them; its run is called after its file and the time of its last event.
pub(crate) fn of_run(source: &Source<'_>) -> PathBuf {
    let run = source.view.run.as_ref();
    let known = |text: &str| match text {
        "" => UNKNOWN.to_owned(),
        text => encoded(text),
    };
    let host = run.map_or(String::new(), |run| run.host.clone());
    let boot = run.map(|run| run.boot_id).filter(|id| *id != [0; 16]);
    let boot = boot.map_or(String::new(), |id| RunId(id).to_string());
    let name = match run {
        Some(run) => format!("{}-{}", run.instance, run.run_id),
        None => {
            let file = Path::new(&source.name).file_stem().unwrap_or_default();
            let last = source.view.span().map_or(0, |(_, last)| last);
            format!("{}-{last}", file.to_string_lossy())
        }
    };
    let [host_column, boot_column, run_column] = PARTITIONS;
    PathBuf::from(format!("{host_column}={}", known(&host)))
        .join(format!("{boot_column}={}", known(&boot)))
        .join(format!("{run_column}={}", encoded(&name)))
}

/// A name as a folder may have it, and as engines decode it: other characters than letters, digits,
/// `.`, `-` and `_` with their numbers, as in an URL. One that is too long is cut.
pub(crate) fn encoded(name: &str) -> String {
    let mut encoded = String::new();
    for byte in name.bytes() {
        if encoded.len() + 3 > NAME_MAX {
            break;
        }
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'-' | b'_' => {
                encoded.push(char::from(byte));
            }
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

/// The name, or the name with the first number behind it that makes it unused.
pub(crate) fn unique(taken: &mut HashSet<PathBuf>, path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let numbered = (2..).map(|n| path.with_file_name(format!("{name}-{n}")));
    let mut names = std::iter::once(path.to_owned()).chain(numbered);
    let free = names.find(|name| !taken.contains(name));
    let free = free.unwrap_or_else(|| path.to_owned());
    taken.insert(free.clone());
    free
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_stays_one_part_of_a_path_whatever_it_is() {
        assert_eq!(encoded("sched.sched_switch"), "sched.sched_switch");
        assert_eq!(encoded("../a b:\u{e9}"), "..%2Fa%20b%3A%C3%A9");
        let long = encoded(&"\u{e9}".repeat(300));
        assert!((NAME_MAX - 3..=NAME_MAX).contains(&long.len()), "{long}");
    }

    #[test]
    fn a_name_that_is_taken_gets_a_number() {
        let mut taken = HashSet::new();
        let mut name = || unique(&mut taken, Path::new("a/x.y"));
        assert_eq!(name(), Path::new("a/x.y"));
        assert_eq!(name(), Path::new("a/x.y-2"));
        assert_eq!(name(), Path::new("a/x.y-3"));
    }
}

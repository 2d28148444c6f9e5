//! CPU numbers and the lists in which the kernel writes them.

use std::fmt;
use std::path::Path;

use crate::error::Error;

/// The number of a CPU of this machine, as in `per_cpu/cpuN`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CpuId(pub u32);

impl fmt::Display for CpuId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The highest CPU number taken seriously in a list (`CONFIG_NR_CPUS` is at most 8192).
const MAX_CPU: u32 = 65_535;

/// The CPUs that this boot may ever bring up. The region has a buffer for each (`nr_cpu_ids`).
///
/// # Errors
/// The list cannot be read, or is none.
pub fn possible_cpus() -> Result<Vec<CpuId>, Error> {
    read_list(Path::new("/sys/devices/system/cpu/possible"))
}

/// The CPUs that run now.
///
/// # Errors
/// The list cannot be read, or is none.
pub fn online_cpus() -> Result<Vec<CpuId>, Error> {
    read_list(Path::new("/sys/devices/system/cpu/online"))
}

/// One more than the highest possible CPU number.
///
/// # Errors
/// As [`possible_cpus`].
pub fn nr_cpu_ids() -> Result<u32, Error> {
    Ok(possible_cpus()?.last().map_or(0, |cpu| cpu.0 + 1))
}

fn read_list(path: &Path) -> Result<Vec<CpuId>, Error> {
    let text = std::fs::read_to_string(path).map_err(|e| Error::io("read", path, e))?;
    parse_list(&text).ok_or_else(|| Error::Malformed {
        path: path.to_path_buf(),
        what: format!("`{}` is no CPU list", text.trim_end()),
    })
}

/// A list such as `0-3,8`, ascending (`Documentation/admin-guide/cputopology.rst`).
fn parse_list(text: &str) -> Option<Vec<CpuId>> {
    let mut cpus = Vec::new();
    for part in text.trim().split(',').filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (u32, u32) = (first.parse().ok()?, last.parse().ok()?);
        if first > last || last > MAX_CPU {
            return None;
        }
        cpus.extend((first..=last).map(CpuId));
    }
    cpus.sort_unstable();
    cpus.dedup();
    Some(cpus)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(text: &str) -> Option<Vec<u32>> {
        parse_list(text).map(|list| list.into_iter().map(|cpu| cpu.0).collect())
    }

    #[test]
    fn cpu_list_has_ranges_and_single_numbers() {
        assert_eq!(numbers("0-2,5,8-9\n").unwrap(), [0, 1, 2, 5, 8, 9]);
        assert_eq!(numbers("\n").unwrap(), [0_u32; 0]);
    }

    #[test]
    fn cpu_list_that_is_none_is_refused() {
        for text in ["a", "3-1", "0-99999999", "1-", "-"] {
            assert_eq!(numbers(text), None, "{text}");
        }
    }

    #[test]
    fn this_machine_has_the_cpus_that_are_online() {
        let possible = possible_cpus().unwrap();
        assert!(
            online_cpus()
                .unwrap()
                .iter()
                .all(|cpu| possible.contains(cpu))
        );
        assert!(nr_cpu_ids().unwrap() as usize >= possible.len());
    }
}

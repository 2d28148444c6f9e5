//! Memory to set aside for areas: where, and the parameter that says so.

use anyhow::{Context, Result, bail};
use outlive_trace::cmdline::{AreaRef, CommandLine, InstanceKind};
use outlive_trace::{Backing, IoMemory};

use crate::units;

/// Chosen addresses are multiples of this, so that the memory beside them keeps its large pages.
const ALIGN: u64 = 2 << 20;

/// Gives each area of the line that has no backing yet a place in this machine's memory.
pub(crate) fn choose(cmdline: &CommandLine, areas: &mut Vec<(String, Backing)>) -> Result<()> {
    let running = std::fs::read_to_string("/proc/cmdline").context("cannot read /proc/cmdline")?;
    choose_in(
        cmdline,
        areas,
        &CommandLine::parse(&running),
        &IoMemory::read()?,
    )
}

/// As [`choose`], in a machine that was booted with the line `running`.
fn choose_in(
    cmdline: &CommandLine,
    areas: &mut Vec<(String, Backing)>,
    running: &CommandLine,
    memory: &IoMemory,
) -> Result<()> {
    let mut taken: Vec<(u64, u64)> = Vec::new();
    for (label, bytes) in labelled(cmdline) {
        match areas.iter().find(|(name, _)| *name == label) {
            Some((_, Backing::DevMem { address })) => taken.push((*address, bytes)),
            Some(_) => {}
            None => {
                let address = set_aside(bytes, running, memory, &taken)
                    .or_else(|| memory.place(bytes, ALIGN, &taken));
                let Some(address) = address else {
                    bail!(
                        "no {} of free memory for area {label}: run as root, or ask for less",
                        units::size(bytes)
                    );
                };
                taken.push((address, bytes));
                areas.push((label, Backing::DevMem { address }));
            }
        }
    }
    match taken.is_empty() {
        true => bail!("--reserve: the command line has no area that could lie in memory"),
        false => Ok(()),
    }
}

/// Memory of that size that the machine was booted without, as by an installation before.
fn set_aside(
    bytes: u64,
    running: &CommandLine,
    memory: &IoMemory,
    taken: &[(u64, u64)],
) -> Option<u64> {
    let ranges = running.memmap.iter();
    let fits = ranges.filter(|range| range.size == bytes && range.kind.is_reserved());
    fits.map(|range| range.address).find(|address| {
        let is_free = taken.iter().all(|(taken, _)| taken != address);
        is_free && memory.check(*address, bytes).is_ok()
    })
}

/// The parameters that set aside the memory of all areas that lie in it.
pub(crate) fn memmap(cmdline: &CommandLine, areas: &[(String, Backing)]) -> Vec<String> {
    let parameter = |(label, bytes): (String, u64)| {
        let (_, backing) = areas.iter().find(|(name, _)| *name == label)?;
        match backing {
            Backing::DevMem { address } => Some(format!("memmap={bytes:#x}${address:#x}")),
            _ => None,
        }
    };
    let by_address = cmdline.instances.iter().filter_map(|one| {
        let (address, bytes) = one.kind.address()?;
        Some(format!("memmap={bytes:#x}${address:#x}"))
    });
    let labelled = labelled(cmdline).into_iter().filter_map(parameter);
    labelled.chain(by_address).collect()
}

/// The areas of the line by label that an instance lives in, and their bytes.
fn labelled(cmdline: &CommandLine) -> Vec<(String, u64)> {
    let is_used = |label: &String| {
        cmdline.instances.iter().any(|one| {
            matches!(&one.kind, InstanceKind::Persistent { area: AreaRef::Label(used) } if used == label)
        })
    };
    let areas = cmdline.reserve_mem.iter();
    let used = areas.filter(|area| is_used(&area.label));
    used.map(|area| (area.label.clone(), area.size)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str = "reserve_mem=12M:4096:a reserve_mem=4M:4096:b trace_instance=x@a,sched \
                        trace_instance=y@b,irq";
    const IOMEM: &str = "00100000-3fffffff : System RAM\n100000000-13fffffff : System RAM\n";

    fn chosen(running: &str, iomem: &str) -> Vec<String> {
        let cmdline = CommandLine::parse(LINE);
        let mut areas = Vec::new();
        let running = CommandLine::parse(running);
        choose_in(&cmdline, &mut areas, &running, &IoMemory::parse(iomem)).unwrap();
        memmap(&cmdline, &areas)
    }

    #[test]
    fn areas_lie_side_by_side_at_the_top_of_memory() {
        assert_eq!(
            chosen("quiet", IOMEM),
            ["memmap=0xc00000$0x13f400000", "memmap=0x400000$0x13f000000"]
        );
    }

    #[test]
    fn memory_that_was_set_aside_before_is_chosen_again() {
        let iomem = "100000000-13f3fffff : System RAM\n13f400000-13fffffff : Reserved\n";
        let again = chosen("memmap=0xc00000$0x13f400000", iomem);
        assert_eq!(again[0], "memmap=0xc00000$0x13f400000");
    }

    #[test]
    fn hidden_or_full_memory_is_an_error() {
        let cmdline = CommandLine::parse(LINE);
        for iomem in [
            "00000000-00000000 : System RAM\n",
            "00100000-002fffff : System RAM\n",
        ] {
            let memory = IoMemory::parse(iomem);
            let result = choose_in(&cmdline, &mut Vec::new(), &CommandLine::parse(""), &memory);
            assert!(
                result.unwrap_err().to_string().contains("12 MiB"),
                "{iomem}"
            );
        }
    }
}

//! Which physical memory may be used: `/proc/iomem`, and what `/dev/mem` refuses.
//!
//! A range is ours only if the kernel has set it aside (`memmap=SIZE$ADDRESS` makes it
//! *Reserved*), or if nothing is known at these addresses. Everything else is the kernel's memory,
//! the firmware's, or a device's registers, where a store can do anything.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use outlive_ring::RawMemory;
use rustix::fs::OFlags;
use rustix::io::Errno;

use crate::{Access, Error};

/// Names of ranges that hold nothing of the kernel's or of a device. Case aside: x86 writes
/// *Reserved*, arm64 *reserved*.
const USABLE: [&str; 4] = [
    "reserved",
    "persistent memory",
    "persistent memory (legacy)",
    "soft reserved",
];

/// What the kernel calls its memory.
const SYSTEM_RAM: &str = "System RAM";
const FOUR_GIB: u64 = 4 << 30;
/// How many places in a range are looked at.
const PLACES_MAX: u64 = 4096;

/// The ranges of `/proc/iomem`.
#[derive(Clone, Debug, Default)]
pub struct IoMemory {
    ranges: Vec<IoRange>,
}

/// One line: first and last physical address, and who has it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct IoRange {
    first: u64,
    last: u64,
    name: String,
}

/// Why a range of physical memory is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum IoMemoryProblem {
    /// `/proc/iomem` shows zeros for all addresses, as it does to whoever lacks `CAP_SYS_ADMIN`.
    Hidden,
    /// The range is empty, or its end is beyond 64 bits.
    Impossible,
    /// Somebody has a part of it.
    Taken {
        /// Its name in `/proc/iomem`: "System RAM", "PCI Bus 0000:00".
        name: String,
        /// First physical address of that part.
        first: u64,
        /// Last physical address of that part.
        last: u64,
    },
}

impl fmt::Display for IoMemoryProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hidden => {
                f.write_str("the addresses in /proc/iomem are hidden; run as root (CAP_SYS_ADMIN)")
            }
            Self::Impossible => f.write_str("the range is empty or its end is beyond 64 bits"),
            Self::Taken { name, first, last } => {
                write!(f, "{first:#x}-{last:#x} is {name}; ")?;
                f.write_str("set memory aside with the boot parameter `memmap=SIZE$ADDRESS`")
            }
        }
    }
}

impl IoMemory {
    /// Reads `/proc/iomem`.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if it cannot be read.
    pub fn read() -> Result<Self, Error> {
        let path = Path::new("/proc/iomem");
        let bytes = std::fs::read(path).map_err(Error::io("read", path))?;
        Ok(Self::parse(&String::from_utf8_lossy(&bytes)))
    }

    /// Whether a range may be used, by what `/proc/iomem` says now.
    pub(crate) fn check_now(address: u64, len_bytes: u64) -> Result<(), Error> {
        let checked = Self::read()?.check(address, len_bytes);
        checked.map_err(|problem| Error::IoMemory {
            address,
            len_bytes,
            problem,
        })
    }

    /// Reads the text of `/proc/iomem`. Lines that are not `FIRST-LAST : NAME` are left out.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        Self {
            ranges: text.lines().filter_map(IoRange::parse).collect(),
        }
    }

    /// Whether `len_bytes` from `address` on may be used. Each range that overlaps has to be one
    /// of reserved memory, the nested ones too: a reserved range can have a device in it.
    ///
    /// # Errors
    ///
    /// The first reason against it.
    pub fn check(&self, address: u64, len_bytes: u64) -> Result<(), IoMemoryProblem> {
        if self
            .ranges
            .iter()
            .all(|range| range.first == 0 && range.last == 0)
        {
            return Err(IoMemoryProblem::Hidden);
        }
        let last = len_bytes
            .checked_sub(1)
            .and_then(|rest| address.checked_add(rest))
            .ok_or(IoMemoryProblem::Impossible)?;
        let taken = |range: &&IoRange| range.overlaps(address, last) && !range.is_usable();
        match self.ranges.iter().find(taken) {
            None => Ok(()),
            Some(IoRange { first, last, name }) => Err(IoMemoryProblem::Taken {
                name: name.clone(),
                first: *first,
                last: *last,
            }),
        }
    }
}

impl IoMemory {
    /// An address, a multiple of `align` (a power of two), where `len_bytes` could be set aside: RAM
    /// of which nobody has a part, without the ranges `taken` (address and bytes).
    ///
    /// The highest such memory above 4 GiB; below, where boot loaders put the initrd at the top, the
    /// middle of the largest free range. `None` if there is none, or addresses are hidden.
    #[must_use]
    pub fn place(&self, len_bytes: u64, align: u64, taken: &[(u64, u64)]) -> Option<u64> {
        let fits = |address: &u64| {
            let last = address.checked_add(len_bytes.checked_sub(1)?)?;
            Some(self.is_free_ram(*address, last, taken)).filter(|is_free| *is_free)
        };
        let ram = || self.ranges.iter().filter(|range| range.name == SYSTEM_RAM);
        let steps_down = |from: u64, to: u64| {
            let top = (from.saturating_add(1)).saturating_sub(len_bytes) & !(align - 1);
            (0..PLACES_MAX)
                .map_while(move |step| top.checked_sub(step * align))
                .take_while(move |address| *address >= to)
        };
        let high = ram().rev().filter(|range| range.first >= FOUR_GIB);
        let mut high = high.flat_map(|range| steps_down(range.last, range.first));
        let low = ram().filter(|range| range.first < FOUR_GIB);
        high.find(|address| fits(address).is_some()).or_else(|| {
            let range = low.max_by_key(|range| range.last - range.first)?;
            let middle = range.first + (range.last - range.first) / 2;
            let mut places = steps_down(middle.saturating_add(len_bytes), range.first);
            places.find(|address| *address > 0 && fits(address).is_some())
        })
    }

    /// Whether a range is RAM that nobody has a part of.
    fn is_free_ram(&self, first: u64, last: u64, taken: &[(u64, u64)]) -> bool {
        let within = |range: &IoRange| range.first <= first && last <= range.last;
        let is_ram = |range: &IoRange| range.name == SYSTEM_RAM;
        let mut overlapping = self
            .ranges
            .iter()
            .filter(|range| range.overlaps(first, last));
        let is_taken = |(start, len): &(u64, u64)| {
            *start <= last && first <= start.saturating_add(len.saturating_sub(1))
        };
        overlapping
            .clone()
            .any(|range| is_ram(range) && within(range))
            && overlapping.all(is_ram)
            && !taken.iter().any(is_taken)
    }
}

impl IoRange {
    fn parse(line: &str) -> Option<Self> {
        let (range, name) = line.split_once(" : ")?;
        let (first, last) = range.trim().split_once('-')?;
        Some(Self {
            first: u64::from_str_radix(first, 16).ok()?,
            last: u64::from_str_radix(last, 16).ok()?,
            name: name.trim().to_owned(),
        })
    }

    fn overlaps(&self, first: u64, last: u64) -> bool {
        self.first <= last && first <= self.last
    }

    fn is_usable(&self) -> bool {
        USABLE
            .iter()
            .any(|name| self.name.eq_ignore_ascii_case(name))
    }
}

/// Opens `/dev/mem` for a mapping at `address`.
///
/// Memory that was set aside is cached as any other, which is how the kernel itself maps it: a copy of
/// it takes no longer. What is stored leaves the caches by an instruction of the processor; where that
/// is not known, the mapping goes past the caches instead (`O_SYNC`).
pub(crate) fn open_dev_mem(address: u64, access: Access) -> Result<File, Error> {
    let uncached = match RawMemory::CAN_FLUSH {
        true => OFlags::empty(),
        false => OFlags::SYNC,
    };
    OpenOptions::new()
        .read(true)
        .write(access == Access::ReadWrite)
        .custom_flags(uncached.bits().cast_signed())
        .open("/dev/mem")
        .map_err(|error| dev_mem_error(address, error))
}

/// Says why the system may have refused `/dev/mem`, and what to do.
pub(crate) fn dev_mem_error(address: u64, source: io::Error) -> Error {
    let help = match source.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::NOENT | Errno::NXIO | Errno::NODEV) => {
            "this kernel has no /dev/mem (CONFIG_DEVMEM), or this container has not got it"
        }
        Some(Errno::ACCESS) => "run as root (CAP_SYS_RAWIO)",
        Some(Errno::PERM) => {
            "the kernel lets nobody at this address: it is RAM that was not set aside with \
             `memmap=` (CONFIG_STRICT_DEVMEM), a driver has it (CONFIG_IO_STRICT_DEVMEM; boot with \
             `iomem=relaxed`), or the kernel is locked down"
        }
        Some(Errno::INVAL) => "the address is beyond what this processor has, or not page aligned",
        _ => "see the kernel's messages",
    };
    Error::DevMem {
        address,
        source,
        help,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Shortened from a two-processor virtual machine, with a `memmap=12M$0x284500000` added.
    const TEXT: &str = "\
00000000-00000fff : Reserved
00001000-0009fbff : System RAM
0009fc00-000fffff : Reserved
  000f0000-000fffff : System ROM
00100000-bfffffff : System RAM
  01000000-022090c7 : Kernel code
c0001000-eebfffff : PCI Bus 0000:00
eec00000-febfffff : Reserved
  eec00000-eecfffff : PCI ECAM 0000 [bus 00-00]
100000000-2844fffff : System RAM
284500000-2850fffff : Reserved
285100000-63fffffff : System RAM
";

    fn check(address: u64, len: u64) -> Result<(), IoMemoryProblem> {
        IoMemory::parse(TEXT).check(address, len)
    }

    fn name_of_taken(address: u64, len: u64) -> String {
        match check(address, len) {
            Err(IoMemoryProblem::Taken { name, .. }) => name,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn memory_set_aside_may_be_used_to_its_last_byte() {
        assert_eq!(check(0x2_8450_0000, 12 << 20), Ok(()));
        assert_eq!(name_of_taken(0x2_8450_0000, (12 << 20) + 1), "System RAM");
        assert_eq!(name_of_taken(0x2_844f_ffff, 12 << 20), "System RAM");
    }

    #[test]
    fn hole_may_be_used() {
        assert_eq!(check(0x6_4000_0000, 1 << 20), Ok(()));
        assert_eq!(check(0xc000_0000, 0x1000), Ok(()));
    }

    #[test]
    fn kernel_and_devices_are_never_touched() {
        assert_eq!(name_of_taken(0x0100_0000, 4096), "System RAM");
        assert_eq!(name_of_taken(0xd000_0000, 4096), "PCI Bus 0000:00");
    }

    #[test]
    fn device_inside_a_reserved_range_is_never_touched() {
        assert_eq!(
            name_of_taken(0xeec0_0000, 4096),
            "PCI ECAM 0000 [bus 00-00]"
        );
        assert_eq!(check(0xeed0_0000, 4096), Ok(()));
    }

    #[test]
    fn reserved_part_of_system_ram_is_the_kernels() {
        let arm64 =
            IoMemory::parse("40000000-7fffffff : System RAM\n  48000000-480fffff : reserved");
        assert!(matches!(
            arm64.check(0x4800_0000, 4096),
            Err(IoMemoryProblem::Taken { .. })
        ));
    }

    #[test]
    fn hidden_addresses_are_not_taken_for_holes() {
        let hidden = IoMemory::parse("00000000-00000000 : System RAM\n00000000-00000000 : x\n");
        assert_eq!(hidden.check(0x1000, 4096), Err(IoMemoryProblem::Hidden));
        assert_eq!(
            IoMemory::parse("").check(0x1000, 4096),
            Err(IoMemoryProblem::Hidden)
        );
    }

    #[test]
    fn impossible_ranges_are_refused() {
        assert_eq!(check(0x1000, 0), Err(IoMemoryProblem::Impossible));
        assert_eq!(check(u64::MAX, 2), Err(IoMemoryProblem::Impossible));
    }

    #[test]
    fn refusal_names_its_reason() {
        let error = |errno: Errno| dev_mem_error(0x1000, errno.into()).to_string();
        assert!(error(Errno::PERM).contains("CONFIG_STRICT_DEVMEM"));
        assert!(error(Errno::NOENT).contains("CONFIG_DEVMEM"));
        assert!(error(Errno::ACCESS).contains("root"));
    }

    #[test]
    fn place_is_the_highest_free_memory() {
        let memory = IoMemory::parse(TEXT);
        let place = |len, taken: &[_]| memory.place(len, 2 << 20, taken);
        assert_eq!(place(12 << 20, &[]), Some(0x6_3f40_0000));
        let below = place(12 << 20, &[(0x6_3f40_0000, 12 << 20)]);
        assert_eq!(below, Some(0x6_3e80_0000));
        assert_eq!(place(1 << 40, &[]), None);
        assert_eq!(place(0, &[]), None);
    }

    #[test]
    fn place_below_four_gib_is_in_the_middle_and_beside_the_kernel() {
        let memory = IoMemory::parse(
            "00001000-0009fbff : System RAM\n00100000-1fffffff : System RAM\n\
             \x20 01000000-022090c7 : Kernel code\n  0f000000-10bfffff : Crash kernel\n",
        );
        let address = memory.place(4 << 20, 2 << 20, &[]).unwrap();
        assert_eq!(address, 0x0ec0_0000);
        assert_eq!(address % (2 << 20), 0);
    }

    #[test]
    fn no_place_is_told_where_addresses_are_hidden() {
        let hidden = IoMemory::parse("00000000-00000000 : System RAM\n");
        assert_eq!(hidden.place(4096, 4096, &[]), None);
    }

    #[test]
    fn this_machine_protects_its_ram() {
        let memory = IoMemory::read().unwrap();
        assert!(memory.check(0x10_0000, 4096).is_err());
    }

    proptest! {
        #[test]
        fn any_text_is_parsed(text in "[-0-9a-f: \nA-Z]{0,200}", address: u64, len: u64) {
            let _ = IoMemory::parse(&text).check(address, len);
        }
    }
}

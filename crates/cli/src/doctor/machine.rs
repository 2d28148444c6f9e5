//! The facts about this machine that decide what survives.

use outlive_kernel::InstanceName;
use outlive_trace::cmdline::CommandLine;
use outlive_trace::{IoMemory, host};

use super::boot_instance::{self, BootInstance};
use super::kernel_config::KernelConfig;
use super::leftovers;
use super::mounts::Mounts;
use super::system::System;

/// The firmware's promise to clear memory at the next reset: bit 0 behind four bytes of attributes
/// (TCG Platform Reset Attack Mitigation Specification 1.10; `efivarfs`).
const MOR: &str =
    "/sys/firmware/efi/efivars/MemoryOverwriteRequestControl-e20939be-32d4-41be-a150-897f85d49829";

/// What was found. Fields that the machine does not tell are `None`.
#[derive(Clone, Debug)]
pub(crate) struct Machine {
    pub(crate) system: System,
    /// `uname -r`.
    pub(crate) release: String,
    /// Its first two numbers.
    pub(crate) version: (u32, u32),
    pub(crate) config: KernelConfig,
    /// `/proc/cmdline`, and what of it we know.
    pub(crate) kernel_text: String,
    pub(crate) kernel_line: CommandLine,
    pub(crate) mounts: Mounts,
    pub(crate) iomem: IoMemory,
    /// CPUs that there can be in this boot: the kernel divides its regions among them.
    pub(crate) nr_cpus: Option<u32>,
    /// This boot's id.
    pub(crate) boot_id: String,
    /// Whether we are in a container.
    pub(crate) is_container: bool,
    /// `none`, `integrity` or `confidentiality`.
    pub(crate) lockdown: Option<String>,
    pub(crate) is_efi: bool,
    /// Whether the firmware is asked to clear memory at a reset.
    pub(crate) is_wipe_requested: Option<bool>,
    /// The kernel's own boot instances.
    pub(crate) boot_instances: Vec<BootInstance>,
    /// Host instances of recorders that have died.
    pub(crate) leftovers: Vec<InstanceName>,
}

impl Machine {
    /// Looks at the machine below `system`, which is the real one or a copy.
    pub(crate) fn look(system: System) -> Self {
        let release = system
            .text("/proc/sys/kernel/osrelease")
            .unwrap_or_default();
        let kernel_text = system.text("/proc/cmdline").unwrap_or_default();
        let kernel_line = CommandLine::parse(&kernel_text);
        let iomem = system.text("/proc/iomem").unwrap_or_default();
        let mounts = Mounts::parse(&system.text("/proc/self/mountinfo").unwrap_or_default());
        Self {
            version: version(&release),
            config: KernelConfig::read(&system, &release),
            boot_instances: boot_instance::list(&system, &kernel_line),
            leftovers: leftovers::list(&system),
            kernel_line,
            kernel_text,
            mounts,
            iomem: IoMemory::parse(&iomem),
            nr_cpus: outlive_kernel::nr_cpu_ids().ok(),
            boot_id: host::boot_id().unwrap_or_default(),
            is_container: outlive_kernel::in_container(),
            lockdown: outlive_kernel::lockdown(),
            is_efi: system.exists("/sys/firmware/efi"),
            is_wipe_requested: system
                .bytes(MOR)
                .and_then(|bytes| bytes.get(4).map(|byte| byte & 1 == 1)),
            release,
            system,
        }
    }

    /// Whether the kernel is at least of this version.
    pub(crate) fn is_at_least(&self, major: u32, minor: u32) -> bool {
        self.version >= (major, minor)
    }

    /// Whether one of the words of the kernel's command line is this one, or begins with it where it
    /// ends in `=`.
    pub(crate) fn has_parameter(&self, name: &str) -> bool {
        self.parameter(name).is_some()
    }

    /// What stands behind the last parameter of this name, `=` included in the name.
    pub(crate) fn parameter(&self, name: &str) -> Option<&str> {
        let own = self.kernel_text.split(" -- ").next().unwrap_or_default();
        let mut words = own.split_ascii_whitespace().rev();
        match name.ends_with('=') {
            true => words.find_map(|word| word.strip_prefix(name)),
            false => words.find(|word| *word == name).map(|_| ""),
        }
    }

    /// How long what was written to a page of a disk file may stay in memory alone, in seconds
    /// (`Documentation/admin-guide/sysctl/vm.rst`, Linux 6.18).
    pub(crate) fn write_back_s(&self) -> i64 {
        let centisecs = |name: &str, default| {
            let path = format!("/proc/sys/vm/{name}");
            self.system.number(&path).unwrap_or(default)
        };
        let sum = centisecs("dirty_expire_centisecs", 3000)
            .saturating_add(centisecs("dirty_writeback_centisecs", 500));
        sum / 100
    }
}

/// The first two numbers of a release.
fn version(release: &str) -> (u32, u32) {
    let mut numbers = release
        .split(|c: char| !c.is_ascii_digit())
        .map(|number| number.parse().unwrap_or(0));
    let mut next = || numbers.next().unwrap_or(0);
    (next(), next())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_is_the_first_two_numbers() {
        assert_eq!(version("7.3.4+deb13-cloud-amd64"), (7, 3));
        assert_eq!(version("6.18.44-fc-v595"), (6, 18));
        assert_eq!(version(""), (0, 0));
    }

    #[test]
    fn later_parameter_wins_and_what_is_for_init_is_none() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("proc")).unwrap();
        let line = "nokaslr panic=1 panic=20 x.panic=3 -- panic=7";
        std::fs::write(folder.path().join("proc/cmdline"), line).unwrap();
        let machine = Machine::look(System::at(folder.path()));
        assert_eq!(machine.parameter("panic="), Some("20"));
        assert!(machine.has_parameter("nokaslr") && !machine.has_parameter("kaslr"));
        assert_eq!(machine.write_back_s(), 35);
    }
}

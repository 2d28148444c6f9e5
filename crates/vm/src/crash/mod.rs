//! The crash of a machine on which outlive records, and what it keeps of the last moments.
//!
//! A [`Rig`] is a machine with memory that outlives a reset, of one [`Kind`]. In it outlive is started
//! from init and records `sched`, and so does the kernel's own persistent instance, at another address:
//! the judge of what there was to record. The machine dies ([`Death`]), boots again, and outlive is
//! started with the same line.

mod case;
mod loss;

use std::path::{Path, PathBuf};

use crate::{Boot, Disk, End, Error, Kernel, Machine, Outcome};

pub use case::{Case, PAGE_HEAD, Survived, all};
pub use loss::Loss;

/// Physical address of the memory that was set aside for outlive, and of persistent memory.
const AREA: u64 = 0x1400_0000;
/// Bytes of outlive's area where it has no file system.
pub const AREA_BYTES: usize = 4 << 20;
/// Bytes of persistent memory.
const PMEM_MIB: u64 = 48;
/// Where the kernel's own instance lies.
const REFERENCE: u64 = 0x1100_0000;
const REFERENCE_BYTES: usize = 4 << 20;

/// How often an area on a disk is written back, as an option.
const FLUSH: &str = "--flush 200ms";

/// What outlive is started with, at each boot the same.
const LINE: &str = "reserve_mem=4M:4096:trace trace_instance=boot_mapped@trace,sched \
                    trace_instance=backup=boot_mapped";

/// Functions of the guest's scripts: `$area` and `$state` are those of the kind of memory.
const FUNCTIONS: &str = r#"
service() { # starts outlive, and waits until it records
  outlive --state $state boot $options --area trace=$area "$line" 2> /tmp/log & outlive=$!
  until grep -q ': recording' /tmp/log; do
    kill -0 $outlive 2> /dev/null || { cat /tmp/log > /dev/console; poweroff -f; }
    sleep 0.1
  done
}
load() { # scheduler events for as long as the machine lives
  for i in 1 2; do
    while :; do cat /proc/self/stat > /dev/null; sleep 0.01; done &
  done
}
any_moment() { # up to a second and a half
  sleep 0.$((RANDOM % 1000))
  sleep 0.5
}
last_words() { # an event that has reached outlive's area when this is done
  ln -s /bin/busybox /tmp/last-words
  /tmp/last-words 2> /dev/null
  until outlive --state $state show boot_mapped --event sched_process_exec | grep -q last-words; do :; done
}
beaten() { # outlive has noted how far apart its polls are
  until outlive --state $state info boot_mapped --json | grep -q '"max_delay_ns": *[1-9]'; do :; done
}
written_back() { # what outlive's area had before is on the disk
  sleep 2
}
"#;

/// What outlive left, as the second boot finds it.
const LOOK: &str = "\
service
cp $state/generations/boot_mapped/*/region /out/region
outlive --state $state show backup > /out/show
outlive --state $state info backup --json > /out/info
outlive --state $state check backup --json > /out/check; echo $? > /out/check.code
outlive --state $state ls --json > /out/ls
kill $outlive; wait $outlive
cp /tmp/log /out/log";

/// Memory that outlives a reset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Physical memory that is set aside (`memmap=4M$...`), through `/dev/mem`.
    Physical,
    /// A file on ext4 with DAX on legacy persistent memory (`memmap=48M!...`).
    DaxFile,
    /// A file on ext4 with DAX on a virtio-pmem device.
    VirtioPmem,
    /// A device-DAX node on legacy persistent memory.
    DeviceDax,
    /// A file on ext4 on a disk, written back every 200 ms: memory that does not outlive the machine.
    Disk,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Physical => "physical memory",
            Self::DaxFile => "DAX file on legacy pmem",
            Self::VirtioPmem => "DAX file on virtio-pmem",
            Self::DeviceDax => "device-DAX",
            Self::Disk => "file on a disk",
        }
    }

    /// What the kernel is told.
    fn line(self) -> String {
        match self {
            Self::Physical => format!("memmap={AREA_BYTES:#x}${AREA:#x}"),
            Self::DaxFile | Self::DeviceDax => format!("memmap={PMEM_MIB}M!{AREA:#x}"),
            Self::VirtioPmem | Self::Disk => String::new(),
        }
    }

    fn modules(self) -> &'static [&'static str] {
        match self {
            Self::Physical => &[],
            Self::DaxFile => &["nd_e820", "nd_pmem"],
            Self::VirtioPmem => &["virtio_pmem", "nd_pmem"],
            Self::DeviceDax => &["nd_e820", "nd_pmem", "dax_pmem", "device_dax"],
            Self::Disk => &["virtio_blk"],
        }
    }

    /// Makes the memory usable, and says where area and state are. A state folder in the initramfs does
    /// not outlive the boot: then the area alone has what was recorded.
    fn setup(self) -> String {
        match self {
            Self::Physical => format!("area=mem:{AREA:#x}; state=/state"),
            Self::DaxFile | Self::VirtioPmem => "mkdir -p /pmem
                 mount -t ext4 -o dax /dev/pmem0 /pmem
                 area=dax:/pmem/trace; state=/pmem/state"
                .to_owned(),
            // What `ndctl create-namespace --mode devdax` does; it is remembered in the memory itself.
            Self::DeviceDax => "nd=/sys/bus/nd
                 if [ ! -e /dev/dax0.0 ]; then
                   echo namespace0.0 > $nd/drivers/nd_pmem/unbind
                   echo pmem > $nd/devices/dax0.0/mode
                   echo 2097152 > $nd/devices/dax0.0/align
                   cat /proc/sys/kernel/random/uuid > $nd/devices/dax0.0/uuid
                   echo namespace0.0 > $nd/devices/dax0.0/namespace
                   echo dax0.0 > $nd/drivers/dax_pmem/bind
                 fi
                 area=devdax:/dev/dax0.0; state=/state"
                .to_owned(),
            Self::Disk => format!(
                "mkdir -p /disk
                 mount -t ext4 /dev/vda /disk
                 area=file; state=/disk/state; options='{FLUSH}'"
            ),
        }
    }
}

/// How a machine goes down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Death {
    /// The kernel panics.
    Panic,
    /// Somebody presses the button.
    ResetFromOutside,
    /// The watchdog's time is over.
    Watchdog,
    /// The processor gives up.
    TripleFault,
    /// Services are stopped and the machine is rebooted.
    Reboot,
}

impl Death {
    fn name(self) -> &'static str {
        match self {
            Self::Panic => "panic",
            Self::ResetFromOutside => "reset from outside",
            Self::Watchdog => "watchdog",
            Self::TripleFault => "triple fault",
            Self::Reboot => "clean reboot",
        }
    }

    /// The guest's last commands.
    fn script(self) -> &'static str {
        match self {
            Self::Panic => "echo c > /proc/sysrq-trigger",
            Self::ResetFromOutside => "echo now-is-the-time > /dev/console; sleep 1000",
            // It sets the time to 2 s, and is slow to come again.
            Self::Watchdog => "watchdog -T 2 -t 1000 /dev/watchdog; sleep 1000",
            // With the line's `reboot=t`.
            Self::TripleFault => "echo b > /proc/sysrq-trigger",
            Self::Reboot => "kill $outlive; wait $outlive; reboot -f",
        }
    }

    fn line(self) -> &'static str {
        match self {
            Self::TripleFault => "reboot=t",
            _ => "",
        }
    }

    /// What the machine's end looks like from outside.
    #[must_use]
    pub fn end(self) -> End {
        match self {
            Self::Panic | Self::Reboot => End::Reset,
            Self::TripleFault => End::TripleFault,
            Self::ResetFromOutside => End::ResetFromOutside,
            Self::Watchdog => End::Watchdog,
        }
    }

    fn prepare(self, boot: Boot) -> Boot {
        match self {
            Self::ResetFromOutside => boot.reset_at("now-is-the-time"),
            Self::Watchdog => {
                boot.module("i6300esb")
                    .qemu(["-device", "i6300esb", "-action", "watchdog=reset"])
            }
            _ => boot,
        }
    }
}

/// A machine with outlive in it.
#[derive(Debug)]
pub struct Rig {
    machine: Machine,
    kind: Kind,
    outlive: PathBuf,
    /// The file behind the virtio-pmem device or the disk.
    image: Option<Disk>,
}

impl Rig {
    /// A machine of two CPUs, whose persistent memory has a new file system where it needs one.
    ///
    /// # Errors
    /// As [`Machine::new`]; `mkfs.ext4` fails.
    pub fn new(kernel: Kernel, kind: Kind, outlive: &Path) -> Result<Self, Error> {
        let mut machine = Machine::new(kernel, 2, 512)?;
        let mut image = None;
        if matches!(kind, Kind::DaxFile | Kind::VirtioPmem | Kind::Disk) {
            let new = Disk::new(PMEM_MIB)?;
            match kind {
                Kind::VirtioPmem | Kind::Disk => image = Some(new),
                _ => {
                    let bytes = std::fs::read(new.path());
                    machine.write(AREA, &bytes.map_err(Error::io("cannot read", new.path()))?)?;
                }
            }
        }
        Ok(Self {
            machine,
            kind,
            outlive: outlive.to_owned(),
            image,
        })
    }

    /// Outlive records until the machine dies; `script` comes between, with `FUNCTIONS`.
    ///
    /// # Errors
    /// As [`Machine::boot`].
    pub fn record(&mut self, script: &str, death: Death) -> Result<Outcome, Error> {
        let boot = self.boot(death.line());
        let boot = boot.script("service").script(script).script(death.script());
        self.machine.boot(&death.prepare(boot))
    }

    /// The machine boots again, outlive is started, and what it says of the run before is in the
    /// results: `show`, `info`, `check`, `ls`, `log` and the generation's `region`.
    ///
    /// # Errors
    /// As [`Machine::boot`].
    pub fn again(&mut self) -> Result<Outcome, Error> {
        self.machine.boot(&self.boot("").script(LOOK))
    }

    /// What outlive's area in physical memory holds, between two boots.
    ///
    /// # Errors
    /// As [`Machine::read`].
    pub fn area(&self) -> Result<Vec<u8>, Error> {
        self.machine.read(AREA, AREA_BYTES)
    }

    /// The region of the kernel's own instance, between two boots.
    ///
    /// # Errors
    /// As [`Machine::read`].
    pub fn reference(&self) -> Result<Vec<u8>, Error> {
        self.machine.read(REFERENCE, REFERENCE_BYTES)
    }

    fn boot(&self, line: &str) -> Boot {
        let reference = format!(
            "memmap={REFERENCE_BYTES:#x}${REFERENCE:#x} \
             trace_instance=reference@{REFERENCE:#x}:{REFERENCE_BYTES:#x},sched"
        );
        let mut boot = Boot::new(&format!("{} {reference} {line}", self.kind.line()))
            .program("outlive", &self.outlive)
            .script(FUNCTIONS)
            .script(&self.kind.setup())
            .script(&format!("line='{LINE}'"));
        for module in self.kind.modules() {
            boot = boot.module(module);
        }
        match &self.image {
            Some(image) if self.kind == Kind::Disk => boot.qemu(image.drive()),
            Some(image) => {
                let memory = format!(
                    "memory-backend-file,id=pmem,share=on,size={PMEM_MIB}M,mem-path={}",
                    image.path().display()
                );
                let (slots, device) = ("slots=2,maxmem=4G", "virtio-pmem-pci,memdev=pmem");
                boot.qemu(["-m", slots, "-object", &memory, "-device", device])
            }
            None => boot,
        }
    }
}

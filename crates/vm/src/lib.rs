//! Real kernels in QEMU, for tests that need a machine that panics.
//!
//! A [`Kernel`] is one of Debian's, [pinned](Kernel::pinned) by the hashes of its packages and unpacked,
//! not installed. A [`Machine`] has memory that outlives its boots. A [`Boot`] is one run of it: a
//! command line, an initramfs of busybox, programs and files, and a script. It ends when the guest
//! powers off, resets or panics, or is reset from outside; then the machine's memory can be read and
//! written, and the next boot finds it as it is.
//!
//! Plain emulation does: a boot to the script takes some ten seconds of one core
//! (`OUTLIVE_VM_ACCEL=kvm` where that works). Needs the Debian
//! packages `qemu-system-x86`, `busybox-static` and `xz-utils`; [`missing`] says which are not there.
//!
//! ```no_run
//! use outlive_vm::{Boot, End, Kernel, Machine};
//!
//! # fn main() -> Result<(), outlive_vm::Error> {
//! let mut machine = Machine::new(Kernel::pinned("7.3.4")?, 2, 512)?;
//! let line = "reserve_mem=1M:2M:trace trace_instance=boot_mapped@trace,sched";
//! let first = machine.boot(&Boot::new(line).script("echo c > /proc/sysrq-trigger"))?;
//! assert_eq!(first.end, End::Reset);
//! let second = machine.boot(&Boot::new(line).script(
//!     "cat /sys/kernel/tracing/instances/boot_mapped/trace > /out/trace",
//! ))?;
//! assert_eq!(second.end, End::PowerOff);
//! println!("{}", second.text("trace")?);
//! # Ok(())
//! # }
//! ```

pub mod backup_time;
mod boot;
pub mod crash;
pub mod damage;
mod disk;
mod error;
mod initramfs;
mod kernel;
mod machine;
mod modules;
mod programs;
mod qemu;
pub mod regions;

pub use boot::{Boot, End, Outcome};
pub use disk::Disk;
pub use error::Error;
pub use kernel::Kernel;
pub use machine::Machine;
pub use programs::outlive;

/// Programs that are needed, and the Debian package of each.
const NEEDED: [(&str, &str); 7] = [
    ("qemu-system-x86_64", "qemu-system-x86"),
    ("busybox", "busybox-static"),
    ("xz", "xz-utils"),
    ("tar", "tar"),
    ("setpriv", "util-linux"),
    ("ldd", "libc-bin"),
    ("mkfs.ext4", "e2fsprogs"),
];

/// Whether a test can run machines here. If not, says that it is skipped, and which packages it needs.
#[must_use]
pub fn can_run(test: &str) -> bool {
    let missing = missing();
    if !missing.is_empty() {
        let missing = missing.join(" ");
        println!("{test}: skipped: needs the Debian packages {missing}");
    }
    missing.is_empty()
}

/// The Debian packages that are missing on this machine, for what is here to work.
#[must_use]
pub fn missing() -> Vec<&'static str> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let is_there =
        |program: &str| std::env::split_paths(&path).any(|folder| folder.join(program).is_file());
    NEEDED
        .iter()
        .filter(|(program, _)| !is_there(program))
        .map(|&(_, package)| package)
        .collect()
}

//! The unit that `outlive install` writes, started by a real systemd on a machine that panics.
#![allow(missing_docs, reason = "tests")]

use std::path::Path;

use outlive_vm::{Boot, Disk, End, Kernel, Machine, Outcome};

const SYSTEMD: &str = "/lib/systemd/systemd";
/// Of systemd's own, what the unit names. What they name themselves may be missing.
const UNITS: [&str; 3] = [
    "sysinit.target",
    "shutdown.target",
    "sys-kernel-tracing.mount",
];

/// An instance by address: the unit needs `/dev/mem` and the capabilities for it.
const LINE: &str =
    "trace_instance=boot_mapped@0x14000000:4M,sched trace_instance=backup=boot_mapped";

/// systemd wants a root that it may move, and so not the initramfs itself. The disk has what outlives a boot:
/// there the state folder is.
const SWITCH_ROOT: &str = "\
mkdir /root; mount -t tmpfs -o mode=755 root /root
cp -a /bin /lib /lib64 /usr /etc /root
mkdir -p /root/var/lib /root/proc /root/sys /root/dev /root/run /root/tmp /root/out
mount -t ext4 /dev/vda /root/var/lib
outlive install --root /root --program /bin/outlive \"$line\"
umount /sys/kernel/tracing
for folder in proc sys dev run; do mount --move /$folder /root/$folder; done
exec switch_root /root /bin/systemd";

/// What the machine is for: behind the service, which has to be there before `sysinit.target`.
const GUEST: &str = "\
[Unit]
Requires=outlive.service
After=sysinit.target
[Service]
Environment=PATH=/bin
ExecStart=/bin/sh /bin/guest
";

struct Rig {
    machine: Machine,
    disk: Disk,
}

impl Rig {
    /// `None` where this machine lacks what is needed.
    fn new() -> Option<Self> {
        if !outlive_vm::can_run("service") {
            return None;
        }
        if !Path::new(SYSTEMD).exists() {
            println!("service: skipped: needs the Debian package systemd");
            return None;
        }
        Some(Self {
            machine: Machine::new(Kernel::pinned("7.3.4").unwrap(), 2, 768).unwrap(),
            disk: Disk::new(64).unwrap(),
        })
    }

    /// Boots into systemd, which starts the service and then this script.
    fn boot(&mut self, script: &str) -> Outcome {
        let mut boot = Boot::new("memmap=4M$0x14000000 systemd.log_target=kmsg")
            .program("outlive", outlive_vm::outlive().unwrap())
            .program("systemd", SYSTEMD)
            .module("virtio_blk")
            .qemu(self.disk.drive())
            .script(&format!("line='{LINE}'"))
            .script(SWITCH_ROOT)
            .file("bin/guest", script)
            .file("etc/systemd/system/guest.service", GUEST)
            .file(
                "etc/systemd/system/default.target",
                "[Unit]\nWants=guest.service\n",
            );
        for unit in UNITS {
            let text = std::fs::read(Path::new("/lib/systemd/system").join(unit)).unwrap();
            boot = boot.file(&format!("lib/systemd/system/{unit}"), text);
        }
        self.machine.boot(&boot).unwrap()
    }
}

#[test]
fn installed_unit_started_by_systemd_has_the_events_before_a_panic() {
    let Some(mut rig) = Rig::new() else {
        return;
    };
    let first = rig.boot(
        "ln -s /bin/busybox /tmp/last-words; /tmp/last-words
         until outlive show boot_mapped --event sched_process_exec | grep -q last-words; do sleep 0.1; done
         echo c > /proc/sysrq-trigger",
    );
    assert_eq!(first.end, End::Reset, "{}", first.console);

    let second = rig.boot(
        "outlive show backup > /out/show 2> /out/show.err
         outlive check backup --json > /out/check
         outlive ls > /out/ls
         save; poweroff -f",
    );
    assert_eq!(second.end, End::PowerOff, "{}", second.console);
    let (shown, listed) = (second.text("show").unwrap(), second.text("ls").unwrap());
    assert!(
        shown.contains("filename=/tmp/last-words"),
        "{listed}\n{}",
        second.console
    );
    let check = second.text("check").unwrap();
    assert!(check.contains("\"verdict\":\"host-rebooted\""), "{check}");
    assert!(check.contains("\"outcome\":\"whole\""), "{check}");
}

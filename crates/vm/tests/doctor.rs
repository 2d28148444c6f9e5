//! `outlive doctor` on machines that really panic and reboot: canaries in memory that was set aside,
//! and the kernel's own instances, which looking must leave as they are.
#![allow(missing_docs, reason = "tests")]

use outlive_vm::{Boot, Disk, End, Kernel, Machine, Outcome};
use serde_json::Value;

const LINE: &str = "reserve_mem=8M:4096:trace trace_instance=boot_mapped@trace,sched";
const AREA: &str = "trace=mem:0x10000000";

/// A machine, and a disk that has the state folder.
struct Rig {
    machine: Machine,
    disk: Disk,
}

impl Rig {
    fn new(test: &str) -> Option<Self> {
        Self::with_cpus(test, 1)
    }

    fn with_cpus(test: &str, cpus: u32) -> Option<Self> {
        if !outlive_vm::can_run(test) {
            return None;
        }
        let disk = Disk::new(64).unwrap();
        let kernel = Kernel::pinned("7.3.4").unwrap();
        let machine = Machine::new(kernel, cpus, 512).unwrap();
        Some(Self { machine, disk })
    }

    /// One boot with the disk mounted; `$doctor` is the command, `$line` what it judges.
    fn boot(&mut self, cmdline: &str, script: &str) -> Outcome {
        let boot = Boot::new(cmdline)
            .program("outlive", outlive_vm::outlive().unwrap())
            .module("virtio_blk")
            .qemu(self.disk.drive())
            .script("mkdir -p /state; mount -t ext4 /dev/vda /state || echo no disk > /dev/console")
            .script(&format!(
                "doctor=\"outlive --state /state/outlive doctor --area {AREA}\""
            ))
            .script(&format!("line='{LINE}'"))
            .script(script);
        self.machine.boot(&boot).unwrap()
    }
}

fn json(outcome: &Outcome, name: &str) -> Value {
    serde_json::from_slice(&outcome.bytes(name).unwrap())
        .unwrap_or_else(|error| panic!("{error}: {}", outcome.text(name).unwrap()))
}

/// Memory that was set aside: unknown before, proven by a panic, found again by a recorder that was
/// there first after a reboot.
#[test]
fn canaries_in_memory_come_back_after_a_panic_and_after_a_reboot() {
    let Some(mut rig) = Rig::new("canaries") else {
        return;
    };
    let memmap = "memmap=16M$0x10000000";
    let first = rig.boot(
        memmap,
        "$doctor --json \"$line\" > /out/before
         $doctor --prove \"$line\" > /out/proven 2>&1; echo $? > /out/code
         save
         $doctor --prove --reboot=panic \"$line\" > /dev/console 2>&1",
    );
    assert_eq!(first.end, End::Reset, "{}", first.console);
    assert!(
        first.console.contains("sysrq triggered crash"),
        "{}",
        first.console
    );
    let before = json(&first, "before");
    assert_eq!(before["tiers"]["panic"]["answer"], "unknown", "{before}");
    let proven = first.text("proven").unwrap();
    assert!(proven.contains("process: proven"), "{proven}");
    assert_eq!(first.text("code").unwrap(), "0\n");
    let second = rig.boot(
        memmap,
        "$doctor --json --tier panic \"$line\" > /out/after 2> /out/said; echo $? > /out/code
         save
         $doctor --prove --reboot=now \"$line\" > /dev/console 2>&1",
    );
    let said = second.text("said").unwrap();
    assert!(
        said.contains("proven: 500 of 500 events came back after a panic"),
        "{said}"
    );
    assert_eq!(json(&second, "after")["tiers"]["panic"]["answer"], "yes");
    assert_eq!(second.text("code").unwrap(), "0\n");
    assert_eq!(second.end, End::Reset, "{}", second.console);
    let third = rig.boot(
        memmap,
        &format!(
            "outlive --state /state/outlive boot --area {AREA} \"$line\" 2> /out/boot &
             until grep -q 'recording ' /out/boot || ! kill -0 $!; do sleep 0.1; done
             $doctor --json \"$line\" > /out/after 2> /out/said
             kill $!; wait
             outlive --state /state/outlive show boot_mapped/1 > /out/canary 2>&1
             outlive --state /state/outlive ls > /out/ls 2>&1"
        ),
    );
    let said = third.text("said").unwrap();
    let boot = third.text("boot").unwrap();
    assert!(
        said.contains("a recorder kept the canary as boot_mapped/"),
        "{said}\n{boot}"
    );
    assert!(
        said.contains("proven: 500 of 500 events came back after a reboot"),
        "{said}\n{boot}"
    );
}

/// The parameter by which `install --reserve` sets memory aside, and the address.
fn set_aside(dry_run: &str) -> (&str, &str) {
    let mut words = dry_run.split_ascii_whitespace();
    let memmap = words.find(|word| word.starts_with("memmap="));
    let memmap = memmap.unwrap_or_else(|| panic!("no memmap: {dry_run}"));
    (memmap, memmap.split_once('$').unwrap().1)
}

/// All that is to be seen of an instance without changing it.
const SNAPSHOT: &str = "
    snapshot() {
        for i in boot_mapped other; do
            t=/sys/kernel/tracing/instances/$i
            for f in trace last_boot_info trace_clock tracing_on trace_options buffer_size_kb set_event; do
                echo \"== $i $f\"; cat $t/$f
            done
            for c in $t/per_cpu/cpu*; do cat $c/stats | grep -v 'now ts'; cat $c/buffer_meta; done
        done
    }";

/// The kernel's instances, which still hold the boot before: the doctor says so, names what would
/// wipe them, and leaves them as they are. Memory that `install --reserve` has chosen is usable.
#[test]
fn kernels_instances_are_judged_and_left_as_they_are() {
    let Some(mut rig) = Rig::new("instances") else {
        return;
    };
    let areas = "reserve_mem=1M:2M:a reserve_mem=1M:2M:b trace_instance=boot_mapped@a";
    let first = rig.boot(
        &format!("{areas},sched trace_instance=other@b,sched"),
        "$doctor --json \"$line\" > /out/first 2>&1
         outlive install --dry-run --reserve \"$line\" > /out/install 2>&1
         save; echo c > /proc/sysrq-trigger",
    );
    assert_eq!(first.end, End::Reset, "{}", first.console);
    let installed = first.text("install").unwrap();
    let (memmap, address) = set_aside(&installed);
    let wiped = json(&first, "first").to_string();
    assert!(
        wiped.contains("wipe what the previous boot left: add trace_instance=backup=boot_mapped")
    );
    let second = rig.boot(
        &format!("{areas} trace_instance=other@b {memmap}"),
        &format!(
            "{SNAPSHOT}
             snapshot > /out/before
             $doctor --json --tier panic \"$line\" > /out/report 2> /out/said; echo $? > /out/code
             $doctor --prove \"$line\" > /out/nothing 2>&1
             snapshot > /out/after
             outlive --state /state/own doctor --prove --json --area x=mem:{address} \\
                 'reserve_mem=8M:4096:x trace_instance=own@x,sched' > /out/own 2> /out/proof
             cd /sys/kernel/tracing/instances
             cat boot_mapped/trace_clock > /out/traps
             echo local > boot_mapped/trace_clock; grep -c sched_switch boot_mapped/trace >> /out/traps
             rmdir other && mkdir other && ls other/last_boot_info >> /out/traps 2>&1"
        ),
    );
    assert!(second.text("nothing").unwrap().contains("nothing to prove"));
    let (own, proof) = (json(&second, "own"), second.text("proof").unwrap());
    assert!(
        proof.contains("process: proven: 500 of 500"),
        "{memmap}: {proof}"
    );
    assert_eq!(
        own["tiers"]["panic"]["answer"], "unknown",
        "{memmap}: {own}"
    );
    let before = second.text("before").unwrap();
    assert!(
        before.contains("sched_switch"),
        "it holds the boot before: {before}"
    );
    assert_eq!(second.text("after").unwrap(), before);
    let report = json(&second, "report");
    assert_eq!(
        report["areas"][0]["backing"], "kernel",
        "the kernel has the line's instance"
    );
    let judged = &report["tiers"]["panic"];
    assert_eq!(judged["answer"], "yes", "{judged}");
    assert_eq!(second.text("code").unwrap(), "0\n");
    let text = report["checks"].to_string();
    for words in [
        "boot_mapped: persistent",
        "of the boot before, 1 MiB at 0x",
        "even one with a mistyped name",
        // Once for both.
        "boot_mapped, other: reading trace_pipe or trace_pipe_raw consumes it, and splice",
        "boot_mapped, other: rmdir gives its memory away",
        "boot_mapped, other: who maps trace_pipe_raw",
        "boot_mapped, other: a write to trace_clock clears it",
    ] {
        assert!(text.contains(words), "{words}: {text}");
    }
    // That it does: the clock is the one that was set, and the instance is an ordinary one.
    let traps = second.text("traps").unwrap();
    let [clock, events, removed] = traps.lines().collect::<Vec<_>>()[..] else {
        panic!("{traps}")
    };
    assert!(clock.starts_with("[local]") && events == "0", "{traps}");
    assert!(removed.contains("No such file"), "{traps}");
}

/// The kernel starts empty where the boot before could have another number of CPUs, and says nothing of
/// it: the doctor, who has looked then, does.
#[test]
fn other_number_of_cpus_is_told_as_what_emptied_an_instance() {
    let Some(mut rig) = Rig::with_cpus("cpus", 2) else {
        return;
    };
    let line = "reserve_mem=1M:2M:a trace_instance=boot_mapped@a";
    // A proof makes the state folder, in which the doctor remembers.
    let look = "outlive --state /state/outlive doctor --prove \\
                    'reserve_mem=512K:4096:x trace_instance=own@x,sched' > /out/proof 2>&1
                $doctor --json \"$line\" > /out/report 2>/out/said
                save; echo c > /proc/sysrq-trigger";
    let mut traps = |line: &str| {
        let outcome = rig.boot(line, look);
        assert_eq!(outcome.end, End::Reset, "{}", outcome.console);
        json(&outcome, "report")["checks"].to_string()
    };
    let one = traps(&format!("{line},sched nr_cpus=1"));
    assert!(!one.contains("there can be"), "{one}");
    let two = traps(line);
    let told = "boot_mapped: there can be 2 CPUs, and 1 when the doctor last looked";
    assert!(two.contains(told), "{two}");
    assert!(
        two.contains("boot_mapped: persistent, 0 events of the boot before"),
        "{two}"
    );
}

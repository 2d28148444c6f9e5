//! The kernel's own persistent instances, harvested by `outlive boot` on machines that panic.
//!
//! What outlive shows of a generation is compared with what the kernel itself showed of the previous boot
//! before anything was harvested, line by line. Left aside: a task's name, which ours knows and the kernel
//! of the next boot does not, and pointers, which the kernel hides behind a hash.
#![allow(missing_docs, reason = "tests")]

use outlive_vm::{Boot, Disk, End, Kernel, Machine, Outcome};
use serde_json::Value;

/// What every script can say.
///
/// `start` runs the recorder and waits until it has said that the kernel records; `die STEP` lets it be
/// killed at a step; `work` and `fill` make events, and `hush` or `crash` says last which work there was, on
/// the first CPU: of the others 7.3.4 keeps what an earlier boot left, and then gives up what came behind;
/// `look` saves what there is of generations.
const FUNCTIONS: &str = "\
mkdir -p /state /out
mount -t ext4 /dev/vda /state || echo no disk > /dev/console
export OUTLIVE_STATE=/state/outlive
I=/sys/kernel/tracing/instances
start() {
  outlive boot ${line:+\"$line\"} > /out/log.$1 2>&1 &
  recorder=$!
  while kill -0 $recorder && ! grep -q 'the kernel records' /out/log.$1; do sleep 0.1; done
  cat /out/log.$1 > /dev/console
}
stop() { kill $recorder; wait $recorder; echo $? > /out/exit.$1; }
die() {
  OUTLIVE_FAILPOINT=$1 outlive boot \"$line\" > /out/die.$1 2>&1
  echo \"$1 $?\" >> /out/died
}
work() {
  workers=
  for i in 1 2 3 4 5 6 7 8; do ls -R /sys/kernel/tracing/options > /dev/null & workers=\"$workers $!\"; cat /proc/self/stat > /dev/null; sleep 0.05; done
  wait $workers
  worked=$1
}
fill() {
  i=0
  while [ $i -lt 9000 ]; do echo \"marker $i of a loop that fills sub-buffers\" > $I/boot_mapped/trace_marker; i=$((i+1)); done
}
kernel_says() {
  cat $I/$1/trace > /out/kernel.trace
  for cpu in 0 1; do cat $I/$1/per_cpu/cpu$cpu/stats > /out/kernel.stats$cpu; done
}
look() {
  outlive ls > /out/ls; outlive ls --json > /out/ls.json
  outlive show backup > /out/show 2> /out/show.err
  outlive check backup --json > /out/check.json
  outlive info backup > /out/info
}
mark() { taskset 1 sh -c \"echo worked in boot $worked > $I/boot_mapped/trace_marker\"; }
hush() { mark; worked=; echo 0 > $I/boot_mapped/tracing_on; }
crash() {
  sync; save
  [ -z \"$worked\" ] || mark
  echo c > /proc/sysrq-trigger
}
";

/// A machine, and a disk that has the state folder.
struct Rig {
    machine: Machine,
    disk: Disk,
    cmdline: String,
    /// The line that outlive is given.
    line: String,
    has_kaslr: bool,
}

impl Rig {
    /// `None` where the programs for it are missing.
    fn new(kernel: &str, cmdline: &str, line: &str) -> Option<Self> {
        if !outlive_vm::can_run("boot_instance") {
            return None;
        }
        let disk = Disk::new(512).unwrap();
        let machine = Machine::new(Kernel::pinned(kernel).unwrap(), 2, 512).unwrap();
        Some(Self {
            machine,
            disk,
            cmdline: cmdline.to_owned(),
            line: line.to_owned(),
            has_kaslr: false,
        })
    }

    fn boot(&mut self, script: &str) -> Outcome {
        let boot = Boot::new(&self.cmdline)
            .program("outlive", outlive_vm::outlive().unwrap())
            .module("virtio_blk")
            .qemu(self.disk.drive())
            .script(&format!("line='{}'", self.line))
            .script(FUNCTIONS)
            .script(script);
        let boot = match self.has_kaslr {
            true => boot.with_kaslr(),
            false => boot,
        };
        self.machine.boot(&boot).unwrap()
    }
}

/// The lines of a text that are about events, without what is left aside.
fn events(text: &str) -> Vec<String> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines.map(without_task_and_pointers).collect()
}

fn without_task_and_pointers(line: &str) -> String {
    let line = match line.find('[') {
        Some(at) if !line.starts_with("CPU:") => &line[at..],
        _ => line,
    };
    ["work struct ", "work struct=", "worker="].iter().fold(
        line.to_owned(),
        |line, name| match line.split_once(name) {
            Some((before, behind)) if behind.len() >= 16 => {
                format!("{before}{name}POINTER{}", &behind[16..])
            }
            _ => line,
        },
    )
}

/// The generation that was looked at has what the kernel said, line by line, and nothing else.
fn assert_is_what_the_kernel_said(outcome: &Outcome) {
    let log = |name: &str| outcome.text(name).unwrap_or_default();
    let context = || format!("{}\n{}\n{}", log("log.1"), log("show.err"), log("info"));
    let kernel = events(&outcome.text("kernel.trace").unwrap());
    let ours = events(&outcome.text("show").unwrap());
    for (number, (ours, kernel)) in ours.iter().zip(&kernel).enumerate() {
        assert_eq!(ours, kernel, "event {number}\n{}", context());
    }
    assert_eq!(ours.len(), kernel.len(), "{}", context());
    assert!(kernel.len() > 500, "{} events are few", kernel.len());
    let check: Value = serde_json::from_str(&outcome.text("check.json").unwrap()).unwrap();
    assert_eq!(check["outcome"], "whole", "{check}");
    assert_eq!(check["verdict"], "host-rebooted", "{check}");
    for cpu in 0..2 {
        let stats = outcome.text(&format!("kernel.stats{cpu}")).unwrap();
        let entries = stats.lines().next().unwrap();
        let ours = format!("entries: {}", check["cpus"][cpu]["entries"]);
        assert_eq!(ours, entries, "CPU {cpu}");
    }
}

/// Takes what the kernel said in one boot for what it said in another.
fn take_kernels_word(from: &Outcome, to: &Outcome) {
    for name in ["kernel.trace", "kernel.stats0", "kernel.stats1"] {
        std::fs::copy(from.results().join(name), to.results().join(name)).unwrap();
    }
}

fn generations(outcome: &Outcome) -> Vec<String> {
    let list: Value = serde_json::from_str(&outcome.text("ls.json").unwrap()).unwrap();
    let names = list.as_array().unwrap().iter();
    let names = names.map(|row| row["name"].as_str().unwrap().to_owned());
    names.filter(|name| name.contains('/')).collect()
}

/// The kernel starts the events itself, and makes a backup before.
const BACKED_UP: &str = "reserve_mem=1M:2M:trace trace_instance=boot_mapped^@trace,sched \
                         trace_instance=backup=boot_mapped";
/// The kernel only has the instance, and outlive starts the events.
const QUIET: &str = "reserve_mem=1M:2M:trace trace_instance=boot_mapped^traceoff@trace";

/// What the guest saved of a `die`, step by step: each was killed.
fn assert_killed_at(outcome: &Outcome, steps: &str) {
    let killed: String = steps
        .split_whitespace()
        .map(|step| format!("{step} 137\n"))
        .collect();
    assert_eq!(outcome.text("died").unwrap(), killed);
}

fn panicked(outcome: &Outcome) {
    let told = outcome.text("log.1").unwrap_or_default();
    assert_eq!(outcome.end, End::Reset, "{told}\n{}", outcome.console);
}

/// The steps of a harvest that consumes, in order. Each start behind a killed one comes further.
const CONSUMING_STEPS: &str = "harvest-saved harvest-named harvest-read harvest-read harvest-batch \
                               harvest-consumed harvest-region harvest-kept kernel-harvested";

#[test]
fn backup_of_7_3_is_kept_whole_however_often_the_harvest_is_killed() {
    let Some(mut rig) = Rig::new("7.3.4", BACKED_UP, BACKED_UP) else {
        return;
    };
    panicked(&rig.boot("start 1; work 1; crash"));
    let second = rig.boot(&format!(
        "kernel_says backup
         for step in {CONSUMING_STEPS}; do die $step; done
         start 1; ls $I > /out/instances; look; stop 1; work 2; crash"
    ));
    panicked(&second);
    assert_killed_at(&second, CONSUMING_STEPS);
    assert_is_what_the_kernel_said(&second);
    assert!(second.text("show").unwrap().contains("worked in boot 1"));
    assert_eq!(second.text("instances").unwrap(), "boot_mapped\n");
    assert_eq!(second.text("exit.1").unwrap(), "0\n");
    assert_eq!(
        generations(&second).len(),
        1,
        "{}",
        second.text("ls").unwrap()
    );

    // The machine goes down in the midst of it: the rest is gone with the kernel's memory, but not its
    // text. What was recorded meanwhile is a generation of its own.
    let third = rig.boot("kernel_says backup; die harvest-batch; work 3; crash");
    panicked(&third);
    let fourth = rig.boot(
        "kernel_says backup; start 1; look
         cp /state/outlive/generations/boot_mapped/*/kernel/trace /out/rest; stop 1",
    );
    assert_is_what_the_kernel_said(&fourth);
    assert!(fourth.text("show").unwrap().contains("worked in boot 3"));
    assert_eq!(
        generations(&fourth).len(),
        3,
        "{}",
        fourth.text("ls").unwrap()
    );
    assert_eq!(
        events(&fourth.text("rest").unwrap()),
        events(&third.text("kernel.trace").unwrap())
    );
    let log = fourth.text("log.1").unwrap();
    assert!(log.contains("were lost while they were read"), "{log}");
}

/// The kernel's own line is taken where none is given.
#[test]
fn backup_of_7_2_is_kept_by_the_kernels_own_line() {
    let Some(mut rig) = Rig::new("7.2.13", BACKED_UP, "") else {
        return;
    };
    panicked(&rig.boot("start 1; work 1; crash"));
    let second = rig.boot("kernel_says backup; start 1; look; stop 1");
    assert_is_what_the_kernel_said(&second);
    let log = second.text("log.1").unwrap();
    assert!(log.contains("--> /proc/cmdline"), "{log}");
    assert_eq!(
        generations(&second).len(),
        1,
        "{}",
        second.text("ls").unwrap()
    );
}

/// A reader consumed before the crash, so that the sub-buffers' numbers are not their order.
#[test]
fn instance_of_6_18_is_copied_without_consuming_before_its_events_start() {
    let line = "reserve_mem=1M:2M:trace trace_instance=boot_mapped@trace,sched \
                trace_instance=backup=boot_mapped";
    let Some(mut rig) = Rig::new("6.18.15", QUIET, line) else {
        return;
    };
    panicked(&rig.boot(
        "start 1; fill
         dd if=$I/boot_mapped/trace_pipe of=/dev/null bs=4096 count=100 2> /dev/null
         work 1; crash",
    ));
    let steps = "tail-allocated tail-written harvest-mapped kernel-harvested kernel-noted";
    let second = rig.boot(&format!(
        "kernel_says boot_mapped
         for step in {steps}; do die $step; done
         cat $I/boot_mapped/trace > /out/kernel.after
         start 1; look; work 2; stop 1; crash"
    ));
    panicked(&second);
    assert_killed_at(&second, steps);
    assert_is_what_the_kernel_said(&second);
    assert_eq!(
        events(&second.text("kernel.after").unwrap()),
        events(&second.text("kernel.trace").unwrap())
    );
    assert_eq!(
        generations(&second).len(),
        1,
        "{}",
        second.text("ls").unwrap()
    );
    let third = rig.boot("kernel_says boot_mapped; start 1; look; stop 1");
    assert_is_what_the_kernel_said(&third);
    assert!(third.text("show").unwrap().contains("worked in boot 2"));
    assert_eq!(
        generations(&third).len(),
        2,
        "{}",
        third.text("ls").unwrap()
    );
}

/// 6.12 has neither a backup nor a mapping. Its memory still has what was not read when the machine goes
/// down in the midst of a harvest.
#[test]
fn instance_of_6_12_is_kept_over_kills_and_a_panic_in_the_midst_of_the_harvest() {
    let line = "reserve_mem=1M:2M:trace trace_instance=boot_mapped@trace,sched \
                trace_instance=backup=boot_mapped";
    let Some(mut rig) = Rig::new("6.12.107", QUIET, line) else {
        return;
    };
    panicked(&rig.boot("start 1; fill; work 1; crash"));
    let second = rig.boot(
        "kernel_says boot_mapped
         for step in harvest-saved harvest-read harvest-batch; do die $step; done; crash",
    );
    panicked(&second);
    let third = rig.boot("start 1; look; work 3; stop 1; crash");
    panicked(&third);
    take_kernels_word(&second, &third);
    assert_is_what_the_kernel_said(&third);
    let fourth = rig.boot("kernel_says boot_mapped; start 1; look; stop 1");
    assert_is_what_the_kernel_said(&fourth);
    assert!(fourth.text("show").unwrap().contains("worked in boot 3"));
    assert_eq!(
        generations(&fourth).len(),
        2,
        "{}",
        fourth.text("ls").unwrap()
    );
}

/// By address, where the kernel lets nobody map it but `/dev/mem` has it.
const BY_ADDRESS: &str = "memmap=2M$0x10000000 trace_instance=boot_mapped^traceoff@0x10000000:2M";
const BY_ADDRESS_LINE: &str = "trace_instance=boot_mapped@0x10000000:2M,sched \
                               trace_instance=backup=boot_mapped";

/// A page of ordinary memory, which the kernel lets nobody read (CONFIG_STRICT_DEVMEM), and a
/// `/proc/iomem` that calls it set aside: so outlive comes to ask the kernel for it.
const REFUSED: &str = "\
echo '01000000-010fffff : Reserved' > /tmp/iomem
mount --bind /tmp/iomem /proc/iomem
outlive --state /refused boot --area trace=mem:0x1000000 \
  'reserve_mem=1M:4096:trace trace_instance=x@trace,sched' 2> /out/refused
echo exit $? >> /out/refused";

/// The oldest kernel; with `OUTLIVE_ADDRESS=all` those of all years.
#[test]
fn instance_by_address_is_copied_without_consuming_although_the_kernel_moved() {
    let newer = match std::env::var_os("OUTLIVE_ADDRESS") {
        Some(which) if which == "all" => &["6.18.15", "7.2.13", "7.3.4"][..],
        _ => &[],
    };
    for kernel in ["6.12.107"].iter().chain(newer) {
        copied_by_address(kernel);
    }
}

/// With the kernel elsewhere at each boot: the kernel's own word is that of the boot that recorded. Nothing is
/// consumed until the generation is durable.
fn copied_by_address(kernel: &str) {
    let Some(mut rig) = Rig::new(kernel, BY_ADDRESS, BY_ADDRESS_LINE) else {
        return;
    };
    rig.has_kaslr = true;
    let first = rig.boot("start 1; work 1; hush; kernel_says boot_mapped; crash");
    panicked(&first);
    let steps = "tail-written harvest-mapped";
    let second = rig.boot(&format!(
        "counted() {{ grep -h '^entries' $I/boot_mapped/per_cpu/cpu*/stats; }}
         counted > /out/counted
         for step in {steps}; do die $step; counted > /out/counted.after; done
         start 1; look; stop 1
         {REFUSED}"
    ));
    assert_killed_at(&second, steps);
    assert_eq!(
        second.text("counted.after").unwrap(),
        second.text("counted").unwrap()
    );
    take_kernels_word(&first, &second);
    assert_is_what_the_kernel_said(&second);
    assert!(second.text("show").unwrap().contains("worked in boot 1"));
    assert_eq!(generations(&second).len(), 1);
    let refused = second.text("refused").unwrap();
    let why =
        "/dev/mem: Operation not permitted (os error 1); the kernel lets nobody at this address";
    assert!(
        refused.contains(why) && refused.ends_with("exit 1\n"),
        "{refused}"
    );
}

/// Its events have other numbers there: the recording's own formats tell what they are. Where there is no
/// `/dev/mem`, they are consumed.
#[test]
fn instance_of_7_3_is_kept_by_7_2() {
    let Some(mut rig) = Rig::new("7.3.4", BY_ADDRESS, BY_ADDRESS_LINE) else {
        return;
    };
    let first = rig.boot("start 1; work 1; hush; kernel_says boot_mapped; crash");
    panicked(&first);
    rig.machine.set_kernel(Kernel::pinned("7.2.13").unwrap());
    let second = rig.boot("rm /dev/mem; start 1; look; stop 1");
    let log = second.text("log.1").unwrap();
    assert!(
        log.contains("consumed from the kernel, since its memory cannot be copied"),
        "{log}"
    );
    take_kernels_word(&first, &second);
    assert_is_what_the_kernel_said(&second);
    assert!(second.text("show").unwrap().contains("worked in boot 1"));
    assert_eq!(generations(&second).len(), 1);
}

/// What outlive recorded into memory that was set aside, with its extension carved from the end: a kernel
/// that is told what `outlive info` says attaches it and shows the same.
#[test]
fn kernel_attaches_what_outlive_boot_recorded() {
    let memory = "memmap=4M$0x10000000";
    let line = "trace_instance=boot_mapped@0x10000000:4M,sched trace_instance=backup=boot_mapped";
    let Some(mut rig) = Rig::new("7.3.4", memory, line) else {
        return;
    };
    let first = rig.boot(
        "outlive boot \"$line\" 2> /tmp/log & recorder=$!
         until grep -q ': recording' /tmp/log; do sleep 0.1; done
         for i in 1 2 3 4 5 6 7 8; do ls -R /sys/kernel/tracing/options > /dev/null & sleep 0.1; done
         kill $recorder; wait $recorder
         outlive show boot_mapped > /out/show
         outlive check boot_mapped --json > /out/check.json
         outlive info boot_mapped > /out/info",
    );
    let info = first.text("info").unwrap();
    let place = info
        .lines()
        .find_map(|line| line.split_once("attaches the ring as "));
    let (_, place) = place.unwrap_or_else(|| panic!("{info}"));
    rig.cmdline = format!("{memory} trace_instance=ours{place}");
    let second = rig.boot("kernel_says ours; dmesg > /out/dmesg");
    let dmesg = second.text("dmesg").unwrap();
    let attached = dmesg.matches("is from previous boot!").count();
    assert_eq!(attached, 2, "{dmesg}");
    let kernel = events(&second.text("kernel.trace").unwrap());
    let ours = events(&first.text("show").unwrap());
    assert!(ours.len() > 500, "{info}");
    assert_eq!(kernel, ours);
    let check: Value = serde_json::from_str(&first.text("check.json").unwrap()).unwrap();
    for cpu in 0..2 {
        let stats = second.text(&format!("kernel.stats{cpu}")).unwrap();
        let entries = format!("entries: {}\n", check["cpus"][cpu]["entries"]);
        assert!(stats.starts_with(&entries), "{entries}{stats}");
    }
}

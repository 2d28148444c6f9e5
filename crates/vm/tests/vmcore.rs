//! A machine's memory as QEMU dumps it: the region in it is imported and shown as the kernel showed it.
#![allow(missing_docs, reason = "tests")]

use std::path::Path;
use std::process::{Command, Output};

use outlive_vm::{Boot, End, Kernel, Machine};

/// Where the region lies, and how long it is.
const ADDRESS: u64 = 128 << 20;
const KIB: u64 = 512;

/// Records, keeps what is needed to decode the region and what the kernel shows of it, and waits for the end.
const SCRIPT: &str = "\
cd /sys/kernel/tracing
for system in sched ftrace; do for event in events/$system/*/; do
  mkdir -p /out/$event; cp $event/format $event/id /out/$event 2>/dev/null; done; done
cp events/header_page events/header_event /out/events/
grep -E ' (tracing_mark_write|_text)$' /proc/kallsyms > /out/kallsyms
cd instances/boot_mapped
echo sched > set_event
echo 1 > tracing_on
for cpu in 0 1; do
  taskset -c $cpu sh -c 'i=0; while [ $i -lt 80 ]; do usleep 1; i=$((i+1)); done'
  echo a marker behind CPU $cpu > trace_marker
done
echo 0 > tracing_on
cat trace > /out/trace
save
echo to be dumped > /dev/console
while :; do sleep 1; done";

fn outlive(args: &[&str]) -> Output {
    let program = outlive_vm::outlive().unwrap();
    Command::new(program).args(args).output().unwrap()
}

/// The events without what only the next boot lacks: names of tasks.
fn events(text: &str) -> Vec<&str> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines
        .filter_map(|line| line.find(" [").map(|at| &line[at..]))
        .collect()
}

#[test]
fn a_region_in_a_dump_of_a_machine_is_imported_and_shown_as_the_kernel_showed_it() {
    if !outlive_vm::can_run("vmcore") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let [core, flattened, state] = ["core", "flattened", "state"].map(path);
    let mut machine = Machine::new(Kernel::pinned("7.3").unwrap(), 2, 256).unwrap();
    let line = format!(
        "memmap={KIB}K${ADDRESS:#x} trace_instance=boot_mapped^traceoff@{ADDRESS:#x}:{KIB}K"
    );
    let boot = Boot::new(&line)
        .script(SCRIPT)
        .reset_at("to be dumped")
        .dump("elf", &core)
        .dump("kdump-zlib", &flattened);
    let outcome = machine.boot(&boot).unwrap();
    assert_eq!(outcome.end, End::ResetFromOutside);

    let imported = outlive(&["import", &core, "--name", "it", "--state", &state]);
    let stderr = String::from_utf8_lossy(&imported.stderr);
    assert_eq!(imported.status.code(), Some(0), "{stderr}");
    let said = format!("it/1: a region of a kernel at {ADDRESS:#x}, 2 CPUs");
    assert!(stderr.contains(&said), "{stderr}");
    let kept = std::fs::read(Path::new(&state).join("generations/it/00000001/region")).unwrap();
    assert!(kept == machine.read(ADDRESS, (KIB << 10) as usize).unwrap());

    let formats = outcome.results().join("events");
    let formats = formats.to_str().unwrap();
    let shown = outlive(&["show", "it", "--formats", formats, "--state", &state]);
    assert!(shown.status.success(), "{shown:?}");
    let shown = String::from_utf8(shown.stdout).unwrap();
    let kernels = outcome.text("trace").unwrap();
    assert!(kernels.contains("a marker behind CPU 1") && events(&kernels).len() > 300);
    assert_eq!(events(&shown), events(&kernels));

    let refused = outlive(&["import", &flattened, "--state", &state]);
    let stderr = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("makedumpfile -R"), "{stderr}");
}

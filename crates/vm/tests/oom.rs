//! `outlive run` on a machine whose control groups are those of version 2 alone: it tells the OOM kills of
//! its own group, and not those of others.
#![allow(missing_docs, reason = "tests")]

use outlive_vm::{Boot, End, Kernel, Machine};
use serde_json::Value;

/// Two groups with little memory. The program of the one has somebody killed in the other, and then
/// itself eats what it gets.
const SCRIPT: &str = "\
groups=/sys/fs/cgroup
mount -t cgroup2 cgroup $groups 2> /dev/null
echo +memory > $groups/cgroup.subtree_control
mkdir $groups/own $groups/other
echo 64M > $groups/own/memory.max
echo 16M > $groups/other/memory.max
eat='exec dd if=/dev/zero of=/dev/null bs=200M count=1'
sh -c \"echo \\$\\$ > $groups/own/cgroup.procs
  exec outlive --state /tmp/state run --name eater -- sh -c \\\"
    sh -c 'echo \\\\\\$\\\\\\$ > $groups/other/cgroup.procs; $eat'; $eat\\\"\" > /out/said 2>&1
echo $? > /out/code
cat $groups/other/memory.events > /out/other
outlive --state /tmp/state last eater --json > /out/last
outlive --state /tmp/state last eater > /out/text
save; poweroff -f";

#[test]
fn the_oom_kills_of_its_own_control_group_of_version_2_are_told() {
    if !outlive_vm::can_run("oom") {
        return;
    }
    let kernel = Kernel::pinned("7.3.4").unwrap();
    let mut machine = Machine::new(kernel, 1, 512).unwrap();
    let boot = Boot::new("")
        .program("outlive", outlive_vm::outlive().unwrap())
        .script(SCRIPT);
    let outcome = machine.boot(&boot).unwrap();
    assert_eq!(outcome.end, End::PowerOff, "{}", outcome.console);
    let (said, text) = (outcome.text("said").unwrap(), outcome.text("text").unwrap());
    let other = outcome.text("other").unwrap();
    assert!(other.contains("oom_kill 1\n"), "{other}\n{said}");
    let last: Value = serde_json::from_slice(&outcome.bytes("last").unwrap()).unwrap();
    assert_eq!(
        last["program_end"]["fields"]["oom_kills"], 1,
        "{said}\n{last}"
    );
    assert!(text.contains("1 killed for want of memory"), "{text}");
    assert_eq!(outcome.text("code").unwrap().trim(), "137", "{said}");
}

//! The machine itself: its ends, its memory, its results.
#![allow(missing_docs, reason = "tests")]

use outlive_vm::{Boot, End, Kernel, Machine};

const ADDRESS: u64 = 0x1000_0000;

fn machine() -> Option<Machine> {
    if !outlive_vm::can_run("machine") {
        return None;
    }
    Some(Machine::new(Kernel::pinned("7.3").unwrap(), 1, 512).unwrap())
}

#[test]
fn memory_outlives_a_panic_and_can_be_read_and_written_between() {
    let Some(mut machine) = machine() else { return };
    let line = "memmap=1M$0x10000000";
    machine.write(ADDRESS, b"before").unwrap();
    let first = Boot::new(line).script(
        "dd if=/dev/mem bs=4096 skip=65536 count=1 of=/out/seen 2>/dev/null
         save
         echo c > /proc/sysrq-trigger",
    );
    let first = machine.boot(&first).unwrap();
    assert_eq!(first.end, End::Reset);
    assert!(first.console.contains("Kernel panic"), "{}", first.console);
    assert_eq!(&first.bytes("seen").unwrap()[..6], b"before");
    assert_eq!(machine.read(ADDRESS, 6).unwrap(), b"before");
    machine.write(ADDRESS, b"behind").unwrap();
    let second = Boot::new(line)
        .script("dd if=/dev/mem bs=4096 skip=65536 count=1 of=/out/seen 2>/dev/null");
    let second = machine.boot(&second).unwrap();
    assert_eq!(second.end, End::PowerOff);
    assert_eq!(&second.bytes("seen").unwrap()[..6], b"behind");
    assert!(machine.read(511 << 20, 2 << 20).is_err());
}

#[test]
fn every_end_of_a_machine_is_told_from_the_others() {
    let Some(mut machine) = machine() else { return };
    let boot = |script| Boot::new("").script(script);
    let end = |machine: &mut Machine, boot: &Boot| machine.boot(boot).unwrap().end;
    assert_eq!(end(&mut machine, &boot("reboot -f")), End::Reset);
    let outside =
        boot("echo now-is-the-time > /dev/console; sleep 1000").reset_at("now-is-the-time");
    assert_eq!(end(&mut machine, &outside), End::ResetFromOutside);
    let watchdog = boot("echo > /dev/watchdog; sleep 1000")
        .module("i6300esb")
        .qemu(["-device", "i6300esb", "-action", "watchdog=reset"]);
    assert_eq!(end(&mut machine, &watchdog), End::Watchdog);
}

#[test]
fn guest_that_does_not_come_back_fails_with_its_console() {
    let Some(mut machine) = machine() else { return };
    let boot = Boot::new("")
        .script("echo the-last-words > /dev/console; sleep 1000")
        .timeout(std::time::Duration::from_secs(40));
    let error = machine.boot(&boot).unwrap_err().to_string();
    assert!(
        error.contains("did not come back") && error.contains("the-last-words"),
        "{error}"
    );
}

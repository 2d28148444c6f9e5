//! outlive on a machine that goes down: started from init, on memory that outlives a reset, with the
//! kernel's own persistent instance beside it as the judge.
#![allow(missing_docs, reason = "tests")]

use outlive_vm::crash::{Death, Kind, Loss, Rig};
use outlive_vm::{End, Kernel, Outcome};
use serde_json::Value;

/// `None` where this machine lacks what is needed.
fn rig(test: &str, kind: Kind) -> Option<Rig> {
    if !outlive_vm::can_run(test) {
        return None;
    }
    let kernel = Kernel::pinned("7.3.4").unwrap();
    Some(Rig::new(kernel, kind, &outlive_vm::outlive().unwrap()).unwrap())
}

fn json(outcome: &Outcome, name: &str) -> Value {
    let text = outcome.text(name).unwrap();
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{name}: {error}: {text}"))
}

/// Outlive records, the machine dies, and boots again: the backup has each event that the kernel's own
/// instance has up to the last one that outlive copied, and every one that was seen to be recorded.
fn survives(test: &str, kind: Kind, death: Death, verdict: &str) {
    let Some(mut rig) = rig(test, kind) else {
        return;
    };
    let first = rig.record("load\nlast_words", death).unwrap();
    assert_eq!(first.end, death.end(), "{}", first.console);
    let reference = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(reference.path(), rig.reference().unwrap()).unwrap();
    let area = (kind == Kind::Physical).then(|| rig.area().unwrap());

    let second = rig.again().unwrap();
    assert_eq!(second.end, End::PowerOff, "{}", second.console);
    let log = second.text("log").unwrap();
    assert_eq!(second.text("check.code").unwrap(), "0\n", "{log}");
    let check = json(&second, "check");
    assert_eq!(check["verdict"], verdict, "{check}\n{log}");
    let shown = second.text("show").unwrap();
    assert!(shown.contains("filename=/tmp/last-words"), "{log}");
    if let Some(area) = area {
        assert!(second.bytes("region").unwrap() == area, "each byte is kept");
    }
    let loss = Loss::between(&second.results().join("region"), reference.path()).unwrap();
    println!("{test}: {loss:?}");
    assert!(loss.between.is_empty(), "{loss:?}");
    assert!(loss.both > 100, "{loss:?}");
    let lines = shown
        .lines()
        .filter(|line| line.contains(": sched_"))
        .count();
    assert_eq!(check["entries"], lines);
}

#[test]
fn physical_memory_survives_a_panic() {
    survives("physical", Kind::Physical, Death::Panic, "host-rebooted");
}

#[test]
fn dax_file_survives_a_reset_from_outside() {
    survives(
        "dax-file",
        Kind::DaxFile,
        Death::ResetFromOutside,
        "host-rebooted",
    );
}

#[test]
fn virtio_pmem_survives_a_watchdog() {
    survives(
        "virtio-pmem",
        Kind::VirtioPmem,
        Death::Watchdog,
        "host-rebooted",
    );
}

#[test]
fn device_dax_survives_a_triple_fault() {
    survives(
        "device-dax",
        Kind::DeviceDax,
        Death::TripleFault,
        "host-rebooted",
    );
}

/// Power is cut, or the kernel panics: only what is on the disk is left. The area was written back every
/// 200 ms, so what was recorded two seconds before the end is there, and nothing is missing in between.
fn survives_on_disk(test: &str, death: Death) {
    let Some(mut rig) = rig(test, Kind::Disk) else {
        return;
    };
    let first = rig.record("load\nlast_words\nwritten_back", death);
    let first = first.unwrap();
    assert_eq!(first.end, death.end(), "{}", first.console);
    let reference = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(reference.path(), rig.reference().unwrap()).unwrap();

    let second = rig.again().unwrap();
    assert_eq!(second.end, End::PowerOff, "{}", second.console);
    let log = second.text("log").unwrap();
    let check = json(&second, "check");
    assert_eq!(check["verdict"], "host-rebooted", "{check}\n{log}");
    let shown = second.text("show").unwrap();
    assert!(shown.contains("filename=/tmp/last-words"), "{check}\n{log}");
    let loss = Loss::between(&second.results().join("region"), reference.path()).unwrap();
    println!("{test}: {loss:?}");
    assert!(loss.between.is_empty(), "{loss:?}");
    assert!(loss.both > 100, "{loss:?}");
}

#[test]
fn disk_file_survives_a_power_cut_up_to_the_last_write_back() {
    survives_on_disk("power-cut", Death::ResetFromOutside);
}

#[test]
fn disk_file_survives_a_panic_up_to_the_last_write_back() {
    survives_on_disk("disk-panic", Death::Panic);
}

#[test]
fn clean_reboot_is_a_clean_exit() {
    survives("reboot", Kind::Physical, Death::Reboot, "clean-exit");
}

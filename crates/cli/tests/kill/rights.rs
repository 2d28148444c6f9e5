//! The rights that the installed service leaves to a recorder.

use std::process::{Command, Stdio};

use crate::harness::{Load, Rig, SCHED};

/// The unit takes away all capabilities but two. A recorder with no more than these, which can get
/// no new ones, records, with the same symbols' addresses.
#[test]
fn recorder_needs_no_more_rights_than_the_unit_gives() {
    let Some(rig) = Rig::new("rights") else {
        return;
    };
    let dry = rig.print(&["install", "--dry-run"]);
    let given = dry
        .lines()
        .find_map(|line| line.strip_prefix("CapabilityBoundingSet="));
    let given: Vec<String> = given
        .unwrap()
        .split(' ')
        .map(|name| format!("+{}", name.to_lowercase().replace("cap_", "")))
        .collect();
    let set = format!("-all,{}", given.join(","));
    let outlive = rig.command(&["boot", SCHED]);
    let log = rig.folder.path().join("rights.log");
    let child = Command::new("setpriv")
        .args([&format!("--bounding-set={set}"), "--no-new-privs"])
        .arg(outlive.get_program())
        .args(outlive.get_args())
        .env_remove("NOTIFY_SOCKET")
        .stdout(Stdio::null())
        .stderr(std::fs::File::create(&log).unwrap())
        .spawn();
    let Ok(child) = child else {
        println!("rights: skipped: no setpriv");
        return;
    };
    let mut recorder = crate::harness::Recorder::of(child, log);
    recorder.wait_for("recording ");
    let status = std::fs::read_to_string(format!("/proc/{}/status", recorder.child.id())).unwrap();
    let bounding = status
        .lines()
        .find(|line| line.starts_with("CapBnd:"))
        .unwrap();
    assert!(bounding.ends_with("0000000400800000"), "{bounding}");
    Load::for_ms(200);
    recorder.stop();
    assert!(rig.print(&["show", "boot_mapped"]).contains("sched_switch"));
}

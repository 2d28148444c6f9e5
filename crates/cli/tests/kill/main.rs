//! A recorder that is killed, and the start after it, on the real kernel: nothing is lost that the
//! host's ring still holds, nothing is invented, and what is lost is counted.
//!
//! Needs root and tracefs; says `skipped` and why otherwise. Each test has a state folder of its
//! own, and touches no tracing that is not its own.
#![allow(missing_docs, unreachable_pub, reason = "tests")]

mod harness;
mod loss;
mod places;
mod rights;
mod steps;
mod variants;

use harness::{Load, Rig, SCHED};

#[test]
fn backup_has_every_line_that_the_kernel_still_has_of_a_killed_run() {
    let Some(rig) = Rig::new("killed") else {
        return;
    };
    let recorder = rig.record(&[SCHED]);
    let load = Load::start();
    std::thread::sleep(std::time::Duration::from_millis(700));
    recorder.kill();
    drop(load);
    let frozen = rig.freeze(&rig.leftover("boot_mapped"));
    assert!(frozen.lines.values().all(|lines| lines.len() > 100));
    let mut second = rig.record(&[SCHED]);
    second.wait_for_collected(&rig);
    assert!(second.said().contains("(crash)"), "{}", second.said());
    frozen.assert_kept(&rig, "backup", &rig.newest("boot_mapped"));
    assert_eq!(rig.hosts().len(), 1, "only that of the second run");
    second.stop();
    assert!(rig.hosts().is_empty());
}

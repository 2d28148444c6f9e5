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

use harness::{Load, Recorder, Rig, SCHED, times_by_cpu, wait_until};

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
    assert_cleared_and_recording(&rig, &second);
    second.stop();
    assert!(rig.hosts().is_empty());
}

/// The live region has nothing of the run before, and new events come in, on each CPU that `backup`
/// has events of.
fn assert_cleared_and_recording(rig: &Rig, recorder: &Recorder) {
    let frozen = times_by_cpu(&rig.print(&["show", "backup", "--json"]));
    assert!(!frozen.is_empty());
    let _load = Load::start();
    let live_with = |is_there: &dyn Fn(u64, (u64, u64)) -> bool| {
        wait_until(
            || {
                let live = times_by_cpu(&rig.print(&["show", "boot_mapped", "--json"]));
                let is_there = |cpu: &u64| live.get(cpu).is_some_and(|&at| is_there(*cpu, at));
                frozen.keys().all(is_there).then_some(live)
            },
            || recorder.said(),
        )
    };
    let live = live_with(&|_, _| true);
    for (cpu, (first, _)) in &live {
        let last_before = frozen.get(cpu).map_or(0, |(_, last)| *last);
        assert!(
            *first > last_before,
            "CPU {cpu}: {first} is not after {last_before}"
        );
    }
    live_with(&|cpu, (_, last)| last > live[&cpu].1);
}

//! The start itself is killed: at each of its steps, and at random instants. The run before it is
//! all there after the next start, once.

use std::os::unix::process::ExitStatusExt;
use std::time::Duration;

use outlive_kernel::COLLECT_STEPS;
use outlive_trace::chores::SPARE_STEPS;
use outlive_trace::generation::{COPY_LATER_STEPS, COPY_STEPS, ROTATE_STEPS, SET_ASIDE_STEPS};
use outlive_trace::start::{LAY_OUT_STEPS, START_STEPS};
use outlive_trace::tail::TAIL_STEPS;
use outlive_trace::{Generation, failpoint};

use crate::harness::{Frozen, Load, Rig, wait_until, written};

/// The steps of the command itself.
const BOOT_STEPS: [&str; 3] = ["boot-laid-out", "boot-prepared", "boot-recording"];
/// A small region and few events, so that many rounds take little time.
const LINE: &str = "reserve_mem=1M:4096:trace trace_instance=boot_mapped@trace,sched_process_fork,\
                    sched_process_exit,sched_process_exec trace_instance=backup=boot_mapped";

/// Events that a run has at least, for its rounds to mean something.
const EVENTS_MIN: u64 = 20;

/// A run that is killed while it records, and what the kernel has of it.
fn first_run(rig: &Rig, args: &[&str]) -> (String, Frozen) {
    let recorder = rig.record(args);
    let host = rig.leftover("boot_mapped");
    let load = Load::start();
    std::thread::sleep(Duration::from_millis(60));
    wait_until(
        || (written(&rig.host_folder(&host)) >= EVENTS_MIN).then_some(()),
        || recorder.said(),
    );
    recorder.kill();
    drop(load);
    let run = format!("{:032x}", host.run().0);
    let frozen = rig.freeze(&host);
    let lines: usize = frozen.lines.values().map(Vec::len).sum();
    assert!(lines as u64 >= EVENTS_MIN, "{lines} lines");
    (run, frozen)
}

/// The one generation that is of a run.
fn generation_of(rig: &Rig, run: &str) -> Generation {
    let mut found = rig.generations("boot_mapped").into_iter().filter(|kept| {
        kept.meta()
            .is_some_and(|meta| meta.run_id.as_deref() == Some(run))
    });
    let generation = found.next().expect("the run is kept");
    assert!(found.next().is_none(), "the run is kept once");
    generation
}

/// The run is there once and all, and nothing else that has its events.
fn assert_run_is_there(rig: &Rig, run: &str, frozen: &Frozen) {
    let generation = generation_of(rig, run);
    let name = format!("boot_mapped/{}", generation.seq());
    frozen.assert_kept(rig, &name, &generation);
    assert!(!generation.is_collecting());
    for other in rig.generations("boot_mapped") {
        let run_of = |kept: &Generation| kept.meta().and_then(|meta| meta.run_id.clone());
        assert!(run_of(&other).is_some(), "{} has no run", other.seq());
    }
}

/// Run 1 records and is killed, run 2 is killed at `step`, run 3 starts.
fn kill_at(step: &str, args: &[&str]) {
    let Some(rig) = Rig::new(step) else {
        return;
    };
    let (run, frozen) = first_run(&rig, args);
    let mut second = rig.boot_with(args, |command| {
        command.env(failpoint::VARIABLE, step);
    });
    let status = second.wait();
    assert_eq!(
        status.signal(),
        Some(9),
        "{step} not reached:\n{}",
        second.said()
    );
    let mut third = rig.record(args);
    third.wait_for_collected(&rig);
    assert_run_is_there(&rig, &run, &frozen);
    third.stop();
    assert!(rig.hosts().is_empty(), "{step}");
    for kept in rig.generations("boot_mapped") {
        assert!(!kept.region_path().is_symlink(), "{step}: {kept} is copied");
    }
}

#[test]
fn start_killed_at_any_of_its_steps_loses_nothing_and_doubles_nothing() {
    let steps = START_STEPS
        .iter()
        .chain(&ROTATE_STEPS)
        .chain(&TAIL_STEPS)
        .chain(&COLLECT_STEPS)
        .chain(&BOOT_STEPS);
    for step in steps {
        kill_at(step, &[LINE]);
    }
}

#[test]
fn start_killed_while_it_sets_a_region_aside_or_copies_it_later_loses_and_doubles_nothing() {
    let steps = SET_ASIDE_STEPS.iter().chain(&COPY_LATER_STEPS);
    for step in steps.chain(&SPARE_STEPS) {
        kill_at(step, &[LINE, "--area", "trace=tmpfs"]);
    }
}

/// A file of another file system is copied at once, as is what lies on a tmpfs without room for two.
#[test]
fn start_killed_while_it_copies_a_region_loses_nothing_and_doubles_nothing() {
    let Ok(folder) = tempfile::tempdir_in("/dev/shm") else {
        println!("skipped: no /dev/shm");
        return;
    };
    for step in COPY_STEPS.iter().chain(&LAY_OUT_STEPS) {
        let area = format!("trace=file:{}/{step}", folder.path().display());
        kill_at(step, &[LINE, "--area", &area]);
    }
}

/// Not at a step that somebody thought of: whenever it happens to be.
#[test]
fn start_killed_at_random_instants_loses_nothing_and_doubles_nothing() {
    let keep = [LINE, "--keep", "100"];
    for args in [&keep[..], &[&keep[..], &["--area", "trace=tmpfs"]].concat()] {
        let Some(rig) = Rig::new("random") else {
            return;
        };
        let (run, frozen) = first_run(&rig, args);
        for round in 0..20 {
            let second = rig.boot(args);
            std::thread::sleep(Duration::from_micros(round * round * 750));
            second.kill();
        }
        let mut last = rig.record(args);
        last.wait_for_collected(&rig);
        assert_run_is_there(&rig, &run, &frozen);
        last.stop();
        assert!(rig.hosts().is_empty());
    }
}

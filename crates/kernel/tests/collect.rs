//! What a dead run left in the host's rings is collected, whenever the collector is told to end.
#![allow(missing_docs, unreachable_pub, dead_code, reason = "tests")]

mod common;

use std::cell::Cell;

use common::{Load, OwnState, enable_sched, tracefs};
use outlive_kernel::{Collector, Error, RunId};
use outlive_trace::generation::list;
use outlive_trace::{Generation, StateDir};

#[test]
fn collector_that_is_told_to_end_leaves_an_instance_whole_for_the_next() {
    let Some((tracefs, _one_at_a_time)) = tracefs("collect") else {
        return;
    };
    let hosts = OwnState::new(&tracefs);
    let instance = hosts.create("x");
    enable_sched(&tracefs, &instance);
    {
        let _load = Load::start();
        let cpu = instance.cpus().unwrap()[0];
        let stats = instance.stats(cpu).unwrap();
        while stats.read().unwrap().entries < 100 {}
    }
    instance.set_tracing_on(false).unwrap();
    let cpus = instance.cpus().unwrap();
    let entries = cpus.iter().map(|&cpu| {
        let stats = instance.stats(cpu).unwrap().read().unwrap();
        stats.entries
    });
    let entries: u64 = entries.sum();
    let folder = tempfile::tempdir().unwrap();
    let state = StateDir::open(&folder.path().join("state")).unwrap();
    let lock = state.try_lock_exclusive().unwrap();
    let collector = Collector {
        tracefs: &tracefs,
        instances: &hosts.instances,
        state: &state,
        lock: &lock,
        run: RunId(2),
        sequence: 1,
        ordinary: &[],
        left: &[],
    };
    let kept = || list(&state).unwrap();
    // Before the instance, and before each of its CPUs.
    for ends_at in 0..=cpus.len() {
        let asked = Cell::new(0);
        let is_ended = || asked.replace(asked.get() + 1) == ends_at;
        let mut told = Vec::new();
        let tell = |_: &str, collected: Result<_, Error>| told.push(collected.map(|_| ()));
        collector.collect(&is_ended, tell).unwrap();
        match ends_at {
            0 => assert!(told.is_empty()),
            _ => assert!(matches!(told[..], [Err(Error::Ended)]), "{told:?}"),
        }
        assert!(kept().is_empty());
        assert_eq!(hosts.instances.list().unwrap().len(), 1);
    }
    let mut events = 0;
    collector
        .collect(&|| false, |_, collected| events = collected.unwrap().events)
        .unwrap();
    assert_eq!(events, entries);
    assert!(hosts.instances.list().unwrap().is_empty());
    assert!(!kept().iter().any(Generation::is_collecting) && kept().len() == 1);
}

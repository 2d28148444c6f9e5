//! Following real rings under load, against what the kernel itself says about them.
#![allow(missing_docs, unreachable_pub, dead_code, reason = "tests")]

mod common;

use std::collections::HashMap;
use std::time::{Duration, Instant};

use common::collect::Collected;
use common::{Load, OwnState, enable_sched, tracefs};
use outlive_kernel::{Access, CpuFollower, Drained, Instance, InstanceSource, drain};

/// Follows an instance under load, stops it, and compares everything with the kernel.
fn follow_and_compare(
    test: &str,
    kib: u64,
    access: Access,
    seconds: f64,
    pause: Duration,
) -> Option<Followed> {
    let (tracefs, _one_at_a_time) = tracefs(test)?;
    let state = OwnState::new(&tracefs);
    let instance = state.create("follow");
    instance.set_buffer_size_kb(kib).unwrap();
    let mut source = InstanceSource::open(instance.clone(), access).unwrap();
    assert_eq!(source.is_consuming(), access == Access::Read);
    let mut sink = Collected::default();
    enable_sched(&tracefs, &instance);
    let load = Load::start();
    let (mut laps, mut polls) = (0, 0);
    let end = Instant::now() + Duration::from_secs_f64(seconds);
    while Instant::now() < end {
        laps += source.poll(&mut sink).unwrap().sum.laps;
        polls += 1;
        std::thread::sleep(pause);
    }
    instance.set_tracing_on(false).unwrap();
    drop(load);
    while !source.poll(&mut sink).unwrap().sum.is_caught_up {}
    let before: Vec<_> = source.counts().collect();
    let counts = source.finish(&mut sink).unwrap();
    for (cpu, count) in &counts {
        let stats = instance.stats(*cpu).unwrap().read().unwrap();
        let count = count.expect("nobody else reads this instance");
        let unknown = sink.unknown(*cpu);
        println!(
            "{test}: cpu {cpu}: {count:?} {stats:?}, {polls} polls, {laps} laps, {unknown} unknown"
        );
        assert_eq!(count.delivered + count.lost, stats.written(), "cpu {cpu}");
        assert_eq!(
            sink.lost(*cpu),
            count.lost,
            "cpu {cpu}: what the sink was told"
        );
        let found = before.iter().find(|(id, _)| id == cpu).unwrap().1;
        assert!(
            access == Access::Read || sink.unknown(*cpu) > 0 || found == count,
            "cpu {cpu}: {found:?} before the kernel's counters settled it"
        );
    }
    drop(source);
    Some(Followed {
        state,
        instance,
        sink,
        laps,
    })
}

struct Followed {
    state: OwnState,
    instance: Instance,
    sink: Collected,
    laps: u64,
}

/// Every sub-buffer that the kernel still has is, byte for byte, one that was followed. Returns how
/// many were compared.
fn compare_with_ring(followed: &Followed, drained: &Drained, ring: &Collected) -> usize {
    let mut compared = 0;
    for cpu in drained.cpus.iter().map(|of| of.cpu) {
        let pages = followed.sink.pages(cpu);
        let rebuilt: HashMap<u64, &[u8]> =
            pages.iter().map(|(ts, data)| (*ts, &data[..])).collect();
        assert_eq!(
            rebuilt.len(),
            pages.len(),
            "cpu {cpu}: each sub-buffer is delivered once"
        );
        for (time_stamp, data) in ring.pages(cpu) {
            let Some(page) = rebuilt.get(time_stamp) else {
                let list = |pages: &[common::collect::Page]| {
                    pages
                        .iter()
                        .rev()
                        .take(12)
                        .map(|p| (p.0, p.1.len()))
                        .collect::<Vec<_>>()
                };
                panic!(
                    "cpu {cpu}: sub-buffer of {time_stamp} is missing: {:?} {:?}",
                    list(pages),
                    list(ring.pages(cpu))
                );
            };
            assert_eq!(*page, &data[..], "cpu {cpu}, sub-buffer of {time_stamp}");
            compared += 1;
        }
    }
    compared
}

#[test]
fn big_ring_is_followed_without_loss_and_byte_for_byte() {
    let pause = Duration::from_millis(10);
    let Some(followed) = follow_and_compare("big_ring", 16 << 10, Access::MapOrRead, 3.0, pause)
    else {
        return;
    };
    let mut ring = Collected::default();
    let drained = drain(&followed.instance, &mut ring).unwrap();
    assert!(compare_with_ring(&followed, &drained, &ring) > 100);
    for of in &drained.cpus {
        assert_eq!(of.events, of.stats.entries);
        assert_eq!(followed.sink.lost(of.cpu), 0);
        assert_eq!(followed.sink.unknown(of.cpu), 0);
    }
    assert_eq!(drained.clock, "local");
    let name = followed.instance.name().clone();
    followed.instance.clone().remove().unwrap();
    assert!(!followed.state.instances.list().unwrap().contains(&name));
}

#[test]
fn tiny_ring_and_slow_follower_lose_exactly_what_the_kernel_counts() {
    let test = "tiny_ring";
    let pause = Duration::from_millis(25);
    let Some(followed) = follow_and_compare(test, 28, Access::MapOrRead, 4.0, pause) else {
        return;
    };
    assert!(
        followed.laps > 10,
        "the load laps the follower often: {}",
        followed.laps
    );
    let mut ring = Collected::default();
    let drained = drain(&followed.instance, &mut ring).unwrap();
    compare_with_ring(&followed, &drained, &ring);
    for of in &drained.cpus {
        assert_eq!(of.events, of.stats.entries);
        assert!(followed.sink.lost(of.cpu) > 0);
    }
}

#[test]
fn tiny_ring_and_eager_follower_meet_the_writer_all_the_time() {
    let test = "eager";
    let pause = Duration::from_micros(200);
    let Some(followed) = follow_and_compare(test, 8, Access::MapOrRead, 4.0, pause) else {
        return;
    };
    let mut ring = Collected::default();
    let drained = drain(&followed.instance, &mut ring).unwrap();
    compare_with_ring(&followed, &drained, &ring);
}

#[test]
fn reading_instead_of_mapping_counts_exactly_too() {
    let test = "reading";
    let pause = Duration::from_millis(10);
    let Some(big) = follow_and_compare(test, 8 << 10, Access::Read, 2.0, pause) else {
        return;
    };
    let cpus = big.instance.cpus().unwrap();
    assert!(
        cpus.iter()
            .all(|cpu| big.sink.pages(*cpu).len() > 1 && big.sink.lost(*cpu) == 0)
    );
    let pause = Duration::from_millis(25);
    follow_and_compare(test, 28, Access::Read, 3.0, pause).unwrap();
}

/// Another process of root has mapped our host instance and consumes from it: only that CPU stops,
/// and its ring is left alone until it can be had again.
#[test]
fn cpu_whose_ring_is_taken_does_not_stop_the_others() {
    let Some((tracefs, _one_at_a_time)) = tracefs("taken") else {
        return;
    };
    let state = OwnState::new(&tracefs);
    let instance = state.create("taken");
    let mut source = InstanceSource::open(instance.clone(), Access::MapOrRead).unwrap();
    let mut sink = Collected::default();
    enable_sched(&tracefs, &instance);
    let load = Load::start();
    let cpus = instance.cpus().unwrap();
    let (taken, other) = (cpus[0], cpus[1]);
    while sink.pages(taken).len() < 4 || sink.pages(other).len() < 4 {
        source.poll(&mut sink).unwrap();
        std::thread::sleep(Duration::from_millis(10));
    }
    let open = || instance.open_raw(taken).unwrap();
    let stranger = CpuFollower::new(taken, open(), instance.stats(taken).unwrap()).unwrap();
    let consumed = std::io::Read::read(&mut open(), &mut [0; 4096]).unwrap();
    assert!(consumed > 16, "the stranger read nothing");
    source.tend().unwrap();
    let (before_taken, before_other) = (sink.pages(taken).len(), sink.pages(other).len());
    while sink.pages(other).len() < before_other + 4 {
        source.poll(&mut sink).unwrap();
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(sink.pages(taken).len(), before_taken);
    instance.set_tracing_on(false).unwrap();
    drop(load);
    assert!(matches!(
        source.finish(&mut sink),
        Err(outlive_kernel::Error::Disturbed { cpu }) if cpu == taken.0
    ));
    drop(stranger);
    let counts = source.finish(&mut sink).unwrap();
    assert!(counts.contains(&(taken, None)));
    assert!(
        sink.pages(taken).len() > before_taken,
        "what the stranger left is taken"
    );
}

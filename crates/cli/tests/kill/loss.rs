//! What is lost is counted and shown at its place, and who did it has a name.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;
use std::time::Duration;

use outlive_ring::Missed;
use outlive_ring::extension::Counters;
use outlive_trace::view::View;
use rustix::process::Signal;

use crate::harness::{Load, Rig, SCHED, open};

/// The sum of the numbers in `CPU:n [LOST k EVENTS]`.
fn sum_of_lost(text: &str) -> u64 {
    let lost = text
        .lines()
        .filter_map(|line| line.split_once(" [LOST ")?.1.strip_suffix(" EVENTS]"));
    lost.map(|events| events.parse::<u64>().unwrap()).sum()
}

#[test]
fn events_that_the_kernels_ring_lost_are_shown_where_they_were_lost() {
    let Some(rig) = Rig::new("lost") else {
        return;
    };
    let args = [SCHED, "--host-buffer", "64"];
    let recorder = rig.record(&args);
    for _ in 0..3 {
        recorder.signal(Signal::STOP);
        Load::for_ms(100);
        recorder.signal(Signal::CONT);
        std::thread::sleep(Duration::from_millis(100));
    }
    recorder.signal(Signal::STOP);
    let frozen = rig.freeze(&rig.leftover("boot_mapped"));
    recorder.signal(Signal::CONT);
    recorder.stop();
    let second = rig.record(&args);
    let generation = rig.newest("boot_mapped");
    frozen.assert_kept(&rig, "backup", &generation);
    let view = open(&generation);
    let lost: u64 = view.cpus.iter().map(|cpu| cpu.counters.lost).sum();
    assert!(lost > 0);
    let text = rig.print(&["show", "backup"]);
    let mut holes = view.cpus.iter().flat_map(|cpu| &cpu.holes);
    let is_exact = holes.all(|hole| hole.missed != Missed::Unknown)
        && view.cpus.iter().all(|cpu| cpu.counters.overrun == 0);
    if is_exact {
        assert_eq!(sum_of_lost(&text), lost);
    } else {
        assert!(text.contains(" EVENTS]") && sum_of_lost(&text) <= lost);
    }
    second.stop();
}

/// The kernel forgets its counters with the buffer; those of the dead run add up to what it ever wrote.
/// Both rings were too small: the host's, and the region.
#[test]
fn counters_of_a_killed_run_add_up_to_what_the_kernel_wrote() {
    let Some(rig) = Rig::new("counters") else {
        return;
    };
    let line = "reserve_mem=256K:4096:trace trace_instance=boot_mapped@trace,sched \
                trace_instance=backup=boot_mapped";
    let args = [line, "--host-buffer", "64"];
    let recorder = rig.record(&args);
    for _ in 0..3 {
        recorder.signal(Signal::STOP);
        Load::for_ms(100);
        recorder.signal(Signal::CONT);
        Load::for_ms(100);
    }
    recorder.kill();
    let frozen = rig.freeze(&rig.leftover("boot_mapped"));
    let mut second = rig.record(&args);
    second.wait_for_collected(&rig);
    let generation = rig.newest("boot_mapped");
    let region = View::open(&generation.region_path()).unwrap();
    let sum = |of: fn(&Counters) -> u64| region.cpus.iter().map(|cpu| of(&cpu.counters)).sum();
    let (lost, overrun): (u64, u64) = (sum(|c| c.lost), sum(|c| c.overrun));
    assert!(lost > 0 && overrun > 0, "{lost} lost, {overrun} overrun");
    frozen.assert_counted(&generation);
    second.stop();
}

/// The names are of the dead run: the task is gone when they are asked for.
#[test]
fn tasks_of_the_dead_run_have_their_names() {
    let Some(rig) = Rig::new("names") else {
        return;
    };
    let recorder = rig.record(&[SCHED]);
    let program = rig.folder.path().join("a-short-life");
    fs::copy("/bin/true", &program).unwrap();
    let load = Load::start();
    let mut pids = BTreeSet::new();
    for _ in 0..20 {
        let mut child = Command::new(&program).spawn().unwrap();
        pids.insert(child.id());
        child.wait().unwrap();
    }
    recorder.kill();
    drop(load);
    let mut second = rig.record(&[SCHED]);
    second.wait_for_collected(&rig);
    let text = rig.print(&["show", "backup"]);
    // As far as the machine was not too busy to record that they began.
    let began = |pid: &u32| text.contains(&format!("a-short-life pid={pid} old_pid="));
    for pid in pids.into_iter().filter(began) {
        let named = format!("a-short-life-{pid} ");
        let told = format!("comm=a-short-life pid={pid} ");
        assert!(text.contains(&named) || !text.contains(&told), "{named}");
    }
    // Whoever any event that was kept names has that name.
    let told: BTreeSet<&str> = text.split_ascii_whitespace().filter_map(told_pid).collect();
    let unnamed = text.lines().filter(|line| line.contains("<...>-"));
    let unnamed: Vec<&str> = unnamed.filter(|line| told.contains(pid_of(line))).collect();
    assert!(
        unnamed.is_empty(),
        "{} without their name, as {:?}",
        unnamed.len(),
        unnamed.first()
    );
}

/// The pid of `next_pid=12`, `pid=12` and the like, which stand beside a name.
fn told_pid(word: &str) -> Option<&str> {
    let (key, pid) = word.split_once('=')?;
    ["pid", "prev_pid", "next_pid", "child_pid"]
        .contains(&key)
        .then_some(pid)
}

/// The pid of the task of a line, `<...>-12   [001] ...`.
fn pid_of(line: &str) -> &str {
    let (_, rest) = line.split_once("<...>-").unwrap_or_default();
    rest.split_ascii_whitespace().next().unwrap_or_default()
}

/// What each mistake of an option is answered with, before anything is made.
#[test]
fn mistakes_around_the_line_are_named_and_nothing_is_touched() {
    let Some(rig) = Rig::new("mistakes") else {
        return;
    };
    let line = "reserve_mem=1M:4096:trace trace_instance=boot_mapped@trace,sched";
    let huge = rig.folder.path().join("huge");
    fs::write(&huge, "a ".repeat(1 << 20)).unwrap();
    let huge = huge.to_str().unwrap();
    let no_event = line.replace("sched", "nosuch");
    let cases: [(&[&str], i32, &str); 6] = [
        (
            &["--cmdline-file", "/nonexistent/line"],
            1,
            "cannot read /nonexistent/line",
        ),
        (&["--cmdline-file", "/"], 1, "cannot read /"),
        (&["--cmdline-file", huge], 1, "is longer than"),
        (&["--area", "trase=tmpfs", line], 2, "it has: trace"),
        (&["--area", "trace=bogus", line], 2, "there is no \"bogus\""),
        (&[&no_event], 2, "nothing to record"),
    ];
    for (args, code, words) in cases {
        let output = rig.run(&[&["boot"], args].concat());
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{args:?}: {said}");
        assert!(said.contains(words), "{args:?}: {said}");
        assert!(!rig.state_path().exists(), "{args:?}");
    }
}

/// It ended the whole start, behind a state folder that had been made.
#[test]
fn area_too_small_for_the_machine_costs_its_instance_alone() {
    let Some(rig) = Rig::new("too_small") else {
        return;
    };
    let line = "reserve_mem=8K:4096:x reserve_mem=4M:4096:y trace_instance=a@x,sched \
                trace_instance=b@y,sched trace_instance=backup=a";
    let args = ["--area", "x=file", line];
    let strict = rig.run(&[&["boot", "--strict"], &args[..]].concat());
    let said = String::from_utf8(strict.stderr).unwrap();
    assert_eq!(strict.status.code(), Some(2), "{said}");
    for words in [
        "the area `x` has 8192 bytes, too few for ",
        "expected an area of at least ",
        "this instance is skipped",
        "its source `a` is skipped",
    ] {
        assert!(said.contains(words), "{words}: {said}");
    }
    assert!(!rig.state_path().exists());
    let recorder = rig.record(&args);
    Load::for_ms(50);
    assert!(rig.print(&["show", "b"]).contains("sched_switch"));
    let hosts = rig.hosts();
    assert!(hosts.iter().all(|host| host.name() == "b"), "{hosts:?}");
    assert!(recorder.said().contains("this instance is skipped"));
    recorder.stop();
}

#[test]
fn line_of_which_no_instance_can_be_made_is_an_error_and_nothing_is_touched() {
    let Some(rig) = Rig::new("none_fits") else {
        return;
    };
    let line = "reserve_mem=8K:4096:trace trace_instance=boot_mapped@trace,sched";
    let output = rig.run(&["boot", line]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(
        said.contains("too few") && said.contains("nothing to record"),
        "{said}"
    );
    assert!(!rig.state_path().exists());
}

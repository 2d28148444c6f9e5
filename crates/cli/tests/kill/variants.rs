//! The same cycle with other lines, places and endings.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use outlive_ring::Missed;
use outlive_trace::Verdict;
use outlive_trace::cmdline::{TraceClock, TraceOption};
use outlive_trace::view::View;
use rustix::process::Signal;

use crate::harness::{Frozen, Load, Recorder, Rig, SCHED, open, wait_until};

const WITHOUT_BACKUP: &str = "reserve_mem=12M:4096:trace trace_instance=boot_mapped@trace,sched";

/// Records under load with one line, dies, starts with another, and everything is there.
fn cycle(rig: &Rig, first: &[&str], second: &[&str]) -> (Frozen, Recorder) {
    let recorder = rig.record(first);
    let load = Load::start();
    std::thread::sleep(Duration::from_millis(250));
    recorder.kill();
    drop(load);
    let frozen = rig.freeze(&rig.leftover("boot_mapped"));
    let mut recorder = rig.record(second);
    recorder.wait_for_collected(rig);
    let generation = rig.newest("boot_mapped");
    let name = format!("boot_mapped/{}", generation.seq());
    frozen.assert_kept(rig, &name, &generation);
    (frozen, recorder)
}

#[test]
fn second_run_that_is_killed_too_is_kept_beside_the_first() {
    let Some(rig) = Rig::new("killed_twice") else {
        return;
    };
    let first = rig.record(&[SCHED]);
    Load::for_ms(200);
    first.kill();
    let first = rig.freeze(&rig.leftover("boot_mapped"));
    let hosts = rig.hosts();
    let second = rig.record(&[SCHED]);
    second.kill();
    let mut second = rig.hosts();
    second.retain(|host| !hosts.contains(host));
    let second = rig.freeze(&second[0]);
    let mut third = rig.record(&[SCHED]);
    third.wait_for_collected(&rig);
    let kept = rig.generations("boot_mapped");
    assert_eq!(kept.len(), 2, "{}", third.said());
    first.assert_kept(&rig, &format!("boot_mapped/{}", kept[0].seq()), &kept[0]);
    second.assert_kept(&rig, "backup", &kept[1]);
}

/// The recorder stands still while the kernel's text is read, and then takes the rest itself.
#[test]
fn terminated_run_lacks_nothing_and_leaves_no_host_instance() {
    let Some(rig) = Rig::new("terminated") else {
        return;
    };
    let recorder = rig.record(&[SCHED]);
    Load::for_ms(200);
    recorder.signal(Signal::STOP);
    let frozen = rig.freeze(&rig.leftover("boot_mapped"));
    recorder.signal(Signal::CONT);
    recorder.stop();
    assert!(rig.hosts().is_empty());
    let mut second = rig.record(&[SCHED]);
    second.wait_for("boot_mapped/2: ");
    let generation = rig.newest("boot_mapped");
    frozen.assert_kept(&rig, "backup", &generation);
    assert!(!generation.tail_path().exists());
    let view = open(&generation);
    assert_eq!(
        Verdict::of_generation(&generation, view.run.as_ref()),
        Verdict::CleanExit
    );
    assert!(second.said().contains("(clean exit)"));
}

#[test]
fn gap_that_the_host_ring_left_after_the_death_has_its_exact_number() {
    let Some(rig) = Rig::new("wrapped") else {
        return;
    };
    let args = [SCHED, "--host-buffer", "64"];
    let recorder = rig.record(&args);
    std::thread::sleep(Duration::from_millis(200));
    recorder.kill();
    Load::for_ms(500);
    let frozen = rig.freeze(&rig.leftover("boot_mapped"));
    let mut second = rig.record(&args);
    second.wait_for_collected(&rig);
    let generation = rig.newest("boot_mapped");
    frozen.assert_kept(&rig, "backup", &generation);
    let text = rig.print(&["show", "backup"]);
    let region = View::open(&generation.region_path()).unwrap();
    let merged = open(&generation);
    for of_cpu in &region.cpus {
        let counters = of_cpu.counters;
        let known = of_cpu.entries + counters.overrun + counters.lost;
        let gap = frozen.overrun[&of_cpu.cpu] - known;
        let hole = merged.cpus[of_cpu.cpu as usize].holes.last();
        let missed = hole.expect("a gap").missed;
        if counters.lost_unknown == 0 {
            assert_eq!(missed, Missed::Events(gap), "CPU {}", of_cpu.cpu);
            let line = format!("CPU:{} [LOST {gap} EVENTS]", of_cpu.cpu);
            assert!(text.contains(&line), "{line}");
        }
    }
}

/// The host's ring has room for what a machine that does nothing but switch tasks, as the other tests have
/// it do, records in many times the interval.
#[test]
fn rarely_polling_recorder_loses_nothing_because_the_host_has_it() {
    let Some(rig) = Rig::new("200ms") else {
        return;
    };
    let args = [SCHED, "--interval", "200ms", "--host-buffer", "65536"];
    cycle(&rig, &args, &args).1.stop();
    let view = open(&rig.newest("boot_mapped"));
    assert_eq!(
        view.cpus.iter().map(|cpu| cpu.counters.lost).sum::<u64>(),
        0
    );
}

/// The region wraps many times; the host's ring holds more than it.
#[test]
fn region_smaller_than_the_hosts_ring_gets_back_what_it_had_overwritten() {
    let Some(rig) = Rig::new("small_region") else {
        return;
    };
    let line = "reserve_mem=256K:4096:trace trace_instance=boot_mapped@trace,sched \
                trace_instance=backup=boot_mapped";
    let args = [line, "--host-buffer", "4096"];
    cycle(&rig, &args, &args).1.stop();
}

#[test]
fn backup_may_be_named_first_or_not_at_all() {
    let first = "trace_instance=backup=boot_mapped reserve_mem=2M:4096:trace \
                 trace_instance=boot_mapped@trace,sched";
    for line in [first, WITHOUT_BACKUP] {
        let Some(rig) = Rig::new("backup_first") else {
            return;
        };
        cycle(&rig, &[line], &[line]).1.stop();
    }
}

#[test]
fn line_of_the_second_start_may_differ() {
    let smaller = "reserve_mem=4M:4096:trace trace_instance=boot_mapped@trace,sched";
    let other_events = "reserve_mem=12M:4096:trace trace_instance=boot_mapped@trace,irq,timer";
    for line in [smaller, other_events] {
        let Some(rig) = Rig::new("other_line") else {
            return;
        };
        let (_, recorder) = cycle(&rig, &[WITHOUT_BACKUP], &[line]);
        recorder.kill();
        let frozen = rig.freeze(&rig.leftover("boot_mapped"));
        let mut third = rig.record(&[line]);
        third.wait_for_collected(&rig);
        frozen.assert_kept(&rig, "boot_mapped/3", &rig.newest("boot_mapped"));
    }
}

/// A kernel that attaches such a region sets its clock, which empties the boot CPU's buffer. One of these
/// counts no time.
#[test]
fn runs_with_other_clocks_are_kept_on_all_cpus() {
    for clock in ["mono", "counter"] {
        let Some(rig) = Rig::new("clock") else {
            return;
        };
        let line = format!("{WITHOUT_BACKUP} trace_clock={clock}");
        let (frozen, recorder) = cycle(&rig, &[&line], &[WITHOUT_BACKUP]);
        assert!(frozen.written[&0] > 0, "{:?}", frozen.written);
        let generation = rig.newest("boot_mapped");
        let view = open(&generation);
        assert_eq!(view.clock(), clock);
        assert!(view.cpus[0].entries > 0);
        recorder.stop();
    }
}

#[test]
fn area_may_live_elsewhere() {
    let Some(rig) = Rig::new("elsewhere") else {
        return;
    };
    let own = rig.folder.path().join("own-area");
    let file = format!("trace=file:{}", own.display());
    let backing = ["trace=tmpfs", &file];
    for backing in backing {
        let args = [WITHOUT_BACKUP, "--area", backing];
        cycle(&rig, &args, &args).1.stop();
    }
    assert!(own.is_file());
}

#[test]
fn area_in_huge_pages_is_kept() {
    let Some(rig) = Rig::new("hugetlbfs") else {
        return;
    };
    let huge = match HugePages::mount(rig.folder.path().join("huge")) {
        Ok(huge) => huge,
        Err(why) => return println!("skipped: {why}"),
    };
    let area = format!("trace=hugetlbfs:{}/area", huge.folder.display());
    let args = [WITHOUT_BACKUP, "--area", &area];
    cycle(&rig, &args, &args).1.stop();
}

/// A hugetlbfs of the test's own with pages in it, which are given back at the end.
struct HugePages {
    folder: PathBuf,
    nr_before: String,
}

impl HugePages {
    const NR: &str = "/proc/sys/vm/nr_hugepages";
    /// Enough for a small area of 2 MiB pages.
    const WANTED: u64 = 32;

    fn mount(folder: PathBuf) -> Result<Self, String> {
        let nr_before =
            fs::read_to_string(Self::NR).map_err(|error| format!("no huge pages: {error}"))?;
        fs::create_dir(&folder).unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "hugetlbfs", "-o", "mode=0700", "none"])
            .arg(&folder)
            .status();
        if !mounted.is_ok_and(|status| status.success()) {
            return Err("cannot mount a hugetlbfs".into());
        }
        let this = Self { folder, nr_before };
        let wanted = this.nr_before.trim().parse::<u64>().unwrap_or(0) + Self::WANTED;
        fs::write(Self::NR, wanted.to_string())
            .map_err(|error| format!("no huge pages: {error}"))?;
        let now = fs::read_to_string(Self::NR)
            .unwrap()
            .trim()
            .parse::<u64>()
            .unwrap_or(0);
        if now < wanted {
            Err(format!("{now} of {wanted} huge pages"))
        } else {
            Ok(this)
        }
    }
}

impl Drop for HugePages {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.folder).status();
        let _ = fs::write(Self::NR, self.nr_before.trim());
    }
}

#[test]
fn two_instances_are_kept_each_for_itself() {
    let Some(rig) = Rig::new("two") else {
        return;
    };
    let line = "reserve_mem=4M:4096:a reserve_mem=2M:4096:b trace_instance=one@a,sched \
                trace_instance=two@b,irq,timer trace_instance=backup=one";
    let recorder = rig.record(&[line]);
    Load::for_ms(200);
    recorder.kill();
    let (one, two) = (rig.leftover("one"), rig.leftover("two"));
    let (one, two) = (rig.freeze(&one), rig.freeze(&two));
    let mut second = rig.record(&[line]);
    second.wait_for_collected(&rig);
    one.assert_kept(&rig, "backup", &rig.newest("one"));
    two.assert_kept(&rig, "two/2", &rig.newest("two"));
    second.stop();
    assert!(rig.hosts().is_empty());
}

#[test]
fn ordinary_instance_is_recorded_and_not_kept() {
    let Some(rig) = Rig::new("ordinary") else {
        return;
    };
    let line = format!("{SCHED} trace_instance=plain,sched_switch trace_buf_size=512K");
    let recorder = rig.record(&[&line]);
    Load::for_ms(100);
    assert!(rig.print(&["show", "plain"]).contains("sched_switch"));
    recorder.kill();
    let mut second = rig.record(&[&line]);
    second.wait_for_collected(&rig);
    assert!(rig.generations("plain").is_empty());
    assert_eq!(rig.generations("boot_mapped").len(), 1);
}

#[test]
fn instance_that_is_switched_off_records_nothing_until_it_is_switched_on() {
    let Some(rig) = Rig::new("traceoff") else {
        return;
    };
    let line = "reserve_mem=2M:4096:trace trace_instance=boot_mapped^traceoff@trace,sched";
    let recorder = rig.record(&[line]);
    Load::for_ms(100);
    recorder.kill();
    let mut second = rig.record(&[line]);
    assert!(
        second.said().contains("had recorded nothing"),
        "{}",
        second.said()
    );
    second.wait_for_collected(&rig);
    assert!(rig.generations("boot_mapped").is_empty());
    let folder = rig.host_folder(&rig.leftover("boot_mapped"));
    fs::write(folder.join("tracing_on"), "1").unwrap();
    Load::for_ms(100);
    second.kill();
    let frozen = rig.freeze(&rig.leftover("boot_mapped"));
    let mut third = rig.record(&[line]);
    third.wait_for_collected(&rig);
    frozen.assert_kept(&rig, "boot_mapped/3", &rig.newest("boot_mapped"));
}

/// What a killed recorder left records on, and costs, until somebody collects it.
#[test]
fn leftover_of_a_killed_recorder_is_found_by_the_doctor() {
    let Some(rig) = Rig::new("doctor") else {
        return;
    };
    let found = |state: &Path| {
        let mut doctor = Command::new(env!("CARGO_BIN_EXE_outlive"));
        doctor
            .arg("--state")
            .arg(state)
            .args(["doctor", "--json", SCHED]);
        let output = doctor.output().unwrap();
        let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let checks = report["checks"].as_array().unwrap().iter();
        let ours = format!("outlive.{}.", rig.state().id());
        let of_ours = checks.filter(|check| check["says"].as_str().unwrap().starts_with(&ours));
        of_ours
            .map(|check| format!("{}: {}", check["finding"], check["says"]))
            .collect::<Vec<_>>()
    };
    let recorder = rig.record(&[SCHED]);
    assert_eq!(found(rig.state().path()), [""; 0]);
    recorder.kill();
    let [left] = &found(rig.state().path())[..] else {
        panic!("{:?}", rig.hosts());
    };
    assert!(
        left.contains("note") && left.contains("the next `outlive boot`"),
        "{left}"
    );
    let of_another = tempfile::tempdir().unwrap();
    let left = found(of_another.path()).concat();
    assert!(
        left.contains("warning") && left.contains("`rmdir "),
        "{left}"
    );
    let mut next = rig.record(&[SCHED]);
    next.wait_for_collected(&rig);
    assert_eq!(found(rig.state().path()), [""; 0]);
    next.stop();
}

/// A script that kills and starts again does not wait in between: the old process still has its locks.
#[test]
fn start_right_behind_a_kill_waits_for_what_was_killed() {
    let Some(rig) = Rig::new("behind") else {
        return;
    };
    let mut recorder = rig.record(&[SCHED]);
    for _ in 0..5 {
        recorder.signal(Signal::KILL);
        let next = rig.record(&[SCHED]);
        recorder.wait();
        recorder = next;
    }
    recorder.stop();
}

/// What a crash of the whole machine could have cost is known afterwards.
#[test]
fn worst_age_before_write_back_is_told() {
    let Some(rig) = Rig::new("flush") else {
        return;
    };
    let args = [SCHED, "--flush", "20ms"];
    let recorder = rig.record(&args);
    let age = |name| -> u64 {
        let json: serde_json::Value =
            serde_json::from_str(&rig.print(&["info", name, "--json"])).unwrap();
        json["heartbeat"]["max_unflushed_ns"].as_u64().unwrap()
    };
    while age("boot_mapped") == 0 {
        Load::for_ms(50);
    }
    recorder.kill();
    rig.record(&[SCHED]).stop();
    assert!(age("backup") >= 20_000_000, "{}", age("backup"));
    let told = rig.print(&["info", "backup"]);
    assert!(told.contains("an event was at most"), "{told}");
}

const SMALL: &str = "reserve_mem=1M:4096:trace trace_instance=boot_mapped@trace,sched";

/// Starts with a line that `--strict` accepts, looks into the host instance, and waits for events.
fn record_with(rig: &Rig, setting: &str, look: impl FnOnce(PathBuf)) {
    let line = format!("{SMALL} {setting}");
    let recorder = rig.record(&["--strict", &line]);
    look(rig.host_folder(&rig.leftover("boot_mapped")));
    wait_until(
        || {
            rig.print(&["show", "boot_mapped"])
                .contains("sched_switch")
                .then_some(())
        },
        || format!("{setting}: {}", recorder.said()),
    );
    recorder.stop();
}

/// `uptime` was accepted, and ended the start when the run before had been kept.
#[test]
fn every_clock_that_a_line_may_have_is_recorded_with() {
    let Some(rig) = Rig::new("clocks") else {
        return;
    };
    let of_machine = fs::read_to_string(rig.tracefs.root().join("trace_clock")).unwrap();
    let of_machine: Vec<_> = of_machine
        .split_ascii_whitespace()
        .map(|name| name.trim_matches(['[', ']']))
        .collect();
    for clock in TraceClock::ALL.map(TraceClock::name) {
        let line = format!("{SMALL} trace_clock={clock}");
        if !of_machine.contains(&clock) {
            continue;
        }
        if clock == "uptime" {
            assert_eq!(rig.run(&["boot", "--strict", &line]).status.code(), Some(2));
            continue;
        }
        record_with(&rig, &format!("trace_clock={clock}"), |host| {
            let set = fs::read_to_string(host.join("trace_clock")).unwrap();
            assert!(set.contains(&format!("[{clock}]")), "{set}");
        });
    }
}

/// `record-tgid` and `record-cmd` were accepted, and ended the start as well.
#[test]
fn every_option_that_a_line_may_have_is_set_in_the_host_instance() {
    let Some(rig) = Rig::new("options") else {
        return;
    };
    let on = TraceOption::NAMES.map(String::from);
    let off = TraceOption::NAMES.map(|name| match name {
        "overwrite" => name.to_owned(),
        _ => format!("no{name}"),
    });
    for words in [on, off] {
        record_with(
            &rig,
            &format!("trace_options={}", words.join(",")),
            |host| {
                for word in &words {
                    let (name, value) = match word.strip_prefix("no") {
                        Some(name) => (name, "0"),
                        None => (word.as_str(), "1"),
                    };
                    let set = fs::read_to_string(host.join("options").join(name)).unwrap();
                    assert_eq!(set.trim(), value, "{word}");
                }
            },
        );
    }
}

/// What has no effect is said, and the start goes on without it.
#[test]
fn words_of_the_kernel_that_have_no_effect_keep_no_start_from_recording() {
    let Some(rig) = Rig::new("no_effect") else {
        return;
    };
    let line = "reserve_mem=1M:4096:trace trace_instance=boot_mapped^printk@trace,sched \
                trace_clock=uptime trace_options=record-tgid,record-cmd,raw,sym-offset";
    let strict = rig.run(&["boot", "--strict", line]);
    assert_eq!(strict.status.code(), Some(2), "{strict:?}");
    assert!(!rig.state_path().exists());
    let recorder = rig.record(&[line]);
    let host = rig.host_folder(&rig.leftover("boot_mapped"));
    let clock = fs::read_to_string(host.join("trace_clock")).unwrap();
    assert!(clock.contains("[local]"), "{clock}");
    assert_eq!(
        recorder.said().matches("warning: ").count(),
        6,
        "{}",
        recorder.said()
    );
    recorder.stop();
}

//! Around a start: other users' tracing, a second start, no permission, no space, many starts.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use outlive_ring::extension::Layout;
use outlive_ring::{RunRecord, RunState};
use outlive_trace::{Access, Mapping, Verdict, failpoint};
use rustix::process::Signal;

use crate::harness::{Load, Rig, SCHED, open, wait_until, written};

const SMALL: &str = "reserve_mem=1M:4096:trace trace_instance=boot_mapped@trace,sched \
                     trace_instance=backup=boot_mapped";

/// Every file below a folder with its bytes.
fn contents(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            files.extend(contents(&path));
        } else {
            files.insert(path.clone(), fs::read(&path).unwrap());
        }
    }
    files
}

/// Files that say how a tracefs or an instance is set, wherever they exist.
const KNOBS: [&str; 15] = [
    "tracing_on",
    "trace_clock",
    "trace_options",
    "buffer_size_kb",
    "buffer_percent",
    "buffer_subbuf_size_kb",
    "current_tracer",
    "set_event",
    "set_event_pid",
    "set_ftrace_filter",
    "tracing_cpumask",
    "saved_cmdlines_size",
    "tracing_thresh",
    "events/enable",
    "error_log",
];

fn knobs(folder: &Path) -> BTreeMap<&'static str, String> {
    let read = |file: &&'static str| Some((*file, fs::read_to_string(folder.join(file)).ok()?));
    KNOBS.iter().filter_map(read).collect()
}

/// Another user's instance, gone with the test.
struct Foreign(PathBuf);

impl Foreign {
    fn create(rig: &Rig) -> Self {
        let name = format!("instances/foreign.kill.{}", std::process::id());
        let folder = rig.tracefs.root().join(name);
        fs::create_dir(&folder).unwrap();
        let this = Self(folder);
        fs::write(this.0.join("buffer_size_kb"), "64").unwrap();
        fs::write(this.0.join("events/sched/sched_process_exec/enable"), "1").unwrap();
        this
    }

    /// Programs that were started, as far as its ring goes.
    fn written(&self) -> u64 {
        written(&self.0)
    }
}

impl Drop for Foreign {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}

#[test]
fn other_users_tracing_is_left_as_it_was_by_a_killed_run_and_the_next() {
    let Some(rig) = Rig::new("others") else {
        return;
    };
    let foreign = Foreign::create(&rig);
    let before = (knobs(rig.tracefs.root()), knobs(&foreign.0));
    let assert_same = || assert_eq!((knobs(rig.tracefs.root()), knobs(&foreign.0)), before);
    let line = format!("{SMALL} trace_clock=mono trace_options=nomarkers,overwrite");
    let first = rig.record(&[&line]);
    Load::for_ms(100);
    assert_same();
    first.kill();
    assert_same();
    let mut second = rig.record(&[&line]);
    second.wait_for_collected(&rig);
    assert_same();
    second.stop();
    assert_same();
    let written = foreign.written();
    assert!(Command::new("/bin/true").status().unwrap().success());
    assert!(foreign.written() > written, "it still records");
}

#[test]
fn second_start_on_a_state_is_refused_and_changes_nothing() {
    let Some(rig) = Rig::new("locked") else {
        return;
    };
    // Nothing is recorded, so that nothing changes by itself but the signs of life.
    let line = "reserve_mem=1M:4096:trace trace_instance=boot_mapped^traceoff@trace,sched";
    let first = rig.record(&[line]);
    let without_areas = || {
        let mut files = contents(&rig.state_path());
        files.retain(|path, _| !path.starts_with(rig.state_path().join("areas")));
        files
    };
    let (before, hosts) = (without_areas(), rig.hosts());
    let second = rig.run(&["boot", SCHED]);
    assert_eq!(second.status.code(), Some(3), "{second:?}");
    let said = String::from_utf8(second.stderr).unwrap();
    assert!(said.contains(&format!("{}", first.child.id())), "{said}");
    assert_eq!(without_areas(), before);
    assert_eq!(rig.hosts(), hosts);
    first.stop();
}

#[test]
fn without_permission_nothing_is_made_and_it_is_said_what_to_do() {
    let Some(rig) = Rig::new("nobody") else {
        return;
    };
    let binary = rig.folder.path().join("outlive");
    fs::copy(env!("CARGO_BIN_EXE_outlive"), &binary).unwrap();
    fs::set_permissions(rig.folder.path(), PermissionsExt::from_mode(0o777)).unwrap();
    let nobody = Command::new("setpriv")
        .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
        .args([&binary, Path::new("--state"), &rig.state_path()])
        .args(["boot", SCHED])
        .output();
    let Ok(nobody) = nobody else {
        println!("nobody: skipped: no setpriv");
        return;
    };
    let said = String::from_utf8(nobody.stderr).unwrap();
    assert_eq!(nobody.status.code(), Some(4), "{said}");
    assert!(said.contains("  help: "), "{said}");
    assert!(!rig.state_path().exists());
}

#[test]
fn strict_refuses_a_mistake_before_anything_is_touched() {
    let Some(rig) = Rig::new("strict") else {
        return;
    };
    let mistaken = format!("{SCHED} trace_instance=boot_mapped@trase,sched");
    let output = rig.run(&["boot", "--strict", &mistaken]);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert!(!rig.state_path().exists());
    assert!(rig.hosts().is_empty());
}

/// What an instance left waits, in its area and in the host's ring, until a start can make it again.
#[test]
fn instance_whose_area_cannot_be_reserved_is_skipped_and_loses_nothing() {
    let Some(rig) = Rig::new("skipped") else {
        return;
    };
    let line = "reserve_mem=1M:4096:x reserve_mem=1M:4096:y trace_instance=a@x,sched \
                trace_instance=b@y,sched";
    let first = rig.record(&[line]);
    Load::for_ms(100);
    first.kill();
    let (a, b) = (rig.leftover("a"), rig.leftover("b"));
    let (of_a, of_b) = (rig.freeze(&a), rig.freeze(&b));
    // Whoever made it may change the area.
    let link = rig.folder.path().join("link");
    fs::hard_link(rig.state_path().join("areas/x"), &link).unwrap();
    let strict = rig.run(&["boot", "--strict", line]);
    assert_eq!(strict.status.code(), Some(1), "{strict:?}");
    assert!(rig.generations("b").is_empty());
    let mut second = rig.boot(&[line]);
    second.wait_for("a: skipped, the others go on: ");
    second.wait_for("b: recording ");
    wait_until(
        || (!rig.hosts().contains(&b)).then_some(()),
        || second.said(),
    );
    let kept = rig.newest("b");
    of_b.assert_kept(&rig, &kept.to_string(), &kept);
    second.signal(Signal::TERM);
    assert_eq!(second.wait().code(), Some(1), "{}", second.said());
    assert!(rig.generations("a").is_empty());
    assert_eq!(rig.hosts(), [a]);
    fs::remove_file(link).unwrap();
    let mut third = rig.record(&[line]);
    third.wait_for_collected(&rig);
    let kept = rig.newest("a");
    of_a.assert_kept(&rig, &kept.to_string(), &kept);
    third.stop();
}

/// A kernel or an outlive to come may have left it.
#[test]
fn region_of_an_unknown_layout_is_kept_named_and_not_shown() {
    let Some(rig) = Rig::new("unknown_layout") else {
        return;
    };
    rig.record(&[SMALL]).stop();
    let mut region = vec![0x5a; 1 << 20];
    region[..8].copy_from_slice(&[0xed, 0xfe, 0xad, 0x0b, 0x60, 0, 0x20, 0]);
    fs::write(rig.state_path().join("areas/trace"), &region).unwrap();
    for start in 0..2 {
        let recorder = rig.record(&[SMALL]);
        let said = recorder.said();
        let words = "boot_mapped/2 is kept as it is, and cannot be shown: ";
        assert_eq!(said.contains(words), start == 0, "{said}");
        recorder.stop();
    }
    let kept = rig.generations("boot_mapped");
    let kept = kept.iter().find(|kept| kept.seq() == 2).unwrap();
    assert_eq!(fs::read(kept.region_path()).unwrap(), region);
    for verb in ["show", "info", "check"] {
        let output = rig.run(&[verb, "boot_mapped/2"]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{verb}: {said}");
        assert!(
            said.contains("layout is not known: struct sizes 0x00200060"),
            "{verb}: {said}"
        );
        assert!(said.contains("6.16 and later"), "{verb}: {said}");
    }
}

/// The host's ring still has what the dead run recorded last: it belongs to the generation of the
/// area, and is not an older one that retention removes.
#[test]
fn overwritten_area_and_what_the_hosts_ring_had_of_its_run_are_one_generation() {
    let Some(rig) = Rig::new("overwritten") else {
        return;
    };
    let args = [SMALL, "--keep", "1"];
    let recorder = rig.record(&args);
    Load::for_ms(50);
    recorder.kill();
    let area = rig.state_path().join("areas/trace");
    let garbage = vec![0x5a; fs::metadata(&area).unwrap().len() as usize];
    fs::write(&area, &garbage).unwrap();
    let mut recorder = rig.record(&args);
    recorder.wait_for_collected(&rig);
    recorder.stop();

    let kept = rig.generations("boot_mapped");
    assert_eq!((kept.len(), kept[0].seq()), (1, 2), "{kept:?}");
    assert_eq!(fs::read(kept[0].region_path()).unwrap(), garbage);
    let shown = rig.run(&["show", "backup"]);
    let said = String::from_utf8_lossy(&shown.stderr);
    assert!(said.contains("the region cannot be read"), "{said}");
    assert!(String::from_utf8_lossy(&shown.stdout).contains("sched_switch"));
    let checked = rig.run(&["check", "backup"]);
    assert_eq!(checked.status.code(), Some(1), "{checked:?}");
    assert!(
        checked.stdout.starts_with(b"tail of outlive"),
        "{checked:?}"
    );
}

/// A tmpfs on the state folder, gone with the test.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(folder: PathBuf, size: &str) -> Option<Self> {
        use rustix::mount::{MountFlags, mount};
        fs::create_dir(&folder).unwrap();
        let options = std::ffi::CString::new(format!("size={size},mode=0700")).unwrap();
        match mount("none", &folder, "tmpfs", MountFlags::NODEV, &*options) {
            Ok(()) => Some(Self(folder)),
            Err(error) => {
                println!("full_disk: skipped: cannot mount a tmpfs: {error}");
                None
            }
        }
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(&self.0, rustix::mount::UnmountFlags::DETACH);
    }
}

/// An area takes 1 MiB and about 5 MiB for its catalog, a tail about 2 MiB and as much.
#[test]
fn full_disk_costs_the_older_generations_and_never_the_newest() {
    let Some(mut rig) = Rig::new("full_disk") else {
        return;
    };
    let Some(disk) = SmallDisk::mount(rig.state_path(), "34M") else {
        return;
    };
    rig.keeps = Some(Box::new(disk));
    let args = [SMALL, "--keep-bytes", "1G"];
    for _ in 0..6 {
        let mut recorder = rig.record(&args);
        recorder.wait_for_collected(&rig);
        Load::for_ms(50);
        recorder.kill();
    }
    let mut recorder = rig.record(&args);
    recorder.wait_for_collected(&rig);
    recorder.stop();
    let kept = rig.generations("boot_mapped");
    assert!((1..6).contains(&kept.len()), "{}", kept.len());
    assert_eq!(kept.last().unwrap().seq(), 7);
    let before = contents(&rig.state_path());
    let large = SMALL.replace("1M", "30M");
    let refused = rig.run(&["boot", &large]);
    let said = String::from_utf8(refused.stderr).unwrap();
    assert_eq!(refused.status.code(), Some(1), "{said}");
    assert!(said.contains("bytes"), "{said}");
    let left = "; the previous run is left as it is: outlive show boot_mapped\n";
    assert!(said.contains(left), "{said}");
    rig.print(&["show", "boot_mapped"]);
    let newest = format!("generations/boot_mapped/{:08}/region", 7);
    let newest = rig.state_path().join(newest);
    let after = contents(&rig.state_path());
    assert_eq!(after[&newest], before[&newest]);
    let live = rig.state_path().join("areas/trace");
    assert_eq!(after[&live], before[&live]);
    assert!(rig.print(&["show", "backup"]).contains("sched_switch"));
}

#[test]
fn generations_are_kept_by_count_and_empty_runs_push_none_out() {
    let Some(rig) = Rig::new("generations") else {
        return;
    };
    let args = [SMALL, "--keep", "3"];
    let sequences = || -> Vec<u64> {
        let kept = rig.generations("boot_mapped");
        kept.iter().map(outlive_trace::Generation::seq).collect()
    };
    for _ in 0..12 {
        let mut recorder = rig.record(&args);
        recorder.wait_for_collected(&rig);
        Load::for_ms(20);
        // Behind the last step of the background's work.
        wait_until(
            || (sequences().len() <= 3).then_some(()),
            || format!("{:?}:\n{}", sequences(), recorder.said()),
        );
        recorder.stop();
    }
    assert_eq!(sequences(), [10, 11, 12]);
    let text = rig.print(&["show", "boot_mapped/12"]);
    // The last run is kept, then starts die before they record anything.
    for _ in 0..6 {
        let mut recorder = rig.boot_with(&args, |command| {
            command.env(failpoint::VARIABLE, "boot-prepared");
        });
        recorder.wait();
    }
    assert_eq!(sequences().len(), 4);
    assert_eq!(sequences()[3], 13);
    let mut recorder = rig.boot(&args);
    recorder.wait_for("backup: backup of boot_mapped, read-only: boot_mapped/13");
    wait_until(
        || (sequences() == [11, 12, 13]).then_some(()),
        || format!("{:?}:\n{}", sequences(), recorder.said()),
    );
    assert_eq!(rig.print(&["show", "boot_mapped/12"]), text);
}

/// A reboot cannot be forced here: the run record is given the id of another boot instead.
#[test]
fn run_of_another_boot_is_told_from_a_crash() {
    let Some(rig) = Rig::new("rebooted") else {
        return;
    };
    let recorder = rig.record(&[SMALL]);
    Load::for_ms(50);
    recorder.kill();
    let path = rig.state_path().join("areas/trace");
    let file = fs::File::options()
        .read(true)
        .write(true)
        .open(&path)
        .unwrap();
    let len = file.metadata().unwrap().len();
    {
        let mapping = Mapping::of_file(&file, &path, len, Access::ReadWrite).unwrap();
        let layout = Layout::load(&mapping).unwrap();
        let mut run = RunRecord::load(&layout, &mapping).unwrap();
        assert_eq!(run.state, RunState::Running);
        run.boot_id[0] ^= 1;
        run.sequence += 1;
        run.store(&layout, &mapping.memory_mut().unwrap());
    }
    let mut second = rig.record(&[SMALL]);
    assert!(
        second.said().contains("(host rebooted)"),
        "{}",
        second.said()
    );
    second.wait_for_collected(&rig);
    let generation = rig.newest("boot_mapped");
    let run = open(&generation).run;
    assert_eq!(
        Verdict::of_generation(&generation, run.as_ref()),
        Verdict::HostRebooted
    );
}

/// A service is killed if it does not end soon, so the background's work ends behind the piece that it
/// is at. That comes too late where it was done already: then once more.
#[test]
fn stop_does_not_wait_for_the_background_and_the_next_start_does_the_rest() {
    let Some(rig) = Rig::new("stopped") else {
        return;
    };
    let (frozen, sequence) = wait_until(
        || {
            let first = rig.record(&[SMALL]);
            let host = rig.leftover("boot_mapped");
            Load::for_ms(50);
            first.kill();
            let frozen = rig.freeze(&host);
            let mut second = rig.boot(&[SMALL]);
            second.wait_for("previous run kept as ");
            let sequence = rig.newest("boot_mapped").seq();
            second.stop();
            let is_left = rig.hosts().contains(&host);
            is_left.then_some((frozen, sequence))
        },
        || "the leftover was collected each time".to_owned(),
    );
    let kept = || {
        let mut all = rig.generations("boot_mapped").into_iter();
        all.find(|kept| kept.seq() == sequence).unwrap()
    };
    assert!(kept().is_collecting());
    let mut third = rig.record(&[SMALL]);
    third.wait_for_collected(&rig);
    frozen.assert_kept(&rig, &kept().to_string(), &kept());
    third.wait_for(&format!("boot_mapped/{sequence}: "));
    third.stop();
    assert!(rig.hosts().is_empty());
}

#[test]
fn systemd_is_told_when_it_records_and_when_it_stops() {
    let Some(rig) = Rig::new("systemd") else {
        return;
    };
    let path = rig.folder.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket
        .set_read_timeout(Some(Duration::from_secs(60)))
        .unwrap();
    let receive = || {
        let mut buffer = [0; 256];
        let len = socket.recv(&mut buffer).unwrap();
        String::from_utf8(buffer[..len].to_vec()).unwrap()
    };
    let recorder = rig.boot_with(&[SMALL], |command| {
        command.env("NOTIFY_SOCKET", &path);
    });
    assert!(receive().starts_with("READY=1"));
    let host = rig.host_folder(&rig.leftover("boot_mapped"));
    let enabled = fs::read_to_string(host.join("events/sched/sched_switch/enable")).unwrap();
    assert_eq!(enabled.trim_end_matches(['*', '\n']), "1");
    recorder.signal(Signal::TERM);
    assert!(receive().starts_with("STOPPING=1"));
    recorder.stop();
}

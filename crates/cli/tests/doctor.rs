//! `outlive doctor` on this machine: what it says, what it proves, and that looking changes nothing.
#![allow(missing_docs, reason = "tests")]

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;
use tempfile::TempDir;

const LINE: &str = "reserve_mem=4M:4096:trace trace_instance=boot_mapped@trace,sched";
/// A user who owns nothing.
const NOBODY: u32 = 65534;

/// A state folder, which need not exist.
struct State(TempDir);

impl State {
    fn new() -> Self {
        Self(TempDir::new().unwrap())
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("state")
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_outlive"));
        command.arg("--state").arg(self.path()).arg("doctor");
        command.args(args).arg(LINE);
        command
    }

    fn doctor(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    fn json(&self, args: &[&str]) -> Value {
        let output = self.doctor(&[&["--json"], args].concat());
        serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"))
    }

    /// What the doctor remembers.
    fn notes(&self) -> Value {
        serde_json::from_slice(&std::fs::read(self.path().join("doctor.json")).unwrap()).unwrap()
    }

    fn names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.path()).unwrap().flatten();
        let mut names: Vec<String> = entries
            .map(|entry| entry.file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The `says` of a check.
fn says(report: &Value, name: &str) -> String {
    let checks = report["checks"].as_array().unwrap();
    let check = checks.iter().find(|check| check["name"] == name);
    let check = check.unwrap_or_else(|| panic!("no check {name}: {report}"));
    format!("{}: {}", check["finding"], check["says"])
}

fn can_trace(test: &str) -> bool {
    let refused = outlive_kernel::Tracefs::find().and_then(|tracefs| tracefs.check());
    if let Err(error) = &refused {
        println!("{test}: skipped: {error}");
    }
    refused.is_ok()
}

#[test]
fn report_has_each_tier_with_its_reason() {
    let state = State::new();
    let report = state.json(&[]);
    for tier in ["process", "container", "panic", "power"] {
        let judged = &report["tiers"][tier];
        assert!(["yes", "no", "unknown"].contains(&judged["answer"].as_str().unwrap()));
        assert!(judged["why"].as_str().unwrap().len() > 5, "{judged}");
        assert_eq!(
            report["areas"][0]["tiers"][tier], *judged,
            "there is one area"
        );
    }
    assert_eq!(report["areas"][0]["area"], "trace");
    assert_eq!(report["tiers"]["power"]["answer"], "no");
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    assert!(says(&report, "kernel").contains(release.trim()));
    let text = String::from_utf8(state.doctor(&[]).stdout).unwrap();
    assert!(
        text.lines().count() <= 45 && text.lines().all(|line| line.len() <= 100),
        "{text}"
    );
    assert!(!state.path().exists(), "looking makes no state folder");
}

#[test]
fn exit_code_is_that_of_the_tiers_asked_for() {
    if !can_trace("exit_code_is_that_of_the_tiers_asked_for") {
        return;
    }
    let state = State::new();
    let code = |args: &[&str]| state.doctor(args).status.code();
    assert_eq!(code(&[]), Some(0));
    assert_eq!(code(&["--tier", "power"]), Some(1));
    assert_eq!(code(&["--tier", "process,power"]), Some(1));
    assert_eq!(code(&["--tier", "reboot"]), Some(2));
    assert_eq!(code(&["--area", "trase=tmpfs"]), Some(2));
    assert_eq!(code(&["--reboot"]), Some(2), "without --prove");
}

#[test]
fn mistakes_of_the_judged_line_are_shown() {
    let state = State::new();
    let output = Command::new(env!("CARGO_BIN_EXE_outlive"))
        .arg("--state")
        .arg(state.path())
        .arg("doctor")
        .arg(format!("{LINE} trace_instance=b@trase"))
        .output()
        .unwrap();
    assert!(
        stderr(&output).contains("did you mean `trace`?"),
        "{output:?}"
    );
    assert_eq!(stderr(&state.doctor(&[])), "", "a good line");
}

/// Everything that is opened, made, removed, mapped or mounted, as strace sees it.
#[test]
fn looking_writes_nothing_but_its_notes() {
    let test = "looking_writes_nothing_but_its_notes";
    let state = State::new();
    outlive_trace::StateDir::open(&state.path()).unwrap();
    let log = state.0.path().join("strace");
    let plain = state.command(&[]);
    let traced = Command::new("strace")
        .args([
            "-f",
            "-y",
            "-e",
            "trace=%file,mmap,ioctl,mount,umount2,write,pwrite64,splice",
            "-o",
        ])
        .arg(&log)
        .arg(plain.get_program())
        .args(plain.get_args())
        .output();
    let Ok(output) = traced else {
        println!("{test}: skipped: no strace; run `cargo xtask setup`");
        return;
    };
    let log = std::fs::read_to_string(&log).unwrap();
    if !log.contains("execve") {
        println!(
            "{test}: skipped: strace may not trace here: {}",
            stderr(&output)
        );
        return;
    }
    let ours = state.path().display().to_string();
    let changes = [
        "O_WRONLY", "O_RDWR", "O_CREAT", "O_TRUNC", "mkdir", "unlink", "rmdir", "rename",
    ];
    let changes = changes
        .into_iter()
        .chain(["mount(", "umount", "chmod", "chown", "link("]);
    let changes: Vec<&str> = changes.collect();
    // What failed has changed nothing either.
    let elsewhere = |line: &&str| !line.contains(&ours) && !line.contains(" = -1 ");
    for line in log.lines().filter(elsewhere) {
        // `readlink` is no link, and glibc's /dev/null is no file.
        let line = line.replace("readlink(", "");
        let change = changes.iter().find(|change| line.contains(**change));
        assert!(change.is_none() || line.contains("/dev/null"), "{line}");
        for consuming in ["trace_pipe", "free_buffer", "tracing_mark", "trace_marker"] {
            assert!(!line.contains(consuming), "{line}");
        }
        let is_write = ["write(", "pwrite64(", "ioctl("]
            .iter()
            .any(|call| line.contains(call));
        // `-y` shows what a descriptor is: `3</sys/...>`.
        assert!(!is_write || !line.contains("</sys/"), "{line}");
    }
    assert!(
        log.contains("/proc/sys/kernel/panic"),
        "the log has what was read"
    );
    assert_eq!(state.names(), ["areas", "doctor.json", "generations", "id"]);
}

#[test]
fn canary_of_a_killed_writer_is_read_back_from_each_backing() {
    let state = State::new();
    let folder = TempDir::new().unwrap();
    let path = folder.path().display();
    for backing in [
        "file".into(),
        "tmpfs".into(),
        format!("file:{path}/area"),
        format!("file:{path}"),
    ] {
        let output = state.doctor(&["--prove", "--area", &format!("trace={backing}")]);
        let said = stderr(&output);
        assert!(said.contains("process: proven"), "{backing}: {said}");
        let report = state.json(&["--area", &format!("trace={backing}")]);
        let why = report["tiers"]["process"]["why"].as_str().unwrap();
        assert!(
            why.contains("proven") || why.contains("nothing is recorded"),
            "{why}"
        );
    }
    assert_eq!(state.names(), ["areas", "doctor.json", "generations", "id"]);
    assert_eq!(
        std::fs::read_dir(folder.path()).unwrap().count(),
        0,
        "nothing is left"
    );
    let proofs = state.notes()["proofs"].as_array().unwrap().clone();
    assert_eq!(proofs.len(), 4);
    assert!(proofs.iter().all(|proof| {
        proof["came_back"] == proof["written"] && proof["written"].as_u64() >= Some(500)
    }));
}

/// The area holds what a recorder left there: a canary lies beside it.
#[test]
fn proof_leaves_what_the_area_holds_as_it_is() {
    let state = State::new();
    outlive_trace::StateDir::open(&state.path()).unwrap();
    let area = state.path().join("areas/trace");
    std::fs::write(&area, b"what a run left").unwrap();
    let output = state.doctor(&["--prove"]);
    assert!(stderr(&output).contains("process: proven"), "{output:?}");
    assert_eq!(std::fs::read(&area).unwrap(), b"what a run left");
    let kept = outlive_trace::StateDir::open(&state.path()).unwrap();
    assert!(outlive_trace::generation::list(&kept).unwrap().is_empty());
}

#[test]
fn proof_works_beside_a_recorder_and_over_the_leftovers_of_one_that_was_killed() {
    let state = State::new();
    let opened = outlive_trace::StateDir::open(&state.path()).unwrap();
    let _recorder = opened.try_lock_exclusive().unwrap();
    let line = "reserve_mem=512K:4096:c0 trace_instance=c0@c0,outlive:canary";
    let killed = Command::new(env!("CARGO_BIN_EXE_outlive"))
        .arg("--state")
        .arg(state.path())
        .args(["doctor", "--write-canary", line, "--area", "c0=file"])
        .output()
        .unwrap();
    assert_eq!(killed.status.code(), None, "it kills itself: {killed:?}");
    assert!(state.path().join("canary/areas/c0").exists());
    let output = state.doctor(&["--prove"]);
    assert!(stderr(&output).contains("process: proven"), "{output:?}");
    assert!(!state.path().join("canary").exists());
}

/// What a reboot leaves, without one: the boot id in the notes is another's.
#[test]
fn canary_of_another_boot_is_read_back_once() {
    let state = State::new();
    let output = state.doctor(&["--prove", "--reboot"]);
    assert!(stderr(&output).contains("reboot the machine"), "{output:?}");
    let waiting = state.doctor(&[]);
    assert!(
        stderr(&waiting).contains("canaries wait for a reboot"),
        "{waiting:?}"
    );
    state.pretend_reboot();
    let after = state.doctor(&[]);
    assert!(stderr(&after).contains("panic, reset: proven"), "{after:?}");
    let notes = state.notes();
    assert_eq!(notes["pending"], Value::Null);
    assert_eq!(notes["proofs"][1]["death"], "reboot");
    assert!(!state.path().join("canary").exists());
    assert!(
        !stderr(&state.doctor(&[])).contains("proven"),
        "it is said once"
    );
}

#[test]
fn canary_that_is_gone_after_the_reboot_is_not_proven() {
    let state = State::new();
    state.doctor(&["--prove", "--reboot"]);
    std::fs::remove_file(state.path().join("canary/areas/c0")).unwrap();
    state.pretend_reboot();
    let after = state.doctor(&[]);
    let said = stderr(&after);
    assert!(said.contains("panic, reset: NOT proven: 0 of"), "{said}");
    let report = state.json(&[]);
    let why = report["tiers"]["panic"]["why"].as_str().unwrap();
    assert!(
        why.contains("did not come back") || why.contains("nothing is recorded"),
        "{why}"
    );
}

impl State {
    fn pretend_reboot(&self) {
        let mut notes = self.notes();
        notes["pending"]["boot_id"] = "00000000-0000-0000-0000-000000000000".into();
        std::fs::write(self.path().join("doctor.json"), notes.to_string()).unwrap();
    }
}

#[test]
fn limit_on_the_size_of_files_is_found() {
    let state = State::new();
    let plain = state.command(&["--json"]);
    let output = Command::new("sh")
        .args(["-c", "ulimit -f 100; exec \"$@\"", "sh"])
        .arg(plain.get_program())
        .args(plain.get_args())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(
        says(&report, "limits").starts_with("\"blocker\""),
        "{report}"
    );
    assert_eq!(report["tiers"]["process"]["answer"], "no");
}

#[test]
fn full_disk_is_found() {
    let state = State::new();
    std::fs::create_dir(state.path()).unwrap();
    let flags = rustix::mount::MountFlags::empty();
    if let Err(error) = rustix::mount::mount("none", state.path(), "tmpfs", flags, c"size=1m") {
        println!("full_disk_is_found: skipped: cannot mount: {error}");
        return;
    }
    let _unmount = Unmount(state.path());
    let report = state.json(&[]);
    assert!(
        says(&report, "space").starts_with("\"blocker\""),
        "{report}"
    );
    assert!(says(&report, "space").contains("needed"), "{report}");
    assert_eq!(state.doctor(&[]).status.code(), Some(1));
}

struct Unmount(PathBuf);

impl Drop for Unmount {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(&*self.0, rustix::mount::UnmountFlags::DETACH);
    }
}

#[test]
fn who_may_not_trace_is_told_so() {
    if !rustix::process::geteuid().is_root() {
        println!("who_may_not_trace_is_told_so: skipped: not root, who could become nobody");
        return;
    }
    let state = State::new();
    // The binary may lie where nobody can look.
    let program = state.0.path().join("outlive");
    std::fs::copy(env!("CARGO_BIN_EXE_outlive"), &program).unwrap();
    allow_all(state.0.path());
    let output = Command::new(&program)
        .args(["doctor", "--json", "--state"])
        .arg(state.0.path().join("none"))
        .arg(LINE)
        .uid(NOBODY)
        .gid(NOBODY)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(
        says(&report, "tracefs").starts_with("\"blocker\""),
        "{report}"
    );
}

fn allow_all(path: &Path) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
}

/// Such a line survives, and records nothing.
#[test]
fn event_that_the_kernel_has_not_is_told_with_the_nearest() {
    let seen =
        outlive_kernel::Tracefs::find_mounted().and_then(|tracefs| tracefs.available_events());
    if seen.is_err() {
        println!("skipped: the kernel's events cannot be seen");
        return;
    }
    let state = State::new();
    let output = Command::new(env!("CARGO_BIN_EXE_outlive"))
        .arg("--state")
        .arg(state.path())
        .args(["doctor", &LINE.replace("sched", "schd")])
        .output()
        .unwrap();
    let stderr = stderr(&output);
    assert!(
        stderr.contains("no event and no system is called `schd`")
            && stderr.contains("did you mean `sched`?"),
        "{stderr}"
    );
}

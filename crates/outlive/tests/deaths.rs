//! The ways to die that are no SIGKILL from outside: each takes a program whose threads are recording,
//! and each leaves every event that was acknowledged, as the kill storm does.

mod common;

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;

use common::storm::{self, End, judge, judge_end, record_steps};
use common::{Acks, Child, Folder, child_state, open_region, turn};
use outlive::{Backing, Error};
use outlive_trace::Verdict;
use outlive_trace::view::View;

/// How often each death is died.
const DEATHS: usize = 5;
/// What a child whose memory is not limited after all may take.
const MEMORY_MAX: usize = 1 << 30;
/// What a cgroup may take in which a child runs out of memory.
const MEMORY_LIMIT: &str = "67108864";
/// How a child ends that could not die as it should.
const STILL_ALIVE: i32 = 7;

// Each of the following tests is one child of another; it does nothing when it is run by itself.

/// Records with all threads until the parent asks, then dies in the first thread, behind an event.
fn die_when_asked(backing: Backing, die: fn()) {
    let Some((state, threads)) = child_state() else {
        return;
    };
    let recorder = storm::start(&state, backing).unwrap();
    let acks = Acks::open(&state, threads + 1);
    let after = |thread: u32| {
        if thread == 0 && is_asked(&acks, threads) {
            die();
        }
    };
    std::thread::scope(|scope| {
        for thread in 0..threads {
            let acks = &acks;
            scope.spawn(move || record_steps(acks, thread, || after(thread)));
        }
    });
    drop(recorder);
}

/// Behind the threads' numbers lies the parent's wish.
fn is_asked(acks: &Acks, threads: u32) -> bool {
    acks.load(threads) != 0
}

#[test]
fn child_faults() {
    die_when_asked(Backing::Tmpfs(None), || {
        let nowhere = std::ptr::without_provenance::<u32>(8);
        // SAFETY: none: this is the fault.
        std::hint::black_box(unsafe { nowhere.read_volatile() });
    });
}

#[test]
fn child_aborts() {
    die_when_asked(Backing::Tmpfs(None), || std::process::abort());
}

#[test]
fn child_exits_past_all_handlers() {
    // SAFETY: nothing runs after it.
    die_when_asked(Backing::Tmpfs(None), || unsafe { libc::_exit(0) });
}

#[test]
fn child_exits_without_drop() {
    die_when_asked(Backing::Tmpfs(None), || std::process::exit(0));
}

#[test]
fn child_panics() {
    let Some((state, _)) = child_state() else {
        return;
    };
    let _recorder = storm::start(&state, Backing::Tmpfs(None)).unwrap();
    outlive::event!("storm:last");
    panic!("out of main");
}

#[test]
fn child_runs_out_of_memory() {
    die_when_asked(Backing::Tmpfs(None), || {
        for _ in 0..MEMORY_MAX >> 20 {
            std::hint::black_box(Vec::leak(vec![1u8; 1 << 20]));
        }
        // SAFETY: nothing runs after it.
        unsafe { libc::_exit(STILL_ALIVE) };
    });
}

#[test]
fn child_records_on_a_disk() {
    die_when_asked(Backing::File, || {});
}

// ---- The tests ----

/// A child that has begun to record with all of its threads.
fn recording_child(test: &str, state: &Path, threads: u32) -> (Child, Acks) {
    let acks = Acks::create(state, threads + 1);
    let child = Child::spawn(test, state, threads);
    while (0..threads).any(|thread| acks.load(thread) == 0) {
        std::thread::yield_now();
    }
    (child, acks)
}

/// Lets children die so, and judges what each leaves.
fn die(test: &str, threads: u32, is_right_death: impl Fn(ExitStatus) -> bool) {
    let end = match threads {
        1 => End::BehindEvent,
        _ => End::Sudden,
    };
    die_with(test, threads, end, is_right_death);
}

fn die_with(test: &str, threads: u32, end: End, is_right_death: impl Fn(ExitStatus) -> bool) {
    let folder = Folder::new();
    for _ in 0..DEATHS {
        let (child, acks) = recording_child(test, folder.path(), threads);
        acks.store(threads, 1);
        let status = child.wait();
        assert!(is_right_death(status), "{test}: {status}");
        let view = open_region(folder.path(), storm::PROGRAM);
        let total = judge_end(&view, &acks, threads, end);
        assert!(total.events > 0, "{test}: {total:?}");
    }
}

#[test]
fn a_fault_in_one_thread_keeps_what_all_had_recorded() {
    for threads in [1, 8] {
        die("child_faults", threads, |status| {
            status.signal() == Some(libc::SIGSEGV)
        });
    }
}

#[test]
fn an_abort_in_one_thread_keeps_what_all_had_recorded() {
    for threads in [1, 8] {
        die("child_aborts", threads, |status| {
            status.signal() == Some(libc::SIGABRT)
        });
    }
}

#[test]
fn an_exit_past_all_handlers_keeps_what_all_had_recorded() {
    for threads in [1, 8] {
        die("child_exits_past_all_handlers", threads, |status| {
            status.code() == Some(0)
        });
    }
}

#[test]
fn an_exit_without_drop_keeps_everything() {
    die("child_exits_without_drop", 1, |status| {
        status.code() == Some(0)
    });
}

/// Other threads go on while `exit` has ended the recording: what they did before is there, without a gap.
#[test]
fn an_exit_of_one_thread_keeps_what_all_had_recorded_before() {
    die_with("child_exits_without_drop", 8, End::Closed, |status| {
        status.code() == Some(0)
    });
}

/// The recorder is dropped on the way, and the process still exits by itself.
#[test]
fn a_panic_out_of_main_is_a_crash_and_gives_everything_back() {
    let folder = Folder::new();
    let status = Child::spawn("child_panics", folder.path(), 1).wait();
    assert_eq!(status.code(), Some(101));
    let _turn = turn();
    let recorder = storm::start(folder.path(), Backing::Tmpfs(None)).unwrap();
    let previous = recorder.previous().expect("the run before is kept");
    assert_eq!(previous.verdict(), Verdict::Crash);
    assert_eq!(
        previous.view().unwrap().entries(),
        2,
        "the event and the panic"
    );
    // In this process, which goes on.
    let unwound = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let _recorder = recorder;
        panic!("caught");
    }));
    assert!(unwound.is_err());
    let next = storm::start(folder.path(), Backing::Tmpfs(None)).unwrap();
    let previous = next.previous().expect("the run before is kept");
    assert_eq!(previous.verdict(), Verdict::Crash);
}

/// A memory cgroup with a limit, gone with the test.
struct Cgroup(PathBuf);

impl Cgroup {
    /// Version 1 or 2; else why there is none.
    fn limited() -> Result<Self, String> {
        let name = format!("outlive-test-{}", std::process::id());
        let v1 = Path::new("/sys/fs/cgroup/memory");
        let (root, limit) = match v1.join("memory.limit_in_bytes").exists() {
            true => (v1, "memory.limit_in_bytes"),
            false => (Path::new("/sys/fs/cgroup"), "memory.max"),
        };
        let folder = root.join(name);
        fs::create_dir(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        let cgroup = Self(folder);
        // Where there is swap too, it would only take longer.
        let _ = fs::write(cgroup.0.join("memory.swap.max"), "0");
        fs::write(cgroup.0.join(limit), MEMORY_LIMIT)
            .map_err(|error| format!("{limit}: {error}"))?;
        Ok(cgroup)
    }

    fn take(&self, process: u32) {
        fs::write(self.0.join("cgroup.procs"), process.to_string()).unwrap();
    }

    /// How often the kernel has killed in it.
    fn oom_kills(&self) -> usize {
        let files = ["memory.events", "memory.oom_control"];
        let texts = files
            .iter()
            .filter_map(|file| fs::read_to_string(self.0.join(file)).ok());
        let text: String = texts.collect();
        let kills = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
        kills.map_or(0, |kills| kills.trim().parse().unwrap())
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}

#[test]
fn a_kill_for_want_of_memory_keeps_what_all_had_recorded() {
    let cgroup = match Cgroup::limited() {
        Ok(cgroup) => cgroup,
        Err(why) => return println!("oom_kill: skipped: no memory cgroup: {why}"),
    };
    let folder = Folder::new();
    for death in 1..=DEATHS {
        let threads = 8;
        let test = "child_runs_out_of_memory";
        let (child, acks) = recording_child(test, folder.path(), threads);
        cgroup.take(child.id());
        acks.store(threads, 1);
        let status = child.wait();
        assert_eq!(status.signal(), Some(libc::SIGKILL), "{status}");
        assert_eq!(cgroup.oom_kills(), death, "the kernel has killed it");
        let view = open_region(folder.path(), storm::PROGRAM);
        assert!(judge(&view, &acks, threads).events > 0);
    }
}

/// A small tmpfs, gone with the test.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(folder: PathBuf) -> Result<Self, std::io::Error> {
        fs::create_dir(&folder)?;
        let target = std::ffi::CString::new(folder.to_str().unwrap()).unwrap();
        // SAFETY: all texts end with a zero.
        let result = unsafe {
            libc::mount(
                c"none".as_ptr(),
                target.as_ptr(),
                c"tmpfs".as_ptr(),
                0,
                c"size=4m,mode=0700".as_ptr().cast(),
            )
        };
        match result {
            0 => Ok(Self(folder)),
            _ => Err(std::io::Error::last_os_error()),
        }
    }

    fn filler(&self) -> PathBuf {
        self.0.join("filler")
    }

    /// Leaves not a block.
    fn fill(&self) {
        use std::io::Write;
        let mut file = fs::File::create(self.filler()).unwrap();
        while file.write_all(&[1; 4096]).is_ok() {}
    }

    fn give_back(&self, bytes: u64) {
        let file = fs::OpenOptions::new()
            .write(true)
            .open(self.filler())
            .unwrap();
        let len = file.metadata().unwrap().len();
        file.set_len(len - bytes).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let target = std::ffi::CString::new(self.0.to_str().unwrap()).unwrap();
        // SAFETY: the path ends with a zero.
        unsafe { libc::umount2(target.as_ptr(), libc::MNT_DETACH) };
    }
}

/// A region has its blocks from the start on: a disk that fills up afterwards takes nothing from it.
/// The next start has no room to keep it, says so and leaves it as it is; with room it is kept.
#[test]
fn a_disk_that_fills_up_costs_no_event() {
    let folder = Folder::new();
    let disk = match SmallDisk::mount(folder.path().join("disk")) {
        Ok(disk) => disk,
        Err(error) => return println!("full_disk: skipped: cannot mount a tmpfs: {error}"),
    };
    let (state, threads) = (disk.0.as_path(), 2);
    let (child, acks) = recording_child("child_records_on_a_disk", state, threads);
    disk.fill();
    let since_full: Vec<u64> = (0..threads).map(|thread| acks.load(thread)).collect();
    // Several times round the ring.
    while (0..threads).any(|thread| acks.load(thread) < since_full[thread as usize] + 100_000) {
        std::thread::yield_now();
    }
    child.kill();
    let live = open_region(state, storm::PROGRAM);
    assert!(live.cpus.iter().any(|cpu| cpu.counters.overrun > 0));
    let total = judge(&live, &acks, threads);
    assert!(total.events > 0);

    let _turn = turn();
    let needed_by_start = || match storm::start(state, Backing::File) {
        Err(Error::Trace(outlive_trace::Error::NoSpace { needed_bytes, .. })) => needed_bytes,
        other => panic!("{other:?}"),
    };
    needed_by_start();
    // Now small files find room.
    disk.give_back(128 << 10);
    assert!(needed_by_start() >= 1 << 20);
    let judged = |view: &View| judge(view, &acks, threads).events;
    assert_eq!(judged(&open_region(state, storm::PROGRAM)), total.events);

    fs::remove_file(disk.filler()).unwrap();
    let recorder = storm::start(state, Backing::File).unwrap();
    let previous = recorder.previous().expect("the run before is kept");
    assert_eq!(judged(&previous.view().unwrap()), total.events);
}

//! What becomes of the events of processes that end in any way, fork, or execute another program.

mod common;

use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;

use common::{Child, Decoded, Folder, child_state, events_of, open_region, turn};
use outlive::{Field, Recorder, Verdict, dynamic, event, span};
use outlive_trace::beside::{self, BESIDE_MAX};
use outlive_trace::generation;
use outlive_trace::view::View;

fn start(state: &Path) -> Recorder {
    Recorder::builder("prog")
        .state(state)
        .size(256 << 10)
        .start()
        .unwrap()
}

fn numbers(events: &[Decoded]) -> Vec<u64> {
    let steps = events.iter().filter(|event| event.name == "test:step");
    steps.map(|event| event.u64("number")).collect()
}

/// Runs a child, and gives what it left and the number of the signal that ended it.
fn left_by(test: &str) -> (Folder, Vec<u64>, Option<i32>) {
    let folder = Folder::new();
    let status = Child::spawn(test, folder.path(), 1).wait();
    let events = events_of(&open_region(folder.path(), "prog"));
    (folder, numbers(&events), status.signal())
}

/// What the next start says of the run.
fn verdict_of_next_start(state: &Path) -> Verdict {
    let _turn = turn();
    let recorder = start(state);
    let previous = recorder.previous().expect("there was a run before");
    let view = previous.view().unwrap();
    assert_eq!(
        numbers(&events_of(&view)),
        [1, 2, 3],
        "the generation has them too"
    );
    previous.verdict()
}

fn record_three() {
    for number in 1..=3u64 {
        event!("test:step", number = number);
    }
}

// Each of the following tests is one child of another; it does nothing when it is run by itself.

#[test]
fn child_aborts() {
    if let Some((state, _)) = child_state() {
        let _recorder = start(&state);
        record_three();
        std::process::abort();
    }
}

#[test]
fn child_has_a_segmentation_fault() {
    if let Some((state, _)) = child_state() {
        let _recorder = start(&state);
        record_three();
        let nowhere = std::ptr::without_provenance::<u32>(8);
        // SAFETY: none: this is the fault.
        std::hint::black_box(unsafe { nowhere.read_volatile() });
    }
}

#[test]
fn child_exits_without_drop() {
    if let Some((state, _)) = child_state() {
        let recorder = start(&state);
        record_three();
        std::mem::forget(recorder);
        std::process::exit(0);
    }
}

#[test]
fn child_exits_at_once() {
    if let Some((state, _)) = child_state() {
        let _recorder = start(&state);
        record_three();
        // SAFETY: nothing runs after it.
        unsafe { libc::_exit(0) };
    }
}

#[test]
fn child_executes_another_program() {
    if let Some((state, _)) = child_state() {
        let _recorder = start(&state);
        record_three();
        panic!("{}", std::process::Command::new("true").exec());
    }
}

#[test]
fn child_drops_its_recorder() {
    if let Some((state, _)) = child_state() {
        drop(start(&state));
        let recorder = start(&state);
        record_three();
        drop(recorder);
        event!("test:step", number = 4u64);
    }
}

/// Forks, and waits for the child, which runs `f`.
fn fork(f: impl FnOnce()) -> i32 {
    // SAFETY: the child calls what it may, and ends.
    match unsafe { libc::fork() } {
        0 => {
            f();
            // SAFETY: nothing runs after it.
            unsafe { libc::_exit(0) };
        }
        child => {
            let mut status = 0;
            // SAFETY: our child, and room for its status.
            assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
            assert_eq!(status, 0);
            child
        }
    }
}

#[test]
fn child_forks() {
    if let Some((state, _)) = child_state() {
        let mut recorder = Some(start(&state));
        event!("test:step", number = 1u64);
        fork(|| {
            for number in 11..=13u64 {
                event!("test:step", number = number);
                event!("test:other", number = number);
            }
            fork(|| event!("test:step", number = 21u64));
            event!("test:step", number = 14u64);
        });
        fork(|| {});
        fork(|| drop(recorder.take()));
        event!("test:step", number = 2u64);
        event!("test:step", number = 3u64);
        std::process::abort();
    }
}

/// The first events of forked children, each at a place where the parent has recorded nothing before the
/// fork but has something new since.
#[test]
fn child_forks_what_records_something_new() {
    let Some((state, _)) = child_state() else {
        return;
    };
    let _recorder = start(&state);
    event!("test:step", number = 1u64);
    let open = span!("test:open");
    let fields = [("text", <str as Field>::TYPE)];
    let declared = dynamic::Event::declare("child", "declared", &fields).unwrap();
    fork_behind(
        || event!("late:one", number = 11u64),
        || event!("child:first", text = "of the child"),
    );
    fork_behind(
        || event!("late:two", number = 12u64),
        || drop(span!("child:span", text = "of the child")),
    );
    fork_behind(
        || event!("late:three", number = 13u64),
        || assert!(declared.record(|fields| fields.put(0, "of the child"))),
    );
    fork_behind(|| event!("late:four", number = 14u64), || drop(open));
    std::process::abort();
}

/// Forks; `parent` runs before `child` does.
fn fork_behind(parent: impl FnOnce(), child: impl FnOnce()) {
    let (reader, writer) = rustix::pipe::pipe().unwrap();
    // SAFETY: the child calls what it may, and ends.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        drop(writer);
        // Until the parent has closed its end.
        assert_eq!(rustix::io::read(reader, &mut [0; 1]), Ok(0));
        // SAFETY: the name ends with a zero.
        unsafe { libc::prctl(libc::PR_SET_NAME, c"the child".as_ptr()) };
        child();
        // SAFETY: nothing runs after it.
        unsafe { libc::_exit(0) };
    }
    // What it would end is for the child to end.
    std::mem::forget(child);
    parent();
    drop(writer);
    // SAFETY: our child.
    unsafe { libc::waitpid(pid, std::ptr::null_mut(), 0) };
}

/// Children wrote their formats behind the parent's as they were at the fork: over those that had come
/// since, so that the parent's events were shown with the fields of others.
#[test]
fn a_forked_childs_first_event_leaves_its_parents_catalog_alone() {
    let folder = Folder::new();
    let status = Child::spawn("child_forks_what_records_something_new", folder.path(), 1).wait();
    assert_eq!(status.signal(), Some(libc::SIGABRT));
    let parents = open_region(folder.path(), "prog");
    let names = |view: &View| -> Vec<String> {
        let events = view.catalog.events();
        events.map(|event| event.name.clone()).collect()
    };
    assert_eq!(
        names(&parents),
        ["step", "open", "one", "two", "three", "four"]
    );
    let late = events_of(&parents);
    let late = late.iter().filter(|event| event.name.starts_with("late:"));
    let late: Vec<u64> = late.map(|event| event.u64("number")).collect();
    assert_eq!(late, [11, 12, 13, 14]);
    let is_childs = |tasks: &[(i32, Vec<u8>)]| tasks.iter().any(|(_, name)| name == b"the child");
    let tasks = |path: &Path| {
        let mapping = outlive_trace::Mapping::of_path(path).unwrap();
        let layout = outlive_ring::extension::Layout::load(&mapping).unwrap();
        outlive_ring::catalog::task_names(&layout, &mapping)
    };
    let live = common::region_path(folder.path(), "prog");
    assert!(!is_childs(&tasks(&live)));
    let mut firsts = Vec::new();
    for (_, path) in outlive_trace::apps::children(&live) {
        assert!(is_childs(&tasks(&path)));
        let events = events_of(&View::open(&path).unwrap());
        firsts.push(events[0].name.clone());
        if let Some(first) = events.iter().find(|event| event.name.starts_with("child:")) {
            assert_eq!(first.text("text"), "of the child");
        }
    }
    firsts.sort();
    assert_eq!(
        firsts,
        [
            "child:declared",
            "child:first",
            "child:span",
            "outlive:span_end"
        ]
    );
}

#[test]
fn child_forks_one_that_goes_on() {
    if let Some((state, _)) = child_state() {
        let _recorder = start(&state);
        record_three();
        let forked = common::Acks::create(&state, 1);
        // SAFETY: the child only stores, waits, and ends.
        if unsafe { libc::fork() } == 0 {
            forked.store(0, 1);
            // A named pipe: until the test opens it too.
            let _ = std::fs::read(state.join("go"));
            // SAFETY: nothing runs after it.
            unsafe { libc::_exit(0) };
        }
        // In the child, `fork` has to return first: until then it has the parent's locks.
        while forked.load(0) == 0 {
            std::thread::yield_now();
        }
        std::process::abort();
    }
}

/// A worker that never recorded, and outlived its parent, kept the parent's area locked: the next
/// start was refused.
#[test]
fn a_child_that_goes_on_does_not_hold_its_parents_locks() {
    let folder = Folder::new();
    let pipe = folder.path().join("go");
    let name = std::ffi::CString::new(pipe.to_str().unwrap()).unwrap();
    // SAFETY: the path ends with a zero.
    assert_eq!(unsafe { libc::mkfifo(name.as_ptr(), 0o600) }, 0);
    let status = Child::spawn("child_forks_one_that_goes_on", folder.path(), 1).wait();
    assert_eq!(status.signal(), Some(libc::SIGABRT));
    assert_eq!(verdict_of_next_start(folder.path()), Verdict::Crash);
    // Opens when the child reads: it was there all the time.
    std::fs::write(pipe, "").unwrap();
}

#[test]
fn an_abort_or_a_fault_keeps_every_event() {
    for (test, signal) in [
        ("child_aborts", libc::SIGABRT),
        ("child_has_a_segmentation_fault", libc::SIGSEGV),
    ] {
        let (folder, numbers, ended_by) = left_by(test);
        assert_eq!(ended_by, Some(signal), "{test}");
        assert_eq!(numbers, [1, 2, 3], "{test}");
        assert_eq!(
            verdict_of_next_start(folder.path()),
            Verdict::Crash,
            "{test}"
        );
    }
}

#[test]
fn an_exit_without_drop_is_a_clean_one() {
    let (folder, numbers, _) = left_by("child_exits_without_drop");
    assert_eq!(numbers, [1, 2, 3]);
    assert_eq!(verdict_of_next_start(folder.path()), Verdict::CleanExit);
}

/// `_exit` runs nothing, so nothing can say that the end was wanted.
#[test]
fn an_exit_past_all_handlers_and_an_exec_keep_every_event() {
    for test in ["child_exits_at_once", "child_executes_another_program"] {
        let (folder, numbers, _) = left_by(test);
        assert_eq!(numbers, [1, 2, 3], "{test}");
        assert_eq!(
            verdict_of_next_start(folder.path()),
            Verdict::Crash,
            "{test}"
        );
    }
}

#[test]
fn a_dropped_recorder_ends_and_another_may_start() {
    let (folder, numbers, signal) = left_by("child_drops_its_recorder");
    assert_eq!((numbers.as_slice(), signal), ([1, 2, 3].as_slice(), None));
    assert_eq!(verdict_of_next_start(folder.path()), Verdict::CleanExit);
}

#[test]
fn forked_children_have_regions_of_their_own() {
    let (folder, numbers_of_parent, signal) = left_by("child_forks");
    assert_eq!(signal, Some(libc::SIGABRT));
    assert_eq!(numbers_of_parent, [1, 2, 3]);
    let live = common::region_path(folder.path(), "prog");
    let children = outlive_trace::apps::children(&live);
    let mut left: Vec<Vec<u64>> = children
        .iter()
        .map(|(_, path)| numbers(&events_of(&View::open(path).unwrap())))
        .collect();
    left.sort();
    assert_eq!(
        left,
        [vec![11, 12, 13, 14], vec![21]],
        "who recorded nothing has none"
    );
    let _turn = turn();
    drop(start(folder.path()));
    assert!(
        outlive_trace::apps::children(&live).is_empty(),
        "the next start has kept them"
    );
    let state = outlive_trace::apps::of_instance(folder.path(), "prog")
        .unwrap()
        .unwrap();
    let kept = generation::list_instance(&state, "prog.child").unwrap();
    let mut kept: Vec<Vec<u64>> = kept
        .iter()
        .map(|kept| numbers(&events_of(&View::open(&kept.region_path()).unwrap())))
        .collect();
    kept.sort();
    assert_eq!(kept, left);
}

/// From now on the calling thread may not call `membarrier`. Whether it could so far.
fn forbid_membarrier() -> bool {
    // What the system has (MEMBARRIER_CMD_QUERY, membarrier(2)).
    // SAFETY: numbers only.
    if unsafe { libc::syscall(libc::SYS_membarrier, 0, 0) } <= 0 {
        return false;
    }
    let instruction = |code: u32, (jt, jf), k| libc::sock_filter {
        code: code as u16,
        jt,
        jf,
        k,
    };
    let (load, jump, ret) = (libc::BPF_LD, libc::BPF_JMP, libc::BPF_RET);
    let refused = libc::SECCOMP_RET_ERRNO | libc::EPERM.cast_unsigned();
    let mut filter = [
        // The call's number is the first word of what is looked at (seccomp(2)).
        instruction(load | libc::BPF_W | libc::BPF_ABS, (0, 0), 0),
        instruction(
            jump | libc::BPF_JEQ | libc::BPF_K,
            (0, 1),
            libc::SYS_membarrier as u32,
        ),
        instruction(ret | libc::BPF_K, (0, 0), refused),
        instruction(ret | libc::BPF_K, (0, 0), libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog {
        len: filter.len() as u16,
        filter: filter.as_mut_ptr(),
    };
    // SAFETY: the program is as seccomp(2) wants it; it is copied.
    unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
            && libc::prctl(
                libc::PR_SET_SECCOMP,
                libc::SECCOMP_MODE_FILTER,
                &raw const program,
            ) == 0
    }
}

#[test]
fn child_may_not_call_membarrier_any_more() {
    let Some((state, threads)) = child_state() else {
        return;
    };
    let builder = Recorder::builder("prog").state(&state).size(256 << 10);
    let _recorder = builder.lanes(1).start().unwrap();
    let acks = common::Acks::open(&state, threads);
    std::thread::scope(|scope| {
        let owner = scope.spawn(|| {
            event!("test:step", number = 1u64);
            acks.store(0, 1);
            std::thread::park();
            event!("test:step", number = 3u64);
        });
        while acks.load(0) == 0 {
            std::thread::yield_now();
        }
        if forbid_membarrier() {
            event!("test:step", number = 2u64);
            acks.store(0, 2);
        }
        owner.thread().unpark();
        owner.join().unwrap();
    });
    std::process::abort();
}

/// Without a barrier in the owner's thread its slot may look as if it was outside of its lane.
#[test]
fn a_lane_is_not_taken_from_its_owner_when_the_barrier_fails() {
    let folder = Folder::new();
    let acks = common::Acks::create(folder.path(), 1);
    let test = "child_may_not_call_membarrier_any_more";
    let status = Child::spawn(test, folder.path(), 1).wait();
    assert_eq!(status.signal(), Some(libc::SIGABRT));
    if acks.load(0) != 2 {
        return println!("membarrier: skipped: there is none, or no seccomp filter can be set");
    }
    let view = open_region(folder.path(), "prog");
    assert_eq!(numbers(&events_of(&view)), [1, 3]);
    assert_eq!(view.cpus[0].counters.dropped, 1);
}

/// One child more at a time than may have regions, and then some more, one after the other.
#[test]
fn child_forks_many() {
    let Some((state, _)) = child_state() else {
        return;
    };
    let _recorder = start(&state);
    let acks = common::Acks::open(&state, 1);
    let (reader, writer) = rustix::pipe::pipe().unwrap();
    let at_once = BESIDE_MAX as u64 + 1;
    for number in 1..=at_once {
        // SAFETY: the child calls what it may, and ends.
        if unsafe { libc::fork() } == 0 {
            event!("test:step", number = number);
            acks.store(0, number);
            // Until the parent has closed its end.
            drop(writer);
            let _ = rustix::io::read(&reader, &mut [0; 1]);
            // SAFETY: nothing runs after it.
            unsafe { libc::_exit(0) };
        }
        while acks.load(0) < number {
            std::thread::yield_now();
        }
    }
    drop(writer);
    for _ in 0..at_once {
        // SAFETY: any child of ours.
        unsafe { libc::waitpid(-1, std::ptr::null_mut(), 0) };
    }
    for number in 101..=103u64 {
        fork(|| event!("test:step", number = number));
    }
    std::process::abort();
}

/// A server that forks for each request filled the tmpfs.
#[test]
fn forked_children_have_so_many_regions_at_most() {
    let folder = Folder::new();
    common::Acks::create(folder.path(), 1);
    let status = Child::spawn("child_forks_many", folder.path(), 1).wait();
    assert_eq!(status.signal(), Some(libc::SIGABRT));
    let live = common::region_path(folder.path(), "prog");
    let children = outlive_trace::apps::children(&live).into_iter();
    let mut left: Vec<u64> = children
        .flat_map(|(_, path)| numbers(&events_of(&View::open(&path).unwrap())))
        .collect();
    left.sort_unstable();
    let newest: Vec<u64> = (4..=BESIDE_MAX as u64).chain(101..=103).collect();
    assert_eq!(left, newest);
    assert_eq!(beside::refused(&live), 1, "the last one of the first");
    assert_eq!(beside::removed(&live), 3);
}

const THREADS_OF_CHILD: u64 = 8;

#[test]
fn child_forks_one_whose_threads_begin_at_once() {
    let Some((state, _)) = child_state() else {
        return;
    };
    let _recorder = start(&state);
    fork(|| {
        let begin = std::sync::Barrier::new(THREADS_OF_CHILD as usize);
        std::thread::scope(|scope| {
            for number in 1..=THREADS_OF_CHILD {
                let begin = &begin;
                scope.spawn(move || {
                    begin.wait();
                    event!("test:step", number = number);
                });
            }
        });
    });
    std::process::abort();
}

/// One of them makes the region; what the others had meanwhile was lost without a word.
#[test]
fn what_a_forked_childs_threads_lose_at_its_begin_is_counted() {
    for _ in 0..20 {
        let folder = Folder::new();
        let test = "child_forks_one_whose_threads_begin_at_once";
        let status = Child::spawn(test, folder.path(), 1).wait();
        assert_eq!(status.signal(), Some(libc::SIGABRT));
        let live = common::region_path(folder.path(), "prog");
        let (_, path) = &outlive_trace::apps::children(&live)[0];
        let view = View::open(path).unwrap();
        let dropped: u64 = view.cpus.iter().map(|cpu| cpu.counters.dropped).sum();
        let recorded = numbers(&events_of(&view)).len() as u64;
        assert_eq!(recorded + dropped, THREADS_OF_CHILD);
    }
}

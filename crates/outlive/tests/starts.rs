//! Starts that follow each other closely: what each run had recorded is kept once, wherever the one
//! after it is killed, and whether or not its background got to the end.

mod common;

use std::path::Path;
use std::time::Duration;

use common::{Acks, Child, Folder, child_state, events_of, turn};
use outlive::{Backing, Recorder};
use outlive_trace::view::View;
use outlive_trace::{Generation, StateDir, apps, generation};

const PROGRAM: &str = "starts";
/// Large enough for copying it to take some milliseconds.
const RING_BYTES: u64 = 8 << 20;
const STARTS: u32 = 40;

fn start(state: &Path, backing: Backing) -> Recorder {
    let builder = Recorder::builder(PROGRAM).state(state).backing(backing);
    builder.size(RING_BYTES).keep(1000).start().unwrap()
}

fn generations(state: &Path) -> Vec<Generation> {
    let state = StateDir::open(&apps::folder(state, PROGRAM).unwrap()).unwrap();
    generation::list_instance(&state, PROGRAM).unwrap()
}

/// The numbers that a generation's run had recorded.
fn numbers(kept: &Generation) -> Vec<u64> {
    let view = View::open(&kept.region_path()).unwrap();
    assert!(view.is_whole(), "{kept}");
    let events = events_of(&view).into_iter();
    events.map(|event| event.u64("number")).collect()
}

fn run_and_be_killed(backing: Backing) {
    let Some((state, number)) = child_state() else {
        return;
    };
    let _recorder = start(&state, backing);
    outlive::event!("starts:run", number = u64::from(number));
    Acks::open(&state, STARTS + 1).store(number, 1);
    std::thread::sleep(Duration::from_secs(60));
}

#[test]
fn child_runs_on_a_tmpfs() {
    run_and_be_killed(Backing::Tmpfs(None));
}

#[test]
fn child_runs_on_a_disk() {
    run_and_be_killed(Backing::File);
}

/// The waits go through the time that a start and its background take, 0.4 ms further each time.
#[test]
fn starts_that_are_killed_at_any_instant_lose_no_run_and_keep_none_twice() {
    let _turn = turn();
    let kinds = [
        ("child_runs_on_a_tmpfs", Backing::Tmpfs(None)),
        ("child_runs_on_a_disk", Backing::File),
    ];
    for (child, backing) in kinds {
        let folder = Folder::new();
        let acks = Acks::create(folder.path(), STARTS + 1);
        for number in 1..=STARTS {
            let child = Child::spawn(child, folder.path(), number);
            // The first one records, so that there is something from the beginning.
            while number == 1 && acks.load(number) == 0 {
                std::thread::yield_now();
            }
            std::thread::sleep(Duration::from_micros(u64::from(number) * 400));
            child.kill();
        }
        let recorder = start(folder.path(), backing);
        recorder.wait_for_background();
        drop(recorder);
        let kept = generations(folder.path());
        let found: Vec<u64> = kept.iter().flat_map(numbers).collect();
        for number in 1..=STARTS {
            let times = found
                .iter()
                .filter(|found| **found == u64::from(number))
                .count();
            let was_recorded = acks.load(number) == 1;
            assert!(
                times == 1 || times == 0 && !was_recorded,
                "{number}: {found:?}"
            );
        }
        for kept in &kept {
            assert!(!kept.region_path().is_symlink(), "{kept} is copied");
        }
    }
}

#[test]
fn spare_is_made_unless_it_is_not_wanted() {
    let _turn = turn();
    for (is_wanted, files) in [(true, 2), (false, 1)] {
        let folder = Folder::new();
        let area = tempfile::tempdir_in("/dev/shm").unwrap();
        let backing = Backing::Tmpfs(Some(area.path().to_owned()));
        let builder = Recorder::builder(PROGRAM).state(folder.path());
        let builder = builder.backing(backing).size(RING_BYTES);
        let builder = match is_wanted {
            true => builder,
            false => builder.no_spare(),
        };
        builder.start().unwrap().wait_for_background();
        assert_eq!(std::fs::read_dir(area.path()).unwrap().count(), files);
    }
}

/// A tool that is done before its background is, called again and again.
#[test]
fn recorders_that_end_at_once_keep_all_that_was_recorded() {
    let _turn = turn();
    let folder = Folder::new();
    for number in 0..5_u64 {
        let recorder = start(folder.path(), Backing::Tmpfs(None));
        let previous = recorder.previous();
        let previous = previous.map(|previous| numbers(previous.generation()));
        assert_eq!(previous, number.checked_sub(1).map(|before| vec![before]));
        outlive::event!("starts:run", number = number);
    }
    let found: Vec<u64> = generations(folder.path())
        .iter()
        .flat_map(numbers)
        .collect();
    assert_eq!(found, [0, 1, 2, 3]);
}

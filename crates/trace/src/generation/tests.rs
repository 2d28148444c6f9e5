use super::*;
use crate::Access;
use crate::Mapping;
use crate::testing::{KILLED_IN, SmallTmpfs, kill_child};
use outlive_ring::Memory;
use std::io::Write;

const LEN: u64 = 64 << 10;

/// A state with a live area file whose every byte is `fill`.
struct Fixture {
    folder: tempfile::TempDir,
    state: StateDir,
    live: PathBuf,
}

impl Fixture {
    fn new(fill: u8) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let state = StateDir::open(folder.path()).unwrap();
        let live = state.area_path("trace").unwrap();
        let fixture = Self {
            folder,
            state,
            live,
        };
        fixture.fill_live(fill);
        fixture
    }

    fn fill_live(&self, fill: u8) {
        durable::remove_if_there(&self.live).unwrap();
        let mut file = durable::create_new(&self.live).unwrap();
        file.write_all(&vec![fill; LEN as usize]).unwrap();
    }

    fn lock(&self) -> StateLock {
        self.state.try_lock_exclusive().unwrap()
    }

    fn rotate(&self, seq: u64) -> Result<Generation, Error> {
        let meta = Meta::new("boot_mapped", seq, "file");
        rotate_file_area(&self.state, &self.lock(), &self.live, LEN, &meta)
    }

    fn set_aside(&self, seq: u64) -> Result<Option<Generation>, Error> {
        let meta = Meta::new("boot_mapped", seq, "tmpfs");
        set_aside(&self.state, &self.lock(), &self.live, LEN, &meta)
    }

    fn copy_set_aside(&self) -> bool {
        copy_set_aside(&self.state, &self.lock(), &|| false).unwrap()
    }

    /// Where the live file is set aside.
    fn aside(&self) -> PathBuf {
        durable::with_suffix(&self.live, name::SET_ASIDE)
    }

    fn copy(&self, seq: u64) -> Result<Generation, Error> {
        let meta = Meta::new("boot_mapped", seq, "tmpfs");
        keep_by_copy(
            &self.state,
            &self.lock(),
            CopySource::File(&self.live),
            &meta,
        )
    }

    /// How many generations hold a whole region of this byte.
    fn kept(&self, fill: u8) -> usize {
        let generations = list(&self.state).unwrap();
        generations
            .iter()
            .filter(|kept| is_filled(&kept.region_path(), fill))
            .count()
    }
}

fn is_filled(path: &Path, fill: u8) -> bool {
    fs::read(path).is_ok_and(|bytes| bytes == vec![fill; LEN as usize])
}

#[test]
fn rotation_keeps_the_old_file_and_leaves_a_blank_one() {
    let fixture = Fixture::new(1);
    let inode = fs::metadata(&fixture.live).unwrap().ino();
    let generation = fixture.rotate(7).unwrap();
    assert_eq!(fs::metadata(generation.region_path()).unwrap().ino(), inode);
    assert!(is_filled(&fixture.live, 0));
    assert_eq!(generation.meta().unwrap().backing, "file");
    assert_eq!(
        generation.path(),
        fixture
            .folder
            .path()
            .join("generations/boot_mapped/00000007")
    );
}

#[test]
fn mapping_of_the_live_file_becomes_one_of_the_generation() {
    let fixture = Fixture::new(1);
    let file = durable::open_private(&fixture.live).unwrap().unwrap();
    let old = Mapping::of_file(&file, &fixture.live, LEN, Access::ReadOnly).unwrap();
    fixture.rotate(1).unwrap();
    fs::write(&fixture.live, vec![9; LEN as usize]).unwrap();
    assert_eq!(old.load_u32(0), 0x0101_0101);
}

#[test]
fn generations_are_listed_oldest_first() {
    let fixture = Fixture::new(1);
    for (seq, fill) in [(2, 20), (10, 100), (123_456_789, 9)] {
        fixture.fill_live(fill);
        fixture.rotate(seq).unwrap();
    }
    fs::create_dir(fixture.state.generations().join("boot_mapped/4")).unwrap();
    fs::create_dir(fixture.state.generations().join("boot_mapped/notes")).unwrap();
    let seqs: Vec<_> = list(&fixture.state)
        .unwrap()
        .iter()
        .map(Generation::seq)
        .collect();
    assert_eq!(seqs, [2, 10, 123_456_789]);
    assert_eq!(
        list_instance(&fixture.state, "boot_mapped").unwrap().len(),
        3
    );
    assert!(list_instance(&fixture.state, "other").unwrap().is_empty());
    assert!(list_instance(&fixture.state, "../areas").is_err());
}

#[test]
fn generation_is_never_replaced() {
    let fixture = Fixture::new(1);
    fixture.rotate(3).unwrap();
    fixture.fill_live(2);
    assert!(matches!(
        fixture.rotate(3),
        Err(Error::GenerationExists { .. })
    ));
    assert!(matches!(
        fixture.copy(3),
        Err(Error::GenerationExists { .. })
    ));
    assert!(is_filled(&fixture.live, 2));
    assert_eq!(fixture.kept(1), 1);
}

#[test]
fn rotation_without_room_leaves_everything_as_it_was() {
    let Some(tmpfs) = SmallTmpfs::mount("256k") else {
        return;
    };
    let state = StateDir::open(tmpfs.path()).unwrap();
    let lock = state.try_lock_exclusive().unwrap();
    let live = state.area_path("trace").unwrap();
    fs::write(&live, vec![1; LEN as usize]).unwrap();
    let meta = Meta::new("boot_mapped", 1, "file");
    let error = rotate_file_area(&state, &lock, &live, 1 << 20, &meta).unwrap_err();
    assert!(
        matches!(
            error,
            Error::NoSpace {
                needed_bytes: 0x100000,
                ..
            }
        ),
        "{error}"
    );
    assert!(is_filled(&live, 1));
    assert_eq!(entries(&state.areas()).unwrap(), [live]);
    assert!(entries(&state.generations()).unwrap().is_empty());
}

#[test]
fn copy_without_room_leaves_everything_as_it_was() {
    let Some(tmpfs) = SmallTmpfs::mount("64k") else {
        return;
    };
    let fixture = Fixture::new(1);
    let state = StateDir::open(tmpfs.path()).unwrap();
    let lock = state.try_lock_exclusive().unwrap();
    let meta = Meta::new("boot_mapped", 1, "mem");
    let source = CopySource::File(&fixture.live);
    let error = keep_by_copy(&state, &lock, source, &meta).unwrap_err();
    assert!(
        matches!(
            error,
            Error::NoSpace {
                needed_bytes: LEN,
                ..
            }
        ),
        "{error}"
    );
    assert!(entries(&state.generations()).unwrap().is_empty());
}

#[test]
fn rotation_over_two_file_systems_fails_and_undoes_itself() {
    let Some(tmpfs) = SmallTmpfs::mount("1m") else {
        return;
    };
    let mut fixture = Fixture::new(1);
    fixture.live = tmpfs.path().join("trace");
    fixture.fill_live(2);
    let error = fixture.rotate(1).unwrap_err();
    let Error::Io { source, .. } = &error else {
        panic!("{error}")
    };
    assert_eq!(source.kind(), io::ErrorKind::CrossesDevices);
    assert!(is_filled(&fixture.live, 2));
    assert_eq!(entries(tmpfs.path()).unwrap().len(), 1);
    assert!(list(&fixture.state).unwrap().is_empty());
}

#[test]
fn copy_of_a_file_and_of_a_mapping_are_the_same() {
    let fixture = Fixture::new(5);
    fixture.copy(1).unwrap();
    let file = durable::open_private(&fixture.live).unwrap().unwrap();
    let mapping = Mapping::of_file(&file, &fixture.live, LEN, Access::ReadWrite).unwrap();
    let meta = Meta::new("other", 2, "mem");
    let source = CopySource::Memory(&mapping);
    let copy = keep_by_copy(&fixture.state, &fixture.lock(), source, &meta).unwrap();
    assert!(is_filled(&copy.region_path(), 5));
    assert!(is_filled(&fixture.live, 5));
}

#[test]
fn region_that_is_set_aside_is_the_generations_before_and_after_it_is_copied() {
    let fixture = Fixture::new(5);
    let generation = fixture.set_aside(1).unwrap().unwrap();
    assert!(generation.region_path().is_symlink());
    assert!(is_filled(&fixture.live, 0) && is_filled(&generation.region_path(), 5));
    let open = Mapping::of_path(&generation.region_path()).unwrap();
    assert!(fixture.copy_set_aside());
    assert!(!generation.region_path().is_symlink());
    assert!(is_filled(&generation.region_path(), 5) && !fixture.aside().exists());
    assert_eq!(
        open.load_u32(0),
        0x0505_0505,
        "for who had opened it before"
    );
}

#[test]
fn second_region_is_not_set_aside_before_the_first_is_copied() {
    let fixture = Fixture::new(1);
    fixture.set_aside(1).unwrap().unwrap();
    fixture.fill_live(2);
    assert!(fixture.set_aside(2).unwrap().is_none());
    assert!(is_filled(&fixture.live, 2) && fixture.kept(1) == 1);
    fixture.copy_set_aside();
    fixture.set_aside(2).unwrap().unwrap();
    assert_eq!([1, 2].map(|fill| fixture.kept(fill)), [1, 1]);
}

/// The program ended.
#[test]
fn copying_that_is_ended_leaves_the_region_set_aside() {
    let fixture = Fixture::new(1);
    let generation = fixture.set_aside(1).unwrap().unwrap();
    assert!(!copy_set_aside(&fixture.state, &fixture.lock(), &|| true).unwrap());
    assert!(generation.region_path().is_symlink() && fixture.kept(1) == 1);
    assert_eq!(entries(generation.path()).unwrap().len(), 2);
}

#[test]
fn region_whose_copy_has_no_room_is_not_set_aside() {
    let Some(tmpfs) = SmallTmpfs::mount("64k") else {
        return;
    };
    let fixture = Fixture::new(1);
    let state = StateDir::open(tmpfs.path()).unwrap();
    let lock = state.try_lock_exclusive().unwrap();
    let meta = Meta::new("boot_mapped", 1, "tmpfs");
    let error = set_aside(&state, &lock, &fixture.live, LEN, &meta).unwrap_err();
    assert!(matches!(error, Error::NoSpace { .. }), "{error}");
    assert!(is_filled(&fixture.live, 1));
    assert!(entries(&state.generations()).unwrap().is_empty());
}

#[test]
fn removed_generation_takes_what_is_set_aside_with_it() {
    let fixture = Fixture::new(1);
    let generation = fixture.set_aside(1).unwrap().unwrap();
    generation.remove(&fixture.lock()).unwrap();
    assert!(!fixture.aside().exists());
}

/// The machine went down, and the tmpfs with it, before the copy was made.
#[test]
fn generation_whose_tmpfs_is_gone_is_told_and_removed() {
    let fixture = Fixture::new(1);
    let generation = fixture.set_aside(1).unwrap().unwrap();
    fs::remove_file(fixture.aside()).unwrap();
    let tidied = tidy(&fixture.state, &fixture.lock()).unwrap();
    assert_eq!(tidied.lost, [generation.path()]);
    assert!(list(&fixture.state).unwrap().is_empty());
}

/// Its tmpfs is mounted elsewhere, or not yet.
#[test]
fn generation_of_this_boot_is_not_given_up_where_its_file_is_not_seen() {
    let fixture = Fixture::new(1);
    let mut generation = fixture.set_aside(1).unwrap().unwrap();
    let boot_id = outlive_ring::RunId(crate::verdict::boot_id()).to_string();
    let note = |meta: &mut Meta| meta.boot_id = Some(boot_id);
    generation.update_meta(&fixture.lock(), note).unwrap();
    let elsewhere = fixture.aside().with_extension("elsewhere");
    fs::rename(fixture.aside(), &elsewhere).unwrap();
    let tidied = tidy(&fixture.state, &fixture.lock()).unwrap();
    assert_eq!(tidied, Tidied::default());
    assert!(fixture.copy_set_aside());
    fs::rename(elsewhere, fixture.aside()).unwrap();
    assert!(fixture.copy_set_aside());
    assert_eq!(fixture.kept(1), 1);
}

#[test]
fn same_bytes_are_not_copied_twice() {
    let fixture = Fixture::new(5);
    fixture.copy(1).unwrap();
    assert_eq!(fixture.copy(2).unwrap().seq(), 1);
    fixture.fill_live(6);
    assert_eq!(fixture.copy(3).unwrap().seq(), 3);
    assert_eq!(list(&fixture.state).unwrap().len(), 2);
}

/// What a killed run had left in the host's ring was collected by a start whose command line did not
/// have the instance. The next one that did took that for a copy of the region, and cleared it.
#[test]
fn another_region_of_the_same_run_is_no_copy() {
    let fixture = Fixture::new(b'a');
    let meta = |seq, recorded_as: Option<&str>| Meta {
        run_id: Some("1234".to_owned()),
        recorded_as: recorded_as.map(str::to_owned),
        ..Meta::new("boot_mapped", seq, "tmpfs")
    };
    let copy = |meta: &Meta| {
        let source = CopySource::File(&fixture.live);
        keep_by_copy(&fixture.state, &fixture.lock(), source, meta).unwrap()
    };
    copy(&meta(1, None));
    fixture.fill_live(b'b');
    copy(&meta(2, Some("boot_mapped")));
    fixture.fill_live(b'c');
    copy(&meta(3, Some("other")));
    assert_eq!([b'a', b'b', b'c'].map(|fill| fixture.kept(fill)), [1; 3]);
    // Cleared in part after it was copied.
    fixture.fill_live(b'd');
    assert_eq!(copy(&meta(4, Some("other"))).seq(), 3);
}

#[test]
fn collecting_generation_becomes_complete_and_keeps_unknown_fields() {
    let fixture = Fixture::new(1);
    let mut meta = Meta::new("boot_mapped", 1, "file");
    meta.state = GenerationState::Collecting;
    meta.other.insert("future".into(), 3.into());
    let lock = fixture.lock();
    rotate_file_area(&fixture.state, &lock, &fixture.live, LEN, &meta).unwrap();
    let mut found = list(&fixture.state).unwrap().pop().unwrap();
    assert!(found.is_collecting());
    found
        .update_meta(&lock, |meta| meta.state = GenerationState::Complete)
        .unwrap();
    let found = list(&fixture.state).unwrap().pop().unwrap();
    assert!(!found.is_collecting());
    assert_eq!(found.meta().unwrap().other["future"], 3);
}

#[test]
fn damaged_meta_costs_nothing_but_itself() {
    let fixture = Fixture::new(1);
    let generation = fixture.rotate(1).unwrap();
    fs::write(generation.path().join("meta.json"), b"{\"instance\": 5}").unwrap();
    let mut found = list(&fixture.state).unwrap().pop().unwrap();
    assert!(found.meta().is_none() && !found.is_collecting());
    assert!(found.created_ns().is_some());
    assert!(found.disk_bytes() >= LEN);
    found.update_meta(&fixture.lock(), |_| ()).unwrap();
    assert_eq!(list(&fixture.state).unwrap()[0].meta().unwrap().seq, 1);
}

#[test]
fn tidying_never_replaces_a_generation() {
    let fixture = Fixture::new(1);
    fixture.rotate(1).unwrap();
    let folder = fixture.state.generations().join("boot_mapped/00000001.new");
    fs::create_dir(&folder).unwrap();
    fs::copy(&fixture.live, folder.join("region")).unwrap();
    let tidied = tidy(&fixture.state, &fixture.lock()).unwrap();
    assert_eq!(
        tidied,
        Tidied {
            left: vec![folder],
            ..Tidied::default()
        }
    );
    assert_eq!(fixture.kept(1), 1);
}

#[test]
fn removed_generation_leaves_no_folder() {
    let fixture = Fixture::new(1);
    fixture.rotate(1).unwrap().remove(&fixture.lock()).unwrap();
    assert!(list(&fixture.state).unwrap().is_empty());
    assert_eq!(
        tidy(&fixture.state, &fixture.lock()).unwrap(),
        Tidied::default()
    );
    assert!(entries(&fixture.state.generations()).unwrap().is_empty());
}

/// Tests that run in a child process, which kills itself at a step.
mod killed {
    use super::*;

    fn kill(test: &str, fixture: &Fixture, step: &str) {
        kill_child(
            &format!("generation::tests::killed::{test}"),
            fixture.state.path(),
            step,
        );
    }

    /// The parent's fixture, in the child only.
    fn of_parent() -> Option<Fixture> {
        let state = StateDir::open(Path::new(&std::env::var_os(KILLED_IN)?)).unwrap();
        let live = state.area_path("trace").unwrap();
        Some(Fixture {
            folder: tempfile::tempdir().unwrap(),
            state,
            live,
        })
    }

    #[test]
    fn child_rotates() {
        if let Some(fixture) = of_parent() {
            fixture.rotate(1).unwrap();
        }
    }

    #[test]
    fn child_sets_aside() {
        if let Some(fixture) = of_parent() {
            fixture.set_aside(1).unwrap();
            fixture.copy_set_aside();
        }
    }

    #[test]
    fn child_copies() {
        if let Some(fixture) = of_parent() {
            fixture.copy(1).unwrap();
        }
    }

    #[test]
    fn child_takes_a_sequence() {
        if let Some(fixture) = of_parent() {
            fixture.state.next_sequence(&fixture.lock()).unwrap();
        }
    }

    #[test]
    fn child_removes() {
        if let Some(fixture) = of_parent() {
            let lock = fixture.lock();
            list(&fixture.state)
                .unwrap()
                .remove(0)
                .remove(&lock)
                .unwrap();
        }
    }

    /// What every start does first: tidy, and make a live file if there is none.
    fn start_again(fixture: &Fixture) {
        let lock = fixture.lock();
        let tidied = tidy(&fixture.state, &lock).unwrap();
        assert!(tidied.left.is_empty());
        assert_eq!(tidy(&fixture.state, &lock).unwrap(), Tidied::default());
        if !fixture.live.exists() {
            let prepared = prepare(&lock, &fixture.live, LEN).unwrap();
            show_prepared(&prepared, &fixture.live, "reserve-live").unwrap();
        }
    }

    #[test]
    fn rotation_killed_at_any_step_loses_no_region() {
        for step in ROTATE_STEPS {
            let fixture = Fixture::new(1);
            kill("child_rotates", &fixture, step);
            start_again(&fixture);
            let is_live = is_filled(&fixture.live, 1);
            assert_eq!(usize::from(is_live) + fixture.kept(1), 1, "{step}");
            // The same call again, by the next start.
            fixture.rotate(2).unwrap();
            assert_eq!(fixture.kept(1), 1, "{step}");
            assert!(is_filled(&fixture.live, 0), "{step}");
        }
    }

    #[test]
    fn setting_aside_killed_at_any_step_loses_no_region_and_keeps_none_twice() {
        for step in SET_ASIDE_STEPS.iter().chain(&COPY_LATER_STEPS) {
            let fixture = Fixture::new(1);
            kill("child_sets_aside", &fixture, step);
            start_again(&fixture);
            let is_live = is_filled(&fixture.live, 1);
            assert_eq!(usize::from(is_live) + fixture.kept(1), 1, "{step}");
            // The same call again, by the next start.
            assert!(fixture.copy_set_aside());
            fixture.set_aside(2).unwrap().unwrap();
            fixture.copy_set_aside();
            assert_eq!(fixture.kept(1), 1, "{step}");
            assert!(is_filled(&fixture.live, 0), "{step}");
        }
    }

    #[test]
    fn rotation_killed_before_it_began_can_have_the_same_number() {
        let fixture = Fixture::new(1);
        kill("child_rotates", &fixture, "rotate-folder");
        fixture.rotate(1).unwrap();
        assert_eq!(fixture.kept(1), 1);
    }

    #[test]
    fn copy_killed_at_any_step_loses_no_region_and_keeps_none_twice() {
        for step in COPY_STEPS {
            let fixture = Fixture::new(1);
            kill("child_copies", &fixture, step);
            assert!(is_filled(&fixture.live, 1), "{step}");
            start_again(&fixture);
            fixture.copy(2).unwrap();
            assert_eq!(fixture.kept(1), 1, "{step}");
            assert_eq!(list(&fixture.state).unwrap().len(), 1, "{step}");
        }
    }

    #[test]
    fn sequence_killed_at_any_step_is_never_given_twice() {
        for (step, next) in [("sequence-read", 1), ("sequence-written", 2)] {
            let fixture = Fixture::new(1);
            kill("child_takes_a_sequence", &fixture, step);
            assert_eq!(
                fixture.state.next_sequence(&fixture.lock()).unwrap(),
                next,
                "{step}"
            );
        }
    }

    #[test]
    fn removal_that_was_killed_is_ended() {
        let fixture = Fixture::new(1);
        fixture.rotate(1).unwrap();
        kill("child_removes", &fixture, "remove-renamed");
        assert!(list(&fixture.state).unwrap().is_empty());
        assert_eq!(
            tidy(&fixture.state, &fixture.lock()).unwrap().removed.len(),
            1
        );
        assert!(entries(&fixture.state.generations()).unwrap().is_empty());
    }

    #[test]
    fn lock_ends_with_a_killed_holder() {
        let fixture = Fixture::new(1);
        kill("child_rotates", &fixture, "rotate-moved");
        assert!(!fixture.state.is_locked().unwrap());
        assert_ne!(fixture.state.lock_holder().unwrap().pid, std::process::id());
    }
}

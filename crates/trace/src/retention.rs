//! How many generations are kept.
//!
//! By count, bytes and age. Two are never removed: the newest generation of each instance, which
//! is its backup, and one that is still *collecting*. [`plan`] decides and touches nothing;
//! [`apply`] removes by it; [`make_room`] removes what stands in the way of a new area, before a
//! start is refused for lack of space.

use std::collections::HashMap;
use std::path::Path;

use crate::generation::{self, Generation};
use crate::{Error, StateDir, StateLock, durable};

/// Generations kept of each instance by default.
pub const COUNT_DEFAULT: u32 = 8;

/// What is kept. `None` is no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Policy {
    /// Generations of each instance.
    pub count: Option<u32>,
    /// Bytes of all generations together.
    pub bytes: Option<u64>,
    /// Age in nanoseconds.
    pub age_ns: Option<u64>,
}

impl Policy {
    /// No limit at all.
    pub const KEEP_ALL: Self = Self {
        count: None,
        bytes: None,
        age_ns: None,
    };

    /// The default: 8 of each instance, together at most a tenth of the file system that holds
    /// the state, of any age.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if the size of the file system cannot be had.
    pub fn default_for(state: &StateDir) -> Result<Self, Error> {
        let bytes = Some(durable::total_bytes(&state.generations())? / 10);
        Ok(Self {
            count: Some(COUNT_DEFAULT),
            bytes,
            age_ns: None,
        })
    }
}

/// What retention looks at in a generation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GenerationInfo {
    /// The instance that it is one of.
    pub instance: String,
    /// Its number; larger is newer.
    pub seq: u64,
    /// Bytes on the disk.
    pub bytes: u64,
    /// When it was made, in nanoseconds since 1970-01-01 00:00:00 UTC; `None` is never too old.
    pub created_ns: Option<u64>,
    /// Whether events may still be missing in it.
    pub is_collecting: bool,
}

impl GenerationInfo {
    /// Looks at a generation.
    #[must_use]
    pub fn of(generation: &Generation) -> Self {
        Self {
            instance: generation.instance().to_owned(),
            seq: generation.seq(),
            bytes: generation.disk_bytes(),
            created_ns: generation.created_ns(),
            is_collecting: generation.is_collecting(),
        }
    }
}

/// Which generations have to go, as indices into `generations`, oldest first.
///
/// A clock that was set back makes no generation older than it is.
#[must_use]
pub fn plan(generations: &[GenerationInfo], policy: &Policy, now_ns: u64) -> Vec<usize> {
    let rank = ranks(generations);
    let is_over_count = |i: &usize| policy.count.is_some_and(|count| rank[*i] >= count as usize);
    let is_too_old = |i: &usize| match (policy.age_ns, generations[*i].created_ns) {
        (Some(age_ns), Some(created_ns)) => now_ns.saturating_sub(created_ns) > age_ns,
        _ => false,
    };
    let candidates = removable(generations);
    let mut total: u64 = generations
        .iter()
        .fold(0, |sum, g| sum.saturating_add(g.bytes));
    let mut doomed: Vec<usize> = Vec::new();
    let (first, rest): (Vec<_>, Vec<_>) = candidates
        .into_iter()
        .partition(|i| is_over_count(i) || is_too_old(i));
    for i in first {
        total = total.saturating_sub(generations[i].bytes);
        doomed.push(i);
    }
    for i in rest {
        if policy.bytes.is_none_or(|bytes| total <= bytes) {
            break;
        }
        total = total.saturating_sub(generations[i].bytes);
        doomed.push(i);
    }
    doomed.sort_by_key(|i| age_key(&generations[*i]));
    doomed
}

/// Oldest first.
fn age_key(generation: &GenerationInfo) -> (u64, &str) {
    (generation.seq, &generation.instance)
}

/// For each generation, how many of the same instance are newer.
fn ranks(generations: &[GenerationInfo]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..generations.len()).collect();
    order.sort_by_key(|i| std::cmp::Reverse(generations[*i].seq));
    let mut seen: HashMap<&str, usize> = HashMap::new();
    let mut rank = vec![0; generations.len()];
    for i in order {
        let newer = seen.entry(&generations[i].instance).or_default();
        rank[i] = *newer;
        *newer += 1;
    }
    rank
}

/// All that may be removed if need be, oldest first.
fn removable(generations: &[GenerationInfo]) -> Vec<usize> {
    let rank = ranks(generations);
    let mut removable: Vec<usize> = (0..generations.len())
        .filter(|i| rank[*i] > 0 && !generations[*i].is_collecting)
        .collect();
    removable.sort_by_key(|i| age_key(&generations[*i]));
    removable
}

/// Removes what `policy` does not keep, but nothing of `spared`. Returns what is gone.
///
/// # Errors
///
/// [`Error::Io`]; what was not reached is still there.
pub fn apply(
    state: &StateDir,
    lock: &StateLock,
    policy: &Policy,
    now_ns: u64,
    spared: &[Generation],
) -> Result<Vec<GenerationInfo>, Error> {
    let generations = generation::list(state)?;
    let infos: Vec<_> = generations.iter().map(GenerationInfo::of).collect();
    let mut doomed = plan(&infos, policy, now_ns);
    doomed.retain(|i| {
        let path = generations[*i].path();
        spared.iter().all(|spared| spared.path() != path)
    });
    remove(lock, generations, &infos, &doomed)
}

fn remove(
    lock: &StateLock,
    generations: Vec<Generation>,
    infos: &[GenerationInfo],
    doomed: &[usize],
) -> Result<Vec<GenerationInfo>, Error> {
    let mut removed = Vec::new();
    for (i, generation) in generations.into_iter().enumerate() {
        if doomed.contains(&i) {
            generation.remove(lock)?;
            removed.push(infos[i].clone());
        }
    }
    Ok(removed)
}

/// Removes the oldest generations until `needed_bytes` are free on the state's file system, even
/// if the policy would keep them. Returns what is gone.
///
/// # Errors
///
/// [`Error::NoSpace`] if removing all that may be removed would not do; then nothing is removed.
pub fn make_room(
    state: &StateDir,
    lock: &StateLock,
    needed_bytes: u64,
) -> Result<Vec<GenerationInfo>, Error> {
    let path = state.generations();
    let mut free_bytes = durable::free_bytes(&path)?;
    let generations = generation::list(state)?;
    let infos: Vec<_> = generations.iter().map(GenerationInfo::of).collect();
    let doomed = room(&infos, free_bytes, needed_bytes).ok_or_else(|| Error::NoSpace {
        path: path.clone(),
        needed_bytes,
        free_bytes,
    })?;
    let removed = remove(lock, generations, &infos, &doomed)?;
    free_bytes = durable::free_bytes(&path)?;
    if free_bytes < needed_bytes {
        return Err(Error::NoSpace {
            path,
            needed_bytes,
            free_bytes,
        });
    }
    Ok(removed)
}

/// Which to remove for `needed_bytes` to be free; `None` if all would not do.
fn room(
    generations: &[GenerationInfo],
    mut free_bytes: u64,
    needed_bytes: u64,
) -> Option<Vec<usize>> {
    let mut doomed = Vec::new();
    for i in removable(generations) {
        if free_bytes >= needed_bytes {
            break;
        }
        free_bytes = free_bytes.saturating_add(generations[i].bytes);
        doomed.push(i);
    }
    (free_bytes >= needed_bytes).then_some(doomed)
}

/// Tries something that needs space; if there is none on the state's file system, makes room and
/// tries once more.
///
/// # Errors
///
/// Those of `attempt`, the first [`Error::NoSpace`] if no room can be made.
pub fn with_room<T>(
    state: &StateDir,
    lock: &StateLock,
    mut attempt: impl FnMut() -> Result<T, Error>,
) -> Result<T, Error> {
    match attempt() {
        Err(Error::NoSpace {
            path,
            needed_bytes,
            free_bytes,
        }) if is_on_state(state, &path) => {
            let refused = Error::NoSpace {
                path,
                needed_bytes,
                free_bytes,
            };
            match make_room(state, lock, needed_bytes) {
                Ok(removed) if !removed.is_empty() => attempt(),
                Ok(_) | Err(Error::NoSpace { .. }) => Err(refused),
                Err(error) => Err(error),
            }
        }
        result => result,
    }
}

fn is_on_state(state: &StateDir, path: &Path) -> bool {
    let device = durable::device(durable::parent(path));
    matches!((device, durable::device(state.path())), (Ok(a), Ok(b)) if a == b)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generation::{CopySource, Meta, keep_by_copy};
    use crate::testing::SmallTmpfs;
    use proptest::prelude::*;

    fn info(instance: &str, seq: u64, bytes: u64) -> GenerationInfo {
        let created_ns = Some(seq * 100);
        GenerationInfo {
            instance: instance.into(),
            seq,
            bytes,
            created_ns,
            is_collecting: false,
        }
    }

    fn of_a(count: u64) -> Vec<GenerationInfo> {
        (1..=count).map(|seq| info("a", seq, 10)).collect()
    }

    fn by_count(count: u32) -> Policy {
        Policy {
            count: Some(count),
            ..Policy::KEEP_ALL
        }
    }

    #[test]
    fn count_is_per_instance() {
        let mut generations = of_a(4);
        generations.push(info("b", 5, 10));
        assert_eq!(plan(&generations, &by_count(2), 0), [0, 1]);
    }

    #[test]
    fn newest_is_kept_whatever_the_policy() {
        let policy = Policy {
            count: Some(0),
            bytes: Some(0),
            age_ns: Some(0),
        };
        assert_eq!(plan(&of_a(3), &policy, u64::MAX), [0, 1]);
    }

    #[test]
    fn bytes_are_of_all_instances_oldest_first() {
        let generations = [
            info("a", 1, 10),
            info("b", 2, 10),
            info("a", 3, 10),
            info("b", 4, 10),
        ];
        let policy = Policy {
            bytes: Some(30),
            ..Policy::KEEP_ALL
        };
        assert_eq!(plan(&generations, &policy, 0), [0]);
    }

    #[test]
    fn what_goes_by_count_counts_for_the_bytes() {
        let policy = Policy {
            bytes: Some(20),
            ..by_count(2)
        };
        assert_eq!(plan(&of_a(3), &policy, 0), [0]);
    }

    #[test]
    fn collecting_generation_is_kept() {
        let mut generations = of_a(3);
        generations[0].is_collecting = true;
        assert_eq!(plan(&generations, &by_count(1), 0), [1]);
    }

    #[test]
    fn clock_set_back_makes_nothing_old() {
        let policy = Policy {
            age_ns: Some(50),
            ..Policy::KEEP_ALL
        };
        assert!(plan(&of_a(3), &policy, 0).is_empty());
        assert_eq!(plan(&of_a(3), &policy, 160), [0]);
        let mut unknown = of_a(3);
        unknown[0].created_ns = None;
        assert!(plan(&unknown, &policy, 160).is_empty());
    }

    #[test]
    fn room_takes_no_more_than_needed_and_nothing_in_vain() {
        assert_eq!(room(&of_a(4), 5, 15), Some(vec![0]));
        assert_eq!(room(&of_a(4), 5, 5), Some(vec![]));
        assert_eq!(room(&of_a(4), 5, 36), None);
    }

    /// A state on a tmpfs of 1 MiB, with generations of 128 KiB.
    fn small_state(generations: u8) -> Option<(SmallTmpfs, StateDir, StateLock)> {
        let tmpfs = SmallTmpfs::mount("1m")?;
        let state = StateDir::open(tmpfs.path()).unwrap();
        let lock = state.try_lock_exclusive().unwrap();
        let source = tempfile::NamedTempFile::new().unwrap();
        for seq in 1..=generations {
            std::fs::write(source.path(), vec![seq; 128 << 10]).unwrap();
            let meta = Meta::new("a", seq.into(), "mem");
            keep_by_copy(&state, &lock, CopySource::File(source.path()), &meta).unwrap();
        }
        Some((tmpfs, state, lock))
    }

    fn seqs(state: &StateDir) -> Vec<u64> {
        generation::list(state)
            .unwrap()
            .iter()
            .map(Generation::seq)
            .collect()
    }

    #[test]
    fn applying_removes_the_oldest() {
        let Some((_tmpfs, state, lock)) = small_state(4) else {
            return;
        };
        let oldest = &generation::list(&state).unwrap()[..1];
        let removed = apply(&state, &lock, &by_count(2), 0, oldest).unwrap();
        assert_eq!((removed.len(), removed[0].seq), (1, 2));
        let removed = apply(&state, &lock, &by_count(2), 0, &[]).unwrap();
        assert_eq!((removed.len(), removed[0].seq), (1, 1));
        assert_eq!(seqs(&state), [3, 4]);
    }

    #[test]
    fn default_is_eight_and_a_tenth_of_the_file_system() {
        let Some((_tmpfs, state, _lock)) = small_state(0) else {
            return;
        };
        let policy = Policy::default_for(&state).unwrap();
        assert_eq!(
            (policy.count, policy.bytes),
            (Some(8), Some((1 << 20) / 10))
        );
    }

    #[test]
    fn room_is_made_before_an_area_is_refused() {
        let Some((_tmpfs, state, lock)) = small_state(6) else {
            return;
        };
        let path = state.area_path("trace").unwrap();
        let create = || durable::create_allocated(&path, 384 << 10);
        with_room(&state, &lock, create).unwrap();
        assert_eq!(seqs(&state), [3, 4, 5, 6]);
    }

    #[test]
    fn nothing_is_removed_when_it_would_not_do() {
        let Some((_tmpfs, state, lock)) = small_state(6) else {
            return;
        };
        let path = state.area_path("trace").unwrap();
        let create = || durable::create_allocated(&path, 1 << 20);
        let error = with_room(&state, &lock, create).unwrap_err();
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
        assert_eq!(seqs(&state), [1, 2, 3, 4, 5, 6]);
    }

    fn infos() -> impl Strategy<Value = Vec<GenerationInfo>> {
        let one = (
            "[a-c]",
            0..20u64,
            0..100u64,
            proptest::option::of(0..1000u64),
            any::<bool>(),
        );
        let one =
            one.prop_map(
                |(instance, seq, bytes, created_ns, is_collecting)| GenerationInfo {
                    instance,
                    seq,
                    bytes,
                    created_ns,
                    is_collecting,
                },
            );
        proptest::collection::vec(one, 0..30).prop_map(|mut infos| {
            infos.sort_by_key(|info| (info.seq, info.instance.clone()));
            infos.dedup_by_key(|info| (info.seq, info.instance.clone()));
            infos
        })
    }

    proptest! {
        #[test]
        fn plan_keeps_what_must_be_kept_and_then_the_limits(
            infos in infos(),
            count in proptest::option::of(0..10u32),
            bytes in proptest::option::of(0..2000u64),
            age_ns in proptest::option::of(0..1000u64),
            now_ns in 0..1500u64,
        ) {
            let policy = Policy { count, bytes, age_ns };
            let doomed = plan(&infos, &policy, now_ns);
            for i in &doomed {
                let newest = infos.iter().filter(|g| g.instance == infos[*i].instance);
                prop_assert!(newest.map(|g| g.seq).max() > Some(infos[*i].seq));
                prop_assert!(!infos[*i].is_collecting);
            }
            let kept: Vec<_> = (0..infos.len()).filter(|i| !doomed.contains(i)).collect();
            let removable = removable(&infos);
            let total: u64 = kept.iter().map(|i| infos[*i].bytes).sum();
            let could_go = kept.iter().any(|i| removable.contains(i));
            prop_assert!(bytes.is_none_or(|bytes| total <= bytes) || !could_go);
            prop_assert!(doomed.is_sorted());
            // Planning again after the removal asks for nothing more.
            let left: Vec<_> = kept.iter().map(|i| infos[*i].clone()).collect();
            prop_assert!(plan(&left, &policy, now_ns).is_empty());
        }
    }
}

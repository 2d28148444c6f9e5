//! The same damage for real kernels and for outlive (`docs/damages.md`).
//!
//! What the kernels did is recorded in `fixtures/damage`. `cargo xtask vm damage` boots them for every damage
//! and compares with the recording, and with `--record` writes it; otherwise each kernel is booted once.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt::Write;
use std::path::Path;
use std::sync::OnceLock;

use outlive_vm::Kernel;
use outlive_vm::damage::{
    Base, Change, Changed, Comparison, Guest, JUDGES, Judge, Kept, Mark, Outcome, Record, Sealed,
    outcomes_of,
};

/// A damage, what the kernel did with it, and what outlive does.
struct Compared {
    record: Record,
    comparison: Comparison,
}

/// All recordings, by kernel.
fn compared() -> &'static BTreeMap<&'static str, Vec<Compared>> {
    static COMPARED: OnceLock<BTreeMap<&'static str, Vec<Compared>>> = OnceLock::new();
    COMPARED.get_or_init(|| {
        JUDGES
            .iter()
            .map(|judge| (judge.version, compare(judge)))
            .collect()
    })
}

fn compare(judge: &Judge) -> Vec<Compared> {
    let mut compared = Vec::new();
    for (set, records) in judge.sets.iter().zip(judge.recorded().unwrap()) {
        let base = Base::load(set.base).unwrap();
        let sealed = Sealed::new(&base).unwrap();
        compared.extend(records.into_iter().map(|record| Compared {
            comparison: Comparison::new(&base, &sealed, &record),
            record,
        }));
    }
    compared
}

fn all() -> impl Iterator<Item = (&'static str, &'static Compared)> {
    let by_kernel = compared().iter();
    by_kernel.flat_map(|(version, compared)| compared.iter().map(|one| (*version, one)))
}

fn is_random(record: &Record) -> bool {
    record.kind.starts_with("random")
}

#[test]
fn the_recordings_are_of_the_damages_that_are_made_today() {
    for judge in &JUDGES {
        for (set, records) in judge.sets.iter().zip(judge.recorded().unwrap()) {
            let damages = set.damages(&Base::load(set.base).unwrap());
            assert_eq!(damages.len(), records.len(), "{}", judge.version);
            for (damage, record) in damages.iter().zip(&records) {
                assert_eq!(
                    damage.edits, record.edits,
                    "{}: {}",
                    judge.version, record.name
                );
            }
        }
    }
    let newest = &compared()["7.3.4"];
    let random = newest.iter().filter(|one| is_random(&one.record)).count();
    assert!(random >= 500, "{random} random ones");
    assert!(
        newest.len() - random > 40,
        "{} named ones",
        newest.len() - random
    );
}

#[test]
fn everything_real_that_a_kernel_keeps_is_kept() {
    let mut lost = String::new();
    for (version, Compared { record, comparison }) in all() {
        if !comparison.lost.is_empty() {
            let (count, remarks) = (comparison.lost.len(), &comparison.remarks);
            writeln!(lost, "{version}: {} loses {count}: {remarks}", record.name).unwrap();
        }
    }
    assert!(lost.is_empty(), "{lost}");
}

/// Where both keep the same events of a CPU, they count the same.
#[test]
fn a_kernels_counters_are_ours_where_the_same_is_kept() {
    let (mut equal, mut differences) = (0, String::new());
    for (version, Compared { record, comparison }) in all() {
        equal += comparison.equal_cpus;
        for difference in &comparison.counters {
            writeln!(differences, "{version}: {}: {difference}", record.name).unwrap();
        }
    }
    assert!(differences.is_empty(), "{differences}");
    assert!(equal > 1000, "{equal} of all CPUs");
}

#[test]
fn nothing_is_invented_where_sub_buffers_are_sealed() {
    for (version, Compared { record, comparison }) in all() {
        assert_eq!(comparison.invented, 0, "{version}: {}", record.name);
    }
}

/// Where a copy was damaged again, what is left of it is another sub-buffer.
#[test]
fn no_event_is_shown_twice() {
    let once = |one: &&Compared| one.record.kind != "random: several of these together";
    for (version, Compared { record, comparison }) in all().filter(|(_, one)| once(one)) {
        assert_eq!(comparison.twice, 0, "{version}: {}", record.name);
    }
}

#[test]
fn without_damage_everything_is_kept() {
    for judge in &JUDGES {
        let set = &judge.sets[0];
        let base = Base::load(set.base).unwrap();
        let none = compared()[judge.version]
            .iter()
            .find(|one| one.record.kind == "none");
        let comparison = &none.unwrap().comparison;
        let everything = Kept {
            real: base.events.len(),
            others: 0,
        };
        assert_eq!(comparison.kernel, Some(everything));
        assert_eq!(comparison.ours, everything);
        assert_eq!((comparison.remarks.as_str(), comparison.doubted), ("", 0));
    }
}

/// Boots `version` and compares with the recording: for a slice of the damages, or for all.
fn judge_again(version: &str) {
    let judge = JUDGES
        .iter()
        .find(|judge| judge.version == version)
        .unwrap();
    if !outlive_vm::can_run("damage") {
        return;
    }
    let guest = Guest {
        kernel: &Kernel::pinned(version).unwrap(),
        drain: Path::new(env!("CARGO_BIN_EXE_outlive-vm-drain")),
    };
    let mode = std::env::var("OUTLIVE_DAMAGE").unwrap_or_default();
    let mut recorded = match mode.as_str() {
        "record" => vec![Vec::new(); judge.sets.len()],
        _ => judge.recorded().unwrap(),
    };
    let sets = if mode.is_empty() {
        &judge.sets[..1]
    } else {
        judge.sets
    };
    for (set, recorded) in sets.iter().zip(&mut recorded) {
        let base = Base::load(set.base).unwrap();
        let mut damages = set.damages(&base);
        if mode.is_empty() {
            let places = slice(recorded);
            damages = places.iter().map(|&place| damages[place].clone()).collect();
            *recorded = places
                .iter()
                .map(|&place| recorded[place].clone())
                .collect();
        }
        let outcomes = outcomes_of(&base, &damages, &guest).unwrap();
        let records = damages.into_iter().zip(outcomes);
        let records: Vec<_> = records
            .map(|(damage, outcome)| Record::new(damage, outcome))
            .collect();
        if mode == "record" {
            *recorded = records;
            continue;
        }
        for (now, then) in records.iter().zip(recorded) {
            assert_eq!(now.outcome, then.outcome, "{version}: {}", now.name);
        }
    }
    if mode == "record" {
        judge.record(&recorded).unwrap();
    }
}

/// As many damages fit one boot.
const SLICE: usize = 70;

/// Some of each kind, named and random ones, as many of each as there are of the others.
fn slice(records: &[Record]) -> Vec<usize> {
    let mut kinds = BTreeMap::<&str, VecDeque<usize>>::new();
    // A kernel that hangs is waited for.
    let ends = |(_, record): &(usize, &Record)| record.outcome != Outcome::Hang;
    for (place, record) in records.iter().enumerate().filter(ends) {
        kinds.entry(&record.kind).or_default().push_back(place);
    }
    let mut places = BTreeSet::new();
    while places.len() < SLICE {
        for places_of in kinds.values_mut() {
            places.extend(places_of.pop_front());
        }
    }
    places.into_iter().collect()
}

#[test]
fn the_slice_has_some_of_each_kind() {
    for judge in &JUDGES {
        let recorded = judge.recorded().unwrap().remove(0);
        let of_kind = |kind: &str| {
            let places = slice(&recorded).into_iter();
            places.filter(|&place| recorded[place].kind == kind).count()
        };
        let kinds: BTreeSet<&str> = recorded.iter().map(|one| one.kind.as_str()).collect();
        assert_eq!(kinds.len(), 20, "{}: {kinds:?}", judge.version);
        for kind in kinds {
            let least = if kind == "none" { 1 } else { 3 };
            assert!(of_kind(kind) >= least, "{}: {kind}", judge.version);
        }
    }
}

#[test]
fn linux_7_3_4_does_what_was_recorded() {
    judge_again("7.3.4");
}

#[test]
fn linux_7_2_13_does_what_was_recorded() {
    judge_again("7.2.13");
}

#[test]
fn linux_6_12_107_does_what_was_recorded() {
    judge_again("6.12.107");
}

const INTRODUCTION: &str = "\
# Damages, recovered by kernels and by outlive

Regions of real kernels (two CPUs; of sched events and markers; one that has wrapped and was being read when the
machine died, one that has not wrapped, and for Linux 6.12 one of its own that has wrapped) were damaged and put into the memory of a virtual machine before it booted.
What the kernel then shows is recorded in `fixtures/damage`, and outlive recovers the same bytes. Numbers are of events, by
CPU, time stamp and payload: kept of those that the undamaged region holds, and in brackets others, which are changed
ones or appear a second time.

* Every event of the undamaged region that the kernel keeps, outlive keeps, in each case.
* In brackets, outlive's are changed in place. A kernel's region has no checksums: outlive says *unsealed* of all of it,
  and *doubtful* of each event that is not as a kernel leaves it. The tables of changed events say which are told.
* *sealed*: the same events in a region that outlive wrote, damaged by the same bytes at the same places. Of a sub-buffer that
  outlive calls sealed nothing is ever invented. (In a region of 6.12, whose layout is another, the same places are
  of other parts.) In brackets are those of sub-buffers that are newer than their seal, as a
  power loss leaves them, and are called *unsealed*.

These come beside those of [corruptions.md](corruptions.md). This page is written by a test (`crates/vm/tests/damage.rs`), which
fails when it is out of date; `cargo xtask vm damage` boots the kernels for all of it.
";

fn cell(kept: Kept) -> String {
    match kept.others {
        0 => kept.real.to_string(),
        others => format!("{} (+{others})", kept.real),
    }
}

/// A kernel's cell.
fn kernel_cell(kept: Option<Kept>) -> String {
    kept.map_or_else(|| "dies or hangs".to_owned(), cell)
}

fn named_table(page: &mut String) {
    writeln!(page, "\n## Linux 7.3.4, damages with a name\n").unwrap();
    writeln!(
        page,
        "| damage | kernel | outlive | sealed | what outlive says of it |"
    )
    .unwrap();
    writeln!(page, "| --- | ---: | ---: | ---: | --- |").unwrap();
    let mut kind = "none";
    let named = compared()["7.3.4"]
        .iter()
        .filter(|one| !is_random(&one.record));
    for Compared { record, comparison } in named {
        if record.kind != kind {
            kind = &record.kind;
            writeln!(page, "| **{kind}** | | | | |").unwrap();
        }
        let (kernel, ours) = (kernel_cell(comparison.kernel), cell(comparison.ours));
        let (sealed, remarks) = (cell(comparison.sealed), &comparison.remarks);
        writeln!(
            page,
            "| {} | {kernel} | {ours} | {sealed} | {remarks} |",
            record.name
        )
        .unwrap();
    }
}

/// Sums of several damages.
#[derive(Debug, Clone, Copy, Default)]
struct Sums {
    damages: usize,
    deaths: usize,
    /// Damages of which the kernel keeps less than outlive.
    less: usize,
    kernel: Kept,
    ours: Kept,
    sealed: Kept,
}

impl Sums {
    fn add(&mut self, comparison: &Comparison) {
        let kernel = comparison.kernel.unwrap_or_default();
        self.damages += 1;
        self.deaths += usize::from(comparison.kernel.is_none());
        self.less += usize::from(kernel.real < comparison.ours.real);
        let sums = [&mut self.kernel, &mut self.ours, &mut self.sealed];
        for (sum, kept) in sums
            .into_iter()
            .zip([kernel, comparison.ours, comparison.sealed])
        {
            sum.real += kept.real;
            sum.others += kept.others;
        }
    }

    fn row(&self, name: &str) -> String {
        let Self {
            damages,
            deaths,
            less,
            kernel,
            ours,
            sealed,
        } = *self;
        let cells = [kernel, ours, sealed].map(cell).join(" | ");
        format!("| {name} | {damages} | {deaths} | {less} | {cells} |\n")
    }
}

/// What became of the events of one kind of change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Told {
    all: usize,
    /// Doubtful by their sub-buffers.
    by_subbuf: usize,
    /// Doubtful by their records.
    by_record: usize,
    /// Not marked, and the kernel shows them too.
    kernels: usize,
    /// Not marked, in what the kernel gave up.
    ours_alone: usize,
}

impl Told {
    fn add(&mut self, changed: &Changed, by_kernel: &BTreeSet<u32>) {
        self.all += 1;
        *match changed.mark {
            Some(Mark::Subbuf) => &mut self.by_subbuf,
            Some(Mark::Entry) => &mut self.by_record,
            None if by_kernel.contains(&changed.event) => &mut self.kernels,
            None => &mut self.ours_alone,
        } += 1;
    }

    fn row(&self, name: &str) -> String {
        let Self {
            all,
            by_subbuf,
            by_record,
            kernels,
            ours_alone,
        } = self;
        format!("| {name} | {all} | {by_subbuf} | {by_record} | {kernels} | {ours_alone} |\n")
    }
}

/// What the kernel shows that the undamaged region does not hold.
fn kernels_others(record: &Record) -> BTreeSet<u32> {
    match &record.outcome {
        Outcome::Attached { cpus, .. } => cpus.iter().flat_map(|cpu| cpu.others.clone()).collect(),
        Outcome::Crash | Outcome::Hang => BTreeSet::new(),
    }
}

/// By what was changed, and in all.
fn told(version: &str) -> (BTreeMap<Change, Told>, Told) {
    let (mut by_change, mut all) = (BTreeMap::<Change, Told>::new(), Told::default());
    for Compared { record, comparison } in &compared()[version] {
        let by_kernel = kernels_others(record);
        for changed in &comparison.changed {
            for told in [by_change.entry(changed.change).or_default(), &mut all] {
                told.add(changed, &by_kernel);
            }
        }
    }
    (by_change, all)
}

const CHANGED: &str = "\
\n## Changed events that are shown, by what was changed

An event is *doubtful* where its sub-buffer ends after the next one begins or beyond what the trace clock can reach, or has a record in a form that no kernel writes
(12 bytes in all, or a length word where the header has room); and where its record has an id without a format, is shorter
or longer than the event's fields, or has a pid that no task has, the pid of the task that runs and another one beside it, a
priority, a processor, a state or a truth value that there is not, a task's name without an end or with more behind it, or an array outside of
itself. `show` says so behind each, `info` and `check` count them.

What is not marked is as a kernel writes it: its records' forms and lengths are, its times go forwards up to the next
sub-buffer's, and its fields are in range. In each case the kernel shows it too, or gave up its sub-buffer for another
damage (below, case by case). Most are of a sub-buffer whose time stamp still fits between its neighbours, or has none behind it.
";

fn changed_table(page: &mut String, version: &str) {
    let (by_change, all) = told(version);
    let doubted: usize = compared()[version]
        .iter()
        .map(|one| one.comparison.doubted)
        .sum();
    writeln!(page, "\n### Linux {version}\n").unwrap();
    page.push_str("| what was changed | events | doubtful by sub-buffer | doubtful by record | unmarked, the kernel shows them too | unmarked, the kernel gave up more |\n");
    page.push_str("| --- | ---: | ---: | ---: | ---: | ---: |\n");
    for (change, told) in by_change {
        page.push_str(&told.row(change.name()));
    }
    page.push_str(&all.row("**all**"));
    writeln!(
        page,
        "\nReal events that are marked because of their sub-buffer: {doubted}."
    )
    .unwrap();
}

/// In each case: what outlive shows as any other event and the undamaged region does not hold, the kernel shows
/// too, or it shows nothing of that sub-buffer. How many these are in which case is on the page.
#[test]
fn changed_events_without_a_mark_are_the_kernels_or_of_what_it_gave_up() {
    for (version, Compared { record, comparison }) in all() {
        let by_kernel = kernels_others(record);
        let unmarked = comparison.changed.iter().filter(|one| one.mark.is_none());
        let alone = unmarked.filter(|one| !by_kernel.contains(&one.event));
        let doubtful = alone.filter(|one| one.is_in_shown).count();
        assert_eq!(doubtful, 0, "{version}: {}", record.name);
    }
}

const GIVEN_UP: &str = "\
\n## Changed events that only outlive shows, and without a mark

In each of these cases the kernel shows nothing of the sub-buffer that they are in: it gave it up for another damage, mostly of
another sub-buffer, of the index array or of the CPU's meta. Where it does not (the tables above), it shows these events
as any other, too. No reader can tell them without a checksum, for what was changed is there once, and nothing else depends on it:

* *A sub-buffer's time stamp*: all times in it are sums from it on. It may be anything from the end of the sub-buffer before
  to where its last event meets the one behind; without the index array, or for the newest, anything later. A gap is what an idle CPU
  leaves. (6.12, *a page a second late, and all behind it*: all of them together are as good as before.)
* *A time delta*: the same, for what is behind it in the sub-buffer, as long as that ends before the next one begins.
* *Its place*: a whole sub-buffer's bytes in the place of another, whose own are gone, with a time that fits there.
* *Its own bytes*: a number, an address or a letter of a name that is in range.

| kernel | damage | what was changed | events |
| --- | --- | --- | ---: |
";

fn given_up_table(page: &mut String) {
    page.push_str(GIVEN_UP);
    for (version, Compared { record, comparison }) in all() {
        let by_kernel = kernels_others(record);
        let unmarked = comparison.changed.iter().filter(|one| one.mark.is_none());
        let mut by_change = BTreeMap::<Change, usize>::new();
        for one in unmarked.filter(|one| !by_kernel.contains(&one.event)) {
            *by_change.entry(one.change).or_default() += 1;
        }
        for (change, events) in by_change {
            let (name, kind, change) = (&record.name, &record.kind, change.name());
            writeln!(page, "| {version} | {kind}: {name} | {change} | {events} |").unwrap();
        }
    }
}

fn kinds_table(page: &mut String, version: &str) {
    let mut kinds: Vec<(&str, Sums)> = Vec::new();
    let mut all = Sums::default();
    for Compared { record, comparison } in &compared()[version] {
        let known = kinds.iter().position(|(kind, _)| *kind == record.kind);
        let place = known.unwrap_or_else(|| {
            kinds.push((&record.kind, Sums::default()));
            kinds.len() - 1
        });
        kinds[place].1.add(comparison);
        all.add(comparison);
    }
    writeln!(page, "\n## Linux {version}, all by kind\n").unwrap();
    page.push_str("| kind | damages | dies or hangs | keeps less | kernel | outlive | sealed |\n");
    page.push_str("| --- | ---: | ---: | ---: | ---: | ---: | ---: |\n");
    kinds.sort_by_key(|(kind, _)| kind.starts_with("random"));
    for (kind, sums) in kinds {
        page.push_str(&sums.row(kind));
    }
    page.push_str(&all.row("**all**"));
}

/// Run with `OUTLIVE_UPDATE=1` to write the page.
#[test]
fn the_page_about_damages_is_up_to_date() {
    let mut now = INTRODUCTION.to_owned();
    for judge in &JUDGES {
        kinds_table(&mut now, judge.version);
    }
    now.push_str(CHANGED);
    for judge in &JUDGES {
        changed_table(&mut now, judge.version);
    }
    given_up_table(&mut now);
    named_table(&mut now);
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/damages.md");
    if std::env::var_os("OUTLIVE_UPDATE").is_some() {
        std::fs::write(&path, &now).unwrap();
    }
    let page = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        page == now,
        "docs/damages.md: run this test with OUTLIVE_UPDATE=1"
    );
}

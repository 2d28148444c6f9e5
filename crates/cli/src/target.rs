//! What a command's NAME or FILE stands for.

use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use outlive_event::Catalog;
use outlive_trace::cmdline::NamePattern;
use outlive_trace::start::KERNEL_BACKING;
use outlive_trace::view::View;
use outlive_trace::{
    Area, Backing, Error, Generation, InstanceEntry, RegionPlace, StateDir, Verdict, apps,
    generation,
};

use crate::args::{Args, TargetArgs};

/// Something that has events.
#[derive(Debug)]
pub(crate) enum Target {
    /// A file with a region.
    File(PathBuf),
    /// The live area of an instance, recorded into now or not.
    Live {
        place: RegionPlace,
        is_running: bool,
    },
    /// What an earlier run left.
    Generation(Generation),
}

/// Nothing is called so.
#[derive(Debug)]
pub(crate) struct Unknown {
    name: String,
    state: PathBuf,
    /// What there is in the state folder; `None` if there is no such folder.
    known: Option<Vec<String>>,
}

impl fmt::Display for Unknown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, state, known } = self;
        let state = state.display();
        match known {
            Some(known) if known.is_empty() => write!(
                f,
                "no instance, generation or file {name:?}; {state} has nothing yet"
            ),
            Some(known) => write!(
                f,
                "no instance, generation or file {name:?}; {state} has: {}",
                known.join(", ")
            ),
            None => write!(
                f,
                "no file {name:?}, and no state folder {state} in which it could be an instance"
            ),
        }
    }
}

impl std::error::Error for Unknown {}

/// The state folder that was asked for.
pub(crate) fn state_path(args: &Args) -> Result<PathBuf> {
    match &args.state {
        Some(path) => Ok(path.clone()),
        None => Ok(StateDir::default_path()?),
    }
}

/// The state folder that was asked for, if it is there.
pub(crate) fn existing_state(args: &Args) -> Result<Option<StateDir>> {
    let path = state_path(args)?;
    is_there(&path.join("id"))?;
    Ok(StateDir::open_existing(&path)?)
}

/// The state folders that may have an instance of this name: the one that was asked for, and in it
/// that of a program.
pub(crate) fn states_of(args: &Args, instance: &str) -> Result<Vec<StateDir>> {
    let program = apps::of_instance(&state_path(args)?, instance)?;
    Ok(existing_state(args)?.into_iter().chain(program).collect())
}

/// All state folders: the one that was asked for, and in it those of the programs.
pub(crate) fn all_states(args: &Args) -> Result<Vec<StateDir>> {
    let programs = apps::list(&state_path(args)?)?;
    Ok(existing_state(args)?.into_iter().chain(programs).collect())
}

/// What the last start configured. If that is damaged, it is said: generations do not depend on it.
pub(crate) fn configured(state: &StateDir) -> Result<Vec<InstanceEntry>> {
    match state.read_instances() {
        Ok(configured) => Ok(configured.instances),
        Err(error @ Error::DamagedState { .. }) => {
            eprintln!("outlive: live areas are not known: {error}");
            Ok(Vec::new())
        }
        Err(error) => Err(error.into()),
    }
}

/// Whether there is something; an error where nobody lets us look.
fn is_there(path: &Path) -> Result<bool> {
    path.try_exists()
        .with_context(|| format!("cannot look at {}", path.display()))
}

impl Target {
    /// Finds what is meant: an instance, a backup, a generation, or a file.
    pub(crate) fn find(args: &Args, name: &str) -> Result<Self> {
        let instance = name.split_once('/').map_or(name, |(instance, _)| instance);
        for state in states_of(args, instance)? {
            if let Some(target) = Self::in_state(&state, name)? {
                return Ok(target);
            }
        }
        if let Some(child) = Self::child(args, name)? {
            return Ok(child);
        }
        let path = Path::new(name);
        if path.join("region").is_file() {
            return Ok(Self::File(path.join("region")));
        }
        if is_there(path)? {
            return Ok(Self::File(path.to_owned()));
        }
        Err(Unknown {
            name: name.to_owned(),
            state: state_path(args)?,
            known: known_names_of_all(args)?,
        }
        .into())
    }

    /// A child that was forked from a program, or a further process of its run: `NAME.PID`.
    fn child(args: &Args, name: &str) -> Result<Option<Self>> {
        let Some(parent) = parent_of(name) else {
            return Ok(None);
        };
        let Some(state) = apps::of_instance(&state_path(args)?, parent)? else {
            return Ok(None);
        };
        let instances = configured(&state)?;
        let mut children = instances.iter().flat_map(children);
        let Some((_, path)) = children.find(|(child, _)| child == name) else {
            return Ok(None);
        };
        Ok(Some(Self::Live {
            is_running: Area::is_file_in_use(&path)?,
            place: RegionPlace::File(path),
        }))
    }

    fn in_state(state: &StateDir, name: &str) -> Result<Option<Self>> {
        if let Some((instance, seq)) = name.rsplit_once('/')
            && let Ok(seq) = seq.parse::<u64>()
            && let Ok(generations) = generation::list_instance(state, instance)
            && let Some(found) = generations.into_iter().find(|g| g.seq() == seq)
        {
            return Ok(Some(Self::Generation(found)));
        }
        match configured(state)?.iter().find(|entry| entry.name == name) {
            Some(entry) => Self::of_instance(state, entry).map(Some),
            // Of an instance that is no longer configured, what it left.
            None => Ok(newest(state, name)?.map(Self::Generation)),
        }
    }

    fn of_instance(state: &StateDir, entry: &InstanceEntry) -> Result<Self> {
        if let Some(source) = &entry.source {
            return newest(state, source)?
                .map(Self::Generation)
                .with_context(|| {
                    format!(
                        "{} is empty: no earlier run of {source} left anything",
                        entry.name
                    )
                });
        }
        if let Some(place) = RegionPlace::of_instance(entry) {
            return Ok(Self::Live {
                // A program may outlive the supervisor that has the lock of its state.
                is_running: state.is_locked()? || place.is_in_use()?,
                place,
            });
        }
        newest(state, &entry.name)?
            .map(Self::Generation)
            .with_context(|| match entry.backing.as_deref() {
                Some(KERNEL_BACKING) => format!(
                    "the kernel records {name} itself, see instances/{name}/trace of tracefs; no earlier boot of \
                     it is kept",
                    name = entry.name
                ),
                _ => format!(
                    "{} has no area, and no earlier run of it is kept",
                    entry.name
                ),
            })
    }

    /// The names, and in the place of each pattern those that match it: `*` any text, `?` a character,
    /// `[...]` a set. Generations match only where it has a slash.
    pub(crate) fn matching(args: &Args, names: &[String]) -> Result<Vec<String>> {
        let mut found = Vec::new();
        for name in names {
            match NamePattern::new(name) {
                pattern @ NamePattern::Glob(_) if !is_there(Path::new(name))? => {
                    found.extend(matches(args, name, &pattern)?);
                }
                _ => found.push(name.clone()),
            }
        }
        Ok(found)
    }

    /// Finds several, in their order.
    pub(crate) fn find_all(args: &Args, names: &[String]) -> Result<Vec<Self>> {
        names.iter().map(|name| Self::find(args, name)).collect()
    }

    /// Opens several, in their order.
    pub(crate) fn open_all(targets: &[Self], formats: Option<&Path>) -> Result<Vec<View>> {
        targets.iter().map(|target| target.open(formats)).collect()
    }

    /// The generations of the instance `name`, newest first.
    pub(crate) fn generations(args: &Args, name: &str) -> Result<Vec<Self>> {
        let mut generations = Vec::new();
        for state in states_of(args, name)? {
            let listed = generation::list_instance(&state, name).unwrap_or_default();
            generations.extend(listed.into_iter().rev().map(Self::Generation));
        }
        Ok(generations)
    }

    /// Whether a recorder writes it.
    pub(crate) fn is_running(&self) -> bool {
        matches!(
            self,
            Self::Live {
                is_running: true,
                ..
            }
        )
    }

    /// What it is called: that of a generation says which one; else as it was asked for.
    pub(crate) fn name(&self, asked: &str) -> String {
        match self {
            Self::Generation(generation) => generation.to_string(),
            _ => asked.to_owned(),
        }
    }

    /// The file of a live area.
    pub(crate) fn live_file(&self) -> Option<&Path> {
        match self {
            Self::Live { place, .. } => place.path(),
            _ => None,
        }
    }

    /// The files that are read to open it.
    pub(crate) fn files(&self) -> Vec<PathBuf> {
        match self {
            Self::Live { place, .. } => place.path().map(Path::to_owned).into_iter().collect(),
            Self::File(path) => vec![path.clone(), path.with_file_name("tail")],
            Self::Generation(generation) => vec![generation.region_path(), generation.tail_path()],
        }
    }

    /// The file that a running recorder writes; `None` if it is none.
    pub(crate) fn running_file(&self) -> Option<&Path> {
        match self {
            Self::Live {
                place,
                is_running: true,
            } => place.path(),
            _ => None,
        }
    }

    /// Opens it for reading. What is odd but no reason to stop is said on standard error.
    pub(crate) fn open(&self, formats: Option<&Path>) -> Result<View> {
        let mut view = match self {
            Self::Live { place, .. } => View::open_place(place)?,
            Self::File(path) => {
                let tail = path.with_file_name("tail");
                match path.file_name().is_some_and(|name| name == "region") {
                    true => with_tail(path, &tail)?,
                    false => View::open(path)?,
                }
            }
            Self::Generation(generation) => {
                if generation.is_collecting() {
                    eprintln!(
                        "outlive: {generation} is not complete yet: a recorder still has to collect what the \
                         host's ring held of it"
                    );
                }
                with_tail(&generation.region_path(), &generation.tail_path())?
            }
        };
        for (_, part) in view.named_parts() {
            if let Some(damage) = part.recovery.cut_off() {
                eprintln!("outlive: {} is {damage}", part.place);
            }
        }
        if let Some(formats) = formats {
            view.catalog = Catalog::from_events_dir(formats)
                .with_context(|| format!("cannot read formats from {}", formats.display()))?;
        }
        Ok(view)
    }

    /// How the run ended that wrote it.
    pub(crate) fn verdict(&self, view: &View) -> Verdict {
        match self {
            Self::Generation(generation) => Verdict::of_generation(generation, view.run.as_ref()),
            Self::Live {
                is_running: true, ..
            } => Verdict::StillRunning,
            _ => Verdict::of_ended(view.run.as_ref(), &outlive_trace::verdict::boot_id()),
        }
    }
}

impl Target {
    /// Whether the run's last events are there. Those of a recorder that was killed are still in the
    /// host's ring, until the next start has made a tail of them.
    pub(crate) fn has_end(&self, view: &View) -> bool {
        let is_copied = view.run.is_some() && !view.has_lanes();
        if !is_copied || self.verdict(view) == Verdict::CleanExit || view.has_tail() {
            return !matches!(self, Self::Generation(kept) if kept.is_collecting());
        }
        let Self::Generation(kept) = self else {
            return false;
        };
        // Complete without a tail: that ring held nothing more, unless the machine died too.
        let is_whole = !kept.is_collecting() && !kept.tail_path().exists();
        is_whole && self.verdict(view) == Verdict::Crash
    }

    /// The physical address of an area in fixed memory.
    pub(crate) fn address(&self) -> Option<u64> {
        match self {
            Self::Live {
                place: RegionPlace::Physical { address, .. },
                ..
            } => Some(*address),
            Self::Generation(generation) => match generation.meta()?.backing.parse() {
                Ok(Backing::DevMem { address }) => Some(address),
                _ => None,
            },
            _ => None,
        }
    }
}

impl TargetArgs {
    /// Finds and opens what is meant.
    pub(crate) fn open(&self, args: &Args) -> Result<(Target, View)> {
        let target = Target::find(args, &self.name)?;
        let view = target.open(self.formats.as_deref())?;
        Ok((target, view))
    }
}

fn with_tail(region: &Path, tail: &Path) -> Result<View> {
    let (view, problem) = View::open_with_tail(region, tail)?;
    match problem {
        None => {}
        Some(problem) if view.is_tail_alone() => eprintln!(
            "outlive: the region cannot be read, this is what the host's ring still had: {problem}"
        ),
        Some(problem) => eprintln!(
            "outlive: left out the tail of {}: {problem}",
            region.display()
        ),
    }
    Ok(view)
}

/// The program whose child the name is that of: `NAME.PID`, or `NAME.child` of those that are kept.
pub(crate) fn parent_of(name: &str) -> Option<&str> {
    let is_pid = |text: &str| text.parse::<u32>().is_ok();
    let of_live = || Some(name.rsplit_once('.').filter(|(_, pid)| is_pid(pid))?.0);
    name.strip_suffix(apps::CHILD).or_else(of_live)
}

/// The newest generation of an instance.
pub(crate) fn newest(state: &StateDir, instance: &str) -> Result<Option<Generation>> {
    Ok(generation::list_instance(state, instance)
        .unwrap_or_default()
        .pop())
}

fn matches(args: &Args, name: &str, pattern: &NamePattern) -> Result<Vec<String>> {
    let known = known_names_of_all(args)?;
    let is_meant =
        |known: &&String| pattern.matches(known) && (name.contains('/') || !known.contains('/'));
    let found: Vec<String> = known.iter().flatten().filter(is_meant).cloned().collect();
    match found.is_empty() {
        false => Ok(found),
        true => Err(Unknown {
            name: name.to_owned(),
            state: state_path(args)?,
            known,
        }
        .into()),
    }
}

/// The names in the state folder and in those of the programs; `None` if there is none of them.
fn known_names_of_all(args: &Args) -> Result<Option<Vec<String>>> {
    let states = all_states(args)?;
    if states.is_empty() {
        return Ok(None);
    }
    let names: Result<Vec<_>> = states.iter().map(known_names).collect();
    Ok(Some(names?.into_iter().flatten().collect()))
}

fn known_names(state: &StateDir) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in configured(state)? {
        let children = children(&entry);
        names.push(entry.name);
        names.extend(children.into_iter().map(|(name, _)| name));
    }
    let kept = generation::list(state)?;
    names.extend(kept.iter().map(|generation| generation.to_string()));
    Ok(names)
}

/// The areas of an instance's children: the name of each, and its file.
pub(crate) fn children(entry: &InstanceEntry) -> Vec<(String, PathBuf)> {
    let place = RegionPlace::of_instance(entry);
    let live = place.as_ref().and_then(RegionPlace::path);
    let children = live.map(apps::children).unwrap_or_default().into_iter();
    let named = children.map(|(pid, path)| (format!("{}.{pid}", entry.name), path));
    named.collect()
}

//! How a recorder is configured, and the start up to where recording begins.

use std::path::{Path, PathBuf};

use outlive_event::Filter;
use outlive_ring::RunRecord;
use outlive_trace::cmdline::{AreaRef, CommandLine, EventToken, Instance, InstanceKind};
use outlive_trace::retention::Policy;
use outlive_trace::{Backing, EventSource, Start, StateDir, apps};

use crate::beside::Beside;
use crate::clock::Comparison;
use crate::control::LANES_MAX;
use crate::error::Problems;
use crate::given::{Given, Taken};
use crate::place::{Own, Place};
use crate::{Error, Recorder};

/// Bytes of a ring by default.
const SIZE_DEFAULT: u64 = 4 << 20;
/// The environment's state folder, as for the `outlive` command.
const STATE: &str = "OUTLIVE_STATE";
/// Lanes per processor, so that a thread that is preempted inside of one leaves others.
const LANES_PER_CPU: usize = 4;
/// Least lanes, as far as there is room.
const LANES_MIN: usize = 64;
/// A lane has at least so many bytes: in a small region there are fewer lanes.
const LANE_BYTES_MIN: u64 = 32 << 10;

/// Configures a [`Recorder`].
///
/// ```
/// # let state = tempfile::tempdir().unwrap();
/// let recorder = outlive::Recorder::builder("shop")
/// # .state(state.path())
/// # .backing(outlive::Backing::File)
///     .size(16 << 20)
///     .events(["http", "shop:order_*"])
///     .keep(20)
///     .start()?;
/// # Ok::<(), outlive::Error>(())
/// ```
#[derive(Debug, Clone)]
#[must_use = "nothing is recorded before `start`"]
pub struct Builder {
    name: String,
    version: String,
    size: u64,
    lanes: Option<usize>,
    state: Option<PathBuf>,
    backing: Backing,
    events: Vec<String>,
    filters: Vec<(String, String)>,
    command_line: Option<String>,
    overwrite: bool,
    records_panics: bool,
    takes_given: bool,
    makes_spare: bool,
    has_heart: bool,
    program: Option<String>,
    policy: Option<Policy>,
}

/// Everything that a recorder needs, reserved and kept.
pub(crate) struct Prepared {
    pub(crate) place: Place,
    pub(crate) run: RunRecord,
    pub(crate) enabled: Vec<EventToken>,
    pub(crate) filters: Vec<(EventToken, Filter)>,
    pub(crate) overwrite: bool,
    /// Whether a thread gives signs of life.
    pub(crate) has_heart: bool,
}

impl Builder {
    pub(crate) fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            version: String::new(),
            size: SIZE_DEFAULT,
            lanes: None,
            state: None,
            backing: Backing::Tmpfs(None),
            events: vec!["*:*".to_owned()],
            filters: Vec::new(),
            command_line: None,
            overwrite: true,
            records_panics: true,
            takes_given: true,
            makes_spare: true,
            has_heart: true,
            program: None,
            policy: None,
        }
    }

    /// The program's version, for the run record.
    pub fn version(mut self, version: &str) -> Self {
        version.clone_into(&mut self.version);
        self
    }

    /// Bytes of the ring; 4 MiB without this. Rounded up to 4096. The catalog takes 300 KiB more.
    pub fn size(mut self, bytes: u64) -> Self {
        self.size = bytes.next_multiple_of(4096);
        self
    }

    /// Buffers that threads write side by side, 256 at most. Without this four per processor, 64 at
    /// least, as far as each has 32 KiB.
    pub fn lanes(mut self, lanes: usize) -> Self {
        self.lanes = Some(lanes.clamp(1, LANES_MAX));
        self
    }

    /// The state folder in which the program has its own; without this that of the environment's
    /// `OUTLIVE_STATE`, else `/var/lib/outlive` for root, `outlive` in the XDG state folder for
    /// others.
    pub fn state(mut self, folder: impl AsRef<Path>) -> Self {
        self.state = Some(folder.as_ref().to_owned());
        self
    }

    /// Where the region lives while the program runs. [`Backing::Tmpfs`] is the default: it survives
    /// the program, not the machine, and takes its size twice ([`no_spare`](Self::no_spare)).
    /// [`Backing::File`] survives what the kernel has written back.
    pub fn backing(mut self, backing: Backing) -> Self {
        self.backing = backing;
        self
    }

    /// The events that are switched on from the start: `sys`, `sys:event`, `event`, or patterns
    /// with `*` and `?`. All without this. The others are switched on by `outlive enable`.
    pub fn events<T: Into<String>>(mut self, events: impl IntoIterator<Item = T>) -> Self {
        self.events = events.into_iter().map(Into::into).collect();
        self
    }

    /// Records of these events only those that match, in the kernel's filter language, as in
    /// `("http:request", "status >= 500 && path ~ \"/api/*\"")`. Of several for an event the last one
    /// counts. One that does not fit its event is told by an event `outlive:bad_filter`, and all are
    /// recorded.
    pub fn filter(mut self, events: &str, filter: &str) -> Self {
        self.filters.push((events.to_owned(), filter.to_owned()));
        self
    }

    /// Drops new events when the ring is full, instead of overwriting the oldest.
    pub fn no_overwrite(mut self) -> Self {
        self.overwrite = false;
        self
    }

    /// Leaves the panic hook alone. Without this each panic is recorded as `outlive:panic`, with its
    /// message, place and thread, before the hook does what it did so far.
    pub fn no_panic_hook(mut self) -> Self {
        self.records_panics = false;
        self
    }

    /// Takes no region of a run that a supervisor (`outlive run`) has prepared, but one of its own.
    pub fn no_given(mut self) -> Self {
        self.takes_given = false;
        self
    }

    /// Makes no file for the next start while this run records. Without this an area on a tmpfs takes
    /// its size twice, as far as there is room, and the next start takes a few milliseconds; with it,
    /// a tenth of a second for 256 MiB.
    pub fn no_spare(mut self) -> Self {
        self.makes_spare = false;
        self
    }

    /// Starts no thread that gives a sign of life each second, by which `outlive last` tells a program that
    /// had nothing to do from one that was stopped; it takes no signals, and ends with the recorder. For a
    /// program that may have one thread only, as to enter another user namespace (setns(2)). Without it
    /// signs of life come with events.
    pub fn no_heartbeat(mut self) -> Self {
        self.has_heart = false;
        self
    }

    /// What the run record calls the program; without this the path of its file.
    pub fn program(mut self, program: &str) -> Self {
        self.program = Some(program.to_owned());
        self
    }

    /// Generations to keep; 8 without this.
    pub fn keep(self, generations: u32) -> Self {
        let mut policy = Policy::KEEP_ALL;
        policy.count = Some(generations.max(1));
        self.retention(policy)
    }

    /// What to keep of earlier runs, by number, bytes and age.
    pub fn retention(mut self, policy: Policy) -> Self {
        self.policy = Some(policy);
        self
    }

    /// Takes size and events from a line in the kernel's grammar, as from a configuration file:
    /// `reserve_mem=16M:4096:shop trace_instance=shop@shop,http`. Its first persistent instance
    /// counts. See `docs/command-line.md`.
    pub fn command_line(mut self, line: &str) -> Self {
        self.command_line = Some(line.to_owned());
        self
    }

    /// Keeps what the run before left, and starts.
    ///
    /// # Errors
    ///
    /// [`Error::AlreadyStarted`] if this process has a recorder; [`outlive_trace::Error::Locked`]
    /// if another process of this name has one; the others as they say. Nothing that an earlier run
    /// left is lost.
    pub fn start(self) -> Result<Recorder, Error> {
        if crate::recorder::current().is_some() {
            return Err(Error::AlreadyStarted);
        }
        let records_panics = self.records_panics;
        let clock = Comparison::begin();
        let recorder = Recorder::start(self.prepare()?, clock)?;
        if records_panics {
            crate::panic::install_hook();
        }
        Ok(recorder)
    }

    /// Keeps what the run before left, and prepares a region for another process, whose recorder
    /// takes it instead of one of its own: see [`Given`].
    ///
    /// # Errors
    ///
    /// As [`start`](Self::start).
    pub fn give(self) -> Result<Given, Error> {
        let (own, mut run) = self.own(&self.parse()?)?;
        run.instance.clone_from(&own.live.instance.name);
        Given::new(own, run)
    }

    fn prepare(self) -> Result<Prepared, Error> {
        self.events
            .iter()
            .try_for_each(|event| token(event).map(drop))?;
        let filters = self.filters.iter().map(|(events, text)| {
            let filter = Filter::parse(text).map_err(|source| Error::BadFilter {
                text: text.clone(),
                source,
            })?;
            Ok((token(events)?, filter))
        });
        let filters = filters.collect::<Result<Vec<_>, Error>>()?;
        let cmdline = self.parse()?;
        let (instance, _) = recorded(&cmdline).ok_or(Error::NoInstance)?;
        let enabled = instance.events.clone();
        let (place, run) = self.place(&cmdline)?;
        Ok(Prepared {
            place,
            run,
            enabled,
            filters,
            overwrite: self.overwrite,
            has_heart: self.has_heart,
        })
    }

    /// The region that a supervisor has prepared, else one beside it, else one of the program's own.
    fn place(&self, cmdline: &CommandLine) -> Result<(Place, RunRecord), Error> {
        let program = self.program_name();
        if let Some(taken) = self.takes_given.then(Taken::from_environment).flatten() {
            let run = taken.run(&program, &self.version);
            return Ok((Place::Given(Box::new(taken)), run));
        }
        let beside = self.takes_given.then(Beside::from_environment).flatten();
        let not_beside = match beside {
            Some(Ok(beside)) => {
                let run = beside.run(&program, &self.version);
                return Ok((Place::Beside(Box::new(beside)), run));
            }
            Some(Err(error)) => Some(error),
            None => None,
        };
        match (self.own(cmdline), not_beside) {
            (Err(own), Some(beside)) => Err(Error::NoneOfRun {
                beside: Box::new(beside),
                own: Box::new(own),
            }),
            (own, _) => own.map(|(own, run)| (Place::Own(Box::new(own)), run)),
        }
    }

    fn parse(&self) -> Result<CommandLine, Error> {
        let cmdline = CommandLine::parse(&self.line());
        if cmdline.is_clean_for_strict() {
            return Ok(cmdline);
        }
        if self.command_line.is_none() && !is_name(&self.name) {
            return Err(Error::BadName(self.name.clone()));
        }
        let wrong = cmdline.diagnostics.into_iter();
        let wrong = wrong.filter(|problem| problem.is_refused_by_strict());
        Err(Error::CommandLine(Problems(wrong.collect())))
    }

    /// Keeps what the run before left, and reserves a region in the program's own state folder.
    fn own(&self, cmdline: &CommandLine) -> Result<(Own, RunRecord), Error> {
        let (instance, label) = recorded(cmdline).ok_or(Error::NoInstance)?;
        let size = cmdline
            .reserve_mem
            .iter()
            .find(|area| area.label == label)
            .map_or(self.size, |area| area.size);
        let state = StateDir::open(&self.state_folder(&instance.name)?)?;
        let started = Start {
            state: &state,
            cmdline,
            text: &self.line(),
            backings: &[(label.to_owned(), self.backing.clone())],
            nr_cpus: self.nr_lanes(size),
            source: EventSource::Application,
            of_kernel: &[],
            skips_instances: false,
            program: (&self.program_name(), &self.version),
        }
        .run(|_| {})?;
        let live = started.live.into_iter().next().ok_or(Error::NoInstance)?;
        if let Some(path) = live.area.path() {
            apps::keep_children(&state, &started.lock, &instance.name, path)?;
        }
        let own = Own {
            state,
            lock: started.lock,
            live,
            makes_spare: self.makes_spare,
            policy: self.policy,
        };
        Ok((own, started.run))
    }

    /// The program, for the run record.
    fn program_name(&self) -> String {
        let path = || std::env::current_exe().map(|path| path.display().to_string());
        self.program
            .clone()
            .unwrap_or_else(|| path().unwrap_or_default())
    }

    fn line(&self) -> String {
        if let Some(line) = &self.command_line {
            return line.clone();
        }
        apps::command_line(&self.name, self.size, &self.events)
    }

    fn state_folder(&self, name: &str) -> Result<PathBuf, Error> {
        let given = self
            .state
            .clone()
            .or_else(|| std::env::var_os(STATE).map(PathBuf::from));
        let folder = given.map_or_else(StateDir::default_path, Ok)?;
        Ok(apps::folder(&folder, name)?)
    }

    fn nr_lanes(&self, size: u64) -> u32 {
        let fit = usize::try_from(size / LANE_BYTES_MIN).unwrap_or(LANES_MAX);
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let wanted = (processors * LANES_PER_CPU).clamp(LANES_MIN, LANES_MAX);
        self.lanes.unwrap_or(wanted.min(fit)).max(1) as u32
    }
}

/// Whether a command line can have an instance of this name.
fn is_name(name: &str) -> bool {
    CommandLine::parse(&apps::command_line(name, SIZE_DEFAULT, &[])).is_clean_for_strict()
}

/// The instance that the program records into, and the label of its area.
fn recorded(cmdline: &CommandLine) -> Option<(&Instance, &str)> {
    cmdline
        .instances
        .iter()
        .find_map(|instance| match &instance.kind {
            InstanceKind::Persistent {
                area: AreaRef::Label(label),
            } => Some((instance, label.as_str())),
            _ => None,
        })
}

fn token(event: &str) -> Result<EventToken, Error> {
    EventToken::new(event).map_err(|problem| Error::BadEvent {
        text: event.to_owned(),
        why: problem.message,
    })
}

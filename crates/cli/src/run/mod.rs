//! `outlive run`: a supervisor that gives any program a flight recorder.
//!
//! The program gets a region of its own through an inherited descriptor: if it has the `outlive`
//! crate, its recorder takes that. How the program starts, what it writes on standard error, and how
//! it ends goes into a second region, `NAME.run`, which the program cannot reach. Both are kept by
//! the next start of the same name, whoever of the two was killed.

pub(crate) mod oom;
mod sched;
mod signals;
mod stderr;

use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus, Stdio};

use anyhow::{Context, Result};
use nix::sys::resource::{Usage, UsageWho, getrusage};
use outlive::{Given, Recorder, event};
use rustix::io::FdFlags;

use self::oom::OomKills;
use self::sched::Sched;
use self::signals::Signals;
use self::stderr::Stderr;
use crate::args::{Args, RunArgs};
use crate::boot::say;
use crate::target::state_path;

/// Behind the program's name, the instance in which the supervisor records.
pub(crate) const SUPERVISOR: &str = ".run";
/// Bytes of the supervisor's ring.
const RING_BYTES: u64 = 1 << 20;
/// Lanes of it: one for each thread of the supervisor.
const LANES: usize = 3;

/// Exit codes of a program that was not started, as shells have them, and of a supervisor that
/// failed or, with `--strict`, could not record, as other supervisors have it.
const NOT_EXECUTABLE: u8 = 126;
const NOT_FOUND: u8 = 127;
const NO_RECORDING: u8 = 125;

/// Does what the command's arguments say. The exit code is the program's.
pub(crate) fn run(args: &Args, run: &RunArgs) -> u8 {
    match supervise(args, run) {
        Ok(code) => code,
        Err(error) => {
            say!("{}; the program was not started", crate::message(&error));
            NO_RECORDING
        }
    }
}

/// What is recorded of a run. What cannot be is said, and keeps the program from starting only with
/// `--strict`: a service has to run when the disk is full, too.
#[derive(Default)]
struct Recording {
    sched: Option<Sched>,
    /// What the supervisor sees.
    recorder: Option<Recorder>,
    /// The program's own region.
    given: Option<Given>,
}

impl Recording {
    fn begin(args: &Args, run: &RunArgs) -> Result<Self> {
        let Some(state) = or_without(run, state_path(args))? else {
            return Ok(Self::default());
        };
        let name = run.instance();
        let program = run.program.to_string_lossy();
        let builder = |name: &str| {
            let builder = Recorder::builder(name).state(&state).no_given();
            builder.program(&program)
        };
        let cannot = |name: &str| format!("cannot record {name}");
        let given = builder(&name).size(run.size).give();
        let given = or_without(run, given.with_context(|| cannot(&name)))?;
        let of_supervisor = format!("{name}{SUPERVISOR}");
        let recorder = builder(&of_supervisor)
            .size(RING_BYTES)
            .lanes(LANES)
            .no_panic_hook()
            .start();
        let recorder = or_without(run, recorder.with_context(|| cannot(&of_supervisor)))?;
        let sched = match run.sched {
            true => or_without(run, Sched::begin(&state, &name, run.size))?,
            false => None,
        };
        Ok(Self {
            sched,
            recorder,
            given,
        })
    }

    fn finish(self) {
        let finished = self.sched.map_or(Ok(()), Sched::finish);
        said(finished, "record scheduler events");
    }
}

/// The result; without `--strict` an error is said, and nothing is there.
fn or_without<T>(run: &RunArgs, result: Result<T>) -> Result<Option<T>> {
    match result {
        Err(error) if !run.strict => {
            say!("{}; the program runs without it", crate::message(&error));
            Ok(None)
        }
        result => result.map(Some),
    }
}

fn supervise(args: &Args, run: &RunArgs) -> Result<u8> {
    let mut recording = Recording::begin(args, run)?;
    let program = run.program.to_string_lossy();
    let oom_kills = OomKills::begin();
    let signals = Signals::begin()?;
    let code = match spawn(run, recording.given.as_ref()) {
        Ok(mut child) => {
            if let Some(given) = &mut recording.given {
                given.close_previous();
            }
            // From here on the program's exit code is what counts: what fails is said.
            if let Some(status) = watch(&mut child, signals) {
                record_end(child.id(), status, &oom_kills);
                if let Some(signal @ 1..) = status.signal() {
                    let signal_name = signals::name(signal);
                    let ended = format!("{program} was killed by signal {signal} {signal_name}");
                    match &recording.recorder {
                        Some(_) => say!("{ended}: outlive last {}", run.instance()),
                        None => say!("{ended}"),
                    }
                }
                code_of(status)
            } else {
                NO_RECORDING
            }
        }
        Err(error) => {
            event!("run:failed", error = error.to_string());
            say!("cannot start {program}: {error}");
            match error.kind() {
                io::ErrorKind::NotFound => NOT_FOUND,
                _ => NOT_EXECUTABLE,
            }
        }
    };
    recording.finish();
    Ok(code)
}

/// Starts the program, with the region if there is one.
fn spawn(run: &RunArgs, given: Option<&Given>) -> io::Result<Child> {
    let mut command = Command::new(&run.program);
    command.args(&run.arguments);
    command.envs(given.iter().flat_map(|given| given.environment()));
    if !run.no_stderr {
        command.stderr(Stdio::piped());
    }
    let inherit = |flags| {
        let mut descriptors = given.iter().flat_map(|given| given.descriptors());
        descriptors.try_for_each(|descriptor| rustix::io::fcntl_setfd(descriptor, flags))
    };
    inherit(FdFlags::empty())?;
    let child = command.spawn();
    inherit(FdFlags::CLOEXEC)?;
    let child = child?;
    let arguments = run
        .arguments
        .iter()
        .map(|argument| argument.to_string_lossy());
    let arguments: Vec<_> = arguments.collect();
    let directory = std::env::current_dir().unwrap_or_default();
    event!(
        "run:start",
        program_pid = child.id(),
        program = run.program.to_string_lossy(),
        arguments = arguments.join(" "),
        directory = directory.to_string_lossy()
    );
    Ok(child)
}

/// Passes on what the program says and what it is sent, until it has ended.
fn watch(child: &mut Child, signals: Signals) -> Option<ExitStatus> {
    let stderr = child.stderr.take().map(Stderr::begin).transpose();
    let stderr = said(stderr, "read the program's standard error").flatten();
    said(signals.forward_to(child), "pass signals on");
    let status = said(child.wait(), "wait for the program");
    if let Some(stderr) = stderr {
        stderr.finish();
    }
    status
}

/// The result, or what cannot be done is said.
fn said<T, E: std::fmt::Display>(result: Result<T, E>, what: &str) -> Option<T> {
    result
        .inspect_err(|error| say!("cannot {what}: {error}"))
        .ok()
}

fn record_end(pid: u32, status: ExitStatus, oom_kills: &OomKills) {
    if let Ok(usage) = getrusage(UsageWho::RUSAGE_CHILDREN) {
        record_usage(&usage);
    }
    let signal = status.signal().unwrap_or(0);
    event!(
        "run:exit",
        program_pid = pid,
        code = status.code().unwrap_or(-1),
        signal = signal,
        signal_name = signals::name(signal),
        core_dumped = status.core_dumped(),
        // Where the system does not tell: none that is known.
        oom_kills = oom_kills.so_far().unwrap_or(0),
        oom_scope = oom_kills.scope()
    );
}

/// What the program, and the children that it waited for, took.
fn record_usage(usage: &Usage) {
    let micros = |time: nix::sys::time::TimeVal| {
        use nix::sys::time::TimeValLike;
        time.num_microseconds()
    };
    event!(
        "run:usage",
        user_us = micros(usage.user_time()),
        system_us = micros(usage.system_time()),
        max_rss_kib = usage.max_rss(),
        minor_faults = usage.minor_page_faults(),
        major_faults = usage.major_page_faults(),
        blocks_read = usage.block_reads(),
        blocks_written = usage.block_writes(),
        voluntary_switches = usage.voluntary_context_switches(),
        involuntary_switches = usage.involuntary_context_switches()
    );
}

/// The code that a shell gives for a program that ended so.
fn code_of(status: ExitStatus) -> u8 {
    let code = status.code();
    let code = code.or_else(|| status.signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok())
        .unwrap_or(u8::MAX)
}

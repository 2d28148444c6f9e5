//! The `outlive` command: a flight recorder for Linux.
//!
//! Each command is a module of its own; this file reads the arguments and turns what comes back
//! into an exit code.

#![forbid(unsafe_code)]

mod args;
mod background;
mod boot;
mod check;
mod demo;
mod diagnostic;
mod diff;
mod doctor;
mod export;
mod filter;
mod follow;
mod formats;
mod import;
mod info;
mod install;
mod kernel_instances;
mod last;
mod line;
mod ls;
mod merged;
mod rm;
mod run;
mod show;
mod sql;
mod summary;
mod switch;
mod target;
mod units;

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;

use args::{Args, Command};

/// The exit codes, as `--help` lists them.
pub(crate) mod exit {
    /// Done; for `check`: everything is whole.
    pub(crate) const DONE: u8 = 0;
    /// Failed; for `check`: damaged, but events were recovered.
    pub(crate) const FAILED: u8 = 1;
    /// Wrong usage, or a command line that `--strict` refuses; for `check`: not a region, or
    /// nothing recoverable.
    pub(crate) const USAGE: u8 = 2;
    /// Another recorder runs on this state.
    pub(crate) const LOCKED: u8 = 3;
    /// The system refuses what is needed: no permission, no tracefs, lockdown.
    pub(crate) const REFUSED: u8 = 4;
}

fn main() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() {
                exit::USAGE
            } else {
                exit::DONE
            });
        }
    };
    match run(&args) {
        Ok(code) => ExitCode::from(code),
        // A reader that closed the pipe (`| head`) has what it wanted.
        Err(error) if is_broken_pipe(&error) => ExitCode::from(exit::DONE),
        // It is shown with its place already.
        Err(error) if error.is::<filter::Mistake>() => {
            let _ = writeln!(std::io::stderr(), "{error}");
            ExitCode::from(exit::USAGE)
        }
        Err(error) => {
            boot::say!("{}", message(&error));
            if let Some(line) = help(&error) {
                let _ = writeln!(std::io::stderr(), "  help: {line}");
            }
            // 1 means that a check recovered something, or could not say what it found.
            let least = match args.command {
                Command::Check(_) if !error.is::<std::io::Error>() => exit::USAGE,
                _ => exit::FAILED,
            };
            ExitCode::from(code(&error).max(least))
        }
    }
}

fn run(args: &Args) -> anyhow::Result<u8> {
    match &args.command {
        Command::Boot(boot) => boot::boot(args, boot),
        Command::Ls(ls) => ls::run(args, ls),
        Command::Show(show) => show::run(args, show),
        Command::Export(export) => export::run(args, export),
        Command::Import(import) => import::run(args, import),
        Command::Run(program) => Ok(run::run(args, program)),
        Command::Sql(sql) => sql::run(args, sql),
        Command::Diff(diff) => diff::run(args, diff),
        Command::Last(last) => last::run(args, last),
        Command::Info(info) => info::run(args, info),
        Command::Check(check) => check::run(args, check),
        Command::Enable(switch) => switch::run(args, switch, true),
        Command::Disable(switch) => switch::run(args, switch, false),
        Command::Rm(rm) => rm::run(args, rm),
        Command::Demo(_) => demo::run(),
        Command::Doctor(doctor) => doctor::run(args, doctor),
        Command::Install(install) => install::install(args, install),
        Command::Uninstall(uninstall) => install::uninstall(uninstall),
    }
}

/// A wrong usage that shows only when the arguments are looked at closer.
#[derive(Debug)]
pub(crate) struct Usage(pub(crate) String);

impl std::fmt::Display for Usage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Usage {}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let io = error
        .chain()
        .find_map(|cause| cause.downcast_ref::<std::io::Error>());
    io.is_some_and(|io| io.kind() == std::io::ErrorKind::BrokenPipe)
}

/// An error and its causes, but for those that it tells itself.
pub(crate) fn message(error: &anyhow::Error) -> String {
    let mut message = String::new();
    for cause in error.chain() {
        let cause = cause.to_string();
        if !message.ends_with(&cause) {
            let colon = if message.is_empty() { "" } else { ": " };
            message = message + colon + &cause;
        }
    }
    message
}

/// The exit code that an error means.
fn code(error: &anyhow::Error) -> u8 {
    use outlive_kernel::Error as Kernel;
    use outlive_trace::Error as Trace;
    if let Some(error) = error.downcast_ref::<Trace>() {
        return match error {
            Trace::Locked { .. } => exit::LOCKED,
            Trace::NotARegion { .. } | Trace::WrongKind { .. } => exit::USAGE,
            _ => exit::FAILED,
        };
    }
    if error.is::<target::Unknown>() || error.is::<Usage>() {
        return exit::USAGE;
    }
    match error.downcast_ref::<Kernel>() {
        Some(
            Kernel::NotPermitted { .. }
            | Kernel::NoTracefs
            | Kernel::NotMounted
            | Kernel::ReadOnlyMount { .. }
            | Kernel::Lockdown { .. },
        ) => exit::REFUSED,
        _ => exit::FAILED,
    }
}

/// What to do about an error.
fn help(error: &anyhow::Error) -> Option<&'static str> {
    let of_kernel = error
        .downcast_ref::<outlive_kernel::Error>()
        .and_then(|error| error.help());
    let is_denied = error.chain().any(|cause| {
        cause
            .downcast_ref::<std::io::Error>()
            .is_some_and(|io| io.kind() == std::io::ErrorKind::PermissionDenied)
    });
    of_kernel.or(is_denied
        .then_some("run it as the user that recorded, which is root for the kernel's events"))
}

//! What can go wrong when a recorder starts.

use outlive_event::FilterError;
use outlive_trace::cmdline::Diagnostic;

/// Why no recorder could be started. Nothing that an earlier run left is lost then.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// This process has a recorder already.
    #[error("a recorder of this process runs already; drop it first")]
    AlreadyStarted,
    /// The command line is wrong.
    #[error("the command line is wrong: {0}")]
    CommandLine(Problems),
    /// The name that was given cannot be an instance's.
    #[error(
        "{0:?} cannot be the name of a recording: a name has 1 to 128 bytes, no dot in front, and neither `/`, `,`, \
         `@`, `^`, `=`, quotes nor white space"
    )]
    BadName(String),
    /// The command line has no instance that a program could record into.
    #[error(
        "the command line has no persistent instance; give one, as in \
         `reserve_mem=4M:4096:NAME trace_instance=NAME@NAME`"
    )]
    NoInstance,
    /// An event is given by something that is no event's name.
    #[error("{text:?} names no events: {why}")]
    BadEvent {
        /// What was given.
        text: String,
        /// What is wrong with it.
        why: String,
    },
    /// A filter cannot be read.
    #[error("the filter {text:?} is wrong at byte {}: {source}", source.span.start)]
    BadFilter {
        /// What was given.
        text: String,
        /// What is wrong with it.
        source: FilterError,
    },
    /// An event that is declared at run time cannot be one.
    #[error("{system}:{name} cannot be an event: {why}")]
    BadDeclaration {
        /// Its system.
        system: String,
        /// Its name.
        name: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The state, its areas or what the run before left could not be had.
    #[error(transparent)]
    Trace(#[from] outlive_trace::Error),
    /// The backing is no file, so that no descriptor of it could be given away.
    #[error("a region for another process has to be on tmpfs or in a file")]
    NotAFile,
    /// A region for another process cannot be opened or laid out.
    #[error("cannot use a region that one process prepares for another: {0}")]
    Given(std::io::Error),
    /// The region of a supervised run is another process's, and its place cannot be seen from here.
    #[error("another process has its region, and {} cannot be seen from here", .0.display())]
    UnseenArea(std::path::PathBuf),
    /// This process is not the first one of a supervised run, and has no place to record into.
    #[error("no region in the run of `outlive run`: {beside}; and none of its own: {own}")]
    NoneOfRun {
        /// Why it has none beside the first process's.
        beside: Box<Error>,
        /// Why it has none in a state folder of its own.
        own: Box<Error>,
    },
    /// The system refuses memory for the recorder's own data.
    #[error("no memory for the recorder: {0}")]
    Memory(std::io::Error),
}

/// What is wrong with a command line.
#[derive(Debug)]
pub struct Problems(pub Vec<Diagnostic>);

impl std::fmt::Display for Problems {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (i, problem) in self.0.iter().enumerate() {
            let separator = if i == 0 { "" } else { "; " };
            write!(f, "{separator}{}", problem.message)?;
        }
        Ok(())
    }
}

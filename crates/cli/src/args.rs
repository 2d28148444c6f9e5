//! The arguments of the command.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Parser, Subcommand, ValueEnum};
use outlive_export::Format;
use outlive_trace::Backing;
use outlive_trace::cmdline::EventToken;

use crate::doctor::Tier;
use crate::formats;
use crate::line::parse_area;
use crate::units::{parse_duration, parse_interval};

const EXIT_CODES: &str = "\
Exit codes:
  0  done; check: everything is whole
  1  failed; check: damaged, but events were recovered
  2  wrong usage, an unknown name, a command line that --strict refuses; check: nothing recoverable,
     not a region, or not readable
  3  another recorder runs on this state
  4  the system refuses what is needed: no permission, no tracefs, lockdown";

const EXAMPLES: &str = "\
Example:
  outlive boot 'reserve_mem=100M:12M:trace trace_instance=boot_mapped^@trace,sched \\
                trace_instance=backup=boot_mapped'
  ... the machine, or outlive, dies; the same line again; then:
  outlive show backup --last 1s";

/// A flight recorder for Linux: tracing that outlives the crash.
#[derive(Debug, Parser)]
#[command(name = "outlive", version, about, after_help = EXAMPLES, after_long_help = format!("{EXAMPLES}\n\n{EXIT_CODES}"))]
pub(crate) struct Args {
    /// The state folder: live areas, generations, and what the last start configured
    /// [default: /var/lib/outlive for root, else outlive in the XDG state folder]
    #[arg(long, global = true, env = "OUTLIVE_STATE", value_name = "DIR")]
    pub(crate) state: Option<PathBuf>,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Boot(BootArgs),
    Ls(LsArgs),
    Show(ShowArgs),
    Export(ExportArgs),
    Import(ImportArgs),
    Run(RunArgs),
    Sql(SqlArgs),
    Diff(DiffArgs),
    Last(LastArgs),
    Info(InfoArgs),
    Check(CheckArgs),
    /// Switch events of a running program on
    Enable(SwitchArgs),
    /// Switch events of a running program off
    Disable(SwitchArgs),
    Rm(RmArgs),
    Demo(DemoArgs),
    Doctor(Box<DoctorArgs>),
    Install(Box<InstallArgs>),
    Uninstall(UninstallArgs),
}

/// Keep what the previous run left, then record until SIGINT or SIGTERM
#[derive(Debug, Parser)]
#[command(after_help = "\
Example:
  outlive boot 'reserve_mem=12M:4096:trace trace_instance=boot_mapped@trace,sched,irq'

The command line is the kernel's: see docs/command-line.md. Without one it is read from
/etc/outlive/cmdline, and its areas from /etc/outlive/areas. What the start does is said on standard error, step by step.")]
pub(crate) struct BootArgs {
    #[command(flatten)]
    pub(crate) line: LineArgs,
    /// Refuse to start if anything in the command line is wrong
    #[arg(long)]
    pub(crate) strict: bool,
    /// Time between two looks at the host's ring
    #[arg(long, value_name = "TIME", default_value = "10ms", value_parser = parse_interval)]
    pub(crate) interval: Duration,
    /// Write areas on disk files back this often, for crashes of the whole machine
    /// [default: when the kernel does]
    #[arg(long, value_name = "TIME", value_parser = parse_interval)]
    pub(crate) flush: Option<Duration>,
    /// Size of the host's ring per CPU in KiB, from which events are taken even after our death
    /// [default: a quarter of the region, 1024 to 8192]
    #[arg(long, value_name = "KIB", value_parser = clap::value_parser!(u64).range(HOST_BUFFER_KIB))]
    pub(crate) host_buffer: Option<u64>,
    /// Generations to keep of each instance
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) keep: u32,
    /// Bytes of generations to keep (K, M, G); the newest is always kept
    /// [default: a tenth of the file system]
    #[arg(long, value_name = "BYTES", value_parser = parse_size)]
    pub(crate) keep_bytes: Option<u64>,
    /// Age of generations to keep [default: any]
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    pub(crate) keep_age: Option<Duration>,
    /// Only events of this process and of what it starts, until standard input ends: for `run`
    #[arg(long, value_name = "PID", hide = true)]
    pub(crate) event_pid: Option<u32>,
}

/// Show events as the kernel's trace file does
#[derive(Debug, Parser)]
#[command(after_help = "\
Example:
  outlive show backup --last 5s --event sched_switch
  outlive show backup --filter 'prev_prio < 100 && next_comm ~ \"kw*\"'
  outlive show boot_mapped --follow
  outlive show shop boot_mapped --last 1s
  outlive show memory.bin --formats ./events

A filter has == != < <= > >= & for numbers, == != ~ for texts in quotes (~ is a pattern), && || ! and
parentheses; CPU, COMM, CPU & CPUS{0-3}, field.function == NAME. Events without such a field are not shown.

Several regions are merged by the monotonic clock if they are of one boot, else by the wall clock; each line
begins with the name of its region.

A region of a kernel (a memory dump) has no event formats in it: give a copy of its tracefs events
folder with --formats. printk_formats, saved_cmdlines and kallsyms are read from beside it.")]
pub(crate) struct ShowArgs {
    /// Instances (boot_mapped), backups (backup), generations (boot_mapped/12), patterns ('web*'), or
    /// files; several are merged by time
    #[arg(value_name = "NAME|FILE", required = true)]
    pub(crate) names: Vec<String>,
    /// Formats for a region that a kernel wrote: a copy of tracefs' events folder
    #[arg(long, value_name = "DIR")]
    pub(crate) formats: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) selection: SelectionArgs,
    /// Wait for more events of a live instance
    #[arg(long, conflicts_with = "last")]
    pub(crate) follow: bool,
    /// Print fields instead of the event's print format
    #[arg(long)]
    pub(crate) raw_fields: bool,
    /// One JSON object per line
    #[arg(long)]
    pub(crate) json: bool,
}

/// Which events.
#[derive(Debug, Parser)]
pub(crate) struct SelectionArgs {
    /// Only this CPU
    #[arg(long, value_name = "N")]
    pub(crate) cpu: Option<u32>,
    /// Only the last part of the time
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    pub(crate) last: Option<Duration>,
    /// Only these events: sys, sys:event, event, or a pattern with * and ?
    #[arg(long, value_name = "GLOB", value_parser = parse_event)]
    pub(crate) event: Option<EventToken>,
    /// Only events that an expression of the kernel's filter language keeps
    #[arg(long, value_name = "EXPR")]
    pub(crate) filter: Option<String>,
    /// The regions are of one boot: those without clock pairs are merged if their trace clocks are the same
    #[arg(long)]
    pub(crate) same_boot: bool,
}

/// Write events in the format of another tool
#[derive(Debug, Parser)]
#[command(after_help = format!("\
Example:
  outlive export backup -o crash.json
  outlive export backup shop -o crash.csv --last 5s --event 'sched:*'
  outlive export backup -o - --format json | jq .event
  outlive export boot_mapped/11 boot_mapped/12 -o crash.parquet

Formats, chosen by the output's ending or with --format:
{}

The events of several regions are merged by time: by the monotonic clock if they are of one boot,
else by the wall clock. The output appears under its name when it is whole.
Exit codes: 0 all is written; 1 failed, or something of the regions is not in the output, which is
then said.", listed_formats()))]
pub(crate) struct ExportArgs {
    /// Instances (boot_mapped), backups (backup), generations (boot_mapped/12), or files
    #[arg(value_name = "NAME|FILE", required = true)]
    pub(crate) names: Vec<String>,
    /// The file, or folder, to write; - is standard output
    #[arg(long, short, value_name = "OUT")]
    pub(crate) output: PathBuf,
    /// The format [default: by the output's ending]
    #[arg(long, value_name = "F", value_parser = formats::named)]
    pub(crate) format: Option<&'static Format>,
    #[command(flatten)]
    pub(crate) selection: SelectionArgs,
    /// Formats for a region that a kernel wrote: a copy of tracefs' events folder
    #[arg(long, value_name = "DIR")]
    pub(crate) formats: Option<PathBuf>,
}

/// Ask regions in SQL
#[derive(Debug, Parser)]
#[command(after_help = "\
Example:
  outlive sql 'SELECT next_comm, count(*) FROM sched_switch GROUP BY 1 ORDER BY 2 DESC LIMIT 5' backup
  outlive sql 'SELECT task, max(dur) FROM wakeup_latency GROUP BY task' boot_mapped/11 boot_mapped/12 --csv
  outlive sql 'SELECT * FROM gaps(20000000)' backup --json
  outlive sql backup < statements.sql

A table per event (sched_switch), with its fields; events, with the text of show; task_states,
wakeup_latency, cpu_time, handlers, spans, gaps(BOUND), tasks, holes, runs. `SELECT * FROM tables` and
`SELECT * FROM columns` list them. ts is the trace clock's, wall nanoseconds since 1970. Nothing can be
changed, and no file opened.")]
pub(crate) struct SqlArgs {
    /// The statement; without one, statements are read from standard input. Then instances
    /// (boot_mapped), backups (backup), generations (boot_mapped/12), or files
    #[arg(value_name = "STATEMENT] [NAME|FILE", required = true)]
    pub(crate) statement_and_names: Vec<String>,
    /// One JSON object per row
    #[arg(long, conflicts_with = "csv")]
    pub(crate) json: bool,
    /// Comma-separated values, names first
    #[arg(long)]
    pub(crate) csv: bool,
    /// Formats for a region that a kernel wrote: a copy of tracefs' events folder
    #[arg(long, value_name = "DIR")]
    pub(crate) formats: Option<PathBuf>,
}

/// Compare the last seconds of a run with those of others
#[derive(Debug, Parser)]
#[command(after_help = "\
Example:
  outlive diff boot_mapped/12 boot_mapped/11
  outlive diff backup --last 1s
  outlive diff shop --json

Without a second one, the up to four generations before the run are put together. Shown is what is
beyond chance: events that stopped, appeared, or whose rate is at least 1.5 times the other; durations
(wake-up latency, time on CPU, interrupt and softirq handlers, spans) whose distribution shifted. The
rules are in docs/commands.md.")]
pub(crate) struct DiffArgs {
    /// The run: an instance (boot_mapped), a backup (backup), a generation (boot_mapped/12), or a file
    #[arg(value_name = "A")]
    pub(crate) name: String,
    /// What it is compared with [default: the generations before it]
    #[arg(value_name = "B")]
    pub(crate) other: Option<String>,
    /// The last part of each run that is compared
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = parse_duration)]
    pub(crate) last: Duration,
    /// One JSON object, with what is the same too
    #[arg(long)]
    pub(crate) json: bool,
    /// Formats for a region that a kernel wrote: a copy of tracefs' events folder
    #[arg(long, value_name = "DIR")]
    pub(crate) formats: Option<PathBuf>,
}

/// Make a generation of what another tool recorded
#[derive(Debug, Parser)]
#[command(after_help = "\
Example:
  outlive import trace.dat
  outlive import vmcore --name crashed
  outlive import ./copy-of-tracefs --name lab7; outlive show lab7

FILE is a trace.dat (7 or 6), an ELF core of a machine (vmcore), or a raw image of memory: each region that begins
at a page of it is kept, and of a kernel's shown with --formats. DIR has per_cpu/cpuN/trace_pipe_raw, as
copied, and events, a copy of tracefs' folder.
Exit codes: 0 all is kept; 1 failed, or something of it is not: it is said what.")]
pub(crate) struct ImportArgs {
    /// The file or folder
    #[arg(value_name = "FILE|DIR")]
    pub(crate) path: PathBuf,
    /// The instance that it is to be a generation of; those of several are NAME.OTHER
    /// [default: the file's name without its ending]
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,
}

fn listed_formats() -> String {
    let lines = formats::all().map(|format| {
        let endings = format.endings.iter().map(|ending| format!(".{ending}"));
        let endings: Vec<String> = endings.collect();
        let endings = match endings.as_slice() {
            [] => String::new(),
            endings => format!(" ({})", endings.join(", ")),
        };
        format!("  {}{endings}\n      {}", format.name, format.about)
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// List the instances and what is kept of earlier runs
#[derive(Debug, Parser)]
#[command(after_help = "\
Example:
  outlive ls
  outlive ls --json

VERDICT is how the run ended; WHEN its end, or the start of the run that goes on; LOST counts events
that were lost before they were recorded.")]
pub(crate) struct LsArgs {
    /// A JSON array of objects
    #[arg(long)]
    pub(crate) json: bool,
}

/// Run a program with a flight recorder, and keep how it starts, what it says and how it ends
#[derive(Debug, Parser)]
#[command(after_help = "\
Example:
  outlive run -- ./server --port 8080
  outlive run --name web -- python3 -m http.server
  outlive last web
  outlive run --sched -- make; outlive show make.run make.sched

A program with the outlive crate records into a region that it is given as an open descriptor (OUTLIVE_FD):
it needs no writable folder. Each further process of the run has a region beside it, NAME.PID. Start, standard
error, signals, resource usage and end are events of the instance NAME.run. What cannot be recorded is said, and
the program runs without; with --strict it is not started. The exit code is the program's, 128 and the signal's
number if one ended it, 127 or 126 if it cannot be started, 125 if --strict refused. SIGINT, SIGTERM, SIGHUP,
SIGQUIT, SIGUSR1 and SIGUSR2 are passed on.")]
pub(crate) struct RunArgs {
    /// The instance's name [default: that of the program's file]
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,
    /// Bytes of the ring that the program is given (K, M, G)
    #[arg(long, value_name = "BYTES", default_value = "4M", value_parser = parse_size)]
    pub(crate) size: u64,
    /// Record the program's scheduler events too, as NAME.sched: needs root
    #[arg(long)]
    pub(crate) sched: bool,
    /// Do not start the program if anything of it cannot be recorded
    #[arg(long)]
    pub(crate) strict: bool,
    /// Leave the program's standard error alone: it is not kept
    #[arg(long)]
    pub(crate) no_stderr: bool,
    /// The program
    #[arg(value_name = "PROGRAM")]
    pub(crate) program: OsString,
    /// Its arguments
    #[arg(
        value_name = "ARGS",
        trailing_var_arg = true,
        allow_hyphen_values = true
    )]
    pub(crate) arguments: Vec<OsString>,
}

impl RunArgs {
    /// The name of the program's instance.
    pub(crate) fn instance(&self) -> String {
        let file = Path::new(&self.program).file_name();
        let name = || file.unwrap_or(&self.program).to_string_lossy().into_owned();
        self.name.clone().unwrap_or_else(name)
    }
}

/// Tell how a run ended and what was going on then, on one screen: read this first after a crash
#[derive(Debug, Parser)]
#[command(after_help = "\
Example:
  outlive last shop
  outlive last backup --events 20
  outlive last shop/3 --json

Of a program: the open spans of each thread, the last panic, each thread's last events. Of a kernel's
events: what each CPU ran, which tasks were blocked or waited for a CPU, the last messages (printk:console),
each CPU's last events. Of an instance that records again, the newest generation is shown.")]
pub(crate) struct LastArgs {
    #[command(flatten)]
    pub(crate) target: TargetArgs,
    /// Last events of each thread or CPU [default: as many as fit on a screen]
    #[arg(long, value_name = "N")]
    pub(crate) events: Option<usize>,
    /// The run that goes on, instead of the one before it
    #[arg(long)]
    pub(crate) live: bool,
    /// One JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

/// Tell who wrote a region, how the run ended, its clocks and its counters
#[derive(Debug, Parser)]
#[command(after_help = "\
Example:
  outlive info backup
  outlive info memory.bin --json")]
pub(crate) struct InfoArgs {
    #[command(flatten)]
    pub(crate) target: TargetArgs,
    /// One JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

/// Tell what can be recovered of a region, what is missing, and why
#[derive(Debug, Parser)]
#[command(after_help = "\
Example:
  outlive check backup
  outlive check memory.bin --json

Exit codes: 0 everything is whole; 1 damaged, but events were recovered; 2 nothing is recoverable, or
it is not a region. Lost events are no damage. Where no seal proves the contents of a sub-buffer (the
newest one of a CPU, and all of a kernel's region), only its structure was checked: unsealed.")]
pub(crate) struct CheckArgs {
    #[command(flatten)]
    pub(crate) target: TargetArgs,
    /// One JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

/// Events of a running program.
#[derive(Debug, Parser)]
#[command(after_help = "\
Example:
  outlive disable shop
  outlive disable shop http:request 'db:*'
  outlive enable shop db

Without an event the program's events are listed with their switches. A program's event has a switch when
the program has come to it for the first time; which ones are on from the start, the program says
(`Builder::events`).")]
pub(crate) struct SwitchArgs {
    /// One JSON object per event
    #[arg(long)]
    pub(crate) json: bool,
    /// The program, by the name of its instance
    #[arg(value_name = "NAME")]
    pub(crate) name: String,
    /// Events: sys, sys:event, event, or a pattern with * and ?
    #[arg(value_name = "EVENT", value_parser = parse_event)]
    pub(crate) events: Vec<EventToken>,
}

/// Remove what is kept of an earlier run
#[derive(Debug, Parser)]
#[command(after_help = "\
Example:
  outlive rm boot_mapped/12
  outlive rm boot_mapped --all

Removes nothing while a recorder runs on this state, and never what a recorder writes.")]
pub(crate) struct RmArgs {
    /// A generation (boot_mapped/12); with --all, an instance
    #[arg(value_name = "NAME")]
    pub(crate) name: String,
    /// All generations of an instance
    #[arg(long)]
    pub(crate) all: bool,
}

/// Record, kill the recorder, start it again, and show the last events before the kill
#[derive(Debug, Parser)]
#[command(after_help = "\
Example:
  outlive demo

Takes some seconds, needs what recording the kernel's events needs (root), works in a temporary
folder, and leaves nothing behind.")]
pub(crate) struct DemoArgs {}

/// Tell what a trace survives on this machine, and why
#[derive(Debug, Parser)]
#[command(after_help = "\
Example:
  outlive doctor
  outlive doctor --tier process,panic --area trace=mem:0x10000000
  outlive doctor --prove
  outlive doctor --prove --reboot=panic; outlive doctor

Judged is what `outlive boot` would do with the same line and areas; without a line and without
/etc/outlive/cmdline an example. Looking changes nothing but doctor.json in the state folder.
Exit codes: 0 each tier asked for with --tier survives, and what was to be proven was; 1 one does
not, or that is not known.")]
pub(crate) struct DoctorArgs {
    #[command(flatten)]
    pub(crate) line: LineArgs,
    /// What has to be survived, for the exit code
    #[arg(
        long,
        value_name = "TIER",
        value_delimiter = ',',
        default_value = "process"
    )]
    pub(crate) tier: Vec<Tier>,
    /// Write canaries, kill their writer, and read them back as the next start would
    #[arg(long)]
    pub(crate) prove: bool,
    /// Leave canaries for the next boot, which `outlive doctor` then reads. `now` reboots the
    /// machine, `panic` makes its kernel panic; without either you do it
    #[arg(long, value_name = "HOW", requires = "prove", num_args = 0..=1, require_equals = true,
          default_missing_value = "ask")]
    pub(crate) reboot: Option<Reboot>,
    /// One JSON object
    #[arg(long)]
    pub(crate) json: bool,
    /// Write the canaries of this line and die: for --prove
    #[arg(long, value_name = "LINE", hide = true)]
    pub(crate) write_canary: Option<String>,
}

/// Install the service that starts outlive early at each boot
#[derive(Debug, Parser)]
#[command(after_help = "\
Example:
  outlive install --dry-run
  outlive install 'reserve_mem=12M:4096:trace trace_instance=boot_mapped@trace,sched'
  outlive install --reserve
  outlive install --root /mnt/image --area trace=mem:0x10000000

Writes /etc/outlive/cmdline, outlive.service and its link in sysinit.target.wants, and where the
kernel needs parameters a drop-in for GRUB, or them behind those of /etc/kernel/cmdline. A file that is
not as an installation left it is not overwritten: then nothing is installed. Without a command line the README's is taken.")]
pub(crate) struct InstallArgs {
    #[command(flatten)]
    pub(crate) line: LineArgs,
    /// Choose memory to set aside for the areas, so that they survive a panic, with memmap=
    #[arg(long)]
    pub(crate) reserve: bool,
    /// Let the kernel itself make the instances: give it the command line (Linux 7.1 and later)
    #[arg(long, conflicts_with = "reserve")]
    pub(crate) kernel: bool,
    /// Install into the file tree of another machine
    #[arg(long, value_name = "DIR")]
    pub(crate) root: Option<PathBuf>,
    /// The program that the service starts [default: this one; with --root /usr/bin/outlive]
    #[arg(long, value_name = "PATH")]
    pub(crate) program: Option<PathBuf>,
    /// Print the files, and write nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
}

/// Take back what install has written
#[derive(Debug, Parser)]
#[command(after_help = "\
Example:
  outlive uninstall

A file that was changed since is kept and named; of /etc/kernel/cmdline the parameters are taken out,
whatever else was changed. What was recorded stays.")]
pub(crate) struct UninstallArgs {
    /// The file tree of another machine
    #[arg(long, value_name = "DIR")]
    pub(crate) root: Option<PathBuf>,
    /// Say what would be removed, and remove nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
}

/// Who reboots the machine, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Reboot {
    /// The user does
    Ask,
    /// The doctor does, at once
    Now,
    /// The doctor makes the kernel panic, at once
    Panic,
}

/// The boot command line, and where its areas live.
#[derive(Debug, Parser)]
pub(crate) struct LineArgs {
    /// The boot command line
    pub(crate) cmdline: Option<String>,
    /// Read the command line from a file, which may have comments (#) and line breaks
    #[arg(long, value_name = "FILE", conflicts_with = "cmdline")]
    pub(crate) cmdline_file: Option<PathBuf>,
    /// Where an area lives: file, file:/PATH, tmpfs, tmpfs:/PATH, hugetlbfs:/PATH, dax:/PATH,
    /// devdax:/dev/daxR.N or mem:0xADDRESS
    #[arg(long = "area", value_name = "NAME=BACKING", value_parser = parse_area)]
    pub(crate) areas: Vec<(String, Backing)>,
}

/// What a command looks at.
#[derive(Debug, Parser)]
pub(crate) struct TargetArgs {
    /// An instance (boot_mapped), its backup (backup), a generation (boot_mapped/12), or a file
    #[arg(value_name = "NAME|FILE")]
    pub(crate) name: String,
    /// Formats for a region that a kernel wrote: a copy of tracefs' events folder
    #[arg(long, value_name = "DIR")]
    pub(crate) formats: Option<PathBuf>,
}

fn parse_event(text: &str) -> Result<EventToken, String> {
    EventToken::new(text).map_err(|diagnostic| diagnostic.message)
}

/// What the host's ring per CPU may have: two sub-buffers, up to 64 GiB.
const HOST_BUFFER_KIB: std::ops::RangeInclusive<u64> = 8..=64 << 20;

fn parse_size(text: &str) -> Result<u64, String> {
    let parsed = outlive_trace::cmdline::memparse(text);
    if parsed.len == 0 || parsed.len != text.len() {
        return Err("expected a size, as in 500M".into());
    }
    Ok(parsed.value)
}

//! The text of what tracers and markers leave in a ring, beside the kernel's: the host may refuse
//! tracers.
#![allow(missing_docs, reason = "tests")]

use std::fs;
use std::path::Path;

use outlive_event::{Catalog, Formatter, TextOptions};
use outlive_ring::raw_page::RawPage;
use outlive_vm::{Boot, Kernel, Machine, Outcome};

const CPUS: u32 = 2;
/// Formats of ordinary sub-buffers.
const SUBBUF: usize = 4096;

/// Each instance records some load, prints it, and is drained.
const SCRIPT: &str = "\
cd /sys/kernel/tracing
for event in events/ftrace/*/ events/sched/*/ events/landlock/*/; do [ -d $event ] || continue; mkdir -p /out/$event; cp $event/format /out/$event; done
cp /proc/kallsyms /out/kallsyms
load() {
  for i in 1 2 3; do
    usleep 2000; ls /proc > /dev/null; dd if=/dev/zero of=/dev/null bs=4k count=50 2>/dev/null
    echo marker $i > trace_marker; echo raw-marker-$i > trace_marker_raw
  done
}
# record NAME TRACER FUNCTIONS OPTIONS EVENTS COMMAND
record() {
  mkdir instances/t-$1; cd instances/t-$1
  echo 0 > tracing_on; echo 0 > options/hash-ptr; echo 0 > options/annotate
  for function in $3; do echo $function >> set_ftrace_filter; done
  echo $2 > current_tracer
  for option in $4; do echo 1 > options/$option; done
  for event in $5; do echo $event >> set_event; done
  echo 1 > tracing_on; ${6:-load}; echo 0 > tracing_on
  mkdir /out/t-$1; cat trace > /out/t-$1/trace
  cp ../../saved_cmdlines /out/t-$1/
  drain t-$1 trace_pipe_raw
  cd ../..
}
set -f
record function function 'vfs_* *schedule*'
record repeats function 'vfs_read vfs_write fsnotify_open_perm*' 'func-no-repeats'
record offsets function 'vfs_*' sym-offset
record stacks nop '' 'stacktrace userstacktrace' 'sched:sched_process_exit'
";

/// What one is denied that has shut itself in three times, with names of all bytes.
const LANDLOCK: &str = "\
record landlock nop '' '' landlock:* 'perl /shut_in'
";
const SHUT_IN: &str = include_str!("shut_in.pl");
const PERL: &str = "/usr/bin/perl";

fn recorded(version: &str) -> Option<Outcome> {
    if !outlive_vm::can_run("tracers") {
        return None;
    }
    if !Path::new(PERL).exists() {
        println!("skipped: no {PERL}");
        return None;
    }
    let mut machine = Machine::new(Kernel::pinned(version).unwrap(), CPUS, 512).unwrap();
    let boot = Boot::new("")
        .program("drain", env!("CARGO_BIN_EXE_outlive-vm-drain"))
        .program("perl", PERL)
        .file("shut_in", SHUT_IN)
        .script(SCRIPT)
        .script(LANDLOCK);
    Some(machine.boot(&boot).unwrap())
}

/// An instance, a word of some of its lines, and whether symbols have offsets.
type Texts = (&'static str, &'static str, bool);

/// The kernel's own texts are ours, line by line; each needs some lines that hold its word.
fn compare(version: &str, more: &[Texts]) {
    let Some(outcome) = recorded(version) else {
        return;
    };
    let texts = [
        ("t-function", " <-", false),
        ("t-repeats", " (repeats: ", false),
        ("t-offsets", "/0x", true),
        ("t-stacks", "<user stack trace>", false),
        ("t-stacks", "<stack trace>", false),
        ("t-stacks", " buf: ", false),
        ("t-stacks", ": tracing_mark_write: marker ", false),
    ];
    for &(instance, word, sym_offset) in texts.iter().chain(more) {
        let kernel = outcome.text(&format!("{instance}/trace")).unwrap();
        let kernel = kernel.lines().filter(|line| !line.starts_with('#'));
        let kernel: Vec<&str> = kernel.collect();
        let ours = text(&outcome, instance, sym_offset);
        for (ours, kernel) in ours.lines().zip(&kernel) {
            // The kernel's names of tasks are those of the moment when it prints.
            assert_eq!(ours.get(16..), kernel.get(16..), "{ours}\n{kernel}");
        }
        assert_eq!(ours.lines().count(), kernel.len(), "{instance}");
        let with_word = kernel.iter().filter(|line| line.contains(word)).count();
        assert!(with_word >= 3, "{version} {instance}: {with_word} {word}");
    }
}

fn text(outcome: &Outcome, instance: &str, sym_offset: bool) -> String {
    let mut catalog = Catalog::from_events_dir(outcome.results().join("events")).unwrap();
    catalog.parse_kallsyms(&outcome.text("kallsyms").unwrap());
    catalog.parse_saved_cmdlines(
        &outcome
            .bytes(&format!("{instance}/saved_cmdlines"))
            .unwrap(),
    );
    let mut options = TextOptions::default();
    options.sym_offset = sym_offset;
    let formatter = Formatter::new(&catalog, options);
    let mut events = Vec::new();
    for cpu in 0..CPUS {
        let path = format!("{instance}/cpu{cpu}.trace_pipe_raw");
        let raw = fs::read(outcome.results().join(path)).unwrap();
        for page in raw.chunks(SUBBUF) {
            let page = RawPage::parse(page).unwrap();
            let of_page = page.events().map(Result::unwrap);
            events
                .extend(of_page.map(|event| (event.text_time_stamp, cpu, event.payload.to_vec())));
        }
    }
    events.sort_by_key(|&(time, cpu, _)| (time, cpu));
    let mut text = Vec::new();
    for (time, cpu, payload) in &events {
        formatter.record(&mut text, *cpu, *time, payload);
    }
    String::from_utf8(text).unwrap()
}

#[test]
fn tracers_and_markers_print_as_linux_7_3_prints_them() {
    // Linux 6.12 has no such events.
    let landlock = [
        ("t-landlock", ": landlock_check_rule_inode: ", false),
        ("t-landlock", ": landlock_check_rule_net_port: ", false),
        ("t-landlock", ": landlock_add_rule_path_beneath: ", false),
        ("t-landlock", ": landlock_deny_access_fs: ", false),
        ("t-landlock", ": landlock_deny_ptrace: ", false),
        ("t-landlock", ": landlock_deny_scope_signal: ", false),
        (
            "t-landlock",
            ": landlock_deny_scope_abstract_unix_socket: ",
            false,
        ),
    ];
    compare("7.3", &landlock);
}

/// Whose record types have other ids.
#[test]
fn tracers_and_markers_print_as_linux_6_12_prints_them() {
    compare("6.12", &[]);
}

//! Our filters against this machine's kernel: what it accepts, and which records it keeps.
//!
//! Needs root and tracefs; elsewhere the tests print `skipped: why` and pass. Each test has
//! instances of its own; nothing global is changed.

mod common;

use std::fs;
use std::process::{Command, Stdio};

use common::{Instance, Record, TRACEFS};
use outlive_event::{Catalog, EventFormat, Filter, FilterScope, Predicate, Symbols};

/// Filters for `sched:sched_switch`: all operators and all sorts of values, right and wrong.
const SWITCH: &[&str] = &[
    "prev_prio < 100",
    "prev_prio<100",
    "prev_prio < 100 && next_comm ~ \"kw*\"",
    "next_comm == bash",
    "next_comm == \"bash\"",
    "next_comm == 'bash'",
    "next_comm == ba sh",
    "next_comm == \"ba sh",
    "next_comm < \"a\"",
    "next_comm & 1",
    "next_comm == 5",
    "prev_prio == \"5\"",
    "prev_prio == abc",
    "prev_prio == 0x10",
    "prev_prio == 010",
    "prev_prio == 08",
    "prev_prio == -1",
    "prev_prio == 0x",
    "prev_prio == +1",
    "prev_prio == 1a",
    "prev_prio == 99999999999",
    "prev_prio == 99999999999999999999",
    "prev_state == 0xffffffffffffffff",
    "prev_state == -1",
    "prev_state > -1",
    "prev_prio ~ \"a\"",
    "prev_prio ~ 1",
    "prev_prio & 3",
    "prev_prio & 0",
    "prev_prio &3",
    "prev_prio&&3",
    "!prev_prio == 3",
    "!(prev_prio == 3)",
    "! prev_prio == 3",
    "!!(prev_prio == 3)",
    "!!prev_prio==3",
    "(prev_prio == 3)",
    "((prev_prio == 3))",
    "(prev_prio == 3",
    "prev_prio == 3)",
    "()",
    "1",
    "prev_prio",
    "prev_prio ==",
    "== 3",
    "3 == prev_prio",
    "prev_prio = 3",
    "prev_prio === 3",
    "prev_prio <> 3",
    "&& prev_prio == 3",
    "prev_prio == 3 & prev_pid == 3",
    "prev_prio == 3 | prev_pid == 3",
    "prev_prio == 3 || prev_pid == 4 && next_pid == 5",
    "prev_prio == 3 and prev_pid == 4",
    "prev_prio == 3 prev_pid == 4",
    "nope == 3",
    "prev_prio == 3 || nope == 3",
    "common_pid == 0",
    "common_type == 5",
    "common_flags & 1",
    "CPU == 1",
    "cpu == 1",
    "CPU < 1",
    "CPU & 1",
    "CPU == 99",
    "COMM == \"a\"",
    "comm == \"a\"",
    "comm ~ \"a*\"",
    "COMM != bash",
    "COMM < \"a\"",
    "common_comm == 1",
    "common_cpu == 1",
    "CPU == CPUS{0}",
    "CPU & CPUS{0-1}",
    "CPU & CPUS{0-1",
    "CPU & CPUS{}",
    "CPU & CPUS{99}",
    "CPU & CPUS{9999}",
    "CPU & CPUS{a}",
    "CPU != CPUS{1}",
    "CPU < CPUS{1}",
    "prev_prio & CPUS{1,3}",
    "prev_prio == CPUS{1}",
    "prev_prio == CPUS{1-3}",
    "next_comm & CPUS{1}",
    "prev_state & CPUS{1}",
    "target_cpu & CPUS{1}",
    "next_comm.ustring == \"a\"",
    "prev_prio.function == schedule",
    "prev_prio.ustring == \"a\"",
    "prev_state.function == schedule",
    "next_comm == \"\"",
    "next_comm == a*b",
    "next_comm ~ a*",
    "next_comm ~ \"a*b?c\"",
    "next_comm ~ \"[ab]*\"",
    "next_comm ~ \"[ab\"",
    "next_comm ~ \"a\" || prev_prio == 1",
    "next_comm == \"a\\\"b\"",
    "next_comm == \"a && b\"",
    "next_comm == a&&prev_prio==1",
    "next_comm == a||prev_prio==1",
    "next_comm == a)",
    "next_comm == 'a\"b'",
    "next_comm != \"x\"",
    "prev_prio >= 1 ",
    "  prev_prio >= 1",
    "prev_prio >= 1\n",
    "prev_prio\t>=\t1",
    "prev_prio >=1",
    "prev_prio > =1",
    "prev_prio ! = 1",
    "prev_prio != 1",
    "prev_prio !=1",
    "prev_prio == 1;",
    "prev_prio == 1 # c",
    "prev_prio == (1)",
    "prev_prio == 1+1",
    "(prev_prio) == 1",
    "prev_prio == next_prio",
    "next_comm == \"aaaaaaaaaaaaaaaaaaaa\"",
    "PREV_PRIO == 1",
    "!prev_prio",
    "prev_prio == 1 && (prev_pid == 2 || (next_pid == 3 && !(next_prio == 4)))",
    "(((((((((((((((((((((prev_prio == 1)))))))))))))))))))))",
    "prev_prio == 1 && && prev_pid == 2",
    "prev_prio == 1 ! prev_pid == 1",
    "prev_prio == 1 (prev_pid == 1)",
    "(prev_prio == 1)(prev_pid == 1)",
    "(prev_prio == 1) prev_pid == 1",
    "prev_prio==1&&prev_pid==2",
    "prev_prio == 1 &&& prev_pid == 2",
    "prev_prio == 1 ||| prev_pid == 2",
    "prev_prio & 1 == 1",
    "prev_prio == 3 &&!prev_pid == 2",
    "prev_prio == -0x1",
    "prev_prio == 0xG",
    "prev_prio == 3.",
    "prev_prio.x == 3",
    "_x == 1",
    "5 == 5",
    "prev_prio == '3'",
    "prev_prio == 3 )(",
];

/// Filters for other events.
const OTHERS: &[(&str, &str, &[&str])] = &[
    (
        "sched",
        "sched_process_exec",
        &[
            "filename == \"a\"",
            "filename ~ \"*bin*\"",
            "filename & 1",
            "filename.ustring == \"a\"",
            "filename < 1",
            "pid == 1",
        ],
    ),
    (
        "workqueue",
        "workqueue_execute_start",
        &[
            "function == 0",
            "function == vmstat_update",
            "function.function == vmstat_update",
            "function.function != vmstat_update",
            "function.function > vmstat_update",
            "function.function & vmstat_update",
            "function.function == nosuchfunc",
            "function.function == \"vmstat_update\"",
            "work == 0",
            "work == -1",
            "work < 0",
            "work.ustring == \"a\"",
            "work.function == schedule",
            "work == 0xffff888000000000",
        ],
    ),
    (
        "syscalls",
        "sys_enter_openat",
        &[
            "filename == 0",
            "flags & 1",
            "dfd == -100",
            "flags.ustring == \"a\"",
            "filename.ustring < \"a\"",
            "__syscall_nr == 1",
        ],
    ),
    (
        "ipi",
        "ipi_send_cpumask",
        &[
            "cpumask & CPUS{1}",
            "cpumask == CPUS{1}",
            "cpumask != CPUS{0-1}",
            "cpumask ~ CPUS{1}",
            "cpumask > CPUS{1}",
        ],
    ),
    (
        "ipi",
        "ipi_send_cpu",
        &["cpu == 1", "cpu & CPUS{1}", "CPU == 0", "cpu == CPUS{1}"],
    ),
    (
        "block",
        "block_rq_issue",
        &["rwbs ~ \"W*\"", "sector > 100", "bytes == 4096", "dev == 1"],
    ),
    ("raw_syscalls", "sys_enter", &["id == 1", "id == -1"]),
    (
        "net",
        "netif_rx",
        &["name == lo", "name == 'lo'", "len > 10", "skbaddr == 0"],
    ),
    (
        "kmem",
        "kmalloc",
        &[
            "call_site.function == schedule",
            "ptr == 0",
            "bytes_req > 100",
        ],
    ),
];

/// What the kernel accepts without a meaning, and is an error here: a number compared with an
/// array, a mask's word or a string that is not in the record; a combination without its second
/// half; the pseudo field `stacktrace`.
const ONLY_THE_KERNEL_ACCEPTS: &[(&str, &str, &[&str])] = &[
    (
        "sched",
        "sched_switch",
        &[
            "prev_prio == 3 &&",
            "prev_prio == 3 ||",
            "stacktrace == 1",
            "0",
        ],
    ),
    ("raw_syscalls", "sys_enter", &["args == 1", "args & 1"]),
    ("ipi", "ipi_send_cpumask", &["cpumask == 1", "cpumask & 1"]),
];

/// Where functions lie in this kernel, and its formats.
fn catalog() -> Catalog {
    let mut catalog = Catalog::from_events_dir(format!("{TRACEFS}/events")).unwrap();
    catalog.parse_kallsyms(&fs::read_to_string("/proc/kallsyms").unwrap());
    catalog
}

fn instance() -> Option<Instance> {
    Instance::create()
        .map_err(|why| println!("skipped: {why}"))
        .ok()
}

/// CPUs that this machine may have.
fn nr_cpus() -> u32 {
    let possible = fs::read_to_string("/sys/devices/system/cpu/possible").unwrap();
    let last = possible.trim().rsplit(['-', ',']).next().unwrap();
    last.parse::<u32>().unwrap() + 1
}

fn compiled(event: &EventFormat, symbols: &Symbols, text: &str) -> Result<Predicate, String> {
    let nr_cpus = nr_cpus();
    let filter = Filter::parse(text).map_err(|e| e.to_string())?;
    let scope = FilterScope { symbols, nr_cpus };
    filter.compile(event, &scope).map_err(|e| e.to_string())
}

#[test]
fn the_kernel_accepts_and_rejects_the_same_filters() {
    let Some(instance) = instance() else { return };
    let catalog = catalog();
    let (mut accepted, mut rejected) = (0, 0);
    let all = [("sched", "sched_switch", SWITCH)]
        .into_iter()
        .chain(OTHERS.iter().copied());
    for (system, name, texts) in all {
        let Some(event) = catalog.find_event(system, name) else {
            println!("this kernel has no {system}:{name}");
            continue;
        };
        for text in texts {
            let file = format!("events/{system}/{name}/filter");
            let kernel = instance.try_write(&file, text).is_ok();
            let ours = compiled(event, catalog.symbols(), text);
            assert_eq!(kernel, ours.is_ok(), "{name}: {text}: {ours:?}");
            *(if kernel { &mut accepted } else { &mut rejected }) += 1;
        }
    }
    println!("{accepted} filters are accepted by both, {rejected} rejected by both");
    assert!(accepted > 60 && rejected > 60);
}

#[test]
fn what_only_the_kernel_accepts_is_an_error_here() {
    let Some(instance) = instance() else { return };
    let catalog = catalog();
    for (system, name, texts) in ONLY_THE_KERNEL_ACCEPTS {
        let Some(event) = catalog.find_event(system, name) else {
            continue;
        };
        for text in *texts {
            let file = format!("events/{system}/{name}/filter");
            assert!(instance.try_write(&file, text).is_ok(), "{name}: {text}");
            assert!(
                compiled(event, catalog.symbols(), text).is_err(),
                "{name}: {text}"
            );
        }
    }
}

/// Filters whose records are compared.
const KEPT: &[(&str, &str, &[&str])] = &[
    (
        "sched",
        "sched_switch",
        &[
            "prev_prio == 120",
            "prev_prio == 4294967416",
            "prev_prio < 4294967417",
            "prev_prio & 8",
            "prev_prio & 0",
            "prev_prio != 120",
            "!prev_prio == 120",
            "next_prio <= 100",
            "prev_state == 0",
            "prev_state > -1",
            "prev_state < 0",
            "prev_state & 3",
            "common_cpu == 1",
            "CPU == 0",
            "cpu >= 1",
            "CPU & CPUS{1}",
            "CPU == CPUS{0-1}",
            "CPU == CPUS{1}",
            "CPU != CPUS{0-1}",
            "CPU != CPUS{1}",
            "prev_state & CPUS{0}",
            "prev_prio & CPUS{0-1}",
            "prev_pid == CPUS{0}",
            "prev_pid != CPUS{0-1}",
            "!prev_pid & CPUS{0}",
            "prev_comm ~ \"tr*\"",
            "prev_comm ~ \"*ru*\"",
            "prev_comm ~ \"t?ue\"",
            "prev_comm ~ \"t[a-s]ue\"",
            "prev_comm ~ \"[!t]*\"",
            "prev_comm ~ \"[^t]*\"",
            "prev_comm ~ \"t*u*\"",
            "prev_comm == \"tr*\"",
            "prev_comm ~ \"tru\"",
            "prev_comm ~ \"true\"",
            "prev_comm == \"true\"",
            "prev_comm != \"true\"",
            "prev_comm ~ \"!true\"",
            "prev_comm ~ \"!t*\"",
            "prev_comm ~ \"**\"",
            "prev_comm ~ \"t**e\"",
            "prev_comm ~ \"*t*r*\"",
            "prev_comm ~ \"?*\"",
            "prev_comm ~ \"*/*\"",
            "prev_comm ~ \"[t\"",
            "prev_comm ~ \"\"",
            "prev_comm ~ \"*[e]\"",
            "common_pid == 0",
            "common_flags & 1",
            "prev_comm ~ \"t*\" && !(next_comm ~ \"s?\" || CPU == 0)",
            "prev_prio == 120 && next_prio < 120 || prev_comm ~ \"sh*\" && next_pid > 0",
        ],
    ),
    (
        "sched",
        "sched_process_exec",
        &[
            "filename ~ \"*true\"",
            "filename == \"/bin/true\"",
            "filename != \"/bin/true\"",
            "filename ~ \"!*true\"",
            "filename ~ \"/bin/*\"",
            "filename ~ \"*in/t*\"",
            "filename.ustring ~ \"*true\"",
            "filename ~ \"*t?ue\"",
            "pid == old_pid",
            "pid & 1",
        ],
    ),
    (
        "sched",
        "sched_wakeup",
        &[
            "comm == \"true\"",
            "target_cpu == 1",
            "target_cpu & CPUS{0}",
        ],
    ),
    (
        "raw_syscalls",
        "sys_enter",
        &["id == 1", "id < 10 && id != 0", "id & 8"],
    ),
    (
        "syscalls",
        "sys_enter_openat",
        &["dfd == 0xffffff9c", "flags & 0x80000"],
    ),
    (
        "kmem",
        "kmalloc",
        &[
            "bytes_req > 100",
            "bytes_req != bytes_alloc",
            "ptr > 0xffff000000000000",
            "call_site.function == load_elf_binary",
            "call_site.function != load_elf_binary",
        ],
    ),
    (
        "timer",
        "hrtimer_start",
        &[
            "function.function == hrtimer_wakeup",
            "expires < 0",
            "mode & 1",
        ],
    ),
];

/// Runs programs, whose processes are the children of one that waits for them.
fn load() {
    let script = "for i in 1 2 3 4 5 6; do /bin/true; done; echo x | cat; sleep 0.002";
    let mut command = Command::new("sh");
    command.args(["-c", script]).stdout(Stdio::null());
    assert!(command.status().unwrap().success());
}

/// The tasks and fields of each CPU's records in order. Not their bytes: what lies between the
/// fields is whatever was there. Flags and the state of a dying task may change between the two
/// instances' looks at them.
fn by_cpu<'r>(
    event: &EventFormat,
    records: impl Iterator<Item = &'r Record>,
    nr_cpus: u32,
) -> Vec<Vec<String>> {
    let mut found = vec![Vec::new(); nr_cpus as usize];
    for Record { cpu, payload, .. } in records {
        let fields = event
            .values(payload)
            .filter(|(name, _)| *name != "prev_state");
        let fields: Vec<_> = fields.collect();
        found[*cpu as usize].push(format!("{:?} {fields:?}", &payload[4..8]));
    }
    found
}

/// True if `part` is in `all` without a gap.
fn is_run_of(part: &[String], all: &[String]) -> bool {
    part.is_empty() || all.windows(part.len()).any(|w| w == part)
}

/// The records of an instance without a filter, and the time in which the other one recorded too.
struct Whole {
    records: Vec<Record>,
    begin: u64,
    end: u64,
}

/// Records the load of an event with the kernel's filter in `filtered` and without one in `whole`,
/// which has a marker when both record and one before the first stops.
fn recorded(filtered: &Instance, whole: &Instance, event: &EventFormat) -> (Vec<Record>, Whole) {
    let enable = format!("events/{}/{}/enable", event.system, event.name);
    for instance in [whole, filtered] {
        instance.write(&enable, "1");
        instance.write("tracing_on", "1");
    }
    whole.write("trace_marker", "begin");
    load();
    whole.write("trace_marker", "end");
    for instance in [filtered, whole] {
        instance.write("tracing_on", "0");
        instance.write(&enable, "0");
    }
    let is_ours = |r: &Record| r.payload[..2] == event.id.to_le_bytes();
    let (records, markers): (Vec<_>, Vec<_>) = whole.drain().into_iter().partition(is_ours);
    let (begin, end) = (markers[0].ts, markers[1].ts);
    let whole = Whole {
        records,
        begin,
        end,
    };
    (filtered.drain(), whole)
}

/// What ours keeps of the unfiltered records is what the kernel kept: the kernel's records of each
/// CPU are a run of ours without gaps, and none is missing of the time in which both recorded, but
/// for an event that was under way at either end.
#[track_caller]
fn assert_same(
    event: &EventFormat,
    kernel: &[Record],
    whole: &Whole,
    predicate: &Predicate,
    place: &str,
) {
    let is_kept = |r: &&Record| predicate.matches(&r.payload, r.cpu, || [0; 16]);
    let kept = || whole.records.iter().filter(is_kept);
    let in_both = kept().filter(|r| (whole.begin..whole.end).contains(&r.ts));
    let [kernel, ours, in_both] = [
        by_cpu(event, kernel.iter(), nr_cpus()),
        by_cpu(event, kept(), nr_cpus()),
        by_cpu(event, in_both, nr_cpus()),
    ];
    for ((kernel, ours), in_both) in kernel.iter().zip(&ours).zip(&in_both) {
        let lens = (kernel.len(), ours.len(), in_both.len());
        assert!(is_run_of(kernel, ours), "{place}: {lens:?}");
        assert!(
            in_both.len() <= kernel.len() + 2,
            "{place}: missing {lens:?}"
        );
    }
}

#[test]
fn the_kernel_keeps_the_same_records() {
    let (Some(filtered), Some(whole)) = (instance(), instance()) else {
        return;
    };
    for instance in [&filtered, &whole] {
        instance.write("trace_clock", "mono");
        instance.write("buffer_size_kb", "8192");
    }
    let catalog = catalog();
    let (mut filters, mut kept) = (0, 0);
    for (system, name, texts) in KEPT {
        let Some(event) = catalog.find_event(system, name) else {
            println!("this kernel has no {system}:{name}");
            continue;
        };
        for text in *texts {
            let place = format!("{name}: {text}");
            let predicate = compiled(event, catalog.symbols(), text);
            let file = format!("events/{system}/{name}/filter");
            if filtered.try_write(&file, text).is_err() {
                // Not every kernel has every function.
                assert!(predicate.is_err(), "{place}");
                continue;
            }
            let (kernel, all) = recorded(&filtered, &whole, event);
            assert_same(event, &kernel, &all, &predicate.unwrap(), &place);
            filters += 1;
            kept += kernel.len();
        }
    }
    println!("{filters} filters keep the same {kept} records");
    assert!(filters > 50 && kept > 1000);
}

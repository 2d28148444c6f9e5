//! The text of this machine's kernel against ours, line by line.
//!
//! Needs root and tracefs; elsewhere the tests print `skipped: why` and pass. Each test has an
//! instance of its own; no setting that others see is changed. (Some loads ask the kernel once to
//! drop its caches and to compact its memory, and write a line to its log, so that it has something
//! to trace.)
//!
//! How many lines of which system were compared is printed as `compared: SYSTEM LINES`, which
//! `cargo xtask test` sums up.

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::process::{Command, Stdio};

use common::{Instance, Record, TRACEFS};
use outlive_event::{Catalog, Formatter, HeaderCounts, TextOptions};

const SYSTEMS: &[&str] = &[
    "sched",
    "irq",
    "timer",
    "workqueue",
    "signal",
    "task",
    "printk",
];

/// What the load surely does, of each of these systems and of `ftrace`.
const SURELY_SEEN: &[&str] = &[
    "sched_switch",
    "sched_waking",
    "sched_wakeup",
    "sched_wakeup_new",
    "sched_process_fork",
    "sched_process_exec",
    "sched_process_exit",
    "sched_process_wait",
    "softirq_raise",
    "softirq_entry",
    "softirq_exit",
    "timer_start",
    "timer_expire_entry",
    "timer_expire_exit",
    "hrtimer_start",
    "hrtimer_expire_entry",
    "hrtimer_expire_exit",
    "itimer_state",
    "workqueue_queue_work",
    "workqueue_activate_work",
    "workqueue_execute_start",
    "workqueue_execute_end",
    "signal_generate",
    "signal_deliver",
    "task_newtask",
    "task_rename",
    "console",
];

/// Makes the machine do things that have events, and what `more` scripts say.
fn load(instance: &Instance, more: &[&str]) {
    let scripts = [
        "for i in 1 2 3 4 5 6; do /bin/true; /bin/ls / >/dev/null; done",
        "sleep 0.05; kill -TERM $$",
        "kill -USR1 $$",
        "timeout 0.05 sleep 1",
        "perl -e 'use Time::HiRes qw(setitimer ITIMER_REAL ITIMER_VIRTUAL); $SIG{ALRM}=sub{}; \
         setitimer(ITIMER_REAL,0.01,0.01); setitimer(ITIMER_VIRTUAL,0.01,0.01); \
         select(undef,undef,undef,0.05) for 1..4; for(my $i=0;$i<9e5;$i++){}'",
        "yes | head -c 3000000 | cat | wc -c",
        "nice -n 5 sh -c 'sleep 0.01 & sleep 0.01 & wait'",
        "perl -e 'use IO::Socket::INET; my $s=IO::Socket::INET->new(Listen=>1,LocalAddr=>\"127.0.0.1\"); \
         my $c=IO::Socket::INET->new(PeerAddr=>\"127.0.0.1\",PeerPort=>$s->sockport); \
         my $a=$s->accept; print $c \"x\"; close $c; close $a; \
         IO::Socket::INET->new(PeerAddr=>\"127.0.0.1\",PeerPort=>1)'",
        "sync; dd if=/dev/zero bs=1k count=64 2>/dev/null | md5sum",
        "echo outlive: a line of a test > /dev/kmsg",
    ];
    let start = |script: &&str| {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .ok()
    };
    let children: Vec<_> = scripts.iter().chain(more).filter_map(start).collect();
    for i in 0..20 {
        let _ = instance.try_write("trace_marker", &format!("marker {i} of the test\n"));
        let _ = instance.try_write("trace_marker", &format!("no line end {i}"));
        let _ = instance.try_write("trace_marker_raw", &"rawdata!"[..4 + i % 5]);
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    for mut child in children {
        let _ = child.wait();
    }
}

fn instance() -> Option<Instance> {
    match Instance::create() {
        Ok(instance) => {
            instance.write("options/hash-ptr", "0");
            instance.write("options/annotate", "0");
            instance.write("buffer_size_kb", "8192");
            Some(instance)
        }
        Err(why) => {
            println!("skipped: {why}");
            None
        }
    }
}

fn catalog() -> Catalog {
    let mut catalog = Catalog::from_events_dir(format!("{TRACEFS}/events")).unwrap();
    catalog.parse_kallsyms(&fs::read_to_string("/proc/kallsyms").unwrap());
    catalog.read_btf("/sys/kernel/btf").unwrap();
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let kernel = outlive_event::CatalogRecord::Kernel {
        text_addr: 0,
        release: release.trim(),
        version: "",
        machine: "",
    };
    catalog.apply_record(&kernel).unwrap();
    catalog
}

/// What the kernel printed, and the task names it had before and after.
struct KernelText {
    text: String,
    before: Catalog,
    after: Catalog,
}

fn kernel_text(instance: &Instance) -> KernelText {
    let names = || {
        let mut catalog = Catalog::new();
        catalog.parse_saved_cmdlines(&fs::read(format!("{TRACEFS}/saved_cmdlines")).unwrap());
        catalog
    };
    let before = names();
    let text = instance.read("trace");
    KernelText {
        text,
        before,
        after: names(),
    }
}

impl KernelText {
    /// True if the lines differ only in the name of a task, and that is because the kernel's
    /// map of names changed while its text was read. The map is small and shared by all
    /// instances of the machine: a name may be gone for a moment.
    fn is_same(&self, kernel: &str, ours: &str) -> bool {
        if kernel == ours {
            return true;
        }
        // A name may contain dashes itself: compare from the pid's column on.
        let tail = |line: &str| line.get(16..).map(str::to_owned);
        let pid = |line: &str| line.get(17..24).and_then(|p| p.trim().parse::<i32>().ok());
        let changed = pid(kernel).is_some_and(|pid| {
            let (before, after) = (self.before.tasks().comm(pid), self.after.tasks().comm(pid));
            before != after
                || before.is_none()
                || kernel.get(..16).is_some_and(|c| c.ends_with("<...>"))
        });
        changed && tail(kernel) == tail(ours)
    }
}

/// The number of CPUs that the kernel's own header says.
fn online_cpus(kernel: &KernelText) -> u32 {
    let number = kernel
        .text
        .split_once("#P:")
        .and_then(|(_, rest)| rest.lines().next());
    number.and_then(|n| n.parse().ok()).unwrap_or(0)
}

fn our_text(
    kernel: &KernelText,
    catalog: &Catalog,
    options: TextOptions,
    records: &[Record],
    overrun: u64,
) -> String {
    let formatter = Formatter::new(catalog, options);
    let mut out = Vec::new();
    let entries = records.len() as u64;
    let counts = HeaderCounts {
        entries,
        written: entries + overrun,
        cpus: Some(online_cpus(kernel)),
    };
    formatter.header(&mut out, &counts);
    for record in records {
        formatter.record(&mut out, record.cpu, record.ts, &record.payload);
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// Compares line by line; returns the number of lines per event.
fn compare(
    kernel: &KernelText,
    ours: &str,
    excused: impl Fn(&str) -> bool,
) -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::new();
    let mut differences = Vec::new();
    for (k, o) in kernel.text.lines().zip(ours.lines()) {
        let name = event_name(o);
        if kernel.is_same(k, o) {
            *counts.entry(name).or_default() += 1;
        } else if !excused(&name) {
            differences.push(format!("kernel: {k}\nours:   {o}"));
        }
    }
    for difference in differences.iter().take(20) {
        println!("{difference}");
    }
    assert!(differences.is_empty(), "{} lines differ", differences.len());
    assert_eq!(
        kernel.text.lines().count(),
        ours.lines().count(),
        "numbers of lines"
    );
    counts
}

/// A record of this kernel is one that a kernel writes.
fn check_no_doubt(catalog: &Catalog, records: &[Record]) {
    let mut doubts: Vec<String> = Vec::new();
    for record in records {
        let doubt = catalog.doubt(&record.payload);
        let id = outlive_event::event_id(&record.payload).unwrap();
        let event = catalog.event(id).map(|event| event.name.as_str());
        doubts.extend(doubt.map(|doubt| format!("{event:?}: {doubt}")));
    }
    assert!(
        doubts.is_empty(),
        "{} of {}: {:?}",
        doubts.len(),
        records.len(),
        &doubts[..doubts.len().min(20)]
    );
}

/// The name in an event's line; other lines count as what they begin with.
fn event_name(line: &str) -> String {
    let text = line
        .get(33..)
        .and_then(|rest| rest.split_once(": "))
        .map_or(line, |(_, t)| t);
    text.trim_start()
        .split([':', ' ', '('])
        .next()
        .unwrap_or_default()
        .to_owned()
}

fn overruns(instance: &Instance) -> u64 {
    (0..instance.cpus())
        .map(|cpu| instance.stat(cpu, "overrun"))
        .sum()
}

/// Records the events of `systems` under load and gives what the kernel says of them, plainly
/// and with the option `other` on, and the records themselves.
fn recorded(
    instance: &Instance,
    systems: &[&str],
    options: &[&str],
    other: &str,
    more: &[&str],
) -> (KernelText, KernelText, Vec<Record>) {
    for system in systems {
        instance.write(&format!("events/{system}/enable"), "1");
    }
    for option in options {
        instance.write(&format!("options/{option}"), "1");
    }
    instance.write("tracing_on", "1");
    load(instance, more);
    instance.write("tracing_on", "0");
    let plain = kernel_text(instance);
    instance.write(&format!("options/{other}"), "1");
    let changed = kernel_text(instance);
    (plain, changed, instance.drain())
}

/// True for what the lines of static events begin with.
fn is_static(name: &str) -> bool {
    matches!(name, "tracing_mark_write" | "#")
}

#[test]
fn events_print_as_this_kernel_prints_them() {
    let Some(instance) = instance() else { return };
    let (plain, fields, records) = recorded(&instance, SYSTEMS, &[], "fields", &[]);
    let overrun = overruns(&instance);
    let mut catalog = catalog();
    check_no_doubt(&catalog, &records);

    for (kernel, raw_fields) in [(&plain, false), (&fields, true)] {
        for (pid, comm) in kernel.before.tasks().iter() {
            catalog.tasks_mut().set_comm(pid, comm);
        }
        let mut options = TextOptions::default();
        options.raw_fields = raw_fields;
        let ours = our_text(kernel, &catalog, options, &records, overrun);
        // The `fields` option has no text for static events.
        let counts = compare(kernel, &ours, |name| raw_fields && is_static(name));
        let lines: u64 = counts.values().sum();
        println!(
            "{lines} lines of {} kinds are equal (fields: {raw_fields})",
            counts.len()
        );
        for name in SURELY_SEEN {
            assert!(counts.contains_key(*name), "no {name}: {counts:?}");
        }
        if !raw_fields {
            // Each of 20 times two markers, and some raw data.
            assert_eq!(counts.get("tracing_mark_write"), Some(&40));
            assert!(counts.get("#") > Some(&20));
            let by_system = by_system(&catalog, &counts);
            say_compared(&by_system);
            assert!(
                SYSTEMS.iter().all(|system| by_system.contains_key(system)),
                "{by_system:?}"
            );
        }
    }
}

#[test]
fn stacks_print_as_this_kernel_prints_them() {
    let Some(instance) = instance() else { return };
    let options = ["stacktrace", "userstacktrace"];
    let (plain, offsets, records) =
        recorded(&instance, &["signal", "task"], &options, "sym-offset", &[]);
    let overrun = overruns(&instance);
    let mut catalog = catalog();
    for (kernel, sym_offset) in [(&plain, false), (&offsets, true)] {
        for (pid, comm) in kernel.before.tasks().iter() {
            catalog.tasks_mut().set_comm(pid, comm);
        }
        let mut options = TextOptions::default();
        options.sym_offset = sym_offset;
        let ours = our_text(kernel, &catalog, options, &records, overrun);
        let counts = compare(kernel, &ours, |_| false);
        println!("{} lines are equal", counts.values().sum::<u64>());
        let count = |begin: &str| kernel.text.lines().filter(|l| l.contains(begin)).count();
        let [stacks, user_stacks] = ["<stack trace>", "<user stack trace>"].map(count);
        let [callers, user_callers] =
            ["\n => ", "\n =>  <"].map(|c| kernel.text.matches(c).count());
        assert!(stacks > 50 && callers > 5 * stacks, "{stacks} {callers}");
        assert!(
            user_stacks > 20 && user_callers >= user_stacks,
            "{user_stacks} {user_callers}"
        );
    }
}

/// Systems that are recorded together, so that none drowns the others; enabled as far as this
/// kernel has them. And what is done for their events besides the usual.
const OTHER_SYSTEMS: &[(&[&str], &[&str])] = &[
    (
        &[
            "block",
            "ext4",
            "jbd2",
            "writeback",
            "filelock",
            "wbt",
            "readahead",
            "iomap",
            "fs_dax",
        ],
        &[FILE_SYSTEM, FILES],
    ),
    (&["fuse", "hugetlbfs"], &[FUSE, HUGE_FILES]),
    (
        &[
            "fib",
            "fib6",
            "napi",
            "neigh",
            "net",
            "page_pool",
            "qdisc",
            "skb",
            "sock",
            "tcp",
            "udp",
            "icmp",
            "netlink",
            "mptcp",
            "bridge",
            "vsock",
        ],
        &[NETWORK],
    ),
    (
        &[
            "cgroup",
            "vmscan",
            "compaction",
            "migrate",
            "oom",
            "huge_memory",
            "ksm",
            "thp",
            "vmalloc",
            "swiotlb",
        ],
        &[MEMORY],
    ),
    (
        &[
            "ipi",
            "csd",
            "irq_vectors",
            "mmap",
            "notifier",
            "rseq",
            "tlb",
            "power",
            "rpm",
            "cpuhp",
            "timer_migration",
            "alarmtimer",
            "context_tracking",
            "msr",
            "x86_fpu",
            "clk",
            "iocost",
            "io_uring",
            "bpf_trace",
            "capability",
            "avc",
            "lock",
            "nmi",
            "watchdog",
            "timestamp",
        ],
        &[TIMERS],
    ),
    (&["syscalls"], &[CALLS]),
    (
        &["raw_syscalls", "exceptions", "pagemap", "filemap", "percpu"],
        &[],
    ),
    (&["kmem"], &[]),
    (&["memcg"], &[]),
    (&["rcu", "maple_tree", "mmap_lock"], &[]),
];

/// Systems of the groups that each kernel has, and whose events each machine has.
const SURELY_SEEN_TOO: &[&str] = &[
    "exceptions",
    "filemap",
    "kmem",
    "maple_tree",
    "net",
    "raw_syscalls",
    "rcu",
    "skb",
    "sock",
    "syscalls",
    "tcp",
    "writeback",
];

/// The systems of this kernel that are in no other group, recorded together.
fn further_systems(catalog: &Catalog) -> Vec<String> {
    let grouped = |system: &&str| {
        let mut groups = OTHER_SYSTEMS.iter().map(|(group, _)| *group);
        SYSTEMS.contains(system) || groups.any(|group| group.contains(system))
    };
    let systems: BTreeSet<&str> = catalog.events().map(|e| e.system.as_str()).collect();
    let further = systems
        .into_iter()
        .filter(|s| *s != "ftrace" && !grouped(s));
    further.map(str::to_owned).collect()
}

/// Lines of each system, of the lines of each event.
fn by_system<'c>(catalog: &'c Catalog, by_event: &BTreeMap<String, u64>) -> BTreeMap<&'c str, u64> {
    let systems = systems(catalog);
    let mut by_system = BTreeMap::new();
    for (name, lines) in by_event {
        let system = systems.get(name).copied().unwrap_or("ftrace");
        *by_system.entry(system).or_default() += lines;
    }
    by_system
}

fn say_compared(by_system: &BTreeMap<&str, u64>) {
    for (system, lines) in by_system {
        println!("compared: {system} {lines}");
    }
}

/// A file system of its own on a loop device, in a mount namespace that ends with the script.
const FILE_SYSTEM: &str = "\
    d=$(mktemp -d) && dd if=/dev/zero of=$d/img bs=1M count=24 && mkfs.ext4 -q -F $d/img && mkdir $d/m && \
    unshare -m sh -c \"mount -o loop,discard $d/img $d/m && cd $d/m && mkdir a && cp /bin/sh a/ && \
    for i in 1 2 3 4 5 6; do dd if=/dev/zero of=f\\$i bs=16k count=16; done; sync; mv f1 a/; ln f2 b; \
    ln -s f2 c; rm f3; fallocate -l 1M g; fallocate -p -o 4096 -l 8192 f4; truncate -s 100 f5; \
    fallocate -z -l 8192 f6; echo x >> f2; setfattr -n user.a -v b f2; cat a/sh > /dev/null; \
    find . > /dev/null; chmod 600 f2; fstrim .; sync; echo 1 > /proc/sys/vm/drop_caches; cat a/sh f6 > /dev/null; \
    cd /; umount $d/m\"; rm -rf $d";
const FILES: &str = "\
    d=$(mktemp -d) && cd $d && for s in flock lockf fcntl lease fiemap aio sync-file; do \
    timeout 3 stress-ng --quiet --timeout 1 --temp-path . --$s 1 --$s-ops 1; done; rm -rf $d";
/// A file system whose server refuses all.
const FUSE: &str = "\
    d=$(mktemp -d) && unshare -m perl -e 'open(my $f, \"+<\", \"/dev/fuse\"); my $fd = fileno($f); \
    my ($type, $dir) = (\"fuse\", $ARGV[0]); my $how = \"fd=$fd,rootmode=40000,user_id=0,group_id=0\"; \
    $^F = 99; syscall(165, $type, $dir, $type, 0, $how); \
    sysread($f, my $asked, 65536); syswrite($f, pack(\"Ll<Q\", 16, -38, unpack(\"x8Q\", $asked)));' $d; rmdir $d";
const HUGE_FILES: &str = "\
    d=$(mktemp -d) && unshare -m sh -c \"mount -t hugetlbfs none $d && echo > $d/f; truncate -s 4M $d/f; \
    rm $d/f; umount $d\"; rmdir $d";
const NETWORK: &str = "\
    unshare -n sh -c 'ip link set lo up; ip addr add 10.9.8.7/32 dev lo; ip -6 addr show; \
    ip link add d0 type dummy; ip link set d0 up; ping -c 1 127.0.0.1; ip route get 10.9.8.7; \
    ip -6 addr add fd09::1/128 dev lo; ip -6 route get fd09::1; ip neigh add 10.9.8.9 lladdr 2:0:0:0:0:1 dev d0; \
    ip link add b0 type bridge; ip link set d0 master b0; ip link set b0 up; \
    bridge fdb add 2:0:0:0:0:2 dev d0 master; ip link add x0 type nothing; tc qdisc add dev d0 root fq_codel; \
    perl -e \"use Socket; socket(S, 2, 1, 262); bind(S, sockaddr_in(4711, INADDR_LOOPBACK)); listen(S, 1); \
    socket(C, 2, 1, 262); connect(C, sockaddr_in(4711, INADDR_LOOPBACK)); accept(A, S); print C 1; close C; \
    socket(U, 2, 2, 0); connect(U, sockaddr_in(4712, INADDR_LOOPBACK)); send(U, 1, 0); send(U, 1, 0)\"; \
    for s in sock sockpair udp netlink-task; do timeout 3 stress-ng --quiet --timeout 1 --$s 1 --$s-ops 2; done'";
const MEMORY: &str = "\
    g=/sys/fs/cgroup/memory; [ -d $g ] || g=/sys/fs/cgroup; g=$g/outlive-test.$$; mkdir $g && \
    { echo 30M > $g/memory.max || echo 30M > $g/memory.limit_in_bytes; } ; \
    d=$(mktemp -d); sh -c \"echo \\$\\$ > $g/cgroup.procs; dd if=/dev/zero of=$d/f bs=1M count=60; cat $d/f > /dev/null\"; \
    sh -c \"echo \\$\\$ > $g/cgroup.procs; exec perl -e '\\$x = 1 x 100000000'\"; \
    rm -rf $d; rmdir $g; for s in vm mremap madvise mlock; do \
    timeout 3 stress-ng --quiet --timeout 1 --vm-bytes 8M --$s 1 --$s-ops 2; done; echo 1 > /proc/sys/vm/compact_memory";
const TIMERS: &str = "\
    for s in alarm timerfd timer clock membarrier mprotect affinity io-uring futex; do \
    timeout 3 stress-ng --quiet --timeout 1 --$s 1 --$s-ops 2; done";
const CALLS: &str = "\
    d=$(mktemp -d) && cd $d && for s in get set chmod link xattr eventfd epoll poll timerfd sigq sem-sysv msg mq \
    shm-sysv memfd splice tee copy-file inotify sockpair prctl schedpolicy ioprio key rlimit getrandom utime \
    pidfd mlock mincore statmount resources umask; do \
    timeout 3 stress-ng --quiet --timeout 1 --temp-path . --$s 1 --$s-ops 1; done; rm -rf $d";

/// Events that need more than the record and the catalog.
fn is_beyond_reach(catalog: &Catalog, name: &str) -> bool {
    catalog
        .events()
        .any(|e| e.name == name && e.program(catalog.constants()).is_err())
}

/// The system of each event, by the name that its lines begin with: system calls have their own.
fn systems(catalog: &Catalog) -> BTreeMap<String, &str> {
    let line_name = |name: &str| {
        let call = name
            .strip_prefix("sys_enter_")
            .or(name.strip_prefix("sys_exit_"));
        call.map_or(name.to_owned(), |call| format!("sys_{call}"))
    };
    let entry = |e: &'_ outlive_event::EventFormat| (line_name(&e.name), e.id);
    let names = catalog.events().map(entry);
    names
        .filter_map(|(name, id)| Some((name, catalog.event(id)?.system.as_str())))
        .collect()
}

#[test]
fn events_of_other_systems_print_as_this_kernel_prints_them() {
    let mut catalog = catalog();
    let formats = format!("{TRACEFS}/printk_formats");
    catalog.parse_printk_formats(&fs::read_to_string(formats).unwrap_or_default());
    let mut total: BTreeMap<String, u64> = BTreeMap::new();
    let mut kinds = BTreeSet::new();
    let further = further_systems(&catalog);
    let further: Vec<&str> = further.iter().map(String::as_str).collect();
    let groups = OTHER_SYSTEMS.iter().copied().chain([(&*further, &[][..])]);
    for (group, more) in groups {
        let Some(instance) = instance() else { return };
        // More kinds of events do not come from more of them.
        instance.write("buffer_size_kb", "3072");
        let there = |s: &&&str| {
            instance
                .try_write(&format!("events/{s}/enable"), "0")
                .is_ok()
        };
        let there: Vec<&str> = group.iter().filter(there).copied().collect();
        let (kernel, _, records) = recorded(&instance, &there, &[], "fields", more);
        check_no_doubt(&catalog, &records);
        for (pid, comm) in kernel.before.tasks().iter() {
            catalog.tasks_mut().set_comm(pid, comm);
        }
        let overrun = overruns(&instance);
        let ours = our_text(&kernel, &catalog, TextOptions::default(), &records, overrun);
        let counts = compare(&kernel, &ours, |name| is_beyond_reach(&catalog, name));
        for (name, lines) in counts {
            *total.entry(name).or_default() += lines;
        }
        let events = records.iter().filter_map(|r| {
            let event = catalog.event(outlive_event::event_id(&r.payload)?)?;
            let is_evaluated = event.program(catalog.constants()).is_ok();
            is_evaluated.then_some(event.id)
        });
        kinds.extend(events);
    }
    let by_system = by_system(&catalog, &total);
    let lines: u64 = total.values().sum();
    println!("{lines} lines of {} events are equal", kinds.len());
    say_compared(&by_system);
    let all: BTreeSet<&str> = catalog.events().map(|e| e.system.as_str()).collect();
    let unseen = all
        .into_iter()
        .filter(|system| !by_system.contains_key(system));
    let unseen: Vec<&str> = unseen.filter(|system| !SYSTEMS.contains(system)).collect();
    println!("systems without a line: {}", unseen.join(" "));
    assert!(lines > 10_000);
    for system in SURELY_SEEN_TOO {
        assert!(by_system.contains_key(system), "no line of {system}");
    }
    match Command::new("stress-ng").arg("--version").output() {
        Ok(_) => assert!(kinds.len() >= 300, "only {} events", kinds.len()),
        Err(_) => println!("skipped: needs stress-ng to see 300 different events"),
    }
}

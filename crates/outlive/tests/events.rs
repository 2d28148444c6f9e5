//! Events of a recorder in this process: what readers see of them.

mod common;

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use common::{Decoded, Field, Folder, events_of, open_region, region_path, turn};
use outlive::{Backing, Field as _, Recorder, dynamic, event, span};
use outlive_event::{Formatter, TextOptions};
use outlive_trace::Switches;
use outlive_trace::view::View;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

fn start(folder: &Folder) -> Recorder {
    Recorder::builder("prog")
        .state(folder.path())
        .size(512 << 10)
        .start()
        .unwrap()
}

fn recorded(folder: &Folder, name: &str) -> Vec<Decoded> {
    let mut events = events_of(&open_region(folder.path(), "prog"));
    events.retain(|event| event.name == name);
    events
}

/// The texts of the events, as `show` prints them.
fn texts(view: &View) -> Vec<String> {
    let formatter = Formatter::new(&view.catalog, TextOptions::for_clock(view.clock()));
    let mut events = view.events(None);
    let mut texts = Vec::new();
    while let Some(event) = events.next_event() {
        let mut line = Vec::new();
        formatter.record(&mut line, event.cpu, event.time_stamp, event.payload);
        let line = String::from_utf8(line).unwrap();
        let (_, text) = line.split_once(": ").unwrap();
        texts.push(text.trim_end().to_owned());
    }
    texts
}

#[test]
fn every_type_of_field_is_shown_as_it_was_given() {
    let (_turn, folder) = (turn(), Folder::new());
    let _recorder = start(&folder);
    event!(
        "types:ints",
        a = -1i8,
        b = 200u8,
        c = -300i16,
        d = 60_000u16,
        e = i32::MIN,
        f = u32::MAX,
        g = i64::MIN,
        h = u64::MAX
    );
    event!("types:sizes", a = 5usize, b = -5isize);
    event!("types:floats", a = 0.1f32, b = -2.5f64, c = 1e300f64);
    event!("types:bools", yes = true, no = false);
    let text = String::from("owned");
    event!("types:texts", a = "", b = text, c = &text[1..3], d = "büß");
    event!(
        "types:bytes",
        a = [1u8, 2].as_slice(),
        b = vec![255u8],
        c = [] as [u8; 0]
    );
    event!("types:arrays", a = [1u16, 2, 3], b = [-1i64, 1]);
    event!("types:nothing");
    event!(
        "types:mixed",
        a = 1u8,
        b = "x",
        c = 2u64,
        d = "yz",
        e = 3u16
    );
    assert_eq!(
        texts(&open_region(folder.path(), "prog")),
        [
            "ints: a=-1 b=200 c=-300 d=60000 e=-2147483648 f=4294967295 g=-9223372036854775808 h=18446744073709551615",
            "sizes: a=5 b=-5",
            "floats: a=0.1 b=-2.5 c=1e300",
            "bools: yes=true no=false",
            "texts: a= b=owned c=wn d=büß",
            "bytes: a={0x1,0x2} b={0xff} c={}",
            "arrays: a={0x1,0x2,0x3} b={0xffffffffffffffff,0x1}",
            "nothing:",
            "mixed: a=1 b=x c=2 d=yz e=3",
        ]
    );
}

/// A u64 and a u32 take 24 bytes of the region, the record's header among them.
#[test]
fn an_event_of_two_integers_takes_24_bytes() {
    let (_turn, folder) = (turn(), Folder::new());
    let _recorder = start(&folder);
    for i in 0..10u32 {
        event!("size:two", a = u64::from(i), b = i);
    }
    let view = open_region(folder.path(), "prog");
    let bytes: u64 = view.cpus.iter().map(|cpu| cpu.bytes).sum();
    assert_eq!((view.entries(), bytes), (10, 240));
}

#[test]
fn a_text_that_does_not_fit_is_cut_and_marked() {
    let (_turn, folder) = (turn(), Folder::new());
    let _recorder = start(&folder);
    let long = "0123456789".repeat(10_000);
    event!("cut:whole", text = &long[..4050]);
    event!(
        "cut:text",
        text = long,
        behind = "nothing is left for it",
        number = 7u32
    );
    let view = open_region(folder.path(), "prog");
    let texts = texts(&view);
    assert!(texts[0].ends_with("6789"), "{}", &texts[0][4000..]);
    assert!(
        texts[1].ends_with("behind= number=7 [cut]"),
        "{}",
        &texts[1][4000..]
    );
    let cut = &recorded(&folder, "cut:text")[0];
    assert!(long.starts_with(&cut.text("text")) && cut.text("text").len() > 4000);
}

#[test]
fn a_text_with_a_zero_is_shown_up_to_it_and_marked() {
    let (_turn, folder) = (turn(), Folder::new());
    let _recorder = start(&folder);
    event!("zero:inside", text = "a\0b", number = 7u32);
    event!("zero:inside_of_sixteen", text = "0123456\x0089abcdef");
    event!("zero:behind", text = "as C has it\0");
    event!("zero:none", text = "", other = "whole");
    assert_eq!(
        texts(&open_region(folder.path(), "prog")),
        [
            "inside: text=a number=7 [cut]",
            "inside_of_sixteen: text=0123456 [cut]",
            "behind: text=as C has it",
            "none: text= other=whole",
        ]
    );
}

#[test]
fn an_event_has_the_thread_the_cpu_and_a_time_that_goes_on() {
    let (_turn, folder) = (turn(), Folder::new());
    let _recorder = start(&folder);
    let thread = std::thread::Builder::new().name("a worker".into());
    let id = thread
        .spawn(|| {
            for number in 0..1000u32 {
                event!("who:worker", number = number);
            }
            // SAFETY: no arguments.
            unsafe { libc::gettid() }
        })
        .unwrap()
        .join()
        .unwrap();
    let view = open_region(folder.path(), "prog");
    let events = events_of(&view);
    let nr_cpus = std::thread::available_parallelism().unwrap().get() as u32;
    assert_eq!(events.len(), 1000);
    for (number, event) in events.iter().enumerate() {
        assert_eq!(event.u64("number"), number as u64);
        assert_eq!(event.payload[4..8], id.to_le_bytes());
        assert!(event.cpu < nr_cpus.max(64));
    }
    assert_eq!(view.catalog.tasks().comm(id), Some(&b"a worker"[..]));
}

#[test]
fn sites_of_the_same_event_share_its_format_and_others_do_not() {
    let (_turn, folder) = (turn(), Folder::new());
    let _recorder = start(&folder);
    event!("same:a", x = 1u32);
    event!("same:a", x = 2u32);
    event!("same:a", x = "another type");
    event!("other:a", x = 3u32);
    let view = open_region(folder.path(), "prog");
    let names: Vec<String> = view
        .catalog
        .events()
        .map(|event| format!("{}:{}", event.system, event.name))
        .collect();
    assert_eq!(names, ["same:a", "same:a", "other:a"]);
    assert_eq!(
        texts(&view),
        ["a: x=1", "a: x=2", "a: x=another type", "a: x=3"]
    );
}

#[test]
fn another_process_switches_events_off_and_on() {
    let (_turn, folder) = (turn(), Folder::new());
    let _recorder = Recorder::builder("prog")
        .state(folder.path())
        .events(["switch:on"])
        .start()
        .unwrap();
    let evaluated = AtomicU32::new(0);
    let record = |number: u32| {
        event!("switch:on", number = number);
        event!(
            "switch:off",
            number = {
                evaluated.fetch_add(1, Ordering::Relaxed);
                number
            }
        );
    };
    record(1);
    let switches = Switches::open(&region_path(folder.path(), "prog")).unwrap();
    let mut events = switches.list();
    let states: Vec<_> = events.iter().map(|e| (e.name.as_str(), e.is_on)).collect();
    assert_eq!(states, [("on", true), ("off", false)]);
    // Its values are evaluated the first time, until it is known to be off.
    let before = evaluated.load(Ordering::Relaxed);
    record(2);
    assert_eq!(evaluated.load(Ordering::Relaxed), before);
    switches.set(&mut events[0], false);
    switches.set(&mut events[1], true);
    record(3);
    let events = events_of(&open_region(folder.path(), "prog"));
    let events: Vec<_> = events
        .iter()
        .map(|e| (e.name.as_str(), e.u64("number")))
        .collect();
    assert_eq!(
        events,
        [("switch:on", 1), ("switch:on", 2), ("switch:off", 3)]
    );
}

#[test]
fn spans_know_their_parents_and_end() {
    let (_turn, folder) = (turn(), Folder::new());
    let _recorder = start(&folder);
    {
        let request = span!("spans:request", path = "/a");
        let query = span!("spans:query");
        assert_eq!(query.parent(), request.id());
    }
    let open = span!("spans:request", path = "/b");
    assert_eq!(open.parent(), 0);
    let names: Vec<String> = events_of(&open_region(folder.path(), "prog"))
        .iter()
        .map(|event| format!("{} {}", event.name, event.u64("span_id") != open.id()))
        .collect();
    assert_eq!(
        names,
        [
            "spans:request true",
            "spans:query true",
            "outlive:span_end true",
            "outlive:span_end true",
            "spans:request false"
        ]
    );
}

/// It was the thread's innermost one all the same, and ended: what was inside of it had a parent of which
/// nothing is known.
#[test]
fn a_span_that_is_left_out_is_no_ones_parent_and_has_no_end() {
    let (_turn, folder) = (turn(), Folder::new());
    let builder = Recorder::builder("prog").state(folder.path());
    let _recorder = builder
        .events(["left:*"])
        .filter("left:filtered", "wanted == 1")
        .start()
        .unwrap();
    let outer = span!("left:filtered", wanted = 1u32);
    for _ in 0..2 {
        let filtered = span!("left:filtered", wanted = 0u32);
        let off = span!("other:off");
        assert_eq!((filtered.id(), off.id()), (0, 0));
        let inner = span!("left:inner");
        assert_eq!(inner.parent(), outer.id());
    }
    let event = dynamic::Event::declare(
        "left",
        "filtered",
        &[
            ("span_id", u64::TYPE),
            ("span_parent", u64::TYPE),
            ("wanted", u32::TYPE),
        ],
    );
    let event = event.unwrap();
    let begin = |wanted: u32| {
        dynamic::begin_span(|ids| {
            event.record(|fields| {
                fields.put(0, &ids.id) && fields.put(1, &ids.parent) && fields.put(2, &wanted)
            })
        })
    };
    assert_eq!(begin(0), None);
    assert_eq!(dynamic::current_span(), outer.id());
    let begun = begin(1).unwrap();
    assert_eq!(
        (begun.parent, dynamic::current_span()),
        (outer.id(), begun.id)
    );
    dynamic::end_span(begun);
    drop(outer);
    let events = events_of(&open_region(folder.path(), "prog"));
    let names: Vec<&str> = events.iter().map(|event| event.name.as_str()).collect();
    let (begin, end) = ("left:filtered", "outlive:span_end");
    let inner = ["left:inner", end];
    assert_eq!(
        names,
        [&[begin], &inner[..], &inner, &[begin, end, end]].concat()
    );
}

#[test]
fn a_panic_is_recorded_with_its_place_and_thread() {
    let (_turn, folder) = (turn(), Folder::new());
    let _recorder = start(&folder);
    let thread = std::thread::Builder::new().name("unlucky".into());
    let line = line!() + 1;
    let result = thread.spawn(|| panic!("number {}", 13)).unwrap().join();
    assert!(result.is_err());
    let panics = recorded(&folder, "outlive:panic");
    assert_eq!(panics[0].text("message"), "number 13");
    assert!(panics[0].text("file").ends_with("events.rs"));
    assert_eq!(panics[0].field("line"), &Field::Number(line.into()));
    assert_eq!(panics[0].text("thread"), "unlucky");
}

#[test]
fn without_a_recorder_nothing_is_recorded_and_nothing_fails() {
    let _turn = turn();
    event!("none:at_all", a = 1u32);
    let _span = span!("none:span");
    let folder = Folder::new();
    drop(start(&folder));
    event!("none:any_more", a = 1u32);
    assert_eq!(events_of(&open_region(folder.path(), "prog")).len(), 0);
}

#[test]
fn the_clocks_are_compared_at_the_start_and_at_the_close() {
    let (_turn, folder) = (turn(), Folder::new());
    let recorder = start(&folder);
    event!("clocks:step");
    drop(recorder);
    let view = open_region(folder.path(), "prog");
    let (first, last) = (view.clock_pairs[0], view.clock_pairs.last().unwrap());
    let events = events_of(&view);
    assert!((first.trace..last.trace).contains(&events[0].time_stamp));
}

/// Keys of thread-specific values that the process has left.
fn free_keys() -> usize {
    let create = || {
        let mut key = 0;
        // SAFETY: the key is written.
        (unsafe { libc::pthread_key_create(&raw mut key, None) } == 0).then_some(key)
    };
    let keys: Vec<_> = std::iter::from_fn(create).collect();
    for &key in &keys {
        // SAFETY: made just now.
        unsafe { libc::pthread_key_delete(key) };
    }
    keys.len()
}

/// Each took one, and after a thousand the ends of threads were not noticed any more.
#[test]
fn recorders_take_no_more_keys_than_one() {
    let (_turn, folder) = (turn(), Folder::new());
    drop(start(&folder));
    let before = free_keys();
    drop(start(&folder));
    assert_eq!(free_keys(), before);
}

#[test]
fn a_second_recorder_is_refused_and_so_is_a_wrong_name() {
    let (_turn, folder) = (turn(), Folder::new());
    let _recorder = start(&folder);
    let second = Recorder::builder("other").state(folder.path()).start();
    assert!(matches!(second, Err(outlive::Error::AlreadyStarted)));
    drop(_recorder);
    for name in ["", "a/b", "a b", "a,b", "a@b"] {
        let error = Recorder::builder(name)
            .state(folder.path())
            .start()
            .unwrap_err();
        assert!(
            !matches!(error, outlive::Error::AlreadyStarted),
            "{name:?}: {error}"
        );
    }
    let event = Recorder::builder("p")
        .state(folder.path())
        .events(["a b"])
        .start();
    assert!(matches!(event, Err(outlive::Error::BadEvent { .. })));
}

#[test]
fn a_command_line_in_the_kernels_grammar_configures_it() {
    let (_turn, folder) = (turn(), Folder::new());
    let line = "reserve_mem=256K:4096:area trace_instance=prog@area,http";
    let recorder = Recorder::builder("ignored")
        .state(folder.path())
        .backing(Backing::File)
        .command_line(line)
        .start()
        .unwrap();
    event!("http:on", a = 1u32);
    event!("db:off", a = 2u32);
    event!("http:on", a = 3u32);
    event!("db:off", a = 4u32);
    let view = open_region(folder.path(), "prog");
    assert_eq!(view.parts[0].recovery.geometry.size(), 256 << 10);
    assert!(region_path(folder.path(), "prog").starts_with(folder.path()));
    assert_eq!(texts(&view), ["on: a=1", "on: a=3"]);
    drop(recorder);
    let wrong = Recorder::builder("x")
        .state(folder.path())
        .command_line("trace_instance=")
        .start();
    assert!(
        matches!(wrong, Err(outlive::Error::CommandLine(_))),
        "{wrong:?}"
    );
}

#[test]
fn a_full_ring_that_is_not_overwritten_drops_and_counts() {
    let (_turn, folder) = (turn(), Folder::new());
    let _recorder = Recorder::builder("prog")
        .state(folder.path())
        .size(64 << 10)
        .no_overwrite()
        .start()
        .unwrap();
    for number in 0..10_000u32 {
        event!("full:step", number = number);
    }
    let view = open_region(folder.path(), "prog");
    let dropped: u64 = view.cpus.iter().map(|cpu| cpu.counters.dropped).sum();
    assert_eq!(view.entries() + dropped, 10_000);
    assert_eq!(events_of(&view)[0].u64("number"), 0);
}

/// A handler that comes while its thread is inside of an event records its own beside it.
#[test]
fn a_signal_handler_records_wherever_it_interrupts() {
    static HANDLED: AtomicU32 = AtomicU32::new(0);
    static STOP: AtomicBool = AtomicBool::new(false);
    extern "C" fn handler(_: libc::c_int) {
        let number = HANDLED.fetch_add(1, Ordering::Relaxed);
        event!("signal:handler", number = number);
    }
    let (_turn, folder) = (turn(), Folder::new());
    let _recorder = Recorder::builder("prog")
        .state(folder.path())
        .size(16 << 20)
        .start()
        .unwrap();
    // SAFETY: the handler calls what a handler may.
    let before = unsafe { libc::signal(libc::SIGUSR1, handler as *const () as libc::sighandler_t) };
    assert_ne!(before, libc::SIG_ERR);
    let worker = std::thread::spawn(|| {
        let mut number = 0u32;
        while !STOP.load(Ordering::Relaxed) && number < 200_000 {
            event!("signal:worker", number = number, text = "0123456789abcdef");
            number += 1;
        }
        number
    });
    let target = std::os::unix::thread::JoinHandleExt::as_pthread_t(&worker);
    while HANDLED.load(Ordering::Relaxed) < 2_000 && !worker.is_finished() {
        // SAFETY: the thread is not joined yet.
        unsafe { libc::pthread_kill(target, libc::SIGUSR1) };
        std::thread::yield_now();
    }
    STOP.store(true, Ordering::Relaxed);
    let worked = worker.join().unwrap();
    let handled = HANDLED.load(Ordering::Relaxed);
    let view = open_region(folder.path(), "prog");
    assert!(view.is_whole());
    assert_eq!(
        view.cpus
            .iter()
            .map(|cpu| cpu.counters.dropped)
            .sum::<u64>(),
        0
    );
    let numbers = |name| -> Vec<u64> {
        recorded(&folder, name)
            .iter()
            .map(|event| event.u64("number"))
            .collect()
    };
    assert_eq!(
        numbers("signal:worker"),
        (0..u64::from(worked)).collect::<Vec<_>>()
    );
    assert_eq!(
        numbers("signal:handler"),
        (0..u64::from(handled)).collect::<Vec<_>>()
    );
    assert!(handled > 0);
}

#[test]
fn a_filter_keeps_what_it_matches_and_a_wrong_one_is_told() {
    let (_turn, folder) = (turn(), Folder::new());
    let builder = || Recorder::builder("prog").state(folder.path());
    let _recorder = builder()
        .filter("filter:*", "number >= 3 && text ~ \"a*\"")
        .filter("filter:other", "nothing == 1")
        .start()
        .unwrap();
    for number in 1..=5u32 {
        event!(
            "filter:step",
            number = number,
            text = if number == 4 { "b" } else { "ab" }
        );
    }
    event!("filter:other", number = 1u32);
    assert_eq!(
        texts(&open_region(folder.path(), "prog")),
        [
            "step: number=3 text=ab",
            "step: number=5 text=ab",
            "bad_filter: event=other problem=no field `nothing`",
            "other: number=1",
        ]
    );
    drop(_recorder);
    let wrong = builder().filter("filter:step", "number >=").start();
    assert!(
        matches!(wrong, Err(outlive::Error::BadFilter { .. })),
        "{wrong:?}"
    );
}

/// The CPUs that this process may run on.
fn allowed_cpus() -> Vec<u32> {
    let allowed = sched_getaffinity(None).unwrap();
    let cpus = (0..CpuSet::MAX_CPU).filter(|cpu| allowed.is_set(*cpu));
    cpus.map(|cpu| cpu as u32).collect()
}

/// Runs the calling thread on this CPU alone.
fn move_to(cpu: u32) {
    let mut cpus = CpuSet::new();
    cpus.set(cpu as usize);
    sched_setaffinity(None, &cpus).unwrap();
}

/// Forty threads over four lanes, of which ten at a time live, each moved from CPU to CPU while it
/// records: every event is there in its thread's order and with its CPU, or counted as dropped because
/// no lane was free.
#[test]
fn threads_that_move_end_and_outnumber_the_lanes_keep_their_order_and_count() {
    const ROUNDS: u32 = 4;
    const THREADS: u32 = 10;
    const EVENTS: u32 = 2_000;
    let (_turn, folder) = (turn(), Folder::new());
    let _recorder = Recorder::builder("prog")
        .state(folder.path())
        .size(8 << 20)
        .lanes(4)
        .start()
        .unwrap();
    let cpus = allowed_cpus();
    if cpus.len() == 1 {
        println!("moves: skipped: this process may run on one CPU only");
    }
    let cpu_of = |thread, number| cpus[(number / 100 + thread) as usize % cpus.len()];
    let record = |thread: u32| {
        for number in 0..EVENTS {
            if number % 100 == 0 {
                move_to(cpu_of(thread, number));
            }
            event!("threads:step", thread = thread, number = number);
        }
    };
    for round in 0..ROUNDS {
        std::thread::scope(|scope| {
            for thread in 0..THREADS {
                let record = &record;
                scope.spawn(move || record(round * THREADS + thread));
            }
        });
    }
    let view = open_region(folder.path(), "prog");
    assert!(view.is_whole());
    let counters = view.cpus.iter().map(|cpu| cpu.counters);
    let (dropped, overrun) = counters.fold((0, 0), |(dropped, overrun), counters| {
        (dropped + counters.dropped, overrun + counters.overrun)
    });
    assert_eq!(overrun, 0, "the region has room for all");
    let events = recorded(&folder, "threads:step");
    let all = u64::from(ROUNDS * THREADS * EVENTS);
    assert_eq!(events.len() as u64 + dropped, all);
    assert!(dropped < all / 10, "{dropped}");
    for event in &events {
        let (thread, number) = (event.u64("thread") as u32, event.u64("number") as u32);
        assert_eq!(event.cpu, cpu_of(thread, number), "{thread}: {number}");
    }
    for thread in 0..u64::from(ROUNDS * THREADS) {
        let of_thread = events.iter().filter(|event| event.u64("thread") == thread);
        let numbers: Vec<u64> = of_thread.map(|event| event.u64("number")).collect();
        assert!(!numbers.is_empty() && numbers.is_sorted_by(|a, b| a < b));
    }
}

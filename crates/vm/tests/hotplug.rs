//! A recorder in a program while processors of its machine come and go.
#![allow(missing_docs, reason = "tests")]

use std::path::Path;
use std::process::abort;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use outlive::{Backing, Recorder, event};
use outlive_trace::view::View;
use outlive_vm::{Boot, End, Kernel, Machine};

/// Tells this program that it is in the guest, and where its state is.
const STATE: &str = "OUTLIVE_TEST_STATE";
const THREADS: usize = 4;
/// Of a thread at most; a lane has room for those of all threads.
const EVENTS: u32 = 50_000;
/// How often the processor goes and comes.
const TURNS: usize = 4;
/// Events that each thread records between two changes.
const BETWEEN: u32 = 60;

/// Events that each thread has recorded.
static RECORDED: [AtomicU32; THREADS] = [const { AtomicU32::new(0) }; THREADS];
static STOP: AtomicBool = AtomicBool::new(false);

/// In the guest: records in four threads while a processor goes and comes, writes how many events each
/// has recorded to `STATE/recorded`, and dies.
#[test]
fn program_in_the_guest() {
    let Some(state) = std::env::var_os(STATE) else {
        return;
    };
    let state = Path::new(&state);
    let recorder = Recorder::builder("prog")
        .state(state)
        .size(48 << 20)
        .lanes(8);
    let _recorder = recorder.backing(Backing::File).start().unwrap();
    let online = std::thread::scope(|scope| {
        for thread in 0..THREADS {
            scope.spawn(move || record(thread));
        }
        let online = (0..TURNS).map(|_| set_online("0") + &set_online("1"));
        let online: String = online.collect();
        STOP.store(true, Ordering::Relaxed);
        online
    });
    let recorded = RECORDED
        .each_ref()
        .map(|n| n.load(Ordering::Relaxed).to_string());
    std::fs::write(state.join("recorded"), recorded.join(" ")).unwrap();
    std::fs::write(state.join("online"), online).unwrap();
    abort();
}

fn record(thread: usize) {
    let mut number = 0u32;
    while !STOP.load(Ordering::Relaxed) && number < EVENTS {
        event!("hotplug:step", thread = thread as u32, number = number);
        number += 1;
        RECORDED[thread].store(number, Ordering::Relaxed);
        if number.is_multiple_of(20) {
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// Switches a processor, waits until each thread has gone on recording, and returns what the kernel
/// says of the processor.
fn set_online(value: &str) -> String {
    const CPU: &str = "/sys/devices/system/cpu/cpu1/online";
    std::fs::write(CPU, value).unwrap();
    let so_far = RECORDED.each_ref().map(|n| n.load(Ordering::Relaxed));
    for (recorded, so_far) in RECORDED.iter().zip(so_far) {
        let wanted = (so_far + BETWEEN).min(EVENTS);
        while recorded.load(Ordering::Relaxed) < wanted {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    std::fs::read_to_string(CPU).unwrap()
}

#[test]
fn a_program_records_on_while_processors_come_and_go() {
    if !outlive_vm::can_run("hotplug") {
        return;
    }
    let mut machine = Machine::new(Kernel::pinned("7.3").unwrap(), 2, 512).unwrap();
    let boot = Boot::new("")
        .program("prog", std::env::current_exe().unwrap())
        .script(
            "mkdir -p /out/state
             OUTLIVE_TEST_STATE=/out/state prog --exact program_in_the_guest",
        );
    let outcome = machine.boot(&boot).unwrap();
    assert_eq!(outcome.end, End::PowerOff);
    assert_eq!(
        outcome.text("state/online").unwrap(),
        "0\n1\n".repeat(TURNS)
    );

    let recorded = outcome.text("state/recorded").unwrap();
    let region = outcome.results().join("state/apps/prog/areas/prog");
    let view = View::open(&region).unwrap();
    assert!(view.is_whole());
    let mut seen = [0; THREADS];
    let mut events = view.events(None);
    while let Some(event) = events.next_event() {
        let [thread, number] = thread_and_number(event.payload);
        assert_eq!(number, seen[thread as usize]);
        seen[thread as usize] += 1;
    }
    assert_eq!(seen.map(|number| number.to_string()).join(" "), recorded);
    let least = 2 * TURNS as u32 * BETWEEN;
    assert!(seen.iter().all(|number| *number >= least), "{seen:?}");
}

/// The fields behind the 8 bytes of common ones.
fn thread_and_number(payload: &[u8]) -> [u32; 2] {
    let word = |at: usize| u32::from_le_bytes(payload[at..at + 4].try_into().unwrap());
    [word(8), word(12)]
}

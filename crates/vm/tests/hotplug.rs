//! A recorder in a program while processors of its machine come and go.
#![allow(missing_docs, reason = "tests")]

use std::path::Path;
use std::process::abort;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use outlive::{Backing, Recorder, event};
use outlive_trace::view::View;
use outlive_vm::{Boot, End, Kernel, Machine};

/// Tells this program that it is in the guest, and where its state is.
const STATE: &str = "OUTLIVE_TEST_STATE";
const THREADS: u32 = 4;
/// Of a thread at most; a lane has room for those of all threads.
const EVENTS: u32 = 50_000;

/// In the guest: records in four threads until `STATE/stop` is there, writes how many events each has
/// recorded to `STATE/recorded`, and dies.
#[test]
fn program_in_the_guest() {
    static STOP: AtomicBool = AtomicBool::new(false);
    let Some(state) = std::env::var_os(STATE) else {
        return;
    };
    let state = Path::new(&state);
    let recorder = Recorder::builder("prog")
        .state(state)
        .size(48 << 20)
        .lanes(8);
    let _recorder = recorder.backing(Backing::File).start().unwrap();
    let record = |thread: u32| {
        let mut number = 0u32;
        while !STOP.load(Ordering::Relaxed) && number < EVENTS {
            event!("hotplug:step", thread = thread, number = number);
            number += 1;
            if number.is_multiple_of(20) {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        number
    };
    let recorded: Vec<String> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|n| scope.spawn(move || record(n)))
            .collect();
        while !state.join("stop").exists() {
            std::thread::sleep(Duration::from_millis(10));
        }
        STOP.store(true, Ordering::Relaxed);
        let ended = threads.into_iter().map(|thread| thread.join().unwrap());
        ended.map(|number| number.to_string()).collect()
    });
    std::fs::write(state.join("recorded"), recorded.join(" ")).unwrap();
    abort();
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
            "mkdir -p /out/state; cpu=/sys/devices/system/cpu/cpu1/online
             OUTLIVE_TEST_STATE=/out/state prog --exact program_in_the_guest &
             until [ -e /out/state/apps/prog/areas/prog ]; do sleep 0.1; done
             for i in 1 2 3 4; do
               echo 0 > $cpu; cat $cpu; sleep 0.1; echo 1 > $cpu; cat $cpu; sleep 0.1
             done > /out/online
             touch /out/state/stop; wait",
        );
    let outcome = machine.boot(&boot).unwrap();
    assert_eq!(outcome.end, End::PowerOff);
    assert_eq!(outcome.text("online").unwrap(), "0\n1\n".repeat(4));

    let recorded = outcome.text("state/recorded").unwrap();
    let region = outcome.results().join("state/apps/prog/areas/prog");
    let view = View::open(&region).unwrap();
    assert!(view.is_whole());
    let mut seen = [0; THREADS as usize];
    let mut events = view.events(None);
    while let Some(event) = events.next_event() {
        let [thread, number] = thread_and_number(event.payload);
        assert_eq!(number, seen[thread as usize]);
        seen[thread as usize] += 1;
    }
    assert_eq!(seen.map(|number| number.to_string()).join(" "), recorded);
    assert!(seen.iter().all(|number| *number > 100), "{seen:?}");
}

/// The fields behind the 8 bytes of common ones.
fn thread_and_number(payload: &[u8]) -> [u32; 2] {
    let word = |at: usize| u32::from_le_bytes(payload[at..at + 4].try_into().unwrap());
    [word(8), word(12)]
}

//! What each keeps of 100,000 events of a program that is killed behind the last one.

use std::fs::{File, read_to_string};
use std::io::{BufWriter, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use outlive::event;
use outlive_trace::view::View;
use outlive_trace::{StateDir, apps};

use crate::lttng::Peer;
use crate::{RING_BYTES, die, recorder, this_program};

const EVENTS: u32 = 100_000;
/// The lines of the plain file.
const FILE: &str = "events.log";

/// Records, and dies.
pub(crate) fn child(who: &str, folder: &Path) {
    match who {
        "outlive" => {
            let _recorder = recorder("tmpfs", folder, RING_BYTES);
            for i in 0..EVENTS {
                event!("kept:ints", a = u64::from(i), b = i);
            }
            die()
        }
        "lttng" => {
            let peer = Peer::load().expect("the peer's library");
            (peer.kept)(EVENTS);
            die()
        }
        _ => {
            let file = File::create(folder.join(FILE)).expect("a file");
            let mut file = BufWriter::new(file);
            for i in 0..EVENTS {
                writeln!(file, "kept: a={i} b={i}").expect("it is written");
            }
            die()
        }
    }
}

pub(crate) fn print(folder: &Path, peer: Option<&Peer>) {
    println!("kept of {EVENTS} events after SIGKILL:");
    let run = |who: &str| {
        let folder = folder.display().to_string();
        let status = this_program(&["child-death", who, &folder]).status();
        assert!(!status.expect("a child").success(), "{who} was not killed");
    };
    run("outlive");
    let (kept, bytes) = kept_by_outlive(folder);
    println!("  outlive: {kept}, {bytes} bytes each in the region");
    if peer.is_some() {
        run("lttng");
        println!("  LTTng-UST, --shm-path: {}", kept_by_lttng(folder));
    }
    run("file");
    let lines = read_to_string(folder.join(FILE)).expect("the file");
    println!("  a buffered file: {}", lines.matches('\n').count());
}

/// Events and bytes of each.
fn kept_by_outlive(folder: &Path) -> (u64, u64) {
    let state = apps::folder(folder, "bench").and_then(|folder| StateDir::open(&folder));
    let instances = state.and_then(|state| state.read_instances());
    let instances = instances.expect("the state");
    let path = instances.instances[0].other["path"]
        .as_str()
        .expect("a path");
    let view = View::open(path.as_ref()).expect("the region");
    let bytes: u64 = view.cpus.iter().map(|cpu| cpu.bytes).sum();
    (view.entries(), bytes / view.entries().max(1))
}

/// What its own tools find in the buffers.
fn kept_by_lttng(folder: &Path) -> usize {
    let buffers = std::env::var_os("OUTLIVE_BENCH_LTTNG_SHM").expect("the folder of its buffers");
    // The daemon has named a folder in it.
    let mut sessions = std::fs::read_dir(buffers).expect("the folder of its buffers");
    let buffers = sessions
        .next()
        .expect("a session")
        .expect("a session")
        .path();
    let extracted = folder.join("lttng-crash");
    let status = Command::new("lttng-crash")
        .arg("--extract")
        .args([&extracted, &buffers])
        .stdout(Stdio::null())
        .status();
    assert!(status.expect("lttng-crash").success(), "lttng-crash failed");
    let text = Command::new("babeltrace2").arg(&extracted).output();
    let text = text.expect("babeltrace2").stdout;
    let text = String::from_utf8_lossy(&text);
    text.lines()
        .filter(|line| line.contains("outlive_bench:kept"))
        .count()
}

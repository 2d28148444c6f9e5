//! What a program's own events cost, beside what reading the clock costs and beside LTTng-UST, in
//! one run.
//!
//!     cargo xtask bench app
//!
//! The xtask builds the peer and begins its session: `OUTLIVE_BENCH_LTTNG` is its library and
//! `OUTLIVE_BENCH_LTTNG_SHM` the folder that has its session's. `OUTLIVE_BENCH_DISK` is a folder on a disk.

mod cost;
mod death;
mod lttng;
mod start;
mod threads;

use std::path::{Path, PathBuf};

use lttng::Peer;
use outlive::{Backing, Recorder};

/// Bytes of our ring, and of LTTng-UST's buffers of both CPUs.
const RING_BYTES: u64 = 16 << 20;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args[..] {
        ["child-start", backing, state, size, end] => {
            return start::child(backing, state, size, end);
        }
        ["child-death", who, folder] => return death::child(who, folder.as_ref()),
        _ => {}
    }
    let tmpfs = Folder(std::env::temp_dir().join(format!("outlive-bench-{}", std::process::id())));
    let disk = std::env::var_os("OUTLIVE_BENCH_DISK").map(|path| Folder(PathBuf::from(path)));
    let peer = Peer::load();
    let places = [("tmpfs", Some(&tmpfs)), ("disk", disk.as_ref())];
    let places = places
        .into_iter()
        .filter_map(|(name, folder)| Some((name, folder?.0.as_path())));
    for (backing, folder) in places {
        println!("{backing}:");
        let recorder = recorder(backing, folder, RING_BYTES);
        cost::print(peer.as_ref());
        threads::print(peer.as_ref());
        drop(recorder);
        start::print(backing, folder);
    }
    death::print(&tmpfs.0, peer.as_ref());
}

fn recorder(backing: &str, state: &Path, size: u64) -> Recorder {
    let backing = match backing {
        "tmpfs" => Backing::Tmpfs(None),
        _ => Backing::File,
    };
    Recorder::builder("bench")
        .state(state)
        .backing(backing)
        .size(size)
        .events(["bench:*", "kept:*"])
        .keep(1)
        .start()
        .expect("the recorder starts")
}

/// A state folder. With it goes what it has on the tmpfs.
struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        let id = std::fs::read_to_string(self.0.join("apps/bench/id")).unwrap_or_default();
        let _ = std::fs::remove_dir_all(format!("/dev/shm/outlive-{}", id.trim()));
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// This program, as another process.
fn this_program(args: &[&str]) -> std::process::Command {
    let mut command = std::process::Command::new(std::env::current_exe().expect("a program"));
    command.args(args);
    command
}

/// Ends this process as nothing else does.
fn die() -> ! {
    // SAFETY: numbers only.
    unsafe { libc::kill(libc::getpid(), libc::SIGKILL) };
    unreachable!("nothing survives SIGKILL")
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values[values.len() / 2]
}

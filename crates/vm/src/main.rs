//! `cargo xtask vm`: what one may want of the real kernels by hand.

use std::path::Path;
use std::process::ExitCode;

use outlive_vm::crash::{self, Death, Kind, Loss, Rig};
use outlive_vm::{Kernel, backup_time, regions};

const USAGE: &str = "\
cargo xtask vm ACTION

  all               matrix, damage, address, crash and ours-there, one after the other: hours
  list              the pinned kernels
  fetch             fetches and unpacks them
  matrix            regions of all kernels, CPUs, fills and ends, against what the kernels say:
                    matrix [--record] [CASE]...   (a part of a case's name chooses)
                    --record keeps them in fixtures/regions, for the tests to replay
  damage [--record] every damage of docs/damages.md, against the recordings of what its kernel did
                    --record writes these and the page
  address           an instance by address, harvested on every kernel
  crash [CASE]...   machines of every backing that die every death (a part of a case's name chooses);
                    all of them write docs/machine-deaths.md
  ours-there        what outlive wrote, shown by every kernel of its layout, for 1, 2 and 4 CPUs
  loss [N]          what outlive lacks of the kernel's last events after N panics (12)
  backup-time [N]   the kernel's backup of 100 MiB at boot beside outlive's, N times (5)
";

/// Our backup takes at most so many times as long as the kernel's.
const BACKUP_RATIO: f64 = 1.2;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let done = match args.first().map(String::as_str) {
        Some("list") => {
            Kernel::versions().for_each(|version| println!("{version}"));
            Ok(())
        }
        Some("fetch") => Kernel::versions().try_for_each(|version| {
            let kernel = Kernel::pinned(version).map_err(|e| e.to_string())?;
            println!("{version}: {}", kernel.vmlinuz().display());
            Ok(())
        }),
        Some("matrix") => matrix(&args[1..]),
        Some("crash") => crashes(&args[1..]),
        Some("loss") => times(args.get(1), 12).and_then(loss),
        Some("backup-time") => times(args.get(1), 5).and_then(time_backups),
        _ => Err(USAGE.to_owned()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn times(arg: Option<&String>, default: usize) -> Result<usize, String> {
    match arg.map(|arg| arg.parse()) {
        None => Ok(default),
        Some(Ok(times)) if times > 0 => Ok(times),
        _ => Err(USAGE.to_owned()),
    }
}

/// Panics while outlive records on physical memory, and what is missing each time.
fn loss(times: usize) -> Result<(), String> {
    let mut all = Vec::new();
    println!("crash    both  lost events      lost time");
    for crash in 1..=times {
        let loss = one_loss().map_err(|e| e.to_string())?;
        let (events, ms) = (loss.last, loss.last_ns as f64 / 1e6);
        println!("{crash:5} {:7} {events:12} {ms:11.3} ms", loss.both);
        if !loss.between.is_empty() || loss.both == 0 {
            return Err(format!("not only the last events are missing: {loss:?}"));
        }
        all.push(loss);
    }
    for (name, at) in [("median", (times - 1) / 2), ("worst", times - 1)] {
        let events = nth(all.iter().map(|loss| loss.last), at);
        let ns = nth(all.iter().map(|loss| loss.last_ns), at);
        println!("{name:>13} {events:12} {:11.3} ms", ns as f64 / 1e6);
    }
    Ok(())
}

fn one_loss() -> Result<Loss, Box<dyn std::error::Error>> {
    let kernel = Kernel::pinned("7.3")?;
    let mut rig = Rig::new(kernel, Kind::Physical, &outlive_vm::outlive()?)?;
    rig.record("load\nany_moment", Death::Panic)?;
    let folder = tempfile::tempdir()?;
    let [ours, kernels] = ["ours", "kernels"].map(|name| folder.path().join(name));
    std::fs::write(&ours, rig.area()?)?;
    std::fs::write(&kernels, rig.reference()?)?;
    Ok(Loss::between(&ours, &kernels)?)
}

/// The value at a place of the order.
fn nth<T: Ord>(values: impl Iterator<Item = T>, at: usize) -> T {
    let mut values: Vec<T> = values.collect();
    values.sort_unstable();
    values.swap_remove(at)
}

/// Runs the cases one after the other, and writes the page if these were all and everything held.
fn crashes(words: &[String]) -> Result<(), String> {
    let is_chosen = |name: &str| words.is_empty() || words.iter().any(|word| name.contains(word));
    let outlive = outlive_vm::outlive().map_err(|e| e.to_string())?;
    let (mut page, mut failed) = (crash::PAGE_HEAD.to_owned(), 0);
    for case in crash::all().filter(|case| is_chosen(&case.to_string())) {
        match case.run(&outlive) {
            Ok(survived) => {
                let row = survived.row(case);
                println!("{row}");
                page.push_str(&(row + "\n"));
            }
            Err(told) => {
                failed += 1;
                println!("FAILED: {told}");
            }
        }
    }
    if failed > 0 {
        return Err(format!("{failed} failed"));
    }
    if words.is_empty() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/machine-deaths.md");
        std::fs::write(path, page).map_err(|e| e.to_string())?;
    }
    Ok(())
}

/// Both backups, and the ratio of the shortest times: whatever else runs here makes them longer only.
fn time_backups(times: usize) -> Result<(), String> {
    let outlive = outlive_vm::outlive().map_err(|e| e.to_string())?;
    let mut best = [f64::MAX; 2];
    println!("      kernel     outlive");
    for _ in 0..times {
        let kernel = Kernel::pinned("7.3").map_err(|e| e.to_string())?;
        let time = backup_time::measure(kernel, &outlive).map_err(|e| e.to_string())?;
        let ms = [time.kernel, time.outlive].map(|time| time.as_secs_f64() * 1e3);
        println!("{:9.1} ms {:8.1} ms", ms[0], ms[1]);
        best = [best[0].min(ms[0]), best[1].min(ms[1])];
    }
    let [kernel, outlive] = best;
    let ratio = outlive / kernel;
    let told = if ratio <= BACKUP_RATIO {
        "met"
    } else {
        "not met"
    };
    println!(
        "shortest: {kernel:.1} ms, {outlive:.1} ms, ratio {ratio:.2}: {told}, at most {BACKUP_RATIO}"
    );
    Ok(())
}

/// Runs the cases, two at a time, and says of each what was compared.
fn matrix(args: &[String]) -> Result<(), String> {
    let is_recording = args.iter().any(|arg| arg == "--record");
    let words: Vec<&String> = args.iter().filter(|arg| !arg.starts_with("--")).collect();
    let is_chosen = |name: &str| words.is_empty() || words.iter().any(|word| name.contains(*word));
    let cases: Vec<_> = regions::all()
        .filter(|case| is_chosen(&case.to_string()))
        .collect();
    let outlive = outlive_vm::outlive().map_err(|e| e.to_string())?;
    let next = std::sync::atomic::AtomicUsize::new(0);
    let failed = std::sync::atomic::AtomicUsize::new(0);
    let work = || {
        while let Some(case) = cases.get(next.fetch_add(1, std::sync::atomic::Ordering::Relaxed)) {
            match run_case(case, &outlive, is_recording) {
                Ok(told) => println!("{case}: {told}"),
                Err(error) => {
                    failed.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                    println!("{case}: FAILED: {error}");
                }
            }
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(work);
        work();
    });
    let failed = failed.into_inner();
    println!("{} cases, {failed} failed", cases.len());
    if failed > 0 {
        Err("see above".to_owned())
    } else {
        Ok(())
    }
}

fn run_case(case: &regions::Case, outlive: &Path, is_recording: bool) -> Result<String, String> {
    let folder = tempfile::tempdir().map_err(|e| e.to_string())?;
    let folder = folder.path().join("case");
    case.run(&folder).map_err(|e| e.to_string())?;
    if is_recording {
        let kept = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/regions");
        std::fs::create_dir_all(&kept).map_err(|e| e.to_string())?;
        let archive = kept.join(format!("{case}.tar.xz"));
        regions::pack(&folder, &archive).map_err(|e| e.to_string())?;
    }
    let compared = regions::compare(outlive, &folder)?;
    Ok(format!(
        "{} lines and {} counters agree, {} lines are only ours",
        compared.lines, compared.counters, compared.more
    ))
}

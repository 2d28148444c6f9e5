//! `cargo xtask vm`: what one may want of the real kernels by hand.

use std::path::Path;
use std::process::ExitCode;

use outlive_vm::{Kernel, regions};

const USAGE: &str = "\
cargo xtask vm ACTION

  list              the pinned kernels
  fetch             fetches and unpacks them
  matrix            regions of all kernels, CPUs, fills and ends, against what the kernels say:
                    matrix [--record] [CASE]...   (a part of a case's name chooses)
                    --record keeps them in fixtures/regions, for the tests to replay
";

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

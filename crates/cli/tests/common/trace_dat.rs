//! What trace-cmd and KernelShark's library read of an exported `trace.dat`, beside what `show` says.

use std::collections::HashMap;
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

use super::outlive;

/// What both tools say of an event, or that events are missing on a CPU.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Line {
    Event {
        task: String,
        cpu: String,
        micros: u64,
        name: String,
        text: String,
    },
    Lost {
        cpu: String,
        count: String,
    },
}

impl Line {
    /// `TASK-PID [CPU] FLAGS TIME: NAME: TEXT`; trace-cmd has no flags.
    pub(crate) fn event(line: &str) -> Option<Self> {
        let (task, rest) = line.split_once(" [")?;
        let (cpu, rest) = rest.split_once(']')?;
        let (before, rest) = rest.split_once(": ")?;
        let time = before.split_whitespace().last()?;
        let (name, text) = rest.trim().split_once(':').unwrap_or((rest.trim(), ""));
        // What the kernel's text calls by the function that wrote it.
        let (name, text) = match name {
            "print" => ("tracing_mark_write", text.split_once(':')?.1),
            _ => (name, text),
        };
        Some(Self::Event {
            task: task.trim().to_owned(),
            cpu: cpu.to_owned(),
            micros: micros(time)?,
            name: name.to_owned(),
            // Pointers are shown with it or without.
            text: text.replace("0x", "").trim().to_owned(),
        })
    }

    /// `CPU:0 [LOST 5 EVENTS]`; trace-cmd: `CPU:0 [5 EVENTS DROPPED]`.
    pub(crate) fn lost(line: &str) -> Option<Self> {
        let (cpu, rest) = line.trim().strip_prefix("CPU:")?.split_once(' ')?;
        let mut words = rest.split([' ', '[', ']']);
        let count = words.find(|word| word.parse::<u64>().is_ok());
        Some(Self::Lost {
            cpu: cpu.to_owned(),
            count: count.unwrap_or("?").to_owned(),
        })
    }

    /// With the task's id alone: KernelShark's library finds names of its own in the events.
    pub(crate) fn without_name(mut self) -> Self {
        if let Self::Event { task, .. } = &mut self {
            let id = task.rfind('-').map_or(0, |dash| dash + 1);
            task.drain(..id);
        }
        self
    }

    pub(crate) fn is_lost(&self) -> bool {
        matches!(self, Self::Lost { .. })
    }

    pub(crate) fn all(text: &[u8]) -> Vec<Self> {
        let text = String::from_utf8_lossy(text);
        let lines = text.lines().filter(|line| {
            !line.starts_with('#') && !line.starts_with("cpus=") && !line.trim().is_empty()
        });
        lines
            .map(|line| {
                let read = Self::lost(line).or_else(|| Self::event(line));
                read.unwrap_or_else(|| panic!("{line:?}"))
            })
            .collect()
    }
}

/// Seconds with six digits or nine, rounded as the kernel rounds; nanoseconds, as trace-cmd has them
/// for some clocks.
fn micros(time: &str) -> Option<u64> {
    let Some((seconds, fraction)) = time.split_once('.') else {
        return Some((time.parse::<u64>().ok()? + 500) / 1000);
    };
    let nanos: u64 = format!("{fraction:0<9}").parse().ok()?;
    Some(seconds.parse::<u64>().ok()? * 1_000_000 + (nanos + 500) / 1000)
}

pub(crate) fn trace_cmd(args: &[&str], file: &Path) -> Vec<u8> {
    let output = Command::new("trace-cmd").args(args).arg(file).output();
    let output = output.expect("trace-cmd is missing: `cargo xtask setup` installs it");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && stderr.is_empty(), "{stderr}");
    output.stdout
}

/// The events as KernelShark's library reads them.
pub(crate) fn kshark(file: &Path) -> Vec<Line> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/export_trace_dat_kshark.py");
    let output = Command::new("python3").arg(script).arg(file).output();
    let output = output.expect("python3 is missing: `cargo xtask setup` installs it");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "libkshark2: {stderr}");
    Line::all(&output.stdout)
}

/// Exports to a file and returns it; the exit code tells whether something is missing.
pub(crate) fn export(folder: &TempDir, args: &[&str], code: i32) -> std::path::PathBuf {
    let out = folder.path().join("trace.dat");
    let args = [&["export", "-o", out.to_str().unwrap()], args].concat();
    let output = outlive(&args);
    assert_eq!(output.status.code(), Some(code), "{output:?}");
    let valid = trace_cmd(&["dump", "-v", "-i"], &out);
    assert!(String::from_utf8_lossy(&valid).contains("is a valid trace-cmd file"));
    out
}

/// Puts events of the same microsecond in the order of their CPUs: which of two CPUs comes first at one
/// instant is nobody's promise. A loss stays before the next event of its CPU.
pub(crate) fn by_time_and_cpu(lines: Vec<Line>) -> Vec<Line> {
    let mut next = HashMap::new();
    let keyed = lines.into_iter().rev().map(|line| match &line {
        Line::Event { cpu, micros, .. } => {
            next.insert(cpu.clone(), *micros);
            ((*micros, cpu.clone()), line)
        }
        Line::Lost { cpu, .. } => {
            let micros = next.get(cpu).copied().unwrap_or(u64::MAX);
            ((micros, cpu.clone()), line)
        }
    });
    let mut keyed: Vec<_> = keyed.collect();
    keyed.reverse();
    keyed.sort_by(|(a, _), (b, _)| a.cmp(b));
    keyed.into_iter().map(|(_, line)| line).collect()
}

/// Exports and shows with the same arguments, and compares line by line. Returns the lines.
pub(crate) fn assert_same(args: &[&str], code: i32) -> Vec<Line> {
    let folder = TempDir::new().unwrap();
    let shown = outlive(&[&["show"], args].concat());
    assert!(shown.status.success(), "{shown:?}");
    let shown = by_time_and_cpu(Line::all(&shown.stdout));
    for format in ["trace.dat", "trace.dat-v6"] {
        let file = export(&folder, &[args, &["--format", format]].concat(), code);
        // Without plugins: they have texts of their own.
        let reported = trace_cmd(&["report", "-N", "-t", "-i"], &file);
        let reported = by_time_and_cpu(Line::all(&reported));
        for (number, (reported, shown)) in reported.iter().zip(&shown).enumerate() {
            assert_eq!(reported, shown, "{format} line {number}");
        }
        assert_eq!(reported.len(), shown.len(), "{format}");
        let events = shown.iter().filter(|line| !line.is_lost()).cloned();
        let mut events = events.map(Line::without_name);
        for (number, drawn) in by_time_and_cpu(kshark(&file)).into_iter().enumerate() {
            let drawn = Some(drawn.without_name());
            assert_eq!(drawn, events.next(), "{format}, KernelShark's {number}");
        }
        assert_eq!(events.next(), None, "{format}, KernelShark");
    }
    shown
}

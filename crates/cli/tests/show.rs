//! What `show` makes of texts that were written by somebody else.

mod common;

use std::path::Path;
use std::sync::{Mutex, PoisonError};

use common::outlive;
use outlive::{Backing, Recorder, event};

/// Held by the test that records: a process has one recorder at a time.
static RECORDER: Mutex<()> = Mutex::new(());

/// Records what `work` does.
fn record(name: &str, state: &str, work: impl FnOnce()) {
    let _only = RECORDER.lock().unwrap_or_else(PoisonError::into_inner);
    let recorder = Recorder::builder(name).state(Path::new(state));
    let recorder = recorder.backing(Backing::File).start().unwrap();
    work();
    drop(recorder);
}

/// Whether a program wrote them, or somebody through it: no text moves the cursor, and none looks like
/// the line of another event.
#[test]
fn a_programs_texts_are_shown_in_the_line_of_their_event_with_escapes() {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().to_str().unwrap();
    let text = "\x1b[2J\u{9b}1m\r\n    init-1  [000] .....     1.000000: fake: ü\t";
    record("shop", state, || event!("shop:text", text = text));
    for names in [&["shop"][..], &["shop", "shop"]] {
        for more in [&[][..], &["--raw-fields"]] {
            let shown = outlive(&[&["show", "--state", state], names, more].concat());
            let shown = String::from_utf8(shown.stdout).unwrap();
            assert!(
                !shown.contains(|c: char| c.is_control() && c != '\n'),
                "{shown:?}"
            );
            let lines = shown.lines().filter(|line| line.contains("fake: "));
            let lines: Vec<_> = lines.collect();
            assert_eq!(lines.len(), names.len(), "{shown}");
            for line in lines {
                let text = r"\u{1b}[2J\u{9b}1m\r\n    init-1 ";
                assert!(line.contains(text) && line.contains(r"fake: ü\t"), "{line}");
            }
        }
    }
}

/// A program's events have their CPU in them: what there is shows only when they are read.
#[test]
fn a_cpu_on_which_a_program_recorded_nothing_is_refused_with_those_that_there_are() {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().to_str().unwrap();
    record("cpus", state, || event!("shop:order", id = 1));
    let cpu = |args: &[&str]| {
        let show = ["show", "--state", state, "cpus"];
        outlive(&[&show[..], args].concat())
    };
    let all = String::from_utf8(cpu(&["--json"]).stdout).unwrap();
    let event: serde_json::Value = serde_json::from_str(all.lines().next().unwrap()).unwrap();
    let there = event["cpu"].to_string();
    let shown = cpu(&["--json", "--cpu", &there]);
    assert!(shown.status.success() && !shown.stdout.is_empty());
    for more in [&[][..], &["cpus"]] {
        let refused = cpu(&[&["--cpu", "99999"], more].concat());
        let said = String::from_utf8(refused.stderr).unwrap();
        assert_eq!(refused.status.code(), Some(2), "{said}");
        assert!(said.contains(&format!("of CPU {there}")), "{said}");
    }
}

//! What `show` makes of texts that were written by somebody else.

mod common;

use std::path::Path;

use common::outlive;
use outlive::{Backing, Recorder, event};

/// Whether a program wrote them, or somebody through it: no text moves the cursor, and none looks like
/// the line of another event.
#[test]
fn a_programs_texts_are_shown_in_the_line_of_their_event_with_escapes() {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().to_str().unwrap();
    let recorder = Recorder::builder("shop").state(Path::new(state));
    let recorder = recorder.backing(Backing::File).start().unwrap();
    let text = "\x1b[2J\u{9b}1m\r\n    init-1  [000] .....     1.000000: fake: ü\t";
    event!("shop:text", text = text);
    drop(recorder);
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

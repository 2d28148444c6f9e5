//! The program's standard error: passed on as it comes, and kept by line.

use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::process::ChildStderr;
use std::thread::JoinHandle;

use outlive::event;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::OFlags;

/// Bytes of a line that are kept in one event: longer ones are kept in pieces.
const LINE_BYTES: usize = 2048;

/// Reads standard error until it ends, or the program has.
#[derive(Debug)]
pub(super) struct Stderr {
    /// Closed when the program has ended: children of it may still have its standard error.
    stop: OwnedFd,
    thread: JoinHandle<()>,
}

impl Stderr {
    pub(super) fn begin(mut from: ChildStderr) -> io::Result<Self> {
        // Polled, so that what is there can be taken when the program has ended, and no more.
        rustix::fs::fcntl_setfl(&from, OFlags::NONBLOCK)?;
        let (stopped, stop) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
        let read = move || {
            let mut lines = Lines::default();
            let mut buffer = [0; 8192];
            loop {
                match from.read(&mut buffer) {
                    Ok(0) => break,
                    Ok(len) => {
                        pass_on(&buffer[..len]);
                        lines.push(&buffer[..len], keep);
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        if has_ended(&from, &stopped) {
                            break;
                        }
                    }
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(_) => break,
                }
            }
            lines.end(keep);
        };
        let thread = std::thread::Builder::new().name("stderr".into());
        Ok(Self {
            stop,
            thread: thread.spawn(read)?,
        })
    }

    /// The program has ended: takes what is there.
    pub(super) fn finish(self) {
        drop(self.stop);
        let _ = self.thread.join();
    }
}

/// Nobody may be listening any more: that is no reason to stop the program's writing.
fn pass_on(bytes: &[u8]) {
    let _ = io::stderr().write_all(bytes);
}

/// Waits for more. True if there is nothing more, and the program has ended.
fn has_ended(from: &ChildStderr, stopped: &OwnedFd) -> bool {
    let mut wanted = [
        PollFd::new(from, PollFlags::IN),
        PollFd::new(stopped, PollFlags::IN),
    ];
    let _ = poll(&mut wanted, None);
    wanted[0].revents().is_empty() && !wanted[1].revents().is_empty()
}

fn keep(line: &[u8]) {
    event!("run:stderr", line = String::from_utf8_lossy(line));
}

/// Puts lines together.
#[derive(Debug, Default)]
struct Lines {
    begun: Vec<u8>,
}

impl Lines {
    fn push(&mut self, bytes: &[u8], mut keep: impl FnMut(&[u8])) {
        for &byte in bytes {
            if byte == b'\n' {
                keep(&self.begun);
                self.begun.clear();
                continue;
            }
            if self.begun.len() == LINE_BYTES {
                keep(&self.begun);
                self.begun.clear();
            }
            self.begun.push(byte);
        }
    }

    /// What has no line end.
    fn end(&mut self, mut keep: impl FnMut(&[u8])) {
        if !self.begun.is_empty() {
            keep(&self.begun);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_put_together_from_pieces_and_long_ones_cut() {
        let mut kept = Vec::new();
        let mut lines = Lines::default();
        let mut push = |bytes: &[u8]| lines.push(bytes, |line| kept.push(line.to_vec()));
        push(b"one\ntw");
        push(b"o\n\n");
        push(&vec![b'x'; LINE_BYTES + 1]);
        lines.end(|line| kept.push(line.to_vec()));
        let long = vec![b'x'; LINE_BYTES];
        assert_eq!(kept, [&b"one"[..], b"two", b"", &long, b"x"]);
    }
}

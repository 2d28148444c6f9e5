//! Names of tasks: the pid in an event is a thread's id, its name is gone once the thread is.
//!
//! So the names are read at the start from `/proc`, and whenever an event brings a thread that is
//! not known yet, that one is asked for. `/proc/TID` can be opened for every thread, though only
//! processes are listed there.

use std::path::Path;

use crate::error::Error;
use crate::tracefs::read_text;

/// A thread's name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TaskName {
    /// The thread's id: what events call pid.
    pub tid: i32,
    /// Its process.
    pub tgid: i32,
    /// Its name, at most 15 bytes (kernel threads' may be longer).
    pub comm: String,
}

/// The names of all threads that are there now, sorted. Those that end meanwhile are left out.
///
/// # Errors
/// `/proc` cannot be listed.
pub fn scan_tasks() -> Result<Vec<TaskName>, Error> {
    let mut tasks = Vec::new();
    for tgid in ids_in(Path::new("/proc"))? {
        let folder = format!("/proc/{tgid}/task");
        for tid in ids_in(Path::new(&folder)).unwrap_or_default() {
            let comm = read_text(Path::new(&format!("{folder}/{tid}/comm")));
            let comm = comm.map(|comm| comm.trim_end_matches('\n').to_owned());
            tasks.extend(comm.ok().map(|comm| TaskName { tid, tgid, comm }));
        }
    }
    tasks.sort_unstable();
    Ok(tasks)
}

/// The name of one thread; `None` if it is gone. One file is read.
#[must_use]
pub fn task_name(tid: i32) -> Option<TaskName> {
    if tid <= 0 {
        return None; // 0 is the idle task of every CPU; negative ones are damage.
    }
    let status = read_text(Path::new(&format!("/proc/{tid}/status"))).ok()?;
    parse_status(tid, &status)
}

/// `Name:` and `Tgid:` of a `status` file (`proc_pid_status(5)`).
fn parse_status(tid: i32, status: &str) -> Option<TaskName> {
    let field = |name| status.lines().find_map(|line| line.strip_prefix(name));
    let comm = unescape(field("Name:\t")?);
    Some(TaskName {
        tid,
        tgid: field("Tgid:\t")?.trim().parse().ok()?,
        comm,
    })
}

/// `status` writes newline and backslash in a name as `\n` and `\\`; `comm` has them as they are.
fn unescape(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match (c, chars.as_str().chars().next()) {
            ('\\', Some('n')) => plain.push('\n'),
            ('\\', Some('\\')) => plain.push('\\'),
            _ => {
                plain.push(c);
                continue;
            }
        }
        chars.next();
    }
    plain
}

/// The entries of a folder that are numbers.
fn ids_in(folder: &Path) -> Result<Vec<i32>, Error> {
    let entries = std::fs::read_dir(folder).map_err(|e| Error::io("list", folder, e))?;
    Ok(entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_has_name_and_process() {
        let text = "Name:\ta\\\\b\\nc\nUmask:\t0022\nTgid:\t12\nPid:\t13\n";
        let task = parse_status(13, text).unwrap();
        assert_eq!(
            task,
            TaskName {
                tid: 13,
                tgid: 12,
                comm: "a\\b\nc".into()
            }
        );
        assert_eq!(parse_status(13, "Name:\tx\n"), None);
    }

    #[test]
    fn a_thread_of_this_process_is_found_both_ways() {
        let (send, receive) = std::sync::mpsc::channel::<()>();
        let (tell, told) = std::sync::mpsc::channel();
        let thread = std::thread::Builder::new().name("some thread".into());
        let thread = thread.spawn(move || {
            tell.send(rustix::thread::gettid().as_raw_nonzero().get())
                .unwrap();
            let _ = receive.recv();
        });
        let tid = told.recv().unwrap();
        let expected = TaskName {
            tid,
            tgid: std::process::id().cast_signed(),
            comm: "some thread".into(),
        };
        assert_eq!(task_name(tid).unwrap(), expected);
        assert!(scan_tasks().unwrap().contains(&expected));
        drop(send);
        thread.unwrap().join().unwrap();
    }

    #[test]
    fn idle_and_absurd_pids_have_no_name() {
        assert!(
            [0, -1, i32::MIN, i32::MAX]
                .into_iter()
                .all(|pid| task_name(pid).is_none())
        );
    }
}

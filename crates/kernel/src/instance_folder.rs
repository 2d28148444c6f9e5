//! The files of one instance, whoever made it: what may be done with any instance, and loses nothing of
//! what is in its buffers.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use crate::cpus::CpuId;
use crate::error::Error;
use crate::stats::StatsFile;
use crate::tracefs::{EventName, check_name, read_text};

/// The folder of an instance in tracefs.
#[derive(Clone, Debug)]
pub struct InstanceFolder {
    path: PathBuf,
}

impl InstanceFolder {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self { path }
    }

    /// The folder in tracefs.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.path
    }

    /// The size of a CPU's buffer, in KiB.
    ///
    /// # Errors
    /// The CPU is not there, or the file holds no number.
    pub fn buffer_size_kb(&self, cpu: CpuId) -> Result<u64, Error> {
        let path = self.cpu_file(cpu, "buffer_size_kb");
        let text = read_text(&path)?;
        // `7 (expanded: 1408)` before the first use.
        let number = text
            .split([' ', '\n', ')'])
            .filter_map(|word| word.parse().ok())
            .max();
        number.ok_or_else(|| Error::Malformed {
            path,
            what: "no size".into(),
        })
    }

    /// The clocks of this kernel, and the index of the one in use.
    ///
    /// # Errors
    /// The file cannot be read or has no clock in brackets.
    pub fn clocks(&self) -> Result<(Vec<String>, usize), Error> {
        let text = self.read("trace_clock")?;
        parse_bracketed(&text).ok_or_else(|| Error::Malformed {
            path: self.path.join("trace_clock"),
            what: "no clock in brackets".into(),
        })
    }

    /// The clock in use.
    ///
    /// # Errors
    /// As reading `trace_clock`.
    pub fn trace_clock(&self) -> Result<String, Error> {
        let (mut clocks, current) = self.clocks()?;
        Ok(clocks.swap_remove(current))
    }

    /// Enables an event in this instance.
    ///
    /// # Errors
    /// There is no such event, or the kernel refuses it.
    pub fn enable_event(&self, name: &EventName) -> Result<(), Error> {
        check_name(&name.system)?;
        check_name(&name.event)?;
        let result = self.write(
            &format!("events/{}/{}/enable", name.system, name.event),
            "1",
        );
        result.map_err(|e| {
            if e.is_not_found() {
                name.not_found()
            } else {
                e
            }
        })
    }

    /// The events that are enabled in this instance.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn enabled_events(&self) -> Result<Vec<EventName>, Error> {
        let text = self.read("set_event")?;
        let pairs = text.lines().filter_map(|line| line.split_once(':'));
        Ok(pairs
            .map(|(system, event)| EventName::new(system, event))
            .collect())
    }

    /// Starts or stops recording; what is in the buffers stays.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn set_tracing_on(&self, is_on: bool) -> Result<(), Error> {
        self.write("tracing_on", if is_on { "1" } else { "0" })
    }

    /// Whether events are recorded.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn is_tracing_on(&self) -> Result<bool, Error> {
        Ok(self.read("tracing_on")?.trim() != "0")
    }

    /// The CPUs that the instance has a folder for, ascending.
    ///
    /// # Errors
    /// The `per_cpu` folder cannot be read.
    pub fn cpus(&self) -> Result<Vec<CpuId>, Error> {
        let path = self.path.join("per_cpu");
        let failed = |e| Error::io("list", &path, e);
        let mut cpus = Vec::new();
        for entry in fs::read_dir(&path).map_err(failed)? {
            let file_name = entry.map_err(failed)?.file_name();
            let number = file_name.to_str().and_then(|name| name.strip_prefix("cpu"));
            cpus.extend(number.and_then(|number| number.parse().ok()).map(CpuId));
        }
        cpus.sort_unstable();
        Ok(cpus)
    }

    /// Opens the counters of a CPU.
    ///
    /// # Errors
    /// The CPU is not there.
    pub fn stats(&self, cpu: CpuId) -> Result<StatsFile, Error> {
        StatsFile::open(&self.cpu_file(cpu, "stats"))
    }

    /// Opens `trace_pipe_raw` of a CPU without blocking. Opening consumes nothing.
    ///
    /// # Errors
    /// The CPU is not there.
    pub fn open_raw(&self, cpu: CpuId) -> Result<File, Error> {
        use std::os::unix::fs::OpenOptionsExt;
        let path = self.cpu_file(cpu, "trace_pipe_raw");
        let nonblock = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
        let opened = OpenOptions::new()
            .read(true)
            .custom_flags(nonblock)
            .open(&path);
        opened.map_err(|e| Error::io("open", &path, e))
    }

    pub(crate) fn cpu_file(&self, cpu: CpuId, file: &str) -> PathBuf {
        self.path.join(format!("per_cpu/cpu{cpu}")).join(file)
    }

    pub(crate) fn read(&self, file: &str) -> Result<String, Error> {
        read_text(&self.path.join(file))
    }

    /// One write to one file, never truncating: opening `trace` or `set_event` so would clear them.
    pub(crate) fn write(&self, file: &str, text: &str) -> Result<(), Error> {
        let path = self.path.join(file);
        let opened = OpenOptions::new().write(true).open(&path);
        opened
            .and_then(|mut f| f.write_all(text.as_bytes()))
            .map_err(|e| Error::io("write", &path, e))
    }
}

/// Words of a line such as `[local] global`, and the index of the one in brackets.
fn parse_bracketed(text: &str) -> Option<(Vec<String>, usize)> {
    let words: Vec<_> = text.split_whitespace().collect();
    let current = words.iter().position(|word| word.starts_with('['))?;
    let strip = |word: &&str| word.trim_matches(['[', ']']).to_owned();
    Some((words.iter().map(strip).collect(), current))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clock_in_brackets_is_the_current_one() {
        let (clocks, current) = parse_bracketed("local global [mono] x86-tsc\n").unwrap();
        assert_eq!((clocks.len(), clocks[current].as_str()), (4, "mono"));
        assert_eq!(parse_bracketed("local global"), None);
    }
}

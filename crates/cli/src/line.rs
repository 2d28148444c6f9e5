//! The boot command line that a command is given, and where it is from.

use std::io::Read;
use std::path::Path;

use anyhow::{Context, Result, bail};
use outlive_trace::cmdline::CommandLine;

use crate::args::LineArgs;

/// Where the command line is looked for when none is given.
pub(crate) const CMDLINE_FILE: &str = "/etc/outlive/cmdline";
/// A command line file that is longer is none.
const CMDLINE_MAX: u64 = 1 << 20;

/// A command line and where it is from.
pub(crate) struct Line {
    /// The name of a file, or `command line`.
    pub(crate) origin: String,
    pub(crate) text: String,
    is_file: bool,
}

impl Line {
    /// The line of the arguments, of the file that they name, or of the usual file.
    pub(crate) fn read(args: &LineArgs) -> Result<Self> {
        if let Some(text) = &args.cmdline {
            return Ok(Self::given(text));
        }
        let path = args
            .cmdline_file
            .as_deref()
            .unwrap_or(Path::new(CMDLINE_FILE));
        let file = std::fs::File::open(path).with_context(|| match args.cmdline_file {
            Some(_) => format!("cannot read {}", path.display()),
            None => format!("no command line given, and cannot read {}", path.display()),
        })?;
        let mut text = String::new();
        file.take(CMDLINE_MAX + 1)
            .read_to_string(&mut text)
            .with_context(|| format!("cannot read {}", path.display()))?;
        if text.len() as u64 > CMDLINE_MAX {
            bail!(
                "{} is longer than {CMDLINE_MAX} bytes: no command line",
                path.display()
            );
        }
        Ok(Self {
            origin: path.display().to_string(),
            text,
            is_file: true,
        })
    }

    /// A line that was given as it is.
    pub(crate) fn given(text: &str) -> Self {
        Self {
            origin: "command line".into(),
            text: text.to_owned(),
            is_file: false,
        }
    }

    pub(crate) fn parse(&self) -> CommandLine {
        match self.is_file {
            true => CommandLine::parse_file(&self.text),
            false => CommandLine::parse(&self.text),
        }
    }
}

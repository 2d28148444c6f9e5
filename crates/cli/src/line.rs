//! The boot command line that a command is given, where it is from, and where its areas live.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use anyhow::{Context, Result, bail};
use outlive_trace::Backing;
use outlive_trace::cmdline::CommandLine;

use crate::Usage;
use crate::args::LineArgs;

/// Where the command line is looked for when none is given.
pub(crate) const CMDLINE_FILE: &str = "/etc/outlive/cmdline";
/// Where the areas of that file live, as far as they are no files in the state folder: one
/// `NAME=BACKING` on each line, `#` begins a comment.
pub(crate) const AREAS_FILE: &str = "/etc/outlive/areas";
/// What the running kernel was booted with.
const KERNEL_CMDLINE: &str = "/proc/cmdline";
/// A command line file that is longer is none.
const CMDLINE_MAX: u64 = 1 << 20;

/// A command line and where it is from.
pub(crate) struct Line {
    /// The name of a file, or `command line`.
    pub(crate) origin: String,
    pub(crate) text: String,
    /// Where areas live, by name; one that is missing here is a file in the state folder.
    pub(crate) areas: Vec<(String, Backing)>,
    /// Whether it is the line that the running kernel was booted with.
    pub(crate) is_of_kernel: bool,
    is_file: bool,
}

impl Line {
    /// The line of the arguments, of the file that they name, or of the usual file; without any, that of
    /// the kernel, if it made instances for it.
    pub(crate) fn read(args: &LineArgs) -> Result<Self> {
        if let Some(text) = &args.cmdline {
            return Ok(Self::given(text, &args.areas));
        }
        let mut areas = args.areas.clone();
        if args.cmdline_file.is_none() {
            let installed = read_areas(Path::new(AREAS_FILE))?;
            let is_given = |name: &str| args.areas.iter().any(|(given, _)| given == name);
            areas.extend(installed.into_iter().filter(|(name, _)| !is_given(name)));
        }
        let usual = Path::new(CMDLINE_FILE);
        if args.cmdline_file.is_none()
            && !usual.exists()
            && let Some(line) = Self::of_kernel(&areas)
        {
            return Ok(line);
        }
        let path = args.cmdline_file.as_deref().unwrap_or(usual);
        let file = match args.cmdline_file {
            Some(_) => {
                File::open(path).with_context(|| format!("cannot read {}", path.display()))?
            }
            None => open_usual(path)?,
        };
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
            areas,
            is_of_kernel: false,
            is_file: true,
        })
    }

    /// The line that the running kernel was booted with, if it asks for instances.
    fn of_kernel(areas: &[(String, Backing)]) -> Option<Self> {
        let text = std::fs::read_to_string(KERNEL_CMDLINE).ok()?;
        let line = Self {
            is_of_kernel: true,
            ..Self::given(text.trim_end(), areas)
        };
        let asks = !line.parse().instances.is_empty();
        asks.then(|| line.from(KERNEL_CMDLINE))
    }

    /// A line that was given as it is.
    pub(crate) fn given(text: &str, areas: &[(String, Backing)]) -> Self {
        Self {
            origin: "command line".into(),
            text: text.to_owned(),
            areas: areas.to_vec(),
            is_of_kernel: false,
            is_file: false,
        }
    }

    /// The same line, said to be from elsewhere.
    pub(crate) fn from(self, origin: &str) -> Self {
        Self {
            origin: origin.to_owned(),
            ..self
        }
    }

    pub(crate) fn parse(&self) -> CommandLine {
        match self.is_file {
            true => CommandLine::parse_file(&self.text),
            false => CommandLine::parse(&self.text),
        }
    }
}

/// Opens the file in which the line is when none is given.
fn open_usual(path: &Path) -> Result<File> {
    let none = |why| {
        format!(
            "no command line given, this kernel was booted without trace_instance=, and {why} {}",
            path.display()
        )
    };
    File::open(path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => Usage(none("there is no")).into(),
        _ => anyhow::Error::from(error).context(none("cannot read")),
    })
}

/// The areas that a file names; none if there is no file.
fn read_areas(path: &Path) -> Result<Vec<(String, Backing)>> {
    let text = match std::fs::read_to_string(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        result => result.with_context(|| format!("cannot read {}", path.display()))?,
    };
    let mut areas = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.split('#').next().unwrap_or_default().trim();
        if !line.is_empty() {
            let area = parse_area(line).map_err(anyhow::Error::msg);
            areas.push(area.with_context(|| format!("{}:{}", path.display(), number + 1))?);
        }
    }
    Ok(areas)
}

/// The text of such a file.
pub(crate) fn areas_text(areas: &[(String, Backing)]) -> String {
    let line = |(name, backing): &(String, Backing)| format!("{name}={backing}\n");
    areas.iter().map(line).collect()
}

/// `NAME=BACKING`.
pub(crate) fn parse_area(text: &str) -> Result<(String, Backing), String> {
    let (name, backing) = text
        .split_once('=')
        .ok_or("expected NAME=BACKING, as in trace=tmpfs")?;
    if name.is_empty() {
        return Err("expected the area's name before =".into());
    }
    Ok((
        name.to_owned(),
        backing
            .parse()
            .map_err(|error: outlive_trace::Error| error.to_string())?,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_line_at_all_is_a_wrong_usage_and_one_that_cannot_be_read_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let error = open_usual(&folder.path().join("cmdline")).unwrap_err();
        assert!(error.is::<Usage>(), "{error}");
        assert_eq!(crate::code(&error), crate::exit::USAGE);
        std::os::unix::fs::symlink("loop", folder.path().join("loop")).unwrap();
        let error = open_usual(&folder.path().join("loop")).unwrap_err();
        assert!(!error.is::<Usage>(), "{error}");
        assert!(error.to_string().contains("cannot read"), "{error}");
    }

    #[test]
    fn areas_of_a_file_are_read_back_and_a_mistake_has_its_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("areas");
        assert!(read_areas(&path).unwrap().is_empty());
        let areas = ["trace=mem:0x10000000", "b=dax:/pmem/x"].map(|text| parse_area(text).unwrap());
        std::fs::write(&path, format!("# areas\n\n{}", areas_text(&areas))).unwrap();
        assert_eq!(read_areas(&path).unwrap(), areas);
        std::fs::write(&path, "a=tmpfs\nb=disk\n").unwrap();
        let error = format!("{:#}", read_areas(&path).unwrap_err());
        assert!(
            error.contains("areas:2: ") && error.contains("disk"),
            "{error}"
        );
    }
}

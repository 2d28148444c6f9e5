//! The output's file: whole under its name, or not there.

use std::fs::{self, File};
use std::io;
use std::num::NonZeroU64;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use outlive_trace::view::{Sources, View};
use rustix::fs::Advice;
use rustix::io::Errno;
use tempfile::Builder;

use crate::{Error, Format, Result, Summary};

/// The name that stands for standard output.
const STDOUT: &str = "-";
/// Links that lead to each other, at most: as many as Linux follows.
const LINKS_MAX: usize = 40;

/// Exports to `out`, or to standard output if that is `-`. The output is written under another
/// name beside it, made durable, and then renamed, so that a file of that name is whole; a file
/// that had the name is replaced.
///
/// # Errors
///
/// As [`Exporter::export`](crate::Exporter::export), and when a folder is to be written where
/// something is already.
pub fn write(format: &Format, sources: &Sources<'_>, out: &Path) -> Result<Summary> {
    let mut summary = if is_stdout(out) {
        if format.is_folder {
            return Err(Error::NoFolder(format.name));
        }
        format.exporter.export(sources, out)?
    } else if format.is_folder {
        write_folder(format, sources, out)?
    } else {
        write_file(format, sources, out)?
    };
    let damaged = sources.sources().iter();
    summary
        .notes
        .extend(damaged.filter_map(|source| damage(&source.name, source.view)));
    Ok(summary)
}

/// Opens an output for writing: an empty file, or a duplicate of standard output, which goes on
/// where that is. Its name `/dev/stdout` would open a file that it leads to anew, and empty it.
pub(crate) fn create(out: &Path) -> Result<File> {
    let file = match is_stdout(out) {
        true => io::stdout().as_fd().try_clone_to_owned().map(File::from),
        false => File::create(out),
    };
    file.map_err(Error::io("create", out))
}

/// Lets the disk begin with `len` bytes at `at` that were just written, so that little is left to
/// wait for when the whole is made durable: without it the disk has nothing to do until then.
///
/// Linux writes the dirty pages of what is said to be not needed any more, and keeps them until it
/// has (`POSIX_FADV_DONTNEED`, seen with 6.18 on ext4). Where it does not, it only takes longer.
pub(crate) fn start_write_back(file: &File, at: u64, len: usize) {
    let _ = rustix::fs::fadvise(file, at, NonZeroU64::new(len as u64), Advice::DontNeed);
}

/// Whether a name stands for standard output.
pub(crate) fn is_stdout(out: &Path) -> bool {
    out == Path::new(STDOUT)
}

fn write_file(format: &Format, sources: &Sources<'_>, out: &Path) -> Result<Summary> {
    // A device or a pipe is written where it is.
    if out
        .metadata()
        .is_ok_and(|there| !there.is_file() && !there.is_dir())
    {
        return format.exporter.export(sources, out);
    }
    let out = &target(out)?;
    let folder = folder_of(out);
    let part = part()
        .tempfile_in(folder)
        .map_err(Error::io("create a file beside", out))?;
    let summary = format.exporter.export(sources, part.path())?;
    let sync = part.as_file().sync_all();
    sync.map_err(Error::io("write", out))?;
    part.persist(out)
        .map_err(|error| Error::io("create", out)(error.error))?;
    sync_names(folder)?;
    Ok(summary)
}

fn write_folder(format: &Format, sources: &Sources<'_>, out: &Path) -> Result<Summary> {
    if out.symlink_metadata().is_ok() {
        return Err(Error::IsThere(out.to_owned()));
    }
    let folder = folder_of(out);
    let part = part()
        .tempdir_in(folder)
        .map_err(Error::io("create a folder beside", out))?;
    let summary = format.exporter.export(sources, part.path())?;
    sync(part.path()).map_err(Error::io("write", out))?;
    fs::rename(part.path(), out).map_err(Error::io("create", out))?;
    sync_names(folder)?;
    Ok(summary)
}

/// What a name leads to through links, whether there is something or not: what is renamed over a link
/// takes the link's place.
fn target(out: &Path) -> Result<PathBuf> {
    let mut target = out.to_owned();
    for _ in 0..LINKS_MAX {
        match fs::read_link(&target) {
            Ok(next) => target = folder_of(&target).join(next),
            Err(_) => return Ok(target),
        }
    }
    Err(Error::io("create", out)(Errno::LOOP.into()))
}

/// Makes a file durable, or a folder and all that is in it.
fn sync(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        for entry in fs::read_dir(path)? {
            sync(&entry?.path())?;
        }
    }
    File::open(path)?.sync_all()
}

/// Makes the names in a folder durable.
fn sync_names(folder: &Path) -> Result<()> {
    let synced = File::open(folder).and_then(|folder| folder.sync_all());
    synced.map_err(Error::io("write", folder))
}

fn part() -> Builder<'static, 'static> {
    let mut builder = Builder::new();
    builder.prefix(".outlive-").suffix(".part");
    builder
}

fn folder_of(out: &Path) -> &Path {
    match out.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    }
}

/// That a region is damaged, if it is: what it lacks is missing in an output too.
#[must_use]
pub fn damage(name: &str, view: &View) -> Option<String> {
    let is_damaged = !view.is_whole();
    is_damaged.then(|| format!("{name} is damaged: what `outlive check {name}` lists is missing"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::Exporter;

    /// Fails with the disk full, half of the output written.
    #[derive(Debug)]
    struct Half;

    impl Exporter for Half {
        fn export(&self, _: &Sources<'_>, out: &Path) -> Result<Summary> {
            let file = if out.is_dir() { &out.join("half") } else { out };
            fs::write(file, "half").map_err(Error::io("write", out))?;
            Err(Error::io("write", out)(io::Error::from(
                io::ErrorKind::StorageFull,
            )))
        }
    }

    /// Writes a file.
    #[derive(Debug)]
    struct Whole;

    impl Exporter for Whole {
        fn export(&self, _: &Sources<'_>, out: &Path) -> Result<Summary> {
            fs::write(out, "whole").map_err(Error::io("write", out))?;
            Ok(Summary::default())
        }
    }

    /// A file behind a link was once emptied and written where it is.
    #[test]
    fn what_a_link_leads_to_is_replaced_when_the_output_is_whole() {
        let folder = tempfile::tempdir().unwrap();
        let sources = Sources::new(Vec::new()).unwrap();
        let mut format = Format {
            name: "half",
            endings: &[],
            about: "",
            is_folder: false,
            exporter: &Half,
        };
        let path = |name: &str| folder.path().join(name);
        fs::create_dir(path("there")).unwrap();
        fs::write(path("there/old"), "old").unwrap();
        let links = [
            ("link", "there/old"),
            ("link-to-link", "link"),
            ("to-new", "there/new"),
            ("device", "/dev/null"),
        ];
        for (link, to) in links {
            symlink(to, path(link)).unwrap();
        }
        for (link, _) in links {
            write(&format, &sources, &path(link)).unwrap_err();
        }
        assert_eq!(fs::read(path("there/old")).unwrap(), b"old");
        assert!(!path("there/new").exists());

        format.exporter = &Whole;
        let has = |name: &str| fs::read_to_string(path(name)).unwrap();
        for (link, file) in [("link-to-link", "there/old"), ("to-new", "there/new")] {
            write(&format, &sources, &path(link)).unwrap();
            assert_eq!(has(file), "whole");
        }
        write(&format, &sources, &path("device")).unwrap();
        for (link, to) in links {
            assert_eq!(fs::read_link(path(link)).unwrap(), Path::new(to));
        }
        symlink("b", path("a")).unwrap();
        symlink("a", path("b")).unwrap();
        write(&format, &sources, &path("a")).unwrap_err();
    }

    #[test]
    fn a_half_written_output_leaves_nothing_and_what_was_there() {
        let folder = tempfile::tempdir().unwrap();
        let sources = Sources::new(Vec::new()).unwrap();
        let mut format = Format {
            name: "half",
            endings: &[],
            about: "",
            is_folder: false,
            exporter: &Half,
        };
        let old = folder.path().join("old");
        fs::write(&old, "old").unwrap();
        for (out, is_folder) in [("old", false), ("new", false), ("folder", true)] {
            format.is_folder = is_folder;
            let out = folder.path().join(out);
            write(&format, &sources, &out).unwrap_err();
        }
        assert_eq!(fs::read(&old).unwrap(), b"old");
        let there: Vec<_> = fs::read_dir(folder.path()).unwrap().flatten().collect();
        assert_eq!(there.len(), 1, "{there:?}");
    }

    #[test]
    fn a_folder_is_not_written_over_another() {
        let folder = tempfile::tempdir().unwrap();
        let sources = Sources::new(Vec::new()).unwrap();
        let format = Format {
            name: "half",
            endings: &[],
            about: "",
            is_folder: true,
            exporter: &Half,
        };
        let error = write(&format, &sources, folder.path()).unwrap_err();
        assert!(matches!(error, Error::IsThere(_)), "{error}");
    }
}

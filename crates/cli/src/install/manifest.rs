//! What was installed: `/etc/outlive/installed.json`, with a hash of each file.
//!
//! Of a file that is somebody else's, only what was put in is noted, and only that is taken out again.
//!
//! The manifest is written before the first file and names what is there before and after, so that
//! an installation that was interrupted is repeated or taken back like a whole one.

use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// Where the manifest is.
const PATH: &str = "/etc/outlive/installed.json";

/// The files that an installation has brought.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Manifest {
    files: Vec<Entry>,
    /// Folders that were made for them, the outermost first.
    folders: Vec<PathBuf>,
    /// What the user does once they are taken back.
    #[serde(default)]
    pub(crate) undo: Option<String>,
}

/// One file as it was left.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Entry {
    /// Its path, without the root.
    path: PathBuf,
    /// Hash of its kind and contents, in hexadecimal digits.
    sha256: String,
    /// What was put into a file that is not ours.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    added: Option<String>,
}

/// What became of the files.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct TakenBack {
    /// Gone.
    pub(crate) removed: Vec<PathBuf>,
    /// Of somebody else, and without what was put in.
    pub(crate) reverted: Vec<PathBuf>,
    /// Changed since, and left as they are.
    pub(crate) kept: Vec<PathBuf>,
}

/// One file to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Planned {
    /// Its path, without the root.
    pub(crate) path: PathBuf,
    pub(crate) content: Content,
}

/// What a file holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Content {
    /// A text.
    File(String),
    /// A symbolic link to there.
    Link(PathBuf),
    /// The text of a file that is not ours, with something put in.
    Edit {
        /// All of it.
        text: String,
        /// What was put in.
        added: String,
    },
}

/// `path` below a root.
pub(crate) fn in_root(root: &Path, path: &Path) -> PathBuf {
    root.join(path.strip_prefix("/").unwrap_or(path))
}

impl Planned {
    pub(crate) fn file(path: impl Into<PathBuf>, text: String) -> Self {
        Self {
            path: path.into(),
            content: Content::File(text),
        }
    }

    fn entry(&self) -> Entry {
        Entry {
            path: self.path.clone(),
            sha256: match &self.content {
                Content::File(text) => hash("file", text.as_bytes()),
                Content::Link(to) => hash("link", to.as_os_str().as_encoded_bytes()),
                Content::Edit { text, .. } => hash("file", text.as_bytes()),
            },
            added: match &self.content {
                Content::Edit { added, .. } => Some(added.clone()),
                _ => None,
            },
        }
    }

    /// Puts it in its place: whole, or not at all.
    fn write(&self, root: &Path) -> Result<()> {
        let path = in_root(root, &self.path);
        match &self.content {
            Content::File(text) => replace(&path, |new| write_new(new, text.as_bytes())),
            Content::Link(to) => replace(&path, |new| std::os::unix::fs::symlink(to, new)),
            Content::Edit { text, .. } => rewrite(&path, text),
        }
    }
}

impl Manifest {
    /// Where it is below a root.
    pub(crate) fn path(root: &Path) -> PathBuf {
        in_root(root, Path::new(PATH))
    }

    /// The one of a root; an empty one where there is none.
    pub(crate) fn read(root: &Path) -> Result<Self> {
        let path = Self::path(root);
        match std::fs::read(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Self::default()),
            result => {
                let text = result.with_context(|| format!("cannot read {}", path.display()))?;
                serde_json::from_slice(&text).with_context(|| {
                    format!(
                        "{} is damaged: remove the files that it names, and it",
                        path.display()
                    )
                })
            }
        }
    }

    /// Whether nothing is installed.
    pub(crate) fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    /// What is in the way of a plan: files that are there and that no installation left so.
    pub(crate) fn foreign(&self, root: &Path, plan: &[Planned]) -> Result<Vec<PathBuf>> {
        let mut foreign = Vec::new();
        // An edit is of what was found.
        let is_edit = |planned: &&Planned| matches!(planned.content, Content::Edit { .. });
        for planned in plan.iter().filter(|planned| !is_edit(planned)) {
            let path = in_root(root, &planned.path);
            let found = hash_of(&path)?;
            let is_ours =
                |found: &String| *found == planned.entry().sha256 || self.has(&planned.path, found);
            if found.is_some_and(|found| !is_ours(&found)) {
                foreign.push(path);
            }
        }
        Ok(foreign)
    }

    /// The text of a file of somebody else, without what installations have put in.
    pub(crate) fn unedited(&self, path: &Path, text: &str) -> String {
        let entries = self.files.iter().filter(|entry| entry.path == path);
        let added = entries.filter_map(|entry| entry.added.as_deref());
        added.fold(text.to_owned(), |text, added| {
            without(&text, added).unwrap_or(text)
        })
    }

    /// Whether a file is of somebody else, and something was put in.
    fn is_edited(&self, path: &Path) -> bool {
        let mut entries = self.files.iter();
        entries.any(|entry| entry.path == path && entry.added.is_some())
    }

    fn has(&self, path: &Path, hash: &str) -> bool {
        let mut entries = self.files.iter();
        entries.any(|entry| entry.path == path && entry.sha256 == hash)
    }

    /// Writes what is planned and takes back what an earlier installation had beyond it. Returns
    /// what became of that.
    pub(crate) fn install(&mut self, root: &Path, plan: &[Planned]) -> Result<TakenBack> {
        let planned: Vec<Entry> = plan.iter().map(Planned::entry).collect();
        let paths = plan.iter().map(|planned| planned.path.as_path());
        for path in paths.chain([Path::new(PATH)]) {
            self.make_folders(root, path)?;
        }
        let before = self.files.clone();
        self.files.extend(planned.iter().cloned());
        self.write(root)?;
        for planned in plan {
            planned.write(root)?;
        }
        let mut beyond: Vec<&Path> = before.iter().map(|entry| entry.path.as_path()).collect();
        beyond.retain(|path| plan.iter().all(|planned| planned.path != *path));
        let taken_back = self.take_back(root, beyond, false)?;
        self.files = planned;
        self.write(root)?;
        Ok(taken_back)
    }

    /// Takes back everything that is as it was left.
    pub(crate) fn uninstall(&self, root: &Path, is_dry: bool) -> Result<TakenBack> {
        let paths = self.files.iter().map(|entry| entry.path.as_path());
        let taken_back = self.take_back(root, paths.collect(), is_dry)?;
        if !is_dry {
            remove(&Self::path(root))?;
            for folder in self.folders.iter().rev() {
                // One that somebody else uses by now is not empty, and stays.
                let _ = std::fs::remove_dir(in_root(root, folder));
            }
        }
        Ok(taken_back)
    }

    fn take_back(&self, root: &Path, mut paths: Vec<&Path>, is_dry: bool) -> Result<TakenBack> {
        paths.sort();
        paths.dedup();
        let mut taken_back = TakenBack::default();
        for path in paths {
            let full = in_root(root, path);
            match hash_of(&full)? {
                None => {}
                Some(_) if self.is_edited(path) => {
                    self.revert(path, full, is_dry, &mut taken_back)?
                }
                Some(found) if !self.has(path, &found) => taken_back.kept.push(full),
                Some(_) => {
                    if !is_dry {
                        remove(&full)?;
                    }
                    taken_back.removed.push(full);
                }
            }
        }
        Ok(taken_back)
    }

    /// Takes out what was put into a file. One that has nothing of it any more is as it should be.
    fn revert(
        &self,
        path: &Path,
        full: PathBuf,
        is_dry: bool,
        taken_back: &mut TakenBack,
    ) -> Result<()> {
        let text = std::fs::read_to_string(&full)
            .with_context(|| format!("cannot read {}", full.display()))?;
        let unedited = self.unedited(path, &text);
        let entries = self.files.iter().filter(|entry| entry.path == path);
        let added = entries.filter_map(|entry| entry.added.as_deref());
        let mut words = added.flat_map(str::split_ascii_whitespace);
        let is_left = |word: &str| text.split_ascii_whitespace().any(|left| left == word);
        if unedited != text {
            if !is_dry {
                rewrite(&full, &unedited)?;
            }
            taken_back.reverted.push(full);
        } else if words.any(is_left) {
            taken_back.kept.push(full);
        }
        Ok(())
    }

    /// Makes the folders above a file, and notes which there were not.
    fn make_folders(&mut self, root: &Path, path: &Path) -> Result<()> {
        let parents: Vec<&Path> = path.ancestors().skip(1).collect();
        for folder in parents.into_iter().rev() {
            let full = in_root(root, folder);
            match std::fs::create_dir(&full) {
                Ok(()) => self.folders.push(folder.to_owned()),
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                Err(error) => {
                    return Err(error)
                        .with_context(|| format!("cannot create folder {}", full.display()));
                }
            }
        }
        Ok(())
    }

    fn write(&self, root: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(self)? + "\n";
        Planned::file(PATH, text).write(root)
    }
}

/// `text` without the only place where all of `added` stands by itself; `None` if there is no such.
fn without(text: &str, added: &str) -> Option<String> {
    let is_blank = |c: Option<char>| c.is_none_or(char::is_whitespace);
    let stands_alone = |at: &usize| {
        let behind = text[at + added.len()..].chars().next();
        let before = text[..*at].chars().next_back();
        is_blank(behind) && (is_blank(before) || is_blank(added.chars().next()))
    };
    let mut places = text.match_indices(added).map(|(at, _)| at);
    let at = places.next().filter(stands_alone)?;
    let is_only = places.next().is_none();
    is_only.then(|| format!("{}{}", &text[..at], &text[at + added.len()..]))
}

/// Gives a file that is there another text, and leaves it the rights that it has.
fn rewrite(path: &Path, text: &str) -> Result<()> {
    use std::os::unix::fs::{MetadataExt, chown};
    replace(path, |new| {
        let metadata = std::fs::metadata(path)?;
        write_new(new, text.as_bytes())?;
        chown(new, Some(metadata.uid()), Some(metadata.gid()))?;
        std::fs::set_permissions(new, metadata.permissions())
    })
}

/// Writes beside what is there, and puts that in its place.
fn replace(path: &Path, write: impl FnOnce(&Path) -> std::io::Result<()>) -> Result<()> {
    let new = temporary(path);
    remove(&new)?;
    write(&new)
        .and_then(|()| std::fs::rename(&new, path))
        .with_context(|| format!("cannot write {}", path.display()))
}

/// The hash of what is at a path; `None` if nothing is.
fn hash_of(path: &Path) -> Result<Option<String>> {
    let look = || -> std::io::Result<String> {
        let metadata = std::fs::symlink_metadata(path)?;
        if metadata.is_symlink() {
            let to = std::fs::read_link(path)?;
            return Ok(hash("link", to.as_os_str().as_encoded_bytes()));
        }
        match metadata.is_file() {
            true => Ok(hash("file", &std::fs::read(path)?)),
            false => Ok("neither a file nor a link".into()),
        }
    };
    match look() {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        result => result
            .map(Some)
            .with_context(|| format!("cannot read {}", path.display())),
    }
}

fn hash(kind: &str, bytes: &[u8]) -> String {
    let mut sha256 = Sha256::new();
    sha256.update(kind);
    sha256.update([0]);
    sha256.update(bytes);
    let digest = sha256.finalize();
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A name beside a file. It begins with a dot, so that no service manager reads it.
fn temporary(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.outlive-new"))
}

fn write_new(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt;
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o644)
        .open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

fn remove(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(text: &str) -> Vec<Planned> {
        vec![
            Planned::file("/etc/outlive/cmdline", text.into()),
            Planned::file("/etc/systemd/system/outlive.service", "[Unit]\n".into()),
            Planned {
                path: "/etc/systemd/system/sysinit.target.wants/outlive.service".into(),
                content: Content::Link("../outlive.service".into()),
            },
        ]
    }

    fn files(root: &Path) -> Vec<PathBuf> {
        let mut found = Vec::new();
        let mut folders = vec![root.to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap().flatten() {
                found.push(entry.path());
                if entry.file_type().unwrap().is_dir() {
                    folders.push(entry.path());
                }
            }
        }
        found.sort();
        found
    }

    #[test]
    fn uninstall_takes_back_exactly_what_install_brought() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(root.path().join("etc/systemd")).unwrap();
        let before = files(root.path());
        let mut manifest = Manifest::read(root.path()).unwrap();
        let beyond = manifest.install(root.path(), &plan("a")).unwrap();
        assert_eq!(beyond, TakenBack::default());
        let again = Manifest::read(root.path()).unwrap();
        assert_eq!(again, manifest);
        let taken_back = again.uninstall(root.path(), false).unwrap();
        assert_eq!((taken_back.removed.len(), taken_back.kept.len()), (3, 0));
        assert_eq!(files(root.path()), before);
    }

    #[test]
    fn changed_file_is_neither_overwritten_nor_removed() {
        let root = tempfile::tempdir().unwrap();
        let mut manifest = Manifest::default();
        manifest.install(root.path(), &plan("a")).unwrap();
        let line = root.path().join("etc/outlive/cmdline");
        std::fs::write(&line, "mine").unwrap();
        assert_eq!(
            manifest.foreign(root.path(), &plan("b")).unwrap(),
            std::slice::from_ref(&line)
        );
        let taken_back = manifest.uninstall(root.path(), false).unwrap();
        assert_eq!(taken_back.removed.len(), 2);
        assert_eq!(taken_back.kept, std::slice::from_ref(&line));
        assert_eq!(std::fs::read_to_string(line).unwrap(), "mine");
    }

    #[test]
    fn unchanged_file_is_replaced_and_one_no_longer_planned_is_removed() {
        let root = tempfile::tempdir().unwrap();
        let mut manifest = Manifest::default();
        manifest.install(root.path(), &plan("a")).unwrap();
        let later = &plan("b")[..1];
        assert!(manifest.foreign(root.path(), later).unwrap().is_empty());
        manifest.install(root.path(), later).unwrap();
        let line = root.path().join("etc/outlive/cmdline");
        assert_eq!(std::fs::read_to_string(line).unwrap(), "b");
        assert!(
            !root
                .path()
                .join("etc/systemd/system/outlive.service")
                .exists()
        );
    }

    #[test]
    fn interrupted_installation_is_repeated_or_taken_back() {
        let root = tempfile::tempdir().unwrap();
        let mut manifest = Manifest::default();
        manifest.install(root.path(), &plan("a")).unwrap();
        // As after a crash behind the first of two manifests: it names old and new.
        let new = plan("b");
        manifest.files.extend(new.iter().map(Planned::entry));
        manifest.write(root.path()).unwrap();
        let manifest = Manifest::read(root.path()).unwrap();
        assert!(manifest.foreign(root.path(), &new).unwrap().is_empty());
        new[0].write(root.path()).unwrap();
        assert!(
            manifest
                .foreign(root.path(), &plan("c"))
                .unwrap()
                .is_empty()
        );
        let taken_back = manifest.uninstall(root.path(), false).unwrap();
        assert_eq!((taken_back.removed.len(), taken_back.kept.len()), (3, 0));
        assert!(files(root.path()).is_empty());
    }

    #[test]
    fn only_what_stands_by_itself_once_is_taken_out() {
        assert_eq!(without("quiet a=1 b=2\n", " a=1 b=2").unwrap(), "quiet\n");
        assert_eq!(without("quiet a=1 b=2 ro", " a=1 b=2").unwrap(), "quiet ro");
        assert_eq!(without("a=1", "a=1").unwrap(), "");
        assert_eq!(without("quiet a=12", " a=1"), None);
        assert_eq!(without("xa=1", "a=1"), None);
        assert_eq!(without("quiet a=1 a=1", " a=1"), None);
        assert_eq!(without("quiet", " a=1"), None);
    }

    /// As after a crash between the manifest and the file.
    #[test]
    fn edit_that_was_not_made_yet_is_taken_back_as_nothing() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("etc")).unwrap();
        let file = root.path().join("etc/cmdline");
        std::fs::write(&file, "quiet\n").unwrap();
        let edit = |added: &str| Planned {
            path: "/etc/cmdline".into(),
            content: Content::Edit {
                text: format!("quiet{added}\n"),
                added: added.into(),
            },
        };
        let mut manifest = Manifest::default();
        manifest.files.push(edit(" a=1").entry());
        let taken_back = manifest.uninstall(root.path(), false).unwrap();
        assert_eq!(taken_back, TakenBack::default());
        // And of two, the one that is there.
        manifest.files.push(edit(" b=2").entry());
        std::fs::write(&file, "quiet a=1 ro\n").unwrap();
        let taken_back = manifest.uninstall(root.path(), false).unwrap();
        assert_eq!(taken_back.reverted, std::slice::from_ref(&file));
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "quiet ro\n");
    }

    #[test]
    fn link_in_the_place_of_a_file_is_foreign() {
        let root = tempfile::tempdir().unwrap();
        let etc = root.path().join("etc/outlive");
        std::fs::create_dir_all(&etc).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", etc.join("cmdline")).unwrap();
        let foreign = Manifest::default()
            .foreign(root.path(), &plan("a"))
            .unwrap();
        assert_eq!(foreign, [etc.join("cmdline")]);
    }
}

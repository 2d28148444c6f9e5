//! What was installed: `/etc/outlive/installed.json`, with a hash of each file.
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
}

/// One file as it was left.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Entry {
    /// Its path, without the root.
    path: PathBuf,
    /// Hash of its kind and contents, in hexadecimal digits.
    sha256: String,
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
            },
        }
    }

    /// Puts it in its place: whole, or not at all.
    fn write(&self, root: &Path) -> Result<()> {
        let path = in_root(root, &self.path);
        let temporary = temporary(&path);
        remove(&temporary)?;
        let written = match &self.content {
            Content::File(text) => write_new(&temporary, text.as_bytes()),
            Content::Link(to) => std::os::unix::fs::symlink(to, &temporary),
        };
        written
            .and_then(|()| std::fs::rename(&temporary, &path))
            .with_context(|| format!("cannot write {}", path.display()))
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
        for planned in plan {
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

    fn has(&self, path: &Path, hash: &str) -> bool {
        let mut entries = self.files.iter();
        entries.any(|entry| entry.path == path && entry.sha256 == hash)
    }

    /// Writes what is planned and removes what an earlier installation had beyond it. Returns what
    /// of that was changed since, and so was kept.
    pub(crate) fn install(&mut self, root: &Path, plan: &[Planned]) -> Result<Vec<PathBuf>> {
        let planned: Vec<Entry> = plan.iter().map(Planned::entry).collect();
        let paths = plan.iter().map(|planned| planned.path.as_path());
        for path in paths.chain([Path::new(PATH)]) {
            self.make_folders(root, path)?;
        }
        let before = std::mem::take(&mut self.files);
        self.files = before.iter().chain(&planned).cloned().collect();
        self.write(root)?;
        for planned in plan {
            planned.write(root)?;
        }
        let is_planned = |path: &Path| plan.iter().any(|planned| planned.path == path);
        let mut kept = Vec::new();
        for entry in before.iter().filter(|entry| !is_planned(&entry.path)) {
            if !self.remove_entry(root, &entry.path, false)? {
                kept.push(in_root(root, &entry.path));
            }
        }
        self.files = planned;
        self.write(root)?;
        Ok(kept)
    }

    /// Removes everything that is as it was left. Returns what is gone, and what was changed since
    /// and is kept.
    pub(crate) fn uninstall(
        &self,
        root: &Path,
        is_dry: bool,
    ) -> Result<(Vec<PathBuf>, Vec<PathBuf>)> {
        let mut paths: Vec<&Path> = self
            .files
            .iter()
            .map(|entry| entry.path.as_path())
            .collect();
        paths.sort();
        paths.dedup();
        let (mut removed, mut kept) = (Vec::new(), Vec::new());
        for path in paths {
            let full = in_root(root, path);
            if hash_of(&full)?.is_none() {
                continue;
            }
            match self.remove_entry(root, path, is_dry)? {
                true => removed.push(full),
                false => kept.push(full),
            }
        }
        if !is_dry {
            remove(&Self::path(root))?;
            for folder in self.folders.iter().rev() {
                // One that somebody else uses by now is not empty, and stays.
                let _ = std::fs::remove_dir(in_root(root, folder));
            }
        }
        Ok((removed, kept))
    }

    /// Removes a file if it is as it was left. Whether it is gone, or would be.
    fn remove_entry(&self, root: &Path, path: &Path, is_dry: bool) -> Result<bool> {
        let full = in_root(root, path);
        match hash_of(&full)? {
            Some(found) if !self.has(path, &found) => Ok(false),
            Some(_) if !is_dry => remove(&full).map(|()| true),
            _ => Ok(true),
        }
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
        assert!(
            manifest
                .install(root.path(), &plan("a"))
                .unwrap()
                .is_empty()
        );
        let again = Manifest::read(root.path()).unwrap();
        assert_eq!(again, manifest);
        let (removed, kept) = again.uninstall(root.path(), false).unwrap();
        assert_eq!((removed.len(), kept.len()), (3, 0));
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
        let (removed, kept) = manifest.uninstall(root.path(), false).unwrap();
        assert_eq!((removed.len(), &kept[..]), (2, &[line.clone()][..]));
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
        let (removed, kept) = manifest.uninstall(root.path(), false).unwrap();
        assert_eq!((removed.len(), kept.len()), (3, 0));
        assert!(files(root.path()).is_empty());
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

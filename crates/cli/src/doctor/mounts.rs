//! What is mounted where: `/proc/self/mountinfo`.

use std::path::{Path, PathBuf};

/// The mounts that this process sees, in the order in which they were made.
#[derive(Clone, Debug, Default)]
pub(crate) struct Mounts(Vec<Mount>);

/// One mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mount {
    /// Where it is.
    pub(crate) place: PathBuf,
    /// Type of the file system: `ext4`.
    pub(crate) kind: String,
    /// What is mounted: `/dev/vda`.
    pub(crate) source: String,
    /// Options of the mount and of the file system, separated by commas.
    options: String,
}

impl Mounts {
    /// Reads the text of `mountinfo` (proc_pid_mountinfo(5)); lines of another form are left out.
    pub(crate) fn parse(text: &str) -> Self {
        Self(text.lines().filter_map(Mount::parse).collect())
    }

    /// The mount that a path lies on, whether it exists or not.
    pub(crate) fn of(&self, path: &Path) -> Option<&Mount> {
        // What exists of the path may go through symbolic links.
        let real = path
            .ancestors()
            .find_map(|folder| folder.canonicalize().ok());
        let path = real.as_deref().unwrap_or(path);
        let mut found: Option<&Mount> = None;
        for mount in self.0.iter().filter(|mount| path.starts_with(&mount.place)) {
            let depth = |mount: &Mount| mount.place.components().count();
            // Of two at one place the later one is on top.
            if found.is_none_or(|found| depth(mount) >= depth(found)) {
                found = Some(mount);
            }
        }
        found
    }
}

impl Mount {
    fn parse(line: &str) -> Option<Self> {
        let (before, after) = line.split_once(" - ")?;
        let mut before = before.split(' ').skip(4);
        let (place, options) = (before.next()?, before.next()?);
        let mut after = after.split(' ');
        let (kind, source) = (after.next()?, after.next()?);
        Some(Self {
            place: PathBuf::from(outlive_kernel::unescape_mount(place)),
            kind: kind.to_owned(),
            source: source.to_owned(),
            options: format!("{options},{}", after.next().unwrap_or_default()),
        })
    }

    /// Whether an option is set, alone or with a value.
    pub(crate) fn has_option(&self, name: &str) -> bool {
        self.options
            .split(',')
            .any(|option| option.split('=').next() == Some(name) && option != "dax=never")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
1 0 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw,discard
2 1 0:5 / /mnt\\040x rw - tmpfs tmpfs rw,size=1k
3 1 0:6 / /mnt\\040x rw - xfs /dev/pmem0 rw,dax=always
4 1 0:7 / /mnt rw - xfs /dev/sdb rw,dax=never
no mount
";

    #[test]
    fn path_lies_on_the_deepest_and_latest_mount() {
        let mounts = Mounts::parse(TEXT);
        let kind = |path: &str| mounts.of(Path::new(path)).map(|mount| &*mount.kind);
        assert_eq!(
            kind("/mnt x/none/y"),
            Some("ext4"),
            "the folder is not there"
        );
        assert_eq!(kind("/"), Some("ext4"));
        assert!(mounts.0[2].has_option("dax") && !mounts.0[3].has_option("dax"));
        assert_eq!(mounts.0[2].place, Path::new("/mnt x"));
    }

    #[test]
    fn this_process_has_a_root() {
        let text = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(Mounts::parse(&text).of(Path::new("/etc/none")).is_some());
    }
}

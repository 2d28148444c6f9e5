//! What several tests need.

use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

use crate::failpoint;

/// A tmpfs of a few bytes, unmounted when dropped.
pub(crate) struct SmallTmpfs(TempDir);

impl SmallTmpfs {
    /// `None`, and the reason on stderr, where mounting is not permitted.
    pub(crate) fn mount(size: &str) -> Option<Self> {
        use rustix::mount::{MountFlags, mount};

        let folder = TempDir::new().unwrap();
        let options = std::ffi::CString::new(format!("size={size},mode=0700")).unwrap();
        let flags = MountFlags::NODEV | MountFlags::NOSUID;
        match mount("none", folder.path(), "tmpfs", flags, options.as_c_str()) {
            Ok(()) => Some(Self(folder)),
            Err(error) => {
                eprintln!("skipped: cannot mount a tmpfs: {error}");
                None
            }
        }
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for SmallTmpfs {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(self.0.path(), rustix::mount::UnmountFlags::DETACH);
    }
}

/// The environment variable that gives a child its folder. A test that is meant for a child does
/// nothing where it is not set.
pub(crate) const KILLED_IN: &str = "OUTLIVE_TEST_KILLED_IN";

/// Runs one test of this crate in a child process, on `folder`, and has it kill itself at `step`.
pub(crate) fn kill_child(test: &str, folder: &Path, step: &str) {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(KILLED_IN, folder)
        .env(failpoint::VARIABLE, step)
        .output()
        .unwrap();
    assert_eq!(
        output.status.signal(),
        Some(9),
        "{step} was not reached: {output:?}"
    );
}

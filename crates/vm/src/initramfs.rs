//! An initramfs: a cpio archive of the `newc` format (`Documentation/driver-api/early-userspace/buffer-format.rst`).

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use crate::Error;

const FOLDER: u32 = 0o040_755;
const PROGRAM: u32 = 0o100_755;
const LINK: u32 = 0o120_777;

const BUSYBOX: &str = "/bin/busybox";

/// Builds the archive, entry by entry.
#[derive(Debug, Default)]
pub(crate) struct Initramfs {
    bytes: Vec<u8>,
    /// Paths that are in it.
    names: BTreeSet<String>,
}

impl Initramfs {
    /// One with busybox and the folders that every guest mounts something at.
    pub(crate) fn with_busybox() -> Result<Self, Error> {
        let mut this = Self::default();
        for folder in ["proc", "sys", "dev", "tmp", "run", "out", "etc", "mnt"] {
            this.folder(folder);
        }
        this.program("bin/busybox", Path::new(BUSYBOX))?;
        for applet in output(Command::new(BUSYBOX).arg("--list"))?.lines() {
            this.entry(&format!("bin/{applet}"), LINK, b"busybox");
        }
        Ok(this)
    }

    /// Puts a program in, and the libraries that it links.
    pub(crate) fn program(&mut self, name: &str, program: &Path) -> Result<(), Error> {
        let read = |path: &Path| fs::read(path).map_err(Error::io("cannot read", path));
        self.entry(name, PROGRAM, &read(program)?);
        // It fails for one that links none.
        let linked = Command::new("ldd").arg(program).output();
        let linked = linked.map_err(Error::io("cannot run ldd on", program))?;
        let linked = String::from_utf8_lossy(&linked.stdout).into_owned();
        for library in linked.split_whitespace().filter(|w| w.starts_with('/')) {
            self.entry(&library[1..], PROGRAM, &read(Path::new(library))?);
        }
        Ok(())
    }

    /// Puts a file in.
    pub(crate) fn file(&mut self, name: &str, contents: &[u8]) {
        self.entry(name, PROGRAM, contents);
    }

    /// The whole archive.
    pub(crate) fn finish(mut self) -> Vec<u8> {
        self.write("TRAILER!!!", 0, b"");
        self.bytes
    }

    fn folder(&mut self, name: &str) {
        if self.names.insert(name.to_owned()) {
            self.write(name, FOLDER, b"");
        }
    }

    fn entry(&mut self, name: &str, mode: u32, contents: &[u8]) {
        let name = name.trim_start_matches('/');
        let ends = name.match_indices('/').map(|(end, _)| end);
        for end in ends {
            self.folder(&name[..end]);
        }
        if self.names.insert(name.to_owned()) {
            self.write(name, mode, contents);
        }
    }

    fn write(&mut self, name: &str, mode: u32, contents: &[u8]) {
        let ino = self.names.len();
        let (size, name_size) = (contents.len(), name.len() + 1);
        // Magic, inode, mode, uid, gid, links, mtime, size, device (4 words), name's size, check.
        let header = format!(
            "070701{ino:08x}{mode:08x}{0:08x}{0:08x}{1:08x}{0:08x}{size:08x}{0:08x}{0:08x}{0:08x}{0:08x}{name_size:08x}{0:08x}",
            0, 1
        );
        self.bytes.extend_from_slice(header.as_bytes());
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(contents);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

/// What a program that must succeed prints.
pub(crate) fn output(command: &mut Command) -> Result<String, Error> {
    let program = command.get_program().to_owned();
    let output = command.output().map_err(Error::io("cannot run", program))?;
    if !output.status.success() {
        return Err(Error::Command {
            command: format!("{command:?}"),
            told: String::from_utf8_lossy(&output.stderr).into_owned(),
        });
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

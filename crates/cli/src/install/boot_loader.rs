//! Where the kernel's command line comes from.

use std::path::Path;

use super::manifest::{Planned, in_root};

/// Where GRUB's configuration is put together from, if the distribution reads drop-ins.
const GRUB_DROP_IN: &str = "/etc/default/grub.d/outlive.cfg";

/// What boots the machine, as far as its files tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BootLoader {
    /// GRUB, whose `grub-mkconfig` reads `/etc/default/grub.d` (Debian and its descendants).
    Grub,
    /// Anything with grubby (Fedora and its descendants).
    Grubby,
    /// `kernel-install` with `/etc/kernel/cmdline` (systemd-boot, unified kernel images).
    KernelInstall,
    /// None of these.
    Unknown,
}

impl BootLoader {
    /// The one of the machine or image at `root`.
    pub(crate) fn find(root: &Path) -> Self {
        let exists = |path: &str| in_root(root, Path::new(path)).exists();
        let reads_drop_ins = |path: &str| {
            let script = std::fs::read_to_string(in_root(root, Path::new(path)));
            script.is_ok_and(|script| script.contains("/default/grub.d"))
        };
        if reads_drop_ins("/usr/sbin/grub-mkconfig") {
            Self::Grub
        } else if exists("/usr/sbin/grubby") || exists("/usr/bin/grubby") {
            Self::Grubby
        } else if exists("/etc/kernel/cmdline") {
            Self::KernelInstall
        } else {
            Self::Unknown
        }
    }

    /// The file that brings the parameters, where a file of our own can.
    pub(crate) fn drop_in(self, parameters: &[String]) -> Option<Planned> {
        if self != Self::Grub {
            return None;
        }
        let text = format!(
            "# Memory for outlive. Written by `outlive install`; run update-grub after a change.\n\
             GRUB_CMDLINE_LINUX=\"$GRUB_CMDLINE_LINUX {}\"\n",
            grub_escaped(&parameters.join(" "))
        );
        Some(Planned::file(GRUB_DROP_IN, text))
    }

    /// What is left to do for the user.
    pub(crate) fn next(self, parameters: &[String]) -> String {
        let parameters = parameters.join(" ");
        match self {
            Self::Grub => "update-grub".into(),
            Self::Grubby => format!("grubby --update-kernel=ALL --args='{parameters}'"),
            Self::KernelInstall => format!(
                "add to /etc/kernel/cmdline: {parameters}   and run: kernel-install add-all"
            ),
            Self::Unknown => {
                format!("add to the kernel's command line, in the boot loader: {parameters}")
            }
        }
    }
}

/// As it has to stand between double quotes of the shell file so that GRUB's script, which is made
/// from it, has its own `\$`.
fn grub_escaped(text: &str) -> String {
    let for_grub = text.replace('\\', "\\\\").replace('$', "\\$");
    let escape = |c: char| match c {
        '\\' | '$' | '"' | '`' => format!("\\{c}"),
        c => c.to_string(),
    };
    for_grub.chars().map(escape).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boot_loader_is_told_by_its_files() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(BootLoader::find(root.path()), BootLoader::Unknown);
        std::fs::create_dir_all(root.path().join("etc/kernel")).unwrap();
        std::fs::write(root.path().join("etc/kernel/cmdline"), "quiet").unwrap();
        assert_eq!(BootLoader::find(root.path()), BootLoader::KernelInstall);
        std::fs::create_dir_all(root.path().join("usr/sbin")).unwrap();
        let script = root.path().join("usr/sbin/grub-mkconfig");
        std::fs::write(&script, "#!/bin/sh\n").unwrap();
        assert_eq!(BootLoader::find(root.path()), BootLoader::KernelInstall);
        std::fs::write(
            &script,
            "for x in ${sysconfdir}/default/grub.d/*.cfg ; do\n",
        )
        .unwrap();
        assert_eq!(BootLoader::find(root.path()), BootLoader::Grub);
    }

    /// The dollar of `memmap=` is lost without two rounds of escaping: a machine then gives the
    /// kernel `memmap=12M` and boots with 12 MiB of memory.
    #[test]
    fn dollar_reaches_the_kernel_through_the_shell_and_grub() {
        let parameters = ["memmap=0xc00000$0x13f400000".to_owned()];
        let Some(planned) = BootLoader::Grub.drop_in(&parameters) else {
            panic!("no drop-in")
        };
        let root = tempfile::tempdir().unwrap();
        let super::super::manifest::Content::File(text) = &planned.content else {
            panic!("no file")
        };
        let path = root.path().join("outlive.cfg");
        std::fs::write(&path, text).unwrap();
        let script = format!(
            "GRUB_CMDLINE_LINUX=quiet; . {}; printf %s \"$GRUB_CMDLINE_LINUX\"",
            path.display()
        );
        let shell = std::process::Command::new("sh")
            .args(["-ec", &script])
            .output()
            .unwrap();
        assert_eq!(
            String::from_utf8_lossy(&shell.stdout),
            "quiet memmap=0xc00000\\$0x13f400000"
        );
    }
}

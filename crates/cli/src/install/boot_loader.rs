//! Where the kernel's command line comes from.

use std::path::Path;

use super::manifest::{Content, Manifest, Planned, in_root};

/// Where GRUB's configuration is put together from, if the distribution reads drop-ins.
const GRUB_DROP_IN: &str = "/etc/default/grub.d/outlive.cfg";
/// Where `kernel-install` has the command line of new boot entries from (kernel-install(8)).
const KERNEL_CMDLINE: &str = "/etc/kernel/cmdline";

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
        } else if exists(KERNEL_CMDLINE) {
            Self::KernelInstall
        } else {
            Self::Unknown
        }
    }

    /// The file that brings the parameters: one of our own, or one of the machine's in which they
    /// are added and taken back again.
    pub(crate) fn file(
        self,
        root: &Path,
        parameters: &[String],
        manifest: &Manifest,
    ) -> Option<Planned> {
        match self {
            Self::Grub => Some(grub_drop_in(parameters)),
            Self::KernelInstall => kernel_cmdline(root, parameters, manifest),
            Self::Grubby | Self::Unknown => None,
        }
    }

    /// What is left to do for the user, who has a file with the parameters or has not.
    pub(crate) fn next(self, parameters: &[String], has_file: bool) -> String {
        let parameters = parameters.join(" ");
        match self {
            Self::Grub => "update-grub".into(),
            Self::Grubby => format!(
                "grubby --update-kernel=ALL --args='{parameters}'{}",
                dollar_note(&parameters)
            ),
            Self::KernelInstall if has_file => "kernel-install add-all".into(),
            Self::KernelInstall => {
                format!(
                    "see that {KERNEL_CMDLINE} has: {parameters}   and run: kernel-install add-all"
                )
            }
            Self::Unknown => {
                format!("add to the kernel's command line, in the boot loader: {parameters}")
            }
        }
    }

    /// What is left to do for the user when that is taken back.
    pub(crate) fn undo(self, parameters: &[String], has_file: bool) -> String {
        let parameters = parameters.join(" ");
        match self {
            Self::Grub => "update-grub".into(),
            Self::Grubby => format!("grubby --update-kernel=ALL --remove-args='{parameters}'"),
            Self::KernelInstall if has_file => "kernel-install add-all".into(),
            Self::KernelInstall => {
                format!(
                    "take out of {KERNEL_CMDLINE}: {parameters}   and run: kernel-install add-all"
                )
            }
            Self::Unknown => {
                format!("take out of the kernel's command line, in the boot loader: {parameters}")
            }
        }
    }
}

/// What to look at where GRUB may take a `$` for a variable of its own.
fn dollar_note(parameters: &str) -> &'static str {
    match parameters.contains('$') {
        true => "   (and see that /proc/cmdline has each $ after the reboot)",
        false => "",
    }
}

fn grub_drop_in(parameters: &[String]) -> Planned {
    let text = format!(
        "# Memory for outlive. Written by `outlive install`; run update-grub after a change.\n\
         GRUB_CMDLINE_LINUX=\"$GRUB_CMDLINE_LINUX {}\"\n",
        grub_escaped(&parameters.join(" "))
    );
    Planned::file(GRUB_DROP_IN, text)
}

/// The machine's line with the parameters behind its last word. None if it has all of them from
/// somebody else, or is no file of text.
fn kernel_cmdline(root: &Path, parameters: &[String], manifest: &Manifest) -> Option<Planned> {
    let path = in_root(root, Path::new(KERNEL_CMDLINE));
    // What a link leads to may be part of the distribution.
    if !path.symlink_metadata().ok()?.is_file() {
        return None;
    }
    let text = std::fs::read_to_string(&path).ok()?;
    let text = manifest.unedited(Path::new(KERNEL_CMDLINE), &text);
    let has = |parameter: &String| text.split_ascii_whitespace().any(|word| word == parameter);
    if parameters.iter().all(has) {
        return None;
    }
    let line = text.trim_end();
    let blank = match line.lines().last() {
        None => "",
        // Nothing is to become part of a comment.
        Some(last) if last.starts_with('#') => "\n",
        Some(_) => " ",
    };
    let added = format!("{blank}{}", parameters.join(" "));
    let text = format!("{line}{added}{}", &text[line.len()..]);
    Some(Planned {
        path: KERNEL_CMDLINE.into(),
        content: Content::Edit { text, added },
    })
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
        let planned = grub_drop_in(&parameters);
        let root = tempfile::tempdir().unwrap();
        let Content::File(text) = &planned.content else {
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

//! `outlive install` and `uninstall` in a file tree of their own; systemd's own programs judge what
//! was written.
#![allow(missing_docs, reason = "tests")]

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;

const LINE: &str = "reserve_mem=12M:4096:trace trace_instance=boot_mapped@trace,sched";
const SERVICE: &str = "etc/systemd/system/outlive.service";

/// The file tree of a machine, and a program to start.
struct Root(TempDir);

impl Root {
    /// With GRUB as Debian has it.
    fn new() -> Self {
        let this = Self::bare();
        this.write(
            "usr/sbin/grub-mkconfig",
            "for x in ${sysconfdir}/default/grub.d/*.cfg ; do\n",
        );
        this.write("etc/default/grub", "GRUB_CMDLINE_LINUX=\"\"\n");
        this
    }

    /// Without a boot loader that is known.
    fn bare() -> Self {
        let this = Self(TempDir::new().unwrap());
        this.write("usr/bin/outlive", "#!/bin/sh\n");
        let program = this.path().join("usr/bin/outlive");
        std::fs::set_permissions(program, PermissionsExt::from_mode(0o755)).unwrap();
        this
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    fn read(&self, path: &str) -> String {
        std::fs::read_to_string(self.path().join(path)).unwrap()
    }

    /// `outlive COMMAND --root` here, on the usual state folder.
    fn run(&self, command: &str, args: &[&str]) -> Output {
        let mut outlive = Command::new(env!("CARGO_BIN_EXE_outlive"));
        outlive
            .args([command, "--root"])
            .arg(self.path())
            .args(args);
        if command == "install" && !args.contains(&"--state") {
            outlive.args(["--state", "/var/lib/outlive"]);
        }
        outlive.output().unwrap()
    }

    fn install(&self, args: &[&str]) {
        let output = self.run("install", args);
        assert!(output.status.success(), "{output:?}");
    }

    /// Every file, link and folder, with what is in it.
    fn tree(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let mut tree = BTreeMap::new();
        let mut folders = vec![self.path().to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap().flatten() {
                let kind = entry.file_type().unwrap();
                let content = match (kind.is_dir(), kind.is_symlink()) {
                    (true, _) => Vec::new(),
                    (_, true) => std::fs::read_link(entry.path())
                        .unwrap()
                        .into_os_string()
                        .into_encoded_bytes(),
                    _ => std::fs::read(entry.path()).unwrap(),
                };
                if kind.is_dir() {
                    folders.push(entry.path());
                }
                tree.insert(entry.path(), content);
            }
        }
        tree
    }

    /// Whether systemd's verifier accepts the unit, and what it says. It accepts an unknown key, and
    /// only says so.
    fn verify(&self) -> (bool, String) {
        let output = Command::new("systemd-analyze")
            .arg(format!("--root={}", self.path().display()))
            .args(["verify", "outlive.service"])
            .output()
            .unwrap();
        (output.status.success(), stderr(&output))
    }
}

fn has_systemd(test: &str) -> bool {
    let has = Command::new("systemd-analyze")
        .arg("--version")
        .output()
        .is_ok();
    if !has {
        println!("{test}: skipped: no systemd-analyze; run `cargo xtask setup`");
    }
    has
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn systemds_verifier_has_nothing_to_say_about_any_unit() {
    if !has_systemd("systemds_verifier_has_nothing_to_say_about_any_unit") {
        return;
    }
    let variants: [&[&str]; 6] = [
        &[],
        &["--area", "trace=mem:0x10000000"],
        &["--area", "trace=dax:/mnt/pmem/area"],
        &["--area", "trace=devdax:/dev/dax0.0"],
        &["--area", "trace=tmpfs"],
        &["--state", "/srv/with space/50%"],
    ];
    for args in variants {
        let root = Root::new();
        root.install(args);
        assert_eq!(
            root.verify(),
            (true, String::new()),
            "{args:?}\n{}",
            root.read(SERVICE)
        );
        let link = root
            .path()
            .join("etc/systemd/system/sysinit.target.wants/outlive.service");
        assert_eq!(std::fs::read_to_string(link).unwrap(), root.read(SERVICE));
    }
    // That the verifier sees mistakes at all.
    let root = Root::new();
    root.install(&[]);
    root.write(
        SERVICE,
        &root.read(SERVICE).replace("Type=notify", "Tipe=notify"),
    );
    assert!(root.verify().1.contains("Tipe"));
    root.write(
        SERVICE,
        &root
            .read(SERVICE)
            .replace("ExecStart=/usr/bin/", "ExecStart=/none/"),
    );
    assert!(!root.verify().0, "a program that is not there");
}

#[test]
fn service_may_use_the_memory_that_the_line_names_by_address() {
    let root = Root::new();
    root.install(&["trace_instance=boot_mapped@0x10000000:4M,sched"]);
    let unit = root.read(SERVICE);
    assert!(unit.contains("DeviceAllow=/dev/mem rw"), "{unit}");
}

#[test]
fn tmpfiles_entry_makes_a_state_folder_elsewhere() {
    if !has_systemd("tmpfiles_entry_makes_a_state_folder_elsewhere") {
        return;
    }
    let root = Root::new();
    root.install(&["--state", "/srv/with space/50%"]);
    let output = Command::new("systemd-tmpfiles")
        .arg(format!("--root={}", root.path().display()))
        .args(["--create", "outlive.conf"])
        .output()
        .unwrap();
    let state = root.path().join("srv/with space/50%");
    let metadata = std::fs::metadata(&state).unwrap_or_else(|_| panic!("{output:?}"));
    assert_eq!(metadata.permissions().mode() & 0o7777, 0o700);
    assert!(!Root::new().path().join("etc/tmpfiles.d").exists());
}

#[test]
fn uninstall_takes_back_exactly_what_install_wrote() {
    let root = Root::new();
    let before = root.tree();
    root.install(&[LINE, "--area", "trace=mem:0x10000000"]);
    assert_eq!(root.read("etc/outlive/cmdline"), format!("{LINE}\n"));
    assert_eq!(root.read("etc/outlive/areas"), "trace=mem:0x10000000\n");
    let drop_in = root.read("etc/default/grub.d/outlive.cfg");
    assert!(
        drop_in.contains("memmap=0xc00000\\\\\\$0x10000000"),
        "{drop_in}"
    );
    let dry = root.run("uninstall", &["--dry-run"]);
    assert!(stderr(&dry).contains("nothing was removed"), "{dry:?}");
    assert!(root.path().join(SERVICE).exists());
    let output = root.run("uninstall", &[]);
    assert!(output.status.success(), "{output:?}");
    assert!(stderr(&output).contains("update-grub"), "{output:?}");
    assert_eq!(root.tree(), before);
    assert_eq!(
        root.run("uninstall", &[]).status.code(),
        Some(2),
        "nothing is installed"
    );
}

const IN_MEMORY: [&str; 3] = [LINE, "--area", "trace=mem:0x10000000"];
const MEMMAP: &str = "memmap=0xc00000$0x10000000";
const KERNEL_CMDLINE: &str = "etc/kernel/cmdline";

/// With `kernel-install` and this command line.
fn with_kernel_cmdline(text: &str) -> Root {
    let root = Root::bare();
    root.write(KERNEL_CMDLINE, text);
    let mode = PermissionsExt::from_mode(0o640);
    std::fs::set_permissions(root.path().join(KERNEL_CMDLINE), mode).unwrap();
    root
}

#[test]
fn kernels_line_gets_the_parameters_and_is_given_back_as_it_was() {
    for (text, start) in [
        ("root=/dev/vda1 quiet\n", "root=/dev/vda1 quiet memmap="),
        ("root=/dev/vda1 quiet", "root=/dev/vda1 quiet memmap="),
        (
            "root=/dev/vda1\nquiet \n\n",
            "root=/dev/vda1\nquiet memmap=",
        ),
        ("quiet\n# mine\n", "quiet\n# mine\nmemmap="),
        ("", "memmap="),
    ] {
        let root = with_kernel_cmdline(text);
        let before = root.tree();
        let dry = root.run("install", &[&["--dry-run"], &IN_MEMORY[..]].concat());
        assert_eq!(root.tree(), before, "{text:?}");
        root.install(&IN_MEMORY);
        let line = root.read(KERNEL_CMDLINE);
        assert!(line.starts_with(start) && line.contains(MEMMAP), "{line:?}");
        let printed = String::from_utf8(dry.stdout).unwrap();
        let whole = format!("# /{KERNEL_CMDLINE}\n{line}\n");
        assert!(printed.contains(&whole), "{printed}");
        assert!(
            printed.contains("# then: kernel-install add-all"),
            "{printed}"
        );
        root.install(&IN_MEMORY);
        assert_eq!(root.read(KERNEL_CMDLINE), line, "once");
        let dry = root.run("uninstall", &["--dry-run"]);
        assert!(
            stderr(&dry).contains("took the parameters out of"),
            "{dry:?}"
        );
        assert_eq!(root.read(KERNEL_CMDLINE), line);
        let output = root.run("uninstall", &[]);
        assert!(
            stderr(&output).contains("then: kernel-install add-all"),
            "{output:?}"
        );
        assert_eq!(root.tree(), before, "{text:?}");
        let metadata = std::fs::metadata(root.path().join(KERNEL_CMDLINE)).unwrap();
        assert_eq!(metadata.permissions().mode() & 0o777, 0o640);
    }
}

#[test]
fn what_the_user_does_to_the_kernels_line_stays() {
    let root = with_kernel_cmdline("quiet\n");
    root.install(&IN_MEMORY);
    let line = root.read(KERNEL_CMDLINE);
    root.write(KERNEL_CMDLINE, &format!("debug {} ro\n", line.trim_end()));
    root.install(&[LINE, "--area", "trace=mem:0x20000000"]);
    let moved = root.read(KERNEL_CMDLINE);
    assert!(
        moved.starts_with("debug quiet ro memmap=0xc00000$0x20000000"),
        "{moved}"
    );
    root.install(&[LINE]);
    assert_eq!(
        root.read(KERNEL_CMDLINE),
        "debug quiet ro\n",
        "no longer needed"
    );
    root.install(&IN_MEMORY);
    let twice = format!("{} {MEMMAP}\n", root.read(KERNEL_CMDLINE).trim_end());
    let twice = twice.replace(" panic=10", "");
    root.write(KERNEL_CMDLINE, &twice);
    let output = root.run("uninstall", &[]);
    assert!(
        stderr(&output).contains("cmdline: it was changed since"),
        "{output:?}"
    );
    assert_eq!(root.read(KERNEL_CMDLINE), twice, "which of them is ours?");
}

#[test]
fn parameters_that_are_there_and_a_linked_file_are_left_alone() {
    let theirs = format!("quiet {MEMMAP} panic=10\n");
    let root = with_kernel_cmdline(&theirs);
    root.install(&IN_MEMORY);
    root.run("uninstall", &[]);
    assert_eq!(root.read(KERNEL_CMDLINE), theirs);
    let root = Root::bare();
    root.write("usr/lib/kernel/cmdline", "quiet\n");
    std::fs::create_dir_all(root.path().join("etc/kernel")).unwrap();
    let link = root.path().join(KERNEL_CMDLINE);
    std::os::unix::fs::symlink("../../usr/lib/kernel/cmdline", link).unwrap();
    let output = root.run("install", &IN_MEMORY);
    assert!(
        stderr(&output).contains("see that /etc/kernel/cmdline has: memmap="),
        "{output:?}"
    );
    assert_eq!(root.read(KERNEL_CMDLINE), "quiet\n");
}

#[test]
fn who_is_told_the_parameters_is_told_to_take_them_back() {
    let fedora = Root::bare();
    fedora.write("usr/sbin/grubby", "");
    let unknown = Root::bare();
    for (root, told, taken_back) in [
        (
            fedora,
            "then: grubby --update-kernel=ALL --args='memmap=",
            "--remove-args='memmap=",
        ),
        (
            unknown,
            "then: add to the kernel's command line",
            "then: take out of the kernel's",
        ),
    ] {
        let before = root.tree();
        let output = root.run("install", &IN_MEMORY);
        let said = stderr(&output);
        assert!(said.contains(told) && said.contains(MEMMAP), "{said}");
        let other = root.run("install", &[LINE]);
        assert!(stderr(&other).contains(taken_back), "{other:?}");
        root.install(&IN_MEMORY);
        let output = root.run("uninstall", &[]);
        let said = stderr(&output);
        assert!(said.contains(taken_back) && said.contains(MEMMAP), "{said}");
        assert_eq!(root.tree(), before);
    }
}

#[test]
fn file_that_the_user_changed_is_kept_and_named() {
    let root = Root::new();
    root.install(&[LINE]);
    root.write(SERVICE, "[Service]\nExecStart=/bin/true\n");
    let refused = root.run("install", &[]);
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    assert!(stderr(&refused).contains(SERVICE), "{refused:?}");
    assert_eq!(
        root.read("etc/outlive/cmdline"),
        format!("{LINE}\n"),
        "nothing is installed"
    );
    let output = root.run("uninstall", &[]);
    assert!(
        stderr(&output).contains(&format!("{SERVICE}: it was changed since")),
        "{output:?}"
    );
    assert!(root.read(SERVICE).contains("/bin/true"));
    assert!(!root.path().join("etc/outlive").exists());
}

#[test]
fn file_of_somebody_else_is_not_overwritten() {
    let root = Root::new();
    root.write("etc/outlive/cmdline", "quiet\n");
    let before = root.tree();
    let refused = root.run("install", &[LINE]);
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    assert!(
        stderr(&refused).contains("etc/outlive/cmdline"),
        "{refused:?}"
    );
    assert_eq!(root.tree(), before);
}

#[test]
fn install_again_takes_the_new_line_and_drops_what_it_no_longer_needs() {
    let root = Root::new();
    root.install(&[LINE, "--area", "trace=mem:0x10000000"]);
    let other = LINE.replace("12M", "16M");
    root.install(&[&other]);
    assert_eq!(root.read("etc/outlive/cmdline"), format!("{other}\n"));
    assert!(!root.path().join("etc/default/grub.d/outlive.cfg").exists());
    assert!(!root.path().join("etc/outlive/areas").exists());
}

#[test]
fn dry_run_prints_every_file_and_writes_none() {
    let root = Root::new();
    let before = root.tree();
    let output = root.run(
        "install",
        &["--dry-run", "--area", "trace=mem:0x10000000", LINE],
    );
    let text = String::from_utf8(output.stdout).unwrap();
    for words in [
        "# /etc/outlive/cmdline",
        LINE,
        "# /etc/default/grub.d/outlive.cfg",
        "ExecStart=",
        "update-grub",
    ] {
        assert!(text.contains(words), "{words}: {text}");
    }
    assert_eq!(root.tree(), before);
}

#[test]
fn mistakes_and_impossible_wishes_install_nothing() {
    let root = Root::new();
    let before = root.tree();
    let refused = |args: &[&str], words: &str| {
        let output = root.run("install", args);
        let said = stderr(&output);
        assert!(said.contains(words), "{said}");
        assert_eq!(root.tree(), before);
        output.status.code()
    };
    let mistaken = LINE.replace("@trace", "@trase");
    assert_eq!(refused(&[&mistaken], "did you mean `trace`?"), Some(2));
    assert_eq!(
        refused(&["--reserve"], "--area NAME=mem:0xADDRESS"),
        Some(2)
    );
    assert_eq!(
        refused(&["--area", "trase=tmpfs"], "no area of this name"),
        Some(2)
    );
    let tiny = LINE.replace("12M", "4K");
    assert_eq!(refused(&[&tiny], "ask for a larger area"), Some(1));
}

#[test]
fn kernel_gets_the_line_where_it_is_to_make_the_instances() {
    let root = Root::new();
    let line = format!("{LINE} trace_instance=backup=boot_mapped");
    root.install(&["--kernel", &line]);
    let drop_in = root.read("etc/default/grub.d/outlive.cfg");
    assert!(
        drop_in.contains(&format!("$GRUB_CMDLINE_LINUX {line}\"")),
        "{drop_in}"
    );
}

/// As `boot` refuses it at each start: the service would record nothing.
#[test]
fn line_whose_events_this_kernel_has_not_is_refused() {
    let seen =
        outlive_kernel::Tracefs::find_mounted().and_then(|tracefs| tracefs.available_events());
    if seen.is_err() {
        println!("skipped: the kernel's events cannot be seen");
        return;
    }
    let state = TempDir::new().unwrap();
    for (events, code) in [("schd", 2), ("sched,schd", 0)] {
        let output = Command::new(env!("CARGO_BIN_EXE_outlive"))
            .args(["install", "--dry-run", "--state"])
            .arg(state.path())
            .arg(LINE.replace("sched", events))
            .output()
            .unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{stderr}");
        assert!(stderr.contains("did you mean `sched`?"), "{stderr}");
    }
    // The kernel of an image is another one.
    Root::new().install(&[&LINE.replace("sched", "schd")]);
}

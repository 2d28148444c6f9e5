//! Programs in C and in Python that record through the C library, are killed, and are read back.

use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn capi() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../capi")
}

fn run(command: &mut Command) -> Output {
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let stderr = String::from_utf8_lossy(&output.stderr);
    let is_killed = output.status.signal() == Some(9);
    assert!(
        output.status.success() || is_killed,
        "{command:?}: {}: {stderr}",
        output.status
    );
    output
}

/// Where Cargo has put the libraries, of which the shared one is beside this test.
fn libraries() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    test.parent().unwrap().to_owned()
}

/// The library as `cargo xtask capi` installs it.
struct Installed(tempfile::TempDir);

impl Installed {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut xtask = Command::new(env!("CARGO"));
        xtask.args(["run", "--quiet", "--package", "xtask", "--", "capi"]);
        run(xtask.arg(folder.path()).arg("--built").arg(libraries()));
        Self(folder)
    }

    fn lib(&self) -> PathBuf {
        self.0.path().join("lib")
    }

    /// Compiles the example as its first comment says.
    fn compile(&self, flags: &str, to: &Path) {
        let script = format!("cc -Wall -Wextra -Werror \"$1\" $({flags}) -o \"$2\"");
        let mut shell = Command::new("sh");
        shell.args(["-ec", &script, "sh"]);
        shell.arg(capi().join("examples/shop.c")).arg(to);
        run(shell.env("PKG_CONFIG_PATH", self.lib().join("pkgconfig")));
    }
}

fn outlive(state: &Path, args: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_outlive"));
    let output = run(command.arg("--state").arg(state).args(args));
    String::from_utf8(output.stdout).unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// Runs a program that records orders, killed and not, and looks at what each run left.
fn is_read_back(program: impl Fn() -> Command, last_fields: &str) {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path();
    let orders = |extra: &[&str]| {
        let mut command = program();
        command.arg(state).args(["1000"]).args(extra);
        run(&mut command)
    };

    let killed = orders(&["die"]);
    assert_eq!(killed.status.signal(), Some(9));
    let text = outlive(state, &["show", "shop"]);
    let begin = text.lines().find(|line| line.contains(" open: "));
    assert!(
        begin.is_some_and(|line| line.ends_with("weekday=Monday")),
        "{text}"
    );
    let lines: Vec<&str> = text
        .lines()
        .filter(|line| line.contains(" order: "))
        .collect();
    assert_eq!(lines.len(), 1000);
    assert!(lines[999].ends_with(last_fields), "{}", lines[999]);
    assert!(!text.contains("span_end"), "{text}");
    let last = outlive(state, &["last", "shop"]);
    assert!(last.contains("crash") && last.contains("Monday"), "{last}");

    let next = stdout(&orders(&[]));
    let path = next.trim_end().strip_prefix("previous: 2 ").unwrap();
    assert!(Path::new(path).is_dir(), "{next}");
    let text = outlive(state, &["show", "shop"]);
    assert!(text.trim_end().lines().last().unwrap().contains("span_end"));
    let third = stdout(&orders(&[]));
    assert!(third.starts_with("previous: 1 "), "{third}");
}

const LAST_IN_C: &str = "order: id=1000 customer=Ada price=250.0 paid=false change=-3";

/// What the loader wants of a program's libraries.
fn needed(program: &Path) -> String {
    stdout(&run(Command::new("readelf").arg("-d").arg(program)))
}

/// One test for all, so that the library is installed once.
#[test]
fn programs_with_the_installed_library_are_read_back_after_their_kill() {
    let installed = Installed::new();
    let folder = tempfile::tempdir().unwrap();

    let shared = folder.path().join("shared");
    installed.compile("pkg-config --cflags --libs outlive", &shared);
    assert!(needed(&shared).contains("[liboutlive.so.0]"));
    let program = || {
        let mut command = Command::new(&shared);
        command.env("LD_LIBRARY_PATH", installed.lib());
        command
    };
    is_read_back(program, LAST_IN_C);

    let alone = folder.path().join("static");
    installed.compile(
        "pkg-config --cflags --libs --static outlive | sed s/-loutlive/-l:liboutlive.a/",
        &alone,
    );
    assert!(!needed(&alone).contains("liboutlive"));
    is_read_back(|| Command::new(&alone), LAST_IN_C);

    let python = || {
        let mut command = Command::new("python3");
        command.arg(capi().join("examples/shop.py"));
        command.arg(installed.lib().join("liboutlive.so"));
        command
    };
    is_read_back(python, "order: id=1000 customer=Ada price=250.0");
}

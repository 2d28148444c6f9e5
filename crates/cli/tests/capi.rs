//! Programs in C and in Python that record through the C library, are killed, and are read back.

use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn capi() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../capi")
}

/// Where Cargo has put the libraries, of which the shared one is beside this test.
fn libraries() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    test.parent().unwrap().to_owned()
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

fn compile(compiler: &str, arguments: &[&str], to: &Path) {
    let source = capi().join("examples/shop.c");
    let mut command = Command::new(compiler);
    command.args(["-Wall", "-Wextra", "-Werror", "-I"]);
    command.arg(capi().join("include")).arg("-o").arg(to);
    command.arg(source).args(arguments);
    run(&mut command);
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

#[test]
fn a_c_program_with_the_shared_library_is_read_back_after_its_kill() {
    let folder = tempfile::tempdir().unwrap();
    let (program, libraries) = (folder.path().join("shop"), libraries());
    let path = libraries.to_str().unwrap();
    let rpath = format!("-Wl,-rpath,{path}");
    compile("gcc", &["-L", path, "-loutlive_capi", &rpath], &program);
    is_read_back(|| Command::new(&program), LAST_IN_C);
}

#[test]
fn a_c_program_with_the_static_library_is_read_back_after_its_kill() {
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("shop");
    let library = libraries().join("liboutlive_capi.a");
    let arguments = [library.to_str().unwrap(), "-lgcc_s", "-lpthread", "-ldl"];
    compile("gcc", &arguments, &program);
    is_read_back(|| Command::new(&program), LAST_IN_C);
}

#[test]
fn a_python_program_is_read_back_after_its_kill() {
    let library = libraries().join("liboutlive_capi.so");
    let program = || {
        let mut command = Command::new("python3");
        command.arg(capi().join("examples/shop.py")).arg(&library);
        command
    };
    is_read_back(program, "order: id=1000 customer=Ada price=250.0");
}

//! `outlive run`: programs under a supervisor, and what is left when either is killed.

use std::io::{BufRead, BufReader, Lines, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Output, Stdio};

use outlive::{Recorder, event, span};
use serde_json::Value;

/// What a program of a test does; nothing without it.
const ROLE: &str = "OUTLIVE_TEST_ROLE";

/// A state folder. What its programs have on the tmpfs goes with it.
struct State(tempfile::TempDir);

impl State {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_outlive"));
        command.arg("--state").arg(self.path()).args(args);
        command
    }

    fn outlive(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    fn stdout(&self, args: &[&str]) -> String {
        let output = self.outlive(args);
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{args:?}: {stderr}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn last(&self, name: &str) -> Value {
        serde_json::from_str(&self.stdout(&["last", name, "--json"])).unwrap()
    }

    /// What is left in the kernel of the recorders of scheduler events.
    fn hosts(&self) -> Vec<String> {
        let tracefs = outlive_kernel::Tracefs::find().unwrap();
        let states = outlive_trace::apps::list(self.path()).unwrap();
        let ids = states
            .iter()
            .map(|s| u64::from_str_radix(s.id(), 16).unwrap());
        let instances = ids.map(|id| {
            let instances = outlive_kernel::Instances::new(&tracefs, outlive_kernel::StateId(id));
            instances.list().unwrap()
        });
        instances.flatten().map(|name| name.to_string()).collect()
    }

    /// Kills the supervisor of `job`, and waits until its recorder of scheduler events has ended.
    fn end_recorder_of_sched(&self, run: &mut Run) {
        run.supervisor.kill().unwrap();
        run.supervisor.wait().unwrap();
        let sched = outlive_trace::apps::of_instance(self.path(), "job.sched");
        let sched = sched.unwrap().unwrap();
        while sched.is_locked().unwrap() {
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
    }

    /// The generations of an instance, oldest first.
    fn generations(&self, instance: &str) -> Vec<String> {
        let listed = self.stdout(&["ls"]);
        let names = listed.lines().filter_map(|line| line.split(' ').next());
        let of_instance = |name: &&str| name.split_once('/').is_some_and(|(i, _)| i == instance);
        names.filter(of_instance).map(str::to_owned).collect()
    }

    /// The only generation of an instance.
    fn kept(&self, instance: &str) -> String {
        let mut kept = self.generations(instance);
        assert_eq!(kept.len(), 1, "{kept:?}");
        kept.remove(0)
    }

    /// The texts of a program's events.
    fn texts(&self, name: &str) -> Vec<String> {
        let shown = self.stdout(&["show", name]);
        let events = shown.lines().filter(|line| !line.starts_with('#'));
        let texts = events.filter_map(|line| line.split_once(": "));
        texts.map(|(_, text)| text.to_owned()).collect()
    }
}

impl Drop for State {
    fn drop(&mut self) {
        for state in outlive_trace::apps::list(self.path()).unwrap_or_default() {
            let _ = std::fs::remove_dir_all(format!("/dev/shm/outlive-{}", state.id()));
        }
    }
}

/// This program in one of its roles, as the arguments of a command.
fn role_args() -> Vec<String> {
    let program = std::env::current_exe().unwrap();
    let args = [
        "--exact",
        "program_that_is_run",
        "--nocapture",
        "--test-threads=1",
    ];
    let program = program.to_str().unwrap();
    [program]
        .iter()
        .chain(&args)
        .map(ToString::to_string)
        .collect()
}

/// A program with a recorder, in the role that it was given.
#[test]
fn program_that_is_run() {
    let Ok(role) = std::env::var(ROLE) else {
        return;
    };
    // No state folder could be made there: all it has is what it inherits.
    let recorder = Recorder::builder("shop").version("1.2").state("/proc/none");
    let recorder = match recorder.start() {
        Ok(recorder) => recorder,
        Err(error) => return println!("not recorded: {error}"),
    };
    event!("shop:opened", door = 1u32);
    match role.as_str() {
        "opens" => {}
        "killed" => {
            let _request = span!("http:request", path = "/");
            kill_self();
        }
        "looks-back" => {
            let previous = recorder.previous().map(|previous| {
                let entries = previous.view().unwrap().entries();
                format!(
                    "{} {}, {entries} events",
                    previous.generation(),
                    previous.verdict()
                )
            });
            println!("previous: {previous:?}");
        }
        "outlives" => {
            say_and_wait("opened");
            event!("shop:alone", door = 2u32);
            say_and_wait("alone");
            kill_self();
        }
        "starts-another" => println!("second: {:?}", start_another("killed")),
        "is-killed-after-another" => {
            start_another("opens");
            let _request = span!("http:request", path = "/");
            kill_self();
        }
        role => panic!("no role {role}"),
    }
}

/// Runs this program once more; its exit code.
fn start_another(role: &str) -> Option<i32> {
    let args = role_args();
    let mut second = Command::new(&args[0]);
    let status = second.args(&args[1..]).env(ROLE, role).status();
    status.unwrap().code()
}

fn kill_self() {
    let pid = rustix::process::getpid();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
}

fn say_and_wait(word: &str) {
    println!("{word}");
    std::io::stdout().flush().unwrap();
    std::io::stdin().lines().next();
}

/// A program under a supervisor, with pipes.
struct Run {
    supervisor: Child,
    stdin: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Run {
    fn spawn(command: &mut Command) -> Self {
        let command = command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut supervisor = command.stderr(Stdio::null()).spawn().unwrap();
        let stdin = supervisor.stdin.take().unwrap();
        let lines = BufReader::new(supervisor.stdout.take().unwrap()).lines();
        Self {
            supervisor,
            stdin,
            lines,
        }
    }

    fn until(&mut self, word: &str) {
        let mut lines = self.lines.by_ref().map_while(Result::ok);
        assert!(lines.any(|line| line.contains(word)), "no {word}");
    }

    fn go_on(&mut self) {
        self.stdin.write_all(b"\n").unwrap();
    }
}

#[test]
fn the_programs_exit_code_output_and_end_are_kept() {
    let state = State::new();
    let script = "echo out; printf 'one\\ntwo \\033[31m\\nthree' >&2; exit 7";
    let output = state.outlive(&["run", "--name", "job", "--", "sh", "-c", script]);
    assert_eq!(output.status.code(), Some(7));
    assert_eq!(output.stdout, b"out\n");
    assert_eq!(output.stderr, b"one\ntwo \x1b[31m\nthree");
    let last = state.last("job");
    assert_eq!(last["name"], "job.run");
    assert_eq!(last["program_end"]["fields"]["code"], 7);
    let lines: Vec<_> = last["messages"].as_array().unwrap().iter().collect();
    let lines: Vec<_> = lines.iter().map(|line| &line["fields"]["line"]).collect();
    assert_eq!(lines, ["one", "two \x1b[31m", "three"]);
    let usage = &last["program_usage"]["fields"];
    assert!(usage["max_rss_kib"].as_u64().unwrap() > 100, "{usage}");
    let text = state.stdout(&["last", "job"]);
    assert!(text.starts_with("job.run: exit code 7, 2"), "{text}");
    assert!(
        text.contains("two \\u{1b}[31m") && !text.contains('\x1b'),
        "{text}"
    );
    let start = &state.texts("job.run")[0];
    assert!(
        start.contains("program=sh arguments=-c echo out;"),
        "{start}"
    );
}

#[test]
fn a_program_that_cannot_be_started_has_the_shells_exit_code() {
    let state = State::new();
    let missing = state.outlive(&["run", "--", "/nowhere/at-all"]);
    assert_eq!(missing.status.code(), Some(127));
    assert!(String::from_utf8_lossy(&missing.stderr).contains("cannot start /nowhere/at-all"));
    assert_eq!(
        state.outlive(&["run", "--", "/etc/passwd"]).status.code(),
        Some(126)
    );
    assert!(state.texts("at-all.run")[0].contains("failed: error=No such file"));
    let last = state.stdout(&["last", "at-all"]);
    assert!(
        last.starts_with("at-all.run: never started: No such file"),
        "{last}"
    );
}

/// Of each region of the run: the program's own, written or not, and the supervisor's.
#[test]
fn the_list_says_how_the_program_ended() {
    let state = State::new();
    let run = |name, script| state.outlive(&["run", "--name", name, "--", "sh", "-c", script]);
    run("shot", "kill -9 $$");
    run("shot", "kill -11 $$");
    run("left", "exit 7");
    state.outlive(&["run", "/nowhere/at-all"]);
    let mut shop = state.command(&["run", "--name", "shop", "--"]);
    shop.args(role_args()).env(ROLE, "killed").output().unwrap();
    let listed = state.stdout(&["ls", "--json"]);
    let listed: Value = serde_json::from_str(&listed).unwrap();
    let text = state.stdout(&["ls"]);
    let text_of = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap().trim_start().to_owned()
    };
    let mut told = 0;
    for row in listed.as_array().unwrap() {
        let name = row["name"].as_str().unwrap();
        let fields = &row["program_end"]["fields"];
        let (words, key, value) = match name.split(['.', '/']).next().unwrap() {
            "shot" if name.contains('/') => ("killed by signal 9 SIGKILL ", "signal", 9),
            "shot" => ("killed by signal 11 SIGSEGV", "signal", 11),
            "left" => ("exit code 7 ", "code", 7),
            "shop" if name == "shop" => ("crash, killed by signal 9 SIGKILL ", "signal", 9),
            "shop" => ("killed by signal 9 SIGKILL ", "signal", 9),
            _ => ("never started: No such file", "none", 0),
        };
        assert_eq!(fields[key].as_i64().unwrap_or(0), value, "{row}");
        assert!(!fields.is_null(), "{row}");
        let text = text_of(&format!("{name} "));
        assert!(text.starts_with(words), "{name}: {text}");
        told += 1;
    }
    assert!(told >= 9, "{text}");
    let shop = listed.as_array().unwrap().iter();
    let verdicts = shop.filter(|row| row["name"] == "shop");
    let verdicts: Vec<_> = verdicts.map(|row| &row["verdict"]).collect();
    assert_eq!(verdicts, ["crash"]);
    // Its region was closed by the supervisor, and says nothing of the program.
    let info = state.stdout(&["info", "left"]);
    let check = state.stdout(&["check", "left"]);
    for text in [&info, &check] {
        assert!(
            text.contains("how the program ended: outlive last left"),
            "{text}"
        );
        assert!(!text.contains("CPU 0"), "{text}");
    }
    assert!(
        info.contains(" lanes of ") && info.contains("heartbeat     none;"),
        "{info}"
    );
}

/// A service has to run, whatever becomes of its flight recorder.
#[test]
fn a_program_that_cannot_be_recorded_is_started_unless_that_is_strict() {
    let run = |options: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_outlive"));
        command.args(["--state", "/proc/none", "run"]).args(options);
        command
            .args(["--", "sh", "-c", "echo ran; exit 3"])
            .output()
            .unwrap()
    };
    let output = run(&[]);
    assert_eq!(
        (output.status.code(), &output.stdout[..]),
        (Some(3), &b"ran\n"[..])
    );
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        said.contains("outlive: cannot record sh: ")
            && said.contains("; the program runs without it\n"),
        "{said}"
    );
    let output = run(&["--strict"]);
    assert_eq!((output.status.code(), output.stdout.len()), (Some(125), 0));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        said.contains("outlive: cannot record sh: ")
            && said.ends_with("; the program was not started\n"),
        "{said}"
    );
}

/// On a file system of its own, which the test fills.
#[test]
fn a_full_disk_keeps_no_program_from_running_and_costs_nothing_that_was_recorded() {
    const ON_SMALL_DISK: &str = "
        mount -t tmpfs -o size=8m none $state || exit 99
        run() { $outlive --state $state run --name web \"$@\"; printf '\\ncode %s\\n' $?; }
        export OUTLIVE_TEST_ROLE=killed; run -- \"$@\"
        head -c 9M /dev/zero > $state/fill
        export OUTLIVE_TEST_ROLE=opens; run -- \"$@\"; run --strict -- \"$@\"
        $outlive --state $state last web
        rm $state/fill; run -- \"$@\"
        $outlive --state $state ls
        cat $state/apps/*/id | while read id; do rm -r /dev/shm/outlive-$id; done";
    let folder = tempfile::tempdir().unwrap();
    let output = Command::new("unshare")
        .args(["--mount", "sh", "-c", ON_SMALL_DISK, "sh"])
        .args(role_args())
        .env("outlive", env!("CARGO_BIN_EXE_outlive"))
        .env("state", folder.path())
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    if matches!(output.status.code(), Some(1 | 99)) {
        return println!("full disk: skipped: no mounts of its own: {stderr}");
    }
    let stdout = String::from_utf8(output.stdout).unwrap();
    let codes: Vec<&str> = stdout
        .lines()
        .filter(|line| line.starts_with("code "))
        .collect();
    assert_eq!(
        codes,
        ["code 137", "code 0", "code 125", "code 0"],
        "{stderr}"
    );
    let no_space = |end: &str| {
        let lines = stderr.lines();
        let lines =
            lines.filter(|l| l.contains("cannot record web: no space for ") && l.ends_with(end));
        lines.count()
    };
    assert_eq!(no_space("; the program runs without it"), 1, "{stderr}");
    assert_eq!(no_space("; the program was not started"), 1, "{stderr}");
    let ran_without = stdout.matches("not recorded: ").count();
    assert_eq!(ran_without, 1, "{stdout}");
    // What was there before is there, and becomes a generation as soon as there is room.
    assert!(
        stdout.contains("web.run: killed by signal 9 SIGKILL"),
        "{stdout}"
    );
    assert!(stdout.contains("open spans"), "{stdout}");
    assert!(stdout.contains("\nweb/2 "), "{stdout}");
    let kept = stdout
        .lines()
        .find(|line| line.starts_with("web/"))
        .unwrap();
    assert!(kept.contains(" crash, killed by signal 9 "), "{stdout}");
}

#[test]
fn signals_are_passed_on_and_recorded() {
    let state = State::new();
    let script = "trap 'exit 9' TERM; echo ready; while :; do sleep 0.01; done";
    let mut run =
        Run::spawn(&mut state.command(&["run", "--name", "job", "--", "sh", "-c", script]));
    run.until("ready");
    let pid = rustix::process::Pid::from_child(&run.supervisor);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert_eq!(run.supervisor.wait().unwrap().code(), Some(9));
    let texts = state.texts("job.run");
    assert!(
        texts
            .iter()
            .any(|text| text.contains("signal=15 name=SIGTERM")),
        "{texts:?}"
    );
}

#[test]
fn a_program_with_a_recorder_takes_the_region_that_it_is_given() {
    let state = State::new();
    let args = role_args();
    let mut command = state.command(&["run", "--name", "web", "--"]);
    let output = command.args(&args).env(ROLE, "killed").output().unwrap();
    assert_eq!(output.status.code(), Some(128 + 9));
    let last = state.last("web");
    assert_eq!(
        (&last["name"], &last["verdict"]),
        (&"web".into(), &"crash".into())
    );
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let program = &args[0];
    let end = format!("outlive: {program} was killed by signal 9 SIGKILL: outlive last web\n");
    assert!(said.ends_with(&end), "{said}");
    assert_eq!(last["run"]["version"], "1.2");
    assert_eq!(last["open_spans"][0]["begin"]["event"], "request");
    let end = &last["supervisor"]["program_end"]["fields"];
    assert_eq!(
        (&end["signal"], &end["signal_name"]),
        (&9.into(), &"SIGKILL".into())
    );
    assert_eq!(last["supervisor"]["verdict"], "clean-exit");
    let text = state.stdout(&["last", "web"]);
    let (ended, span) = (
        text.find("killed by signal 9 SIGKILL"),
        text.find("http:request"),
    );
    assert!(ended.unwrap() < span.unwrap(), "{text}");

    // The next run has both as generations, and what it left itself is nothing of the program's.
    assert!(
        state
            .outlive(&["run", "--name", "web", "--", "true"])
            .status
            .success()
    );
    let kept = state.last(&state.kept("web"));
    assert_eq!(kept["open_spans"], last["open_spans"]);
    assert_eq!(kept["supervisor"]["name"], state.kept("web.run").as_str());
    assert_eq!(
        kept["supervisor"]["program_end"],
        last["supervisor"]["program_end"]
    );
    assert_eq!(state.last("web")["name"], "web.run");
    assert_eq!(state.texts("web").len(), 0);
}

#[test]
fn a_program_sees_what_its_previous_run_left_under_a_supervisor() {
    let state = State::new();
    let run = |role: &str| {
        let mut command = state.command(&["run", "--name", "web", "--"]);
        let output = command.args(role_args()).env(ROLE, role).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let first = run("looks-back");
    assert!(first.contains("previous: None"), "{first}");
    run("killed");
    let third = run("looks-back");
    let newest = state.generations("web").pop().unwrap();
    let wanted = format!("previous: Some(\"{newest} crash, 2 events\")");
    assert!(third.contains(&wanted), "{third}");
    let fourth = run("looks-back");
    assert!(fourth.contains("clean exit, 1 events"), "{fourth}");
}

/// A container as far as the program can tell: a root that is read-only, and neither the state folder
/// nor the tmpfs with the region in sight.
#[test]
fn a_program_in_a_read_only_container_records_into_what_it_inherits() {
    const CONTAINER: &str = "
        mount --make-rprivate / && mount -o remount,bind,ro / &&
        mount -t tmpfs -o ro none \"$1\" && mount -t tmpfs -o ro none /dev/shm || exit 99
        touch /etc/outlive-test || echo 'root: read-only'
        ls -A \"$1\" /dev/shm | grep outlive || echo 'state: out of sight'
        shift; exec \"$@\"";
    let state = State::new();
    let in_container = |role| {
        let mut command = state.command(&["run", "--name", "web", "--"]);
        command.args(["unshare", "--mount", "sh", "-c", CONTAINER, "sh"]);
        command.arg(state.path()).args(role_args());
        command.env(ROLE, role).output().unwrap()
    };
    let output = in_container("is-killed-after-another");
    if matches!(output.status.code(), Some(1 | 99 | 127)) {
        let why = String::from_utf8_lossy(&output.stderr);
        return println!("container: skipped: no mounts of its own: {why}");
    }
    assert_eq!(output.status.code(), Some(128 + 9), "{output:?}");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("root: read-only\n"), "{said}");
    assert!(said.contains("state: out of sight\n"), "{said}");
    // The second process sees neither the first one's region nor a place for its own.
    assert!(
        said.contains("not recorded: no region in the run of `outlive run`: another process has")
            && said.contains("cannot be seen from here; and none of its own: "),
        "{said}"
    );
    assert_eq!(state.texts("web")[0], "opened: door=1");
    let last = state.last("web");
    assert_eq!(last["verdict"], "crash");
    assert_eq!(last["open_spans"][0]["begin"]["event"], "request");
    let end = &last["supervisor"]["program_end"]["fields"];
    assert_eq!(end["signal_name"], "SIGKILL");

    // What it left is handed over as a descriptor too, and told by where the supervisor keeps it.
    let output = in_container("looks-back");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let kept = state.kept("web");
    let wanted = format!("previous: Some(\"{kept} crash, 2 events\")");
    assert!(said.contains(&wanted), "{said}");
}

/// The parent knows of the end after the program has recorded its last event.
#[test]
fn a_program_and_its_supervisor_are_shown_in_one_text() {
    let state = State::new();
    let mut command = state.command(&["run", "--name", "web", "--"]);
    command
        .args(role_args())
        .env(ROLE, "killed")
        .output()
        .unwrap();
    let text = state.stdout(&["show", "web", "web.run"]);
    let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
    let at = |wanted: &str| lines.iter().position(|line| line.contains(wanted)).unwrap();
    assert!(lines[at(": request: ")].starts_with("web     "), "{text}");
    assert!(lines[at(": exit: ")].starts_with("web.run "), "{text}");
    assert!(
        at(": opened: ") < at(": request: ") && at(": request: ") < at(": exit: "),
        "{text}"
    );

    let json = state.stdout(&["show", "web.run", "web", "--json"]);
    let events: Vec<Value> = json
        .lines()
        .map(|l| serde_json::from_str(l).unwrap())
        .collect();
    assert_eq!(events.len(), lines.len());
    assert!(events.is_sorted_by_key(|event| event["time"].as_u64().unwrap()));
    assert!(events.iter().any(|event| event["source"] == "web"));
    let refused = state.outlive(&["show", "web", "web.run", "--follow"]);
    assert!(String::from_utf8_lossy(&refused.stderr).contains("one instance at a time"));
}

/// A shell script that runs this program in one role after the other.
fn run_in_roles(state: &State, options: &[&str], roles: &str) -> String {
    let script = format!("for role in {roles}; do {ROLE}=$role \"$@\"; done; exit 0");
    let mut command = state.command(&["run", "--name", "web"]);
    command
        .args(options)
        .args(["--", "sh", "-c", &script, "sh"]);
    let output = command.args(role_args()).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// One that the first process starts has not even the descriptor; the shell's have it, taken.
#[test]
fn each_further_process_of_a_run_has_a_region_beside_the_first() {
    let state = State::new();
    let said = run_in_roles(&state, &[], "starts-another opens");
    assert!(said.contains("second: None"), "killed: {said}");
    let last = state.last("web");
    assert_eq!(last["verdict"], "clean-exit");
    let others = last["others"]["processes"].as_array().unwrap().clone();
    let verdict_of = |other: &Value| other["verdict"].as_str().unwrap().to_owned();
    let mut verdicts: Vec<String> = others.iter().map(verdict_of).collect();
    verdicts.sort();
    assert_eq!(verdicts, ["clean-exit", "crash"], "{last}");
    let crashed = others.iter().find(|o| o["verdict"] == "crash").unwrap();
    let name = crashed["name"].as_str().unwrap();
    assert_eq!(name, format!("web.{}", crashed["pid"]));
    assert_eq!(state.texts(name).len(), 2);
    let of_crashed = state.last(name);
    assert_eq!(of_crashed["open_spans"][0]["begin"]["event"], "request");
    assert_eq!(of_crashed["supervisor"]["name"], "web.run");
    let text = state.stdout(&["last", "web"]);
    assert!(
        text.contains(&format!("  and        {name}: crash, 2 events of ")),
        "{text}"
    );
    let listed = state.stdout(&["ls"]);
    assert!(listed.contains(name), "{listed}");
    let all = state.stdout(&["show", "web*"]);
    let opened = all.lines().filter(|line| line.contains(": opened: "));
    assert_eq!(opened.count(), 3, "{all}");
    assert!(all.contains(": exit: "), "that of the supervisor: {all}");

    // The next run keeps all of them, and each still knows whose it is.
    run_in_roles(&state, &[], "opens");
    assert_eq!(
        state.last("web")["others"]["processes"],
        Value::Array(vec![])
    );
    let kept = state.last(&state.kept("web"));
    let others_of_kept = kept["others"]["processes"].as_array().unwrap();
    let pids = |others: &[Value]| {
        let mut pids: Vec<_> = others.iter().map(|other| other["pid"].as_i64()).collect();
        pids.sort();
        pids
    };
    assert_eq!(pids(others_of_kept), pids(&others));
    let crashed = others_of_kept.iter().find(|o| o["verdict"] == "crash");
    let of_crashed = state.last(crashed.unwrap()["name"].as_str().unwrap());
    assert_eq!(
        of_crashed["supervisor"]["name"],
        state.kept("web.run").as_str()
    );
}

/// The first one's region could not be read while that laid it out once more: the others took it for
/// one that is out of sight.
#[test]
fn processes_that_start_at_once_have_a_region_each() {
    const AT_ONCE: usize = 6;
    let state = State::new();
    let script = format!("for i in $(seq {AT_ONCE}); do \"$@\" & done; wait");
    for _ in 0..5 {
        let mut command = state.command(&["run", "--name", "web", "--", "sh", "-c", &script, "sh"]);
        let output = command
            .args(role_args())
            .env(ROLE, "opens")
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(!said.contains("not recorded"), "{said}");
        let others = state.last("web")["others"]["processes"].take();
        assert_eq!(others.as_array().unwrap().len(), AT_ONCE - 1, "{others}");
    }
}

/// Else a run that starts process after process would fill the tmpfs.
#[test]
fn regions_beside_the_first_make_room_for_new_ones_clean_exits_first() {
    use outlive_trace::beside::BESIDE_MAX;
    let state = State::new();
    let clean = " opens".repeat(BESIDE_MAX + 2);
    run_in_roles(&state, &["--size", "256K"], &format!("opens killed{clean}"));
    let others = &state.last("web")["others"];
    let processes = others["processes"].as_array().unwrap();
    assert_eq!(processes.len(), BESIDE_MAX);
    assert_eq!(others["removed"], 3, "{others}");
    let crashed = processes.iter().filter(|other| other["verdict"] == "crash");
    assert_eq!(crashed.count(), 1, "{others}");
    // The next run counts anew.
    run_in_roles(&state, &["--size", "256K"], "opens opens");
    let others = &state.last("web")["others"];
    assert_eq!(
        (
            &others["removed"],
            others["processes"].as_array().unwrap().len()
        ),
        (&0.into(), 1)
    );
}

/// As programs do that close what their children would inherit.
#[test]
fn a_process_without_the_descriptor_takes_the_region_by_its_path() {
    let state = State::new();
    let script = "fd=${OUTLIVE_FD%%:*}; eval \"exec $fd>&-\"; exec \"$@\"";
    let mut command = state.command(&["run", "--name", "web", "--", "sh", "-c", script, "sh"]);
    let output = command
        .args(role_args())
        .env(ROLE, "killed")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(128 + 9), "{output:?}");
    let last = state.last("web");
    assert_eq!(last["open_spans"][0]["begin"]["event"], "request");
    assert_eq!(last["others"]["processes"], Value::Array(vec![]));
}

/// The label is the line's that the name is put into: nobody has given one.
#[test]
fn a_name_that_cannot_be_one_is_refused_with_what_a_name_may_have() {
    let state = State::new();
    let too_long = "x".repeat(129);
    for name in [
        "a/b", "", ".a", "a b", "a,b", "a@b", "a^b", "a=b", "a\"b", &too_long,
    ] {
        let output = state.outlive(&["run", "--strict", "--name", name, "--", "true"]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(125), "{name:?}: {said}");
        assert!(
            said.contains("cannot be the name of a recording: a name has 1 to 128 bytes"),
            "{name:?}: {said}"
        );
        assert!(!said.contains("label"), "{name:?}: {said}");
    }
}

/// A label has 15 bytes at most, and the supervisor's and the scheduler's events have longer names yet.
#[test]
fn a_program_with_a_long_name_is_recorded() {
    let state = State::new();
    let name = "a-program-with-a-name-that-is-no-label";
    let output = state.outlive(&["run", "--name", name, "--", "sh", "-c", "echo hi >&2"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && said == "hi\n", "{said}");
    let last = state.stdout(&["last", name]);
    assert!(
        last.contains(": exit code 0") && last.contains("line=hi"),
        "{last}"
    );
}

#[test]
fn sigkill_of_the_supervisor_leaves_the_program_its_region() {
    let state = State::new();
    let mut command = state.command(&["run", "--no-stderr", "--name", "web", "--"]);
    let mut run = Run::spawn(command.args(role_args()).env(ROLE, "outlives"));
    run.until("opened");
    run.supervisor.kill().unwrap();
    run.supervisor.wait().unwrap();
    run.go_on();
    run.until("alone");
    assert_eq!(state.texts("web"), ["opened: door=1", "alone: door=2"]);
    assert!(state.stdout(&["ls"]).contains("web      still running"));
    // What it records into is not taken from it.
    let refused = state.outlive(&["run", "--strict", "--name", "web", "--", "true"]);
    assert_eq!(refused.status.code(), Some(125), "{refused:?}");
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(
        said.contains("in use") && said.contains("not started"),
        "{said}"
    );
    let of_supervisor = state.generations("web.run");
    assert_eq!(of_supervisor, [""; 0], "what was refused has left no trace");

    run.go_on();
    // Its end closes the pipe.
    assert!(run.lines.all(|line| line.is_ok()));
    assert!(
        state
            .outlive(&["run", "--name", "web", "--", "true"])
            .status
            .success()
    );
    let last = state.last(&state.kept("web"));
    assert_eq!(last["verdict"], "crash");
    assert_eq!(last["supervisor"]["verdict"], "crash", "{last}");
    let kept = state.texts(&state.kept("web"));
    assert_eq!(kept, ["opened: door=1", "alone: door=2"]);
}

/// A host instance with the events of one program: skipped where there is no tracefs for us.
#[test]
fn the_programs_scheduler_events_are_recorded_and_no_others() {
    if let Err(error) = outlive_kernel::Tracefs::find() {
        return println!("sched: skipped: {error}");
    }
    let state = State::new();
    let script = "sleep 0.02; exit 4";
    let args = ["run", "--sched", "--name", "job", "--", "sh", "-c", script];
    let output = state.outlive(&args);
    assert_eq!(output.status.code(), Some(4), "{output:?}");
    let json = state.stdout(&["show", "job.run", "job.sched", "--json"]);
    let events: Vec<Value> = json
        .lines()
        .map(|l| serde_json::from_str(l).unwrap())
        .collect();
    let find = |event: &'static str| events.iter().filter(move |e| e["event"] == event);
    let start = find("start").next().unwrap();
    let (supervisor, program) = (&start["pid"], &start["fields"]["program_pid"]);
    let of_program = |event: &'static str| find(event).filter(|e| e["pid"] == *program).count();
    assert_eq!(of_program("sched_process_exit"), 1);
    assert!(of_program("sched_process_exec") == 1 && of_program("sched_switch") > 0);
    // The shell's child is in it, and what has to do with neither is not.
    let mut tasks = vec![supervisor, program];
    for fork in find("sched_process_fork") {
        tasks.push(&fork["fields"]["child_pid"]);
    }
    assert!(tasks.len() > 3, "{tasks:?}");
    let is_of = |event: &Value, fields: &[&str]| {
        tasks.contains(&&event["pid"])
            || fields.iter().any(|f| tasks.contains(&&event["fields"][f]))
    };
    for event in &events {
        let fields = ["prev_pid", "next_pid", "pid", "child_pid"];
        assert!(is_of(event, &fields), "{event}");
    }
    // The recorder has ended, and has left nothing in the kernel.
    assert_eq!(state.last("job.sched")["verdict"], "clean-exit");
    assert!(state.hosts().is_empty(), "{:?}", state.hosts());
}

#[test]
fn the_scheduler_recorder_ends_with_a_supervisor_that_is_killed() {
    if let Err(error) = outlive_kernel::Tracefs::find() {
        return println!("sched: skipped: {error}");
    }
    let state = State::new();
    let script = "echo ready; read line";
    let args = ["run", "--sched", "--name", "job", "--", "sh", "-c", script];
    let mut run = Run::spawn(&mut state.command(&args));
    run.until("ready");
    state.end_recorder_of_sched(&mut run);
    assert_eq!(state.last("job.sched")["verdict"], "clean-exit");
    assert!(
        state
            .stdout(&["show", "job.sched"])
            .contains("sched_process_exec")
    );
    assert!(state.hosts().is_empty(), "{:?}", state.hosts());
}

/// Whoever starts another program by `vfork` is in uninterruptible sleep until that runs: here it never
/// does, since opening its standard input waits for a writer of a named pipe.
#[test]
fn a_task_that_is_blocked_for_good_is_told() {
    const BLOCKED: &str = "
import os, sys
print(os.getpid(), flush=True)
stdin = (os.POSIX_SPAWN_OPEN, 0, sys.argv[1], os.O_RDONLY, 0)
os.posix_spawn('/bin/true', ['true'], {}, file_actions=[stdin])";
    if let Err(error) = outlive_kernel::Tracefs::find() {
        return println!("blocked: skipped: {error}");
    }
    let state = State::new();
    let pipe = state.path().join("pipe");
    rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, 0o600.into()).unwrap();
    let mut command = state.command(&["run", "--sched", "--name", "job", "--no-stderr", "--"]);
    let mut run = Run::spawn(command.args(["python3", "-c", BLOCKED]).arg(&pipe));
    let pid: i64 = run.lines.next().unwrap().unwrap().parse().unwrap();
    // The state is behind the name in parentheses: proc_pid_stat(5).
    let is_blocked = || {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        stat.rsplit_once(") ").unwrap().1.starts_with('D')
    };
    while !is_blocked() {
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    state.end_recorder_of_sched(&mut run);
    assert!(is_blocked());
    let last = state.last("job.sched");
    let blocked = last["blocked"].as_array().unwrap();
    let task = blocked.iter().find(|task| task["pid"] == pid);
    let task = task.unwrap_or_else(|| panic!("{last}"));
    assert_eq!(
        (&task["comm"], &task["certain"]),
        (&"python3".into(), &true.into())
    );
    let text = state.stdout(&["last", "job.sched"]);
    let of_blocked = text.split_once("\nblocked, uninterruptible\n").unwrap().1;
    assert!(
        of_blocked.contains(&format!("  python3-{pid}  (for ")),
        "{text}"
    );
    // Both ends: the child goes on, and its parent.
    std::fs::write(pipe, "").unwrap();
}

/// What the documents say of a program that writes to its standard error behind its supervisor's death.
#[test]
fn program_without_its_supervisor_finds_a_closed_pipe_where_its_words_were_kept() {
    let survives = |options: &[&str], script: &str| {
        let state = State::new();
        let script = format!("echo ready; read go; {script} echo word >&2; echo survived");
        let args = [
            &["run", "--name", "web"],
            options,
            &["--", "sh", "-c", &script],
        ]
        .concat();
        let mut supervisor = state
            .command(&args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut go = supervisor.stdin.take().unwrap();
        let mut said = BufReader::new(supervisor.stdout.take().unwrap()).lines();
        assert_eq!(said.next().unwrap().unwrap(), "ready");
        supervisor.kill().unwrap();
        supervisor.wait().unwrap();
        writeln!(go, "go").unwrap();
        said.next().map(Result::unwrap).as_deref() == Some("survived")
    };
    assert!(!survives(&[], ""));
    assert!(survives(&[], "trap '' PIPE;"));
    assert!(survives(&["--no-stderr"], ""));
}

/// Each thread of the supervisor has a part of the ring of its own.
#[test]
fn start_and_end_of_a_program_that_says_much_are_there() {
    let state = State::new();
    let script =
        "trap : USR1; kill -USR1 $PPID; yes a line of some length | head -c 3000000 >&2; exit 3";
    let output = state.outlive(&["run", "--name", "web", "--", "sh", "-c", script]);
    assert_eq!(output.status.code(), Some(3), "{:?}", output.status);
    assert_eq!(output.stderr.len(), 3_000_000);
    let shown = state.stdout(&["show", "web.run", "--event", "run:start", "--json"]);
    let start: Value = serde_json::from_str(&shown).unwrap();
    assert_eq!(start["fields"]["arguments"], format!("-c {script}"));
    let last = state.last("web");
    assert!(
        last["lost"]["overwritten"].as_u64() > Some(10_000),
        "{last}"
    );
    assert_eq!(last["program_end"]["fields"]["code"], 3);
    assert_eq!(last["messages"].as_array().unwrap().len(), 8);
    let text = state.stdout(&["last", "web"]);
    let pid = &start["fields"]["program_pid"];
    for told in [
        "web.run: exit code 3, ",
        &format!("sh, pid {pid} under supervisor"),
        " start: program_pid=",
    ] {
        assert!(text.contains(told), "{told}: {text}");
    }
}

/// Nothing of it needs root.
#[test]
fn anybody_may_run_a_program() {
    let folder = tempfile::tempdir().unwrap();
    let binary = folder.path().join("outlive");
    std::fs::copy(env!("CARGO_BIN_EXE_outlive"), &binary).unwrap();
    std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o777)).unwrap();
    let state = folder.path().join("state");
    let nobody = |args: &[&str]| {
        let mut command = Command::new("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]);
        command
            .args([&binary, Path::new("--state"), &state])
            .args(args);
        command.output()
    };
    let Ok(output) = nobody(&[
        "run",
        "--name",
        "job",
        "--",
        "sh",
        "-c",
        "id -u; kill -9 $$",
    ]) else {
        return println!("nobody: skipped: no setpriv");
    };
    assert_eq!(output.status.code(), Some(128 + 9), "{output:?}");
    assert_eq!(output.stdout, b"65534\n");
    let last = String::from_utf8(nobody(&["last", "job"]).unwrap().stdout).unwrap();
    assert!(last.contains("killed by signal 9 SIGKILL"), "{last}");
    // Theirs, so this test may not open it as a state of its own.
    for app in ["job", "job.run"] {
        let id = std::fs::read_to_string(state.join("apps").join(app).join("id")).unwrap();
        std::fs::remove_dir_all(format!("/dev/shm/outlive-{}", id.trim())).unwrap();
    }
}

#[test]
fn a_kill_for_want_of_memory_is_told() {
    let Some(group) = Group::new() else {
        return;
    };
    let state = State::new();
    // The shell goes into the group, so that its supervisor and that one's program are in it.
    let script = format!("echo $$ > {}/cgroup.procs; exec \"$@\"", group.0.display());
    let outlive = env!("CARGO_BIN_EXE_outlive");
    let path = state.path().to_str().unwrap();
    let eater = "x=x; while :; do x=$x$x; done";
    let output = Command::new("sh")
        .args(["-c", &script, "sh", outlive, "--state", path])
        .args(["run", "--name", "eater", "--", "sh", "-c", eater])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(128 + 9), "{output:?}");
    let last = state.last("eater");
    let end = &last["program_end"]["fields"];
    assert_eq!(
        (&end["oom_kills"], &end["oom_scope"]),
        (&1.into(), &"control group".into())
    );
    let text = state.stdout(&["last", "eater"]);
    let told = "1 killed for want of memory in its control group";
    assert!(text.contains(told), "{text}");
}

/// A control group with little memory.
struct Group(PathBuf);

impl Group {
    fn new() -> Option<Self> {
        let name = format!("outlive-run-{}", std::process::id());
        for (root, limit) in [
            ("/sys/fs/cgroup/memory", "memory.limit_in_bytes"),
            ("/sys/fs/cgroup", "memory.max"),
        ] {
            let group = Self(Path::new(root).join(&name));
            if std::fs::create_dir(&group.0).is_ok()
                && std::fs::write(group.0.join(limit), "64M").is_ok()
            {
                return Some(group);
            }
        }
        println!("oom: skipped: no control group with a memory limit can be made");
        None
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir(&self.0);
    }
}

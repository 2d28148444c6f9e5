//! QEMU as a child process: started, watched, and always gone in the end.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::boot::last_lines;
use crate::initramfs::output;
use crate::{Boot, End, Error, Machine, Outcome};

/// How often the console is looked at.
const LOOK: Duration = Duration::from_millis(20);

/// Where QEMU logs each reset of a processor, and what it says of one by a triple fault.
const RESETS: &str = "resets";
const TRIPLE_FAULT: &str = "Triple fault";

/// A running QEMU; killed when it is dropped.
struct Qemu(Child);

impl Drop for Qemu {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs one boot of a machine.
pub(crate) fn run(machine: &Machine, boot: &Boot) -> Result<Outcome, Error> {
    let work =
        tempfile::tempdir().map_err(Error::io("cannot make a folder in", std::env::temp_dir()))?;
    let initrd = work.path().join("initrd");
    fs::write(&initrd, boot.initramfs(&machine.kernel)?)
        .map_err(Error::io("cannot write", &initrd))?;
    let mut qemu = start(machine, boot, work.path())?;
    let watched = watch(&mut qemu, boot, work.path());
    let console = console(work.path());
    let end = match watched {
        Ok(Some(end)) => end,
        Ok(None) => return Err(ended(qemu, work.path())),
        Err(()) => {
            return Err(Error::Hangs {
                seconds: boot.timeout.as_secs(),
                console: last_lines(&console),
            });
        }
    };
    drop(qemu);
    Ok(Outcome {
        end,
        console,
        results: unpack(&work.path().join("out.tar"))?,
    })
}

fn start(machine: &Machine, boot: &Boot, work: &Path) -> Result<Qemu, Error> {
    let place = |name: &str| work.join(name).display().to_string();
    // KVM may be there and still not run a guest's first instructions (seen in a nested guest). With a
    // thread for each CPU, QEMU 7.2 may go on executing the breakpoint with which the guest's kernel
    // patched its code on another CPU, as it does for each tracepoint: one boot in 20 died of that.
    let accel =
        std::env::var("OUTLIVE_VM_ACCEL").unwrap_or_else(|_| "tcg,thread=single".to_owned());
    let errors = work.join("stderr");
    let errors = fs::File::create(&errors).map_err(Error::io("cannot make", &errors))?;
    // Also when this process is killed, its machine goes.
    let mut command = Command::new("setpriv");
    command
        .args(["--pdeathsig", "KILL", "qemu-system-x86_64"])
        .args([
            "-accel",
            &accel,
            "-cpu",
            machine.kernel.cpu_model(),
            "-display",
            "none",
            "-nodefaults",
        ])
        .args([
            "-machine",
            "pc,memory-backend=ram",
            "-no-reboot",
            "-qmp",
            "stdio",
        ])
        .args(["-smp", &machine.cpus.to_string()])
        .args(machine.memory_args())
        .arg("-kernel")
        .arg(machine.kernel.vmlinuz())
        .args(["-initrd", &place("initrd"), "-append", &boot.line()])
        .args(["-serial", &format!("file:{}", place("console"))])
        .args(["-d", "cpu_reset", "-D", &place(RESETS)])
        .args(["-device", "virtio-serial", "-chardev"])
        .arg(format!("file,id=out,path={}", place("out.tar")))
        .args(["-device", "virtserialport,chardev=out,name=out"])
        .args(&boot.qemu)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(errors);
    let child = command.spawn();
    let mut qemu = Qemu(child.map_err(Error::io("cannot run", "qemu-system-x86_64"))?);
    if let Some(stdin) = &mut qemu.0.stdin {
        // An end of QEMU is seen where its events are read.
        let _ = stdin.write_all(b"{\"execute\":\"qmp_capabilities\"}\n");
    }
    Ok(qemu)
}

/// Waits for the end. `None`: QEMU ended by itself; an error: it took too long.
fn watch(qemu: &mut Qemu, boot: &Boot, work: &Path) -> Result<Option<End>, ()> {
    let Some(stdout) = qemu.0.stdout.take() else {
        return Ok(None);
    };
    let events = events(stdout);
    let until = Instant::now() + boot.timeout;
    let mut is_watchdog = false;
    loop {
        match events.recv_timeout(LOOK) {
            Ok(event) if event["event"] == "WATCHDOG" => is_watchdog = true,
            Ok(event) if event["event"] == "SHUTDOWN" => {
                return Ok(match event["data"]["reason"].as_str() {
                    Some("guest-shutdown") => Some(End::PowerOff),
                    Some("guest-reset" | "guest-panic") if is_watchdog => Some(End::Watchdog),
                    Some("guest-reset" | "guest-panic") if is_triple_fault(work) => {
                        Some(End::TripleFault)
                    }
                    Some("guest-reset" | "guest-panic") => Some(End::Reset),
                    _ => None,
                });
            }
            Ok(_) | Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return Ok(None),
        }
        if let Some(text) = &boot.reset_at
            && console(work).contains(text.as_str())
        {
            let is_dumped = dump(qemu, boot, &events, until, work)?;
            return Ok(is_dumped.then_some(End::ResetFromOutside));
        }
        if Instant::now() > until {
            return Err(());
        }
    }
}

/// Dumps the machine's memory as the boot asks for. `false`: QEMU ended or refused, and the reason is where its
/// errors are; an error: it took too long.
fn dump(
    qemu: &mut Qemu,
    boot: &Boot,
    events: &Receiver<Value>,
    until: Instant,
    work: &Path,
) -> Result<bool, ()> {
    for (number, (format, file)) in boot.dumps.iter().enumerate() {
        let protocol = format!("file:{}", file.display());
        let arguments = json!({"paging": false, "protocol": protocol, "format": format});
        let command = json!({"execute": "dump-guest-memory", "arguments": arguments, "id": number});
        if let Some(stdin) = &mut qemu.0.stdin {
            let _ = writeln!(stdin, "{command}");
        }
        let answer = loop {
            match events.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(event) if event["id"] == number => break event,
                Ok(_) => {}
                Err(RecvTimeoutError::Timeout) => return Err(()),
                Err(RecvTimeoutError::Disconnected) => return Ok(false),
            }
        };
        if answer["return"].is_null() {
            let _ = fs::write(work.join("stderr"), answer.to_string());
            return Ok(false);
        }
    }
    Ok(true)
}

/// What QEMU tells, until it ends: events, and answers.
fn events(stdout: ChildStdout) -> Receiver<Value> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        let lines = BufReader::new(stdout).lines().map_while(Result::ok);
        let events = lines.filter_map(|line| serde_json::from_str(&line).ok());
        // The other end has gone when the boot is over.
        let _ = events.map(|event| sender.send(event)).find(Result::is_err);
    });
    receiver
}

fn console(work: &Path) -> String {
    let bytes = fs::read(work.join("console")).unwrap_or_default();
    String::from_utf8_lossy(&bytes).into_owned()
}

fn is_triple_fault(work: &Path) -> bool {
    let log = fs::read(work.join(RESETS)).unwrap_or_default();
    String::from_utf8_lossy(&log).contains(TRIPLE_FAULT)
}

fn ended(qemu: Qemu, work: &Path) -> Error {
    drop(qemu);
    Error::Qemu {
        told: fs::read_to_string(work.join("stderr")).unwrap_or_default(),
        console: last_lines(&console(work)),
    }
}

/// Unpacks what the guest sent: any number of archives, the last of which may be cut.
fn unpack(archive: &Path) -> Result<TempDir, Error> {
    let folder =
        tempfile::tempdir().map_err(Error::io("cannot make a folder in", std::env::temp_dir()))?;
    if fs::metadata(archive).is_ok_and(|meta| meta.len() > 0) {
        let mut command = Command::new("tar");
        command
            .arg("-xf")
            .arg(archive)
            .args(["--ignore-zeros", "--no-same-owner", "-C"]);
        // A cut archive is told and all before the cut unpacked.
        if let Err(error) = output(command.arg(folder.path()))
            && !matches!(error, Error::Command { .. })
        {
            return Err(error);
        }
    }
    Ok(folder)
}

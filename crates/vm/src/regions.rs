//! Regions that real kernels wrote, and what those kernels themselves said of them at their next boot,
//! beside what outlive says.
//!
//! A [`Case`] is a kernel, a number of CPUs, whether the ring had wrapped, whether it was being read, and
//! how the machine went down. [`Case::run`] makes it happen; what it leaves is a folder, which can be
//! [packed](pack) and compared again ([`compare`]) without the machine.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::initramfs::output;
use crate::{Boot, End, Error, Kernel, Machine};

/// Where the region lies in the guest's memory.
const ADDRESS: u64 = 0x1000_0000;
const BYTES_PER_CPU: u64 = 128 << 10;
/// Whose `format` files are kept: the events are the scheduler's, and markers.
const SYSTEMS: &str = "sched ftrace";
const INSTANCE: &str = "boot_mapped";

/// How the machine went down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeftBy {
    /// `echo c > /proc/sysrq-trigger`.
    Panic,
    /// A reset from outside, in the middle of the load.
    Reset,
    /// `reboot`.
    Reboot,
}

/// What happens to a region before the next boot finds it.
#[derive(Debug, Clone, Copy)]
pub struct Case {
    /// The beginning of the kernel's version.
    pub kernel: &'static str,
    /// CPUs of the machine.
    pub cpus: u32,
    /// Whether every CPU's ring overwrote its oldest events.
    pub is_wrapped: bool,
    /// Whether somebody was consuming from it all the time.
    pub is_read: bool,
    /// How the machine went down.
    pub left_by: LeftBy,
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            kernel,
            cpus,
            left_by,
            ..
        } = self;
        let fill = match (self.is_read, self.is_wrapped) {
            (true, _) => "read",
            (false, true) => "wrapped",
            (false, false) => "partly",
        };
        write!(f, "{kernel}-{cpus}cpu-{fill}-{left_by:?}")
    }
}

/// Every case: kernels, CPUs, fill, end; and each kernel crashed while its ring was read.
pub fn all() -> impl Iterator<Item = Case> {
    const KERNELS: [&str; 4] = ["7.3.4", "7.2.13", "6.18.15", "6.12.107"];
    let ends = [LeftBy::Panic, LeftBy::Reset, LeftBy::Reboot];
    KERNELS.into_iter().flat_map(move |kernel| {
        [1, 2, 4].into_iter().flat_map(move |cpus| {
            let case = move |is_wrapped, is_read, left_by| Case {
                kernel,
                cpus,
                is_wrapped,
                is_read,
                left_by,
            };
            let fills = [(false, false), (true, false), (false, true)];
            fills.into_iter().flat_map(move |(is_wrapped, is_read)| {
                let ends = ends.into_iter();
                ends.map(move |left_by| case(is_wrapped, is_read, left_by))
            })
        })
    })
}

impl Case {
    /// Makes it happen, and leaves `folder` with the region and what the kernel said of it.
    ///
    /// # Errors
    /// The machine does not run, or does not end as it was told to.
    pub fn run(&self, folder: &Path) -> Result<(), Error> {
        let mut machine = Machine::new(Kernel::pinned(self.kernel)?, self.cpus, 512)?;
        let first = machine.boot(&self.first())?;
        let wanted = match self.left_by {
            LeftBy::Panic | LeftBy::Reboot => End::Reset,
            LeftBy::Reset => End::ResetFromOutside,
        };
        if first.end != wanted {
            return Err(Error::Qemu {
                told: format!("{self}: the first boot ended with {:?}", first.end),
                console: first.console,
            });
        }
        let region = machine.read(ADDRESS, self.size() as usize)?;
        // So that every try of the boot finds it.
        machine.write(ADDRESS, &region)?;
        let second = machine.boot(&Boot::new(&self.line(false)).script("collect boot2"))?;
        fs::create_dir_all(folder).map_err(Error::io("cannot make", folder))?;
        let write = |name: &str, bytes: &[u8]| {
            let path = folder.join(name);
            fs::write(&path, bytes).map_err(Error::io("cannot write", path))
        };
        write("region.bin", &region)?;
        write("case", self.to_string().as_bytes())?;
        for name in ["kallsyms", "printk_formats"] {
            write(name, &first.bytes(name)?)?;
        }
        copy(&first.results().join("events"), &folder.join("events"))?;
        let dmesg = second.text("boot2/dmesg")?;
        let attach = dmesg.lines().filter(|line| line.contains("Ring buffer"));
        write("attach", attach.collect::<Vec<_>>().join("\n").as_bytes())?;
        let previous = second.results().join("boot2/instances");
        copy(&previous.join(self.previous()), &folder.join("said"))
    }

    /// The instance in which the second boot shows the first one's events.
    fn previous(&self) -> &'static str {
        if self.has_backup() {
            "backup"
        } else {
            INSTANCE
        }
    }

    /// Since 7.1 a backup is taken before the events start.
    fn has_backup(&self) -> bool {
        self.kernel.starts_with('7')
    }

    fn size(&self) -> u64 {
        BYTES_PER_CPU * u64::from(self.cpus)
    }

    /// The kernel's command line. Recording is switched on by the first boot's script alone, so that
    /// the second one's own events come nowhere near.
    fn line(&self, is_first: bool) -> String {
        let kib = self.size() >> 10;
        let line = format!(
            "memmap={kib}K${ADDRESS:#x} trace_instance={INSTANCE}^traceoff@{ADDRESS:#x}:{kib}K"
        );
        if self.has_backup() && !is_first {
            line + " trace_instance=backup=" + INSTANCE
        } else {
            line
        }
    }

    fn first(&self) -> Boot {
        let enough = if self.is_wrapped {
            "for cpu in per_cpu/cpu[0-9]*; do [ \"$(grep '^overrun' $cpu/stats)\" != 'overrun: 0' ] || return 1; done"
        } else {
            ":"
        };
        // The reader consumes what would be overwritten.
        let read = if self.is_read {
            "cat trace_pipe > /dev/null & for round in 1 2 3 4 5 6 7 8; do load; done"
        } else {
            ":"
        };
        let end = match self.left_by {
            LeftBy::Panic => "echo c > /proc/sysrq-trigger",
            LeftBy::Reboot => "reboot -f",
            LeftBy::Reset => "echo in-the-middle > /dev/console; while :; do load; done",
        };
        let cpus = self.cpus;
        let script = format!(
            "cd /sys/kernel/tracing
             for system in {SYSTEMS}; do for event in events/$system/*/; do
               mkdir -p /out/$event; cp $event/format $event/id /out/$event 2>/dev/null; done; done
             cp events/header_page events/header_event /out/events/
             cp printk_formats /out/
             grep -E ' (tracing_mark_write|_text)$' /proc/kallsyms > /out/kallsyms
             cd instances/{INSTANCE}
             load() {{
               cpu=0
               while [ $cpu -lt {cpus} ]; do
                 taskset -c $cpu sh -c 'i=0; while [ $i -lt 60 ]; do usleep 1; i=$((i+1)); done'
                 cpu=$((cpu+1))
               done
               echo a marker of the first boot > trace_marker
             }}
             enough() {{ {enough}; }}
             echo sched > set_event
             echo 1 > tracing_on
             {read}
             load; until enough; do load; done
             save
             {end}"
        );
        let boot = Boot::new(&self.line(true)).script(&script);
        match self.left_by {
            LeftBy::Reset => boot.reset_at("in-the-middle"),
            LeftBy::Panic | LeftBy::Reboot => boot,
        }
    }
}

fn copy(from: &Path, to: &Path) -> Result<(), Error> {
    output(Command::new("cp").arg("-r").args([from, to])).map(drop)
}

/// Packs a case's folder into an archive.
///
/// # Errors
/// The archive cannot be written.
pub fn pack(folder: &Path, archive: &Path) -> Result<(), Error> {
    let mut command = Command::new("tar");
    // The same bytes for the same contents.
    command.args([
        "--sort=name",
        "--mtime=@0",
        "--owner=0",
        "--group=0",
        "-cJf",
    ]);
    output(command.arg(archive).arg("-C").arg(folder).arg(".")).map(drop)
}

/// Unpacks an archive of [`pack`].
///
/// # Errors
/// The archive cannot be read.
pub fn unpack(archive: &Path, folder: &Path) -> Result<(), Error> {
    let mut command = Command::new("tar");
    output(command.arg("-xJf").arg(archive).arg("-C").arg(folder)).map(drop)
}

/// What was compared.
#[derive(Debug, Default, Clone, Copy)]
#[non_exhaustive]
pub struct Compared {
    /// Lines of text that both have.
    pub lines: usize,
    /// Lines of a CPU that only outlive has, of sub-buffers that the kernel gave up or that were consumed.
    pub more: usize,
    /// Counters that are equal.
    pub counters: usize,
}

/// Compares what `outlive` says of a case's region with what the kernel said.
///
/// # Errors
/// The first difference that there may not be, in words; or a program or file fails.
pub fn compare(outlive: &Path, folder: &Path) -> Result<Compared, String> {
    let said = folder.join("said");
    let read = |path: PathBuf| {
        let bytes = fs::read(&path).map_err(|e| format!("{}: {e}", path.display()))?;
        Ok::<_, String>(String::from_utf8_lossy(&bytes).into_owned())
    };
    let attach = read(folder.join("attach"))?;
    let case = read(folder.join("case"))?;
    // The kernel gives more up than the sub-buffers that are damaged, and says so.
    let is_damaged = [
        "invalid",
        "discarded",
        "not found",
        "out of range",
        "mismatch",
    ]
    .iter()
    .any(|word| attach.contains(word));
    let is_read = case.contains("-read-");
    let extras = match is_damaged {
        true => Extras::Anywhere,
        // A ring that was being read: from it consumed sub-buffers are still there that were not reused. 7.2
        // and 7.3 have blanked them, and 6.12 too (seen in all recordings).
        false if is_read && case.starts_with("6.18") => Extras::Before,
        false => Extras::None,
    };
    let mut counters = vec!["overrun", "commit overrun", "dropped events", "read events"];
    if extras == Extras::None {
        counters.extend(["entries", "bytes"]);
        // A reader has taken the oldest page out of the ring, and the kernel may look at another one.
        if !is_read {
            counters.push("oldest event ts");
        }
    }
    let mut compared = Compared::default();
    let show = |more: &[&str]| run_outlive(outlive, "show", folder, more);
    // In the text of all CPUs what is before each CPU's lies between the others' events.
    let in_all = match extras {
        Extras::Before => Extras::Anywhere,
        extras => extras,
    };
    compared.add(&show(&[])?, &read(said.join("trace"))?, in_all)?;
    let info = run_outlive(outlive, "info", folder, &[])?;
    let check = run_outlive(outlive, "check", folder, &["--json"])?;
    let check: Value = serde_json::from_str(&check).map_err(|e| format!("{e}: {check}"))?;
    compared.more = 0;
    for cpu in 0.. {
        let of_cpu = said.join(format!("per_cpu/cpu{cpu}"));
        if !of_cpu.exists() {
            break;
        }
        let ours = show(&["--cpu", &cpu.to_string()])?;
        let more = compared.add(&ours, &read(of_cpu.join("trace"))?, extras)?;
        let stats = read(of_cpu.join("stats"))?;
        let block = info.split("\nCPU ").nth(cpu + 1).unwrap_or_default();
        compared.add_counters(cpu, block, &stats, &counters)?;
        compared.add_check(cpu, &check["cpus"][cpu], &stats, more, extras)?;
    }
    Ok(compared)
}

/// Where lines may be that only outlive has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Extras {
    None,
    /// Before the kernel's first: what was consumed is older.
    Before,
    Anywhere,
}

/// The number behind a name of `stats` or `info`.
fn value(text: &str, name: &str) -> Option<String> {
    let mut lines = text.lines();
    let value = lines.find_map(|line| line.trim().strip_prefix(name)?.strip_prefix(':'));
    value.map(|value| value.trim().to_owned())
}

fn run_outlive(outlive: &Path, verb: &str, folder: &Path, more: &[&str]) -> Result<String, String> {
    let mut command = Command::new(outlive);
    command.arg(verb).arg(folder.join("region.bin"));
    command.arg("--formats").arg(folder.join("events"));
    let output = command.args(more).output().map_err(|e| e.to_string())?;
    // 1: damaged, and recovered.
    if !matches!(output.status.code(), Some(0 | 1)) {
        return Err(format!(
            "{command:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        ));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

impl Compared {
    /// Takes the comparison of two texts in, and returns how many lines only ours has. The names of tasks are
    /// left aside: ours may know them, and the kernel's next boot does not.
    fn add(&mut self, ours: &str, kernel: &str, extras: Extras) -> Result<usize, String> {
        let ours: Vec<&str> = ours.lines().filter_map(event_of).collect();
        let kernel: Vec<&str> = kernel.lines().filter_map(event_of).collect();
        let mut rest = ours.iter();
        let mut more = 0;
        for (number, line) in kernel.iter().enumerate() {
            // Both are in the order of time: what only ours has lies between.
            let skipped = rest.position(|ours| ours == line);
            let skipped = skipped.ok_or_else(|| format!("missing: {line}"))?;
            let may_be = match extras {
                Extras::None => false,
                Extras::Before => number == 0,
                Extras::Anywhere => true,
            };
            if skipped > 0 && !may_be {
                return Err(format!(
                    "{skipped} lines that the kernel has not, before {line}"
                ));
            }
            more += skipped;
        }
        let behind = rest.count();
        if behind > 0 && extras != Extras::Anywhere {
            return Err(format!(
                "{behind} lines that the kernel has not, at the end"
            ));
        }
        more += behind;
        self.more += more;
        self.lines += kernel.len();
        Ok(more)
    }

    fn add_counters(
        &mut self,
        cpu: usize,
        info: &str,
        stats: &str,
        names: &[&str],
    ) -> Result<(), String> {
        for name in names {
            let (ours, kernel) = (value(info, name), value(stats, name));
            if ours != kernel || kernel.is_none() {
                return Err(format!(
                    "CPU {cpu}: {name}: {ours:?}, and the kernel {kernel:?}"
                ));
            }
            self.counters += 1;
        }
        Ok(())
    }

    /// What `check` counts is what the kernel counts, and what only ours has.
    fn add_check(
        &mut self,
        cpu: usize,
        check: &Value,
        stats: &str,
        more: usize,
        extras: Extras,
    ) -> Result<(), String> {
        let entries = value(stats, "entries").and_then(|entries| entries.parse::<u64>().ok());
        let entries = entries.ok_or_else(|| format!("CPU {cpu}: no entries in {stats}"))?;
        let is_whole = check["rejected"] == json!([]) && check["damage"] == json!([]);
        if check["entries"] != entries + more as u64 || !(is_whole || extras == Extras::Anywhere) {
            return Err(format!(
                "CPU {cpu}: the kernel counts {entries} entries, {more} lines are only ours, and check \
                 says {check}"
            ));
        }
        self.counters += 1;
        Ok(())
    }
}

/// A line from the CPU on; none for the header, and for the kernel's and our remarks.
fn event_of(line: &str) -> Option<&str> {
    let is_event = !line.starts_with('#') && !line.starts_with("CPU:") && !line.is_empty();
    is_event.then(|| line.find('[').map_or(line, |at| &line[at..]))
}

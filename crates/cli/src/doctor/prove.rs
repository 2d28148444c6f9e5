//! `outlive doctor --prove`: canaries are written, their writer kills itself, and a start reads them
//! back. With `--reboot` a second flight of canaries waits for the next boot.

use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use outlive_trace::cmdline::CommandLine;
use outlive_trace::{
    AreaRequest, Backing, Error, EventSource, Start, StateDir, StateLock, generation,
};
use rustix::process::{Signal, getpid, kill_process};

use super::canary::{self, Canary, Plan};
use super::judge::is_fixed;
use super::machine::Machine;
use super::notes::{Death, Notes, Pending};
use crate::args::Reboot;
use crate::boot::say;

/// What there is to prove.
pub(crate) struct Prove<'a> {
    pub(crate) machine: &'a Machine,
    pub(crate) state: &'a Path,
    pub(crate) cmdline: &'a CommandLine,
    pub(crate) text: &'a str,
    pub(crate) backings: &'a [(String, Backing)],
    /// The areas that outlive would reserve.
    pub(crate) requests: &'a [AreaRequest],
    pub(crate) nr_cpus: u32,
}

impl Prove<'_> {
    /// Proves that areas survive the death of a process, and with `reboot` prepares to prove that they
    /// survive that. Whether all did.
    pub(crate) fn run(&self, reboot: Option<Reboot>, notes: &mut Notes) -> Result<bool> {
        if self.requests.is_empty() {
            say!("nothing to prove: the kernel itself has all instances of the line");
            return Ok(false);
        }
        let state = StateDir::open(self.state)?;
        if notes.pending.is_some() {
            say!("the canaries that waited for a reboot are given up");
            self.give_up(notes)?;
        }
        // Held to the end: no recorder may start where the canaries are.
        let (_lock, requests) = self.free_areas(&state)?;
        let plan = Plan::new(&requests, self.state, self.nr_cpus)?;
        let is_proven = self.prove_process(&plan, notes)?;
        match reboot {
            None => plan.remove(self.state)?,
            Some(reboot) => self.prepare(&plan, death_of(reboot), notes)?,
        }
        notes.write(&state)?;
        Ok(is_proven)
    }

    /// The areas into which a canary can go. Of fixed memory, what it holds is kept first, as by a
    /// start; while a recorder has it, it is left out.
    fn free_areas(&self, state: &StateDir) -> Result<(Option<StateLock>, Vec<AreaRequest>)> {
        let (fixed, mut free): (Vec<_>, Vec<_>) = self
            .requests
            .iter()
            .cloned()
            .partition(|request| is_fixed(request.backing()));
        if fixed.is_empty() {
            return Ok((None, free));
        }
        let names: Vec<&str> = fixed.iter().map(AreaRequest::name).collect();
        let result = self.keep(state, &canary::only(self.cmdline, &names));
        match result {
            Ok(lock) => {
                free.extend(fixed);
                Ok((Some(lock), free))
            }
            Err(Error::Locked { .. } | Error::MemoryInUse { .. } | Error::AreaInUse { .. })
                if !free.is_empty() =>
            {
                say!("{}: a recorder has it, not proven", names.join(", "));
                Ok((None, free))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Keeps what the areas of a command line hold, and leaves them blank. What was configured before
    /// stays so.
    fn keep(&self, state: &StateDir, cmdline: &CommandLine) -> Result<StateLock, Error> {
        let started = Start {
            state,
            cmdline,
            text: self.text,
            backings: self.backings,
            nr_cpus: self.nr_cpus,
            source: EventSource::Kernel,
            program: ("outlive doctor", env!("CARGO_PKG_VERSION")),
            of_kernel: &[],
            skips_instances: false,
        }
        .run(|step| crate::boot::tell(&step))?;
        state.write_instances(&started.lock, &started.before)?;
        for live in &started.live {
            live.lay_out()?;
        }
        Ok(started.lock)
    }

    fn prove_process(&self, plan: &Plan, notes: &mut Notes) -> Result<bool> {
        let run_id = self.write_and_die(plan)?;
        let counts = canary::read_back(self.state, plan, &run_id, self.nr_cpus)?;
        let mut is_proven = !counts.is_empty();
        for (canary, count) in plan.canaries.iter().zip(counts) {
            is_proven &= self.note(notes, canary, Death::Process, count);
        }
        Ok(is_proven)
    }

    /// Notes what came back of one canary, and says it. Whether that is all of it.
    fn note(&self, notes: &mut Notes, canary: &Canary, death: Death, count: u64) -> bool {
        let written = canary::events_written(self.nr_cpus);
        let proof = notes.prove(&canary.area, &canary.backing, death, (count, written));
        let (tier, what) = match death {
            Death::Process => ("process", "SIGKILL of their writer"),
            Death::Reboot => ("panic, reset", "a reboot"),
            Death::Panic => ("panic, reset", "a panic"),
        };
        let word = match proof.is_whole() {
            true => "proven",
            false => "NOT proven",
        };
        say!(
            "{tier}: {word}: {count} of {written} events came back after {what} ({}: {})",
            canary.area,
            canary.backing
        );
        proof.is_whole()
    }

    /// Lets a child write the canaries and kill itself. Returns the run that wrote them.
    fn write_and_die(&self, plan: &Plan) -> Result<String> {
        let mut command =
            Command::new(std::env::current_exe().context("cannot find this program")?);
        command.arg("--state").arg(self.state);
        command.args(["doctor", "--write-canary", &plan.text()]);
        for (label, backing) in plan.backings() {
            command.arg(format!("--area={label}={backing}"));
        }
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start the canaries' writer")?;
        let mut run_id = String::new();
        if let Some(mut out) = child.stdout.take() {
            out.read_to_string(&mut run_id)?;
        }
        let status = child.wait()?;
        if status.signal() != Some(Signal::KILL.as_raw()) {
            bail!("the canaries' writer ended otherwise than by its SIGKILL: {status}");
        }
        Ok(run_id.trim().to_owned())
    }

    /// Writes the canaries that the next boot looks for.
    fn prepare(&self, plan: &Plan, death: Death, notes: &mut Notes) -> Result<()> {
        let run_id = self.write_and_die(plan)?;
        notes.pending = Some(Pending {
            run_id,
            boot_id: self.machine.boot_id.clone(),
            death,
            canaries: plan.clone(),
        });
        Ok(())
    }

    /// Reads what waited for a reboot, if there was one. What came of it is noted.
    pub(crate) fn look_for_pending(&self, notes: &mut Notes) -> Result<()> {
        let Some(pending) = notes.pending.clone() else {
            return Ok(());
        };
        if pending.boot_id == self.machine.boot_id {
            say!("canaries wait for a reboot; the next `outlive doctor` after it reads them");
            return Ok(());
        }
        let state = StateDir::open(self.state)?;
        let plan = &pending.canaries;
        let counts = self.counts(&state, &pending)?;
        for (canary, count) in plan.canaries.iter().zip(counts) {
            self.note(notes, canary, pending.death, count);
        }
        notes.pending = None;
        notes.write(&state)?;
        plan.remove(self.state)
    }

    /// What came back: of fixed memory it may be that a recorder was there first, and kept it.
    fn counts(&self, state: &StateDir, pending: &Pending) -> Result<Vec<u64>> {
        let canaries = &pending.canaries.canaries;
        let mut counts = self.kept_by_a_recorder(state, pending)?;
        let is_recorded = state.is_locked()?;
        let is_left = |at: usize| counts[at] == 0 && !(is_recorded && canaries[at].is_fixed());
        let left: Vec<usize> = (0..canaries.len()).filter(|at| is_left(*at)).collect();
        let plan = Plan {
            canaries: left.iter().map(|at| canaries[*at].clone()).collect(),
        };
        let read = canary::read_back(self.state, &plan, &pending.run_id, self.nr_cpus)?;
        for (at, count) in left.into_iter().zip(read) {
            counts[at] = count;
        }
        Ok(counts)
    }

    /// What the generations of the user's state have of each canary.
    fn kept_by_a_recorder(&self, state: &StateDir, pending: &Pending) -> Result<Vec<u64>> {
        let canaries = &pending.canaries.canaries;
        let mut counts = vec![0; canaries.len()];
        for generation in generation::list(state)? {
            let meta = generation.meta();
            let is_of_run = meta.and_then(|meta| meta.run_id.as_ref()) == Some(&pending.run_id);
            let recorded_as = meta.and_then(|meta| meta.recorded_as.as_ref());
            let at = canaries
                .iter()
                .position(|canary| Some(&canary.label) == recorded_as);
            if let (true, Some(at)) = (is_of_run, at) {
                counts[at] = canary::count(&generation, &pending.run_id);
                let kept = generation.to_string();
                say!("a recorder kept the canary as {kept}; `outlive rm {kept}` removes it");
            }
        }
        Ok(counts)
    }

    /// Removes canaries that wait.
    fn give_up(&self, notes: &mut Notes) -> Result<()> {
        match notes.pending.take() {
            Some(pending) => pending.canaries.remove(self.state),
            None => Ok(()),
        }
    }
}

/// In the child: writes, says which run it was, and dies.
pub(crate) fn write_canary(
    state: &Path,
    line: &str,
    backings: &[(String, Backing)],
    nr_cpus: u32,
) -> Result<u8> {
    println!("{}", canary::write(state, line, backings, nr_cpus)?);
    kill_process(getpid(), Signal::KILL)?;
    bail!("the system does not let this process kill itself")
}

/// Makes the machine go down, or says how to.
pub(crate) fn reboot(reboot: Reboot) -> Result<()> {
    match reboot {
        Reboot::Ask => {
            say!("canaries are written; reboot the machine, then run `outlive doctor` again");
            Ok(())
        }
        Reboot::Now if Path::new("/run/systemd/system").exists() => {
            say!("rebooting; run `outlive doctor` after it");
            let status = Command::new("systemctl").arg("reboot").status();
            match status.context("cannot run systemctl")?.success() {
                true => Ok(()),
                false => bail!("`systemctl reboot` failed; reboot the machine yourself"),
            }
        }
        Reboot::Now => {
            say!("rebooting at once, nobody stops the services; run `outlive doctor` after it");
            rustix::fs::sync();
            rustix::system::reboot(rustix::system::RebootCommand::Restart).context("cannot reboot")
        }
        Reboot::Panic => {
            say!("the kernel panics now; run `outlive doctor` after the reset");
            std::fs::write("/proc/sysrq-trigger", "c").context("cannot make the kernel panic")
        }
    }
}

fn death_of(reboot: Reboot) -> Death {
    match reboot {
        Reboot::Panic => Death::Panic,
        Reboot::Ask | Reboot::Now => Death::Reboot,
    }
}

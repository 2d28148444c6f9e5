//! What the live tests share: instances that go away whatever happens, and load.

pub mod collect;

use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use outlive_kernel::{EventName, Instance, InstanceName, Instances, RunId, StateId, Tracefs};

/// The tracefs of this machine, for one test at a time: loads at once would starve each other.
/// Without tracefs the test says why and is skipped.
pub fn tracefs(test: &str) -> Option<(Tracefs, MutexGuard<'static, ()>)> {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    match Tracefs::find() {
        Ok(tracefs) => Some((tracefs, guard)),
        Err(e) => {
            println!("{test}: skipped: {e}");
            None
        }
    }
}

/// A state of this test only, whose instances are removed when it goes.
pub struct OwnState {
    pub instances: Instances,
    pub state: StateId,
}

impl OwnState {
    pub fn new(tracefs: &Tracefs) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap()
            .as_nanos() as u64;
        let next = NEXT.fetch_add(1, Ordering::Relaxed);
        let state = StateId(now ^ (u64::from(std::process::id()) << 40) ^ next);
        Self {
            instances: Instances::new(tracefs, state),
            state,
        }
    }

    pub fn create(&self, name: &str) -> Instance {
        self.instances.create(RunId(1), name).unwrap()
    }
}

impl Drop for OwnState {
    fn drop(&mut self) {
        let names: Vec<InstanceName> = self.instances.list().unwrap_or_default();
        for name in names {
            let removed = self
                .instances
                .open_existing(&name)
                .and_then(Instance::remove);
            if let Err(e) = removed {
                eprintln!("left behind: {e}");
            }
        }
    }
}

/// Enables the scheduler's events that load makes many of.
pub fn enable_sched(tracefs: &Tracefs, instance: &Instance) {
    let events = tracefs.available_events().unwrap();
    for name in events.iter().filter(|name| name.system == "sched") {
        instance.enable_event(name).unwrap();
    }
    assert!(
        instance
            .enabled_events()
            .unwrap()
            .contains(&EventName::new("sched", "sched_switch"))
    );
}

/// Processes that come and go and talk through pipes, until it is dropped.
pub struct Load(Vec<Child>);

impl Load {
    pub fn start() -> Self {
        let scripts = [
            "while :; do /bin/true; /bin/true | /bin/cat; done",
            "yes | while read x; do echo $x; done | cat",
            "while :; do (exec /bin/true) & wait; done",
        ];
        Self(scripts.iter().map(|script| Self::spawn(script)).collect())
    }

    /// In a group of its own, so that all of it can be ended at once.
    fn spawn(script: &str) -> Child {
        use std::os::unix::process::CommandExt;
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]).process_group(0);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        command.spawn().unwrap()
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let group = rustix::process::Pid::from_child(child);
            let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
            let _ = child.wait();
        }
    }
}

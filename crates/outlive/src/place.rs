//! Where a recorder's region lies: in the program's own state folder, where its supervisor put it, or
//! beside that.

use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::path::Path;

use outlive_ring::extension::Layout;
use outlive_ring::{RawMemory, Region};
use outlive_trace::retention::{self, Policy};
use outlive_trace::{Chores, Live, StateDir, StateLock};

use crate::background::Background;
use crate::beside::Beside;
use crate::given::Taken;
use crate::{Error, Previous, handed};

/// See the module.
#[derive(Debug)]
pub(crate) enum Place {
    Own(Box<Own>),
    Given(Box<Taken>),
    Beside(Box<Beside>),
}

/// An instance in a state folder that this process has locked.
#[derive(Debug)]
pub(crate) struct Own {
    pub(crate) state: StateDir,
    pub(crate) lock: StateLock,
    pub(crate) live: Live,
    /// Whether the next start's file is made while this run records.
    pub(crate) makes_spare: bool,
    pub(crate) policy: Option<Policy>,
}

impl Own {
    /// What is to be done behind the start.
    pub(crate) fn rest(&self) -> Rest {
        let spared = self.makes_spare.then_some(&self.live.area);
        Rest {
            chores: Chores::new(&self.state, spared),
            state: self.state.clone(),
            policy: self.policy,
        }
    }
}

/// What a start leaves to be done.
#[derive(Debug)]
pub(crate) struct Rest {
    chores: Chores,
    state: StateDir,
    policy: Option<Policy>,
}

impl Rest {
    /// Copies what was set aside, and removes the generations that are too many: in this order, so that
    /// the newest is safe when an older one goes. That it fails is no reason not to record; the next
    /// start tries again.
    pub(crate) fn run(&self, lock: &StateLock, is_ended: &dyn Fn() -> bool) {
        let Self { state, policy, .. } = self;
        let is_safe = self.chores.run(lock, is_ended).is_ok();
        if !is_safe || is_ended() {
            return;
        }
        let now_ns = outlive_trace::clock::realtime_ns();
        if let Ok(policy) = policy.map_or_else(|| Policy::default_for(state), Ok) {
            let _ = retention::apply(state, lock, &policy, now_ns, &[]);
        }
    }
}

impl Place {
    /// Lays out a fresh region. What was there was kept.
    pub(crate) fn lay_out(&self) -> Result<Region<RawMemory<'_>>, Error> {
        match self {
            Self::Own(own) => Ok(own.live.lay_out()?),
            Self::Given(taken) => taken.lay_out(),
            Self::Beside(beside) => beside.lay_out(),
        }
    }

    pub(crate) fn layout(&self) -> &Layout {
        match self {
            Self::Own(own) => own.live.layout(),
            Self::Given(taken) => taken.layout(),
            Self::Beside(beside) => beside.layout(),
        }
    }

    /// The instance's name.
    pub(crate) fn instance(&self) -> &str {
        match self {
            Self::Own(own) => &own.live.instance.name,
            Self::Given(taken) => taken.instance(),
            Self::Beside(beside) => beside.instance(),
        }
    }

    /// The file beside which a forked child puts its own, if it has a name here.
    pub(crate) fn path(&self) -> Option<&Path> {
        match self {
            Self::Own(own) => own.live.area.path(),
            Self::Given(taken) => taken.path(),
            Self::Beside(beside) => Some(beside.first()),
        }
    }

    /// The descriptors that hold the locks; -1 for none.
    pub(crate) fn locks(&self) -> [RawFd; 2] {
        match self {
            Self::Own(own) => {
                let area = own.live.area.descriptor();
                let area = area.map_or(-1, |area| area.as_raw_fd());
                [own.lock.as_fd().as_raw_fd(), area]
            }
            Self::Given(taken) => [taken.descriptor(), -1],
            Self::Beside(beside) => [beside.descriptor(), -1],
        }
    }

    /// What the run before left. Asked once: a descriptor goes with it.
    pub(crate) fn previous(&self) -> Option<Previous> {
        match self {
            Self::Own(own) => own.live.kept.clone().map(Previous::new),
            Self::Given(_) => handed::take(),
            // It is the first process's.
            Self::Beside(_) => None,
        }
    }

    /// Begins what is to be done behind the start; nothing for a supervisor's region, of which the
    /// giver does it, or one beside it.
    pub(crate) fn begin_rest(&'static self) -> Option<Background> {
        let Self::Own(own) = self else {
            return None;
        };
        let rest = own.rest();
        Some(Background::begin(move |is_ended| {
            own.live.mapping().advise_read_around();
            rest.run(&own.lock, is_ended);
        }))
    }
}

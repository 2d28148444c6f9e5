//! All CPUs of one host instance as one source.

use outlive_trace::cmdline::TraceClock;

use crate::cpus::{CpuId, online_cpus};
use crate::error::Error;
use crate::follower::{CpuFollower, EventCount, Progress, Unmapped};
use crate::instance::Instance;
use crate::reader::CpuReader;
use crate::sink::SubbufSink;

/// How a CPU's ring is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Access {
    /// Mapped and not consumed; read where the kernel refuses that.
    #[default]
    MapOrRead,
    /// Read, which consumes.
    Read,
}

/// The CPUs of one host instance.
#[derive(Debug)]
pub struct InstanceSource {
    instance: Instance,
    access: Access,
    cpus: Vec<(CpuId, CpuSource)>,
}

/// One CPU.
#[derive(Debug)]
enum CpuSource {
    Mapped(Box<CpuFollower>),
    Read(Box<CpuReader>),
    /// Another process has the ring; tried again by [`InstanceSource::tend`].
    Taken(Box<Unmapped>),
    /// The CPU was never up; tried again by [`InstanceSource::tend`].
    Absent,
}

impl InstanceSource {
    /// Opens the rings of all CPUs of an instance. Do so before its events are enabled.
    ///
    /// # Errors
    /// The instance's clock is too coarse, or a ring of a CPU that is up cannot be opened.
    pub fn open(instance: Instance, access: Access) -> Result<Self, Error> {
        let clock = instance.trace_clock()?;
        if TraceClock::from_name(&clock).is_some_and(TraceClock::is_coarse) {
            return Err(Error::ClockTooCoarse { clock });
        }
        let cpus = instance.cpus()?.into_iter();
        let cpus = cpus.map(|cpu| Ok((cpu, open_cpu(&instance, cpu, access)?)));
        let cpus = cpus.collect::<Result<_, Error>>()?;
        Ok(Self {
            instance,
            access,
            cpus,
        })
    }

    /// The instance.
    #[must_use]
    pub fn instance(&self) -> &Instance {
        &self.instance
    }

    /// Whether any CPU is read instead of mapped, so that events are consumed.
    #[must_use]
    pub fn is_consuming(&self) -> bool {
        self.cpus
            .iter()
            .any(|(_, source)| matches!(source, CpuSource::Read(_)))
    }

    /// What was delivered and lost, by CPU.
    pub fn counts(&self) -> impl Iterator<Item = (CpuId, EventCount)> {
        self.cpus.iter().map(|(cpu, source)| (*cpu, source.count()))
    }

    /// Delivers what is new on all CPUs.
    ///
    /// # Errors
    /// As [`CpuFollower::poll`], except that a disturbance is dealt with.
    pub fn poll(&mut self, sink: &mut impl SubbufSink) -> Result<SourceProgress, Error> {
        let mut all = SourceProgress::default();
        for (_, source) in &mut self.cpus {
            let progress = match source.poll(sink) {
                Err(Error::Disturbed { .. }) => {
                    source.map_again();
                    Progress::default()
                }
                result => result?,
            };
            all.merge(&SourceProgress::of_cpu(progress, source.ring_bytes()));
        }
        Ok(all)
    }

    /// Looks after what changes rarely, about once a second: CPUs that came up, and other
    /// processes that consume from the instance. One system call per CPU.
    ///
    /// # Errors
    /// As [`InstanceSource::open`].
    pub fn tend(&mut self) -> Result<(), Error> {
        for (cpu, source) in &mut self.cpus {
            match source {
                CpuSource::Mapped(follower) => match follower.check() {
                    Err(Error::Disturbed { .. }) => source.map_again(),
                    result => result?,
                },
                CpuSource::Taken(_) => source.take_back(),
                CpuSource::Absent => *source = open_cpu(&self.instance, *cpu, self.access)?,
                CpuSource::Read(_) => {}
            }
        }
        Ok(())
    }

    /// Delivers the rest and settles the counts, after recording was stopped. A count is `None`
    /// where somebody else took part in the instance.
    ///
    /// # Errors
    /// As [`InstanceSource::poll`]; and [`Error::Disturbed`] if another process has a CPU's ring, whose
    /// events are left in it.
    pub fn finish(
        &mut self,
        sink: &mut impl SubbufSink,
    ) -> Result<Vec<(CpuId, Option<EventCount>)>, Error> {
        self.cpus
            .iter_mut()
            .for_each(|(_, source)| source.take_back());
        self.poll(sink)?;
        // All of them, before an error of one is told.
        let counts: Vec<_> = self
            .cpus
            .iter_mut()
            .map(|(cpu, source)| Ok((*cpu, source.finish(sink)?)))
            .collect();
        counts.into_iter().collect()
    }
}

/// What one poll of all CPUs did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SourceProgress {
    /// The sum over the CPUs; caught up if all are.
    pub sum: Progress,
    /// The most that any CPU's ring had filled since the last poll, in percent of its size.
    pub fullest_percent: u64,
}

impl Default for SourceProgress {
    fn default() -> Self {
        let sum = Progress {
            is_caught_up: true,
            ..Progress::default()
        };
        Self {
            sum,
            fullest_percent: 0,
        }
    }
}

impl SourceProgress {
    /// Takes another's progress in.
    pub(crate) fn merge(&mut self, other: &Self) {
        self.sum.bytes += other.sum.bytes;
        self.sum.events += other.sum.events;
        self.sum.subbufs += other.sum.subbufs;
        self.sum.laps += other.sum.laps;
        self.sum.is_caught_up &= other.sum.is_caught_up;
        self.fullest_percent = self.fullest_percent.max(other.fullest_percent);
    }

    fn of_cpu(progress: Progress, ring_bytes: u64) -> Self {
        Self {
            sum: progress,
            fullest_percent: progress.bytes.saturating_mul(100) / ring_bytes.max(1),
        }
    }
}

impl CpuSource {
    fn poll(&mut self, sink: &mut impl SubbufSink) -> Result<Progress, Error> {
        match self {
            Self::Mapped(follower) => follower.poll(sink),
            Self::Read(reader) => reader.poll(sink),
            Self::Taken(_) | Self::Absent => Ok(Progress {
                is_caught_up: true,
                ..Progress::default()
            }),
        }
    }

    fn finish(&mut self, sink: &mut impl SubbufSink) -> Result<Option<EventCount>, Error> {
        match self {
            Self::Mapped(follower) => follower.finish(sink),
            Self::Read(reader) => reader.finish(sink).map(Some),
            // Its events stay in the host's ring, for the next start.
            Self::Taken(unmapped) => Err(Error::Disturbed {
                cpu: unmapped.cpu().0,
            }),
            Self::Absent => Ok(Some(EventCount::default())),
        }
    }

    fn count(&self) -> EventCount {
        match self {
            Self::Mapped(follower) => follower.count(),
            Self::Read(reader) => reader.count(),
            Self::Taken(unmapped) => unmapped.count(),
            Self::Absent => EventCount::default(),
        }
    }

    /// The ring's size where it is known, in bytes.
    fn ring_bytes(&self) -> u64 {
        match self {
            Self::Mapped(follower) => follower.ring_bytes(),
            Self::Read(_) | Self::Taken(_) | Self::Absent => u64::MAX,
        }
    }

    /// Maps a ring anew that another process consumed from. As long as that one still has it, the
    /// other CPUs go on without this one.
    fn map_again(&mut self) {
        *self = match std::mem::replace(self, Self::Absent) {
            Self::Mapped(follower) => Self::Taken(Box::new(follower.unmap())),
            other => other,
        };
        self.take_back();
    }

    fn take_back(&mut self) {
        *self = match std::mem::replace(self, Self::Absent) {
            Self::Taken(unmapped) => match unmapped.map() {
                Ok(follower) => Self::Mapped(Box::new(follower)),
                Err(failed) => Self::Taken(Box::new(failed.0)),
            },
            other => other,
        };
    }
}

/// Opens one CPU's ring. A CPU that is down may have none yet.
fn open_cpu(instance: &Instance, cpu: CpuId, access: Access) -> Result<CpuSource, Error> {
    match try_open_cpu(instance, cpu, access) {
        Err(_) if !online_cpus()?.contains(&cpu) => Ok(CpuSource::Absent),
        result => result,
    }
}

fn try_open_cpu(instance: &Instance, cpu: CpuId, access: Access) -> Result<CpuSource, Error> {
    if access == Access::MapOrRead {
        match CpuFollower::new(cpu, instance.open_raw(cpu)?, instance.stats(cpu)?) {
            Err(Error::MapRefused { .. }) => {}
            result => return Ok(CpuSource::Mapped(Box::new(result?))),
        }
    }
    let reader = CpuReader::new(cpu, instance.open_raw(cpu)?, instance.stats(cpu)?);
    Ok(CpuSource::Read(Box::new(reader)))
}

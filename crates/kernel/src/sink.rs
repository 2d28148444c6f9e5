//! Where followed sub-buffers go.

use crate::cpus::CpuId;

/// What became of a piece of a sub-buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Appended {
    /// It was taken; it has so many events.
    Counted(u64),
    /// It was taken, and its events were not counted.
    Uncounted,
    /// It was refused: its events are lost, and the sink has noted that without their number, which
    /// comes later by [`SubbufSink::settled`].
    Refused,
}

/// Takes the sub-buffers of all CPUs, each CPU's in order.
///
/// Per CPU the calls are `lost* begin append+ end`, again and again; `settled` may come at any
/// time, and `consuming` comes before all others. A sub-buffer may be open for long: its bytes come as the kernel commits them.
pub trait SubbufSink {
    /// What follows is consumed: once handed over, the kernel no longer has it. Otherwise the
    /// kernel's ring stays a second copy.
    fn consuming(&mut self, _cpu: CpuId) {}

    /// A sub-buffer begins. `time_stamp` is its header's, in units of the trace clock.
    fn begin(&mut self, cpu: CpuId, time_stamp: u64);

    /// More data bytes of the open sub-buffer, whole records, unchanged.
    fn append(&mut self, cpu: CpuId, bytes: &[u8]);

    /// As [`SubbufSink::append`], for a sink that walks over the records anyway, so that the events
    /// need not be counted again, or that may refuse them.
    fn append_counted(&mut self, cpu: CpuId, bytes: &[u8]) -> Appended {
        self.append(cpu, bytes);
        Appended::Uncounted
    }

    /// The open sub-buffer is finished: no more bytes will come for it.
    fn end(&mut self, cpu: CpuId);

    /// Events were lost between the last sub-buffer and the one that begins next. `None`: their
    /// number is not known yet and comes later by [`SubbufSink::settled`].
    fn lost(&mut self, cpu: CpuId, events: Option<u64>);

    /// The number of events that were lost at earlier calls of `lost` without a number.
    fn settled(&mut self, cpu: CpuId, events: u64);
}

//! A machine whose memory outlives its boots.
//!
//! The memory is a file without a name that each boot's QEMU maps; between two boots nobody has it, and
//! it is read and written as a file. That a boot is a new QEMU is not seen by the guest: the firmware
//! runs as after a reset, and leaves memory as it is.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::{Boot, Error, Kernel, Outcome, qemu};

/// Above this the firmware puts memory elsewhere.
const MEMORY_MAX_MIB: u64 = 3 << 10;

/// A machine.
#[derive(Debug)]
pub struct Machine {
    pub(crate) kernel: Kernel,
    pub(crate) cpus: u32,
    memory: File,
    memory_mib: u64,
}

impl Machine {
    /// A machine with some CPUs and MiB of memory, which is zero.
    ///
    /// # Errors
    /// No space for the memory.
    ///
    /// # Panics
    /// More than 3 GiB of memory: beyond, physical addresses are not offsets any more.
    pub fn new(kernel: Kernel, cpus: u32, memory_mib: u64) -> Result<Self, Error> {
        assert!(memory_mib <= MEMORY_MAX_MIB, "at most {MEMORY_MAX_MIB} MiB");
        Ok(Self {
            kernel,
            cpus,
            memory: memory_file(memory_mib)?,
            memory_mib,
        })
    }

    /// Runs the machine until the guest powers off or resets.
    ///
    /// # Errors
    /// The guest does not come back ([`Error::Hangs`], with its console), or QEMU does not run.
    pub fn boot(&mut self, boot: &Boot) -> Result<Outcome, Error> {
        qemu::run(self, boot)
    }

    /// Another kernel from the next boot on.
    pub fn set_kernel(&mut self, kernel: Kernel) {
        self.kernel = kernel;
    }

    /// The kernel.
    #[must_use]
    pub fn kernel(&self) -> &Kernel {
        &self.kernel
    }

    /// Reads physical memory, between two boots.
    ///
    /// # Errors
    /// [`Error::NoSuchMemory`].
    pub fn read(&self, address: u64, len: usize) -> Result<Vec<u8>, Error> {
        self.check(address, len)?;
        let mut bytes = vec![0; len];
        let read = self.memory.read_exact_at(&mut bytes, address);
        read.map_err(Error::io("cannot read", "the machine's memory"))?;
        Ok(bytes)
    }

    /// Writes physical memory, between two boots.
    ///
    /// # Errors
    /// [`Error::NoSuchMemory`].
    pub fn write(&mut self, address: u64, bytes: &[u8]) -> Result<(), Error> {
        self.check(address, bytes.len())?;
        let written = self.memory.write_all_at(bytes, address);
        written.map_err(Error::io("cannot write", "the machine's memory"))
    }

    fn check(&self, address: u64, len: usize) -> Result<(), Error> {
        let memory = self.memory_mib << 20;
        if address
            .checked_add(len as u64)
            .is_some_and(|end| end <= memory)
        {
            return Ok(());
        }
        Err(Error::NoSuchMemory {
            address,
            len,
            memory,
        })
    }

    /// Arguments that give QEMU the memory.
    pub(crate) fn memory_args(&self) -> [String; 4] {
        let path = format!(
            "/proc/{}/fd/{}",
            std::process::id(),
            self.memory.as_raw_fd()
        );
        let mib = self.memory_mib;
        [
            "-m".to_owned(),
            mib.to_string(),
            "-object".to_owned(),
            format!("memory-backend-file,id=ram,size={mib}M,mem-path={path},share=on"),
        ]
    }
}

/// A file for so many MiB of memory.
fn memory_file(memory_mib: u64) -> Result<File, Error> {
    // In memory where possible, or else all of it is written to a disk now and then.
    let shm = Path::new("/dev/shm");
    let folder = std::env::temp_dir();
    let folder = if shm.is_dir() { shm } else { &folder };
    let memory =
        tempfile::tempfile_in(folder).map_err(Error::io("cannot make a file in", folder))?;
    let resized = memory.set_len(memory_mib << 20);
    resized.map_err(Error::io("cannot make the memory in", folder))?;
    Ok(memory)
}

//! Memory that notes every store, so that a writer can be stopped after any of them.

use std::cell::RefCell;

use outlive_ring::{HeapMemory, Memory, MemoryMut};

/// One store of a word or a part of it: what a crash leaves whole or not at all.
#[derive(Debug, Clone, Copy)]
struct Store {
    offset: usize,
    bytes: [u8; 8],
    len: usize,
}

/// Memory that notes its stores.
#[derive(Debug)]
pub(crate) struct NotingMemory {
    memory: HeapMemory,
    stores: RefCell<Vec<Store>>,
}

impl NotingMemory {
    pub(crate) fn new(bytes: &[u8]) -> Self {
        Self {
            memory: HeapMemory::from_bytes(bytes),
            stores: RefCell::default(),
        }
    }

    /// Notes stores from here on only.
    pub(crate) fn forget(&self) {
        self.stores.borrow_mut().clear();
    }

    /// Stores so far.
    pub(crate) fn stores(&self) -> usize {
        self.stores.borrow().len()
    }

    /// The memory as it is now.
    pub(crate) fn now(&self) -> &HeapMemory {
        &self.memory
    }

    /// Does store number `index` to another memory.
    pub(crate) fn replay(&self, index: usize, memory: &HeapMemory) {
        let store = self.stores.borrow()[index];
        memory.write(store.offset, &store.bytes[..store.len]);
    }

    fn note(&self, offset: usize, bytes: &[u8]) {
        let mut store = Store {
            offset,
            bytes: [0; 8],
            len: bytes.len(),
        };
        store.bytes[..bytes.len()].copy_from_slice(bytes);
        self.stores.borrow_mut().push(store);
    }
}

impl Memory for NotingMemory {
    fn len(&self) -> usize {
        self.memory.len()
    }
    fn load_u32(&self, offset: usize) -> u32 {
        self.memory.load_u32(offset)
    }
    fn load_u64(&self, offset: usize) -> u64 {
        self.memory.load_u64(offset)
    }
    fn read(&self, offset: usize, out: &mut [u8]) {
        self.memory.read(offset, out);
    }
}

impl MemoryMut for NotingMemory {
    fn store_u32(&self, offset: usize, value: u32) {
        self.note(offset, &value.to_le_bytes());
        self.memory.store_u32(offset, value);
    }
    fn store_u64(&self, offset: usize, value: u64) {
        self.note(offset, &value.to_le_bytes());
        self.memory.store_u64(offset, value);
    }
    fn write(&self, offset: usize, bytes: &[u8]) {
        let mut done = 0;
        while done < bytes.len() {
            let at = offset + done;
            let len = (8 - at % 8).min(bytes.len() - done);
            self.note(at, &bytes[done..done + len]);
            done += len;
        }
        self.memory.write(offset, bytes);
    }
}

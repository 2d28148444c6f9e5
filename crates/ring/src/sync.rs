//! Fence and atomics of the protocols, which the model checker replaces by its own.
#![allow(
    unexpected_cfgs,
    reason = "`loom` is set by RUSTFLAGS alone, see tests/loom.rs"
)]

#[cfg(not(loom))]
pub(crate) use core::sync::atomic::{AtomicU32, compiler_fence, fence};
#[cfg(loom)]
pub(crate) use loom::sync::atomic::{AtomicU32, fence, fence as compiler_fence};

//! The fence, which the model checker replaces by its own.
#![allow(
    unexpected_cfgs,
    reason = "`loom` is set by RUSTFLAGS alone, see tests/loom.rs"
)]

#[cfg(not(loom))]
pub(crate) use core::sync::atomic::fence;
#[cfg(loom)]
pub(crate) use loom::sync::atomic::fence;

//! The peer: events of LTTng-UST with the same payload, from a library in this very process.

use std::ffi::{CStr, CString};
use std::os::unix::ffi::OsStrExt;

/// Records so many events.
pub(crate) type Record = extern "C" fn(u32);

/// The peer's library.
pub(crate) struct Peer {
    /// Events that may overwrite each other.
    pub(crate) ints: Record,
    /// Events that are looked for afterwards.
    pub(crate) kept: Record,
}

impl Peer {
    /// `None` if there is none to compare with.
    pub(crate) fn load() -> Option<Self> {
        let path = std::env::var_os("OUTLIVE_BENCH_LTTNG")?;
        let path = CString::new(path.as_bytes()).ok()?;
        // SAFETY: the path ends with a zero; the library's constructors are LTTng-UST's.
        let library = unsafe { libc::dlopen(path.as_ptr(), libc::RTLD_NOW) };
        assert!(!library.is_null(), "cannot load {path:?}");
        let find = |name: &CStr| {
            // SAFETY: a loaded library, and a name that ends with a zero.
            let function = unsafe { libc::dlsym(library, name.as_ptr()) };
            assert!(!function.is_null(), "{path:?} has no {name:?}");
            // SAFETY: peer.c declares them so, and the library stays loaded.
            unsafe { std::mem::transmute::<*mut libc::c_void, Record>(function) }
        };
        Some(Self {
            ints: find(c"peer_ints"),
            kept: find(c"peer_kept"),
        })
    }
}

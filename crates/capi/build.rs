//! Names the shared library as the loader of other programs looks for it: `liboutlive.so.0`. The
//! number changes when a program that was built with an older header would not work any more.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    let abi = env!("CARGO_PKG_VERSION_MAJOR");
    println!("cargo:rustc-cdylib-link-arg=-Wl,-soname,liboutlive.so.{abi}");
}

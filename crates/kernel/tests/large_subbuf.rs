//! Sub-buffers of ordinary instances larger than a page, read as the kernel hands them out.

use std::fs::OpenOptions;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use outlive_ring::raw_page::RawPage;

const TRACEFS: &str = "/sys/kernel/tracing";
/// Event id of a marker (`print`).
const PRINT: u16 = 5;

/// An instance of this test's own, removed when the test ends.
struct Instance(PathBuf);

impl Instance {
    fn make(name: &str) -> Result<Self, String> {
        let path = PathBuf::from(TRACEFS).join("instances").join(name);
        std::fs::create_dir(&path).map_err(|error| format!("no tracefs for us: {error}"))?;
        Ok(Self(path))
    }

    fn write(&self, file: &str, text: &str) {
        std::fs::write(self.0.join(file), text).unwrap();
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir(&self.0);
    }
}

#[test]
fn large_sub_buffers_of_the_kernel_hold_its_long_markers() {
    for order in [0, 1, 4, 7] {
        let name = format!("outlive-test-subbuf.{}.{order}", std::process::id());
        let instance = match Instance::make(&name) {
            Ok(instance) => instance,
            Err(why) => return println!("skipped: {why}"),
        };
        let page_bytes = 4096usize << order;
        instance.write("buffer_subbuf_size_kb", &(page_bytes / 1024).to_string());
        instance.write("buffer_size_kb", &(page_bytes / 1024 * 8).to_string());
        // The kernel cuts a marker at about 4 KiB (6.18, 7.3).
        let len = (page_bytes / 4).min(3900);
        let expected: Vec<String> = (0..40)
            .map(|i| format!("{i:03} {}\n", "x".repeat(len)))
            .collect();
        for marker in &expected {
            instance.write("trace_marker", marker);
        }
        instance.write("tracing_on", "0");
        let found = markers(&instance, page_bytes);
        // The oldest may be overwritten; the newest is there, and nothing else.
        assert!(found.len() > 3, "order {order}: {} markers", found.len());
        assert_eq!(
            found,
            expected[expected.len() - found.len()..],
            "order {order}"
        );
    }
}

/// The texts of all markers, in the order of time, from the raw pages of all CPUs.
fn markers(instance: &Instance, page_bytes: usize) -> Vec<String> {
    let mut found: Vec<(u64, String)> = Vec::new();
    for cpu in std::fs::read_dir(instance.0.join("per_cpu")).unwrap() {
        let path = cpu.unwrap().path().join("trace_pipe_raw");
        let nonblock = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
        let mut raw = OpenOptions::new()
            .read(true)
            .custom_flags(nonblock)
            .open(path)
            .unwrap();
        let mut bytes = vec![0; page_bytes];
        while let Ok(len) = raw.read(&mut bytes)
            && len > 0
        {
            bytes[len..].fill(0);
            let page = RawPage::parse(&bytes).unwrap();
            found.extend(page.events().map(Result::unwrap).filter_map(|event| {
                let id = u16::from_le_bytes([event.payload[0], event.payload[1]]);
                let text = event.payload[16..].split(|&byte| byte == 0).next()?;
                let text = String::from_utf8_lossy(text).into_owned();
                (id == PRINT).then_some((event.time_stamp, text))
            }));
        }
    }
    found.sort();
    found.into_iter().map(|(_, text)| text).collect()
}

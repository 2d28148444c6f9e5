//! How fast a full region of 100 MiB is recovered and read, beside a plain CRC32C pass over the same
//! bytes: `cargo run --release -p outlive-ring --example measure`.

use std::time::{Duration, Instant};

use outlive_ring::extension::Layout;
use outlive_ring::layout::SUBBUF_DATA;
use outlive_ring::{Events, Geometry, HeapMemory, Memory, Recovery, Region, crc32c};

const SIZE: u64 = 100 << 20;
const CPUS: u32 = 4;
const ROUNDS: usize = 7;

/// Fills every CPU's ring with events as long as those of the scheduler.
fn full_region(layout: Option<Layout>, geometry: Geometry) -> HeapMemory {
    let size = layout.map_or(geometry.size(), |layout| layout.area_size());
    let memory = HeapMemory::new(size as usize);
    let region = Region::format(&memory, geometry, layout).unwrap();
    for cpu in 0..CPUS {
        let mut writer = region.writer(cpu).unwrap();
        let events = u64::from(geometry.nr_subbufs()) * SUBBUF_DATA as u64 / 44;
        for i in 0..events {
            let len = [64, 28, 24, 56][i as usize % 4];
            let event = writer.reserve(len, 1_000_000 + i * 700).unwrap();
            writer.write(&event, 0, &i.to_le_bytes());
            writer.commit(event);
        }
    }
    memory
}

/// The shortest of some rounds: the others were disturbed.
fn best<T>(mut what: impl FnMut() -> T) -> Duration {
    (0..ROUNDS)
        .map(|_| {
            let start = Instant::now();
            std::hint::black_box(what());
            start.elapsed()
        })
        .min()
        .unwrap()
}

fn walk_all(recovery: &Recovery, memory: &HeapMemory) -> (u64, u64) {
    let (mut events, mut sum) = (0, 0);
    let mut buffer = [0; SUBBUF_DATA];
    for cpu in &recovery.cpus {
        for page in &cpu.pages {
            let data = page.read(&recovery.geometry, memory, cpu.cpu, &mut buffer);
            for event in Events::new(page.time_stamp, data).flatten() {
                events += 1;
                sum ^= event.time_stamp ^ u64::from(event.payload[0]);
            }
        }
    }
    (events, sum)
}

fn main() {
    let geometry = Geometry::new(SIZE, CPUS).unwrap();
    let sealed = full_region(Some(Layout::new(&geometry, 64 << 10, 1024)), geometry);
    let unsealed = full_region(None, geometry);
    let bytes = sealed.to_vec();
    let crc = best(|| crc32c(0, &bytes));
    let mut page = [0; 4096];
    let copy = best(|| {
        (0..bytes.len())
            .step_by(4096)
            .for_each(|at| sealed.read(at, &mut page))
    });
    let recovered = best(|| Recovery::new(&sealed).unwrap());
    let walked = best(|| Recovery::new(&unsealed).unwrap());
    let recovery = Recovery::new(&sealed).unwrap();
    let pages: usize = recovery.cpus.iter().map(|cpu| cpu.pages.len()).sum();
    let (events, _) = walk_all(&recovery, &sealed);
    let iterated = best(|| walk_all(&recovery, &sealed));
    let found = best(|| Geometry::find(&unsealed, SIZE).unwrap());
    let ms = |duration: Duration| duration.as_secs_f64() * 1000.0;
    let ratio = |duration: Duration| duration.as_secs_f64() / crc.as_secs_f64();
    println!("{SIZE} bytes, {CPUS} CPUs, {pages} sub-buffers, {events} events");
    println!("plain CRC32C pass      {:8.2} ms", ms(crc));
    println!(
        "copy by pages          {:8.2} ms  {:.2}",
        ms(copy),
        ratio(copy)
    );
    println!(
        "recovery, sealed       {:8.2} ms  {:.2}",
        ms(recovered),
        ratio(recovered)
    );
    println!(
        "recovery, unsealed     {:8.2} ms  {:.2}",
        ms(walked),
        ratio(walked)
    );
    println!("geometry by CPU blocks {:8.2} ms", ms(found));
    println!(
        "iteration              {:8.2} ms  {:.1} million events per second",
        ms(iterated),
        events as f64 / iterated.as_secs_f64() / 1e6
    );
}

//! Regions and raw pages of real kernels against what those kernels say of them
//! (`fixtures/README.md`, `fixtures/golden/README.md`).

mod support;

use outlive_ring::layout::{SUBBUF_DATA, SUBBUF_HEADER, SUBBUF_SIZE};
use outlive_ring::subbuf::{self, Commit, Events};
use outlive_ring::{Missed, PageBuilder, PageSource, Recovery, RegionFormat};
use support::{fixture, golden_region, kept_events, recover, stat, stats, stats_time};

/// A page of `trace_pipe_raw`: time stamp, commit, data up to the end of the page.
fn raw_pages(bytes: &[u8]) -> Vec<(u64, Commit, &[u8])> {
    bytes
        .chunks_exact(SUBBUF_SIZE)
        .map(|page| {
            let (time_stamp, commit) = subbuf::header(page.first_chunk().unwrap());
            (time_stamp, commit, &page[SUBBUF_HEADER..])
        })
        .collect()
}

fn assert_stats(recovery: &Recovery, cpu: u32, stats_name: &str) {
    let stats = stats(stats_name);
    let recovered = recovery.cpu(cpu);
    assert_eq!(recovered.entries, stat(&stats, "entries"), "{stats_name}");
    assert_eq!(recovered.bytes, stat(&stats, "bytes"), "{stats_name}");
    let oldest = recovered.oldest.map(stats_time).unwrap();
    assert_eq!(oldest, stats["oldest event ts"], "{stats_name}");
}

#[test]
fn golden_region_has_the_entries_that_the_kernel_finds_in_it() {
    for name in [
        "golden/2-region-256KiB-2cpu.bin.gz",
        "golden/4-nextboot-region-after-attach.bin.gz",
    ] {
        let (memory, recovery) = recover(&fixture(name));
        assert!(recovery.is_whole(), "{name}: {recovery:?}");
        assert_eq!(recovery.geometry.format(), RegionFormat::V6_16);
        for cpu in 0..2 {
            assert_stats(
                &recovery,
                cpu,
                &format!("golden/4-nextboot-backup-stats-cpu{cpu}.txt"),
            );
            let events = kept_events(&recovery, &memory, cpu);
            assert_eq!(events.len() as u64, recovery.cpu(cpu).entries);
            assert!(events.is_sorted_by_key(|event| event.time_stamp));
            assert_eq!(recovery.cpu(cpu).holes, []);
        }
    }
}

/// What the live kernel had consumed from the reader page comes back, and nothing else.
#[test]
fn golden_region_has_the_live_entries_and_those_read_from_the_reader_page() {
    let (_, recovery) = recover(&golden_region());
    for cpu in 0..2 {
        let live = stats(&format!("golden/3-live-stats-cpu{cpu}.txt"));
        let expected = stat(&live, "entries") + stat(&live, "read events");
        assert_eq!(recovery.cpu(cpu).entries, expected);
        assert_eq!(
            recovery.cpu(cpu).oldest.map(stats_time).unwrap(),
            live["oldest event ts"]
        );
    }
}

/// The kernel's reader page is position 0 of the index array; it is older than the ring's head.
#[test]
fn golden_pages_are_in_the_kernels_order() {
    let (_, recovery) = recover(&golden_region());
    let subbufs = |cpu: u32| -> Vec<u32> {
        let pages = &recovery.cpu(cpu).pages;
        pages.iter().map(|page| page.subbuf).collect()
    };
    assert_eq!(subbufs(0), [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]);
    let all_unsealed = recovery
        .cpus
        .iter()
        .flat_map(|cpu| &cpu.pages)
        .all(|page| page.source == PageSource::Unsealed && page.missed.is_none());
    assert!(all_unsealed);
}

#[test]
fn pages_read_from_the_kernel_hold_the_events_of_the_recovered_pages() {
    let (memory, recovery) = recover(&golden_region());
    for cpu in 0..2 {
        let raw = fixture(&format!("golden/5-nextboot-backup-raw-cpu{cpu}.bin.gz"));
        let raw = raw_pages(&raw);
        let pages = &recovery.cpu(cpu).pages;
        assert_eq!(raw.len(), pages.len());
        let mut buffer = [0; SUBBUF_DATA];
        for ((time_stamp, commit, data), page) in raw.into_iter().zip(pages) {
            let ours = page.read(&recovery.geometry, &memory, cpu, &mut buffer);
            let ours = Events::new(page.time_stamp, ours).map(Result::unwrap);
            let theirs = Events::new(time_stamp, &data[..commit.size()]).map(Result::unwrap);
            assert!(ours.eq(theirs), "sub-buffer {}", page.subbuf);
            assert_eq!(commit.missed(data), None);
        }
    }
}

#[test]
fn pages_of_an_ordinary_instance_tell_the_events_lost_before_them() {
    let stats = stats("golden/6-ordinary-overrun-stats.txt");
    let bytes = fixture("golden/6-ordinary-overrun-raw-cpu0.bin.gz");
    let pages = raw_pages(&bytes);
    let missed: Vec<_> = pages.iter().map(|(_, c, data)| c.missed(data)).collect();
    let lost = Missed::Events(stat(&stats, "overrun"));
    assert_eq!(missed, [Some(lost), None, None]);
    let entries: u32 = pages
        .iter()
        .map(|(time_stamp, commit, data)| {
            let summary = subbuf::walk(*time_stamp, &data[..commit.size()]);
            assert_eq!(summary.error, None);
            summary.entries
        })
        .sum();
    assert_eq!(u64::from(entries), stat(&stats, "entries"));
}

#[test]
fn regions_of_other_kernels_have_the_entries_that_those_kernels_find() {
    for (folder, instance, format) in [
        ("7.3.4-2cpu-1M", "backup", RegionFormat::V6_16),
        ("6.12.107-2cpu-1M", "boot_mapped", RegionFormat::V6_12),
    ] {
        let (memory, recovery) = recover(&fixture(&format!("{folder}/region.bin.gz")));
        assert_eq!(recovery.geometry.format(), format);
        assert_eq!(recovery.geometry.nr_cpus(), 2);
        assert!(recovery.is_whole(), "{folder}: {:?}", recovery.damage);
        for cpu in 0..2 {
            assert_stats(
                &recovery,
                cpu,
                &format!("{folder}/boot2/instances/{instance}/per_cpu/cpu{cpu}/stats"),
            );
            let events = kept_events(&recovery, &memory, cpu);
            assert!(events.is_sorted_by_key(|event| event.time_stamp));
        }
    }
}

#[test]
fn a_region_in_a_longer_or_padded_file_is_found() {
    let region = golden_region();
    let mut longer = region.clone();
    longer.resize(region.len() + 3 * 4096 + 100, 0);
    let (_, recovery) = recover(&longer);
    assert_eq!(recovery.entries(), 806 + 857);
}

/// The record types that the encoders write have the numbers of `header_event`.
#[test]
fn record_types_are_those_of_header_event() {
    let text = String::from_utf8(fixture("golden/0-header_event.txt")).unwrap();
    let number = |name: &str| {
        let line = text
            .lines()
            .find(|line| line.trim_start().starts_with(name));
        let number = line.unwrap().rsplit("== ").next().unwrap();
        number.trim().parse::<u8>().unwrap()
    };
    let record_type = |record: &[u8]| record[0] & 0x1f;
    assert_eq!(
        record_type(&subbuf::absolute_time_stamp(5)),
        number("time_stamp")
    );
    let mut builder = PageBuilder::default();
    // The longest payload with its length in the header, then one behind a time extend.
    let longest = 4 * usize::from(number("data max type_len"));
    assert!(builder.push(0, &vec![1; longest]));
    assert!(builder.push(1 << 40, &vec![1; longest + 4]));
    let data = &builder.finish()[SUBBUF_HEADER..];
    assert_eq!(usize::from(record_type(data)), longest / 4);
    let extend = &data[4 + longest..];
    assert_eq!(record_type(extend), number("time_extend"));
    assert_eq!(record_type(&extend[8..]), 0);
    assert!(text.contains("type_len    :    5 bits") && text.contains("time_delta  :   27 bits"));
}

/// The order of the sub-buffers, and the bytes in each, as the live kernel's `buffer_meta` had them.
#[test]
fn sub_buffers_are_in_the_order_of_buffer_meta() {
    let (_, recovery) = recover(&golden_region());
    for cpu in 0..2 {
        let text = fixture(&format!("golden/3-live-buffer_meta-cpu{cpu}.txt"));
        let text = String::from_utf8(text).unwrap();
        let field = |name: &str| {
            let rest = text.lines().find_map(|line| line.strip_prefix(name));
            rest.unwrap().trim().parse::<u32>().unwrap()
        };
        assert_eq!(field("subbuf_size:") as usize, SUBBUF_SIZE);
        assert_eq!(field("nr_subbufs:"), recovery.geometry.nr_subbufs());
        let buffers = text.lines().filter_map(|line| {
            let (_, rest) = line.strip_prefix("buffer[")?.split_once("]:")?;
            let (number, commit) = rest.split_once("(commit: ")?;
            let commit = commit.trim_end_matches(')').parse::<usize>().unwrap();
            Some((number.trim().parse::<u32>().unwrap(), commit))
        });
        let filled: Vec<_> = buffers.filter(|(_, commit)| *commit > 0).collect();
        let pages = recovery.cpu(cpu).pages.iter();
        let ours: Vec<_> = pages
            .map(|page| (page.subbuf, page.size as usize))
            .collect();
        assert_eq!(ours, filled, "CPU {cpu}");
        assert_eq!(filled.last().unwrap().0, field("commit_buffer:"));
        assert_eq!(filled[1].0, field("head_buffer:"));
    }
}

/// What the next boot's kernel says of the region is what is found in it.
#[test]
fn next_boots_console_and_last_boot_info_tell_what_is_recovered() {
    let (_, recovery) = recover(&golden_region());
    let console = String::from_utf8(fixture("golden/4-nextboot-console.txt")).unwrap();
    let size = format!(" of size {:#x}\n", recovery.geometry.size());
    assert!(console.contains(&size), "{console}");
    for cpu in 0..recovery.geometry.nr_cpus() {
        // Of the instance, and of its backup.
        let found = format!("Ring buffer meta [{cpu}] is from previous boot!\n");
        assert_eq!(console.matches(&found).count(), 2, "{console}");
    }
    let info = fixture("golden/4-nextboot-backup-last_boot_info.txt");
    let text_addr = recovery.scratch.unwrap().text_addr;
    let said = format!("{text_addr:x}\t[kernel]");
    assert_eq!(info.trim_ascii_end(), said.as_bytes());
}

//! Damages that have a name: what a crash, a bad cell, a torn write or an older kernel leaves.
//!
//! They are done to a region that has wrapped, so that every sub-buffer holds events. `page(k)` is the
//! sub-buffer of CPU 0 that is k-th from the head; the reader page is older than the head.

use outlive_ring::layout::SUBBUF_SIZE;
use outlive_ring::subbuf::DROPPED;

use super::base::Base;
use super::draft::{CACHE_LINE, Damage, Draft};

/// Bits 0..4 of a record's header.
const TYPE_BITS: u32 = 0x1f;

/// All of them, on `base`.
#[must_use]
pub fn named(base: &Base) -> Vec<Damage> {
    let none = Draft::new(base).finish("none", "none");
    let all = [
        words, lines, pages, crashes, pointers, index, records, times, regions,
    ];
    let some = all.iter().flat_map(|some| some(&Named { base }));
    std::iter::once(none).chain(some).collect()
}

struct Named<'b> {
    base: &'b Base,
}

impl<'b> Named<'b> {
    fn make(&self, kind: &'static str, name: &str, with: impl FnOnce(&mut Draft<'b>)) -> Damage {
        let mut draft = Draft::new(self.base);
        with(&mut draft);
        draft.finish(kind, name)
    }

    /// CPU 0's k-th sub-buffer from the head.
    fn page(&self, k: usize) -> (u32, u32) {
        (0, self.base.in_use(0)[k])
    }

    /// Offset of that one.
    fn at(&self, k: usize) -> usize {
        let (cpu, subbuf) = self.page(k);
        self.base.subbuf(cpu, subbuf)
    }

    fn pages(&self) -> usize {
        self.base.in_use(0).len()
    }

    fn commit_page(&self) -> (u32, u32) {
        self.page(self.pages() - 1)
    }

    fn reader(&self) -> (u32, u32) {
        (0, self.base.reader(0))
    }

    fn offset(&self, (cpu, subbuf): (u32, u32)) -> usize {
        self.base.subbuf(cpu, subbuf)
    }

    fn address(&self, (cpu, subbuf): (u32, u32)) -> u64 {
        self.base.address(cpu, subbuf)
    }

    /// Ring position of a sub-buffer of CPU 0.
    fn position(&self, (_, subbuf): (u32, u32)) -> u32 {
        let n = self.base.geometry.nr_subbufs();
        let mut positions = 0..n;
        let is_there = |&position: &u32| self.base.u32_at(self.base.index(0, position)) == subbuf;
        positions
            .find(is_there)
            .expect("each sub-buffer is in the index array")
    }

    /// Offset of the middle record of page `k`.
    fn record(&self, k: usize) -> usize {
        let (cpu, subbuf) = self.page(k);
        let records = self.base.records(cpu, subbuf);
        self.at(k) + records[records.len() / 2]
    }

    fn last_record(&self, k: usize) -> usize {
        let (cpu, subbuf) = self.page(k);
        self.at(k)
            + self
                .base
                .records(cpu, subbuf)
                .last()
                .expect("it has records")
    }
}

fn words(n: &Named<'_>) -> Vec<Damage> {
    let kind = "torn 8-byte words";
    let low = 0xffff_ffff;
    let (next, other) = (n.base.u64_at(n.at(6)), n.base.u64_at(n.at(2)));
    let (head, commit) = (n.base.head_buffer(0), n.base.commit_buffer(0));
    vec![
        n.make(kind, "time stamp: lower half of the next page's", |d| {
            d.set_bits(n.at(5), low, next);
        }),
        n.make(kind, "time stamp: lower half of an older page's", |d| {
            d.set_bits(n.at(5), low, other);
        }),
        n.make(kind, "time stamp: upper half zero", |d| {
            d.set_bits(n.at(5), !low, 0)
        }),
        n.make(kind, "time stamp: lower half zero", |d| {
            d.set_bits(n.at(5), low, 0)
        }),
        n.make(kind, "time stamp: upper half ones", |d| {
            d.set_bits(n.at(5), !low, !0)
        }),
        n.make(
            kind,
            "commit: upper half of the mark of a dropped page",
            |d| {
                d.u32(n.at(5) + 12, !0);
            },
        ),
        n.make(
            kind,
            "commit: lower half of the mark of a dropped page",
            |d| {
                d.u32(n.at(5) + 8, 0x8000_0000);
            },
        ),
        n.make(kind, "commit: low byte of an older commit", |d| {
            d.bytes(n.at(5) + 8, &[0x28])
        }),
        n.make(kind, "commit: second byte of an older commit", |d| {
            d.bytes(n.at(5) + 9, &[0x03])
        }),
        n.make(kind, "head address: upper half zero", |d| {
            d.set_bits(head, !low, 0)
        }),
        n.make(kind, "head address: lower half zero", |d| {
            d.set_bits(head, low, 0)
        }),
        n.make(kind, "commit address: upper half of another boot's", |d| {
            d.set_bits(commit, !low, 0xffff_8880 << 32);
        }),
        n.make(kind, "commit address: low two bytes zero", |d| {
            d.set_bits(commit, 0xffff, 0)
        }),
        n.make(kind, "first address: lower half of the next CPU's", |d| {
            let first = n.base.u64_at(n.base.first_buffer(1));
            d.set_bits(n.base.first_buffer(0), low, first);
        }),
    ]
}

fn lines(n: &Named<'_>) -> Vec<Damage> {
    let kind = "cache lines that were not written back";
    let lines = SUBBUF_SIZE / CACHE_LINE;
    vec![
        n.make(kind, "the header's line is an older page's", |d| {
            d.stale_line(n.page(5), n.page(1), 0)
        }),
        n.make(kind, "the header's line is the reader page's", |d| {
            d.stale_line(n.page(5), n.reader(), 0);
        }),
        n.make(kind, "the header's line is zero", |d| {
            d.fill(n.at(5), 0, CACHE_LINE)
        }),
        n.make(kind, "a line in the middle is an older page's", |d| {
            d.stale_line(n.page(5), n.page(1), lines / 2);
        }),
        n.make(kind, "the last line is an older page's", |d| {
            d.stale_line(n.page(5), n.page(1), lines - 1);
        }),
        n.make(kind, "a line in the middle is zero", |d| {
            d.fill(n.at(5) + SUBBUF_SIZE / 2, 0, CACHE_LINE);
        }),
        n.make(kind, "the last line is zero", |d| {
            d.fill(n.at(5) + SUBBUF_SIZE - CACHE_LINE, 0, CACHE_LINE);
        }),
        n.make(kind, "a line in the middle is ones", |d| {
            d.fill(n.at(5) + SUBBUF_SIZE / 2, 0xff, CACHE_LINE);
        }),
        n.make(kind, "two lines of a page swapped", |d| {
            let (a, b) = (n.at(5) + 10 * CACHE_LINE, n.at(5) + 20 * CACHE_LINE);
            d.copy(a, b, CACHE_LINE);
            d.copy(b, a, CACHE_LINE);
        }),
        n.make(kind, "every second line is an older page's", |d| {
            (0..lines)
                .step_by(2)
                .for_each(|line| d.stale_line(n.page(5), n.page(1), line));
        }),
        n.make(kind, "the commit page's last written line is zero", |d| {
            let at = n.offset(n.commit_page());
            let size = usize::try_from(n.base.u64_at(at + 8)).expect("a size") + 16;
            d.fill(at + size / CACHE_LINE * CACHE_LINE, 0, CACHE_LINE);
        }),
        n.make(
            kind,
            "the commit page's header line is of its last lap",
            |d| {
                d.stale_line(n.commit_page(), n.page(0), 0);
            },
        ),
        n.make(kind, "a line of each page is zero", |d| {
            (0..n.pages()).for_each(|k| d.fill(n.at(k) + (3 + k) * CACHE_LINE, 0, CACHE_LINE));
        }),
    ]
}

fn pages(n: &Named<'_>) -> Vec<Damage> {
    let kind = "pages torn, swapped, stale or gone";
    let half = SUBBUF_SIZE / 2;
    let other_cpu = (1, n.base.in_use(1)[5]);
    vec![
        n.make(kind, "second half is an older page's", |d| {
            d.copy(n.at(5) + half, n.at(1) + half, half)
        }),
        n.make(kind, "first half is an older page's", |d| {
            d.copy(n.at(5), n.at(1), half)
        }),
        n.make(kind, "second half is zero", |d| {
            d.fill(n.at(5) + half, 0, half)
        }),
        n.make(kind, "last 512 bytes are an older page's", |d| {
            d.copy(n.at(5) + 3584, n.at(1) + 3584, 512);
        }),
        n.make(kind, "first 512 bytes are zero", |d| {
            d.fill(n.at(5), 0, 512)
        }),
        n.make(
            kind,
            "a page holds its last lap (the reader page's contents)",
            |d| {
                d.copy_subbuf(n.page(5), n.reader());
            },
        ),
        n.make(kind, "the commit page holds its last lap", |d| {
            d.copy_subbuf(n.commit_page(), n.reader());
        }),
        n.make(kind, "two neighbours swapped", |d| {
            d.swap_subbufs(n.page(5), n.page(6))
        }),
        n.make(kind, "two distant pages swapped", |d| {
            d.swap_subbufs(n.page(2), n.page(9))
        }),
        n.make(kind, "head and commit page swapped", |d| {
            d.swap_subbufs(n.page(0), n.commit_page())
        }),
        n.make(kind, "reader and head page swapped", |d| {
            d.swap_subbufs(n.reader(), n.page(0))
        }),
        n.make(kind, "pages of two CPUs swapped", |d| {
            d.swap_subbufs(n.page(5), other_cpu)
        }),
        n.make(kind, "a page is there twice: over its successor", |d| {
            d.copy_subbuf(n.page(6), n.page(5));
        }),
        n.make(kind, "a page is there twice: over its predecessor", |d| {
            d.copy_subbuf(n.page(4), n.page(5));
        }),
        n.make(kind, "a page is there twice: over the commit page", |d| {
            d.copy_subbuf(n.commit_page(), n.page(5));
        }),
        n.make(kind, "a page is there twice: over the reader page", |d| {
            d.copy_subbuf(n.reader(), n.page(0));
        }),
        n.make(kind, "three pages zero", |d| {
            (4..7).for_each(|k| d.fill(n.at(k), 0, SUBBUF_SIZE))
        }),
        n.make(kind, "three pages ones", |d| {
            (4..7).for_each(|k| d.fill(n.at(k), 0xff, SUBBUF_SIZE))
        }),
        n.make(kind, "three pages dropped by an earlier attach", |d| {
            for k in 4..7 {
                d.u64(n.at(k), n.base.u64_at(n.at(3)));
                d.u64(n.at(k) + 8, DROPPED);
            }
        }),
        n.make(kind, "every second page zero, on both CPUs", |d| {
            for cpu in 0..2 {
                let pages = n.base.in_use(cpu);
                let every_second = pages.iter().step_by(2);
                every_second.for_each(|&page| d.fill(n.base.subbuf(cpu, page), 0, SUBBUF_SIZE));
            }
        }),
    ]
}

/// What the stores of 6.4 and 6.5 of the kernel's writer and reader leave when they are cut short.
fn crashes(n: &Named<'_>) -> Vec<Damage> {
    let kind = "crashes in the middle of the kernel's own steps";
    let (head, commit) = (n.base.head_buffer(0), n.base.commit_buffer(0));
    let index = |position| n.base.index(0, position);
    let reader = n.reader();
    let empty = |d: &mut Draft<'_>| {
        d.u64(n.offset(reader), 0);
        d.u64(n.offset(reader) + 8, 0);
    };
    let head_position = n.position(n.page(0));
    let swap = |d: &mut Draft<'_>| {
        d.u32(index(0), n.page(0).1);
        d.u32(index(head_position), reader.1);
    };
    let begun = n.page(0);
    vec![
        n.make(kind, "reader swap: old reader page emptied", |d| empty(d)),
        n.make(
            kind,
            "reader swap: new reader page stored, the ring's place not",
            |d| {
                empty(d);
                d.u32(index(0), n.page(0).1);
            },
        ),
        n.make(kind, "reader swap: both places stored, the head not", |d| {
            empty(d);
            swap(d);
        }),
        n.make(
            kind,
            "reader swap: done, but the emptied page's header was not written back",
            |d| {
                swap(d);
                d.u64(head, n.address(n.page(1)));
            },
        ),
        n.make(kind, "reader swap: done", |d| {
            empty(d);
            swap(d);
            d.u64(head, n.address(n.page(1)));
        }),
        n.make(kind, "head move: head stored, nothing else", |d| {
            d.u64(head, n.address(n.page(1)))
        }),
        n.make(
            kind,
            "head move: the next page emptied, its time stamp of the last lap",
            |d| {
                d.u64(head, n.address(n.page(1)));
                d.u64(n.offset(begun) + 8, 0);
            },
        ),
        n.make(
            kind,
            "head move: commit moved onto the next page, still empty",
            |d| {
                d.u64(head, n.address(n.page(1)));
                d.u64(n.offset(begun) + 8, 0);
                d.u64(commit, n.address(begun));
            },
        ),
        n.make(
            kind,
            "head move: commit moved, the page's header not written back",
            |d| {
                d.u64(head, n.address(n.page(1)));
                d.u64(commit, n.address(begun));
            },
        ),
        n.make(
            kind,
            "head not written back, the page behind it overwritten",
            |d| {
                d.u64(commit, n.address(begun));
                d.u64(n.offset(begun) + 8, 0);
            },
        ),
        n.make(
            kind,
            "CPU meta half written: index array zero from the middle",
            |d| {
                let n_subbufs = n.base.geometry.nr_subbufs();
                let middle = index(n_subbufs / 2);
                d.fill(middle, 0, 4 * (n_subbufs - n_subbufs / 2) as usize);
            },
        ),
        n.make(kind, "CPU meta half written: sizes missing", |d| {
            d.u64(commit + 8, 0)
        }),
        n.make(kind, "CPU meta half written: addresses missing", |d| {
            d.fill(n.base.first_buffer(0), 0, 24);
        }),
        n.make(kind, "CPU meta half written: head and commit zero", |d| {
            d.fill(head, 0, 16)
        }),
    ]
}

fn pointers(n: &Named<'_>) -> Vec<Damage> {
    let kind = "head and commit pointers";
    let (head, commit) = (n.base.head_buffer(0), n.base.commit_buffer(0));
    let last = n.pages() - 1;
    vec![
        n.make(kind, "head three later", |d| {
            d.u64(head, n.address(n.page(3)))
        }),
        n.make(kind, "head = commit page", |d| {
            d.u64(head, n.address(n.commit_page()))
        }),
        n.make(kind, "head and commit exchanged", |d| {
            d.u64(head, n.address(n.commit_page()));
            d.u64(commit, n.address(n.page(0)));
        }),
        n.make(kind, "commit three earlier", |d| {
            d.u64(commit, n.address(n.page(last - 3)))
        }),
        n.make(kind, "commit = head page", |d| {
            d.u64(commit, n.address(n.page(0)))
        }),
        n.make(kind, "commit = reader page, of a ring that wrapped", |d| {
            d.u64(commit, n.address(n.reader()));
        }),
        n.make(kind, "head and commit of the other CPU", |d| {
            d.copy(head, n.base.head_buffer(1), 16);
        }),
        n.make(kind, "head bit flip: eight pages on", |d| {
            d.flip(head + 1, 7)
        }),
        n.make(kind, "commit bit flip: one page on", |d| {
            d.flip(commit + 1, 4)
        }),
        n.make(kind, "commit misaligned by 16", |d| {
            d.u64(commit, n.address(n.commit_page()) + 16);
        }),
        n.make(kind, "head misaligned by 8", |d| {
            d.u64(head, n.address(n.page(0)) + 8)
        }),
    ]
}

fn index(n: &Named<'_>) -> Vec<Damage> {
    let kind = "the index array";
    let count = n.base.geometry.nr_subbufs();
    let index = |position| n.base.index(0, position);
    let stored = |position| n.base.u32_at(index(position));
    vec![
        n.make(kind, "rotated by one place", |d| {
            d.copy(index(1), index(2), 4 * (count as usize - 2));
            d.u32(index(count - 1), stored(1));
        }),
        n.make(kind, "reversed", |d| {
            (1..count).for_each(|position| d.u32(index(position), stored(count - position)));
        }),
        n.make(kind, "reset to the identity", |d| {
            (0..count).for_each(|position| d.u32(index(position), position));
        }),
        n.make(kind, "three places exchanged", |d| {
            d.u32(index(3), stored(7));
            d.u32(index(7), stored(11));
            d.u32(index(11), stored(3));
        }),
        n.make(kind, "reader and a ring place exchanged", |d| {
            d.u32(index(0), stored(5));
            d.u32(index(5), stored(0));
        }),
        n.make(kind, "two elements of a cache line lost", |d| {
            d.fill(index(4), 0, 8)
        }),
        n.make(kind, "an index there twice", |d| d.u32(index(6), stored(2))),
        n.make(kind, "an index bit flip out of range", |d| {
            d.flip(index(6) + 1, 3)
        }),
        n.make(kind, "all ones", |d| {
            d.fill(index(0), 0xff, 4 * count as usize)
        }),
        n.make(kind, "the other CPU's", |d| {
            d.copy(index(0), n.base.index(1, 0), 4 * count as usize);
        }),
    ]
}

fn records(n: &Named<'_>) -> Vec<Damage> {
    let kind = "event headers";
    let (at, header) = (n.record(5), n.base.u32_at(n.record(5)));
    let type_len = |d: &mut Draft<'_>, value: u32| d.u32(at, header & !TYPE_BITS | value);
    let small = header & TYPE_BITS;
    vec![
        n.make(kind, "an event became padding", |d| type_len(d, 29)),
        n.make(kind, "an event became a time extend", |d| type_len(d, 30)),
        n.make(kind, "an event became an absolute time stamp", |d| {
            type_len(d, 31)
        }),
        n.make(kind, "an event became one with a length word", |d| {
            type_len(d, 0)
        }),
        n.make(kind, "an event one word longer", |d| type_len(d, small + 1)),
        n.make(kind, "an event one word shorter", |d| {
            type_len(d, small - 1)
        }),
        n.make(kind, "an event's time delta all ones", |d| {
            d.u32(at, header | !TYPE_BITS)
        }),
        n.make(kind, "an event's time delta zero", |d| {
            d.u32(at, header & TYPE_BITS)
        }),
        n.make(kind, "an event's time delta one bit more", |d| {
            d.flip(at + 2, 4)
        }),
        n.make(kind, "an event's header zero", |d| d.u32(at, 0)),
        n.make(kind, "an event's header ones", |d| d.u32(at, !0)),
        n.make(kind, "the last event longer than the page", |d| {
            d.bytes(n.last_record(5), &[28])
        }),
        n.make(kind, "a padding without length", |d| d.u32(at, 29)),
        n.make(kind, "an event discarded afterwards", |d| {
            d.u32(at, header & !TYPE_BITS | 29);
            d.u32(at + 4, 4 * small);
        }),
        n.make(kind, "an absolute time stamp in the past", |d| {
            d.u32(at, 31 | 1 << 5);
            d.u32(at + 4, 1);
        }),
        n.make(kind, "an absolute time stamp in the far future", |d| {
            d.u32(at, 31);
            d.u32(at + 4, 0x0fff_ffff);
        }),
        n.make(kind, "a time extend of an hour", |d| {
            d.u32(at, 30);
            d.u32(at + 4, 26_822);
        }),
        n.make(
            kind,
            "entries of three events have negative pids and flags",
            |d| {
                let (cpu, subbuf) = n.page(5);
                let records = n.base.records(cpu, subbuf);
                records[10..13]
                    .iter()
                    .for_each(|at| d.fill(n.at(5) + at + 6, 0xff, 6));
            },
        ),
        n.make(kind, "a bit of each page's middle event", |d| {
            (0..n.pages() - 1).for_each(|k| d.flip(n.record(k) + 13, 2));
        }),
    ]
}

fn times(n: &Named<'_>) -> Vec<Damage> {
    let kind = "time stamps and commits of pages";
    let time = |k| n.base.u64_at(n.at(k));
    vec![
        n.make(kind, "two pages' time stamps exchanged", |d| {
            d.u64(n.at(5), time(6));
            d.u64(n.at(6), time(5));
        }),
        n.make(kind, "a page a second late, and all behind it", |d| {
            (5..n.pages()).for_each(|k| d.u64(n.at(k), time(k) + 1_000_000_000));
        }),
        n.make(kind, "a page a second early", |d| {
            d.u64(n.at(5), time(5) - 1_000_000_000)
        }),
        n.make(kind, "a page a second late", |d| {
            d.u64(n.at(5), time(5) + 1_000_000_000)
        }),
        n.make(kind, "a page 100 ns early", |d| {
            d.u64(n.at(5), time(5) - 100)
        }),
        n.make(kind, "all time stamps of a CPU zero", |d| {
            (0..n.pages()).for_each(|k| d.u64(n.at(k), 0));
        }),
        n.make(kind, "all time stamps of a CPU the same", |d| {
            (0..n.pages()).for_each(|k| d.u64(n.at(k), time(0)));
        }),
        n.make(kind, "the commit page's time stamp zero", |d| {
            d.u64(n.offset(n.commit_page()), 0)
        }),
        n.make(kind, "bit 62 of three time stamps", |d| {
            [2, 5, 8].iter().for_each(|&k| d.flip(n.at(k) + 7, 6));
        }),
        n.make(kind, "missed flag and a count behind the data", |d| {
            let (cpu, subbuf) = n.page(5);
            let cut = n
                .base
                .records(cpu, subbuf)
                .into_iter()
                .rev()
                .nth(2)
                .expect("three records");
            d.u64(n.at(5) + 8, 0xffff_ffff_c000_0000 | (cut as u64 - 16));
            d.u64(n.at(5) + cut, 17);
        }),
        n.make(kind, "missed flag without a count", |d| {
            d.u64(
                n.at(5) + 8,
                0xffff_ffff_8000_0000 | n.base.u64_at(n.at(5) + 8),
            );
        }),
        n.make(kind, "three commits one word short", |d| {
            (4..7).for_each(|k| d.u64(n.at(k) + 8, n.base.u64_at(n.at(k) + 8) - 4));
        }),
        n.make(kind, "the commit page's commit one event short", |d| {
            let (cpu, subbuf) = n.commit_page();
            let last = *n.base.records(cpu, subbuf).last().expect("records");
            d.u64(n.offset(n.commit_page()) + 8, last as u64 - 16);
        }),
        n.make(kind, "the commit page's commit one word more", |d| {
            let at = n.offset(n.commit_page()) + 8;
            d.u64(at, n.base.u64_at(at) + 4);
        }),
    ]
}

fn regions(n: &Named<'_>) -> Vec<Damage> {
    let kind = "the region as a whole";
    let len = n.base.region.len();
    let cut = |d: &mut Draft<'_>, from: usize, byte| d.fill(from, byte, len - from);
    let page = SUBBUF_SIZE;
    vec![
        n.make(kind, "written up to three quarters, the rest zero", |d| {
            cut(d, len / 4 * 3, 0)
        }),
        n.make(kind, "written up to half and a bit, the rest zero", |d| {
            cut(d, len / 2 + 1100, 0)
        }),
        n.make(kind, "written up to half, the rest ones", |d| {
            cut(d, len / 2, 0xff)
        }),
        n.make(kind, "first page ones", |d| d.fill(0, 0xff, page)),
        n.make(kind, "first three pages zero", |d| d.fill(0, 0, 3 * page)),
        n.make(kind, "both CPUs' metas zero", |d| {
            d.fill(n.base.first_buffer(0), 0, 32);
            d.fill(n.base.first_buffer(1), 0, 32);
        }),
        n.make(kind, "CPU 1's meta is CPU 0's", |d| {
            let n_subbufs = n.base.geometry.nr_subbufs() as usize;
            d.copy(
                n.base.first_buffer(1),
                n.base.first_buffer(0),
                32 + 4 * n_subbufs,
            );
        }),
        n.make(
            kind,
            "the 2 KiB behind the first 24 bytes ones (the scratch area)",
            |d| d.fill(24, 0xff, 2048),
        ),
        n.make(kind, "the second word doubled (the total size)", |d| {
            d.u64(8, 2 * len as u64)
        }),
        n.make(kind, "one bit of the magic", |d| d.flip(2, 5)),
        n.make(
            kind,
            "a head out of range, and a page of the other CPU torn",
            |d| {
                d.u64(n.base.head_buffer(0), 8);
                let other = n.base.subbuf(1, n.base.in_use(1)[4]);
                d.copy(other + page / 2, n.at(1) + page / 2, page / 2);
            },
        ),
        n.make(kind, "a bit of the index, a page of ones, a commit", |d| {
            d.flip(n.base.index(1, 4), 1);
            d.fill(n.at(3), 0xff, page);
            d.u64(n.at(8) + 8, 5000);
        }),
    ]
}

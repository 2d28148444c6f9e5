//! `per_cpu/cpuN/buffer_meta`: in which order the sub-buffers of a persistent ring lie.
//!
//! ```text
//! head_buffer:   7
//! commit_buffer: 6
//! subbuf_size:   4096
//! nr_subbufs:    30
//! buffer[0]:    0 (commit: 0)
//! ```
//!
//! Numbers are physical indices, which are the ids in a mapping of such a ring (seen on 6.18 and 7.3); up
//! to 7.1 there are no commits. Entry 0 is the reader page, the others are the ring.

use crate::subbuf::SubbufId;

/// What the file says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct BufferMeta {
    head: u32,
    commit: u32,
    /// The reader page, then the ring.
    buffers: Vec<u32>,
}

impl BufferMeta {
    /// Reads the text; `None` if it is of another form, or speaks of sub-buffers that are not there.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let field = |name: &str| {
            let rest = text.lines().find_map(|line| line.strip_prefix(name))?;
            rest.trim().parse::<u32>().ok()
        };
        let buffers: Vec<u32> = text.lines().filter_map(physical).collect();
        let this = Self {
            head: field("head_buffer:")?,
            commit: field("commit_buffer:")?,
            buffers,
        };
        let nr_subbufs = field("nr_subbufs:")?;
        let is_there = |&number: &u32| number < nr_subbufs;
        let is_whole = this.buffers.len() == nr_subbufs as usize
            && this.buffers.iter().all(is_there)
            && is_there(&this.head)
            && is_there(&this.commit);
        is_whole.then_some(this)
    }

    /// Sub-buffers, the reader page included.
    pub(super) fn nr_subbufs(&self) -> usize {
        self.buffers.len()
    }

    /// The sub-buffers that can have events, oldest first: the reader page, then from the head to the
    /// commit page.
    pub(super) fn in_order(&self) -> Vec<SubbufId> {
        let Some((&reader, ring)) = self.buffers.split_first() else {
            return Vec::new();
        };
        let mut order = vec![reader];
        if self.commit != reader
            && let Some(head) = ring.iter().position(|&number| number == self.head)
        {
            let around = ring[head..].iter().chain(&ring[..head]);
            let before_commit = around.take_while(|&&number| number != self.commit);
            order.extend(before_commit);
            order.push(self.commit);
        }
        order.into_iter().map(SubbufId).collect()
    }
}

/// The number behind `buffer[i]:`.
fn physical(line: &str) -> Option<u32> {
    let (_, rest) = line.strip_prefix("buffer[")?.split_once("]:")?;
    rest.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(head: u32, commit: u32, buffers: &[u32]) -> Option<Vec<u32>> {
        let mut text = format!(
            "head_buffer:   {head}\ncommit_buffer: {commit}\nsubbuf_size:   4096\nnr_subbufs:    {}\n",
            buffers.len()
        );
        for (i, number) in buffers.iter().enumerate() {
            text += &format!("buffer[{i}]:    {number} (commit: 4080)\n");
        }
        let meta = BufferMeta::parse(&text)?;
        Some(meta.in_order().into_iter().map(|id| id.0).collect())
    }

    #[test]
    fn sub_buffers_come_from_the_head_to_the_commit_page() {
        assert_eq!(order(1, 3, &[0, 1, 2, 3, 4]).unwrap(), [0, 1, 2, 3]);
        assert_eq!(order(4, 2, &[0, 1, 2, 3, 4]).unwrap(), [0, 4, 1, 2]);
        assert_eq!(order(2, 0, &[3, 1, 2, 0, 4]).unwrap(), [3, 2, 0]);
    }

    /// The files of a live 7.3.4 kernel; `crates/ring/tests/golden.rs` finds this order in its region.
    #[test]
    fn golden_files_are_read() {
        let golden = [
            (
                include_str!("../../../../fixtures/golden/3-live-buffer_meta-cpu0.txt"),
                11,
            ),
            (
                include_str!("../../../../fixtures/golden/3-live-buffer_meta-cpu1.txt"),
                12,
            ),
        ];
        for (text, commit) in golden {
            let meta = BufferMeta::parse(text).unwrap();
            assert_eq!(meta.nr_subbufs(), 30);
            let order = meta.in_order().into_iter().map(|id| id.0);
            assert!(order.eq(1..=commit), "{text}");
        }
    }

    #[test]
    fn nothing_of_the_ring_is_taken_when_the_reader_page_is_the_commit_page() {
        assert_eq!(order(1, 0, &[0, 1, 2]).unwrap(), [0]);
    }

    #[test]
    fn kernels_before_7_2_say_no_commits() {
        let text = "head_buffer:   1\ncommit_buffer: 2\nsubbuf_size:   4096\nnr_subbufs:    3\n\
                    buffer[0]:    0\nbuffer[1]:    1\nbuffer[2]:    2\n";
        assert_eq!(BufferMeta::parse(text).unwrap().in_order().len(), 3);
    }

    #[test]
    fn sub_buffers_that_are_not_there_are_refused() {
        assert_eq!(order(1, 3, &[0, 1, 2]), None);
        assert_eq!(order(1, 2, &[0, 1, 7]), None);
        assert_eq!(BufferMeta::parse(""), None);
    }
}

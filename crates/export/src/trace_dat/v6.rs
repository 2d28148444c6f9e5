//! Format 6: one part behind the other, without headers.
//!
//! Every buffer has a place for each CPU of the file, whether it has that CPU or not.

use super::content::Content;
use super::{
    Buffer, Piece, nr_cpus, option, place, push_magic, push_option, push_options, push_sized,
    push_text, v7,
};

/// What the part after the texts begins with.
const OPTIONS: &[u8; 10] = b"options  \0";
/// What the table of a buffer's data begins with.
const FLYRECORD: &[u8; 10] = b"flyrecord\0";

/// Texts, options, the table of the top instance, then those of the others, and the data.
pub(super) fn lay_out(content: &Content, buffers: &mut [Buffer]) -> Vec<Piece> {
    let mut head = Vec::new();
    push_magic(&mut head, "6");
    head.extend(v7::headers(content));
    head.extend(v7::ftrace(content));
    head.extend(v7::systems(content));
    head.extend(v7::sized_32(&content.kallsyms));
    head.extend(v7::sized_32(&content.printk_formats));
    head.extend(v7::cmdlines(content));
    let cpus = nr_cpus(buffers);
    head.extend_from_slice(&cpus.to_le_bytes());
    head.extend_from_slice(OPTIONS);
    push_options(&mut head, content, buffers);

    let tables = Tables::of(buffers, cpus, head.len());
    for (buffer, at) in tables.instances(buffers) {
        let mut data = at.to_le_bytes().to_vec();
        push_text(&mut data, &buffer.name);
        push_option(&mut head, option::BUFFER, &data);
    }
    head.extend_from_slice(&option::DONE.to_le_bytes());
    let cpus_of_all = buffers.iter_mut().flat_map(|buffer| &mut buffer.cpus);
    place(cpus_of_all, tables.end);
    let (top, instances): (Vec<_>, Vec<_>) = buffers.iter().partition(|b| b.name.is_empty());
    push_table(&mut head, top.first().copied(), cpus);
    for buffer in instances {
        push_table(&mut head, Some(buffer), cpus);
    }
    vec![(0, head)]
}

/// Where the tables are. How long each is does not depend on what is in it but for its clock's name.
struct Tables {
    /// Of the first instance that is not the top one.
    instances: u64,
    end: u64,
    cpus: u32,
}

impl Tables {
    /// Behind `options`, the bytes before the options that name the instances.
    fn of(buffers: &[Buffer], cpus: u32, options: usize) -> Self {
        let is_top = |buffer: &&Buffer| buffer.name.is_empty();
        let named = buffers.iter().filter(|buffer| !is_top(buffer));
        // Id, length, offset, name, NUL; and the id of the last option.
        let names: usize = named.clone().map(|b| 2 + 4 + 8 + b.name.len() + 1).sum();
        let top = (options + names + 2) as u64;
        let instances = top + table_len(buffers.iter().find(is_top), cpus);
        Self {
            instances,
            end: instances + named.map(|b| table_len(Some(b), cpus)).sum::<u64>(),
            cpus,
        }
    }

    fn instances<'b>(&self, buffers: &'b [Buffer]) -> impl Iterator<Item = (&'b Buffer, u64)> {
        let (mut at, cpus) = (self.instances, self.cpus);
        let named = buffers.iter().filter(|buffer| !buffer.name.is_empty());
        named.map(move |buffer| {
            let this = at;
            at += table_len(Some(buffer), cpus);
            (buffer, this)
        })
    }
}

/// The clock as `trace_clock` shows it when it is the only one.
fn clock(buffer: Option<&Buffer>) -> String {
    format!("[{}]", buffer.map_or("local", |buffer| buffer.clock))
}

fn table_len(buffer: Option<&Buffer>, cpus: u32) -> u64 {
    (FLYRECORD.len() + 8 + clock(buffer).len()) as u64 + 16 * u64::from(cpus)
}

fn push_table(out: &mut Vec<u8>, buffer: Option<&Buffer>, cpus: u32) {
    out.extend_from_slice(FLYRECORD);
    let of = |cpu| {
        let mut data = buffer.into_iter().flat_map(|buffer| &buffer.cpus);
        data.find(|data| data.cpu == cpu)
    };
    for cpu in 0..cpus {
        let (offset, len) = of(cpu).map_or((0, 0), |data| (data.offset, data.len()));
        out.extend_from_slice(&offset.to_le_bytes());
        out.extend_from_slice(&len.to_le_bytes());
    }
    push_sized(out, &clock(buffer));
}

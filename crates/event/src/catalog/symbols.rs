//! Kernel symbols: a sorted table of addresses, and its lookups.

use std::collections::BTreeMap;

use crate::digits::{push_0x, push_hex};
use crate::pointer::SymbolStyle;

/// Kernel symbols by address.
///
/// A whole kernel's table has hundreds of thousands of entries: they lie in one sorted vector,
/// their names in one arena. Single symbols, as a region's catalog has them, are kept in a tree,
/// so that adding them in any order stays cheap.
#[derive(Debug, Default, Clone)]
pub struct Symbols {
    /// From `kallsyms`, sorted by address, one entry per address.
    table: Vec<Entry>,
    /// Added one by one; these hide entries of `table` at the same address.
    added: BTreeMap<u64, Entry>,
    names: String,
    modules: Vec<String>,
    /// True if the kernel names data too (`CONFIG_KALLSYMS_ALL`). Else the few data symbols of
    /// `table` are bounds of sections, and the kernel shows what lies behind them as numbers.
    has_data: bool,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    address: u64,
    /// Bytes; 0 if unknown, then up to the next symbol.
    size: u32,
    name_start: u32,
    name_len: u16,
    /// Index into `modules` plus one; 0 for the kernel itself.
    module: u16,
    is_text: bool,
}

impl Entry {
    /// The bytes of a symbol of `kallsyms` that `next` follows; 0 if they are unknown.
    fn size_before(&self, next: Option<&Self>) -> u32 {
        let distance = next.map(|next| next.address - self.address);
        let is_last = match (next, distance) {
            (Some(next), Some(distance)) => {
                next.module != self.module || (self.module != 0 && distance > MAX_UNSIZED)
            }
            _ => self.module != 0,
        };
        let to_page_end = 2 * PAGE - self.address % PAGE;
        let size = match is_last {
            true => distance.map_or(to_page_end, |distance| distance.min(to_page_end)),
            false => distance.unwrap_or(0),
        };
        u32::try_from(size).unwrap_or(0)
    }
}

/// A symbol found by address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Symbol<'a> {
    /// Its first byte.
    pub address: u64,
    /// Its bytes; 0 if unknown.
    pub size: u64,
    /// Its name.
    pub name: &'a str,
    /// The module it belongs to; empty for the kernel itself.
    pub module: &'a str,
    /// True for code.
    pub is_text: bool,
}

/// A kernel that names data has far more than one data symbol in this many (half of all; one in
/// 1600 without, seen on Linux 6.18).
const LEAST_DATA: usize = 16;

/// A symbol without a known size covers at most this many bytes.
const MAX_UNSIZED: u64 = 1 << 20;

const PAGE: u64 = 4096;

impl Symbols {
    /// Number of symbols.
    #[must_use]
    pub fn len(&self) -> usize {
        self.unhidden().count() + self.added.len()
    }

    /// True if there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.table.is_empty() && self.added.is_empty()
    }

    /// Adds a symbol; one that was known at the same address is replaced.
    pub fn insert(&mut self, symbol: Symbol<'_>) {
        if let Some(entry) = self.entry(symbol) {
            self.added.insert(symbol.address, entry);
        }
    }

    /// Reads the text of `/proc/kallsyms`; what was known before is dropped.
    ///
    /// Of several names at one address the first counts, as in the kernel. A symbol ends where
    /// the next one begins; the last one of a module or of one of its sections at the end of the page
    /// after its first: what lies behind may be a module that is loaded later. Lines of another form are skipped, and so are zero addresses (the
    /// kernel hides them behind `kptr_restrict`).
    pub fn parse_kallsyms(&mut self, text: &str) {
        *self = Self::default();
        for line in text.lines() {
            if let Some(symbol) = kallsyms_line(line)
                && let Some(entry) = self.entry(symbol)
            {
                self.table.push(entry);
            }
        }
        self.table.sort_by_key(|e| e.address);
        self.table.dedup_by_key(|e| e.address);
        let data = self.table.iter().filter(|e| !e.is_text).count();
        self.has_data = data > self.table.len() / LEAST_DATA;
        for i in 0..self.table.len() {
            self.table[i].size = self.table[i].size_before(self.table.get(i + 1));
        }
        self.table.shrink_to_fit();
    }

    fn entry(&mut self, symbol: Symbol<'_>) -> Option<Entry> {
        let entry = Entry {
            address: symbol.address,
            size: u32::try_from(symbol.size).unwrap_or(0),
            name_start: u32::try_from(self.names.len()).ok()?,
            name_len: u16::try_from(symbol.name.len()).ok()?,
            module: self.module(symbol.module)?,
            is_text: symbol.is_text,
        };
        self.names.push_str(symbol.name);
        Some(entry)
    }

    fn module(&mut self, name: &str) -> Option<u16> {
        if name.is_empty() {
            return Some(0);
        }
        let found = self.modules.iter().rposition(|m| m == name);
        let index = found.unwrap_or(self.modules.len());
        if index == self.modules.len() {
            self.modules.push(name.to_owned());
        }
        u16::try_from(index + 1).ok()
    }

    /// All symbols in the order of their addresses.
    pub fn iter(&self) -> impl Iterator<Item = Symbol<'_>> {
        let mut all: Vec<&Entry> = self.unhidden().chain(self.added.values()).collect();
        all.sort_by_key(|e| e.address);
        all.into_iter().map(|e| self.symbol(e))
    }

    /// The entries of the table that no added symbol hides.
    fn unhidden(&self) -> impl Iterator<Item = &Entry> {
        self.table
            .iter()
            .filter(|e| !self.added.contains_key(&e.address))
    }

    /// The first symbol called `name`.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<Symbol<'_>> {
        let all = self.unhidden().chain(self.added.values());
        all.map(|e| self.symbol(e)).find(|s| s.name == name)
    }

    /// The symbol that `address` lies in, if the kernel itself would name it.
    #[must_use]
    pub fn lookup(&self, address: u64) -> Option<Symbol<'_>> {
        let after = self.table.partition_point(|e| e.address <= address);
        let from_table = after.checked_sub(1).and_then(|at| self.table.get(at));
        let added = self.added.range(..=address).next_back().map(|(_, e)| e);
        // Of two at the same address `max_by_key` takes the last.
        let entry = from_table
            .into_iter()
            .chain(added)
            .max_by_key(|e| e.address)?;
        let size = if entry.size == 0 {
            MAX_UNSIZED
        } else {
            u64::from(entry.size)
        };
        let is_named = entry.is_text || self.has_data;
        (is_named && address - entry.address < size).then(|| self.symbol(entry))
    }

    fn symbol(&self, entry: &Entry) -> Symbol<'_> {
        let start = entry.name_start as usize;
        let module = usize::from(entry.module).checked_sub(1);
        Symbol {
            address: entry.address,
            size: u64::from(entry.size),
            name: &self.names[start..start + usize::from(entry.name_len)],
            module: module
                .and_then(|i| self.modules.get(i))
                .map_or("", String::as_str),
            is_text: entry.is_text,
        }
    }

    /// Appends `address` as a symbol, or as a number if none covers it.
    pub(crate) fn push(&self, out: &mut Vec<u8>, address: u64, style: SymbolStyle) {
        let looked_up = address.wrapping_sub(u64::from(style == SymbolStyle::Backtrace));
        let Some(symbol) = self.lookup(looked_up) else {
            return push_0x(out, address);
        };
        out.extend_from_slice(symbol.name.as_bytes());
        if style != SymbolStyle::Name {
            out.push(b'+');
            push_0x(out, address - symbol.address);
            out.push(b'/');
            push_0x(out, symbol.size);
        }
        if !symbol.module.is_empty() {
            out.extend_from_slice(b" [");
            out.extend_from_slice(symbol.module.as_bytes());
            out.push(b']');
        }
    }

    /// Appends `address` as `name <address>`, as the kernel's `sym-addr` option does.
    pub(crate) fn push_address(out: &mut Vec<u8>, address: u64) {
        out.extend_from_slice(b" <");
        let start = out.len();
        push_hex(out, address);
        let pad = 16usize.saturating_sub(out.len() - start);
        out.resize(out.len() + pad, b'0');
        out[start..].rotate_right(pad);
        out.push(b'>');
    }
}

/// `ADDRESS TYPE NAME` or `ADDRESS TYPE NAME\t[MODULE]`.
fn kallsyms_line(line: &str) -> Option<Symbol<'_>> {
    let mut words = line.split_ascii_whitespace();
    let address = u64::from_str_radix(words.next()?, 16)
        .ok()
        .filter(|&a| a != 0)?;
    let letter = words.next()?;
    let name = words.next()?;
    let module = words
        .next()
        .map_or("", |m| m.trim_start_matches('[').trim_end_matches(']'));
    let is_text = matches!(letter, "t" | "T" | "w" | "W");
    Some(Symbol {
        address,
        size: 0,
        name,
        module,
        is_text,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const KALLSYMS: &str = "0000000000000000 A zero\n\
        ffffffff81000000 T first\n\
        ffffffff81000000 T alias\n\
        ffffffff81000010 t second\n\
        ffffffff81000030 D data\n\
        ffffffffc0201000 t in_module\t[ext4]\n";

    fn shown(address: u64, style: SymbolStyle) -> String {
        let mut symbols = Symbols::default();
        symbols.parse_kallsyms(KALLSYMS);
        let mut out = Vec::new();
        symbols.push(&mut out, address, style);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_first_name_at_an_address_counts() {
        assert_eq!(shown(0xffff_ffff_8100_0000, SymbolStyle::Name), "first");
        assert_eq!(
            shown(0xffff_ffff_8100_0018, SymbolStyle::Offset),
            "second+0x8/0x20"
        );
        assert_eq!(
            shown(0xffff_ffff_8100_0010, SymbolStyle::Backtrace),
            "first+0x10/0x10"
        );
        assert_eq!(
            shown(0xffff_ffff_c020_1000, SymbolStyle::Name),
            "in_module [ext4]"
        );
        assert_eq!(shown(0x1234, SymbolStyle::Name), "0x1234");
        assert_eq!(shown(0, SymbolStyle::Backtrace), "0x0");
    }

    #[test]
    fn data_is_named_only_if_the_kernel_names_its_data() {
        let code: String = (0..100)
            .map(|i| format!("{:x} t f{i}\n", 0x1000 + i * 16))
            .collect();
        let data: String = (0..50)
            .map(|i| format!("{:x} D d{i}\n", 0x9000 + i * 16))
            .collect();
        let at_0x9001 = |text: String| {
            let mut symbols = Symbols::default();
            symbols.parse_kallsyms(&text);
            symbols.lookup(0x9001).map(|s| s.name.to_owned())
        };
        assert_eq!(at_0x9001(format!("{code}{data}")).as_deref(), Some("d0"));
        assert_eq!(at_0x9001(format!("{code}9000 D __start_rodata\n")), None);
    }

    /// A module is loaded between two others, or behind them all: its addresses were those of the
    /// last function before.
    #[test]
    fn addresses_between_modules_are_of_none() {
        let mut symbols = Symbols::default();
        symbols.parse_kallsyms(
            "ffffffff81000000 T first\nffffffff81800000 T last\n\
             ffffffffc0200ff0 t a\t[x]\nffffffffc0201010 t b\t[x]\nffffffffc0501000 d data\t[x]\n\
             ffffffffc0600000 t c\t[y]\n",
        );
        let at = |address| symbols.lookup(address).map(|symbol| symbol.name);
        assert_eq!(at(0xffff_ffff_817f_ffff), Some("first"));
        assert_eq!(at(0xffff_ffff_8180_1fff), Some("last"));
        assert_eq!(at(0xffff_ffff_c000_0000), None);
        assert_eq!(at(0xffff_ffff_c020_100f), Some("a"));
        assert_eq!(at(0xffff_ffff_c020_2fff), Some("b"));
        assert_eq!(at(0xffff_ffff_c020_3000), None);
        assert_eq!(at(0xffff_ffff_c060_1fff), Some("c"));
        assert_eq!(at(0xffff_ffff_c060_2000), None);
    }

    #[test]
    fn a_later_symbol_replaces_an_earlier_one() {
        let mut symbols = Symbols::default();
        let symbol = Symbol {
            address: 16,
            size: 4,
            name: "a",
            module: "",
            is_text: true,
        };
        symbols.insert(Symbol {
            address: 32,
            ..symbol
        });
        symbols.insert(symbol);
        symbols.insert(Symbol {
            name: "b",
            ..symbol
        });
        assert_eq!(symbols.len(), 2);
        assert_eq!(symbols.lookup(17).unwrap().name, "b");
        assert_eq!(symbols.lookup(20), None);
    }
}

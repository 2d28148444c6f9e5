//! The running kernel's symbols and modules.
//!
//! `/proc/kallsyms` has some 10^5 lines. They are kept as sorted addresses and one string of names,
//! about a third of the file's size. Where `kptr_restrict` hides the addresses there are none.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use crate::error::Error;
use crate::tracefs::read_text;

/// The symbols of a kernel.
#[derive(Clone, Debug, Default)]
pub struct Kallsyms {
    /// Ascending by address; equal addresses in the file's order.
    symbols: Vec<Entry>,
    /// All names, one after the other.
    names: String,
    modules: Vec<String>,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    address: u64,
    name_start: u32,
    name_len: u16,
    /// 0 for the kernel itself, else 1 + the index of the module.
    module: u16,
}

/// A symbol and how far behind its beginning an address is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Symbol<'a> {
    /// The symbol's name.
    pub name: &'a str,
    /// The module that it is in, if any.
    pub module: Option<&'a str>,
    /// Its address.
    pub address: u64,
    /// Bytes from there to the address that was asked for.
    pub offset: u64,
}

impl Kallsyms {
    /// Reads `/proc/kallsyms`. `None` if the kernel hides the addresses from this process.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn read() -> Result<Option<Self>, Error> {
        let path = Path::new("/proc/kallsyms");
        let file = File::open(path).map_err(|e| Error::io("open", path, e))?;
        Self::parse(BufReader::new(file)).map_err(|e| Error::io("read", path, e))
    }

    /// Parses the lines of a `kallsyms` file; what is no symbol is left out.
    fn parse(mut reader: impl BufRead) -> Result<Option<Self>, std::io::Error> {
        let mut this = Self::default();
        let mut line = Vec::new();
        while reader.read_until(b'\n', &mut line)? != 0 {
            if let Some(line) = std::str::from_utf8(&line).ok().and_then(Line::parse) {
                this.add(&line);
            }
            line.clear();
        }
        if this.symbols.iter().all(|symbol| symbol.address == 0) {
            return Ok(None);
        }
        this.symbols.sort_by_key(|symbol| symbol.address);
        this.symbols.shrink_to_fit();
        this.names.shrink_to_fit();
        Ok(Some(this))
    }

    fn add(&mut self, line: &Line<'_>) {
        let name_start = u32::try_from(self.names.len());
        let (Ok(name_start), Ok(name_len), Some(module)) = (
            name_start,
            u16::try_from(line.name.len()),
            self.module_number(line.module),
        ) else {
            return; // More than 4 GiB of names, or 65535 modules: no kernel has these.
        };
        self.names.push_str(line.name);
        self.symbols.push(Entry {
            address: line.address,
            name_start,
            name_len,
            module,
        });
    }

    /// Symbols of a module stand together in the file, so the last one is nearly always right.
    fn module_number(&mut self, module: Option<&str>) -> Option<u16> {
        let Some(module) = module else { return Some(0) };
        let known = self.modules.iter().rposition(|known| known == module);
        let index = known.unwrap_or_else(|| {
            self.modules.push(module.to_owned());
            self.modules.len() - 1
        });
        u16::try_from(index + 1).ok()
    }

    /// The number of symbols.
    #[must_use]
    pub fn len(&self) -> usize {
        self.symbols.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.symbols.is_empty()
    }

    /// The symbol that an address lies in: the last one that begins at or before it, the first of
    /// several with one address.
    #[must_use]
    pub fn resolve(&self, address: u64) -> Option<Symbol<'_>> {
        let end = self
            .symbols
            .partition_point(|symbol| symbol.address <= address);
        let begin = self.symbols[end.checked_sub(1)?].address;
        let first = self
            .symbols
            .partition_point(|symbol| symbol.address < begin);
        let symbol = self.symbols.get(first)?;
        let start = symbol.name_start as usize;
        Some(Symbol {
            name: &self.names[start..start + usize::from(symbol.name_len)],
            module: usize::from(symbol.module)
                .checked_sub(1)
                .map(|index| &*self.modules[index]),
            address: begin,
            offset: address - begin,
        })
    }
}

/// One line: `ffffffff81000000 T _stext` or with `<TAB>[module]` behind.
struct Line<'a> {
    address: u64,
    name: &'a str,
    module: Option<&'a str>,
}

impl<'a> Line<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let mut fields = line.split_ascii_whitespace();
        let address = u64::from_str_radix(fields.next()?, 16).ok()?;
        let kind = fields.next()?;
        let name = fields.next()?;
        let module = fields
            .next()
            .and_then(|text| text.strip_prefix('[')?.strip_suffix(']'));
        // Absolute symbols are offsets (of per-CPU data), not addresses.
        let is_address = !kind.eq_ignore_ascii_case("a");
        is_address.then_some(Self {
            address,
            name,
            module,
        })
    }
}

/// A loaded module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Module {
    /// Its name.
    pub name: String,
    /// Its size, in bytes.
    pub size: u64,
    /// Where it begins; `None` where `kptr_restrict` hides it.
    pub address: Option<u64>,
}

/// The modules that are loaded, as `/proc/modules` lists them. A kernel without modules has none.
///
/// # Errors
/// The file is there but cannot be read.
pub fn loaded_modules() -> Result<Vec<Module>, Error> {
    match read_text(Path::new("/proc/modules")) {
        Ok(text) => Ok(text.lines().filter_map(parse_module).collect()),
        Err(e) if e.is_not_found() => Ok(Vec::new()),
        Err(e) => Err(e),
    }
}

/// `ext4 1146880 1 mbcache,jbd2, Live 0xffffffffc0400000`
fn parse_module(line: &str) -> Option<Module> {
    let fields: Vec<_> = line.split(' ').collect();
    let (name, size) = (fields.first()?, fields.get(1)?.parse().ok()?);
    let address = u64::from_str_radix(fields.get(5)?.strip_prefix("0x")?, 16).ok()?;
    Some(Module {
        name: (*name).to_owned(),
        size,
        address: (address != 0).then_some(address),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "0000000000001000 A per_cpu_thing\n\
        ffffffff81000000 T _stext\nffffffff81000000 T _text\nffffffff81000100 t do_it\n\
        not a line\nffffffffc0001000 t start\t[ext4]\nffffffffc0001010 t stop\t[ext4]\n";

    #[test]
    fn address_is_resolved_to_the_first_symbol_at_or_before_it() {
        let symbols = Kallsyms::parse(TEXT.as_bytes()).unwrap().unwrap();
        assert_eq!(symbols.len(), 5);
        let at = |address| {
            symbols
                .resolve(address)
                .map(|s| (s.name, s.offset, s.module))
        };
        assert_eq!(at(0xffff_ffff_8100_0000), Some(("_stext", 0, None)));
        assert_eq!(at(0xffff_ffff_8100_0104), Some(("do_it", 4, None)));
        assert_eq!(at(0xffff_ffff_c000_100f), Some(("start", 15, Some("ext4"))));
        assert_eq!(at(0x1000), None);
    }

    #[test]
    fn hidden_addresses_are_no_symbols() {
        let zero = "0000000000000000 T _stext\n0000000000000000 t start\t[ext4]\n";
        assert!(Kallsyms::parse(zero.as_bytes()).unwrap().is_none());
        assert!(Kallsyms::parse(&b""[..]).unwrap().is_none());
    }

    #[test]
    fn module_line_has_name_size_and_address() {
        let module = parse_module("ext4 1146880 1 mbcache,jbd2, Live 0xffffffffc0400000").unwrap();
        assert_eq!((module.name.as_str(), module.size), ("ext4", 1_146_880));
        assert_eq!(module.address, Some(0xffff_ffff_c040_0000));
        assert_eq!(
            parse_module("ext4 1 0 - Live 0x0000000000000000")
                .unwrap()
                .address,
            None
        );
        assert_eq!(parse_module("garbage"), None);
    }

    #[test]
    fn this_kernel_has_symbols_or_hides_them() {
        if let Some(symbols) = Kallsyms::read().unwrap() {
            assert!(symbols.len() > 1000);
        }
        loaded_modules().unwrap();
    }
}

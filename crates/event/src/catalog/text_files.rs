//! The texts of tracefs that tell names: `saved_cmdlines`, `saved_tgids`, `printk_formats`; and
//! `constants`, which is ours.

/// The lines `PID NAME` of `saved_cmdlines`. Names may contain spaces.
pub(crate) fn saved_cmdlines(text: &[u8]) -> impl Iterator<Item = (i32, &[u8])> {
    text.split(|&b| b == b'\n').filter_map(|line| {
        let space = line.iter().position(|&b| b == b' ')?;
        let pid = std::str::from_utf8(&line[..space]).ok()?.parse().ok()?;
        Some((pid, &line[space + 1..]))
    })
}

/// The lines `PID TGID` of `saved_tgids`.
pub(crate) fn saved_tgids(text: &str) -> impl Iterator<Item = (i32, i32)> {
    text.lines().filter_map(|line| {
        let (pid, tgid) = line.split_once(' ')?;
        Some((pid.parse().ok()?, tgid.trim().parse().ok()?))
    })
}

/// The lines `0xADDRESS : "STRING"` of `printk_formats`, escapes resolved.
pub(crate) fn printk_formats(text: &str) -> impl Iterator<Item = (u64, String)> {
    text.lines().filter_map(|line| {
        let (address, string) = line.split_once(" : ")?;
        let address = u64::from_str_radix(address.trim().strip_prefix("0x")?, 16).ok()?;
        let string = string.trim().strip_prefix('"')?.strip_suffix('"')?;
        Some((address, unescaped(string)))
    })
}

/// The lines `NAME = NUMBER` of `constants`; numbers are decimal, or hex with `0x`.
pub(crate) fn constants(text: &str) -> impl Iterator<Item = (&str, u64)> {
    text.lines().filter_map(|line| {
        let (name, value) = line.split_once(" = ")?;
        let value = match value.strip_prefix("0x") {
            Some(hex) => u64::from_str_radix(hex, 16).ok()?,
            None => value.parse::<i64>().ok()? as u64,
        };
        Some((name.trim(), value))
    })
}

/// `text` with the escapes that the kernel writes into `printk_formats` resolved.
fn unescaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            out.push(c);
            continue;
        }
        match chars.next() {
            Some('n') => out.push('\n'),
            Some('t') => out.push('\t'),
            Some(other) => out.push(other),
            None => out.push('\\'),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_may_contain_spaces() {
        let text = b"1 systemd\n3130 tokio runtime w\nbroken\n7 <...>\n";
        let found: Vec<_> = saved_cmdlines(text).collect();
        assert_eq!(
            found,
            [
                (1, &b"systemd"[..]),
                (3130, b"tokio runtime w"),
                (7, b"<...>")
            ]
        );
        assert_eq!(
            saved_tgids("3131 3130\nx\n").collect::<Vec<_>>(),
            [(3131, 3130)]
        );
    }

    #[test]
    fn constants_are_numbers_with_names() {
        let text = "HZ = 250\nA = -1\nvmemmap_base = 0xffffea0000000000\n# note\nB = x\n";
        let found: Vec<_> = constants(text).collect();
        let base = 0xffff_ea00_0000_0000;
        assert_eq!(
            found,
            [("HZ", 250), ("A", u64::MAX), ("vmemmap_base", base)]
        );
    }

    #[test]
    fn printk_formats_are_unescaped() {
        let text = "0xffffffff8281942f : \"a \\\"b\\\"\\n\"\n0xff : broken\n";
        let found: Vec<_> = printk_formats(text).collect();
        assert_eq!(found, [(0xffff_ffff_8281_942f, "a \"b\"\n".to_owned())]);
    }
}

//! The events of the system `ftrace`, which the kernel prints by code of its own.
//!
//! Observed on Linux 6.12, 6.18 and 7.3, except where a function says otherwise.

use super::{Formatter, binary_print};
use crate::catalog::Symbols;
use crate::ctype::IntType;
use crate::digits::{push_hex, push_padded, push_start, push_u64};
use crate::format::{EventFormat, Field};
use crate::pointer::{SymbolStyle, push_hex_bytes};
use crate::print_fmt::push_address;
use crate::record;

/// The last of the ids that a kernel gives to its own record types; ordinary events follow.
const LAST_STATIC: u16 = 20;

/// Those of them whose text is not their print format's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Static {
    Function,
    ContextSwitch,
    Wakeup,
    KernelStack,
    Print,
    Bprint,
    UserStack,
    Bputs,
    Timerlat,
    RawData,
    FuncRepeats,
}

impl Static {
    /// The names of their formats, and their ids since Linux 6.13, which a region without formats
    /// goes by. In 6.12 those behind `funcgraph_entry`, 11, are one less.
    const ALL: [(Self, &'static str, u16); 11] = [
        (Self::Function, "function", 1),
        (Self::ContextSwitch, "context_switch", 2),
        (Self::Wakeup, "wakeup", 3),
        (Self::KernelStack, "kernel_stack", 4),
        (Self::Print, "print", 5),
        (Self::Bprint, "bprint", 6),
        (Self::UserStack, "user_stack", 13),
        (Self::Bputs, "bputs", 15),
        (Self::Timerlat, "timerlat", 18),
        (Self::RawData, "raw_data", 19),
        (Self::FuncRepeats, "func_repeats", 20),
    ];

    fn of(id: u16, event: Option<&EventFormat>) -> Option<Self> {
        let is_it = |&&(_, name, known_id): &&(Self, &str, u16)| match event {
            Some(event) => event.system == "ftrace" && event.name == name,
            None => id == known_id,
        };
        Self::ALL.iter().find(is_it).map(|&(this, ..)| this)
    }
}

impl Formatter<'_> {
    /// Appends the text of a record that does not print by a print format; false if it does. `ts` is
    /// its time, if that is known.
    #[inline]
    pub(super) fn push_static(
        &self,
        out: &mut Vec<u8>,
        id: u16,
        event: Option<&EventFormat>,
        ts: Option<u64>,
        payload: &[u8],
    ) -> bool {
        if id <= LAST_STATIC
            && let Some(kind) = Static::of(id, event)
        {
            return self.push_kind(out, kind, event, ts, payload);
        }
        let syscall = event.filter(|_| !self.options.raw_fields);
        syscall.is_some_and(|e| self.push_syscall(out, e, payload))
    }

    fn push_kind(
        &self,
        out: &mut Vec<u8>,
        kind: Static,
        event: Option<&EventFormat>,
        ts: Option<u64>,
        payload: &[u8],
    ) -> bool {
        match kind {
            Static::Function => self.push_function(out, payload),
            Static::ContextSwitch => self.push_switch(out, payload, b"==>"),
            Static::Wakeup => self.push_switch(out, payload, b"  +"),
            Static::KernelStack => self.push_kernel_stack(out, event, payload),
            Static::Print => self.push_print(out, payload),
            Static::Bprint => self.push_bprint(out, payload),
            Static::UserStack => push_user_stack(out, event, payload),
            Static::Bputs => self.push_bputs(out, payload),
            Static::Timerlat => push_timerlat(out, payload),
            Static::RawData => push_raw_data(out, payload),
            Static::FuncRepeats => match ts {
                Some(ts) => self.push_repeats(out, ts, payload),
                None => return false,
            },
        }
        true
    }

    /// A symbol as the options `sym-offset` and `sym-addr` want it.
    fn push_symbol(&self, out: &mut Vec<u8>, address: u64) {
        let style = if self.options.sym_offset {
            SymbolStyle::Offset
        } else {
            SymbolStyle::Name
        };
        self.catalog.push_symbol(out, address, style);
        if self.options.sym_addr {
            Symbols::push_address(out, address);
        }
    }

    /// `function <-parent`.
    fn push_function(&self, out: &mut Vec<u8>, payload: &[u8]) {
        self.push_symbol(out, word(payload, 8));
        out.extend_from_slice(b" <-");
        self.push_symbol(out, word(payload, 16));
    }

    /// `function <-parent (repeats: N, last_ts: TIME)`. The record has how long before it the last
    /// repetition was: 48 bits, the upper 16 first.
    fn push_repeats(&self, out: &mut Vec<u8>, ts: u64, payload: &[u8]) {
        self.push_function(out, payload);
        out.extend_from_slice(b" (repeats: ");
        let short = |offset| record::load(payload, offset, IntType::new(2, false));
        push_u64(out, short(24));
        out.extend_from_slice(b", last_ts: ");
        let delta = short(26) << 32 | record::load(payload, 28, IntType::UINT);
        self.push_time(out, ts.wrapping_sub(delta));
        out.push(b')');
    }

    /// `prev_pid:prev_prio:prev_state ARROW [cpu] next_pid:next_prio:next_state comm`; after
    /// `Documentation/trace/ftrace.rst`, not seen on a kernel.
    fn push_switch(&self, out: &mut Vec<u8>, payload: &[u8], arrow: &[u8]) {
        let int = |offset| record::load(payload, offset, IntType::UINT);
        let byte = |offset| record::load(payload, offset, IntType::BYTE);
        let task = |out: &mut Vec<u8>, pid: u64, prio: u64, state: u64| {
            push_padded(out, pid, 7, b' ');
            out.push(b':');
            push_padded(out, prio, 3, b' ');
            out.push(b':');
            out.push(task_state(state));
        };
        out.push(b' ');
        task(out, int(8), byte(20), byte(21));
        out.push(b' ');
        out.extend_from_slice(arrow);
        out.extend_from_slice(b" [");
        push_padded(out, int(16), 3, b'0');
        out.extend_from_slice(b"] ");
        task(out, int(12), byte(22), byte(23));
        out.push(b' ');
        let (comm, len) = self.comm(int(12) as i32);
        push_start(out, comm, len);
    }

    /// `<stack trace>` and a line per caller; the stack ends at its size or at an address of
    /// all ones.
    fn push_kernel_stack(&self, out: &mut Vec<u8>, event: Option<&EventFormat>, payload: &[u8]) {
        out.extend_from_slice(b"<stack trace>\n");
        let size = record::load(payload, 8, IntType::UINT) as usize;
        for address in callers(event, payload)
            .take(size)
            .take_while(|&a| a != u64::MAX)
        {
            out.extend_from_slice(b" => ");
            self.push_symbol(out, address);
            out.push(b'\n');
        }
    }

    /// `symbol: text`, from `trace_marker` and `trace_printk` without arguments.
    fn push_print(&self, out: &mut Vec<u8>, payload: &[u8]) {
        self.push_symbol(out, word(payload, 8));
        out.extend_from_slice(b": ");
        out.extend_from_slice(record::until_nul(record::slice(payload, 16, usize::MAX)));
    }

    /// `symbol: text` of a string that lies in the kernel.
    fn push_bputs(&self, out: &mut Vec<u8>, payload: &[u8]) {
        self.push_symbol(out, word(payload, 8));
        out.extend_from_slice(b": ");
        push_string_at(out, self, word(payload, 16));
    }

    /// `symbol: text` of `trace_printk`, whose arguments the record holds in binary.
    fn push_bprint(&self, out: &mut Vec<u8>, payload: &[u8]) {
        self.push_symbol(out, word(payload, 8));
        out.extend_from_slice(b": ");
        let address = word(payload, 16);
        match self.catalog.printk_format(address) {
            Some(format) => {
                let arguments = record::slice(payload, 24, usize::MAX);
                binary_print::push(out, format, arguments, self.catalog);
            }
            None => push_string_at(out, self, address),
        }
    }

    /// System calls print as `sys_NAME(field: value, ...)` and `sys_NAME -> 0xVALUE`; false if
    /// `event` is none. Values below ten have no `0x`.
    fn push_syscall(&self, out: &mut Vec<u8>, event: &EventFormat, payload: &[u8]) -> bool {
        if event.system != "syscalls" {
            return false;
        }
        if let Some(name) = event.name.strip_prefix("sys_exit_") {
            out.extend_from_slice(b"sys_");
            out.extend_from_slice(name.as_bytes());
            out.extend_from_slice(b" -> 0x");
            push_hex(
                out,
                event
                    .field("ret")
                    .map_or(0, |f| word(payload, f.offset as usize)),
            );
            return true;
        }
        let Some(name) = event.name.strip_prefix("sys_enter_") else {
            return false;
        };
        out.extend_from_slice(b"sys_");
        out.extend_from_slice(name.as_bytes());
        out.push(b'(');
        let arguments = event
            .fields
            .iter()
            .filter(|f| f.name != "__syscall_nr" && f.size == 8);
        for (i, field) in arguments.enumerate() {
            if i > 0 {
                out.extend_from_slice(b", ");
            }
            out.extend_from_slice(field.name.as_bytes());
            out.extend_from_slice(b": ");
            push_argument(out, word(payload, field.offset as usize));
            push_pointed(out, event, &field.name, payload);
        }
        out.push(b')');
        true
    }
}

fn push_argument(out: &mut Vec<u8>, value: u64) {
    if value >= 10 {
        out.extend_from_slice(b"0x");
    }
    push_hex(out, value);
}

/// What the argument `name` points to, as Linux 7.3 records and prints it: a text, or bytes as hex
/// and as text. Earlier kernels have the address only.
fn push_pointed(out: &mut Vec<u8>, event: &EventFormat, name: &str, payload: &[u8]) {
    let is_copy = |f: &&Field| {
        let bare = f
            .name
            .strip_prefix("__")
            .and_then(|n| n.strip_suffix("_val"));
        bare == Some(name)
    };
    let Some(copy) = event.fields.iter().find(is_copy) else {
        return;
    };
    let bytes = record::dynamic(payload, copy.offset as usize, false);
    let as_array = event.print_fmt.split("__print_dynamic_array(").skip(1);
    if !as_array
        .into_iter()
        .any(|rest| rest.starts_with(&*copy.name))
    {
        out.extend_from_slice(b" \"");
        out.extend_from_slice(record::until_nul(bytes));
        return out.push(b'"');
    }
    out.extend_from_slice(b" (");
    push_hex_bytes(out, bytes, Some(b':'));
    out.extend_from_slice(b") \"");
    let shown = |b: &u8| if (b' '..=b'~').contains(b) { *b } else { b'.' };
    out.extend(bytes.iter().map(shown));
    out.push(b'"');
}

fn push_string_at(out: &mut Vec<u8>, formatter: &Formatter<'_>, address: u64) {
    match formatter.catalog.printk_format(address) {
        Some(text) => out.extend_from_slice(text.as_bytes()),
        None => {
            out.extend_from_slice(b"(0x");
            push_hex(out, address);
            out.push(b')');
        }
    }
}

fn word(payload: &[u8], offset: usize) -> u64 {
    record::load(payload, offset, IntType::ULONG)
}

/// The addresses of a stack, from the field `caller` to the end of the record.
fn callers<'p>(event: Option<&EventFormat>, payload: &'p [u8]) -> impl Iterator<Item = u64> + 'p {
    let offset = event
        .and_then(|e| e.field("caller"))
        .map_or(16, |f| f.offset as usize);
    let bytes = record::slice(payload, offset, usize::MAX);
    bytes
        .as_chunks::<8>()
        .0
        .iter()
        .map(|c| u64::from_le_bytes(*c))
}

/// Eight addresses of user space at most; the first zero ends them.
fn push_user_stack(out: &mut Vec<u8>, event: Option<&EventFormat>, payload: &[u8]) {
    out.extend_from_slice(b"<user stack trace>\n");
    for address in callers(event, payload)
        .take(8)
        .take_while(|&a| a != 0 && a != u64::MAX)
    {
        out.extend_from_slice(b" =>  <");
        push_address(out, address);
        out.extend_from_slice(b">\n");
    }
}

/// `# id buf: xx xx`: everything that was written to `trace_marker_raw`, and what the ring
/// buffer padded it with.
fn push_raw_data(out: &mut Vec<u8>, payload: &[u8]) {
    out.extend_from_slice(b"# ");
    push_hex(out, record::load(payload, 8, IntType::UINT));
    out.extend_from_slice(b" buf:");
    let bytes = record::slice(payload, 12, usize::MAX);
    if !bytes.is_empty() {
        out.push(b' ');
    }
    push_hex_bytes(out, bytes, Some(b' '));
}

/// After `Documentation/trace/timerlat-tracer.rst` (v6.18), not seen on a kernel.
fn push_timerlat(out: &mut Vec<u8>, payload: &[u8]) {
    out.push(b'#');
    let start = out.len();
    push_u64(out, record::load(payload, 8, IntType::UINT));
    let pad = 5usize.saturating_sub(out.len() - start);
    out.resize(out.len() + pad, b' ');
    let context: &[u8] = match record::load(payload, 12, IntType::UINT) {
        0 => b"   irq",
        1 => b"thread",
        _ => b"user-ret",
    };
    out.extend_from_slice(b" context ");
    out.extend_from_slice(context);
    out.extend_from_slice(b" timer_latency ");
    push_padded(out, word(payload, 16), 9, b' ');
    out.extend_from_slice(b" ns");
}

/// The letter of a task's state, from the index that the record holds.
fn task_state(index: u64) -> u8 {
    let letter = usize::try_from(index)
        .ok()
        .and_then(|i| b"RSDTtXZPI".get(i));
    letter.copied().unwrap_or(b'?')
}

#[cfg(test)]
mod tests {
    use crate::catalog::{Catalog, CatalogRecord};
    use crate::text::{Formatter, TextOptions};

    const SYSCALL: &str = "name: sys_enter_dup2\nID: 30\nformat:\n\
        \tfield:int __syscall_nr;\toffset:8;\tsize:4;\tsigned:1;\n\
        \tfield:unsigned int oldfd;\toffset:16;\tsize:8;\tsigned:0;\n\
        \tfield:unsigned int newfd;\toffset:24;\tsize:8;\tsigned:0;\n\n\
        print fmt: \"oldfd: 0x%08lx, newfd: 0x%08lx\", REC->oldfd, REC->newfd\n";

    fn text(id: u16, rest: &[u8]) -> String {
        let mut catalog = Catalog::new();
        catalog.add_format("syscalls", SYSCALL).unwrap();
        let records = [
            CatalogRecord::Symbol {
                address: 0x1000,
                size: 0x100,
                name: "f",
                module: "",
            },
            CatalogRecord::Symbol {
                address: 0x2000,
                size: 0x100,
                name: "g",
                module: "m",
            },
            CatalogRecord::PrintkFormat {
                address: 0x30,
                text: "n=%d s=%s\n",
            },
        ];
        records
            .iter()
            .for_each(|r| catalog.apply_record(r).unwrap());
        let mut payload = id.to_le_bytes().to_vec();
        payload.extend_from_slice(&[0; 6]);
        payload.extend_from_slice(rest);
        let mut out = Vec::new();
        Formatter::new(&catalog, TextOptions::default()).record(&mut out, 0, 0, &payload);
        String::from_utf8(out)
            .unwrap()
            .split_off("          <idle>-0       [000] .....     0.000000: ".len())
    }

    fn words(words: &[u64]) -> Vec<u8> {
        words.iter().flat_map(|w| w.to_le_bytes()).collect()
    }

    #[test]
    fn markers_print_their_text_after_the_writing_function() {
        let mut rest = words(&[0x1010]);
        rest.extend_from_slice(b"hello\n\0\0");
        assert_eq!(text(5, &rest), "f: hello\n");
        assert_eq!(text(5, &rest[..8]), "f: \n");
    }

    /// The ids of Linux 6.12, where those of most types are one less than later.
    #[test]
    fn formats_tell_which_id_is_of_which_type() {
        let mut catalog = Catalog::new();
        for (name, id) in [("user_stack", 12), ("raw_data", 18)] {
            let format = format!("name: {name}\nID: {id}\nformat:\n\nprint fmt: \"\"\n");
            catalog.add_format("ftrace", &format).unwrap();
        }
        let text = |id: u16, rest: &[u8]| {
            let payload = [&id.to_le_bytes()[..], &[0; 6], rest].concat();
            let mut out = Vec::new();
            Formatter::new(&catalog, TextOptions::default()).text(&mut out, &payload);
            String::from_utf8(out).unwrap()
        };
        assert_eq!(text(18, b"AAAA\xff\xfe\0\0"), "# 41414141 buf: ff fe 00 00");
        let stack = words(&[7, 0x7fb5_9fba_d353, 0]);
        assert_eq!(
            text(12, &stack),
            "<user stack trace>\n =>  <00007fb59fbad353>\n"
        );
    }

    #[test]
    fn raw_data_prints_bytes() {
        assert_eq!(
            text(19, b"AAAA\xff\xfe\0\0"),
            "# 41414141 buf: ff fe 00 00\n"
        );
        assert_eq!(text(19, b"AAAA"), "# 41414141 buf:\n");
    }

    #[test]
    fn stacks_end_at_their_size() {
        let stack = words(&[2, 0x1008, 0x2008, 0x1000]);
        assert_eq!(text(4, &stack), "<stack trace>\n => f\n => g [m]\n");
        let stack = words(&[7, 0x7fb5_9fba_d353, 0]);
        assert_eq!(
            text(13, &stack),
            "<user stack trace>\n =>  <00007fb59fbad353>\n"
        );
    }

    #[test]
    fn functions_and_binary_prints() {
        assert_eq!(text(1, &words(&[0x1000, 0x2000])), "f <-g [m]\n");
        let mut rest = words(&[0x1000, 0x30]);
        rest.extend_from_slice(&(-3i32).to_le_bytes());
        rest.extend_from_slice(b"str\0");
        assert_eq!(text(6, &rest), "f: n=-3 s=str\n");
        assert_eq!(text(15, &words(&[0x1000, 0x31])), "f: (0x31)\n");
    }

    /// Lines of a 7.3.4 kernel.
    #[test]
    fn what_arguments_point_to_follows_them() {
        let format = |print_fmt: &str| {
            format!(
                "name: sys_enter_write\nID: 30\nformat:\n\
                 \tfield:const char * buf;\toffset:8;\tsize:8;\tsigned:0;\n\
                 \tfield:__data_loc char[] __buf_val;\toffset:16;\tsize:4;\tsigned:0;\n\n\
                 print fmt: {print_fmt}\n"
            )
        };
        let line = |print_fmt: &str, bytes: &[u8]| {
            let mut catalog = Catalog::new();
            catalog.add_format("syscalls", &format(print_fmt)).unwrap();
            let mut payload = vec![30, 0, 0, 0, 0, 0, 0, 0];
            payload.extend_from_slice(&0x2da6_cf50u64.to_le_bytes());
            payload.extend_from_slice(&(20 | (bytes.len() as u32) << 16).to_le_bytes());
            payload.extend_from_slice(bytes);
            let mut out = Vec::new();
            Formatter::new(&catalog, TextOptions::default()).record(&mut out, 0, 0, &payload);
            String::from_utf8(out).unwrap()
        };
        let bytes = line("\"%s\", __print_dynamic_array(__buf_val, 1)", b"1\n");
        assert!(
            bytes.ends_with(": sys_write(buf: 0x2da6cf50 (31:0a) \"1.\")\n"),
            "{bytes}"
        );
        let text = line("\"%s\", __get_str(__buf_val)", b"/tmp/h\0");
        assert!(
            text.ends_with(": sys_write(buf: 0x2da6cf50 \"/tmp/h\")\n"),
            "{text}"
        );
    }

    #[test]
    fn system_calls_have_a_form_of_their_own() {
        assert_eq!(
            text(30, &words(&[33, 0xb, 1])),
            "sys_dup2(oldfd: 0xb, newfd: 1)\n"
        );
    }
}

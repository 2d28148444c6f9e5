//! From an expression to the predicate for one event: what the names mean, and how their bytes
//! compare.

use super::cpu_list::CpuSet;
use super::pattern::Pattern;
use super::predicate::{Node, Number, Predicate, TextOf};
use super::{
    Expr, FilterError, FilterErrorKind, FilterScope, Modifier, Operand, Operator, Spanned, Test,
};
use crate::ctype::IntType;
use crate::format::{EventFormat, Field, FieldKind};

type Compile<T> = Result<T, FilterError>;

pub(super) fn compile(
    expr: &Expr,
    event: &EventFormat,
    scope: &FilterScope<'_>,
) -> Compile<Predicate> {
    let root = Compiler { event, scope }.node(expr)?;
    Ok(Predicate { root })
}

struct Compiler<'a> {
    event: &'a EventFormat,
    scope: &'a FilterScope<'a>,
}

/// What a field's name means.
enum Meaning {
    Number(Number),
    Text(TextOf),
    CpuMask {
        offset: u32,
        is_relative: bool,
    },
    /// The address of a string that is not in the record.
    StringAddress,
    /// An array or a struct, of this type.
    Other(String),
}

impl Compiler<'_> {
    fn node(&self, expr: &Expr) -> Compile<Node> {
        let nodes = |all: &[Expr]| -> Compile<Box<[Node]>> {
            all.iter().map(|expr| self.node(expr)).collect()
        };
        Ok(match expr {
            Expr::All(all) => Node::All(nodes(all)?),
            Expr::Any(any) => Node::Any(nodes(any)?),
            Expr::Not(inner) => Node::Not(Box::new(self.node(inner)?)),
            Expr::Test(test) => self.test(test)?,
        })
    }

    fn test(&self, test: &Test) -> Compile<Node> {
        let meaning = self.meaning(&test.field)?;
        if let Some(modifier) = &test.modifier
            && modifier.is == Modifier::Function
        {
            return self.function(test, &meaning);
        }
        match meaning {
            Meaning::Number(number) => self.number(test, number),
            Meaning::Text(text) => text_node(test, text),
            Meaning::CpuMask {
                offset,
                is_relative,
            } => self.cpu_mask(test, offset, is_relative),
            Meaning::StringAddress => Err(at_field(
                test,
                FilterErrorKind::AddressOnly(test.field.is.clone()),
            )),
            Meaning::Other(type_name) => Err(not_comparable(test, type_name)),
        }
    }

    fn meaning(&self, name: &Spanned<String>) -> Compile<Meaning> {
        if let Some(field) = self.event.field(&name.is) {
            return Ok(self.field_meaning(field));
        }
        match &*name.is {
            "CPU" | "cpu" | "common_cpu" => Ok(Meaning::Number(Number::Cpu)),
            "COMM" | "comm" => Ok(Meaning::Text(TextOf::Comm)),
            _ => Err(FilterError {
                span: name.span.clone(),
                kind: FilterErrorKind::UnknownField(name.is.clone()),
            }),
        }
    }

    fn field_meaning(&self, field: &Field) -> Meaning {
        let (offset, len) = (field.offset, field.size);
        let word = |ty| Meaning::Number(Number::Word { offset, ty });
        match field.kind {
            FieldKind::Int(ty) => word(ty),
            FieldKind::Bool => word(IntType::BYTE),
            FieldKind::Pointer { to_char: false } => word(IntType::ULONG),
            FieldKind::Pointer { to_char: true } => self.pointed_string(field),
            FieldKind::String => Meaning::Text(TextOf::Fixed { offset, len }),
            FieldKind::Flexible {
                is_string: true, ..
            } => Meaning::Text(TextOf::Flexible { offset }),
            FieldKind::Dynamic {
                is_string: true,
                is_relative,
                ..
            } => Meaning::Text(TextOf::Dynamic {
                offset,
                is_relative,
            }),
            FieldKind::Dynamic { is_relative, .. } if field.type_name.contains("cpumask") => {
                Meaning::CpuMask {
                    offset,
                    is_relative,
                }
            }
            _ => Meaning::Other(field.type_name.clone()),
        }
    }

    /// From Linux 7.3 on (seen there) system calls record their strings in fields of their own:
    /// `filename` is the address, `__filename_val` the string.
    fn pointed_string(&self, field: &Field) -> Meaning {
        match self.event.field(&format!("__{}_val", field.name)) {
            Some(copy) => self.field_meaning(copy),
            None => Meaning::StringAddress,
        }
    }

    fn number(&self, test: &Test, number: Number) -> Compile<Node> {
        match &test.value.is {
            Operand::Number(_) if test.operator.is == Operator::Glob => Err(bad_operator(
                test,
                "numbers",
                "`==`, `!=`, `<`, `<=`, `>`, `>=` or `&`",
            )),
            Operand::Number(digits) => {
                let value = parse_number(digits, number.ty().signed);
                let value = value.ok_or_else(|| FilterError {
                    span: test.value.span.clone(),
                    kind: FilterErrorKind::Number(digits.clone()),
                })?;
                Ok(Node::Number {
                    number,
                    operator: test.operator.is,
                    value: number.ty().extend(value),
                })
            }
            Operand::Cpus(_) => Ok(Node::CpuNumber {
                number,
                operator: cpu_operator(test)?,
                set: self.cpu_set(test)?,
                nr_cpus: self.scope.nr_cpus,
            }),
            Operand::Text(_) | Operand::Function(_) => Err(at_value(
                test,
                FilterErrorKind::IsNumber(test.field.is.clone()),
            )),
        }
    }

    fn cpu_mask(&self, test: &Test, offset: u32, is_relative: bool) -> Compile<Node> {
        if !matches!(test.value.is, Operand::Cpus(_)) {
            return Err(at_value(test, FilterErrorKind::Expected("`CPUS{...}`")));
        }
        Ok(Node::CpuMask {
            offset,
            is_relative,
            operator: cpu_operator(test)?,
            set: self.cpu_set(test)?,
        })
    }

    fn cpu_set(&self, test: &Test) -> Compile<CpuSet> {
        let Operand::Cpus(list) = &test.value.is else {
            return Err(at_value(test, FilterErrorKind::Expected("`CPUS{...}`")));
        };
        let nr_cpus = self.scope.nr_cpus;
        CpuSet::parse(list, nr_cpus)
            .ok_or_else(|| at_value(test, FilterErrorKind::CpuList(list.clone(), nr_cpus)))
    }

    fn function(&self, test: &Test, meaning: &Meaning) -> Compile<Node> {
        let Meaning::Number(Number::Word { offset, ty }) = *meaning else {
            return Err(at_field(
                test,
                FilterErrorKind::NotAddress(test.field.is.clone()),
            ));
        };
        if ty.size != 8 {
            return Err(at_field(
                test,
                FilterErrorKind::NotAddress(test.field.is.clone()),
            ));
        }
        if !matches!(test.operator.is, Operator::Eq | Operator::NotEq) {
            return Err(bad_operator(test, "functions", "`==` or `!=`"));
        }
        let (start, end) = self.function_range(test)?;
        Ok(Node::Function {
            offset,
            start,
            end,
            is_inside: test.operator.is == Operator::Eq,
        })
    }

    /// First address of the function that is named, or that an address lies in, and the one
    /// behind its last.
    fn function_range(&self, test: &Test) -> Compile<(u64, u64)> {
        let (name, found) = match &test.value.is {
            Operand::Function(name) => (name, self.scope.symbols.find(name)),
            Operand::Number(digits) => {
                let address = parse_number(digits, false);
                (digits, address.and_then(|a| self.scope.symbols.lookup(a)))
            }
            _ => {
                let expected = FilterErrorKind::Expected("a function's name or an address");
                return Err(at_value(test, expected));
            }
        };
        let symbol =
            found.ok_or_else(|| at_value(test, FilterErrorKind::UnknownFunction(name.clone())))?;
        Ok((
            symbol.address,
            symbol.address.saturating_add(symbol.size.max(1)),
        ))
    }
}

fn text_node(test: &Test, text: TextOf) -> Compile<Node> {
    let Operand::Text(value) = &test.value.is else {
        return Err(at_value(
            test,
            FilterErrorKind::IsText(test.field.is.clone()),
        ));
    };
    let (pattern, is_equal) = match test.operator.is {
        Operator::Eq => (Pattern::whole(value), true),
        Operator::NotEq => (Pattern::whole(value), false),
        Operator::Glob => (Pattern::glob(value), true),
        _ => return Err(bad_operator(test, "texts", "`==`, `!=` or `~`")),
    };
    Ok(Node::Text {
        text,
        pattern,
        is_equal,
    })
}

fn cpu_operator(test: &Test) -> Compile<Operator> {
    match test.operator.is {
        operator @ (Operator::Eq | Operator::NotEq | Operator::And) => Ok(operator),
        _ => Err(bad_operator(test, "CPUs", "`==`, `!=` or `&`")),
    }
}

fn at_field(test: &Test, kind: FilterErrorKind) -> FilterError {
    FilterError {
        span: test.field.span.clone(),
        kind,
    }
}

fn at_value(test: &Test, kind: FilterErrorKind) -> FilterError {
    FilterError {
        span: test.value.span.clone(),
        kind,
    }
}

fn bad_operator(test: &Test, values: &'static str, expected: &'static str) -> FilterError {
    FilterError {
        span: test.operator.span.clone(),
        kind: FilterErrorKind::Operator {
            operator: test.operator.is.text(),
            values,
            expected,
        },
    }
}

fn not_comparable(test: &Test, type_name: String) -> FilterError {
    let field = test.field.is.clone();
    at_field(test, FilterErrorKind::NotComparable { field, type_name })
}

/// A number as C writes it: with `0x` hex, with `0` octal; negative only if the field is signed.
fn parse_number(text: &str, signed: bool) -> Option<u64> {
    let digits = text.strip_prefix('-');
    let is_negative = digits.is_some();
    let digits = digits.unwrap_or(text);
    let hex = digits.strip_prefix("0x").or(digits.strip_prefix("0X"));
    let (digits, radix) = match (hex, digits.strip_prefix('0')) {
        (Some(hex), _) => (hex, 16),
        (None, Some(octal)) if !octal.is_empty() => (octal, 8),
        _ => (digits, 10),
    };
    let magnitude = u64::from_str_radix(digits, radix).ok()?;
    match (signed, is_negative) {
        (true, true) => 0i64.checked_sub_unsigned(magnitude).map(|v| v as u64),
        (true, false) => i64::try_from(magnitude).ok().map(|v| v as u64),
        (false, false) => Some(magnitude),
        (false, true) => None,
    }
}

#[cfg(test)]
mod tests {
    use crate::catalog::{Symbol, Symbols};
    use crate::filter::{Filter, FilterErrorKind, FilterScope};
    use crate::format::EventFormat;

    const FORMAT: &str = "name: x\nID: 7\nformat:\n\
        \tfield:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;\n\
        \tfield:int common_pid;\toffset:4;\tsize:4;\tsigned:1;\n\n\
        \tfield:int prio;\toffset:8;\tsize:4;\tsigned:1;\n\
        \tfield:char name[4];\toffset:12;\tsize:4;\tsigned:0;\n\
        \tfield:__data_loc char[] path;\toffset:16;\tsize:4;\tsigned:0;\n\
        \tfield:__data_loc cpumask_t mask;\toffset:20;\tsize:4;\tsigned:0;\n\
        \tfield:void * ip;\toffset:24;\tsize:8;\tsigned:0;\n\
        \tfield:const char * user;\toffset:32;\tsize:8;\tsigned:0;\n\
        \tfield:__data_loc char[] __user_val;\toffset:40;\tsize:4;\tsigned:0;\n\
        \tfield:const char * other;\toffset:48;\tsize:8;\tsigned:0;\n\
        \tfield:u8 bytes[4];\toffset:56;\tsize:4;\tsigned:0;\n\
        \tfield:bool late;\toffset:60;\tsize:1;\tsigned:0;\n";

    fn record() -> Vec<u8> {
        let mut record = vec![7, 0, 0, 0, 42, 0, 0, 0];
        record.extend_from_slice(&(-5i32).to_le_bytes());
        record.extend_from_slice(b"abcd");
        record.extend_from_slice(&(64u32 | 5 << 16).to_le_bytes());
        record.extend_from_slice(&(69u32 | 2 << 16).to_le_bytes());
        record.extend_from_slice(&0x1010u64.to_le_bytes());
        record.extend_from_slice(&[0; 8]);
        record.extend_from_slice(&(64u32 | 5 << 16).to_le_bytes());
        record.resize(60, 0);
        record.extend_from_slice(&[1, 0, 0, 0]);
        record.extend_from_slice(b"/bin\0\x05\0");
        record
    }

    fn compiled(text: &str) -> Result<super::Predicate, FilterErrorKind> {
        let event = EventFormat::parse("t", FORMAT).unwrap();
        let mut symbols = Symbols::default();
        symbols.insert(Symbol {
            address: 0x1000,
            size: 0x20,
            name: "schedule",
            module: "",
            is_text: true,
        });
        let scope = FilterScope {
            symbols: &symbols,
            nr_cpus: 4,
        };
        let filter = Filter::parse(text).unwrap();
        filter.compile(&event, &scope).map_err(|e| e.kind)
    }

    /// Whether the filter keeps the record above, recorded on CPU 1 by `bash`.
    fn keeps(text: &str) -> bool {
        let comm = || *b"bash\0\0\0\0\0\0\0\0\0\0\0\0";
        compiled(text).unwrap().matches(&record(), 1, comm)
    }

    #[test]
    fn records_are_kept_as_the_kernel_keeps_them() {
        for text in [
            "prio == -5",
            "prio < 0",
            "prio <= -5",
            "prio > -6",
            "prio & 1",
            "prio != 5",
            "prio == -0x5",
            "prio == 0xfffffffb",
            "name == \"abcd\"",
            "name ~ 'a*'",
            "name ~ \"*d\"",
            "path == '/bin'",
            "path ~ '*in'",
            "path.ustring != '/etc'",
            "user ~ \"/b*\"",
            "user.ustring == '/bin'",
            "CPU == 1",
            "cpu < 2",
            "common_cpu & 1",
            "COMM == \"bash\"",
            "comm ~ 'ba*'",
            "common_pid == 42",
            "common_type == 7",
            "CPU & CPUS{0-1}",
            "CPU == CPUS{1}",
            "CPU != CPUS{0-1}",
            "mask & CPUS{2}",
            "mask == CPUS{0,2}",
            "mask != CPUS{0}",
            "late == 1",
            "ip == 0x1010",
            "ip.function == schedule",
            "ip.function == 0x1001",
            "!(prio == 1) && !prio == 2",
            "prio == 1 || prio == -5 && CPU == 1",
            "prio == 010 || prio == -05",
            "late == CPUS{1}",
        ] {
            assert!(keeps(text), "{text}");
            assert!(!keeps(&format!("!({text})")), "{text}");
        }
        for text in [
            "prio > 0",
            "prio & 0",
            "name == 'abc'",
            "name ~ 'b*'",
            "CPU == CPUS{0-1}",
            "mask == CPUS{0}",
            "mask & CPUS{1,3}",
            "ip.function != schedule",
            "common_pid == 41",
            // No CPU's number.
            "prio & CPUS{0}",
            "prio != CPUS{0}",
            "common_pid != CPUS{1}",
        ] {
            assert!(!keeps(text), "{text}");
        }
    }

    #[test]
    fn what_does_not_compare_is_an_error() {
        use FilterErrorKind::*;
        let error = |text: &str| compiled(text).unwrap_err();
        assert_eq!(error("nope == 1"), UnknownField("nope".into()));
        assert_eq!(error("prio == 'x'"), IsNumber("prio".into()));
        assert_eq!(error("name == 1"), IsText("name".into()));
        assert_eq!(error("ip == -1"), Number("-1".into()));
        assert_eq!(error("prio == 08"), Number("08".into()));
        assert_eq!(error("prio == 1a"), Number("1a".into()));
        assert_eq!(error("prio == 0x"), Number("0x".into()));
        assert_eq!(
            error("prio == 9223372036854775808"),
            Number("9223372036854775808".into())
        );
        assert_eq!(error("CPU & CPUS{4}"), CpuList("4".into(), 4));
        assert_eq!(error("CPU & CPUS{}"), CpuList(String::new(), 4));
        assert_eq!(error("other ~ 'x'"), AddressOnly("other".into()));
        assert_eq!(error("mask == 1"), Expected("`CPUS{...}`"));
        assert_eq!(error("ip.function == nope"), UnknownFunction("nope".into()));
        assert_eq!(
            error("prio.function == schedule"),
            NotAddress("prio".into())
        );
        assert!(matches!(error("bytes == 1"), NotComparable { .. }));
        for text in [
            "prio ~ 1",
            "name < 'a'",
            "CPU < CPUS{1}",
            "ip.function > schedule",
        ] {
            assert!(matches!(error(text), Operator { .. }), "{text}");
        }
    }

    #[test]
    fn short_records_read_as_zeros() {
        let comm = || [0; 16];
        let keeps = |text: &str| compiled(text).unwrap().matches(&[], 0, comm);
        assert!(keeps("prio == 0 && name == '' && path == '' && COMM == ''"));
        assert!(!keeps("mask & CPUS{0-3}") && keeps("ip.function != schedule"));
    }
}

//! Names for the arguments of watched calls, as their manual pages have them.

use serde_json::{Map, Value};
use vmaudit_common::call::{self, Call};

/// How an argument is written.
#[derive(Clone, Copy)]
enum Kind {
    /// Address or flags: hexadecimal.
    Hex,
    /// Length, count or number: decimal.
    Number,
}
use Kind::{Hex, Number};

/// Arguments by name: addresses and flags as hexadecimal strings, lengths as numbers.
pub fn by_name(call: Call, args: &[u64; 6]) -> Map<String, Value> {
    signature(call)
        .iter()
        .zip(args)
        .map(|((name, kind), value)| {
            let value = match kind {
                Hex => Value::String(format!("{value:#x}")),
                // File descriptors are ints: -1 is passed in 32 bits.
                Number if *name == "fd" => Value::from(*value as i32),
                Number => Value::from(*value),
            };
            ((*name).to_owned(), value)
        })
        .collect()
}

/// The arguments that a call takes, by name, and whether each is a number.
pub(crate) fn kinds(call: Call) -> impl Iterator<Item = (&'static str, bool)> {
    signature(call).iter().map(|(name, kind)| (*name, matches!(kind, Number)))
}

/// Takes addresses out of [`by_name`]'s answer; what is no flag may be one.
pub fn hide_addresses(args: &mut Map<String, Value>) {
    for (name, value) in args {
        if value.is_string() && !["prot", "flags", "mode", "op"].contains(&name.as_str()) {
            *value = Value::Null;
        }
    }
}

fn signature(call: Call) -> &'static [(&'static str, Kind)] {
    match call {
        call::MMAP => &[
            ("addr", Hex),
            ("len", Number),
            ("prot", Hex),
            ("flags", Hex),
            ("fd", Number),
            ("offset", Number),
        ],
        call::MUNMAP | call::MLOCK | call::MUNLOCK => &[("addr", Hex), ("len", Number)],
        call::MLOCK2 | call::MSEAL => &[("addr", Hex), ("len", Number), ("flags", Hex)],
        call::MPROTECT => &[("addr", Hex), ("len", Number), ("prot", Hex)],
        call::PKEY_MPROTECT => &[("addr", Hex), ("len", Number), ("prot", Hex), ("pkey", Number)],
        call::MREMAP => {
            &[("addr", Hex), ("old_len", Number), ("new_len", Number), ("flags", Hex), ("new_addr", Hex)]
        }
        call::BRK => &[("addr", Hex)],
        call::MADVISE => &[("addr", Hex), ("len", Number), ("advice", Number)],
        call::PROCESS_MADVISE => {
            &[("pidfd", Number), ("vec", Hex), ("vlen", Number), ("advice", Number), ("flags", Hex)]
        }
        call::MLOCKALL => &[("flags", Hex)],
        call::MBIND => &[
            ("addr", Hex),
            ("len", Number),
            ("mode", Hex),
            ("nodemask", Hex),
            ("maxnode", Number),
            ("flags", Hex),
        ],
        call::PRCTL => &[("op", Hex), ("arg2", Hex), ("addr", Hex), ("len", Number), ("arg5", Hex)],
        call::SHMAT => &[("shmid", Number), ("addr", Hex), ("flags", Hex)],
        call::REMAP_FILE_PAGES => {
            &[("addr", Hex), ("len", Number), ("prot", Hex), ("pgoff", Number), ("flags", Hex)]
        }
        call::CLONE => &[("flags", Hex), ("stack", Hex)],
        call::CLONE3 => &[("args", Hex), ("size", Number)],
        call::IO_SETUP => &[("nr_events", Number), ("ctxp", Hex)],
        call::SHMGET => &[("key", Hex), ("size", Number), ("flags", Hex)],
        call::SHMCTL => &[("shmid", Number), ("cmd", Number)],
        call::MSYNC => &[("addr", Hex), ("len", Number), ("flags", Hex)],
        call::MINCORE => &[("addr", Hex), ("len", Number), ("vec", Hex)],
        call::BPF => &[("cmd", Number), ("attr", Hex), ("size", Number)],
        call::USERFAULTFD => &[("flags", Hex)],
        call::IO_URING_SETUP => &[("entries", Number), ("params", Hex)],
        call::FORK | call::VFORK | call::MUNLOCKALL => &[],
        _ => &[("arg1", Hex), ("arg2", Hex), ("arg3", Hex), ("arg4", Hex), ("arg5", Hex), ("arg6", Hex)],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_hexadecimal_and_lengths_are_numbers() {
        let args = by_name(call::MUNMAP, &[0x7f00_0000_1000, 4096, 9, 9, 9, 9]);
        assert_eq!(args.get("addr"), Some(&Value::from("0x7f0000001000")));
        assert_eq!(args.get("len"), Some(&Value::from(4096)));
        assert_eq!(args.len(), 2);
        let args = by_name(call::MMAP, &[0, 4096, 3, 0x22, 0xffff_ffff, 0]);
        assert_eq!(args.get("fd"), Some(&Value::from(-1)));
        let mut args = args;
        hide_addresses(&mut args);
        assert_eq!((&args["addr"], &args["len"], &args["prot"]), (&Value::Null, &4096.into(), &"0x3".into()));
    }
}

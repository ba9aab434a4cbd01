//! Calls as strace writes them: names for what is a flag, NULL for no address.

use vmaudit_common::call::{self, Call};

use crate::domain::arguments;
use crate::model::cause::name_of;

/// Names of bits.
type Bits = &'static [(u64, &'static str)];

/// include/uapi/asm-generic/mman-common.h: the same on x86-64 and arm64.
const PROT: Bits = &[
    (0x1, "PROT_READ"),
    (0x2, "PROT_WRITE"),
    (0x4, "PROT_EXEC"),
    (0x8, "PROT_SEM"),
    (0x0100_0000, "PROT_GROWSDOWN"),
    (0x0200_0000, "PROT_GROWSUP"),
];
/// include/uapi/asm-generic/mman-common.h and mman.h, without the type and the size of huge pages.
const MAP: Bits = &[
    (0x10, "MAP_FIXED"),
    (0x20, "MAP_ANONYMOUS"),
    (0x100, "MAP_GROWSDOWN"),
    (0x800, "MAP_DENYWRITE"),
    (0x1000, "MAP_EXECUTABLE"),
    (0x2000, "MAP_LOCKED"),
    (0x4000, "MAP_NORESERVE"),
    (0x8000, "MAP_POPULATE"),
    (0x1_0000, "MAP_NONBLOCK"),
    (0x2_0000, "MAP_STACK"),
    (0x4_0000, "MAP_HUGETLB"),
    (0x8_0000, "MAP_SYNC"),
    (0x10_0000, "MAP_FIXED_NOREPLACE"),
];
/// arch/x86/include/uapi/asm/mman.h.
#[cfg(target_arch = "x86_64")]
const MAP_OF_ARCH: Bits = &[(0x40, "MAP_32BIT")];
#[cfg(not(target_arch = "x86_64"))]
const MAP_OF_ARCH: Bits = &[];
/// include/uapi/asm-generic/hugetlb_encode.h: the logarithm of the size stands there, in six bits.
const HUGE_SHIFT: u32 = 26;
/// include/uapi/linux/mman.h.
const MREMAP: Bits = &[(1, "MREMAP_MAYMOVE"), (2, "MREMAP_FIXED"), (4, "MREMAP_DONTUNMAP")];
/// include/uapi/asm-generic/mman.h.
const MLOCKALL: Bits = &[(1, "MCL_CURRENT"), (2, "MCL_FUTURE"), (4, "MCL_ONFAULT")];
/// include/uapi/linux/mman.h.
const MLOCK2: Bits = &[(1, "MLOCK_ONFAULT")];
/// include/uapi/linux/shm.h.
const SHMAT: Bits =
    &[(0o10000, "SHM_RDONLY"), (0o20000, "SHM_RND"), (0o40000, "SHM_REMAP"), (0o100000, "SHM_EXEC")];
/// include/uapi/asm-generic/mman-common.h.
const MADVISE: [(u64, &str); 23] = [
    (0, "MADV_NORMAL"),
    (1, "MADV_RANDOM"),
    (2, "MADV_SEQUENTIAL"),
    (3, "MADV_WILLNEED"),
    (4, "MADV_DONTNEED"),
    (8, "MADV_FREE"),
    (9, "MADV_REMOVE"),
    (10, "MADV_DONTFORK"),
    (11, "MADV_DOFORK"),
    (12, "MADV_MERGEABLE"),
    (13, "MADV_UNMERGEABLE"),
    (14, "MADV_HUGEPAGE"),
    (15, "MADV_NOHUGEPAGE"),
    (16, "MADV_DONTDUMP"),
    (17, "MADV_DODUMP"),
    (18, "MADV_WIPEONFORK"),
    (19, "MADV_KEEPONFORK"),
    (20, "MADV_COLD"),
    (21, "MADV_PAGEOUT"),
    (22, "MADV_POPULATE_READ"),
    (23, "MADV_POPULATE_WRITE"),
    (25, "MADV_COLLAPSE"),
    (102, "MADV_GUARD_INSTALL"),
];

/// `mmap(NULL, 4096, PROT_READ, MAP_SHARED, 4, 535216128)`. `hidden`: addresses are not the reader's to know, and a
/// question mark stands for each.
pub fn call(call: Call, args: &[u64; 6], hidden: bool) -> String {
    let parts: Vec<String> = arguments::kinds(call)
        .zip(args)
        .map(|((name, is_number), value)| argument(call, name, is_number, *value, hidden))
        .collect();
    format!("{}({})", name_of(call), parts.join(", "))
}

fn argument(call: Call, name: &str, is_number: bool, value: u64, hidden: bool) -> String {
    match (call, name) {
        (_, "prot") if value == 0 => "PROT_NONE".into(),
        (_, "prot") => bits(value, &[PROT]),
        (call::MMAP, "flags") => map_flags(value),
        (call::MREMAP, "flags") => bits(value, &[MREMAP]),
        (call::MLOCKALL, "flags") => bits(value, &[MLOCKALL]),
        (call::MLOCK2, "flags") => bits(value, &[MLOCK2]),
        (call::SHMAT, "flags") => bits(value, &[SHMAT]),
        (call::MADVISE | call::PROCESS_MADVISE, "advice") => {
            let known = MADVISE.iter().find(|(number, _)| *number == value);
            known.map_or_else(|| number(value), |(_, name)| (*name).to_owned())
        }
        // Ints are passed in 32 bits.
        (_, "fd" | "pidfd" | "shmid" | "pkey") => (value as i32).to_string(),
        _ if is_number => value.to_string(),
        (_, "flags" | "mode" | "op") => format!("{value:#x}"),
        _ if hidden => "?".into(),
        _ if value == 0 => "NULL".into(),
        _ => format!("{value:#x}"),
    }
}

/// The kernel takes an int of it.
fn number(value: u64) -> String {
    (value as i32).to_string()
}

fn map_flags(value: u64) -> String {
    let kind = match value & 0xf {
        0x1 => "MAP_SHARED".to_owned(),
        0x2 => "MAP_PRIVATE".to_owned(),
        0x3 => "MAP_SHARED_VALIDATE".to_owned(),
        0x8 => "MAP_DROPPABLE".to_owned(),
        other => format!("{other:#x}"),
    };
    let size = (value >> HUGE_SHIFT) & 0x3f;
    let rest = value & !0xf & !(0x3f << HUGE_SHIFT);
    let mut parts = vec![kind];
    if rest != 0 {
        parts.push(bits(rest, &[MAP, MAP_OF_ARCH]));
    }
    if size != 0 {
        parts.push(format!("{size}<<MAP_HUGE_SHIFT"));
    }
    parts.join("|")
}

/// What has no name stands as a number behind those that have.
fn bits(value: u64, tables: &[Bits]) -> String {
    let mut left = value;
    let mut parts: Vec<String> = Vec::new();
    for (bit, name) in tables.iter().copied().flatten() {
        if left & bit != 0 {
            parts.push((*name).to_owned());
            left &= !bit;
        }
    }
    if left != 0 || parts.is_empty() {
        parts.push(if left == 0 { "0".into() } else { format!("{left:#x}") });
    }
    parts.join("|")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_written_as_strace_writes_them() {
        let cases: [(Call, [u64; 6], &str); 13] = [
            (
                call::MMAP,
                [0, 4096, 1, 1, 4, 535_216_128],
                "mmap(NULL, 4096, PROT_READ, MAP_SHARED, 4, 535216128)",
            ),
            (
                call::MMAP,
                [0x7f66_ca83_6000, 4096, 0, 0x4032, 0xffff_ffff, 0],
                "mmap(0x7f66ca836000, 4096, PROT_NONE, MAP_PRIVATE|MAP_FIXED|MAP_ANONYMOUS|MAP_NORESERVE, -1, 0)",
            ),
            (
                call::MMAP,
                [0, 1 << 21, 3, 0x4_0022 | 21 << 26 | 1 << 40, u64::MAX, 0],
                "mmap(NULL, 2097152, PROT_READ|PROT_WRITE, MAP_PRIVATE|MAP_ANONYMOUS|MAP_HUGETLB|0x10000000000|21<<MAP_HUGE_SHIFT, -1, 0)",
            ),
            (call::MUNMAP, [0x1000, 4096, 9, 9, 9, 9], "munmap(0x1000, 4096)"),
            (
                call::MPROTECT,
                [0x1000, 4096, 0x8000_0005, 0, 0, 0],
                "mprotect(0x1000, 4096, PROT_READ|PROT_EXEC|0x80000000)",
            ),
            (call::MREMAP, [0x1000, 4096, 8192, 1, 0, 0], "mremap(0x1000, 4096, 8192, MREMAP_MAYMOVE, NULL)"),
            (call::MADVISE, [0x1000, 4096, 14, 0, 0, 0], "madvise(0x1000, 4096, MADV_HUGEPAGE)"),
            (call::MADVISE, [0x1000, 4096, 77, 0, 0, 0], "madvise(0x1000, 4096, 77)"),
            (call::MLOCKALL, [3, 0, 0, 0, 0, 0], "mlockall(MCL_CURRENT|MCL_FUTURE)"),
            (call::MREMAP, [0x1000, 1, 2, 0, 0, 0], "mremap(0x1000, 1, 2, 0, NULL)"),
            (call::SHMAT, [7, 0, 0o10000, 0, 0, 0], "shmat(7, NULL, SHM_RDONLY)"),
            (call::BRK, [0x5555_0000, 0, 0, 0, 0, 0], "brk(0x55550000)"),
            (call::FORK, [1, 2, 3, 4, 5, 6], "fork()"),
        ];
        for (id, args, text) in cases {
            assert_eq!(call(id, &args, false), text);
        }
    }

    #[test]
    fn hidden_addresses_are_question_marks_and_flags_and_lengths_stay() {
        let hidden = call(call::MMAP, &[0x7f00_0000_0000, 4096, 3, 0x12, 5, 0], true);
        assert_eq!(hidden, "mmap(?, 4096, PROT_READ|PROT_WRITE, MAP_PRIVATE|MAP_FIXED, 5, 0)");
        for id in 0..call::CALL_COUNT as Call {
            let text = call(id, &[0x7f12_3456_7000; 6], true);
            let address = arguments::kinds(id)
                .any(|(name, is_number)| !is_number && !["prot", "flags", "mode", "op"].contains(&name));
            assert!(!address || text.contains('?'), "{text}");
        }
    }
}

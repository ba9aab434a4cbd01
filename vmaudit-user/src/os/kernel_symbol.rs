//! The address of a kernel variable, asked of the kernel itself.
//!
//! /proc/kallsyms has it too, but writing its hundred thousands of lines takes the kernel longer than everything else
//! vmaudit does at its start. A program of type "syscall" (5.14 and later) may call the helper that looks up one name
//! (5.16 and later; kernel/bpf/syscall.c:bpf_kallsyms_lookup_name). aya knows no such programs, so this one is made by
//! hand and loaded by the system call.

use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};

const BPF_PROG_LOAD: libc::c_long = 5;
const BPF_PROG_TEST_RUN: libc::c_long = 10;
const BPF_PROG_TYPE_SYSCALL: u64 = 31;
const BPF_F_SLEEPABLE: u64 = 1 << 4;
const HELPER_KALLSYMS_LOOKUP_NAME: i32 = 179;
/// Longest name, bytes with its `\0`; the name and the answer lie on the program's stack of 512 bytes.
const NAME_ROOM: usize = 64;

/// Where the kernel keeps the variable `name`; `None` when it does not say: too old, built without the names of data
/// (CONFIG_KALLSYMS_ALL), or addresses are hidden (kernel.kptr_restrict).
pub fn of_variable(name: &str) -> Option<u64> {
    let program = load(&program_for(name)?)?;
    let mut answer = 0_u64;
    // union bpf_attr, test: prog_fd and retval; sizes; data; repeat, duration; ctx_size_in and out; ctx_in, ctx_out;
    // flags and cpu; batch_size.
    let mut attr = [0_u64; 10];
    attr[0] = program.as_raw_fd() as u64;
    attr[5] = size_of_val(&answer) as u64;
    attr[6] = (&raw mut answer) as u64;
    // SAFETY: the kernel reads and writes `answer`, of the size stated, and the two words of results in `attr`.
    let ran = unsafe { libc::syscall(libc::SYS_bpf, BPF_PROG_TEST_RUN, &raw mut attr, size_of_val(&attr)) };
    (ran == 0 && answer != 0).then_some(answer)
}

fn load(instructions: &[u64]) -> Option<OwnedFd> {
    let license = c"GPL";
    // union bpf_attr, load: type and instruction count; instructions; license; log level and size; log; kernel version
    // and flags.
    let attr = [
        BPF_PROG_TYPE_SYSCALL | (instructions.len() as u64) << 32,
        instructions.as_ptr() as u64,
        license.as_ptr() as u64,
        0,
        0,
        BPF_F_SLEEPABLE << 32,
    ];
    // SAFETY: all pointers in `attr` live through the call.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, BPF_PROG_LOAD, &raw const attr, size_of_val(&attr)) };
    // SAFETY: a fresh descriptor that nobody else owns.
    (fd >= 0).then(|| unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// One instruction: opcode, destination and source register, offset, immediate.
const fn op(code: u8, dst: u8, src: u8, off: i16, imm: i32) -> u64 {
    code as u64 | ((src << 4 | dst) as u64) << 8 | (off as u16 as u64) << 16 | (imm as u32 as u64) << 32
}

/// `*(u64 *)context = kallsyms_lookup_name(name)`, 0 when there is no such name.
fn program_for(name: &str) -> Option<Vec<u64>> {
    const R0: u8 = 0;
    const R6: u8 = 6;
    const FRAME: u8 = 10;
    const MOVE: u8 = 0xbf;
    const MOVE_CONST: u8 = 0xb7;
    const ADD_CONST: u8 = 0x07;
    const LOAD_CONST64: u8 = 0x18;
    const STORE64: u8 = 0x7b;
    const LOAD64: u8 = 0x79;
    const CALL: u8 = 0x85;
    const EXIT: u8 = 0x95;
    const NAME_AT: i16 = -(NAME_ROOM as i16);
    const ANSWER_AT: i16 = NAME_AT - 8;

    if name.len() >= NAME_ROOM || name.contains('\0') {
        return None;
    }
    let mut text = [0_u8; NAME_ROOM];
    text[..name.len()].copy_from_slice(name.as_bytes());
    let mut code = vec![op(MOVE, R6, 1, 0, 0)];
    for (n, word) in text.as_chunks::<8>().0.iter().enumerate() {
        let word = u64::from_ne_bytes(*word);
        code.push(op(LOAD_CONST64, 1, 0, 0, word as i32));
        code.push(op(0, 0, 0, 0, (word >> 32) as i32));
        code.push(op(STORE64, FRAME, 1, NAME_AT + 8 * n as i16, 0));
    }
    code.extend([
        op(MOVE_CONST, 1, 0, 0, 0),
        op(STORE64, FRAME, 1, ANSWER_AT, 0),
        op(MOVE, 1, FRAME, 0, 0),
        op(ADD_CONST, 1, 0, 0, NAME_AT.into()),
        op(MOVE_CONST, 2, 0, 0, name.len() as i32 + 1),
        op(MOVE_CONST, 3, 0, 0, 0),
        op(MOVE, 4, FRAME, 0, 0),
        op(ADD_CONST, 4, 0, 0, ANSWER_AT.into()),
        op(CALL, 0, 0, 0, HELPER_KALLSYMS_LOOKUP_NAME),
        op(LOAD64, 1, FRAME, ANSWER_AT, 0),
        op(STORE64, R6, 1, 0, 0),
        op(MOVE_CONST, R0, 0, 0, 0),
        op(EXIT, 0, 0, 0, 0),
    ]);
    Some(code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instructions_have_the_kernels_layout() {
        // r6 = r1; exit; *(u64 *)(r10 - 8) = r1; call 179
        assert_eq!(op(0xbf, 6, 1, 0, 0).to_le_bytes(), [0xbf, 0x16, 0, 0, 0, 0, 0, 0]);
        assert_eq!(op(0x95, 0, 0, 0, 0).to_le_bytes(), [0x95, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(op(0x7b, 10, 1, -8, 0).to_le_bytes(), [0x7b, 0x1a, 0xf8, 0xff, 0, 0, 0, 0]);
        assert_eq!(op(0x85, 0, 0, 0, 179).to_le_bytes(), [0x85, 0, 0, 0, 179, 0, 0, 0]);
    }

    #[test]
    fn a_name_that_does_not_fit_is_not_asked_for() {
        assert!(program_for(&"x".repeat(NAME_ROOM)).is_none());
        assert!(program_for("a\0b").is_none());
        assert!(program_for("sysctl_max_map_count").is_some());
    }
}

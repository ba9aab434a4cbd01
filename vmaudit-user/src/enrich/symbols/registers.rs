//! The registers of a thread at its refused call, by the numbers that unwind information has for them.

/// Numbers up to this are known.
const COUNT: usize = 33;

#[cfg(target_arch = "x86_64")]
mod machine {
    //! Numbers: System V ABI, AMD64 supplement, figure 3.36.
    pub const SP: u16 = 7;
    pub const FP: u16 = 6;
    pub const RETURN: u16 = 16;
    /// Word of the program counter in `struct pt_regs` (arch/x86/include/asm/ptrace.h, the same in all versions).
    pub const IP_WORD: usize = 16;
    /// Word, bits and their value by which 32-bit code is known: the code segment (arch/x86/include/asm/segment.h:
    /// __USER32_CS).
    pub const NARROW: (usize, u64, u64) = (17, 0xffff, 0x23);
    /// Its other words that have a number.
    pub const WORDS: [(usize, u16); 16] = [
        (0, 15),
        (1, 14),
        (2, 13),
        (3, 12),
        (4, 6),
        (5, 3),
        (6, 11),
        (7, 10),
        (8, 9),
        (9, 8),
        (10, 0),
        (11, 2),
        (12, 1),
        (13, 4),
        (14, 5),
        (19, 7),
    ];
}

#[cfg(target_arch = "aarch64")]
mod machine {
    //! Numbers: DWARF for the Arm 64-bit Architecture, section 4.1.
    pub const SP: u16 = 31;
    pub const FP: u16 = 29;
    pub const RETURN: u16 = 30;
    /// Word of the program counter in `struct user_pt_regs` (arch/arm64/include/uapi/asm/ptrace.h).
    pub const IP_WORD: usize = 32;
    /// Word, bits and their value by which 32-bit code is known (arch/arm64/include/uapi/asm/ptrace.h:PSR_MODE32_BIT).
    pub const NARROW: (usize, u64, u64) = (33, 0x10, 0x10);
    /// x0 to x30 and sp.
    pub const WORDS: [(usize, u16); 32] = {
        let mut words = [(0, 0); 32];
        let mut n = 0;
        while n < 32 {
            words[n] = (n, n as u16);
            n += 1;
        }
        words
    };
}

pub use machine::{FP, RETURN, SP};

/// The call came from 32-bit code. `words`: as the kernel keeps them.
pub fn of_32_bit_code(words: &[u64]) -> bool {
    let (at, bits, value) = machine::NARROW;
    words.get(at).is_some_and(|word| word & bits == value)
}

/// What is known of a frame's registers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registers {
    /// The next instruction.
    pub ip: u64,
    values: [Option<u64>; COUNT],
}

impl Registers {
    /// `words`: as the kernel keeps them, 0 where there are no more.
    pub fn of_call(words: &[u64]) -> Self {
        let word = |n: usize| words.get(n).copied();
        let mut registers = Self { ip: word(machine::IP_WORD).unwrap_or(0), values: [None; COUNT] };
        for (n, number) in machine::WORDS {
            registers.set(number, word(n));
        }
        registers
    }

    pub fn get(&self, number: u16) -> Option<u64> {
        self.values.get(usize::from(number)).copied().flatten()
    }

    pub fn set(&mut self, number: u16, value: Option<u64>) {
        if let Some(slot) = self.values.get_mut(usize::from(number)) {
            *slot = value;
        }
    }

    /// The caller's, of which a frame pointer and the place behind the return address are known.
    pub fn of_caller(ip: u64, sp: u64, fp: u64) -> Self {
        let mut registers = Self { ip, values: [None; COUNT] };
        registers.set(SP, Some(sp));
        registers.set(FP, Some(fp));
        registers
    }
}

//! The architectures a guest can have: all that differs between them.

use std::env;

use anyhow::{Context as _, Result};
use clap::ValueEnum;

/// A guest's processor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Arch {
    /// 64-bit x86.
    #[value(name = "x86_64", alias = "amd64")]
    X86,
    /// 64-bit Arm.
    #[value(name = "arm64", alias = "aarch64")]
    Arm,
}

impl Arch {
    /// Debian's name.
    pub fn debian(self) -> &'static str {
        match self {
            Self::X86 => "amd64",
            Self::Arm => "arm64",
        }
    }

    /// Rust's and QEMU's name.
    pub fn rust(self) -> &'static str {
        match self {
            Self::X86 => "x86_64",
            Self::Arm => "aarch64",
        }
    }

    /// The emulator.
    pub fn qemu(self) -> &'static str {
        match self {
            Self::X86 => "qemu-system-x86_64",
            Self::Arm => "qemu-system-aarch64",
        }
    }

    /// The board.
    pub fn machine(self) -> &'static str {
        match self {
            Self::X86 => "pc",
            Self::Arm => "virt",
        }
    }

    /// Processor for emulation.
    pub fn emulated(self) -> &'static str {
        match self {
            // Emulated byte by byte, the kernel's copies by `rep movsb` take twice the time of its plain ones.
            Self::X86 => "max,-erms,-fsrm",
            // Pointer authentication as the architecture has it costs six times the rest.
            Self::Arm => "max,pauth-impdef=on",
        }
    }

    /// The kernel's name of the serial line.
    pub fn console(self) -> &'static str {
        match self {
            Self::X86 => "ttyS0",
            Self::Arm => "ttyAMA0",
        }
    }

    /// The compiler driver of Debian's cross compilers, and of its own.
    pub fn gcc(self) -> String {
        format!("{}-linux-gnu-gcc", self.rust())
    }

    /// This machine's.
    pub fn native() -> Result<Self> {
        let all = [Self::X86, Self::Arm];
        all.into_iter()
            .find(|arch| arch.is_native())
            .with_context(|| format!("{} is not known", env::consts::ARCH))
    }

    /// This machine's own.
    pub fn is_native(self) -> bool {
        env::consts::ARCH == self.rust()
    }
}

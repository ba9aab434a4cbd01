//! bpf(2), as far as one small program needs it.

use std::io;
use std::os::fd::{FromRawFd as _, OwnedFd};

use bytemuck::{Pod, Zeroable};

/// The part of union bpf_attr that BPF_PROG_LOAD needs.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
pub(super) struct Load {
    pub(super) kind: u32,
    pub(super) count: u32,
    pub(super) instructions: u64,
    pub(super) license: u64,
    pub(super) log_level: u32,
    pub(super) log_size: u32,
    pub(super) log: u64,
    pub(super) kernel_version: u32,
    pub(super) flags: u32,
    pub(super) name: [u8; 16],
    pub(super) interface: u32,
    pub(super) attach_kind: u32,
    pub(super) btf: u32,
    pub(super) function_size: u32,
    pub(super) functions: u64,
    pub(super) function_count: u32,
    pub(super) line_size: u32,
    pub(super) lines: u64,
    pub(super) line_count: u32,
    pub(super) target: u32,
    pub(super) target_program: u32,
    pub(super) padding: u32,
}

/// The same for BPF_LINK_CREATE.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
pub(super) struct Link {
    pub(super) program: u32,
    pub(super) target: u32,
    pub(super) attach_kind: u32,
    pub(super) flags: u32,
    pub(super) info: u64,
    pub(super) info_bytes: u32,
    pub(super) padding: u32,
}

/// The same for BPF_ITER_CREATE.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
pub(super) struct Iter {
    pub(super) link: u32,
    pub(super) flags: u32,
}

/// One bpf() call that gives a descriptor.
pub(super) fn bpf<T: Pod>(command: libc::c_int, attributes: &T) -> io::Result<OwnedFd> {
    // SAFETY: the kernel reads `size_of::<T>()` bytes; pointers in them stay valid during the call.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_ref(attributes), size_of::<T>()) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a fresh descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

//! vmaudit's eBPF programs. They count and keep state; they decide nothing and hold no text.
//!
//! One file per kernel subject: [`map_count`] (releases of the mmap lock), [`sections`] (whether one was missed),
//! [`syscalls`] (exits of watched calls),
//! [`refused`] (the evidence of a refusal), [`areas`] (the mappings below its stack) and [`booking`] (its count),
//! [`lifecycle`] (fork, exec, exit), [`snapshot`] (what lived before us), [`look`] (the
//! range of a refused call), [`probes`] (functions of the kernel that settle a cause, where they may be listened to).
//! [`fallback`] does the work on kernels that lack the lock events. [`kernel`] is the only place that reads
//! kernel structures, by offsets that the loader found in BTF; [`maps`] lists the shared memory.
//!
//! Each subject has its body once and several thin entry points: raw tracepoints and classic tracepoints lose events
//! under opposite conditions, so the loader picks per kernel (see vmaudit-user/src/source/hooks.rs).

#![no_std]
#![no_main]
#![feature(core_intrinsics)]
#![expect(
    internal_features,
    reason = "bpf has no compare-and-swap in core::sync::atomic; the intrinsics are the way in"
)]

mod areas;
mod booking;
mod fallback;
mod kernel;
mod lifecycle;
mod look;
mod map_count;
mod maps;
mod probes;
mod refused;
mod sections;
mod snapshot;
mod syscalls;

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

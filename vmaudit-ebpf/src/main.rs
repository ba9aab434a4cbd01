//! vmaudit's eBPF programs. They count and keep state; they decide nothing and hold no text.
//!
//! [`hooks`] holds the programs, one file per kernel subject, each with thin entry points for the forms of an event: raw
//! tracepoints and classic tracepoints lose events under opposite conditions, so the loader picks per kernel (see
//! vmaudit-user/src/source/hooks.rs). What they do is in the rooms below, of which each imports only those after it:
//!
//! * [`answer`]: at the releases of the lock, which calls have succeeded, and asking for the answers of the others
//! * [`call_result`]: is what a call has given back a refusal?
//! * [`ends`]: how processes end
//! * [`oom`]: the memory cgroups of one that the OOM killer has chosen
//! * [`near`]: are limits near whose refusals nobody asks for?
//! * [`makers`]: who raises the count of an address space
//! * [`ledger`]: who changes it, each change
//! * [`failure`]: the evidence of a refused call, its counters, its record
//! * [`current_call`]: what was seen during the call that a task is in; nobody else touches that scratch
//! * [`lodgers`]: processes that live in the address space of another
//! * [`address_space`]: how a followed address space begins and ends
//! * [`records`]: everything that goes to the ring buffer
//! * [`task_names`]: which names of tasks have changed a count or been refused calls
//! * [`lock_sequence`]: whether a release of the mmap lock was missed
//! * [`followed`], [`slots`]: the tables of processes and of address spaces
//! * [`shares`]: what each user may take of the table of address spaces and of the ring buffer
//! * [`call`]: what a call's id means
//! * [`kernel`]: the only room that reads kernel structures, by offsets that the loader found in BTF
//! * [`control`]: the loader's settings, and the page of counters that is shared with user space
//!
//! A map belongs to the room that uses it and is seen by no other.

#![no_std]
#![no_main]
#![feature(core_intrinsics)]
#![expect(
    internal_features,
    reason = "bpf has no compare-and-swap in core::sync::atomic; the intrinsics are the way in"
)]

mod address_space;
mod answer;
mod call;
mod call_result;
mod control;
mod current_call;
mod ends;
mod failure;
mod followed;
mod hooks;
mod kernel;
mod ledger;
mod lock_sequence;
mod lodgers;
mod makers;
mod namespace;
mod near;
mod oom;
mod records;
mod shares;
mod sizes;
mod slots;
mod task_names;

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

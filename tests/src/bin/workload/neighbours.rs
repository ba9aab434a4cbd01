//! Neighbours that make tracing hard: they run until they are killed, or whoever started them ends.

use libc::{MAP_NORESERVE, PROT_READ, PROT_WRITE};

use crate::makers::pause_ns;
use crate::memory::{Holes, PAGE, call, die, leave, mmap, must, write_all};
use crate::processes::{fork, fork_as};

/// Dies with its parent.
fn with_parent(parent: u32) {
    let signal = [libc::PR_SET_PDEATHSIG as usize, libc::SIGKILL as usize, 0, 0, 0, 0];
    must(call(libc::SYS_prctl, signal), "PR_SET_PDEATHSIG");
    // It may have died before the line above.
    if call(libc::SYS_getppid, [0; 6]) != Ok(parent as usize) {
        leave(0);
    }
}

/// Gives way: half of the processor is left to others, and whoever is preempted stays so for long.
fn give_way() {
    const NICE: usize = 10;
    must(call(libc::SYS_setpriority, [libc::PRIO_PROCESS as usize, 0, NICE, 0, 0, 0]), "setpriority");
}

/// Starts `n` processes of this kind, says so, and waits for the end of the one that started it: of its stdin.
fn family(n: usize, life: impl Fn(usize)) -> ! {
    let parent = std::process::id();
    for i in 0..n {
        if fork() == 0 {
            with_parent(parent);
            give_way();
            loop {
                life(i);
            }
        }
    }
    write_all(1, b"busy\n");
    let mut byte = [0; 1];
    while crate::memory::read(0, &mut byte) == 1 {}
    leave(0)
}

/// `n` processes that map, touch and unmap all the time. Every second one sleeps for a moment now and then: whoever
/// wakes up preempts another.
pub fn busy(n: usize) -> ! {
    let holes = Holes::find(4);
    let page = must(mmap(PAGE, PROT_READ | PROT_WRITE, MAP_NORESERVE), "mmap of a page");
    family(n, |i| {
        for round in 0..64 {
            (0..holes.pages()).for_each(|k| holes.map(k));
            // SAFETY: the mapping is this process's own and nobody else's.
            unsafe { (page as *mut u8).write_volatile(round) };
            (0..holes.pages()).for_each(|k| holes.unmap(k));
        }
        if i % 2 == 1 {
            pause_ns(20_000);
        }
    })
}

/// `n` processes that do nothing but bpf() map calls, updates and look-ups, on a hash and on an array. While one of
/// them is preempted in such a call, classic tracepoint programs and kprobes are off on its processor
/// (kernel/bpf/syscall.c:bpf_disable_instrumentation).
pub fn map_calls(n: usize) -> ! {
    const CREATE: usize = 0;
    const LOOKUP: usize = 1;
    const UPDATE: usize = 2;
    const HASH: u32 = 1;
    const ARRAY: u32 = 2;
    const VALUE: u32 = 4096;
    // Before 5.11 maps are charged to it.
    let none = libc::rlimit { rlim_cur: libc::RLIM_INFINITY, rlim_max: libc::RLIM_INFINITY };
    // SAFETY: a valid rlimit.
    unsafe { libc::setrlimit(libc::RLIMIT_MEMLOCK, &raw const none) };
    let maps = [HASH, ARRAY].map(|kind| {
        // union bpf_attr: map_type, key_size, value_size, max_entries.
        let attr = [kind, 4, VALUE, 64];
        let size = size_of_val(&attr);
        must(call(libc::SYS_bpf, [CREATE, attr.as_ptr() as usize, size, 0, 0, 0]), "BPF_MAP_CREATE")
    });
    let value = must(mmap(VALUE as usize, PROT_READ | PROT_WRITE, 0), "mmap of a value");
    family(n, |i| {
        for key in 0..64_u32 {
            let key = [key];
            for map in maps {
                // union bpf_attr: map_fd (padded to 8), key, value, flags.
                let attr = [map as u64, key.as_ptr() as u64, value as u64, 0];
                let size = size_of_val(&attr);
                for command in [UPDATE, LOOKUP] {
                    must(call(libc::SYS_bpf, [command, attr.as_ptr() as usize, size, 0, 0, 0]), "bpf");
                }
            }
        }
        if i % 2 == 1 {
            pause_ns(20_000);
        }
    })
}

/// A child whose process id differs from this one's by a multiple of 4096 in nothing but its high bits, and that maps and
/// unmaps all the time until this process ends: where what is known of a task's call is kept by the low bits of its id,
/// the child's calls overwrite this process's. Returns when it is at work.
pub fn start_thief() {
    const APART: i32 = 4096;
    const READ_WRITE: usize = (PROT_READ | PROT_WRITE) as usize;
    const SHARED: usize = (libc::MAP_SHARED | libc::MAP_ANONYMOUS) as usize;
    let parent = std::process::id();
    let holes = Holes::find(1);
    let flag = must(call(libc::SYS_mmap, [0, PAGE, READ_WRITE, SHARED, usize::MAX, 0]), "mmap of a flag");
    // SAFETY: a page of our own, shared with the child, zero at first.
    let at_work = unsafe { std::sync::atomic::AtomicU32::from_ptr(flag as *mut u32) };
    // Process ids end at 32,768 on small machines (include/linux/threads.h:PID_MAX_DEFAULT).
    for pid in (1..8).map(|n| (parent as i32 + n * APART) % (8 * APART)) {
        match fork_as(pid) {
            Err(libc::EEXIST | libc::EINVAL) => {}
            Err(e) => die(99, format_args!("clone3 with set_tid: errno {e}")),
            Ok(0) => {
                with_parent(parent);
                at_work.store(1, std::sync::atomic::Ordering::Release);
                loop {
                    holes.map(0);
                    holes.unmap(0);
                }
            }
            Ok(_) => {
                while at_work.load(std::sync::atomic::Ordering::Acquire) == 0 {
                    std::hint::spin_loop();
                    must(call(libc::SYS_sched_yield, [0; 6]), "sched_yield");
                }
                return;
            }
        }
    }
    die(99, format_args!("the process ids are all taken"));
}

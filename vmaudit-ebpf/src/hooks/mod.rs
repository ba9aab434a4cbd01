//! The programs. They have no state of their own, and nothing imports them.

mod mmap_lock;
mod probes;
mod process;
mod sampled;
mod signals;
mod syscall_exit;
mod task_iter;

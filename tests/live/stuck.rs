//! A process that holds its own mmap lock for ever: nobody waits for it, everybody else is shown.

/// Needs /dev/fuse, which the kernels of the guests have as a module only, and a guest has no modules.
#[path = "stuck/native_only.rs"]
mod native_only;

//! What is looked up about a process or a refused call while a session runs; each look is bounded.

pub mod memory_cgroup;
pub mod symbols;
pub mod vma_owners;

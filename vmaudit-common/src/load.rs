//! What the loader tells the programs before they are loaded: where the kernel keeps things, and what is wanted.

use bytemuck::{Pod, Zeroable};

use crate::{EndLayout, call::NUMBERS};

/// Byte offsets of kernel structure members, from BTF; [`ABSENT`] where this kernel lacks one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Layout {
    /// mm_struct.map_count (or vma_count).
    pub mm_map_count: u32,
    /// mm_struct.total_vm.
    pub mm_total_vm: u32,
    /// mm_struct.locked_vm.
    pub mm_locked_vm: u32,
    /// mm_struct.data_vm.
    pub mm_data_vm: u32,
    /// mm_struct.exec_vm.
    pub mm_exec_vm: u32,
    /// mm_struct.brk.
    pub mm_brk: u32,
    /// mm_struct.mmap_lock.count (rw_semaphore); bit 0 = held for writing.
    pub mm_lock_count: u32,
    /// mm_struct.def_flags; [`ABSENT`]: whether mlockall(MCL_FUTURE) was called is not known.
    pub mm_def_flags: u32,
    /// mm_struct.start_code; [`ABSENT`] is left out.
    pub mm_start_code: u32,
    /// mm_struct.end_code.
    pub mm_end_code: u32,
    /// mm_struct.start_brk.
    pub mm_start_brk: u32,
    /// mm_struct.start_data; [`ABSENT`]: what brk counts beside the heap is left out.
    pub mm_start_data: u32,
    /// mm_struct.end_data.
    pub mm_end_data: u32,
    /// mm_struct.stack_vm.
    pub mm_stack_vm: u32,
    /// mm_struct.start_stack: where the main thread's stack begins; [`ABSENT`]: more is copied of it.
    pub mm_start_stack: u32,
    /// mm_struct.mm_users; [`ABSENT`] counts as several.
    pub mm_users: u32,
    /// task_struct.mm.
    pub task_mm: u32,
    /// task_struct.pid.
    pub task_pid: u32,
    /// task_struct.tgid.
    pub task_tgid: u32,
    /// task_struct.start_boottime.
    pub task_start_boottime: u32,
    /// task_struct.group_leader.
    pub task_group_leader: u32,
    /// task_struct.real_parent.
    pub task_real_parent: u32,
    /// task_struct.signal.
    pub task_signal: u32,
    /// task_struct.comm.
    pub task_comm: u32,
    /// task_struct.exit_code.
    pub task_exit_code: u32,
    /// task_struct.flags.
    pub task_flags: u32,
    /// Word whose [`Layout::compat_mask`] bits say that the task is in a 32-bit call.
    pub task_compat: u32,
    /// See [`Layout::task_compat`].
    pub compat_mask: u32,
    /// signal_struct.live.
    pub signal_live: u32,
    /// signal_struct.rlim.
    pub signal_rlim: u32,
    /// pt_regs: number of the system call.
    pub regs_nr: u32,
    /// pt_regs: the six arguments as they were passed.
    pub regs_args: [u32; 6],
    /// The same of a call through the 32-bit entry: their low words. Not used where no such call has a name.
    pub regs_compat_args: [u32; 6],
    /// pt_regs: stack pointer, where x86 has the return address on entry to a function; [`ABSENT`] with `regs_lr`.
    pub regs_sp: u32,
    /// pt_regs: address of the next instruction.
    pub regs_ip: u32,
    /// pt_regs: where the answer of a call is put.
    pub regs_ret: u32,
    /// pt_regs: link register; [`ABSENT`] where there is none.
    pub regs_lr: u32,
    /// linux_binprm.filename.
    pub bprm_filename: u32,
    /// task_struct.cred.
    pub task_cred: u32,
    /// cred.uid; its value is the one of the initial user namespace.
    pub cred_uid: u32,
    /// cred.cap_effective; its low word holds CAP_IPC_LOCK.
    pub cred_cap_effective: u32,
    /// mm_struct.mm_lock_seq: changes with each end of a write section (6.4 and later).
    pub mm_lock_seq: u32,
    /// 1 where mm_lock_seq changes with each begin of a write section as well (6.14 and later), else 0.
    pub mm_lock_seq_begins: u32,
    /// vm_area_struct.vm_start.
    pub vma_start: u32,
    /// vm_area_struct.vm_end.
    pub vma_end: u32,
    /// vm_area_struct.vm_flags.
    pub vma_flags: u32,
    /// What a mapped file is; all [`ABSENT`] if any is.
    pub file: FileLayout,
    /// How processes end.
    pub end: EndLayout,
    /// What limits tasks; each [`ABSENT`] alone.
    pub tasks: TaskLayout,
    /// What kind of file it is; all [`ABSENT`] if any is.
    pub kind: KindLayout,
}

/// See [`Layout`]; for files by their descriptors and by what is mapped of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct KindLayout {
    /// task_struct.files.
    pub task_files: u32,
    /// files_struct.fdt.
    pub files_table: u32,
    /// fdtable.max_fds.
    pub table_size: u32,
    /// fdtable.fd.
    pub table_files: u32,
    /// file.f_inode.
    pub inode: u32,
    /// inode.i_mode.
    pub mode: u32,
    /// inode.i_size.
    pub size: u32,
    /// inode.i_sb.
    pub superblock: u32,
    /// super_block.s_magic.
    pub magic: u32,
    /// vm_area_struct.vm_file.
    pub vma_file: u32,
    /// vm_area_struct.vm_pgoff.
    pub vma_pgoff: u32,
}

/// See [`Layout`]; for how many tasks there are, and may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct TaskLayout {
    /// cred.user_ns.
    pub cred_user_ns: u32,
    /// user_namespace.level.
    pub user_ns_level: u32,
    /// cred.user; with `user_processes` (up to 5.13).
    pub cred_user: u32,
    /// user_struct.processes.
    pub user_processes: u32,
    /// cred.ucounts; with the four that follow (5.14 and later).
    pub cred_ucounts: u32,
    /// ucounts: the count of tasks.
    pub ucounts_tasks: u32,
    /// ucounts.ns.
    pub ucounts_ns: u32,
    /// user_namespace.ucounts, those of the user who made it.
    pub user_ns_ucounts: u32,
    /// user_namespace: how many tasks it may have in the one above.
    pub user_ns_most_tasks: u32,
    /// task_struct.thread_pid.
    pub task_thread_pid: u32,
    /// pid.numbers\[0\].ns, the machine's first pid namespace.
    pub pid_first_ns: u32,
    /// pid.level: in how many namespaces below the first one it has a number.
    pub pid_level: u32,
    /// task_struct.nsproxy.
    pub task_nsproxy: u32,
    /// nsproxy.pid_ns_for_children.
    pub nsproxy_children: u32,
    /// pid_namespace.pid_allocated.
    pub pid_ns_allocated: u32,
    /// pid_namespace.parent.
    pub pid_ns_parent: u32,
    /// pid_namespace.pid_max (6.14 and later; before, there is one for all).
    pub pid_ns_max: u32,
    /// task_struct.cgroups.
    pub task_cgroups: u32,
    /// css_set.subsys\[pids_cgrp_id\].
    pub cgroups_pids: u32,
    /// cgroup_subsys_state.parent.
    pub css_parent: u32,
    /// From the css to pids_cgroup.counter.
    pub css_counter: u32,
    /// From the css to pids_cgroup.limit.
    pub css_limit: u32,
}

/// See [`Layout`]; for the mappings below stacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct FileLayout {
    /// vm_area_struct.vm_pgoff.
    pub vma_pgoff: u32,
    /// vm_area_struct.vm_file.
    pub vma_file: u32,
    /// file.f_path.mnt.
    pub mnt: u32,
    /// file.f_path.dentry.
    pub dentry: u32,
    /// file.f_inode.
    pub inode: u32,
    /// inode.i_ino.
    pub inode_number: u32,
    /// inode.i_ctime, seconds.
    pub inode_changed_s: u32,
    /// inode.i_ctime, nanoseconds.
    pub inode_changed_ns: u32,
    /// dentry.d_name.name.
    pub dentry_name: u32,
    /// dentry.d_parent.
    pub dentry_parent: u32,
    /// vfsmount.mnt_root.
    pub mnt_root: u32,
    /// mount.mnt.
    pub mount_mnt: u32,
    /// mount.mnt_parent.
    pub mount_parent: u32,
    /// mount.mnt_mountpoint.
    pub mount_mountpoint: u32,
    /// mm_struct.mm_rb: the tree of mappings, before 6.1.
    pub mm_tree: u32,
    /// vm_area_struct.vm_rb.
    pub vma_node: u32,
    /// vm_area_struct.vm_mm.
    pub vma_mm: u32,
    /// rb_node.rb_left.
    pub node_left: u32,
    /// rb_node.rb_right.
    pub node_right: u32,
}
/// "This kernel does not have the member."
pub const ABSENT: u32 = u32::MAX;

/// Loader's choices, frozen before the programs load.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Config {
    /// Where the kernel keeps vm.max_map_count; 0 = not known, [`crate::Control::max_map_count`] has to do.
    pub max_map_count_at: u64,
    /// Where the kernel keeps the number of tasks (nr_threads); 0 = not known.
    pub threads_at: u64,
    /// Random: where a task's call and a user's share are kept depends on it, so that nobody can choose an id that meets
    /// another's.
    pub table_key: u64,
    /// See [`crate::Bounds::task_size`], bytes.
    pub task_size: u64,
    /// See [`crate::Bounds::address_end`], bytes.
    pub address_end: u64,
    /// See [`crate::Bounds::ram_and_swap_pages`].
    pub ram_and_swap_pages: u64,
    /// Where the pid namespace is that vmaudit runs in, if that is not the machine's first one.
    pub pid_ns_at: u64,
    /// Follow every process instead of the table of followed ones.
    pub watch_all: u32,
    /// Children of followed processes are followed.
    pub follow_children: u32,
    /// Every change goes to the ring buffer.
    pub stream_changes: u32,
    /// Every failure goes to the ring buffer, not only the first [`crate::EXAMPLES_PER_GROUP`] of a kind.
    pub stream_failures: u32,
    /// Slots in the table of address spaces, a power of two.
    pub slots: u32,
    /// Failing calls carry their user stack.
    pub failure_stacks: u32,
    /// Bytes per page as a shift.
    pub page_shift: u32,
    /// Which process ids must not be followed: our own.
    pub self_tgid: u32,
    /// Offset of `child_pid` in the record of sched:sched_process_fork, bytes (0 when that form is not used).
    pub fork_child_pid_offset: u32,
    /// The programs' own messages are wanted.
    pub debug: u32,
    /// Exits of calls are watched, so what they need is kept.
    pub calls: u32,
    /// Offset of `old_pid` in the record of sched:sched_process_exec, bytes (0 when that form is not used).
    pub exec_old_pid_offset: u32,
    /// Answers are asked for at the releases of the lock, see vmaudit-ebpf/src/answer.rs; no program sees the exits of
    /// calls.
    pub asks: u32,
    /// mremap may check vm.max_map_count without the lock (6.17 to 7.0), and answers are asked for.
    pub mremap_unlocked: u32,
    /// How many namespaces that one lies below the first one; 0: it is the first one.
    pub pid_ns_level: u32,
    /// Who raises the count is credited, see [`crate::Makers`].
    pub makers: u32,
    /// Entries of the table of [`crate::LedgerEntry`]s, a power of two; 0: none is written.
    pub ledger: u32,
    /// Not used.
    pub reserved: u32,
    /// System call number → [`crate::call::Call`].
    pub call_by_number: [u8; NUMBERS],
    /// The same of the 32-bit entry.
    pub compat_call_by_number: [u8; NUMBERS],
}

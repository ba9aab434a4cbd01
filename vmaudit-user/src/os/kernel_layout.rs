//! Where the running kernel keeps what the programs read, by its BTF.

use vmaudit_common::{ABSENT, EndLayout, FileLayout, KindLayout, Layout, TaskLayout};

use crate::os::btf::Btf;

/// Offsets for the programs; `Err` names the first member that a program cannot do without.
pub(super) fn layout(btf: &Btf<'_>, arch: &str) -> Result<Layout, String> {
    let need = |of: &'static str, member: &str| {
        btf.member(of, member).ok_or_else(|| format!("this kernel's BTF has no {of}.{member}"))
    };
    let may = |of: &'static str, path: &[&str]| btf.nested(of, path).unwrap_or(ABSENT);
    // pt_regs of the two architectures: number of the call and the arguments as passed (arm64 keeps the first one
    // apart because x0 is also the return value; arch/arm64/include/asm/ptrace.h).
    let (regs_nr, regs_args) = match arch {
        "aarch64" => {
            let first = need("pt_regs", "orig_x0")?;
            (need("pt_regs", "syscallno")?, [first, 8, 16, 24, 32, 40])
        }
        _ => (
            need("pt_regs", "orig_ax")?,
            [
                need("pt_regs", "di")?,
                need("pt_regs", "si")?,
                need("pt_regs", "dx")?,
                need("pt_regs", "r10")?,
                need("pt_regs", "r8")?,
                need("pt_regs", "r9")?,
            ],
        ),
    };
    // What the 32-bit entry of x86 leaves where (arch/x86/entry/entry_64_compat.S).
    let regs_compat_args = match arch {
        "aarch64" => regs_args,
        _ => [
            need("pt_regs", "bx")?,
            need("pt_regs", "cx")?,
            need("pt_regs", "dx")?,
            need("pt_regs", "si")?,
            need("pt_regs", "di")?,
            need("pt_regs", "bp")?,
        ],
    };
    // x30 of user_pt_regs, the link register, on arm64.
    let (regs_sp, regs_lr) = match arch {
        "aarch64" => (ABSENT, 240),
        _ => (need("pt_regs", "sp")?, ABSENT),
    };
    // user_pt_regs on arm64: x0, and pc behind sp.
    let (regs_ip, regs_ret) = match arch {
        "aarch64" => (256, 0),
        _ => (need("pt_regs", "ip")?, need("pt_regs", "ax")?),
    };
    // 32-bit calls: TS_COMPAT in thread_info.status on x86 (arch/x86/include/asm/thread_info.h), TIF_32BIT = bit 22 of
    // thread_info.flags on arm64 (arch/arm64/include/asm/thread_info.h).
    let (task_compat, compat_mask) = match arch {
        "aarch64" => (may("task_struct", &["thread_info", "flags"]), 1 << 22),
        _ => (may("task_struct", &["thread_info", "status"]), 2),
    };
    Ok(Layout {
        mm_map_count: need("mm_struct", "map_count").or_else(|_| need("mm_struct", "vma_count"))?,
        mm_total_vm: need("mm_struct", "total_vm")?,
        mm_locked_vm: need("mm_struct", "locked_vm")?,
        mm_data_vm: need("mm_struct", "data_vm")?,
        mm_exec_vm: may("mm_struct", &["exec_vm"]),
        mm_brk: may("mm_struct", &["brk"]),
        mm_lock_count: may("mm_struct", &["mmap_lock", "count"]),
        mm_def_flags: may("mm_struct", &["def_flags"]),
        mm_start_code: may("mm_struct", &["start_code"]),
        mm_end_code: may("mm_struct", &["end_code"]),
        mm_start_brk: need("mm_struct", "start_brk")?,
        mm_start_data: may("mm_struct", &["start_data"]),
        mm_end_data: may("mm_struct", &["end_data"]),
        mm_stack_vm: need("mm_struct", "stack_vm")?,
        mm_start_stack: may("mm_struct", &["start_stack"]),
        mm_users: may("mm_struct", &["mm_users"]),
        task_mm: need("task_struct", "mm")?,
        task_pid: need("task_struct", "pid")?,
        task_tgid: need("task_struct", "tgid")?,
        task_start_boottime: need("task_struct", "start_boottime")?,
        task_group_leader: need("task_struct", "group_leader")?,
        task_real_parent: need("task_struct", "real_parent")?,
        task_signal: need("task_struct", "signal")?,
        task_comm: need("task_struct", "comm")?,
        task_exit_code: need("task_struct", "exit_code")?,
        task_flags: need("task_struct", "flags")?,
        task_compat,
        compat_mask,
        signal_live: need("signal_struct", "live")?,
        signal_rlim: need("signal_struct", "rlim")?,
        regs_nr,
        regs_args,
        regs_compat_args,
        regs_sp,
        regs_ip,
        regs_ret,
        regs_lr,
        bprm_filename: need("linux_binprm", "filename")?,
        task_cred: need("task_struct", "cred")?,
        cred_uid: need("cred", "uid")?,
        cred_cap_effective: need("cred", "cap_effective")?,
        mm_lock_seq: may("mm_struct", &["mm_lock_seq"]),
        // It became a seqcount when it began to count twice.
        mm_lock_seq_begins: u32::from(may("mm_struct", &["mm_lock_seq", "sequence"]) != ABSENT),
        vma_start: need("vm_area_struct", "vm_start")?,
        vma_end: need("vm_area_struct", "vm_end")?,
        vma_flags: need("vm_area_struct", "vm_flags")?,
        file: file_layout(btf).unwrap_or_else(|| bytemuck::cast([ABSENT; size_of::<FileLayout>() / 4])),
        tasks: task_layout(btf),
        kind: kind_layout(btf).unwrap_or_else(|| bytemuck::cast([ABSENT; size_of::<KindLayout>() / 4])),
        end: end_layout(btf, arch),
    })
}

/// Where word number `index` of an array lies.
fn word(base: Option<u32>, index: Option<u64>) -> u32 {
    let offset = index.and_then(|index| u32::try_from(index.checked_mul(8)?).ok());
    base.zip(offset).and_then(|(base, offset)| base.checked_add(offset)).unwrap_or(ABSENT)
}

/// How processes end. None of it is needed for a count.
fn end_layout(btf: &Btf<'_>, arch: &str) -> EndLayout {
    let may = |of: &'static str, path: &[&str]| btf.nested(of, path).unwrap_or(ABSENT);
    let cpu = |part| may("signal_struct", &["cputimer", "cputime_atomic", part]);
    let css = btf.member("mem_cgroup", "css");
    let from_css = |path: &[&str]| {
        btf.nested("mem_cgroup", path).zip(css).and_then(|(at, css)| at.checked_sub(css)).unwrap_or(ABSENT)
    };
    EndLayout {
        signal_flags: may("signal_struct", &["flags"]),
        group_exit_code: may("signal_struct", &["group_exit_code"]),
        cpu_user: cpu("utime"),
        cpu_system: cpu("stime"),
        sighand: may("task_struct", &["sighand"]),
        actions: may("sighand_struct", &["action"]),
        kernel_stack: may("task_struct", &["stack"]),
        // The last member on x86-64; elsewhere the programs that need it do not read registers.
        regs_bytes: if arch == "x86_64" {
            btf.member("pt_regs", "ss").map_or(ABSENT, |ss| ss + 8)
        } else {
            ABSENT
        },
        regs_user_sp: btf.member("pt_regs", "sp").unwrap_or(ABSENT),
        mm_start_stack: btf.member("mm_struct", "start_stack").unwrap_or(ABSENT),
        mm_env_start: btf.member("mm_struct", "env_start").unwrap_or(ABSENT),
        mm_env_end: btf.member("mm_struct", "env_end").unwrap_or(ABSENT),
        inode_size: may("inode", &["i_size"]),
        inode_sb: may("inode", &["i_sb"]),
        sb_magic: may("super_block", &["s_magic"]),
        sb_info: may("super_block", &["s_fs_info"]),
        shmem_max_blocks: may("shmem_sb_info", &["max_blocks"]),
        victim_is_task: u32::from(btf.tracepoint_arguments("btf_trace_mark_victim").is_some_and(|n| n > 1)),
        cgroups_memory: word(
            btf.member("css_set", "subsys"),
            btf.enumerator("cgroup_subsys_id", "memory_cgrp_id"),
        ),
        css_cgroup: may("cgroup_subsys_state", &["cgroup"]),
        cgroup_kn: may("cgroup", &["kn"]),
        kn_id: may("kernfs_node", &["id"]),
        kn_name: may("kernfs_node", &["name"]),
        css_memory_used: from_css(&["memory", "usage"]),
        css_memory_limit: from_css(&["memory", "max"]),
        // Only where version 1 is built in, since 6.11; then it is kept for both versions.
        css_oom_lock: from_css(&["oom_lock"]),
    }
}

/// How the programs find what kind of file it is; `None` where a member is missing.
fn kind_layout(btf: &Btf<'_>) -> Option<KindLayout> {
    Some(KindLayout {
        task_files: btf.member("task_struct", "files")?,
        files_table: btf.member("files_struct", "fdt")?,
        table_size: btf.member("fdtable", "max_fds")?,
        table_files: btf.member("fdtable", "fd")?,
        inode: btf.member("file", "f_inode")?,
        mode: btf.member("inode", "i_mode")?,
        size: btf.member("inode", "i_size")?,
        superblock: btf.member("inode", "i_sb")?,
        magic: btf.member("super_block", "s_magic")?,
        vma_file: btf.member("vm_area_struct", "vm_file")?,
        vma_pgoff: btf.member("vm_area_struct", "vm_pgoff")?,
    })
}

/// Where the programs find how many tasks there are, and may be.
fn task_layout(btf: &Btf<'_>) -> TaskLayout {
    let may = |of: &'static str, path: &[&str]| btf.nested(of, path).unwrap_or(ABSENT);
    // Limits have had an array of their own since 5.19 (include/linux/user_namespace.h).
    let apart = btf.member("ucounts", "rlimit").zip(btf.member("user_namespace", "rlimit_max"));
    let together = btf.member("ucounts", "ucount").zip(btf.member("user_namespace", "ucount_max"));
    let of = |which| btf.enumerator(which, "UCOUNT_RLIMIT_NPROC");
    let ((counts, most), index) = match apart {
        Some((counts, most)) => ((Some(counts), Some(most)), of("rlimit_type")),
        None => (together.unzip(), of("ucount_type")),
    };
    let css = btf.member("pids_cgroup", "css");
    let from_css = |member| {
        btf.member("pids_cgroup", member).zip(css).and_then(|(at, css)| at.checked_sub(css)).unwrap_or(ABSENT)
    };
    let ucounts_tasks = word(counts, index);
    TaskLayout {
        cred_user_ns: may("cred", &["user_ns"]),
        user_ns_level: may("user_namespace", &["level"]),
        cred_user: may("cred", &["user"]),
        user_processes: may("user_struct", &["processes"]),
        cred_ucounts: if ucounts_tasks == ABSENT { ABSENT } else { may("cred", &["ucounts"]) },
        ucounts_tasks,
        ucounts_ns: may("ucounts", &["ns"]),
        user_ns_ucounts: may("user_namespace", &["ucounts"]),
        user_ns_most_tasks: word(most, index),
        task_thread_pid: may("task_struct", &["thread_pid"]),
        pid_first_ns: btf
            .member("pid", "numbers")
            .zip(btf.member("upid", "ns"))
            .and_then(|(numbers, ns)| numbers.checked_add(ns))
            .unwrap_or(ABSENT),
        pid_level: may("pid", &["level"]),
        task_nsproxy: may("task_struct", &["nsproxy"]),
        nsproxy_children: may("nsproxy", &["pid_ns_for_children"]),
        pid_ns_allocated: may("pid_namespace", &["pid_allocated"]),
        pid_ns_parent: may("pid_namespace", &["parent"]),
        pid_ns_max: may("pid_namespace", &["pid_max"]),
        task_cgroups: may("task_struct", &["cgroups"]),
        cgroups_pids: word(
            btf.member("css_set", "subsys"),
            btf.enumerator("cgroup_subsys_id", "pids_cgrp_id"),
        ),
        css_parent: may("cgroup_subsys_state", &["parent"]),
        css_counter: from_css("counter"),
        css_limit: from_css("limit"),
    }
}

/// How the programs find a mapped file's path; `None` where a member is missing.
fn file_layout(btf: &Btf<'_>) -> Option<FileLayout> {
    let may = |of: &'static str, member: &str| btf.member(of, member).unwrap_or(ABSENT);
    // Two numbers since 6.11, before that one timespec64, which had another name before 6.6 (include/linux/fs.h).
    let changed = |alone, part| {
        btf.member("inode", alone)
            .or_else(|| btf.nested("inode", &["__i_ctime", part]))
            .or_else(|| btf.nested("inode", &["i_ctime", part]))
    };
    Some(FileLayout {
        vma_pgoff: btf.member("vm_area_struct", "vm_pgoff")?,
        vma_file: btf.member("vm_area_struct", "vm_file")?,
        mnt: btf.nested("file", &["f_path", "mnt"])?,
        dentry: btf.nested("file", &["f_path", "dentry"])?,
        inode: btf.member("file", "f_inode")?,
        inode_number: btf.member("inode", "i_ino")?,
        inode_changed_s: changed("i_ctime_sec", "tv_sec")?,
        inode_changed_ns: changed("i_ctime_nsec", "tv_nsec")?,
        dentry_name: btf.nested("dentry", &["d_name", "name"])?,
        dentry_parent: btf.member("dentry", "d_parent")?,
        mnt_root: btf.member("vfsmount", "mnt_root")?,
        mount_mnt: btf.member("mount", "mnt")?,
        mount_parent: btf.member("mount", "mnt_parent")?,
        mount_mountpoint: btf.member("mount", "mnt_mountpoint")?,
        mm_tree: btf.nested("mm_struct", &["mm_rb", "rb_node"]).unwrap_or(ABSENT),
        vma_node: may("vm_area_struct", "vm_rb"),
        vma_mm: may("vm_area_struct", "vm_mm"),
        node_left: may("rb_node", "rb_left"),
        node_right: may("rb_node", "rb_right"),
    })
}

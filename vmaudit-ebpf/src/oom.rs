//! The memory cgroups of a process that the OOM killer has chosen, as they are at that moment: which of them ran out of
//! memory, and what they are called. User space comes too late for that: the process has left, and its cgroup may be gone.

use core::{ffi::c_void, mem::offset_of};

use aya_ebpf::{helpers::generated::bpf_probe_read_kernel_str, macros::map, maps::PerCpuArray};
use vmaudit_common::{
    ABSENT, NAME_BYTES, OOM_INSIDE, OOM_LEVELS, OOM_SAYS, OOM_WHOLE, OomLevel, OomRecord, PATH_BYTES,
    RecordHeader,
};

use crate::{
    control::layout,
    kernel::{self, peek},
    records,
};

const HEAD: usize = offset_of!(OomRecord, path);

/// What one report works on. Each CPU has its own, and a program is not entered again while it runs on a CPU. In a map, so
/// that the verifier knows none of the values.
#[repr(C)]
struct Work {
    record: OomRecord,
    /// The outermost cgroup that ran out: its css.
    acting: u64,
}

#[map]
static VICTIM: PerCpuArray<Work> = PerCpuArray::with_max_entries(1, 0);

/// Tells of a victim; `task` is 0 where it is not known.
#[inline(always)]
pub fn tell(head: RecordHeader, start_boottime_ns: u64, task: u64) {
    let Some(work) = VICTIM.get_ptr_mut(0) else { return };
    // SAFETY: points into the map; so for the rest.
    unsafe {
        (*work).record.head = head;
        (*work).record.start_boottime_ns = start_boottime_ns;
        (*work).record.cgroup = 0;
        (*work).record.levels = 0;
        (*work).record.flags = if layout!(end.css_oom_lock) == ABSENT { 0 } else { OOM_SAYS };
        (*work).record.acting = 0;
        (*work).record.path_bytes = 0;
        (*work).acting = 0;
    }
    // Pages are charged to the cgroup of the process's first task (mm/memcontrol.c:mem_cgroup_from_task of mm.owner).
    let mut css = memory_of(if task == 0 { 0 } else { kernel::leader_of(task) });
    for level in 0..OOM_LEVELS as u32 {
        if css == 0 {
            break;
        }
        css = tell_level(css, level);
    }
    css = memory_of(kernel::current());
    for _ in 0..OOM_LEVELS {
        if css == 0 {
            break;
        }
        css = compare_level(css);
    }
    // SAFETY: as above; the length is masked and stays below that of the record.
    unsafe {
        let bytes = core::ptr::read_volatile(&raw const (*work).record.path_bytes) as usize;
        let bytes = bytes & (2 * PATH_BYTES - 1);
        if bytes > PATH_BYTES + NAME_BYTES {
            return;
        }
        records::oom(core::slice::from_raw_parts((&raw const (*work).record).cast::<u8>(), HEAD + bytes));
    }
}

/// The css of a task's memory cgroup; 0 where it cannot be read.
#[inline(always)]
fn memory_of(task: u64) -> u64 {
    let set: u64 = peek(task, layout!(tasks.task_cgroups)).unwrap_or(0);
    peek(set, layout!(end.cgroups_memory)).unwrap_or(0)
}

/// Adds one level; gives the next one above, 0 if there is none.
// Global, as the next: looked at once by the verifier.
// SAFETY: no other symbol of the object has this name; so for the next.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn tell_level(css: u64, level: u32) -> u64 {
    let Some(work) = VICTIM.get_ptr_mut(0) else { return 0 };
    let Some(parent) = peek::<u64>(css, layout!(tasks.css_parent)) else { return 0 };
    // SAFETY: points into the map; each index is masked; a name begins below PATH_BYTES and has NAME_BYTES room.
    unsafe {
        if parent == 0 {
            (*work).record.flags |= OOM_WHOLE;
            return 0;
        }
        let node: u64 = peek(css, layout!(end.css_cgroup))
            .and_then(|cgroup| peek(cgroup, layout!(end.cgroup_kn)))
            .unwrap_or(0);
        let (Some(id), Some(name)) =
            (peek::<u64>(node, layout!(end.kn_id)), peek::<u64>(node, layout!(end.kn_name)))
        else {
            return 0;
        };
        let (Some(limit), Some(used)) =
            (peek(css, layout!(end.css_memory_limit)), peek(css, layout!(end.css_memory_used)))
        else {
            return 0;
        };
        let at = (*work).record.path_bytes as usize;
        if at >= PATH_BYTES {
            return 0;
        }
        let into = (&raw mut (*work).record.path).cast::<u8>().add(at & (PATH_BYTES - 1));
        let length = bpf_probe_read_kernel_str(into.cast(), NAME_BYTES as u32, name as *const c_void);
        if length <= 0 {
            return 0;
        }
        (*work).record.path_bytes = at as u32 + length as u32;
        if level == 0 {
            (*work).record.cgroup = id;
        }
        (&raw mut (*work).record.level)
            .cast::<OomLevel>()
            .add(level as usize & (OOM_LEVELS - 1))
            .write(OomLevel { limit, used });
        (*work).record.levels = level + 1;
        // Held for a cgroup and all below it from when it has run out until its OOM killer is done
        // (mm/memcontrol.c:mem_cgroup_oom, mem_cgroup_oom_trylock; mm/memcontrol-v1.c:memcg1_oom_prepare since 6.11).
        if peek::<u8>(css, layout!(end.css_oom_lock)).unwrap_or(0) != 0 {
            (*work).record.acting |= 1 << (level & 31);
            (*work).acting = css;
        }
    }
    parent
}

/// Compares one level above `current` with the cgroup that ran out; gives the next one, 0 when there is no need.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn compare_level(css: u64) -> u64 {
    let Some(work) = VICTIM.get_ptr_mut(0) else { return 0 };
    // SAFETY: points into the map.
    unsafe {
        if css == (*work).acting {
            (*work).record.flags |= OOM_INSIDE;
            return 0;
        }
    }
    peek(css, layout!(tasks.css_parent)).unwrap_or(0)
}

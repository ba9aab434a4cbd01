//! Whether what a call has given back is a refusal for lack of memory or of a limit.

use vmaudit_common::call::{self, CALL_COUNT, CALLS, Call, Refusal};

use crate::{
    call::{ReturnedCall, index_of, may_downgrade},
    failure::{counters, left, outcome},
    kernel::{self, argument},
    slots::Slot,
};

const ENOMEM: i64 = 12;
const EAGAIN: i64 = 11;
const EPERM: i64 = 1;
const ENOSPC: i64 = 28;
const PR_SET_VMA: u64 = 0x5356_4d41;
/// Type byte of userfaultfd's ioctls (include/uapi/linux/userfaultfd.h:UFFDIO).
const UFFDIO: u64 = 0xaa;

/// [`CALLS`]' refusals alone, so that no names travel into the object.
static REFUSALS: [u8; CALL_COUNT] = {
    let mut refusals = [0; CALL_COUNT];
    let mut id = 0;
    while id < CALL_COUNT {
        refusals[id] = CALLS[id].refusal as u8;
        id += 1;
    }
    refusals
};

/// Counts a call of the address space with this slot, and what it gave back; the errno of one that was refused. `CAS`: the
/// kernel has compare-and-swap.
#[inline(always)]
pub fn count<const CAS: bool>(index: u32, slot: Slot, returned: &ReturnedCall) -> Option<u8> {
    let ReturnedCall { id, ret, regs, .. } = *returned;
    if id == call::COMPAT {
        slot.count_call(id);
        return None;
    }
    if ret == 0 && matches!(id, call::CLONE | call::CLONE3 | call::FORK | call::VFORK) {
        return None; // the child's side of the call
    }
    if id == call::IOCTL && argument(regs, 1) >> 8 & 0xff != UFFDIO {
        return None;
    }
    slot.count_call(id);
    let errno = refusal(returned);
    if errno.is_none() {
        if CAS {
            if left::may_go(slot, id) {
                left::left_goes(index, u32::from(id));
            }
        } else if may_downgrade(id) {
            counters::given_back::<CAS>(slot, returned);
        }
        if slot.waiting().read() != 0 {
            outcome::granted::<CAS>(slot, returned);
        }
    }
    errno
}

/// The errno of a refusal; `None` for success and for other errors.
#[inline(always)]
fn refusal(returned: &ReturnedCall) -> Option<u8> {
    let ReturnedCall { id, ret, regs, task, .. } = *returned;
    let rule = REFUSALS[index_of(id)?];
    if rule == Refusal::Brk as u8 {
        return brk_refused(ret, regs, task);
    }
    let errno = -ret;
    let locks = rule == Refusal::Lock as u8 || rule == Refusal::Mmap as u8;
    let hit = (errno == ENOMEM && rule != Refusal::Never as u8)
        || (errno == EAGAIN && (locks || rule == Refusal::EnomemEagain as u8))
        || (errno == ENOSPC && rule == Refusal::EnomemEnospc as u8)
        || (errno == EPERM && locks && may_lock_nothing(id, regs, task));
    if !hit || (id == call::PRCTL && argument(regs, 0) != PR_SET_VMA) {
        return None;
    }
    Some(errno as u8)
}

/// The call wants to lock memory, and RLIMIT_MEMLOCK is 0 (mm/mlock.c:can_do_mlock).
#[inline(always)]
fn may_lock_nothing(id: Call, regs: u64, task: u64) -> bool {
    const MAP_LOCKED: u64 = 0x2000;
    const SHM_LOCK: u64 = 11;
    const RLIMIT_MEMLOCK: u32 = 8;
    let asks = match id {
        call::MMAP => argument(regs, 3) & MAP_LOCKED != 0,
        // A version bit may stand beside the command (include/linux/ipc.h:IPC_64).
        call::SHMCTL => argument(regs, 1) & 0xff == SHM_LOCK,
        _ => true,
    };
    asks && kernel::rlimit(task, RLIMIT_MEMLOCK) == 0 && !kernel::may_lock_any(task)
}

/// brk answers with the break it leaves behind; asking for another one and not getting it is the refusal. A request
/// below the start of the heap, brk(0) above all, is a question (mm/mmap.c:brk).
#[inline(always)]
fn brk_refused(ret: i64, regs: u64, task: u64) -> Option<u8> {
    let asked = argument(regs, 0);
    if ret < 0 || asked == ret as u64 || asked < kernel::start_brk(task) {
        return None;
    }
    Some(ENOMEM as u8)
}

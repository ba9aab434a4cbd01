//! Refusals at vm.max_map_count: each call at one below the limit, at it, and one above it; mremap, which wants several
//! VMAs free, from seven below on.

use libc::{MAP_NORESERVE, PROT_NONE, PROT_READ, PROT_WRITE, c_int};

use crate::makers::max_map_count;
use crate::memory::{
    Errno, Holes, PAGE, PRIVATE, brk, call, die, leave, madvise, mlock, mmap, mprotect, mremap, must,
};
use crate::own::{Own, count};

/// Pages of a target: the call under test goes for the middle one.
pub const TARGET: usize = 3;
const READ_WRITE: c_int = PROT_READ | PROT_WRITE;

/// Raises and lowers this process's count to an exact value.
pub struct Level {
    /// One VMA each, mapped; for going down.
    down: Holes,
    downs: usize,
    /// Free; for going up.
    up: Holes,
    ups: usize,
}

/// What is called at the limit.
#[derive(Clone, Copy)]
struct Case {
    /// The kernel's name.
    call: &'static str,
    /// Makes the call for target `i`; `Err` with the errno when the kernel refused.
    run: fn(&Room, usize) -> Result<(), Errno>,
    /// Bytes that a refusal leaves mapped.
    leaves: u64,
    /// How far below the limit it starts.
    below: u64,
}

/// Where the targets are.
pub struct Room {
    targets: usize,
    /// For mmap; reserved until [`run`] has filled the rest.
    free: Holes,
    heap: usize,
}

impl Room {
    /// Start of target `i`, [`TARGET`] pages of one read-write VMA with free pages on both sides.
    pub fn target(&self, i: usize) -> usize {
        self.targets + (i * (TARGET + 1) + 1) * PAGE
    }

    fn middle(&self, i: usize) -> usize {
        self.target(i) + PAGE
    }
}

/// One more than any kernel wants to see free, and it is allowed there.
const MREMAP_BELOW: u64 = 7;

const CASES: &[(&str, Case)] = &[
    ("mmap", Case { call: "mmap", run: mmap_one, leaves: 0, below: 1 }),
    ("mmap-fixed", Case { call: "mmap", run: mmap_over_the_middle, leaves: 0, below: 1 }),
    ("munmap", Case { call: "munmap", run: munmap_the_middle, leaves: PAGE as u64, below: 1 }),
    ("mprotect", Case { call: "mprotect", run: mprotect_the_middle, leaves: 0, below: 1 }),
    ("pkey_mprotect", Case { call: "pkey_mprotect", run: pkey_mprotect_the_middle, leaves: 0, below: 1 }),
    ("madvise", Case { call: "madvise", run: madvise_the_middle, leaves: 0, below: 1 }),
    ("mbind", Case { call: "mbind", run: mbind_the_middle, leaves: 0, below: 1 }),
    ("mlock", Case { call: "mlock", run: mlock_the_middle, leaves: 0, below: 1 }),
    ("mremap-move", Case { call: "mremap", run: mremap_that_must_move, leaves: 0, below: MREMAP_BELOW }),
    (
        "mremap-shrink",
        Case { call: "mremap", run: mremap_to_a_hole, leaves: PAGE as u64, below: MREMAP_BELOW },
    ),
    ("mremap-fixed", Case { call: "mremap", run: mremap_to_an_address, leaves: 0, below: MREMAP_BELOW }),
    ("mremap-dontunmap", Case { call: "mremap", run: mremap_that_keeps, leaves: 0, below: MREMAP_BELOW }),
    ("mremap-same", Case { call: "mremap", run: mremap_to_the_same, leaves: 0, below: MREMAP_BELOW }),
    ("brk", Case { call: "brk", run: brk_grow, leaves: 0, below: 1 }),
    ("shmat", Case { call: "shmat", run: shmat_one, leaves: 0, below: 1 }),
    ("io_setup", Case { call: "io_setup", run: io_setup_one, leaves: 0, below: 1 }),
    (
        "remap_file_pages",
        Case { call: "remap_file_pages", run: remap_file_pages_middle, leaves: 0, below: 1 },
    ),
];

/// Names for the usage line and for the tests.
pub fn names() -> impl Iterator<Item = &'static str> {
    CASES.iter().map(|(name, _)| *name)
}

fn done<T>(result: Result<T, Errno>) -> Result<(), Errno> {
    result.map(drop)
}

fn mmap_one(room: &Room, _: usize) -> Result<(), Errno> {
    // A hint at a free address: the kernel takes it, and no neighbour can merge.
    let flags = (PRIVATE | MAP_NORESERVE) as usize;
    done(call(libc::SYS_mmap, [room.free.at(0), PAGE, PROT_READ as usize, flags, usize::MAX, 0]))
}

fn mmap_over_the_middle(room: &Room, i: usize) -> Result<(), Errno> {
    done(crate::memory::mmap_at(room.middle(i), PAGE, PROT_READ))
}

fn munmap_the_middle(room: &Room, i: usize) -> Result<(), Errno> {
    done(crate::memory::munmap(room.middle(i), PAGE))
}

fn mprotect_the_middle(room: &Room, i: usize) -> Result<(), Errno> {
    done(mprotect(room.middle(i), PAGE, PROT_NONE))
}

fn pkey_mprotect_the_middle(room: &Room, i: usize) -> Result<(), Errno> {
    let no_key = usize::MAX;
    done(call(libc::SYS_pkey_mprotect, [room.middle(i), PAGE, PROT_NONE as usize, no_key, 0, 0]))
}

fn madvise_the_middle(room: &Room, i: usize) -> Result<(), Errno> {
    done(madvise(room.middle(i), PAGE, libc::MADV_DONTFORK))
}

/// To the only node that every machine has: the policy differs from the neighbours', which have none.
fn mbind_the_middle(room: &Room, i: usize) -> Result<(), Errno> {
    const MPOL_BIND: usize = 2;
    let nodes = 1_u64;
    done(call(libc::SYS_mbind, [room.middle(i), PAGE, MPOL_BIND, (&raw const nodes) as usize, 64, 0]))
}

fn mlock_the_middle(room: &Room, i: usize) -> Result<(), Errno> {
    done(mlock(room.middle(i), PAGE))
}

fn mremap_that_must_move(room: &Room, i: usize) -> Result<(), Errno> {
    // The whole target, to a length for which there is no room where it is.
    let moved = mremap(room.target(i), TARGET * PAGE, 2 * TARGET * PAGE, libc::MREMAP_MAYMOVE);
    moved.map(|to| gone(to, 2 * TARGET))
}

fn mremap_to_an_address(room: &Room, i: usize) -> Result<(), Errno> {
    let flags = (libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED) as usize;
    let length = TARGET * PAGE;
    let moved = call(libc::SYS_mremap, [room.target(i), length, length, flags, room.free.at(0), 0]);
    moved.map(|to| gone(to, TARGET))
}

fn mremap_that_keeps(room: &Room, i: usize) -> Result<(), Errno> {
    let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_DONTUNMAP;
    mremap(room.target(i), TARGET * PAGE, TARGET * PAGE, flags).map(|to| gone(to, TARGET))
}

fn mremap_to_the_same(room: &Room, i: usize) -> Result<(), Errno> {
    done(mremap(room.target(i), TARGET * PAGE, TARGET * PAGE, 0))
}

/// What was moved is in the way of [`Level`] wherever the kernel put it.
fn gone(at: usize, pages: usize) {
    must(crate::memory::munmap(at, pages * PAGE), "munmap of what was moved");
}

fn mremap_to_a_hole(room: &Room, i: usize) -> Result<(), Errno> {
    done(mremap(room.target(i), 2 * PAGE, PAGE, 0))
}

fn brk_grow(room: &Room, _: usize) -> Result<(), Errno> {
    let to = brk(0) + PAGE;
    debug_assert!(to > room.heap);
    if brk(to) == to { Ok(()) } else { Err(libc::ENOMEM) }
}

fn shmat_one(_: &Room, _: usize) -> Result<(), Errno> {
    let private = libc::IPC_PRIVATE as usize;
    let id = must(call(libc::SYS_shmget, [private, PAGE, 0o600, 0, 0, 0]), "shmget");
    let answer = call(libc::SYS_shmat, [id, 0, 0, 0, 0, 0]);
    must(call(libc::SYS_shmctl, [id, libc::IPC_RMID as usize, 0, 0, 0, 0]), "shmctl");
    done(answer)
}

fn io_setup_one(_: &Room, _: usize) -> Result<(), Errno> {
    let mut context = 0_usize;
    done(call(libc::SYS_io_setup, [1, &raw mut context as usize, 0, 0, 0, 0]))
}

fn remap_file_pages_middle(room: &Room, i: usize) -> Result<(), Errno> {
    // Only shared mappings may be remapped.
    done(call(libc::SYS_remap_file_pages, [room.middle(i), PAGE, 0, 2, 0, 0]))
}

impl Level {
    /// Fills up to a little below the limit.
    pub fn fill(limit: u64) -> Self {
        const FINE: usize = 24;
        let down = Holes::find(FINE);
        (0..FINE).for_each(|i| down.map(i));
        // 200 VMAs are left for the fine steps and for what the process has.
        let have = count();
        let splits = (limit - have - 4 * FINE as u64) / 2;
        let region = mmap((2 * splits as usize + 1) * PAGE, PROT_NONE, MAP_NORESERVE);
        let region = must(region, "mmap of the region to be split");
        for i in 0..splits as usize {
            must(mprotect(region + (2 * i + 1) * PAGE, PAGE, PROT_READ), "mprotect while filling");
        }
        Self { down, downs: FINE, up: Holes::find(16 * FINE), ups: 0 }
    }

    /// Brings the count to exactly `target`, at most one above the limit.
    pub fn set(&mut self, target: u64) {
        let mut now = count();
        while now < target {
            self.up.map(self.ups);
            self.ups += 1;
            now += 1;
        }
        while now > target {
            self.downs -= 1;
            self.down.unmap(self.downs);
            now -= 1;
        }
        crate::own::looked(target, "at the level");
    }
}

/// Makes `name`'s call at each count from some below the limit to one above it; `repeat` times where it is refused.
///
/// The kernel's own answers are counted; by construction the limit is the only possible cause.
pub fn run(name: &str, repeat: usize) -> ! {
    let Some((_, case)) = CASES.iter().find(|(n, _)| *n == name) else {
        die(2, format_args!("no such case: {name}"));
    };
    let limit = max_map_count();
    let base = count();
    let room = room(name, (case.below as usize + 2) * repeat);
    let mut level = Level::fill(limit);
    room.free.release();
    let mut own = Own::new("limit", base, 0);
    let first = limit - case.below;
    for at in first..=limit + 1 {
        level.set(at);
        own.peak = own.peak.max(at);
        for i in 0..repeat {
            let target = (at - first) as usize * repeat + i;
            match (case.run)(&room, target) {
                Err(errno) => {
                    own.refuse(case.call, errno, "max_map_count");
                    own.leaked_bytes += case.leaves;
                }
                Ok(()) => break,
            }
        }
        own.peak = own.peak.max(count());
    }
    own.last = Some(count());
    own.print();
    leave(0)
}

/// `targets` targets and a free page, before the count is raised.
fn room(name: &str, targets: usize) -> Room {
    let shared = name == "remap_file_pages";
    self::targets(targets, if shared { libc::MAP_SHARED | libc::MAP_ANONYMOUS } else { PRIVATE })
}

/// The same of private or shared memory.
pub fn targets(targets: usize, place: c_int) -> Room {
    // Room for a target in one piece.
    let free = Holes::reserve(TARGET - 1);
    let len = (targets * (TARGET + 1) + 1) * PAGE;
    let region = call(libc::SYS_mmap, [0, len, READ_WRITE as usize, place as usize, usize::MAX, 0]);
    let targets_at = must(region, "mmap of the targets");
    for i in 0..=targets {
        let gap = targets_at + i * (TARGET + 1) * PAGE;
        must(crate::memory::munmap(gap, PAGE), "munmap between the targets");
    }
    Room { targets: targets_at, free, heap: brk(0) }
}

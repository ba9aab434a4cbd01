//! What the loader has set, and the page of counters and settings that is shared with user space.
//!
//! User space reads the page through mmap: bpf() map calls would switch classic tracepoint programs off on a CPU
//! (kernel/bpf/syscall.c:bpf_disable_instrumentation).

use core::intrinsics::{AtomicOrdering, atomic_cxchg, atomic_xadd};

use vmaudit_common::{Config, Control, Layout, Lost};

/// A map that user space may map into its memory.
pub const BPF_F_MMAPABLE: u32 = 1 << 10;

/// The address of the page. The loader puts a map's value in place of it (vmaudit-user/src/source/ebpf/placed.rs), so that
/// no program has to look it up and no verifier follows what would happen if it were not there: that was half of
/// all look-ups, and a third of the time that loading took.
const PAGE: usize = 0x7a5c_0df2_4000_0000;

/// Set by the loader before load; the verifier sees constants and drops what they switch off.
#[unsafe(no_mangle)]
static LAYOUT: Layout = zeroed();
/// See [`LAYOUT`].
#[unsafe(no_mangle)]
static CONFIG: Config = zeroed();

pub const fn zeroed<T: Copy>() -> T {
    // SAFETY: used for `Layout`, `Config` and `SignalSeen` only, which are plain integers (Pod).
    unsafe { core::mem::zeroed() }
}

/// Reads a member of [`LAYOUT`] so that the compiler cannot assume its value.
macro_rules! layout {
    ($($field:tt)+) => {
        {
            #[allow(unused_unsafe, reason = "also used inside unsafe blocks")]
            // SAFETY: an aligned read of a static; volatile because the loader rewrites the section.
            let value = unsafe { core::ptr::read_volatile(&raw const (*$crate::control::layout_ptr()).$($field)+) };
            value
        }
    };
}
pub(crate) use layout;

/// Reads a member of [`CONFIG`], see [`layout!`].
macro_rules! config {
    ($($field:tt)+) => {
        {
            #[allow(unused_unsafe, reason = "also used inside unsafe blocks")]
            // SAFETY: an aligned read of a static; volatile because the loader rewrites the section.
            let value = unsafe { core::ptr::read_volatile(&raw const (*$crate::control::config_ptr()).$($field)+) };
            value
        }
    };
}
pub(crate) use config;

/// For [`layout!`] only.
#[inline(always)]
pub fn layout_ptr() -> *const Layout {
    &raw const LAYOUT
}

/// For [`config!`] only.
#[inline(always)]
pub fn config_ptr() -> *const Config {
    &raw const CONFIG
}

/// The shared page.
#[derive(Clone, Copy)]
pub struct Page(*mut Control);

impl Page {
    /// The only one.
    #[inline(always)]
    pub const fn get() -> Self {
        Self(core::ptr::without_provenance_mut(PAGE))
    }

    /// 0, but not to the verifier. Mixed into a value that branches have built, it makes their ends look alike, so that
    /// what follows is verified once and not once for each combination (before 6.3 the verifier compares all scalars of
    /// a program with subprograms exactly, and gives up at a million instructions).
    #[inline(always)]
    pub fn unknown_zero(self) -> u32 {
        // SAFETY: the loader puts the page there; volatile because the compiler must not know the value either.
        unsafe { core::ptr::read_volatile(&raw const (*self.0).zero) }
    }

    /// vm.max_map_count as user space last read it.
    #[inline(always)]
    pub fn max_map_count(self) -> u32 {
        // SAFETY: as above; user space writes the whole word.
        unsafe { core::ptr::read_volatile(&raw const (*self.0).max_map_count) }
    }

    /// kernel.threads-max as user space last read it, 0: not known.
    #[inline(always)]
    pub fn max_threads(self) -> u32 {
        // SAFETY: as above.
        unsafe { core::ptr::read_volatile(&raw const (*self.0).max_threads) }
    }

    /// kernel.pid_max likewise.
    #[inline(always)]
    pub fn pid_max(self) -> u32 {
        // SAFETY: as above.
        unsafe { core::ptr::read_volatile(&raw const (*self.0).pid_max) }
    }

    /// `LIMIT_*` bits.
    #[inline(always)]
    pub fn limits_met(self) -> u32 {
        // SAFETY: as above.
        unsafe { core::ptr::read_volatile(&raw const (*self.0).limits_met) }
    }

    /// Sets them. Of two that do so at once one bit can be lost; whoever looks next sets it again.
    #[inline(always)]
    pub fn meet_limits(self, bits: u32) {
        // SAFETY: as above.
        unsafe { core::ptr::write_volatile(&raw mut (*self.0).limits_met, bits) }
    }

    /// The exits of calls are watched for refusals that nobody asks for.
    #[inline(always)]
    pub fn watched(self) -> bool {
        // SAFETY: as above; user space writes the whole word.
        unsafe { core::ptr::read_volatile(&raw const (*self.0).watched) != 0 }
    }

    /// Where the next search for a free slot begins.
    #[inline(always)]
    pub fn cursor(self) -> Word {
        // SAFETY: as above.
        Word(unsafe { &raw mut (*self.0).cursor })
    }

    /// Uses of slots so far.
    #[inline(always)]
    pub fn generation(self) -> Word {
        // SAFETY: as above.
        Word(unsafe { &raw mut (*self.0).generation })
    }

    /// Slots that are not free.
    #[inline(always)]
    pub fn slots_in_use(self) -> Word {
        // SAFETY: as above.
        Word(unsafe { &raw mut (*self.0).slots_in_use })
    }

    /// Slots that wait to be read by user space.
    #[inline(always)]
    pub fn slots_dead(self) -> Word {
        // SAFETY: as above.
        Word(unsafe { &raw mut (*self.0).slots_dead })
    }

    /// When the reader was last woken for news that can wait.
    #[inline(always)]
    pub fn woken_ns(self) -> Word {
        // SAFETY: as above.
        Word(unsafe { &raw mut (*self.0).woken_ns })
    }

    /// Slots of processes that live in the address space of another.
    #[inline(always)]
    pub fn lodgers(self) -> Word {
        // SAFETY: as above.
        Word(unsafe { &raw mut (*self.0).lodgers })
    }

    /// The walk over all tasks is the last one.
    #[inline(always)]
    pub fn last_walk(self) -> Word {
        // SAFETY: as above.
        Word(unsafe { &raw mut (*self.0).last_walk })
    }

    /// Number of the interval that runs.
    #[inline(always)]
    pub fn interval(self) -> Word {
        // SAFETY: as above.
        Word(unsafe { &raw mut (*self.0).interval })
    }

    /// How often the programs took an mmap lock.
    #[inline(always)]
    fn lock_takes(self) -> Word {
        // SAFETY: as above.
        Word(unsafe { &raw mut (*self.0).looks })
    }

    #[inline(always)]
    fn lost(self) -> *mut Lost {
        // SAFETY: as above.
        unsafe { &raw mut (*self.0).lost }
    }
}

/// Clears so many words. Volatile: what the compiler makes of it else clears byte by byte, at run time and, step by step, in
/// the verifier too.
///
/// # Safety
/// `words` is aligned to 8 and may be written.
#[inline(always)]
pub unsafe fn clear_words(words: *mut u64, count: usize) {
    for n in 0..count {
        // SAFETY: as the caller says.
        unsafe { words.add(n).write_volatile(0) };
    }
}

/// A word in a map's memory, aligned to 8, that other CPUs also write.
#[derive(Clone, Copy)]
pub struct Word(*mut u64);

impl Word {
    /// # Safety
    /// `word` lies in a map's value and is aligned to 8.
    #[inline(always)]
    pub const unsafe fn new(word: *mut u64) -> Self {
        Self(word)
    }

    /// Its value now.
    #[inline(always)]
    pub fn read(self) -> u64 {
        // SAFETY: in a map's value, see `new`.
        unsafe { core::ptr::read_volatile(self.0) }
    }

    /// Another value.
    #[inline(always)]
    pub fn write(self, value: u64) {
        // SAFETY: as above.
        unsafe { core::ptr::write_volatile(self.0, value) }
    }

    /// Adds.
    #[inline(always)]
    pub fn add(self, n: u64) {
        // SAFETY: as above.
        unsafe {
            atomic_xadd::<u64, u64, { AtomicOrdering::Relaxed }>(self.0, n);
        }
    }

    /// Adds, and tells what it was. (5.12 and later.)
    #[inline(always)]
    pub fn take_turn(self, n: u64) -> u64 {
        // SAFETY: as above.
        unsafe { atomic_xadd::<u64, u64, { AtomicOrdering::SeqCst }>(self.0, n) }
    }

    /// Makes it at least `value`. (5.12 and later.)
    #[inline(always)]
    pub fn raise(self, value: u64) {
        const TRIES: u32 = 8;
        for _ in 0..TRIES {
            let was = self.read();
            if was >= value {
                return;
            }
            if self.claim(was, value).is_ok() {
                return;
            }
        }
    }

    /// Makes it `to` if it is `from`; else tells what it is. (5.12 and later.)
    #[inline(always)]
    pub fn claim(self, from: u64, to: u64) -> Result<(), u64> {
        // SAFETY: as above.
        let (seen, done) = unsafe {
            atomic_cxchg::<u64, { AtomicOrdering::SeqCst }, { AtomicOrdering::SeqCst }>(self.0, from, to)
        };
        if done { Ok(()) } else { Err(seen) }
    }
}

/// Counts one loss; for [`lost!`].
#[inline(always)]
pub fn count_loss(counter: impl FnOnce(*mut Lost) -> *mut u64) {
    // SAFETY: a counter of the page (`lost!` projects one of its own fields), all of which are u64.
    unsafe { Word::new(counter(Page::get().lost())) }.add(1);
}

/// Counts how often a program took an mmap lock.
#[inline(always)]
pub fn count_lock_takes(n: u64) {
    Page::get().lock_takes().add(n);
}

/// Counts a loss by the name of its counter.
macro_rules! lost {
    ($field:ident) => {
        $crate::control::count_loss(|l| {
            #[allow(unused_unsafe, reason = "also used inside unsafe blocks")]
            // SAFETY: projects a valid pointer into the shared page.
            unsafe {
                &raw mut (*l).$field
            }
        })
    };
}
pub(crate) use lost;

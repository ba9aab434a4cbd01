//! The caller's interval timers: an exec keeps them and a fork does not (man 2 setitimer), so that `alarm 5; exec vmaudit
//! run CMD` would end vmaudit instead of CMD.

use std::mem::MaybeUninit;

use crate::os::clock::now_ns;

/// `__itimer_which_t` on every architecture (include/uapi/linux/time.h).
const KINDS: [libc::c_int; 3] = [libc::ITIMER_REAL, libc::ITIMER_VIRTUAL, libc::ITIMER_PROF];

/// The three timers as they were at one moment.
#[derive(Clone, Copy)]
pub struct Timers {
    at_ns: u64,
    all: [libc::itimerval; 3],
}

impl Timers {
    /// Takes them away from this process.
    pub fn take() -> Self {
        let off = libc::itimerval {
            it_interval: libc::timeval { tv_sec: 0, tv_usec: 0 },
            it_value: libc::timeval { tv_sec: 0, tv_usec: 0 },
        };
        let all = KINDS.map(|kind| {
            let mut old = MaybeUninit::new(off);
            // SAFETY: both live through the call; what it does not fill stays as it is.
            unsafe {
                libc::syscall(libc::SYS_setitimer, kind, &raw const off, old.as_mut_ptr());
                old.assume_init()
            }
        });
        Self { at_ns: now_ns(), all }
    }

    /// Gives them to this process, with what has passed meanwhile taken off.
    pub fn give(&self) {
        for (kind, timer) in KINDS.into_iter().zip(self.all) {
            let mut timer = timer;
            let left = micros(timer.it_value);
            if left == 0 {
                continue;
            }
            if kind == libc::ITIMER_REAL {
                let passed = now_ns().saturating_sub(self.at_ns) / 1000;
                let left = left.saturating_sub(i64::try_from(passed).unwrap_or(i64::MAX)).max(1);
                timer.it_value = libc::timeval { tv_sec: left / 1_000_000, tv_usec: left % 1_000_000 };
            }
            // SAFETY: `timer` lives through the call.
            unsafe { libc::syscall(libc::SYS_setitimer, kind, &raw const timer, 0) };
        }
    }
}

fn micros(time: libc::timeval) -> i64 {
    time.tv_sec.saturating_mul(1_000_000).saturating_add(time.tv_usec)
}

//! Processes that vmaudit has forked for itself. Where orphans of the command come to vmaudit, these are told from them.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

static OWN: Mutex<BTreeSet<i32>> = Mutex::new(BTreeSet::new());

fn own() -> MutexGuard<'static, BTreeSet<i32>> {
    OWN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// This one was forked.
pub fn note(pid: i32) {
    own().insert(pid);
}

/// This one has been waited for: its number may be anybody's.
pub fn forget(pid: i32) {
    own().remove(&pid);
}

/// It is vmaudit's own.
pub fn is_own(pid: i32) -> bool {
    own().contains(&pid)
}

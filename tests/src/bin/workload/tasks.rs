//! Processes that are allowed no child: by a limit on tasks, or in a pid namespace that has come to its end.

use crate::causes::{child, limit};
use crate::memory::{Errno, call, die, leave, mmap, must, read, read_text, write_all};
use crate::own::{Own, count};

/// A user whom nobody else here is.
const SOMEBODY: usize = 54_321;

/// As a user who is allowed so many tasks, makes children until no more are allowed: then `n` refusals. `stops`: with so many
/// children it says so on stderr (`children N`) and goes on at a byte on stdin.
pub fn full_user(most: usize, n: usize, stops: &[usize]) -> ! {
    limit(libc::RLIMIT_NPROC, most);
    must(call(libc::SYS_setresuid, [SOMEBODY, SOMEBODY, SOMEBODY, 0, 0, 0]), "setresuid");
    fill(None, "rlimit_nproc", n, stops)
}

/// Makes children until no more are allowed, in this cgroup if one is given: then `n` refusals for `cause`.
pub fn full(folder: Option<&str>, cause: &'static str, n: usize) -> ! {
    fill(folder, cause, n, &[])
}

fn fill(folder: Option<&str>, cause: &'static str, n: usize, stops: &[usize]) -> ! {
    if let Some(folder) = folder
        && let Err(error) = std::fs::write(format!("{folder}/cgroup.procs"), "0")
    {
        die(99, format_args!("cannot join {folder}: {error}"));
    }
    let mut children = Vec::with_capacity(100_000);
    let base = count();
    let mut own = Own::new("tasks", base, 0);
    let errno = loop {
        if stops.contains(&children.len()) {
            write_all(2, format!("children {}\n", children.len()).as_bytes());
            if read(0, &mut [0]) != 1 {
                die(99, format_args!("stdin has ended"));
            }
        }
        match call(libc::SYS_clone, [libc::SIGCHLD as usize, 0, 0, 0, 0, 0]) {
            Ok(0) => loop {
                // Until it is killed.
                let _ = call(libc::SYS_ppoll, [0; 6]);
            },
            Ok(pid) if children.len() < children.capacity() => children.push(pid),
            Ok(_) => die(99, format_args!("{} children were allowed", children.len())),
            Err(errno) => break errno,
        }
    };
    own.refuse("clone", errno, cause);
    no_child(&mut own, cause, libc::EAGAIN, n - 1);
    for pid in children {
        must(call(libc::SYS_kill, [pid, libc::SIGKILL as usize, 0, 0, 0, 0]), "kill");
        must(call(libc::SYS_wait4, [pid, 0, 0, 0, 0, 0]), "wait4");
    }
    own.last = Some(count());
    own.print();
    leave(0)
}

/// The first process of the pid namespace for children has ended: `n` refusals.
pub fn dead_namespace(n: usize) -> ! {
    let base = count();
    let mut own = Own::new("tasks", base, 0);
    must(call(libc::SYS_unshare, [libc::CLONE_NEWPID as usize, 0, 0, 0, 0, 0]), "unshare");
    let first = must(child(), "clone");
    must(call(libc::SYS_wait4, [first, 0, 0, 0, 0, 0]), "wait4");
    no_child(&mut own, "pid_namespace_ended", libc::ENOMEM, n);
    own.last = Some(count());
    own.print();
    leave(0)
}

fn no_child(own: &mut Own, cause: &'static str, expected: Errno, n: usize) {
    for _ in 0..n {
        match child() {
            Err(errno) if errno == expected => own.refuse("clone", errno, cause),
            other => die(99, format_args!("clone for {cause}: {other:?} instead of errno {expected}")),
        }
    }
}

/// With strict overcommit accounting: this process could not be there twice.
pub fn too_large_to_copy(n: usize) -> ! {
    let left = meminfo("CommitLimit:").saturating_sub(meminfo("Committed_AS:"));
    let base = count();
    let mut own = Own::new("tasks", base, 0);
    must(mmap(left / 10 * 6, libc::PROT_READ | libc::PROT_WRITE, 0), "mmap of most that is left");
    no_child(&mut own, "overcommit", libc::ENOMEM, n);
    own.last = Some(count());
    own.print();
    leave(0)
}

/// A figure of /proc/meminfo, bytes.
fn meminfo(name: &str) -> usize {
    let mut buffer = [0; 4096];
    let text = read_text(b"/proc/meminfo\0", &mut buffer);
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let kib = line.and_then(|rest| rest.split_ascii_whitespace().next()?.parse::<usize>().ok());
    1024 * kib.unwrap_or_else(|| die(99, format_args!("/proc/meminfo has no {name}")))
}

//! Families of processes: each member's history is known, and no two neighbours have the same.

use std::ffi::CString;

use libc::{MAP_NORESERVE, PROT_READ, PROT_WRITE, c_int, c_void};

use crate::makers::{pause_ms, up_and_down};
use crate::memory::{Errno, Holes, call, close, die, errno, leave, mmap, must, read, read_text, write_all};
use crate::own::{Calls, Own, count, counted, looked};

/// How a child of [`children`] ends.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// `_exit(0)`.
    Exit,
    /// SIGKILL at its peak.
    Killed,
    /// exec of this program as `burst`.
    Exec,
    /// The same, before it has mapped anything.
    ExecAtOnce,
    /// exec of a path that does not exist, then `_exit(3)`.
    ExecMissing,
    /// exec of something that is no program (the kernel has made the new address space by then), then `_exit(3)`.
    ExecGarbage,
}

impl End {
    /// It execs this program.
    fn execs(self) -> bool {
        matches!(self, Self::Exec | Self::ExecAtOnce)
    }
}

/// Most pages a child maps.
pub const MOST: usize = 97;
/// How many children live at the same time.
pub const AT_ONCE: usize = 8;

/// Pages that child `i` maps and then unmaps: unlike those of its neighbours.
fn plan(i: usize) -> (usize, usize) {
    let mapped = 1 + i * 31 % MOST;
    (mapped, i / MOST % (mapped + 1))
}

/// Everything that exec needs, made before the fork.
pub struct Exec {
    path: CString,
    args: Vec<CString>,
    pointers: Vec<*const libc::c_char>,
}

impl Exec {
    pub fn new(path: &str, args: &[&str]) -> Self {
        let text = |s: &str| CString::new(s).unwrap_or_else(|_| die(99, format_args!("NUL in an argument")));
        let args: Vec<CString> = std::iter::once(&path).chain(args).map(|s| text(s)).collect();
        let pointers = args.iter().map(|a| a.as_ptr()).chain([std::ptr::null()]).collect();
        Self { path: text(path), args, pointers }
    }

    /// Only comes back when exec fails.
    pub fn go(&self) -> i32 {
        debug_assert_eq!(self.args.len() + 1, self.pointers.len());
        let environment = [std::ptr::null::<libc::c_char>()];
        // SAFETY: path, argument list (null at its end, strings owned by `args`) and environment are valid.
        unsafe { libc::execve(self.path.as_ptr(), self.pointers.as_ptr(), environment.as_ptr()) };
        errno()
    }
}

/// Path of this program, for exec.
pub fn this_program() -> String {
    match std::fs::read_link("/proc/self/exe").map(|p| p.into_os_string().into_string()) {
        Ok(Ok(path)) => path,
        other => die(99, format_args!("path of this program: {other:?}")),
    }
}

/// Room for `n` process ids, without the allocator.
pub fn pids(n: usize) -> &'static mut [i32] {
    let room = must(mmap(n * size_of::<i32>(), PROT_READ | PROT_WRITE, 0), "mmap of the list of children");
    // SAFETY: the mapping was just made for `n` numbers, is aligned, zero-filled and used by nobody else.
    unsafe { std::slice::from_raw_parts_mut(room as *mut i32, n) }
}

/// fork without libc's preparations: the child has exactly the parent's VMAs.
pub fn fork() -> i32 {
    must(call(libc::SYS_clone, [libc::SIGCHLD as usize, 0, 0, 0, 0, 0]), "fork") as i32
}

/// The child's wait status.
pub fn reap(pid: i32) -> i32 {
    let mut status = 0;
    // SAFETY: `status` is valid for writing.
    while unsafe { libc::waitpid(pid, &raw mut status, libc::__WALL) } < 0 {
        if errno() != libc::EINTR {
            die(99, format_args!("waitpid({pid}) failed with errno {}", errno()));
        }
    }
    status
}

pub fn expect_end(pid: i32, status: i32, end: End) {
    let right = match end {
        End::Exit | End::Exec | End::ExecAtOnce => status == 0,
        End::Killed => libc::WIFSIGNALED(status) && libc::WTERMSIG(status) == libc::SIGKILL,
        End::ExecMissing | End::ExecGarbage => libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 3,
    };
    if !right {
        die(99, format_args!("child {pid} ended with wait status {status:#x}"));
    }
}

fn role_of(end: End) -> &'static str {
    match end {
        End::Exit => "child",
        End::Killed => "killed",
        End::Exec | End::ExecAtOnce => "before-exec",
        End::ExecMissing => "exec-missing",
        End::ExecGarbage => "exec-garbage",
    }
}

/// What a forked child that maps `mapped` and unmaps `unmapped` pages knows about itself.
fn child_line(end: End, pid: i32, first: u64, (mapped, unmapped): (usize, usize)) {
    let peak = first + mapped as u64;
    let mut own = Own::new(role_of(end), first, peak);
    own.pid = pid;
    own.first = Some(first);
    own.last = Some(if end == End::Killed { peak } else { peak - unmapped as u64 });
    if !end.execs() {
        own.calls[0] = Some(Calls { name: "mmap", calls: mapped as u64, failed: 0 });
        if end != End::Killed && unmapped > 0 {
            own.calls[1] = Some(Calls { name: "munmap", calls: unmapped as u64, failed: 0 });
        }
    }
    own.print();
}

/// A child's life; `never` returns.
fn child_life(
    end: End,
    holes: Holes,
    (mapped, unmapped): (usize, usize),
    base: u64,
    exec: Option<&Exec>,
) -> ! {
    (0..mapped).for_each(|i| holes.map(i));
    looked(base + mapped as u64, "child at its peak");
    if end == End::Killed {
        must(call(libc::SYS_kill, [std::process::id() as usize, libc::SIGKILL as usize, 0, 0, 0, 0]), "kill");
    }
    (0..unmapped).for_each(|i| holes.unmap(i));
    match exec {
        None => leave(0),
        Some(exec) => {
            let errno = exec.go();
            let expected = if end == End::ExecMissing { libc::ENOENT } else { libc::ENOEXEC };
            leave(if errno == expected && !end.execs() { 3 } else { 99 })
        }
    }
}

/// `n` short-lived children, a few at a time; child `i` maps and unmaps by [`plan`].
pub fn children(n: usize, end: End) -> ! {
    let garbage = if end == End::ExecGarbage { garbage_program() } else { -1 };
    let exec: Vec<Exec> = match end {
        End::Exit | End::Killed => Vec::new(),
        // The image after exec has its own peak, again unlike those of its neighbours.
        End::Exec | End::ExecAtOnce => {
            let path = this_program();
            (0..n)
                .map(|i| Exec::new(&path, &["burst", &(40 + plan(i).0).to_string(), "after-exec"]))
                .collect()
        }
        End::ExecMissing => vec![Exec::new("/nonexistent/program", &[])],
        End::ExecGarbage => vec![Exec::new(&format!("/proc/self/fd/{garbage}"), &[])],
    };
    let before_exec = |i| if end == End::ExecAtOnce { (0, 0) } else { plan(i) };
    let pids = pids(n);
    let holes = Holes::find(MOST);
    let base = count();
    let mut reaped = 0;
    for i in 0..n {
        if i - reaped == AT_ONCE {
            expect_end(pids[reaped], reap(pids[reaped]), end);
            reaped += 1;
        }
        let pid = fork();
        if pid == 0 {
            let exec = exec.get(if end.execs() { i } else { 0 });
            child_life(end, holes, before_exec(i), base, exec);
        }
        pids[i] = pid;
    }
    for child in &pids[reaped..] {
        expect_end(*child, reap(*child), end);
    }
    for (i, child) in pids.iter().enumerate() {
        child_line(end, *child, base, before_exec(i));
    }
    parent_ends(holes, base)
}

/// The parent's end: a burst of its own, higher than anything its preparations needed, and its line.
fn parent_ends(holes: Holes, base: u64) -> ! {
    counted(base, "parent, after its children");
    up_and_down(holes, base);
    counted(base, "parent, end");
    let mut own = Own::new("parent", base, base + holes.pages() as u64);
    own.last = Some(base);
    own.print();
    leave(0)
}

/// A file in memory that exec opens, reads and refuses.
fn garbage_program() -> c_int {
    // SAFETY: the name is a valid string.
    let fd = unsafe { libc::memfd_create(c"garbage".as_ptr(), 0) };
    if fd < 0 {
        die(99, format_args!("memfd_create failed with errno {}", errno()));
    }
    write_all(fd, b"this is not a program\n");
    must(call(libc::SYS_fchmod, [fd as usize, 0o700, 0, 0, 0, 0]), "fchmod");
    // exec refuses a file that somebody has open for writing with another errno.
    let mut path = crate::memory::Line::new();
    let _ = std::fmt::Write::write_fmt(&mut path, format_args!("/proc/self/fd/{fd}\0"));
    let readable = crate::memory::open(path.bytes());
    close(fd);
    readable
}

/// `n` children after each other that all have the same process id.
pub fn reuse_pid(n: usize) -> ! {
    let pids = pids(n);
    let holes = Holes::find(MOST);
    let base = count();
    let first = fork();
    if first == 0 {
        child_life(End::Exit, holes, plan(0), base, None);
    }
    expect_end(first, reap(first), End::Exit);
    pids[0] = first;
    for (i, child) in pids.iter_mut().enumerate().skip(1) {
        let pid = must(fork_as(first), "clone3 with set_tid");
        if pid == 0 {
            child_life(End::Exit, holes, plan(i), base, None);
        }
        expect_end(pid, reap(pid), End::Exit);
        *child = pid;
    }
    for (i, child) in pids.iter().enumerate() {
        child_line(End::Exit, *child, base, plan(i));
    }
    parent_ends(holes, base)
}

/// fork into a given process id (CAP_CHECKPOINT_RESTORE or CAP_SYS_ADMIN, Linux 5.5).
pub fn fork_as(pid: i32) -> Result<i32, Errno> {
    // struct clone_args up to set_tid_size (include/uapi/linux/sched.h).
    let set_tid = [pid];
    let mut args = [0_u64; 10];
    args[4] = libc::SIGCHLD as u64;
    args[8] = set_tid.as_ptr() as u64;
    args[9] = 1;
    call(libc::SYS_clone3, [args.as_ptr() as usize, size_of_val(&args), 0, 0, 0, 0]).map(|pid| pid as i32)
}

/// Bytes of a vforked child's stack.
const STACK: usize = 64 * 1024;

/// What a child that shares the parent's memory does.
struct Vforked {
    holes: Holes,
    from: usize,
    pages: usize,
    exec: Option<Exec>,
}

extern "C" fn vforked(child: *mut c_void) -> c_int {
    // SAFETY: the parent passes a `Vforked` that it keeps, and sleeps until this child is done with it.
    let child = unsafe { &*child.cast::<Vforked>() };
    (child.from..child.from + child.pages).for_each(|i| child.holes.map(i));
    if let Some(exec) = &child.exec {
        exec.go();
    }
    leave(i32::from(child.exec.is_some()))
}

/// `n` children by vfork: each leaves two VMAs behind in the memory it shares with this process, then every second one
/// execs and the others exit.
pub fn vfork(n: usize) -> ! {
    let path = this_program();
    let mut children: Vec<Vforked> = Vec::with_capacity(n);
    for i in 0..n {
        let pages = (30 + i).to_string();
        let exec = (i % 2 == 0).then(|| Exec::new(&path, &["burst", &pages, "after-exec"]));
        children.push(Vforked { holes: Holes::find(2), from: 2 * i, pages: 2, exec });
    }
    let stack = must(mmap(STACK, PROT_READ | PROT_WRITE, MAP_NORESERVE), "mmap of the child's stack");
    let holes = Holes::find(2 * n);
    children.iter_mut().for_each(|c| c.holes = holes);
    let base = count();
    for (i, child) in children.iter().enumerate() {
        run_vforked(child, stack);
        counted(base + 2 * (i as u64 + 1), "after a vforked child");
    }
    let mut own = Own::new("vfork-parent", base, base + 2 * n as u64);
    own.last = Some(own.peak);
    own.print();
    leave(0)
}

/// `n` VMAs, then exec of this program as `burst k`: two images in one process.
pub fn exec_self(n: usize, k: usize) -> ! {
    let exec = Exec::new(&this_program(), &["burst", &k.to_string(), "after-exec"]);
    let holes = Holes::find(n);
    let base = count();
    up_and_down(holes, base);
    let mut own = Own::new("before-exec", base, base + n as u64);
    own.last = Some(base);
    own.print();
    let errno = exec.go();
    die(99, format_args!("exec failed with errno {errno}"))
}

/// Execs itself `n` times, each image with a peak of its own: the first of `n + 20` VMAs, the last of 20.
pub fn exec_chain(n: usize) -> ! {
    let exec = Exec::new(&this_program(), &["exec-chain", &n.saturating_sub(1).to_string()]);
    let holes = Holes::find(n + 20);
    let base = count();
    up_and_down(holes, base);
    let mut own = Own::new("chain", base, base + holes.pages() as u64);
    own.last = Some(base);
    own.print();
    if n == 0 {
        leave(0);
    }
    let errno = exec.go();
    die(99, format_args!("exec failed with errno {errno}"))
}

/// This program with each of these command lines, one after the other, each in a vforked child: it has one image.
pub fn each(lines: &[&[&str]]) -> ! {
    let path = this_program();
    let stack = must(mmap(STACK, PROT_READ | PROT_WRITE, MAP_NORESERVE), "mmap of the child's stack");
    let holes = Holes::find(MOST);
    let children: Vec<Vforked> = lines
        .iter()
        .map(|words| Vforked { holes, from: 0, pages: 0, exec: Some(Exec::new(&path, words)) })
        .collect();
    let base = count();
    for child in &children {
        run_vforked(child, stack);
    }
    parent_ends(holes, base)
}

/// Runs a child that shares this process's memory, up to its end.
fn run_vforked(child: &Vforked, stack: usize) {
    let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
    let top = (stack + STACK) as *mut c_void;
    // SAFETY: the stack is the child's own, the argument outlives it, and the parent sleeps until it execs or exits.
    let pid = unsafe { libc::clone(vforked, top, flags, (&raw const *child).cast_mut().cast()) };
    if pid < 0 {
        die(99, format_args!("vfork failed with errno {}", errno()));
    }
    expect_end(pid, reap(pid), End::Exit);
}

/// The same, but a thread other than the leader execs: the leader dies, the thread takes its process id.
pub fn exec_by_thread(n: usize, k: usize) -> ! {
    std::thread::spawn(move || exec_self(n, k));
    loop {
        std::thread::park();
    }
}

/// A daemon: this process ends once the daemon (the grandchild) has had its first burst of `n`; `ms` later the daemon
/// has a second one, twice as large, and ends.
pub fn daemon(n: usize, ms: u64) -> ! {
    let mut ends = [0; 2];
    // SAFETY: `ends` has room for two descriptors.
    if unsafe { libc::pipe2(ends.as_mut_ptr(), 0) } != 0 {
        die(99, format_args!("pipe2 failed with errno {}", errno()));
    }
    let holes = Holes::find(2 * n);
    let base = count();
    let middle = fork();
    if middle == 0 {
        must(call(libc::SYS_setsid, [0; 6]), "setsid");
        if fork() != 0 {
            leave(0);
        }
        daemon_life(holes, base, ends[1], ms);
    }
    reap(middle);
    let mut byte = [0; 1];
    if read(ends[0], &mut byte) != 1 {
        die(99, format_args!("the daemon did not say that it is ready"));
    }
    parent_ends(holes, base)
}

fn daemon_life(holes: Holes, base: u64, ready: c_int, ms: u64) -> ! {
    let n = holes.pages() / 2;
    (0..n).for_each(|i| holes.map(i));
    looked(base + n as u64, "daemon, first burst");
    (0..n).for_each(|i| holes.unmap(i));
    let mut own = Own::new("daemon-first-burst", base, base + n as u64);
    own.first = Some(base);
    own.last = Some(base);
    own.print();
    write_all(ready, b"1");
    pause_ms(ms);
    up_and_down(holes, base);
    own.role = "daemon";
    own.peak = base + 2 * n as u64;
    own.print();
    leave(0)
}

/// `n` grandchildren one after the other that lose their parent at once and live for `ms`. A second later it says which
/// children its own parent has; then one more orphan, for `stay` ms if that is not 0. Ends with 7.
pub fn orphans(n: usize, ms: u64, stay: u64) -> ! {
    (0..n).for_each(|_| orphan(ms));
    pause_ms(1000);
    // SAFETY: takes nothing.
    let parent = unsafe { libc::getppid() };
    let path = format!("/proc/{parent}/task/{parent}/children\0");
    let mut buffer = [0; 512];
    write_all(1, read_text(path.as_bytes(), &mut buffer).as_bytes());
    if stay > 0 {
        orphan(stay);
    }
    leave(7)
}

fn orphan(ms: u64) {
    let middle = fork();
    if middle == 0 {
        if fork() == 0 {
            pause_ms(ms);
        }
        leave(0);
    }
    reap(middle);
}

/// One child whose calls are all known: `n` pairs of mmap and munmap, then `n / 10` pages that stay until its end.
pub fn flood(n: usize) -> ! {
    let stay = n / 10;
    let holes = Holes::find(stay + 1);
    let base = count();
    let pid = fork();
    if pid == 0 {
        for _ in 0..n {
            holes.map(stay);
            holes.unmap(stay);
        }
        (0..stay).for_each(|i| holes.map(i));
        leave(0);
    }
    let status = reap(pid);
    if status != 0 {
        die(99, format_args!("child {pid} ended with wait status {status:#x}"));
    }
    let mut own = Own::new("flood", base, base + stay as u64);
    own.pid = pid;
    own.first = Some(base);
    own.last = Some(own.peak);
    own.calls[0] = Some(Calls { name: "mmap", calls: (n + stay) as u64, failed: 0 });
    own.calls[1] = Some(Calls { name: "munmap", calls: n as u64, failed: 0 });
    own.print();
    parent_ends(holes, base)
}

/// `depth` generations: each process adds one VMA to those it inherited, forks the next one and waits for it.
pub fn generations(depth: usize) -> ! {
    let holes = Holes::find(depth);
    let base = count();
    for level in 0..depth {
        holes.map(level);
        let next = if level + 1 < depth { fork() } else { -1 };
        if next == 0 {
            continue;
        }
        if next > 0 {
            let status = reap(next);
            if status != 0 {
                die(99, format_args!("child {next} ended with wait status {status:#x}"));
            }
        }
        let now = base + level as u64 + 1;
        counted(now, "a generation, end");
        let mut own = Own::new("generation", now, now);
        own.first = (level > 0).then_some(now - 1);
        own.last = Some(now);
        own.print();
        leave(0);
    }
    die(2, format_args!("no generation at all"))
}

/// `n` children that stand still until stdin ends or this process dies; child `i` has `vmas + i % 10` more VMAs than
/// this process had.
pub fn crowd(n: usize, vmas: usize) -> ! {
    let pids = pids(n);
    let holes = Holes::find(vmas + 10);
    let base = count();
    (0..vmas).for_each(|i| holes.map(i));
    let parent = std::process::id();
    for (i, child) in pids.iter_mut().enumerate() {
        let pid = fork();
        if pid == 0 {
            stand_until_orphaned(parent);
        }
        *child = pid;
        if i % 10 < 9 {
            holes.map(vmas + i % 10);
        } else {
            (0..9).for_each(|extra| holes.unmap(vmas + extra));
        }
    }
    for (i, child) in pids.iter().enumerate() {
        let now = base + (vmas + i % 10) as u64;
        let mut own = Own::new("standing", now, now);
        own.pid = *child;
        own.last = Some(now);
        own.print();
    }
    let mut byte = [0; 1];
    while read(0, &mut byte) == 1 {}
    for &child in pids.iter() {
        must(call(libc::SYS_kill, [child as usize, libc::SIGKILL as usize, 0, 0, 0, 0]), "kill");
        reap(child);
    }
    leave(0)
}

/// `n` children that stand still, and `m` short-lived ones meanwhile, one after the other.
pub fn beside_standing(n: usize, m: usize) -> ! {
    // So that nobody finds a place taken by one that has ended.
    one_after_the_other(pids(n), m, || pause_ms(20))
}

/// `n` short-lived children, one after the other and as fast as they come.
pub fn one_by_one(n: usize) -> ! {
    one_after_the_other(&mut [], n, || {})
}

fn one_after_the_other(standing: &mut [i32], m: usize, pause: impl Fn()) -> ! {
    let short = pids(m);
    let holes = Holes::find(MOST);
    let base = count();
    let parent = std::process::id();
    for child in standing.iter_mut() {
        let pid = fork();
        if pid == 0 {
            stand_until_orphaned(parent);
        }
        *child = pid;
    }
    for (i, child) in short.iter_mut().enumerate() {
        let pid = fork();
        if pid == 0 {
            child_life(End::Exit, holes, plan(i), base, None);
        }
        expect_end(pid, reap(pid), End::Exit);
        *child = pid;
        pause();
    }
    for &child in standing.iter() {
        must(call(libc::SYS_kill, [child as usize, libc::SIGKILL as usize, 0, 0, 0, 0]), "kill");
        reap(child);
    }
    for (i, child) in short.iter().enumerate() {
        child_line(End::Exit, *child, base, plan(i));
    }
    parent_ends(holes, base)
}

fn stand_until_orphaned(parent: u32) -> ! {
    let signal = [libc::PR_SET_PDEATHSIG as usize, libc::SIGKILL as usize, 0, 0, 0, 0];
    must(call(libc::SYS_prctl, signal), "PR_SET_PDEATHSIG");
    // The parent may have died before the line above.
    while call(libc::SYS_getppid, [0; 6]) == Ok(parent as usize) {
        pause_ms(3_600_000);
    }
    leave(0)
}

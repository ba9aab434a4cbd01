//! What the workload knows about itself, and how it says it: one JSON line on stdout per process.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::memory::{self, Errno, Line, die};

/// `--look`: count at each peak too, and end with status 98 when the arithmetic is wrong.
static LOOK: AtomicBool = AtomicBool::new(false);

/// Turns counting at the peak on.
pub fn look() {
    LOOK.store(true, Ordering::Relaxed);
}

/// With `--look`: the count is `expected` at this moment, or the program ends.
pub fn looked(expected: u64, when: &str) {
    if LOOK.load(Ordering::Relaxed) {
        counted(expected, when);
    }
}

/// The count is `expected` at this moment, or the program ends.
pub fn counted(expected: u64, when: &str) {
    let count = count();
    if count != expected {
        die(98, format_args!("{when}: expected {expected} VMAs, /proc/self/maps has {count}"));
    }
}

/// VMAs of this process: lines of /proc/thread-self/maps without `[vsyscall]`, which is not in the mm.
///
/// The thread's file, because the process's own is empty once the leader has exited. Reads into the stack.
pub fn count() -> u64 {
    const GATE: &[u8; 10] = b"[vsyscall]";
    let fd = memory::open(b"/proc/thread-self/maps\0");
    let mut buffer = [0_u8; 16384];
    let mut tail = [0_u8; GATE.len()];
    let mut lines = 0;
    loop {
        let n = memory::read(fd, &mut buffer);
        if n == 0 {
            break;
        }
        for &byte in &buffer[..n] {
            if byte == b'\n' {
                lines += u64::from(tail != *GATE);
            }
            tail.rotate_left(1);
            tail[GATE.len() - 1] = byte;
        }
    }
    memory::close(fd);
    lines
}

/// Calls of one kind that this process made and how many were refused.
#[derive(Clone, Copy)]
pub struct Calls {
    /// The kernel's name.
    pub name: &'static str,
    /// Calls made.
    pub calls: u64,
    /// Refused.
    pub failed: u64,
}

/// One kind of refusal that this process provoked.
#[derive(Clone, Copy)]
pub struct Refused {
    /// The kernel's name of the call.
    pub call: &'static str,
    /// errno as seen; ENOMEM for brk, which shows none.
    pub errno: Errno,
    /// The report's name of the cause that was provoked.
    pub cause: &'static str,
    /// How often.
    pub count: u64,
}

/// Everything one process knows about itself. `None` = it does not know.
pub struct Own {
    /// Which part it played.
    pub role: &'static str,
    /// Process.
    pub pid: i32,
    /// Count after everything was prepared.
    pub base: u64,
    /// Largest count after any call.
    pub peak: u64,
    /// Count at its end.
    pub last: Option<u64>,
    /// Count at its birth by fork.
    pub first: Option<u64>,
    /// Calls from birth to end, when all are known.
    pub calls: [Option<Calls>; 4],
    /// Refusals.
    pub refused: [Option<Refused>; 8],
    /// Bytes that failed calls left mapped.
    pub leaked_bytes: u64,
    /// Largest address space, data, locked memory and stacks, bytes, when they are known.
    pub sizes: Option<[usize; 4]>,
}

impl Own {
    /// This process, with nothing but its counts.
    pub fn new(role: &'static str, base: u64, peak: u64) -> Self {
        let pid = std::process::id() as i32;
        Self {
            role,
            pid,
            base,
            peak,
            last: None,
            first: None,
            calls: [None; 4],
            refused: [None; 8],
            leaked_bytes: 0,
            sizes: None,
        }
    }

    /// Adds one refusal.
    pub fn refuse(&mut self, call: &'static str, errno: Errno, cause: &'static str) {
        for entry in &mut self.refused {
            match entry {
                Some(r) if r.call == call && r.errno == errno && r.cause == cause => {
                    r.count += 1;
                    return;
                }
                Some(_) => {}
                None => {
                    *entry = Some(Refused { call, errno, cause, count: 1 });
                    return;
                }
            }
        }
        die(99, format_args!("too many kinds of refusal"));
    }

    /// One JSON line on stdout.
    pub fn print(&self) {
        let mut line = Line::new();
        if self.write(&mut line).is_err() {
            die(99, format_args!("the line about pid {} is too long", self.pid));
        }
        memory::write_all(1, line.bytes());
    }

    fn write(&self, line: &mut Line) -> std::fmt::Result {
        write!(line, r#"{{"role":"{}","pid":{},"#, self.role, self.pid)?;
        write!(line, r#""base":{},"peak":{}"#, self.base, self.peak)?;
        for (name, value) in [("last", self.last), ("first", self.first)] {
            if let Some(value) = value {
                write!(line, r#","{name}":{value}"#)?;
            }
        }
        if let Some([address_space, data, locked, stack]) = self.sizes {
            write!(line, r#","sizes":{{"address_space":{address_space},"data":{data},"#)?;
            write!(line, r#""locked":{locked},"stack":{stack}}}"#)?;
        }
        write!(line, r#","leaked_bytes":{},"calls":{{"#, self.leaked_bytes)?;
        for (i, c) in self.calls.iter().flatten().enumerate() {
            let comma = if i == 0 { "" } else { "," };
            write!(line, r#"{comma}"{}":{{"calls":{},"failed":{}}}"#, c.name, c.calls, c.failed)?;
        }
        write!(line, r#"}},"refused":["#)?;
        for (i, r) in self.refused.iter().flatten().enumerate() {
            let comma = if i == 0 { "" } else { "," };
            let errno = match r.errno {
                libc::ENOMEM => "ENOMEM",
                libc::EAGAIN => "EAGAIN",
                libc::EPERM => "EPERM",
                libc::ENOSPC => "ENOSPC",
                other => {
                    die(99, format_args!("{} failed with errno {other}, not for lack of memory", r.call))
                }
            };
            write!(line, r#"{comma}{{"syscall":"{}","errno":"{errno}","#, r.call)?;
            write!(line, r#""cause":"{}","count":{}}}"#, r.cause, r.count)?;
        }
        writeln!(line, "]}}")
    }
}

//! A program that names stretches of its own time through the socket that `vmaudit run --marks` gives it.

use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::process::Command;

use libc::{PROT_READ, PROT_WRITE};

use crate::memory::{Holes, die, leave, mmap};
use crate::own::{Own, count, counted};

/// More than any machine promises, less than there are addresses.
const TOO_MUCH: usize = 1 << 42;

struct Marks {
    socket: UnixDatagram,
    path: String,
}

impl Marks {
    fn new() -> Self {
        let path =
            std::env::var("VMAUDIT_MARKS").unwrap_or_else(|_| die(99, format_args!("no VMAUDIT_MARKS")));
        let name = format!("workload-marked-{}", std::process::id());
        let socket = SocketAddr::from_abstract_name(name).and_then(|own| UnixDatagram::bind_addr(&own));
        let socket = socket.unwrap_or_else(|e| die(99, format_args!("no socket: {e}")));
        Self { socket, path }
    }

    /// Asks and waits for the answer.
    fn ask(&self, what: &str) -> String {
        let mut answer = [0; 256];
        let sent = self.socket.send_to(what.as_bytes(), &self.path);
        match sent.and_then(|_| self.socket.recv(&mut answer)) {
            Ok(length) => String::from_utf8_lossy(&answer[..length]).into_owned(),
            Err(e) => die(99, format_args!("{what}: {e}")),
        }
    }

    fn must(&self, what: &str) {
        let answer = self.ask(what);
        if answer != "ok" {
            die(99, format_args!("{what}: {answer}"));
        }
    }

    fn around(&self, name: &str, work: impl FnOnce()) {
        self.must(&format!("begin {name}"));
        work();
        self.must(&format!("end {name}"));
    }
}

/// Marks `up` (`n` pages mapped), `down` (they are unmapped), `burst` (twice as many, and gone again), `hidden` (`n` and gone
/// again, which is no new peak), `outer` with `third` and `fifth` in it (so many parts of `n`, likewise), `refused` (three calls), `child` (a process with three times as many), `open` (not ended).
pub fn marked(n: usize) -> ! {
    let marks = Marks::new();
    let holes = Holes::find(2 * n);
    marks.around("first", || {});
    let base = count();
    marks.around("up", || (0..n).for_each(|i| holes.map(i)));
    marks.around("down", || (0..n).for_each(|i| holes.unmap(i)));
    marks.around("burst", || {
        (0..2 * n).for_each(|i| holes.map(i));
        (0..2 * n).for_each(|i| holes.unmap(i));
    });
    marks.around("hidden", || {
        (0..n).for_each(|i| holes.map(i));
        (0..n).for_each(|i| holes.unmap(i));
    });
    marks.must("begin outer");
    for (name, n) in [("third", n / 3), ("fifth", n / 5)] {
        marks.around(name, || {
            (0..n).for_each(|i| holes.map(i));
            (0..n).for_each(|i| holes.unmap(i));
        });
    }
    marks.must("end outer");
    marks.around("refused", || {
        for _ in 0..3 {
            if mmap(TOO_MUCH, PROT_READ | PROT_WRITE, 0).is_ok() {
                die(99, format_args!("a mapping of {TOO_MUCH} bytes was granted"));
            }
        }
    });
    counted(base, "marked, before the child");
    marks.around("child", || {
        let own = std::env::current_exe().unwrap_or_else(|e| die(99, format_args!("no own path: {e}")));
        let child = Command::new(own).args(["burst", &(3 * n).to_string()]).status();
        if !child.as_ref().is_ok_and(|status| status.success()) {
            die(99, format_args!("the child: {child:?}"));
        }
    });
    marks.must("begin open");
    let mut own = Own::new("marked", base, base + 2 * n as u64);
    own.last = Some(count());
    own.print();
    leave(0)
}

/// What no honest program sends: nothing, much, bytes that are no text, ends of what never began, more than is taken; nobody
/// waits for the answers.
pub fn rude(times: usize) -> ! {
    let marks = Marks::new();
    for wrong in ["end nothing", "begin", "begin ", "stop x", "\u{1b}[2J", "end first"] {
        if !marks.ask(wrong).starts_with("error: ") {
            die(99, format_args!("{wrong:?} was taken"));
        }
    }
    let nameless = UnixDatagram::unbound().unwrap_or_else(|e| die(99, format_args!("no socket: {e}")));
    for i in 0..times {
        for bytes in [&b""[..], b"\xff\xfe\0", &[b'x'; 3000], format!("begin \u{1b}[31m{i}").as_bytes()] {
            let _ = nameless.send_to(bytes, &marks.path);
        }
    }
    marks.must("end \u{1b}[31m0");
    leave(0)
}

/// Leaves two processes behind that send what nobody understands, as fast as they can, for as long as anybody listens.
pub fn rude_on() -> ! {
    let own = std::env::current_exe().unwrap_or_else(|e| die(99, format_args!("no own path: {e}")));
    for _ in 0..2 {
        if let Err(e) = Command::new(&own).args(["rude", "sender"]).spawn() {
            die(99, format_args!("no child: {e}"));
        }
    }
    Marks::new().must("begin amid the noise");
    leave(0)
}

/// One of them.
pub fn rude_sender() -> ! {
    let path = std::env::var("VMAUDIT_MARKS").unwrap_or_else(|_| die(99, format_args!("no VMAUDIT_MARKS")));
    let nameless = UnixDatagram::unbound().unwrap_or_else(|e| die(99, format_args!("no socket: {e}")));
    while nameless.send_to(b"x", &path).is_ok() {}
    leave(0)
}

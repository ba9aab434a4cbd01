//! Marks: who asks for a boundary is answered when it is set.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::time::{Duration, Instant};

use super::Session;
use crate::domain::audit::{MARKS, OPEN_MARKS};
use crate::model::event::Event;
use crate::model::mark::{MarkDoubt, MarkSet};
use crate::os::clock::now_ns;
use crate::os::mark_socket::{Asked, MarkSocket};
use crate::text::count;

/// Datagrams taken before other work gets its turn, whatever they say.
const TOGETHER: usize = 16;
/// Bytes of a name.
const NAME: usize = 256;
/// A boundary that is set later is not exact.
const LATE: Duration = Duration::from_millis(100);

/// The socket, and which marks run.
pub(super) struct Marks {
    socket: MarkSocket,
    /// Number, name, and who began it.
    open: Vec<(u64, String, u32)>,
    begun: u64,
    refused: u64,
    /// Wishes that could not be answered because of where they came from.
    from_files: u64,
}

/// What a datagram asks for.
#[derive(Debug, PartialEq, Eq)]
enum Wish<'a> {
    Begin(&'a str),
    End(&'a str),
}

impl Marks {
    pub(super) fn new(socket: MarkSocket) -> Self {
        Self { socket, open: Vec::new(), begun: 0, refused: 0, from_files: 0 }
    }

    /// Readable when somebody asks.
    pub(super) fn wake_fd(&self) -> io::Result<OwnedFd> {
        self.socket.as_fd().try_clone_to_owned()
    }

    /// Takes some of the datagrams that are there, whatever they say, and has `set` set the boundaries; who asks for what
    /// cannot be set is answered. `true`: more may be there.
    fn turn(&mut self, set: &mut dyn FnMut(&Self, &Asked, MarkSet)) -> bool {
        for _ in 0..TOGETHER {
            let Some(asked) = self.socket.receive() else { return false };
            self.from_files += u64::from(asked.from_file);
            match self.boundary(&asked) {
                Ok(boundary) => set(self, &asked, boundary),
                Err(why) => self.socket.answer(&asked, &format!("error: {why}")),
            }
        }
        true
    }

    fn boundary(&mut self, asked: &Asked) -> Result<MarkSet, String> {
        let (number, name, begins) = match wish(&asked.text)? {
            Wish::Begin(name) => {
                if self.begun >= MARKS as u64 || self.open.len() >= OPEN_MARKS {
                    self.refused += 1;
                    return Err(format!("a session takes {MARKS} marks, {OPEN_MARKS} at a time"));
                }
                self.begun += 1;
                self.open.push((self.begun, name.to_owned(), asked.pid));
                (self.begun, name, true)
            }
            Wish::End(name) => {
                let fits = |of: Option<u32>| {
                    move |(_, open, by): &(u64, String, u32)| open == name && of.is_none_or(|of| of == *by)
                };
                let own = self.open.iter().rposition(fits(Some(asked.pid)));
                let at = own.or_else(|| self.open.iter().rposition(fits(None)));
                let at = at.ok_or("no mark of this name runs")?;
                (self.open.remove(at).0, name, false)
            }
        };
        let doubt = (!asked.waits()).then_some(MarkDoubt::Unanswered);
        let (name, by) = (name.to_owned(), asked.pid);
        Ok(MarkSet { at_ns: 0, number, begins, name, by, cut_ns: None, doubt })
    }

    /// The boundary is where it was asked for so long ago, now.
    pub(super) fn set(&self, set: MarkSet, waited: Duration) -> MarkSet {
        let doubt = set.doubt.or((waited > LATE).then_some(MarkDoubt::Late));
        MarkSet { at_ns: now_ns(), doubt, ..set }
    }

    /// Who waits may go on.
    pub(super) fn answer(&self, asked: &Asked) {
        self.socket.answer(asked, "ok");
    }

    /// What people are told at the end.
    pub(super) fn complaints(&self) -> impl Iterator<Item = String> {
        let refused = (self.refused > 0).then(|| {
            let more = count(self.refused, "mark was", "marks were");
            format!("{more} not taken: a session takes {MARKS}, {OPEN_MARKS} at a time")
        });
        let from_files = (self.from_files > 0).then(|| {
            let wishes = count(self.from_files, "boundary of a mark was", "boundaries of marks were");
            format!(
                "{wishes} asked for by a socket with a path: it gets no answer; bind it to an empty address"
            )
        });
        refused.into_iter().chain(from_files)
    }
}

impl Session<'_> {
    /// Takes boundaries of marks from this socket.
    pub fn with_marks(&mut self, socket: MarkSocket) {
        self.marks = Some(Marks::new(socket));
    }

    /// Sets the boundaries that were asked for; `true`: more may have been.
    pub(super) fn set_marks(&mut self) -> bool {
        let Some(mut marks) = self.marks.take() else { return false };
        let more = marks.turn(&mut |marks, asked, set| {
            let began = Instant::now();
            // Also whoever has ended by now.
            self.tick();
            let Self { source, enrichment, state, .. } = self;
            // The figures tell of the interval that ends here.
            let cut_ns = source.cut_interval(&mut |event| state.take(event, enrichment));
            source.checkpoint(&mut |event| state.take(event, enrichment));
            let set = marks.set(MarkSet { cut_ns, ..set }, asked.waited + began.elapsed());
            self.state.give(Event::Mark(Box::new(set)));
            marks.answer(asked);
        });
        self.marks = Some(marks);
        more
    }
}

/// `begin NAME` or `end NAME`; a line feed at the end is none of the name.
fn wish(text: &str) -> Result<Wish<'_>, &'static str> {
    const RIGHT: &str = "write begin NAME or end NAME";
    let (what, name) = text.trim_end_matches(['\n', '\0']).split_once(' ').ok_or(RIGHT)?;
    let name = name.trim();
    match what {
        _ if name.is_empty() => Err(RIGHT),
        _ if name.len() > NAME => Err("a name has 256 bytes at most"),
        "begin" => Ok(Wish::Begin(name)),
        "end" => Ok(Wish::End(name)),
        _ => Err(RIGHT),
    }
}

/// The name in it. Errors: what is said to who asked.
#[cfg(any(test, fuzzing))]
pub(crate) fn named(text: &str) -> Result<&str, &'static str> {
    wish(text).map(|wish| match wish {
        Wish::Begin(name) | Wish::End(name) => name,
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixDatagram;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    /// The session's only thread serves the ring buffer, the signals and the command too.
    #[test]
    fn who_sends_without_end_takes_one_turn_at_a_time() {
        let mut marks = Marks::new(MarkSocket::open(None).unwrap());
        let (path, enough) = (marks.socket.path(), &AtomicBool::new(false));
        let flood = |text: &'static [u8]| {
            let path = path.clone();
            move || {
                let socket = UnixDatagram::unbound().unwrap();
                while !enough.load(Ordering::Relaxed) {
                    socket.send_to(text, &path).unwrap();
                }
            }
        };
        std::thread::scope(|scope| {
            let senders = [scope.spawn(flood(b"x")), scope.spawn(flood(b"end x"))];
            // Each turn ends though there is always more; a full one says so.
            let full =
                (0..100_000).filter(|_| marks.turn(&mut |_, _, set| panic!("{set:?}"))).take(3).count();
            enough.store(true, Ordering::Relaxed);
            while senders.iter().any(|sender| !sender.is_finished()) {
                marks.turn(&mut |_, _, set| panic!("{set:?}"));
            }
            assert_eq!(full, 3);
        });
        assert!(!marks.turn(&mut |_, _, set| panic!("{set:?}")));
    }

    #[test]
    fn a_turn_sets_what_can_be_set_and_answers_the_rest() {
        let mut marks = Marks::new(MarkSocket::open(None).unwrap());
        let socket = UnixDatagram::unbound().unwrap();
        for text in ["begin a", "begin", "end b", "end a"] {
            socket.send_to(text.as_bytes(), marks.socket.path()).unwrap();
        }
        let mut set = Vec::new();
        assert!(!marks.turn(&mut |_, _, boundary| set.push((
            boundary.number,
            boundary.begins,
            boundary.doubt
        ))));
        let unanswered = Some(MarkDoubt::Unanswered);
        assert_eq!(set, [(1, true, unanswered), (1, false, unanswered)]);
        assert_eq!(marks.complaints().next(), None);
    }

    #[test]
    fn two_words_are_a_wish_and_nothing_else_is() {
        assert_eq!(wish("begin tests/a.py::b c\n"), Ok(Wish::Begin("tests/a.py::b c")));
        assert_eq!(wish("end x"), Ok(Wish::End("x")));
        let long = format!("begin {}", "x".repeat(257));
        for bad in ["", "begin", "begin ", "end \n", "stop x", "Begin x", "\u{fffd}\u{fffd}", &long] {
            assert!(wish(bad).is_err(), "{bad:?}");
        }
    }
}

//! What the reader of files asks the opener of files, and the descriptor that comes back.

use std::{
    fs::File,
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
};
use serde::{Deserialize, Serialize};

/// Bytes of a question; the longest holds a file name of 255 bytes.
const QUESTION: usize = 2048;

/// Where debug information of a program may lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Place {
    /// `<folder of the program>/<name>`
    Beside,
    /// `<folder of the program>/.debug/<name>`
    Below,
    /// `/usr/lib/debug/<folder of the program>/<name>`
    Global,
}

/// A file that is wanted. Numbers and plain names only: what they stand for, the opener knows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ask {
    /// The mapped file of this index.
    Module(usize),
    /// The perf map of the process with this address space.
    PerfMap(u64),
    /// Debug information of a module, or what that refers to, by build id.
    BuildId { module: usize, id: Vec<u8> },
    /// Debug information of a module by file name.
    Link { module: usize, name: String, place: Place },
}

/// The two ends.
pub fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?)
}

/// The file, `Ok(None)` when there is none that may be read, an error when nobody answers any more.
pub fn ask(opener: &OwnedFd, ask: &Ask) -> io::Result<Option<File>> {
    let question = serde_json::to_vec(ask)?;
    if question.len() > QUESTION {
        return Ok(None);
    }
    send(opener.as_fd(), &question, None)?;
    let mut answer = [0; 1];
    let (length, file) = receive(opener.as_fd(), &mut answer)?;
    if length == 0 { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(file.map(File::from)) }
}

/// Answers until the reader is gone.
pub fn serve(reader: &OwnedFd, mut answer: impl FnMut(Ask) -> Option<File>) {
    let mut question = [0; QUESTION];
    loop {
        let Ok((length, _)) = receive(reader.as_fd(), &mut question) else { return };
        let Some(bytes) = question.get(..length).filter(|bytes| !bytes.is_empty()) else { return };
        let file = serde_json::from_slice(bytes).ok().and_then(&mut answer);
        if send(reader.as_fd(), b"!", file.as_ref().map(File::as_fd)).is_err() {
            return;
        }
    }
}

fn send(to: BorrowedFd<'_>, bytes: &[u8], file: Option<BorrowedFd<'_>>) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let files: Vec<BorrowedFd<'_>> = file.into_iter().collect();
    if !files.is_empty() && !control.push(SendAncillaryMessage::ScmRights(&files)) {
        return Err(io::ErrorKind::OutOfMemory.into());
    }
    rustix::io::retry_on_intr(|| {
        rustix::net::sendmsg(to, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL)
    })?;
    Ok(())
}

/// Length of the packet, 0 when the other side is gone, and the descriptor that came with it.
fn receive(from: BorrowedFd<'_>, bytes: &mut [u8]) -> io::Result<(usize, Option<OwnedFd>)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = rustix::io::retry_on_intr(|| {
        rustix::net::recvmsg(from, &mut [IoSliceMut::new(bytes)], &mut control, RecvFlags::CMSG_CLOEXEC)
    })?;
    if received.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let files = control.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(files) => Some(files),
        _ => None,
    });
    Ok((received.bytes, files.flatten().next()))
}

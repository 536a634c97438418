//! The messages between supervisor and zygote: small, fixed in size, over a socket that keeps
//! message borders. Replies come from trusted code, yet are checked like any other input.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};

use crate::policy::Limits;
use crate::report::Ending;

/// Most descriptors that travel with one message.
const MOST_DESCRIPTORS: usize = 5;

/// What a zygote says.
#[derive(Debug)]
pub(crate) enum Reply {
    /// The child is there: its process number and a handle that no reuse of numbers can mislead.
    Forked(i32, OwnedFd),
    /// The child has ended and was waited for.
    Exited(Ending),
    /// The zygote itself is gone.
    Gone,
}

/// The six words that go with a script: what `REQUEST` in the bootstrap unpacks.
pub(crate) fn request(seed: u64, limits: &Limits) -> [u8; 48] {
    // One second of grace: the supervisor's own clock decides, the kernel's is the backstop.
    let cpu = limits.cpu.as_secs_f64().ceil() as u64 + 1;
    let words = [
        seed,
        limits.memory_bytes,
        limits.file_bytes,
        limits.open_files,
        cpu,
        limits.threads,
    ];
    let mut bytes = [0; 48];
    for (slot, word) in bytes.chunks_exact_mut(8).zip(words) {
        slot.copy_from_slice(&word.to_ne_bytes());
    }
    bytes
}

/// Send one message with descriptors.
pub(crate) fn send(socket: &OwnedFd, bytes: &[u8], handles: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_DESCRIPTORS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !handles.is_empty() {
        control.push(SendAncillaryMessage::ScmRights(handles));
    }
    sendmsg(
        socket,
        &[IoSlice::new(bytes)],
        &mut control,
        SendFlags::NOSIGNAL,
    )?;
    Ok(())
}

/// Receive one message and at most one descriptor. Zero bytes mean that the other side is gone.
pub(crate) fn receive(socket: &OwnedFd, buffer: &mut [u8]) -> io::Result<(usize, Option<OwnedFd>)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_DESCRIPTORS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let message = loop {
        let mut parts = [IoSliceMut::new(buffer)];
        match recvmsg(
            socket.as_fd(),
            &mut parts,
            &mut control,
            RecvFlags::CMSG_CLOEXEC,
        ) {
            Err(rustix::io::Errno::INTR) => {}
            Err(rustix::io::Errno::CONNRESET) => return Ok((0, None)),
            other => break other?,
        }
    };
    let mut handle = None;
    for part in control.drain() {
        if let RecvAncillaryMessage::ScmRights(handles) = part {
            handle = handles.last();
        }
    }
    Ok((message.bytes, handle))
}

/// Receive one reply of the serving loop.
pub(crate) fn receive_reply(socket: &OwnedFd) -> io::Result<Reply> {
    let mut buffer = [0; 64];
    let (size, handle) = receive(socket, &mut buffer)?;
    match (size, buffer[0], handle) {
        (0, _, _) => Ok(Reply::Gone),
        (5, b'F', Some(pidfd)) => Ok(Reply::Forked(i32::from_ne_bytes(take(&buffer, 1)), pidfd)),
        (30, b'X', None) => {
            let user = f64::from_ne_bytes(take(&buffer, 5));
            let system = f64::from_ne_bytes(take(&buffer, 13));
            Ok(Reply::Exited(Ending {
                status: i32::from_ne_bytes(take(&buffer, 1)),
                cpu: Duration::try_from_secs_f64(user + system).unwrap_or_default(),
                peak_rss_bytes: u64::from_ne_bytes(take(&buffer, 21)) << 10,
                ran_to_end: buffer[29] != 0,
            }))
        }
        _ => Err(io::Error::other(
            "the zygote sent a message of no known form",
        )),
    }
}

fn take<const N: usize>(buffer: &[u8], at: usize) -> [u8; N] {
    let mut bytes = [0; N];
    bytes.copy_from_slice(&buffer[at..at + N]);
    bytes
}

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
use crate::report::{Ending, LastWords};

/// Most descriptors that travel with one message.
pub(crate) const MOST_DESCRIPTORS: usize = 7;

/// What a zygote says.
#[derive(Debug)]
pub(crate) enum Reply {
    /// Nothing at the moment.
    Nothing,
    /// The child of that execution is there: its process number and a handle that no reuse of
    /// numbers can mislead.
    Forked(u64, i32, OwnedFd),
    /// The child of that execution has ended and was waited for.
    Exited(u64, Ending),
    /// The zygote itself is gone.
    Gone,
}

/// What goes with a script.
pub(crate) struct Order {
    /// Number of the execution.
    pub execution: u64,
    /// Seed of the generators.
    pub seed: u64,
    /// A descriptor for standard input is among the handles.
    pub has_stdin: bool,
    /// A Landlock ruleset is the last of the handles.
    pub has_ruleset: bool,
    /// The child is to hand over its work folder.
    pub wants_folder: bool,
    /// Number of the work folder, where it is one of the supervisor's.
    pub slot: u64,
    /// Size of the source.
    pub code_bytes: u64,
    /// Size of the archive with its files; 0 if there is none among the handles.
    pub files_bytes: u64,
}

impl Order {
    /// The words of `Order` in `zygote/native/`.
    pub fn bytes(&self, limits: &Limits) -> [u8; 88] {
        // One second of grace: the supervisor's own clock decides, the kernel's is the backstop.
        let cpu = limits.cpu.as_secs_f64().ceil() as u64 + 1;
        let own_processes = limits.processes > 0;
        let flags = u64::from(self.has_stdin)
            | u64::from(self.has_ruleset) << 1
            | u64::from(own_processes) << 2
            | u64::from(self.files_bytes > 0) << 3
            | u64::from(self.wants_folder) << 4;
        let words = [
            self.execution,
            flags,
            self.slot,
            self.seed,
            self.code_bytes,
            limits.memory_bytes,
            limits.file_bytes,
            limits.open_files,
            cpu,
            limits.threads + limits.processes,
            self.files_bytes,
        ];
        let mut bytes = [0; 88];
        for (slot, word) in bytes.chunks_exact_mut(8).zip(words) {
            slot.copy_from_slice(&word.to_ne_bytes());
        }
        bytes
    }
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

/// Receive one message and at most one descriptor, if one is there. Zero bytes mean that the other
/// side is gone.
pub(crate) fn receive(
    socket: &OwnedFd,
    buffer: &mut [u8],
) -> io::Result<Option<(usize, Option<OwnedFd>)>> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_DESCRIPTORS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let message = loop {
        let mut parts = [IoSliceMut::new(buffer)];
        let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
        match recvmsg(socket.as_fd(), &mut parts, &mut control, flags) {
            Err(rustix::io::Errno::INTR) => {}
            Err(rustix::io::Errno::AGAIN) => return Ok(None),
            Err(rustix::io::Errno::CONNRESET) => return Ok(Some((0, None))),
            other => break other?,
        }
    };
    let mut handle = None;
    for part in control.drain() {
        if let RecvAncillaryMessage::ScmRights(handles) = part {
            handle = handles.last();
        }
    }
    Ok(Some((message.bytes, handle)))
}

/// Receive one reply of the serving loop.
pub(crate) fn receive_reply(socket: &OwnedFd) -> io::Result<Reply> {
    let mut buffer = [0; 64];
    let Some((size, handle)) = receive(socket, &mut buffer)? else {
        return Ok(Reply::Nothing);
    };
    parse_reply(&buffer[..size], handle)
        .ok_or_else(|| io::Error::other("the zygote sent a message of no known form"))
}

pub(crate) fn parse_reply(message: &[u8], handle: Option<OwnedFd>) -> Option<Reply> {
    match (message.len(), message.first(), handle) {
        (0, _, _) => Some(Reply::Gone),
        (13, Some(b'F'), Some(pidfd)) => Some(Reply::Forked(
            u64::from_ne_bytes(take(message, 1)),
            i32::from_ne_bytes(take(message, 9)),
            pidfd,
        )),
        (38, Some(b'X'), None) => {
            let user = u64::from_ne_bytes(take(message, 13));
            let system = u64::from_ne_bytes(take(message, 21));
            let ending = Ending {
                status: i32::from_ne_bytes(take(message, 9)),
                cpu: Duration::from_micros(user.saturating_add(system)),
                peak_rss_bytes: u64::from_ne_bytes(take(message, 29)).saturating_mul(1 << 10),
                last_words: match message[37] {
                    0 => LastWords::None,
                    1 => LastWords::Ended,
                    2 => LastWords::OutOfMemory,
                    _ => return None,
                },
            };
            Some(Reply::Exited(u64::from_ne_bytes(take(message, 1)), ending))
        }
        _ => None,
    }
}

fn take<const N: usize>(buffer: &[u8], at: usize) -> [u8; N] {
    let mut bytes = [0; N];
    bytes.copy_from_slice(&buffer[at..at + N]);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_report_is_read() {
        let mut message = vec![b'X'];
        message.extend(7_u64.to_ne_bytes());
        message.extend(256_i32.to_ne_bytes());
        message.extend(250_000_u64.to_ne_bytes());
        message.extend(500_000_u64.to_ne_bytes());
        message.extend(2_u64.to_ne_bytes());
        message.push(2);
        let Some(Reply::Exited(7, ending)) = parse_reply(&message, None) else {
            panic!("not read");
        };
        assert_eq!(ending.status, 256);
        assert_eq!(ending.cpu, Duration::from_millis(750));
        assert_eq!(ending.peak_rss_bytes, 2048);
        assert_eq!(ending.last_words, LastWords::OutOfMemory);
    }
}

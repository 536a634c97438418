//! What a request becomes on its way to a child: files in memory, and pipes.

use std::fs::File;
use std::io::{self, Seek, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;

use rustix::fs::{MemfdFlags, OFlags, SealFlags};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

use crate::files;
use crate::policy::Request;
use crate::wire::{Order, flag};

/// Place and size of a remark in the memory file with the source, as in `zygote/native/messages.rs`.
pub(crate) const REMARK_STEP: u64 = 1 << 16;
pub(crate) const REMARK_BYTES: usize = 4096;

/// What a request becomes on its way: files in memory, and both ends of the pipes.
pub(crate) struct Parcel {
    /// The source, and the page for a remark.
    pub code: File,
    stdin: Option<File>,
    files: Option<File>,
    files_bytes: u64,
    /// The ends of standard output and standard error that are read.
    pub streams: [OwnedFd; 2],
    streams_theirs: [OwnedFd; 2],
}

impl Parcel {
    /// Lay it out in memory.
    pub fn pack(request: &Request) -> io::Result<Self> {
        let archive = files::archive(&request.files);
        let (stdout, stdout_theirs) = pipe()?;
        let (stderr, stderr_theirs) = pipe()?;
        Ok(Self {
            code: code_file(&request.code)?,
            stdin: memory_file("stdin", &request.stdin)?,
            files: memory_file("files", &archive)?,
            files_bytes: archive.len() as u64,
            streams: [stdout, stderr],
            streams_theirs: [stdout_theirs, stderr_theirs],
        })
    }

    /// The order that goes with it.
    pub fn order(&self, execution: u64, request: &Request) -> Order {
        Order {
            execution,
            flags: if self.stdin.is_some() {
                flag::HAS_STDIN
            } else {
                0
            },
            slot: 0,
            seed: request.seed,
            code_bytes: request.code.len() as u64,
            files_bytes: self.files_bytes,
        }
    }

    /// The handles that go with that, in the order that `zygote/native/` expects.
    pub fn handles<'a>(&'a self, status: &'a OwnedFd) -> Vec<BorrowedFd<'a>> {
        let [stdout, stderr] = &self.streams_theirs;
        let mut handles = vec![
            self.code.as_fd(),
            stdout.as_fd(),
            stderr.as_fd(),
            status.as_fd(),
        ];
        let optional = [&self.stdin, &self.files].into_iter().flatten();
        handles.extend(optional.map(AsFd::as_fd));
        handles
    }
}

/// The source in memory, and behind it a page for the child's remark on its end, which is why it is
/// the one memory file that the child may write to.
fn code_file(code: &[u8]) -> io::Result<File> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let file = File::from(rustix::fs::memfd_create("code", flags)?);
    file.write_all_at(code, 0)?;
    file.set_len((code.len() as u64).next_multiple_of(REMARK_STEP) + REMARK_BYTES as u64)?;
    let seals = SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL;
    rustix::fs::fcntl_add_seals(&file, seals)?;
    Ok(file)
}

/// A sealed file in memory, ready to be read from its start; none for no bytes.
fn memory_file(name: &str, bytes: &[u8]) -> io::Result<Option<File>> {
    if bytes.is_empty() {
        return Ok(None);
    }
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let mut file = File::from(rustix::fs::memfd_create(name, flags)?);
    file.write_all(bytes)?;
    file.rewind()?;
    let seals = SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL;
    rustix::fs::fcntl_add_seals(&file, seals)?;
    Ok(Some(file))
}

/// What the child reports on before the script begins: a pipe, or a socket if it is to send a handle.
pub(crate) fn status_channel(carries_handles: bool) -> io::Result<(OwnedFd, OwnedFd)> {
    if !carries_handles {
        return pipe();
    }
    let flags = SocketFlags::CLOEXEC;
    Ok(socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        flags,
        None,
    )?)
}

/// A pipe whose reading end, ours, never blocks.
fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let (ours, theirs) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    rustix::fs::fcntl_setfl(&ours, OFlags::NONBLOCK)?;
    Ok((ours, theirs))
}

//! The C library and the kernel's numbers, as far as they are used, declared by hand; the tests of
//! `native_layout.rs` compare them with the `libc` crate's.

use core::ffi::{c_char, c_int, c_long, c_ulong, c_void};

#[repr(C)]
pub struct IoVec {
    pub base: *mut c_void,
    pub size: usize,
}
#[repr(C)]
pub struct MessageHeader {
    pub name: *mut c_void,
    pub name_bytes: u32,
    pub parts: *mut IoVec,
    pub part_count: usize,
    pub control: *mut c_void,
    pub control_bytes: usize,
    pub flags: c_int,
}
#[repr(C)]
pub struct ControlHeader {
    pub bytes: usize,
    pub level: c_int,
    pub kind: c_int,
}
#[cfg_attr(target_arch = "x86_64", repr(C, packed))]
#[cfg_attr(not(target_arch = "x86_64"), repr(C))]
#[derive(Clone, Copy)]
pub struct Event {
    pub events: u32,
    pub topic: u64,
}
#[repr(C)]
pub struct Limit {
    pub soft: u64,
    pub hard: u64,
}
#[repr(C)]
pub struct TimeValue {
    pub seconds: i64,
    pub microseconds: i64,
}
#[repr(C)]
pub struct ResourceUsage {
    pub user: TimeValue,
    pub system: TimeValue,
    pub peak_kilobytes: c_long,
    pub others: [c_long; 13],
}
#[repr(C)]
pub struct CapabilityHeader {
    pub version: u32,
    pub pid: c_int,
}
#[repr(C)]
pub struct CloneArguments {
    pub words: [u64; 11],
}

unsafe extern "C" {
    pub fn syscall(number: c_long, ...) -> c_long;
    pub fn recvmsg(socket: c_int, message: *mut MessageHeader, flags: c_int) -> isize;
    pub fn sendmsg(socket: c_int, message: *const MessageHeader, flags: c_int) -> isize;
    pub fn epoll_create1(flags: c_int) -> c_int;
    pub fn epoll_ctl(poller: c_int, action: c_int, handle: c_int, event: *mut Event) -> c_int;
    pub fn epoll_wait(poller: c_int, events: *mut Event, most: c_int, milliseconds: c_int)
    -> c_int;
    pub fn sendto(
        socket: c_int,
        bytes: *const c_void,
        size: usize,
        flags: c_int,
        address: *const c_void,
        address_bytes: u32,
    ) -> isize;
    pub fn wait4(
        pid: c_int,
        status: *mut c_int,
        options: c_int,
        usage: *mut ResourceUsage,
    ) -> c_int;
    pub fn openat(folder: c_int, name: *const c_char, flags: c_int, ...) -> c_int;
    pub fn read(handle: c_int, bytes: *mut c_void, size: usize) -> isize;
    pub fn write(handle: c_int, bytes: *const c_void, size: usize) -> isize;
    pub fn close(handle: c_int) -> c_int;
    pub fn dup2(from: c_int, to: c_int) -> c_int;
    pub fn fcntl(handle: c_int, action: c_int, ...) -> c_int;
    pub fn getpid() -> c_int;
    pub fn kill(pid: c_int, signal: c_int) -> c_int;
    pub fn setsid() -> c_int;
    pub fn chdir(folder: *const c_char) -> c_int;
    pub fn mmap(
        place: *mut c_void,
        size: usize,
        protection: c_int,
        flags: c_int,
        file: c_int,
        offset: i64,
    ) -> *mut c_void;
    pub fn prctl(option: c_int, ...) -> c_int;
    pub fn setrlimit(resource: c_int, limit: *const Limit) -> c_int;
    pub fn mount(
        source: *const c_char,
        target: *const c_char,
        kind: *const c_char,
        flags: c_ulong,
        data: *const c_void,
    ) -> c_int;
    pub fn munmap(place: *mut c_void, size: usize) -> c_int;
    pub fn _exit(status: c_int) -> !;
    pub fn __errno_location() -> *mut c_int;
}

#[cfg(target_arch = "x86_64")]
mod numbers {
    use core::ffi::c_long;
    pub const CLONE: c_long = 56;
    pub const CAPSET: c_long = 126;
    pub const SECCOMP: c_long = 317;
}
#[cfg(target_arch = "aarch64")]
mod numbers {
    use core::ffi::c_long;
    pub const CLONE: c_long = 220;
    pub const CAPSET: c_long = 91;
    pub const SECCOMP: c_long = 277;
}
pub use numbers::*;
// The same on every architecture.
pub const CLONE3: c_long = 435;
pub const CLOSE_RANGE: c_long = 436;
pub const LANDLOCK_RESTRICT_SELF: c_long = 446;

pub const EINTR: c_int = 4;
pub const SIGKILL: c_int = 9;
pub const SIGCHLD: u64 = 17;
pub const CLONE_PIDFD: u64 = 0x1000;
pub const CLONE_PARENT: u64 = 0x8000;
pub const CLONE_CHILD_TID: u64 = 0x0100_0000 | 0x0020_0000; // set it at birth, clear it at death
pub const CLONE_NEWPID: u64 = 0x2000_0000;
pub const SOL_SOCKET: c_int = 1;
pub const SCM_RIGHTS: c_int = 1;
pub const MSG_NOSIGNAL: c_int = 0x4000;
pub const MSG_CMSG_CLOEXEC: c_int = 0x4000_0000;
pub const EPOLLIN: u32 = 1;
pub const EPOLL_CTL_ADD: c_int = 1;
pub const EPOLL_CTL_DEL: c_int = 2;
pub const AT_FDCWD: c_int = -100;
pub const O_WRONLY: c_int = 1;
pub const O_DIRECTORY: c_int = if cfg!(target_arch = "x86_64") {
    0o20_0000
} else {
    0o4_0000
};
pub const READ_WRITE: c_int = 1 | 2;
pub const MAP_SHARED: c_int = 1;
pub const F_DUPFD: c_int = 0;
pub const PR_SET_PDEATHSIG: c_int = 1;
pub const PR_SET_DUMPABLE: c_int = 4;
pub const MOUNT_FLAGS: c_ulong = 2 | 4 | 8; // no set-uid, no devices, no programs
pub const CAPABILITY_VERSION_3: u32 = 0x2008_0522;
/// What a child is limited in: core size, locked memory, message queues, pending signals, file size,
/// open files, CPU time, tasks, address space.
pub const LIMITS: [c_int; 9] = [4, 8, 12, 11, 1, 7, 0, 6, 9];
pub const TASKS: usize = 7;

/// Why the last call failed.
pub fn errno() -> c_int {
    // SAFETY: the C library keeps a number there for every thread.
    unsafe { *__errno_location() }
}

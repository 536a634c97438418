// The zygote's loop and the child's jail, compiled on its own into a small library that the warm
// interpreter loads (`build.rs`); `serve.py` calls it and is the only caller.
//
// Why not in Python: after a fork every page that parent or child writes is copied, and Python
// writes to every object that it looks at. Here a child puts its whole jail on while touching a
// handful of pages, and the parent forks without touching the interpreter at all.
//
// No allocation, no library but the C library, whose types are declared by hand below and compared
// with the `libc` crate's in the tests of `native_layout.rs`. All of it runs in a process with one
// thread. Trusted code: what it reads comes from the supervisor; what children do later cannot reach
// it.

use core::ffi::{c_char, c_int, c_long, c_ulong, c_void};

/// What `serve.py` fills in, field by field the same as `Settings` there.
#[repr(C)]
pub struct Settings {
    /// Socket to the supervisor.
    pub control: c_int,
    /// Readable when the zygote is to end.
    pub wake: c_int,
    /// The folder `/proc`.
    pub proc_folder: c_int,
    /// Whether each child gets namespaces and a work folder of its own.
    pub own_namespaces: c_int,
    /// Whether the kernel counts a child's threads by themselves.
    pub counts_threads: c_int,
    /// Whether to return to the caller after each child's end.
    pub sweeps: c_int,
    /// Whether `clone3` is to be had.
    pub has_clone3: c_int,
    /// For `landlock_restrict_self`.
    pub landlock_flags: u32,
    /// Namespaces of a child.
    pub namespaces: u64,
    /// Where the C library keeps the thread's number; 0 if unknown.
    pub child_tid: u64,
    /// The zygote's own address space in bytes.
    pub virtual_bytes: u64,
    /// Address space on top of a child's budget, for reporting that it has run out.
    pub report_bytes: u64,
    /// The caller's own hard limits, in the order of `LIMITS`.
    pub ceilings: [u64; 8],
    /// Where a child mounts its work folder.
    pub work: *const c_char,
    /// How.
    pub work_options: *const c_char,
    /// Text of the child's `/proc/self/uid_map`.
    pub uid_map: *const c_char,
    /// Text of the child's `/proc/self/gid_map`.
    pub gid_map: *const c_char,
    /// The last filter of a child that may not fork and of one that may; null for none.
    pub filters: [*const c_void; 2],
    /// Out, in a child: the seed of its generators.
    pub seed: u64,
    /// Out, in a child: number of its work folder if the supervisor lent one.
    pub slot: u64,
    /// Out, in a child: size of its source.
    pub code_bytes: u64,
}

/// What `r1ci_serve` returns.
pub const CHILD: c_int = 0;
pub const LEAVE: c_int = 1;
pub const SWEEP: c_int = 2;

/// Descriptor at which a child finds its source.
pub const CODE: c_int = 3;
const STATUS: c_int = 4;
const RULESET: c_int = 5;
/// From here on descriptors are moved out of the way of those above.
const HIGH: c_int = 16;

/// What arrives with a script: `Order` in `wire.rs`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Order {
    execution: u64,
    flags: u64,
    slot: u64,
    seed: u64,
    code_bytes: u64,
    memory_bytes: u64,
    file_bytes: u64,
    open_files: u64,
    cpu_seconds: u64,
    tasks: u64,
}
const HAS_STDIN: u64 = 1;
const HAS_RULESET: u64 = 2;
const OWN_PROCESSES: u64 = 4;
const ORDER_BYTES: usize = size_of::<Order>();
const MOST_HANDLES: usize = 6;

/// A child that has not been waited for.
#[derive(Clone, Copy)]
struct Child {
    pid: c_int,
    handle: c_int,
    execution: u64,
}
/// The supervisor never has more executions under way.
const MOST_CHILDREN: usize = 1024;

struct Serving {
    poller: c_int,
    children: [Child; MOST_CHILDREN],
}
static mut SERVING: Serving = Serving {
    poller: -1,
    children: [Child {
        pid: 0,
        handle: -1,
        execution: 0,
    }; MOST_CHILDREN],
};
const CONTROL_TOPIC: u64 = u64::MAX;
const WAKE_TOPIC: u64 = u64::MAX - 1;

// ---- the C library, as far as it is used --------------------------------------------------------

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
struct CapabilityHeader {
    version: u32,
    pid: c_int,
}
#[repr(C)]
struct CloneArguments {
    words: [u64; 11],
}

unsafe extern "C" {
    fn syscall(number: c_long, ...) -> c_long;
    fn recvmsg(socket: c_int, message: *mut MessageHeader, flags: c_int) -> isize;
    fn sendmsg(socket: c_int, message: *const MessageHeader, flags: c_int) -> isize;
    fn epoll_create1(flags: c_int) -> c_int;
    fn epoll_ctl(poller: c_int, action: c_int, handle: c_int, event: *mut Event) -> c_int;
    fn epoll_wait(poller: c_int, events: *mut Event, most: c_int, milliseconds: c_int) -> c_int;
    fn wait4(pid: c_int, status: *mut c_int, options: c_int, usage: *mut ResourceUsage) -> c_int;
    fn openat(folder: c_int, name: *const c_char, flags: c_int, ...) -> c_int;
    fn read(handle: c_int, bytes: *mut c_void, size: usize) -> isize;
    fn write(handle: c_int, bytes: *const c_void, size: usize) -> isize;
    fn close(handle: c_int) -> c_int;
    fn dup2(from: c_int, to: c_int) -> c_int;
    fn fcntl(handle: c_int, action: c_int, ...) -> c_int;
    fn setsid() -> c_int;
    fn chdir(folder: *const c_char) -> c_int;
    fn prctl(option: c_int, ...) -> c_int;
    fn setrlimit(resource: c_int, limit: *const Limit) -> c_int;
    fn mount(
        source: *const c_char,
        target: *const c_char,
        kind: *const c_char,
        flags: c_ulong,
        data: *const c_void,
    ) -> c_int;
    fn _exit(status: c_int) -> !;
    fn __errno_location() -> *mut c_int;
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

const EINTR: c_int = 4;
const SIGKILL: c_int = 9;
const SIGCHLD: u64 = 17;
const CLONE_PIDFD: u64 = 0x1000;
const CLONE_CHILD_TID: u64 = 0x0100_0000 | 0x0020_0000; // set it at birth, clear it at death
const CLONE_NEWPID: u64 = 0x2000_0000;
const SOL_SOCKET: c_int = 1;
const SCM_RIGHTS: c_int = 1;
const MSG_NOSIGNAL: c_int = 0x4000;
const MSG_CMSG_CLOEXEC: c_int = 0x4000_0000;
const EPOLLIN: u32 = 1;
const EPOLL_CTL_ADD: c_int = 1;
const EPOLL_CTL_DEL: c_int = 2;
const O_WRONLY: c_int = 1;
const F_DUPFD: c_int = 0;
const PR_SET_PDEATHSIG: c_int = 1;
const PR_SET_DUMPABLE: c_int = 4;
const MOUNT_FLAGS: c_ulong = 2 | 4 | 8; // no set-uid, no devices, no programs
const CAPABILITY_VERSION_3: u32 = 0x2008_0522;
/// Core size, locked memory, message queues, file size, open files, CPU time, tasks, address space.
pub const LIMITS: [c_int; 8] = [4, 8, 12, 1, 7, 0, 6, 9];
const TASKS: usize = 6;

// ---- parent -------------------------------------------------------------------------------------

/// Serve until something must be done in Python.
///
/// Returns `CHILD` in each child, with its jail up and the last fields of the settings filled in;
/// `LEAVE` in the parent when the supervisor is gone, `SWEEP` after a child's end if asked for.
///
/// # Safety
/// `settings` must be as described and live for ever; the process must have one thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn r1ci_serve(settings: *mut Settings) -> c_int {
    let serving = &raw mut SERVING;
    // SAFETY: the caller's promise; one thread means that nobody else has these references.
    let (settings, serving) = unsafe { (&mut *settings, &mut *serving) };
    if serving.poller < 0 {
        // SAFETY: plain calls with numbers.
        serving.poller = unsafe { epoll_create1(0o2_000_000) };
        if !watch(serving.poller, settings.control, CONTROL_TOPIC)
            || !watch(serving.poller, settings.wake, WAKE_TOPIC)
        {
            return LEAVE;
        }
    }
    let mut events = [Event {
        events: 0,
        topic: 0,
    }; 16];
    loop {
        // SAFETY: the kernel writes at most 16 events into an array of 16.
        let count = unsafe { epoll_wait(serving.poller, events.as_mut_ptr(), 16, -1) };
        if count < 0 && errno() != EINTR {
            return LEAVE;
        }
        let mut ended = false;
        for event in &events[..usize::try_from(count).unwrap_or(0)] {
            match event.topic {
                WAKE_TOPIC => return LEAVE,
                CONTROL_TOPIC => match take_order(settings, serving) {
                    Some(true) => return CHILD,
                    Some(false) => {}
                    None => return LEAVE,
                },
                place => {
                    ended = true;
                    if !finish(settings, serving, place as usize) {
                        return LEAVE;
                    }
                }
            }
        }
        if ended && settings.sweeps != 0 {
            return SWEEP;
        }
    }
}

/// Fork once with a child's namespaces, to see whether that works. 0, or the error's number.
///
/// # Safety
/// As for `r1ci_serve`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn r1ci_try_fork(settings: *const Settings) -> c_int {
    // SAFETY: the caller's promise.
    let settings = unsafe { &*settings };
    let (pid, handle) = fork(settings, settings.namespaces);
    if pid < 0 {
        return errno();
    }
    // SAFETY: the child ends at once, the parent waits for it.
    unsafe {
        if pid == 0 {
            _exit(0);
        }
        close(handle);
        let mut status = 0;
        while wait4(pid, &raw mut status, 0, core::ptr::null_mut()) < 0 && errno() == EINTR {}
    }
    0
}

/// Write the numbers of living children to `into`, at most `most`; returns how many there are.
///
/// # Safety
/// `into` must have room for `most` numbers.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn r1ci_children(into: *mut c_int, most: usize) -> usize {
    let serving = &raw const SERVING;
    // SAFETY: one thread, and `r1ci_serve` is not running.
    let serving = unsafe { &*serving };
    let living = serving.children.iter().filter(|child| child.pid > 0);
    let mut count = 0;
    for child in living.take(most) {
        // SAFETY: `count` is below `most`.
        unsafe { into.add(count).write(child.pid) };
        count += 1;
    }
    count
}

/// Receive an order and fork. True in the child, none when the supervisor is gone.
fn take_order(settings: &mut Settings, serving: &mut Serving) -> Option<bool> {
    let mut order = Order {
        execution: 0,
        flags: 0,
        slot: 0,
        seed: 0,
        code_bytes: 0,
        memory_bytes: 0,
        file_bytes: 0,
        open_files: 0,
        cpu_seconds: 0,
        tasks: 0,
    };
    let mut handles = [-1; MOST_HANDLES];
    let (size, count) = receive(settings.control, &mut order, &mut handles)?;
    let expected =
        4 + usize::from(order.flags & HAS_STDIN != 0) + usize::from(order.flags & HAS_RULESET != 0);
    let free = serving.children.iter().position(|child| child.pid == 0);
    let (ORDER_BYTES, Some(place)) = (size, free) else {
        return None;
    };
    if count != expected {
        return None;
    }
    let mut namespaces = settings.namespaces;
    if order.flags & OWN_PROCESSES != 0 {
        namespaces |= CLONE_NEWPID;
    }
    let (pid, handle) = fork(settings, namespaces);
    if pid == 0 {
        become_script(settings, &order, &handles);
        return Some(true);
    }
    if pid < 0 {
        complain(handles[3], b"fork", errno());
    }
    for handle in &handles[..count] {
        // SAFETY: these descriptors are ours and are not used again.
        unsafe { close(*handle) };
    }
    if pid < 0 {
        let nothing = ResourceUsage {
            user: TimeValue {
                seconds: 0,
                microseconds: 0,
            },
            system: TimeValue {
                seconds: 0,
                microseconds: 0,
            },
            peak_kilobytes: 0,
            others: [0; 13],
        };
        return report_end(settings.control, order.execution, 0, &nothing, 0).then_some(false);
    }
    serving.children[place] = Child {
        pid,
        handle,
        execution: order.execution,
    };
    let mut message = [0_u8; 13];
    message[0] = b'F';
    message[1..9].copy_from_slice(&order.execution.to_ne_bytes());
    message[9..13].copy_from_slice(&pid.to_ne_bytes());
    let told = send(settings.control, &mut message, Some(handle));
    (told && watch(serving.poller, handle, place as u64)).then_some(false)
}

/// Fork with a handle. (0, _) in the child, (-1, _) on failure.
fn fork(settings: &Settings, namespaces: u64) -> (c_int, c_int) {
    let mut handle: c_int = -1;
    let mut flags = CLONE_PIDFD | namespaces;
    if settings.child_tid != 0 {
        flags |= CLONE_CHILD_TID;
    }
    let pid = if settings.has_clone3 != 0 {
        let arguments = CloneArguments {
            words: [
                flags,
                &raw mut handle as u64,
                settings.child_tid,
                0,
                SIGCHLD,
                0,
                0,
                0,
                0,
                0,
                0,
            ],
        };
        // SAFETY: without CLONE_VM the child runs on a copy of this stack; the kernel writes the
        // handle, which lives here, and the thread's number, where the C library keeps it.
        unsafe { syscall(CLONE3, &raw const arguments, size_of::<CloneArguments>()) }
    } else {
        let (third, fourth) = if cfg!(target_arch = "x86_64") {
            (settings.child_tid, 0_u64)
        } else {
            (0_u64, settings.child_tid)
        };
        // SAFETY: as above; the old call has the handle in the place of the parent's number.
        unsafe {
            syscall(
                CLONE,
                flags | SIGCHLD,
                0_u64,
                &raw mut handle,
                third,
                fourth,
            )
        }
    };
    (pid as c_int, handle)
}

/// A child has ended: wait for it, tell the supervisor. False if that is gone.
fn finish(settings: &Settings, serving: &mut Serving, place: usize) -> bool {
    let Some(slot) = serving.children.get_mut(place) else {
        return true;
    };
    let child = core::mem::replace(
        slot,
        Child {
            pid: 0,
            handle: -1,
            execution: 0,
        },
    );
    if child.pid <= 0 {
        return true;
    }
    let note = last_words(settings.proc_folder, child.pid);
    let mut event = Event {
        events: 0,
        topic: 0,
    };
    let (mut status, mut usage) = (0, core::mem::MaybeUninit::<ResourceUsage>::zeroed());
    // SAFETY: the supervisor holds the same handle, so closing ours would leave it registered. The
    // two results live here, and zeros are a valid usage.
    let usage = unsafe {
        epoll_ctl(serving.poller, EPOLL_CTL_DEL, child.handle, &raw mut event);
        close(child.handle);
        while wait4(child.pid, &raw mut status, 0, usage.as_mut_ptr()) < 0 && errno() == EINTR {}
        usage.assume_init()
    };
    report_end(settings.control, child.execution, status, &usage, note)
}

/// The name under which a child died: 1 for a script that ran to its end, 2 for one out of memory.
fn last_words(proc_folder: c_int, pid: c_int) -> u8 {
    let mut path = [0_u8; 24];
    let mut digits = [0_u8; 12];
    let (mut left, mut count) = (pid.unsigned_abs(), 0);
    while left > 0 || count == 0 {
        digits[count] = b'0' + (left % 10) as u8;
        left /= 10;
        count += 1;
    }
    for (place, digit) in digits[..count].iter().rev().enumerate() {
        path[place] = *digit;
    }
    path[count..count + 5].copy_from_slice(b"/comm");
    let mut name = [0_u8; 16];
    // SAFETY: the path ends in a zero, and the kernel writes at most 16 bytes into 16.
    let size = unsafe {
        let file = openat(proc_folder, path.as_ptr().cast(), 0);
        let size = read(file, name.as_mut_ptr().cast(), name.len());
        close(file);
        size
    };
    match &name[..usize::try_from(size).unwrap_or(0)] {
        b"script ended\n" => 1,
        b"out of memory\n" => 2,
        _ => 0,
    }
}

fn report_end(
    control: c_int,
    execution: u64,
    status: c_int,
    usage: &ResourceUsage,
    note: u8,
) -> bool {
    let microseconds = |time: &TimeValue| (time.seconds * 1_000_000 + time.microseconds) as u64;
    let mut message = [0_u8; 38];
    message[0] = b'X';
    message[1..9].copy_from_slice(&execution.to_ne_bytes());
    message[9..13].copy_from_slice(&status.to_ne_bytes());
    message[13..21].copy_from_slice(&microseconds(&usage.user).to_ne_bytes());
    message[21..29].copy_from_slice(&microseconds(&usage.system).to_ne_bytes());
    message[29..37].copy_from_slice(&(usage.peak_kilobytes as u64).to_ne_bytes());
    message[37] = note;
    send(control, &mut message, None)
}

fn errno() -> c_int {
    // SAFETY: the C library keeps a number there for every thread.
    unsafe { *__errno_location() }
}

fn watch(poller: c_int, handle: c_int, topic: u64) -> bool {
    let mut event = Event {
        events: EPOLLIN,
        topic,
    };
    // SAFETY: the kernel reads one event.
    unsafe { epoll_ctl(poller, EPOLL_CTL_ADD, handle, &raw mut event) == 0 }
}

/// Room for a control message with `MOST_HANDLES` descriptors, aligned as the kernel wants it.
#[repr(C, align(8))]
struct ControlSpace([u8; size_of::<ControlHeader>() + MOST_HANDLES * 4]);

fn receive(
    socket: c_int,
    order: &mut Order,
    handles: &mut [c_int; MOST_HANDLES],
) -> Option<(usize, usize)> {
    let mut space = ControlSpace([0; size_of::<ControlHeader>() + MOST_HANDLES * 4]);
    let mut part = IoVec {
        base: (&raw mut *order).cast(),
        size: ORDER_BYTES,
    };
    let mut message = MessageHeader {
        name: core::ptr::null_mut(),
        name_bytes: 0,
        parts: &raw mut part,
        part_count: 1,
        control: space.0.as_mut_ptr().cast(),
        control_bytes: space.0.len(),
        flags: 0,
    };
    // SAFETY: all of it lives here, with the sizes given; any bytes are a valid order.
    let size = unsafe { recvmsg(socket, &raw mut message, MSG_CMSG_CLOEXEC) };
    if size <= 0 {
        return if size < 0 && errno() == EINTR {
            receive(socket, order, handles)
        } else {
            None
        };
    }
    let mut count = 0;
    if message.control_bytes >= size_of::<ControlHeader>() {
        // SAFETY: the space is aligned, large enough and was filled by the kernel.
        let header = unsafe { &*(&raw const space).cast::<ControlHeader>() };
        if header.level == SOL_SOCKET && header.kind == SCM_RIGHTS {
            let numbers = &space.0[size_of::<ControlHeader>()..header.bytes.min(space.0.len())];
            for (slot, number) in handles.iter_mut().zip(numbers.chunks_exact(4)) {
                *slot = c_int::from_ne_bytes([number[0], number[1], number[2], number[3]]);
                count += 1;
            }
        }
    }
    Some((size as usize, count))
}

fn send(socket: c_int, bytes: &mut [u8], handle: Option<c_int>) -> bool {
    const USED: usize = size_of::<ControlHeader>() + 4;
    let mut space = ControlSpace([0; size_of::<ControlHeader>() + MOST_HANDLES * 4]);
    space.0[..8].copy_from_slice(&USED.to_ne_bytes());
    space.0[8..12].copy_from_slice(&SOL_SOCKET.to_ne_bytes());
    space.0[12..16].copy_from_slice(&SCM_RIGHTS.to_ne_bytes());
    space.0[16..20].copy_from_slice(&handle.unwrap_or(-1).to_ne_bytes());
    let mut part = IoVec {
        base: bytes.as_mut_ptr().cast(),
        size: bytes.len(),
    };
    let message = MessageHeader {
        name: core::ptr::null_mut(),
        name_bytes: 0,
        parts: &raw mut part,
        part_count: 1,
        control: if handle.is_some() {
            space.0.as_mut_ptr().cast()
        } else {
            core::ptr::null_mut()
        },
        // The kernel wants the padded size.
        control_bytes: if handle.is_some() { USED + 4 } else { 0 },
        flags: 0,
    };
    // SAFETY: all of it lives here, with the sizes given.
    while unsafe { sendmsg(socket, &raw const message, MSG_NOSIGNAL) } < 0 {
        if errno() != EINTR {
            return false;
        }
    }
    true
}

// ---- child --------------------------------------------------------------------------------------

/// Say over the status pipe what failed.
fn complain(status: c_int, step: &[u8], error: c_int) {
    let mut text = [0_u8; 48];
    text[0] = b'E';
    let step = &step[..step.len().min(24)];
    text[1..=step.len()].copy_from_slice(step);
    let mut at = 1 + step.len();
    text[at..at + 8].copy_from_slice(b": error ");
    at += 8;
    for unit in [1000, 100, 10, 1] {
        if error >= unit || unit == 1 {
            text[at] = b'0' + (error / unit % 10) as u8;
            at += 1;
        }
    }
    // SAFETY: `at` bytes of the array are written.
    unsafe { write(status, text.as_ptr().cast(), at) };
}

/// Take the streams, close everything else, put the jail on. Returns only if all of it worked.
///
/// The order matters: the work folder is mounted while mounting is possible, the parent-death signal
/// is set when the last change of rights is past (it would be lost), the filter comes last.
fn become_script(settings: &mut Settings, order: &Order, handles: &[c_int; MOST_HANDLES]) {
    let mut status = handles[3];
    let need = |good: bool, status: c_int, step: &[u8]| {
        if !good {
            complain(status, step, errno());
            // SAFETY: ends the process.
            unsafe { _exit(1) };
        }
    };
    // SAFETY: descriptors and numbers, and texts that live as long as the settings; each call's
    // failure ends the child before the next one.
    unsafe {
        if settings.own_namespaces != 0 {
            enter_work_folder(settings, status, &need);
        }
        // Out of the way first: a target may be one of the sources.
        let mut moved = [-1; MOST_HANDLES];
        for (to, from) in moved
            .iter_mut()
            .zip(handles)
            .filter(|(_, from)| **from >= 0)
        {
            *to = fcntl(*from, F_DUPFD, HIGH);
            need(*to >= 0, status, b"descriptors");
        }
        let mut next = 4;
        if order.flags & HAS_STDIN != 0 {
            need(dup2(moved[next], 0) >= 0, status, b"stdin");
            next += 1;
        }
        let mut last = STATUS;
        let targets = [
            (moved[0], CODE),
            (moved[1], 1),
            (moved[2], 2),
            (moved[3], STATUS),
        ];
        for (from, to) in targets {
            need(dup2(from, to) >= 0, moved[3], b"streams");
        }
        status = STATUS;
        if order.flags & HAS_RULESET != 0 {
            need(dup2(moved[next], RULESET) >= 0, status, b"ruleset");
            last = RULESET;
        }
        let closed = syscall(CLOSE_RANGE, last + 1, c_int::MAX, 0);
        need(closed == 0, status, b"close_range");

        setsid();
        let died = prctl(PR_SET_PDEATHSIG, SIGKILL as c_ulong, 0, 0, 0);
        need(died == 0, status, b"parent-death signal");
        let space = settings.virtual_bytes.saturating_add(order.memory_bytes);
        let values = [
            (0, 0),
            (0, 0),
            (0, 0),
            (order.file_bytes, order.file_bytes),
            (order.open_files, order.open_files),
            (order.cpu_seconds, order.cpu_seconds),
            (order.tasks, order.tasks),
            (space, space.saturating_add(settings.report_bytes)),
        ];
        for (place, (soft, hard)) in values.into_iter().enumerate() {
            if place == TASKS && settings.counts_threads == 0 {
                continue;
            }
            let ceiling = settings.ceilings[place];
            let limit = Limit {
                soft: soft.min(ceiling),
                hard: hard.min(ceiling),
            };
            need(
                setrlimit(LIMITS[place], &raw const limit) == 0,
                status,
                b"limits",
            );
        }
        if last == RULESET {
            let flags = settings.landlock_flags;
            let restricted = syscall(LANDLOCK_RESTRICT_SELF, RULESET, flags);
            need(restricted == 0, status, b"landlock");
        }
        let program = settings.filters[usize::from(order.flags & OWN_PROCESSES != 0)];
        if !program.is_null() {
            need(syscall(SECCOMP, 1, 0, program) == 0, status, b"seccomp");
        }
        need(
            write(STATUS, b"S".as_ptr().cast(), 1) == 1,
            status,
            b"status",
        );
        close(STATUS);
        if last == RULESET {
            close(RULESET);
        }
    }
    settings.seed = order.seed;
    settings.slot = order.slot;
    settings.code_bytes = order.code_bytes;
}

/// In namespaces of one's own: write the number maps, mount the work folder, lay down all rights.
///
/// # Safety
/// The texts in the settings must end in a zero.
unsafe fn enter_work_folder(settings: &Settings, status: c_int, need: &dyn Fn(bool, c_int, &[u8])) {
    // SAFETY: the caller's promise; all other texts are literals with a zero at their end.
    unsafe {
        // Or the maps would belong to root.
        prctl(PR_SET_DUMPABLE, 1 as c_ulong, 0, 0, 0);
        let maps = [
            (c"self/setgroups", c"deny".as_ptr()),
            (c"self/uid_map", settings.uid_map),
            (c"self/gid_map", settings.gid_map),
        ];
        for (name, text) in maps {
            let file = openat(settings.proc_folder, name.as_ptr(), O_WRONLY);
            let text = core::ffi::CStr::from_ptr(text).to_bytes();
            let written = write(file, text.as_ptr().cast(), text.len());
            need(written == text.len() as isize, status, name.to_bytes());
            close(file);
        }
        prctl(PR_SET_DUMPABLE, 0 as c_ulong, 0, 0, 0);
        let kind = c"tmpfs".as_ptr();
        let options = settings.work_options.cast();
        let mounted = mount(kind, settings.work, kind, MOUNT_FLAGS, options);
        need(
            mounted == 0 && chdir(settings.work) == 0,
            status,
            b"work folder",
        );
        let header = CapabilityHeader {
            version: CAPABILITY_VERSION_3,
            pid: 0,
        };
        let none = [0_u32; 6];
        let dropped = syscall(CAPSET, &raw const header, none.as_ptr());
        need(dropped == 0, status, b"capset");
    }
}

//! The zygote's loop: take an order, fork, wait for children, report their ends.

use core::ffi::{c_int, c_long};

use super::Settings;
use super::c_library::*;
use super::child::{become_script, complain};
use super::messages::*;
use super::session::open_session;

/// What `r1ci_serve` returns.
const CHILD: c_int = 0;
const LEAVE: c_int = 1;
const SWEEP: c_int = 2;
const STATE: c_int = 3;

/// A child that has not been waited for.
#[derive(Clone, Copy)]
struct Child {
    pid: c_int,
    handle: c_int,
    execution: u64,
    /// It is the keeper of a session and leads a process group.
    keeps: bool,
}
impl Child {
    const NONE: Self = Self {
        pid: 0,
        handle: -1,
        execution: 0,
        keeps: false,
    };
}
/// The supervisor never has more executions under way.
const MOST_CHILDREN: usize = 2048;

struct Serving {
    poller: c_int,
    children: [Child; MOST_CHILDREN],
}
static mut SERVING: Serving = Serving {
    poller: -1,
    children: [Child::NONE; MOST_CHILDREN],
};
const CONTROL_TOPIC: u64 = u64::MAX;
const WAKE_TOPIC: u64 = u64::MAX - 1;

/// Serve until something must be done in Python.
///
/// Returns `CHILD` in each child, with its jail up and the last fields of the settings filled in;
/// `STATE` in the first state of a session; `LEAVE` in the parent when the supervisor is gone, `SWEEP` after a child's end if asked for.
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
                    Some(Become::Script) => return CHILD,
                    Some(Become::State) => return STATE,
                    Some(Become::Zygote) => {}
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

/// What a process is after an order.
enum Become {
    Zygote,
    Script,
    State,
}

/// Receive an order and fork. None when the supervisor is gone.
fn take_order(settings: &mut Settings, serving: &mut Serving) -> Option<Become> {
    let mut order = Order::EMPTY;
    let mut handles = [-1; MOST_HANDLES];
    let (size, count) = receive(settings.control, &mut order, &mut handles)?;
    let free = serving.children.iter().position(|child| child.pid == 0);
    let (ORDER_BYTES, Some(place)) = (size, free) else {
        return None;
    };
    if count != order.handles() {
        return None;
    }
    let mut namespaces = settings.namespaces;
    if order.flags & OWN_PROCESSES != 0 {
        namespaces |= CLONE_NEWPID;
    }
    let (pid, handle) = fork(settings, namespaces);
    let opens_session = order.flags & OPENS_SESSION != 0;
    if pid == 0 {
        if opens_session {
            open_session(settings, &order, &handles);
            return Some(Become::State);
        }
        become_script(settings, &order, &handles);
        return Some(Become::Script);
    }
    if pid < 0 {
        let status = if opens_session { 0 } else { 3 };
        complain(handles[status], b"fork", errno());
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
        let told = report_end(settings.control, order.execution, 0, &nothing, 0);
        return told.then_some(Become::Zygote);
    }
    serving.children[place] = Child {
        pid,
        handle,
        execution: order.execution,
        keeps: opens_session,
    };
    let mut message = [0_u8; 13];
    message[0] = b'F';
    message[1..9].copy_from_slice(&order.execution.to_ne_bytes());
    message[9..13].copy_from_slice(&pid.to_ne_bytes());
    let told = send(settings.control, &mut message, Some(handle));
    (told && watch(serving.poller, handle, place as u64)).then_some(Become::Zygote)
}

/// Fork with a handle. (0, _) in the child, (-1, _) on failure.
pub fn fork(settings: &Settings, namespaces: u64) -> (c_int, c_int) {
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
        // SAFETY: the kernel writes the handle, which lives here, in the place of the parent's number.
        unsafe { old_clone(settings, flags | SIGCHLD, &raw mut handle) }
    };
    (pid as c_int, handle)
}

/// The old call. 0 in the child, -1 on failure.
///
/// # Safety
/// Without `CLONE_VM` among the flags; `handle` must be good for writing if one is asked for.
pub unsafe fn old_clone(settings: &Settings, flags: u64, handle: *mut c_int) -> c_long {
    let (third, fourth) = if cfg!(target_arch = "x86_64") {
        (settings.child_tid, 0_u64)
    } else {
        (0_u64, settings.child_tid)
    };
    // SAFETY: the child runs on a copy of this stack; the kernel writes the thread's number where the
    // C library keeps it, and the handle by the caller's promise.
    unsafe { syscall(CLONE, flags, 0_u64, handle, third, fourth) }
}

/// A child has ended: wait for it, tell the supervisor. False if that is gone.
fn finish(settings: &Settings, serving: &mut Serving, place: usize) -> bool {
    let Some(slot) = serving.children.get_mut(place) else {
        return true;
    };
    let child = core::mem::replace(slot, Child::NONE);
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
        if child.keeps {
            // While its leader is not waited for, the group's number is its own.
            kill(-child.pid, SIGKILL);
        }
        while wait4(child.pid, &raw mut status, 0, usage.as_mut_ptr()) < 0 && errno() == EINTR {}
        if child.keeps {
            // Without a process namespace they have come to us, and they are all dying.
            let (mut theirs, nowhere) = (0, core::ptr::null_mut());
            while wait4(-child.pid, &raw mut theirs, 0, nowhere) > 0 || errno() == EINTR {}
        }
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

pub fn report_end(
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

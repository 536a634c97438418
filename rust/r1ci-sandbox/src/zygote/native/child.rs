//! In the child: streams, work folder, limits, Landlock, the last filter, in this order.

use core::ffi::{c_int, c_ulong};

use super::Settings;
use super::c_library::*;
use super::messages::*;
use super::session::map_remark;

/// Descriptor at which a child finds its source.
const CODE: c_int = 3;
const STATUS: c_int = 4;
/// Descriptor at which it finds the archive with its files.
const FILES: c_int = 5;
const RULESET: c_int = 6;
/// Signals that may wait for a child, timers among them.
const PENDING_SIGNALS: u64 = 256;
/// From here on descriptors are moved out of the way of those above.
pub const HIGH: c_int = 16;

/// Say over the status pipe what failed.
pub fn complain(status: c_int, step: &[u8], error: c_int) {
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

/// End the process unless that step went well.
pub fn need(good: bool, status: c_int, step: &[u8]) {
    if !good {
        complain(status, step, errno());
        // SAFETY: ends the process.
        unsafe { _exit(1) };
    }
}

/// Take the streams, close everything else, put the jail on. Returns only if all of it worked.
///
/// The order matters: the work folder is mounted while mounting is possible, the parent-death signal
/// is set when the last change of rights is past (it would be lost), the filter comes last.
pub fn become_script(settings: &mut Settings, order: &Order, handles: &[c_int; MOST_HANDLES]) {
    let mut status = handles[3];
    // SAFETY: descriptors and numbers, and texts that live as long as the settings; each call's
    // failure ends the child before the next one.
    unsafe {
        enter_groups(order, handles, status);
        if settings.own_namespaces != 0 {
            enter_work_folder(settings, status);
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
        for (flag, target) in [(HAS_FILES, FILES), (HAS_RULESET, RULESET)] {
            if order.flags & flag != 0 {
                need(dup2(moved[next], target) >= 0, status, b"files");
                next += 1;
            } else {
                close(target);
            }
        }
        let closed = syscall(CLOSE_RANGE, RULESET + 1, c_int::MAX, 0);
        need(closed == 0, status, b"close_range");
        (settings.code_file, settings.files_file) = (CODE, FILES);
        settings.remark = map_remark(CODE, order.code_bytes);
        need(settings.remark as isize != -1, status, b"remark");

        setsid();
        let died = prctl(PR_SET_PDEATHSIG, SIGKILL as c_ulong, 0, 0, 0);
        need(died == 0, status, b"parent-death signal");
        send_folder(order, STATUS);
        put_jail_on(settings, order, STATUS, RULESET, order.filter());
        let told = write(STATUS, b"S".as_ptr().cast(), 1) == 1;
        need(told, status, b"status");
        close(STATUS);
        if order.flags & HAS_RULESET != 0 {
            close(RULESET);
        }
    }
    settings.seed = order.seed;
    settings.slot = order.slot;
    settings.code_bytes = order.code_bytes;
    settings.files_bytes = order.files_bytes;
}

/// Join the control groups whose entrances came along.
pub fn enter_groups(order: &Order, handles: &[c_int; MOST_HANDLES], status: c_int) {
    let count = order.handles();
    for entrance in &handles[count - order.entrances()..count] {
        // SAFETY: one byte of a literal.
        let written = unsafe { write(*entrance, c"0".as_ptr().cast(), 1) };
        need(written == 1, status, b"control group");
    }
}

/// Hand the work folder over, if that is wanted: behind the filter nobody sends descriptors.
pub fn send_folder(order: &Order, status: c_int) {
    if order.flags & WANTS_FOLDER != 0 {
        // SAFETY: a literal and descriptors.
        unsafe {
            let folder = openat(AT_FDCWD, c".".as_ptr(), O_DIRECTORY);
            need(
                send(status, &mut [b'H'], Some(folder)),
                status,
                b"work folder",
            );
            close(folder);
        }
    }
}

/// Limits, then Landlock if there is a ruleset, then the filter of that place.
///
/// # Safety
/// The filters in the settings must be programs as the kernel takes them, or null.
pub unsafe fn put_jail_on(
    settings: &Settings,
    order: &Order,
    status: c_int,
    ruleset: c_int,
    filter: usize,
) {
    // SAFETY: numbers, one limit that lives here, and the caller's promise.
    unsafe {
        let space = settings.virtual_bytes.saturating_add(order.memory_bytes);
        let values = [
            (0, 0),
            (0, 0),
            (0, 0),
            (PENDING_SIGNALS, PENDING_SIGNALS),
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
        if order.flags & HAS_RULESET != 0 {
            let flags = settings.landlock_flags;
            let restricted = syscall(LANDLOCK_RESTRICT_SELF, ruleset, flags);
            need(restricted == 0, status, b"landlock");
        }
        let program = settings.filters[filter];
        if !program.is_null() {
            need(syscall(SECCOMP, 1, 0, program) == 0, status, b"seccomp");
        }
    }
}

/// In namespaces of one's own: write the number maps, mount the work folder, lay down all rights.
///
/// # Safety
/// The texts in the settings must end in a zero.
pub unsafe fn enter_work_folder(settings: &Settings, status: c_int) {
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

//! The zygote's loop and the child's jail, compiled on its own into a small library that the warm
//! interpreter loads (`build.rs`); `serve.py` calls it and is the only caller.
//!
//! Why not in Python: after a fork every page that parent or child writes is copied, and Python
//! writes to every object that it looks at. Here a child puts its whole jail on while touching a
//! handful of pages, and the parent forks without touching the interpreter at all.
//!
//! No allocation, no library but the C library, whose types are declared by hand below and compared
//! with the `libc` crate's in the tests of `native_layout.rs`. All of it runs in a process with one
//! thread. Trusted code: what it reads comes from the supervisor; what children do later cannot reach
//! it.

pub mod c_library;
mod child;
mod messages;
mod parent;
mod session;

use core::ffi::{c_char, c_int, c_void};

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
    pub ceilings: [u64; 9],
    /// Where a child mounts its work folder.
    pub work: *const c_char,
    /// How.
    pub work_options: *const c_char,
    /// Text of the child's `/proc/self/uid_map`.
    pub uid_map: *const c_char,
    /// Text of the child's `/proc/self/gid_map`.
    pub gid_map: *const c_char,
    /// The last filter of a child that may not fork, of one that may, of a state; null for none.
    pub filters: [*const c_void; 3],
    /// Out, in a child: descriptor of its source.
    pub code_file: c_int,
    /// Out, in a child: descriptor of the archive with its files.
    pub files_file: c_int,
    /// Out, in a turn: whether to seed the generators.
    pub seeds: u64,
    /// Out, in a child: the seed of its generators.
    pub seed: u64,
    /// Out, in a child: number of its work folder if the supervisor lent one.
    pub slot: u64,
    /// Out, in a child: size of its source.
    pub code_bytes: u64,
    /// Out, in a child: size of the archive with its files; 0 for none.
    pub files_bytes: u64,
    /// Out, in a child: where it may leave a remark on how it ended, `REMARK_BYTES` long.
    pub remark: *mut c_void,
}

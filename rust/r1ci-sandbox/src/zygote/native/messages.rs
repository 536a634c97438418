//! Messages to and from the supervisor: `wire.rs` has the other half.

use core::ffi::c_int;

use super::c_library::*;

/// What arrives with a script: `Order` in `wire.rs`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Order {
    pub execution: u64,
    pub flags: u64,
    pub slot: u64,
    pub seed: u64,
    pub code_bytes: u64,
    pub memory_bytes: u64,
    pub file_bytes: u64,
    pub open_files: u64,
    pub cpu_seconds: u64,
    pub tasks: u64,
    pub files_bytes: u64,
}
pub const HAS_STDIN: u64 = 1;
pub const HAS_RULESET: u64 = 2;
pub const OWN_PROCESSES: u64 = 4;
pub const HAS_FILES: u64 = 8;
pub const WANTS_FOLDER: u64 = 16;
/// To a zygote: open a session. Its handles are status channel, keeper's socket, state's socket.
pub const OPENS_SESSION: u64 = 32;
/// To a state: seed the generators anew.
pub const SEEDS: u64 = 64;
/// The last one or two of the handles are entrances to control groups.
pub const JOINS_ONE: u64 = 128;
pub const JOINS_TWO: u64 = 256;

impl Order {
    pub const EMPTY: Self = Self {
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
        files_bytes: 0,
    };

    /// Which of the last filters its child puts on.
    pub fn filter(&self) -> usize {
        if self.flags & OPENS_SESSION != 0 {
            2
        } else {
            usize::from(self.flags & OWN_PROCESSES != 0)
        }
    }

    /// How many descriptors travel with it.
    pub fn handles(&self) -> usize {
        let fixed = if self.flags & OPENS_SESSION != 0 {
            3
        } else {
            4
        };
        let optional = [HAS_STDIN, HAS_FILES, HAS_RULESET];
        let optional = optional.iter().filter(|flag| self.flags & **flag != 0);
        fixed + optional.count() + self.entrances()
    }

    /// How many of these are entrances to control groups.
    pub fn entrances(&self) -> usize {
        match self.flags & (JOINS_ONE | JOINS_TWO) {
            0 => 0,
            JOINS_ONE => 1,
            _ => 2,
        }
    }
}
pub const ORDER_BYTES: usize = size_of::<Order>();
pub const MOST_HANDLES: usize = 9;
/// The remark's place in the memory file behind the source: from the next multiple of this on.
pub const REMARK_STEP: u64 = 1 << 16;
/// Its size.
pub const REMARK_BYTES: usize = 4096;

pub fn watch(poller: c_int, handle: c_int, topic: u64) -> bool {
    let mut event = Event {
        events: EPOLLIN,
        topic,
    };
    // SAFETY: the kernel reads one event.
    unsafe { epoll_ctl(poller, EPOLL_CTL_ADD, handle, &raw mut event) == 0 }
}

/// Room for a control message with `MOST_HANDLES` descriptors, padded and aligned as the kernel wants
/// it.
const CONTROL_BYTES: usize = size_of::<ControlHeader>() + (MOST_HANDLES * 4).next_multiple_of(8);
#[repr(C, align(8))]
struct ControlSpace([u8; CONTROL_BYTES]);

pub fn receive(
    socket: c_int,
    order: &mut Order,
    handles: &mut [c_int; MOST_HANDLES],
) -> Option<(usize, usize)> {
    let mut space = ControlSpace([0; CONTROL_BYTES]);
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

pub fn send(socket: c_int, bytes: &mut [u8], handle: Option<c_int>) -> bool {
    const USED: usize = size_of::<ControlHeader>() + 4;
    let mut space = ControlSpace([0; CONTROL_BYTES]);
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

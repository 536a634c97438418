//! Holds the declarations of `zygote/native/c_library.rs`, which are written by hand, against the `libc` crate.

use std::mem::{offset_of, size_of};

use crate::native::c_library as native;

macro_rules! same_place {
    ($($ours:ident.$our_field:ident == $theirs:ident.$their_field:ident),* $(,)?) => {
        $(assert_eq!(
            offset_of!(native::$ours, $our_field),
            offset_of!(libc::$theirs, $their_field),
            stringify!($ours.$our_field),
        );)*
    };
}

#[test]
fn structures_are_laid_out_as_the_c_library_has_them() {
    same_place!(
        IoVec.base == iovec.iov_base,
        IoVec.size == iovec.iov_len,
        MessageHeader.name_bytes == msghdr.msg_namelen,
        MessageHeader.parts == msghdr.msg_iov,
        MessageHeader.part_count == msghdr.msg_iovlen,
        MessageHeader.control == msghdr.msg_control,
        MessageHeader.control_bytes == msghdr.msg_controllen,
        MessageHeader.flags == msghdr.msg_flags,
        ControlHeader.bytes == cmsghdr.cmsg_len,
        ControlHeader.level == cmsghdr.cmsg_level,
        ControlHeader.kind == cmsghdr.cmsg_type,
        Event.events == epoll_event.events,
        Event.topic == epoll_event.u64,
        Limit.soft == rlimit.rlim_cur,
        Limit.hard == rlimit.rlim_max,
        TimeValue.microseconds == timeval.tv_usec,
        ResourceUsage.system == rusage.ru_stime,
        ResourceUsage.peak_kilobytes == rusage.ru_maxrss,
    );
    assert_eq!(
        size_of::<native::MessageHeader>(),
        size_of::<libc::msghdr>()
    );
    assert_eq!(size_of::<native::Event>(), size_of::<libc::epoll_event>());
    assert_eq!(
        size_of::<native::ResourceUsage>(),
        size_of::<libc::rusage>()
    );
}

#[test]
fn numbers_are_the_c_library_s() {
    assert_eq!(native::CLONE, libc::SYS_clone);
    assert_eq!(native::CLONE3, libc::SYS_clone3);
    assert_eq!(native::CAPSET, libc::SYS_capset);
    assert_eq!(native::SECCOMP, libc::SYS_seccomp);
    assert_eq!(native::CLOSE_RANGE, libc::SYS_close_range);
    assert_eq!(
        native::LANDLOCK_RESTRICT_SELF,
        libc::SYS_landlock_restrict_self
    );
    assert_eq!(native::O_DIRECTORY, libc::O_DIRECTORY);
    assert_eq!(native::MAP_SHARED, libc::MAP_SHARED);
    assert_eq!(native::READ_WRITE, libc::PROT_READ | libc::PROT_WRITE);
    let limits = [
        libc::RLIMIT_CORE,
        libc::RLIMIT_MEMLOCK,
        libc::RLIMIT_MSGQUEUE,
        libc::RLIMIT_SIGPENDING,
        libc::RLIMIT_FSIZE,
        libc::RLIMIT_NOFILE,
        libc::RLIMIT_CPU,
        libc::RLIMIT_NPROC,
        libc::RLIMIT_AS,
    ];
    assert!(
        native::LIMITS
            .iter()
            .zip(limits)
            .all(|(ours, theirs)| *ours == theirs as i32)
    );
}

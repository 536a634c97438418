//! The filter that a child puts on top of its zygote's: what only the zygote needs is taken away.

use libc::c_long;
use seccompiler::BpfProgram;

pub(super) const LOAD_WORD: u16 = 0x20;
const JUMP_EQUAL: u16 = 0x15;
const JUMP_ANY_BIT: u16 = 0x45;
pub(super) const RETURN: u16 = 0x06;
/// Where the kernel's record of a call has its number and the low word of its first argument; all
/// architectures that this runs on put the low word first.
pub(super) const NUMBER: u32 = 0;
const FIRST_ARGUMENT: u32 = 16;

/// The last filter, short because every child installs it: threads may start, processes (unless
/// `forking`) and namespaces may not, nothing is mounted, the parent-death signal stays, and what is
/// in `refused` is refused.
///
/// `clone3`, whose flags a filter cannot see, is answered with "no such call": the C library then
/// falls back to `clone`. Foreign architectures have been dealt with by the zygote's filter.
pub(super) fn last_filter(forking: bool, refused: &[c_long]) -> BpfProgram {
    let namespaces = libc::CLONE_NEWNS
        | libc::CLONE_NEWUTS
        | libc::CLONE_NEWIPC
        | libc::CLONE_NEWUSER
        | libc::CLONE_NEWPID
        | libc::CLONE_NEWNET
        | libc::CLONE_NEWCGROUP;
    let refuse = libc::SECCOMP_RET_ERRNO | libc::EPERM as u32;
    let absent = libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32;
    let not_a_thread = if forking {
        libc::SECCOMP_RET_ALLOW
    } else {
        refuse
    };
    let load = |offset| step(LOAD_WORD, 0, 0, offset);
    let end = |verdict| step(RETURN, 0, 0, verdict);
    // On to the next step if equal, else over `skip` steps.
    let equal = |value: u32, skip| step(JUMP_EQUAL, 0, skip, value);
    let any_bit = |bits: u32, skip| step(JUMP_ANY_BIT, 0, skip, bits);
    let mut program = vec![load(NUMBER)];
    for number in refused {
        program.extend([equal(*number as u32, 1), end(refuse)]);
    }
    program.extend([
        equal(libc::SYS_clone3 as u32, 1),
        end(absent),
        equal(libc::SYS_mount as u32, 1),
        end(refuse),
        equal(libc::SYS_prctl as u32, 5),
        load(FIRST_ARGUMENT),
        equal(libc::PR_SET_PDEATHSIG as u32, 1),
        end(refuse),
        equal(libc::PR_SET_DUMPABLE as u32, 8),
        end(refuse),
        equal(libc::SYS_clone as u32, 6),
        load(FIRST_ARGUMENT),
        any_bit(namespaces as u32, 1),
        end(refuse),
        any_bit(libc::CLONE_THREAD as u32, 1),
        end(libc::SECCOMP_RET_ALLOW),
        end(not_a_thread),
        end(libc::SECCOMP_RET_ALLOW),
    ]);
    program
}

pub(super) const fn step(code: u16, jt: u8, jf: u8, k: u32) -> seccompiler::sock_filter {
    seccompiler::sock_filter { code, jt, jf, k }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the last filter answers, by a reading of its steps.
    fn answer(forking: bool, number: c_long, argument: i32) -> u32 {
        let program = last_filter(forking, &[libc::SYS_kill]);
        let (mut at, mut word) = (0, 0);
        loop {
            let step = &program[at];
            let jump = |taken: bool| usize::from(if taken { step.jt } else { step.jf });
            at += 1;
            match step.code {
                LOAD_WORD if step.k == NUMBER => word = number as u32,
                LOAD_WORD => word = argument as u32,
                JUMP_EQUAL => at += jump(word == step.k),
                JUMP_ANY_BIT => at += jump(word & step.k != 0),
                _ => return step.k,
            }
        }
    }

    #[test]
    fn the_last_filter_answers_as_it_should() {
        let allow = libc::SECCOMP_RET_ALLOW;
        let refuse = libc::SECCOMP_RET_ERRNO | libc::EPERM as u32;
        let absent = libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32;
        for forking in [false, true] {
            assert_eq!(answer(forking, libc::SYS_clone3, 0), absent);
            assert_eq!(answer(forking, libc::SYS_mount, 0), refuse);
            assert_eq!(
                answer(forking, libc::SYS_prctl, libc::PR_SET_PDEATHSIG),
                refuse
            );
            assert_eq!(
                answer(forking, libc::SYS_prctl, libc::PR_SET_DUMPABLE),
                refuse
            );
            assert_eq!(answer(forking, libc::SYS_prctl, libc::PR_SET_NAME), allow);
            let thread = libc::CLONE_THREAD | libc::CLONE_VM;
            assert_eq!(answer(forking, libc::SYS_clone, thread), allow);
            let space = thread | libc::CLONE_NEWUSER;
            assert_eq!(answer(forking, libc::SYS_clone, space), refuse);
            assert_eq!(answer(forking, libc::SYS_kill, 0), refuse);
            for number in [libc::SYS_read, libc::SYS_write, libc::SYS_exit_group] {
                assert_eq!(answer(forking, number, 1), allow);
            }
        }
        assert_eq!(answer(false, libc::SYS_clone, libc::SIGCHLD), refuse);
        assert_eq!(answer(true, libc::SYS_clone, libc::SIGCHLD), allow);
    }
}

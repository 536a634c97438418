//! Landlock: which files a child may touch, no TCP, no signals or abstract sockets outwards.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::PathBuf;

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, PathBeneath, Ruleset,
    RulesetAttr, RulesetCreatedAttr, RulesetError, Scope, path_beneath_rules,
};

/// Landlock version of the running kernel; 0 when it has none or it is switched off.
#[must_use]
#[expect(
    unsafe_code,
    reason = "the crate that builds rulesets does not say which version the kernel has"
)]
pub fn landlock_abi() -> i32 {
    const VERSION: libc::c_uint = 1;
    // SAFETY: with the version flag, a null attribute pointer and size 0 the call only returns a
    // number; it reads and writes no memory of ours.
    let version = unsafe {
        libc::syscall(
            libc::SYS_landlock_create_ruleset,
            std::ptr::null::<libc::c_void>(),
            0_usize,
            VERSION,
        )
    };
    i32::try_from(version).unwrap_or(0).max(0)
}

/// Flags for `landlock_restrict_self`: from version 7 on, keep a hostile child's refusals out of
/// the machine's audit log.
pub(crate) fn restrict_flags() -> u32 {
    u32::from(landlock_abi() >= 7)
}

/// The ruleset of a zygote's children: `roots` and the harmless devices are readable, `scratch` is
/// theirs, everything else of what this kernel can handle is refused. Nothing is executable.
pub(crate) fn ruleset(
    roots: &[PathBuf],
    devices: &[&str],
    scratch: BorrowedFd<'_>,
    tcp: bool,
    scope: bool,
) -> Result<Option<OwnedFd>, RulesetError> {
    let newest = ABI::V10;
    let read = AccessFs::ReadFile | AccessFs::ReadDir;
    let device = AccessFs::ReadFile | AccessFs::WriteFile | AccessFs::Truncate;
    let own: BitFlags<AccessFs> = read
        | AccessFs::WriteFile
        | AccessFs::Truncate
        | AccessFs::MakeReg
        | AccessFs::MakeDir
        | AccessFs::MakeSym
        | AccessFs::RemoveFile
        | AccessFs::RemoveDir
        | AccessFs::Refer;
    let mut rules = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(newest))?;
    if tcp {
        rules = rules.handle_access(AccessNet::from_all(newest))?;
    }
    if scope {
        rules = rules.scope(Scope::from_all(newest))?;
    }
    let created = rules
        .create()?
        .add_rules(path_beneath_rules(roots, read))?
        .add_rules(path_beneath_rules(devices, device))?
        .add_rule(PathBeneath::new(scratch, own))?;
    Ok(created.into())
}

//! Run untrusted Python in batches: warm interpreters, one kernel-locked child per execution.
//!
//! A [`Sandbox`] keeps warm interpreters (*zygotes*): fresh processes, never a fork of the caller,
//! each with a set of modules imported and its heap frozen. Every script runs in a child forked
//! from it, behind Landlock, seccomp, resource limits, an own user and an own file tree, each as
//! far as the kernel and the caller's rights allow; [`Sandbox::layers`] says which are in force
//! and [`SandboxConfig::required`] refuses to start without the ones named there.
//!
//! ```no_run
//! use r1ci_sandbox::{Request, Sandbox, SandboxConfig};
//!
//! let sandbox = Sandbox::start(SandboxConfig::new("/usr/bin/python3"))?;
//! let execution = sandbox.run(Request::new("print(6 * 7)"))?;
//! assert_eq!(execution.stdout.bytes, b"42\n");
//! # Ok::<(), r1ci_sandbox::SandboxError>(())
//! ```
//!
//! Left out on purpose: programs started by scripts, network access.
//! The security boundary is `jail/` and `zygote/`; `README.md` has the threat model.

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

mod aftermath;
mod capture;
mod cgroup;
mod error;
mod files;
mod identity;
mod jail;
mod kinds;
#[cfg(test)]
#[path = "zygote/native/mod.rs"]
#[allow(
    unsafe_code,
    dead_code,
    missing_docs,
    clippy::wildcard_imports,
    reason = "compiled here for its declarations only"
)]
mod native;
#[cfg(test)]
mod native_layout;
mod parcel;
mod policy;
mod pool;
#[cfg(test)]
mod properties;
mod report;
mod running;
mod scratch;
mod session;
mod supervisor;
mod usage;
mod wire;
mod zygote;

pub use capture::Captured;
pub use error::SandboxError;
pub use jail::landlock_abi;
pub use policy::{Layer, Limits, Request, SandboxConfig};
pub use pool::{Batch, Received, Sandbox};
pub use report::{Exception, Execution, ExitReason};
pub use session::{Checkpoint, ReceivedTurn, Session, SessionConfig, Turns};

//! Run untrusted Python in batches: warm interpreters, one kernel-locked child per execution.
//!
//! A [`Sandbox`] keeps one warm interpreter (a *zygote*) per worker: a fresh process, never a fork
//! of the caller, with modules imported and its heap frozen. Every script runs in a child forked
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
//! Left out on purpose: sessions that keep state, processes started by scripts, network access.
//! The security boundary is `jail/` and `zygote/bootstrap.py`; `README.md` has the threat model.

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

mod capture;
mod error;
mod identity;
mod jail;
mod policy;
mod pool;
mod report;
mod scratch;
mod wire;
mod worker;
mod zygote;

pub use capture::Captured;
pub use error::SandboxError;
pub use jail::landlock_abi;
pub use policy::{Layer, Limits, Request, SandboxConfig};
pub use pool::{Batch, Received, Sandbox};
pub use report::{Execution, ExitReason};

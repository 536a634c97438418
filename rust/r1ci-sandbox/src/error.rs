//! What can go wrong with the sandbox itself. A failing script is never one of these: it is an
//! [`Execution`](crate::Execution).

use crate::policy::Layer;

/// Why a sandbox could not start or take a request.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SandboxError {
    /// No interpreter could be brought up at any level; the text is the last attempt's reason.
    #[error("cannot start the interpreter `{python}`: {reason}")]
    Start {
        /// Path of the interpreter as configured.
        python: String,
        /// What failed.
        reason: String,
    },
    /// A layer named in `required` is not in force on this machine.
    #[error("required layer `{layer}` is not available: {reason}")]
    MissingLayer {
        /// The first missing layer.
        layer: Layer,
        /// Why it is missing, as far as known.
        reason: String,
    },
    /// A name that is not a layer.
    #[error("unknown layer `{name}`")]
    UnknownLayer {
        /// The name given.
        name: String,
    },
    /// A limit that cannot be enforced, such as no time at all.
    #[error("limit `{name}` is out of range")]
    Limit {
        /// Field of [`Limits`](crate::Limits).
        name: &'static str,
    },
    /// A file that cannot be made in a work folder, or read back from it.
    #[error("file `{path}` of the request: {reason}")]
    File {
        /// Its path as given.
        path: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The calling process is a fork of the one that started the sandbox.
    #[error("this sandbox belongs to process `{owner}`, from which process `{caller}` was forked")]
    Forked {
        /// Process that started it.
        owner: u32,
        /// Process that called.
        caller: u32,
    },
    /// The sandbox was closed.
    #[error("the sandbox is closed")]
    Closed,
    /// The supervisor ran out of something the kernel gives: descriptors, memory, processes.
    #[error("{action}: {source}")]
    System {
        /// What was being done.
        action: &'static str,
        /// The kernel's answer.
        source: std::io::Error,
    },
}

impl SandboxError {
    /// For `map_err`: wraps a kernel error with what was being done.
    pub(crate) fn system<E: Into<std::io::Error>>(action: &'static str) -> impl FnOnce(E) -> Self {
        move |source| Self::System {
            action,
            source: source.into(),
        }
    }

    /// The next step for a person, where there is one.
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Start { .. } => Some(
                "check that the interpreter runs and that every module to preload can be imported",
            ),
            Self::MissingLayer { .. } => Some(
                "`r1ci-engine doctor` shows what this kernel offers; require less only if you trust the code",
            ),
            Self::UnknownLayer { .. } => Some(Layer::NAMES),
            Self::Limit { .. } => Some("times and sizes must be above zero and within reason"),
            Self::File { .. } => {
                Some("name files by paths relative to the work folder, such as `data/input.txt`")
            }
            Self::Forked { .. } => Some("start a new sandbox in the forked process"),
            Self::Closed | Self::System { .. } => None,
        }
    }
}

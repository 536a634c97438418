//! What the caller asks for: limits, layers, the interpreter, the script.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use crate::error::SandboxError;
use crate::files;

/// A protection that is either in force or not. Results carry the list of those in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Layer {
    /// Landlock: only the interpreter's libraries are readable, only the work folder writable.
    Landlock,
    /// Landlock refuses TCP bind and connect (Linux 6.7).
    LandlockTcp,
    /// Landlock keeps signals and abstract sockets inside the child (Linux 6.12).
    LandlockScope,
    /// The system-call filter: no new processes, no sockets, no kernel doors.
    Seccomp,
    /// No program can raise privileges any more.
    NoNewPrivs,
    /// Memory, CPU time, file size, open files and core dumps are bounded by the kernel.
    Rlimits,
    /// Every capability set is empty.
    NoCapabilities,
    /// The child runs under a user number that no other process has.
    PrivateUid,
    /// The warm interpreter has a file tree of its own, read-only, and no network devices.
    Namespaces,
    /// Every execution has namespaces of its own, with a work folder capped in size and number of
    /// files, and a count of its own threads.
    OwnNamespaces,
    /// Executions that may be several processes, and sessions, are bounded together by a control
    /// group; all executions are if it is required.
    Cgroup,
}

impl Layer {
    /// Every layer, strongest use first.
    pub const ALL: [Self; 11] = [
        Self::Landlock,
        Self::LandlockTcp,
        Self::LandlockScope,
        Self::Seccomp,
        Self::NoNewPrivs,
        Self::Rlimits,
        Self::NoCapabilities,
        Self::PrivateUid,
        Self::Namespaces,
        Self::OwnNamespaces,
        Self::Cgroup,
    ];

    /// The names, for messages.
    pub(crate) const NAMES: &'static str = "layers are landlock, landlock_tcp, landlock_scope, \
        seccomp, no_new_privs, rlimits, no_capabilities, private_uid, namespaces, \
        own_namespaces and cgroup";

    /// The name used in configuration and results.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Landlock => "landlock",
            Self::LandlockTcp => "landlock_tcp",
            Self::LandlockScope => "landlock_scope",
            Self::Seccomp => "seccomp",
            Self::NoNewPrivs => "no_new_privs",
            Self::Rlimits => "rlimits",
            Self::NoCapabilities => "no_capabilities",
            Self::PrivateUid => "private_uid",
            Self::Namespaces => "namespaces",
            Self::OwnNamespaces => "own_namespaces",
            Self::Cgroup => "cgroup",
        }
    }
}

impl fmt::Display for Layer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

impl FromStr for Layer {
    type Err = SandboxError;

    fn from_str(name: &str) -> Result<Self, SandboxError> {
        Self::ALL
            .into_iter()
            .find(|layer| layer.name() == name)
            .ok_or_else(|| SandboxError::UnknownLayer { name: name.into() })
    }
}

/// Bounds of one execution.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Limits {
    /// CPU time of all threads together. The limit that counts: a busy machine does not use it up.
    pub cpu: Duration,
    /// Wall time, behind the CPU limit.
    pub wall: Duration,
    /// Memory beyond what the warm interpreter already has, in bytes.
    pub memory_bytes: u64,
    /// Bytes kept of each output stream: the first half and the last half.
    pub output_bytes: usize,
    /// Largest file the script may write, in bytes.
    pub file_bytes: u64,
    /// Threads at once, the main one included.
    pub threads: u64,
    /// Open descriptors at once.
    pub open_files: u64,
    /// Processes that the script may have besides its own: it may fork, and no more. Above 0 it
    /// runs in a process namespace of its own, as process 1; refused where there is none.
    pub processes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            cpu: Duration::from_secs(10),
            wall: Duration::from_secs(20),
            memory_bytes: 512 << 20,
            output_bytes: 64 << 10,
            file_bytes: 16 << 20,
            threads: 16,
            open_files: 64,
            processes: 0,
        }
    }
}

impl Limits {
    /// Refuse limits under which no script could run, or that no clock or counter could hold.
    pub(crate) fn check(&self) -> Result<(), SandboxError> {
        let time = |limit: Duration| !limit.is_zero() && limit <= LONGEST;
        let size = |limit: u64| (1..=LARGEST).contains(&limit);
        let fields = [
            ("cpu", time(self.cpu)),
            ("wall", time(self.wall)),
            ("memory_bytes", size(self.memory_bytes)),
            ("output_bytes", size(self.output_bytes as u64)),
            ("file_bytes", size(self.file_bytes)),
            ("threads", size(self.threads)),
            ("open_files", size(self.open_files) && self.open_files >= 8),
            ("processes", self.processes <= 1 << 16),
        ];
        match fields.into_iter().find(|(_, good)| !good) {
            Some((name, _)) => Err(SandboxError::Limit { name }),
            None => Ok(()),
        }
    }
}

/// Longest time limit: longer than any run, and still safe to add to a clock.
const LONGEST: Duration = Duration::from_secs(1 << 32);
/// Largest size limit, for the same reason.
const LARGEST: u64 = 1 << 50;

/// One script to run.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    /// Python source as bytes; a coding line or byte-order mark is honoured.
    pub code: Vec<u8>,
    /// What the script reads from standard input; then end of file.
    pub stdin: Vec<u8>,
    /// Seed of `random` and of numpy's global generator.
    pub seed: u64,
    /// Limits of this execution; the sandbox's own when none.
    pub limits: Option<Limits>,
    /// Files made in the work folder before the script begins, by path below it.
    pub files: Vec<(String, Vec<u8>)>,
    /// Paths below the work folder of regular files to read back after the end, whatever that is.
    pub fetch: Vec<String>,
}

impl Request {
    /// A script without input, with seed 0 and the sandbox's limits.
    #[must_use]
    pub fn new(code: impl Into<Vec<u8>>) -> Self {
        Self {
            code: code.into(),
            stdin: Vec::new(),
            seed: 0,
            limits: None,
            files: Vec::new(),
            fetch: Vec::new(),
        }
    }

    /// Refuse what no sandbox could do.
    pub(crate) fn check(&self) -> Result<(), SandboxError> {
        if let Some(limits) = self.limits {
            limits.check()?;
        }
        files::check(&self.files, &self.fetch)
    }
}

/// How to start a sandbox.
#[derive(Debug, Clone)]
pub struct SandboxConfig {
    /// The interpreter that scripts run in.
    pub python: PathBuf,
    /// Folders added to `sys.path` and readable by scripts, such as `site-packages`.
    pub library_paths: Vec<PathBuf>,
    /// Further files and folders that scripts may read.
    pub read_only: Vec<PathBuf>,
    /// Modules that a warm interpreter of their own imports once; scripts that name one of them run
    /// there. Interpreters with numpy and with sympy start by themselves when a script needs them.
    pub preload: Vec<String>,
    /// Executions that compute at once. Those that sleep do not count, and at any moment one or the
    /// other is with the supervisor, so one more than there are cores keeps these busy.
    pub workers: usize,
    /// Limits for requests that bring none.
    pub limits: Limits,
    /// Size of an execution's work folder in bytes.
    pub scratch_bytes: u64,
    /// Most files and folders in it.
    pub scratch_files: u64,
    /// Most sessions at once.
    pub sessions: usize,
    /// A session that has no turn for so long is ended.
    pub session_idle: Duration,
    /// Memory of all states of a session together, in bytes.
    pub session_bytes: u64,
    /// Refuse to start unless these are in force.
    pub required: Vec<Layer>,
    /// Leave these out. For tests that show what a layer stops, and for measurements.
    pub without: Vec<Layer>,
}

impl SandboxConfig {
    /// Defaults for `python`: one worker per core and one more, no further libraries, nothing required.
    #[must_use]
    pub fn new(python: impl Into<PathBuf>) -> Self {
        Self {
            python: python.into(),
            library_paths: Vec::new(),
            read_only: Vec::new(),
            preload: Vec::new(),
            workers: std::thread::available_parallelism().map_or(1, usize::from) + 1,
            limits: Limits::default(),
            scratch_bytes: 64 << 20,
            scratch_files: 8192,
            sessions: 64,
            session_idle: Duration::from_secs(600),
            session_bytes: 1 << 30,
            required: Vec::new(),
            without: Vec::new(),
        }
    }

    pub(crate) fn wants(&self, layer: Layer) -> bool {
        !self.without.contains(&layer)
    }
}

//! Start a warm interpreter and come to terms with it: the supervisor's half of `bootstrap.py`.
//!
//! What the machine allows is found out by trying, from the strongest arrangement down; the
//! interpreter reports what is in force, and the caller's `required` is held against that.

use std::collections::BTreeSet;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::Deserialize;
use serde_json::json;

use crate::error::SandboxError;
use crate::policy::{Layer, SandboxConfig};
use crate::{identity, jail, scratch, wire};

/// The trusted program inside the interpreter.
const BOOTSTRAP: &str = include_str!("zygote/bootstrap.py");

/// How long an interpreter may take to import what it was told to.
const START_LIMIT: Duration = Duration::from_secs(120);

/// Where the work folder lies in the own file tree.
const OWN_SCRATCH: &str = "/r1ci";

/// Files and folders of the system that libraries open at run time. No secrets live here.
const SYSTEM_ROOTS: &[&str] = &[
    "/lib",
    "/lib64",
    "/usr/lib",
    "/usr/lib64",
    "/usr/share/zoneinfo",
    "/etc/alternatives",
    "/etc/ld.so.cache",
    "/etc/localtime",
];

/// Devices without state.
const DEVICES: &[&str] = &[
    "/dev/full",
    "/dev/null",
    "/dev/random",
    "/dev/urandom",
    "/dev/zero",
];

/// Modules that scripts use all the time and that cost little to keep.
const STANDARD_MODULES: &[&str] = &[
    "bisect",
    "collections",
    "copy",
    "dataclasses",
    "datetime",
    "decimal",
    "enum",
    "fractions",
    "functools",
    "heapq",
    "itertools",
    "json",
    "math",
    "operator",
    "re",
    "statistics",
    "string",
    "time",
    "typing",
];

/// A running warm interpreter. Dropping it ends the process and removes its work folder.
pub(crate) struct Zygote {
    process: Child,
    pidfd: OwnedFd,
    /// The socket that requests and replies travel on.
    pub control: OwnedFd,
    /// The work folder of its children.
    pub scratch: OwnedFd,
    scratch_path: Option<PathBuf>,
    /// What is in force for its children.
    pub layers: Vec<Layer>,
    /// Why stronger arrangements were not possible.
    pub shortfalls: Vec<String>,
    /// Resident memory before the first script, in bytes.
    pub resident_bytes: u64,
    /// Version of the interpreter.
    pub python: String,
    /// Host paths and the short names that stand for them in error output.
    pub short_names: Vec<(Vec<u8>, Vec<u8>)>,
}

/// One way to arrange a zygote.
#[derive(Clone, Copy)]
struct Arrangement {
    namespaces: bool,
    private_uid: bool,
}

/// What the interpreter says when it is ready.
#[derive(Deserialize)]
struct Facts {
    layers: Vec<String>,
    roots: Vec<PathBuf>,
    resident_bytes: u64,
    python: String,
    stdlib: PathBuf,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Hello {
    Ready(Facts),
    Failed { error: String },
}

impl Zygote {
    /// Start one at the strongest level that works.
    pub fn start(config: &SandboxConfig) -> Result<Self, SandboxError> {
        let arrangements = [(true, true), (true, false), (false, true), (false, false)]
            .into_iter()
            .filter(|(namespaces, private_uid)| {
                (!namespaces || config.wants(Layer::Namespaces))
                    && (!private_uid || config.wants(Layer::PrivateUid))
            });
        let mut shortfalls: Vec<String> = Vec::new();
        for (namespaces, private_uid) in arrangements {
            let arrangement = Arrangement {
                namespaces,
                private_uid,
            };
            match Self::arrange(config, arrangement) {
                Ok(mut zygote) => {
                    shortfalls.dedup();
                    zygote.shortfalls = shortfalls;
                    return zygote.hold_to(config);
                }
                Err(Failure::Arrangement(reason)) => shortfalls.push(reason),
                Err(Failure::Final(error)) => return Err(error),
            }
        }
        Err(SandboxError::Start {
            python: config.python.display().to_string(),
            reason: shortfalls.pop().unwrap_or_default(),
        })
    }

    fn hold_to(self, config: &SandboxConfig) -> Result<Self, SandboxError> {
        let missing = config
            .required
            .iter()
            .find(|layer| !self.layers.contains(layer));
        match missing {
            None => Ok(self),
            Some(layer) => Err(SandboxError::MissingLayer {
                layer: *layer,
                reason: self.why_missing(*layer, config),
            }),
        }
    }

    fn why_missing(&self, layer: Layer, config: &SandboxConfig) -> String {
        if !config.wants(layer) {
            return "it was switched off".into();
        }
        let abi = jail::landlock_abi();
        match layer {
            Layer::Landlock | Layer::LandlockTcp | Layer::LandlockScope => {
                format!("this kernel has Landlock version {abi}")
            }
            Layer::PrivateUid if !rustix::process::geteuid().is_root() => {
                "only root can give scripts another user".into()
            }
            _ if self.shortfalls.is_empty() => "this kernel or container does not allow it".into(),
            _ => self.shortfalls.join("; "),
        }
    }

    fn arrange(config: &SandboxConfig, arrangement: Arrangement) -> Result<Self, Failure> {
        let uid = if arrangement.private_uid {
            let found = identity::private_uid();
            Some(found.ok_or_else(|| Failure::Arrangement("no private user number".into()))?)
        } else {
            None
        };
        let scratch_path = if arrangement.namespaces {
            None
        } else {
            let path = scratch::create(uid).map_err(SandboxError::system("make a work folder"))?;
            Some(path)
        };
        let inside = scratch_path.clone().unwrap_or_else(|| OWN_SCRATCH.into());
        let (control, theirs) = socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )
        .map_err(SandboxError::system("make a control socket"))?;
        let mut process = command(config, &inside)
            .stdin(Stdio::from(theirs))
            .spawn()
            .map_err(|error| SandboxError::Start {
                python: config.python.display().to_string(),
                reason: error.to_string(),
            })?;
        let pid = Pid::from_child(&process);
        let pidfd = pidfd_open(pid, PidfdFlags::empty());
        let errors = process.stderr.take();
        let mut starting = Starting {
            process: Some(process),
            scratch_path,
        };
        let pidfd = pidfd.map_err(SandboxError::system("open a process handle"))?;

        let opening = json!({
            "parent": std::process::id(),
            "namespaces": arrangement.namespaces,
            "uid": uid,
            "roots": SYSTEM_ROOTS.iter().map(PathBuf::from)
                .chain(config.read_only.iter().cloned()).collect::<Vec<_>>(),
            "devices": DEVICES,
            "library_paths": config.library_paths,
            "scratch": inside,
            "scratch_bytes": config.scratch_bytes,
            "scratch_files": 8192,
            "preload": STANDARD_MODULES.iter().map(ToString::to_string)
                .chain(config.preload.iter().cloned()).collect::<BTreeSet<_>>(),
            "syscalls": {
                "capset": libc::SYS_capset,
                "landlock_restrict_self": libc::SYS_landlock_restrict_self,
                "mount_setattr": libc::SYS_mount_setattr,
                "pivot_root": libc::SYS_pivot_root,
                "seccomp": libc::SYS_seccomp,
            },
        });
        let (facts, scratch) = introduce(&control, &opening.to_string())
            .map_err(|reason| starting.explain(errors, reason))?;
        let layers = send_jail(config, arrangement, &control, &scratch, &facts)?;
        let short_names = short_names(config, &facts, &inside);
        let (process, scratch_path) = starting.keep();
        Ok(Self {
            process,
            pidfd,
            control,
            scratch,
            scratch_path,
            layers,
            shortfalls: Vec::new(),
            resident_bytes: facts.resident_bytes,
            python: facts.python,
            short_names,
        })
    }
}

impl Drop for Zygote {
    fn drop(&mut self) {
        // Both fail only when the process is gone already, perhaps reaped by the caller's own wait.
        let _ = pidfd_send_signal(&self.pidfd, Signal::KILL);
        let _ = self.process.wait();
        if let Some(path) = &self.scratch_path {
            let _ = scratch::remove(path);
        }
    }
}

/// Why an arrangement did not come up.
enum Failure {
    /// A weaker one may work.
    Arrangement(String),
    /// Nothing will.
    Final(SandboxError),
}

impl From<SandboxError> for Failure {
    fn from(error: SandboxError) -> Self {
        Self::Final(error)
    }
}

/// An interpreter that is not ready yet; dropping it takes process and folder away.
struct Starting {
    process: Option<Child>,
    scratch_path: Option<PathBuf>,
}

impl Starting {
    /// The reason why it failed, with the last line that it wrote to standard error.
    fn explain(&mut self, errors: Option<impl Read>, reason: String) -> Failure {
        if let Some(process) = &mut self.process {
            let _ = process.kill();
        }
        let mut text = Vec::new();
        if let Some(stream) = errors {
            let _ = stream.take(64 << 10).read_to_end(&mut text);
        }
        let text = String::from_utf8_lossy(&text);
        let last = text.lines().rev().find(|line| !line.trim().is_empty());
        Failure::Arrangement(match last {
            Some(line) if reason.is_empty() => line.trim().to_owned(),
            Some(line) => format!("{reason} ({})", line.trim()),
            None if reason.is_empty() => "the interpreter ended before it was ready".into(),
            None => reason,
        })
    }

    fn keep(mut self) -> (Child, Option<PathBuf>) {
        let process = self.process.take().expect("kept once");
        (process, self.scratch_path.take())
    }
}

impl Drop for Starting {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
        if let Some(path) = self.scratch_path.take() {
            let _ = scratch::remove(&path);
        }
    }
}

/// The interpreter's command line and its environment, which is built from nothing.
fn command(config: &SandboxConfig, scratch: &Path) -> Command {
    let mut command = Command::new(&config.python);
    command
        .args(["-s", "-S", "-B", "-u", "-c", BOOTSTRAP])
        .env_clear()
        .envs([
            ("PATH", "/usr/bin:/bin"),
            ("LANG", "C.UTF-8"),
            ("LC_ALL", "C.UTF-8"),
            ("TZ", "UTC"),
            ("PYTHONHASHSEED", "0"),
            ("PYTHONSAFEPATH", "1"),
            ("PYTHONUTF8", "1"),
            ("OPENBLAS_NUM_THREADS", "1"),
            ("OMP_NUM_THREADS", "1"),
            ("MKL_NUM_THREADS", "1"),
            // One arena: each further one reserves 64 MiB of the address space that is limited.
            ("MALLOC_ARENA_MAX", "1"),
        ])
        .env("HOME", scratch)
        .env("TMPDIR", scratch)
        .current_dir("/")
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    command
}

/// Tell the interpreter what to be; wait until it is. An empty reason means that it went away.
fn introduce(control: &OwnedFd, opening: &str) -> Result<(Facts, OwnedFd), String> {
    wire::send(control, opening.as_bytes(), &[]).map_err(|_| String::new())?;
    let limit = Timespec::try_from(START_LIMIT).expect("a small duration");
    let mut waiting = [PollFd::new(control, PollFlags::IN)];
    match poll(&mut waiting, Some(&limit)) {
        Ok(0) => return Err(format!("not ready after {} s", START_LIMIT.as_secs())),
        Ok(_) | Err(rustix::io::Errno::INTR) => {}
        Err(error) => return Err(error.to_string()),
    }
    let mut buffer = vec![0; 64 << 10];
    let (size, scratch) = wire::receive(control, &mut buffer).map_err(|error| error.to_string())?;
    if size == 0 {
        return Err(String::new());
    }
    match (serde_json::from_slice(&buffer[..size]), scratch) {
        (Ok(Hello::Ready(facts)), Some(scratch)) => Ok((facts, scratch)),
        (Ok(Hello::Failed { error }), _) => Err(error),
        _ => Err("the interpreter introduced itself in no known form".into()),
    }
}

/// Hand over what every child puts on; returns all layers in force.
fn send_jail(
    config: &SandboxConfig,
    arrangement: Arrangement,
    control: &OwnedFd,
    scratch: &OwnedFd,
    facts: &Facts,
) -> Result<Vec<Layer>, Failure> {
    let abi = jail::landlock_abi();
    let has = |layer, least| config.wants(Layer::Landlock) && config.wants(layer) && abi >= least;
    let (tcp, scope) = (has(Layer::LandlockTcp, 4), has(Layer::LandlockScope, 6));
    let mut layers: BTreeSet<Layer> = facts.layers.iter().flat_map(|name| name.parse()).collect();
    layers.extend(
        [(Layer::LandlockTcp, tcp), (Layer::LandlockScope, scope)]
            .into_iter()
            .filter_map(|(layer, on)| on.then_some(layer)),
    );
    let failed = |error: &dyn std::fmt::Display| Failure::Arrangement(error.to_string());
    let mut ruleset = None;
    if has(Layer::Landlock, 1) {
        ruleset = jail::ruleset(&facts.roots, DEVICES, scratch.as_fd(), tcp, scope)
            .map_err(|error| failed(&error))?;
        layers.insert(Layer::Landlock);
    }
    let mut filters = Vec::new();
    if config.wants(Layer::Seccomp) {
        filters =
            jail::filters(if scope { abi } else { abi.min(5) }).map_err(|error| failed(&error))?;
        layers.insert(Layer::Seccomp);
    }
    // The kernel counts threads per user: a count of our own takes a user or a namespace of our own.
    let root = rustix::process::geteuid().is_root();
    let settings = json!({
        "filters": filters.iter().map(|program| hex(program)).collect::<Vec<_>>(),
        "landlock_flags": jail::restrict_flags(),
        "counts_threads": arrangement.private_uid || (arrangement.namespaces && !root),
    });
    let handles: Vec<_> = ruleset.iter().map(AsFd::as_fd).collect();
    wire::send(control, settings.to_string().as_bytes(), &handles)
        .map_err(|error| failed(&error))?;
    Ok(layers.into_iter().collect())
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Longest path first, so that a folder inside another one keeps its own name.
fn short_names(config: &SandboxConfig, facts: &Facts, scratch: &Path) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut names: Vec<_> = config
        .library_paths
        .iter()
        .chain([&facts.stdlib])
        .filter_map(|path| {
            let short = path.file_name()?.as_bytes();
            Some((
                [path.as_os_str().as_bytes(), b"/"].concat(),
                [short, b"/"].concat(),
            ))
        })
        .collect();
    names.push(([scratch.as_os_str().as_bytes(), b"/"].concat(), Vec::new()));
    names.sort_by_key(|(path, _)| std::cmp::Reverse(path.len()));
    names
}

//! Start a warm interpreter and come to terms with it: the supervisor's half of `zygote/serve.py`.
//!
//! One arrangement is tried here; `supervisor.rs` goes through them from the strongest down. The
//! interpreter reports what is in force, and nothing else is claimed.

use std::collections::BTreeSet;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use serde::Deserialize;
use serde_json::json;

use crate::error::SandboxError;
use crate::kinds::Kind;
use crate::policy::{Layer, SandboxConfig};
use crate::scratch::OwnFolder;
use crate::{jail, scratch, wire};

use super::{Arrangement, DEVICES, Rules, Zygote};

/// The first lines of the trusted program inside the interpreter; it takes the rest by socket.
const LOADER: &str = include_str!("load.py");

/// The rest, in the order of their imports.
const MODULES: [(&str, &str); 5] = [
    ("r1ci_zygote.kernel", include_str!("kernel.py")),
    ("r1ci_zygote.prepare", include_str!("prepare.py")),
    ("r1ci_zygote.settings", include_str!("settings.py")),
    ("r1ci_zygote.script", include_str!("script.py")),
    ("r1ci_zygote.serve", include_str!("serve.py")),
];

/// Its native half, compiled by `build.rs` from `zygote/native/`.
const NATIVE: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/zygote.so"));

/// How long an interpreter may take to import what it was told to.
const START_LIMIT: Duration = Duration::from_secs(120);

/// Where work folders lie in the own file tree.
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

/// Counts interpreters that came up.
static SERIAL: AtomicU64 = AtomicU64::new(0);

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

/// An interpreter that is not ready yet; dropping it takes process and folder away.
pub(crate) struct Starting {
    arrangement: Arrangement,
    process: Option<Child>,
    pidfd: OwnedFd,
    /// Readable when it is ready or has failed.
    pub control: OwnedFd,
    inside: PathBuf,
    work: Option<OwnFolder>,
    /// When it counts as failed.
    pub deadline: Instant,
}

impl Starting {
    /// Launch an interpreter of that kind.
    pub fn launch(
        config: &SandboxConfig,
        arrangement: Arrangement,
        kind: &Kind,
    ) -> Result<Self, SandboxError> {
        let work = if arrangement.namespaces {
            None
        } else {
            let folder = scratch::create(arrangement.private_uid)
                .map_err(SandboxError::system("make a work folder"))?;
            Some(folder)
        };
        let inside = work
            .as_ref()
            .map_or(Path::new(OWN_SCRATCH), OwnFolder::path)
            .to_owned();
        let (control, theirs) = socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )
        .map_err(SandboxError::system("make a control socket"))?;
        let process = command(config, &inside)
            .stdin(Stdio::from(theirs))
            .spawn()
            .map_err(|error| SandboxError::Start {
                python: config.python.display().to_string(),
                reason: error.to_string(),
            })?;
        let pid = Pid::from_child(&process);
        let pidfd = pidfd_open(pid, PidfdFlags::empty());
        let starting = Self {
            arrangement,
            process: Some(process),
            pidfd: pidfd.map_err(SandboxError::system("open a process handle"))?,
            control,
            inside,
            work,
            deadline: Instant::now() + START_LIMIT,
        };
        let opening = json!({
            "parent": std::process::id(),
            "namespaces": arrangement.namespaces,
            "own_namespaces": arrangement.own_namespaces,
            "uid": arrangement.private_uid,
            "roots": SYSTEM_ROOTS.iter().map(PathBuf::from)
                .chain(config.read_only.iter().cloned()).collect::<Vec<_>>(),
            "devices": DEVICES,
            "library_paths": config.library_paths,
            "scratch": starting.inside,
            "scratch_bytes": config.scratch_bytes,
            "scratch_files": config.scratch_files,
            "preload": STANDARD_MODULES.iter().map(ToString::to_string)
                .chain(kind.preload.iter().cloned()).collect::<Vec<_>>(),
            "warm_up": kind.warm_up,
            "syscalls": {
                "capset": libc::SYS_capset,
                "mount_setattr": libc::SYS_mount_setattr,
                "pivot_root": libc::SYS_pivot_root,
                "seccomp": libc::SYS_seccomp,
            },
        });
        let native = native_library().map_err(SandboxError::system("lay out the native half"))?;
        let modules = json!(MODULES).to_string();
        // Both fail when the interpreter is gone already; then that shows at the next reading.
        let _ = wire::send(&starting.control, modules.as_bytes(), &[native.as_fd()]);
        let _ = wire::send(&starting.control, opening.to_string().as_bytes(), &[]);
        Ok(starting)
    }

    /// What has come of it, if anything has. An error carries the reason for people.
    pub fn ready(&mut self, config: &SandboxConfig) -> Result<Option<Zygote>, String> {
        let mut buffer = vec![0; 64 << 10];
        let received = wire::receive(&self.control, &mut buffer);
        let Some(message) = received.map_err(|error| error.to_string())? else {
            return if Instant::now() < self.deadline {
                Ok(None)
            } else {
                Err(self.explain(format!("not ready after {} s", START_LIMIT.as_secs())))
            };
        };
        let hello = serde_json::from_slice(&buffer[..message.size]);
        let (facts, scratch): (Facts, OwnedFd) = match (hello, message.handle) {
            (Ok(Hello::Ready(facts)), Some(scratch)) => (facts, scratch),
            (Ok(Hello::Failed { error }), _) => return Err(self.explain(error)),
            _ if message.size == 0 => return Err(self.explain(String::new())),
            _ => return Err("the interpreter introduced itself in no known form".into()),
        };
        let (layers, rules) = self
            .send_settings(config, &facts)
            .map_err(|reason| self.explain(reason))?;
        let ruleset = match &rules {
            Some(rules) if self.arrangement.own_namespaces => jail::ruleset(
                &rules.roots,
                DEVICES,
                scratch.as_fd(),
                rules.tcp,
                rules.scope,
            )
            .map_err(|error| error.to_string())?,
            _ => None,
        };
        let own = self.arrangement.own_namespaces;
        Ok(Some(Zygote {
            short_names: short_names(config, &facts, &self.inside, own).into(),
            serial: SERIAL.fetch_add(1, Ordering::Relaxed),
            process: self.process.take().ok_or("it was ready before")?,
            pidfd: self.pidfd.try_clone().map_err(|error| error.to_string())?,
            control: self
                .control
                .try_clone()
                .map_err(|error| error.to_string())?,
            scratch,
            _work: self.work.take(),
            arrangement: self.arrangement,
            rules,
            ruleset,
            slots: Vec::new(),
            slots_made: 0,
            layers: layers.into(),
            resident_bytes: facts.resident_bytes,
            python: facts.python,
        }))
    }

    /// Hand over what children put on; returns all layers in force.
    fn send_settings(
        &self,
        config: &SandboxConfig,
        facts: &Facts,
    ) -> Result<(Vec<Layer>, Option<Rules>), String> {
        let abi = jail::landlock_abi();
        let has =
            |layer, least| config.wants(Layer::Landlock) && config.wants(layer) && abi >= least;
        let (tcp, scope) = (has(Layer::LandlockTcp, 4), has(Layer::LandlockScope, 6));
        let mut layers: BTreeSet<Layer> =
            facts.layers.iter().flat_map(|name| name.parse()).collect();
        let found = [
            (Layer::Landlock, has(Layer::Landlock, 1)),
            (Layer::LandlockTcp, tcp),
            (Layer::LandlockScope, scope),
            (Layer::Seccomp, config.wants(Layer::Seccomp)),
        ];
        layers.extend(
            found
                .into_iter()
                .filter_map(|(layer, on)| on.then_some(layer)),
        );
        let rules = has(Layer::Landlock, 1).then(|| Rules {
            roots: facts.roots.clone(),
            tcp,
            scope,
        });
        let (mut zygote_filters, mut child_filters) = (Vec::new(), Vec::new());
        if config.wants(Layer::Seccomp) {
            let abi = if scope { abi } else { abi.min(5) };
            let filters = jail::filters(abi, self.arrangement.own_namespaces)
                .map_err(|error| error.to_string())?;
            zygote_filters.push(hex(&filters.zygote));
            let last = [&filters.child, &filters.forking_child, &filters.state];
            child_filters.extend(last.map(|program| hex(program)));
        }
        let settings = json!({
            "zygote_filters": zygote_filters,
            "child_filters": child_filters,
            "landlock_flags": jail::restrict_flags(),
            // The kernel counts threads per user and user namespace: elsewhere than in a namespace
            // of their own, children would share one count.
            "counts_threads": self.arrangement.own_namespaces,
            "sweeps": !config.wants(Layer::Seccomp),
        });
        wire::send(&self.control, settings.to_string().as_bytes(), &[])
            .map_err(|error| error.to_string())?;
        Ok((layers.into_iter().collect(), rules))
    }

    /// The reason why it failed, with the last line that it wrote to standard error.
    fn explain(&mut self, reason: String) -> String {
        let Some(process) = &mut self.process else {
            return reason;
        };
        let _ = process.kill();
        let mut text = Vec::new();
        if let Some(stream) = process.stderr.take() {
            let _ = stream.take(64 << 10).read_to_end(&mut text);
        }
        let text = String::from_utf8_lossy(&text);
        let last = text.lines().rev().find(|line| !line.trim().is_empty());
        match last {
            Some(line) if reason.is_empty() => line.trim().to_owned(),
            Some(line) => format!("{reason} ({})", line.trim()),
            None if reason.is_empty() => "the interpreter ended before it was ready".into(),
            None => reason,
        }
    }
}

impl Drop for Starting {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

/// The interpreter's command line and its environment, which is built from nothing.
fn command(config: &SandboxConfig, scratch: &Path) -> Command {
    let home = scratch.join("work");
    let mut command = Command::new(&config.python);
    command
        .args(["-s", "-S", "-B", "-u", "-c", LOADER])
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
        .env("HOME", &home)
        .env("TMPDIR", &home)
        .current_dir("/")
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    command
}

/// The native half as a file in memory, allowed to be mapped as a program.
fn native_library() -> io::Result<OwnedFd> {
    use rustix::fs::MemfdFlags;
    let flags = MemfdFlags::CLOEXEC;
    // Before Linux 6.3 there is no such flag, and every memory file may be mapped so.
    let file = rustix::fs::memfd_create("r1ci-zygote", flags | MemfdFlags::EXEC)
        .or_else(|_| rustix::fs::memfd_create("r1ci-zygote", flags))?;
    io::Write::write_all(&mut std::fs::File::from(file.try_clone()?), NATIVE)?;
    Ok(file)
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Longest path first, so that a folder inside another one keeps its own name.
fn short_names(
    config: &SandboxConfig,
    facts: &Facts,
    scratch: &Path,
    own: bool,
) -> Vec<(Vec<u8>, Vec<u8>)> {
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
    let work = if own {
        scratch.join("work")
    } else {
        scratch.to_owned()
    };
    names.push(([work.as_os_str().as_bytes(), b"/"].concat(), Vec::new()));
    names.sort_by_key(|(path, _)| std::cmp::Reverse(path.len()));
    names
}

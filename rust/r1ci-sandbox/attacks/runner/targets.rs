//! What attacks aim at outside the sandbox, and what of the outside must not have changed.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::TcpListener;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixListener};
use std::path::PathBuf;
use std::time::{Duration, Instant};

const SECRET: &str = "the-test-secret";

/// Things outside that attacks aim at. They stay open while this lives.
pub struct Targets {
    folder: PathBuf,
    /// Where they are, for the attacks, as JSON.
    pub facts: String,
    _open: (TcpListener, UnixListener, UnixListener, UnixDatagram),
}

impl Targets {
    /// Set them up in the system's temporary folder.
    pub fn set_up(neighbour: &str) -> io::Result<Self> {
        let name = format!("r1ci-targets-{}", std::process::id());
        let folder = std::env::temp_dir().join(&name);
        fs::create_dir(&folder)?;
        let secret_path = folder.join("secret");
        fs::write(&secret_path, SECRET)?;
        // Open to everybody: only the sandbox may be what stops an attack.
        fs::set_permissions(&folder, PermissionsExt::from_mode(0o777))?;
        fs::set_permissions(&secret_path, PermissionsExt::from_mode(0o666))?;
        let tcp = TcpListener::bind(("127.0.0.1", 0))?;
        let address = SocketAddr::from_abstract_name(&name)?;
        let facts = serde_json::json!({
            "secret_path": secret_path,
            "supervisor": std::process::id(),
            "tcp_port": tcp.local_addr()?.port(),
            "unix_path": folder.join("stream"),
            "unix_datagram": folder.join("datagram"),
            "unix_abstract": name,
            "neighbour": neighbour,
            "caller_path": env!("CARGO_MANIFEST_DIR"),
        });
        let open = (
            tcp,
            UnixListener::bind(folder.join("stream"))?,
            UnixListener::bind_addr(&address)?,
            UnixDatagram::bind(folder.join("datagram"))?,
        );
        Ok(Self {
            folder,
            facts: facts.to_string(),
            _open: open,
        })
    }

    /// Whether the secret is as it was.
    pub fn untouched(&self) -> bool {
        fs::read_to_string(self.folder.join("secret")).is_ok_and(|text| text == SECRET)
    }
}

impl Drop for Targets {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// What can be seen of this process and of the machine from outside the sandbox.
pub struct Outside(BTreeMap<&'static str, String>);

impl Outside {
    /// Look at it now.
    pub fn look() -> Self {
        let text = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let keep = |path: &str, words: &[&str]| {
            let wanted = |line: &&str| words.iter().any(|word| line.starts_with(word));
            let text = text(path);
            let lines: Vec<_> = text.lines().filter(wanted).collect();
            lines.join("\n")
        };
        Self(BTreeMap::from([
            ("processes", children().join(" ")),
            ("descriptors", names("/proc/self/fd").len().to_string()),
            ("limits", text("/proc/self/limits")),
            ("signals and processors", {
                // This thread's own: others block signals for a moment when they start a process.
                let rows = ["SigBlk", "Cpus_allowed:", "Uid", "Seccomp"];
                keep("/proc/thread-self/status", &rows)
            }),
            ("memory score", text("/proc/self/oom_score_adj")),
            ("priority", {
                let fields = text("/proc/self/stat");
                let after = fields.rsplit(')').next().unwrap_or_default();
                after.split_whitespace().skip(15).take(2).collect()
            }),
            (
                "shared memory",
                text("/proc/sysvipc/shm").lines().count().to_string(),
            ),
            (
                "semaphores",
                text("/proc/sysvipc/sem").lines().count().to_string(),
            ),
            (
                "message queues",
                text("/proc/sysvipc/msg").lines().count().to_string(),
            ),
            ("mounts", text("/proc/self/mountinfo")),
            ("host name", text("/proc/sys/kernel/hostname")),
            ("memory files", {
                let ours = |name: &String| name.starts_with("r1ci") || name.starts_with("psm_");
                let found: Vec<_> = names("/dev/shm").into_iter().filter(ours).collect();
                found.join(" ")
            }),
        ]))
    }

    /// What has changed since, given a second for processes to vanish.
    pub fn changes(&self) -> Vec<String> {
        let begun = Instant::now();
        loop {
            let now = Self::look();
            let differ = self.0.iter().filter(|(name, was)| now.0[*name] != **was);
            let changes: Vec<_> = differ
                .map(|(name, was)| format!("{name}: was `{was}`, is `{}`", now.0[name]))
                .collect();
            if changes.is_empty() || begun.elapsed() > Duration::from_secs(1) {
                return changes;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// Processes below this one. Those that lost their parents come here too: see `level.rs`.
fn children() -> Vec<String> {
    let tasks = names("/proc/self/task").into_iter();
    let lists = tasks
        .filter_map(|task| fs::read_to_string(format!("/proc/self/task/{task}/children")).ok());
    let numbers: Vec<String> = lists
        .flat_map(|list| {
            list.split_whitespace()
                .map(String::from)
                .collect::<Vec<_>>()
        })
        .collect();
    numbers
}

fn names(folder: &str) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    names.collect()
}

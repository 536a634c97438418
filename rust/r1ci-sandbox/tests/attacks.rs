//! Runs every program in `attacks/` and holds it to the outcome in its header.
//!
//! Each runs with every layer this machine offers, and again as inside an ordinary container that
//! allows neither namespaces nor other users. Where the header names layers, it also runs without
//! those and must get through: a test that passes with the protection off would prove nothing.

#![cfg(target_arch = "x86_64")]
#![expect(clippy::print_stderr, reason = "a failing attack must be seen whole")]

use std::collections::BTreeMap;
use std::fs;
use std::net::TcpListener;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixListener};
use std::path::{Path, PathBuf};
use std::time::Duration;

use r1ci_sandbox::{Execution, Layer, Limits, Request, Sandbox, SandboxConfig};

/// Run after every attack: finds what it left behind.
const NEIGHBOUR: &str = "# neighbour-5b2f\n\
    import math, os, random\n\
    print(os.listdir('.'), math.sqrt(1764), os.getenv('PYTHONPATH'), len(os.listdir('.')))";
const NEIGHBOUR_PRINTS: &[u8] = b"[] 42.0 None 0\n";

struct Attack {
    name: String,
    source: String,
    verdicts: Vec<String>,
    limits: Limits,
    open_without: Vec<Layer>,
}

impl Attack {
    fn read(path: &Path) -> Self {
        let source = fs::read_to_string(path).expect("attack");
        let field = |name: &str| {
            let prefix = format!("# {name}: ");
            let found = source.lines().find_map(|line| line.strip_prefix(&prefix));
            found.unwrap_or_default().to_owned()
        };
        let mut limits = Limits {
            cpu: Duration::from_secs(5),
            wall: Duration::from_secs(10),
            ..Limits::default()
        };
        for setting in field("Limits").split_whitespace() {
            let (name, value) = setting.split_once('=').expect("name=value");
            let number: f64 = value.parse().expect("a number");
            match name {
                "cpu" => limits.cpu = Duration::from_secs_f64(number),
                "wall" => limits.wall = Duration::from_secs_f64(number),
                "memory" => limits.memory_bytes = number as u64 * (1 << 20),
                _ => panic!("{}: unknown limit {name}", path.display()),
            }
        }
        Self {
            name: path.file_stem().expect("a name").to_string_lossy().into(),
            verdicts: field("Verdict").split(", ").map(Into::into).collect(),
            open_without: field("Open without")
                .split_whitespace()
                .map(|name| name.parse().expect("a layer"))
                .collect(),
            limits,
            source,
        }
    }

    fn all() -> Vec<Self> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("attacks");
        let mut paths: Vec<PathBuf> = fs::read_dir(folder)
            .expect("attacks")
            .map(|entry| entry.expect("entry").path())
            .filter(|path| path.extension().is_some_and(|kind| kind == "py"))
            .filter(|path| !path.ends_with("prelude.py"))
            .collect();
        paths.sort();
        paths.iter().map(|path| Self::read(path)).collect()
    }
}

/// Things outside that attacks aim at. They stay open while this lives.
struct Targets {
    folder: PathBuf,
    facts: String,
    _open: (TcpListener, UnixListener, UnixListener, UnixDatagram),
}

impl Targets {
    fn set_up() -> Self {
        let folder = std::env::temp_dir().join(format!("r1ci-targets-{}", std::process::id()));
        fs::create_dir(&folder).expect("folder");
        let secret_path = folder.join("secret");
        fs::write(&secret_path, "the-test-secret").expect("secret");
        // Open to everybody: only the sandbox may be what stops an attack.
        fs::set_permissions(&folder, PermissionsExt::from_mode(0o777)).expect("chmod");
        fs::set_permissions(&secret_path, PermissionsExt::from_mode(0o666)).expect("chmod");
        let tcp = TcpListener::bind(("127.0.0.1", 0)).expect("tcp");
        let abstract_name = format!("r1ci-targets-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&abstract_name).expect("address");
        let facts = serde_json::json!({
            "secret_path": secret_path,
            "supervisor": std::process::id(),
            "tcp_port": tcp.local_addr().expect("address").port(),
            "unix_path": folder.join("stream"),
            "unix_datagram": folder.join("datagram"),
            "unix_abstract": abstract_name,
            "neighbour": NEIGHBOUR.lines().next(),
            "caller_path": env!("CARGO_MANIFEST_DIR"),
        });
        let open = (
            tcp,
            UnixListener::bind(folder.join("stream")).expect("unix"),
            UnixListener::bind_addr(&address).expect("abstract"),
            UnixDatagram::bind(folder.join("datagram")).expect("datagram"),
        );
        Self {
            folder,
            facts: facts.to_string(),
            _open: open,
        }
    }
}

impl Drop for Targets {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn start(without: &[Layer]) -> Sandbox {
    let mut config = SandboxConfig::new("python3");
    config.workers = 1;
    config.without = without.to_vec();
    Sandbox::start(config).expect("sandbox")
}

fn run(sandbox: &Sandbox, attack: &Attack, targets: &Targets) -> Execution {
    let prelude = include_str!("../attacks/prelude.py");
    let mut request = Request::new(format!("{prelude}\n{}", attack.source));
    request.stdin = targets.facts.clone().into();
    request.limits = Some(attack.limits);
    sandbox.run(request).expect("run")
}

fn text(execution: &Execution) -> String {
    format!(
        "{} {} {:?}\n{}{}",
        execution.exit_reason.name(),
        execution.detail,
        execution.wall,
        execution.stdout.text().0,
        execution.stderr.text().0
    )
}

/// What is wrong after an attack, if anything.
fn complaints(sandbox: &Sandbox, attack: &Attack, execution: &Execution) -> Vec<String> {
    let mut wrong = Vec::new();
    let output = text(execution);
    if !attack
        .verdicts
        .iter()
        .any(|verdict| verdict == execution.exit_reason.name())
    {
        wrong.push(format!("verdict, not {}", attack.verdicts.join(" or ")));
    }
    if output.contains("ESCAPED") {
        wrong.push("it got through".into());
    }
    let prints_first = attack.source.contains("print(\"kept\", flush=True)");
    if prints_first && !execution.stdout.bytes.starts_with(b"kept\n") {
        wrong.push("output before the end was lost".into());
    }
    if execution.wall > attack.limits.wall + Duration::from_secs(2) {
        wrong.push("it ran too long".into());
    }
    wrong.extend(trouble_left(sandbox));
    wrong
}

/// What the next script notices.
fn trouble_left(sandbox: &Sandbox) -> Option<String> {
    let next = sandbox.run(Request::new(NEIGHBOUR)).expect("run");
    (next.stdout.bytes != NEIGHBOUR_PRINTS).then(|| format!("the next script saw {}", text(&next)))
}

fn children() -> Vec<String> {
    let tasks = fs::read_dir("/proc/self/task").expect("tasks").flatten();
    let lists = tasks.filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
    lists
        .flat_map(|list| {
            list.split_whitespace()
                .map(String::from)
                .collect::<Vec<_>>()
        })
        .collect()
}

fn descriptors() -> usize {
    fs::read_dir("/proc/self/fd").expect("descriptors").count()
}

// One test, so that processes and descriptors can be counted.
#[test]
fn every_attack_ends_as_its_header_says() {
    let attacks = Attack::all();
    assert!(attacks.len() >= 50, "{} attacks found", attacks.len());
    let targets = Targets::set_up();
    let descriptors_before = descriptors();
    let mut failures = BTreeMap::new();
    let levels: [(&str, &[Layer]); 3] = [
        ("all layers", &[]),
        ("shared tree", &[Layer::OwnNamespaces]),
        (
            "container",
            &[Layer::Namespaces, Layer::OwnNamespaces, Layer::PrivateUid],
        ),
    ];
    for (level, without) in levels {
        let sandbox = start(without);
        for attack in &attacks {
            let execution = run(&sandbox, attack, &targets);
            let wrong = complaints(&sandbox, attack, &execution);
            if !wrong.is_empty() {
                let report = format!("{}\n{}", wrong.join("; "), text(&execution));
                failures.insert(format!("{} ({level})", attack.name), report);
            }
        }
    }
    // From here on attacks do get through.
    let secret = fs::read_to_string(targets.folder.join("secret")).expect("secret");
    assert_eq!(secret, "the-test-secret");
    for attack in attacks
        .iter()
        .filter(|attack| !attack.open_without.is_empty())
    {
        let sandbox = start(&attack.open_without);
        let execution = run(&sandbox, attack, &targets);
        if !execution.stdout.text().0.contains("ESCAPED") {
            let report = format!("it is stopped by something else\n{}", text(&execution));
            failures.insert(format!("{} (layers off)", attack.name), report);
        }
        if let Some(trouble) = trouble_left(&sandbox) {
            failures.insert(format!("{} (layers off, after)", attack.name), trouble);
        }
    }
    for (attack, report) in &failures {
        let shown: String = report.chars().take(2500).collect();
        eprintln!("---- {attack}: {shown}\n");
    }
    assert!(failures.is_empty(), "{} attacks failed", failures.len());
    assert_eq!(children(), Vec::<String>::new(), "processes left behind");
    assert_eq!(descriptors(), descriptors_before, "descriptors left behind");
    let names = fs::read_dir(std::env::temp_dir()).expect("temp").flatten();
    let left: Vec<_> = names
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| name.starts_with("r1ci-attack-"))
        .collect();
    assert_eq!(left, Vec::<String>::new(), "files left behind");
}

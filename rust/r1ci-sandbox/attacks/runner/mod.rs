//! Tries every program in `attacks/` at every level that this machine offers.
//!
//! Each level is tried in a process of its own, this same program started anew: one runs as an
//! ordinary user, some under a filter such as container engines use. What an attack leaves behind
//! then shows in that process, and what harms it harms no other level.

mod header;
mod level;
mod targets;

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use header::Attack;
use level::{Order, Outcome};
use serde::Serialize;

/// Set for a process that tries one level; its orders come by standard input.
const WORKER: &str = "R1CI_ATTACKS_WORKER";
/// Stands before a worker's answer, which a test harness may surround with words of its own.
const MARK: &str = "=r1ci-attacks= ";
/// The ordinary user that root turns into.
const USER: u32 = 61_847;

/// A level: its name, who runs it, whether a filter refuses namespaces, layers left out.
struct Level {
    name: &'static str,
    as_user: bool,
    filtered: bool,
    without: &'static [&'static str],
}

const LEVELS: [Level; 6] = [
    Level {
        name: "all layers",
        as_user: false,
        filtered: false,
        without: &[],
    },
    Level {
        name: "shared tree",
        as_user: false,
        filtered: false,
        without: &["own_namespaces"],
    },
    Level {
        name: "caller's user, shared tree and network",
        as_user: false,
        filtered: false,
        without: &["namespaces", "own_namespaces", "private_uid"],
    },
    Level {
        name: "container",
        as_user: false,
        filtered: true,
        without: &[],
    },
    Level {
        name: "ordinary user",
        as_user: true,
        filtered: false,
        without: &[],
    },
    Level {
        name: "ordinary user in a container",
        as_user: true,
        filtered: true,
        without: &[],
    },
];

/// Not a level: shows that attacks get through without the layers that stop them.
const OPENED: Level = Level {
    name: "layers off",
    as_user: false,
    filtered: false,
    without: &[],
};

/// The whole result.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    /// Programs tried.
    pub attacks: usize,
    /// Those that ended safely at every level.
    pub safe: usize,
    /// The others. `level: NAME` stands for what no single attack can be blamed for.
    #[serde(rename = "unsafe")]
    pub open: Vec<String>,
    /// Levels tried.
    pub levels: Vec<String>,
}

/// What goes on while the levels are tried.
pub trait Listener {
    /// A level has been tried; `layers` were in force.
    fn tried(&mut self, level: &str, attacks: usize, layers: &[String]);
    /// A level or an attack could not be tried here.
    fn left_out(&mut self, what: &str, reason: &str);
    /// Something is not as it should be.
    fn failed(&mut self, what: &str, report: &str);
}

/// If this process was started to try a level, do that. True if it was.
pub fn worked() -> bool {
    if std::env::var_os(WORKER).is_none() {
        return false;
    }
    let order = serde_json::from_reader(io::stdin()).map_err(io::Error::other);
    let outcome = order.and_then(|order| level::carry_out(&order));
    let outcome = outcome.unwrap_or_else(|error| Outcome {
        no_start: Some(error.to_string()),
        ..Outcome::default()
    });
    let text = serde_json::to_string(&outcome).expect("plain data");
    writeln!(io::stdout(), "{MARK}{text}").expect("the one who asked is there");
    true
}

/// Try the attacks named, or all. `arguments` start this program so that it calls `worked`.
pub fn run(
    names: &[String],
    arguments: &[&str],
    listener: &mut dyn Listener,
) -> Result<Report, String> {
    let attacks = Attack::load(names)?;
    let mut report = Report::default();
    let (mut tried, mut open) = (BTreeSet::new(), BTreeSet::new());
    let ask = |level: &Level, opens| {
        let order = Order {
            attacks: attacks.clone(),
            pythons: pythons(level.as_user),
            without: level.without.iter().map(ToString::to_string).collect(),
            filtered: level.filtered,
            opened: opens,
        };
        ask_worker(level, &order, arguments)
            .map_err(|error| format!("level `{}`: {error}", level.name))
    };
    // Two at a time: most attacks wait for a limit.
    let root = rustix::process::geteuid().is_root();
    let (possible, others): (Vec<_>, Vec<_>) = LEVELS.iter().partition(|l| root || !l.as_user);
    for level in others {
        listener.left_out(level.name, "only root can become another user");
    }
    let mut outcomes = vec![(&OPENED, ask(&OPENED, true)?)];
    for pair in possible.chunks(2) {
        let answers: Vec<_> = std::thread::scope(|scope| {
            let started: Vec<_> = pair.iter().map(|l| scope.spawn(|| ask(l, false))).collect();
            let ended = started.into_iter().map(std::thread::ScopedJoinHandle::join);
            ended.map(|answer| answer.expect("no panic")).collect()
        });
        for (level, answer) in pair.iter().zip(answers) {
            outcomes.push((level, answer?));
        }
    }
    for (level, outcome) in outcomes {
        let opens = level.name == OPENED.name;
        if let Some(reason) = outcome.no_start {
            listener.left_out(level.name, &reason);
            if !level.as_user {
                open.insert(format!("level: {}", level.name));
            }
            continue;
        }
        for (name, text) in &outcome.failures {
            listener.failed(&format!("{name} ({})", level.name), text);
            open.insert(name.clone());
        }
        // What opened attacks leave is their right.
        for text in outcome.left.iter().filter(|_| !opens) {
            listener.failed(&format!("after all ({})", level.name), text);
            open.insert(format!("level: {}", level.name));
        }
        listener.tried(level.name, outcome.tried.len(), &outcome.layers);
        if !opens {
            report.levels.push(level.name.into());
            tried.extend(outcome.tried);
        }
    }
    for attack in attacks.iter().filter(|a| !tried.contains(&a.name)) {
        listener.left_out(&attack.name, "a module that it needs is not installed");
    }
    report.attacks = tried.len();
    report.safe = tried.iter().filter(|name| !open.contains(*name)).count();
    report.open = open.into_iter().collect();
    Ok(report)
}

/// Start this program anew for one level and hear what came of it.
fn ask_worker(level: &Level, order: &Order, arguments: &[&str]) -> io::Result<Outcome> {
    let folder = Folder::make(level)?;
    // By this name it can be started even by a user who cannot enter the folder where it lies.
    let mut command = Command::new("/proc/self/exe");
    command
        .args(arguments)
        .env(WORKER, "1")
        .env("TMPDIR", &folder.0)
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    if level.as_user {
        command.uid(USER).gid(USER);
    }
    let mut worker = command.spawn()?;
    let text = serde_json::to_string(order)?;
    if let Some(mut stdin) = worker.stdin.take() {
        stdin.write_all(text.as_bytes())?;
    }
    let output = worker.wait_with_output()?;
    let said = String::from_utf8_lossy(&output.stdout);
    let answer = said.lines().find_map(|line| line.split_once(MARK));
    let Some((_, answer)) = answer else {
        let status = output.status;
        return Err(io::Error::other(format!(
            "its process gave no answer: {status}"
        )));
    };
    let mut outcome: Outcome = serde_json::from_str(answer)?;
    for entry in fs::read_dir(&folder.0)?.flatten() {
        let path = entry.path();
        outcome.left.push(format!("`{}` is left", path.display()));
    }
    Ok(outcome)
}

/// A temporary folder for one level, gone with this value.
struct Folder(PathBuf);

impl Folder {
    fn make(level: &Level) -> io::Result<Self> {
        let as_user = level.as_user;
        let level = level.name.replace(|c: char| !c.is_ascii_alphabetic(), "-");
        let name = format!("r1ci-attacks-{}-{level}", std::process::id());
        let folder = Self(std::env::temp_dir().join(name));
        fs::create_dir(&folder.0)?;
        if as_user {
            chown(&folder.0, Some(USER), Some(USER))?;
        }
        Ok(folder)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Interpreters to try, with their libraries: the one that `R1CI_PYTHON` names, that of the
/// project's own environment, the one on the path, the system's.
fn pythons(as_user: bool) -> Vec<(PathBuf, Vec<PathBuf>)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut paths: Vec<PathBuf> = Vec::new();
    paths.extend(std::env::var_os("R1CI_PYTHON").map(PathBuf::from));
    paths.extend([root.join(".venv/bin/python"), "python3".into()]);
    if as_user {
        paths.push("/usr/bin/python3".into());
    }
    let with_libraries = paths.into_iter().filter_map(|path| {
        let ask = "import sysconfig; print(sysconfig.get_path('purelib'))";
        let answer = Command::new(&path).args(["-c", ask]).output().ok()?;
        let libraries = String::from_utf8(answer.stdout).ok()?;
        Some((path, vec![libraries.trim().into()]))
    });
    with_libraries.collect()
}

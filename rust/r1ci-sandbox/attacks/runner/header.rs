//! An attack: its program and what its header says about it.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use r1ci_sandbox::{Layer, Limits, Request};
use serde::{Deserialize, Serialize};

/// Put in front of every attack.
const PRELUDE: &str = include_str!("../prelude.py");

/// A program and its name; what travels to the process that tries it.
#[derive(Clone, Serialize, Deserialize)]
pub struct Attack {
    pub name: String,
    pub source: String,
}

impl Attack {
    /// Those named, or all.
    pub fn load(names: &[String]) -> Result<Vec<Self>, String> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("attacks");
        let entries = fs::read_dir(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
        let mut paths: Vec<PathBuf> = entries
            .flatten()
            .map(|entry| entry.path())
            .filter(|path| path.extension().is_some_and(|kind| kind == "py"))
            .filter(|path| !path.ends_with("prelude.py"))
            .collect();
        paths.sort();
        let mut attacks = Vec::new();
        for path in paths {
            let name = path.file_stem().unwrap_or_default().to_string_lossy();
            let source =
                fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))?;
            attacks.push(Self {
                name: name.into(),
                source,
            });
        }
        if let Some(unknown) = names.iter().find(|n| attacks.iter().all(|a| a.name != **n)) {
            return Err(format!(
                "no attack is called `{unknown}`; they are the files in {}",
                folder.display()
            ));
        }
        attacks.retain(|attack| names.is_empty() || names.contains(&attack.name));
        Ok(attacks)
    }

    fn field(&self, name: &str) -> &str {
        let prefix = format!("# {name}: ");
        let found = self.source.lines().find_map(|l| l.strip_prefix(&prefix));
        found.unwrap_or_default()
    }

    /// Names of the verdicts that are safe.
    pub fn verdicts(&self) -> Vec<&str> {
        self.field("Verdict").split(", ").collect()
    }

    /// Layers without which it must get through.
    pub fn open_without(&self) -> Vec<Layer> {
        let names = self.field("Open without").split_whitespace();
        names
            .map(|name| name.parse().expect("a layer's name"))
            .collect()
    }

    /// Modules that it uses and that may not be installed.
    pub fn needs(&self) -> Vec<&str> {
        self.field("Needs").split_whitespace().collect()
    }

    /// Longest time that it may take: what its header says, or a little over its wall limit.
    pub fn longest(&self) -> Duration {
        match self.field("Within").parse() {
            Ok(seconds) => Duration::from_secs_f64(seconds),
            Err(_) => self.limits().wall + Duration::from_secs(2),
        }
    }

    /// Words that the result's remark must hold.
    pub fn remark(&self) -> &str {
        self.field("Remark")
    }

    /// Whether what it prints first must have been kept.
    pub fn prints_first(&self) -> bool {
        self.source.contains("print(\"kept\", flush=True)")
    }

    /// Its limits.
    pub fn limits(&self) -> Limits {
        let mut limits = Limits {
            cpu: Duration::from_secs(5),
            wall: Duration::from_secs(10),
            ..Limits::default()
        };
        for setting in self.field("Limits").split_whitespace() {
            let (name, value) = setting.split_once('=').expect("name=value");
            let number: f64 = value.parse().expect("a number");
            match name {
                "cpu" => limits.cpu = Duration::from_secs_f64(number),
                "wall" => limits.wall = Duration::from_secs_f64(number),
                "memory" => limits.memory_bytes = number as u64 * (1 << 20),
                "threads" => limits.threads = number as u64,
                "processes" => limits.processes = number as u64,
                _ => panic!("{}: unknown limit {name}", self.name),
            }
        }
        limits
    }

    /// What the sandbox is asked to run, with the facts on what is outside as input.
    pub fn request(&self, facts: &str) -> Request {
        let mut request = Request::new(format!("{PRELUDE}\n{}", self.source));
        request.stdin = facts.into();
        request.limits = Some(self.limits());
        request
    }
}

//! The supervisor's zygotes, one of each kind: brought up, watched, replaced when they die.

use std::collections::VecDeque;
use std::io;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use rustix::event::{Timespec, epoll};

use crate::error::SandboxError;
use crate::policy::Layer;
use crate::pool::Job;
use crate::report::ExitReason;
use crate::zygote::{Arrangement, Starting, Zygote};

use super::{MOST_FAILURES, Supervisor, Topic, watch};

/// How long a kind is left alone after its starts have failed in a row.
const REST: Duration = Duration::from_millis(if cfg!(test) { 200 } else { 30_000 });

/// One kind of zygote and the work that waits for it, or an old zygote, for which nothing waits.
pub(super) struct Fleet {
    pub state: State,
    pub waiting: VecDeque<Waiting>,
    pub failures: u32,
    /// Where the zygote is that takes the place of this one.
    pub home: usize,
    pub successor: Option<Starting>,
    /// Scripts and sessions of the present zygote, and how long it has been there.
    pub served: u64,
    pub since: Instant,
}

impl Fleet {
    pub fn new(home: usize) -> Self {
        Self {
            state: State::Cold,
            waiting: VecDeque::new(),
            failures: 0,
            home,
            successor: None,
            served: 0,
            since: Instant::now(),
        }
    }

    /// When something that starts counts as failed.
    pub fn deadlines(&self) -> impl Iterator<Item = Instant> {
        let starting = match &self.state {
            State::Starting(starting) => Some(starting),
            _ => None,
        };
        let all = starting.into_iter().chain(&self.successor);
        all.map(|starting| starting.deadline)
    }
}

pub(super) enum State {
    Cold,
    Starting(Starting),
    Ready(Zygote),
    /// It does not come up; until then, or for good where its modules are not installed, the bare
    /// kind takes its work, which imports them itself.
    Useless(Option<Instant>),
}

/// Something tried at the start.
pub(super) enum Attempt {
    Groups,
    Zygote(Arrangement),
}

pub(super) struct Waiting {
    pub number: u64,
    pub job: Job,
}

impl Supervisor {
    /// Start a zygote, wait for it, and see that it can run a script.
    pub(super) fn bring_up(&mut self, place: usize) -> Result<(), String> {
        let kind = &self.kinds[place];
        let mut starting = Starting::launch(&self.config, self.arrangement, kind).map_err(
            |error| match error {
                SandboxError::Start { reason, .. } => reason,
                other => other.to_string(),
            },
        )?;
        let zygote = loop {
            if let Some(zygote) = starting.ready(&self.config)? {
                break zygote;
            }
            let mut waiting = [rustix::event::PollFd::new(
                &starting.control,
                rustix::event::PollFlags::IN,
            )];
            let pause = Timespec {
                tv_sec: 1,
                tv_nsec: 0,
            };
            let _ = rustix::event::poll(&mut waiting, Some(&pause));
        };
        self.facts.layers = zygote.layers.to_vec();
        if self.groups.is_some() {
            self.facts.layers.push(Layer::Cgroup);
        }
        self.facts.python.clone_from(&zygote.python);
        self.install(place, zygote)
            .map_err(|error| error.to_string())?;
        let (job, trial) = Job::trial();
        self.begin(place, job);
        while !self.running.is_empty() {
            self.turn().map_err(|error| error.to_string())?;
        }
        let ended = trial.recv().map_err(|error| error.to_string())?.1;
        if ended.exit_reason == ExitReason::Ok {
            return Ok(());
        }
        self.fleets[place].state = State::Cold;
        let name = ended.exit_reason.name();
        Err(format!(
            "an empty script ended with {name}: {}",
            ended.detail
        ))
    }

    /// Say which layers are missing and why; an error if one of them is required.
    pub(super) fn hold_to_required(mut self) -> Result<Self, SandboxError> {
        let missing = Layer::ALL.into_iter();
        let missing = missing.filter(|layer| !self.facts.layers.contains(layer));
        self.facts.missing = missing
            .map(|layer| (layer, self.why_missing(layer)))
            .collect();
        let mut missing = self.facts.missing.iter();
        match missing.find(|(layer, _)| self.config.required.contains(layer)) {
            None => Ok(self),
            Some((layer, reason)) => Err(SandboxError::MissingLayer {
                layer: *layer,
                reason: reason.clone(),
            }),
        }
    }

    fn why_missing(&self, layer: Layer) -> String {
        if !self.config.wants(layer) {
            return "it was switched off".into();
        }
        // The weakest attempt that included it failed for it alone.
        let included = |attempt: &Attempt| match (attempt, layer) {
            (Attempt::Groups, Layer::Cgroup) => true,
            (Attempt::Zygote(way), Layer::PrivateUid) => way.private_uid.is_some(),
            (Attempt::Zygote(way), Layer::Namespaces) => way.namespaces,
            (Attempt::Zygote(way), Layer::OwnNamespaces) => way.own_namespaces,
            _ => false,
        };
        let mut failed = self.failed.iter().rev();
        let reason = failed.find(|(attempt, _)| included(attempt));
        match (layer, reason) {
            (Layer::PrivateUid, _) if !rustix::process::geteuid().is_root() => {
                "only root can give scripts another user".into()
            }
            (Layer::PrivateUid, Some((_, reason))) => {
                format!("another user cannot run the interpreter ({reason})")
            }
            (_, Some((_, reason))) => reason.clone(),
            (Layer::Landlock | Layer::LandlockTcp | Layer::LandlockScope, None) => {
                let abi = crate::jail::landlock_abi();
                format!("this kernel has Landlock version {abi}")
            }
            (Layer::OwnNamespaces, None) => "it needs the layer namespaces".into(),
            (_, None) => "this kernel or container does not allow it".into(),
        }
    }

    pub(super) fn launch(&mut self, place: usize) {
        let launched = Starting::launch(&self.config, self.arrangement, &self.kinds[place]);
        let watched = launched
            .map_err(|error| error.to_string())
            .and_then(|starting| {
                watch(&self.epoll, starting.control.as_fd(), &Topic::Fleet(place))
                    .map_err(|error| error.to_string())?;
                Ok(starting)
            });
        match watched {
            Ok(starting) => self.fleets[place].state = State::Starting(starting),
            Err(reason) => self.start_failed(place, &reason),
        }
    }

    pub(super) fn install(&mut self, place: usize, zygote: Zygote) -> io::Result<()> {
        watch(&self.epoll, zygote.control.as_fd(), &Topic::Fleet(place))?;
        let fleet = &mut self.fleets[place];
        fleet.state = State::Ready(zygote);
        (fleet.served, fleet.since) = (0, Instant::now());
        Ok(())
    }

    pub(super) fn start_failed(&mut self, place: usize, reason: &str) {
        self.fleets[place].state = State::Cold;
        self.fleets[place].failures += 1;
        let absent = reason.contains("ModuleNotFoundError");
        if place != 0 && (absent || self.fleets[place].failures >= MOST_FAILURES) {
            // If a module is not installed, the script shall say so itself.
            let again = (!absent).then(|| Instant::now() + REST);
            self.fleets[place].state = State::Useless(again);
            let waiting = std::mem::take(&mut self.fleets[place].waiting);
            self.fleets[0].waiting.extend(waiting);
            self.fleets[0]
                .waiting
                .make_contiguous()
                .sort_by_key(|w| w.number);
        } else if self.fleets[place].failures >= MOST_FAILURES {
            self.fleets[place].failures = 0;
            for waiting in std::mem::take(&mut self.fleets[place].waiting) {
                self.answer_fault(waiting.job, format!("no interpreter comes up: {reason}"));
            }
        }
    }

    pub(super) fn check_starts(&mut self, now: Instant) {
        for place in 0..self.fleets.len() {
            if let State::Starting(starting) = &self.fleets[place].state
                && starting.deadline <= now
            {
                self.hear(place);
            }
            let successor = &self.fleets[place].successor;
            if successor.as_ref().is_some_and(|s| s.deadline <= now) {
                self.hear_successor(place);
            }
        }
    }

    /// A zygote is gone, or of no use any more.
    pub(super) fn lose(&mut self, place: usize, reason: &str) {
        self.lose_sessions(place);
        let lost: Vec<u64> = self
            .running
            .iter()
            .filter_map(|(number, (running, _))| (running.kind == place).then_some(*number))
            .collect();
        if let State::Ready(zygote) = &self.fleets[place].state {
            let _ = epoll::delete(&self.epoll, &zygote.control);
        }
        for number in lost {
            let Some((mut running, job)) = self.take(number) else {
                continue;
            };
            self.retire_group(running.group.take());
            if running.had_begun() {
                self.answer_fault(job, reason.to_owned());
            } else {
                self.again(place, job, reason);
            }
        }
        // Dropping it kills what is left of it.
        self.fleets[place].state = State::Cold;
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::{Duration, Instant};

    use rustix::process::{Pid, Signal};

    use crate::policy::{Request, SandboxConfig};
    use crate::pool::Sandbox;
    use crate::report::ExitReason;

    #[test]
    #[cfg_attr(miri, ignore = "needs processes")]
    fn a_kind_that_does_not_come_up_is_tried_again() {
        let folder = std::env::temp_dir().join(format!("r1ci-flaky-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("a folder");
        let broken = folder.join("broken");
        let module = format!(
            "import os\nif os.path.exists({broken:?}):\n    raise RuntimeError('not now')\n"
        );
        fs::write(folder.join("flaky.py"), module).expect("a file");
        let mut config = SandboxConfig::new("python3");
        (config.library_paths, config.preload) = (vec![folder.clone()], vec!["flaky".into()]);
        let sandbox = Sandbox::start(config).expect("sandbox");
        let prints = |code| {
            let run = || {
                sandbox
                    .run_many(vec![Request::new(code)])
                    .expect("results")
                    .remove(0)
            };
            // What is handed to a dying zygote may be lost with it.
            let mut tries = std::iter::repeat_with(run).take(3);
            let result = tries
                .find(|r| r.exit_reason != ExitReason::Infrastructure)
                .expect("one");
            assert_eq!(result.exit_reason, ExitReason::Ok, "{}", result.detail);
            String::from_utf8(result.stdout.bytes).expect("text")
        };
        let is_warm = || prints("import sys; print('flaky' in sys.modules)") == "True\n";
        assert!(is_warm());

        fs::write(&broken, "").expect("a file");
        let zygote = prints("'flaky'; import os; print(os.getppid())");
        let zygote = Pid::from_raw(zygote.trim().parse().expect("a number")).expect("a process");
        rustix::process::kill_process(zygote, Signal::KILL).expect("ours");
        assert!(!is_warm(), "the bare kind has taken its work");
        fs::remove_file(&broken).expect("ours");
        let deadline = Instant::now() + Duration::from_secs(20);
        while !is_warm() {
            assert!(Instant::now() < deadline, "given up for good");
            std::thread::sleep(Duration::from_millis(20));
        }
        fs::remove_dir_all(folder).expect("ours");
    }
}

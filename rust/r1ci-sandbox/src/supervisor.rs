//! The supervisor's loop: one thread, one `epoll`, any number of executions and zygotes.
//!
//! It sleeps until a caller brings work, a zygote reports, a script writes, or a limit is due.
//! Work is admitted while fewer scripts compute than there are workers, and while the machine has
//! the memory; scripts that sleep give their place away. A zygote that dies is replaced while the
//! others go on; what it had not begun is run again, what had begun ends as a fault. One that is old
//! is replaced before it ends.

mod admission;
mod fleet;
mod session_ends;
mod session_records;
mod sessions;
mod succession;

use std::collections::HashMap;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{Timespec, epoll};

use crate::aftermath::{Aftermath, Fetch};
use crate::cgroup::{Group, Groups};
use crate::error::SandboxError;
use crate::kinds::{self, Kind};
use crate::policy::{Layer, Limits, Request, SandboxConfig};
use crate::pool::{Job, Shared};
use crate::report::{Ending, Execution, ExitReason, Stop};
use crate::running::{Running, Scratch};
use crate::scratch;
use crate::usage;
use crate::wire::{self, Reply};
use crate::zygote::{Arrangement, Slot};

use fleet::{Attempt, Fleet, State, Waiting};
use session_records::{End, Sessions};

/// How old a look at the machine's memory may be.
const MEMORY_LOOK: Duration = Duration::from_millis(50);
/// Tries of a script that never began.
const MOST_TRIES: u32 = 5;
/// How long to wait when the machine is out of something, and how often when nothing runs here that
/// could give it back.
const SHORT_PAUSE: Duration = Duration::from_millis(20);
const MOST_PUT_OFF: u32 = 500;
/// Starts of one kind that may fail in a row.
const MOST_FAILURES: u32 = 3;
/// Read at most this much of a stream before going round again.
const CHUNK: usize = 64 << 10;

/// What [`Sandbox::layers`](crate::Sandbox::layers) and its like report.
#[derive(Debug, Clone, Default)]
pub(crate) struct Facts {
    pub layers: Vec<Layer>,
    pub missing: Vec<(Layer, String)>,
    pub python: String,
}

/// The loop's state.
pub(crate) struct Supervisor {
    config: SandboxConfig,
    shared: Arc<Shared>,
    epoll: std::os::fd::OwnedFd,
    arrangement: Arrangement,
    kinds: Vec<Kind>,
    fleets: Vec<Fleet>,
    running: HashMap<u64, (Running, Job)>,
    sessions: Sessions,
    groups: Option<Groups>,
    aftermath: Aftermath,
    /// Nothing is begun before that.
    short_until: Instant,
    /// What was tried at the start and did not work.
    failed: Vec<(Attempt, String)>,
    next_number: u64,
    buffer: Vec<u8>,
    memory: (Instant, u64),
    /// What this sandbox reports of itself.
    pub facts: Facts,
}

/// What an event is about, packed into the word that `epoll` keeps.
#[derive(Debug, PartialEq, Eq)]
enum Topic {
    Calls,
    Fleet(usize),
    Stream(u64, usize),
    Keeper(u64),
    State(u64),
    Successor(usize),
}

impl Topic {
    fn pack(&self) -> u64 {
        match self {
            Self::Calls => 0,
            Self::Fleet(place) => 1 | (*place as u64) << 3,
            Self::Stream(number, stream) => 2 | *stream as u64 | number << 3,
            Self::Keeper(session) => 4 | session << 3,
            Self::State(state) => 5 | state << 3,
            Self::Successor(place) => 6 | (*place as u64) << 3,
        }
    }

    fn unpack(word: u64) -> Self {
        let number = word >> 3;
        match word & 7 {
            0 => Self::Calls,
            1 => Self::Fleet(number as usize),
            4 => Self::Keeper(number),
            5 => Self::State(number),
            6 => Self::Successor(number as usize),
            stream => Self::Stream(number, (stream & 1) as usize),
        }
    }
}

impl Supervisor {
    /// Bring up the first interpreter, at the strongest level that works.
    pub fn start(config: &SandboxConfig, shared: Arc<Shared>) -> Result<Self, SandboxError> {
        scratch::sweep(&std::env::temp_dir());
        let kinds = kinds::kinds(&config.preload);
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)
            .map_err(SandboxError::system("make an event queue"))?;
        let watch = epoll::add(
            &epoll,
            shared.bell().ok_or(SandboxError::Closed)?,
            epoll::EventData::new_u64(Topic::Calls.pack()),
            epoll::EventFlags::IN,
        );
        watch.map_err(SandboxError::system("watch for calls"))?;
        let mut supervisor = Self {
            fleets: (0..kinds.len()).map(Fleet::new).collect(),
            kinds,
            config: config.clone(),
            aftermath: Aftermath::new(&shared),
            shared,
            epoll,
            arrangement: Arrangement {
                namespaces: false,
                own_namespaces: false,
                private_uid: None,
            },
            running: HashMap::new(),
            sessions: Sessions::default(),
            groups: None,
            short_until: Instant::now(),
            failed: Vec::new(),
            next_number: 1,
            buffer: vec![0; CHUNK],
            memory: (Instant::now(), usage::available_memory()),
            facts: Facts::default(),
        };
        // The caller's own modules are tried first: an error in them is the caller's to hear.
        let first = if config.preload.is_empty() {
            0
        } else {
            supervisor.kinds.len() - 1
        };
        let mut reason = String::new();
        if config.wants(Layer::Cgroup) {
            match Groups::find() {
                Ok(groups) => supervisor.groups = Some(groups),
                Err(error) => supervisor.failed.push((Attempt::Groups, error)),
            }
        }
        for arrangement in Arrangement::all(config) {
            supervisor.arrangement = arrangement;
            match supervisor.bring_up(first) {
                Ok(()) => return supervisor.hold_to_required(),
                Err(error) => reason = error,
            }
            let attempt = (Attempt::Zygote(arrangement), reason.clone());
            supervisor.failed.push(attempt);
        }
        Err(SandboxError::Start {
            python: config.python.display().to_string(),
            reason,
        })
    }

    /// Serve until the sandbox is closed.
    pub fn run(mut self) {
        loop {
            if self.shared.is_closing() {
                self.end_all_sessions();
                for (running, _) in self.running.values_mut() {
                    running.stop(Stop::Closing);
                }
                if self.running.is_empty() {
                    break;
                }
            } else {
                self.take_calls();
                self.dispatch();
            }
            if let Err(error) = self.turn() {
                self.give_up(&format!("the supervisor cannot wait: {error}"));
                break;
            }
        }
        let queues = self.fleets.iter_mut().map(|fleet| &mut fleet.waiting);
        for waiting in queues
            .chain([&mut self.sessions.waiting])
            .flat_map(|queue| queue.drain(..))
        {
            waiting.job.answer(closed(&self.facts.layers), &self.shared);
        }
    }

    fn give_up(&mut self, reason: &str) {
        let running = std::mem::take(&mut self.running);
        for (_, (_, job)) in running {
            self.answer_fault(job, reason.to_owned());
        }
    }

    fn answer_fault(&self, job: Job, reason: String) {
        let layers = self.facts.layers.clone();
        let execution = Execution::not_run(ExitReason::Infrastructure, layers, reason);
        job.answer(execution, &self.shared);
    }

    /// Hand one script to its zygote, which is ready.
    fn begin(&mut self, place: usize, job: Job) {
        let number = self.next_number;
        self.next_number += 1;
        let scratch = self.scratch();
        let State::Ready(zygote) = &mut self.fleets[place].state else {
            return self.answer_fault(job, "the interpreter is not ready".into());
        };
        let limits = job.request.limits.unwrap_or(self.config.limits);
        let facts = (place, scratch);
        let grouped = limits.processes > 0 || self.config.required.contains(&Layer::Cgroup);
        let mut group = match self.groups.as_mut().filter(|_| grouped) {
            Some(groups) => {
                let bytes = limits
                    .memory_bytes
                    .saturating_add(self.config.scratch_bytes);
                match groups.lend(bytes, limits.threads + limits.processes) {
                    Ok(group) => Some(group),
                    Err(error) if is_short(&error) => {
                        return self.put_off(Some(place), job, &error);
                    }
                    Err(error) => return self.answer_fault(job, format!("control group: {error}")),
                }
            }
            None => None,
        };
        match Running::start(number, &job.request, limits, zygote, &mut group, facts) {
            Ok(running) => {
                self.watch_streams(number, &running);
                self.running.insert(number, (running, job));
                self.count_service(place);
            }
            // Nothing was handed over.
            Err(error) => {
                self.take_back_group(group);
                if is_short(&error) {
                    self.put_off(Some(place), job, &error);
                } else {
                    self.again(place, job, &error.to_string());
                    self.lose(place, &error.to_string());
                }
            }
        }
    }

    /// The machine, or this process, is out of something that others will give back: wait for that.
    fn put_off(&mut self, place: Option<usize>, mut job: Job, error: &io::Error) {
        job.put_off += 1;
        if self.running.is_empty() && job.put_off > MOST_PUT_OFF || job.is_trial() {
            return self.answer_fault(job, format!("the sandbox cannot begin a script: {error}"));
        }
        self.short_until = Instant::now() + SHORT_PAUSE;
        self.queue(place).push_front(Waiting { number: 0, job });
    }

    /// What each work folder may hold.
    pub(super) fn scratch(&self) -> Scratch {
        Scratch {
            bytes: self.config.scratch_bytes,
            files: self.config.scratch_files,
        }
    }

    fn watch_streams(&self, number: u64, running: &Running) {
        for (stream, output) in running.streams.iter().enumerate() {
            let topic = Topic::Stream(number, stream);
            // Without it the stream is read at the end, up to what a pipe holds.
            let _ = watch(&self.epoll, output.pipe.as_fd(), &topic);
        }
    }

    /// Wait for the next event or deadline and deal with all that is due.
    fn turn(&mut self) -> io::Result<()> {
        let mut space = [MaybeUninit::uninit(); 64];
        let pause = self.pause();
        let events = match epoll::wait(&self.epoll, &mut space, pause.as_ref()) {
            Ok((events, _)) => &*events,
            Err(rustix::io::Errno::INTR) => &[],
            Err(error) => return Err(error.into()),
        };
        for event in events {
            match Topic::unpack(event.data.u64()) {
                Topic::Calls => {
                    self.shared.hush();
                    self.take_emptied();
                }
                Topic::Fleet(place) => self.hear(place),
                Topic::Stream(number, stream) => self.read(number, stream),
                Topic::Keeper(session) => self.hear_keeper(session),
                Topic::State(state) => self.hear_state(state),
                Topic::Successor(place) => self.hear_successor(place),
            }
        }
        let now = Instant::now();
        let due: Vec<u64> = self
            .running
            .iter()
            .filter_map(|(number, (running, _))| (running.deadline() <= now).then_some(*number))
            .collect();
        for number in due {
            let Some((running, job)) = self.running.get_mut(&number) else {
                continue;
            };
            let (checked, place) = (running.check(now), running.kind);
            let session = job.turn.and_then(|turn| self.session_of(turn));
            match (checked, session) {
                (Err(reason), Some(session)) => self.end_session(session, End::Fault(reason)),
                (Err(reason), None) => self.lose(place, reason),
                (Ok(()), Some(session)) => {
                    self.look_for_strangers(session);
                    self.weigh_folder(session);
                }
                (Ok(()), None) => {}
            }
        }
        self.look_after_sessions(now);
        self.check_starts(now);
        self.let_go();
        Ok(())
    }

    /// How long nothing can be due.
    fn pause(&self) -> Option<Timespec> {
        let checks = self.running.values().map(|(running, _)| running.deadline());
        let starts = self.fleets.iter().flat_map(Fleet::deadlines);
        let mut next = checks
            .chain(starts)
            .chain(self.next_look_at_sessions())
            .min();
        // Work that waits for memory is looked at again when that may have changed.
        let mut queues = self.fleets.iter().map(|fleet| &fleet.waiting);
        let waits = !self.sessions.waiting.is_empty() || queues.any(|queue| !queue.is_empty());
        if waits && !self.running.is_empty() {
            let look = Instant::now() + MEMORY_LOOK;
            next = Some(next.map_or(look, |next| next.min(look)));
        }
        // Work that was put off is tried again, whether or not anything runs.
        if waits && self.short_until > Instant::now() {
            next = Some(next.map_or(self.short_until, |next| next.min(self.short_until)));
        }
        next.map(|next| {
            let pause = next.saturating_duration_since(Instant::now());
            Timespec::try_from(pause).unwrap_or(Timespec {
                tv_sec: 1,
                tv_nsec: 0,
            })
        })
    }

    /// A zygote, or one that is starting, has something to say.
    fn hear(&mut self, place: usize) {
        match &mut self.fleets[place].state {
            State::Starting(starting) => match starting.ready(&self.config) {
                Ok(None) => {}
                Ok(Some(zygote)) => {
                    let _ = epoll::delete(&self.epoll, &starting.control);
                    self.fleets[place].failures = 0;
                    if self.install(place, zygote).is_err() {
                        self.start_failed(place, "it cannot be watched");
                    }
                }
                Err(reason) => {
                    let _ = epoll::delete(&self.epoll, &starting.control);
                    self.start_failed(place, &reason);
                }
            },
            State::Ready(zygote) => match wire::receive_reply(&zygote.control) {
                Ok(Reply::Nothing) => {}
                Ok(Reply::Forked(number, pid, handle)) => {
                    if let Some((running, _)) = self.running.get_mut(&number) {
                        running.forked(pid, handle);
                    } else {
                        self.keeper_forked(number, pid, handle);
                    }
                }
                Ok(Reply::Exited(number, ending)) => self.conclude(number, &ending),
                Ok(Reply::Gone) => self.lose(place, "the interpreter died"),
                Err(error) => self.lose(place, &error.to_string()),
            },
            State::Cold | State::Useless(_) => {}
        }
    }

    fn read(&mut self, number: u64, stream: usize) {
        if let Some((running, _)) = self.running.get_mut(&number) {
            running.read(stream, &mut self.buffer);
            if !running.streams[stream].open {
                let _ = epoll::delete(&self.epoll, &running.streams[stream].pipe);
            }
        }
    }

    /// Take an execution off the books.
    fn take(&mut self, number: u64) -> Option<(Running, Job)> {
        let (running, job) = self.running.remove(&number)?;
        for stream in running.streams.iter().filter(|stream| stream.open) {
            let _ = epoll::delete(&self.epoll, &stream.pipe);
        }
        Some((running, job))
    }

    fn conclude(&mut self, number: u64, ending: &Ending) {
        let Some((mut running, job)) = self.take(number) else {
            return self.keeper_exited(number);
        };
        let concluded = running.conclude(ending, &mut self.buffer);
        let fetch = running.take_fetch();
        let (place, mut slot, group) = (running.kind, running.slot.take(), running.group.take());
        drop(running);
        match concluded {
            Ok(execution) => match fetch {
                Some((folder, paths, most_bytes)) => self.aftermath.fetch(Fetch {
                    folder,
                    paths,
                    most_bytes,
                    execution,
                    job,
                    slot: self.of_zygote(place, slot.take()),
                }),
                None => job.answer(execution, &self.shared),
            },
            Err(reason) => self.again(place, job, &reason),
        }
        self.clear(place, slot);
        self.take_back_group(group);
    }

    fn take_back_group(&mut self, group: Option<Group>) {
        if let (Some(group), Some(groups)) = (group, &mut self.groups) {
            groups.take_back(group);
        }
    }

    /// The group of what a dead zygote has left: some of it may be alive, or on its way in.
    fn retire_group(&mut self, group: Option<Group>) {
        if let (Some(group), Some(groups)) = (group, &mut self.groups) {
            groups.retire(group);
        }
    }

    /// A lent folder with its zygote's number; none if that zygote is gone, and its folders with it.
    fn of_zygote(&self, place: usize, slot: Option<Slot>) -> Option<(u64, Slot)> {
        match &self.fleets[place].state {
            State::Ready(zygote) => Some((zygote.serial, slot?)),
            _ => None,
        }
    }

    /// Have a lent folder emptied, to be lent again.
    fn clear(&mut self, place: usize, slot: Option<Slot>) {
        let Some((serial, slot)) = self.of_zygote(place, slot) else {
            return;
        };
        match &mut self.fleets[place].state {
            State::Ready(zygote) if scratch::is_empty(slot.folder.as_fd()) => {
                zygote.take_back(slot);
            }
            _ => self.aftermath.empty(serial, slot),
        }
    }

    /// Folders that have been emptied go back to their zygotes.
    fn take_emptied(&mut self) {
        for (serial, slot) in self.aftermath.emptied() {
            let zygotes = self
                .fleets
                .iter_mut()
                .filter_map(|fleet| match &mut fleet.state {
                    State::Ready(zygote) => Some(zygote),
                    _ => None,
                });
            let owner = zygotes.into_iter().find(|zygote| zygote.serial == serial);
            if let (Some(zygote), Some(slot)) = (owner, slot) {
                zygote.take_back(slot);
            }
        }
    }

    /// A script that had not begun is tried again.
    fn again(&mut self, place: usize, mut job: Job, reason: &str) {
        if job.given_up {
            let layers = self.facts.layers.clone();
            let execution = Execution::not_run(ExitReason::Cancelled, layers, String::new());
            job.answer(execution, &self.shared);
        } else if job.tries < MOST_TRIES && !self.shared.is_closing() && !job.is_trial() {
            job.tries += 1;
            let home = self.fleets[place].home;
            self.queue(Some(home))
                .push_front(Waiting { number: 0, job });
        } else {
            self.answer_fault(job, reason.to_owned());
        }
    }
}

/// Whether the kernel was out of something: descriptors, memory, room for descriptors on their way.
fn is_short(error: &io::Error) -> bool {
    let numbers = [
        libc::EMFILE,
        libc::ENFILE,
        libc::ENOMEM,
        libc::ENOBUFS,
        libc::EAGAIN,
        libc::ETOOMANYREFS,
    ];
    error
        .raw_os_error()
        .is_some_and(|number| numbers.contains(&number))
}

fn watch(epoll: &std::os::fd::OwnedFd, handle: BorrowedFd<'_>, topic: &Topic) -> io::Result<()> {
    let data = epoll::EventData::new_u64(topic.pack());
    Ok(epoll::add(epoll, handle, data, epoll::EventFlags::IN)?)
}

/// The answer to what was queued when the sandbox was closed.
pub(crate) fn closed(layers: &[Layer]) -> Execution {
    let detail = "the sandbox was closed".to_owned();
    Execution::not_run(ExitReason::Infrastructure, layers.to_vec(), detail)
}

/// A request for [`Job::trial`]; the caller's own limits may be too narrow for anything.
pub(crate) fn empty_script() -> Request {
    let mut request = Request::new("");
    request.limits = Some(Limits::default());
    request
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_survive_packing() {
        for topic in [
            Topic::Calls,
            Topic::Fleet(0),
            Topic::Fleet(3),
            Topic::Stream(1, 0),
            Topic::Stream(1 << 40, 1),
            Topic::Keeper(7),
            Topic::State(1 << 40),
            Topic::Successor(2),
        ] {
            assert_eq!(Topic::unpack(topic.pack()), topic);
        }
    }
}

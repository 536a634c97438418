//! Sessions: their keepers, their states, and the turns between them.
//!
//! States have run scripts and are hostile. What one says is read strictly, comes with the number of
//! its sender by the kernel's word, and can end its own session and nothing else. Only processes that
//! are known may live in a session: whoever has others when a turn ends loses the session.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::epoll;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair, sockopt};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::cgroup::Group;
use crate::policy::{Layer, Limits};
use crate::pool::{Job, Turn};
use crate::report::{Ending, ExitReason, LastWords, Stop};
use crate::running::{self, Running};
use crate::usage;
use crate::wire::{self, MOST_STATES, Order, Reply, Word, flag};
use crate::zygote::Slot;

use super::{State as FleetState, Supervisor, Topic, Waiting, watch};

/// All sessions of a sandbox.
#[derive(Default)]
pub(super) struct Sessions {
    all: HashMap<u64, Session>,
    states: HashMap<u64, State>,
    /// Why states that somebody may still hold on to are gone.
    gone: HashMap<u64, String>,
    /// Turns whose states have a process.
    pub waiting: VecDeque<Waiting>,
}

/// A tree of states with one keeper.
struct Session {
    /// Place of its zygote among the kinds.
    place: usize,
    limits: Limits,
    /// Reports the ends of processes.
    keeper_socket: OwnedFd,
    /// The keeper's number and handle, once it is there.
    keeper: Option<(i32, OwnedFd)>,
    /// Says whether the jail is up; gives the work folder.
    status: OwnedFd,
    folder: Option<OwnedFd>,
    slot: Option<Slot>,
    group: Option<Group>,
    last_used: Instant,
    /// It has been killed and waits for its keeper's end.
    ending: bool,
}

/// A process of a session.
struct State {
    session: u64,
    socket: OwnedFd,
    phase: Phase,
    process: Option<Process>,
    /// Turns that it has been told to fork and that have not begun.
    forking: usize,
    stands_still: bool,
    forgotten: bool,
    /// Memory that it shared with the state before it when it began.
    inherited_bytes: u64,
    /// Memory that is its own.
    bytes: u64,
    /// Memory of states before it that are gone, which it shares with others after them.
    left_bytes: u64,
    /// The state before it, or the nearest one that is still there.
    parent: Option<u64>,
}

/// A process that has said that it is there.
struct Process {
    /// Its number for us.
    pid: i32,
    /// Its number in its session's namespace, by which the keeper knows it.
    inner: i32,
    /// None if it had ended before we could get one.
    handle: Option<OwnedFd>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// It runs the turn of this execution.
    Turn(u64),
    /// It waits to be forked.
    Idle,
    /// It has been killed.
    Dying,
}

const BROKE_RULES: &str = "the session has ended: a turn did what only the sandbox does";
const LEFT_PROCESSES: &str = "the session has ended: a turn made processes";
const NO_LISTING: &str = "sessions need a kernel that lists a process's children";

impl Supervisor {
    /// Take a turn in: it waits for its state, or for an interpreter if it is a session's first.
    pub(super) fn take_turn(&mut self, number: u64, turn: Turn, job: Job) {
        if self.sessions.states.contains_key(&turn.from) {
            self.sessions.waiting.push_back(Waiting { number, job });
        } else if let Some(reason) = self.sessions.gone.get(&turn.from) {
            self.refuse(job, reason.clone());
        } else if turn.fresh {
            self.wait_for_zygote(number, job);
        } else {
            self.refuse(job, "the session's state is gone".into());
        }
    }

    /// Hand a turn over; a session that has no process yet is opened in the zygote of that place.
    pub(super) fn begin_turn(&mut self, place: Option<usize>, turn: Turn, job: Job) {
        if !self.sessions.states.contains_key(&turn.from) {
            let Some(place) = place.filter(|_| turn.fresh) else {
                return self.refuse(job, "the session's state is gone".into());
            };
            let limits = job.request.limits.unwrap_or(self.config.limits);
            let living = self.sessions.all.values().filter(|session| !session.ending);
            if living.count() >= self.config.sessions {
                let most = self.config.sessions;
                return self.refuse(job, format!("{most} sessions are open already"));
            }
            if usage::children(std::process::id() as i32).is_none() {
                return self.refuse(job, NO_LISTING.into());
            }
            if let Err(reason) = self.open_session(place, turn.from, limits) {
                return self.answer_fault(job, reason);
            }
        }
        match self.fork_turn(turn, &job) {
            Ok((number, running)) => {
                self.watch_streams(number, &running);
                self.running.insert(number, (running, job));
            }
            Err(Failure::Refused(reason)) => self.refuse(job, reason),
            Err(Failure::Fault(reason)) => self.answer_fault(job, reason),
        }
    }

    fn open_session(&mut self, place: usize, from: u64, limits: Limits) -> Result<(), String> {
        let failed = |error: io::Error| error.to_string();
        let FleetState::Ready(zygote) = &mut self.fleets[place].state else {
            return Err("the interpreter is not ready".into());
        };
        let session = self.next_number;
        self.next_number += 1;
        let slot = zygote.lend_slot().map_err(|error| error.to_string())?;
        let (status, status_theirs) = socket().map_err(failed)?;
        let (keeper, keeper_theirs) = socket().map_err(failed)?;
        let (ours, theirs) = socket().map_err(failed)?;
        sockopt::set_socket_passcred(&ours, true).map_err(|error| error.to_string())?;
        let mut order = Order {
            execution: session,
            flags: flag::OPENS_SESSION,
            ..Order::default()
        };
        if self.arrangement.own_namespaces {
            order.flags |= flag::OWN_PROCESSES | flag::WANTS_FOLDER;
        }
        let group = match &mut self.groups {
            Some(groups) => {
                let bytes = self
                    .config
                    .session_bytes
                    .saturating_add(self.config.scratch_bytes);
                Some(
                    groups
                        .lend(bytes, limits.threads + MOST_STATES + 2)
                        .map_err(failed)?,
                )
            }
            None => None,
        };
        let handles = [&status_theirs, &keeper_theirs, &theirs].map(AsFd::as_fd);
        zygote
            .send(
                &mut order,
                &limits,
                &handles,
                (slot.as_ref(), group.as_ref()),
            )
            .map_err(failed)?;
        watch(&self.epoll, keeper.as_fd(), &Topic::Keeper(session)).map_err(failed)?;
        watch(&self.epoll, ours.as_fd(), &Topic::State(from)).map_err(failed)?;
        let folder = slot.as_ref().map(|slot| slot.folder.try_clone());
        self.sessions.all.insert(
            session,
            Session {
                place,
                limits,
                keeper_socket: keeper,
                keeper: None,
                status,
                folder: folder.transpose().map_err(failed)?,
                slot,
                group,
                last_used: Instant::now(),
                ending: false,
            },
        );
        let first = State::new(session, ours, Phase::Idle, None);
        self.sessions.states.insert(from, first);
        Ok(())
    }

    /// Tell the state to fork.
    fn fork_turn(&mut self, turn: Turn, job: &Job) -> Result<(u64, Running), Failure> {
        let failed = |error: io::Error| Failure::Fault(error.to_string());
        let Some(state) = self.sessions.states.get(&turn.from) else {
            return Err(Failure::Refused("the session's state is gone".into()));
        };
        let number = state.session;
        let states = self.sessions.states.values();
        let Some(session) = self.sessions.all.get_mut(&number).filter(|s| !s.ending) else {
            return Err(Failure::Refused("the session has ended".into()));
        };
        if states.filter(|state| state.session == number).count() as u64 >= MOST_STATES {
            let reason = format!("the session has {MOST_STATES} states already");
            return Err(Failure::Refused(reason));
        }
        let FleetState::Ready(zygote) = &self.fleets[session.place].state else {
            return Err(Failure::Fault("the interpreter is not ready".into()));
        };
        let (ours, theirs) = socket().map_err(failed)?;
        let passed = sockopt::set_socket_passcred(&ours, true);
        passed.map_err(|error| failed(error.into()))?;
        watch(&self.epoll, ours.as_fd(), &Topic::State(turn.to)).map_err(failed)?;
        let handover = running::Turn {
            socket: &state.socket,
            theirs: &theirs,
            seeds: turn.fresh,
        };
        let facts = (session.place, self.config.scratch_bytes);
        let running = Running::start_turn(&job.request, session.limits, zygote, facts, &handover)
            .map_err(failed)?;
        session.last_used = Instant::now();
        let execution = self.next_number;
        self.next_number += 1;
        let made = State::new(number, ours, Phase::Turn(execution), Some(turn.from));
        self.sessions.states.insert(turn.to, made);
        if let Some(state) = self.sessions.states.get_mut(&turn.from) {
            state.forking += 1;
            state.go_on();
        }
        Ok((execution, running))
    }

    /// A state has something to say.
    pub(super) fn hear_state(&mut self, id: u64) {
        let Some(state) = self.sessions.states.get(&id) else {
            return;
        };
        let mut buffer = [0; 64];
        let Ok(message) = wire::receive(&state.socket, &mut buffer) else {
            return self.close_socket(id);
        };
        let Some(message) = message else {
            return;
        };
        if message.size == 0 {
            // Its process ends, which its keeper will report, or goes on without us.
            return self.close_socket(id);
        }
        let known = state.process.as_ref().map(|process| process.pid);
        let word = wire::parse_word(&buffer[..message.size]);
        match (word, message.sender, known) {
            (Some(Word::Begun(inner)), Some(sender), None) => {
                self.state_began(id, sender, inner);
            }
            (Some(Word::Done(status, last_words)), Some(sender), Some(pid)) if sender == pid => {
                self.turn_done(id, pid, status, last_words);
            }
            _ => {
                let session = state.session;
                self.end_session(session, BROKE_RULES, Some(id));
            }
        }
    }

    fn close_socket(&mut self, id: u64) {
        if let Some(state) = self.sessions.states.get(&id) {
            let _ = epoll::delete(&self.epoll, &state.socket);
        }
    }

    /// A state's process is there. While it lives, the kernel says who it is; what it claims itself
    /// counts only if it has ended since, and names none of the others.
    fn state_began(&mut self, id: u64, pid: i32, claimed: i32) {
        let Some(state) = self.sessions.states.get(&id) else {
            return;
        };
        let (number, phase) = (state.session, state.phase);
        let handle = Pid::from_raw(pid).map(|pid| pidfd_open(pid, PidfdFlags::empty()));
        let handle = handle.and_then(Result::ok);
        let ancestry = handle.as_ref().and_then(|_| usage::ancestry(pid));
        let keeper = self.sessions.all.get(&number).and_then(|session| {
            let keeper = session.keeper.as_ref();
            keeper.map(|(pid, _)| *pid)
        });
        let (inner, of_keeper) = match ancestry {
            Some((parent, inner)) => (inner, keeper == Some(parent)),
            None => (claimed, true),
        };
        let mut others = self
            .sessions
            .states
            .values()
            .filter(|s| s.session == number);
        let taken = |process: &Process| process.pid == pid || process.inner == inner;
        if !of_keeper || others.any(|state| state.process.as_ref().is_some_and(taken)) {
            return self.end_session(number, BROKE_RULES, Some(id));
        }
        let copy = handle.as_ref().and_then(|handle| handle.try_clone().ok());
        if let Some(state) = self.sessions.states.get_mut(&id) {
            state.inherited_bytes = usage::anonymous_memory(pid);
            state.process = Some(Process { pid, inner, handle });
        }
        if let Phase::Turn(execution) = phase {
            let folder = self.session_folder(number);
            if let Some((running, job)) = self.running.get_mut(&execution) {
                running.turn_began(folder, copy.map(|handle| (pid, handle)));
                if let Some(turn) = job.turn
                    && let Some(from) = self.sessions.states.get_mut(&turn.from)
                {
                    from.forking = from.forking.saturating_sub(1);
                }
            }
        }
        self.rest(number);
    }

    /// A copy of the handle on a session's work folder, which came when its jail was up.
    fn session_folder(&mut self, number: u64) -> Option<OwnedFd> {
        let session = self.sessions.all.get_mut(&number)?;
        if session.folder.is_none() {
            let mut note = [0; 64];
            let message = wire::receive(&session.status, &mut note).ok().flatten()?;
            session.folder = message.handle;
        }
        session.folder.as_ref()?.try_clone().ok()
    }

    /// A turn says that it has ended. That it says so is all that is believed.
    fn turn_done(&mut self, id: u64, pid: i32, status: u8, last_words: LastWords) {
        let Some(state) = self.sessions.states.get_mut(&id) else {
            return;
        };
        let (Phase::Turn(execution), number) = (state.phase, state.session) else {
            let number = state.session;
            return self.end_session(number, BROKE_RULES, Some(id));
        };
        let ending = Ending {
            status: i32::from(status) << 8,
            cpu: usage::cpu_time(pid).unwrap_or_default(),
            peak_rss_bytes: usage::peak_memory(pid),
            last_words,
        };
        if self
            .running
            .get(&execution)
            .is_none_or(|(running, _)| running.is_stopping())
        {
            return; // its death is on the way, and that is the verdict
        }
        state.stand_still();
        // New memory shows in what it has, memory that it copied in its faults.
        let more = usage::anonymous_memory(pid).saturating_sub(state.inherited_bytes);
        state.bytes = more.max(usage::touched_memory(pid));
        let all = self.sessions.states.values();
        let own = all.filter(|state| state.session == number);
        let held: u64 = own.map(|state| state.bytes + state.left_bytes).sum();
        if held > self.config.session_bytes {
            if let Some((running, _)) = self.running.get_mut(&execution) {
                // Its process is killed, and the keeper's report of that concludes the turn.
                running.stop(Stop::Memory);
            }
            return;
        }
        if self.strangers(number) {
            return self.end_session(number, LEFT_PROCESSES, None);
        }
        if let Some(state) = self.sessions.states.get_mut(&id) {
            state.phase = Phase::Idle;
        }
        self.conclude_turn(execution, &ending, true);
        self.rest(number);
    }

    /// Whether a session has processes that are none of its states.
    fn strangers(&self, number: u64) -> bool {
        let keeper = self
            .sessions
            .all
            .get(&number)
            .and_then(|s| s.keeper.as_ref());
        let Some((keeper, _)) = keeper else {
            return false;
        };
        let Some(children) = usage::children(*keeper) else {
            return true;
        };
        let own = || {
            self.sessions
                .states
                .values()
                .filter(|s| s.session == number)
        };
        let known = |pid: &i32| own().any(|s| s.process.as_ref().is_some_and(|p| p.pid == *pid));
        let unknown = children.iter().filter(|pid| !known(pid)).count();
        // Those that have not said that they are there.
        let awaited = own().filter(|state| state.process.is_none()).count();
        unknown > awaited
    }

    fn conclude_turn(&mut self, execution: u64, ending: &Ending, kept: bool) {
        let Some((mut running, job)) = self.take(execution) else {
            return;
        };
        let grouped = self.groups.is_some();
        match running.conclude(ending, &mut self.buffer) {
            Ok(mut result) => {
                if grouped {
                    result.layers.push(Layer::Cgroup);
                }
                result.kept = kept;
                job.answer(result, &self.shared);
            }
            Err(reason) => self.answer_fault(job, reason),
        }
    }

    /// A keeper reports that a process has ended.
    pub(super) fn hear_keeper(&mut self, number: u64) {
        let Some(session) = self.sessions.all.get(&number) else {
            return;
        };
        match wire::receive_reply(&session.keeper_socket) {
            Ok(Reply::Nothing) => {}
            Ok(Reply::Exited(inner, ending)) => self.process_ended(number, inner as i32, &ending),
            _ => {
                let _ = epoll::delete(&self.epoll, &session.keeper_socket);
            }
        }
    }

    fn process_ended(&mut self, number: u64, inner: i32, ending: &Ending) {
        let find = |states: &HashMap<u64, State>| {
            let mut own = states.iter().filter(|(_, state)| state.session == number);
            let is = |state: &State| state.process.as_ref().is_some_and(|p| p.inner == inner);
            own.find(|(_, state)| is(state)).map(|(id, _)| *id)
        };
        if find(&self.sessions.states).is_none() {
            // It may have said who it is, and we have not listened yet.
            let awaited = self.sessions.states.iter();
            let awaited: Vec<u64> = awaited
                .filter_map(|(id, state)| state.process.is_none().then_some(*id))
                .collect();
            for id in awaited {
                self.hear_state(id);
            }
        }
        let Some(id) = find(&self.sessions.states) else {
            return self.end_session(number, "the session has ended: a process of it died", None);
        };
        let Some(state) = self.sessions.remove(id) else {
            return;
        };
        let _ = epoll::delete(&self.epoll, &state.socket);
        match state.phase {
            Phase::Turn(execution) => self.conclude_turn(execution, ending, false),
            Phase::Idle => {
                let reason = "the session's state is gone: its process died".to_owned();
                self.sessions.gone.insert(id, reason);
            }
            Phase::Dying => {}
        }
        self.look_for_strangers(number);
    }

    /// Nobody holds on to these states any more.
    pub(super) fn forget(&mut self, states: Vec<u64>) {
        for id in states {
            self.sessions.gone.remove(&id);
            if let Some(state) = self.sessions.states.get_mut(&id) {
                state.forgotten = true;
                let number = state.session;
                self.rest(number);
            }
        }
    }

    /// Stop the states of a session that wait, kill those that nobody wants, end it with the last.
    fn rest(&mut self, number: u64) {
        let queued = |id: &u64| {
            let mut waiting = self.sessions.waiting.iter();
            waiting.any(|w| w.job.turn.is_some_and(|turn| turn.from == *id))
        };
        let wanted: Vec<u64> = self
            .sessions
            .states
            .keys()
            .copied()
            .filter(queued)
            .collect();
        let mut lives = false;
        for (id, state) in &mut self.sessions.states {
            if state.session != number {
                continue;
            }
            let at_rest = state.phase == Phase::Idle && state.forking == 0;
            if at_rest && state.forgotten && state.process.is_some() && !wanted.contains(id) {
                state.kill();
            } else if at_rest {
                state.stand_still();
            }
            lives |= state.phase != Phase::Dying;
        }
        if !lives {
            self.end_session(number, "the session has ended", None);
        }
    }

    /// Kill all of a session. Its turns end with it: as stopped for what they did if it is the fault
    /// of that state's turn, or of the only one; else the fault is not to be told and none is blamed.
    pub(super) fn end_session(&mut self, number: u64, reason: &str, culprit: Option<u64>) {
        let Some(session) = self.sessions.all.get_mut(&number) else {
            return;
        };
        session.ending = true;
        session.kill();
        let _ = epoll::delete(&self.epoll, &session.keeper_socket);
        let ids = self.sessions.states.iter();
        let ids: Vec<u64> = ids
            .filter_map(|(id, state)| (state.session == number).then_some(*id))
            .collect();
        let turns = self
            .sessions
            .states
            .values()
            .filter(|state| state.session == number && matches!(state.phase, Phase::Turn(_)));
        let alone = turns.count() == 1;
        for id in ids {
            let Some(state) = self.sessions.states.remove(&id) else {
                continue;
            };
            let _ = epoll::delete(&self.epoll, &state.socket);
            if !state.forgotten {
                self.sessions.gone.insert(id, reason.to_owned());
            }
            if let Phase::Turn(execution) = state.phase {
                self.sessions.gone.remove(&id);
                let blamed = match reason {
                    BROKE_RULES if culprit == Some(id) => ExitReason::Killed,
                    LEFT_PROCESSES if alone => ExitReason::PidsLimit,
                    _ => ExitReason::Infrastructure,
                };
                self.fail_turn(execution, blamed, reason);
            }
        }
        // Those that a state never forked.
        let waiting = std::mem::take(&mut self.sessions.waiting);
        for Waiting { number, job } in waiting {
            match job.turn {
                Some(turn) => self.take_turn(number, turn, job),
                None => self.refuse(job, reason.into()),
            }
        }
    }

    /// A turn ends with its session.
    fn fail_turn(&mut self, execution: u64, verdict: ExitReason, reason: &str) {
        let Some((mut running, job)) = self.take(execution) else {
            return;
        };
        running.stop(Stop::Closing);
        let ending = Ending {
            status: libc::SIGKILL,
            cpu: Duration::ZERO,
            peak_rss_bytes: 0,
            last_words: LastWords::None,
        };
        match running.conclude(&ending, &mut self.buffer) {
            Ok(mut result) => {
                result.exit_reason = verdict;
                reason.clone_into(&mut result.detail);
                job.answer(result, &self.shared);
            }
            Err(_) => self.answer_fault(job, reason.to_owned()),
        }
    }

    /// A keeper is there.
    pub(super) fn keeper_forked(&mut self, number: u64, pid: i32, handle: OwnedFd) {
        if let Some(session) = self.sessions.all.get_mut(&number) {
            session.keeper = Some((pid, handle));
            if session.ending {
                session.kill();
            }
        }
    }

    /// A keeper has ended, and with it its session.
    pub(super) fn keeper_exited(&mut self, number: u64) {
        let Some(session) = self.sessions.all.get(&number) else {
            return;
        };
        let mut note = [0; 64];
        let message = wire::receive(&session.status, &mut note).ok().flatten();
        let size = message.map_or(0, |message| message.size);
        let complaint = running::read_note(&note[..size]).err().filter(|_| size > 0);
        let reason = complaint.unwrap_or_else(|| "the session has ended: its keeper died".into());
        self.end_session(number, &reason, None);
        let Some(mut session) = self.sessions.all.remove(&number) else {
            return;
        };
        if let (Some(slot), FleetState::Ready(zygote)) =
            (session.slot.take(), &mut self.fleets[session.place].state)
        {
            zygote.take_back(slot);
        }
        if let (Some(group), Some(groups)) = (session.group.take(), &mut self.groups) {
            groups.take_back(group);
        }
    }

    /// The zygote of that place is gone, and with it the keepers of its sessions.
    pub(super) fn lose_sessions(&mut self, place: usize) {
        let lost = self.sessions.all.iter();
        let lost: Vec<u64> = lost
            .filter_map(|(number, session)| (session.place == place).then_some(*number))
            .collect();
        for number in lost {
            self.end_session(number, "the session has ended: its interpreter died", None);
            self.sessions.all.remove(&number);
        }
    }

    /// End sessions that nobody has used for long; when the next one is due.
    pub(super) fn end_idle_sessions(&mut self, now: Instant) {
        let limit = self.config.session_idle;
        let idle: Vec<u64> = self
            .sessions
            .all
            .iter()
            .filter(|(_, session)| !session.ending && now >= session.last_used + limit)
            .map(|(number, _)| *number)
            .filter(|number| {
                let mut own = self.sessions.states.values();
                !own.any(|s| s.session == *number && matches!(s.phase, Phase::Turn(_)))
            })
            .collect();
        for number in idle {
            self.end_session(
                number,
                "the session has ended: it was idle for too long",
                None,
            );
        }
    }

    /// When the next session may have been idle for too long.
    pub(super) fn next_idle(&self) -> Option<Instant> {
        let living = self.sessions.all.values().filter(|session| !session.ending);
        let limit = self.config.session_idle;
        living
            .filter_map(|session| session.last_used.checked_add(limit))
            .min()
    }

    /// The session of a turn under way.
    pub(super) fn session_of(&self, turn: Turn) -> Option<u64> {
        Some(self.sessions.states.get(&turn.to)?.session)
    }

    /// End a session that has processes of its own making.
    pub(super) fn look_for_strangers(&mut self, number: u64) {
        if self.strangers(number) {
            self.end_session(number, LEFT_PROCESSES, None);
        }
    }
}

impl Sessions {
    /// Take a state off the books. What it held lives on as long as others that came of it do.
    fn remove(&mut self, id: u64) -> Option<State> {
        let state = self.states.remove(&id)?;
        let (mut after, mut beside) = (None, None);
        for (other_id, other) in &mut self.states {
            if other.parent == Some(id) {
                other.parent = state.parent;
                after = Some(*other_id);
            } else if other.session == state.session && other.parent == state.parent {
                beside = Some(*other_id);
            }
        }
        let left = match after {
            Some(_) => state.left_bytes + state.bytes,
            None => state.left_bytes,
        };
        if let Some(heir) = after.or(beside).and_then(|heir| self.states.get_mut(&heir)) {
            heir.left_bytes += left;
        }
        Some(state)
    }
}

/// Why a turn was not handed over.
enum Failure {
    Refused(String),
    Fault(String),
}

impl State {
    fn new(session: u64, socket: OwnedFd, phase: Phase, parent: Option<u64>) -> Self {
        Self {
            session,
            socket,
            phase,
            process: None,
            forking: 0,
            stands_still: false,
            forgotten: false,
            inherited_bytes: 0,
            bytes: 0,
            left_bytes: 0,
            parent,
        }
    }

    fn handle(&self) -> Option<&OwnedFd> {
        self.process.as_ref()?.handle.as_ref()
    }

    /// No thread that a turn left behind computes while the state waits.
    fn stand_still(&mut self) {
        if let Some(handle) = self.handle().filter(|_| !self.stands_still) {
            self.stands_still = pidfd_send_signal(handle, Signal::STOP).is_ok();
        }
    }

    fn go_on(&mut self) {
        if let Some(handle) = self.handle().filter(|_| self.stands_still) {
            let _ = pidfd_send_signal(handle, Signal::CONT);
            self.stands_still = false;
        }
    }

    fn kill(&mut self) {
        if let Some(handle) = self.handle() {
            let _ = pidfd_send_signal(handle, Signal::KILL);
        }
        self.phase = Phase::Dying;
    }
}

impl Session {
    /// Kill all its processes at once: they are one process group, and one namespace if it has one.
    fn kill(&self) {
        if let Some((pid, handle)) = &self.keeper {
            // The keeper has not been waited for, so the number is still its own.
            if let Some(group) = Pid::from_raw(*pid) {
                let _ = rustix::process::kill_process_group(group, Signal::KILL);
            }
            let _ = pidfd_send_signal(handle, Signal::KILL);
        }
    }
}

fn socket() -> io::Result<(OwnedFd, OwnedFd)> {
    let kind = SocketType::SEQPACKET;
    let flags = SocketFlags::CLOEXEC;
    Ok(socketpair(AddressFamily::UNIX, kind, flags, None)?)
}

//! How processes of sessions end, and sessions with them: by themselves, unwanted, idle, or for what a
//! turn did.

use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::epoll;

use crate::pool::Turn;
use crate::report::{Ending, ExitReason, LastWords, Stop};
use crate::running::{self, REST_PER_WEIGHING, Scratch};
use crate::scratch;
use crate::usage;
use crate::wire::{self, Reply};

use super::session_records::{End, Phase, Session, State};
use super::{Supervisor, Topic, Waiting, watch};

/// How often the processes of a session are counted, turns or not: a listing can lack some while
/// others end.
pub(super) const COUNT_PAUSE: Duration = Duration::from_secs(1);

impl Supervisor {
    /// Whether a session has processes that are none of its states.
    pub(super) fn strangers(&self, number: u64) -> bool {
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

    pub(super) fn process_ended(&mut self, number: u64, inner: i32, ending: &Ending) {
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
            return self.unknown_ended(number);
        };
        let Some(state) = self.sessions.remove(id) else {
            return;
        };
        let _ = epoll::delete(&self.epoll, &state.socket);
        match state.phase {
            Phase::Turn(execution) => self.conclude_turn(execution, ending, false),
            Phase::Idle if state.forgotten => {}
            Phase::Idle => {
                let reason = "the session's state is gone: its process died".to_owned();
                self.sessions.gone.insert(id, (reason, true));
            }
            Phase::Dying => {}
        }
        if state.forking > 0 {
            self.fail_unborn(number, id);
        }
        self.look_for_strangers(number);
    }

    /// A state is gone that was to fork: its turns that have not begun never will.
    fn fail_unborn(&mut self, number: u64, from: u64) {
        let awaited = self.sessions.states.iter();
        let awaited = awaited.filter(|(_, s)| s.session == number && s.process.is_none());
        let awaited: Vec<u64> = awaited.map(|(id, _)| *id).collect();
        for id in awaited {
            self.hear_state(id); // it may have begun, unheard
            let Some(state) = self.sessions.states.get(&id) else {
                continue;
            };
            let (Phase::Turn(execution), None) = (state.phase, &state.process) else {
                continue;
            };
            let turn = self.running.get(&execution).and_then(|(_, job)| job.turn);
            if turn.is_some_and(|turn| turn.from == from) {
                if let Some(state) = self.sessions.remove(id) {
                    let _ = epoll::delete(&self.epoll, &state.socket);
                }
                self.fork_failed(execution, "the session's state died instead of going on");
            }
        }
    }

    /// End every session.
    pub(super) fn end_all_sessions(&mut self) {
        let living = self
            .sessions
            .all
            .iter()
            .filter(|(_, session)| !session.ending);
        let living: Vec<u64> = living.map(|(number, _)| *number).collect();
        for number in living {
            self.end_session(number, End::Fault("the sandbox was closed"));
        }
    }

    /// Nobody holds on to these states any more.
    pub(super) fn forget(&mut self, states: Vec<u64>) {
        for id in states {
            self.sessions.gone.remove(&id);
            if let Some(state) = self.sessions.states.get_mut(&id) {
                state.forgotten = true;
                let number = state.session;
                self.rest(number);
                continue;
            }
            let queues = self.fleets.iter().map(|fleet| &fleet.waiting);
            let mut waiting = queues.chain([&self.sessions.waiting]).flatten();
            if waiting.any(|w| w.job.turn.is_some_and(|turn| turn.to == id)) {
                self.sessions.unwanted.insert(id);
            }
        }
    }

    /// Stop the states of a session that wait, kill those that nobody wants, end it with the last.
    pub(super) fn rest(&mut self, number: u64) {
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
            self.end_session(number, End::Fault("the session has ended"));
        }
    }

    /// Kill all of a session. Its turns end with it.
    pub(super) fn end_session(&mut self, number: u64, end: End<'_>) {
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
                let reason = end.reason().to_owned();
                self.sessions
                    .gone
                    .insert(id, (reason, end.is_of_its_code()));
            }
            if let Phase::Turn(execution) = state.phase {
                self.sessions.gone.remove(&id);
                self.fail_turn(execution, end.verdict(id, alone), end.reason());
            }
        }
        // Those that a state never forked.
        let waiting = std::mem::take(&mut self.sessions.waiting);
        for Waiting { number, job } in waiting {
            match job.turn {
                Some(turn) => self.take_turn(number, turn, job),
                None => self.refuse(job, end.reason().to_owned()),
            }
        }
    }

    /// A turn ends with its session.
    pub(super) fn fail_turn(&mut self, execution: u64, verdict: ExitReason, reason: &str) {
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

    /// A keeper is there. From now on its session is listened to: before, nobody could tell whose
    /// child a process is.
    pub(super) fn keeper_forked(&mut self, number: u64, pid: i32, handle: OwnedFd) {
        let Some(session) = self.sessions.all.get_mut(&number) else {
            return;
        };
        session.keeper = Some((pid, handle));
        if session.ending {
            return session.kill();
        }
        let keeper = (session.keeper_socket.as_fd(), Topic::Keeper(number));
        let states = self.sessions.states.iter();
        let states = states.filter(|(_, state)| state.session == number);
        let states = states.map(|(id, state)| (state.socket.as_fd(), Topic::State(*id)));
        let mut sockets = states.chain([keeper]);
        let failed = sockets.any(|(socket, topic)| watch(&self.epoll, socket, &topic).is_err());
        drop(sockets);
        if failed {
            self.end_session(number, End::Fault("the session cannot be listened to"));
        }
    }

    /// A keeper has ended, and with it its session.
    pub(super) fn keeper_exited(&mut self, number: u64) {
        let Some(session) = self.sessions.all.get(&number) else {
            return;
        };
        let begun = running::read_status(&session.status, &mut None);
        let reason = match begun {
            Err(complaint) if session.folder.is_none() => complaint,
            _ => "the session has ended: its keeper died".into(),
        };
        self.end_session(number, End::Fault(&reason));
        let Some(mut session) = self.sessions.all.remove(&number) else {
            return;
        };
        self.clear(session.place, session.slot.take());
        self.take_back_group(session.group.take());
    }

    /// The zygote of that place is gone, and with it the keepers of its sessions.
    pub(super) fn lose_sessions(&mut self, place: usize) {
        let lost = self.sessions.all.iter();
        let lost: Vec<u64> = lost
            .filter_map(|(number, session)| (session.place == place).then_some(*number))
            .collect();
        for number in lost {
            self.end_session(
                number,
                End::Fault("the session has ended: its interpreter died"),
            );
            if let Some(session) = self.sessions.all.remove(&number) {
                self.retire_group(session.group);
            }
        }
    }

    /// Count the processes of sessions, end those that nobody has used for long.
    pub(super) fn look_after_sessions(&mut self, now: Instant) {
        let due: Vec<u64> = self
            .sessions
            .all
            .iter_mut()
            .filter(|(_, session)| !session.ending && now >= session.next_count)
            .map(|(number, session)| {
                session.next_count = now + COUNT_PAUSE;
                *number
            })
            .collect();
        for number in due {
            self.look_for_strangers(number);
            self.weigh_states(number);
            self.weigh_folder(number);
        }
        let limit = self.config.session_idle;
        let idle: Vec<u64> = self
            .sessions
            .all
            .iter()
            .filter(|(_, session)| !session.ending && now - session.last_used >= limit)
            .map(|(number, _)| *number)
            .filter(|number| {
                let mut own = self.sessions.states.values();
                !own.any(|s| s.session == *number && matches!(s.phase, Phase::Turn(_)))
            })
            .collect();
        for number in idle {
            self.end_session(
                number,
                End::Fault("the session has ended: it was idle for too long"),
            );
        }
    }

    /// End a session whose states have come to hold too much: threads may go on while a state forks.
    fn weigh_states(&mut self, number: u64) {
        let mut held = 0;
        for state in self.sessions.states.values_mut() {
            if state.session == number && state.phase == Phase::Idle {
                state.weigh();
                held += state.bytes + state.left_bytes;
            }
        }
        if held > self.config.session_bytes {
            self.end_session(number, End::HeldTooMuch);
        }
    }

    /// A process has ended that has not said who it is: one of those that are awaited, one that failed
    /// before it could, or one that a turn made.
    fn unknown_ended(&mut self, number: u64) {
        let mut own = self.sessions.states.values();
        let awaited = own.any(|state| state.session == number && state.process.is_none());
        let Some(session) = self.sessions.all.get_mut(&number) else {
            return;
        };
        let failed = session.failed_turns > 0;
        session.failed_turns = session.failed_turns.saturating_sub(1);
        let end = if awaited || failed {
            End::Fault("the session has ended: a process of it died")
        } else {
            End::LeftProcesses
        };
        self.end_session(number, end);
    }

    /// End a session whose work folder holds too much, where no file system of its own bounds it: as
    /// the folder is not rolled back, there is no state to go back to. Whether it has ended.
    pub(super) fn weigh_folder(&mut self, number: u64) -> bool {
        let (Scratch { bytes, files }, now) = (self.scratch(), Instant::now());
        let Some(session) = self.sessions.all.get_mut(&number) else {
            return false;
        };
        let Some(slot) = &session.slot else {
            return false;
        };
        if session.ending || now < session.weigh_after {
            return false;
        }
        if scratch::holds_more(slot.folder.as_fd(), bytes, files) {
            self.end_session(number, End::FilledFolder);
            return true;
        }
        session.weigh_after = now + now.elapsed() * REST_PER_WEIGHING;
        false
    }

    /// When the next session is to be looked after.
    pub(super) fn next_look_at_sessions(&self) -> Option<Instant> {
        let living = self.sessions.all.values().filter(|session| !session.ending);
        let limit = self.config.session_idle;
        let due = |session: &Session| match session.last_used.checked_add(limit) {
            Some(idle) => idle.min(session.next_count),
            None => session.next_count,
        };
        living.map(due).min()
    }

    /// The session of a turn under way.
    pub(super) fn session_of(&self, turn: Turn) -> Option<u64> {
        Some(self.sessions.states.get(&turn.to)?.session)
    }

    /// End a session that has processes of its own making.
    pub(super) fn look_for_strangers(&mut self, number: u64) {
        if self.strangers(number) {
            self.end_session(number, End::LeftProcesses);
        }
    }
}

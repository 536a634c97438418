//! What callers ask for on its way in: sorted, queued, taken back, begun when there is room.

use std::collections::{HashSet, VecDeque};
use std::time::Instant;

use crate::kinds;
use crate::policy::Request;
use crate::pool::Job;
use crate::report::{Execution, ExitReason, Stop};
use crate::usage;

use super::fleet::{State, Waiting};
use super::{MEMORY_LOOK, MOST_FAILURES, Supervisor};

/// Largest source taken.
const CODE_BYTES: usize = 64 << 20;
/// Largest input taken.
const STDIN_BYTES: usize = 1 << 30;
/// Most executions at once, the sleeping ones included: each costs four descriptors.
const MOST_RUNNING: usize = 1024;
/// Memory that is never given to scripts, in bytes.
const RESERVE_BYTES: u64 = 256 << 20;

impl Supervisor {
    /// Take over what callers have queued, sorted by the interpreter that it needs.
    pub(super) fn take_calls(&mut self) {
        let calls = self.shared.take_calls();
        for job in calls.jobs {
            let number = self.next_number;
            self.next_number += 1;
            let request = &job.request;
            if let Some(detail) = self.too_large(request) {
                self.refuse(job, detail);
                continue;
            }
            let forks = request.limits.unwrap_or(self.config.limits).processes > 0;
            if forks && !self.arrangement.own_namespaces {
                self.refuse(job, "processes need the layer own_namespaces".into());
                continue;
            }
            match job.turn {
                Some(turn) => self.take_turn(number, turn, job),
                None => self.wait_for_zygote(number, job),
            }
        }
        if !calls.cancelled.is_empty() {
            self.cancel(&calls.cancelled);
        }
        self.forget(calls.forgotten);
    }

    pub(super) fn wait_for_zygote(&mut self, number: u64, job: Job) {
        let mut place = kinds::choose(&self.kinds, &job.request.code);
        if let State::Useless(until) = self.fleets[place].state {
            if until.is_some_and(|until| until <= Instant::now()) {
                self.fleets[place].state = State::Cold;
                self.fleets[place].failures = MOST_FAILURES - 1; // one more try, not all again
            } else {
                place = 0;
            }
        }
        let waiting = &mut self.fleets[place].waiting;
        waiting.push_back(Waiting { number, job });
    }

    /// What is too large about a request.
    pub(super) fn too_large(&self, request: &Request) -> Option<String> {
        let limits = request.limits.unwrap_or(self.config.limits);
        let sizes = || request.files.iter().map(|(_, file)| file.len() as u64);
        if request.code.len() > CODE_BYTES || request.stdin.len() > STDIN_BYTES {
            let (code, stdin) = (CODE_BYTES, STDIN_BYTES);
            Some(format!(
                "source may have {code} bytes and input {stdin} bytes"
            ))
        } else if sizes().any(|size| size > limits.file_bytes) {
            Some(format!("a file may have {} bytes", limits.file_bytes))
        } else if sizes().sum::<u64>() > self.config.scratch_bytes {
            let most = self.config.scratch_bytes;
            Some(format!("files may have {most} bytes together"))
        } else {
            None
        }
    }

    pub(super) fn refuse(&self, job: Job, detail: String) {
        let layers = self.facts.layers.clone();
        job.answer(
            Execution::not_run(ExitReason::Refused, layers, detail),
            &self.shared,
        );
    }

    /// Take back what was submitted under these numbers: answer what waits, kill what runs.
    pub(super) fn cancel(&mut self, numbers: &HashSet<u64>) {
        let queues = self.fleets.iter_mut().map(|fleet| &mut fleet.waiting);
        for queue in queues.chain([&mut self.sessions.waiting]) {
            let waiting = std::mem::take(queue).into_iter();
            let (taken, kept): (VecDeque<_>, _) = waiting.partition(|w| w.job.is_among(numbers));
            *queue = kept;
            for waiting in taken {
                let layers = self.facts.layers.clone();
                let execution = Execution::not_run(ExitReason::Cancelled, layers, String::new());
                waiting.job.answer(execution, &self.shared);
            }
        }
        for (running, job) in self.running.values_mut() {
            if job.is_among(numbers) {
                job.given_up = true;
                running.stop(Stop::Cancelled);
            }
        }
    }

    /// Begin what may begin; start the interpreters that are wanted and not there.
    pub(super) fn dispatch(&mut self) {
        self.begin_waiting();
        for place in 0..self.fleets.len() {
            let fleet = &self.fleets[place];
            if matches!(fleet.state, State::Cold) && !fleet.waiting.is_empty() {
                self.launch(place);
            }
        }
    }

    /// Begin what may begin, oldest first.
    pub(super) fn begin_waiting(&mut self) {
        while self.running.len() < MOST_RUNNING
            && self.short_until <= Instant::now()
            && !self.aftermath.is_behind()
        {
            let awake = self.running.values().filter(|(r, _)| !r.asleep).count();
            let ready = self.fleets.iter().enumerate().filter_map(|(place, fleet)| {
                let first = fleet.waiting.front()?;
                matches!(fleet.state, State::Ready(_)).then_some((first.number, Some(place)))
            });
            let turn = self
                .sessions
                .waiting
                .front()
                .map(|first| (first.number, None));
            let Some((_, place)) = ready.chain(turn).min() else {
                return;
            };
            if awake >= self.config.workers.max(1) || !self.has_memory(place) {
                return;
            }
            let Some(Waiting { job, .. }) = self.queue(place).pop_front() else {
                return;
            };
            match (job.turn, place) {
                (Some(turn), _) => self.begin_turn(place, turn, job),
                (None, Some(place)) => self.begin(place, job),
                (None, None) => {}
            }
        }
    }

    /// What waits for the zygote of that place, or for states of sessions.
    pub(super) fn queue(&mut self, place: Option<usize>) -> &mut VecDeque<Waiting> {
        match place {
            Some(place) => &mut self.fleets[place].waiting,
            None => &mut self.sessions.waiting,
        }
    }

    /// Whether the machine can bear the next script of this queue. One at a time it always can.
    pub(super) fn has_memory(&mut self, place: Option<usize>) -> bool {
        let Some(next) = self.queue(place).front() else {
            return true;
        };
        let limits = next.job.request.limits.unwrap_or(self.config.limits);
        let now = Instant::now();
        if now - self.memory.0 > MEMORY_LOOK {
            self.memory = (now, usage::available_memory());
        }
        self.running.is_empty() || self.memory.1 > limits.memory_bytes + RESERVE_BYTES
    }
}

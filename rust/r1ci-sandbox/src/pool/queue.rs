//! What callers and the supervisor share: requests on their way in, results on their way out.
//!
//! All of it lies behind one lock that nobody holds while waiting or while a script runs.

use std::collections::{HashMap, HashSet};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, eventfd};

use crate::error::SandboxError;
use crate::policy::{Layer, Request};
use crate::report::Execution;
use crate::supervisor;

/// A result and its request's place in the batch.
pub(super) type Answer = (usize, Execution);

/// What callers and the supervisor share.
pub(crate) struct Shared {
    state: Mutex<State>,
    done: Condvar,
    closing: AtomicBool,
    owner: u32,
}

#[derive(Default)]
struct State {
    queue: Vec<Job>,
    /// Tickets and batches that their callers have given up.
    cancelled: HashSet<u64>,
    /// States of sessions that nobody holds on to.
    forgotten: Vec<u64>,
    finished: Vec<(u64, Execution)>,
    /// Submitted under a ticket and not finished.
    outstanding: usize,
    next_number: u64,
    /// Where the results of each batch go.
    batches: HashMap<u64, Sender<Answer>>,
    /// The supervisor has ended: nothing is begun or answered any more.
    ended: bool,
    /// Rung by callers when there is something to do.
    bell: Option<Arc<OwnedFd>>,
    /// Readable while `finished` holds something, once anybody has asked for it.
    signal: Option<Arc<OwnedFd>>,
}

/// A request and who waits for its result.
pub(crate) struct Job {
    /// What to run.
    pub request: Request,
    /// Where it runs, if it is a turn of a session.
    pub turn: Option<Turn>,
    /// How often it has been handed to a zygote in vain.
    pub tries: u32,
    /// How often there was no room for it.
    pub put_off: u32,
    /// Its caller wants no result of it any more: it must not be tried again.
    pub given_up: bool,
    reply: Reply,
}

/// A turn's place in its session, by the numbers of states.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Turn {
    /// The state that it starts from.
    pub from: u64,
    /// The state that comes of it.
    pub to: u64,
    /// The session has run nothing yet, so there may be no process for `from`.
    pub fresh: bool,
}

/// What callers have asked for since the last time.
#[derive(Default)]
pub(crate) struct Calls {
    /// Requests.
    pub jobs: Vec<Job>,
    /// Tickets and batches to take back.
    pub cancelled: HashSet<u64>,
    /// States of sessions that nobody holds on to.
    pub forgotten: Vec<u64>,
}

enum Reply {
    Ticket(u64),
    Batch {
        number: u64,
        place: usize,
        sender: Sender<Answer>,
    },
    Trial(Sender<Answer>),
}

impl Job {
    fn new(request: Request, turn: Option<Turn>, reply: Reply) -> Self {
        Self {
            request,
            turn,
            tries: 0,
            put_off: 0,
            given_up: false,
            reply,
        }
    }

    /// An empty script that shows whether an interpreter works, and where its result will come.
    pub fn trial() -> (Self, Receiver<Answer>) {
        let (sender, receiver) = channel();
        (
            Self::new(supervisor::empty_script(), None, Reply::Trial(sender)),
            receiver,
        )
    }

    /// Whether it is one of those.
    pub fn is_trial(&self) -> bool {
        matches!(self.reply, Reply::Trial(_))
    }

    /// Whether its ticket or its batch is one of these.
    pub fn is_among(&self, numbers: &HashSet<u64>) -> bool {
        match self.reply {
            Reply::Ticket(number) | Reply::Batch { number, .. } => numbers.contains(&number),
            Reply::Trial(_) => false,
        }
    }

    /// Pass the result on.
    pub fn answer(self, execution: Execution, shared: &Shared) {
        match self.reply {
            // A batch whose receiver is gone was given up by its caller.
            Reply::Batch { place, sender, .. } => drop(sender.send((place, execution))),
            Reply::Trial(sender) => drop(sender.send((0, execution))),
            Reply::Ticket(ticket) => {
                let mut state = shared.lock();
                if state.finished.is_empty() {
                    ring(state.signal.as_deref());
                }
                state.finished.push((ticket, execution));
                state.outstanding -= 1;
                shared.done.notify_all();
            }
        }
    }
}

/// Make an `eventfd` readable.
fn ring(bell: Option<&OwnedFd>) {
    if let Some(bell) = bell {
        // Full means that it rings already.
        let _ = rustix::io::write(bell, &1_u64.to_ne_bytes());
    }
}

fn hush(bell: Option<&OwnedFd>) {
    if let Some(bell) = bell {
        let _ = rustix::io::read(bell, &mut [0; 8]);
    }
}

fn bell() -> Result<Arc<OwnedFd>, SandboxError> {
    let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
    let bell = eventfd(0, flags).map_err(SandboxError::system("make a bell"))?;
    Ok(Arc::new(bell))
}

/// The callers' side.
impl Shared {
    pub(super) fn new() -> Result<Self, SandboxError> {
        let state = State {
            bell: Some(bell()?),
            ..State::default()
        };
        Ok(Self {
            state: Mutex::new(state),
            done: Condvar::new(),
            closing: AtomicBool::new(false),
            owner: std::process::id(),
        })
    }

    /// Refuse forks: in their copy the lock may be held by a thread that they do not have.
    pub(super) fn check_owner(&self) -> Result<(), SandboxError> {
        let (owner, caller) = (self.owner, std::process::id());
        if caller == owner {
            Ok(())
        } else {
            Err(SandboxError::Forked { owner, caller })
        }
    }

    /// The state, if this process may use it and work is still taken.
    fn open(&self) -> Result<MutexGuard<'_, State>, SandboxError> {
        self.check_owner()?;
        let state = self.lock();
        if self.is_closing() || state.ended {
            return Err(SandboxError::Closed);
        }
        Ok(state)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn submit(&self, request: Request, turn: Option<Turn>) -> Result<u64, SandboxError> {
        request.check()?;
        let mut state = self.open()?;
        let ticket = state.number();
        state.outstanding += 1;
        let job = Job::new(request, turn, Reply::Ticket(ticket));
        state.queue.push(job);
        ring(state.bell.as_deref());
        Ok(ticket)
    }

    /// A batch's number, and where its results will come.
    pub(super) fn start_batch(&self) -> Result<(u64, Receiver<Answer>), SandboxError> {
        let mut state = self.open()?;
        let number = state.number();
        let (sender, receiver) = channel();
        state.batches.insert(number, sender);
        Ok((number, receiver))
    }

    pub(super) fn add(
        &self,
        number: u64,
        first: usize,
        requests: Vec<(Request, Option<Turn>)>,
    ) -> Result<(), SandboxError> {
        for (request, _) in &requests {
            request.check()?;
        }
        let mut state = self.open()?;
        let Some(sender) = state.batches.get(&number).cloned() else {
            return Err(SandboxError::Closed);
        };
        let placed = requests.into_iter().zip(first..);
        let jobs = placed.map(|((request, turn), place)| {
            let reply = Reply::Batch {
                number,
                place,
                sender: sender.clone(),
            };
            Job::new(request, turn, reply)
        });
        state.queue.extend(jobs);
        ring(state.bell.as_deref());
        Ok(())
    }

    pub(super) fn end_batch(&self, number: u64) {
        self.lock().batches.remove(&number);
    }

    /// Take back what was submitted under this number.
    pub(super) fn cancel(&self, number: u64) -> Result<(), SandboxError> {
        let mut state = self.open()?;
        state.cancelled.insert(number);
        ring(state.bell.as_deref());
        Ok(())
    }

    pub(super) fn collect(&self, timeout: Duration) -> Result<Vec<(u64, Execution)>, SandboxError> {
        let deadline = Instant::now().checked_add(timeout);
        self.check_owner()?;
        if self.is_closing() {
            return Err(SandboxError::Closed);
        }
        let mut state = self.lock();
        while state.finished.is_empty() && state.outstanding > 0 && !state.ended {
            let left = deadline.map_or(Duration::from_secs(3600), |deadline| {
                deadline.saturating_duration_since(Instant::now())
            });
            if left.is_zero() {
                break;
            }
            state = self
                .done
                .wait_timeout(state, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
        if state.finished.is_empty() && state.ended {
            return Err(SandboxError::Closed);
        }
        hush(state.signal.as_deref());
        Ok(std::mem::take(&mut state.finished))
    }

    pub(super) fn finished_fd(&self) -> Result<Arc<OwnedFd>, SandboxError> {
        let mut state = self.open()?;
        if let Some(signal) = &state.signal {
            return Ok(Arc::clone(signal));
        }
        let signal = bell()?;
        if !state.finished.is_empty() {
            ring(Some(&signal));
        }
        state.signal = Some(Arc::clone(&signal));
        Ok(signal)
    }

    /// A number for a state that a session may come to.
    pub fn new_state(&self) -> Result<u64, SandboxError> {
        Ok(self.open()?.number())
    }

    /// Nobody holds on to that state any more.
    pub fn forget(&self, number: u64) {
        if let Ok(mut state) = self.open() {
            state.forgotten.push(number);
            ring(state.bell.as_deref());
        }
    }

    pub(super) fn close(&self) {
        self.closing.store(true, Ordering::Relaxed);
        ring(self.lock().bell.as_deref());
    }

    /// The descriptor of finished scripts goes when the caller has closed the sandbox, not before:
    /// whoever watches it would watch another file.
    pub(super) fn release(&self) {
        self.lock().signal = None;
    }
}

/// The supervisor's side.
impl Shared {
    /// What callers ring when there is something to do.
    pub fn bell(&self) -> Option<Arc<OwnedFd>> {
        self.lock().bell.clone()
    }

    /// Heard.
    pub fn hush(&self) {
        hush(self.lock().bell.as_deref());
    }

    /// Have the supervisor look at what has come in.
    pub fn wake(&self) {
        ring(self.lock().bell.as_deref());
    }

    /// Whether the caller wants to be done.
    pub fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Relaxed)
    }

    /// What callers have asked for since the last time.
    pub fn take_calls(&self) -> Calls {
        let mut state = self.lock();
        Calls {
            jobs: std::mem::take(&mut state.queue),
            cancelled: std::mem::take(&mut state.cancelled),
            forgotten: std::mem::take(&mut state.forgotten),
        }
    }

    /// The supervisor is gone, for whatever reason: answer what it has not taken, wake all.
    pub(super) fn end(&self, layers: &[Layer]) {
        let mut state = self.lock();
        state.ended = true;
        state.bell = None;
        let left = std::mem::take(&mut state.queue);
        drop(state);
        for job in left {
            job.answer(supervisor::closed(layers), self);
        }
        let mut state = self.lock();
        state.batches.clear();
        ring(state.signal.as_deref());
        self.done.notify_all();
    }
}

impl State {
    fn number(&mut self) -> u64 {
        self.next_number += 1;
        self.next_number
    }
}

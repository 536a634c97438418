//! The sandbox as callers see it: a queue, and the one thread that works it off.
//!
//! The thread stays for the sandbox's life, because the kernel ties "kill the child when its parent
//! dies" to the thread that started the child. The caller may fork: the copy in the child has no
//! thread, so it refuses instead of waiting for ever.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, eventfd};

use crate::error::SandboxError;
use crate::policy::{Layer, Request, SandboxConfig};
use crate::report::Execution;
use crate::supervisor::{self, Facts, Supervisor};

/// Warm interpreters ready for scripts.
///
/// All methods take `&self` and may be called from any thread. Dropping it stops what is running.
pub struct Sandbox {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
    owner: u32,
    facts: Facts,
}

/// Executions of one batch, to be received as they finish.
pub struct Batch {
    receiver: Receiver<(usize, Execution)>,
}

/// What [`Batch::receive`] came to.
pub enum Received {
    /// A result, with its request's place in the batch.
    Result(usize, Box<Execution>),
    /// Nothing finished in time; more will.
    Waiting,
    /// All results have been received.
    Done,
}

/// What callers and the supervisor share.
pub(crate) struct Shared {
    state: Mutex<State>,
    done: Condvar,
    closing: AtomicBool,
    bell: OwnedFd,
}

#[derive(Default)]
struct State {
    queue: Vec<Job>,
    cancelled: Vec<u64>,
    finished: Vec<(u64, Execution)>,
    /// Submitted and not yet collected nor finished.
    outstanding: usize,
    next_ticket: u64,
    /// The supervisor has ended by itself.
    failed: bool,
}

/// A request and who waits for its result.
pub(crate) struct Job {
    /// What to run.
    pub request: Request,
    /// How often it has been handed to a zygote in vain.
    pub tries: u32,
    reply: Reply,
}

enum Reply {
    Ticket(u64),
    Batch(usize, Sender<(usize, Execution)>),
    Trial(Sender<(usize, Execution)>),
}

impl Job {
    fn new(request: Request, reply: Reply) -> Self {
        Self {
            request,
            tries: 0,
            reply,
        }
    }

    /// An empty script that shows whether an interpreter works, and where its result will come.
    pub fn trial() -> (Self, Receiver<(usize, Execution)>) {
        let (sender, receiver) = channel();
        (
            Self::new(supervisor::empty_script(), Reply::Trial(sender)),
            receiver,
        )
    }

    /// Whether it is one of those.
    pub fn is_trial(&self) -> bool {
        matches!(self.reply, Reply::Trial(_))
    }

    /// Whether it was submitted under this ticket.
    pub fn has_ticket(&self, ticket: u64) -> bool {
        matches!(self.reply, Reply::Ticket(own) if own == ticket)
    }

    /// Pass the result on.
    pub fn answer(self, execution: Execution, shared: &Shared) {
        match self.reply {
            // A batch whose receiver is gone was given up by its caller.
            Reply::Batch(index, sender) => drop(sender.send((index, execution))),
            Reply::Trial(sender) => drop(sender.send((0, execution))),
            Reply::Ticket(ticket) => {
                let mut state = shared.lock();
                state.finished.push((ticket, execution));
                state.outstanding -= 1;
                shared.done.notify_all();
            }
        }
    }
}

impl Sandbox {
    /// Bring up all workers.
    ///
    /// # Errors
    /// When no interpreter comes up, a required layer is missing, or a limit is out of range.
    pub fn start(config: SandboxConfig) -> Result<Self, SandboxError> {
        config.limits.check()?;
        let bell = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .map_err(SandboxError::system("make a bell"))?;
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            done: Condvar::new(),
            closing: AtomicBool::new(false),
            bell,
        });
        let (sender, started) = channel();
        let theirs = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("r1ci-sandbox".into())
            .spawn(move || match Supervisor::start(&config, theirs) {
                Ok(supervisor) => {
                    let _ = sender.send(Ok(supervisor.facts.clone()));
                    supervisor.run();
                }
                Err(error) => {
                    let _ = sender.send(Err(error));
                }
            })
            .map_err(SandboxError::system("start a thread"))?;
        let facts = started.recv().unwrap_or(Err(SandboxError::Closed));
        if facts.is_err() {
            let _ = thread.join();
            return Err(facts.err().unwrap_or(SandboxError::Closed));
        }
        Ok(Self {
            shared,
            thread: Mutex::new(Some(thread)),
            owner: std::process::id(),
            facts: facts?,
        })
    }

    /// Layers in force.
    #[must_use]
    pub fn layers(&self) -> &[Layer] {
        &self.facts.layers
    }

    /// Why stronger arrangements were not possible, for people.
    #[must_use]
    pub fn shortfalls(&self) -> &[String] {
        &self.facts.shortfalls
    }

    /// Version of the interpreter that scripts run in.
    #[must_use]
    pub fn python(&self) -> &str {
        &self.facts.python
    }

    /// Run one script and wait for it.
    ///
    /// # Errors
    /// When the sandbox is closed, the process is a fork, or a limit is out of range. A failing
    /// script is not an error.
    pub fn run(&self, request: Request) -> Result<Execution, SandboxError> {
        let mut results = self.run_many(vec![request])?;
        results.pop().ok_or(SandboxError::Closed)
    }

    /// Run scripts side by side; results in the order of the requests.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub fn run_many(&self, requests: Vec<Request>) -> Result<Vec<Execution>, SandboxError> {
        let mut results: Vec<Option<Execution>> = vec![None; requests.len()];
        let mut batch = self.start_batch(requests)?;
        loop {
            match batch.receive(Duration::from_secs(3600)) {
                Received::Result(index, execution) => results[index] = Some(*execution),
                Received::Waiting => {}
                Received::Done => break,
            }
        }
        results
            .into_iter()
            .map(|result| result.ok_or(SandboxError::Closed))
            .collect()
    }

    /// Queue scripts; their results are received from the batch as they finish.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub fn start_batch(&self, requests: Vec<Request>) -> Result<Batch, SandboxError> {
        let mut state = self.open_state(&requests)?;
        let (sender, receiver) = channel();
        for (index, request) in requests.into_iter().enumerate() {
            let reply = Reply::Batch(index, sender.clone());
            state.queue.push(Job::new(request, reply));
        }
        self.shared.ring();
        Ok(Batch { receiver })
    }

    /// Queue one script; [`Self::collect`] returns its result under the ticket given here.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub fn submit(&self, request: Request) -> Result<u64, SandboxError> {
        let mut state = self.open_state(std::slice::from_ref(&request))?;
        let ticket = state.next_ticket;
        state.next_ticket += 1;
        state.outstanding += 1;
        state.queue.push(Job::new(request, Reply::Ticket(ticket)));
        self.shared.ring();
        Ok(ticket)
    }

    /// Take a submitted script back: it ends as `cancelled` if it has not ended by then, and is
    /// collected like any other. Unknown tickets are ignored.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub fn cancel(&self, ticket: u64) -> Result<(), SandboxError> {
        self.open_state(&[])?.cancelled.push(ticket);
        self.shared.ring();
        Ok(())
    }

    /// All submitted scripts that have finished; waits up to `timeout` for the first one, and not
    /// at all when none is outstanding.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub fn collect(&self, timeout: Duration) -> Result<Vec<(u64, Execution)>, SandboxError> {
        let deadline = Instant::now().checked_add(timeout);
        let mut state = self.open_state(&[])?;
        while state.finished.is_empty() && state.outstanding > 0 {
            let left = deadline.map_or(Duration::from_secs(3600), |deadline| {
                deadline.saturating_duration_since(Instant::now())
            });
            if left.is_zero() {
                break;
            }
            state = self
                .shared
                .done
                .wait_timeout(state, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
        Ok(std::mem::take(&mut state.finished))
    }

    /// Stop what is running, answer what is queued, end all interpreters. In a fork of the owner
    /// it does nothing.
    pub fn close(&self) {
        if std::process::id() != self.owner {
            return;
        }
        self.shared.closing.store(true, Ordering::Relaxed);
        self.shared.ring();
        if let Some(thread) = self.thread().take() {
            let _ = thread.join();
        }
        self.shared.answer_queued(&self.facts.layers);
    }

    fn thread(&self) -> MutexGuard<'_, Option<JoinHandle<()>>> {
        self.thread.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The state, if it may be used by this process now and the requests can be met.
    fn open_state(&self, requests: &[Request]) -> Result<MutexGuard<'_, State>, SandboxError> {
        let caller = std::process::id();
        if caller != self.owner {
            return Err(SandboxError::Forked {
                owner: self.owner,
                caller,
            });
        }
        if self.shared.closing.load(Ordering::Relaxed) {
            return Err(SandboxError::Closed);
        }
        for request in requests {
            request.check()?;
        }
        let state = self.shared.lock();
        if state.failed {
            return Err(SandboxError::Closed);
        }
        Ok(state)
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        self.close();
        // In a fork the thread belongs to another process: not even its handle may be dropped.
        if let Some(thread) = self.thread().take() {
            std::mem::forget(thread);
        }
    }
}

impl Batch {
    /// The next result, as they finish.
    #[must_use]
    pub fn receive(&mut self, timeout: Duration) -> Received {
        match self.receiver.recv_timeout(timeout) {
            Ok((index, execution)) => Received::Result(index, Box::new(execution)),
            Err(RecvTimeoutError::Timeout) => Received::Waiting,
            Err(RecvTimeoutError::Disconnected) => Received::Done,
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What callers ring when there is something to do.
    pub fn bell(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }

    fn ring(&self) {
        // Full means that it rings already.
        let _ = rustix::io::write(&self.bell, &1_u64.to_ne_bytes());
    }

    /// Heard.
    pub fn hush(&self) {
        let _ = rustix::io::read(&self.bell, &mut [0; 8]);
    }

    /// Whether the caller wants to be done.
    pub fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Relaxed)
    }

    /// What callers have asked for since the last time: requests, and tickets to cancel.
    pub fn take_queue(&self) -> (Vec<Job>, Vec<u64>) {
        let mut state = self.lock();
        (
            std::mem::take(&mut state.queue),
            std::mem::take(&mut state.cancelled),
        )
    }

    /// The supervisor can go on no longer.
    pub fn fail(&self) {
        self.lock().failed = true;
        self.answer_queued(&[]);
    }

    fn answer_queued(&self, layers: &[Layer]) {
        for job in self.take_queue().0 {
            job.answer(supervisor::closed(layers), self);
        }
    }
}

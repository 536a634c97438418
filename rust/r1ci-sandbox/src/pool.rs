//! The sandbox as callers see it: a queue, and one thread per worker.
//!
//! Threads stay for the sandbox's life, because the kernel ties "kill the child when its parent
//! dies" to the thread that started the child. The caller may fork: the copy in the child has no
//! threads, so it refuses instead of waiting for ever.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::error::SandboxError;
use crate::policy::{Layer, Request, SandboxConfig};
use crate::report::{Execution, ExitReason};
use crate::worker::Worker;

/// Warm interpreters ready for scripts.
///
/// All methods take `&self` and may be called from any thread. Dropping it stops what is running.
pub struct Sandbox {
    shared: Arc<Shared>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    owner: u32,
    layers: Vec<Layer>,
    shortfalls: Vec<String>,
    python: String,
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

struct Shared {
    state: Mutex<State>,
    work: Condvar,
    done: Condvar,
    closing: AtomicBool,
}

#[derive(Default)]
struct State {
    queue: VecDeque<Job>,
    finished: Vec<(u64, Execution)>,
    /// Submitted and not yet collected nor finished.
    outstanding: usize,
    next_ticket: u64,
}

struct Job {
    request: Request,
    reply: Reply,
}

enum Reply {
    Ticket(u64),
    Batch(usize, Sender<(usize, Execution)>),
}

/// What a worker's start came to.
struct Started {
    layers: Vec<Layer>,
    shortfalls: Vec<String>,
    python: String,
}

impl Sandbox {
    /// Bring up all workers.
    ///
    /// # Errors
    /// When no interpreter comes up, a required layer is missing, or a limit is out of range.
    pub fn start(config: SandboxConfig) -> Result<Self, SandboxError> {
        config.limits.check()?;
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            work: Condvar::new(),
            done: Condvar::new(),
            closing: AtomicBool::new(false),
        });
        let config = Arc::new(config);
        let (sender, started) = channel();
        let mut sandbox = Self {
            shared: Arc::clone(&shared),
            threads: Mutex::default(),
            owner: std::process::id(),
            layers: Vec::new(),
            shortfalls: Vec::new(),
            python: String::new(),
        };
        for _ in 0..config.workers.max(1) {
            let (config, shared, sender) =
                (Arc::clone(&config), Arc::clone(&shared), sender.clone());
            let thread = std::thread::Builder::new()
                .name("r1ci-sandbox".into())
                .spawn(move || match Worker::start(&config) {
                    Ok(worker) => {
                        let (shortfalls, python) = worker.facts();
                        let layers = worker.layers.clone();
                        let _ = sender.send(Ok(Started {
                            layers,
                            shortfalls,
                            python,
                        }));
                        drop(sender);
                        shared.serve(worker);
                    }
                    Err(error) => {
                        let _ = sender.send(Err(error));
                    }
                })
                .map_err(SandboxError::system("start a thread"))?;
            sandbox.threads().push(thread);
        }
        drop(sender);
        for result in started {
            let facts = result?;
            sandbox.layers = facts.layers;
            sandbox.shortfalls = facts.shortfalls;
            sandbox.python = facts.python;
        }
        Ok(sandbox)
    }

    /// Layers in force.
    #[must_use]
    pub fn layers(&self) -> &[Layer] {
        &self.layers
    }

    /// Why stronger arrangements were not possible, for people.
    #[must_use]
    pub fn shortfalls(&self) -> &[String] {
        &self.shortfalls
    }

    /// Version of the interpreter that scripts run in.
    #[must_use]
    pub fn python(&self) -> &str {
        &self.python
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
            state.queue.push_back(Job { request, reply });
        }
        self.shared.work.notify_all();
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
        let reply = Reply::Ticket(ticket);
        state.queue.push_back(Job { request, reply });
        self.shared.work.notify_one();
        Ok(ticket)
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
        // Whoever is about to wait holds this lock, and has seen the flag once we hold it.
        drop(self.shared.lock());
        self.shared.work.notify_all();
        for thread in self.threads().drain(..) {
            let _ = thread.join();
        }
        self.shared.answer_queued();
    }

    fn threads(&self) -> MutexGuard<'_, Vec<JoinHandle<()>>> {
        self.threads.lock().unwrap_or_else(PoisonError::into_inner)
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
        for limits in requests.iter().filter_map(|request| request.limits) {
            limits.check()?;
        }
        Ok(self.shared.lock())
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        self.close();
        // In a fork the threads belong to another process: not even their handles may be dropped.
        let threads = self
            .threads
            .get_mut()
            .unwrap_or_else(PoisonError::into_inner);
        threads.drain(..).for_each(std::mem::forget);
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

    /// The life of a worker's thread.
    fn serve(&self, mut worker: Worker) {
        while let Some(job) = self.next_job() {
            let execution = worker.execute(&job.request, &self.closing);
            self.answer(job.reply, execution);
        }
    }

    fn next_job(&self) -> Option<Job> {
        let mut state = self.lock();
        loop {
            if self.closing.load(Ordering::Relaxed) {
                return None;
            }
            if let Some(job) = state.queue.pop_front() {
                return Some(job);
            }
            state = self
                .work
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn answer(&self, reply: Reply, execution: Execution) {
        match reply {
            // A batch whose receiver is gone was given up by its caller.
            Reply::Batch(index, sender) => drop(sender.send((index, execution))),
            Reply::Ticket(ticket) => {
                let mut state = self.lock();
                state.finished.push((ticket, execution));
                state.outstanding -= 1;
                self.done.notify_all();
            }
        }
    }

    fn answer_queued(&self) {
        let queued = std::mem::take(&mut self.lock().queue);
        for job in queued {
            let detail = "the sandbox was closed".to_owned();
            let execution = Execution::not_run(ExitReason::Infrastructure, Vec::new(), detail);
            self.answer(job.reply, execution);
        }
    }
}

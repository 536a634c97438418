//! The sandbox as callers see it: a queue, and the one thread that works it off.
//!
//! The thread stays for the sandbox's life, because the kernel ties "kill the child when its parent
//! dies" to the thread that started the child. The caller may fork: the copy in the child has no
//! thread, so it refuses instead of waiting for ever.

mod batch;
mod queue;

use std::os::fd::OwnedFd;
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::error::SandboxError;
use crate::policy::{Layer, Request, SandboxConfig};
use crate::report::Execution;
use crate::supervisor::{Facts, Supervisor};

pub use batch::{Batch, Received};
pub(crate) use queue::{Job, Shared, Turn};

/// Warm interpreters ready for scripts.
///
/// All methods take `&self` and may be called from any thread. Dropping it stops what is running.
pub struct Sandbox {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
    facts: Facts,
}

/// Says that the supervisor is gone, even if it went by a panic.
struct Farewell {
    shared: Arc<Shared>,
    layers: Vec<Layer>,
}

impl Drop for Farewell {
    fn drop(&mut self) {
        self.shared.end(&self.layers);
    }
}

impl Sandbox {
    /// Bring up all workers.
    ///
    /// # Errors
    /// When no interpreter comes up, a required layer is missing, or a limit is out of range.
    pub fn start(config: SandboxConfig) -> Result<Self, SandboxError> {
        config.limits.check()?;
        let shared = Arc::new(Shared::new()?);
        let (sender, started) = channel();
        let theirs = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("r1ci-sandbox".into())
            .spawn(move || {
                let mut farewell = Farewell {
                    shared: Arc::clone(&theirs),
                    layers: Vec::new(),
                };
                match Supervisor::start(&config, theirs) {
                    Ok(supervisor) => {
                        farewell.layers.clone_from(&supervisor.facts.layers);
                        let _ = sender.send(Ok(supervisor.facts.clone()));
                        supervisor.run();
                    }
                    Err(error) => {
                        let _ = sender.send(Err(error));
                    }
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
            facts: facts?,
        })
    }

    /// Layers in force.
    #[must_use]
    pub fn layers(&self) -> &[Layer] {
        &self.facts.layers
    }

    /// Layers not in force, each with the reason for people.
    #[must_use]
    pub fn missing(&self) -> &[(Layer, String)] {
        &self.facts.missing
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
                Received::Result(place, execution) => results[place] = Some(*execution),
                Received::Waiting => {}
                Received::Done => break,
                Received::Lost(error) => return Err(error),
            }
        }
        Ok(results.into_iter().flatten().collect())
    }

    /// Queue scripts that belong together; their results are received from the batch as they
    /// finish. It may be empty at first and [grow](Batch::add).
    ///
    /// # Errors
    /// As [`Self::run`].
    pub fn start_batch(&self, requests: Vec<Request>) -> Result<Batch, SandboxError> {
        Batch::start(&self.shared, requests)
    }

    /// Queue turns of sessions that belong together.
    pub(crate) fn start_turn_batch(
        &self,
        turns: Vec<(Request, Option<Turn>)>,
    ) -> Result<Batch, SandboxError> {
        Batch::start_turns(&self.shared, turns)
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Queue one script; [`Self::collect`] returns its result under the ticket given here.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub fn submit(&self, request: Request) -> Result<u64, SandboxError> {
        self.shared.submit(request, None)
    }

    /// Take a submitted script back: it ends as `cancelled` if it has not ended by then, and is
    /// collected like any other. Unknown tickets are ignored.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub fn cancel(&self, ticket: u64) -> Result<(), SandboxError> {
        self.shared.cancel(ticket)
    }

    /// All submitted scripts that have finished; waits up to `timeout` for the first one, and not
    /// at all when none is outstanding.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub fn collect(&self, timeout: Duration) -> Result<Vec<(u64, Execution)>, SandboxError> {
        self.shared.collect(timeout)
    }

    /// A descriptor that is readable while [`Self::collect`] has something to return or to complain
    /// about: for an event loop, so that no thread has to wait. Wait for it to be readable, then
    /// collect with a timeout of zero, which makes it unreadable again; never read from it. It is
    /// the same one at every call, and non-blocking.
    ///
    /// With tokio, `AsyncFd::with_interest(sandbox.finished_fd()?, Interest::READABLE)` waits by
    /// `readable().await`; clear the readiness, then collect.
    ///
    /// # Errors
    /// As [`Self::run`], and when the process is out of descriptors.
    pub fn finished_fd(&self) -> Result<Arc<OwnedFd>, SandboxError> {
        self.shared.finished_fd()
    }

    /// Stop what is running, answer what is queued, end all interpreters, give all descriptors
    /// back. In a fork of the owner it does nothing.
    pub fn close(&self) {
        if self.shared.check_owner().is_err() {
            return;
        }
        self.shared.close();
        // Held meanwhile: whoever closes at the same time also finds it closed afterwards.
        let mut thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(thread) = thread.take() {
            let _ = thread.join();
            self.shared.release();
        }
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        self.close();
        // In a fork the thread belongs to another process: not even its handle may be dropped.
        let thread = self.thread.get_mut();
        std::mem::forget(thread.unwrap_or_else(PoisonError::into_inner).take());
    }
}

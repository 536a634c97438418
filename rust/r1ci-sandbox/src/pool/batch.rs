//! Executions that belong together: received as they finish, given up together.

use std::mem;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use crate::error::SandboxError;
use crate::policy::Request;
use crate::report::Execution;

use super::queue::{Answer, Shared, Turn};

/// Executions of one batch, to be received as they finish. Dropping it takes back what has not
/// begun and kills what runs.
pub struct Batch {
    shared: Arc<Shared>,
    number: u64,
    receiver: Receiver<Answer>,
    added: usize,
    received: usize,
}

/// What [`Batch::receive`] came to.
#[derive(Debug)]
pub enum Received {
    /// A result, with its request's place in the batch.
    Result(usize, Box<Execution>),
    /// Nothing finished in time; more will.
    Waiting,
    /// All results have been received.
    Done,
    /// Results are missing and will not come: the sandbox has failed, or this process is a fork.
    Lost(SandboxError),
}

impl Batch {
    pub(super) fn start(
        shared: &Arc<Shared>,
        requests: Vec<Request>,
    ) -> Result<Self, SandboxError> {
        let mut batch = Self::empty(shared)?;
        batch.add(requests)?;
        Ok(batch)
    }

    pub(super) fn start_turns(
        shared: &Arc<Shared>,
        turns: Vec<(Request, Option<Turn>)>,
    ) -> Result<Self, SandboxError> {
        let mut batch = Self::empty(shared)?;
        batch.queue(turns)?;
        Ok(batch)
    }

    fn empty(shared: &Arc<Shared>) -> Result<Self, SandboxError> {
        let (number, receiver) = shared.start_batch()?;
        Ok(Self {
            shared: Arc::clone(shared),
            number,
            receiver,
            added: 0,
            received: 0,
        })
    }

    /// Queue more requests. Their places follow those of the earlier ones.
    ///
    /// # Errors
    /// As [`Sandbox::run`](crate::Sandbox::run); then none of them is queued.
    pub fn add(&mut self, requests: Vec<Request>) -> Result<(), SandboxError> {
        self.queue(
            requests
                .into_iter()
                .map(|request| (request, None))
                .collect(),
        )
    }

    fn queue(&mut self, requests: Vec<(Request, Option<Turn>)>) -> Result<(), SandboxError> {
        let count = requests.len();
        self.shared.add(self.number, self.added, requests)?;
        self.added += count;
        Ok(())
    }

    /// How many results are still to be received.
    #[must_use]
    pub fn outstanding(&self) -> usize {
        self.added - self.received
    }

    /// The next result, as they finish.
    #[must_use]
    pub fn receive(&mut self, timeout: Duration) -> Received {
        if self.outstanding() == 0 {
            return Received::Done;
        }
        if let Err(error) = self.shared.check_owner() {
            return Received::Lost(error);
        }
        match self.receiver.recv_timeout(timeout) {
            Ok((place, execution)) => {
                self.received += 1;
                Received::Result(place, Box::new(execution))
            }
            Err(RecvTimeoutError::Timeout) => Received::Waiting,
            Err(RecvTimeoutError::Disconnected) => Received::Lost(SandboxError::Closed),
        }
    }

    /// Take back what has not begun and kill what runs. Their results are received as those of the
    /// others are, as `cancelled` unless they had ended.
    ///
    /// # Errors
    /// When the sandbox is closed or this process is a fork.
    pub fn cancel(&self) -> Result<(), SandboxError> {
        self.shared.cancel(self.number)
    }
}

impl Drop for Batch {
    fn drop(&mut self) {
        if self.shared.check_owner().is_err() {
            // Even to take the channel down could mean to wait for a thread that only the owner has.
            mem::forget(mem::replace(&mut self.receiver, channel().1));
            return;
        }
        if self.outstanding() > 0 {
            // Refused only by a sandbox that is closed, where nothing runs.
            let _ = self.cancel();
        }
        self.shared.end_batch(self.number);
    }
}

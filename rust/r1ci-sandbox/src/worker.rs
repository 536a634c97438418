//! One worker: a warm interpreter and the execution under way in it.
//!
//! All clocks are here. The streams are drained from the first byte, so a script never waits for
//! its reader; an execution ends when its process has ended, whoever still holds its pipes.

use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{MemfdFlags, OFlags, SealFlags};
use rustix::io::Errno;
use rustix::process::{Signal, pidfd_send_signal};

use crate::capture::Capture;
use crate::error::SandboxError;
use crate::policy::{Layer, Limits, Request, SandboxConfig};
use crate::report::{Ending, Execution, ExitReason, Stop, judge};
use crate::scratch;
use crate::wire::{self, Reply};
use crate::zygote::Zygote;

/// Output beyond which a script is stopped: no honest program comes near it.
pub(crate) const FLOOD_BYTES: u64 = 256 << 20;
/// Largest source taken.
const CODE_BYTES: usize = 64 << 20;
/// Largest input taken.
const STDIN_BYTES: usize = 1 << 30;
/// Longest pause between two looks at CPU time and threads.
const LOOK: Duration = Duration::from_millis(50);
/// How long the kernel and the zygote may take to finish a fork, or a kill.
const PATIENCE: Duration = Duration::from_secs(30);
/// Read at most this much of a stream before looking at the clocks again.
const CHUNK: usize = 64 << 10;

/// Runs executions one after another.
pub(crate) struct Worker {
    config: SandboxConfig,
    zygote: Option<Zygote>,
    /// Layers of the latest zygote.
    pub layers: Vec<Layer>,
    buffer: Vec<u8>,
}

/// The sandbox failed an execution.
struct Fault {
    /// Whether the script may have begun: then it must not be run again.
    started: bool,
    reason: String,
}

impl Fault {
    #[expect(
        clippy::needless_pass_by_value,
        reason = "the shape that `map_err` wants"
    )]
    fn before<R: ToString>(reason: R) -> Self {
        Self {
            started: false,
            reason: reason.to_string(),
        }
    }
}

impl Worker {
    /// Bring up the first interpreter and see that it can run a script.
    pub fn start(config: &SandboxConfig) -> Result<Self, SandboxError> {
        let zygote = Zygote::start(config)?;
        let mut worker = Self {
            config: config.clone(),
            layers: zygote.layers.clone(),
            zygote: Some(zygote),
            buffer: vec![0; CHUNK],
        };
        let mut empty = Request::new("");
        empty.limits = Some(Limits::default());
        let trial = worker.execute(&empty, &AtomicBool::new(false));
        if trial.exit_reason == ExitReason::Ok {
            Ok(worker)
        } else {
            Err(SandboxError::Start {
                python: config.python.display().to_string(),
                reason: format!(
                    "an empty script ended with {}: {}",
                    trial.exit_reason.name(),
                    trial.detail
                ),
            })
        }
    }

    /// Why stronger layers are missing, and the interpreter's version.
    pub fn facts(&self) -> (Vec<String>, String) {
        self.zygote
            .as_ref()
            .map_or_else(Default::default, |zygote| {
                (zygote.shortfalls.clone(), zygote.python.clone())
            })
    }

    /// Run one request. A request whose script had not begun when the sandbox failed gets a second
    /// try with a fresh interpreter; one that had begun is never run twice.
    pub fn execute(&mut self, request: &Request, closing: &AtomicBool) -> Execution {
        let limits = request.limits.unwrap_or(self.config.limits);
        if request.code.len() > CODE_BYTES || request.stdin.len() > STDIN_BYTES {
            let detail =
                format!("source may have {CODE_BYTES} bytes and input {STDIN_BYTES} bytes");
            return Execution::not_run(ExitReason::Refused, self.layers.clone(), detail);
        }
        let mut again = true;
        loop {
            let fault = match self.zygote() {
                Ok(zygote) => match Running::start(&zygote, request, limits) {
                    Ok(running) => match running.finish(&zygote, closing, &mut self.buffer) {
                        Ok(execution) => {
                            // A folder that cannot be emptied goes, with its interpreter.
                            if scratch::empty(zygote.scratch.as_fd()).is_ok() {
                                self.zygote = Some(zygote);
                            }
                            return execution;
                        }
                        Err(fault) => fault,
                    },
                    Err(fault) => fault,
                },
                Err(error) => Fault::before(error),
            };
            if fault.started || !again || closing.load(Ordering::Relaxed) {
                let layers = self.layers.clone();
                return Execution::not_run(ExitReason::Infrastructure, layers, fault.reason);
            }
            again = false;
        }
    }

    /// The interpreter, taken out: it is put back only after an execution that went well.
    fn zygote(&mut self) -> Result<Zygote, SandboxError> {
        if let Some(zygote) = self.zygote.take() {
            return Ok(zygote);
        }
        let zygote = Zygote::start(&self.config)?;
        self.layers.clone_from(&zygote.layers);
        Ok(zygote)
    }
}

/// An execution under way.
struct Running {
    limits: Limits,
    begun: Instant,
    stdout: Stream,
    stderr: Stream,
    status: File,
    child: Option<(i32, OwnedFd)>,
    stop: Option<(Stop, Instant)>,
    next_look: Instant,
}

/// One output pipe.
struct Stream {
    pipe: File,
    open: bool,
    capture: Capture,
}

impl Running {
    /// Hand the script over.
    fn start(zygote: &Zygote, request: &Request, limits: Limits) -> Result<Self, Fault> {
        let code = memory_file("code", &request.code).map_err(Fault::before)?;
        let stdin = if request.stdin.is_empty() {
            File::open("/dev/null")
        } else {
            memory_file("stdin", &request.stdin)
        }
        .map_err(Fault::before)?;
        let (stdout, stdout_theirs) = pipe().map_err(Fault::before)?;
        let (stderr, stderr_theirs) = pipe().map_err(Fault::before)?;
        let (status, status_theirs) = pipe().map_err(Fault::before)?;
        let handles = [
            code.as_fd(),
            stdin.as_fd(),
            stdout_theirs.as_fd(),
            stderr_theirs.as_fd(),
            status_theirs.as_fd(),
        ];
        let begun = Instant::now();
        let message = wire::request(request.seed, &limits);
        wire::send(&zygote.control, &message, &handles).map_err(Fault::before)?;
        Ok(Self {
            limits,
            begun,
            stdout: Stream::new(stdout, limits.output_bytes),
            stderr: Stream::new(stderr, limits.output_bytes),
            status,
            child: None,
            stop: None,
            next_look: begun + LOOK.min(limits.cpu),
        })
    }

    /// Watch it to its end.
    fn finish(
        mut self,
        zygote: &Zygote,
        closing: &AtomicBool,
        buffer: &mut [u8],
    ) -> Result<Execution, Fault> {
        loop {
            let ready = self.wait(zygote).map_err(|error| self.fault(error))?;
            if ready[1] {
                self.stdout.read(buffer);
            }
            if ready[2] {
                self.stderr.read(buffer);
            }
            if ready[0] {
                match wire::receive_reply(&zygote.control) {
                    Ok(Reply::Forked(pid, pidfd)) => self.child = Some((pid, pidfd)),
                    Ok(Reply::Exited(ending)) => return self.conclude(zygote, &ending, buffer),
                    Ok(Reply::Gone) => return Err(self.fault("the interpreter died")),
                    Err(error) => return Err(self.fault(error)),
                }
            }
            if closing.load(Ordering::Relaxed) {
                self.stop(Stop::Closing);
            }
            self.check_limits().map_err(|reason| self.fault(reason))?;
        }
    }

    /// Wait for the zygote, the streams or the next deadline; says which are readable.
    fn wait(&self, zygote: &Zygote) -> io::Result<[bool; 3]> {
        let now = Instant::now();
        let deadline = self.next_look.min(self.begun + self.limits.wall);
        let pause = if self.stop.is_some() {
            LOOK
        } else {
            deadline
                .saturating_duration_since(now)
                .max(Duration::from_millis(1))
        };
        let pause = Timespec::try_from(pause).expect("a short duration");
        let mut waiting = vec![PollFd::new(&zygote.control, PollFlags::IN)];
        let streams = [&self.stdout, &self.stderr];
        for stream in streams.into_iter().filter(|stream| stream.open) {
            waiting.push(PollFd::new(&stream.pipe, PollFlags::IN));
        }
        match poll(&mut waiting, Some(&pause)) {
            Ok(_) => {}
            Err(Errno::INTR) => return Ok([false; 3]),
            Err(error) => return Err(error.into()),
        }
        let mut ready = waiting.iter().map(|handle| !handle.revents().is_empty());
        let mut next = |open: bool| open && ready.next().unwrap_or(false);
        Ok([next(true), next(self.stdout.open), next(self.stderr.open)])
    }

    fn check_limits(&mut self) -> Result<(), &'static str> {
        let now = Instant::now();
        if let Some((_, since)) = self.stop {
            return if now - since > PATIENCE {
                Err("a killed script did not end")
            } else {
                Ok(())
            };
        }
        if self.child.is_none() && now - self.begun > PATIENCE {
            return Err("the interpreter did not fork");
        }
        if self.stdout.capture.total + self.stderr.capture.total > FLOOD_BYTES {
            self.stop(Stop::Output);
        } else if now - self.begun >= self.limits.wall {
            self.stop(Stop::Wall);
        } else if now >= self.next_look {
            self.look(now);
        }
        Ok(())
    }

    /// Hold CPU time and threads against the limits.
    fn look(&mut self, now: Instant) {
        self.next_look = now + LOOK;
        let Some(usage) = self.child.as_ref().and_then(|(pid, _)| Usage::of(*pid)) else {
            return;
        };
        if usage.cpu >= self.limits.cpu {
            self.stop(Stop::Cpu);
        } else if usage.threads > self.limits.threads {
            self.stop(Stop::Threads);
        } else {
            let left = self.limits.cpu.saturating_sub(usage.cpu);
            self.next_look = now + left.clamp(Duration::from_millis(5), LOOK);
        }
    }

    fn stop(&mut self, reason: Stop) {
        if let (None, Some((_, pidfd))) = (&self.stop, &self.child) {
            // Fails only when it has ended by itself; then its own ending is the verdict.
            let _ = pidfd_send_signal(pidfd, Signal::KILL);
            self.stop = Some((reason, Instant::now()));
        }
    }

    /// All that the script wrote is in the pipes by now: read it, clean up, judge.
    fn conclude(
        mut self,
        zygote: &Zygote,
        ending: &Ending,
        buffer: &mut [u8],
    ) -> Result<Execution, Fault> {
        let wall = self.begun.elapsed();
        self.stdout.drain(buffer);
        self.stderr.drain(buffer);
        if let (Err(reason), None) = (self.began(), self.stop) {
            return Err(Fault::before(reason));
        }
        let stop = self.stop.map(|(reason, _)| reason);
        let (exit_reason, exit_code, signal, detail) =
            judge(ending, stop, &self.limits, zygote.resident_bytes);
        let mut stderr = self.stderr.capture.finish();
        for (path, short) in &zygote.short_names {
            stderr.replace(path, short);
        }
        Ok(Execution {
            stdout: self.stdout.capture.finish(),
            stderr,
            exit_reason,
            exit_code,
            signal,
            wall,
            cpu: ending.cpu,
            peak_rss_bytes: ending.peak_rss_bytes,
            layers: zygote.layers.clone(),
            detail,
        })
    }

    /// Whether the script began: the child says so after the jail is up and before the script can
    /// say anything, over a pipe that is closed by then. Otherwise the reason why not.
    fn began(&mut self) -> Result<(), String> {
        let mut note = [0; 2048];
        match self.status.read(&mut note) {
            Ok(size) if note[..size].first() == Some(&b'S') => Ok(()),
            Ok(size) if size > 1 => Err(String::from_utf8_lossy(&note[1..size]).into_owned()),
            _ => Err("the child ended before the script began".into()),
        }
    }

    /// Give up: the child, if there is one, must not outlive its zygote.
    #[expect(
        clippy::needless_pass_by_value,
        reason = "the shape that `map_err` wants"
    )]
    fn fault<R: ToString>(&mut self, reason: R) -> Fault {
        if let Some((_, pidfd)) = &self.child {
            let _ = pidfd_send_signal(pidfd, Signal::KILL);
        }
        Fault {
            started: self.began().is_ok(),
            reason: reason.to_string(),
        }
    }
}

impl Stream {
    fn new(pipe: File, cap: usize) -> Self {
        Self {
            pipe,
            open: true,
            capture: Capture::new(cap),
        }
    }

    /// Read once; false when there is nothing to read now.
    fn read(&mut self, buffer: &mut [u8]) -> bool {
        match self.pipe.read(buffer) {
            Ok(0) => {
                self.open = false;
                false
            }
            Ok(size) => {
                self.capture.push(&buffer[..size]);
                true
            }
            Err(error) => error.kind() == io::ErrorKind::Interrupted,
        }
    }

    /// Read what is left. The writer is dead, so this is at most a pipe's worth.
    fn drain(&mut self, buffer: &mut [u8]) {
        while self.open && self.read(buffer) {}
    }
}

/// What a living process has used, from the kernel.
struct Usage {
    cpu: Duration,
    threads: u64,
}

impl Usage {
    /// None when it has gone, or when the kernel hides other users' processes: the kernel's own
    /// limits then stand alone.
    fn of(pid: i32) -> Option<Self> {
        let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name in brackets is the process's own choice; fields are counted from its end.
        let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
        let number = |index: usize| fields.get(index)?.parse::<u64>().ok();
        let ticks = number(11)? + number(12)?;
        Some(Self {
            cpu: Duration::from_millis(ticks * 1000 / rustix::param::clock_ticks_per_second()),
            threads: number(17)?,
        })
    }
}

/// A sealed file in memory, ready to be read from its start.
fn memory_file(name: &str, bytes: &[u8]) -> io::Result<File> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let mut file = File::from(rustix::fs::memfd_create(name, flags)?);
    file.write_all(bytes)?;
    file.rewind()?;
    let seals = SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL;
    rustix::fs::fcntl_add_seals(&file, seals)?;
    Ok(file)
}

/// A pipe whose reading end, ours, never blocks.
fn pipe() -> io::Result<(File, OwnedFd)> {
    let (ours, theirs) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    rustix::fs::fcntl_setfl(&ours, OFlags::NONBLOCK)?;
    Ok((File::from(ours), theirs))
}

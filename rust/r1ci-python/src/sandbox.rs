//! `r1ci-sandbox` for Python: requests in, plain dictionaries out, the interpreter lock released
//! while scripts run. `r1ci_engine/sandbox/` is the face; nothing else imports this.

use std::os::fd::{AsRawFd, RawFd};
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use pyo3::prelude::*;
use pyo3::types::PyDict;
use r1ci_sandbox::{
    Execution, Layer, Limits, Received, ReceivedTurn, Request, Sandbox, SandboxConfig,
    SandboxError, Session, SessionConfig,
};

/// Adds the class and functions of this file to the module.
pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<Supervisor>()?;
    module.add_class::<Batch>()?;
    module.add_class::<SessionState>()?;
    module.add_function(wrap_pyfunction!(landlock_abi, module)?)?;
    Ok(())
}

/// Landlock version of the running kernel, 0 for none.
#[pyfunction]
fn landlock_abi() -> i32 {
    r1ci_sandbox::landlock_abi()
}

/// How long a wait may go on before Python gets to handle its signals.
const SLICE: Duration = Duration::from_millis(50);

/// Warm interpreters and the threads that watch them.
#[pyclass(frozen, module = "r1ci_engine._rust")]
struct Supervisor {
    sandbox: Sandbox,
    #[pyo3(get)]
    workers: usize,
}

/// Requests that belong together, received as they finish; given up when it is closed or freed.
#[pyclass(frozen, module = "r1ci_engine._rust")]
struct Batch {
    batch: Mutex<Option<r1ci_sandbox::Batch>>,
}

/// Where a session is. Freed, it lets go of that.
#[pyclass(frozen, module = "r1ci_engine._rust")]
struct SessionState {
    session: Session,
}

/// `r1ci_engine.sandbox.Limits`, read by attribute.
#[derive(FromPyObject)]
struct PyLimits {
    cpu_s: f64,
    wall_s: f64,
    memory_mb: u64,
    output_bytes: usize,
    file_mb: u64,
    open_files: u64,
    threads: u64,
    processes: u64,
}

/// `r1ci_engine.sandbox.ExecutionRequest` in bytes, read by attribute.
#[derive(FromPyObject)]
struct PyRequest {
    code: Vec<u8>,
    stdin: Vec<u8>,
    seed: u64,
    limits: Option<PyLimits>,
    files: Vec<(String, Vec<u8>)>,
    fetch: Vec<String>,
}

#[pymethods]
impl Supervisor {
    #[new]
    #[expect(
        clippy::too_many_arguments,
        clippy::needless_pass_by_value,
        reason = "the fields of SandboxConfig, by name, as PyO3 hands them over"
    )]
    #[pyo3(signature = (*, python, library_paths, read_only, preload, workers, limits, required, sessions, session_idle_s, session_memory_mb, work_mb, work_files))]
    fn new(
        py: Python<'_>,
        python: PathBuf,
        library_paths: Vec<PathBuf>,
        read_only: Vec<PathBuf>,
        preload: Vec<String>,
        workers: usize,
        limits: PyLimits,
        required: Vec<String>,
        sessions: usize,
        session_idle_s: f64,
        session_memory_mb: u64,
        work_mb: u64,
        work_files: u64,
    ) -> PyResult<Self> {
        let mut config = SandboxConfig::new(python);
        config.library_paths = library_paths;
        config.read_only = read_only;
        config.preload = preload;
        config.limits = to_limits(&limits);
        config.sessions = sessions;
        config.session_idle = duration(session_idle_s);
        config.session_bytes = session_memory_mb.saturating_mul(1 << 20);
        config.scratch_bytes = work_mb.saturating_mul(1 << 20);
        config.scratch_files = work_files;
        if workers > 0 {
            config.workers = workers;
        }
        let layers: Result<Vec<Layer>, _> = required.iter().map(|name| name.parse()).collect();
        config.required = layers.map_err(|error| to_python(py, &error))?;
        let workers = config.workers;
        let sandbox = py.detach(|| Sandbox::start(config));
        let sandbox = sandbox.map_err(|error| to_python(py, &error))?;
        Ok(Self { sandbox, workers })
    }

    /// Names of the layers in force.
    #[getter]
    fn layers(&self) -> Vec<&'static str> {
        self.sandbox
            .layers()
            .iter()
            .map(|layer| layer.name())
            .collect()
    }

    /// Layers that are not in force, each with the reason.
    #[getter]
    fn missing(&self) -> Vec<(&'static str, String)> {
        let missing = self.sandbox.missing().iter();
        missing
            .map(|(layer, reason)| (layer.name(), reason.clone()))
            .collect()
    }

    /// Version of the interpreter that scripts run in.
    #[getter]
    fn python(&self) -> String {
        self.sandbox.python().to_owned()
    }

    /// Run all; results in the order of the requests.
    fn run_many<'py>(
        &self,
        py: Python<'py>,
        requests: Vec<PyRequest>,
    ) -> PyResult<Vec<Bound<'py, PyDict>>> {
        let requests: Vec<Request> = requests.into_iter().map(to_request).collect();
        let mut results: Vec<Option<Box<Execution>>> = vec![None; requests.len()];
        let batch = self.sandbox.start_batch(requests);
        let mut batch = batch.map_err(|error| to_python(py, &error))?;
        // Leaving early, for an exception that a signal brought, takes the rest back.
        let mut next = |slice| batch.receive(slice);
        while let Some((place, execution)) = receive(py, Duration::MAX, &mut next)? {
            results[place] = Some(execution);
            py.check_signals()?;
        }
        let results = results.into_iter().flatten();
        results.map(|execution| to_dict(py, &execution)).collect()
    }

    /// A session that has run nothing yet.
    fn open_session(
        &self,
        py: Python<'_>,
        limits: Option<PyLimits>,
        seed: u64,
    ) -> PyResult<SessionState> {
        let limits = limits.map(|limits| to_limits(&limits));
        let config = SessionConfig { limits, seed };
        let session = self.sandbox.open_session(config);
        let session = session.map_err(|error| to_python(py, &error))?;
        Ok(SessionState { session })
    }

    /// Queue one turn from `state`: its ticket, and where it leads if the result is kept.
    fn submit_turn(
        &self,
        py: Python<'_>,
        state: &SessionState,
        request: PyRequest,
    ) -> PyResult<(u64, SessionState)> {
        let submitted = self
            .sandbox
            .submit_turn(&state.session, to_request(request));
        let (ticket, session) = submitted.map_err(|error| to_python(py, &error))?;
        Ok((ticket, SessionState { session }))
    }

    /// Run turns that all start from `state`; results, and the states after them, in their order.
    fn run_turns<'py>(
        &self,
        py: Python<'py>,
        state: &SessionState,
        requests: Vec<PyRequest>,
    ) -> PyResult<Vec<(Bound<'py, PyDict>, SessionState)>> {
        let requests: Vec<Request> = requests.into_iter().map(to_request).collect();
        let turns = self.sandbox.start_turns(&state.session, requests);
        let mut turns = turns.map_err(|error| to_python(py, &error))?;
        let mut ended: Vec<_> = (0..turns.outstanding()).map(|_| None).collect();
        loop {
            match py.detach(|| turns.receive(SLICE)) {
                ReceivedTurn::Result(place, execution, session) => {
                    ended[place] = Some((execution, session));
                }
                ReceivedTurn::Waiting => {}
                ReceivedTurn::Done => break,
                ReceivedTurn::Lost(error) => return Err(to_python(py, &error)),
            }
            py.check_signals()?;
        }
        let ended = ended.into_iter().flatten();
        let convert = |(execution, session): (Box<Execution>, Session)| {
            Ok((to_dict(py, &execution)?, SessionState { session }))
        };
        ended.map(convert).collect()
    }

    /// An empty batch.
    fn start_batch(&self, py: Python<'_>) -> PyResult<Batch> {
        let batch = self.sandbox.start_batch(Vec::new());
        let batch = batch.map_err(|error| to_python(py, &error))?;
        Ok(Batch {
            batch: Mutex::new(Some(batch)),
        })
    }

    /// Queue one; the ticket under which `collect` returns it.
    fn submit(&self, py: Python<'_>, request: PyRequest) -> PyResult<u64> {
        let ticket = self.sandbox.submit(to_request(request));
        ticket.map_err(|error| to_python(py, &error))
    }

    /// Take a submitted one back.
    fn cancel(&self, py: Python<'_>, ticket: u64) -> PyResult<()> {
        let cancelled = self.sandbox.cancel(ticket);
        cancelled.map_err(|error| to_python(py, &error))
    }

    /// Readable while `collect` has something to return; the number of no file after `close`.
    fn fileno(&self, py: Python<'_>) -> PyResult<RawFd> {
        let descriptor = self.sandbox.finished_fd();
        let descriptor = descriptor.map_err(|error| to_python(py, &error))?;
        Ok(descriptor.as_raw_fd())
    }

    /// What has finished of the submitted ones, after at most `timeout_s` of waiting.
    fn collect<'py>(
        &self,
        py: Python<'py>,
        timeout_s: f64,
    ) -> PyResult<Vec<(u64, Bound<'py, PyDict>)>> {
        let mut left = duration(timeout_s);
        loop {
            let slice = left.min(SLICE);
            let begun = std::time::Instant::now();
            let finished = py.detach(|| self.sandbox.collect(slice));
            let finished = finished.map_err(|error| to_python(py, &error))?;
            // What is finished must not get lost to an exception that a signal brings.
            if finished.is_empty() {
                py.check_signals()?;
            }
            left = left.saturating_sub(slice);
            // Back early and empty-handed: nothing is outstanding.
            if !finished.is_empty() || left.is_zero() || begun.elapsed() < slice {
                let convert = |(ticket, execution)| Ok((ticket, to_dict(py, &execution)?));
                return finished.into_iter().map(convert).collect();
            }
        }
    }

    /// Stop everything.
    fn close(&self, py: Python<'_>) {
        py.detach(|| self.sandbox.close());
    }
}

#[pymethods]
impl Batch {
    /// Queue one more; its place is the number of those before it.
    fn add(&self, py: Python<'_>, request: PyRequest) -> PyResult<()> {
        let request = to_request(request);
        let added = py.detach(|| match self.lock().as_mut() {
            Some(batch) => batch.add(vec![request]),
            None => Err(SandboxError::Closed),
        });
        added.map_err(|error| to_python(py, &error))
    }

    /// The next one that finishes within `timeout_s` (None: whenever that is) and its place; None
    /// when none does or there are no more.
    #[pyo3(signature = (timeout_s = None))]
    fn receive<'py>(
        &self,
        py: Python<'py>,
        timeout_s: Option<f64>,
    ) -> PyResult<Option<(usize, Bound<'py, PyDict>)>> {
        let mut next = |slice| match self.lock().as_mut() {
            Some(batch) => batch.receive(slice),
            None => Received::Done,
        };
        let received = receive(py, timeout_s.map_or(Duration::MAX, duration), &mut next)?;
        received
            .map(|(place, execution)| Ok((place, to_dict(py, &execution)?)))
            .transpose()
    }

    /// Take back what has not begun, kill what runs.
    fn close(&self, py: Python<'_>) {
        py.detach(|| drop(self.lock().take()));
    }
}

impl Batch {
    /// Never taken while the interpreter lock is held: another thread may wait in `receive`.
    fn lock(&self) -> MutexGuard<'_, Option<r1ci_sandbox::Batch>> {
        self.batch.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Wait in slices, between which Python handles its signals. None: no result within `timeout`, or
/// no more at all.
fn receive(
    py: Python<'_>,
    timeout: Duration,
    next: &mut (impl FnMut(Duration) -> Received + Send),
) -> PyResult<Option<(usize, Box<Execution>)>> {
    let mut left = timeout;
    loop {
        let slice = left.min(SLICE);
        match py.detach(|| next(slice)) {
            Received::Result(place, execution) => return Ok(Some((place, execution))),
            Received::Waiting => py.check_signals()?,
            Received::Done => return Ok(None),
            Received::Lost(error) => return Err(to_python(py, &error)),
        }
        left = left.saturating_sub(slice);
        if left.is_zero() {
            return Ok(None);
        }
    }
}

fn duration(seconds: f64) -> Duration {
    // A hundred years stand for infinity: they still fit when added to a clock.
    Duration::try_from_secs_f64(seconds.clamp(0.0, 3.2e9)).unwrap_or_default()
}

fn to_limits(limits: &PyLimits) -> Limits {
    Limits {
        cpu: duration(limits.cpu_s),
        wall: duration(limits.wall_s),
        memory_bytes: limits.memory_mb.saturating_mul(1 << 20),
        output_bytes: limits.output_bytes,
        file_bytes: limits.file_mb.saturating_mul(1 << 20),
        open_files: limits.open_files,
        threads: limits.threads,
        processes: limits.processes,
    }
}

fn to_request(request: PyRequest) -> Request {
    Request {
        code: request.code,
        stdin: request.stdin,
        seed: request.seed,
        limits: request.limits.as_ref().map(to_limits),
        files: request.files,
        fetch: request.fetch,
    }
}

/// The keyword arguments of `r1ci_engine.sandbox.ExecutionResult`.
fn to_dict<'py>(py: Python<'py>, execution: &Execution) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    let (stdout, stdout_cut) = execution.stdout.text();
    let (stderr, stderr_cut) = execution.stderr.text();
    dict.set_item("stdout", stdout)?;
    dict.set_item("stderr", stderr)?;
    dict.set_item("exit_reason", execution.exit_reason.name())?;
    dict.set_item("exit_code", execution.exit_code)?;
    dict.set_item("signal", execution.signal)?;
    dict.set_item("wall_s", execution.wall.as_secs_f64())?;
    dict.set_item("cpu_s", execution.cpu.as_secs_f64())?;
    dict.set_item(
        "peak_rss_mb",
        execution.peak_rss_bytes as f64 / f64::from(1 << 20),
    )?;
    dict.set_item("stdout_dropped", execution.stdout.dropped)?;
    dict.set_item("stderr_dropped", execution.stderr.dropped)?;
    dict.set_item("stdout_cut", stdout_cut)?;
    dict.set_item("stderr_cut", stderr_cut)?;
    let exception = execution.exception.as_ref();
    dict.set_item("exception_type", exception.map(|e| &e.kind))?;
    dict.set_item("exception_message", exception.map(|e| &e.message))?;
    dict.set_item("denied_call", &execution.denied_call)?;
    let files = PyDict::new(py);
    for (path, contents) in &execution.files {
        files.set_item(path, pyo3::types::PyBytes::new(py, contents))?;
    }
    dict.set_item("files", files)?;
    dict.set_item("kept", execution.kept)?;
    let layers: Vec<&str> = execution.layers.iter().map(|layer| layer.name()).collect();
    dict.set_item("layers", pyo3::types::PyTuple::new(py, layers)?)?;
    dict.set_item("detail", &execution.detail)?;
    Ok(dict)
}

/// The Python error for a Rust one: `r1ci_engine.errors.SandboxError` with its hint.
fn to_python(py: Python<'_>, error: &SandboxError) -> PyErr {
    let raised = py.import("r1ci_engine.errors").and_then(|errors| {
        errors
            .getattr("SandboxError")?
            .call1((error.to_string(), error.hint()))
    });
    match raised {
        Ok(value) => PyErr::from_value(value),
        Err(error) => error,
    }
}

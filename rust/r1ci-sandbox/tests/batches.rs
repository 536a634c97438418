//! Batches that grow and are given up, and the descriptor that says when to collect.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use r1ci_sandbox::{Batch, Execution, ExitReason, Received, Request, Sandbox, SandboxConfig};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

const LONG: Duration = Duration::from_secs(60);

fn start(workers: usize) -> Sandbox {
    let mut config = SandboxConfig::new("python3");
    config.workers = workers;
    Sandbox::start(config).expect("sandbox")
}

fn printing(number: usize) -> Request {
    Request::new(format!("print({number})"))
}

fn endless() -> Request {
    Request::new("print('begun', flush=True)\nwhile True: pass")
}

fn stdout(execution: &Execution) -> String {
    execution.stdout.text().0
}

fn receive(batch: &mut Batch) -> (usize, Execution) {
    match batch.receive(LONG) {
        Received::Result(place, execution) => (place, *execution),
        other => panic!("{other:?}"),
    }
}

fn readable(handle: impl AsFd, timeout: Duration) -> bool {
    let timeout = Timespec::try_from(timeout).expect("a short time");
    let mut handles = [PollFd::new(&handle, PollFlags::IN)];
    poll(&mut handles, Some(&timeout)).expect("poll") == 1
}

#[test]
fn a_batch_grows_and_ends_when_all_is_received() {
    let sandbox = start(2);
    let mut batch = sandbox.start_batch(Vec::new()).expect("batch");
    assert!(matches!(batch.receive(LONG), Received::Done));
    for round in 0..3 {
        batch
            .add(vec![printing(2 * round), printing(2 * round + 1)])
            .expect("add");
        assert_eq!(batch.outstanding(), 2);
        for _ in 0..2 {
            let (place, execution) = receive(&mut batch);
            assert!(place / 2 == round, "{place} in round {round}");
            assert_eq!(stdout(&execution), format!("{place}\n"));
        }
        assert!(matches!(batch.receive(LONG), Received::Done));
    }
}

#[test]
fn a_batch_that_is_cancelled_is_still_received() {
    let sandbox = start(1);
    let mut batch = sandbox.start_batch(vec![endless(); 4]).expect("batch");
    let other = sandbox.submit(printing(7)).expect("submit");
    std::thread::sleep(Duration::from_millis(300));
    batch.cancel().expect("cancel");
    let mut results: Vec<_> = (0..4).map(|_| receive(&mut batch)).collect();
    results.sort_by_key(|(place, _)| *place);
    for (_, execution) in &results {
        assert_eq!(execution.exit_reason, ExitReason::Cancelled);
    }
    assert_eq!(stdout(&results[0].1), "begun\n");
    assert_eq!(stdout(&results[3].1), "");
    let collected = sandbox.collect(LONG).expect("collect");
    assert_eq!(collected[0].0, other);
    assert_eq!(stdout(&collected[0].1), "7\n");
}

#[test]
fn a_batch_that_is_dropped_gives_its_place_away() {
    let sandbox = start(1);
    let mut batch = sandbox.start_batch(vec![endless(); 10_000]).expect("batch");
    assert!(matches!(
        batch.receive(Duration::from_millis(200)),
        Received::Waiting
    ));
    drop(batch);
    // Each would take ten seconds of CPU time.
    let begun = Instant::now();
    assert_eq!(stdout(&sandbox.run(printing(1)).expect("run")), "1\n");
    assert!(begun.elapsed() < Duration::from_secs(5));
}

#[test]
fn a_batch_outlives_its_sandbox_and_says_so() {
    let sandbox = start(1);
    let mut batch = sandbox.start_batch(vec![endless(); 2]).expect("batch");
    std::thread::sleep(Duration::from_millis(200));
    drop(sandbox);
    for _ in 0..2 {
        let (_, execution) = receive(&mut batch);
        assert_eq!(execution.exit_reason, ExitReason::Infrastructure);
        assert!(!execution.layers.is_empty());
    }
    assert!(matches!(batch.receive(LONG), Received::Done));
    let refused = batch.add(vec![printing(1)]);
    assert!(refused.is_err() && batch.cancel().is_err());
    assert!(matches!(batch.receive(LONG), Received::Done));
}

#[test]
fn a_descriptor_is_readable_while_there_is_something_to_collect() {
    let sandbox = start(2);
    let handle = sandbox.finished_fd().expect("a descriptor");
    sandbox.run(printing(1)).expect("run");
    assert!(!readable(&handle, Duration::from_millis(50)));
    for _ in 0..2 {
        sandbox.submit(printing(2)).expect("submit");
        sandbox.submit(printing(3)).expect("submit");
        let mut collected = 0;
        while collected < 2 {
            assert!(readable(&handle, LONG));
            assert!(readable(&handle, Duration::ZERO), "looking takes nothing");
            collected += sandbox.collect(Duration::ZERO).expect("collect").len();
        }
        assert!(!readable(&handle, Duration::from_millis(50)));
    }
    drop(sandbox);
    assert!(readable(&handle, Duration::ZERO), "the end is news, too");
}

#[test]
fn a_descriptor_asked_for_late_tells_what_was_before() {
    let sandbox = start(1);
    sandbox.submit(printing(1)).expect("submit");
    std::thread::sleep(Duration::from_millis(500));
    let handle = sandbox.finished_fd().expect("a descriptor");
    assert!(readable(&handle, LONG));
    assert_eq!(sandbox.collect(Duration::ZERO).expect("collect").len(), 1);
    assert!(!readable(&handle, Duration::ZERO));
}

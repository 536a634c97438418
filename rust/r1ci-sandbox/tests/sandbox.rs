//! The sandbox as an embedding program sees it. Needs only a `python3` on the path.

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use r1ci_sandbox::{
    Execution, ExitReason, Layer, Limits, Request, Sandbox, SandboxConfig, SandboxError,
};

fn start(workers: usize) -> Sandbox {
    let mut config = SandboxConfig::new("python3");
    config.workers = workers;
    Sandbox::start(config).expect("sandbox")
}

fn run(sandbox: &Sandbox, code: &str) -> Execution {
    sandbox.run(Request::new(code)).expect("run")
}

fn stdout(execution: &Execution) -> String {
    execution.stdout.text().0
}

fn stderr(execution: &Execution) -> String {
    execution.stderr.text().0
}

#[test]
fn a_script_runs_and_says_under_what() {
    let sandbox = start(1);
    let execution = run(&sandbox, "print(6 * 7)");
    assert_eq!(stdout(&execution), "42\n");
    assert_eq!(execution.exit_reason, ExitReason::Ok);
    assert_eq!((execution.exit_code, execution.signal), (Some(0), None));
    assert_eq!(execution.detail, "");
    assert!(execution.peak_rss_bytes > 1 << 20);
    let alone = sandbox.layers().iter().copied();
    // Groups are for executions that may be several processes.
    let alone: Vec<Layer> = alone.filter(|layer| *layer != Layer::Cgroup).collect();
    assert_eq!(execution.layers, alone);
    assert!(execution.layers.contains(&Layer::Seccomp));
}

#[test]
fn exits_are_mapped_as_the_interpreter_maps_them() {
    let sandbox = start(1);
    for (code, status) in [
        ("import sys; sys.exit(None)", 0),
        ("import sys; sys.exit(3)", 3),
        ("import sys; sys.exit(257)", 1),
        ("import sys; sys.exit('text')", 1),
        ("import sys; sys.exit(True)", 1),
        ("raise SystemExit(-1)", 255),
        ("exit(4)", 4),
        ("quit()", 0),
        ("1 / 0", 1),
        ("return 5", 1),
        ("await x", 1),
        ("import os; os._exit(9)", 9),
    ] {
        assert_eq!(run(&sandbox, code).exit_code, Some(status), "{code}");
    }
}

#[test]
fn a_script_finds_signals_as_a_fresh_interpreter_has_them() {
    let sandbox = start(1);
    let shown = run(
        &sandbox,
        "import signal\nfor n in sorted(signal.valid_signals()):\n    \
         if signal.getsignal(n) not in (signal.SIG_DFL, None): print(n, signal.getsignal(n))",
    );
    let text = stdout(&shown);
    assert!(text.contains("default_int_handler"), "{text}");
    assert!(!text.contains("lambda"), "{text}");
    let execution = run(
        &sandbox,
        "import os, signal\nos.kill(os.getpid(), signal.SIGTERM)\nwhile True: pass",
    );
    assert_eq!(execution.exit_reason, ExitReason::Killed);
    assert_eq!(execution.signal, Some(15));
}

#[test]
fn tracebacks_show_the_script_and_no_host_path() {
    let sandbox = start(1);
    let execution = run(
        &sandbox,
        "import json\ndef f():\n    json.loads('{')\nf()\n",
    );
    let text = stderr(&execution);
    assert!(text.starts_with("Traceback (most recent call last):\n  File \"script.py\", line 4"));
    assert!(text.contains("    json.loads('{')"), "{text}");
    assert!(text.contains("json.decoder.JSONDecodeError"), "{text}");
    assert!(!text.contains("\"/"), "{text}");
    assert!(!text.contains("run_script"), "{text}");
}

#[test]
fn odd_sources_are_the_script_s_own_fault() {
    let sandbox = start(1);
    let deep = format!("{}{}", "(".repeat(100_000), ")".repeat(100_000));
    for source in [
        b"print(1)\0".to_vec(),
        b"# coding: klingon\nprint(1)".to_vec(),
        b"print('\xff')".to_vec(),
        deep.into_bytes(),
        b"if 1:\n\tx = 1\n        y = 2\n".to_vec(),
    ] {
        let execution = sandbox.run(Request::new(source)).expect("run");
        assert_eq!(
            execution.exit_reason,
            ExitReason::Error,
            "{}",
            stderr(&execution)
        );
        assert_eq!(execution.exit_code, Some(1));
    }
    for source in [
        b"\xef\xbb\xbfprint(1)".to_vec(),
        b"print(1)\r\n".to_vec(),
        b"# coding: latin-1\nprint(len('\xe9'))".to_vec(),
        [b"print(1)#".to_vec(), vec![b'x'; 10 << 20]].concat(),
    ] {
        let execution = sandbox.run(Request::new(source)).expect("run");
        assert_eq!(stdout(&execution), "1\n", "{}", stderr(&execution));
    }
    let execution = sandbox
        .run(Request::new(vec![b'#'; 65 << 20]))
        .expect("run");
    assert_eq!(execution.exit_reason, ExitReason::Refused);
}

#[test]
fn input_is_read_and_ends() {
    let sandbox = start(1);
    let mut request = Request::new("import sys; print(len(sys.stdin.read()), sys.stdin.read())");
    assert_eq!(stdout(&sandbox.run(request.clone()).expect("run")), "0 \n");
    request.stdin = vec![b'x'; 3 << 20];
    assert_eq!(
        stdout(&sandbox.run(request.clone()).expect("run")),
        "3145728 \n"
    );
    request.code = b"print('never read')".to_vec();
    assert_eq!(stdout(&sandbox.run(request).expect("run")), "never read\n");
}

#[test]
fn output_is_kept_up_to_the_cap_and_at_every_kill() {
    let sandbox = start(1);
    let execution = run(&sandbox, "print('a' * 1_500_000 + 'b' * 1_500_000)");
    assert_eq!(execution.exit_reason, ExitReason::Ok);
    assert_eq!(execution.stdout.bytes.len(), 64 << 10);
    assert_eq!(execution.stdout.cut, 32 << 10);
    assert_eq!(execution.stdout.dropped, 3_000_001 - (64 << 10));
    assert!(execution.stdout.bytes.starts_with(b"aaaa"));
    assert!(execution.stdout.bytes.ends_with(b"bbbb\n"));

    let mut request = Request::new("print('part', end='')\nimport time\ntime.sleep(60)");
    request.limits = Some(Limits {
        wall: Duration::from_millis(200),
        ..Limits::default()
    });
    let begun = Instant::now();
    let execution = sandbox.run(request).expect("run");
    assert_eq!(execution.exit_reason, ExitReason::Timeout);
    assert_eq!(stdout(&execution), "part");
    assert!(begun.elapsed() < Duration::from_secs(5));
}

#[test]
fn results_come_in_the_order_of_the_requests() {
    let sandbox = start(2);
    let requests = (0..20)
        .map(|index| {
            let pause = if index % 3 == 0 { 0.02 } else { 0.0 };
            Request::new(format!("import time; time.sleep({pause}); print({index})"))
        })
        .collect();
    for (index, execution) in sandbox.run_many(requests).expect("run").iter().enumerate() {
        assert_eq!(stdout(execution), format!("{index}\n"));
    }
}

#[test]
fn submitted_scripts_are_collected_once_each() {
    let sandbox = start(2);
    assert_eq!(
        sandbox.collect(Duration::from_secs(60)).expect("collect"),
        vec![]
    );
    let mut tickets: Vec<u64> = (0..10)
        .map(|index| {
            sandbox
                .submit(Request::new(format!("print({index})")))
                .expect("submit")
        })
        .collect();
    let mut collected = Vec::new();
    while collected.len() < tickets.len() {
        collected.extend(sandbox.collect(Duration::from_secs(60)).expect("collect"));
    }
    for (ticket, execution) in &collected {
        let index = tickets
            .iter()
            .position(|known| known == ticket)
            .expect("a known ticket");
        assert_eq!(stdout(execution), format!("{index}\n"));
    }
    collected.sort_by_key(|(ticket, _)| *ticket);
    tickets.sort_unstable();
    assert!(collected.iter().map(|(ticket, _)| ticket).eq(&tickets));
}

#[test]
fn seeds_decide_what_is_random() {
    let sandbox = start(2);
    let draw = |seed| {
        let mut request = Request::new("import random; print(random.random(), hash('x'))");
        request.seed = seed;
        stdout(&sandbox.run(request).expect("run"))
    };
    assert_eq!(draw(7), draw(7));
    assert_ne!(draw(7), draw(8));
}

#[test]
fn a_missing_layer_fails_closed() {
    for layer in [
        Layer::Landlock,
        Layer::LandlockScope,
        Layer::Seccomp,
        Layer::Namespaces,
    ] {
        let mut config = SandboxConfig::new("python3");
        config.workers = 1;
        config.without = vec![layer];
        config.required = vec![Layer::NoNewPrivs, layer];
        match Sandbox::start(config) {
            Err(SandboxError::MissingLayer { layer: missing, .. }) => assert_eq!(missing, layer),
            Err(error) => panic!("{error}"),
            Ok(_) => panic!("started without {layer}"),
        }
    }
    assert!("landlok".parse::<Layer>().is_err());
}

#[test]
fn what_cannot_start_says_why() {
    let fails = |config: SandboxConfig| match Sandbox::start(config) {
        Err(error) => error.to_string(),
        Ok(_) => panic!("started"),
    };
    let text = fails(SandboxConfig::new("/nonexistent/python"));
    assert!(text.contains("No such file"), "{text}");
    let mut config = SandboxConfig::new("python3");
    config.preload = vec!["no_such_module".into()];
    let text = fails(config);
    assert!(text.contains("No module named 'no_such_module'"), "{text}");
    let text = fails(SandboxConfig::new("/bin/false"));
    assert!(text.contains("ended before it was ready"), "{text}");
    let mut config = SandboxConfig::new("python3");
    config.limits.cpu = Duration::ZERO;
    assert!(matches!(
        Sandbox::start(config),
        Err(SandboxError::Limit { name: "cpu" })
    ));
}

/// Process numbers of the interpreters of this test process, by what they print.
fn parent_of(sandbox: &Sandbox) -> i32 {
    stdout(&run(sandbox, "import os; print(os.getppid())"))
        .trim()
        .parse()
        .expect("a number")
}

#[test]
fn a_killed_interpreter_is_replaced_and_nothing_is_lost_or_run_twice() {
    let sandbox = start(1);
    let first = parent_of(&sandbox);
    let kill = |pid: i32| {
        let status = Command::new("kill").args(["-9", &pid.to_string()]).status();
        assert!(status.expect("kill").success());
    };
    kill(first);
    // Idle when it died: the next request finds out before its script starts, and is tried again.
    let second = parent_of(&sandbox);
    assert_ne!(first, second);

    let ticket = sandbox
        .submit(Request::new(
            "print('begun', flush=True)\nimport time\ntime.sleep(60)",
        ))
        .expect("submit");
    std::thread::sleep(Duration::from_millis(500));
    kill(second);
    let results = sandbox.collect(Duration::from_secs(30)).expect("collect");
    assert_eq!(results.len(), 1);
    assert_eq!(results[0].0, ticket);
    // It had begun: running it again would be running it twice.
    assert_eq!(results[0].1.exit_reason, ExitReason::Infrastructure);
    assert_eq!(run(&sandbox, "print(1)").exit_reason, ExitReason::Ok);
}

#[test]
fn closing_ends_what_runs_and_answers_what_waits() {
    let sandbox = start(1);
    let mut batch = sandbox
        .start_batch(vec![Request::new("import time; time.sleep(60)"); 3])
        .expect("batch");
    std::thread::sleep(Duration::from_millis(200));
    let begun = Instant::now();
    sandbox.close();
    assert!(begun.elapsed() < Duration::from_secs(5));
    let mut answers = 0;
    while let r1ci_sandbox::Received::Result(_, execution) = batch.receive(Duration::from_secs(5)) {
        assert_eq!(execution.exit_reason, ExitReason::Infrastructure);
        answers += 1;
    }
    assert_eq!(answers, 3);
    assert!(matches!(
        sandbox.run(Request::new("1")),
        Err(SandboxError::Closed)
    ));
}

#[test]
fn the_scratch_folder_is_writable_and_empty_every_time() {
    for without in [vec![], vec![Layer::Namespaces]] {
        let mut config = SandboxConfig::new("python3");
        config.workers = 1;
        config.without = without;
        let sandbox = Sandbox::start(config).expect("sandbox");
        let code = "import os, tempfile\n\
            print(os.listdir('.'))\n\
            open('a', 'w').write('x'); os.makedirs('d/e'); tempfile.mkstemp()\n\
            print(sorted(os.listdir('.'))[0], open('a').read())";
        for _ in 0..2 {
            let execution = run(&sandbox, code);
            assert_eq!(stdout(&execution), "[]\na x\n", "{}", stderr(&execution));
        }
        let cwd = stdout(&run(&sandbox, "import os; print(os.getcwd())"));
        drop(sandbox);
        assert!(!fs::exists(cwd.trim()).expect("a path"), "{cwd} is left");
    }
}

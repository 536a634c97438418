"""A caller that is out of descriptors: scripts wait for some, and hear of it if there are none."""

import subprocess
import sys

import pytest

PROGRAM = """
import os, resource, sys, threading, time
from r1ci_engine.sandbox import Sandbox
resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))
with Sandbox(workers=1) as sandbox:
    sandbox.run("1")
    session = sandbox.open_session()
    session.run("x = 4")
    held = []
    try:
        while True:
            held.append(os.open(os.devnull, os.O_RDONLY))
    except OSError:
        os.close(held.pop())
    release = lambda: [os.close(held.pop()) for _ in list(held)]
    if sys.argv[1] == "later":
        threading.Timer(0.5, release).start()
    began = time.monotonic()
    result = sandbox.run("print(2)")
    release()
    print(result.exit_reason, time.monotonic() - began < 20, sandbox.run("print(3)").stdout)
    print(session.run("print(x)").stdout)
"""


@pytest.mark.parametrize(("when", "verdict"), [("later", "ok"), ("never", "infrastructure")])
def test_who_is_out_of_descriptors_waits_and_then_hears_of_it(when: str, verdict: str) -> None:
    command = [sys.executable, "-c", PROGRAM, when]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.split() == [verdict, "True", "3", "4"], done.stderr

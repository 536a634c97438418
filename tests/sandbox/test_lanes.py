"""The sandbox behaves the same for an ordinary user and in a container as it does for root.

The tests of its behaviour run there as they are, each lane in a process of its own.
"""

import json
import os
import subprocess
from pathlib import Path

import pytest
from sandbox_world import CONTAINER, PLAIN_USER, USER_IN_CONTAINER, Lane

LAYERS = """
import json
from r1ci_engine.sandbox import Sandbox
with Sandbox(workers=1) as sandbox:
    print(json.dumps(sandbox.layers))
"""
ALWAYS = {"seccomp", "no_new_privs", "rlimits", "no_capabilities"}
TESTS = ["test_sandbox.py", "test_files.py", "test_sessions.py"]
LANES = [PLAIN_USER, CONTAINER, USER_IN_CONTAINER]


@pytest.mark.parametrize("lane", LANES, ids=lambda lane: lane.name)
def test_the_behaviour_is_the_same(lane: Lane) -> None:
    if reason := lane.missing():
        pytest.skip(reason)
    with lane.command("-c", LAYERS) as (arguments, environment):
        done = subprocess.run(
            arguments, env=environment, capture_output=True, text=True, timeout=60
        )
    assert done.returncode == 0, done.stderr
    layers = set(json.loads(done.stdout))
    assert layers >= ALWAYS
    assert not (lane.in_container and layers & {"namespaces", "own_namespaces"})
    assert not (lane.as_user and "private_uid" in layers)

    tests = [str(Path(__file__).with_name(name)) for name in TESTS]
    options = ["-q", "--no-header", "-p", "no:cacheprovider", "-k", "not bench"]
    with lane.command("-m", "pytest", *options, *tests) as (arguments, environment):
        done = subprocess.run(
            arguments, env=environment, capture_output=True, text=True, timeout=280
        )
        left = [name for name in os.listdir(environment["TMPDIR"]) if "sandbox" in name]
    assert done.returncode == 0, done.stdout[-6000:]
    assert left == [], "work folders left behind"

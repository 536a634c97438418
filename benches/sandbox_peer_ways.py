"""The ways to run a script that `sandbox_peers.py` compares: ours and its peers'.

Each checks every output; whatever keeps it from running, or from running right, is `NotMeasured`.
"""

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from pathlib import Path
from typing import Any, Self

from sandbox_peer_worker import timed

from r1ci_engine.sandbox import ExecutionRequest, ExitReason, Limits, Sandbox

OURS = "ours"


class NotMeasured(Exception):
    """A peer is not there, or cannot run a script; says why."""


class Peer:
    """A way to run scripts. This one calls `run`, from threads when several go at once."""

    version = ""

    def __init__(self, name: str, at_once: int) -> None:
        self.name, self.at_once = name, at_once

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def run(self, code: str) -> str:
        """What the script prints. Raises NotMeasured when it fails."""
        raise NotImplementedError

    def alone(self, code: str, right: str, least: int, seconds: float) -> list[float]:
        """Seconds of each of `least` runs or more, one at a time, for at least `seconds`."""
        try:
            return timed(self.run, code, right, least, seconds)
        except ValueError as error:
            raise NotMeasured(str(error)) from None

    def together(self, code: str, right: str, count: int) -> float:
        """Seconds that `count` runs take side by side."""
        with ThreadPoolExecutor(self.at_once) as pool:
            list(pool.map(time.sleep, [0.01] * self.at_once))  # its threads are up
            begun = time.perf_counter()
            printed = list(pool.map(self.run, [code] * count))
            seconds = time.perf_counter() - begun
        _check(printed, right)
        return seconds


class Ours(Peer):
    """This engine's sandbox."""

    def __init__(self, name: str, at_once: int, limits: Limits) -> None:
        super().__init__(name, at_once)
        self.version = metadata.version("r1ci-engine")
        self._limits = limits

    def __enter__(self) -> Self:
        self._sandbox = Sandbox(workers=self.at_once)
        if self._limits.processes and "own_namespaces" not in self._sandbox.layers:
            self._sandbox.close()
            raise NotMeasured("the layer `own_namespaces` is not in force here")
        return self

    def __exit__(self, *_: object) -> None:
        self._sandbox.close()

    def run(self, code: str) -> str:
        result = self._sandbox.run(code, limits=self._limits)
        if result.exit_reason != ExitReason.OK:
            raise NotMeasured(f"`{result.exit_reason}` {result.detail} {result.stderr[-200:]}")
        return result.stdout

    def together(self, code: str, right: str, count: int) -> float:
        requests = [ExecutionRequest(code, limits=self._limits)] * count
        begun = time.perf_counter()
        results = self._sandbox.run_many(requests)
        seconds = time.perf_counter() - begun
        _check([result.stdout for result in results], right)
        return seconds


class Command(Peer):
    """A program that starts one Python per script."""

    def __init__(self, name: str, at_once: int, program: list[str], package: str = "") -> None:
        super().__init__(name, at_once)
        self._program, self._package = program, package
        # One thread for linear algebra, as our interpreters have: it starts faster.
        self._environment = os.environ | {"OPENBLAS_NUM_THREADS": "1"}

    def __enter__(self) -> Self:
        if not self._program:
            self.version = platform.python_version()
            return self
        path = shutil.which(self._program[0])
        if path is None:
            raise NotMeasured(f"`{self._program[0]}` is not on PATH (Debian: {self._package})")
        asked = subprocess.run([path, "--version"], capture_output=True, text=True, check=False)
        self.version = (asked.stdout.split("\n")[0].split() or [""])[-1]
        return self

    def run(self, code: str) -> str:
        command = [*self._program, sys.executable, "-c", code]
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            env=self._environment,
            timeout=60,
            check=False,
        )
        if done.returncode:
            raise NotMeasured(_last_line(done.stderr) or f"exit status {done.returncode}")
        return done.stdout


class Library(Peer):
    """A Python library, timed inside worker processes of an interpreter that has it."""

    def __init__(self, name: str, at_once: int, python: str) -> None:
        super().__init__(name, at_once)
        self._python = python
        self._workers: list[subprocess.Popen[str]] = []

    def __enter__(self) -> Self:
        program = Path(__file__).with_name("sandbox_peer_worker.py")
        for _ in range(self.at_once):
            worker = subprocess.Popen(
                [self._python, str(program), self.name, sys.executable],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
            )
            self._workers.append(worker)
        try:
            greetings = [_answer(worker) for worker in self._workers]
            self.version = greetings[0]["version"]
        except NotMeasured:
            self.__exit__()
            raise NotMeasured(
                f"the interpreter for peers has no `{self.name}` (`pip install {self.name}` in an"
                " environment of its own and name its Python with --peer-python)"
            ) from None
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self._workers:
            worker.communicate()

    def alone(self, code: str, right: str, least: int, seconds: float) -> list[float]:
        self._order(self._workers[0], code, right, least, seconds)
        return _answer(self._workers[0])["walls"]

    def together(self, code: str, right: str, count: int) -> float:
        begun = time.perf_counter()
        for worker in self._workers:
            self._order(worker, code, right, count // self.at_once, 0)
        for worker in self._workers:
            _answer(worker)
        return time.perf_counter() - begun

    def _order(
        self, worker: subprocess.Popen[str], code: str, right: str, count: int, seconds: float
    ) -> None:
        assert worker.stdin is not None
        order = {"code": code, "right": right, "count": count, "seconds": seconds}
        worker.stdin.write(json.dumps(order) + "\n")
        worker.stdin.flush()


class Server(Peer):
    """A SandboxFusion server."""

    def __init__(self, name: str, at_once: int, url: str | None) -> None:
        super().__init__(name, at_once)
        self._url = url

    def __enter__(self) -> Self:
        if self._url is None:
            raise NotMeasured("no --url given")
        return self

    def run(self, code: str) -> str:
        body = json.dumps({"code": code, "language": "python", "run_timeout": 60}).encode()
        request = urllib.request.Request(
            f"{(self._url or '').rstrip('/')}/run_code", body, {"Content-Type": "application/json"}
        )
        try:
            with urllib.request.urlopen(request, timeout=90) as response:
                answer = json.load(response)
        except OSError as error:
            raise NotMeasured(f"{self._url}: {error}") from None
        if answer.get("status") != "Success":
            raise NotMeasured(f"status {answer.get('status')}: {answer.get('message')}")
        return answer["run_result"]["stdout"]


def _answer(worker: subprocess.Popen[str]) -> dict[str, Any]:
    assert worker.stdout is not None
    line = worker.stdout.readline()
    answer = json.loads(line) if line else {"failure": "it ended"}
    if "failure" in answer:
        raise NotMeasured(answer["failure"])
    return answer


def _check(printed: list[str], right: str) -> None:
    for text in printed:
        if text != right:
            raise NotMeasured(f"printed {text[:100]!r}, not {right!r}")


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or [""])[-1][:200]


def make_peers(options: argparse.Namespace) -> list[Peer]:
    n = options.at_once
    here = [word for path in (sys.prefix, sys.base_prefix) for word in ("--ro-bind", path, path)]
    bubblewrap = [
        *("bwrap", "--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc", "--tmpfs", "/tmp"),
        *(*here, "--chdir", "/tmp", "--unshare-all", "--die-with-parent", "--new-session", "--"),
    ]
    firejail = [
        *("firejail", "--quiet", "--noprofile", "--net=none", "--seccomp", "--caps.drop=all"),
        *("--nonewprivs", "--private-tmp", "--"),
    ]
    return [
        Ours(OURS, n, Limits()),
        Ours(f"{OURS}, namespaces", n, Limits(processes=1)),
        Command("python -c", n, []),
        Command("bubblewrap", n, bubblewrap, "bubblewrap"),
        Command("firejail", n, firejail, "firejail"),
        Library("sandlock", n, options.peer_python),
        Library("pydantic-monty", n, options.peer_python),
        Server("SandboxFusion", n, options.url),
    ]

"""Our sandbox and its peers side by side: how long a script takes, and how many a second.

    python benches/sandbox_peers.py --json OUT.json [--peer-python PYTHON] [--url URL]

Each peer runs the three scripts of `r1ci-engine sandbox bench` in interleaved rounds: one at a time
for latency, then as many at once as there are cores for throughput. Every output is checked.
Figures are medians over the rounds, with the lowest and highest round; a ratio is taken within
each round. A peer that loses stays in, and so does one that beats us; one that is not there is
listed as not measured, with the reason.

    ours              default layers
    ours, namespaces  the same, in a process namespace of its own (`Limits(processes=1)`)
    python -c         no isolation at all
    bubblewrap        `bwrap`, all namespaces, the host's files read-only (Debian: bubblewrap)
    firejail          no network, seccomp, no capabilities (Debian: firejail)
    sandlock          in the interpreter of --peer-python (`pip install sandlock`)
    pydantic-monty    the same (`pip install pydantic-monty`); its own interpreter, without numpy
    SandboxFusion     a running server, by --url

Peers that start a Python start this one, with the libraries of this environment.
"""

import argparse
import importlib.util
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from importlib import metadata
from pathlib import Path
from typing import Any

from pack import processor
from report import peers_page
from sandbox_peer_ways import NotMeasured, Ours, Peer, make_peers

from r1ci_engine.errors import SandboxError
from r1ci_engine.sandbox import BENCH_SCRIPTS

RIGHT = {"trivial": "2\n", "numpy": "45\n", "sympy": "(x - 1)*(x + 1)\n"}
LEAST_RUNS, MOST_RUNS = 3, 5000
"""Of one measurement, and of one core for throughput; all together at most."""


class Figures:
    """Rounds of one peer with one script."""

    def __init__(self, peer: Peer, script: str) -> None:
        self.peer, self.script = peer, script
        self.walls: list[float] = []
        self.p50s: list[float] = []
        self.rates: list[float] = []
        self.failure: str | None = None

    def measure(self, seconds: float) -> None:
        """One round; before the first, a run that warms what is warmed by running."""
        if self.failure is not None:
            return
        code, right = BENCH_SCRIPTS[self.script], RIGHT[self.script]
        n = self.peer.at_once
        try:
            if not self.p50s:
                self.peer.alone(code, right, 1, 0)
            walls = self.peer.alone(code, right, LEAST_RUNS, seconds)
            p50 = statistics.median(walls)
            count = n * max(LEAST_RUNS, min(MOST_RUNS // n, int(seconds / p50)))
            rate = count / self.peer.together(code, right, count)
        except (NotMeasured, subprocess.TimeoutExpired) as error:
            self.failure = str(error)
            return
        self.walls += walls
        self.p50s.append(p50)
        self.rates.append(rate)

    def row(self) -> dict[str, Any]:
        row = {"script": self.script, "peer": self.peer.name, "failure": self.failure}
        if self.failure is not None:
            return row
        walls = sorted(self.walls)
        return row | {
            "p50_ms": 1e3 * statistics.median(self.p50s),
            "p50_ms_range": [1e3 * min(self.p50s), 1e3 * max(self.p50s)],
            "p95_ms": 1e3 * walls[int(0.95 * (len(walls) - 1))],
            "per_s": statistics.median(self.rates),
            "per_s_range": [min(self.rates), max(self.rates)],
            "runs_alone": len(walls),
        }

    def ratios(self, ours: "Figures") -> dict[str, Any]:
        """How many times our throughput is the peer's and the peer's latency ours, by rounds."""
        throughput = [a / b for a, b in zip(ours.rates, self.rates, strict=True)]
        latency = [b / a for a, b in zip(ours.p50s, self.p50s, strict=True)]
        return {
            "script": self.script,
            "peer": self.peer.name,
            "ours": ours.peer.name,
            "throughput": statistics.median(throughput),
            "throughput_range": [min(throughput), max(throughput)],
            "latency": statistics.median(latency),
        }


def compare(options: argparse.Namespace, say: Callable[[str], None]) -> dict[str, Any]:
    """Runs the rounds and returns the report, without the machine."""
    listed = []
    with ExitStack() as stack:
        present: list[Peer] = []
        for peer in make_peers(options):
            missing = None
            try:
                stack.enter_context(peer)
                present.append(peer)
            except NotMeasured as error:
                missing = str(error)
            listed.append({"name": peer.name, "version": peer.version, "not_measured": missing})
        figures = [Figures(peer, script) for script in options.scripts for peer in present]
        for number in range(options.rounds):
            for figure in figures:
                say(f"round {number + 1}/{options.rounds}  {figure.script:8} {figure.peer.name}")
                figure.measure(options.seconds)
    ours = [f for f in figures if isinstance(f.peer, Ours) and f.failure is None]
    ratios = [
        figure.ratios(own)
        for own in ours
        for figure in figures
        if figure.script == own.script and figure not in ours and figure.failure is None
    ]
    return {"peers": listed, "rows": [figure.row() for figure in figures], "ratios": ratios}


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--json", type=Path, metavar="OUT", help="write the figures here")
    add("--peer-python", default=sys.executable, metavar="PYTHON", help="has the peers' libraries")
    add("--url", help="of a SandboxFusion server, such as http://127.0.0.1:8080")
    add("--rounds", type=int, default=3, metavar="N", help="interleaved rounds (3)")
    add("--seconds", type=float, default=1.0, metavar="S", help="spent on each measurement (1)")
    add("--at-once", type=int, default=len(os.sched_getaffinity(0)), metavar="N", help="(cores)")
    add("--scripts", nargs="+", choices=list(RIGHT), default=list(RIGHT), metavar="SCRIPT")
    options = parser.parse_args()
    if min(options.rounds, options.at_once) < 1:
        parser.error("--rounds and --at-once must be above zero")
    return options


def main() -> None:
    options = parse()
    absent = [s for s in options.scripts if s != "trivial" and not importlib.util.find_spec(s)]
    options.scripts = [script for script in options.scripts if script not in absent]
    began, load = time.perf_counter(), os.getloadavg()[0]
    try:
        measured = compare(options, lambda text: print(text, file=sys.stderr, flush=True))
    except SandboxError as error:
        raise SystemExit(f"error: {error.message}\n  hint: {error.hint}") from None
    report = {
        "bench": "sandbox_peers",
        "machine": {
            "processor": processor(),
            "cores": len(os.sched_getaffinity(0)),
            "kernel": platform.release(),
            "python": platform.python_version(),
            **{name: metadata.version(name) for name in ("numpy", "sympy") if name not in absent},
            "load before": round(load, 1),
            "load after": round(os.getloadavg()[0], 1),
            "date": time.strftime("%Y-%m-%d"),
        },
        "command": " ".join(["python benches/sandbox_peers.py", *_plain(sys.argv[1:])]),
        "rounds": options.rounds,
        "at_once": options.at_once,
        "seconds": round(time.perf_counter() - began, 1),
        "absent_libraries": absent,
        **measured,
    }
    print("\n".join(peers_page(report)))
    if options.json:
        options.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


def _plain(arguments: list[str]) -> list[str]:
    """The arguments without this machine's folders, which are nobody's business."""
    return [Path(word).name if "/" in word and ":" not in word else word for word in arguments]


if __name__ == "__main__":
    main()

"""Many good and hostile scripts in random order on one sandbox; then nothing may be left of them.

    python benches/sandbox_soak.py --runs 100000 --kill-every 5000 --json

About 85 in 100 scripts are good ones with known answers; the rest are the programs of
`rust/r1ci-sandbox/attacks`, every one of them, with limits cut so that those that run into a limit
do so soon. Many are under way at once. The result, as JSON:

    wrong          good scripts with a wrong verdict or output, and scripts never answered
    leaked         what exists after the sandbox is closed that did not exist before it started:
                   living descendants (orphans too), open descriptors, mounts, files in the
                   temporary folder, entries of /dev/shm and System V segments
    grown_open     the same while it is open and idle, since 5 % of the runs, its interpreters'
                   descriptors and mounts included; System V segments and shared memory left out
    rss_growth_mb  memory of this process, from 5 % of the runs to the end
    rss_mb         that memory, sampled twenty times
    unsafe         attacks that got through or ended otherwise than their header says
    faults         scripts that ended as `infrastructure` because their interpreter was killed by
                   --kill-every; one without such a reason counts as wrong or unsafe

Exit status 0 means: nothing wrong, unsafe, leaked or grown. The same seed draws the same scripts.
The temporary folder is a private one, so that other sandboxes of the machine are not counted;
/dev/shm is shared, and what others leave there meanwhile is counted: `left` names it.

Beside the scripts one thread runs sessions (`sandbox_turns.py`): `turns` counts them, wrong ones
count as wrong; they do not count as runs.
"""

import argparse
import ctypes
import json
import math
import os
import platform
import random
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from pack import processor
from sandbox_cases import ATTACKS, MARK, Case, GoodCases, read_attacks
from sandbox_state import State, descendants, new_since, rss_mb
from sandbox_turns import Turns

from r1ci_engine.errors import SandboxError
from r1ci_engine.progress import Display
from r1ci_engine.sandbox import ExecutionResult, ExitReason, Sandbox

HOSTILE_SHARE = 0.15
PATIENCE_S = 60.0
"""No answer at all for so long: what is under way is lost."""
KILL_SHADOW_S = 1.0
"""A script handed in so shortly after a kill may still have met the dying interpreter."""
PR_SET_CHILD_SUBREAPER = 36


class Targets:
    """Things outside that attacks aim at. They stay open while this lives."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        secret = folder / "secret"
        secret.write_text("the-soak-secret")
        # Open to everybody: only the sandbox may be what stops an attack.
        folder.chmod(0o777)
        secret.chmod(0o666)
        abstract = f"r1ci-targets-{os.getpid()}"
        self._secret = secret
        self._stack = ExitStack()
        tcp = self._listen(socket.AF_INET, ("127.0.0.1", 0))
        self._listen(socket.AF_UNIX, str(folder / "stream"))
        self._listen(socket.AF_UNIX, "\0" + abstract)
        datagram = self._stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
        datagram.bind(str(folder / "datagram"))
        facts = {
            "secret_path": str(secret),
            "supervisor": os.getpid(),
            "tcp_port": tcp.getsockname()[1],
            "unix_path": str(folder / "stream"),
            "unix_datagram": str(folder / "datagram"),
            "unix_abstract": abstract,
            "neighbour": MARK,
            "caller_path": str(ATTACKS.parent),
        }
        self.facts = json.dumps(facts)

    def _listen(self, family: int, address: Any) -> socket.socket:
        listener = self._stack.enter_context(socket.socket(family, socket.SOCK_STREAM))
        listener.bind(address)
        listener.listen()
        return listener

    def touched(self) -> bool:
        return self._secret.read_text() != "the-soak-secret"

    def close(self) -> None:
        self._stack.close()


@dataclass
class Tally:
    """The counts of a soak, filled while it goes."""

    good: int = 0
    hostile: int = 0
    wrong: int = 0
    faults: int = 0
    lost: int = 0
    kills: list[float] = field(default_factory=list)
    unsafe: Counter[str] = field(default_factory=Counter)
    complaints: list[str] = field(default_factory=list)
    """The first twenty, for people."""

    def judge(self, case: Case, result: ExecutionResult, submitted: float) -> None:
        """Counts one answer."""
        shaded = bool(self.kills) and self.kills[-1] >= submitted - KILL_SHADOW_S
        if case.hostile:
            self.hostile += 1
        else:
            self.good += 1
        if result.exit_reason == ExitReason.INFRASTRUCTURE and shaded:
            self.faults += 1
            return
        complaint = case.complaint(result)
        if complaint is None:
            return
        if case.hostile:
            self.unsafe[case.name] += 1
        else:
            self.wrong += 1
        if len(self.complaints) < 20:
            self.complaints.append(f"{case.name}: {complaint}")


class Soak:
    """One sandbox under fire."""

    def __init__(
        self, sandbox: Sandbox, good: GoodCases, attacks: list[Case], options: Any
    ) -> None:
        self._sandbox, self._good, self._attacks = sandbox, good, attacks
        self._in_flight, self._kill_every = options.in_flight, options.kill_every
        self._dice = random.Random(options.seed)
        self._submitted = 0
        self._sample_every = max(1, options.runs // 20)
        self.tally = Tally()
        self.rss_mb: list[float] = []

    def run(self, count: int, seconds: float, advance: Callable[[str], None]) -> None:
        """Run `count` more scripts to their ends, fewer when `seconds` are up before."""
        flight: dict[int, tuple[Case, float]] = {}
        stop = self._submitted + count
        heard = time.monotonic()
        end = heard + seconds
        while self._submitted < stop or flight:
            if time.monotonic() > end:
                stop = self._submitted
            while self._submitted < stop and len(flight) < self._in_flight:
                case = self._draw()
                flight[self._sandbox.submit(case.request)] = (case, time.monotonic())
                self._submitted += 1
                if self._submitted % self._sample_every == 0:
                    self.rss_mb.append(round(rss_mb(), 1))
                if self._kill_every and self._submitted % self._kill_every == 0:
                    self._kill_interpreter()
            for ticket, result in self._sandbox.collect(1.0):
                heard = time.monotonic()
                case, submitted = flight.pop(ticket)
                self.tally.judge(case, result, submitted)
                advance("")
            if time.monotonic() - heard > PATIENCE_S:
                names = sorted({case.name for case, _ in flight.values()})
                self.tally.lost += len(flight)
                self.tally.complaints.append(f"never answered: {', '.join(names)}")
                return

    def warm(self) -> None:
        """Have every kind of interpreter up, so that idle states can be compared."""
        self._sandbox.run_many([case.request for case in self._good.one_of_each()])

    def _draw(self) -> Case:
        if self._dice.random() < HOSTILE_SHARE:
            return self._dice.choice(self._attacks)
        return self._good.draw(self._dice)

    def _kill_interpreter(self) -> None:
        own = [pid for pid, parent in descendants().items() if parent == os.getpid()]
        if own:
            with suppress(ProcessLookupError):
                os.kill(self._dice.choice(own), signal.SIGKILL)
                self.tally.kills.append(time.monotonic())


@dataclass(frozen=True)
class Outcome:
    """What a soak brought, its sandbox being closed and gone."""

    tally: Tally
    turns: Turns
    seconds: float
    growth_mb: float
    rss_mb: list[float]
    grown: dict[str, Counter[str]]
    layers: tuple[str, ...]
    attacks: int
    left_out: list[str]


def fire(options: argparse.Namespace, facts: str, folder: Path) -> Outcome:
    """Start a sandbox, run everything, compare its idle states early and late, close it."""
    first, limit = max(1, options.runs // 20), options.seconds
    began = time.perf_counter()
    with Sandbox(workers=options.workers) as sandbox:
        good = GoodCases(sandbox.layers)
        attacks, left_out = read_attacks(facts, sandbox.layers)
        runner = Soak(sandbox, good, attacks, options)
        turns = Turns(sandbox, options.seed)
        turns.start()
        with Display().progress("soak", options.runs) as advance:
            runner.run(first, limit / 20, advance)
            turns.end()
            runner.warm()
            time.sleep(0.5)
            early, early_rss = State.take(folder, below=True), rss_mb()
            turns.start()
            runner.run(options.runs - first, 0.95 * limit, advance)
            turns.end()
        seconds = time.perf_counter() - began
        runner.warm()
        growth = rss_mb() - early_rss
        grown = new_since(early, folder, below=True)
        return Outcome(
            tally=runner.tally,
            turns=turns,
            seconds=seconds,
            growth_mb=growth,
            rss_mb=runner.rss_mb,
            grown=grown,
            layers=sandbox.layers,
            attacks=len(attacks),
            left_out=[*good.left_out, *left_out],
        )


def soak(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Runs it all inside `folder` and returns the report."""
    targets = Targets(folder / "r1ci-targets")
    load = round(os.getloadavg()[0], 1)
    before = State.take(folder, below=False)
    outcome = fire(options, targets.facts, folder)
    with suppress(ChildProcessError):  # orphans that came to us, as they come to a machine's init
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    left = new_since(before, folder, below=False)
    tally, grown = outcome.tally, outcome.grown
    if targets.touched():
        tally.unsafe["the secret was overwritten"] += 1
    targets.close()
    return {
        "bench": "sandbox_soak",
        "runs": tally.good + tally.hostile + tally.lost,
        "wrong": tally.wrong + tally.lost + outcome.turns.wrong,
        "leaked": {name: new.total() for name, new in left.items()},
        "rss_growth_mb": round(outcome.growth_mb, 2),
        "rss_mb": outcome.rss_mb,
        "good": tally.good,
        "hostile": tally.hostile,
        "unsafe": dict(tally.unsafe),
        "attacks": outcome.attacks,
        "left_out": outcome.left_out,
        "kills": len(tally.kills),
        "faults": tally.faults,
        "turns": outcome.turns.run,
        "turn_faults": outcome.turns.faults,
        "grown_open": {name: new.total() for name, new in grown.items()},
        "left": {name: dict(new) for name, new in left.items() if new},
        "left_open": {name: dict(new) for name, new in grown.items() if new},
        "complaints": [*tally.complaints, *outcome.turns.complaints],
        "machine": {
            "processor": processor(),
            "cores": len(os.sched_getaffinity(0)),
            "kernel": platform.release(),
            "python": platform.python_version(),
            "r1ci-engine": metadata.version("r1ci-engine"),
            "load before": load,
            "date": time.strftime("%Y-%m-%d"),
        },
        "seconds": round(outcome.seconds, 1),
        "per_s": round((tally.good + tally.hostile) / outcome.seconds, 1),
        "in_flight": options.in_flight,
        "kill_every": options.kill_every,
        "seed": options.seed,
        "layers": list(outcome.layers),
    }


def verdict(report: dict[str, Any]) -> list[str]:
    """What keeps the soak from being clean; empty when it is."""
    counts = {
        "wrong": report["wrong"],
        "unsafe": sum(report["unsafe"].values()),
        **{f"leaked {name}": count for name, count in report["leaked"].items()},
        **{f"grown {name}": count for name, count in report["grown_open"].items()},
    }
    return [f"{count} {name}" for name, count in counts.items() if count]


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--runs", type=_positive, default=10_000, metavar="N", help="scripts (10000)")
    add("--json", nargs="?", const="-", metavar="OUT", help="the report as JSON: here, or to OUT")
    add("--kill-every", type=int, default=0, metavar="K", help="kill an interpreter every K runs")
    add("--seconds", type=float, default=math.inf, metavar="S", help="stop after S seconds (never)")
    add("--in-flight", type=_positive, default=64, metavar="N", help="under way at once (64)")
    add("--workers", type=_positive, metavar="N", help="computing at once (cores and one more)")
    add("--seed", type=int, default=0, help="of the drawing (0)")
    return parser.parse_args(arguments)


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"`{text}` is not above zero")
    return number


def main() -> None:
    options = parse()
    # Orphans come to us instead of the machine's init, so that none escapes the count.
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    folder = Path(tempfile.mkdtemp(prefix="soak-"))
    folder.chmod(0o755)
    os.environ["TMPDIR"] = str(folder)
    try:
        report = soak(options, folder)
    except SandboxError as error:
        raise SystemExit(f"error: {error.message}\n  hint: {error.hint}") from None
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    words = (Path(word).name if "/" in word else word for word in sys.argv[1:])
    report["command"] = " ".join(["python benches/sandbox_soak.py", *words])
    text = json.dumps(report, indent=2)
    troubles = verdict(report)
    if options.json == "-":
        print(text)
    else:
        if options.json:
            Path(options.json).write_text(text + "\n", encoding="utf-8")
        print(
            f"{report['good']} good and {report['hostile']} hostile runs in"
            f" {report['seconds']:.0f} s, {report['faults']} faults after {report['kills']} kills,"
            f" memory {report['rss_growth_mb']:+.1f} MB: {', '.join(troubles) or 'clean'}"
        )
        print(*report["complaints"], sep="\n", end="")
    sys.exit(bool(troubles))


if __name__ == "__main__":
    main()

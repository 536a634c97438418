"""What the soak runs: good scripts drawn with their right answers, and the crate's attacks.

Good scripts are made from a few drawn numbers; their answers come from plain Python, never from the
sandbox. Attacks are the crate's own files, with the verdicts that their headers call safe.
"""

import importlib.util
import platform
import random
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from textwrap import dedent

from r1ci_engine.sandbox import ExecutionRequest, ExecutionResult, Limits

ATTACKS = Path(__file__).parents[1] / "rust" / "r1ci-sandbox" / "attacks"
MARK = "# neighbour-5b2f"
"""First line of every good script: one attack looks for it in the memory of its own process."""
SHORT_CPU_S, SHORT_WALL_S = 0.1, 0.5
"""Limits of attacks that end at one anyway."""
OUTPUT_BYTES = Limits().output_bytes


@dataclass(frozen=True)
class Case:
    """A script and what must come of it."""

    name: str
    request: ExecutionRequest
    verdicts: tuple[str, ...] = ("ok",)
    stdout: str = ""
    """Good: the whole of it. Hostile: how it begins."""
    stderr_end: str = ""
    """Good: how standard error ends; nothing at all may be there when this is empty."""
    exit_code: int | None = 0
    signal: int | None = None
    dropped: int = 0
    detail: str = ""
    """Words that the remark must hold."""
    hostile: bool = False

    def complaint(self, result: ExecutionResult) -> str | None:
        """What is wrong with the result, if anything."""
        found = f"`{result.exit_reason}` {result.detail} {result.stderr[-300:]!r}"
        if result.exit_reason not in self.verdicts:
            return f"{found} is not {' or '.join(self.verdicts)}"
        if self.hostile:
            return self._hostile_complaint(result)
        if (result.exit_code, result.signal) != (self.exit_code, self.signal):
            return f"{found}: exit code {result.exit_code}, signal {result.signal}"
        if result.stdout != self.stdout or result.stdout_dropped != self.dropped:
            return f"{found}: printed {result.stdout[:100]!r}, not {self.stdout[:100]!r}"
        loud = bool(self.stderr_end)
        if not result.stderr.endswith(self.stderr_end) or bool(result.stderr) != loud:
            return f"{found}: that is not {self.stderr_end!r}"
        return None

    def _hostile_complaint(self, result: ExecutionResult) -> str | None:
        if "ESCAPED" in result.stdout + result.stderr:
            at = (result.stdout + result.stderr).index("ESCAPED")
            return f"got through: {(result.stdout + result.stderr)[at : at + 200]!r}"
        if not result.stdout.startswith(self.stdout):
            return f"`{result.exit_reason}`: output before the end was lost"
        if self.detail not in result.detail:
            return f"`{result.exit_reason}`: `{self.detail}` is not in `{result.detail}`"
        limits = self.request.limits or Limits()
        if result.wall_s > limits.wall_s + 2:
            return f"ran for {result.wall_s:.1f} s under a limit of {limits.wall_s} s"
        return None


def read_attacks(facts: str, layers: tuple[str, ...]) -> tuple[list[Case], list[str]]:
    """The attacks as cases, and those that this machine cannot run, each with the reason."""
    prelude = (ATTACKS / "prelude.py").read_text(encoding="utf-8")
    cases, left_out = [], []
    for path in sorted(ATTACKS.glob("*.py")):
        if path.stem == "prelude":
            continue
        source = path.read_text(encoding="utf-8")
        lines = (line.removeprefix("# ") for line in source.splitlines() if line.startswith("# "))
        header = dict(line.split(": ", 1) for line in lines if ": " in line)
        reason = _cannot(path.stem, header, layers)
        if reason:
            left_out.append(f"{path.stem} ({reason})")
        else:
            request = ExecutionRequest(f"{prelude}\n{source}", facts, limits=_limits(header))
            cases.append(
                Case(
                    name=path.stem,
                    request=request,
                    verdicts=tuple(header["Verdict"].split(", ")),
                    stdout="kept\n" if 'print("kept", flush=True)' in source else "",
                    detail=header.get("Remark", ""),
                    hostile=True,
                )
            )
    return cases, left_out


def _cannot(name: str, header: dict[str, str], layers: tuple[str, ...]) -> str | None:
    if name in ("int80_call", "x32_call") and platform.machine() != "x86_64":
        return "x86_64 only"
    for module in header.get("Needs", "").split():
        if importlib.util.find_spec(module) is None:
            return f"no {module}"
    if "processes=" in header.get("Limits", "") and "own_namespaces" not in layers:
        return "no own_namespaces"
    return None


def _limits(header: dict[str, str]) -> Limits:
    """The header's, cut for those that end at such a limit anyway.

    The others keep theirs: on a busy machine a short wall limit would end them early.
    """
    given = {"cpu": "5", "wall": "10"}
    given |= dict(pair.split("=") for pair in header.get("Limits", "").split())
    names = {"cpu": "cpu_s", "wall": "wall_s", "memory": "memory_mb"}
    values = {names.get(name, name): float(value) for name, value in given.items()}
    verdicts = header["Verdict"]
    if "cpu_limit" in verdicts:
        values["cpu_s"] = min(SHORT_CPU_S, values["cpu_s"])
    elif "timeout" in verdicts:
        values["wall_s"] = min(SHORT_WALL_S, values["wall_s"])
    seconds = {name: value for name, value in values.items() if name.endswith("_s")}
    counts = {name: int(value) for name, value in values.items() if not name.endswith("_s")}
    return replace(Limits(), **seconds, **counts)


class GoodCases:
    """Draws good scripts; what a machine lacks (a library, a layer) is left out and named."""

    def __init__(self, layers: tuple[str, ...]) -> None:
        self.left_out: list[str] = []
        weights: dict[Callable[[random.Random], Case], int] = dict(PLAIN)
        for make, weight, missing in (
            (_numpy, 12, importlib.util.find_spec("numpy") is None),
            (_sympy, 6, importlib.util.find_spec("sympy") is None),
            (_forking, 3, "own_namespaces" not in layers),
        ):
            if missing:
                self.left_out.append(make.__name__.removeprefix("_"))
            else:
                weights[make] = weight
        self._makers, self._weights = list(weights), list(weights.values())

    def draw(self, dice: random.Random) -> Case:
        return dice.choices(self._makers, self._weights)[0](dice)

    def one_of_each(self) -> list[Case]:
        dice = random.Random(0)
        return [make(dice) for make in self._makers]


def _case(
    name: str, code: str, *, stdin: str = "", seed: int = 0, limits: Limits | None = None
) -> Case:
    request = ExecutionRequest(f"{MARK}\n{dedent(code)}", stdin, seed, limits)
    return Case(name, request)


def _trivial(dice: random.Random) -> Case:
    a, b = dice.randrange(10**6), dice.randrange(10**6)
    return replace(_case("trivial", f"print({a} + {b})"), stdout=f"{a + b}\n")


def _primes(dice: random.Random) -> Case:
    bound = dice.randrange(100, 3000)
    code = f"""
        from collections import Counter

        def is_prime(n):
            return n > 1 and all(n % d for d in range(2, int(n**0.5) + 1))

        ends = Counter(n % 10 for n in range({bound}) if is_prime(n))
        print(sum(ends.values()), sorted(ends))
    """
    primes = [n for n in range(2, bound) if all(n % d for d in range(2, int(n**0.5) + 1))]
    ends = sorted({n % 10 for n in primes})
    return replace(_case("primes", code), stdout=f"{len(primes)} {ends}\n")


def _stdin(dice: random.Random) -> Case:
    numbers = [dice.randrange(10**6) for _ in range(dice.choice((0, 1, 100, 5000)))]
    code = "import sys\nprint(sum(map(int, sys.stdin)))"
    text = "".join(f"{number}\n" for number in numbers)
    return replace(_case("stdin", code, stdin=text), stdout=f"{sum(numbers)}\n")


def _stdin_unread(dice: random.Random) -> Case:
    size = dice.randrange(200_000)
    return replace(_case("stdin_unread", "print('ok')", stdin="x" * size), stdout="ok\n")


def _files(dice: random.Random) -> Case:
    text, count = f"{dice.random()}", dice.randrange(1, 20)
    code = f"""
        import os, tempfile
        print(os.listdir())
        os.makedirs("a/b")
        for index in range({count}):
            with open(f"a/b/{{index}}", "w") as file:
                file.write("{text}")
        print(len(os.listdir("a/b")), open("a/b/0").read())
        with tempfile.TemporaryFile() as file:
            print(file.write(b"{text}"))
        os.rename("a", "c")
        os.remove("c/b/0")
    """
    return replace(_case("files", code), stdout=f"[]\n{count} {text}\n{len(text)}\n")


def _threads(dice: random.Random) -> Case:
    count, size = dice.randrange(1, 9), dice.randrange(1000)
    code = f"""
        from concurrent.futures import ThreadPoolExecutor
        with ThreadPoolExecutor({count}) as pool:
            print(sum(pool.map(lambda n: sum(range(n)), range({size}))))
    """
    total = sum(sum(range(n)) for n in range(size))
    return replace(_case("threads", code), stdout=f"{total}\n")


def _asyncio(dice: random.Random) -> Case:
    count = dice.randrange(1, 50)
    code = f"""
        import asyncio

        async def one(n):
            await asyncio.sleep(0.001)
            return n

        async def main():
            print(sum(await asyncio.gather(*map(one, range({count})))))

        asyncio.run(main())
    """
    return replace(_case("asyncio", code), stdout=f"{sum(range(count))}\n")


def _sleep(dice: random.Random) -> Case:
    pause = dice.uniform(0, 0.2)
    return replace(_case("sleep", f"import time\ntime.sleep({pause})\nprint(1)"), stdout="1\n")


def _exception(dice: random.Random) -> Case:
    number = dice.randrange(10**6)
    kind, text = dice.choice(
        [
            ("ValueError", f"raise ValueError('{number}')"),
            ("ZeroDivisionError", f"{number} / 0"),
            ("KeyError", f"{{}}[{number}]"),
            ("RecursionError", "def f(): return f() + 1\nf()"),
            ("SyntaxError", "def f(:\n  pass"),
            ("ModuleNotFoundError", f"import missing_{number}"),
        ]
    )
    case = _case("exception", f"print('before')\n{text}")
    stdout = "" if kind == "SyntaxError" else "before\n"
    ends = {
        "ValueError": f"ValueError: {number}\n",
        "ZeroDivisionError": "ZeroDivisionError: division by zero\n",
        "KeyError": f"KeyError: {number}\n",
        "RecursionError": "RecursionError: maximum recursion depth exceeded\n",
        "SyntaxError": "SyntaxError: invalid syntax\n",
        "ModuleNotFoundError": f"No module named 'missing_{number}'\n",
    }
    return replace(case, verdicts=("error",), stdout=stdout, exit_code=1, stderr_end=ends[kind])


def _exit_code(dice: random.Random) -> Case:
    code = dice.randrange(256)
    case = _case("exit_code", f"import sys\nprint('out')\nsys.exit({code})")
    return replace(case, verdicts=("error" if code else "ok",), stdout="out\n", exit_code=code)


def _exit_text(dice: random.Random) -> Case:
    text = f"left with {dice.random()}"
    case = _case("exit_text", f"import sys\nsys.exit('{text}')")
    return replace(case, verdicts=("error",), exit_code=1, stderr_end=f"{text}\n")


def _abort(dice: random.Random) -> Case:
    text = str(dice.random())
    case = _case("abort", f"import os\nprint({text}, flush=True)\nos.abort()")
    number = int(signal.SIGABRT)
    return replace(case, verdicts=("killed",), stdout=f"{text}\n", exit_code=None, signal=number)


def _memory_caught(dice: random.Random) -> Case:
    size = dice.randrange(1 << 28, 1 << 34)
    code = f"""
        try:
            bytearray({size})
        except MemoryError:
            print("caught")
    """
    return replace(_case("memory_caught", code, limits=Limits(memory_mb=64)), stdout="caught\n")


def _long_output(dice: random.Random) -> Case:
    line, count = f"{dice.randrange(10**6)}\n", dice.randrange(1000, 600_000)
    length, half = len(line) * count, OUTPUT_BYTES // 2
    dropped = max(0, length - OUTPUT_BYTES)
    enough = line * (OUTPUT_BYTES // len(line) + 1)  # begins and ends as the whole does
    shown = enough[:half] + enough[-half:] if dropped else line * count
    code = f"import sys\nsys.stdout.write({line!r} * {count})"
    return replace(_case("long_output", code), stdout=shown, dropped=dropped)


def _both_streams(dice: random.Random) -> Case:
    text = "".join(dice.choices("aé漢🐢\x00\u202e", k=20))
    code = f"""
        import sys
        print({text!r})
        print({text!r}, file=sys.stderr)
    """
    return replace(_case("both_streams", code), stdout=f"{text}\n", stderr_end=f"{text}\n")


def _seeded(dice: random.Random) -> Case:
    seed = dice.randrange(2**63)
    code = "import random\nprint(random.random(), hash('text'))"
    right = f"{random.Random(seed).random()} {_fixed_hash('text')}\n"
    return replace(_case("seeded", code, seed=seed), stdout=right)


_hashes: dict[str, int] = {}


def _fixed_hash(text: str) -> int:
    """Of an interpreter with hash seed 0, which all scripts have."""
    if text not in _hashes:
        command = [sys.executable, "-c", f"print(hash({text!r}))"]
        environment = {"PYTHONHASHSEED": "0"}
        done = subprocess.run(command, env=environment, capture_output=True, check=True)
        _hashes[text] = int(done.stdout)
    return _hashes[text]


def _numpy(dice: random.Random) -> Case:
    import numpy as np

    seed, size = dice.randrange(2**32), dice.randrange(1, 60)
    code = f"""
        import numpy as np
        a = np.arange({size * size}).reshape({size}, {size})
        print(int((a @ a.T).trace()), np.random.randint(10**6))
    """
    trace = sum(n * n for n in range(size * size))
    drawn = np.random.RandomState(seed).randint(10**6)
    return replace(_case("numpy", code, seed=seed), stdout=f"{trace} {drawn}\n")


def _sympy(dice: random.Random) -> Case:
    a, b = dice.randrange(2, 100), dice.randrange(2, 100)
    code = f"""
        from sympy import expand, symbols
        x = symbols("x")
        print(expand((x + {a}) * (x + {b})))
    """
    return replace(_case("sympy", code), stdout=f"x**2 + {a + b}*x + {a * b}\n")


def _forking(dice: random.Random) -> Case:
    code = dice.randrange(256)
    text = f"""
        import os
        child = os.fork()
        if child == 0:
            os._exit({code})
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    """
    return replace(_case("forking", text, limits=Limits(processes=2)), stdout=f"{code}\n")


PLAIN: dict[Callable[[random.Random], Case], int] = {
    _trivial: 20,
    _primes: 8,
    _stdin: 8,
    _stdin_unread: 2,
    _files: 8,
    _threads: 6,
    _asyncio: 2,
    _sleep: 3,
    _exception: 10,
    _exit_code: 5,
    _exit_text: 2,
    _abort: 2,
    _memory_caught: 2,
    _long_output: 3,
    _both_streams: 3,
    _seeded: 5,
}
"""Out of about a hundred good scripts, with the libraries'."""

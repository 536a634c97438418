"""Sessions beside the soak's scripts: turns with known answers, branches, and turns that attack."""

import random
import threading
from dataclasses import dataclass, field

from r1ci_engine.errors import SandboxError
from r1ci_engine.sandbox import (
    ExecutionRequest,
    ExecutionResult,
    ExitReason,
    Limits,
    Sandbox,
    Session,
)

SPEAK_FOR_ANOTHER = "import os\nfor i in range(3): os.write(3, b'D\\0\\1')\nwhile True: pass"
FORK_AS_A_STATE_DOES = """
import ctypes, platform
libc, tid = ctypes.CDLL(None), ctypes.c_int()
number, place = (56, (0, 0)) if platform.machine() == 'x86_64' else (220, (0, 0, 0))
arguments = (ctypes.c_ulong(0x1208000), *place, ctypes.byref(tid))
while True: libc.syscall(ctypes.c_long(number), *arguments)
"""
ENDINGS = {
    "while True: pass": {ExitReason.CPU_LIMIT, ExitReason.TIMEOUT},
    "import os; os.abort()": {ExitReason.KILLED},
    "import os; os._exit(3)": {ExitReason.ERROR},
    SPEAK_FOR_ANOTHER: {ExitReason.OK, ExitReason.KILLED},
    FORK_AS_A_STATE_DOES: {ExitReason.PIDS_LIMIT, ExitReason.KILLED},
}
"""Turns that are not kept, by what they come to."""


@dataclass
class Turns:
    """Opens session after session in a thread of its own until it is told to end."""

    sandbox: Sandbox
    seed: int
    run: int = 0
    wrong: int = 0
    faults: int = 0
    """Turns lost with an interpreter that was killed."""
    complaints: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._dice = random.Random(self.seed)
        self._end = threading.Event()
        self._thread = threading.Thread()

    def start(self) -> None:
        self._end.clear()
        self._thread = threading.Thread(target=self._go_on, name="turns")
        self._thread.start()

    def end(self) -> None:
        """Let the session under way come to its end."""
        self._end.set()
        self._thread.join()

    def _go_on(self) -> None:
        while not self._end.is_set():
            try:
                self._one_session()
            except SandboxError as error:
                self._complain(f"error: {error.message}")
                return

    def _one_session(self) -> None:
        limits = Limits(cpu_s=0.1, wall_s=1.0)
        session = self.sandbox.open_session(limits=limits, seed=self._dice.randrange(99))
        sum_ = self._dice.randrange(1000)
        if not self._turn(session, f"x = {sum_}\nprint(x)", sum_):
            return
        for _ in range(self._dice.randrange(4)):
            step = self._dice.randrange(1000)
            sum_ += step
            if not self._turn(session, f"x += {step}\nprint(x)", sum_):
                return
        steps = [self._dice.randrange(9) for _ in range(3)]
        requests = [ExecutionRequest(f"x += {step}\nprint(x)") for step in steps]
        for (result, branch), step in zip(session.run_branches(requests), steps, strict=True):
            if not self._judge(result, sum_ + step) or not self._turn(
                branch, "print(x)", sum_ + step
            ):
                return
        if self._dice.random() < 0.3:
            code = self._dice.choice(list(ENDINGS))
            result = session.run("print('said', flush=True)\n" + code)
            self.run += 1
            if result.exit_reason is ExitReason.INFRASTRUCTURE:
                self.faults += 1
            elif result.exit_reason not in ENDINGS[code] or result.stdout != "said\n":
                self._complain(f"{code!r}: {result}")
            elif code in list(ENDINGS)[:3]:
                self._turn(session, "print(x)", sum_)

    def _turn(self, session: Session, code: str, answer: int) -> bool:
        return self._judge(session.run(code), answer)

    def _judge(self, result: ExecutionResult, answer: int) -> bool:
        self.run += 1
        if result.exit_reason in (ExitReason.INFRASTRUCTURE, ExitReason.REFUSED):
            self.faults += 1
            return False
        if (result.stdout, result.kept) != (f"{answer}\n", True):
            self._complain(f"not {answer}: {result}")
            return False
        return True

    def _complain(self, text: str) -> None:
        self.wrong += 1
        if len(self.complaints) < 10:
            self.complaints.append(f"session: {text[:400]}")

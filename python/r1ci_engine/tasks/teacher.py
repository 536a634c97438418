"""Scripted solutions for supervised fine-tuning, with every script really run.

A teacher answers an item in text or by code; code goes through the sandbox, the result the model
will see is the real one, and only transcripts that end in the right answer are kept (the paper's
rejection of wrong trajectories). Some code solutions first make a slip, meet the real error and
repair it, so that the model has seen what a traceback is for. Left out: any model.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from r1ci_engine.config import ProtocolSection
from r1ci_engine.errors import DataError, SandboxError
from r1ci_engine.sandbox import ExecutionRequest, ExitReason, Sandbox
from r1ci_engine.seeds import derive_seed
from r1ci_engine.tasks.corpus import fenced
from r1ci_engine.tasks.protocol import prompt_messages, result_text
from r1ci_engine.tasks.starter import STARTER_TASKS
from r1ci_engine.trajectory import Item, SegmentKind, Transcript

MODEL, TOOL = SegmentKind.MODEL, SegmentKind.TOOL
SLIP_SHARE = 0.08
"""Share of code solutions whose first script fails."""
Fits = Callable[[str], bool]
"""Whether a result keeps within the token budget, as the rollout would measure it."""


@dataclass(frozen=True)
class _Plan:
    """One solution before its scripts have run."""

    item: Item
    scripts: tuple[str, ...]
    reason: str


def teach(
    items: Sequence[Item],
    code_share: float,
    protocol: ProtocolSection,
    sandbox: Sandbox,
    fits: Fits,
    seed: int,
) -> list[Transcript]:
    """One transcript per item, in order; a pure function of the arguments.

    Raises DataError for an item whose task has no teacher or whose script does not print the
    answer, SandboxError if the sandbox fails.
    """
    plans = [_plan(item, code_share, seed) for item in items]
    requests = [ExecutionRequest(script) for plan in plans for script in plan.scripts]
    results = iter(sandbox.run_many(requests))
    transcripts = []
    for plan in plans:
        answer = f"<<<{plan.item.answer}>>>"
        parts: list[tuple[SegmentKind, str]] = []
        for script in plan.scripts:
            result = next(results)
            if result.exit_reason is ExitReason.INFRASTRUCTURE:
                raise SandboxError(f"a teacher's script could not be run: {result.detail}")
            parts += [(MODEL, fenced(script)), (TOOL, result_text(result, fits))]
            printed = result.stdout.strip()
        if plan.scripts and printed != plan.item.answer:
            raise DataError(
                f"the script for `{plan.item.id}` printed `{printed[:80]}`, "
                f"not `{plan.item.answer}`"
            )
        parts.append((MODEL, answer if plan.scripts else f"{plan.reason}\n{answer}"))
        messages = tuple(prompt_messages(plan.item, "code", protocol))
        transcripts.append(Transcript(messages, tuple(parts), plan.item.task, plan.item.id))
    return transcripts


def _plan(item: Item, code_share: float, seed: int) -> _Plan:
    family = STARTER_TASKS.get(item.task)
    if family is None:
        raise DataError(
            f"task `{item.task}` has no teacher",
            hint='set sft.source = "jsonl" and give trajectories, or sft.steps = 0',
        )
    rng = random.Random(derive_seed(seed, "teacher", item.id))
    facts = item.metadata["facts"]
    if rng.random() >= code_share:
        return _Plan(item, (), family.reason(facts))
    script = family.script(facts, rng)
    if rng.random() < SLIP_SHARE:
        return _Plan(item, (_with_slip(script, rng), script), "")
    return _Plan(item, (script,), "")


def _with_slip(script: str, rng: random.Random) -> str:
    """The script with a slip of the kind people make: a misspelt name or a lost bracket."""
    if rng.random() < 0.5:
        return script.replace("print(", "prnt(")
    return script.rstrip()[:-1]

"""The engine: a trajectory is a function of its request and the weights, and of nothing else."""

import random
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from rollout_world import (
    WORDS,
    CodeTokenizer,
    FakeSandbox,
    TurnTemplate,
    code_model,
    echo,
    engine,
    request,
    requests,
    result,
)

from r1ci_engine.config import ProtocolSection, RolloutSection
from r1ci_engine.errors import DataError, ModelError, SandboxError
from r1ci_engine.kernels import linear_logprob
from r1ci_engine.model.attention import PackedAttention
from r1ci_engine.model.decoder import Decoder
from r1ci_engine.model.exact import rows_are_exact
from r1ci_engine.rollout import engine as engine_module
from r1ci_engine.rollout.engine import RolloutEngine
from r1ci_engine.rollout.request import RolloutRequest
from r1ci_engine.sandbox import ExecutionRequest, ExecutionResult, ExitReason, Limits, Sandbox
from r1ci_engine.trajectory import SegmentKind, StopReason, Trajectory

EXACT = rows_are_exact()


@pytest.fixture(scope="module")
def model() -> Decoder:
    return code_model()


@pytest.fixture(scope="module")
def asked() -> list[RolloutRequest]:
    return requests(items=7, samples=4)


@pytest.fixture(scope="module")
def alone(model: Decoder, asked: list[RolloutRequest]) -> list[Trajectory]:
    """Every request in a call of its own."""
    return [engine(model).generate([one])[0] for one in asked]


def assert_same(got: Trajectory, right: Trajectory) -> None:
    assert got.tokens == right.tokens
    assert got.segments == right.segments
    assert got.stop_reason == right.stop_reason
    if EXACT:
        assert got.logprobs == right.logprobs
    else:
        assert got.logprobs == pytest.approx(right.logprobs, abs=1e-5)


def random_delay(seed: int, most: int) -> Iterator[int]:
    draw = random.Random(seed)
    while True:
        yield draw.randrange(most)


# Independence ------------------------------------------------------------------------------------


def test_the_world_is_rich_enough_to_prove_something(alone: list[Trajectory]) -> None:
    assert sum(len(t.executions) for t in alone) > 15
    assert len({t.stop_reason for t in alone}) >= 2
    assert max(len(t.tokens) for t in alone) > 256, "both kinds of attention rows"
    assert len({tuple(t.tokens) for t in alone}) == len(alone)


@pytest.mark.parametrize(("slots", "seed", "most"), [(28, 0, 1), (8, 1, 4), (3, 2, 40), (1, 3, 2)])
def test_company_order_and_timing_change_nothing(
    model: Decoder,
    asked: list[RolloutRequest],
    alone: list[Trajectory],
    slots: int,
    seed: int,
    most: int,
) -> None:
    delays = random_delay(seed, most)
    sandbox = FakeSandbox(delay=lambda: next(delays))
    order = list(range(len(asked)))
    random.Random(seed).shuffle(order)
    trajectories = engine(model, sandbox, slots=slots).generate([asked[i] for i in order])
    for position, trajectory in zip(order, trajectories, strict=True):
        assert (trajectory.item_id, trajectory.sample_index) == (
            asked[position].item.id,
            asked[position].sample_index,
        )
        assert_same(trajectory, alone[position])


def test_two_threads_change_nothing_either(model: Decoder, asked: list[RolloutRequest]) -> None:
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        together = engine(model, slots=4, max_new_tokens=30).generate(asked[:6])
        for one, trajectory in zip(asked, together, strict=False):
            assert_same(trajectory, engine(model, max_new_tokens=30).generate([one])[0])
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize(
    "change",
    [{"run_seed": 1}, {"step": 1}, {"sample_index": 9}, {"purpose": "eval"}, {"agent": "text"}],
)
def test_each_part_of_the_name_gives_other_noise(model: Decoder, change: dict[str, Any]) -> None:
    prompt = [WORDS + 5, WORDS + 6]
    one, other = engine(model).generate([request(prompt), request(prompt, **change)])
    assert one.tokens[2:12] != other.tokens[2:12]


def test_a_shared_prompt_is_computed_once(model: Decoder) -> None:
    prompt = list(range(WORDS, WORDS + 30))
    group = [request(prompt, sample_index=i, agent="text") for i in range(6)]
    running = engine(model, slots=4)
    running.generate(group)
    assert running.stats.extended_tokens == len(prompt)


def test_a_prompt_is_shared_with_a_sibling_that_is_long_under_way(model: Decoder) -> None:
    prompt = list(range(WORDS, WORDS + 30))
    group = [request(prompt, sample_index=i, agent="text") for i in range(6)]
    right = [engine(model).generate([one])[0] for one in group]
    for got, expected in zip(engine(model, slots=2).generate(group), right, strict=True):
        assert_same(got, expected)


# Log-probabilities -------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["qwen2", "qwen3", "llama"])
@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_every_captured_logprob_is_that_of_the_training_forward(
    family: str, temperature: float
) -> None:
    model = code_model(family, seed=1)
    asked = [
        request(one.prompt, one.item.id, sample_index=one.sample_index, temperature=temperature)
        for one in requests(items=5, samples=2)
    ]
    trajectories = engine(model, slots=4, max_new_tokens=60).generate(asked)
    assert any(t.executions for t in trajectories)
    offsets, tokens, positions = [0], [], []
    for trajectory in trajectories:
        tokens += trajectory.tokens
        positions += range(len(trajectory.tokens))
        offsets.append(len(tokens))
    with torch.no_grad():
        hidden_TD = model(torch.tensor(tokens), torch.tensor(positions), PackedAttention(offsets))
        targets_T = torch.tensor(tokens[1:] + tokens[:1])
        trained_T, _ = linear_logprob(hidden_TD, model.head_weight, targets_T, temperature)
    mask_T = torch.tensor([flag for t in trajectories for flag in t.model_mask()])
    captured_T = torch.tensor([p for t in trajectories for p in t.logprobs])[mask_T]
    trained_T = trained_T.roll(1)[mask_T]
    assert captured_T.abs().max() > 1.0
    torch.testing.assert_close(captured_T, trained_T, atol=1e-4, rtol=0)
    if EXACT:
        assert torch.equal(captured_T, trained_T)
    # Shifted by one place, or at another temperature, they would not agree.
    assert (captured_T[1:] - trained_T[:-1]).abs().max() > 0.1


def test_new_weights_are_seen_at_the_next_call() -> None:
    model = code_model(seed=2)
    one = request([WORDS, WORDS + 1])
    running = engine(model)
    before = running.generate([one])[0]
    with torch.no_grad():
        model.head_weight[WORDS + 40] += 1.0
    after = running.generate([one])[0]
    assert before.tokens != after.tokens


def test_weights_that_have_diverged_are_named() -> None:
    model = code_model(seed=2)
    with torch.no_grad():
        model.head_weight[3] = torch.nan
    with pytest.raises(ModelError, match="not finite for item `i`"):
        engine(model).generate([request([WORDS])])


# Limits ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("context", [40, 90, 200])
def test_no_limit_is_ever_exceeded(model: Decoder, context: int) -> None:
    asked = [one for one in requests(items=20, samples=2) if len(one.prompt) < context - 1]
    protocol = ProtocolSection(max_code_calls=2, max_turns=3, output_tokens=50)
    running = engine(model, slots=16, context=context, max_new_tokens=70, protocol=protocol)
    trajectories = running.generate(asked)
    assert StopReason.CONTEXT_LIMIT in {t.stop_reason for t in trajectories}
    for trajectory in trajectories:
        assert len(trajectory.tokens) <= context
        assert 0 < trajectory.response_length <= 70
        assert len(trajectory.executions) <= 2
        models = [s for s in trajectory.segments if s.kind is SegmentKind.MODEL]
        assert trajectory.turns == len(models) <= 3
        assert trajectory.segments[-1].kind is SegmentKind.MODEL


def test_the_models_own_context_counts_too() -> None:
    model = code_model(context=64)
    one = request([WORDS] * 10, agent="text")
    trajectory = engine(model, context=400, max_new_tokens=400).generate([one])[0]
    assert len(trajectory.tokens) <= 64


@pytest.mark.parametrize("length", [39, 40, 400])
def test_a_prompt_without_room_is_refused_by_name(model: Decoder, length: int) -> None:
    running = engine(model, context=40)
    good, bad = request([WORDS]), request([WORDS] * length, "gcd-7")
    with pytest.raises(
        DataError, match=rf"item `gcd-7` .`.question.`. has `{length}` tokens.*`40`"
    ):
        running.generate([good, bad])


def test_an_empty_prompt_is_refused(model: Decoder) -> None:
    with pytest.raises(DataError, match="no tokens"):
        engine(model).generate([request([])])


def test_nothing_asked_nothing_done(model: Decoder) -> None:
    assert engine(model).generate([]) == []


# The sandbox -------------------------------------------------------------------------------------


def test_one_slow_script_holds_up_nobody_else(
    model: Decoder, asked: list[RolloutRequest], alone: list[Trajectory]
) -> None:
    slow = next(i for i, t in enumerate(alone) if t.executions)
    first_seed = asked[slow].script_seed(0)
    finished: list[tuple[str, int]] = []

    class Slow(FakeSandbox):
        def submit(self, request: ExecutionRequest) -> int:
            self._delay = lambda: 400 if request.seed == first_seed else 0
            return super().submit(request)

    running = engine(model, Slow(), slots=6)
    running.generate(asked, on_done=lambda t: finished.append((t.item_id, t.sample_index)))
    assert len(finished) == len(asked)
    assert finished[-1] == (asked[slow].item.id, asked[slow].sample_index)


def test_a_dead_sandbox_is_an_error_within_a_bound(
    model: Decoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_module, "SANDBOX_SILENCE_S", 0.01)
    never = FakeSandbox(delay=lambda: 10**9)
    with pytest.raises(SandboxError, match="has not delivered any"):
        engine(model, never).generate(requests(items=4, samples=2))


def test_scripts_of_a_call_that_broke_off_are_nobodys(
    model: Decoder, asked: list[RolloutRequest], alone: list[Trajectory]
) -> None:
    sandbox = FakeSandbox(delay=lambda: 1000)

    def interrupt(_: Trajectory) -> None:
        raise KeyboardInterrupt

    running = engine(model, sandbox)
    with pytest.raises(KeyboardInterrupt):
        running.generate(asked, on_done=interrupt)
    assert sandbox._out
    sandbox._delay = lambda: 0
    for got, right in zip(running.generate(asked), alone, strict=True):
        assert_same(got, right)


def test_a_fault_leaves_the_others_alone_and_no_reward(
    model: Decoder, asked: list[RolloutRequest], alone: list[Trajectory]
) -> None:
    victim = next(i for i, t in enumerate(alone) if t.executions)
    seed = asked[victim].script_seed(0)

    def faulty(request: ExecutionRequest) -> ExecutionResult:
        return result(reason=ExitReason.INFRASTRUCTURE) if request.seed == seed else echo(request)

    sandbox = FakeSandbox(faulty)
    trajectories = engine(model, sandbox).generate(asked)
    assert trajectories[victim].stop_reason is StopReason.INFRASTRUCTURE
    assert trajectories[victim].reward.total == 0.0
    assert sum(request.seed == seed for request in sandbox.requests) == 3
    for index, trajectory in enumerate(trajectories):
        if index != victim:
            assert not trajectory.faulty
            assert_same(trajectory, alone[index])


def test_stats_add_up(model: Decoder, asked: list[RolloutRequest]) -> None:
    sandbox = FakeSandbox()
    running = engine(model, sandbox)
    trajectories = running.generate(asked)
    stats = running.stats
    assert stats.sequences == len(asked)
    assert stats.model_tokens == sum(t.response_length for t in trajectories)
    assert stats.executions == len(sandbox.requests)
    assert 0 < stats.model_s <= stats.total_s


def test_with_the_real_sandbox(model: Decoder) -> None:
    # What a random model writes is mostly not Python, but the one-token script prints 1.
    asked = [request([WORDS + i], f"i{i}") for i in range(12)]
    with Sandbox(workers=1, limits=Limits(cpu_s=5.0, wall_s=20.0)) as sandbox:
        running = RolloutEngine(
            model,
            CodeTokenizer(),  # pyright: ignore[reportArgumentType]
            TurnTemplate(),  # pyright: ignore[reportArgumentType]
            sandbox,
            RolloutSection(slots=12, max_new_tokens=100, context=400),
            ProtocolSection(output_tokens=60),
        )
        trajectories = running.generate(asked)
    executions = [execution for trajectory in trajectories for execution in trajectory.executions]
    printed = [e for e in executions if e.code == "print(1)\n"]
    assert printed and {(e.stdout, e.exit_reason) for e in printed} == {("1\n", "ok")}
    assert all(e.layers for e in executions)

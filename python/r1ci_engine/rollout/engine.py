"""Sample trajectories for many requests at once, running the scripts that they write.

Continuous batching: every step feeds one token of each sequence that decodes, and in the same call
of the model the prompts of new sequences and the results of scripts that have come back. Sequences
waiting for a script keep their cache and leave the step; the others never wait for them. A prompt
that several requests share is computed once while one of them is under way.

Left out: paging, preemption, several devices, CUDA graphs.

Invariant: a trajectory depends on its request and the weights alone. Noise is keyed by request and
position (`sampler.py`), every row's arithmetic is its own (`cache.py`, `model/decoder.py`), and
nothing else of a sequence depends on when or beside whom it runs. On an exact CPU in fp32
(`model/exact.py`) this holds for every bit, log-probabilities included; elsewhere up to rounding.

Shape suffixes: N sampled row, T packed token, D hidden, V vocabulary.
"""

import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from r1ci_engine.config import ProtocolSection, RolloutSection
from r1ci_engine.errors import DataError, ModelError, SandboxError, short_repr
from r1ci_engine.model.decoder import Decoder
from r1ci_engine.model.template import ChatTemplate
from r1ci_engine.model.tokenizer import TextTokenizer
from r1ci_engine.rollout.cache import CachedAttention, KVCache, Span
from r1ci_engine.rollout.request import RolloutRequest
from r1ci_engine.rollout.sampler import sample, seeds_tensor
from r1ci_engine.rollout.slots import Sequence, SlotTable
from r1ci_engine.rollout.turns import Next, TurnLoop
from r1ci_engine.sandbox import Sandbox
from r1ci_engine.trajectory import Item, Trajectory

EXTEND_TOKENS = 8192
"""Prompt and result tokens per step; a longer one still goes in, alone."""

SANDBOX_SILENCE_S = 600.0
"""A sandbox with scripts to run that delivers none for this long is taken for dead."""


@dataclass
class RolloutStats:
    """What the last call of `generate` did, and where its time went."""

    sequences: int = 0
    model_tokens: int = 0
    """Tokens sampled."""
    extended_tokens: int = 0
    """Prompt and result tokens computed; a shared prompt counts once."""
    steps: int = 0
    executions: int = 0
    """Scripts sent to the sandbox, repeats after its faults included."""
    model_s: float = 0.0
    """In the model and the sampler."""
    waiting_s: float = 0.0
    """Waiting for the sandbox with nothing else to do."""
    total_s: float = 0.0


class RolloutEngine:
    """Samples with the weights of `model` as they are at the time of the call."""

    def __init__(
        self,
        model: Decoder,
        tokenizer: TextTokenizer,
        template: ChatTemplate,
        sandbox: Sandbox,
        rollout: RolloutSection,
        protocol: ProtocolSection,
    ) -> None:
        """The context is the smaller of `rollout.context` and the model's own."""
        self.model = model
        self.tokenizer = tokenizer
        self.template = template
        self.sandbox = sandbox
        self.rollout = rollout
        self.protocol = protocol
        self.context = min(rollout.context, model.config.context)
        self.stats = RolloutStats()

    @torch.inference_mode()
    def generate(
        self,
        requests: Iterable[RolloutRequest],
        on_done: Callable[[Trajectory], None] | None = None,
    ) -> list[Trajectory]:
        """One trajectory per request, in the order of the requests.

        `on_done` gets each as it finishes, in an order that does depend on timing. Raises DataError
        for a prompt that leaves no room to answer, ModelError if the model's output is not finite,
        and SandboxError if the sandbox falls silent.
        """
        requests = list(requests)
        for request in requests:
            self.require_room(request.item, request.prompt)
        self.stats = RolloutStats(sequences=len(requests))
        started = time.perf_counter()
        trajectories = _Call(self, requests, on_done).run() if requests else []
        self.stats.total_s = time.perf_counter() - started
        return trajectories

    def require_room(self, item: Item, prompt: list[int]) -> None:
        """Raise DataError if the prompt is empty or leaves no room to answer."""
        length = len(prompt)
        if length == 0:
            raise DataError(f"the prompt of item `{item.id}` has no tokens")
        if length >= self.context - 1:
            raise DataError(
                f"the prompt of item `{item.id}` (`{short_repr(item.prompt)}`) has `{length}` "
                f"tokens, which leaves no room to answer in a context of `{self.context}`",
                hint="raise rollout.context, or leave the item out",
            )


@dataclass(eq=False)
class _Prompt:
    """A prompt and the sequences under way that begin with it; the first has it in the cache."""

    holders: list[Sequence]
    next_logits: Tensor | None = None
    """Of the token after it, `[V]`; None until the prompt is computed."""


class _Call:
    """The state of one call of `generate`."""

    def __init__(
        self,
        engine: RolloutEngine,
        requests: list[RolloutRequest],
        on_done: Callable[[Trajectory], None] | None,
    ) -> None:
        self._engine = engine
        self._stats = engine.stats
        self._on_done = on_done
        self._device = engine.model.head_weight.device
        self._waiting = deque(enumerate(requests))
        self._trajectories: list[Trajectory | None] = [None] * len(requests)
        config = engine.model.config
        slots = min(engine.rollout.slots, len(requests))
        self._cache = KVCache(
            layers=config.layers,
            slots=slots,
            kv_heads=config.kv_heads,
            head_dim=config.head_dim,
            dtype=engine.model.head_weight.dtype,
            device=self._device,
        )
        self._slots = SlotTable(self._cache, slots)
        self._prompts: dict[tuple[int, ...], _Prompt] = {}
        self._to_extend: deque[Sequence] = deque()
        self._in_sandbox: dict[int, Sequence] = {}

    def run(self) -> list[Trajectory]:
        while self._waiting or self._to_extend or self._slots.active or self._in_sandbox:
            self._admit()
            self._collect(block=not (self._to_extend or self._slots.active))
            if self._to_extend or self._slots.active:
                self._step()
        return [t for t in self._trajectories if t is not None]

    def _admit(self) -> None:
        """Fill free slots with the next requests."""
        engine = self._engine
        for _ in range(min(self._slots.free, len(self._waiting))):
            index, request = self._waiting.popleft()
            turns = TurnLoop(
                request,
                engine.tokenizer,
                engine.template,
                engine.protocol,
                max_new_tokens=engine.rollout.max_new_tokens,
                context=engine.context,
            )
            prompt, seed = tuple(request.prompt), request.sample_seed
            sequence = Sequence(index, request, turns, prompt, seed)
            self._slots.admit(sequence)
            self._to_extend.append(sequence)

    def _collect(self, block: bool) -> None:
        """Take in results of scripts; with `block`, wait until there is one."""
        if not self._in_sandbox:
            return
        started = time.perf_counter()
        results = self._engine.sandbox.collect(0.0)
        while block and not results:
            waited = time.perf_counter() - started
            if waited > SANDBOX_SILENCE_S:
                raise SandboxError(
                    f"the sandbox has not delivered any of `{len(self._in_sandbox)}` scripts "
                    f"for `{waited:.0f}` seconds"
                )
            results = self._engine.sandbox.collect(1.0)
        if block:
            self._stats.waiting_s += time.perf_counter() - started
        for ticket, result in results:
            # A ticket of an earlier call, broken off by an exception, is nobody's any more.
            sequence = self._in_sandbox.pop(ticket, None)
            if sequence is not None:
                self._go_on(sequence, sequence.turns.deliver(result))

    def _step(self) -> None:
        """One call of the model, one sampled token for every sequence that took part."""
        started = time.perf_counter()
        self._slots.sort()
        decoding = self._slots.active
        extending, copying = self._choose_extensions()
        computed = decoding + extending
        logits_NV = self._logits(decoding, extending) if computed else None
        for row, sequence in enumerate(computed):
            if sequence.cached == 0 and logits_NV is not None:
                self._prompts[sequence.prompt].next_logits = logits_NV[row].clone()
            sequence.cached = len(sequence.turns.tokens)
        sampling = computed + copying
        logits = [] if logits_NV is None else [logits_NV]
        logits += [self._copy_prompt(sequence)[None] for sequence in copying]
        tokens, logprobs = self._sample(torch.cat(logits), sampling)
        self._stats.steps += 1
        self._stats.model_tokens += len(tokens)
        self._stats.model_s += time.perf_counter() - started
        for sequence in extending + copying:
            self._slots.activate(sequence)
        for sequence, token, logprob in zip(sampling, tokens, logprobs, strict=True):
            self._go_on(sequence, sequence.turns.feed(token, logprob))

    def _choose_extensions(self) -> tuple[list[Sequence], list[Sequence]]:
        """Who enters this step: to be computed, and to copy a prompt that is or will be there."""
        computing: list[Sequence] = []
        copying: list[Sequence] = []
        room = EXTEND_TOKENS
        while self._to_extend:
            sequence = self._to_extend[0]
            shared = self._prompts.get(sequence.prompt) if sequence.cached == 0 else None
            if shared is None:
                room -= len(sequence.turns.tokens) - sequence.cached
                if room < 0 and computing:
                    break
                computing.append(sequence)
                if sequence.cached == 0:
                    self._prompts[sequence.prompt] = _Prompt([sequence])
            else:
                copying.append(sequence)
                shared.holders.append(sequence)
            self._to_extend.popleft()
        return computing, copying

    def _logits(self, decoding: list[Sequence], extending: list[Sequence]) -> Tensor:
        """Feed what is not cached yet; fp32 `[N, V]`, one row per sequence, decoding ones first."""
        model = self._engine.model
        decode_positions = [sequence.cached for sequence in decoding]
        tokens = [sequence.turns.tokens[-1] for sequence in decoding]
        positions = list(decode_positions)
        last = list(range(len(decoding)))
        spans: list[Span] = []
        for sequence in extending:
            new = sequence.turns.tokens[sequence.cached :]
            spans.append(Span(sequence.slot, sequence.cached, len(sequence.turns.tokens)))
            tokens += new
            positions += range(sequence.cached, len(sequence.turns.tokens))
            last.append(len(tokens) - 1)
            self._stats.extended_tokens += len(new)
        attend = CachedAttention(self._cache, decode_positions, spans)
        hidden_TD = model(self._integers(tokens), self._integers(positions), attend)
        return model.logits(hidden_TD[self._integers(last)] if spans else hidden_TD)

    def _copy_prompt(self, sequence: Sequence) -> Tensor:
        """Take keys and values of a prompt from a sibling; the logits `[V]` that follow it."""
        prompt = self._prompts[sequence.prompt]
        assert prompt.next_logits is not None
        sequence.cached = len(sequence.prompt)
        self._cache.copy(prompt.holders[0].slot, sequence.slot, sequence.cached)
        return prompt.next_logits

    def _sample(
        self, logits_NV: Tensor, sequences: list[Sequence]
    ) -> tuple[list[int], list[float]]:
        temperatures = [sequence.request.temperature for sequence in sequences]
        tokens_N, logprobs_N = sample(
            logits_NV,
            torch.tensor(temperatures, dtype=torch.float32, device=self._device),
            seeds_tensor([sequence.seed for sequence in sequences], self._device),
            self._integers([len(sequence.turns.tokens) for sequence in sequences]),
        )
        if not bool(logprobs_N.isfinite().all()):
            row = int(logprobs_N.isfinite().logical_not().nonzero()[0])
            raise ModelError(
                f"the model's log-probabilities are not finite for item "
                f"`{sequences[row].request.item.id}`",
                hint="the weights may have diverged; go back to an earlier checkpoint",
            )
        return tokens_N.tolist(), logprobs_N.tolist()

    def _go_on(self, sequence: Sequence, what: Next) -> None:
        """Bring a sequence to where its state machine wants it."""
        match what:
            case Next.SAMPLE:
                if not self._slots.is_active(sequence):
                    self._to_extend.append(sequence)
            case Next.EXECUTE:
                if self._slots.is_active(sequence):
                    self._slots.park(sequence)
                assert sequence.turns.script is not None
                ticket = self._engine.sandbox.submit(sequence.turns.script)
                self._in_sandbox[ticket] = sequence
                self._stats.executions += 1
            case Next.STOP:
                self._finish(sequence)

    def _finish(self, sequence: Sequence) -> None:
        self._slots.release(sequence)
        prompt = self._prompts[sequence.prompt]
        prompt.holders.remove(sequence)
        if not prompt.holders:
            del self._prompts[sequence.prompt]
        trajectory = sequence.turns.trajectory()
        self._trajectories[sequence.index] = trajectory
        if self._on_done is not None:
            self._on_done(trajectory)

    def _integers(self, values: list[int]) -> Tensor:
        return torch.tensor(values, dtype=torch.int64, device=self._device)

"""Types of the Rust half. One section per file of `rust/r1ci-python/src`."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

# pack.rs

def pack_bins(
    lengths: Sequence[int] | NDArray[np.int64] | NDArray[np.int32], cap: int
) -> NDArray[np.int32]:
    """Bin of every sequence: best-fit decreasing under a hard cap of tokens.

    Bins are numbered from 0 without gaps, the longest sequence in bin 0. Deterministic; equal
    lengths are taken in index order. No bin holds more than `cap` tokens.

    Raises ValueError naming index and length when a length is 0, negative or above `cap`.
    """

def pack_sequences(
    tokens: NDArray[np.int32] | NDArray[np.int64],
    loss_mask: NDArray[np.bool_],
    offsets: NDArray[np.int64],
    indices: Sequence[int] | NDArray[np.int64] | NDArray[np.int32],
    **columns: NDArray[np.float32],
) -> dict[str, NDArray[Any]]:
    """The flat arrays of one micro-batch: the sequences `indices`, end to end, no padding.

    The batch is ragged: sequence `i` is `offsets[i]:offsets[i + 1]` of `tokens`, of `loss_mask`
    and of every column (`old_logprob=...`, `advantage=...`). With T tokens and B sequences chosen,
    the result holds

        tokens      int64   [T]
        positions   int64   [T]    from 0 in each sequence
        cu_seqlens  int32   [B+1]  where each sequence starts, and T
        sequence    int32   [T]    index in the batch of the sequence a token came from
        loss_mask   bool    [T]
        <column>    float32 [T]    one for every column, under its own name

    All arrays own their memory, so `torch.from_numpy` shares it. The row that predicts packed
    token t is t - 1, always of the same sequence: a loss mask on a first token is refused.

    Raises ValueError when the arrays do not describe a batch, an index is outside it, a chosen
    sequence is empty or its first token carries loss; TypeError for a wrong element type.
    """

# sandbox.rs; `r1ci_engine.sandbox` is the face and documents every argument

def landlock_abi() -> int:
    """Landlock version of the running kernel, 0 for none."""

class Supervisor:
    """Warm interpreters and the threads that watch them. Raises SandboxError."""

    layers: list[str]
    missing: list[tuple[str, str]]
    python: str
    workers: int

    def __init__(
        self,
        *,
        python: str,
        library_paths: Sequence[str],
        read_only: Sequence[str],
        preload: Sequence[str],
        workers: int,
        limits: object,
        required: Sequence[str],
        sessions: int,
        session_idle_s: float,
        session_memory_mb: int,
        work_mb: int,
        work_files: int,
    ) -> None: ...
    def run_many(self, requests: Sequence[object]) -> list[dict[str, Any]]:
        """Requests have the attributes of `ExecutionRequest`, with source and input in bytes."""

    def open_session(self, limits: object, seed: int) -> SessionState:
        """A session that has run nothing yet."""

    def submit_turn(self, state: SessionState, request: object) -> tuple[int, SessionState]:
        """Queue one turn: its ticket for `collect`, and where it leads if the result is kept."""

    def run_turns(
        self, state: SessionState, requests: Sequence[object]
    ) -> list[tuple[dict[str, Any], SessionState]]:
        """Run turns that all start from `state`; results and states in their order."""

    def start_batch(self) -> Batch:
        """An empty batch."""

    def submit(self, request: object) -> int: ...
    def cancel(self, ticket: int) -> None: ...
    def collect(self, timeout_s: float) -> list[tuple[int, dict[str, Any]]]: ...
    def fileno(self) -> int:
        """Readable while `collect` has something to return; the number of no file once closed."""

    def close(self) -> None: ...

class SessionState:
    """Where a session is. Freed, it lets go of that."""

class Batch:
    """Requests that belong together, received as they finish. Freed, it closes itself."""

    def add(self, request: object) -> None:
        """Queue one more; its place is the number of those before it."""

    def receive(self, timeout_s: float | None = None) -> tuple[int, dict[str, Any]] | None:
        """The next that finishes, and its place; None in time-out or when there are no more."""

    def close(self) -> None:
        """Take back what has not begun, kill what runs."""

"""The Python face of packing: types, errors, ownership, and agreement with NumPy twins."""

from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from r1ci_engine._rust import pack_bins, pack_sequences

CAP = 64
LENGTHS = st.lists(st.integers(1, CAP), max_size=80)


def ragged(lengths: list[int], seed: int = 0) -> dict[str, Any]:
    """A batch of random values whose first tokens carry no loss."""
    generator = np.random.default_rng(seed)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    total = int(offsets[-1])
    loss_mask = generator.random(total) < 0.5
    loss_mask[offsets[:-1]] = False
    return {
        "tokens": generator.integers(0, 50_000, total, dtype=np.int32),
        "loss_mask": loss_mask,
        "offsets": offsets,
        "old_logprob": generator.standard_normal(total).astype(np.float32),
        "advantage": generator.standard_normal(total).astype(np.float32),
    }


def loads(lengths: list[int], bins: np.ndarray) -> list[int]:
    return np.bincount(bins, weights=lengths).astype(int).tolist() if lengths else []


@given(LENGTHS)
def test_bins_are_numbered_without_gaps_and_keep_the_cap(lengths: list[int]) -> None:
    bins = pack_bins(lengths, CAP)
    assert bins.dtype == np.int32
    assert bins.shape == (len(lengths),)
    assert set(bins.tolist()) == set(range(len(set(bins.tolist()))))
    assert all(0 < load <= CAP for load in loads(lengths, bins))


@given(LENGTHS)
def test_the_number_of_bins_is_near_the_lower_bound(
    lengths: list[int],
) -> None:
    bound = -(-sum(lengths) // CAP)
    halves = sum(length > CAP // 2 for length in lengths)  # no two of these share a bin
    used = len(set(pack_bins(lengths, CAP).tolist()))
    assert max(bound, halves) <= used
    # Every bin but one is more than half full: otherwise two of them would have been one.
    assert used <= 2 * bound + 1


@given(LENGTHS, st.randoms(use_true_random=False))
def test_the_plan_is_deterministic_and_blind_to_order(lengths: list[int], random: Any) -> None:
    def contents(values: list[int]) -> Counter[tuple[int, ...]]:
        bins = pack_bins(values, CAP)
        members: dict[int, list[int]] = {}
        for value, bin_index in zip(values, bins.tolist(), strict=True):
            members.setdefault(bin_index, []).append(value)
        return Counter(tuple(sorted(member)) for member in members.values())

    assert np.array_equal(pack_bins(lengths, CAP), pack_bins(lengths, CAP))
    shuffled = random.sample(lengths, len(lengths))
    assert contents(lengths) == contents(shuffled)


@pytest.mark.parametrize("dtype", [np.int32, np.int64, np.uint16, np.uint8])
def test_lengths_may_come_in_any_integer_type(dtype: type) -> None:
    lengths = [5, 64, 3, 60, 1]
    expected = pack_bins(lengths, CAP)
    assert np.array_equal(pack_bins(np.array(lengths, dtype=dtype), CAP), expected)
    strided = np.repeat(np.array(lengths, dtype=dtype), 2)[::2]
    assert np.array_equal(pack_bins(strided, CAP), expected)


@pytest.mark.parametrize(
    ("lengths", "message"),
    [
        ([3, 0], "sequence `1` has length `0`"),
        ([3, 4, 65], "sequence `2` has length `65`, above the cap of `64` tokens"),
        ([-2], "sequence `0` has length `-2`"),
        ([2**40], f"sequence `0` has length `{2**40}`"),
    ],
)
def test_impossible_lengths_are_named(lengths: list[int], message: str) -> None:
    with pytest.raises(ValueError) as caught:
        pack_bins(lengths, CAP)
    assert str(caught.value) == message


def test_fractions_are_refused_not_rounded() -> None:
    with pytest.raises(TypeError):
        pack_bins(np.array([1.5, 2.0]), CAP)  # type: ignore[arg-type]


@settings(max_examples=50)
@given(st.lists(st.integers(1, 20), min_size=1, max_size=12), st.randoms(use_true_random=False))
def test_sequences_are_the_concatenation_of_slices(lengths: list[int], random: Any) -> None:
    batch = ragged(lengths)
    indices = random.sample(range(len(lengths)), random.randint(0, len(lengths)))
    packed = pack_sequences(indices=indices, **batch)

    offsets = batch["offsets"]
    for name, dtype in [
        ("tokens", np.int64),
        ("loss_mask", np.bool_),
        ("old_logprob", np.float32),
        ("advantage", np.float32),
    ]:
        slices = [batch[name][offsets[i] : offsets[i + 1]] for i in indices]
        expected = np.concatenate([*slices, np.empty(0, dtype=batch[name].dtype)])
        assert packed[name].dtype == dtype
        assert np.array_equal(packed[name], expected)
    chosen = [lengths[i] for i in indices]
    assert packed["cu_seqlens"].dtype == np.int32
    assert packed["cu_seqlens"].tolist() == [0, *np.cumsum(chosen).tolist()]
    assert packed["positions"].dtype == np.int64
    assert packed["positions"].tolist() == [p for length in chosen for p in range(length)]
    assert packed["sequence"].dtype == np.int32
    assert packed["sequence"].tolist() == np.repeat(indices, chosen).tolist()


def test_planning_then_packing_keeps_every_token_once() -> None:
    generator = np.random.default_rng(7)
    lengths = generator.integers(1, 200, 300).tolist()
    batch = ragged(lengths)
    batch["tokens"] = np.arange(sum(lengths), dtype=np.int64)
    bins = pack_bins(lengths, 256)
    seen = [
        pack_sequences(indices=np.flatnonzero(bins == index), **batch)["tokens"]
        for index in range(bins.max() + 1)
    ]
    assert all(len(tokens) <= 256 for tokens in seen)
    assert np.array_equal(np.sort(np.concatenate(seen)), batch["tokens"])


def test_results_own_their_memory_and_torch_shares_it() -> None:
    torch = pytest.importorskip("torch")
    batch = ragged([4, 3])
    packed = pack_sequences(indices=[1, 0], **batch)
    before = packed["tokens"].copy()
    batch["tokens"][:] = -1
    assert np.array_equal(packed["tokens"], before)
    for name, array in packed.items():
        tensor = torch.from_numpy(array)
        assert tensor.data_ptr() == array.ctypes.data, name
        assert array.flags.writeable, name


def test_arrays_of_the_wrong_type_are_refused_by_name() -> None:
    batch = ragged([4, 3])
    wrong = {
        "tokens": batch["tokens"].astype(np.float32),
        "loss_mask": batch["loss_mask"].astype(np.int64),
        "offsets": batch["offsets"].astype(np.int32),
        "advantage": batch["advantage"].astype(np.float64),
    }
    for name, array in wrong.items():
        with pytest.raises(TypeError, match=f"`{name}`"):
            pack_sequences(indices=[0], **{**batch, name: array})
    with pytest.raises(TypeError, match="`advantage` must be contiguous"):
        doubled = np.repeat(batch["advantage"], 2)[::2]
        pack_sequences(indices=[0], **{**batch, "advantage": doubled})


def test_a_column_cannot_take_the_name_of_a_result() -> None:
    batch = ragged([4, 3])
    with pytest.raises(ValueError, match="`positions` is taken"):
        pack_sequences(indices=[0], positions=batch["advantage"], **batch)


def test_loss_on_a_first_token_is_refused() -> None:
    batch = ragged([4, 3])
    batch["loss_mask"][4] = True
    pack_sequences(indices=[0], **batch)
    with pytest.raises(ValueError, match="first token of sequence `1`"):
        pack_sequences(indices=[0, 1], **batch)

"""What each token counts for, what is told of it, and what is refused before a loss is computed."""

from dataclasses import replace
from typing import get_args

import pytest
import torch
from torch import Tensor

from r1ci_engine.errors import ConfigError, DataError
from r1ci_engine.kernels import (
    Normaliser,
    PolicyLoss,
    Tokens,
    linear_cross_entropy,
    linear_grpo_loss,
    linear_grpo_loss_reference,
    linear_logprob,
    policy_loss,
    row_stats_reference,
    token_weights,
)
from r1ci_engine.kernels.policy_loss import Variant, token_metrics

# Three sequences of a padded batch, the last without any trained token.
TRAINED_BS = torch.tensor([[1, 1, 0, 1], [1, 0, 0, 0], [0, 0, 0, 0]])
LENGTH_BS = TRAINED_BS.sum(1, keepdim=True) * TRAINED_BS
NORM = Normaliser(sequences=2, tokens=4, budget=10)


@pytest.mark.parametrize("variant", get_args(Variant))
def test_padding_counts_for_nothing_and_changes_no_other_weight(variant: Variant) -> None:
    padded = token_weights(variant, LENGTH_BS.flatten(), NORM)
    trained = TRAINED_BS.flatten() == 1
    packed = token_weights(variant, LENGTH_BS.flatten()[trained], NORM)
    assert torch.equal(padded[trained], packed) and (padded[~trained] == 0).all()
    total = {"dr_grpo": 4 / 20}.get(variant, 1.0)
    assert packed.sum().item() == pytest.approx(total)


@pytest.mark.parametrize("variant", get_args(Variant))
def test_a_step_without_trained_tokens_has_weights_of_0(variant: Variant) -> None:
    norm = Normaliser(sequences=0, tokens=0, budget=0, micro_batches=0)
    for length_N in (torch.zeros(3), torch.zeros(0)):
        assert torch.equal(token_weights(variant, length_N, norm), torch.zeros_like(length_N))


def test_counts_and_variants_that_cannot_be_meant_are_refused() -> None:
    with pytest.raises(ConfigError, match="variant is `gpro`") as caught:
        token_weights("gpro", torch.ones(2), NORM)  # pyright: ignore[reportArgumentType]
    assert "`dr_grpo`" in str(caught.value)
    for field in ("sequences", "tokens", "budget", "micro_batches"):
        with pytest.raises(DataError, match=f"`{field}` is `-1`, expected a count"):
            replace(NORM, **{field: -1})


def known(**others: Tensor | None) -> Tokens:
    """Two trained tokens, and one whose weight is 0 and which knows nothing."""
    nan = float("nan")
    made = {
        "advantage_N": torch.tensor([1.0, -1.0, nan]),
        "weight_N": torch.tensor([0.5, 0.5, 0.0]),
        "old_N": torch.tensor([-1.0, -2.0, nan]),
        "reference_N": torch.tensor([-1.1, -2.1, nan]),
        "sampler_N": torch.tensor([-1.2, -2.2, nan]),
        "sequence_N": torch.tensor([0, 0, 0]),
    }
    return Tokens(**(made | others))  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("variant", get_args(Variant))
@pytest.mark.parametrize("mismatch", ["none", "tis", "icepop"])
def test_metrics_say_nothing_of_tokens_without_weight(variant: Variant, mismatch: str) -> None:
    loss = PolicyLoss(variant, kl_coef=0.1, mismatch=mismatch, mismatch_high=0.6)  # pyright: ignore
    logprob_N = torch.tensor([-0.2, -2.1, 0.0])
    found = token_metrics(logprob_N, known(), loss)
    two = Tokens(*(x[:2] for x in vars(known()).values()))
    for name, value_N in token_metrics(logprob_N[:2], two, loss).items():
        assert found[name].tolist() == [*value_N.tolist(), 0.0] and value_N.any()


def test_sequences_may_have_any_numbers() -> None:
    logprob_N, entropy_N = torch.tensor([-0.5, -1.5, -2.0, -0.1]), torch.ones(4)
    values = {
        name: torch.cat([x_N[:2], x_N[:2] + 0.3])
        for name, x_N in vars(known()).items()
        if name != "sequence_N"
    }
    losses = [
        policy_loss(logprob_N, entropy_N, Tokens(**values, sequence_N=ids), PolicyLoss("gspo"))
        for ids in (
            torch.tensor([0, 1, 1, 0]),
            torch.tensor([7, -1, -1, 7]),
            torch.tensor([10**13, 4, 4, 10**13]),
        )
    ]
    assert losses[0] == losses[1] == losses[2] != 0
    other = Tokens(**values, sequence_N=torch.tensor([0, 0, 1, 1]))
    assert policy_loss(logprob_N, entropy_N, other, PolicyLoss("gspo")) != losses[0]


HEAD = (torch.ones(3, 4), torch.ones(5, 4), torch.tensor([0, 4, 2]))


@pytest.mark.parametrize("operator", [linear_grpo_loss, linear_grpo_loss_reference])
def test_what_is_no_loss_or_lies_elsewhere_is_named(operator: object) -> None:
    assert callable(operator)
    cases = [
        (HEAD, known(), "grpo", "the loss is `'grpo'`"),
        (HEAD, known(sequence_N=torch.zeros(3)), PolicyLoss(), "`sequence_N` is `torch.float32`"),
        (HEAD, known(old_N=torch.zeros(3, device="meta")), PolicyLoss(), "`old_N` is on `meta`"),
    ]
    for head, tokens, loss, message in cases:
        with pytest.raises(DataError, match=message):
            operator(*head, tokens, loss)


def test_a_head_that_lies_elsewhere_is_named() -> None:
    hidden_TD, weight_VD, target_T = HEAD
    with pytest.raises(DataError, match="the head's weight is on `meta`, expected `cpu`"):
        linear_logprob(hidden_TD, weight_VD.to("meta"), target_T)
    with pytest.raises(DataError, match="the head's bias is on `meta`, expected `cpu`"):
        linear_logprob(*HEAD, bias_V=torch.zeros(5, device="meta"))


@pytest.mark.parametrize("chunk_bytes", [2e9, 0, -1, "2 GB"])
def test_a_number_of_bytes_is_a_whole_one(chunk_bytes: object) -> None:
    for call in (
        lambda: linear_logprob(*HEAD, chunk_bytes=chunk_bytes),  # pyright: ignore
        lambda: linear_grpo_loss(*HEAD, known(), PolicyLoss(), chunk_bytes=chunk_bytes),  # pyright: ignore
    ):
        with pytest.raises(DataError, match="chunk_bytes is `"):
            call()


@pytest.mark.parametrize("target", [-100, -1, 5])
def test_a_target_outside_the_vocabulary_is_named(target: int) -> None:
    hidden_TD, weight_VD, _ = HEAD
    target_T = torch.tensor([0, target, 2])
    one_T = torch.ones(3)
    for call in (
        lambda: linear_logprob(hidden_TD, weight_VD, target_T),
        lambda: linear_cross_entropy(hidden_TD, weight_VD, target_T, one_T),
    ):
        with pytest.raises(DataError, match=f"a target is `{target}`, expected one from 0 to 4"):
            call()
    kept_T = one_T.where(target_T == torch.tensor([0, 4, 2]), 0)  # without weight it is not read
    assert linear_cross_entropy(hidden_TD, weight_VD, target_T, kept_T).loss > 0


def test_numbers_that_are_none_are_refused() -> None:
    for field, value in (("clip_low", "0.2"), ("kl_coef", None), ("entropy_coef", float("nan"))):
        with pytest.raises(ConfigError, match=f"{field} is `{value!r}`"):
            PolicyLoss(**{field: value})
    for field in ("kl_coef", "entropy_coef"):
        with pytest.raises(ConfigError, match=f"{field} is infinite"):
            PolicyLoss(**{field: float("inf")})
    assert PolicyLoss(clip_high=float("inf")).clip_high == float("inf")  # no clip above


def test_the_definitions_of_right_know_tokens_that_cannot_be_drawn(device: torch.device) -> None:
    """A padded vocabulary by a bias of -inf: neither nan nor a share of the entropy."""
    logits_TV = torch.randn(3, 5, dtype=torch.float64, device=device)
    target_T = torch.tensor([0, 1, 2], device=device)
    padded_TV = torch.cat([logits_TV, logits_TV.new_full((3, 2), -torch.inf)], 1)
    found = []
    for z_TV in (logits_TV, padded_TV):
        leaf_TV = z_TV.clone().requires_grad_()
        logprob_T, entropy_T = row_stats_reference(leaf_TV, target_T, 0.7)
        (gradient_TV,) = torch.autograd.grad((logprob_T + 2 * entropy_T).sum(), leaf_TV)
        assert entropy_T.min() > 0 and gradient_TV.any()
        found.append((logprob_T, entropy_T, gradient_TV[:, :5]))
        assert not gradient_TV[:, 5:].any()
    for plain, padded in zip(*found, strict=True):
        torch.testing.assert_close(padded, plain)


def test_rows_chosen_inside_a_compiled_function(device: torch.device) -> None:
    """How many is data, so a trace leaves it open."""

    def chosen(hidden_TD: Tensor, weight_VD: Tensor, target_T: Tensor) -> Tensor:
        rows_N = (target_T >= 0).nonzero().squeeze(-1)
        logprob_N, entropy_N = linear_logprob(hidden_TD[rows_N], weight_VD, target_T[rows_N])
        return (logprob_N + 0.3 * entropy_N).sum()

    hidden_TD, weight_VD = torch.randn(9, 4, device=device), torch.randn(5, 4, device=device)
    target_T = torch.tensor([0, 1, -100, 2, 3, -100, 4, 0, 1], device=device)
    leaves = [x.requires_grad_() for x in (hidden_TD, weight_VD)]
    torch.compiler.reset()
    with torch._dynamo.config.patch(capture_dynamic_output_shape_ops=True):
        compiled = torch.compile(chosen, backend="aot_eager", fullgraph=True)
        found = compiled(hidden_TD, weight_VD, target_T)
    expected = chosen(hidden_TD, weight_VD, target_T)
    torch.testing.assert_close(found, expected)
    gradients = [torch.autograd.grad(x, leaves) for x in (found, expected)]
    for one, other in zip(*gradients, strict=True):
        assert other.any()
        torch.testing.assert_close(one, other)

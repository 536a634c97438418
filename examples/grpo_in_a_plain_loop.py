"""The fused loss in somebody else's trainer: a plain PyTorch model, sampler and loop.

    python examples/grpo_in_a_plain_loop.py [--steps 150]

A small recurrent model learns to answer a digit with a rising run: "4" -> 5 6 7. From this library
come `linear_grpo_loss`, which takes the place of `lm_head`, `log_softmax` and the loss, `Tokens`,
what is known of each sampled token, and `PolicyLoss`, which loss it shall be.
"""

import argparse

import torch
from torch import Tensor, nn

from r1ci_engine.kernels import Normaliser, PolicyLoss, Tokens, linear_grpo_loss, token_weights

VOCABULARY, WIDTH, LENGTH = 10, 64, 3
ITEMS, GROUP = 16, 8
LOSS = PolicyLoss(variant="dapo", clip_low=0.2, clip_high=0.28)


class Model(nn.Module):
    """Hidden rows from tokens; `head` is never called in training, only its weight is used."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, WIDTH)
        self.body = nn.GRU(WIDTH, WIDTH, batch_first=True)
        self.head = nn.Linear(WIDTH, VOCABULARY)

    def hidden(self, tokens_BT: Tensor) -> Tensor:
        return self.body(self.embedding(tokens_BT))[0]


@torch.no_grad()
def sample(model: Model, prompt_B: Tensor) -> tuple[Tensor, Tensor]:
    """(tokens `[B, 1 + LENGTH]`, log-probabilities of the sampled ones `[B, LENGTH]`)."""
    tokens_BT, logprobs = prompt_B[:, None], []
    for _ in range(LENGTH):
        logprob_BV = model.head(model.hidden(tokens_BT)[:, -1]).log_softmax(-1)
        next_B1 = torch.multinomial(logprob_BV.exp(), 1)
        logprobs.append(logprob_BV.gather(-1, next_B1))
        tokens_BT = torch.cat([tokens_BT, next_B1], 1)
    return tokens_BT, torch.cat(logprobs, 1)


def train(steps: int) -> list[float]:
    """Mean reward of each step."""
    torch.manual_seed(0)
    model = Model()
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    rewards = []
    for _ in range(steps):
        prompt_B = torch.randint(VOCABULARY, (ITEMS,)).repeat_interleave(GROUP)
        tokens_BT, old_BN = sample(model, prompt_B)
        right_BN = tokens_BT[:, 1:] == (prompt_B[:, None] + torch.arange(1, LENGTH + 1)) % 10
        reward_B = right_BN.float().mean(1)
        rewards.append(reward_B.mean().item())

        reward_IG = reward_B.view(ITEMS, GROUP)
        advantage_IG = reward_IG - reward_IG.mean(1, keepdim=True)
        advantage_IG = advantage_IG / (reward_IG.std(1, keepdim=True) + 1e-6)

        # From here on rows are flat: one for each token that was sampled.
        length_N = torch.full((len(prompt_B) * LENGTH,), float(LENGTH))
        norm = Normaliser(sequences=len(prompt_B), tokens=len(length_N), budget=LENGTH)
        known = Tokens(
            advantage_N=advantage_IG.flatten().repeat_interleave(LENGTH),
            weight_N=token_weights(LOSS.variant, length_N, norm),
            old_N=old_BN.flatten(),
        )
        hidden_ND = model.hidden(tokens_BT)[:, :-1].flatten(0, 1)
        loss, _, _ = linear_grpo_loss(
            hidden_ND,
            model.head.weight,
            tokens_BT[:, 1:].flatten(),
            known,
            LOSS,
            bias_V=model.head.bias,
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return rewards


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="GRPO in a plain PyTorch loop")
    parser.add_argument("--steps", type=int, default=150)
    options = parser.parse_args()
    if options.steps < 1:
        parser.error(f"--steps is `{options.steps}`, expected 1 or more")
    rewards = train(options.steps)
    for step in range(0, len(rewards), max(1, len(rewards) // 10)):
        print(f"step {step:>4}  mean reward {rewards[step]:.2f}")
    print(f"last       mean reward {rewards[-1]:.2f}")

"""One dense decoder for Qwen2/2.5, Qwen3 and Llama, on flat packed tokens.

There is no batch axis and no cache in here. A call gets T tokens with their positions, and the
caller's `attend` says which token may look at which: packed causal sequences in training, cached
keys and values in rollout. Both callers thereby run the same modules on the same weights.

Parameter names are those of Hugging Face checkpoints, so a state dict is a checkpoint. Query, key
and value stay separate matrices for that reason.

Left out: dropout, sliding windows, activation checkpointing, attention masks.

Invariant: a token's result does not depend on how many other tokens share the call. Rows are padded
to a multiple of `ROW_MULTIPLE` on entry, because a matrix product on few rows takes another code
path that sums in another order where the library has no strict mode (`exact.py`).

Shape suffixes: T packed token, H query head, K key/value head, D head width or hidden as stated,
V vocabulary, F half a head.
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from r1ci_engine.kernels import add_rms_norm, rms_norm, rope, swiglu
from r1ci_engine.model.config import ModelConfig
from r1ci_engine.model.rope import rope_tables

Attend = Callable[[int, Tensor, Tensor, Tensor], Tensor]
"""`attend(layer_index, q_THD, k_TKD, v_TKD) -> out_THD`; keys come with rotation applied."""

ROW_MULTIPLE = 16
"""With fewer rows a matrix product changes bits: below 8 on some CPUs, below 16 on others (MKL)."""


class RMSNorm(nn.Module):
    """Scale each row to unit mean square, in fp32, then by a learned weight in the row's dtype."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x_TD: Tensor) -> Tensor:
        return rms_norm(x_TD, self.weight, self.eps)

    def after_adding(self, x_TD: Tensor, residual_TD: Tensor) -> tuple[Tensor, Tensor]:
        """(norm of the sum, the sum), in one pass over memory where there is a kernel."""
        return add_rms_norm(x_TD, residual_TD, self.weight, self.eps)


class Attention(nn.Module):
    """Projections, optional head norms (Qwen3) and rotation around the caller's attention."""

    def __init__(self, config: ModelConfig, index: int) -> None:
        super().__init__()
        self.index = index
        self.head_dim = config.head_dim
        query, shared = config.heads * config.head_dim, config.kv_heads * config.head_dim
        self.q_proj = nn.Linear(config.hidden, query, bias=config.qkv_bias)
        self.k_proj = nn.Linear(config.hidden, shared, bias=config.qkv_bias)
        self.v_proj = nn.Linear(config.hidden, shared, bias=config.qkv_bias)
        self.o_proj = nn.Linear(query, config.hidden, bias=config.output_bias)
        self.q_norm = RMSNorm(config.head_dim, config.rms_eps) if config.qk_norm else None
        self.k_norm = RMSNorm(config.head_dim, config.rms_eps) if config.qk_norm else None

    def forward(
        self, x_TD: Tensor, cos_TF: Tensor, sin_TF: Tensor, attend: Attend, tokens: int
    ) -> Tensor:
        """`x_TD` has padding rows after the first `tokens`; `attend` never sees them."""
        q_THD = self.q_proj(x_TD).unflatten(-1, (-1, self.head_dim))
        k_TKD = self.k_proj(x_TD).unflatten(-1, (-1, self.head_dim))
        v_TKD = self.v_proj(x_TD).unflatten(-1, (-1, self.head_dim))
        if self.q_norm is not None and self.k_norm is not None:
            q_THD, k_TKD = self.q_norm(q_THD), self.k_norm(k_TKD)
        q_THD, k_TKD = rope(q_THD, k_TKD, cos_TF, sin_TF)
        out_THD = attend(self.index, q_THD[:tokens], k_TKD[:tokens], v_TKD[:tokens])
        return self.o_proj(pad_rows(out_THD.flatten(1)))


class FeedForward(nn.Module):
    """SwiGLU: a SiLU-gated pair of up projections and one down projection."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(config.hidden, config.intermediate, bias=False)
        self.up_proj = nn.Linear(config.hidden, config.intermediate, bias=False)
        self.down_proj = nn.Linear(config.intermediate, config.hidden, bias=False)

    def forward(self, x_TD: Tensor) -> Tensor:
        return self.down_proj(swiglu(self.gate_proj(x_TD), self.up_proj(x_TD)))


class Block(nn.Module):
    """One layer: attention and feed-forward, each behind a norm, each added to the stream."""

    def __init__(self, config: ModelConfig, index: int) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(config.hidden, config.rms_eps)
        self.self_attn = Attention(config, index)
        self.post_attention_layernorm = RMSNorm(config.hidden, config.rms_eps)
        self.mlp = FeedForward(config)

    def forward(
        self, x_TD: Tensor, cos_TF: Tensor, sin_TF: Tensor, attend: Attend, tokens: int
    ) -> Tensor:
        attended_TD = self.self_attn(self.input_layernorm(x_TD), cos_TF, sin_TF, attend, tokens)
        normed_TD, x_TD = self.post_attention_layernorm.after_adding(x_TD, attended_TD)
        return x_TD + self.mlp(normed_TD)


class Trunk(nn.Module):
    """Embedding, layers and final norm: what checkpoints keep under `model.`."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden)
        self.layers = nn.ModuleList(Block(config, index) for index in range(config.layers))
        self.norm = RMSNorm(config.hidden, config.rms_eps)


class Decoder(nn.Module):
    """The whole model. Call it for hidden rows, then `logits` on the rows that are needed."""

    cosines: Tensor
    sines: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.model = Trunk(config)
        if not config.tied_head:
            self.lm_head = nn.Linear(config.hidden, config.vocab_size, bias=False)
        cos_CF, sin_CF = rope_tables(config.rope, config.head_dim, config.context)
        self.register_buffer("cosines", cos_CF, persistent=False)
        self.register_buffer("sines", sin_CF, persistent=False)

    @property
    def head_weight(self) -> Tensor:
        """The `[V, D]` parameter that turns hidden rows into logits; the embedding when tied."""
        return self.model.embed_tokens.weight if self.config.tied_head else self.lm_head.weight

    def forward(self, tokens_T: Tensor, positions_T: Tensor, attend: Attend) -> Tensor:
        """Return the normalised hidden rows `[T, D]` of T packed tokens.

        `positions_T` counts from 0 within each sequence and stays below `config.context`.
        """
        tokens = tokens_T.shape[0]
        positions_T = pad_rows(positions_T)
        cos_TF, sin_TF = self.cosines[positions_T], self.sines[positions_T]
        x_TD = self.model.embed_tokens(pad_rows(tokens_T))
        for block in self.model.layers:
            x_TD = block(x_TD, cos_TF, sin_TF, attend, tokens)
        return self.model.norm(x_TD)[:tokens]

    def logits(self, hidden_TD: Tensor) -> Tensor:
        """Return fp32 logits `[T, V]`, accumulated and kept in fp32 whatever the weights' dtype.

        A 16-bit head is widened for the call: meant for sampling and tests; training uses the fused
        kernel on `head_weight`.
        """
        rows = hidden_TD.shape[0]
        return F.linear(pad_rows(hidden_TD).float(), self.head_weight.float())[:rows]


def pad_rows(x: Tensor) -> Tensor:
    """Append zero rows until the number of rows is a multiple of `ROW_MULTIPLE`."""
    missing = -x.shape[0] % ROW_MULTIPLE
    return F.pad(x, (0, 0) * (x.dim() - 1) + (0, missing)) if missing else x


def init_model(config: ModelConfig, seed: int) -> Decoder:
    """Return a decoder with random weights that depend on `config` and `seed` only.

    Normal with deviation 0.02; the two matrices per layer that write into the residual stream are
    scaled by 1/sqrt(2 layers), so that the stream's variance does not grow with depth (GPT-2).
    """
    with torch.device("meta"):
        decoder = Decoder(config)
    generator = torch.Generator().manual_seed(seed)
    residual_scale = 1.0 / math.sqrt(2 * config.layers)
    state: dict[str, Tensor] = {}
    for name, parameter in decoder.named_parameters():
        if name.endswith("norm.weight"):
            value = torch.ones(parameter.shape)
        elif name.endswith(".bias"):
            value = torch.zeros(parameter.shape)
        else:
            value = torch.randn(parameter.shape, generator=generator) * 0.02
            if name.endswith(("o_proj.weight", "down_proj.weight")):
                value *= residual_scale
        state[name] = value
    decoder.load_state_dict(state, assign=True)
    return decoder

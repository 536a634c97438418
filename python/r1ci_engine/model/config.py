"""The shape of a dense decoder, read from and written to a Hugging Face `config.json`.

One dataclass covers the three families of this engine: Qwen2/2.5, Qwen3 and Llama. They differ in
three switches (`qkv_bias`, `output_bias`, `qk_norm`), which are resolved here once so that the
decoder never asks for a family.

Left out: sliding windows, mixture of experts, partial rotary, MLP bias, activations other than
SiLU. Such a config is refused, because running it without the missing part would give a plausible
and wrong model.

Invariant: `ModelConfig.from_hf(config.to_hf()) == config`, and `transformers` loads the same dict.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from r1ci_engine.errors import ModelError, short_repr

ARCHITECTURES = {
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
    "llama": "LlamaForCausalLM",
}
"""Family (`model_type`) to the class name that `architectures` carries."""

DTYPES = ("float32", "bfloat16", "float16")

_ROPE_KEYS = {
    "default": frozenset[str](),
    "linear": frozenset({"factor"}),
    "llama3": frozenset(
        {"factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"}
    ),
    "yarn": frozenset(
        {
            "factor",
            "original_max_position_embeddings",
            "attention_factor",
            "beta_fast",
            "beta_slow",
            "truncate",
        }
    ),
}
"""What each kind of rotary scaling may say beside its type and base."""


@dataclass(frozen=True)
class RopeConfig:
    """Rotary position embedding: base frequency and how it is stretched beyond the trained length.

    `original_context` is the length the unscaled model was trained on (llama3 and yarn only).
    """

    theta: float = 10_000.0
    kind: str = "default"
    factor: float = 1.0
    original_context: int = 0
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    attention_factor: float | None = None
    truncate: bool = True

    def to_hf(self) -> dict[str, Any]:
        """Return the `rope_parameters` dict: type, base and the keys that this kind uses."""
        values: dict[str, Any] = {
            "factor": self.factor,
            "low_freq_factor": self.low_freq_factor,
            "high_freq_factor": self.high_freq_factor,
            "original_max_position_embeddings": self.original_context,
            "beta_fast": self.beta_fast,
            "beta_slow": self.beta_slow,
            "attention_factor": self.attention_factor,
            "truncate": self.truncate,
        }
        used = {k: v for k, v in values.items() if k in _ROPE_KEYS[self.kind] and v is not None}
        return {"rope_type": self.kind, "rope_theta": self.theta, **used}


@dataclass(frozen=True)
class ModelConfig:
    """Everything the decoder needs to know about itself.

    Widths are in elements: `hidden` is the residual stream, `head_dim` one attention head,
    `intermediate` the feed-forward. `context` is the number of positions the rotary tables cover.
    """

    family: str
    vocab_size: int
    hidden: int
    intermediate: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    context: int
    rms_eps: float = 1e-6
    rope: RopeConfig = field(default_factory=RopeConfig)
    tied_head: bool = False
    qkv_bias: bool = False
    output_bias: bool = False
    dtype: str = "float32"
    bos_id: int | None = None
    eos_ids: tuple[int, ...] = ()
    pad_id: int | None = None

    def __post_init__(self) -> None:
        if self.family not in ARCHITECTURES:
            raise _unsupported(f"`{self.family}`")
        sizes = (
            "vocab_size",
            "hidden",
            "intermediate",
            "layers",
            "heads",
            "kv_heads",
            "head_dim",
            "context",
        )
        for name in sizes:
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ModelError(f"model size `{name}` must be a positive integer, not `{value!r}`")
        if self.heads % self.kv_heads:
            raise ModelError(
                f"`{self.heads}` query heads cannot share `{self.kv_heads}` key/value heads evenly"
            )
        if self.head_dim % 2:
            raise ModelError(f"head width `{self.head_dim}` is odd; rotary embedding needs pairs")

    @property
    def qk_norm(self) -> bool:
        """Qwen3 normalises each query and key head before the rotation."""
        return self.family == "qwen3"

    @classmethod
    def from_hf(cls, raw: Mapping[str, Any], source: str = "config.json") -> "ModelConfig":
        """Read a `config.json` dict, in the old spelling (`rope_theta`, `torch_dtype`) or the new.

        Raises ModelError, naming `source`, for an unsupported architecture, a missing size, or a
        feature this decoder does not compute.
        """
        family = _family(raw)
        _refuse_unsupported_features(raw, family, source)

        def size(key: str) -> int:
            if not isinstance(raw.get(key), int):
                raise ModelError(
                    f"`{source}` has no integer `{key}`",
                    hint="is this the folder of a language model?",
                )
            return raw[key]

        hidden, heads = size("hidden_size"), size("num_attention_heads")
        head_dim = raw.get("head_dim") or (128 if family == "qwen3" else hidden // max(heads, 1))
        bias = bool(raw.get("attention_bias", False))
        context = int(raw.get("max_position_embeddings") or (2048 if family == "llama" else 32768))
        return cls(
            family=family,
            vocab_size=size("vocab_size"),
            hidden=hidden,
            intermediate=size("intermediate_size"),
            layers=size("num_hidden_layers"),
            heads=heads,
            kv_heads=raw.get("num_key_value_heads") or heads,
            head_dim=head_dim,
            context=context,
            rms_eps=float(raw.get("rms_norm_eps", 1e-6)),
            rope=_rope(raw, context, source),
            tied_head=bool(raw.get("tie_word_embeddings", False)),
            qkv_bias=True if family == "qwen2" else bias,
            output_bias=False if family == "qwen2" else bias,
            dtype=_dtype(raw, source),
            bos_id=raw.get("bos_token_id"),
            eos_ids=as_id_tuple(raw.get("eos_token_id")),
            pad_id=raw.get("pad_token_id"),
        )

    def to_hf(self) -> dict[str, Any]:
        """Return a `config.json` dict.

        Rotary settings and dtype are written in both spellings: older readers know only
        `rope_theta`, `rope_scaling` and `torch_dtype`, newer ones only `rope_parameters` and
        `dtype`.
        """
        rope = self.rope.to_hf()
        scaling = {k: v for k, v in rope.items() if k != "rope_theta"}
        raw: dict[str, Any] = {
            "architectures": [ARCHITECTURES[self.family]],
            "model_type": self.family,
            "vocab_size": self.vocab_size,
            "hidden_size": self.hidden,
            "intermediate_size": self.intermediate,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.kv_heads,
            "head_dim": self.head_dim,
            "max_position_embeddings": self.context,
            "rms_norm_eps": self.rms_eps,
            "rope_theta": self.rope.theta,
            "rope_scaling": None if self.rope.kind == "default" else scaling,
            "rope_parameters": rope,
            "hidden_act": "silu",
            "attention_dropout": 0.0,
            "initializer_range": 0.02,
            "use_cache": True,
            "tie_word_embeddings": self.tied_head,
            "torch_dtype": self.dtype,
            "dtype": self.dtype,
            "bos_token_id": self.bos_id,
            "eos_token_id": self.eos_ids[0]
            if len(self.eos_ids) == 1
            else list(self.eos_ids) or None,
            "pad_token_id": self.pad_id,
        }
        if self.family != "qwen2":
            raw["attention_bias"] = self.qkv_bias
        return raw


def as_id_tuple(value: Any) -> tuple[int, ...]:
    """Token ids as Hugging Face files spell them: nothing, one integer, or a list."""
    if value is None:
        return ()
    return (value,) if isinstance(value, int) else tuple(value)


def _family(raw: Mapping[str, Any]) -> str:
    """Family from `model_type`, or from `architectures` when the type is not given."""
    family, names = raw.get("model_type"), raw.get("architectures") or []
    for key, value, kind in (("model_type", family or "", str), ("architectures", names, list)):
        if not isinstance(value, kind):
            raise ModelError(f"`{key}` of the model is `{short_repr(value)}`, no {kind.__name__}")
    if family in ARCHITECTURES:
        return family
    for known, name in ARCHITECTURES.items():
        if family is None and name in names:
            return known
    unknown = [name for name in names if name not in ARCHITECTURES.values()]
    if family is not None and not unknown:  # `architectures` is left out or contradicts it
        raise _unsupported(f"`{family}` (`model_type`)")
    raise _unsupported(", ".join(f"`{name}`" for name in unknown) or "none named")


def _unsupported(named: str) -> ModelError:
    supported = ", ".join(f"{name} ({family})" for family, name in ARCHITECTURES.items())
    return ModelError(f"unsupported model architecture {named}", hint=f"supported: {supported}")


def _refuse_unsupported_features(raw: Mapping[str, Any], family: str, source: str) -> None:
    layer_types = set(raw.get("layer_types") or ["full_attention"])
    refused = {
        "hidden_act": raw.get("hidden_act", "silu") not in ("silu", "swish"),
        "use_sliding_window": bool(raw.get("use_sliding_window", False)),
        "layer_types": layer_types != {"full_attention"},
        "mlp_bias": bool(raw.get("mlp_bias", False)),
        "partial_rotary_factor": raw.get("partial_rotary_factor", 1.0) != 1.0,
        "num_experts": bool(raw.get("num_experts")),
        "quantization_config": raw.get("quantization_config") is not None,
    }
    for key, is_set in refused.items():
        if is_set:
            raise ModelError(
                f"`{source}` sets `{key}` to `{raw[key]}`, "
                f"which this {family} decoder does not compute",
                hint="use a dense checkpoint with full attention and SiLU, in 16 or 32 bits",
            )


def _rope(raw: Mapping[str, Any], context: int, source: str) -> RopeConfig:
    """Merge the old spelling (`rope_theta`, `rope_scaling`) and the new one (`rope_parameters`)."""
    given = dict(raw.get("rope_parameters") or {}) | dict(raw.get("rope_scaling") or {})
    theta = given.pop("rope_theta", None) or raw.get("rope_theta") or 10_000.0
    old_kind = given.pop("type", None)
    kind = given.pop("rope_type", None) or old_kind or "default"
    if given.pop("partial_rotary_factor", 1.0) != 1.0:
        raise ModelError(
            f"`{source}` rotates only part of each head, which this decoder does not compute"
        )
    if kind not in _ROPE_KEYS:
        raise ModelError(
            f"`{source}` asks for rotary scaling `{kind}`",
            hint=f"supported: {', '.join(_ROPE_KEYS)}",
        )
    unknown = sorted(set(given) - _ROPE_KEYS[kind])
    if unknown and kind != "default":
        raise ModelError(
            f"`{source}` sets `{unknown[0]}` in rotary scaling `{kind}`, "
            "which this decoder does not know"
        )
    if kind != "default" and not given.get("factor"):
        raise ModelError(f"`{source}` asks for rotary scaling `{kind}` without a `factor`")
    if kind == "default":
        return RopeConfig(theta=float(theta))
    original = given.get("original_max_position_embeddings") or context
    attention_factor = given.get("attention_factor")
    return RopeConfig(
        theta=float(theta),
        kind=kind,
        factor=float(given["factor"]),
        original_context=0 if kind == "linear" else int(original),
        low_freq_factor=float(given.get("low_freq_factor") or 1.0),
        high_freq_factor=float(given.get("high_freq_factor") or 4.0),
        beta_fast=float(given.get("beta_fast") or 32.0),
        beta_slow=float(given.get("beta_slow") or 1.0),
        attention_factor=None if attention_factor is None else float(attention_factor),
        truncate=bool(given.get("truncate", True)),
    )


def _dtype(raw: Mapping[str, Any], source: str) -> str:
    name = str(raw.get("dtype") or raw.get("torch_dtype") or "float32").removeprefix("torch.")
    if name not in DTYPES:
        raise ModelError(
            f"`{source}` stores weights as `{name}`", hint=f"supported: {', '.join(DTYPES)}"
        )
    return name

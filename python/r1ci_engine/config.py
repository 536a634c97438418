"""What a run is made of: frozen sections, read from TOML, checked once.

Defaults are the paper's: its facts are marked *paper*. Where it is silent the field says so, and
whose value stands in if it is not ours; `docs/reproducing.md` has both lists. Precedence: these
defaults, then recipe files left to right, each after its bases (`recipe.py`), then dotted flags.
Unknown keys are refused with their path and the nearest name; a renamed key keeps no alias. Types
and bounds are those of `section.py`; the curriculum has a file of its own.
"""

import difflib
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import tomli_w
from pydantic import BaseModel, Field, ValidationError, field_validator, model_validator
from pydantic_core import PydanticCustomError

from r1ci_engine.curriculum_section import CurriculumSection as CurriculumSection
from r1ci_engine.errors import ConfigError, short_repr
from r1ci_engine.recipe import BASE, read_layers
from r1ci_engine.recipe import read_toml as read_toml
from r1ci_engine.section import (
    Count,
    Factor,
    Fraction,
    Names,
    Positive,
    Seconds,
    Section,
    Temperature,
    Width,
)

LAYERS = (
    "landlock",
    "landlock_tcp",
    "landlock_scope",
    "seccomp",
    "no_new_privs",
    "rlimits",
    "no_capabilities",
    "private_uid",
    "namespaces",
    "own_namespaces",
    "cgroup",
)
"""All names that `sandbox.required` takes; the README of the crate says what each one stops."""


class ModelShape(Section):
    """Size of a model that starts from random weights (Qwen2 architecture)."""

    hidden_size: Width = 256
    """Width D; a multiple of `heads`."""
    layers: Width = 4
    """Number of decoder layers."""
    heads: Width = 4
    """Query heads."""
    kv_heads: Width = 2
    """Key/value heads; divides `heads`."""
    ffn_size: Width = 640
    """Width of the SwiGLU feed-forward."""
    vocab_size: Width = 512
    """Upper bound of the vocabulary trained on the corpus."""
    context: Width = 512
    """Longest sequence in tokens."""


class ModelSection(Section):
    """Which weights a run starts from."""

    path: Annotated[str, Field(min_length=1)] = "demo"
    """A Hugging Face folder, `demo` for the model in the package, or `random` for `shape`."""
    shape: ModelShape = ModelShape()
    """Used only with `path = "random"`."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Type of weights and activations; losses are always float32."""


class TasksSection(Section):
    """Which questions are asked, and how many of each."""

    train: Names = ()
    """Tasks for SFT and reinforcement: `starter/NAME`, `reasoning_gym/NAME`, `bbh/NAME`,
    `symbench/NAME` (with `@LEVEL` one level of it) or a JSONL path."""
    heldout: Names = ()
    """Tasks kept out of all training."""
    sft_items: Count = 64
    """Items per training task for SFT; never shared with reinforcement."""
    train_items: Positive = 32
    """Items per training task for reinforcement."""
    eval_items: Positive = 16
    """Held-out items per task, for training tasks and held-out tasks alike."""


class ProtocolSection(Section):
    """The conversation: how code is asked for, run and answered (*paper* section 1)."""

    prompt: Literal["full", "brief", "switch"] = "full"
    """Head prompt: `full` explains the protocol, `brief` is one line for very small models,
    `switch` asks for words and code by turns."""
    feedback: Literal["inline", "turn"] = "inline"
    """Results are appended to the same assistant turn (*paper*), or sent as a user turn."""
    max_code_calls: Annotated[int, Field(ge=0, le=10_000)] = 8
    """Scripts per trajectory (*paper*: 8)."""
    max_turns: Positive = 9
    """Generation turns per trajectory; one more than the code calls leaves room to answer (not
    published)."""
    output_tokens: Positive = 512
    """Budget of one result in tokens; head and tail are kept and the cut is stated (not
    published)."""
    efficient_turns: Positive = 6
    """More turns than this cost the efficiency penalty (*paper*: 6)."""
    steer_rounds: Annotated[int, Field(ge=1, le=100)] = 3
    """Rounds of guidance of the agent `codesteer` (not published for this paper)."""
    reward_correct: Factor = 1.0
    """For a right final answer (*paper*: 1)."""
    reward_format: Factor = 0.1
    """Added if every turn keeps the format, subtracted otherwise (*paper*: 0.1)."""
    penalty_turns: Factor = 0.1
    """Subtracted above `efficient_turns` (*paper*: 0.1)."""


class SandboxSection(Section):
    """Limits for model-written code, and the least protection accepted."""

    workers: Annotated[int, Field(ge=0, le=1024)] = 0
    """Executions at once; 0 means one per core."""
    cpu_s: Seconds = 30.0
    """CPU seconds per script (not published)."""
    wall_s: Seconds = 60.0
    """Wall seconds per script (*paper*: 60)."""
    memory_mb: Width = 1024
    """Memory per script beyond the warm interpreter, in MiB (at most a TiB)."""
    output_kb: Annotated[int, Field(ge=1, le=2**18)] = 64
    """Output kept per stream, in KiB; a flood is stopped at 256 MiB anyway."""
    required: Names = ("landlock", "seccomp", "no_new_privs", "rlimits")
    """Layers without which the run refuses to start."""
    preload: Names = ()
    """Modules imported once into the warm interpreter, such as `numpy`."""

    @field_validator("required")
    @classmethod
    def _layers_exist(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            if name not in LAYERS:
                near = difflib.get_close_matches(name, LAYERS, n=1)
                hint = f"did you mean `{near[0]}`?" if near else f"layers: {', '.join(LAYERS)}"
                raise PydanticCustomError(
                    "layer", "there is no layer `{name}`", {"name": name, "hint": hint}
                )
        return names


class RolloutSection(Section):
    """How answers are sampled."""

    slots: Annotated[int, Field(ge=1, le=65_536)] = 64
    """Sequences generated at once; each holds a cache of `context` tokens."""
    max_new_tokens: Width = 1024
    """Model tokens per trajectory, over all its turns (not published)."""
    context: Width = 4096
    """Prompt, model and tool tokens together; at most the model's own context (not published)."""
    temperature: Temperature = 1.0
    """Sampling temperature of training rollouts (*paper*: 1.0)."""


class OptimizerSection(Section):
    """AdamW with linear warm-up."""

    lr: Annotated[float, Field(gt=0, le=10)] = 1e-6
    """Peak learning rate (*paper*, reinforcement: 1e-6). AdamW moves a weight by about this."""
    warmup_steps: Count = 0
    """Steps of linear warm-up from zero (not published)."""
    decay: Literal["constant", "cosine", "linear"] = "constant"
    """Shape after warm-up; `cosine` and `linear` fall to a tenth of the peak."""
    weight_decay: Annotated[float, Field(ge=0, le=10)] = 0.0
    """Decoupled; matrices only, never norms, biases or embeddings."""
    beta1: Fraction = 0.9
    """First-moment decay."""
    beta2: Fraction = 0.95
    """Second-moment decay."""
    max_grad_norm: Annotated[float, Field(gt=0, le=1e12)] = 1.0
    """Gradients are scaled down to this global norm."""


class SftSection(Section):
    """Supervised fine-tuning on trajectories; loss on model tokens only."""

    source: Literal["teacher", "jsonl", "corpus"] = "teacher"
    """Scripted task solutions, really executed; a JSONL of `messages`; or the base corpus."""
    path: str = ""
    """File for `source = "jsonl"`."""
    steps: Count = 0
    """Optimizer steps; 0 leaves the stage out."""
    batch_size: Positive = 32
    """Sequences per step (*paper*: 32)."""
    micro_tokens: Positive = 8192
    """Hard cap on packed tokens per forward pass."""
    code_share: Fraction = 0.5
    """Share of teacher solutions that use code, the rest reason in text."""
    optimizer: OptimizerSection = OptimizerSection(lr=1e-5, decay="cosine")
    """The paper does not state its SFT schedule; these are its predecessor's."""


class GrpoSection(Section):
    """Reinforcement by group-relative advantages."""

    variant: Literal["grpo", "bnpo", "dr_grpo", "dapo", "gspo", "cispo"] = "grpo"
    """`grpo` (*paper*; that it divides by the deviation is its framework's), `dr_grpo` (no length
    or deviation division), `dapo` (token mean), `bnpo` (token mean of each micro-batch), `gspo`
    (one ratio per answer; wants a clip of about 0.0003), `cispo` (clips the weight, not the
    gradient)."""
    group_size: Annotated[int, Field(ge=2, le=65_536)] = 5
    """Samples per item (*paper*: 5)."""
    prompts_per_step: Positive = 128
    """Items per step (*paper*: a batch of 128; whether of items or samples is not published)."""
    updates_per_step: Positive = 1
    """Optimizer steps per rollout batch; above 1 the clip begins to act."""
    clip_low: Fraction = 0.2
    """Ratio may fall to 1 - clip_low before the gradient stops (not published; its framework's)."""
    clip_high: Annotated[float, Field(ge=0, le=1e6)] = 0.2
    """Ratio may rise to 1 + clip_high (dapo uses 0.28)."""
    clip_dual: Annotated[float, Field(ge=0, le=1e6)] = 0.0
    """Above 0: under a negative advantage the ratio counts as at most this (two-sided clip)."""
    kl_coef: Annotated[float, Field(ge=0, le=1e6)] = 0.001
    """Weight of the divergence from the SFT model (*paper*: 0.001); 0 drops the reference."""
    kl: Literal["k1", "k2", "k3"] = "k3"
    """Estimate that the loss and `kl/reference` show (*paper*: k3); the gradient is one for all."""
    entropy_coef: Annotated[float, Field(ge=0, le=1e6)] = 0.0
    """Weight of an entropy bonus."""
    mismatch: Literal["none", "tis", "icepop"] = "none"
    """`none`: the ratio starts from the sampler's log-probability. `tis`, `icepop`: from the
    trainer's own, for one more forward pass, and the ratio of these two weighs the token, cut to
    `mismatch_high`, or 0 outside [mismatch_low, mismatch_high]."""
    mismatch_low: Fraction = 0.5
    """Lowest such ratio that `icepop` keeps."""
    mismatch_high: Annotated[float, Field(ge=1, le=1e6)] = 2.0
    """Highest such ratio that `icepop` keeps, and to which `tis` cuts (IcePop's own: 5)."""
    micro_tokens: Positive = 8192
    """Hard cap on packed tokens per forward pass."""
    optimizer: OptimizerSection = OptimizerSection()
    """Learning rate, warm-up and clipping of reinforcement."""

    @model_validator(mode="after")
    def _two_sides(self) -> "GrpoSection":
        if self.clip_dual and (self.clip_dual <= 1 + self.clip_high or self.variant == "cispo"):
            raise ValueError(
                f"clip_dual is `{self.clip_dual}`: it bounds ratios beyond the clip, so it is "
                f"above 1 + clip_high = {1 + self.clip_high:g}, and cispo has no use for it"
            )
        return self


class EvalSection(Section):
    """How accuracy is measured."""

    samples: Positive = 1
    """Samples per held-out item; accuracy is their mean (how many is not published)."""
    temperature: Temperature = 0.6
    """Sampling temperature (*paper*: 0.6)."""


class RunConfig(Section):
    """Everything `r1ci-engine train` needs to know."""

    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] = 0
    """All randomness of the run derives from it."""
    threads: Annotated[int, Field(ge=0, le=4096)] = 0
    """CPU threads for torch; 0 leaves torch's choice. Fixed within a run: it changes bits."""
    save_every: Positive = 25
    """Steps between checkpoints; one is also written at every phase end and on Ctrl-C."""
    model: ModelSection = ModelSection()
    tasks: TasksSection = TasksSection()
    protocol: ProtocolSection = ProtocolSection()
    sandbox: SandboxSection = SandboxSection()
    rollout: RolloutSection = RolloutSection()
    sft: SftSection = SftSection()
    grpo: GrpoSection = GrpoSection()
    curriculum: CurriculumSection = CurriculumSection()
    eval: EvalSection = EvalSection()


def config_to_toml(config: RunConfig) -> str:
    """The resolved configuration as TOML, as saved in the run folder."""
    return tomli_w.dumps(config.model_dump(mode="json"))


def load_config(files: list[Path], overrides: dict[str, Any] | None = None) -> RunConfig:
    """Defaults, then `files` left to right, then `overrides` (a nested dictionary).

    A file comes after its bases (`recipe.py`). Raises ConfigError for a file that is missing or
    not TOML, and for every key that is unknown, of the wrong type or out of range, all named by
    path.
    """
    # Start from every default spelled out: a file that sets only `sft.optimizer.lr` must keep the
    # other defaults of *that* optimizer, not fall back to those of OptimizerSection.
    merged: dict[str, Any] = RunConfig().model_dump()
    layers = read_layers(files)
    for _, values in layers:
        _merge(merged, values)
    _merge(merged, overrides or {})
    sources = [str(path) for path, _ in layers] + (["flags"] if overrides else [])
    return parse_config(merged, source=", ".join(sources) or "the defaults")


def parse_config(values: dict[str, Any], source: str) -> RunConfig:
    """Check a nested dictionary. Raises ConfigError listing every fault with its path."""
    try:
        return RunConfig.model_validate(values)
    except ValidationError as error:
        raise ConfigError(*_explain(error, source)) from None


def _merge(base: dict[str, Any], extra: dict[str, Any]) -> None:
    for key, value in extra.items():
        if isinstance(value, dict) and isinstance(base.get(key), dict):
            _merge(base[key], value)
        else:
            base[key] = value


def _explain(error: ValidationError, source: str) -> tuple[str, str | None]:
    lines: list[str] = []
    hint: str | None = None
    faults = error.errors(include_url=False)
    for fault in faults:
        where = fault["loc"]
        within = any(f["loc"][: len(where)] == where for f in faults if f["loc"] != where)
        if fault["type"] == "too_short" and within:
            continue  # short of entries only because those given are faulty
        path = ".".join(str(part) for part in fault["loc"])
        if fault["type"] == "extra_forbidden":
            lines.append(f"unknown key `{path}`")
            nearest = _nearest(fault["loc"])
            hint = hint or (f"did you mean `{nearest}`?" if nearest else None)
        else:
            said = fault["msg"].removeprefix("Value error, ")
            # A fault of a whole section is told by its words alone.
            shown = "" if isinstance(fault["input"], dict) else f" = `{short_repr(fault['input'])}`"
            lines.append(f"`{path}`{shown}: {said[:1].lower()}{said[1:]}")
            hint = hint or fault.get("ctx", {}).get("hint")
    return f"{'; '.join(lines)} (in {source})", hint or "`r1ci-engine train --help` lists every key"


def _nearest(location: tuple[int | str, ...]) -> str | None:
    section: type[BaseModel] = RunConfig
    for part in location[:-1]:
        annotation = section.model_fields[str(part)].annotation
        candidates = [a for a in (annotation, *get_args(annotation)) if isinstance(a, type)]
        section = next(a for a in candidates if issubclass(a, BaseModel))
    parent = ".".join(str(part) for part in location[:-1])
    known = [*section.model_fields, *([] if parent else [BASE])]
    here = difflib.get_close_matches(str(location[-1]), known, n=1)
    if here:
        return f"{parent}.{here[0]}" if parent else here[0]
    # The key may be right and only stand in the wrong section.
    for name, field in RunConfig.model_fields.items():
        nested = field.annotation
        if isinstance(nested, type) and issubclass(nested, BaseModel):
            close = difflib.get_close_matches(str(location[-1]), nested.model_fields, n=1)
            if close:
                return f"{name}.{close[0]}"
    return None

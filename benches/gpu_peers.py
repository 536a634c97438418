"""Other libraries' fused heads, where they can be imported; each is one loss and two gradients.

Losses that are not GRPO are plain cross-entropy, which is no more work than ours does. A peer that
cannot be imported is listed with that reason. Wheels in a folder can be used without installing.
"""

import atexit
import importlib
import importlib.metadata
import shutil
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from gpu_measure import Bench, Call, why
from gpu_step import Step

SEQUENCE = 4096  # tokens of one, where a library wants sequences


def torch_cross_entropy(step: Step) -> Call:
    from torch.nn import LinearCrossEntropyOptions  # type: ignore[attr-defined]

    fused: Any = F.linear_cross_entropy  # type: ignore[attr-defined]
    options = LinearCrossEntropyOptions()
    head = (step.hidden_TD, step.weight_VD, step.target_T)
    return lambda: step.gradients(fused(*head, options=options))


def liger_grpo(step: Step) -> Call:
    from liger_kernel.chunked_loss import LigerFusedLinearGRPOLoss  # type: ignore[import-not-found]

    fused = LigerFusedLinearGRPOLoss(beta=0.0, use_ref_model=False)
    T, D = step.hidden_TD.shape
    B = max(1, T // SEQUENCE)
    target_BS, advantage_B = step.target_T.view(B, -1), step.tokens.advantage_N[:B]
    mask_BS = torch.ones_like(target_BS)

    def call() -> object:
        hidden_BSD = step.hidden_TD.view(B, -1, D)
        return step.gradients(fused(hidden_BSD, step.weight_VD, target_BS, mask_BS, advantage_B)[0])

    return call


def liger_grpo_tf32(step: Step) -> Call:
    fused, matmul = liger_grpo(step), torch.backends.cuda.matmul

    def call() -> object:
        before = matmul.allow_tf32
        matmul.allow_tf32 = True
        try:
            return fused()
        finally:
            matmul.allow_tf32 = before

    return call


def liger_cross_entropy(step: Step) -> Call:
    from liger_kernel.transformers.functional import (  # type: ignore[import-not-found]
        liger_fused_linear_cross_entropy,
    )

    head = (step.hidden_TD, step.weight_VD, step.target_T)
    return lambda: step.gradients(liger_fused_linear_cross_entropy(*head))


def quack_cross_entropy(step: Step) -> Call:
    from quack.linear_cross_entropy import (  # type: ignore[import-not-found]
        chunked_linear_cross_entropy,
    )

    head = (step.hidden_TD, step.weight_VD, step.target_T)
    return lambda: step.gradients(chunked_linear_cross_entropy(*head))


class Peer(NamedTuple):
    module: str
    make: Callable[[Step], Call]
    units: float
    """Its time, rather too much: how often a product of 2 T D V at half of an H100's rate."""


PEERS = {
    "torch linear_cross_entropy": Peer("torch", torch_cross_entropy, 5),
    # It multiplies two of three products in fp32, which runs at a sixteenth of bf16's rate.
    "Liger GRPO": Peer("liger_kernel", liger_grpo, 22),
    "Liger GRPO, TF32": Peer("liger_kernel", liger_grpo_tf32, 10),
    "Liger cross-entropy": Peer("liger_kernel", liger_cross_entropy, 16),
    "QuACK cross-entropy": Peer("quack", quack_cross_entropy, 5),
}


def use_wheels(folder: Path) -> None:
    """Unpacks the wheels in a folder where they can be imported from, behind all that is installed.

    For this process only: nothing is installed.
    """
    unpacked = tempfile.mkdtemp()
    atexit.register(shutil.rmtree, unpacked, ignore_errors=True)
    for wheel in sorted(folder.glob("*.whl")):
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(unpacked)
    sys.path.append(unpacked)


def peers(bench: Bench) -> list[dict[str, Any]]:
    """Each with its version, or the reason why it is not measured."""
    found = []
    for name, (module, _, _) in PEERS.items():
        reason, version = None, None
        try:
            importlib.import_module(module)
            version = _version(module)
        except Exception as error:  # a library may fail to load in any way
            reason = f"not importable: {why(error)}"
        if module == "torch" and not hasattr(F, "linear_cross_entropy"):
            reason = f"torch {torch.__version__} has none"
        if reason is None and module != "torch" and not bench.on_gpu:
            reason = "needs a GPU"
        found.append({"name": name, "version": None if reason else version, "why_not": reason})
    return found


def _version(module: str) -> str:
    names = importlib.metadata.packages_distributions().get(module, [])
    return importlib.metadata.version(names[0]) if names else "unknown"

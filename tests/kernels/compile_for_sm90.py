"""Compiles every Triton kernel for Hopper, which needs no GPU, and prints what each one uses.

Run as a script of its own, because a process that interprets kernels cannot compile them:

    python tests/kernels/compile_for_sm90.py     ->  {"<kernel>": {"registers": .., "spills": ..}}
"""

import json
import re
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from r1ci_engine.kernels import dispatch
from r1ci_engine.kernels.kv_cache_write import _write_kernel
from r1ci_engine.kernels.row_stats import _backward_kernel, _forward_kernel

SM90 = GPUTarget("cuda", 90, 32)
ROWS = {"target": "*i64", "logprob": "*fp32", "entropy": "*fp32", "lse": "*fp32", "g": "*fp32"}
STRIDES = {"temperature": "fp32", "V": "i32", "stride_t": "i64", "stride_dt": "i64"}
CACHE = {name: "*bf16" for name in ("key", "value", "cache_key", "cache_value")}

# name: (kernel, types of its arguments, compile-time values, warps)
VARIANTS: dict[str, tuple[Any, dict[str, str], dict[str, Any], int]] = {
    "row_stats forward": (
        _forward_kernel,
        {"logits": "*fp32", **ROWS, **STRIDES},
        {"BLOCK_V": 4096},
        8,
    ),
    "row_stats backward": (
        _backward_kernel,
        {"logits": "*fp32", "dlogits": "*bf16", "h": "*fp32", **ROWS, **STRIDES},
        {"BLOCK_V": 4096, "HAS_H": False},
        8,
    ),
    "row_stats backward with entropy": (
        _backward_kernel,
        {"logits": "*fp32", "dlogits": "*bf16", "h": "*fp32", **ROWS, **STRIDES},
        {"BLOCK_V": 4096, "HAS_H": True},
        8,
    ),
    "kv_cache_write": (
        _write_kernel,
        {**CACHE, "row": "*i64", "WIDTH": "i32", **{f"stride_{name}": "i64" for name in CACHE}},
        {"BLOCK": 1024},
        4,
    ),
}


def usage(kernel: Any, types: dict[str, str], constants: dict[str, Any], warps: int) -> dict:
    """Registers and spilled bytes as the assembler reports them."""
    names = kernel.arg_names
    signature = {name: "constexpr" if name in constants else types[name] for name in names}
    # Pointers and strides are multiples of 16 in every real call, which is what makes loads wide.
    wide = {
        (names.index(name),): [["tt.divisibility", 16]]
        for name in names
        if signature[name].startswith("*") or name.startswith("stride")
    }
    source = ASTSource(kernel, signature, constants, wide)
    ptx = triton.compile(source, target=SM90, options={"num_warps": warps}).asm["ptx"]
    assembler = Path(triton.__file__).parent / "backends/nvidia/bin/ptxas"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.ptx"
        path.write_text(ptx)
        command = [assembler, "-v", "--gpu-name=sm_90a", path, "-o", path.with_suffix(".cubin")]
        report = subprocess.run(command, check=True, capture_output=True, text=True).stderr
    registers = re.search(r"Used (\d+) registers", report)
    spills = re.search(r"(\d+) bytes spill stores, (\d+) bytes spill loads", report)
    assert registers and spills, report
    return {"registers": int(registers[1]), "spills": int(spills[1]) + int(spills[2])}


if __name__ == "__main__":
    assert not dispatch.interpreting(), "unset TRITON_INTERPRET"
    print(json.dumps({name: usage(*variant) for name, variant in VARIANTS.items()}, indent=2))

"""Every Triton kernel compiles for Hopper, within the registers it is meant to use."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from r1ci_engine.kernels.dispatch import HAS_TRITON

REGISTERS = {
    "row_stats forward": 64,
    "row_stats backward": 64,
    "row_stats backward with entropy": 64,
    "kv_cache_write": 64,
}


@pytest.mark.skipif(not HAS_TRITON, reason="triton is not installed")
def test_kernels_compile_for_hopper_without_spills(tmp_path: Path) -> None:
    script = Path(__file__).parent / "compile_for_sm90.py"
    environment = {**os.environ, "TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, script], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    usage = json.loads(done.stdout)
    assert usage.keys() == REGISTERS.keys()
    for name, limit in REGISTERS.items():
        assert usage[name]["spills"] == 0, name
        assert usage[name]["registers"] <= limit, f"{name} uses {usage[name]['registers']}"

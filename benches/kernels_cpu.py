"""The reference path on CPU: the one-pass loss against full logits, and packing.

    python benches/kernels_cpu.py [--json OUT] [--self-check]

The contenders, rounds and figures are those of benches/gpu.py, in fp32: what a run without a GPU
pays for its loss, in time and in memory that torch allocates. Packing is that of benches/pack.py.
Run it on a machine that does nothing else. --self-check does the same at a tiny width.
"""

import argparse
import json
import os
import platform
import time
from pathlib import Path

import torch
from gpu_cases import memory_lines, run_case, show
from gpu_measure import TINY, Bench, Clock, Model
from pack import CASES, processor
from pack import run_case as run_packing

MODEL = Model("SmolLM2-135M", 576, 49_152, 9, 3, 1536)
TOKENS = (256, 1024)
ROUNDS = 5


def main() -> None:
    parser = argparse.ArgumentParser(description="loss and packing on CPU")
    parser.add_argument("--json", type=Path, metavar="OUT", help="write the figures here")
    parser.add_argument("--self-check", action="store_true", help="a tiny head")
    options = parser.parse_args()
    tiny = options.self_check
    model, tokens = (TINY, (32, 64)) if tiny else (MODEL, TOKENS)
    bench = Bench(torch.device("cpu"), 2 if tiny else ROUNDS, Clock(float("inf")), torch.float32)
    torch.manual_seed(0)
    machine = {
        "processor": processor(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "load before": round(os.getloadavg()[0], 2),
        "date": time.strftime("%Y-%m-%d"),
    }
    cases = []
    for T in tokens:
        case = run_case(model, T, bench, contenders=[])
        show(case)
        cases.append(case)
    packing = [run_packing(*case) for case in (CASES[:1] if tiny else CASES)]
    for case in packing:
        print(f"packing {case['sequences']:>9} sequences: {case['per_second'] / 1e6:.1f} M/s")
    report = {
        "bench": "kernels_cpu",
        "self_check": tiny,
        "command": "python benches/kernels_cpu.py",
        "machine": machine,
        "dtype": "fp32",
        "threads": torch.get_num_threads(),
        "rounds": bench.rounds,
        "cases": cases,
        "memory": memory_lines(cases),
        "packing": packing,
    }
    if options.json:
        options.json.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()

"""Packing speed: sequences per second, against the same algorithm in plain Python, in one run.

    python benches/pack.py [--json OUT]

Both sides do best-fit decreasing under the same cap on the same lengths and must return the same
plan. The Python twin keeps its open bins in a sorted list and bisects, as Python packers do; it
runs on at most `TWIN_LIMIT` sequences, where it already takes a good part of a second. Times are
medians; the spread is the distance between the quartiles. One thread.
"""

import argparse
import json
import platform
import statistics
import time
from bisect import bisect_left, insort
from collections.abc import Callable
from pathlib import Path

import numpy as np

from r1ci_engine._rust import pack_bins

CAP = 32_768
CASES = [  # sequences, median length, spread of its logarithm
    (512, 3000, 0.8),
    (4096, 1500, 1.0),
    (65_536, 3000, 0.8),
    (1_000_000, 700, 1.0),
]
TARGET = 20e6  # sequences/s at 65,536
TWIN_LIMIT = 65_536
SECONDS = 1.0  # spent on each measurement


def draw_lengths(n: int, median: int, sigma: float) -> np.ndarray:
    """Log-normal lengths, none above the cap."""
    generator = np.random.default_rng(n)
    return np.clip(generator.lognormal(np.log(median), sigma, n), 1, CAP).astype(np.int64)


def twin(lengths: list[int], cap: int) -> list[int]:
    """Best-fit decreasing in plain Python; the same ties, so the same plan."""
    order = sorted(range(len(lengths)), key=lambda index: -lengths[index])
    open_bins: list[tuple[int, int, int]] = []  # room left, minus time of the last fill, bin
    bins = [0] * len(lengths)
    count = 0
    for now, index in enumerate(order):
        length = lengths[index]
        place = bisect_left(open_bins, (length,))
        if place < len(open_bins):
            room, _, chosen = open_bins.pop(place)
        else:
            room, chosen = cap, count
            count += 1
        if room > length:
            insort(open_bins, (room - length, -now, chosen))
        bins[index] = chosen
    return bins


def measure(call: Callable[[], object]) -> tuple[float, float]:
    """(median, interquartile range) of the seconds a call takes."""
    call()
    times: list[float] = []
    stop = time.perf_counter() + SECONDS
    while time.perf_counter() < stop or len(times) < 3:
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    low, middle, high = statistics.quantiles(times, n=4)
    return middle, high - low


def run_case(n: int, median: int, sigma: float) -> dict:
    lengths = draw_lengths(n, median, sigma)
    bins = pack_bins(lengths, CAP)
    count = int(bins.max()) + 1
    tokens = int(lengths.sum())
    seconds, spread = measure(lambda: pack_bins(lengths, CAP))
    result = {
        "sequences": n,
        "median_length": median,
        "sigma": sigma,
        "bins": count,
        "lower_bound": -(-tokens // CAP),
        "token_efficiency": tokens / (count * CAP),
        "seconds": seconds,
        "seconds_spread": spread,
        "per_second": n / seconds,
        "twin_seconds": None,
        "ratio": None,
    }
    if n <= TWIN_LIMIT:
        as_list = lengths.tolist()
        if twin(as_list, CAP) != bins.tolist():
            raise SystemExit(f"the twin disagrees at {n} sequences: nothing was measured")
        result["twin_seconds"], _ = measure(lambda: twin(as_list, CAP))
        result["ratio"] = result["twin_seconds"] / seconds
    return result


def processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.machine()


def main() -> None:
    parser = argparse.ArgumentParser(description="packing speed against a plain Python twin")
    parser.add_argument("--json", type=Path, metavar="OUT", help="write the figures here")
    options = parser.parse_args()

    print(f"cap {CAP} tokens; median of repeats over {SECONDS:.0f} s; one thread")
    print(
        f"{'sequences':>10} {'bins/bound':>15} {'tokens':>7}"
        f" {'M seq/s':>9} {'twin':>7} {'ratio':>7}"
    )
    cases = []
    for case in CASES:
        result = run_case(*case)
        cases.append(result)
        twin_rate = f"{case[0] / result['twin_seconds'] / 1e6:.2f}" if result["ratio"] else "-"
        ratio = f"{result['ratio']:.0f}x" if result["ratio"] else "-"
        bound = f"{result['bins']}/{result['lower_bound']}"
        rate = result["per_second"] / 1e6
        print(
            f"{case[0]:>10} {bound:>15} {result['token_efficiency']:>7.4f}"
            f" {rate:>9.1f} {twin_rate:>7} {ratio:>7}"
        )
    reached = next(c["per_second"] for c in cases if c["sequences"] == 65_536)
    met = "met" if reached >= TARGET else "missed"
    print(f"target: 20 M sequences/s at 65,536: {met} ({reached / 1e6:.1f})")
    if options.json:
        machine = {
            "processor": processor(),
            "python": platform.python_version(),
            "numpy": np.__version__,
            "date": time.strftime("%Y-%m-%d"),
        }
        report = {"bench": "pack", "machine": machine, "cap": CAP, "cases": cases}
        options.json.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()

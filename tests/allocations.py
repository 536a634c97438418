"""What a call allocates on CPU: the probe of the benches, for tests."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "benches"))

from gpu_measure import cpu_peak as peak_bytes

__all__ = ["peak_bytes"]

"""What a call allocates on CPU: the probe of the benches, for tests.

The file is loaded by its path. With `benches` among the import folders, its `report.py` would hide
the folder `tests/report`, whichever of the two stands first.
"""

from collections.abc import Callable
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

_path = Path(__file__).parents[1] / "benches" / "gpu_measure.py"
_spec = spec_from_file_location("gpu_measure", _path)
assert _spec is not None
assert _spec.loader is not None
_measure = module_from_spec(_spec)
_spec.loader.exec_module(_measure)


def peak_bytes(call: Callable[[], object]) -> int:
    """Most bytes of tensors alive at once during `call`, above those alive before it."""
    peak = _measure.cpu_peak(call)
    assert peak, "the profiler saw no allocation"
    return peak

"""What a call allocates on CPU, as torch's own profiler counts it."""

import json
import tempfile
from collections.abc import Callable
from pathlib import Path

from torch.profiler import ProfilerActivity, profile


def peak_bytes(call: Callable[[], object]) -> int:
    """Most bytes of tensors alive at once during `call`, above those alive before it.

    Every allocation counts, also those inside custom operators.
    """
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        call()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.json"
        recorded.export_chrome_trace(str(path))
        events = json.loads(path.read_text())["traceEvents"]
    moments = sorted(
        (event["ts"], event["args"]["Bytes"], event["args"]["Total Allocated"])
        for event in events
        if event.get("name") == "[memory]"
    )
    assert moments, "the profiler saw no allocation"
    _, first, total = moments[0]
    return max(total for _, _, total in moments) - (total - first)

"""Memory that this process and its children have held."""

import re
import resource
from pathlib import Path


def peak_rss_mb() -> float:
    """Most memory that this process and its living children have held, in MiB, added up."""
    kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for tasks in Path("/proc/self/task").glob("*/children"):
        for child in tasks.read_text().split():
            try:
                status = Path(f"/proc/{child}/status").read_text()
            except OSError:
                continue  # ended since
            kilobytes += sum(int(n) for n in re.findall(r"^VmHWM:\s*(\d+)", status, re.MULTILINE))
    return kilobytes / 1024

"""What this machine has, what is missing, and the command that mends it.

Looks, and runs one trivial script through the sandbox; installs and changes nothing. Every look
is on its own: a broken torch or a missing extension is a finding here, never a crash. A *fault*
stops runs; the rest (no GPU, an extra that is not installed) is shown and left at that.
"""

import os
import platform
import re
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import import_module, metadata
from pathlib import Path
from typing import Any

from r1ci_engine.config import SandboxSection

MEND_INSTALL = "pip install r1ci-engine (in a checkout: make dev)"
NOT_NEEDED = "not needed without a GPU"
MIN_MEMORY_GB = 2.0
MIN_DISK_GB = 2.0


@dataclass(frozen=True)
class Fault:
    """Something a run needs and does not find."""

    what: str
    mend: str
    """The command, or the step, that mends it."""


@dataclass
class Examination:
    """All findings, by name, in the order they were made."""

    facts: dict[str, Any] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)

    @property
    def ready(self) -> bool:
        """True if a run can start here."""
        return not self.faults

    def to_json(self) -> dict[str, Any]:
        """A JSON-able dictionary: the facts, the faults, and whether a run can start."""
        faults = [{"what": fault.what, "mend": fault.mend} for fault in self.faults]
        return {"ready": self.ready, **self.facts, "faults": faults}

    def look(self, name: str, examine: Callable[[], Any], mend: str) -> Any | None:
        """Note what `examine` returns under `name`; if it raises, note a fault and return None."""
        try:
            self.facts[name] = examine()
        except Exception as error:  # whatever is broken, say so and look at the rest
            self.facts[name] = None
            reason = str(error).splitlines()[0] if str(error) else "no reason given"
            self.faults.append(Fault(f"{name}: {type(error).__name__}: {reason}", mend))
        return self.facts[name]

    def require(self, holds: bool, what: str, mend: str) -> None:
        """Note a fault unless `holds`."""
        if not holds:
            self.faults.append(Fault(what, mend))


def examine() -> Examination:
    """Look at everything a run depends on. Raises nothing."""
    found = Examination()
    found.look("platform", _platform, "use Linux")
    found.require(
        sys.platform == "linux", f"`{sys.platform}` has no Landlock or seccomp", "use Linux"
    )
    found.look("memory", _memory, "is /proc mounted?")
    found.look("disk", _disk, "name a folder that exists")
    found.look("torch", _torch, MEND_INSTALL)
    found.look("triton", lambda: _version("triton"), MEND_INSTALL)
    found.look("kernels", _kernels, "unset R1CI_KERNELS, or see `r1ci_engine.kernels.dispatch`")
    found.look("extension", _extension, MEND_INSTALL)
    torch = found.facts["torch"]
    found.look("extras", lambda: _extras(bool(torch and torch["gpus"])), MEND_INSTALL)
    _examine_room(found)
    if found.facts["extension"] is not None:
        _examine_sandbox(found)
    return found


def _examine_room(found: Examination) -> None:
    memory, disk = found.facts["memory"], found.facts["disk"]
    if memory:
        found.require(
            memory["available_gb"] >= MIN_MEMORY_GB,
            f"memory: {memory['available_gb']} GB available, {MIN_MEMORY_GB} GB needed",
            "free some memory, or lower rollout.slots and grpo.micro_tokens",
        )
    if disk:
        found.require(
            disk["free_gb"] >= MIN_DISK_GB,
            f"disk: {disk['free_gb']} GB free in `{disk['folder']}`",
            "free some space, or name another folder with --run-dir",
        )


def _examine_sandbox(found: Examination) -> None:
    found.look(
        "kernel_offers", _probe, "see rust/r1ci-sandbox/README.md for what the kernel must have"
    )
    required = SandboxSection().required
    result = found.look(
        "sandbox",
        lambda: _run_trivial_script(required),
        "r1ci-engine sandbox doctor tells which layer is missing; a recipe states the least it "
        "accepts in sandbox.required",
    )
    if result is not None:
        found.require(
            result["exit_reason"] == "ok",
            f"sandbox: a trivial script ended with `{result['exit_reason']}`: {result['detail']}",
            "r1ci-engine sandbox run FILE --json shows the whole result",
        )


def _platform() -> dict[str, Any]:
    return {
        "python": platform.python_version(),
        "executable": sys.executable,
        "r1ci_engine": _version("r1ci-engine", default="not installed"),
        "system": platform.system(),
        "kernel": platform.release(),
        "machine": platform.machine(),
        "cpu_threads": len(os.sched_getaffinity(0)),
    }


def _memory() -> dict[str, float]:
    text = Path("/proc/meminfo").read_text(encoding="ascii")
    kib = {name: int(value) for name, value in re.findall(r"^(\w+):\s+(\d+) kB", text, re.M)}
    total, available = kib["MemTotal"] * 1024, kib["MemAvailable"] * 1024
    limit = _control_group_limit()
    if limit is not None:
        total, available = min(total, limit), min(available, limit)
    return {"total_gb": round(total / 1e9, 1), "available_gb": round(available / 1e9, 1)}


def _control_group_limit() -> int | None:
    """Bytes this container may use, where a limit is set at its root."""
    try:
        text = Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii").strip()
    except OSError:
        return None
    return int(text) if text.isdecimal() else None


def _disk() -> dict[str, Any]:
    folder = Path.cwd()
    return {"folder": str(folder), "free_gb": round(shutil.disk_usage(folder).free / 1e9, 1)}


def _torch() -> dict[str, Any]:
    torch = import_module("torch")
    found: dict[str, Any] = {
        "version": torch.__version__,
        "threads": torch.get_num_threads(),
        "cuda": torch.version.cuda,
        "gpus": [],
    }
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            device = torch.cuda.get_device_properties(index)
            found["gpus"].append(
                {
                    "name": device.name,
                    "memory_gb": round(device.total_memory / 1e9, 1),
                    "capability": f"{device.major}.{device.minor}",
                }
            )
    elif Path("/dev/nvidia0").exists():
        found["note"] = "there is a GPU that torch cannot use: compare its driver with torch's CUDA"
    return found


def _kernels() -> str:
    torch = import_module("torch")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    backend, reason = import_module("r1ci_engine.kernels.dispatch").choice(device)
    return f"{backend}, because {reason}"


def _extension() -> str:
    return str(import_module("r1ci_engine._rust").__file__)


def _extras(has_gpu: bool) -> dict[str, dict[str, str]]:
    """Per extra of this package: its packages with version or `missing`, and what mends that."""
    lacking = {"gpu": "missing" if has_gpu else NOT_NEEDED}
    found: dict[str, dict[str, str]] = {}
    for requirement in metadata.requires("r1ci-engine") or []:
        match = re.match(r"([\w.-]+).*extra == ['\"]([\w-]+)['\"]", requirement)
        if match is None:
            continue
        package, extra = match.groups()
        packages = found.setdefault(extra, {})
        packages[package] = _version(package, default=lacking.get(extra, "missing"))
    for extra, packages in found.items():
        if "missing" in packages.values():
            packages["mend"] = f"pip install 'r1ci-engine[{extra}]'"
    return found


def _probe() -> dict[str, Any]:
    from r1ci_engine.sandbox import probe

    return probe()


def _run_trivial_script(required: tuple[str, ...]) -> dict[str, Any]:
    from r1ci_engine.sandbox import Sandbox

    with Sandbox(workers=1, required=required) as sandbox:
        sandbox.run("pass")  # the first run warms the interpreter up
        result = sandbox.run("print(6 * 7)")
    reason = str(result.exit_reason)
    if reason == "ok" and result.stdout != "42\n":
        reason = f"wrong output {result.stdout!r}"
    return {
        "exit_reason": reason,
        "detail": result.detail,
        "wall_ms": round(result.wall_s * 1000, 2),
        "layers": list(result.layers),
        "required": list(required),
    }


def _version(package: str, default: str | None = None) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        if default is None:
            raise
        return default

"""A whole run in seconds: a random model that writes scripts and answers, and tasks of one digit.

The tokenizer has tokens that are whole scripts and whole answers, so that a model which knows
nothing runs code, meets errors and is right now and then: every part of a run has work to do.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tomli_w
from tiny_models import tiny_config, tiny_model, tokenizer_json, write_tokenizer

from r1ci_engine.config import load_config
from r1ci_engine.model.folder import save_model

SCRIPTS = (
    *(f"print({number} * {number})" for number in range(8)),
    "print(1 // 0)",
    "import random\nprint(random.random())",
    "print(sorted(map(str, {1, 'a', 2.5})))\nprint(hash('a'))",
    "open('x.txt', 'w').write('x')\nprint(open('x.txt').read(), __file__)",
)
ANSWERS = tuple(f"{before}<<<{n}>>>" for n in range(6) for before in ("", " ", "\n", "= "))
VOCAB_SIZE = 320

CONFIG: dict[str, Any] = {
    "threads": 1,
    "save_every": 2,
    "tasks": {
        "train": ["starter/digit_min", "starter/letter_count"],
        "heldout": ["starter/list_min"],
        "sft_items": 8,
        "train_items": 4,
        "eval_items": 2,
    },
    "protocol": {"prompt": "brief", "max_code_calls": 2, "max_turns": 3, "output_tokens": 64},
    "sandbox": {"workers": 2, "cpu_s": 2, "wall_s": 10, "memory_mb": 256},
    "rollout": {"slots": 16, "max_new_tokens": 24, "context": 448},
    "sft": {"steps": 4, "batch_size": 6, "optimizer": {"lr": 1e-3}},
    "grpo": {"group_size": 4, "prompts_per_step": 3, "optimizer": {"lr": 1e-3}},
    "curriculum": {"stage_steps": [1, 1, 1, 1], "samples_per_agent": 2},
}


def write_model(folder: Path, scripts: tuple[str, ...] = SCRIPTS, **changes: Any) -> Path:
    """A model folder of two layers and width 32 whose tokens include `scripts` and `ANSWERS`."""
    write_tokenizer(folder)
    path = folder / "tokenizer.json"
    raw = tokenizer_json()
    texts = [*(f"\n```python\n{script}\n```" for script in scripts), *ANSWERS]
    first = 1 + max(token["id"] for token in raw["added_tokens"])
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    raw["added_tokens"] += [
        {"id": first + index, "content": text, "special": False, **plain}
        for index, text in enumerate(texts)
    ]
    path.write_text(json.dumps(raw), encoding="utf-8")
    shape = {"hidden": 32, "intermediate": 48, "heads": 2, "kv_heads": 1, "vocab_size": VOCAB_SIZE}
    save_model(tiny_model(tiny_config(**(shape | changes))), folder)
    return folder


def write_config(path: Path, model: Path | str, **changes: dict[str, Any] | Any) -> Path:
    """`CONFIG` as a TOML file; `changes` replace single keys of sections."""
    config = {"model": {"path": str(model)}} | json.loads(json.dumps(CONFIG))
    for name, value in changes.items():
        if isinstance(value, dict):
            config[name] = config.get(name, {}) | value
        else:
            config[name] = value
    path.write_text(tomli_w.dumps(config), encoding="utf-8")
    load_config([path])  # a slip in a test is not what it tests
    return path


def command(*arguments: object, script: str = "") -> subprocess.CompletedProcess[str]:
    """Run `r1ci-engine` in a process of its own; `script` is run before it, in that process."""
    start = ["-c", f"{script}\nfrom r1ci_engine.cli import main\nimport sys\nsys.exit(main())"]
    return subprocess.run(
        [sys.executable, *(start if script else ["-m", "r1ci_engine"]), *map(str, arguments)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=600,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        start_new_session=True,
    )


def train(
    config: Path, run_dir: Path, *arguments: object, script: str = ""
) -> subprocess.CompletedProcess[str]:
    """Run `r1ci-engine train` as `command` does."""
    return command("train", config, "--run-dir", run_dir, *arguments, script=script)


BEFORE = """
import os, signal
from pathlib import Path
from r1ci_engine import lessons, run
from r1ci_engine.report.metrics import MetricsLog
from r1ci_engine.sandbox import Sandbox
from r1ci_engine.workbench import Workbench

def before(owner, name, when, act):
    whole = getattr(owner, name)
    def wrapped(*args, **named):
        if when(*args):
            act(*args)
        return whole(*args, **named)
    setattr(owner, name, wrapped)

def kill(*_):
    os.kill(os.getpid(), signal.SIGKILL)
"""
"""For `script`: do something just before a function of the engine is called with arguments."""

TIMES = ("seconds", "tokens_per_s", "time/")
MEASURED = ("wall_s", "cpu_s", "peak_rss_mb")


def contents(run: Path) -> dict[str, Any]:
    """What of a run must not depend on time: every metrics line, trajectory and final weight."""
    kept: dict[str, Any] = {"metrics": [_timeless(line) for line in lines(run / "metrics.jsonl")]}
    for path in sorted((run / "trajectories").iterdir()):
        kept[path.name] = [_unmeasured(line) for line in lines(path)]
    for path in (*sorted((run / "model").iterdir()), run / "curriculum.jsonl"):
        kept[path.name] = path.read_bytes()
    return kept


def lines(path: Path) -> Iterator[dict[str, Any]]:
    """The records of a JSONL file."""
    return map(json.loads, path.read_text(encoding="utf-8").splitlines())


def _timeless(line: dict[str, Any]) -> str:
    return json.dumps({k: v for k, v in line.items() if not k.startswith(TIMES)})


def _unmeasured(line: dict[str, Any]) -> str:
    for execution in line["executions"]:
        for name in MEASURED:
            del execution[name]
    return json.dumps(line)

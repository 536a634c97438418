"""The real model as a Hugging Face folder, converted once."""

import os
from pathlib import Path

import pytest

from r1ci_engine.model.gguf import convert


@pytest.fixture(scope="session")
def folder() -> Path:
    """SmolLM2-135M-Instruct in `R1CI_CACHE` (default `.cache` in the checkout)."""
    default = Path(__file__).parents[2] / ".cache"
    folder = Path(os.environ.get("R1CI_CACHE", default)) / "smollm2_135m"
    if not (folder / "config.json").exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        convert("smollm2", folder)
    return folder

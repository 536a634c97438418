"""r1ci-engine: train language models that reason with a code interpreter.

Importing this package loads nothing heavy: no torch, no triton. Rooms are imported by name
(`r1ci_engine.sandbox`, `r1ci_engine.train.grpo`, ...); the README has the map.
"""

__version__ = "0.1.0"

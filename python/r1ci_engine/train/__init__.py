"""The trainer: supervised steps, GRPO steps, losses, optimizer, checkpoints.

Start with `grpo.py`: the whole reinforcement step is one page, and `losses.py` has its formulas.
Consumes trajectories; never samples, never runs code.
"""

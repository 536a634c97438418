"""The trainer: supervised steps, GRPO steps, optimizer, checkpoints.

Start with `grpo.py`: the whole reinforcement step is one page. The formulas of its losses are in
`kernels/policy_loss.py`.
Consumes trajectories; never samples, never runs code.
"""

"""The rollout: questions in, trajectories out; text, code, its output and text again."""

"""What is asked, and what is right.

Questions come from procedural families in the package, from Reasoning-Gym and from JSONL files.
Answers are judged by comparing data in this process, or by third-party scorers inside the
sandbox; nothing a model wrote is ever evaluated here. No torch.
"""

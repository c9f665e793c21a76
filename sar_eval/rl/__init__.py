"""Reinforcement learning on judged pictures: GRPO, DPO, RAFT's selection, and the probe of a reward."""

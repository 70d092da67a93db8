"""Trainers on ms-swift: SFT, merge, GRPO with a pair sampler."""

"""The mathematics of decoupled PPO: pure functions over tensors.

Owns log-probs, ratios, masks, losses, advantages and their statistics. Does not own where old log-probs come from
(`asyncppo_runtime.old_logprobs`), the optimizer, nor any I/O (`asyncppo_runtime.learner`).
"""

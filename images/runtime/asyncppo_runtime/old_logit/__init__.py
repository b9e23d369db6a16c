"""The old-logit worker: scores segments under exact versions for a learner. A cache with a forward; it owns nothing that can be lost."""

"""The learner program: experience service, trainer, weight store, checkpoints, the learner's side of version sync.

A token's way through here: `experience` (lease, receipt) → `selection` (which groups make a batch) → `trainer` (score, accumulate,
step) → `synchronization` (seal, publish) → `checkpoints`. `training` is the loop that walks it, `program` puts the parts together.
"""

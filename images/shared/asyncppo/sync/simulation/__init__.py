"""A learner and rollouts that speak the protocol over real HTTP and do nothing else: no model, no tensors.

Owns stand-ins for tests and benchmarks of the coordinator. Their decisions are the real ones: the learner's are the reference rules of
`arbiter.py`, the rollouts' those of `MemberGuard`.
"""

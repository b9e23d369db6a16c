"""Exhaustive exploration of the version-sync protocol: every order of events, every lost message and crash within a budget.

Owns the composed model (one learner, two rollouts, two coordinators, a network) and the search. Does not own the protocol: every
decision in it is made by the very functions that the programs run (`machine.transition`, `MemberGuard`) and by the reference rules
of the learner (`arbiter`). Run it with `python -m asyncppo.sync.exploration`.
"""

"""A job trained on a virtual schedule: one process, no clock, every lag and every interleaving drawn from the seed.

Owns that schedule, a lock-step form of the torch engine, and the measuring of what a proxy decides wrongly. Trainer, strategies, agent
loop and environments are the real ones. Does not own which jobs are trained nor how results are compared (`asyncppo.study`).
"""

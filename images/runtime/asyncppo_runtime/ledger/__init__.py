"""The ledger: the only arbiter of what was leased, sampled, scored, trained and published. Durable, never rolled back.

Owns every durable fact about leases, trajectories, segments, versions, epochs, members and checkpoints, and all SQL. Does not own
weights' bytes (`asyncppo_runtime.weights`), tensors, or any clock: times are passed in.
"""

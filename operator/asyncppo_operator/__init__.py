"""The operator: keeps each AsyncPPOJob's objects as its spec says, coordinates its version syncs, and tells the truth in its status.

Read in this order: `names` (what things are called), `views` (what is seen), `plan/` (what should be: pure), `status` (what is
said: pure), `cluster` (the API server), `reconcile` (one loop per job), `fleet` (all loops), `handlers` and `main` (kopf).
"""

"""Policy weights as files: their hash, their published form, the store that keeps them, and how they travel.

Owns bytes on disk and on the way. Does not own which versions exist or are needed (`asyncppo_runtime.ledger`) nor any model.
"""

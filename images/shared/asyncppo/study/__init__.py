"""A study: the same job under several old-logits strategies, seeds and values of a field, compared pairwise.

Owns the cells, their results on disk, the statistics, the table and the picture. Does not own how a cell is trained:
`asyncppo_runtime.study` (virtual schedule) and `asyncppo run` (wall clock) do, in processes of their own.
"""

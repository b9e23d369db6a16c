"""What each old-logits strategy would cost a job, and which one `Auto` takes.

Owns the cost model, its figures' origin, the choice, the table and the picture. Measures nothing: `asyncppo_runtime.calibrate` does.
"""

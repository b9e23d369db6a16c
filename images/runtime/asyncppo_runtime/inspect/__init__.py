"""Looks at a run from outside, beside a running learner: reads its ledger and tells what `asyncppo show` prints, as JSON."""

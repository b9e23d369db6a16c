"""Where old log-probs come from: the strategies, exact and approximate, and what makes an exact one exact.

Owns scoring under given weights, keeping versions, checking identity, and the proxies. Does not own the loss
(`asyncppo_runtime.algorithm`), the ledger's record of what is scored, nor the version-sync protocol (`asyncppo.sync`).
A new strategy is one file here and one line in `registry`.
"""

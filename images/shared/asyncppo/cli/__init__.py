"""The `asyncppo` command. Owns how a user's words become calls and how the outcome becomes an exit code; owns no work itself."""

from asyncppo.cli.program import main

__all__ = ["main"]

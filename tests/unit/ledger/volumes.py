"""A volume that fails at the worst moment: when a transaction commits."""

import sqlite3


class FailingCommit:
    """A connection whose commits fail with SQLite's result code `code`; everything else is the real one's."""

    def __init__(self, real: sqlite3.Connection, code: int) -> None:
        self.real = real
        self.code = code

    def execute(self, sql: str, *parameters: object) -> sqlite3.Cursor:
        if sql == "COMMIT":
            error = sqlite3.OperationalError("the volume failed")
            error.sqlite_errorcode = self.code
            raise error
        return self.real.execute(sql, *parameters)

    def __getattr__(self, name: str) -> object:
        return getattr(self.real, name)

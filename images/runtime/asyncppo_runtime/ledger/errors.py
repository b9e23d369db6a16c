"""The ledger's exceptions.

LedgerError
├── LedgerUnusableError     the file cannot be opened: another job's, damaged, on a network file system, already open elsewhere
├── LedgerRefusedError      the caller asked for what the ledger does not allow now; `.reason` is CamelCase, for the wire
└── LedgerStorageError      disk full or I/O error: nothing of that call was written; `.fatal` says whether to reopen
"""


class LedgerError(Exception):
    """Base of all errors of this package."""


class LedgerUnusableError(LedgerError):
    """The ledger cannot be opened; the message says why and what to do."""


class LedgerRefusedError(LedgerError):
    """A call the ledger does not allow in its present state. Nothing was written.

    reason: CamelCase word that a receiver may pass on in a Refused body. message: for humans.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(f"{reason}: {message}")
        self.reason = reason
        self.message = message


class LedgerStorageError(LedgerError):
    """The volume failed. The transaction was rolled back whole.

    fatal: the outcome of the last commit is unknown (an I/O error); every later call raises until the ledger is opened again.
    """

    def __init__(self, message: str, *, fatal: bool) -> None:
        super().__init__(message)
        self.fatal = fatal

"""Where a ledger may live: on a local volume. Owns the refusal of network file systems; does not own the file.

SQLite's write-ahead log needs shared memory and locks that hold; on network file systems neither does, and the damage shows late.
"""

import re
from pathlib import Path

from asyncppo_runtime.ledger.errors import LedgerUnusableError

NETWORK = frozenset(
    {
        "9p",
        "afs",
        "beegfs",
        "ceph",
        "cifs",
        "coda",
        "davfs",
        "gfs",
        "gfs2",
        "glusterfs",
        "gpfs",
        "lustre",
        "ncpfs",
        "nfs",
        "nfs4",
    }
    | {"ocfs2", "orangefs", "pvfs2", "smb3", "smbfs", "sshfs"}
)
LOCAL_FUSE = frozenset({"fuseblk", "fuse.fuse-overlayfs"})
MOUNTINFO = Path("/proc/self/mountinfo")


def refuse_network_volume(directory: Path) -> None:
    """Raise LedgerUnusableError when `directory` is on a network file system. Where the kernel does not tell, nothing is refused."""
    if not MOUNTINFO.is_file():
        return
    kind = network_kind(directory.resolve(), MOUNTINFO.read_text(errors="replace"))
    if kind:
        raise LedgerUnusableError(
            f"{directory} is on a network file system ({kind}); a ledger needs a local or ReadWriteOnce block volume: choose "
            "another output folder, or another storage class for the learner"
        )


def network_kind(directory: Path, mountinfo: str) -> str:
    """The type of the network file system that holds `directory`, by a text in the format of /proc/self/mountinfo; '' if local."""
    best: tuple[int, str] = (-1, "")
    for line in mountinfo.splitlines():
        left, separator, right = line.partition(" - ")
        fields, source = left.split(" "), right.split(" ")
        if not separator or len(fields) < 6 or len(source) < 3:
            continue
        mount = Path(_unescape(fields[4]))
        # Later lines cover earlier ones on the same mount point.
        if directory.is_relative_to(mount) and len(mount.parts) >= best[0]:
            best = (len(mount.parts), source[0] if _is_network(source[0], source[2]) else "")
    return best[1]


def _is_network(kind: str, options: str) -> bool:
    if kind == "9p" and "trans=fd" in options.split(","):
        return False  # a sandbox's own view of a local disk
    return kind in NETWORK or (kind.startswith("fuse") and kind not in LOCAL_FUSE)


def _unescape(text: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text)

"""The weight store: one folder, one safetensors file per version, complete or absent.

Owns files: writing them so that a crash leaves either the whole file or none under its name, naming, opening, deleting. Does not own
which versions exist: a file without a ledger row is set aside at start, and retention is told what is needed.
"""

import hashlib
import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from asyncppo.errors import storage_remedy
from asyncppo.faults import WEIGHTS, Moment, inside, refuse_write
from asyncppo.wire.versions import VersionRecord
from asyncppo_runtime.weights.errors import WeightsGoneError, WeightsRefusedError, WeightsStorageError
from asyncppo_runtime.weights.files import DRAFT_SUFFIX, file_name, set_aside, version_of


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A complete file. size in bytes; sha256 of its bytes, 64 hex digits: what a VersionRecord needs for the pull."""

    version: int
    path: Path
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Reconciled:
    """What a start found. removed: drafts, deleted. aside: files without a row, renamed. missing: rows without a file (maybe retired)."""

    removed: list[str]
    aside: list[str]
    missing: list[int]


class WeightStore:
    """Files of versions in `directory` (created when absent). One writer; any number of readers."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        try:
            directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise WeightsStorageError(f"cannot create the weight store {directory}: {error}") from error

    def path(self, version: int) -> Path:
        """Where the file of `version` is or would be."""
        return self.directory / file_name(version)

    def versions(self) -> list[int]:
        """Versions with a complete file, ascending."""
        found = (version_of(path.name) for path in self.directory.iterdir())
        return sorted(version for version in found if version is not None)

    def publish(
        self, version: int, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str] | None = None
    ) -> StoredFile:
        """Write, sync, rename, sync the folder; afterwards the file is durable. The ledger's row comes next and counts.

        A file of this version that is there already is an orphan of a crash (its row would have stopped the caller) and is
        replaced. Raises WeightsStorageError with nothing under the version's name when the disk is full.
        """
        final = self.path(version)
        draft = final.with_suffix(DRAFT_SUFFIX)
        try:
            save_file(_own_memory(tensors), draft, dict(metadata or {}))
            with draft.open("rb+") as file:
                os.fsync(file.fileno())
                size = os.fstat(file.fileno()).st_size
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            refuse_write(WEIGHTS, draft)
            draft.replace(final)
            sync_folder(self.directory)
            inside(WEIGHTS, Moment.AFTER, final)
        except (OSError, SafetensorError) as error:
            draft.unlink(missing_ok=True)
            raise WeightsStorageError(
                f"version {version} could not be written to {self.directory}: {error}; {storage_remedy(error)}, then resume"
            ) from error
        return StoredFile(version, final, size, digest)

    def open(self, version: int) -> Path:
        """The file of `version`. Raises WeightsGoneError."""
        path = self.path(version)
        if not path.is_file():
            raise WeightsGoneError(f"{path} does not exist: version {version} is retired or was never published here")
        return path

    def load(self, version: int, record: VersionRecord | None = None) -> dict[str, torch.Tensor]:
        """The tensors of `version`, checked against `record`'s size and SHA-256 when given. Raises WeightsRefusedError."""
        path = self.open(version)
        if record is not None:
            verify_file(path, record)
        return load_tensors(path)

    def remove(self, version: int) -> None:
        """Delete the file of `version`; readers that have it open keep it until they close."""
        self.path(version).unlink(missing_ok=True)

    def retain(self, needed: Collection[int]) -> list[int]:
        """Delete the files of all versions not in `needed`; returns them."""
        retired = [version for version in self.versions() if version not in needed]
        for version in retired:
            self.remove(version)
        return retired

    def reconcile(self, known: Collection[int]) -> Reconciled:
        """At start: delete drafts, rename (never delete) the files of versions the ledger has no row for, and say which rows have no
        file."""
        removed, aside = [], []
        for path in sorted(self.directory.iterdir()):
            version = version_of(path.name)
            if path.name.endswith(DRAFT_SUFFIX):
                path.unlink()
                removed.append(path.name)
            elif version is not None and version not in known:
                aside.append(set_aside(path).name)
        present = set(self.versions())
        return Reconciled(removed, aside, sorted(version for version in known if version not in present))


def load_tensors(path: Path) -> dict[str, torch.Tensor]:
    """Every tensor of a safetensors file, on the CPU. Raises WeightsRefusedError when it is not one (truncated, garbled)."""
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
    except FileNotFoundError as error:
        raise WeightsGoneError(f"{path} does not exist") from error
    except (OSError, SafetensorError) as error:
        raise WeightsRefusedError(f"{path} is not a whole safetensors file: {error}") from error


def verify_file(path: Path, record: VersionRecord) -> None:
    """Compare size and SHA-256 with the record. Raises WeightsRefusedError, WeightsStorageError."""
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            digest = hashlib.file_digest(file, "sha256").hexdigest() if size == record.file_size else ""
    except OSError as error:
        raise WeightsStorageError(f"{path} cannot be read: {error}") from error
    if size != record.file_size:
        raise WeightsRefusedError(f"{path} has {size} bytes, version {record.version} has {record.file_size}")
    if digest != record.file_sha256:
        raise WeightsRefusedError(
            f"{path} hashes to {digest[:16]}…, version {record.version} to {record.file_sha256[:16]}…"
        )


def sync_folder(directory: Path) -> None:
    """Make renames inside `directory` durable."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _own_memory(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Tied or viewed tensors are copied: the format keeps each name's bytes on its own."""
    seen: set[int] = set()
    result = {}
    for name, tensor in tensors.items():
        plain = tensor.detach().to("cpu").contiguous()
        storage = plain.untyped_storage()
        if storage.data_ptr() in seen or storage.nbytes() != plain.numel() * plain.element_size():
            plain = plain.clone()
        seen.add(plain.untyped_storage().data_ptr())
        result[name] = plain
    return result

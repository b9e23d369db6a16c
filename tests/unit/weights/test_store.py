"""The weight store: whole files or none, orphans gone, retention."""

import hashlib
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs
from tests.unit.weights.builders import full_disk, record_of, tensors

from asyncppo_runtime.weights.errors import WeightsGoneError, WeightsRefusedError, WeightsStorageError
from asyncppo_runtime.weights.files import file_name, version_of
from asyncppo_runtime.weights.hashing import tensors_hash
from asyncppo_runtime.weights.store import WeightStore, load_tensors


@pytest.fixture
def store(tmp_path: Path) -> WeightStore:
    return WeightStore(tmp_path / "weights")


def test_what_is_published_is_what_is_loaded(store: WeightStore) -> None:
    file = store.publish(3, tensors(), {"train_hash": "abc"})
    body = file.path.read_bytes()
    assert (file.version, file.size, file.sha256) == (3, len(body), hashlib.sha256(body).hexdigest())
    assert tensors_hash(store.load(3, record_of(file))) == tensors_hash(tensors())
    assert store.open(3) == file.path
    assert store.versions() == [3]


def test_tied_and_viewed_tensors_keep_their_own_bytes(store: WeightStore) -> None:
    whole = torch.arange(12.0).reshape(3, 4)
    given_tensors = {"a": whole, "b": whole, "row": whole[1], "turned": whole.t()}
    store.publish(0, given_tensors)
    assert tensors_hash(store.load(0)) == tensors_hash(given_tensors)


def test_publishing_again_replaces_an_orphan(store: WeightStore) -> None:
    store.publish(1, tensors(0))
    file = store.publish(1, tensors(1))
    assert tensors_hash(store.load(1, record_of(file))) == tensors_hash(tensors(1))


def test_a_missing_version_is_gone(store: WeightStore) -> None:
    with pytest.raises(WeightsGoneError, match="version 7 is retired or was never published"):
        store.open(7)
    with pytest.raises(WeightsGoneError):
        load_tensors(store.path(7))


def test_retention_and_removal(store: WeightStore) -> None:
    for version in range(5):
        store.publish(version, tensors(version))
    assert store.retain({1, 3, 9}) == [0, 2, 4]
    store.remove(1)
    store.remove(1)
    assert store.versions() == [3]


def test_a_start_sets_aside_what_has_no_row_and_removes_drafts(store: WeightStore) -> None:
    for version in (1, 2, 3):
        store.publish(version, tensors(version))
    (store.directory / "v00000004.draft").write_bytes(b"half")
    (store.directory / "notes.txt").write_text("mine")
    found = store.reconcile([1, 2, 8])
    aside = "v00000003.safetensors.unknown"
    assert (found.removed, found.aside, found.missing) == (["v00000004.draft"], [aside], [8])
    names = ["notes.txt", file_name(1), file_name(2), aside]
    assert sorted(path.name for path in store.directory.iterdir()) == names
    store.publish(3, tensors(9))
    assert store.reconcile([1, 2]).aside == [
        "v00000003.safetensors.unknown-2"
    ]  # nothing that was set aside is replaced
    assert sorted(path.name for path in store.directory.iterdir()) == [*names, "v00000003.safetensors.unknown-2"]


@pytest.mark.parametrize("damage", ["truncated", "flipped", "longer", "empty"])
def test_a_damaged_file_is_refused(store: WeightStore, damage: str) -> None:
    file = store.publish(0, tensors())
    body = file.path.read_bytes()
    file.path.write_bytes(
        {"truncated": body[:-5], "flipped": body[:-5] + b"\x00" + body[-4:], "longer": body + b"x", "empty": b""}[
            damage
        ]
    )
    with pytest.raises(WeightsRefusedError):
        store.load(0, record_of(file))
    if damage != "flipped":
        with pytest.raises(WeightsRefusedError, match="not a whole safetensors file"):
            store.load(0)


def test_another_record_is_refused(store: WeightStore) -> None:
    file = store.publish(0, tensors())
    with pytest.raises(WeightsRefusedError, match="hashes to"):
        store.load(0, structs.replace(record_of(file), file_sha256="0" * 64))


def test_a_full_disk_leaves_nothing_half_written(store: WeightStore) -> None:
    store.publish(0, tensors())
    with full_disk(5000), pytest.raises(WeightsStorageError, match=r"version 1 could not be written.*free space"):
        store.publish(1, tensors(size=4096))
    assert [path.name for path in store.directory.iterdir()] == [file_name(0)]
    store.publish(1, tensors(size=4096))


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(WeightsStorageError, match="cannot create the weight store"):
        WeightStore(tmp_path / "file" / "weights")


@given(st.integers(0, 10**12))
def test_names_and_versions_are_one(version: int) -> None:
    assert version_of(file_name(version)) == version


@given(st.text(max_size=24))
def test_other_names_are_no_versions(name: str) -> None:
    found = version_of(name)
    assert found is None or file_name(found) == name


@pytest.mark.parametrize(
    "name", ["v1.safetensors", "v00000001.draft", "00000001.safetensors", "v-0000001.safetensors", "v٣.safetensors"]
)
def test_near_misses(name: str) -> None:
    assert version_of(name) is None

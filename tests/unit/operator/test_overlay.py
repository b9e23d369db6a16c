"""The strategic merge of a role's template: as Kubernetes merges pods, and never changing what it is given."""

from copy import deepcopy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncppo.errors import UserError
from asyncppo_operator.plan.overlay import MERGE_KEYS, merge

RENDERED: dict[str, Any] = {
    "metadata": {"labels": {"a": "1"}},
    "spec": {
        "containers": [{"name": "learner", "image": "x", "env": [{"name": "A", "value": "1"}], "args": ["--a"]}],
        "volumes": [{"name": "tmp", "emptyDir": {}}],
    },
}


def merged(**spec: Any) -> dict[str, Any]:
    result: dict[str, Any] = merge(RENDERED, {"spec": spec})["spec"]
    return result


def test_a_container_is_merged_by_name_and_env_by_name() -> None:
    env = [{"name": "A", "value": "2"}, {"name": "B", "value": "3"}]
    container = merged(containers=[{"name": "learner", "env": env}])["containers"][0]
    assert container == {"name": "learner", "image": "x", "args": ["--a"], "env": env}


def test_a_new_container_is_added_after() -> None:
    assert [c["name"] for c in merged(containers=[{"name": "proxy"}])["containers"]] == ["learner", "proxy"]


def test_lists_without_identity_are_replaced() -> None:
    assert merged(containers=[{"name": "learner", "args": ["--b"]}])["containers"][0]["args"] == ["--b"]
    assert merged(tolerations=[{"key": "gpu"}])["tolerations"] == [{"key": "gpu"}]


def test_null_deletes_a_key_and_patch_delete_an_item() -> None:
    assert "image" not in merged(containers=[{"name": "learner", "image": None}])["containers"][0]
    assert merged(volumes=[{"name": "tmp", "$patch": "delete"}])["volumes"] == []
    assert merged(volumes=[{"name": "other", "$patch": "delete"}])["volumes"] == RENDERED["spec"]["volumes"]


def test_patch_replace_takes_the_map_as_it_is() -> None:
    result = merge({"a": {"b": 1, "c": 2}}, {"a": {"$patch": "replace", "d": 3}})
    assert result == {"a": {"d": 3}}


def test_an_item_without_its_key_is_refused_with_its_place() -> None:
    with pytest.raises(UserError, match=r"template\.spec\.containers\[0\]: items of this list need 'name'"):
        merged(containers=[{"image": "y"}])


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(0, 3) | st.sampled_from(["x", "y"]),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(st.sampled_from(["name", "a", "b", "containers", "env", "$patch"]), inner, max_size=3)
    ),
    max_leaves=10,
)
MAPS = st.dictionaries(st.sampled_from(["a", "b", "containers", "env", "spec"]), VALUES, max_size=3)


@given(MAPS)
def test_any_overlay_is_merged_or_refused_and_nothing_is_changed(overlay: dict[str, Any]) -> None:
    base, kept = deepcopy(RENDERED), deepcopy(overlay)
    try:
        result = merge(base, overlay)
    except UserError:
        result = None
    assert (base, overlay) == (RENDERED, kept)
    if result is not None and not any(key in overlay for key in MERGE_KEYS):
        assert {key for key, value in overlay.items() if value is not None} <= result.keys()


def test_an_empty_overlay_changes_nothing() -> None:
    assert merge(RENDERED, {}) == RENDERED

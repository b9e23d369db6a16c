"""Two thousand generated specs: each is accepted and planned, or refused with words; none raises anything else."""

from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.unit.operator.builders import SETTINGS, raw_job

from asyncppo.api.schema import Schema, spec_schema
from asyncppo.errors import UserError
from asyncppo_operator.plan.acceptance import accept
from asyncppo_operator.plan.lifecycle import Target
from asyncppo_operator.plan.planner import Observed, applied_hash, plan

JUNK = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-5, 5)
    | st.floats(allow_nan=False)
    | st.sampled_from(["", "x", "1Gi", "🙂"]),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(
            st.sampled_from(
                ["metadata", "labels", "spec", "containers", "name", "env", "resources", "limits", "$patch"]
            ),
            inner,
            max_size=3,
        )
    ),
    max_leaves=8,
)


def leaves(node: Schema, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Schema]]:
    """Every field below `node` that has no fields of its own."""
    for name, child in node["properties"].items():
        if "properties" in child:
            yield from leaves(child, (*path, name))
        else:
            yield (*path, name), child


def values(node: Schema) -> st.SearchStrategy[Any]:
    """Values of a field: mostly such as its schema allows, now and then anything."""
    if "enum" in node:
        good: st.SearchStrategy[Any] = st.sampled_from(node["enum"])
    elif node.get("type") == "boolean":
        good = st.booleans()
    elif node.get("type") == "integer":
        low = int(node.get("minimum", 0))
        good = st.integers(low, min(int(node.get("maximum", low + 100)), low + 100))
    elif node.get("type") == "number":
        least = float(node.get("minimum", 0.0))
        good = st.floats(least, float(node.get("maximum", least + 10.0)), allow_nan=False)
    elif node.get("type") == "string":
        good = st.sampled_from(["module:Class", "some/model", "standard"])
    else:
        good = JUNK
    return st.one_of(good, good, good, good, good, good, JUNK)


LEAVES = list(leaves(spec_schema()))
EDITS = st.lists(st.sampled_from(LEAVES).flatmap(lambda leaf: st.tuples(st.just(leaf[0]), values(leaf[1]))), max_size=3)


def edited(edits: list[tuple[tuple[str, ...], Any]]) -> dict[str, Any]:
    """The smallest job with these fields set."""
    raw = raw_job()
    for path, value in edits:
        node = raw["spec"]
        for name in path[:-1]:
            node = node.setdefault(name, {})
        node[path[-1]] = value
    return raw


@settings(max_examples=2000, suppress_health_check=list(HealthCheck))
@given(EDITS, st.sampled_from([Target.RUN, Target.IDLE, Target.GONE]))
def test_no_spec_raises(edits: list[tuple[tuple[str, ...], Any]], target: Target) -> None:
    judged = accept(edited(edits), None, SETTINGS)
    assert judged.message
    if judged.job is None:
        assert judged.reason == "InvalidSpec"
        return
    with suppress(UserError):
        first, again = (plan(judged.job, target, Observed(token="t"), SETTINGS) for _ in range(2))
        assert [applied_hash(m) for m in first.apply] == [applied_hash(m) for m in again.apply]


@settings(max_examples=300)
@given(JUNK, JUNK)
def test_no_overlay_raises(learner: Any, rollout: Any) -> None:
    judged = accept(raw_job(learner={"template": learner}, rollout={"template": rollout}), None, SETTINGS)
    if judged.job is not None:
        with suppress(UserError):
            plan(judged.job, Target.RUN, Observed(token="t"), SETTINGS)

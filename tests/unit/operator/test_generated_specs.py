"""Two thousand generated specs: each is accepted and planned, or refused with words; none raises anything else."""

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
    elif "properties" in node:
        return objects(node)
    else:
        good = JUNK
    return st.one_of(good, good, good, good, good, good, JUNK)


def objects(node: Schema) -> st.SearchStrategy[Any]:
    """Objects with some of the node's fields."""
    fields = {name: values(child) for name, child in node["properties"].items()}
    required = {name: fields.pop(name) for name in node.get("required", ())}
    return st.fixed_dictionaries(required, optional=fields)


@settings(max_examples=2000, deadline=None, suppress_health_check=list(HealthCheck))
@given(objects(spec_schema()), st.sampled_from([Target.RUN, Target.IDLE, Target.GONE]))
def test_no_spec_raises(spec: dict[str, Any], target: Target) -> None:
    raw = raw_job()
    raw["spec"] |= spec
    judged = accept(raw, None, SETTINGS)
    assert judged.message
    if judged.job is None:
        assert judged.reason == "InvalidSpec"
        return
    with suppress(UserError):
        first, again = (plan(judged.job, target, Observed(token="t"), SETTINGS) for _ in range(2))
        assert [applied_hash(m) for m in first.apply] == [applied_hash(m) for m in again.apply]


@settings(max_examples=300, deadline=None)
@given(JUNK, JUNK)
def test_no_overlay_raises(learner: Any, rollout: Any) -> None:
    judged = accept(raw_job(learner={"template": learner}, rollout={"template": rollout}), None, SETTINGS)
    if judged.job is not None:
        with suppress(UserError):
            plan(judged.job, Target.RUN, Observed(token="t"), SETTINGS)

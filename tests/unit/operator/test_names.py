"""Names fit Kubernetes' limits for every job name that is allowed, and never collide."""

import re

from hypothesis import given
from hypothesis import strategies as st

from asyncppo.api.job import NAME_LENGTH, NAME_PATTERN
from asyncppo_operator import names
from asyncppo_operator.names import Role

JOB_NAMES = st.from_regex(NAME_PATTERN.strip("^$"), fullmatch=True).filter(lambda name: len(name) <= NAME_LENGTH)
SERVICE_NAME = re.compile(r"^[a-z]([-a-z0-9]*[a-z0-9])?$")
LABEL_VALUE = re.compile(r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$")


@given(JOB_NAMES, st.sampled_from(Role))
def test_every_name_and_label_is_short_enough(job: str, role: Role) -> None:
    workload = names.workload(job, role)
    assert SERVICE_NAME.match(workload)
    assert len(workload) + 11 <= 63, "a StatefulSet's revision label is its name and ten characters"
    assert len(names.pod(job, role, 1023)) <= 63
    for name in (names.config(job), names.token(job), names.account(job), names.storage(job), names.policy(job)):
        assert LABEL_VALUE.match(name)
        assert len(name) <= 63
    assert all(LABEL_VALUE.match(value) and len(value) <= 63 for value in names.labels(job, role).values())


def test_a_long_name_is_shortened_without_losing_its_identity() -> None:
    one, other = "a" * 51 + "b", "a" * 51 + "c"
    assert names.base(one) != names.base(other)
    assert names.base("guess") == "guess"

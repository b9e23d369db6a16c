"""Which rights the operator needs and lacks, asked of the API server itself.

Owns the list. Does not own the roles that grant them (the chart; a test compares the two).
"""

from collections.abc import Iterator, Sequence

from asyncppo_operator.cluster import Cluster
from asyncppo_operator.kinds import IN_JOB_NAMESPACES, JOB, Resource


def needed() -> Iterator[tuple[Resource, str, str]]:
    """(resource, verb, subresource) of everything done in a job's namespace."""
    for resource in IN_JOB_NAMESPACES:
        for verb in resource.verbs:
            yield resource, verb, ""
    yield JOB, "patch", "status"


async def missing_rights(cluster: Cluster, places: Sequence[str | None]) -> list[tuple[str, str]]:
    """(verb, resource) that this identity lacks somewhere in `places`. Raises ApiError."""
    missing: list[tuple[str, str]] = []
    for place in places:
        for resource, verb, subresource in needed():
            if await cluster.may(verb, resource, place, subresource):
                continue
            name = f"{resource.plural}/{subresource}" if subresource else resource.plural
            if (verb, name) not in missing:
                missing.append((verb, name))
    return missing

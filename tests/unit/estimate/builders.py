"""Jobs for the tests of estimates."""

from typing import Any

from tests.unit.study.builders import job as tiny

from asyncppo.api.job import AsyncPPOJob
from asyncppo.api.sweep import with_fields


def job(**fields: Any) -> AsyncPPOJob:
    """A job with these fields: dots are written as two underscores, staleness__maxVersions=4."""
    return with_fields(tiny(), {name.replace("__", "."): value for name, value in fields.items()}, "job", lenient=True)

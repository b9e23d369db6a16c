"""A manifest as the API server holds it, checked as `asyncppo validate` checks a file.

Owns the stripping of what Kubernetes adds. Does not own any rule (`asyncppo.api`).
"""

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from asyncppo.api.job import AsyncPPOJob
from asyncppo.errors import UserError


def validated(raw: Mapping[str, Any]) -> AsyncPPOJob:
    """The job. UserError with one line per mistake: path, what is wrong, what is allowed."""
    metadata = raw.get("metadata") or {}
    content = {
        "apiVersion": raw.get("apiVersion"),
        "kind": raw.get("kind"),
        "metadata": {key: metadata[key] for key in ("name", "namespace", "uid") if key in metadata},
        "spec": raw.get("spec"),
    }
    try:
        return AsyncPPOJob.model_validate(content)
    except ValidationError as error:
        raise UserError("; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())) from error

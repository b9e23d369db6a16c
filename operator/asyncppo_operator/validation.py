"""A manifest as the API server holds it, checked as `asyncppo validate` checks a file.

Owns the stripping of what Kubernetes adds. Does not own any rule (`asyncppo.api`).
"""

from collections.abc import Mapping
from typing import Any

from asyncppo.api.job import AsyncPPOJob
from asyncppo.api.manifest import parse_manifest

IDENTITY = ("name", "namespace", "uid")


def validated(raw: Mapping[str, Any], *, lenient: bool = False) -> AsyncPPOJob:
    """The job. ManifestError, a UserError, with every mistake: path, what was found, what is allowed, what to do.

    lenient: for a job that was accepted earlier, maybe by an operator that refused less.
    """
    metadata = raw.get("metadata") or {}
    document = {
        "apiVersion": raw.get("apiVersion"),
        "kind": raw.get("kind"),
        "metadata": {key: metadata[key] for key in IDENTITY if key in metadata},
        "spec": raw.get("spec"),
    }
    return parse_manifest({key: value for key, value in document.items() if value is not None}, "spec", lenient=lenient)

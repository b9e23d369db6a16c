"""The key from which the tokens of all jobs are derived: drawn once, kept in the operator's own Secret in its own namespace.

Owns that Secret. It belongs to the installation: the chart does not make it and does not delete it. With it a job's tokens are the same
after any restart of the operator and after somebody deletes the job's Secret; without it new tokens are made for new Secrets only, for a
Secret that is there is never changed.
"""

import base64
import binascii
import secrets

from asyncppo_operator import names
from asyncppo_operator.cluster import Cluster
from asyncppo_operator.errors import ConflictError, SettingsError
from asyncppo_operator.kinds import SECRET

KEY = "key"
SHORTEST = 32


async def install_key(cluster: Cluster, namespace: str, name: str) -> str:
    """The key, drawn and stored if there is none. ApiError; SettingsError when the Secret holds none that can be used."""
    found = await cluster.get(SECRET, namespace, name)
    if found is None:
        manifest = {
            "apiVersion": SECRET.api_version,
            "kind": SECRET.kind,
            "type": "Opaque",
            "metadata": {
                "name": name,
                "namespace": namespace,
                "labels": {"app.kubernetes.io/name": names.FIELD_MANAGER, "app.kubernetes.io/component": "install-key"},
            },
            "stringData": {KEY: secrets.token_urlsafe(32)},
        }
        try:
            found = await cluster.create(manifest)
        except ConflictError:  # another replica was faster
            found = await cluster.get(SECRET, namespace, name)
    try:
        text = base64.b64decode(str(((found or {}).get("data") or {}).get(KEY) or ""), validate=True).decode().strip()
    except (binascii.Error, UnicodeDecodeError):
        text = ""
    if len(text) < SHORTEST:
        raise SettingsError(
            f"Secret {namespace}/{name} holds no usable `{KEY}` (at least {SHORTEST} characters of text): restore it from a copy, or "
            "delete the Secret to have another key drawn; jobs whose Secrets are there keep their tokens"
        )
    return text

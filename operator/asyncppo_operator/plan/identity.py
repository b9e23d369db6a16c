"""What pods are given: the accepted manifest, the token, an account without rights, the learner's volume.

Owns these objects. Does not own the tokens' values: they are derived (`asyncppo.wire.tokens`, `installkey.py`).
"""

import json
from collections.abc import Mapping
from typing import Any

from asyncppo.api.job import AsyncPPOJob
from asyncppo.api.manifest import dump_manifest, parse_manifest
from asyncppo.wire import tokens
from asyncppo_operator import names
from asyncppo_operator.names import Role
from asyncppo_operator.plan.pods import Object


def manifest_text(job: AsyncPPOJob, stored: str) -> str:
    """job.json, given the one that is there; empty: none is.

    A job's programs are of the version it was made with, whatever the operator's is, and refuse fields they do not know: what is
    not in the one that is there, and has its default, stays out. The text of a job that has not changed stays as it is.
    """
    text = dump_manifest(job)
    if not stored:
        return text
    told, meant = json.loads(stored), json.loads(dump_manifest(parse_manifest(json.loads(stored), names.JOB_KEY)))
    now = _as_told(json.loads(text), told, meant)
    return (
        stored if now == told else json.dumps(now, indent=2, sort_keys=True, ensure_ascii=True, allow_nan=False) + "\n"
    )


def _as_told(now: Object, told: Mapping[str, Any], meant: Mapping[str, Any]) -> Object:
    """`now` without what `told` does not name and `meant`, which is `told` with its defaults, has as it is."""
    kept: Object = {}
    for key, value in now.items():
        if key not in told and value == meant.get(key):
            continue
        was, default = told.get(key), meant.get(key)
        inner = isinstance(value, dict) and isinstance(was, dict) and isinstance(default, dict)
        kept[key] = _as_told(value, was or {}, default or {}) if inner else value
    return kept


def config_map(job: AsyncPPOJob, text: str) -> Object:
    """job.json; also the operator's memory of what it has accepted."""
    name = job.metadata.name
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": names.config(name), "labels": names.labels(name)},
        "data": {names.JOB_KEY: text},
    }


def token_secret(job: AsyncPPOJob, control: str, single: bool = False) -> Object:
    """The control token, and for each role of workers the key of its members' tokens. Made once, never changed: running pods hold it.

    single: of a job that was made when one token served every role.
    """
    name = job.metadata.name
    workers = (tokens.Role.ROLLOUT, tokens.Role.OLD_LOGIT)
    of_roles = {names.CONTROL_KEY: control, **{role.value: tokens.role_key(control, role) for role in workers}}
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": "Opaque",
        "metadata": {"name": names.token(name), "labels": names.labels(name)},
        "stringData": {names.TOKEN_KEY: control} if single else of_roles,
    }


def service_account(job: AsyncPPOJob) -> Object:
    """The pods' account. Nothing is bound to it and its token is not mounted."""
    name = job.metadata.name
    return {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": {"name": names.account(name), "labels": names.labels(name)},
        "automountServiceAccountToken": False,
    }


def storage_claim(job: AsyncPPOJob) -> Object:
    """The learner's volume: ledger, weights, checkpoints, the trained model. One writer."""
    name = job.metadata.name
    spec: Object = {
        "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": str(job.spec.learner.storage)}},
    }
    if job.spec.learner.storage_class_name is not None:
        spec["storageClassName"] = job.spec.learner.storage_class_name
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": names.storage(name), "labels": names.labels(name, Role.LEARNER)},
        "spec": spec,
    }

"""What pods are given: the accepted manifest, the token, an account without rights, the learner's volume.

Owns these objects. Does not own the token's value: it is drawn where randomness is allowed (`reconcile.py`).
"""

from asyncppo.api.job import AsyncPPOJob
from asyncppo.api.manifest import dump_manifest
from asyncppo_operator import names
from asyncppo_operator.names import Role
from asyncppo_operator.plan.pods import Object


def config_map(job: AsyncPPOJob) -> Object:
    """job.json; also the operator's memory of what it has accepted."""
    name = job.metadata.name
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": names.config(name), "labels": names.labels(name)},
        "data": {names.JOB_KEY: dump_manifest(job)},
    }


def token_secret(job: AsyncPPOJob, value: str) -> Object:
    """The token of every control call. Made once, never changed: running pods hold it."""
    name = job.metadata.name
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": "Opaque",
        "metadata": {"name": names.token(name), "labels": names.labels(name)},
        "stringData": {names.TOKEN_KEY: value},
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

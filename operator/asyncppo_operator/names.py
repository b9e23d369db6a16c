"""What a job's objects are called, how they are labelled, and where programs listen. Deterministic, so that nothing needs to be remembered.

Owns names only.
"""

import hashlib
from enum import StrEnum

DOMAIN = "asyncppo.io"
FIELD_MANAGER = "asyncppo-operator"

LABEL_JOB = f"{DOMAIN}/job"
LABEL_ROLE = f"{DOMAIN}/role"
LABEL_UID = f"{DOMAIN}/job-uid"
LABEL_MANAGED = "app.kubernetes.io/managed-by"
MANAGED_SELECTOR = f"{LABEL_MANAGED}={FIELD_MANAGER}"
ANNOTATION_TEMPLATE = f"{DOMAIN}/template-hash"
ANNOTATION_RENDERING = f"{DOMAIN}/rendering"

PORT = 8080
PORT_NAME = "http"
METRICS_PORT = 8081
"""Where a job's pods are scraped."""
METRICS_PORT_NAME = "metrics"
USER_ID = 65532

JOB_FILE = "/etc/asyncppo/job/job.json"
TOKEN_FILE = "/etc/asyncppo/token/token"
ROLE_KEY_FILE = "/etc/asyncppo/role-key/key"
DATA_DIRECTORY = "/var/lib/asyncppo"
CONTROL_KEY = "control"
"""In the job's Secret; the keys of the other roles are there under the roles' names."""
TOKEN_KEY = "token"
"""The only entry in the Secret of a job that was made when one token served every role."""
JOB_KEY = "job.json"

# A StatefulSet's pods carry "<name>-<10 characters>" as a label value of at most 63; the longest suffix is "-old-logit".
BASE_LENGTH = 63 - 11 - len("-old-logit")


class Role(StrEnum):
    """The programs of a job; the value is the name's suffix, the component label and the container's name."""

    LEARNER = "learner"
    ROLLOUT = "rollout"
    OLD_LOGIT = "old-logit"


def base(job: str) -> str:
    """The stem of the names of a job's objects: its name, or for a long one its beginning and a hash of the whole."""
    if len(job) <= BASE_LENGTH:
        return job
    digest = hashlib.sha256(job.encode()).hexdigest()[:8]
    return f"{job[: BASE_LENGTH - 9].rstrip('-')}-{digest}"


def workload(job: str, role: Role) -> str:
    """StatefulSet, Service and disruption budget of a role."""
    return f"{base(job)}-{role.value}"


def pod(job: str, role: Role, ordinal: int) -> str:
    """A pod of a role's StatefulSet; a rollout's member name."""
    return f"{workload(job, role)}-{ordinal}"


def config(job: str) -> str:
    """ConfigMap with the accepted manifest."""
    return f"{base(job)}-job"


def token(job: str) -> str:
    """Secret with the job's control token and the keys of its roles."""
    return f"{base(job)}-token"


def account(job: str) -> str:
    """ServiceAccount of the job's pods; it has no rights."""
    return f"{base(job)}-pods"


def storage(job: str) -> str:
    """PersistentVolumeClaim of the learner."""
    return f"{base(job)}-learner-data"


def policy(job: str) -> str:
    """NetworkPolicy around the job's pods."""
    return f"{base(job)}-pods"


def learner_url(job: str) -> str:
    """Where the job's own pods reach the learner."""
    return f"http://{workload(job, Role.LEARNER)}:{PORT}"


def selector(job: str, role: Role) -> dict[str, str]:
    """Labels that select a role's pods. Never changed: a StatefulSet's selector is immutable."""
    return {LABEL_JOB: job, LABEL_ROLE: role.value}


def labels(job: str, role: Role | None = None) -> dict[str, str]:
    """Labels of an object of the job."""
    found = {
        "app.kubernetes.io/name": "asyncppo",
        "app.kubernetes.io/instance": base(job),
        LABEL_MANAGED: FIELD_MANAGER,
        LABEL_JOB: job,
    }
    if role is not None:
        found |= {LABEL_ROLE: role.value, "app.kubernetes.io/component": role.value}
    return found

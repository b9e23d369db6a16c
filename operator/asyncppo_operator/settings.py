"""The operator's own configuration: one YAML file, written by the chart, read once at start.

Owns the fields, their defaults and their bounds. Does not own a job's fields (`asyncppo.api`).
"""

from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import AfterValidator, Field, ValidationError

from asyncppo.api.base import ApiModel
from asyncppo.api.labels import Annotations, Labels, may_be_set
from asyncppo_operator.errors import SettingsError

TAG = version("asyncppo")
"""Images are released with the package, under its version."""
Seconds = Annotated[float, Field(gt=0.0, le=86400.0)]


class Images(ApiModel):
    """Images of the roles where a job names none; pinned in the job when it is accepted, so an upgrade disturbs no job."""

    learner: str = f"asyncppo/learner:{TAG}"
    """The learner's image."""
    rollout: str = f"asyncppo/rollout:{TAG}"
    """The image of rollout workers with the built-in engine."""
    rollout_vllm: str = f"asyncppo/rollout-vllm:{TAG}"
    """The image of rollout workers whose engine is vLLM."""
    old_logit: str = f"asyncppo/old-logit:{TAG}"
    """The old-logit workers' image."""
    pull_policy: str = "IfNotPresent"
    """imagePullPolicy of all of them."""
    pull_secrets: list[str] = []
    """Names of pull secrets in the jobs' namespaces."""


class NetworkPolicySettings(ApiModel):
    """The policy around each job's pods: themselves, the operator, and who may scrape."""

    enabled: bool = True
    """Make one per job."""
    operator_namespace: str = "asyncppo-system"
    """Where the operator runs."""
    operator_labels: dict[str, str] = {"app.kubernetes.io/name": "asyncppo-operator"}
    """The operator's pod labels."""
    scrape_from: list[dict[str, Any]] = []
    """NetworkPolicyPeers that may reach the pods' metrics port to scrape it; none: nobody but the operator reaches a job."""


class TemplateSettings(ApiModel):
    """What the templates of jobs may reach; admission policies of the cluster can say the same, and more."""

    confine: bool = False
    """Refuse templates that reach the node, another account, a Secret that is not listed, or root."""
    secrets: list[str] = []
    """Names of Secrets that confined templates may use."""


class Timing(ApiModel):
    """How often and how long, in seconds."""

    resync_seconds: Seconds = 300.0
    """Every job is compared with the cluster at least this often, and its objects applied anew."""
    relist_seconds: Seconds = 120.0
    """The list of jobs is read this often, to notice what a watch has missed."""
    poll_seconds: Seconds = 3.0
    """A running learner is asked for its status this often."""
    status_seconds: Seconds = 5.0
    """Figures in the status are written at most this often; phases and conditions at once."""
    debounce_seconds: Annotated[float, Field(ge=0.0, le=60.0)] = 0.2
    """Wake-ups of one job within this are one reconcile."""
    grace_seconds: Seconds = 60.0
    """What a pod gets to drain before it is killed (terminationGracePeriodSeconds)."""
    stop_seconds: Seconds = 120.0
    """How long a suspended job's learner waits for the other pods to hand over what they have."""
    retry_seconds: Seconds = 1.0
    """First wait after a failed reconcile; doubles."""
    retry_limit_seconds: Seconds = 60.0
    """Longest such wait."""


class LeaseSettings(ApiModel):
    """Election of one active replica among several."""

    enabled: bool = True
    """Without it, run a single replica."""
    name: str = "asyncppo-operator"
    """The Lease's name."""
    duration_seconds: Annotated[int, Field(ge=3, le=300)] = 15
    """A Lease not renewed for this long may be taken over."""


def _may_be_set(found: dict[str, str]) -> dict[str, str]:
    if not may_be_set(found):
        raise ValueError("each name must be one that Kubernetes takes, and none of the operator's own")
    return found


class Settings(ApiModel):
    """Everything the operator is told at start."""

    namespace: str = "asyncppo-system"
    """The operator's own namespace."""
    install_key_secret: str = "asyncppo-operator-install-key"
    """Secret in that namespace with the key from which jobs' tokens are derived; drawn and made at the first start."""
    namespaces: list[str] = []
    """Namespaces to watch; none: the whole cluster."""
    images: Images = Images()
    """Default images."""
    labels: Annotated[Labels, AfterValidator(_may_be_set)] = {}
    """Labels of everything that is made for jobs."""
    annotations: Annotated[Annotations, AfterValidator(_may_be_set)] = {}
    """Annotations of everything that is made for jobs."""
    network_policy: NetworkPolicySettings = NetworkPolicySettings()
    """Network policies of jobs."""
    templates: TemplateSettings = TemplateSettings()
    """What templates may reach."""
    timing: Timing = Timing()
    """Periods and limits."""
    lease: LeaseSettings = LeaseSettings()
    """Leader election."""
    workers: Annotated[int, Field(ge=1, le=1024)] = 16
    """Reconciles at once."""
    builders: Annotated[int, Field(ge=1, le=1024)] = 2
    """Of these, how many may apply a job's objects, a dozen calls each side by side. More of them wait longer, for the API server."""
    listen: str = "0.0.0.0:8080"
    """Where /healthz, /readyz and /metrics are served."""


def load(path: Path | None) -> Settings:
    """Settings of a YAML file; the defaults without one. Raises SettingsError."""
    if path is None:
        return Settings()
    try:
        content = yaml.safe_load(path.read_text())
        return Settings.model_validate(content or {})
    except OSError as error:
        raise SettingsError(f"cannot read the configuration {path}: {error.strerror}") from error
    except yaml.YAMLError as error:
        raise SettingsError(f"{path} is not YAML: {error}") from error
    except ValidationError as error:
        lines = [f"  {'.'.join(str(part) for part in e['loc'])}: {e['msg']}" for e in error.errors()]
        raise SettingsError(f"{path} has errors:\n" + "\n".join(lines)) from error

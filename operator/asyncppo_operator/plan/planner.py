"""The plan: from the accepted job, the decision about its life and what is observed, to objects and actions. Pure.

Owns which objects exist when, their order, owners, and which pods are outdated. Does not own an object's content.
"""

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from asyncppo.api.correction import Strategy
from asyncppo.api.job import API_VERSION, KIND, AsyncPPOJob
from asyncppo_operator import names
from asyncppo_operator.names import Role
from asyncppo_operator.plan import identity, workloads
from asyncppo_operator.plan.lifecycle import Target
from asyncppo_operator.plan.marks import marked, marks
from asyncppo_operator.plan.pods import Held, Object, pod_template, template_hash
from asyncppo_operator.settings import Settings
from asyncppo_operator.views import PodView, SetView


@dataclass(frozen=True)
class Ref:
    """An object by its kind and name, in the job's namespace."""

    api_version: str
    kind: str
    name: str


@dataclass(frozen=True)
class Plan:
    """apply: server-side, StatefulSets last. once: created if absent, never changed. delete: if there. restart: outdated pods.

    adopt: may be taken over though they are not this job's, if they are nobody's. never_again: not made when they are not there, for
    what they held cannot be made. delete_job: the job's time-to-live is over.
    """

    apply: Sequence[Object] = ()
    once: Sequence[Object] = ()
    delete: Sequence[Ref] = ()
    restart: Sequence[str] = ()
    adopt: Sequence[Ref] = ()
    never_again: Sequence[Ref] = ()
    delete_job: bool = False


@dataclass(frozen=True)
class Facts:
    """What of the cluster the objects depend on. budget_api: the served version of PodDisruptionBudget."""

    budget_api: str = "policy/v1"


@dataclass(frozen=True)
class Observed:
    """What is there of a job: its pods, the labels in its metadata, the token that its Secret holds or would hold, pod specs to keep.

    manifest: the text for its ConfigMap; empty: as this operator would write it. had_storage: its volume claim was made once.
    single_token: the Secret is of the kind whose one token serves every role.
    """

    pods: Sequence[PodView] = ()
    token: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    facts: Facts = field(default_factory=Facts)
    manifest: str = ""
    held: Mapping[Role, Held] = field(default_factory=dict)
    had_storage: bool = False
    single_token: bool = False


def roles(job: AsyncPPOJob) -> list[Role]:
    """The roles the job has."""
    found = [Role.LEARNER, Role.ROLLOUT]
    if job.spec.old_logits.strategy is Strategy.DEDICATED:
        found.append(Role.OLD_LOGIT)
    return found


def replicas(job: AsyncPPOJob, role: Role, target: Target) -> int:
    """How many pods there should be."""
    if target is not Target.RUN and not (target is Target.DRAIN and role is Role.LEARNER):
        return 0
    return {
        Role.LEARNER: 1,
        Role.ROLLOUT: job.spec.rollout.replicas,
        Role.OLD_LOGIT: job.spec.old_logit.replicas,
    }[role]


def plan(job: AsyncPPOJob, target: Target, observed: Observed, settings: Settings) -> Plan:
    """What to do now. Idempotent: carried out and observed again it plans the same, without restarts."""
    if target is Target.DELETED:
        return Plan(delete_job=True)
    if target is Target.GONE:
        return Plan(delete=_workload_refs(job, observed.facts))
    objects = _base_objects(job, observed.manifest)
    if settings.network_policy.enabled:
        objects.append(workloads.network_policy(job, settings))
    single = observed.single_token
    templates = {role: pod_template(job, role, settings, observed.held.get(role), single) for role in roles(job)}
    for role, template in templates.items():
        count = replicas(job, role, target)
        objects.append(workloads.service(job, role))
        objects.append(workloads.disruption_budget(job, role, observed.facts.budget_api))
        objects.append(workloads.stateful_set(job, role, count, template))
    carried = marks(job, observed.labels, settings)
    storage = Ref("v1", "PersistentVolumeClaim", names.storage(job.metadata.name))
    return Plan(
        apply=[marked(_owned(job, manifest), carried) for manifest in objects],
        once=[marked(_owned(job, identity.token_secret(job, observed.token, single)), carried)],
        restart=_outdated(templates, observed.pods) if target is Target.RUN else (),
        adopt=[storage] if job.spec.learner.adopt_storage else (),
        never_again=[storage] if observed.had_storage else (),
    )


def to_hold(
    job: AsyncPPOJob,
    sets: Mapping[Role, SetView],
    pods: Sequence[PodView],
    known: Collection[Role],
    settings: Settings,
    single_token: bool = False,
) -> list[Role]:
    """Roles whose pod spec stays as another operator (another version of it, or with other settings) rendered it.

    A job has one rendering: its programs talk to each other. So it takes the new one with all its pods, when these start anyway:
    after a suspension, or when an edit replaces the pods of one role. `known`: roles whose spec to hold is known already.
    """
    wanted = roles(job)
    if all(pod.deleting for pod in pods) or any(role not in sets and role not in known for role in wanted):
        return []
    if any(role in sets and sets[role].template_hash != template_hash(job, role) for role in wanted):
        return []
    return [
        role
        for role in wanted
        if role in known or sets[role].rendering != _called(pod_template(job, role, settings, single=single_token))
    ]


def _called(template: Mapping[str, Any]) -> str:
    return str(template["metadata"]["annotations"].get(names.ANNOTATION_RENDERING) or "")


def applied_hash(manifest: Mapping[str, object]) -> str:
    """Identity of a rendered object: equal hash, nothing to apply."""
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()[:16]


def _base_objects(job: AsyncPPOJob, manifest: str) -> list[Object]:
    text = manifest or identity.manifest_text(job, "")
    return [identity.service_account(job), identity.config_map(job, text), identity.storage_claim(job)]


def _owned(job: AsyncPPOJob, manifest: Object) -> Object:
    """In the job's namespace and owned by it, so that deleting the job deletes it; a retained volume is nobody's."""
    metadata: Object = {**manifest["metadata"], "namespace": job.metadata.namespace}
    metadata["labels"] = {**metadata["labels"], names.LABEL_UID: job.metadata.uid}
    if not (manifest["kind"] == "PersistentVolumeClaim" and job.spec.learner.retain_storage):
        metadata["ownerReferences"] = [_owner(job)]
    return {**manifest, "metadata": metadata}


def storage_claim(job: AsyncPPOJob, labels: Mapping[str, str], settings: Settings) -> Object:
    """The learner's volume claim, as `plan` has it. `labels`: those in the job's metadata."""
    return marked(_owned(job, identity.storage_claim(job)), marks(job, labels, settings))


def _owner(job: AsyncPPOJob) -> Object:
    return {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "name": job.metadata.name,
        "uid": job.metadata.uid,
        "controller": True,
        "blockOwnerDeletion": False,
    }


def _outdated(templates: Mapping[Role, Object], pods: Sequence[PodView]) -> list[str]:
    """Pods made before the role's image, resources or overlay changed, or rendered otherwise than those they talk to. All of a role
    at once: no rolling, no spare device."""
    wanted = {
        role: (str(template["metadata"]["annotations"][names.ANNOTATION_TEMPLATE]), _called(template))
        for role, template in templates.items()
    }
    return sorted(
        pod.name
        for pod in pods
        if not pod.deleting and pod.role in wanted and (pod.template_hash, pod.rendering) != wanted[pod.role]
    )


def _workload_refs(job: AsyncPPOJob, facts: Facts) -> list[Ref]:
    """What goes when the job is over: everything that runs or guards what runs. Volume, manifest and token stay until the job goes."""
    name = job.metadata.name
    found: list[Ref] = []
    for role in roles(job):
        found.append(Ref("apps/v1", "StatefulSet", names.workload(name, role)))
        found.append(Ref(facts.budget_api, "PodDisruptionBudget", names.workload(name, role)))
        found.append(Ref("v1", "Service", names.workload(name, role)))
    found.append(Ref("networking.k8s.io/v1", "NetworkPolicy", names.policy(name)))
    return found

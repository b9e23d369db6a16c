"""One job's loop: wait for a wake-up or the next date, look, decide, say, do. Level-based: it never asks what changed.

Owns the order of these steps, how often they happen, and what happens when one fails. Does not own any decision (`plan/`, `status`).
Everything else in the operator only wakes a loop.
"""

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import aiohttp

from asyncppo.api.job import AsyncPPOJob
from asyncppo.api.status import Phase
from asyncppo.errors import UserError
from asyncppo.wire.tokens import control_token
from asyncppo_operator import conditions, events, names
from asyncppo_operator.accepted import recall_accepted
from asyncppo_operator.children import Children, Key
from asyncppo_operator.cluster import Cluster
from asyncppo_operator.coordination import Coordination
from asyncppo_operator.errors import ApiError, ForbiddenError, NotFoundError, OperatorError
from asyncppo_operator.executor import Executor
from asyncppo_operator.kinds import CLAIM, JOB
from asyncppo_operator.memory import FINAL, Memory, count_failures, recall
from asyncppo_operator.names import Role
from asyncppo_operator.plan.acceptance import Acceptance, Ended, accept
from asyncppo_operator.plan.identity import manifest_text
from asyncppo_operator.plan.lifecycle import Decision, Target, decide
from asyncppo_operator.plan.planner import Facts, Observed, plan, replicas, roles, storage_claim, to_hold
from asyncppo_operator.plan.pods import Held
from asyncppo_operator.probe import LearnerProbe
from asyncppo_operator.settings import Settings
from asyncppo_operator.shortfalls import Shortfalls
from asyncppo_operator.situation import Problem, Situation
from asyncppo_operator.slots import Lane, Slots
from asyncppo_operator.status import significant, summarize
from asyncppo_operator.telemetry import Telemetry
from asyncppo_operator.views import ChildView, PodView, SetView

log = logging.getLogger(__name__)

# An outage of the API server shorter than this is not worth an event.
OUTAGE_SECONDS = 10.0
BLIND_SECONDS = 0.5
# A job whose objects are to be compared asks for a free builder this often. Many ask: never all at once.
BUILDER_SECONDS = (5.0, 15.0)


class JobGoneError(OperatorError):
    """The status of a job that is not there cannot be written: it was deleted, and no watch has told."""


@dataclass(frozen=True)
class Tools:
    """What all loops share. slots: bounds the reconciles at once. facts: what the API server serves. identity: this replica's.

    install_key: what tokens are derived from. blind: why the jobs' children cannot be seen, None when they can. An empty reason: not yet.
    """

    cluster: Cluster
    children: Children
    session: aiohttp.ClientSession
    settings: Settings
    telemetry: Telemetry
    slots: Slots
    facts: Facts
    identity: str
    install_key: str
    blind: Callable[[], Problem | None]


class JobLoop:
    """One job. `raw`: the newest object seen. `status`: the newest status written. `gone()` is called when it is not there any more."""

    def __init__(self, tools: Tools, key: Key, raw: dict[str, Any], gone: Callable[[], None]) -> None:
        self.key = key
        self.raw = raw
        self.uid = str(raw["metadata"]["uid"])
        self.status: dict[str, Any] = dict(raw.get("status") or {})
        self.problem: Problem | None = None
        self.acceptance: Acceptance | None = None
        self._tools = tools
        self._gone = gone
        self._new = not self.status.get("phase")
        self._first = True
        self._judged_generation = -1
        self._executor = Executor(tools.cluster, tools.children, key, self.uid)
        self._manifest = ""
        self._held: dict[Role, Held] = {}
        self._shortfalls = Shortfalls(tools.children.complaints)
        self.probe = LearnerProbe(tools.session, tools.settings.timing.poll_seconds, self.wake)
        self.coordination = Coordination(tools.identity)
        self._woken = asyncio.Event()
        self._edited = asyncio.Event()
        self._woken_at = time.monotonic()
        self._afresh_due = 0.0
        self._builds = False
        self._built = False
        self._hands_over = False
        self._written_at = 0.0
        self._unreachable_since: float | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def job(self) -> AsyncPPOJob | None:
        """What runs; None while nothing valid was given."""
        return self.acceptance.job if self.acceptance is not None else None

    def start(self) -> None:
        """Begin to loop; the first turn is at once."""
        self._woken.set()
        self._task = asyncio.create_task(self._run(), name=f"job {self.key}")

    def wake(self) -> None:
        """Something may have changed."""
        if not self._woken.is_set():
            self._woken_at = time.monotonic()
            self._woken.set()

    def changed(self, raw: dict[str, Any]) -> None:
        """The job itself is another now. Our own writes of its status come back here too, and are no reason to look again."""
        before = self.raw["metadata"]
        if _version(raw) < _version(self.raw):
            return  # a list that began before the watch told more
        self.raw = raw
        if any(before.get(key) != raw["metadata"].get(key) for key in ("generation", "deletionTimestamp", "labels")):
            self._edited.set()
            self.wake()

    def close(self) -> None:
        """Stop looping, asking and coordinating; the job's pods are left alone."""
        self.probe.close()
        self.coordination.close()
        if self._timer is not None:
            self._timer.cancel()
        if self._task is not None:
            self._task.cancel()

    async def _run(self) -> None:
        timing = self._tools.settings.timing
        retry = timing.retry_seconds
        while True:
            await self._woken.wait()
            lane = self._lane()
            async with self._tools.slots.turn(lane):
                self._builds = lane is Lane.BUILD
                self._woken.clear()
                self._edited.clear()
                lag = time.monotonic() - self._woken_at
                begun = time.monotonic()
                failed = await self._turn()
                seconds = time.monotonic() - begun
            if failed is None:
                self._tools.telemetry.reconciled("ok", seconds, lag)
                retry = timing.retry_seconds
                self._look_again_in(self._next_look)
                await asyncio.sleep(timing.debounce_seconds)
                continue
            result = "forbidden" if failed.reason == ForbiddenError.reason else "error"
            self._tools.telemetry.reconciled(result, seconds, lag, failed.reason)
            log.warning("%s: %s: %s; next try in %.0f s", self.key, failed.reason, failed.message, retry)
            # no wake-up but an edit of the job shortens the wait: what failed will hardly succeed at once
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._edited.wait(), retry)
            retry = min(2 * retry, timing.retry_limit_seconds)
            self.wake()

    def _lane(self) -> Lane:
        if self._first:
            return Lane.FIRST
        # a new job waits for its objects; one that has them must not miss a turn because builders are busy
        due = self._due_afresh()
        return Lane.BUILD if due and (self._new or self._tools.slots.open(Lane.BUILD)) else Lane.LOOK

    def _due_afresh(self) -> bool:
        """Whether all objects are to be applied, though they may be as they should."""
        return time.monotonic() > self._afresh_due

    async def _turn(self) -> Problem | None:
        """One reconcile; the problem that kept it from its end."""
        self._next_look = self._tools.settings.timing.resync_seconds
        try:
            await self._reconcile()
            return self.problem
        except JobGoneError:
            log.info("%s is gone", self.key)
            self._gone()
            return None
        except ApiError as error:
            return Problem(error.reason, str(error))
        except Exception as error:
            log.exception("%s: a mistake of the operator", self.key)
            return Problem("InternalError", f"{type(error).__name__}: {error}; the operator's log has the trace")

    async def _reconcile(self) -> None:
        if self.raw["metadata"].get("deletionTimestamp"):
            self.probe.aim("", "")
            self.coordination.close()
            return
        await self._tell_outage()
        if (blind := self._tools.blind()) is not None:
            await self._wait_for_sight(blind)
            return
        self.acceptance = await self._judge()
        if self.acceptance.job is None:
            await self._write(self._situation(None, None, self.problem))
            self.problem = None
            return
        job = self.acceptance.job
        decision = await self._decide(job)
        if self._first:
            self.problem = None
            await self._begin(job, decision)
            self._first = False
            self.wake()
            return
        if decision.memory.phase in FINAL:
            # an end is written down before its pods are removed
            await self._write(self._situation(job, decision, self.problem))
        try:
            await self._do(job, decision)
            self.problem = None
        except ApiError as error:
            if error.status == 0:
                raise  # nobody is there to be told
            self.problem = Problem(error.reason, str(error))
        except UserError as error:
            self.problem = Problem("InvalidTemplate", str(error))
        decision = replace(decision, memory=self._with_storage(decision.memory))
        self._aim(job, decision)
        if decision.target is not Target.DELETED:
            settled = True if self._built else None
            problem = self.problem or (None if decision.memory.phase in FINAL else self._storage_going())
            await self._write(self._situation(job, decision, problem, settled))
        if decision.again is not None:
            self._look_in(decision.again)

    async def _begin(self, job: AsyncPPOJob, decision: Decision) -> None:
        """The first turn, which is short so that every job has it soon: the objects are compared in the next one. A new job is told
        that it was seen; one that an operator before this has begun must not wait for its coordinator."""
        if self._new:
            await self._write(self._situation(job, decision, self.problem, settled=False))
        else:
            await self._executor.recall_token()
            # an operator that made neither token nor sets had not found the names free
            self._new = not self._executor.token and not self._sets()
            self._aim(job, decision)

    async def _wait_for_sight(self, blind: Problem) -> None:
        """A job must not be judged without its pods: nothing is done, and why is told."""
        self._look_in(BLIND_SECONDS)
        if blind.reason:
            self.problem = blind
            self.acceptance = await self._judge()
            await self._write(self._situation(self.job, None, blind))

    async def _judge(self) -> Acceptance:
        """Accept the spec; again only when the job's generation changed."""
        generation = int(self.raw["metadata"].get("generation") or 0)
        if self.acceptance is not None and generation == self._judged_generation:
            return self.acceptance
        before = self.job
        if before is None and self.status.get("phase") not in (None, Phase.INVALID.value):
            recalled = await recall_accepted(self._tools.cluster, self.key, self.uid)
            before, self._manifest = recalled or (None, "")
        ended = await self._ended() if before is not None else None
        judged = accept(self.raw, before, self._tools.settings, ended)
        if ended is not None and before is not None and judged.job is not None:
            self._hands_over |= judged.job.spec.learner.retain_storage != before.spec.learner.retain_storage
        if judged.job is not None:
            self._manifest = manifest_text(judged.job, self._manifest)
        self._judged_generation = generation
        return judged

    async def _ended(self) -> Ended | None:
        """How the job ended; None while it is not over."""
        memory = recall(self.status)
        if memory.phase not in FINAL:
            return None
        if memory.phase is not Phase.COMPLETE:
            return Ended(memory.phase)
        return Ended(memory.phase, memory.updates, bool(await self._storage_there()))

    async def _storage_there(self) -> str:
        """The uid of the job's own volume claim, if it is there and is to stay; else empty."""
        claim = await self._tools.cluster.get(CLAIM, self.key.namespace, names.storage(self.key.name))
        metadata = (claim or {}).get("metadata") or {}
        ours = (metadata.get("labels") or {}).get(names.LABEL_UID) == self.uid and not metadata.get("deletionTimestamp")
        return str(metadata["uid"]) if ours else ""

    async def _hand_over_storage(self, job: AsyncPPOJob) -> None:
        """`learner.retainStorage` of a job that is over: nothing of it is applied any more, but its volume has an owner or not."""
        if not self._hands_over:
            return
        if uid := await self._storage_there():
            labels = self.raw["metadata"].get("labels") or {}
            # applied as it always was, so that an owner which is left out is taken away
            await self._tools.cluster.apply(storage_claim(job, labels, self._tools.settings), uid)
        self._hands_over = False

    async def _decide(self, job: AsyncPPOJob) -> Decision:
        pods, now = self._pods(), datetime.now(UTC)
        memory = self._with_storage(recall(self.status))
        lost = ""
        if memory.phase not in FINAL:
            memory = count_failures(memory, pods, now)
            lost = await self._storage_lost(job, memory)
        timing = self._tools.settings.timing
        return decide(job.spec, memory, self.probe.current, pods, now, timing, lost)

    def _pods(self) -> list[PodView]:
        """The job's own pods: those of an earlier job of its name, which may still be going, say nothing about this one."""
        return [pod for pod in self._tools.children.pods(self.key) if pod.job_uid == self.uid]

    def _sets(self) -> dict[Role, SetView]:
        """The job's own StatefulSets."""
        return {role: view for role, view in self._tools.children.sets(self.key).items() if view.job_uid == self.uid}

    def _claim(self) -> ChildView | None:
        """The learner's volume claim, as far as watches tell, if it is this job's."""
        seen = self._tools.children.objects(self.key).get((CLAIM.kind, names.storage(self.key.name)))
        # by its uid too: labels can be lost, and the volume is still the one that was made
        ours = seen is not None and (seen.belongs_to(self.uid) or seen.uid == recall(self.status).storage)
        return seen if ours else None

    def _with_storage(self, memory: Memory) -> Memory:
        claim = self._claim()
        return memory if claim is None else replace(memory, storage=claim.uid)

    def _had_storage(self, memory: Memory) -> bool:
        """Whether the claim was made once. Operators of version 0.1.0 did not note it; where a learner has told of its progress it was."""
        return bool(memory.storage or self.status.get("progress"))

    async def _storage_lost(self, job: AsyncPPOJob, memory: Memory) -> str:
        """What to say of a volume that the job had and that is gone; empty: it is there, or was not made yet."""
        if self._claim() is not None or not self._had_storage(memory):
            return ""
        # this ends the job: the API server itself has the last word
        claim = await self._executor.claim()
        if claim is not None and (claim.belongs_to(self.uid) or claim.uid == memory.storage):
            return ""
        if claim is not None and job.spec.learner.adopt_storage and not claim.owner and not claim.deleting:
            return ""
        name = names.storage(self.key.name)
        found = (
            f"the volume claim {name} is gone"
            if claim is None
            else f"the volume claim {name} is not this job's any more"
        )
        return (
            f"{found}, and with it the ledger, the checkpoints and the model; nothing starts at update 0 by itself. To go on, bring the "
            "volume back under this name, from a copy or its PersistentVolume, delete this job and make it again with "
            "learner.adoptStorage: true; to begin anew, delete it and make it again"
        )

    def _storage_going(self) -> Problem | None:
        """A claim that is being deleted stays as long as a pod uses it: the last chance to save what it holds."""
        claim = self._claim()
        if claim is None or not claim.deleting:
            return None
        return Problem(
            "StorageLost",
            f"the volume claim {claim.name} is being deleted and goes with the learner's pod, and with it the ledger, the checkpoints and "
            "the model: copy what is needed while the pod runs",
        )

    async def _hold(self, job: AsyncPPOJob) -> None:
        """See which roles' pods stay as an operator before this one rendered them, and how that was."""
        wanted = to_hold(job, self._sets(), self._pods(), self._held, self._tools.settings, self._executor.single_token)
        for role in wanted:
            if role not in self._held and (held := await self._executor.rendered(role)) is not None:
                self._held[role] = held
        self._held = {role: held for role, held in self._held.items() if role in wanted}

    def _token(self) -> str:
        """The token for the job's Secret, should that be missing: the one its pods hold."""
        return self._executor.token or control_token(self._tools.install_key, self.uid)

    async def _do(self, job: AsyncPPOJob, decision: Decision) -> None:
        """Carry out the plan. What an end asks for waits for the next turn: its status is stored by then."""
        children, afresh = self._tools.children, self._builds and self._due_afresh()
        await self._hold(job)
        observed = Observed(
            self._pods(),
            self._token(),
            labels=self.raw["metadata"].get("labels") or {},
            facts=self._tools.facts,
            manifest=self._manifest,
            held=self._held,
            had_storage=self._had_storage(decision.memory),
            single_token=self._executor.single_token,
        )
        wanted = plan(job, decision.target, observed, self._tools.settings)
        if not (self._builds or self._built):
            # nothing of what is there was compared yet by this operator: that is for a builder
            wanted = replace(wanted, apply=(), restart=())
        await self._executor.carry_out(wanted, children.pods(self.key), children.sets(self.key), self._new, afresh)
        self._new = False
        if decision.target is Target.GONE:
            await self._hand_over_storage(job)
        if not self._builds and self._due_afresh():
            self._look_in(random.uniform(*BUILDER_SECONDS))
        if afresh:
            self._built = True
            # not all jobs of an operator that was started again at the same time
            resync = random.uniform(0.5, 1.0) * self._tools.settings.timing.resync_seconds
            self._afresh_due = time.monotonic() + resync
        again = self._shortfalls.look(self._desired(job, decision), observed.pods, self._sets())
        if again is not None:
            self._look_in(again)

    def _aim(self, job: AsyncPPOJob, decision: Decision) -> None:
        """Point the probe and the coordinator at the learner's pod, wherever it is now."""
        token = self._executor.token
        learners = [pod for pod in self._pods() if pod.role is Role.LEARNER]
        learner = min(learners, key=lambda pod: pod.deleting, default=None)
        alive = learner is not None and learner.running and learner.ip and token
        over = decision.memory.phase in FINAL or decision.target is Target.IDLE
        base = f"http://{_host(learner.ip)}:{names.PORT}" if learner is not None and alive and not over else ""
        if decision.memory.phase not in FINAL:
            self.probe.aim(base, token)
        else:
            self.probe.close()
        self.coordination.aim(base, token, job, self._executor.single_token)

    def _desired(self, job: AsyncPPOJob, decision: Decision) -> dict[Role, int]:
        return {role: replicas(job, role, decision.target) for role in roles(job)}

    def _situation(
        self, job: AsyncPPOJob | None, decision: Decision | None, problem: Problem | None, settled: bool | None = True
    ) -> Situation:
        assert self.acceptance is not None
        return Situation(
            job=self.key.name,
            generation=int(self.raw["metadata"].get("generation") or 0),
            now=datetime.now(UTC),
            acceptance=self.acceptance,
            memory=recall(self.status) if self.status.get("phase") else Memory(),
            decision=decision,
            spec=job.spec if job is not None else None,
            desired=self._desired(job, decision) if job is not None and decision is not None else {},
            pods=self._pods(),
            shortfalls=self._shortfalls.found,
            learner=self.probe.current,
            learner_age=self.probe.age,
            learner_error=self.probe.error,
            sync=self.coordination.report,
            problem=problem,
            settled=settled,
        )

    async def _write(self, seen: Situation) -> None:
        """Write the status if it says something new; figures alone wait for their time. Events follow the status."""
        before, after = self.status, summarize(seen, self.status)
        if after == before:
            return
        since = time.monotonic() - self._written_at
        period = self._tools.settings.timing.status_seconds
        if not significant(before, after) and since < period:
            self._look_in(period - since)
            return
        try:
            await self._tools.cluster.apply_status(JOB, *self.key, after)
        except NotFoundError as error:
            raise JobGoneError(str(error)) from error
        self.status = after
        self._written_at = time.monotonic()
        for event in conditions.events(before, after):
            await self._post(event)

    async def _post(self, event: conditions.Event) -> None:
        """An event that cannot be posted is no reason to stop: the status has said the same."""
        try:
            await events.post(self._tools.cluster, self.raw["metadata"], event, datetime.now(UTC))
        except ApiError as error:
            log.warning("%s: event %s could not be posted: %s", self.key, event.reason, error)

    async def _tell_outage(self) -> None:
        """After an outage of the API server, say on the job that there was one: nobody could be told meanwhile."""
        since = self._tools.telemetry.unreachable_since
        if since is not None:
            self._unreachable_since = self._unreachable_since or since
            return
        since, self._unreachable_since = self._unreachable_since, None
        if since is None or time.monotonic() - since < OUTAGE_SECONDS:
            return
        text = (
            f"the API server did not answer the operator for {time.monotonic() - since:.0f} s; "
            "syncs went on, changes to the job were not seen until now"
        )
        await self._post(conditions.Event("ApiServerWasUnreachable", text, warning=True))

    def _look_again_in(self, seconds: float) -> None:
        """One timer, not one per turn."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(seconds, self.wake)

    def _look_in(self, seconds: float) -> None:
        self._next_look = min(self._next_look, max(0.0, seconds))


def _host(ip: str) -> str:
    return f"[{ip}]" if ":" in ip else ip


def _version(raw: dict[str, Any]) -> int:
    """Resource versions are numbers wherever etcd is underneath, and rise."""
    text = str(raw["metadata"].get("resourceVersion") or "")
    return int(text) if text.isdigit() else 0

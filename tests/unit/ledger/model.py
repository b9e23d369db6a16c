"""A plain model of the ledger: the same promises in dictionaries, without SQL, batches or running counts.

Owns what the state machine compares the real ledger with. Totals are counted from scratch each time they are asked for.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from asyncppo.report.measures import LedgerTokens, LedgerTotals
from asyncppo_runtime.ledger.records import SealRule


@dataclass
class ModelSegment:
    tokens: int
    version: int
    state: str
    reason: str = ""


@dataclass
class ModelLease:
    member: str
    incarnation: int
    group: int
    slot: int
    version: int
    state: str = "in_flight"
    spoiled: str = ""
    segments: list[ModelSegment] = field(default_factory=list)
    fate: str = ""
    reason: str = ""


@dataclass
class ModelSlot:
    state: str = "free"
    attempts: int = 0
    losses: int = 0


@dataclass
class ModelGroup:
    slots: list[ModelSlot]
    state: str = "open"
    trained: int = -1


@dataclass
class ModelMember:
    incarnation: int
    state: str
    version: int = -1


@dataclass
class ModelEpoch:
    number: int = 0
    owner: str = ""
    state: str = "finished"
    sealed: int = -1
    target: int = -1
    members: dict[str, int] = field(default_factory=dict)

    @property
    def open(self) -> bool:
        return self.state in ("open", "sealed")


@dataclass
class Model:
    """Everything the ledger promises to know."""

    rule: SealRule
    group_size: int
    max_attempts: int
    leases: dict[int, ModelLease] = field(default_factory=dict)
    groups: list[ModelGroup] = field(default_factory=list)
    members: dict[str, ModelMember] = field(default_factory=dict)
    epoch: ModelEpoch = field(default_factory=ModelEpoch)
    versions: list[int] = field(default_factory=list)
    abandoned: set[int] = field(default_factory=set)
    checkpoints: set[int] = field(default_factory=set)
    head: int = -1
    announced: int = -1
    sealed: int = -1
    lineage: int = 0
    incarnations: int = 0
    undone: int = 0

    # --- leases and groups --------------------------------------------------------------------------------------------------
    def grant(self, name: str, count: int, allowed: int) -> list[tuple[int, int]]:
        """(group, attempt) of each lease."""
        granted = []
        while len(granted) < count:
            place = next(
                (
                    (g, s)
                    for g, group in enumerate(self.groups)
                    for s, slot in enumerate(group.slots)
                    if slot.state == "free"
                ),
                None,
            )
            if place is None:
                if sum(group.state in ("open", "ready") for group in self.groups) >= allowed:
                    break
                self.groups.append(ModelGroup([ModelSlot() for _ in range(self.group_size)]))
                continue
            group, slot = place
            found = self.groups[group].slots[slot]
            found.state, found.attempts = "leased", found.attempts + 1
            member = self.members[name]
            self.leases[len(self.leases) + 1] = ModelLease(name, member.incarnation, group, slot, self.announced)
            granted.append((group, found.attempts))
        return granted

    def end(self, lease_ids: Iterable[int], state: str, reason: str, *, counted: bool) -> None:
        """Leases in flight end together."""
        ended = [self.leases[lease] for lease in lease_ids if self.leases[lease].state == "in_flight"]
        for lease in ended:
            lease.state = state
            self.discard_unscored(lease, reason)
        self.lose(ended, counted=counted)

    def discard_trajectories(self, leases: Iterable[ModelLease], reason: str, *, counted: bool = True) -> int:
        """Waiting trajectories are discarded together."""
        chosen = [lease for lease in leases if lease.fate == "waiting"]
        for lease in chosen:
            lease.fate, lease.reason = "discarded", reason
            self.discard_unscored(lease, reason)
        self.lose(chosen, counted=counted)
        return len(chosen)

    def lose(self, leases: Iterable[ModelLease], *, counted: bool) -> None:
        """Their places are free again, or their groups are given up."""
        touched = set()
        for lease in leases:
            group = self.groups[lease.group]
            if group.state in ("open", "ready"):
                group.state = "open"
                slot = group.slots[lease.slot]
                slot.state, slot.losses = "free", slot.losses + counted
                touched.add(lease.group)
        for number in touched:
            if any(slot.state == "free" and slot.losses >= self.max_attempts for slot in self.groups[number].slots):
                self.discard_group(number, "group_incomplete")

    def discard_group(self, number: int, reason: str) -> None:
        """A live group is given up."""
        group = self.groups[number]
        if group.state not in ("open", "ready"):
            return
        group.state = "discarded"
        for slot in group.slots:
            slot.state = "closed"
        own = [lease for lease in self.leases.values() if lease.group == number]
        for lease in own:
            if lease.state == "in_flight":
                lease.state = "expired"
                self.discard_unscored(lease, reason)
        self.discard_trajectories(own, reason)

    def discard_unscored(self, lease: ModelLease, reason: str) -> None:
        """Tokens that have no fate yet."""
        for segment in lease.segments:
            if segment.state == "unscored":
                segment.state, segment.reason = "discarded", reason

    def spoil(self, lease: ModelLease, reason: str) -> None:
        """Cannot be trained on any more."""
        lease.spoiled = lease.spoiled or reason
        self.discard_unscored(lease, reason)

    # --- receipts -----------------------------------------------------------------------------------------------------------
    def judge(self, lease: ModelLease, version: int, right_hash: bool) -> str:
        """Why a new segment is refused."""
        allowed = max(self.announced, self.epoch.target if self.epoch.open else -1)
        if version not in self.versions or (version > allowed and version not in self.abandoned):
            return "unknown_version"
        if not right_hash:
            return "hash_mismatch"
        if version in self.abandoned:
            return "abandoned_lineage"
        if version <= self.sealed and self.members[lease.member].incarnation != lease.incarnation:
            return "fenced"
        return "sealed" if version <= self.sealed and self.rule.flushes else ""

    def receive(
        self, lease_id: int, versions: list[int], tokens: int, finished: bool, end_reason: str, right_hash: bool
    ) -> None:
        """One honest upload: what is recorded of it is a prefix of it, or it of that. right_hash: of its last segment."""
        lease = self.leases[lease_id]
        if lease.state != "in_flight":
            return
        violation = False
        for index in range(len(lease.segments), len(versions)):
            refusal = self.judge(lease, versions[index], right_hash or index < len(versions) - 1)
            violation |= refusal in ("unknown_version", "hash_mismatch")
            reason = refusal or lease.spoiled
            lease.segments.append(ModelSegment(tokens, versions[index], "discarded" if reason else "unscored", reason))
            if refusal:
                self.spoil(lease, refusal)
        if finished:
            lease.state, lease.fate = "received", "waiting"
            group = self.groups[lease.group]
            group.slots[lease.slot].state = "filled"
            reason = (
                lease.spoiled
                or {"environment_error": "environment_error"}.get(end_reason, "")
                or ("" if versions else "empty")
            )
            if reason:
                self.discard_trajectories([lease], reason)
            if group.state == "open" and all(slot.state == "filled" for slot in group.slots):
                group.state = "ready"
        if violation:
            self.fence(lease.member)

    # --- members and epochs -------------------------------------------------------------------------------------------------
    def join(self, name: str) -> int:
        self.fence(name)
        self.incarnations += 1
        self.members[name] = ModelMember(self.incarnations, "joining")
        return self.incarnations

    def fence(self, name: str) -> None:
        member = self.members.get(name)
        if member is not None and member.state != "fenced":
            member.state = "fenced"
            if self.epoch.open and self.epoch.members.get(name) == member.incarnation:
                del self.epoch.members[name]

    def begin(self, owner: str) -> None:
        last = self.epoch
        if last.state == "sealed":
            self.epoch = ModelEpoch(last.number + 1, owner, "sealed", last.sealed, last.target, dict(last.members))
            return
        ready = {name: member.incarnation for name, member in self.members.items() if member.state == "ready"}
        self.epoch = ModelEpoch(last.number + 1, owner, "open", -1, -1, ready)

    def gaps(self, entries: Iterable[tuple[int, int]]) -> bool:
        """Whether manifest entries (lease, index) stand in the way of a seal."""
        for lease_id, index in entries:
            lease = self.leases[lease_id]
            if lease.state in ("expired", "returned"):
                continue
            if index >= len(lease.segments) or (
                self.rule is SealRule.SCORED and lease.segments[index].state == "unscored"
            ):
                return True
        return self.rule is SealRule.SCORED and any(
            segment.state == "unscored" and segment.version <= self.announced for _, segment in self.segments()
        )

    def seal(self) -> None:
        newest = self.versions[-1]
        self.epoch.state, self.epoch.sealed = "sealed", self.announced
        self.epoch.target = newest if newest != self.announced else -1
        self.sealed = max(self.sealed, self.announced)

    def finish(self) -> None:
        for name in self.epoch.members:
            self.members[name].version = self.epoch.target
        self.announce(self.epoch.target)
        self.epoch.state = "finished"

    def announce(self, version: int) -> None:
        self.announced = version
        self.sealed = max(self.sealed, version - 1)

    # --- versions -----------------------------------------------------------------------------------------------------------
    def publish(self, trained: list[int]) -> None:
        version = len(self.versions)
        self.versions.append(version)
        self.head = version
        for number in trained:
            self.groups[number].state, self.groups[number].trained = "trained", version
            for lease in self.leases.values():
                if lease.group == number and lease.fate == "waiting":
                    lease.fate = "trained"
        if self.epoch.state == "sealed" and self.epoch.target < 0:
            self.epoch.target = version
        elif not self.epoch.open and not any(member.state == "ready" for member in self.members.values()):
            self.announce(version)

    def restore(self, version: int) -> None:
        if version == self.head:
            return
        self.abandoned |= {other for other in self.versions if other > version}
        self.checkpoints -= self.abandoned
        self.head, self.lineage = version, self.lineage + 1
        for number, group in enumerate(self.groups):
            if group.state == "trained" and group.trained > version:
                group.state, group.trained = "ready", -1
                for lease in self.leases.values():
                    if lease.group == number and lease.fate == "trained":
                        lease.fate = "waiting"
                        self.undone += 1
        tainted = [
            lease
            for lease in self.leases.values()
            if (lease.state == "in_flight" or lease.fate == "waiting")
            and any(segment.version in self.abandoned for segment in lease.segments)
        ]
        for lease in tainted:
            if lease.state == "in_flight":
                self.spoil(lease, "abandoned_lineage")
        self.discard_trajectories(tainted, "abandoned_lineage", counted=False)
        if self.epoch.open and self.epoch.target > version:
            self.epoch.target = -1

    # --- figures ------------------------------------------------------------------------------------------------------------
    def segments(self) -> list[tuple[ModelLease, ModelSegment]]:
        return [(lease, segment) for lease in self.leases.values() for segment in lease.segments]

    def trainable(self, number: int) -> bool:
        """Ready, with every segment's fate decided."""
        return self.groups[number].state == "ready" and not any(
            segment.state == "unscored"
            for lease, segment in self.segments()
            if lease.group == number and lease.fate == "waiting"
        )

    def totals(self) -> LedgerTotals:
        states = Counter(lease.state for lease in self.leases.values())
        fates = Counter(lease.fate for lease in self.leases.values())
        tokens: Counter[str] = Counter()
        lost: Counter[str] = Counter()
        for lease, segment in self.segments():
            tokens[segment.state] += segment.tokens
            if segment.state == "discarded":
                lost[segment.reason] += segment.tokens
            elif segment.state == "scored" and lease.fate == "trained":
                tokens["trained"] += segment.tokens
        return LedgerTotals(
            leased=len(self.leases),
            returned=states["returned"],
            expired=states["expired"],
            in_flight=states["in_flight"],
            received=states["received"],
            trained=fates["trained"],
            waiting=fates["waiting"],
            discarded=dict(Counter(lease.reason for lease in self.leases.values() if lease.fate == "discarded")),
            undone=self.undone,
            tokens=LedgerTokens(
                sampled=tokens["scored"] + tokens["unscored"] + tokens["discarded"],
                scored=tokens["scored"],
                unscored=tokens["unscored"],
                discarded=dict(lost),
                trained=tokens["trained"],
            ),
        )

"""Small ones of everything the sync tests speak of. Owns no behaviour."""

from asyncppo.sync.machine import State
from asyncppo.sync.member import MemberGuard, Mode
from asyncppo.wire.envelope import Envelope
from asyncppo.wire.experience import Manifest
from asyncppo.wire.membership import HeartbeatReply, Member, MemberState
from asyncppo.wire.syncing import Flush, Load, Loaded, Pause, Paused, Resume, Resumed, SyncView
from asyncppo.wire.versions import VersionRecord

JOB = "job-1"
ME = "c0"


def record(version: int) -> VersionRecord:
    return VersionRecord(
        version=version,
        parent=version - 1,
        lineage=0,
        train_hash=f"t{version}",
        published_hash=f"p{version}",
        file_size=1,
        file_sha256="00",
    )


def member(name: str, incarnation: int = 1, state: MemberState = MemberState.READY) -> Member:
    return Member(name, incarnation, f"http://{name}", state, 0)


def envelope(epoch: int = 1, target: str = "a", incarnation: int = 1, job_uid: str = JOB) -> Envelope:
    return Envelope(job_uid=job_uid, epoch=epoch, target=target, incarnation=incarnation)


def view(
    column: str = "Barrier",
    *,
    epoch: int = 0,
    owner: str = "",
    open: bool = False,
    sealed: bool = False,
    version: int = 0,
    wanted: bool = True,
    stepped: bool = False,
    members: tuple[Member, ...] = (member("a"), member("b")),
    finished: bool = False,
    failed: str = "",
) -> SyncView:
    return SyncView(
        job_uid=JOB,
        column=column,
        epoch=epoch,
        owner=owner,
        open=open,
        sealed=sealed,
        version=version,
        wanted=wanted,
        stepped=stepped,
        members=list(members),
        record=record(version + 1 if stepped else version),
        canary=None,
        finished=finished,
        failed=failed,
    )


def coordinator(min_ready: int = 1) -> State:
    return State(coordinator=ME, min_ready=min_ready)


def guard(
    mode: Mode = Mode.RUNNING, *, version: int = 0, epoch: int = 0, over: int = 0, incarnation: int = 1
) -> MemberGuard:
    return MemberGuard(
        job_uid=JOB, name="a", incarnation=incarnation, epoch=epoch, over=over, version=version, mode=mode
    )


def pause(epoch: int = 1, ttl: float = 10.0, **of: object) -> Pause:
    return Pause(envelope(epoch, **of), ttl)  # type: ignore[arg-type]


def flush(epoch: int = 1, version: int = 0) -> Flush:
    return Flush(envelope(epoch), version)


def load(epoch: int = 1, version: int = 1) -> Load:
    return Load(envelope(epoch), record(version), None)


def resume(epoch: int = 1, version: int = 1) -> Resume:
    return Resume(envelope(epoch), version)


def reply(
    epoch: int = 1,
    *,
    syncing: bool = False,
    version: int = 0,
    sealed: int = -1,
    state: MemberState = MemberState.READY,
    finished: bool = False,
) -> HeartbeatReply:
    return HeartbeatReply(
        state=state,
        epoch=epoch,
        syncing=syncing,
        sealed_version=sealed,
        record=None if syncing else record(version),
        finished=finished,
    )


def answer_to(message: Pause | Flush | Load | Resume) -> Paused | Manifest | Loaded | Resumed:
    """What a good member says."""
    address = message.envelope
    if isinstance(message, Pause):
        return Paused(address, 0, 0.0)
    if isinstance(message, Flush):
        return Manifest(address.target, address.incarnation, message.version, [])
    if isinstance(message, Load):
        return Loaded(address, message.record.version, message.record.published_hash, 0.0, 0.0)
    return Resumed(address, message.version)

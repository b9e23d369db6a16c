"""What the learner cannot read is singled out: the trajectory to blame is reported, all others arrive, at both ends of the wire."""

from typing import Any, cast

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.rollout.builders import lease

from asyncppo.errors import RefusedError
from asyncppo.wire.envelope import Envelope
from asyncppo.wire.experience import (
    RawUpload,
    Refusal,
    Segment,
    Trajectory,
    Upload,
    UploadReply,
    read_trajectories,
    unreadable,
)
from asyncppo_runtime.rollout.episode import Episode
from asyncppo_runtime.rollout.outbox import Outbox
from asyncppo_runtime.rollout.tally import Tally
from asyncppo_runtime.rollout.uploads import Uploads

ENVELOPE = Envelope(job_uid="uid", epoch=0, target="rollout-0", incarnation=1)


def trajectory(lease_id: int, **fields: Any) -> Trajectory:
    whole: dict[str, Any] = {
        "token_ids": [1, 5, 6],
        "segments": [Segment(0, 1, 3, 0, "h0", [-1.0, -2.0])],
        "finished": True,
        "reward": 1.0,
        "end_reason": "done",
    }
    return Trajectory(lease_id=lease_id, group_id=0, **(whole | fields))


BAD: dict[str, dict[str, Any]] = {
    "cannot be encoded": {"token_ids": [1, 5, object()]},
    "beyond 64 bits": {"token_ids": [1, 5, 2**70]},
    "float ids": {"token_ids": [1.5, 5, 6]},
    "reward in words": {"reward": "much"},
}


class Link:
    """A learner that reads as the old one did: an upload is taken or refused as a whole. `poison`: what it refuses for its size."""

    def __init__(self, poison: int = -1) -> None:
        self.received: dict[int, Trajectory] = {}
        self.returned: list[int] = []
        self.poison = poison

    async def trajectories(self, trajectories: list[Trajectory]) -> UploadReply:
        body = msgspec.msgpack.encode(Upload(ENVELOPE, trajectories))
        try:
            read = msgspec.msgpack.decode(body, type=Upload).trajectories
        except msgspec.DecodeError as error:
            raise RefusedError(400, "BadMessage", str(error)) from error
        if any(one.lease_id == self.poison and one.segments for one in read):
            raise RefusedError(413, "Http", "too large")
        self.received |= {one.lease_id: one for one in read}
        lost = [one.lease_id for one in read if one.end_reason == "malformed"]
        return UploadReply(
            [one.lease_id for one in read if one.lease_id not in lost], [Refusal(i, -1, "malformed") for i in lost]
        )

    segments = trajectories

    async def give_back(self, lease_ids: list[int]) -> UploadReply:
        self.returned += lease_ids
        return UploadReply(lease_ids, [])


class Crew:
    """The episodes in the making."""

    def __init__(self, episodes: dict[int, Episode]) -> None:
        self.episodes = episodes
        self.dropped: dict[int, str] = {}

    def drop(self, lease_id: int, reason: str) -> None:
        self.dropped[lease_id] = reason
        del self.episodes[lease_id]


def uploads(link: Link, outbox: Outbox, crew: Crew | None = None) -> Uploads:
    return Uploads(cast("Any", link), outbox, cast("Any", crew or Crew({})), Tally())


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD.keys())
async def test_one_bad_trajectory_costs_itself_only(bad: dict[str, Any]) -> None:
    link, outbox = Link(), Outbox(keep_until_sealed=False)
    for lease_id in range(40):
        outbox.put(trajectory(lease_id, **(bad if lease_id == 17 else {})))
    await uploads(link, outbox).send()
    assert outbox.unacknowledged == []
    assert set(link.received) == set(range(40))
    assert {lease_id for lease_id, one in link.received.items() if one.end_reason == "malformed"} == {17}
    assert link.received[17].error
    assert link.received[16] == trajectory(16)


async def test_one_that_is_too_large_is_found_among_the_others() -> None:
    link, outbox = Link(poison=3), Outbox(keep_until_sealed=False)
    for lease_id in range(8):
        outbox.put(trajectory(lease_id))
    await uploads(link, outbox).send()
    assert [lease_id for lease_id, one in link.received.items() if one.end_reason == "malformed"] == [3]
    assert "too large" in link.received[3].error


async def test_a_refusal_that_is_not_the_uploads_fault_drops_nothing() -> None:
    class Fenced(Link):
        async def trajectories(self, trajectories: list[Trajectory]) -> UploadReply:
            raise RefusedError(409, "Fenced", "this incarnation is over")

    outbox = Outbox(keep_until_sealed=False)
    outbox.put(trajectory(1))
    with pytest.raises(RefusedError, match="Fenced"):
        await uploads(Fenced(), outbox).send()
    assert outbox.unacknowledged == [1]


async def test_a_learner_that_reads_nothing_at_all_gets_the_leases_back() -> None:
    class Deaf(Link):
        async def trajectories(self, trajectories: list[Trajectory]) -> UploadReply:
            raise RefusedError(400, "BadMessage", "what?")

    link, outbox = Deaf(), Outbox(keep_until_sealed=False)
    for lease_id in range(3):
        outbox.put(trajectory(lease_id))
    await uploads(link, outbox).send()
    assert (outbox.unacknowledged, sorted(link.returned)) == ([], [0, 1, 2])


async def test_a_bad_episode_does_not_stop_a_flush() -> None:
    link, outbox = Link(), Outbox(keep_until_sealed=True)
    episodes = {number: Episode(lease(number)) for number in (1, 2, 3)}
    for episode in episodes.values():
        episode.token_ids = [1, 5, 6]
        episode.segments = [Segment(0, 1, 3, 0, "h0", [-1.0, -2.0])]
    episodes[2].token_ids = [1.5, 5, 6]  # type: ignore[list-item]
    crew = Crew(episodes)
    entries = await uploads(link, outbox, crew).flush(0)
    assert {entry.lease_id for entry in entries} == {1, 3}
    assert crew.dropped == {2: "malformed"}
    assert episodes[1].recorded == {0}
    assert link.received[2].end_reason == "malformed"
    assert not link.received[1].finished


@pytest.mark.parametrize(
    ("reason", "lost"),
    [("malformed", True), ("token_out_of_vocabulary", True), ("context_exceeded", True), ("late", False)],
)
async def test_an_unfinished_one_that_is_refused_for_good_loses_its_place_an_attempt(reason: str, lost: bool) -> None:
    class Strict(Link):
        async def segments(self, trajectories: list[Trajectory]) -> UploadReply:  # type: ignore[override]
            return UploadReply([], [Refusal(one.lease_id, -1, reason) for one in trajectories])

    link, outbox = Strict(), Outbox(keep_until_sealed=True)
    episode = Episode(lease(1))
    episode.token_ids = [1, 5, 6]
    episode.segments = [Segment(0, 1, 3, 0, "h0", [-1.0, -2.0])]
    crew = Crew({1: episode})
    sender = uploads(link, outbox, crew)
    assert await sender.flush(0) == []
    await sender.send()
    assert crew.dropped == {1: reason}
    if not lost:
        assert (link.received, link.returned) == ({}, [1])
        return
    stand_in = link.received[1]
    assert (stand_in.end_reason, stand_in.finished) == ("malformed", True)
    assert reason in stand_in.error


@given(st.lists(st.sampled_from(["good", *BAD]), min_size=1, max_size=12))
async def test_any_mixture_is_sorted_out(kinds: list[str]) -> None:
    link, outbox = Link(), Outbox(keep_until_sealed=False)
    for lease_id, kind in enumerate(kinds):
        outbox.put(trajectory(lease_id, **BAD.get(kind, {})))
    await uploads(link, outbox).send()
    assert [link.received[number].end_reason == "malformed" for number in range(len(kinds))] == [
        kind != "good" for kind in kinds
    ]


def raw(*trajectories: object) -> RawUpload:
    body = msgspec.msgpack.encode({"envelope": ENVELOPE, "trajectories": list(trajectories)})
    return msgspec.msgpack.decode(body, type=RawUpload)


def test_the_learner_reads_around_what_it_cannot_read() -> None:
    good = trajectory(1)
    bad = msgspec.to_builtins(trajectory(2)) | {"token_ids": [1.5]}
    read = read_trajectories(raw(good, bad, trajectory(3)))
    assert [one.lease_id for one in read] == [1, 2, 3]
    assert read[0] == good
    assert (read[1].end_reason, read[1].finished, read[1].segments) == ("malformed", True, [])
    assert "token_ids" in read[1].error


@pytest.mark.parametrize("nothing", [7, {"lease_id": "x"}, {}, None])
def test_what_names_no_lease_is_for_its_sender_to_find(nothing: object) -> None:
    with pytest.raises(msgspec.DecodeError):
        read_trajectories(raw(trajectory(1), nothing))


def test_the_stand_in_can_always_be_sent() -> None:
    stand_in = unreadable(1, 2, "\udc80" * 1000)
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(stand_in), type=Trajectory) == stand_in

"""What is kept, until when, and what a manifest names."""

from hypothesis import given
from hypothesis import strategies as st
from tests.unit.rollout.builders import lease

from asyncppo.wire.experience import Refusal, Segment, Trajectory, UploadReply, segment_digest
from asyncppo_runtime.rollout.engines.interface import GenerateResult, Span
from asyncppo_runtime.rollout.episode import Episode
from asyncppo_runtime.rollout.outbox import Outbox


def trajectory(lease_id: int, *versions: int) -> Trajectory:
    """One two-token segment per version."""
    segments = [Segment(i, 1 + 2 * i, 3 + 2 * i, v, f"h{v}", [-1.0, -2.0]) for i, v in enumerate(versions)]
    return Trajectory(
        lease_id=lease_id, group_id=0, token_ids=list(range(1 + 2 * len(versions))), segments=segments, finished=True
    )


def test_a_trajectory_stays_until_acknowledged() -> None:
    outbox = Outbox(keep_until_sealed=False)
    outbox.put(trajectory(1, 0))
    outbox.put(trajectory(2, 0))
    assert [t.lease_id for t in outbox.next(10)] == [1, 2]
    assert outbox.settle(UploadReply([2], [])) == {}
    assert outbox.unacknowledged == [1]
    assert outbox.settle(UploadReply([], [Refusal(1, -1, "late")])) == {1: "late"}
    assert len(outbox) == 0


def test_where_versions_are_flushed_it_stays_until_all_of_them_are_sealed() -> None:
    outbox = Outbox(keep_until_sealed=True)
    outbox.put(trajectory(1, 3, 4))
    outbox.settle(UploadReply([1], []))
    assert outbox.unacknowledged == []
    assert [entry.index for entry in outbox.entries(4, [])] == [1]
    outbox.seal(3)
    assert [entry.lease_id for entry in outbox.entries(4, [])] == [1]
    outbox.seal(4)
    assert len(outbox) == 0
    outbox.put(trajectory(2, 4))
    outbox.settle(UploadReply([2], []))
    assert len(outbox) == 0, "a receipt after the seal ends it at once"


def test_a_manifest_names_unfinished_unacknowledged_and_unsealed_alike() -> None:
    outbox = Outbox(keep_until_sealed=True)
    outbox.put(trajectory(1, 0, 1))
    outbox.settle(UploadReply([1], []))
    outbox.put(trajectory(2, 1))
    episode = Episode(lease(3))
    episode.append_environment([1])
    episode.append_sampled(GenerateResult([5, 6], [-1.0, -2.0], [Span(1, "h1", 0, 2)], "interrupted"))
    entries = outbox.entries(1, [episode, Episode(lease(4))])
    assert {(entry.lease_id, entry.index, entry.tokens) for entry in entries} == {(1, 1, 2), (2, 0, 2), (3, 0, 2)}
    digests = {entry.lease_id: entry.digest for entry in entries}
    assert digests[3] == segment_digest([1, 5, 6], episode.segments[0])
    assert digests[1] == segment_digest(trajectory(1, 0, 1).token_ids, trajectory(1, 0, 1).segments[1])


@given(st.lists(st.tuples(st.integers(1, 6), st.sampled_from(["put", "accept", "refuse", "silence"])), max_size=40))
def test_nothing_is_lost_and_nothing_is_sent_after_its_answer(script: list[tuple[int, str]]) -> None:
    outbox, waiting = Outbox(keep_until_sealed=False), set()
    for lease_id, action in script:
        if action == "put":
            outbox.put(trajectory(lease_id, 0))
            waiting.add(lease_id)
        elif action == "accept":
            outbox.settle(UploadReply([lease_id], []))
            waiting.discard(lease_id)
        elif action == "refuse":
            gone = outbox.settle(UploadReply([], [Refusal(lease_id, -1, "late")]))
            assert (lease_id in gone) == (lease_id in waiting)
            waiting.discard(lease_id)
        else:
            outbox.settle(UploadReply([], []))
        assert set(outbox.unacknowledged) == waiting == {t.lease_id for t in outbox.next(100)}

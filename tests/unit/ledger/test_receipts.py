"""Receiving uploads: once, whatever comes twice, late, torn, wrong or from the wrong one."""

import pytest
from msgspec import structs
from tests.unit.ledger.builders import Job, manifest, settings, trajectory

from asyncppo.wire.experience import Refusal, Trajectory
from asyncppo.wire.membership import MemberState
from asyncppo_runtime.ledger.errors import LedgerRefusedError
from asyncppo_runtime.ledger.records import Fate, SealRule, SegmentState


def test_a_finished_trajectory_ends_its_lease_and_waits(job: Job) -> None:
    sender = job.member()
    first, second = job.grant(sender, 2)
    receipt = job.ledger.receive(sender, [trajectory(first)], 1.0)
    assert (receipt.reply.accepted, receipt.reply.refused, receipt.received, receipt.complete) == ([1], [], [1], [])
    receipt = job.ledger.receive(sender, [trajectory(second)], 1.0)
    assert receipt.complete == [0]
    totals = job.ledger.totals()
    assert (totals.leased, totals.received, totals.waiting, totals.in_flight) == (2, 2, 2, 0)
    assert (totals.tokens.sampled, totals.tokens.unscored) == (6, 6)


def test_what_was_received_is_read_back_whole(job: Job) -> None:
    sender = job.member()
    (lease,) = job.grant(sender, 1)
    sent = structs.replace(
        trajectory(lease, [0, 0], reward=0.75), sampling_seconds=1.5, environment_seconds=0.5, paused_seconds=0.25
    )
    job.ledger.receive(sender, [sent], 1.0)
    job.reopen()
    kept = job.ledger.trajectory(lease.lease_id)
    assert kept is not None
    assert kept.trajectory == sent
    assert (kept.member, kept.fate, kept.reward, kept.tokens, kept.oldest_version) == ("r0", Fate.WAITING, 0.75, 6, 0)


def test_the_same_upload_again_is_accepted_and_changes_nothing(job: Job) -> None:
    sender = job.member()
    leases = job.grant(sender, 2)
    upload = [trajectory(lease) for lease in leases]
    job.ledger.receive(sender, upload, 1.0)
    before = job.ledger.totals()
    receipt = job.ledger.receive(sender, upload, 2.0)
    assert (receipt.reply.accepted, receipt.reply.refused, receipt.received, receipt.complete) == ([1, 2], [], [], [])
    assert job.ledger.totals() == before


def test_one_upload_may_speak_of_a_lease_twice(job: Job) -> None:
    sender = job.member()
    (lease,) = job.grant(sender, 1)
    part, whole = trajectory(lease, [0], finished=False), trajectory(lease, [0, 0])
    receipt = job.ledger.receive(sender, [part, whole, whole, part], 1.0)
    assert receipt.reply.accepted == [1, 1, 1, 1]
    assert receipt.received == [1]
    assert job.ledger.totals().tokens.sampled == 6


def test_partial_forms_grow_and_may_come_out_of_order(job: Job) -> None:
    sender = job.member()
    (lease,) = job.grant(sender, 1)
    forms = [trajectory(lease, [0] * count, finished=False) for count in (1, 2, 3)]
    for form in (forms[1], forms[0], forms[2], forms[0], forms[2]):
        assert job.ledger.receive(sender, [form], 1.0).reply.refused == []
    kept = job.ledger.trajectory(lease.lease_id)
    assert kept is not None
    assert kept.trajectory == forms[2]
    assert kept.fate is None
    assert job.ledger.totals().in_flight == 1
    assert [item.token_ids for item in job.ledger.unscored()] == [forms[2].token_ids[:end] for end in (4, 8, 12)]


def test_recorded_segments_need_not_be_sent_again(job: Job) -> None:
    sender = job.member()
    (lease,) = job.grant(sender, 1)
    whole = trajectory(lease, [0, 0, 0])
    job.ledger.receive(sender, [trajectory(lease, [0], finished=False)], 1.0)
    job.ledger.receive(
        sender, [structs.replace(trajectory(lease, [0, 0], finished=False), segments=whole.segments[1:2])], 1.0
    )
    receipt = job.ledger.receive(sender, [structs.replace(whole, segments=whole.segments[2:])], 1.0)
    assert receipt.received == [1]
    kept = job.ledger.trajectory(1)
    assert kept is not None
    assert kept.trajectory == whole


def test_ids_that_contradict_a_recorded_segment_are_a_conflict_even_when_it_is_not_sent_again(job: Job) -> None:
    sender = job.member()
    (lease,) = job.grant(sender, 1)
    job.ledger.receive(sender, [trajectory(lease, [0], finished=False)], 1.0)
    other = trajectory(lease, [0, 0], salt=5)
    receipt = job.ledger.receive(sender, [structs.replace(other, segments=other.segments[1:])], 1.0)
    assert receipt.reply.refused == [Refusal(1, 0, "conflict")]
    assert receipt.fenced


def test_another_digest_at_the_same_index_is_refused_and_fences_the_sender(job: Job) -> None:
    sender = job.member()
    (lease,) = job.grant(sender, 1)
    job.ledger.receive(sender, [trajectory(lease, [0], finished=False)], 1.0)
    receipt = job.ledger.receive(sender, [trajectory(lease, [0, 0], salt=1)], 1.0)
    assert receipt.reply.accepted == []
    assert receipt.reply.refused == [Refusal(1, 0, "conflict")]
    assert (receipt.violations, receipt.fenced) == (["conflict"], True)
    assert job.ledger.members()[0].state is MemberState.FENCED
    totals = job.ledger.totals()
    assert totals.refused == {"conflict": 1}
    assert (totals.in_flight, totals.tokens.sampled) == (1, 3)
    with pytest.raises(LedgerRefusedError, match="Fenced"):
        job.ledger.receive(sender, [trajectory(lease)], 1.0)


@pytest.mark.parametrize("change", [{"reward": 0.5}, {"end_reason": "max_turns"}, {"token_ids": [1, 10, 10, 10, 9]}])
def test_another_ending_of_a_received_trajectory_is_a_conflict(job: Job, change: dict[str, object]) -> None:
    sender = job.member()
    (lease,) = job.grant(sender, 1)
    sent = trajectory(lease)
    job.ledger.receive(sender, [sent], 1.0)
    receipt = job.ledger.receive(sender, [structs.replace(sent, **change)], 1.0)
    assert receipt.reply.refused == [Refusal(1, -1, "conflict")]
    kept = job.ledger.trajectory(1)
    assert kept is not None
    assert kept.trajectory == sent


def test_more_segments_than_were_received_are_a_conflict(job: Job) -> None:
    sender = job.member()
    (lease,) = job.grant(sender, 1)
    job.ledger.receive(sender, [trajectory(lease, [0])], 1.0)
    receipt = job.ledger.receive(sender, [trajectory(lease, [0, 0], finished=False)], 1.0)
    assert receipt.reply.refused == [Refusal(1, 1, "conflict")]


@pytest.mark.parametrize("ending", ["expired", "returned"])
def test_a_late_arrival_is_refused_by_lease_and_logged(job: Job, ending: str) -> None:
    sender = job.member()
    (lease,) = job.grant(sender, 1)
    job.ledger.receive(sender, [trajectory(lease, [0], finished=False)], 0.0)
    if ending == "expired":
        assert job.ledger.expire(1e6) == [1]
    else:
        assert job.ledger.give_back(sender, [1], 0.0) == [1]
    receipt = job.ledger.receive(sender, [trajectory(lease, [0, 0])], 1e6)
    assert receipt.reply.refused == [Refusal(1, -1, "late")]
    totals = job.ledger.totals()
    assert (totals.received, totals.refused) == (0, {"late": 1})
    assert totals.tokens.discarded == {f"lease_{ending}": 3}
    assert [(event.kind, event.subject) for event in job.ledger.events()][-1] == ("late", "1")


def test_leases_of_others_unknown_leases_and_wrong_groups_are_refused(job: Job) -> None:
    sender, other = job.member("r0"), job.member("r1")
    (lease,) = job.grant(sender, 1)
    sent = trajectory(lease)
    assert job.ledger.receive(other, [sent], 1.0).reply.refused == [Refusal(1, -1, "unknown_lease")]
    wrong = [structs.replace(sent, lease_id=9), structs.replace(sent, group_id=9)]
    assert job.ledger.receive(sender, wrong, 1.0).reply.refused == [
        Refusal(9, -1, "unknown_lease"),
        Refusal(1, -1, "unknown_lease"),
    ]
    assert job.ledger.totals().refused == {"unknown_lease": 3}


def test_a_flipped_version_is_refused(job: Job) -> None:
    sender = job.member()
    (lease,) = job.grant(sender, 1)
    receipt = job.ledger.receive(sender, [trajectory(lease, [3])], 1.0)
    assert receipt.reply.refused == [Refusal(1, 0, "unknown_version")]
    assert receipt.fenced
    totals = job.ledger.totals()
    assert (totals.received, totals.discarded) == (1, {"unknown_version": 1})
    assert (totals.tokens.sampled, totals.tokens.discarded, totals.tokens.unscored) == (3, {"unknown_version": 3}, 0)


def test_a_flipped_hash_is_refused(job: Job) -> None:
    sender = job.member()
    (lease,) = job.grant(sender, 1)
    receipt = job.ledger.receive(sender, [trajectory(lease, [0], weights_hash="other")], 1.0)
    assert receipt.reply.refused == [Refusal(1, 0, "hash_mismatch")]
    assert receipt.fenced
    assert job.ledger.totals().refused == {"hash_mismatch": 1}


def test_a_published_version_that_nobody_was_told_of_is_refused(tmp_path_factory: pytest.TempPathFactory) -> None:
    job = Job(tmp_path_factory.mktemp("ledger") / "ledger.db", settings(seal_rule=SealRule.NONE))
    job.publish(0)
    sender = job.member()
    (lease,) = job.grant(sender, 1)
    job.publish(1)
    assert job.ledger.receive(sender, [trajectory(lease, [1])], 1.0).reply.refused == [Refusal(1, 0, "unknown_version")]
    job.check()
    job.ledger.close()


def test_one_wrong_segment_spoils_its_trajectory_and_nothing_of_it_is_scored(job: Job) -> None:
    sender = job.member()
    first, other = job.grant(sender, 2)
    job.ledger.receive(sender, [trajectory(first, [0], finished=False), trajectory(other)], 1.0)
    wrong = trajectory(first, [0, 0], finished=False)
    wrong = structs.replace(
        wrong, segments=[wrong.segments[0], structs.replace(wrong.segments[1], weights_hash="other")]
    )
    job.ledger.receive(sender, [wrong], 1.0)
    assert [item.key.lease_id for item in job.ledger.unscored()] == [other.lease_id]
    assert job.ledger.totals().tokens.discarded == {"hash_mismatch": 6}
    # Back as a new incarnation: the same trajectory is still spoiled, and that is no new violation.
    again = job.member()
    whole = trajectory(first, [0, 0, 0])
    whole = structs.replace(whole, segments=[*wrong.segments, whole.segments[2]])
    receipt = job.ledger.receive(again, [whole], 2.0)
    assert not receipt.fenced
    assert receipt.reply.refused == [Refusal(1, index, "hash_mismatch") for index in range(3)]
    totals = job.ledger.totals()
    assert (totals.discarded, totals.tokens.discarded, totals.refused) == (
        {"hash_mismatch": 1},
        {"hash_mismatch": 9},
        {"hash_mismatch": 1},
    )


def test_tokens_of_a_sealed_version_are_refused_unless_recorded(job: Job) -> None:
    sender = job.member()
    first, second = job.grant(sender, 2)
    job.ledger.receive(sender, [trajectory(first, [0], finished=False)], 1.0)
    job.sync(sender)
    receipt = job.ledger.receive(sender, [trajectory(first, [0, 1]), trajectory(second, [0, 1])], 2.0)
    assert receipt.reply.accepted == [1, 2]
    # Its later tokens go with it: nothing of a trajectory that cannot be trained on is scored.
    assert receipt.reply.refused == [Refusal(2, 0, "sealed"), Refusal(2, 1, "sealed")]
    assert not receipt.fenced
    totals = job.ledger.totals()
    assert (totals.waiting, totals.discarded) == (1, {"sealed": 1})
    assert (totals.tokens.scored, totals.tokens.unscored, totals.tokens.discarded) == (3, 3, {"sealed": 6})
    again = job.ledger.receive(sender, [trajectory(second, [0, 1])], 3.0)
    assert again.reply.refused == receipt.reply.refused
    assert job.ledger.totals() == totals


def test_a_member_that_comes_back_delivers_its_outbox(job: Job) -> None:
    job.member("r1")
    sender = job.member()
    recorded, scoreable, late = job.grant(sender, 3)
    job.ledger.receive(sender, [trajectory(recorded, [0], finished=False)], 1.0)
    job.ledger.fence("r0", "did not answer", 1.0)
    before = job.member()
    assert before.incarnation > sender.incarnation
    assert job.ledger.receive(before, [trajectory(scoreable, [0])], 1.0).received == [scoreable.lease_id]
    job.ledger.fence("r0", "again", 1.0)
    job.score_all()
    view = job.ledger.begin("c", 0, 1.0)
    other = structs.replace(sender, target="r1", incarnation=1)
    job.ledger.seal(view.epoch, "c", 0, ["r1"], [manifest(other, 0)], [], 1.0)
    job.publish(1)
    job.ledger.finish(view.epoch, "c", ["r1"], [], {}, 1.0)
    back = job.member()
    receipt = job.ledger.receive(back, [trajectory(recorded, [0, 1]), trajectory(late, [0])], 2.0)
    assert receipt.received == [recorded.lease_id, late.lease_id]
    assert receipt.reply.refused == [Refusal(late.lease_id, 0, "fenced")]
    assert job.ledger.totals().discarded == {"fenced": 1}


def test_without_a_flush_a_member_that_was_fenced_may_have_sampled_after_the_seal(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    job = Job(tmp_path_factory.mktemp("ledger") / "ledger.db", settings(seal_rule=SealRule.NONE))
    job.publish(0)
    sender = job.member()
    recorded, kept = job.grant(sender, 2)
    job.ledger.receive(sender, [trajectory(recorded, [0], finished=False)], 1.0)
    job.publish(1)
    view = job.ledger.begin("c", 0, 1.0)
    job.ledger.seal(view.epoch, "c", 0, [], [], ["r0"], 1.0)
    job.ledger.finish(view.epoch, "c", [], [], {}, 1.0)
    again = job.member()
    receipt = job.ledger.receive(again, [trajectory(recorded, [0, 1]), trajectory(kept, [0])], 2.0)
    assert receipt.reply.refused == [Refusal(kept.lease_id, 0, "fenced")]
    assert not receipt.fenced
    job.check()
    job.ledger.close()


def test_without_a_flush_older_versions_may_still_arrive(tmp_path_factory: pytest.TempPathFactory) -> None:
    job = Job(tmp_path_factory.mktemp("ledger") / "ledger.db", settings(seal_rule=SealRule.NONE))
    job.publish(0)
    sender = job.member()
    (lease,) = job.grant(sender, 1)
    job.publish(1)
    view = job.ledger.begin("c", 0, 1.0)
    job.ledger.seal(view.epoch, "c", 0, ["r0"], [], [], 1.0)
    job.ledger.finish(view.epoch, "c", ["r0"], [], {}, 1.0)
    assert job.ledger.needed_versions() == {0, 1}
    receipt = job.ledger.receive(sender, [trajectory(lease, [0, 1])], 2.0)
    assert receipt.reply.refused == []
    assert {item.version for item in job.ledger.unscored()} == {0, 1}
    job.check()
    job.ledger.close()


@pytest.mark.parametrize(
    ("end_reason", "discard_overlong", "fate"),
    [
        ("done", True, ""),
        ("max_turns", True, ""),
        ("overlong", False, ""),
        ("overlong", True, "overlong"),
        ("environment_timeout", False, "environment_timeout"),
        ("environment_error", False, "environment_error"),
    ],
)
def test_how_an_episode_ends_decides_whether_it_waits(
    tmp_path_factory: pytest.TempPathFactory, end_reason: str, discard_overlong: bool, fate: str
) -> None:
    job = Job(tmp_path_factory.mktemp("ledger") / "ledger.db", settings(discard_overlong=discard_overlong))
    job.publish(0)
    sender = job.member()
    (lease,) = job.grant(sender, 1)
    assert job.ledger.receive(sender, [trajectory(lease, end_reason=end_reason)], 1.0).received == [1]
    totals = job.ledger.totals()
    assert totals.discarded == ({fate: 1} if fate else {})
    assert totals.tokens.unscored == (0 if fate else 3)
    job.check()
    job.ledger.close()


def test_a_trajectory_without_tokens_is_discarded(job: Job) -> None:
    sender = job.member()
    leases = job.grant(sender, 2)
    empty = Trajectory(lease_id=1, group_id=0, token_ids=[1], segments=[], finished=True, end_reason="done")
    timeout = structs.replace(empty, lease_id=leases[1].lease_id, end_reason="environment_timeout", token_ids=[])
    job.ledger.receive(sender, [empty, timeout], 1.0)
    assert job.ledger.totals().discarded == {"empty": 1, "environment_timeout": 1}


def test_an_upload_that_is_refused_does_not_hurt_its_neighbours(job: Job) -> None:
    sender = job.member()
    good, bad = job.grant(sender, 2)
    torn = structs.replace(trajectory(bad), token_ids=[1, 2])
    receipt = job.ledger.receive(sender, [torn, trajectory(good)], 1.0)
    assert receipt.reply.accepted == [good.lease_id]
    assert receipt.reply.refused == [Refusal(bad.lease_id, -1, "malformed")]
    # It counts as a loss of its place, so that it is not granted for ever; and it can be answered once only.
    assert job.ledger.totals().discarded == {"malformed": 1}
    again = job.ledger.receive(sender, [trajectory(bad)], 1.0)
    assert (again.received, again.fenced) == ([], False)
    assert again.reply.refused == [Refusal(bad.lease_id, -1, "malformed")]
    assert [lease.group_id for lease in job.grant(sender, 1)] == [bad.group_id]
    job.check()


def test_discarded_segments_stay_in_view(job: Job) -> None:
    sender = job.member()
    (lease,) = job.grant(sender, 1)
    job.ledger.receive(sender, [trajectory(lease, [0], weights_hash="other")], 1.0)
    kept = job.ledger.trajectory(1)
    assert kept is not None
    assert [(part.state, part.reason, part.weights_hash) for part in kept.segments] == [
        (SegmentState.DISCARDED, "hash_mismatch", "other")
    ]

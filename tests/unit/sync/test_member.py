"""The rollout's guard: what it obeys, what it refuses, and what it makes of the learner's answers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.sync.builders import flush, guard, load, member, pause, record, reply, resume

from asyncppo.errors import RefusedError
from asyncppo.sync.member import Advice, MemberGuard, Mode
from asyncppo.wire.membership import Joined, MemberState


def reason(call, *arguments) -> str:  # type: ignore[no-untyped-def]
    with pytest.raises(RefusedError) as refused:
        call(*arguments)
    assert refused.value.status == 409
    assert refused.value.message
    return refused.value.reason


def paused(epoch: int = 1) -> MemberGuard:
    return guard().pause(pause(epoch), 100.0)


def test_a_sync_from_pause_to_resume() -> None:
    one = paused()
    assert not one.samples
    one.flush(flush())
    one, needed = one.load(load())
    assert needed
    one = one.loaded(1)
    assert not one.samples
    one = one.resume(resume())
    assert one.samples
    assert (one.version, one.epoch, one.over) == (1, 1, 1)


def test_commands_sent_again_answer_the_same() -> None:
    one = paused()
    assert one.pause(pause(), 100.0) == one
    one, _ = one.load(load())
    one = one.loaded(1)
    assert one.load(load()) == (one, False)
    running = one.resume(resume())
    assert running.resume(resume()) == running
    assert running.load(load()) == (running, False)


def test_a_pause_sent_again_prolongs_its_time_to_live() -> None:
    one = paused()
    assert not one.pause_expired(109.9)
    assert one.pause_expired(110.0)
    assert not one.pause(pause(), 105.0).pause_expired(110.0)
    assert not guard().pause_expired(1e9)


def test_messages_for_somebody_else_are_refused() -> None:
    one = guard()
    assert reason(one.pause, pause(job_uid="another"), 0.0) == "OtherJob"
    assert reason(one.pause, pause(target="b"), 0.0) == "OtherMember"
    assert reason(one.pause, pause(incarnation=2), 0.0) == "StaleIncarnation"
    assert reason(guard(Mode.OUT).pause, pause(), 0.0) == "NotJoined"
    assert reason(guard(Mode.PARKED).resume, resume()) == "NotJoined"


def test_older_epochs_are_refused() -> None:
    one = paused(epoch=3)
    assert reason(one.pause, pause(2), 0.0) == "StaleEpoch"
    assert reason(one.flush, flush(2)) == "StaleEpoch"
    assert reason(one.load, load(2)) == "StaleEpoch"
    assert reason(one.resume, resume(2, 0)) == "StaleEpoch"


def test_a_late_pause_of_an_epoch_it_has_resumed_from_is_refused() -> None:
    one = paused().resume(resume(1, 0))
    assert one.samples
    assert reason(one.pause, pause(1), 0.0) == "StaleEpoch"
    assert not one.pause(pause(2), 0.0).samples


def test_flush_and_load_want_a_pause_first() -> None:
    assert reason(guard().flush, flush()) == "NotPaused"
    assert reason(guard().load, load()) == "NotPaused"


def test_it_never_goes_back_a_version_nor_resumes_another() -> None:
    one = paused().loaded(2)
    assert reason(one.load, load(1, 1)) == "StaleVersion"
    assert reason(one.resume, resume(1, 1)) == "StaleVersion"


def test_a_successor_may_load_what_its_predecessor_paused() -> None:
    one, needed = paused(1).load(load(2, 1))
    assert needed
    assert reason(one.load, load(1, 1)) == "StaleEpoch"
    assert one.loaded(1).resume(resume(2, 1)).samples


def test_joining_outside_a_sync() -> None:
    one = guard(Mode.OUT, version=-1, over=-1).joined(Joined(4, 7, record(3)))
    assert (one.mode, one.incarnation, one.epoch) == (Mode.JOINING, 4, 7)
    assert reason(one.pause, pause(8, incarnation=4), 0.0) == "NotJoined"
    one, advice = one.heard(reply(7, version=3, state=MemberState.JOINING), 4, 0.0)
    assert advice is Advice.LOAD
    one = one.loaded(3)
    one, advice = one.heard(reply(7, version=3, state=MemberState.JOINING), 4, 0.0)
    assert advice is Advice.ANNOUNCE
    assert not one.samples
    one, advice = one.heard(reply(7, version=3), 4, 0.0)
    assert advice is Advice.RESUME
    assert one.samples


def test_joining_in_a_sync_waits_for_its_end() -> None:
    one = guard(Mode.OUT, version=-1, over=-1).joined(Joined(4, 7, None))
    one, advice = one.heard(reply(7, syncing=True, state=MemberState.JOINING), 4, 0.0)
    assert advice is Advice.WAIT
    assert not one.samples


def test_a_pause_may_overtake_the_answer_that_it_is_ready() -> None:
    one = guard(Mode.JOINING, version=3, epoch=7, over=7).pause(pause(8), 0.0)
    after, advice = one.heard(reply(7, version=3), 1, 0.0)
    assert (after, advice) == (one, Advice.WAIT)


def test_after_a_rolled_back_epoch_it_resumes_by_itself() -> None:
    one, advice = paused().heard(reply(1, version=0), 1, 0.0)
    assert advice is Advice.RESUME
    assert one.samples
    assert one.over == 1


def test_after_a_finished_epoch_it_loads_and_resumes_by_itself() -> None:
    one, advice = paused().heard(reply(1, version=1, sealed=0), 1, 0.0)
    assert advice is Advice.LOAD
    assert not one.samples
    one, advice = one.loaded(1).heard(reply(1, version=1, sealed=0), 1, 0.0)
    assert advice is Advice.RESUME
    assert one.samples


def test_it_waits_while_the_epoch_is_open() -> None:
    one, advice = paused().heard(reply(1, syncing=True), 1, 200.0)
    assert advice is Advice.WAIT
    assert one.pause_expired(200.0)


def test_a_newer_open_epoch_gives_its_pause_a_whole_time_to_live() -> None:
    one, _ = paused().heard(reply(2, syncing=True), 1, 200.0)
    assert not one.pause_expired(209.0)
    assert one.pause_expired(210.0)
    assert reason(one.flush, flush(1)) == "StaleEpoch"


def test_an_answer_from_before_the_pause_does_not_resume_it() -> None:
    one = paused(epoch=2)
    assert one.heard(reply(1, version=0), 1, 0.0) == (one, Advice.WAIT)


def test_an_answer_to_an_older_incarnation_says_nothing() -> None:
    one = guard(incarnation=3)
    assert one.heard(reply(0, state=MemberState.FENCED), 2, 0.0) == (one, Advice.CONTINUE)


def test_fenced_means_join_again() -> None:
    one, advice = guard().heard(reply(0, state=MemberState.FENCED), 1, 0.0)
    assert advice is Advice.REJOIN
    assert not one.samples
    assert one.joined(Joined(2, 0, record(0))).mode is Mode.JOINING


def test_a_version_sealed_without_it_means_join_again() -> None:
    one, advice = guard().heard(reply(1, syncing=True, sealed=0), 1, 0.0)
    assert advice is Advice.REJOIN
    assert not one.samples


def test_a_running_member_that_missed_a_version_stops_and_loads() -> None:
    one, advice = guard().heard(reply(1, version=1, sealed=0), 1, 0.0)
    assert advice is Advice.LOAD
    assert not one.samples
    one, advice = one.loaded(1).heard(reply(1, version=1, sealed=0), 1, 0.0)
    assert advice is Advice.RESUME


@pytest.mark.parametrize("mode", list(Mode))
def test_a_finished_job_parks_it(mode: Mode) -> None:
    one, advice = guard(mode).heard(reply(9, finished=True), 1, 0.0)
    assert (one.mode, advice) == (Mode.PARKED, Advice.PARK)
    assert one.heard(reply(9), 5, 0.0)[1] is Advice.PARK


def test_one_that_has_left_is_parked() -> None:
    assert guard().heard(reply(0, state=MemberState.LEFT), 1, 0.0)[1] is Advice.PARK


def test_its_envelope_says_who_it_is() -> None:
    address = guard(epoch=5, incarnation=3).envelope()
    assert (address.epoch, address.target, address.incarnation) == (5, member("a").name, 3)


EPOCHS, VERSIONS = st.integers(0, 4), st.integers(0, 3)
MESSAGES = st.one_of(
    st.builds(pause, EPOCHS, incarnation=st.integers(1, 2)),
    st.builds(flush, EPOCHS, VERSIONS),
    st.builds(load, EPOCHS, VERSIONS),
    st.builds(resume, EPOCHS, VERSIONS),
    st.builds(
        reply,
        EPOCHS,
        syncing=st.booleans(),
        version=VERSIONS,
        sealed=st.integers(-1, 2),
        state=st.sampled_from(MemberState),
    ),
    st.builds(Joined, st.integers(1, 2), EPOCHS, st.none()),
)


@given(st.lists(MESSAGES, max_size=30))
def test_whatever_comes_epochs_only_grow_and_sampling_only_starts_where_allowed(messages: list[object]) -> None:
    one = guard()
    for message in messages:
        before = one
        one = obey(one, message)
        assert one.epoch >= before.epoch
        assert one.over >= before.over
        assert one.over <= one.epoch
        assert one.version >= 0
        if one.samples and not before.samples:
            told = getattr(message, "version", None)
            if told is None:
                told = message.record.version  # type: ignore[attr-defined]
            assert told == one.version
            assert one.over == one.epoch


def obey(one: MemberGuard, message: object) -> MemberGuard:
    """What a rollout's program does with a message."""
    kind = type(message).__name__
    try:
        if kind == "HeartbeatReply":
            one, advice = one.heard(message, one.incarnation, 0.0)  # type: ignore[arg-type]
            return one.loaded(message.record.version) if advice is Advice.LOAD else one  # type: ignore[attr-defined]
        if kind == "Joined":
            return one.joined(message) if one.mode is Mode.OUT else one  # type: ignore[arg-type]
        if kind == "Pause":
            return one.pause(message, 0.0)  # type: ignore[arg-type]
        if kind == "Load":
            one, needed = one.load(message)  # type: ignore[arg-type]
            return one.loaded(message.record.version) if needed else one  # type: ignore[attr-defined]
        if kind == "Resume":
            return one.resume(message)  # type: ignore[arg-type]
        one.flush(message)  # type: ignore[arg-type]
    except RefusedError:
        pass
    return one

"""A scorer that is silent is lost after a while, and counts again only once it has answered steadily."""

from asyncppo_runtime.old_logprobs.availability import Availability


def scorer() -> Availability:
    return Availability(after=60.0, back=15.0, heard_at=0.0)


def test_silence_up_to_the_limit_is_no_loss() -> None:
    one = scorer()
    assert one.look(60.0)
    assert not one.look(60.1)


def test_one_answer_does_not_bring_it_back() -> None:
    one = scorer()
    assert not one.look(61.0)
    one.heard(62.0)
    assert not one.look(62.0)
    assert not one.look(76.9)


def test_steady_answers_bring_it_back_after_a_while() -> None:
    one = scorer()
    assert not one.look(61.0)
    for second in range(62, 78):
        one.heard(float(second))
    assert not one.look(76.9)
    assert one.look(77.0)
    assert one.look(137.0)
    assert not one.look(137.1), "and lost again after the same silence as before"


def test_a_gap_starts_the_count_anew() -> None:
    one = scorer()
    assert not one.look(61.0)
    one.heard(62.0)
    one.heard(70.0)
    one.heard(90.0)
    assert not one.look(91.0), "20 s of silence in between"
    one.heard(100.0)
    one.heard(105.0)
    assert one.look(105.0)

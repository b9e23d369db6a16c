"""metrics.jsonl read back: torn lines, abandoned lineages, a file that grows."""

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from tests.unit.report.builders import recorded, update

from asyncppo.report.history import History, read_history, running_mean


def test_a_recorded_file(tmp_path: Path) -> None:
    updates = [update(n, n / 10) for n in range(1, 6)]
    assert read_history(recorded(tmp_path / "metrics.jsonl", updates)) == updates
    assert read_history(tmp_path / "none") == []


def test_a_restored_checkpoint_replaces_what_came_after_it(tmp_path: Path) -> None:
    path = recorded(tmp_path / "m", [update(n) for n in (1, 2, 3, 4)] + [update(3, 0.9)])
    assert [(line.update, line.reward) for line in read_history(path)] == [(1, 0.5), (2, 0.5), (3, 0.9)]


def test_a_torn_line_is_counted_and_left_out(tmp_path: Path) -> None:
    path = recorded(tmp_path / "m", [update(1), update(2)])
    path.write_bytes(path.read_bytes()[:-20] + b"\n\n" + recorded(tmp_path / "n", [update(3)]).read_bytes())
    history = History(path)
    assert [line.update for line in history.follow()] == [1, 3]
    assert history.torn == 1


def test_following_a_file_that_grows_and_is_written_anew(tmp_path: Path) -> None:
    path = tmp_path / "m"
    history = History(path)
    assert history.follow() == []
    whole = recorded(path, [update(n) for n in (1, 2, 3)]).read_bytes()
    path.write_bytes(whole[:-7])
    assert [line.update for line in history.follow()] == [1, 2]
    path.write_bytes(whole)
    assert [line.update for line in history.follow()] == [1, 2, 3]
    recorded(path, [update(1)])
    assert [line.update for line in history.follow()] == [1]


@given(cuts=st.lists(st.integers(0, 2000), max_size=6))
def test_it_does_not_matter_when_one_looks(tmp_path_factory: object, cuts: list[int]) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "m"
        whole = recorded(path, [update(n) for n in range(1, 5)]).read_bytes()
        history = History(path)
        path.write_bytes(b"")
        for cut in sorted(cuts):
            path.write_bytes(whole[:cut])
            history.follow()
        path.write_bytes(whole)
        assert history.follow() == [update(n) for n in range(1, 5)]


def test_running_means() -> None:
    assert running_mean([1.0, 2.0, 3.0, 4.0], 2) == [1.0, 1.5, 2.5, 3.5]
    assert running_mean([], 3) == []

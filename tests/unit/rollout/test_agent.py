"""The agent loop with scripted environments and a scripted engine: exact ids, segments, every way an episode ends."""

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.unit.rollout.builders import Scripted, job_spec, lease, model_of, running_engine

from asyncppo.api.job import AsyncPPOJobSpec
from asyncppo.wire.versions import VersionRecord
from asyncppo_runtime.environments.interface import Environment, Observation, Turn
from asyncppo_runtime.policy import build_tokenizer
from asyncppo_runtime.rollout import patience
from asyncppo_runtime.rollout.agent import Agent, AgentSettings
from asyncppo_runtime.rollout.engines.interface import EngineError, GenerateRequest, GenerateResult, Span
from asyncppo_runtime.rollout.episode import Episode
from asyncppo_runtime.rollout.gate import Gate
from asyncppo_runtime.rollout.holds import HoldWatch
from asyncppo_runtime.rollout.randomness import continued_seed
from asyncppo_runtime.rollout.tally import Tally
from asyncppo_runtime.rollout.undisturbed import CANCELLED

BOS, EOS = 1, 2
LESS, MORE, FOUND = 19, 20, 21  # ids of <, > and = in GuessNumber's vocabulary


class ScriptedEngine:
    """An engine that says given ids: each entry is one generate(). A trailing None means interrupted there."""

    def __init__(self, *says: list[int | None]) -> None:
        self.says = list(says)
        self.requests: list[GenerateRequest] = []
        self.forgotten: list[str] = []
        self.version = 0

    async def generate(self, request: GenerateRequest) -> GenerateResult:
        """The next entry, sampled under the version set now."""
        self.requests.append(request)
        if not self.says:
            raise EngineError("the script is over")
        entry = self.says.pop(0)
        ids = [token for token in entry if token is not None]
        interrupted = entry[-1:] == [None]
        stopped = bool(ids) and ids[-1] in request.stop_token_ids
        spans = [Span(self.version, f"hash-{self.version}", 0, len(ids))] if ids else []
        reason: Any = "interrupted" if interrupted else "stop" if stopped else "length"
        if interrupted:
            self.version += 1
        return GenerateResult(ids, [-float(token) for token in ids], spans, reason)

    def forget(self, session: str) -> None:
        """Remember it."""
        self.forgotten.append(session)

    async def start(self) -> None: ...
    async def load(self, weights: Path, record: VersionRecord) -> str:
        return ""

    async def prompt_logprobs(self, token_ids: list[int]) -> list[float]:
        return []

    async def pause(self) -> None: ...
    async def resume(self) -> None: ...
    async def close(self) -> None: ...

    running = 0
    kv_usage = 0.0


def said(*symbols: str) -> Turn:
    """The environment answers and goes on."""
    return Turn(Observation(text=" ".join(symbols)))


def won(reward: float) -> Turn:
    """The environment ends the episode."""
    return Turn(Observation(text="="), reward=reward, done=True)


async def play(
    engine: Any,
    environment: Environment | Callable[[], Environment],
    gate: Gate | None = None,
    tally: Tally | None = None,
    **limits: Any,
) -> Episode:
    """One episode of GuessNumber's vocabulary."""
    spec: AsyncPPOJobSpec = job_spec()
    values = {"max_turns": 8, "max_tokens": 3, "context_length": 24, "step_timeout_seconds": 30.0} | limits
    agent = Agent(
        AgentSettings(temperature=1.0, top_p=1.0, **values),
        engine,
        build_tokenizer(spec),
        environment if callable(environment) else lambda: environment,  # type: ignore[arg-type]
        gate or opened(),
        tally or Tally(),
    )
    episode = Episode(lease())
    await agent.play(episode)
    return episode


def opened() -> Gate:
    gate = Gate()
    gate.open()
    return gate


async def test_many_turns_keep_exact_ids_and_one_segment_each() -> None:
    engine = ScriptedEngine([7, EOS], [8, 9, EOS], [10, 11, 12])
    environment = Scripted(Observation(text="5"), [said("<"), said(">", ">"), won(0.75)])
    episode = await play(engine, environment)
    assert episode.token_ids == [BOS, 8, 7, EOS, LESS, 8, 9, EOS, MORE, MORE, 10, 11, 12]
    assert [(s.index, s.start, s.end, s.version) for s in episode.segments] == [
        (0, 2, 4, 0),
        (1, 5, 8, 0),
        (2, 10, 13, 0),
    ]
    assert episode.segments[1].logprobs == [-8.0, -9.0, -2.0]
    assert [r.token_ids for r in engine.requests] == [episode.token_ids[: s.start] for s in episode.segments]
    assert environment.heard == [("4", [7, EOS]), ("5 6", [8, 9, EOS]), ("7 8 9", [10, 11, 12])]
    assert (episode.end_reason, episode.reward, episode.turns) == ("done", 0.75, 3)
    assert engine.forgotten == [episode.session]
    assert environment.closed
    trajectory = episode.trajectory()
    assert trajectory.finished
    assert trajectory.segments == episode.segments
    assert trajectory.token_ids == episode.token_ids


async def test_rewards_of_an_episode_add_up() -> None:
    turns = [Turn(Observation(text="<"), reward=0.25), Turn(Observation(text="<"), reward=-0.5), won(1.0)]
    episode = await play(ScriptedEngine([3], [4], [5]), Scripted(Observation(text=""), turns), max_tokens=1)
    assert episode.reward == 0.75


async def test_an_interruption_closes_a_segment_and_goes_on_with_prompt_and_partial_ids() -> None:
    engine = ScriptedEngine([7, None], [None], [8, None], [EOS], [9, EOS])
    episode = await play(engine, Scripted(Observation(text=""), [said("<"), won(1.0)]))
    assert episode.token_ids == [BOS, 7, 8, EOS, LESS, 9, EOS]
    assert [(s.start, s.end, s.version, s.weights_hash) for s in episode.segments] == [
        (1, 2, 0, "hash-0"),
        (2, 3, 2, "hash-2"),
        (3, 4, 3, "hash-3"),
        (5, 7, 3, "hash-3"),
    ]
    assert [s.index for s in episode.segments] == [0, 1, 2, 3]
    assert [r.token_ids for r in engine.requests] == [[BOS], [BOS, 7], [BOS, 7], [BOS, 7, 8], episode.token_ids[:5]]
    assert [r.max_tokens for r in engine.requests] == [3, 2, 2, 1, 3]
    seed = episode.lease.sampling_seed
    assert [r.seed for r in engine.requests] == [continued_seed(seed, len(r.token_ids)) for r in engine.requests]


async def test_two_spans_of_one_result_are_two_segments() -> None:
    episode = Episode(lease())
    episode.append_environment([BOS])
    episode.append_sampled(
        GenerateResult([5, 6, 7], [-1.0, -2.0, -3.0], [Span(1, "a", 0, 1), Span(2, "b", 1, 3)], "stop")
    )
    assert [(s.index, s.start, s.end, s.version, s.logprobs) for s in episode.segments] == [
        (0, 1, 2, 1, [-1.0]),
        (1, 2, 4, 2, [-2.0, -3.0]),
    ]


async def test_the_last_turn_is_max_turns() -> None:
    episode = await play(
        ScriptedEngine([3], [4]), Scripted(Observation(text=""), [said("<"), said("<")]), max_turns=2, max_tokens=1
    )
    assert (episode.end_reason, episode.turns) == ("max_turns", 2)


async def test_a_context_that_fills_up_while_the_model_speaks_is_overlong() -> None:
    engine = ScriptedEngine([3, 4])
    environment = Scripted(Observation(text="1 2"), [won(1.0)])
    episode = await play(engine, environment, context_length=5)
    assert episode.end_reason == "overlong"
    assert engine.requests[0].max_tokens == 2
    assert environment.heard == [], "a turn that was cut is not acted upon"
    assert episode.reward == 0.0
    assert len(episode.token_ids) == 5


async def test_a_turn_that_stops_exactly_at_the_end_of_the_context_counts() -> None:
    episode = await play(ScriptedEngine([3, EOS]), Scripted(Observation(text="1 2"), [won(1.0)]), context_length=5)
    assert (episode.end_reason, episode.reward) == ("done", 1.0)


async def test_an_observation_that_leaves_no_room_is_overlong() -> None:
    turns = [Turn(Observation(text="1 2 3 4 5"), reward=0.5)]
    episode = await play(ScriptedEngine([3]), Scripted(Observation(text=""), turns), context_length=7, max_tokens=1)
    assert (episode.end_reason, episode.reward) == ("overlong", 0.5)
    assert episode.token_ids == [BOS, 3]


async def test_a_prompt_longer_than_the_context_is_overlong_without_a_token() -> None:
    episode = await play(ScriptedEngine(), Scripted(Observation(text="1 2 3 4"), []), context_length=5)
    assert (episode.end_reason, episode.segments) == ("overlong", [])


async def never() -> Any:
    """An answer that does not come."""
    await asyncio.Event().wait()


async def broken() -> Any:
    """An environment's own failure."""
    raise KeyError("score")


async def own_timeout() -> Any:
    """A timeout of the environment's own making is an error, not ours."""
    raise TimeoutError("their database")


@pytest.mark.parametrize(
    ("first", "turns", "reason", "error"),
    [
        (never, [], "environment_timeout", "no answer within 0.05 s"),
        (Observation(text=""), [never], "environment_timeout", "no answer within 0.05 s"),
        (broken, [], "environment_error", "KeyError: 'score'"),
        (Observation(text=""), [said("<"), broken], "environment_error", "KeyError: 'score'"),
        (Observation(text=""), [own_timeout], "environment_error", "TimeoutError: their database"),
        (Observation(text=""), ["not a turn"], "environment_error", "answers with Turn, not 'not a turn' (str)"),
        (Observation(text=""), [won(float("nan"))], "environment_error", "a reward of nan"),
        (Observation(text=""), [won("much")], "environment_error", "real number, not 'much' (str)"),  # type: ignore[arg-type]
        (None, [], "environment_error", "answers with Observation, not None (NoneType)"),
        (Observation(text="zebra"), [], "environment_error", "zebra"),
        (Observation(token_ids=[3, 999]), [], "environment_error", "token_ids"),
        (Observation(token_ids=[]), [], "environment_error", "first observation is empty"),
        (Observation(messages=[{"role": "user", "content": "hi"}]), [], "environment_error", "cannot encode"),
    ],
)
async def test_what_an_environment_does_ends_the_episode_and_says_why(
    first: Any, turns: list[Any], reason: str, error: str
) -> None:
    environment = Scripted(first, turns)
    episode = await play(ScriptedEngine([3], [4], [5]), environment, step_timeout_seconds=0.05, max_tokens=1)
    assert episode.end_reason == reason
    assert error in episode.error
    assert environment.closed
    assert episode.finished


def _raising(kind: type[BaseException]) -> Any:
    async def raising() -> Any:
        raise kind("theirs")

    return raising


async def _cancels_its_task() -> Turn:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    return said("<")


async def _shrugs() -> Any:
    while True:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(3600)


@pytest.mark.parametrize("place", ["make", "reset", "step", "close"])
@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt, asyncio.CancelledError, GeneratorExit, BaseException])
async def test_no_exception_of_an_environment_is_the_workers(place: str, kind: type[BaseException]) -> None:
    class Raising(Scripted):
        async def close(self) -> None:
            if place == "close":
                await _raising(kind)()

    def make() -> Environment:
        if place == "make":
            raise kind("theirs")
        first = _raising(kind) if place == "reset" else Observation(text="")
        return Raising(first, [_raising(kind) if place == "step" else won(1.0)])

    episode = await play(ScriptedEngine([3]), make, max_tokens=1)
    if place == "close":
        assert (episode.end_reason, episode.reward) == ("done", 1.0)
    else:
        assert (episode.end_reason, episode.error) == ("environment_error", f"{kind.__name__}: theirs")


async def test_an_environment_that_cancels_its_own_task_ends_its_episode_only() -> None:
    class Waiting(ScriptedEngine):
        async def generate(self, request: GenerateRequest) -> GenerateResult:
            await asyncio.sleep(0)
            return await super().generate(request)

    gate = opened()
    turns = [_cancels_its_task, won(1.0)]
    episode = await play(Waiting([3], [4]), Scripted(Observation(text=""), turns), gate, max_tokens=1)
    assert (episode.end_reason, episode.error) == ("environment_error", f"CancelledError: {CANCELLED}")
    assert gate.inside == 0
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0
    await asyncio.sleep(0)


async def test_a_step_that_swallows_its_cancellation_frees_its_slot(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "GRACE_SECONDS", 0.05)
    environment = Scripted(Observation(text=""), [_shrugs])
    episode = await play(ScriptedEngine([3]), environment, step_timeout_seconds=0.05, max_tokens=1)
    assert episode.end_reason == "environment_timeout"
    assert episode.error.startswith("step: no answer within 0.05 s, and it went on")
    assert environment.closed


async def test_a_step_that_changes_what_it_was_given_changes_nothing() -> None:
    class Careless(Scripted):
        async def step(self, action: str, token_ids: list[int]) -> Turn:
            turn = await super().step(action, token_ids)
            token_ids.clear()
            return turn

    episode = await play(ScriptedEngine([7, EOS], [8]), Careless(Observation(text=""), [said("<"), won(1.0)]))
    assert episode.token_ids == [BOS, 7, EOS, LESS, 8]


async def test_an_answer_that_fights_back_ends_its_episode() -> None:
    class Trap(Turn):
        @property
        def reward(self) -> float:  # type: ignore[override]
            raise SystemExit("trap")

    trap = Trap(Observation(text=""))
    episode = await play(ScriptedEngine([3]), Scripted(Observation(text=""), [trap]), max_tokens=1)
    assert (episode.end_reason, episode.error, episode.reward) == ("environment_error", "SystemExit: trap", 0.0)


class Slow(Exception):
    """Whatever looks at it waits."""

    def item(self) -> float:
        time.sleep(3600)
        return 1.0

    def __repr__(self) -> str:
        return str(self.item())

    __str__ = __repr__

    def __index__(self) -> int:
        return int(self.item())


async def _raises_slow() -> Turn:
    raise Slow


@pytest.fixture
def watched() -> Iterator[Tally]:
    """Its holds are watched."""
    tally = Tally()
    watch = HoldWatch(tally.holds, 0.2)
    watch.start()
    yield tally
    watch.stop()


@pytest.mark.parametrize(
    ("first", "turn", "reason"),
    [
        ("", won(Slow()), "environment_timeout"),  # type: ignore[arg-type]
        ("", Turn(Observation(text=""), done=Slow()), "environment_timeout"),  # type: ignore[arg-type]
        ("", Slow(), "environment_timeout"),
        ([Slow()], None, "environment_timeout"),
        ("", _raises_slow, "environment_error"),
    ],
    ids=["reward", "done", "repr", "token id", "text of an error"],
)
async def test_an_answer_that_does_not_let_itself_be_looked_at_ends_its_episode(
    first: Any, turn: Any, reason: str, watched: Tally
) -> None:
    seen = Observation(text=first) if first == "" else Observation(token_ids=first)
    episode = await play(ScriptedEngine([3]), Scripted(seen, [turn]), max_tokens=1, tally=watched)
    assert episode.end_reason == reason
    assert "held the event loop for" in episode.error
    assert "test_agent.py" in episode.error
    assert watched.holds.since == 0.0


async def test_an_answer_that_is_looked_at_for_too_long_is_late_though_it_is_a_number() -> None:
    class Late(Turn):
        @property
        def reward(self) -> float:  # type: ignore[override]
            time.sleep(0.1)
            return 1.0

    turns = [Late(Observation(text=""))]
    episode = await play(
        ScriptedEngine([3]), Scripted(Observation(text=""), turns), max_tokens=1, step_timeout_seconds=0.05
    )
    assert (episode.end_reason, episode.reward, episode.turns) == ("environment_timeout", 0.0, 0)
    assert "0.05 s are allowed" in episode.error


async def test_a_huge_error_full_of_escapes_is_a_short_trace_of_plain_text(caplog: pytest.LogCaptureFixture) -> None:
    async def loud() -> Turn:
        raise ValueError("\x1b[2J" + "x" * 10_000_000 + "\x1b[0m")

    await play(ScriptedEngine([3]), Scripted(Observation(text=""), [loud]), max_tokens=1)
    assert "in loud" in caplog.text
    assert r"ValueError: \x1b[2Jxxx" in caplog.text
    assert "\x1b" not in caplog.text
    assert len(caplog.text) < 10_000


async def test_a_reward_beyond_the_bound_is_not_counted() -> None:
    turns = [Turn(Observation(text="<"), reward=3.0), Turn(Observation(text="<"), reward=3.0)]
    episode = await play(
        ScriptedEngine([3], [4]), Scripted(Observation(text=""), turns), max_tokens=1, reward_bound=5.0
    )
    assert (episode.end_reason, episode.reward) == ("environment_error", 3.0)
    assert "add up to 6; their sum is a finite number from -5 to 5 (spec.reward.bound)" in episode.error


async def test_a_text_that_cannot_fit_is_overlong_without_being_encoded() -> None:
    turns = [Turn(Observation(text="< " * 5_000_000), reward=0.5)]
    episode = await play(ScriptedEngine([3]), Scripted(Observation(text=""), turns), max_tokens=1)
    assert (episode.end_reason, episode.reward) == ("overlong", 0.5)


async def test_an_environment_that_cannot_be_made_ends_the_episode() -> None:
    def make() -> Environment:
        raise OSError("no sandbox left")

    episode = await play(ScriptedEngine(), make)
    assert (episode.end_reason, episode.error) == ("environment_error", "OSError: no sandbox left")


async def test_a_failing_close_does_not_undo_the_episode(caplog: pytest.LogCaptureFixture) -> None:
    class Unclosable(Scripted):
        async def close(self) -> None:
            raise OSError("socket")

    episode = await play(ScriptedEngine([3]), Unclosable(Observation(text=""), [won(1.0)]), max_tokens=1)
    assert (episode.end_reason, episode.reward) == ("done", 1.0)
    assert "failed to close" in caplog.text


async def test_an_engines_failure_is_not_the_episodes() -> None:
    environment = Scripted(Observation(text=""), [])
    with pytest.raises(EngineError):
        await play(ScriptedEngine(), environment)
    assert environment.closed


async def test_resets_and_turns_wait_at_a_closed_gate_and_steps_go_on() -> None:
    gate = Gate()
    engine = ScriptedEngine([3], [4])
    stepped = asyncio.Event()

    async def slowly() -> Turn:
        await stepped.wait()
        return said("<")

    environment = Scripted(Observation(text=""), [slowly, won(1.0)])
    task = asyncio.create_task(play(engine, environment, gate, max_tokens=1))
    await settle()
    assert engine.requests == []
    gate.open()
    await until(lambda: len(environment.heard) == 1)
    gate.close()
    await gate.drained()
    stepped.set()
    await settle()
    assert len(engine.requests) == 1, "the step's result is kept, the next turn waits"
    gate.open()
    episode = await task
    assert episode.token_ids == [BOS, 3, LESS, 4]
    assert episode.paused_seconds > 0


async def settle() -> None:
    """Let everything run that can."""
    for _ in range(20):
        await asyncio.sleep(0)


async def until(condition: Callable[[], bool]) -> None:
    """Wait for something that happens soon."""
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110 - the scripted objects are plain data
            await asyncio.sleep(0.001)


async def test_with_the_real_engine_and_pauses_every_episode_is_whole(tmp_path: Path) -> None:
    spec = job_spec()
    engine = await running_engine(spec, tmp_path, model_of(spec, 1))
    gate = opened()
    agent = Agent(
        AgentSettings.of(spec),
        engine,
        build_tokenizer(spec),
        lambda: Scripted(Observation(text=""), [said("<")] * 5 + [won(1.0)]),
        gate,
        tally := Tally(),
    )
    episodes = [Episode(lease(number)) for number in range(20)]
    tasks = [asyncio.create_task(agent.play(episode)) for episode in episodes]
    while not all(task.done() for task in tasks):
        await asyncio.sleep(0.002)
        gate.close()
        await engine.pause()
        await gate.drained()
        frozen = [len(episode.segments) for episode in episodes]
        await settle()
        assert frozen == [len(episode.segments) for episode in episodes]
        await engine.resume()
        gate.open()
    await engine.close()
    for task, episode in zip(tasks, episodes, strict=True):
        task.result()
        sampled = [p for s in episode.segments for p in range(s.start, s.end)]
        assert len(set(sampled)) == len(sampled)
        assert all(len(s.logprobs) == s.tokens for s in episode.segments)
        assert episode.end_reason in ("done", "overlong")
    assert tally.sampled_tokens == sum(episode.sampled_tokens for episode in episodes)

"""From manifest to class: the built-in names, your own class, and clear errors for what is not there."""

import functools
import importlib
import sys
from pathlib import Path
from typing import Any

import pytest

from asyncppo.api.training import EnvironmentSpec
from asyncppo.errors import UserError
from asyncppo.programs import IMPORTS_VARIABLE
from asyncppo_runtime.environments.guess_number import GuessNumber
from asyncppo_runtime.environments.registry import environment_class, environment_factory


def spec(**fields: Any) -> EnvironmentSpec:
    return EnvironmentSpec.model_validate(fields)


class Halfway:
    """Lacks step and close."""

    async def reset(self, task: object) -> None: ...


class Choosy(Halfway):
    """Refuses what it is given."""

    def __init__(self, **parameters: Any) -> None:
        raise ValueError(f"cannot do {sorted(parameters)}")

    async def step(self, action: str, token_ids: list[int]) -> None: ...
    async def close(self) -> None: ...


def test_built_in_names() -> None:
    assert environment_class(spec(type="GuessNumber")) is GuessNumber
    first, second = (environment_factory(spec(type="GuessNumber", parameters={"numbers": 4}))() for _ in range(2))
    assert first is not second


def test_a_class_of_ones_own() -> None:
    entrypoint = "asyncppo_runtime.environments.guess_number:GuessNumber"
    assert environment_class(spec(type="Custom", entrypoint=entrypoint)) is GuessNumber


@pytest.mark.parametrize(
    ("entrypoint", "says"),
    [
        (None, "needs module:Class"),
        ("no.such.module:Thing", "cannot be imported"),
        ("asyncppo_runtime.environments.guess_number:Nothing", "has no class Nothing"),
        ("asyncppo_runtime.environments.guess_number:reward_at", "has no class reward_at"),
        (f"{__name__}:Halfway", "lacks the method(s) step, close"),
    ],
)
def test_an_entrypoint_that_names_nothing_usable(entrypoint: str | None, says: str) -> None:
    with pytest.raises(UserError, match="entrypoint") as caught:
        environment_class(spec(type="Custom", entrypoint=entrypoint))
    assert says in str(caught.value)


def test_a_module_that_fails_at_import_is_bad_input_with_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken_environment.py").write_text("x = 1\nraise RuntimeError('no licence')\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UserError, match=r"RuntimeError: no licence, at .*broken_environment\.py:2"):
        environment_class(spec(type="Custom", entrypoint="broken_environment:Thing"))


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"type": "GuessNumber", "parameters": {"colour": 1}}, "colour"),
        ({"type": "GuessNumber", "parameters": {"numbers": 0}}, "numbers must be"),
        ({"type": "Custom", "entrypoint": f"{__name__}:Choosy", "parameters": {"a": 1}}, "cannot do"),
    ],
)
def test_parameters_the_class_refuses_show_at_start(fields: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError, match=r"spec\.environment\.parameters") as caught:
        environment_factory(spec(**fields))
    assert says in str(caught.value)


class Whole:
    """All that is needed."""

    made = 0

    def __init__(self, raises: str = "") -> None:
        Whole.made += 1
        if raises == "missing file":
            Path("/nowhere/questions.jsonl").read_text()
        if raises == "exit":
            sys.exit(2)
        if raises == "interrupt":
            raise KeyboardInterrupt

    async def reset(self, task: object) -> None: ...
    async def step(self, action: str, token_ids: list[int]) -> None: ...
    async def close(self) -> None: ...


def _logged(method: Any) -> Any:
    @functools.wraps(method)
    def wrapper(*arguments: Any) -> Any:
        return method(*arguments)

    return wrapper


class Callable:
    async def __call__(self, *arguments: object) -> None: ...


class Plain(Whole):
    """reset is a plain function, step an asynchronous generator."""

    def reset(self, task: object) -> None: ...  # type: ignore[override]
    async def step(self, action: str, token_ids: list[int]) -> Any:  # type: ignore[override]
        yield 1


class Decorated(Whole):
    """Coroutines all the same."""

    reset = _logged(Whole.reset)
    step = Callable()  # type: ignore[assignment]
    close = staticmethod(Whole.close)  # type: ignore[assignment]


def test_methods_that_are_no_coroutines_are_refused_by_name() -> None:
    with pytest.raises(UserError, match=r"Plain must define reset, step with `async def`"):
        environment_class(spec(type="Custom", entrypoint=f"{__name__}:Plain"))


def test_decorated_coroutines_are_taken() -> None:
    assert environment_class(spec(type="Custom", entrypoint=f"{__name__}:Decorated")) is Decorated


@pytest.mark.parametrize(
    ("raises", "says"),
    [("missing file", "FileNotFoundError"), ("exit", "SystemExit: 2"), ("interrupt", "KeyboardInterrupt")],
)
def test_whatever_the_constructor_raises_is_bad_input(raises: str, says: str) -> None:
    with pytest.raises(UserError, match=r"spec\.environment: Whole cannot be made .*, at .*\.py:\d+") as caught:
        environment_factory(spec(type="Custom", entrypoint=f"{__name__}:Whole", parameters={"raises": raises}))
    assert says in str(caught.value)


def test_the_first_episode_gets_the_environment_that_was_tried() -> None:
    before = Whole.made
    make = environment_factory(spec(type="Custom", entrypoint=f"{__name__}:Whole"))
    assert Whole.made == before + 1
    first, second = make(), make()
    assert (Whole.made, first is second) == (before + 2, False)


def test_a_module_that_exits_at_import_is_bad_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "exiting_environment.py").write_text("import sys\nsys.exit(0)\n")
    monkeypatch.setenv(IMPORTS_VARIABLE, str(tmp_path))
    monkeypatch.setattr(sys, "path", list(sys.path))
    with pytest.raises(UserError, match=r"SystemExit: 0, at .*exiting_environment\.py:2"):
        environment_class(spec(type="Custom", entrypoint="exiting_environment:Thing"))


def test_a_users_folder_comes_after_everything_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "plain_environment.py").write_text(f"from {__name__} import Whole as World\n")
    (tmp_path / "statistics.py").write_text("raise RuntimeError('not this one')\n")
    monkeypatch.setenv(IMPORTS_VARIABLE, str(tmp_path))
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "statistics", raising=False)
    sys.modules.setdefault(__name__, sys.modules[Whole.__module__])
    environment_class(spec(type="Custom", entrypoint="plain_environment:World"))
    assert str(tmp_path) in sys.path[-2:]
    assert importlib.import_module("statistics").mean([1, 3]) == 2

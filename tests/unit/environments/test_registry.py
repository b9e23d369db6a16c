"""From manifest to class: the built-in names, your own class, and clear errors for what is not there."""

from pathlib import Path
from typing import Any

import pytest

from asyncppo.api.training import EnvironmentSpec
from asyncppo.errors import UserError
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

"""The example of docs/environments.md is a working environment."""

import re
from pathlib import Path
from typing import Any

from asyncppo.wire.experience import Task

PAGE = Path(__file__).parents[3] / "docs" / "environments.md"


async def test_the_example_plays() -> None:
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    names: dict[str, Any] = {}
    exec(code, names)
    environment = names["Countdown"](start=1)
    assert names["Countdown"].symbols({"start": 1}) == ["0", "1", "go", "no"]
    assert (await environment.reset(Task(0, 1))).text == "go"
    assert not (await environment.step("1", [])).done
    turn = await environment.step("0", [])
    assert (turn.done, turn.reward) == (True, 0.25)
    await environment.close()

"""The gate: nobody begins while it is closed, and a pause is over only when everybody inside has left."""

import asyncio

from hypothesis import given, settings
from hypothesis import strategies as st

from asyncppo_runtime.rollout.gate import Gate


@given(st.lists(st.sampled_from(["open", "close", "visitor", "run"]), max_size=40))
@settings(max_examples=100)
def test_nobody_is_let_in_while_closed_and_drained_means_empty(script: list[str]) -> None:
    asyncio.run(visits(script))


async def visits(script: list[str]) -> None:
    gate, entered, tasks = Gate(), [0], []

    async def visit() -> None:
        await gate.enter()
        assert gate.is_open
        entered[0] += 1
        try:
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        finally:
            gate.leave()

    for action in script:
        if action == "open":
            gate.open()
        elif action == "visitor":
            tasks.append(asyncio.create_task(visit()))
        elif action == "run":
            await asyncio.sleep(0)
        else:
            gate.close()
            await gate.drained()
            assert gate.inside == 0
            before = entered[0]
            for _ in range(5):
                await asyncio.sleep(0)
            assert entered[0] == before
    gate.open()
    await asyncio.gather(*tasks)
    assert entered[0] == len(tasks)
    await gate.drained()


async def test_a_visitor_cancelled_at_the_gate_was_never_inside() -> None:
    gate = Gate()
    task = asyncio.create_task(gate.enter())
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await gate.drained()
    assert gate.inside == 0

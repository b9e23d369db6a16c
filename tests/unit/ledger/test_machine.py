"""The real ledger against the model, under orders of calls that Hypothesis thinks of and under long seeded walks, with crashes and
failing commits in between. Hypothesis finds short counterexamples; the walks reach deep states."""

from collections.abc import Callable
from random import Random

import pytest
from hypothesis import settings
from tests.unit.ledger.comparison import compare
from tests.unit.ledger.coordination import LedgerMachine

from asyncppo_runtime.ledger.records import SealRule

LedgerMachine.TestCase.settings = settings(max_examples=10, stateful_step_count=30)
TestLedgerMachine = LedgerMachine.TestCase

WALKS = 3
STEPS = 80


def step(machine: LedgerMachine, chance: Random) -> None:
    """One call, drawn so that work gets done and everything else happens too."""
    fails = chance.random() < 0.2
    name, owner = chance.choice(["r0", "r1"]), chance.choice(["a", "b"])
    epoch = machine.model.epoch
    acts: list[tuple[int, Callable[[], object]]] = [
        (8, lambda: machine.work(chance, chance.random() < 0.7, chance.choice([0, 1, 1, 2]))),
        (6, lambda: machine.update(chance, fails)),
        (
            3,
            lambda: machine.deliver_something(
                chance, chance.random() < 0.4, chance.choice(["done", "environment_error"]), fails
            ),
        ),
        (1, lambda: machine.sent and machine.deliver_again(chance, fails)),
        (1, lambda: machine.time_passes(chance, fails)),
        (1, lambda: machine.member_fails(name, chance.choice(["restart", "fence"]), fails)),
        (
            3,
            lambda: machine.lease_fails(
                chance, chance.choice(["give_back", "give_up", "wrong_hash", "conflict"]), fails
            ),
        ),
        (1, lambda: machine.score_some(chance.choice([1, 100]), fails)),
        (1, lambda: machine.discard_a_segment(fails)),
        (1, lambda: machine.begin(owner, chance.random() < 0.3, fails)),
        (2, lambda: epoch.state == "open" and machine.seal(chance.random() < 0.5, {name}, fails)),
        (1, lambda: epoch.state == "open" and machine.roll_back(fails)),
        (1, lambda: machine.publish(chance, fails)),
        (1, lambda: machine.finish(fails)),
        (2, lambda: machine.checkpoint(fails)),
        (1, lambda: machine.model.checkpoints and machine.restore(chance, fails)),
        (1, lambda: machine.prune(chance.choice([0, 1, 2]), fails)),
        (1, lambda: machine.crash()),
    ]
    (act,) = chance.choices([act for _, act in acts], [weight for weight, _ in acts])
    act()
    compare(machine.ledger, machine.model)


@pytest.mark.parametrize("seal_rule", list(SealRule))
@pytest.mark.parametrize("seed", range(WALKS))
def test_walks(seal_rule: SealRule, seed: int) -> None:
    machine, chance = LedgerMachine(), Random(f"{seal_rule} {seed}")
    machine.start(seal_rule)
    try:
        for _ in range(STEPS):
            step(machine, chance)
    finally:
        machine.teardown()
    assert len(machine.model.versions) > 3
    assert machine.model.totals().received > 0

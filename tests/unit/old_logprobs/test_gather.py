"""The multi-version gather against brute force, and what must not matter to it."""

import dataclasses

import pytest
import torch
from tests.unit.algorithm.builders import random_batch, trajectory
from tests.unit.old_logprobs.builders import FORWARD, Versions

from asyncppo_runtime.algorithm.batch import build_batch, check_ready
from asyncppo_runtime.old_logprobs.gather import gather_versions
from asyncppo_runtime.old_logprobs.interface import ForwardSettings


def five_versions(dtype=torch.float64):
    return build_batch(
        [trajectory([3, 3, 4, 4, 6], seed=1), trajectory([2, 3, 4, 5, 6], seed=2, gap=0), trajectory([6], seed=3)],
        6,
        dtype,
    )


@pytest.mark.parametrize("tied", [False, True])
def test_every_token_gets_its_own_versions_value(tied):
    versions = Versions.of([2, 3, 4, 5, 6], tied=tied)
    batch = five_versions()
    gathered = gather_versions(batch, versions.hold, FORWARD).batch
    expected = versions.brute_force(batch)
    torch.testing.assert_close(gathered.old_logprobs, expected, rtol=0, atol=1e-9)
    check_ready(gathered, exact=True)
    others = versions.brute_force(dataclasses.replace(batch, policy_version=torch.where(batch.loss_mask, 6, -1)))
    old_tokens = batch.loss_mask & (batch.policy_version < 6)
    assert ((gathered.old_logprobs - others)[old_tokens].abs() > 1e-6).all()  # the versions really differ


def test_random_batches_and_budgets():
    versions = Versions.of(list(range(7)))
    for seed in range(4):
        batch = random_batch(seed)
        expected = versions.brute_force(batch)
        for budget in (1, 40, 10_000):
            found = gather_versions(batch, versions.hold, ForwardSettings(FORWARD.temperature, budget)).batch
            torch.testing.assert_close(found.old_logprobs, expected, rtol=0, atol=1e-9)


def test_float32_stays_within_a_multiple_of_the_measured_floor():
    """The floor is what two full float32 forwards of different batch shape differ by; the prefix forward may take 30 times that."""
    versions = Versions.of([2, 3, 4, 5, 6], torch.float32)
    batch = five_versions(torch.float32)
    expected = versions.brute_force(batch)
    exact = Versions.of([2, 3, 4, 5, 6])
    floor = max((versions.brute_force(batch) - exact.brute_force(batch)).abs().max().item(), 1e-7)
    found = gather_versions(batch, versions.hold, FORWARD).batch
    assert (found.old_logprobs.double() - expected).abs().max().item() <= 30 * floor


def test_the_cost_is_the_sum_of_prefixes_to_the_last_own_token():
    batch = five_versions()
    cost = gather_versions(batch, Versions.of([2, 3, 4, 5, 6]).hold, FORWARD).forward_tokens
    expected = {}
    for version in batch.versions():
        own = batch.loss_mask & (batch.policy_version == version)
        expected[version] = sum(int(torch.nonzero(row).max()) + 1 for row in own if row.any())
    assert cost == expected


def test_scored_tokens_are_left_alone_and_cost_nothing():
    versions = Versions.of([2, 3, 4, 5, 6])
    batch = five_versions()
    whole = gather_versions(batch, versions.hold, FORWARD).batch
    known = batch.policy_version == 3
    partly = batch.with_old(
        torch.where(known, -7.0, torch.nan).to(torch.float64), torch.where(known, batch.policy_version, -1)
    )
    gathered = gather_versions(partly, versions.hold, FORWARD)
    assert 3 not in gathered.forward_tokens
    assert (gathered.batch.old_logprobs[known] == -7.0).all()
    rest = batch.loss_mask & ~known
    torch.testing.assert_close(gathered.batch.old_logprobs[rest], whole.old_logprobs[rest], rtol=0, atol=1e-12)


def test_what_the_lender_holds_is_recorded_not_the_tag():
    versions = Versions.of([2, 3, 4, 5, 6])
    gathered = gather_versions(five_versions(), lambda _: versions.hold(4), FORWARD).batch
    assert set(gathered.old_version_used[gathered.loss_mask].tolist()) == {4}

"""What figures mean, in words, the same wherever they are said: screen, log, summary, conditions, kubectl. Owns those sentences.

Does not own the figures (`measures.py`) nor where they are shown.
"""

from asyncppo.report.measures import Failures, Learning, LedgerTotals
from asyncppo.report.wording import percent

ADVICE = {
    "environment_error": "mend the environment",
    "environment_timeout": "make the environment faster, or raise environment.stepTimeoutSeconds",
    "reward_out_of_bounds": "scale the environment's rewards, or raise reward.bound",
    "overlong": "shorten what the environment says, or raise sampling.contextLength",
    "empty": "shorten the first observation, or raise sampling.contextLength",
}
OTHERWISE = "see the rollouts' logs"


def discards(ledger: LedgerTotals) -> str:
    """The share of the received trajectories that was discarded, with the commonest reason; "0%" without any."""
    share = percent(ledger.discarded_share)
    return f"{share} ({ledger.commonest_discard})" if ledger.discarded else share


def failing(failures: Failures) -> str:
    """That nothing good comes in, and why; empty while there is no run of failures."""
    if not failures.in_a_row:
        return ""
    said = f": {failures.example}" if failures.example else ""
    if failures.in_a_row == 1:
        return f"the last trajectory was discarded as {failures.reason}{said}"
    most = "all" if failures.count == failures.in_a_row else f"{failures.count:,}"
    return f"the last {failures.in_a_row:,} trajectories were discarded, {most} as {failures.reason}{said}"


def hopeless(failures: Failures, enough: int) -> str:
    """Why the job ends, and what to do about the commonest failure. enough: the length that a run of them had to have, which is more than
    environment.failAfter where many are under way at once."""
    more = f", here {enough}: twice as many as were under way" if enough > failures.limit else ""
    return (
        f"{failing(failures)}. Not one good trajectory came between (environment.failAfter {failures.limit}{more}): "
        f"{ADVICE.get(failures.reason, OTHERWISE)}, then go on; what was trained is kept"
    )


def unlearnt(learning: Learning) -> str:
    """That a run learnt nothing from its rewards; empty when it did, or has no update yet."""
    if not learning.updates or learning.idle_updates < learning.updates:
        return ""
    whole = "group" if learning.groups == 1 else f"of the {learning.groups:,} groups"
    return (
        f"nothing was learnt from rewards: every advantage of every update was 0, the rewards of each {whole} were equal; "
        "look at the reward and at how hard the tasks are"
    )

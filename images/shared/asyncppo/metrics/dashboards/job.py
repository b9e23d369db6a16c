"""The dashboard *Job*: is it learning, are its old log-probs exact, how stale is its data, where does the time go.

Owns what is shown. `python -m asyncppo.metrics.dashboards.job --write|--check` makes the chart's file.
"""

from asyncppo.api.generated import generated_file_main
from asyncppo.api.status import Phase
from asyncppo.metrics import learner, old_logit, operator, rollout
from asyncppo.metrics.dashboards.panels import (
    Look,
    Panel,
    Query,
    Row,
    dashboard,
    mean,
    or_zero,
    quantile,
    series,
    variable,
)

PATH = "charts/asyncppo/files/dashboards/job.json"
JOB = 'asyncppo_namespace="$namespace", asyncppo_job="$job"'
WINDOW = "$__rate_interval"
GOOD_OR_BAD = ((None, "red"), (1.0, "green"))
NONE_OR_BAD = ((None, "green"), (1.0, "red"))
GOOD, WAITING, BAD, NEUTRAL = "green", "orange", "red", "text"
PHASES = {phase.value: Look(color=GOOD if phase in (Phase.RUNNING, Phase.COMPLETE) else WAITING) for phase in Phase} | {
    phase.value: Look(color=BAD) for phase in (Phase.FAILED, Phase.INVALID)
}


def _condition(true: str, false: str) -> Look:
    return Look(values={"1": ("True", true), "0": ("False", false), "-1": ("Unknown", WAITING)})


# Some say that something is wrong when False; some only that it is not so now; some where the job is.
CONDITIONS = {
    **{kind: _condition(GOOD, BAD) for kind in ("Ready", "Accepted", "Reconciled", "Exact", "LedgerBalanced")},
    **{
        kind: _condition(GOOD, WAITING)
        for kind in ("LearnerReady", "RolloutsReady", "OldLogitsReady", "EnvironmentHealthy", "SyncHealthy")
    },
    "Suspended": _condition(WAITING, NEUTRAL),
    "Complete": _condition(GOOD, NEUTRAL),
    "Failed": _condition(BAD, NEUTRAL),
}
ONLY_DEDICATED = "only with strategy Dedicated"
ONLY_AUDITED = "only where an approximate strategy is audited"
ONLY_GAE = "only with advantage GAE"


def _rate(metric: str, by: str = "") -> str:
    return f"sum by ({by}) (rate({metric}[{WINDOW}]))" if by else f"sum(rate({metric}[{WINDOW}]))"


OVERVIEW = Row(
    "Is it well?",
    [
        Panel(
            "Phase",
            (Query(f"{series(operator.JOB_PHASE, JOB)} == 1", "{{phase}}"),),
            kind="stat",
            width=4,
            height=4,
            shows="name",
            overrides=PHASES,
        ),
        Panel(
            "Progress",
            (Query(series(operator.JOB_PROGRESS, JOB)),),
            kind="stat",
            unit="percentunit",
            width=4,
            height=4,
        ),
        Panel("Policy version", (Query(series(operator.JOB_VERSION, JOB)),), kind="stat", width=4, height=4),
        Panel("Newest reward", (Query(series(operator.JOB_REWARD, JOB)),), kind="stat", width=4, height=4, decimals=3),
        Panel(
            "Exact coverage",
            (Query(series(operator.JOB_EXACT_COVERAGE, JOB)),),
            "Share of loss tokens whose old log-prob was verified to be of the version that sampled them.",
            kind="stat",
            unit="percentunit",
            width=4,
            height=4,
            thresholds=GOOD_OR_BAD,
        ),
        Panel(
            "Ledger",
            (Query(series(operator.JOB_LEDGER_BALANCED, JOB)),),
            "Whether every lease and every token is accounted for.",
            kind="stat",
            width=4,
            height=4,
            mappings={"0": "imbalanced", "1": "balanced"},
            thresholds=GOOD_OR_BAD,
        ),
        Panel(
            "Rollouts",
            (Query(series(operator.JOB_ROLLOUTS, JOB), "{{state}}"),),
            kind="stat",
            width=4,
            height=4,
        ),
        Panel(
            "Exactness violations",
            (Query(series(operator.JOB_VIOLATIONS, JOB)),),
            kind="stat",
            width=4,
            height=4,
            thresholds=NONE_OR_BAD,
        ),
        Panel(
            "Conditions",
            (Query(series(operator.JOB_CONDITION, JOB), "{{condition}}"),),
            kind="stat",
            width=16,
            height=4,
            shows="value_and_name",
            overrides=CONDITIONS,
        ),
    ],
)

LEARNING = Row(
    "Is it learning?",
    [
        Panel("Reward", (Query(series(learner.REWARD, JOB), "mean"), Query(series(learner.REWARD_STD, JOB), "std"))),
        Panel(
            "Updates",
            (Query(series(learner.UPDATES, JOB), "done"), Query(series(learner.UPDATES_PLANNED, JOB), "planned")),
            minimum=0,
        ),
        Panel(
            "Critic",
            (
                Query(series(learner.VALUE_LOSS, JOB), "loss"),
                Query(series(learner.EXPLAINED_VARIANCE, JOB), "explained variance"),
            ),
            absent=ONLY_GAE,
        ),
        Panel(
            "Entropy and reference KL",
            (Query(series(learner.ENTROPY, JOB), "entropy"), Query(series(learner.KL, JOB), "KL")),
            unit="none",
        ),
        Panel("Loss", (Query(series(learner.LOSS, JOB), "loss"),)),
        Panel("Gradient norm", (Query(series(learner.GRADIENT_NORM, JOB), "norm"),)),
        Panel("Learning rate", (Query(series(learner.LEARNING_RATE, JOB), "rate"),), unit="sci"),
        Panel(
            "Clipped, masked, effective",
            (
                Query(series(learner.CLIPPED, JOB), "clipped"),
                Query(series(learner.MASKED, JOB), "masked"),
                Query(series(learner.EFFECTIVE_SAMPLE_SIZE, JOB), "effective sample"),
            ),
            unit="percentunit",
            minimum=0,
        ),
    ],
)

STALENESS = Row(
    "How stale is what it trains on?",
    [
        Panel(
            "Staleness of trained tokens",
            (
                Query(mean(operator.JOB_STALENESS, JOB, WINDOW), "mean"),
                Query(series(operator.JOB_STALENESS_MAX, JOB), "largest ever"),
                Query(series(operator.JOB_STALENESS_BOUND, JOB), "bound"),
            ),
            "In versions. The bound is a hard guarantee.",
            minimum=0,
        ),
        Panel(
            "Where it comes from",
            (
                Query(mean(learner.TOKEN_STALENESS_IN_FLIGHT, JOB, WINDOW), "while produced"),
                Query(mean(learner.TOKEN_STALENESS_QUEUED, JOB, WINDOW), "while waiting"),
            ),
            "Means; together they are the staleness of a token.",
            minimum=0,
            stacked=True,
        ),
        Panel(
            "Staleness of trained tokens, distribution",
            (Query(f"sum by (le) (increase({series(learner.TOKEN_STALENESS, JOB, 'bucket')}[{WINDOW}]))", "{{le}}"),),
            kind="heatmap",
        ),
        Panel(
            "Oldest token of each trajectory",
            (
                Query(quantile(0.5, learner.TRAJECTORY_STALENESS, JOB, WINDOW), "p50"),
                Query(quantile(0.95, learner.TRAJECTORY_STALENESS, JOB, WINDOW), "p95"),
            ),
            minimum=0,
        ),
        Panel(
            "Version skew",
            (
                Query(series(operator.JOB_SKEW, JOB), "operator"),
                Query(series(learner.MEMBER_SKEW, JOB), "learner"),
            ),
            "Learner's version minus the oldest version of a ready rollout.",
            minimum=0,
        ),
        Panel(
            "Versions",
            (
                Query(series(learner.POLICY_VERSION, JOB), "learner"),
                Query(series(rollout.POLICY_VERSION, JOB), "{{pod}}"),
            ),
        ),
    ],
)

EXACTNESS = Row(
    "Is the correction right?",
    [
        Panel(
            "Discrepancy by staleness",
            (
                Query(
                    f"{_rate(series(learner.DISCREPANCY_ABS, JOB), 'staleness')}"
                    f" / {_rate(series(learner.DISCREPANCY_TOKENS, JOB), 'staleness')}",
                    "staleness {{staleness}}",
                ),
            ),
            "Mean |old - behavior| log-prob. With exact old log-probs it does not rise with staleness.",
            unit="sci",
            width=12,
        ),
        Panel("Slope of it", (Query(series(learner.DISCREPANCY_SLOPE, JOB), "per version"),), unit="sci", width=6),
        Panel(
            "Discrepancy",
            (
                Query(series(learner.DISCREPANCY_K3, JOB), "k3"),
                Query(series(learner.DISCREPANCY_MAX, JOB), "largest"),
            ),
            unit="sci",
            width=6,
        ),
        Panel(
            "What became of tokens",
            (Query(_rate(series(learner.QUADRANT_TOKENS, JOB), "quadrant"), "{{quadrant}}"),),
            stacked=True,
        ),
        Panel(
            "Staleness ratio",
            (
                Query(series(learner.STALENESS_RATIO, JOB), "mean"),
                Query(series(learner.STALENESS_RATIO_MAX, JOB), "largest"),
            ),
        ),
        Panel(
            "Exact coverage, fallbacks",
            (
                Query(series(learner.EXACT_COVERAGE, JOB), "coverage"),
                Query(series(learner.FALLBACKS, JOB), "tokens that fell back"),
                Query(series(learner.EXACTNESS_VIOLATIONS, JOB), "violations"),
            ),
        ),
        Panel(
            "Engine against trainer at load",
            (Query(series(rollout.CANARY_ERROR, JOB), "{{pod}}"),),
            "Largest |engine - trainer| log-probability of the newest canary, which each rollout checks before it samples.",
            unit="sci",
        ),
        Panel(
            "Audit: what the approximation decided",
            (Query(_rate(series(learner.AUDITED, JOB), "decision"), "{{decision}}"),),
            "Tokens also scored exactly. A false mask or clip is one that the exact old log-prob would not have made.",
            unit="ops",
            absent=ONLY_AUDITED,
        ),
        Panel(
            "Audit: error",
            (Query(series(learner.AUDIT_ERROR, JOB), "nats"),),
            "Mean |old - exact| log-probability of audited tokens.",
            unit="sci",
            absent=ONLY_AUDITED,
        ),
    ],
)

OLD_LOGITS = Row(
    "Do the old-logit workers keep up?",
    [
        Panel(
            "Segments that wait",
            (
                Query(series(learner.SCORING_QUEUE, JOB), "at the learner"),
                Query(series(old_logit.QUEUE, JOB), "{{pod}}"),
            ),
            absent=ONLY_DEDICATED,
        ),
        Panel(
            "Scored",
            (
                Query(_rate(series(old_logit.SCORED_TOKENS, JOB)), "tokens"),
                Query(_rate(series(old_logit.SCORED_SEGMENTS, JOB)), "segments"),
            ),
            unit="ops",
            absent=ONLY_DEDICATED,
        ),
        Panel(
            "Refused, workers lost",
            (
                Query(
                    or_zero(f"sum by (reason) (rate({series(old_logit.REFUSED_SEGMENTS, JOB)}[{WINDOW}]))"),
                    "refused {{reason}}",
                ),
                Query(series(learner.SCORER_LOST, JOB), "no worker can be counted on"),
            ),
            absent=ONLY_DEDICATED,
        ),
        Panel(
            "Time of a forward and of a load, p95",
            (
                Query(quantile(0.95, old_logit.SCORE_SECONDS, JOB, WINDOW), "forward"),
                Query(quantile(0.95, old_logit.LOAD_SECONDS, JOB, WINDOW), "load"),
            ),
            unit="s",
            absent=ONLY_DEDICATED,
        ),
        Panel(
            "Versions held",
            (
                Query(series(old_logit.LOADED_VERSIONS, JOB), "held by {{pod}}"),
                Query(series(old_logit.NEWEST_VERSION, JOB), "newest of {{pod}}"),
            ),
            absent=ONLY_DEDICATED,
        ),
        Panel(
            "Weights loaded and pulled by workers",
            (
                Query(_rate(series(old_logit.LOADS, JOB), "result"), "{{result}}"),
                Query(_rate(series(old_logit.PULLED_BYTES, JOB)), "bytes"),
            ),
            unit="ops",
            absent=ONLY_DEDICATED,
        ),
    ],
)

TIME = Row(
    "Where does the time go?",
    [
        Panel(
            "Learner",
            (Query(_rate(series(learner.ACTIVITY, JOB), "activity"), "{{activity}}"),),
            "Share of its time. Much Batch: starved; more rollouts help.",
            unit="percentunit",
            stacked=True,
        ),
        Panel(
            "Rollouts paused",
            (
                Query(f"sum by (pod) (rate({series(rollout.PAUSED_SECONDS, JOB)}[{WINDOW}]))", "{{pod}}"),
                Query(f"sum({series(rollout.PAUSED, JOB)})", "paused just now"),
            ),
            "Share of its time a rollout is paused by version syncs.",
            unit="percentunit",
        ),
        Panel(
            "What episodes wait for",
            (
                Query(_rate(series(rollout.SAMPLING_SECONDS, JOB)), "the engine"),
                Query(_rate(series(rollout.ENVIRONMENT_SECONDS, JOB)), "their environment"),
                Query(_rate(series(rollout.HELD_SECONDS, JOB)), "an environment that blocks all"),
            ),
            "Episodes' seconds per second, over all rollouts.",
            stacked=True,
        ),
        Panel(
            "Sync phases, p95",
            (Query(quantile(0.95, operator.SYNC_SECONDS, JOB, WINDOW, "phase"), "{{phase}}"),),
            "Over the slowest rollout.",
            unit="s",
        ),
        Panel(
            "Pause and load, p95 over rollouts",
            (
                Query(quantile(0.95, rollout.PAUSE_SECONDS, JOB, WINDOW), "pause"),
                Query(quantile(0.95, rollout.LOAD_SECONDS, JOB, WINDOW), "load"),
            ),
            unit="s",
        ),
        Panel(
            "Syncs",
            (
                Query(or_zero(_rate(series(operator.SYNCS, JOB), "result")), "{{result}}"),
                Query(or_zero(_rate(series(operator.SYNC_FENCED, JOB))), "fenced rollouts"),
                Query(_rate(series(learner.SYNCS, JOB)), "finished, by the learner's count"),
            ),
            unit="ops",
        ),
        Panel("Next batch", (Query(series(learner.BATCH_PROGRESS, JOB), "full"),), unit="percentunit", minimum=0),
    ],
)

THROUGHPUT = Row(
    "How much?",
    [
        Panel(
            "Tokens",
            (
                Query(_rate(series(rollout.SAMPLED_TOKENS, JOB)), "sampled"),
                Query(_rate(series(learner.TRAINED_TOKENS, JOB)), "trained"),
                Query(or_zero(_rate(series(rollout.DISCARDED_TOKENS, JOB))), "thrown away by rollouts"),
            ),
            unit="ops",
        ),
        Panel(
            "Trajectories by end",
            (Query(_rate(series(rollout.TRAJECTORIES, JOB), "end_reason"), "{{end_reason}}"),),
            unit="ops",
            stacked=True,
        ),
        Panel(
            "In the engines",
            (
                Query(series(rollout.REQUESTS, JOB), "requests {{pod}}"),
                Query(series(rollout.EPISODES, JOB), "episodes {{pod}}"),
            ),
        ),
        Panel("Outboxes", (Query(series(rollout.OUTBOX, JOB), "{{pod}}"),)),
        Panel(
            "KV cache",
            (Query(series(rollout.KV_CACHE_USAGE, JOB), "{{pod}}"),),
            unit="percentunit",
            minimum=0,
            maximum=1,
        ),
        Panel(
            "Trained trajectories", (Query(_rate(series(learner.TRAINED_TRAJECTORIES, JOB)), "trained"),), unit="ops"
        ),
        Panel(
            "Weights loaded by rollouts",
            (Query(_rate(series(rollout.LOADS, JOB), "result"), "{{result}}"),),
            unit="ops",
        ),
        Panel("Weights pulled", (Query(_rate(series(rollout.PULLED_BYTES, JOB)), "bytes"),), unit="Bps"),
    ],
)

LEDGER = Row(
    "Where did everything go?",
    [
        Panel("Trajectory attempts", (Query(series(learner.LEDGER_TRAJECTORIES, JOB), "{{fate}}"),)),
        Panel(
            "Discarded trajectories",
            (Query(or_zero(f"sum by (reason) ({series(learner.LEDGER_DISCARDED_TRAJECTORIES, JOB)})"), "{{reason}}"),),
        ),
        Panel(
            "Refused messages",
            (Query(or_zero(f"sum by (reason) ({series(learner.LEDGER_REFUSED, JOB)})"), "{{reason}}"),),
        ),
        Panel("Sampled tokens", (Query(series(learner.LEDGER_TOKENS, JOB), "{{fate}}"),)),
        Panel(
            "Discarded tokens",
            (Query(or_zero(f"sum by (reason) ({series(learner.LEDGER_DISCARDED_TOKENS, JOB)})"), "{{reason}}"),),
        ),
        Panel(
            "Rollouts by state",
            (
                Query(series(learner.MEMBERS, JOB), "{{state}}"),
                Query(series(learner.FENCED, JOB), "fenced so far"),
            ),
        ),
        Panel(
            "Joins",
            (
                Query(series(rollout.JOINS, JOB), "joins of {{pod}}"),
                Query(series(rollout.INCARNATION, JOB), "incarnation of {{pod}}"),
            ),
            "One at start, one after each fencing or lost learner.",
        ),
        Panel(
            "Ledger's equations hold",
            (
                Query(series(learner.LEDGER_BALANCED, JOB), "learner"),
                Query(series(operator.JOB_LEDGER_BALANCED, JOB), "operator"),
            ),
            minimum=0,
            maximum=1,
        ),
        Panel(
            "Failures of roles",
            (Query(or_zero(f"sum by (role) ({series(operator.JOB_FAILURES, JOB)})"), "{{role}}"),),
        ),
    ],
)


def text() -> str:
    """The file."""
    info = operator.JOB_INFO.name
    variables = [
        variable("namespace", "Namespace", f"label_values({info}, asyncppo_namespace)"),
        variable("job", "Job", f'label_values({info}{{asyncppo_namespace="$namespace"}}, asyncppo_job)'),
    ]
    rows = (OVERVIEW, LEARNING, STALENESS, EXACTNESS, OLD_LOGITS, TIME, THROUGHPUT, LEDGER)
    return dashboard("asyncppo-job", "AsyncPPO / Job", "One AsyncPPOJob.", variables, rows)


if __name__ == "__main__":
    generated_file_main(PATH, text)
